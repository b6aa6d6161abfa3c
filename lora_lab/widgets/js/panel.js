// What every panel is: a card in a shadow root, drawn again whenever a trait or a control changes.
//
//     export default panel({ title, css, traits, body, start });
//
// traits   { name: value where the model has none }; a change of any of them redraws
// body     markup of the card, made once; see controls.js
// start    (p) => { actions, draw }: called once. `draw()` writes the picture with `p.picture` and the rest with `p.fill`,
//          and returns the conclusion in words, which a screen reader hears once they stand still. `actions` has functions
//          by the names of controls, which get the new value; a control that has none sets the trait of its name (of boxes the
//          list of those that are checked), or else the panel's own state.

import PANEL_CSS from "./panel.css";
import { choices, nearest, options, pastRepeats } from "./controls.js";
import { clamp, plain } from "./format.js";
import { followPage } from "./theme.js";

const SPEAK = 400; // milliseconds: a screen reader hears where a drag ends, not every step of it
const SOON = 500; // milliseconds that a kernel may take before the panel says that it waits
const ENDED = ["restarting", "autorestarting", "terminating", "dead"]; // a kernel that has forgotten the panel
const GONE = "The kernel was restarted or has ended. What you see is kept; run this cell again to go on.";
const WAITS = "Waiting for the kernel, which may be busy with another cell. If it was restarted, run this cell again.";
const THUMB = 18; // pixels; the middle of the thumb stays this far / 2 from the ends of the track

