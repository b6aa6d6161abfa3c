// Replaces the kernel on a page: gives an anywidget module's render({ model, el }) a model made from JSON in the page.
// A classic script, like the panels next to it: browsers refuse ES modules from file://.
//
//     <div data-panel="LoRAPanel"><script type="application/json">{"rank": 8, ...}</script><img ...></div>
//
// The picture is removed once the panel is drawn. A value {"b64": "..."} is bytes.
(() => {
  function hostModel(state) {
    const values = new Map(Object.entries(state));
    const callbacks = new Map();
    const listeners = (event) => callbacks.get(event) ?? [];
    return {
      kernel: false,
      get: (name) => values.get(name),
      set(name, value) {
        if (Object.is(values.get(name), value)) return;
        values.set(name, value);
        for (const callback of [...listeners(`change:${name}`)]) callback();
      },
      on: (event, callback) => callbacks.set(event, [...listeners(event), callback]),
      off: (event, callback) => callbacks.set(event, listeners(event).filter((other) => other !== callback)),
    };
  }

  async function mount(place) {
    const name = place.dataset.panel;
    try {
      const state = JSON.parse(place.querySelector("script[type='application/json']").textContent);
      for (const [trait, value] of Object.entries(state)) {
        if (typeof value?.b64 !== "string") continue;
        state[trait] = new DataView(Uint8Array.from(atob(value.b64), (letter) => letter.charCodeAt(0)).buffer); // as from a kernel
      }
      const el = document.createElement("div");
      const model = hostModel(state);
      place.append(el);
      await globalThis.labPanels[name].render({ model, el });
      place.querySelector("img")?.remove();
      place.model = model;
    } catch (error) {
      console.error(`${name}:`, error); // keep the static image
    }
  }

  globalThis.labPanels = {};
  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("[data-panel]").forEach(mount));
})();
