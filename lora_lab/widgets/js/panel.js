// The base of every panel: a card in a shadow root, redrawn whenever a trait or a control changes.
//
//     export default panel({ title, css, traits, body, start });
//
// traits   { name: default value }; a change of any of them redraws
// body     markup of the card, created once; see controls.js
// start    (p) => { actions, draw }: called once. `draw()` writes the picture with `p.picture` and the rest with `p.fill`,
//          and returns the conclusion in words, which a screen reader announces once they stop changing. `actions` maps
//          control names to functions of the new value; a control without an action sets the trait of the same name (for
//          checkboxes, the list of checked values), or else the panel's own state.

import PANEL_CSS from "./panel.css";
import { choices, nearest, pastRepeats } from "./controls.js";
import { clamp, escape, plain } from "./format.js";
import { followPage } from "./theme.js";

const SPEAK = 400; // milliseconds: a screen reader announces where a drag ends, not every step of it
const SOON = 500; // milliseconds before the panel says that it is waiting for the kernel
const ENDED = ["restarting", "autorestarting", "terminating", "dead"]; // states of a kernel that has lost the panel
const GONE = "The kernel was restarted or has ended. The panel keeps what it shows; run this cell again to continue.";
const WAITS = "Waiting for the kernel, which may be busy with another cell. If it was restarted, run this cell again.";
const THUMB = 18; // width in pixels; the thumb's center stays half this width away from the ends of the track

