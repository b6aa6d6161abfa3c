// A kernel's place on a page: what an anywidget module's render({ model, el }) asks for, from JSON in the page.
// A classic script, as are the panels beside it: browsers refuse ES modules from file://.
//
//     <div data-panel="LoRAPanel"><script type="application/json">{"rank": 8, ...}</script><img ...></div>
//
// The picture goes once the panel is there. A value {"b64": "..."} is bytes.
(() => {
  /** As a kernel would have sent it: bytes arrive as a DataView. */
  function revived(value) {
    if (typeof value?.b64 !== "string") return value;
    return new DataView(Uint8Array.from(atob(value.b64), (letter) => letter.charCodeAt(0)).buffer);
  }

  function hostModel(state) {
    const values = new Map(Object.entries(state));
    const heard = new Map();
    const listeners = (event) => heard.get(event) ?? [];
    return {
      kernel: false,
      get: (name) => values.get(name),
      set(name, value) {
        if (Object.is(values.get(name), value)) return;
        values.set(name, value);
        for (const hear of [...listeners(`change:${name}`)]) hear();
      },
      on: (event, hear) => heard.set(event, [...listeners(event), hear]),
      off: (event, hear) => heard.set(event, listeners(event).filter((one) => one !== hear)),
    };
  }

  async function mount(place) {
    const name = place.dataset.panel;
    try {
      const state = JSON.parse(place.querySelector("script[type='application/json']").textContent);
      for (const [trait, value] of Object.entries(state)) state[trait] = revived(value);
      const el = document.createElement("div");
      const model = hostModel(state);
      place.append(el);
      await globalThis.labPanels[name].render({ model, el });
      place.querySelector("img")?.remove();
      place.model = model;
    } catch (problem) {
      console.error(`${name}:`, problem); // the still picture stays
    }
  }

  globalThis.labPanels = {};
  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("[data-panel]").forEach(mount));
})();
