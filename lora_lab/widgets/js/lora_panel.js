// LoRA to scale: one layer, a whole model, and an animated toy layer. All arithmetic is done here.

import LORA_CSS from "./lora_panel.css";
import { button, drawn, folded, letter, menu, nearest, octaves, segments, slider, switches } from "./controls.js";
import { about, bytes, clamp, count, percent } from "./format.js";
import { BF16, drawModel, modelCounts, modelTable, maxRank, describeModel, describeRow } from "./lora_model.js";
import { drawCurve, drawSize, sizes, describeSize } from "./lora_size.js";
import { drawToy, describeToy, toyTable } from "./lora_toy.js";
import { panel } from "./panel.js";
import { D, MOST_RANK, TOKEN, combine, forward, fresh, learned, lesson } from "./toy_layer.js";

const VIEWS = { size: "Size", model: "Model", start: "Start", steps: "Steps", merge: "Merge" };
const [ROW, STEP, MERGE, SNAP] = [260, 500, 2600, 220]; // milliseconds
const LIFTED = [-13, 13]; // offset of the gathered patch from its corner, in pixels
const TRAITS = {
  view: "size", views: Object.keys(VIEWS), models: {}, model: "", layer: "", d: 4096, rank: 8, targets: ["q", "v"],
  toy_rank: 2, alpha: 4, customers: 0,
};
const TARGETS = ["q", "k", "v", "o", "gate", "up", "down", "all-linear"];
const FIRST = "llama-3-8b"; // the default model, as in lora_panel.py
const WIDTHS = octaves(64, 16384);
const CUSTOMERS = Array.from({ length: 121 }, (_, at) => Math.round((10 ** (at / 20)).toPrecision(2))); // 1 to a million
const DISK = [["the model", "adapters"], "bytes", bytes, [1, 100, 10000]];

const BODY = `<header><div class="title"></div>
  ${segments("view", "view")}</header>
<div class="body">
  <div>${drawn()}<p class="caption" data-for="caption"></p></div>
  <div class="side">
    <div class="controls" data-for="real">
      <div class="menus">${menu("model", "model")}${menu("layer", "layer")}</div>
      ${slider("d", `width ${letter("d")}`, "frozen")}${switches("targets", "adapt")}
      ${slider("rank", `rank ${letter("r")}`, "train", `<div data-for="curve" class="chart">${drawn("curve")}</div>`)}
      ${slider("customers", "customers", "train", `<div class="chart">${drawn("disk")}</div>`)}
      <div class="row">${button("drop", "")}</div>
    </div>
    <div class="controls" data-for="toy">
      <div class="row">${button("go", "", "first")}${button("act", "")}</div>
      ${slider("scan", "forward pass", "ink")}${slider("toy_rank", `rank ${letter("r")}`, "train")}
      ${slider("alpha", `alpha ${letter("α")}`, "train")}
    </div>
    <p class="big"></p><p class="words"></p><table class="facts"></table>
  </div>
</div>
<div data-for="numbers">${folded("all numbers in this picture")}</div>`;

