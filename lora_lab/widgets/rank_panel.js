// The rank panel in the browser: sum_{i <= r} s_i u_i v_i^T, brought from one rank to the next by the terms between.

const BLUE = [0, 114, 178], ORANGE = [204, 133, 0], RED = "#C04F00", GREY = "#666666"; // as in lora_lab.plots
const DECADES = 4; // of the log axis; a line ends where it would go deeper
const ZERO = 1e-13; // of the largest value: what is no larger is rounding
const STOPS = [1, 2, 4, 8, 16, 32, 64, 128];
const SVG = "http://www.w3.org/2000/svg";
const CSS = `
.lora-rank { background: #fff; color: #222; color-scheme: light; border: 1px solid #ccc; border-radius: 6px; padding: 12px;
  max-width: 940px; box-sizing: border-box; font: 14px/1.45 system-ui, sans-serif; overflow-wrap: break-word; }
.lora-rank .row { display: flex; flex-flow: row wrap; gap: 8px 14px; align-items: center; margin-bottom: 8px; }
.lora-rank figure { margin: 0; min-width: 0; }
.lora-rank .pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(105px, 1fr)); gap: 8px 14px; align-items: end; margin-bottom: 8px; }
.lora-rank .wide { flex: 1 1 250px; max-width: 460px; min-width: 0; overflow-x: auto; }
.lora-rank figcaption { font-size: 13px; margin-bottom: 2px; }
.lora-rank canvas { width: 100%; height: auto; display: block; image-rendering: pixelated; border: 1px solid #ddd; box-sizing: border-box; }
.lora-rank .rows { position: relative; margin-left: 24px; }
.lora-rank .rows span { position: absolute; right: 100%; padding-right: 2px; font-size: 9px; line-height: 0; white-space: nowrap; }
.lora-rank svg { width: 100%; height: auto; display: block; }
.lora-rank .top { align-items: flex-start; }
.lora-rank .words { margin-bottom: 6px; min-height: 4.4em; }
.lora-rank label { font-weight: 600; }
.lora-rank select { max-width: 100%; color: #222; background: #fff; font: inherit; }
.lora-rank input[type=range] { flex: 1 1 180px; min-width: 0; margin: 2px 0; accent-color: #0072B2; }
.lora-rank output { min-width: 3.5em; font-variant-numeric: tabular-nums; font-weight: 600; }
.lora-rank button { font: inherit; color: #222; background: #f2f2f2; border: 1px solid #999; border-radius: 4px; padding: 1px 8px; cursor: pointer; }
.lora-rank :focus-visible { outline: 3px solid ${RED}; outline-offset: 1px; }
.lora-rank table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.lora-rank th, .lora-rank td { text-align: left; padding: 2px 10px 2px 0; border-bottom: 1px solid #e4e4e4; font-weight: 400; color: #222; background: #fff; }
.lora-rank td { font-weight: 600; }
.lora-rank details td { font-weight: 400; }
.lora-rank summary { cursor: pointer; width: fit-content; }
`;

