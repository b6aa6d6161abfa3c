// A picture, its text alternative, and its numbers as tables, folded away.

const CSS = `
.lora-shown { min-width: 0; }
.lora-shown .picture { overflow-x: auto; }
.lora-shown img { display: block; max-width: 100%; height: auto; }
.lora-shown details { font-size: 12px; line-height: 1.4; margin: 2px 4px 4px; color: var(--jp-ui-font-color1, #222); }
.lora-shown summary { cursor: pointer; width: fit-content; padding: 1px 4px; }
.lora-shown .scrolls { overflow-x: auto; max-height: 320px; overflow-y: auto; }
.lora-shown table { border-collapse: collapse; margin: 4px 2px 8px; font-variant-numeric: tabular-nums; }
.lora-shown caption { text-align: left; font-weight: 600; white-space: normal; }
.lora-shown th, .lora-shown td { text-align: left; padding: 1px 12px 1px 0; white-space: nowrap; font-weight: 400; }
.lora-shown thead th { font-weight: 600; }
`;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Cells are text: what data says is never read as markup. */
function table([caption, head, rows]) {
  const top = make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)));
  const line = ([name, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell)));
  return make("table", {}, make("caption", {}, caption), make("thead", {}, top), make("tbody", {}, ...rows.map(line)));
}

function render({ model, el }) {
  const picture = make("img", { draggable: false }), tables = make("div", { className: "scrolls", tabIndex: 0 });
  const box = make("div", { className: "picture" }, picture);
  const folded = make("details", {}, make("summary", {}, "the numbers of this picture"), tables);
  let address = "";
  tables.setAttribute("role", "region");
  tables.setAttribute("aria-label", "the numbers of this picture");

  function paint() {
    const old = address, bytes = model.get("value");
    picture.hidden = !bytes.byteLength;
    address = picture.hidden ? "" : URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    picture.onload = picture.onerror = () => URL.revokeObjectURL(old); // the old one stays until the new one is there
    if (address) picture.src = address;
    else picture.removeAttribute("src");
  }

  function tell() {
    picture.alt = model.get("alt");
  }

  function size() { // what scrolls is reached by the keyboard; what does not, needs no stop
    picture.style.minWidth = `${model.get("least")}px`;
    if (box.scrollWidth <= box.clientWidth + 1) return ["role", "aria-label", "tabindex"].forEach((name) => box.removeAttribute(name));
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "the picture, wider than the page");
  }

  function fill() { // what nobody has opened costs nothing
    folded.hidden = !model.get("tables").length;
    if (folded.open) tables.replaceChildren(...model.get("tables").map(table));
  }

  const heard = { value: paint, alt: tell, tables: fill, least: size }, sizes = new ResizeObserver(size);
  for (const [name, does] of Object.entries(heard)) model.on(`change:${name}`, does);
  folded.addEventListener("toggle", fill);
  for (const does of Object.values(heard)) does();
  el.classList.add("lora-shown");
  el.append(make("style", {}, CSS), box, folded);
  sizes.observe(box);
  sizes.observe(picture);
  return () => {
    for (const [name, does] of Object.entries(heard)) model.off(`change:${name}`, does);
    sizes.disconnect();
    URL.revokeObjectURL(address);
  };
}

export default { render };