function start(p) {
  const begin = { scan: D + MOST_RANK, step: 0, merged: 0, blend: null };
  const ui = p.keep({ ...begin, x: [...TOKEN], lift: [...LIFTED], dropped: false, over: -1 });
  const ranks = {}; // by view: each view keeps its own rank and starts with the initial one
  const initialRank = p.get("rank");
  let now; // what is drawn, derived from traits and `ui`
  let shown; // the result of the last draw function, with the places that can be dragged

  // ---- derived state
  /** The layers of a model that can be shown: [label, outputs, inputs]; fused layers are also listed slice by slice. */
  const layersOf = (model) => model.rows.filter((row) => row.in && Object.keys(row.trains).length).flatMap((row) => [
    [row.label, row.out, row.in],
    ...Object.entries(row.slices ?? {}).map(([role, wide]) => [`${role} of ${row.label}`, wide, row.in]),
  ]);

  /** { name, layers, layer, m, n, r } of the layer on display; a square layer has no `layer`. */
  function readLayer() {
    const model = p.get("models")[p.get("model")];
    const layers = model ? layersOf(model) : [];
    const layer = layers.find(([label]) => label === p.get("layer")) ?? layers[0];
    const [, m, n] = layer ?? ["", p.get("d"), p.get("d")];
    const name = layer ? `${p.get("model")} ${layer[0]}` : `d = ${count(n)}`;
    return { name, layers, layer: layer?.[0], m, n, r: clamp(p.get("rank"), 1, Math.min(m, n)) };
  }

  function readModel() {
    const models = p.get("models");
    const name = [p.get("model"), FIRST, ...Object.keys(models)].find((candidate) => models[candidate]);
    const model = models[name];
    const roles = TARGETS.filter((target) => model.rows.some((row) => row.trains[target]));
    const valid = p.get("targets").filter((target) => roles.includes(target));
    const targets = valid.length || !p.get("targets").length ? valid : ["all-linear"];
    const limit = maxRank(model, targets);
    return { name, model, roles, targets, limit, counts: modelCounts(model, targets, clamp(p.get("rank"), 1, limit)) };
  }

  function readToy(view) {
    const r = clamp(p.get("toy_rank"), 1, MOST_RANK);
    const scaling = p.get("alpha") / r;
    const states = view === "steps" ? lesson(r, scaling, ui.x) : [];
    let net = states[ui.step] ?? (view === "start" ? fresh(r) : learned(r));
    if (ui.blend) {
      const between = (name) => combine(ui.blend[name], combine(net[name], ui.blend[name], -1), ui.blend.part);
      net = { A: between("A"), B: between("B") };
    }
    ui.scan = Math.min(ui.scan, r + D);
    const out = forward(net, scaling, ui.x);
    return { ...ui, view, r, scaling, states, out, A: net.A, B: net.B, real: readLayer() };
  }

  // ---- drawing
  function draw() {
    const views = p.get("views");
    const view = views.includes(p.get("view")) ? p.get("view") : views[0];
    p.check("view", [view], views.map((name) => [name, VIEWS[name]]));
    const [size, model, chosen] = [view === "size", view === "model", Boolean(p.get("models")[p.get("model")])];
    p.offer({
      view: views.length > 1, real: size || model, toy: !size && !model, layer: size && chosen, d: size && !chosen,
      targets: model, caption: model, curve: size, numbers: !size,
      customers: model && p.get("customers") > 0 && p.get("targets").length > 0,
    });
    p.card.classList.toggle("many", size || model);
    const [title, big, words, facts = ""] = { size: drawLayer, model: drawWhole }[view]?.() ?? drawFlow(view);
    p.fill({ ".title": title, ".big": big, ".words": words, ".facts": facts });
    return `${big}. ${words}`;
  }

  function drawLayer() {
    const { m, n, r, layer, layers } = readLayer();
    const size = sizes(m, n, r);
    const ranks = octaves(1, Math.min(m, n));
    now = { view: "size", ranks };
    drawControls(ranks, r, size.share, "W", [["", "custom square layer"]], layer ? p.get("model") : "");
    p.choose("layer", layers.map(([label, rows, columns]) => [label, `${label}: ${count(rows)} × ${count(columns)}`]), layer);
    p.slide("d", { values: WIDTHS, value: p.get("d"), words: count(p.get("d")) });
    shown = drawSize(p.width(), size, ui);
    p.picture(shown, `W, ${count(m)} by ${count(n)}, with A above it and B beside it, ${count(r)} thick, to scale. In one
      patch, A and B would cover ${percent(Math.min(1, size.share))} of W.`);
    p.picture(drawCurve(p.width("curve"), size, ranks), `Numbers at each rank: A and B together rise from ${count(m + n)}
      at rank 1 and reach the ${count(size.full)} of W at rank ${about(size.even)}.`, "curve");
    return describeSize(size);
  }

  function drawWhole() {
    const { name, model, roles, targets, limit, counts } = readModel();
    const ranks = octaves(1, limit);
    now = { view: "model", ranks, model, counts, targets };
    drawControls(ranks, counts.rank, counts.share, "the model", [], name);
    p.fill({ ".caption": describeRow(counts.rows[ui.over]) });
    p.check("targets", targets, roles.map((role) => [role, role]));
    const [n, m] = [p.get("customers"), BF16 * counts.trained]; // customers; bytes of an adapter
    p.slide("customers", { values: CUSTOMERS, value: n || 1, words: count(n || 1) });
    const growth = { m, n: 0, r: n, full: BF16 * counts.total, strips: n * m, even: 1 / counts.share };
    if (n && m) p.picture(drawCurve(p.width("disk"), growth, CUSTOMERS, ...DISK), `The adapters take ${bytes(n * m)}.`, "disk");
    shown = drawModel(p.width(), model, counts, ui, n || 1);
    p.picture(shown, `${name} as a map in which area stands for numbers. Adapters on ${targets.join(", ")} of rank
      ${count(counts.rank)} take ${percent(counts.share)} of it.`);
    p.numbers(() => modelTable(counts));
    return describeModel(name, counts, n);
  }

  function drawFlow(view) {
    const toy = readToy(view);
    const { r, scan, scaling } = toy;
    now = { view, toy };
    const at = Math.ceil(scan);
    const position = !scan ? "start" : at <= r ? `row ${at} of A` : scan < r + D ? `row ${at - r} of W and B` : "done";
    const alpha = p.get("alpha");
    p.slide("scan", { most: r + D, value: scan, words: position });
    p.slide("toy_rank", { most: MOST_RANK - 1, value: r - 1, words: String(r) });
    p.slide("alpha", { most: 3, value: Math.log2(alpha), words: `${alpha}, so α/r = ${about(scaling)}` });
    const [go, act] = {
      steps: ["take a step", "start over"], merge: [ui.merged >= 1 ? "unmerge" : "merge", "play forward"],
    }[view] ?? ["play forward", ""];
    p.button("go", { words: go, off: view === "steps" && ui.step >= toy.states.length - 1 });
    p.button("act", { words: act, hidden: !act });
    shown = drawToy(p.width(), toy);
    p.card.classList.toggle("tight", shown.small);
    p.picture(shown, `A toy layer of 8 by 8: x flows through W, and through A and B; y is ${shown.y}.`);
    p.numbers(() => toyTable(toy));
    return describeToy(toy);
  }

  function drawControls(ranks, rank, share, subject, extra, chosen) {
    p.choose("model", [...extra, ...Object.keys(p.get("models")).map((name) => [name, name])], chosen);
    p.slide("rank", { values: ranks, value: rank, words: count(rank), spoken: `rank ${count(rank)}, ${percent(share)} of ${subject}` });
    p.button("drop", { words: `${ui.dropped ? "lift the patch off" : "drop the patch on"} ${subject}` });
  }

  // ---- actions and dragging
  function reset(change = {}) {
    p.stop();
    p.keep({ ...begin, ...change });
  }

  function pass() {
    const rows = D + clamp(p.get("toy_rank"), 1, MOST_RANK);
    p.play(ROW * rows, (t) => p.keep({ scan: t * rows }));
  }

  /** Animate A and B from their current to their new values. */
  function blend(change) {
    const { A, B } = now.toy;
    reset(change);
    p.play(STEP, (t) => p.keep({ blend: t < 1 ? { A, B, part: 1 - (1 - t) ** 3 } : null }));
  }

  /** Release the gathered patch: onto W or the model, or back to its place. */
  function settle(dropped) {
    const from = ui.lift;
    const to = dropped ? [0, 0] : LIFTED;
    p.keep({ dropped });
    p.play(SNAP, (t) => p.keep({ lift: from.map((v, i) => to[i] + (1 - t) ** 3 * (v - to[i])) }));
  }

  /** Turn these roles on, or off if any of them is on; "all-linear" excludes all others. */
  function toggle(roles) {
    const rest = now.targets.filter((target) => !roles.includes(target));
    const targets = rest.length < now.targets.length ? rest : [...rest, ...roles];
    const allLinear = roles[0] === "all-linear";
    p.set({ targets: targets.filter((target) => (target === "all-linear") === allLinear) });
  }

  const actions = {
    view(view) {
      reset({ over: -1 });
      ranks[now.view] = p.get("rank");
      p.set({ view, rank: ranks[view] ?? initialRank });
    },
    model: (model) => p.set({ model, layer: "" }),
    targets: (target) => toggle([target]),
    drop: () => settle(!ui.dropped),
    toy_rank(position) {
      reset();
      p.set({ toy_rank: position + 1 });
    },
    alpha(position) {
      p.keep({ step: 0 });
      p.set({ alpha: 2 ** position });
    },
    act: () => (now.view === "steps" ? blend({}) : pass()),
    go() {
      if (now.view === "steps") return blend({ step: ui.step + 1 });
      if (now.view !== "merge") return pass();
      const unmerge = ui.merged >= 1;
      p.keep({ scan: begin.scan });
      return p.play(unmerge ? MERGE / 3 : MERGE, (t) => p.keep({ merged: unmerge ? 1 - t : t }));
    },
  };

  const svg = p.find(".picture svg");
  const rowAt = (target) => Number(target.closest("[data-row]")?.dataset.row ?? -1);
  svg.addEventListener("pointermove", ({ target, buttons }) => {
    if (now.view !== "model" || buttons) return;
    ui.over = rowAt(target);
    p.fill({ ".caption": describeRow(now.counts.rows[ui.over]) });
  });
  svg.addEventListener("click", ({ target }) => {
    const available = Object.keys((now.view === "model" && now.model.rows[rowAt(target)]?.trains) || {});
    const roles = available.filter((role) => role !== "all-linear");
    if (available.length) toggle(roles.length ? roles : available);
    p.save();
  });
  p.drag((target, x, y) => {
    if (target.closest(".grip")) {
      return { move: (at) => p.set({ rank: now.ranks[nearest(now.ranks, shown.rankAt(Math.max(60, at)))] }) };
    }
    const { bar } = target.dataset;
    if (bar) {
      const value = (up) => clamp(Math.round((10 * (shown.bars.up - up)) / shown.bars.unit) / 10, -2.2, 2.2);
      return { move: (_, up) => p.show({ x: ui.x.with(bar, value(up)) }) };
    }
    if (!target.closest(".gathered")) return false;
    const [left, top] = ui.lift;
    return {
      move: (at, up) => p.show({ dropped: false, lift: [left + at - x, top + up - y] }),
      end: (at, up) => settle(shown.onto(at, up)),
    };
  });
  return { actions, draw };
}

export default panel({ title: "LoRA to scale", css: LORA_CSS, traits: TRAITS, body: BODY, start });