const floats = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
const percent = (share) => (100 * share).toFixed(share > 0.9995 && share < 1 ? 4 : 1) + "%"; // 100.0% only if it is
const count = (number) => number.toLocaleString("en-US");

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function drawn(tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

// ---- the arithmetic

/** Everything the kernel sent about one matrix, and the sum so far. */
function readMatrix(model) {
  const [rows, columns] = model.get("shape"), values = model.get("values");
  return {
    rows, columns, values,
    baseline: model.get("baseline"), limit: model.get("limit"), grey: model.get("grey"),
    matrix: floats(model.get("matrix")), left: floats(model.get("left")), right: floats(model.get("right")),
    sum: new Float32Array(rows * columns), rank: 0,
  };
}

/** Add (sign 1) or take away (sign -1) the i-th rank-one term. */
function term(m, i, sign) {
  const { rows, columns, left, right, sum } = m;
  for (let y = 0; y < rows; y++) {
    const weight = sign * left[i * rows + y];
    for (let x = 0, at = y * columns, from = i * columns; x < columns; x++) sum[at + x] += weight * right[from + x];
  }
}

/** Bring the sum to rank r by the shorter way: from where it is, or from nothing. */
function bring(m, r) {
  if (r < m.rank - r) { m.sum.fill(0); m.rank = 0; }
  while (m.rank < r) term(m, m.rank++, 1);
  while (m.rank > r) term(m, --m.rank, -1);
}

function share(values, r) {
  const squares = values.map((s) => s * s), all = squares.reduce((a, b) => a + b, 0);
  return all ? squares.slice(0, r).reduce((a, b) => a + b, 0) / all : 1;
}

// ---- the pictures

/** Entries to pixels: black to white for a picture; blue (negative), white (zero), orange (positive) for a weight. */
function paint(canvas, m, entry) {
  if (canvas.width !== m.columns || canvas.height !== m.rows) { canvas.width = m.columns; canvas.height = m.rows; }
  const context = canvas.getContext("2d"), image = context.createImageData(m.columns, m.rows), pixels = image.data;
  for (let i = 0; i < m.sum.length; i++) {
    const t = Math.max(-1, Math.min(1, entry(i) / m.limit)), far = t < 0 ? BLUE : ORANGE, size = Math.abs(t);
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = m.grey ? 127.5 * (1 + t) : 255 + size * (far[c] - 255);
    pixels[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** The singular values on a log axis, those of the shuffled matrix dashed, and the cut. */
function spectrum(svg, m, r) {
  const W = 300, H = 230, L = 56, R = 8, T = 8, B = 34, k = m.values.length, top = m.values[0] || 1;
  const highest = Math.max(top, m.baseline[0] || 0);
  const x = (i) => L + ((W - L - R) * (i - 0.5)) / k;
  const y = (s) => T + ((H - T - B) * Math.log10(highest / s)) / DECADES;
  const above = (values) => values.filter((s) => s > 0 && s >= highest * 10 ** -DECADES); // they fall, so it is the first ones
  const line = (values, style) => drawn("polyline", { points: above(values).map((s, i) => `${x(i + 1)},${y(s)}`).join(" "), fill: "none", ...style });
  const text = (at, words, more = {}) => drawn("text", { x: at[0], y: at[1], "font-size": 11, fill: "#222", ...more }, words);
  const parts = [drawn("rect", { x: 0, y: 0, width: W, height: H, fill: "#fff" })];
  parts.push(drawn("rect", { x: L, y: T, width: Math.max(1, x(r + 0.5) - L), height: H - T - B, fill: "#0072B222" }));
  const first = Math.floor(Math.log10(highest));
  for (let power = first; power > Math.log10(highest) - DECADES; power--) {
    const s = 10 ** power;
    parts.push(drawn("line", { x1: L, x2: W - R, y1: y(s), y2: y(s), stroke: "#ddd" }));
    parts.push(text([L - 4, y(s) + 4], power < -3 ? `1e${power}` : String(Number(s.toPrecision(1))), { "text-anchor": "end" }));
  }
  parts.push(line(m.baseline, { stroke: GREY, "stroke-width": 1.5, "stroke-dasharray": "5 3" }));
  parts.push(line(m.values, { stroke: "#0072B2", "stroke-width": 2.5 }));
  parts.push(drawn("line", { x1: x(r + 0.5), x2: x(r + 0.5), y1: T, y2: H - B, stroke: RED, "stroke-width": 2 }));
  parts.push(text([L, H - B + 14], "1"), text([W - R, H - B + 14], String(k), { "text-anchor": "end" }));
  parts.push(text([(L + W - R) / 2, H - 5], "number of the singular value", { "text-anchor": "middle" }));
  parts.push(text([0, 0], "singular value (log)", { "text-anchor": "middle", transform: `translate(11 ${(T + H - B) / 2}) rotate(-90)` }));
  const none = m.values.findIndex((s) => s <= ZERO * top);
  if (none >= 0) parts.push(text([W - R, H - B - 5], `0 from ${none + 1} on`, { "text-anchor": "end", fill: "#0072B2" }));
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.replaceChildren(...parts);
}

// ---- the panel

function figure(caption, picture) {
  const words = make("figcaption", {}, caption), rows = make("div", {}, picture);
  return { box: make("figure", {}, words, rows), words, picture, rows };
}

/** The numbers of some rows at the left edge of a weight: of a picture nobody asks for them. */
function markRows(one, m) {
  one.rows.className = m.grey ? "" : "rows";
  one.rows.replaceChildren(one.picture);
  const step = 2 ** Math.max(0, Math.ceil(Math.log2(m.rows / 12)));
  for (let row = 0; row < m.rows && !m.grey; row += step) {
    if (row % (2 * step) && row !== 96) continue;
    one.rows.append(make("span", { style: `top: ${(100 * (row + 0.5)) / m.rows}%`, "aria-hidden": "true" }, String(row)));
  }
}

function build(model) {
  const canvas = () => make("canvas", { role: "img" });
  const ui = {
    menu: make("select", { "aria-label": "matrix" }),
    slider: make("input", { type: "range", min: 1, step: 1, "aria-label": "rank: singular values kept" }),
    number: make("output"), stops: make("span", { className: "row", role: "group", "aria-label": "ranks to jump to" }),
    whole: figure("original", canvas()), cut: figure("", canvas()), rest: figure("what is missing", canvas()),
    lines: figure("", drawn("svg", { role: "img" })),
    table: make("table"), numbers: make("table"), live: make("div", { "aria-live": "polite", className: "words" }),
  };
  ui.stops.style.margin = "0";
  for (const [name, label] of model.get("choices")) ui.menu.append(make("option", { value: name }, label));
  ui.card = make("div", { className: "lora-rank", role: "group", "aria-label": "the rank of a matrix" },
    make("style", {}, CSS),
    make("div", { className: "row" }, make("label", {}, "matrix "), ui.menu),
    make("div", { className: "row" }, make("label", {}, "rank r"), ui.slider, ui.number, ui.stops),
    make("div", { className: "pictures" }, ui.whole.box, ui.cut.box, ui.rest.box),
    make("div", { className: "row top" }, ui.lines.box, make("div", { className: "wide" }, ui.live, ui.table,
      make("details", {}, make("summary", {}, "the numbers of this picture"), ui.numbers))));
  ui.lines.box.className = "wide";
  ui.card.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the arrow keys to go from cell to cell,
  ui.card.addEventListener("keydown", (event) => event.stopPropagation()); // and takes them from what is in an output
  return ui;
}

/** The same in words and numbers, for those who do not see the pictures. */
function tell(ui, m, r) {
  const full = m.rows * m.columns, holds = r * (m.rows + m.columns), even = full / (m.rows + m.columns);
  const kept = share(m.values, r), noise = share(m.baseline, r);
  const lines = [
    ["energy kept", percent(kept)], ["the same numbers shuffled would keep", percent(noise)],
    ["relative error |W - W_r| / |W|", Math.sqrt(Math.max(0, 1 - kept)).toFixed(3)],
    ["numbers stored, r (m + n)", `${count(holds)} of m n = ${count(full)} (${percent(holds / full)})`],
    ["break-even rank, m n / (m + n)", String(Math.round(10 * even) / 10)],
  ];
  ui.table.replaceChildren(make("tbody", {}, ...lines.map(([name, value]) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)))));
  const saves = holds < full ? "fewer numbers than the matrix itself" : "no saving: the factors hold as many numbers as the matrix, or more";
  const sentence = `Rank ${r} of ${m.values.length} keeps ${percent(kept)} of the energy; shuffled ${percent(noise)}. It stores ${count(holds)} of ${count(full)} numbers: ${saves}.`;
  ui.cut.picture.setAttribute("aria-label", `the matrix cut at rank ${r}: ${percent(kept)} of its energy`);
  ui.rest.picture.setAttribute("aria-label", `what is missing at rank ${r}: ${percent(1 - kept)} of the energy`);
  ui.lines.picture.setAttribute("aria-label", `${m.values.length} singular values, from ${m.values[0].toPrecision(3)} falling to ${m.values.at(-1).toPrecision(3)}; cut after ${r}`);
  ui.lines.words.textContent = `${r} of ${m.values.length} pieces keep ${percent(kept)}; shuffled: ${percent(noise)}. ` +
    "Solid blue: this matrix. Grey dashes: the same numbers shuffled. Upright line: the cut at r.";
  ui.slider.setAttribute("aria-valuetext", `rank ${r}, ${percent(kept)} of the energy`);
  clearTimeout(ui.soon); // a screen reader hears where the drag ends, not every step of it
  ui.soon = setTimeout(() => { ui.live.textContent = sentence; }, ui.live.textContent ? 250 : 0);
}

/** The spectra as a table: some of the singular values, and the energy that they and those before them keep. */
function tabulate(ui, m) {
  const names = ["number", "singular value", "shuffled", "energy kept", "shuffled"];
  const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
  const row = ([first, ...cells]) => make("tr", {}, make("th", { scope: "row" }, first), ...cells.map((cell) => make("td", {}, cell)));
  const lines = STOPS.filter((r) => r < m.values.length).concat(m.values.length).map((r) => row([
    String(r), m.values[r - 1].toPrecision(3), m.baseline[r - 1].toPrecision(3),
    percent(share(m.values, r)), percent(share(m.baseline, r)),
  ]));
  ui.numbers.replaceChildren(make("thead", {}, head), make("tbody", {}, ...lines));
}

function render({ model, el }) {
  const ui = build(model);
  let m;

  function redraw() {
    const r = Math.min(model.get("rank"), m.values.length), began = performance.now();
    bring(m, r);
    paint(ui.cut.picture, m, (i) => m.sum[i]);
    paint(ui.rest.picture, m, (i) => m.matrix[i] - m.sum[i]);
    spectrum(ui.lines.picture, m, r);
    ui.slider.value = r;
    ui.number.textContent = `r = ${r}`;
    ui.cut.words.textContent = `cut at rank ${r}`;
    tell(ui, m, r);
    ui.card.dataset.milliseconds = (performance.now() - began).toFixed(1); // read by the browser test
    ui.card.dataset.rank = r;
  }

  function choose(r) {
    model.set("rank", r);
    model.save_changes();
  }

  function another() {
    m = readMatrix(model);
    const most = m.values.length;
    ui.slider.max = most;
    ui.menu.value = model.get("source");
    ui.stops.replaceChildren(...STOPS.filter((r) => r < most).concat(most).map((r) =>
      make("button", { type: "button", title: `rank ${r}`, onclick: () => choose(r) }, String(r))));
    ui.whole.words.textContent = `original, ${m.rows} x ${m.columns}`;
    ui.whole.picture.setAttribute("aria-label", `the original: ${ui.menu.selectedOptions[0]?.textContent}, ${m.rows} x ${m.columns}`);
    for (const one of [ui.whole, ui.cut, ui.rest]) markRows(one, m);
    paint(ui.whole.picture, m, (i) => m.matrix[i]);
    tabulate(ui, m);
    redraw();
  }

  ui.slider.addEventListener("input", () => choose(Number(ui.slider.value)));
  ui.menu.addEventListener("change", () => { model.set("source", ui.menu.value); model.save_changes(); });
  model.on("change:matrix", another);
  model.on("change:rank", redraw);
  another();
  el.append(ui.card);
  return () => { model.off("change:matrix", another); model.off("change:rank", redraw); clearTimeout(ui.soon); };
}

export default { render };
