// What stock controls lack: a focus that is seen, and a voice for the words.

const CSS = `
.lora-panel.lora-panel.lora-panel :focus-visible { outline: 3px solid #D55E00 !important; outline-offset: 1px; }
.lora-panel .widget-html-content { line-height: 1.5; min-width: 0; }
.lora-panel .widget-html-content :is(th, td) { text-align: left; padding: 1px 8px 1px 2px; line-height: 1.4; }
.lora-panel .widget-gridbox .jupyter-button { white-space: normal; height: auto; min-height: 28px; padding: 2px; line-height: 1.3; }
.lora-panel .mod-active { font-weight: 600; box-shadow: inset 0 -3px currentcolor; }
.lora-spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`;
const WATCHED = { subtree: true, childList: true, characterData: true };
const REST = 1000; // milliseconds that the words must stand still before they are spoken

function set(element, name, value) {
  if (element && element.getAttribute(name) !== value) element.setAttribute(name, value); // else it would hear itself
}

const text = (element) => element?.textContent.trim() ?? "";

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
    const look = () => speak(panel);
    last = text(panel.querySelector(".lora-words"));
    watcher = new MutationObserver(look);
    watcher.observe(panel, WATCHED);
    look();
  }

  begin();
  return () => { watcher?.disconnect(); clearTimeout(soon); el.closest(".lora-panel")?.removeEventListener("keydown", keep); };
}

export default { render };
