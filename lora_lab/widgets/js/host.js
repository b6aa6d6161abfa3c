// A kernel's place on a page: what an anywidget module's render({ model, el }) asks for, from JSON in the page.
// A classic script, as are the panels beside it: browsers refuse ES modules from file://.
//
//     <div data-panel="LoRAPanel"><script type="application/json">{"rank": 8, ...}</script><img ...></div>
//
// The picture goes once the panel is there. A value {"b64": "..."} is bytes; {"data": name, "src": file} is large and lies
// in a script of its own, `labHost.data(name, value)`, which is read when the panel nears the window.
(() => {
  const kept = new Map(); // data by name: a promise, and what resolves it

  function promised(name) {
    if (!kept.has(name)) {
      const entry = {};
      entry.value = new Promise((resolve) => {
        entry.resolve = resolve;
      });
      kept.set(name, entry);
    }
    return kept.get(name);
  }

  function fetched({ data, src }) {
    if (!kept.has(data)) document.head.append(Object.assign(document.createElement("script"), { src }));
    return promised(data).value;
  }

  /** As a kernel would have sent it: bytes arrive as a DataView. */
  async function revived(value) {
    if (typeof value?.b64 === "string") {
      return new DataView(Uint8Array.from(atob(value.b64), (letter) => letter.charCodeAt(0)).buffer);
    }
    return typeof value?.data === "string" ? fetched(value) : value;
  }

  function hostModel(state) {
    const values = new Map(Object.entries(state));
    const heard = new Map();
    const listeners = (event) => heard.get(event) ?? heard.set(event, new Set()).get(event);
    return {
      kernel: false,
      get: (name) => values.get(name),
      set(name, value) {
        if (Object.is(values.get(name), value)) return;
        values.set(name, value);
        for (const event of [`change:${name}`, "change"]) for (const hear of [...listeners(event)]) hear();
      },
      save_changes() {},
      send() {},
      on: (event, hear) => listeners(event).add(hear),
      off: (event, hear) => listeners(event).delete(hear),
    };
  }

  async function mount(place) {
    const name = place.dataset.panel;
    try {
      const state = JSON.parse(place.querySelector("script[type='application/json']").textContent);
      for (const [trait, value] of Object.entries(state)) state[trait] = await revived(value);
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
  globalThis.labHost = { hostModel, data: (name, value) => promised(name).resolve(value) };
  const AHEAD = 600; // pixels below the window that are made ready
  const near = new IntersectionObserver(
    (seen) => {
      for (const { target } of seen.filter((one) => one.isIntersecting)) {
        near.unobserve(target);
        mount(target);
      }
    },
    { rootMargin: `${AHEAD}px` },
  );
  document.addEventListener("DOMContentLoaded", () => {
    for (const place of document.querySelectorAll("[data-panel]")) {
      if (place.getBoundingClientRect().top < innerHeight + AHEAD) mount(place);
      else near.observe(place);
    }
  });
})();