export function panel({ title, css = "", traits, body, start }) {
  function render({ model, el }) {
    const host = document.createElement("div");
    const root = host.attachShadow({ mode: "open" });
    const card = document.createElement("div");
    const still = matchMedia("(prefers-reduced-motion: reduce)");
    const stops = new Map(); // of the sliders, by name
    const written = new WeakMap(); // each element's markup: only changes are written, so that the focus is kept
    const widths = new WeakMap(); // of the elements with class "drawn", which hold one picture each
    const ui = {}; // the panel's own state, never sent to a kernel
    let busy = false;
    let frame;
    let speak;
    let drawing;
    let tables; // renders the folded tables
    let gone = false; // whether the kernel has lost this panel
    let halts = false; // whether the panel's work was told to stop
    let pending; // a request to the kernel: { answer: a trait's name, words, timer }

    host.className = "lab-panel";
    host.dataset.lmSuppressShortcuts = "true"; // otherwise, JupyterLab uses the arrow keys to move between cells
    card.className = "card";
    card.setAttribute("role", "group");
    card.setAttribute("aria-label", title);
    const kernelNote = body.includes('class="kernel"') ? "" : '<p class="kernel"></p>';
    card.innerHTML = `${body}${kernelNote}<div class="spoken" role="status"></div>`;
    root.innerHTML = `<style>${PANEL_CSS}${css}</style>`;
    root.append(card);

    const find = (selector) => card.querySelector(selector);
    const p = {
      card,
      find,
      get: (name) => model.get(name) ?? traits[name],
      values: (names) => Object.fromEntries(names.map((name) => [name, p.get(name)])),
      width: (name = "picture") => widths.get(find(`.${name}`)),
      dark: () => card.classList.contains("dark"),
      kernel: model.kernel !== false, // false on a page, where only the browser can compute
      gone: () => gone,
      waits: () => Boolean(pending),
      save: () => model.save_changes?.(),

      /** Set several traits with one redraw. A kernel receives them when the drag ends. */
      set(values) {
        busy = true;
        for (const [name, value] of Object.entries(values)) model.set(name, value);
        busy = false;
        p.redraw();
      },

      /** Update the panel's own state without redrawing, and return it. */
      keep: (values) => Object.assign(ui, values),

      /** Update the panel's own state, stop any animation, and redraw. */
      show(values) {
        p.stop();
        p.keep(values);
        p.redraw();
      },

      /** Send a request to the kernel. Until the trait `answer` changes, the panel says that it is waiting. */
      ask(answer, content) {
        p.save();
        clearPending();
        const showWaiting = () => {
          pending.words = WAITS;
          p.redraw();
        };
        pending = { answer, words: "", timer: setTimeout(showWaiting, SOON) };
        model.send?.(content);
        p.redraw();
      },

      /** The trait "live", the kernel's progress: `busy` is false once the kernel is gone, and `halts` is true after `p.halt()`. */
      live() {
        const live = p.get("live");
        if (!live.busy) halts = false;
        return { ...live, busy: Boolean(live.busy) && !gone, state: gone ? "" : live.state, halts };
      },

      halt() {
        halts = true;
        p.ask("live", { do: "stop" });
      },

      /** Redraw. Pass `quietly` if nobody changed anything (at the start, on a resize): nothing is announced then. */
      redraw(quietly = false) {
        if (busy) return;
        const began = performance.now();
        const drawn = drawing.draw();
        const kernel = gone ? GONE : (pending?.words ?? "");
        find(".kernel").textContent = kernel;
        if (!quietly) {
          clearTimeout(speak);
          speak = setTimeout(() => {
            find("[role=status]").textContent = plain(kernel ? `${kernel} ${drawn}` : drawn);
          }, SPEAK);
        }
        host.dataset.milliseconds = (performance.now() - began).toFixed(2); // read by tests and benchmarks
      },

      /** Put a picture { svg, height } into the element with class `name`, with its description for screen readers. */
      picture({ svg, height }, alt, name = "picture") {
        const drawn = find(`.${name} svg`);
        drawn.style.height = `${Math.ceil(height)}px`;
        drawn.setAttribute("aria-label", alt);
        drawn.innerHTML = svg;
      },

      /** Write markup into elements: { selector: markup }. */
      fill(markup) {
        for (const [selector, inner] of Object.entries(markup)) {
          const element = find(selector);
          if (written.get(element) === inner) continue;
          written.set(element, inner);
          element.innerHTML = inner;
        }
      },

      /** Set the collapsible tables; each has a function that renders it, called only while the section is open. */
      numbers(...makers) {
        tables = () => makers.map((make) => `<table class="all">${make()}</table>`).join("");
        if (find("details").open) p.fill({ "details .scrolls": tables() });
      },

      /** Show or hide the elements with `data-for`: { name: whether to show }. */
      offer(names) {
        for (const area of card.querySelectorAll("[data-for]")) area.hidden = !(names[area.dataset.for] ?? true);
      },

      /** Update a button: its text, whether it is hidden, and whether it is off. A disabled button would lose the focus. */
      button(name, { words, hidden = false, off = false }) {
        if (words !== undefined) p.fill({ [`button[name=${name}]`]: words });
        find(`button[name=${name}]`).hidden = hidden;
        find(`button[name=${name}]`).setAttribute("aria-disabled", off);
      },

      /** Show the share of the work that is done, from 0 to 1; undefined hides the bar. */
      progress(share) {
        Object.assign(find("progress"), { hidden: share === undefined, value: share ?? 0 });
      },

      /** Move a slider to a value: one of its stops, or a position up to `most`. */
      slide(name, { values, most, value, words, spoken = words }) {
        const input = find(`input[name=${name}]`);
        if (values) stops.set(name, values);
        const last = values ? values.length - 1 : most;
        input.max = last;
        if (!values) input.value = value;
        else if (values[input.value] !== value) input.value = nearest(values, value);
        input.style.setProperty("--at", p.along(last ? input.value / last : 0));
        input.setAttribute("aria-valuetext", plain(spoken));
        find(`[data-for=${name}] b`).innerHTML = words;
        input.dataset.at = input.value;
      },

      /** The CSS length for a share of a slider's track. */
      along: (share) => `calc(${THUMB / 2}px + (100% - ${THUMB}px) * ${share})`,

      /** Check the radios or checkboxes whose values are listed; pass `all`, [value, label] pairs, if the choices change. */
      check(name, values, all) {
        if (all) {
          const type = find(`.switches[data-for=${name}]`) ? "checkbox" : "radio";
          p.fill({ [`[data-for=${name}] .choices`]: choices(type, name, all) });
        }
        for (const input of card.querySelectorAll(`input[name=${name}]`)) input.checked = values.includes(input.value);
      },

      /** Set the options of a menu, [value, label] pairs, and the selected value. */
      choose(name, all, chosen = "") {
        const option = ([value, label]) => `<option value="${escape(value)}">${escape(label)}</option>`;
        p.fill({ [`select[name=${name}]`]: all.map(option).join("") });
        find(`select[name=${name}]`).value = chosen;
      },

      /** Animate: call tick(t) for t from 0 to 1 and redraw; only tick(1) if the user prefers reduced motion. */
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

      /** `grab(target, x, y)`, in pixels, returns { move(x, y), end(x, y, scrolls) } to start a drag, or true for a click. */
      drag(grab, name = "picture") {
        const drawn = find(`.${name} svg`);
        drawn.addEventListener("pointerdown", (event) => {
          const box = drawn.getBoundingClientRect();
          const scale = p.width(name) / box.width; // panels are enlarged on a projector
          const position = ({ clientX, clientY }) => [scale * (clientX - box.left), scale * (clientY - box.top)];
          const held = event.button === 0 && grab(event.target, ...position(event));
          if (!held) return;
          let scrolls = false; // whether the browser took over the touch, to scroll the page
          const move = (moved) => held.move?.(...position(moved));
          const end = (moved) => {
            drawn.removeEventListener("pointermove", move);
            held.end?.(...position(moved), scrolls);
            p.save();
          };
          event.preventDefault();
          p.stop();
          drawn.setPointerCapture(event.pointerId);
          drawn.addEventListener("pointermove", move);
          drawn.addEventListener("pointercancel", () => (scrolls = true), { once: true });
          drawn.addEventListener("lostpointercapture", end, { once: true });
        });
      },
    };

    function clearPending() {
      clearTimeout(pending?.timer);
      pending = undefined;
    }

    function act(name, value) {
      const action = drawing.actions[name];
      const checked = () => Array.from(card.querySelectorAll(`input[name=${name}]:checked`), (input) => input.value);
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
        const keyed = !target.matches(":active"); // moved by a key, not dragged
        target.value = keyed ? pastRepeats(values, Number(target.dataset.at), Number(value)) : value;
        act(name, values[target.value]);
      }
    });
    card.addEventListener("click", ({ target }) => {
      const clicked = target.closest("button");
      if (!clicked || clicked.matches('[aria-disabled="true"]')) return;
      ({ halt: p.halt, ...drawing.actions })[clicked.name]();
      p.save();
    });
    card.addEventListener("change", p.save); // the end of a drag on a slider
    card.addEventListener("keydown", (event) => {
      const save = event.key === "s" && (event.ctrlKey || event.metaKey); // JupyterLab receives it only outside the host
      if (event.key !== "Escape") event.stopPropagation();
      if (save && !el.dispatchEvent(new KeyboardEvent("keydown", event))) event.preventDefault();
    });
    find("details")?.addEventListener("toggle", () => tables && p.redraw(true));

    drawing = start(p);
    let queued; // one redraw when a kernel sets several traits at once
    const markGone = () => {
      gone = true;
      clearPending();
      p.redraw();
    };
    const traitChanged = (name) => () => {
      if (busy) return;
      if (pending?.answer === name || (name === "live" && p.get(name).error)) clearPending(); // an error may be the answer
      queued ??= Promise.resolve().then(() => {
        queued = undefined;
        p.redraw();
      });
    };
    const events = [["comm_live_update", markGone], ...Object.keys(traits).map((name) => [`change:${name}`, traitChanged(name)])];
    for (const [event, react] of events) model.on(event, react);
    const kernel = model.widget_manager?.kernel; // only in JupyterLab; elsewhere the model gets an event
    const onStatus = (_, now) => ENDED.includes(now) && markGone();
    kernel?.statusChanged?.connect(onStatus);
    kernel?.disposed?.connect(markGone); // it was shut down
    el.append(host);
    const observer = new ResizeObserver((entries) => {
      for (const { target, contentRect } of entries) {
        if (contentRect.width) widths.set(target, Math.floor(contentRect.width)); // 0 if hidden
      }
      p.redraw(true);
    });
    for (const drawn of card.querySelectorAll(".drawn")) {
      widths.set(drawn, drawn.clientWidth || 300); // not on a page yet; the observer redraws it
      observer.observe(drawn);
    }
    const unfollow = followPage(el, card, () => p.redraw(true));
    return () => {
      p.stop();
      clearTimeout(speak);
      clearPending();
      kernel?.statusChanged?.disconnect(onStatus);
      kernel?.disposed?.disconnect(markGone);
      unfollow();
      observer.disconnect();
      for (const [event, react] of events) model.off(event, react);
    };
  }
  return { render };
}
