// What every panel is: a card in a shadow root, drawn again whenever a trait or a control changes.
//
//     export default panel({ title, css, traits, body, start });
//
// traits   { name: value where the model has none }; a change of any of them redraws
// body     markup of the card, made once; see controls.js
// start    (p) => { actions, draw }: called once. `actions` has a function for each control's name, which gets the new
//          value. `draw()` writes the picture with `p.picture` and the rest with `p.fill`, and returns the conclusion in
//          words, which a screen reader hears once they stand still.

import PANEL_CSS from "./panel.css";
import { nearest, pastRepeats } from "./controls.js";
import { clamp, escape, plain } from "./format.js";
import { followPage } from "./theme.js";

const SPEAK = 400; // milliseconds: a screen reader hears where a drag ends, not every step of it
const SOON = 500; // milliseconds that a kernel may take before the panel says that it waits
const LATE = 5000; // and before it says why that may be
const ENDED = ["restarting", "autorestarting", "terminating", "dead"]; // a kernel that has forgotten the panel
const THUMB = 18; // pixels; the middle of the thumb stays this far / 2 from the ends of the track

export function panel({ title, css = "", traits, body, start }) {
  function render({ model, el }) {
    const host = document.createElement("div");
    const root = host.attachShadow({ mode: "open" });
    const card = document.createElement("div");
    const still = matchMedia("(prefers-reduced-motion: reduce)");
    const stops = new Map(); // of the sliders, by name
    let pressed = false; // whether a pointer is down on the card
    let busy = false;
    const widths = new WeakMap(); // of the elements of class "drawn", which hold a picture each
    let frame;
    let speak;
    let drawing;
    let gone = false; // whether the kernel has forgotten this panel
    let owed; // what a kernel was asked: { answer: a trait's name, words, timers }

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
      width: (selector = ".picture") => widths.get(one(selector)),
      dark: () => card.classList.contains("dark"),
      kernel: model.kernel !== false, // false on a page: nothing can be computed there that this file does not compute
      gone: () => gone,
      waits: () => Boolean(owed),

      /** Set traits together: one redraw. A kernel hears of them when the drag ends. */
      set(values) {
        busy = true;
        for (const [name, value] of Object.entries(values)) model.set(name, value);
        busy = false;
        p.redraw();
      },

      save() {
        model.save_changes?.();
      },

      /** Ask the kernel for something. Until the trait `answer` comes back the panel says that it waits. */
      ask(answer, content) {
        p.save();
        answered();
        const say = (words) => () => {
          owed.words = words;
          p.redraw();
        };
        const late = "Waiting for the kernel: it is busy, perhaps with another cell. If it was restarted, run this cell again.";
        owed = { answer, words: "", timers: [setTimeout(say("Waiting for the kernel."), SOON), setTimeout(say(late), LATE)] };
        model.send?.(content);
        p.redraw();
      },

      /** `quietly`, where nobody changed anything: at the start, and when the page's width changes. */
      redraw(quietly = false) {
        if (busy) return;
        const began = performance.now();
        const drawn = drawing.draw();
        const kernel = gone ? "The kernel was restarted or has ended. What you see is kept; run this cell again to go on." : (owed?.words ?? "");
        one(".kernel").textContent = kernel;
        const words = kernel ? `${kernel} ${drawn}` : drawn;
        if (quietly !== true) {
          clearTimeout(speak);
          speak = setTimeout(() => {
            one("[role=status]").textContent = plain(words);
          }, SPEAK);
        }
        host.dataset.milliseconds = (performance.now() - began).toFixed(2); // read by tests and benchmarks
      },

      /** The picture: SVG of this height in pixels, and what it shows in words. */
      picture(svg, height, alt, selector = ".picture svg") {
        const drawn = one(selector);
        drawn.style.height = `${Math.ceil(height)}px`;
        drawn.setAttribute("aria-label", alt);
        drawn.innerHTML = svg;
      },

      /** Markup into the elements of these selectors. */
      fill(markup) {
        for (const [selector, inner] of Object.entries(markup)) one(selector).innerHTML = inner;
      },

      /** Show these controls (the names given to `data-for`) and hide all others. */
      offer(names) {
        for (const area of card.querySelectorAll("[data-for]")) area.hidden = !names.includes(area.dataset.for);
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

      /** Check the radios or boxes of a name that are among the values. */
      check(name, values) {
        for (const input of card.querySelectorAll(`input[name=${name}]`)) input.checked = values.includes(input.value);
      },

      /** The options of a menu, [value, label] each, written only when they have changed, and the one that is chosen. */
      choose(name, all, chosen) {
        const select = one(`select[name=${name}]`);
        const markup = all.map(([value, label]) => `<option value="${escape(value)}">${escape(label)}</option>`).join("");
        if (select.dataset.markup !== markup) {
          select.dataset.markup = markup;
          select.innerHTML = markup;
        }
        select.value = chosen ?? "";
      },

      /** Call tick(t) for t from 0 to 1, then redraw; for those who want no motion only with 1. */
      play(milliseconds, tick, then = () => {}) {
        p.stop();
        const began = performance.now();
        const next = (now) => {
          const t = still.matches ? 1 : clamp((now - began) / milliseconds);
          tick(t);
          if (t === 1) then();
          p.redraw();
          if (t < 1) frame = requestAnimationFrame(next);
        };
        next(began);
      },

      stop() {
        cancelAnimationFrame(frame);
      },

      /** `grab(target)` gives { move(x, y), end() } where something can be pulled; x and y are pixels of the picture. */
      drag(grab, selector = ".picture svg") {
        const drawn = one(selector);
        drawn.addEventListener("pointerdown", (event) => {
          const box = drawn.getBoundingClientRect();
          const place = (moved) => [moved.clientX - box.left, moved.clientY - box.top];
          const held = event.button === 0 && grab(event.target, ...place(event));
          if (!held) return;
          const move = (moved) => held.move(...place(moved));
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
      owed?.timers.forEach(clearTimeout);
      owed = undefined;
    }

    card.addEventListener("pointerdown", () => {
      pressed = true;
    });
    const released = () => {
      pressed = false;
    };
    for (const event of ["pointerup", "pointercancel"]) window.addEventListener(event, released);
    card.addEventListener("input", ({ target }) => {
      const action = drawing.actions[target.name];
      const values = target.type === "range" && stops.get(target.name);
      if (values) {
        const at = pressed ? Number(target.value) : pastRepeats(values, Number(target.dataset.at), Number(target.value));
        target.value = at;
        action(values[at]);
      } else {
        action?.(target.type === "range" ? Number(target.value) : target.value, target);
      }
    });
    card.addEventListener("click", ({ target }) => {
      const pushed = target.closest("button");
      if (!pushed) return;
      drawing.actions[pushed.name]();
      p.save();
    });
    card.addEventListener("change", p.save); // the end of a drag on a slider
    card.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation());

    drawing = start(p);
    const unfollow = followPage(el, card);
    let queued = false; // a kernel sets several traits at once: one redraw
    const changed = () => {
      if (queued) return;
      queued = true;
      queueMicrotask(() => {
        queued = false;
        p.redraw();
      });
    };
    const heard = Object.keys(traits).map((name) => [`change:${name}`, () => {
      if (busy) return;
      if (owed?.answer === name) answered();
      changed();
    }]);
    for (const [event, hear] of heard) model.on(event, hear);
    const forget = () => {
      gone = true;
      answered();
      p.redraw();
    };
    const status = model.widget_manager?.kernel?.statusChanged; // in JupyterLab; a model hears of a restart elsewhere too
    const look = (_, now) => ENDED.includes(now) && forget();
    status?.connect(look);
    model.on("comm_live_update", forget);
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
      model.off("comm_live_update", forget);
      unfollow();
      sized.disconnect();
      for (const event of ["pointerup", "pointercancel"]) window.removeEventListener(event, released);
      for (const [event, hear] of heard) model.off(event, hear);
    };
  }
  return { render };
}
