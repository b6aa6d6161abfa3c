// What the stock controls lack: names for sliders, states for buttons, a focus that is seen, a voice for the words.

const CSS = `
.lora-panel.lora-panel.lora-panel :focus-visible { outline: 3px solid #D55E00 !important; outline-offset: 1px; }
.lora-panel .widget-readout { overflow: visible; }
.lora-panel .noUi-handle:focus-visible { outline-offset: 2px; }
.lora-panel .widget-html-content { line-height: 1.5; min-width: 0; }
.lora-panel .widget-html-content :is(th, td) { text-align: left; padding: 1px 8px 1px 2px; line-height: 1.4; }
.lora-panel .widget-gridbox .jupyter-button { white-space: normal; height: auto; min-height: 28px; padding: 2px; line-height: 1.3; }
.lora-panel .mod-active { font-weight: 600; box-shadow: inset 0 -3px currentcolor; }
.lora-spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`;
const WATCHED = { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["class", "aria-valuetext", "disabled"] };
const REST = 1000; // milliseconds that the words must stand still before they are spoken

function set(element, name, value) {
  if (element && element.getAttribute(name) !== value) element.setAttribute(name, value); // else it would hear itself
}

const text = (element) => element?.textContent.trim() ?? "";

/** Names and values of everything that is in a panel now. */
function name(panel) {
  for (const slider of panel.querySelectorAll(".widget-slider")) {
    const handle = slider.querySelector(".noUi-handle"), readout = slider.querySelector(".widget-readout");
    set(handle, "aria-label", text(slider.querySelector(".widget-label")));
    set(handle, "aria-valuetext", text(readout)); // and not the number of the stop
    set(handle, "aria-disabled", String(slider.querySelector(".noUi-target")?.hasAttribute("disabled") ?? false));
    if (!slider.classList.contains("lora-typed")) { // among stops there is nothing to type, yet it takes the focus
      set(readout, "contenteditable", "false");
    } else if (readout) {
      set(readout, "role", "textbox");
      set(readout, "aria-label", `${text(slider.querySelector(".widget-label"))}, typed`);
    }
  }
  for (const group of panel.querySelectorAll(".lora-group")) { // boxes to tick, behind their common name
    set(group, "role", "group");
    set(group, "aria-label", text(group.querySelector(".widget-html-content")));
  }
  for (const bar of panel.querySelectorAll(".progress")) set(bar, "aria-hidden", "true"); // the words say how far it is
}

/** Keys that are pressed in a panel stay there; Escape goes on to the notebook. */
function keep(event) {
  if (event.key !== "Escape") event.stopPropagation();
}

function render({ model, el }) {
  const spoken = document.createElement("div"), style = document.createElement("style");
  let watcher, soon, last = "";
  style.textContent = CSS;
  spoken.className = "lora-spoken";
  spoken.setAttribute("role", "status");
  el.append(style, spoken);

  function speak(panel) {
    const words = text(panel.querySelector(".lora-words"));
    if (words === last) return;
    clearTimeout(soon); // while it trains the words change four times a second
    soon = setTimeout(() => { spoken.textContent = last = words; }, REST);
  }

  function begin() {
    const panel = el.closest(".lora-panel");
    if (!panel) return void requestAnimationFrame(begin); // it is rendered before it is put into the page
    set(panel, "role", "group");
    set(panel, "aria-label", model.get("title"));
    panel.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes a menu's arrow keys to go from cell to cell
    panel.addEventListener("keydown", keep);
    const look = () => { name(panel); speak(panel); };
    last = text(panel.querySelector(".lora-words"));
    watcher = new MutationObserver(look);
    watcher.observe(panel, WATCHED);
    look();
  }

  begin();
  return () => { watcher?.disconnect(); clearTimeout(soon); el.closest(".lora-panel")?.removeEventListener("keydown", keep); };
}

export default { render };