export function panel({ title, css = "", traits, body, start }) {
  function render({ model, el }) {
    const host = document.createElement("div");
    const root = host.attachShadow({ mode: "open" });
    const card = document.createElement("div");
    const still = matchMedia("(prefers-reduced-motion: reduce)");
    const stops = new Map(); // of the sliders, by name
    const written = new WeakMap(); // the markup of elements, to write only what is new: what has the focus keeps it
    const widths = new WeakMap(); // of the elements of class "drawn", which hold a picture each
    const ui = {}; // the panel's own state, which no kernel hears of
    let busy = false;
    let frame;
    let speak;
    let drawing;
    let tables; // makes those that are folded away
    let gone = false; // whether the kernel has forgotten this panel
    let halts = false; // whether its work was told to stop
    let owed; // what a kernel was asked: { answer: a trait's name, words, timer }

    host.className = "lab-panel";
    host.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes the arrow keys to go from cell to cell
    card.className = "card";
    card.setAttribute("role", "group");
    card.setAttribute("aria-label", title);
    const below = body.includes('class="kernel"') ? "" : '<p class="kernel"></p>';
    card.innerHTML = `${body}${below}<div class="spoken" role="status"></div>`;
    root.innerHTML = `<style>${PANEL_CSS}${css}</style>`;
    root.append(card);

    const one = (selector) => card.querySelector(selector);
    const p = {
      card,
      one,
      get: (name) => model.get(name) ?? traits[name],
      width: (name = "picture") => widths.get(one(`.${name}`)),
      dark: () => card.classList.contains("dark"),
      kernel: model.kernel !== false, // false on a page: nothing can be computed there that this file does not compute
      gone: () => gone,
      waits: () => Boolean(owed),
      save: () => model.save_changes?.(),

      /** Set traits together: one redraw. A kernel hears of them when the drag ends. */
      set(values) {
        busy = true;
        for (const [name, value] of Object.entries(values)) model.set(name, value);
        busy = false;
        p.redraw();
      },

      /** The panel's own state, with these values. */
      keep: (values) => Object.assign(ui, values),

      /** Change the panel's own state: what plays ends, and it is drawn again. */
      show(values) {
        p.stop();
        p.keep(values);
        p.redraw();
      },

      /** Ask the kernel for something. Until the trait `answer` comes back the panel says that it waits. */
      ask(answer, content) {
        p.save();
        answered();
        const say = () => {
          owed.words = WAITS;
          p.redraw();
        };
        owed = { answer, words: "", timer: setTimeout(say, SOON) };
        model.send?.(content);
        p.redraw();
      },

      /** The trait "live", what the kernel is at: not busy once it is gone; `halts` after `p.halt()`. */
      live() {
        const live = p.get("live");
        if (!live.busy) halts = false;
        return { ...live, busy: Boolean(live.busy) && !gone, state: gone ? "" : live.state, halts };
      },

      halt() {
        halts = true;
        p.ask("live", { do: "stop" });
      },

      /** `quietly`, where nobody changed anything: at the start, and when the page's width changes. */
      redraw(quietly = false) {
        if (busy) return;
        const began = performance.now();
        const drawn = drawing.draw();
        const kernel = gone ? GONE : (owed?.words ?? "");
        one(".kernel").textContent = kernel;
        if (!quietly) {
          clearTimeout(speak);
          speak = setTimeout(() => {
            one("[role=status]").textContent = plain(kernel ? `${kernel} ${drawn}` : drawn);
          }, SPEAK);
        }
        host.dataset.milliseconds = (performance.now() - began).toFixed(2); // read by tests and benchmarks
      },

      /** A picture { svg, height } into the element of a class, and what it shows in words. */
      picture({ svg, height }, alt, name = "picture") {
        const drawn = one(`.${name} svg`);
        drawn.style.height = `${Math.ceil(height)}px`;
        drawn.setAttribute("aria-label", alt);
        drawn.innerHTML = svg;
      },

      /** Markup into the elements of these selectors. */
      fill(markup) {
        for (const [selector, inner] of Object.entries(markup)) {
          const element = one(selector);
          if (written.get(element) === inner) continue;
          written.set(element, inner);
          element.innerHTML = inner;
        }
      },

      /** The tables that are folded away, each made by a function once somebody wants to see them. */
      numbers(...makers) {
        tables = () => makers.map((make) => `<table class="all">${make()}</table>`).join("");
        if (one("details").open) p.fill({ "details .scrolls": tables() });
      },

      /** { name: whether what has `data-for` that name is there }. */
      offer(names) {
        for (const area of card.querySelectorAll("[data-for]")) area.hidden = !(names[area.dataset.for] ?? true);
      },

      /** A button: its words where they change, whether it is hidden, and whether it does nothing now. */
      button(name, { words, hidden = false, off = false }) {
        if (words !== undefined) p.fill({ [`button[name=${name}]`]: words });
        Object.assign(one(`button[name=${name}]`), { hidden, disabled: off });
      },

      /** How much of the work is done, from 0 to 1; undefined: nothing is at work. */
      progress(share) {
        Object.assign(one("progress"), { hidden: share === undefined, value: share ?? 0 });
      },

      /** Bring a slider to a value: one of its stops, or a position up to `most`. */
      slide(name, { values, most, value, words, spoken = words }) {
        const input = one(`input[name=${name}]`);
        if (values) stops.set(name, values);
        const last = values ? values.length - 1 : most;
        input.max = last;
        if (!values) input.value = value;
        else if (values[input.value] !== value) input.value = nearest(values, value);
        input.style.setProperty("--at", p.along(last ? input.value / last : 0));
        input.setAttribute("aria-valuetext", plain(spoken));
        one(`[data-for=${name}] b`).innerHTML = words;
        input.dataset.at = input.value;
      },

      /** A share of a slider's track as a CSS length. */
      along: (share) => `calc(${THUMB / 2}px + (100% - ${THUMB}px) * ${share})`,

      /** Check the radios or boxes of a name that are among the values; `all` where the choices change: [value, label]. */
      check(name, values, all) {
        if (all) {
          const type = one(`.switches[data-for=${name}]`) ? "checkbox" : "radio";
          p.fill({ [`[data-for=${name}] .choices`]: choices(type, name, all) });
        }
        for (const input of card.querySelectorAll(`input[name=${name}]`)) input.checked = values.includes(input.value);
      },

      /** The options of a menu, [value, label] each, and the one that is chosen. */
      choose(name, all, chosen = "") {
        p.fill({ [`select[name=${name}]`]: options(all) });
        one(`select[name=${name}]`).value = chosen;
      },

      /** Call tick(t) for t from 0 to 1, then redraw; for those who want no motion only with 1. */
      play(milliseconds, tick) {
        p.stop();
        const began = performance.now();
        const next = (now) => {
          const t = still.matches ? 1 : clamp((now - began) / milliseconds);
          tick(t);
          p.redraw();
          if (t < 1) frame = requestAnimationFrame(next);
        };
        next(began);
      },

      stop: () => cancelAnimationFrame(frame),

      /** `grab(target, x, y)`, in pixels, gives { move(x, y), end(x, y) } for what can be pulled, true for a mere press. */
      drag(grab, name = "picture") {
        const drawn = one(`.${name} svg`);
        drawn.addEventListener("pointerdown", (event) => {
          const box = drawn.getBoundingClientRect();
          const scale = p.width(name) / box.width; // a projector's panel is enlarged
          const place = (moved) => [scale * (moved.clientX - box.left), scale * (moved.clientY - box.top)];
          const held = event.button === 0 && grab(event.target, ...place(event));
          if (!held) return;
          const move = (moved) => held.move?.(...place(moved));
          const end = (moved) => {
            drawn.removeEventListener("pointermove", move);
            held.end?.(...place(moved));
            p.save();
          };
          event.preventDefault();
          p.stop();
          drawn.setPointerCapture(event.pointerId);
          drawn.addEventListener("pointermove", move);
          drawn.addEventListener("lostpointercapture", end, { once: true });
        });
      },
    };

    function answered() {
      clearTimeout(owed?.timer);
      owed = undefined;
    }

    function act(name, value) {
      const action = drawing.actions[name];
      const checked = () => Array.from(card.querySelectorAll(`input[name=${name}]:checked`), (one) => one.value);
      if (action) action(value);
      else if (name in traits) p.set({ [name]: Array.isArray(traits[name]) ? checked() : value });
      else p.show({ [name]: value });
    }

    card.addEventListener("input", ({ target }) => {
      const { name, value } = target;
      const values = stops.get(name);
      if (target.type !== "range") act(name, value);
      else if (!values) act(name, Number(value));
      else {
        const keyed = !target.matches(":active"); // and not dragged
        target.value = keyed ? pastRepeats(values, Number(target.dataset.at), Number(value)) : value;
        act(name, values[target.value]);
      }
    });
    card.addEventListener("click", ({ target }) => {
      const pushed = target.closest("button");
      if (!pushed) return;
      (drawing.actions[pushed.name] ?? p[pushed.name])(); // p.halt
      p.save();
    });
    card.addEventListener("change", p.save); // the end of a drag on a slider
    card.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation());
    one("details")?.addEventListener("toggle", () => tables && p.redraw(true));

    drawing = start(p);
    const unfollow = followPage(el, card);
    let queued; // a kernel sets several traits at once: one redraw
    const drawOnce = () => {
      queued = undefined;
      p.redraw();
    };
    const forget = () => {
      gone = true;
      answered();
      p.redraw();
    };
    const hear = (name) => () => {
      if (busy) return;
      if (owed?.answer === name) answered();
      queued ??= Promise.resolve().then(drawOnce);
    };
    const heard = [["comm_live_update", forget], ...Object.keys(traits).map((name) => [`change:${name}`, hear(name)])];
    for (const [event, react] of heard) model.on(event, react);
    const status = model.widget_manager?.kernel?.statusChanged; // in JupyterLab; a model hears of a restart elsewhere too
    const look = (_, now) => ENDED.includes(now) && forget();
    status?.connect(look);
    el.append(host);
    const sized = new ResizeObserver((entries) => {
      for (const { target, contentRect } of entries) {
        if (contentRect.width) widths.set(target, Math.floor(contentRect.width)); // 0: it is hidden
      }
      p.redraw(true);
    });
    for (const drawn of card.querySelectorAll(".drawn")) {
      widths.set(drawn, drawn.clientWidth || 300); // not in a page yet: the observer draws it once more
      sized.observe(drawn);
    }
    p.redraw(true);
    return () => {
      p.stop();
      clearTimeout(speak);
      answered();
      status?.disconnect(look);
      unfollow();
      sized.disconnect();
      for (const [event, react] of heard) model.off(event, react);
    };
  }
  return { render };
}
