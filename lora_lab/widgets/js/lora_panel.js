// LoRA to scale: one layer, a whole model, and a toy whose numbers flow. All arithmetic is done here.

import LORA_CSS from "./lora_panel.css";
import { button, letter, menu, nearest, octaves, segments, slider, switches } from "./controls.js";
import { about, clamp, count, percent } from "./format.js";
import { drawModel, modelCounts, modelTable, mostRank, tellModel, tellRow } from "./lora_model.js";
import { drawCurve, drawSize, sizes, tellSize } from "./lora_size.js";
import { drawToy, tellToy, toyTable } from "./lora_toy.js";
import { panel } from "./panel.js";
import { D, MOST_RANK, TOKENS, combine, forward, fresh, learned, lesson } from "./toy_layer.js";

const VIEWS = { size: "Size", model: "Model", start: "Start", steps: "Steps", merge: "Merge", swap: "Swap" };
const [ROW, STEP, MERGE, SNAP] = [260, 500, 2600, 220]; // milliseconds
const LIFTED = [-13, 13]; // pixels that the gathered patch lies off its corner
const TRAITS = {
  view: "size", views: Object.keys(VIEWS), models: {}, model: "", layer: "", d: 4096, rank: 8, targets: ["q", "v"],
  toy_rank: 2, alpha: 4,
};
const CONTROLS = {
  size: ["model", "layer", "rank", "patch"],
  model: ["model", "targets", "rank", "patch"],
  start: ["scan", "toy_rank", "alpha", "actions"],
  swap: ["adapter", "scan", "toy_rank", "alpha", "actions"],
};
CONTROLS.steps = CONTROLS.merge = CONTROLS.start;
const TARGETS = ["q", "k", "v", "o", "gate", "up", "down", "all-linear"];
const FIRST = "llama-3-8b"; // the model that is shown where none was chosen; as in lora_panel.py
const WIDTHS = octaves(64, 16384);

const CURVE = `<div class="curve drawn"><svg role="img"></svg></div>`;
const BODY = `<header><div class="title"></div>
  ${segments("view", "what to look at", Object.entries(VIEWS))}</header>
<div class="body">
  <div><div class="picture drawn"><svg role="img"></svg></div><p class="caption"></p></div>
  <div class="side">
    <div class="controls">
      <div class="menus">${menu("model", "model")}${menu("layer", "layer")}</div>
      ${slider("d", `width ${letter("d")}`, "frozen")}
      ${switches("targets", "adapt", [])}
      ${slider("rank", `rank ${letter("r")}`, "train", CURVE)}
      <div class="row" data-for="patch">${button("drop", "")}</div>
      <div class="row" data-for="actions">${button("go", "", "first")}${button("act", "")}${button("token", "another token")}</div>
      ${segments("adapter", "adapter in use", [
        [1, '<i class="dot" style="background: var(--one)"></i>adapter 1'],
        [2, '<i class="dot" style="background: var(--other)"></i>adapter 2'],
        [0, "none"],
      ])}
      ${slider("scan", "forward pass", "ink")}
      ${slider("toy_rank", `rank ${letter("r")}`, "train")}
      ${slider("alpha", `alpha ${letter("α")}`, "train")}
    </div>
    <p class="big"></p><p class="words"></p><table class="facts"></table>
  </div>
</div>
<details><summary>all numbers in this picture</summary><div class="scrolls" tabindex="0" role="group"
  aria-label="all numbers in this picture"><table></table></div></details>`;

function start(p) {
  const begin = { scan: D + MOST_RANK, step: 0, merged: 0, adapter: 1, blend: null };
  const ui = { ...begin, token: 0, x: [...TOKENS[0]], lift: [...LIFTED], dropped: false, over: -1 };
  let now; // what is drawn: { kind, ... }, derived from traits and `ui`
  let drawn; // what the picture says of itself: where it can be pulled

  // ---- what follows from what was chosen

  const names = () => Object.keys(p.get("models"));
  const modelName = () => [p.get("model"), FIRST].find((name) => names().includes(name)) ?? names()[0];

  /** The layers of a model that can be looked at: [label, outputs, inputs]; a fused one also slice by slice. */
  function layersOf(model) {
    return model.rows
      .filter((row) => row.in && Object.keys(row.trains).length)
      .flatMap((row) => [
        [row.label, row.out, row.in],
        ...Object.entries(row.slices ?? {}).map(([role, wide]) => [`${role} of ${row.label}`, wide, row.in]),
      ]);
  }

  /** { name, layers, layer, m, n, r } of the one layer that is looked at; the square one has no name. */
  function readLayer() {
    const model = p.get("models")[p.get("model")];
    const layers = model ? layersOf(model) : [];
    const layer = layers.find(([label]) => label === p.get("layer")) ?? layers[0];
    const [, m, n] = layer ?? ["", p.get("d"), p.get("d")];
    const name = layer ? `${p.get("model")} ${layer[0]}` : `d = ${count(n)}`;
    return { name, layers, layer: layer?.[0], m, n, r: clamp(p.get("rank"), 1, Math.min(m, n)) };
  }

  function readModel() {
    const name = modelName();
    const model = p.get("models")[name];
    const roles = TARGETS.filter((target) => model.rows.some((row) => row.trains[target]));
    const wanted = p.get("targets").filter((target) => roles.includes(target));
    const targets = wanted.length || !p.get("targets").length ? wanted : ["all-linear"];
    const most = mostRank(model, targets);
    const counts = modelCounts(model, targets, clamp(p.get("rank"), 1, most));
    return { name, model, roles, targets, most, counts };
  }

  function readToy(view) {
    const r = clamp(p.get("toy_rank"), 1, MOST_RANK);
    const scaling = p.get("alpha") / r;
    const states = view === "steps" ? lesson(r, scaling, ui.x) : [];
    let net = view === "start" || !ui.adapter ? fresh(r) : learned(ui.adapter, r);
    if (view === "steps") net = states[ui.step];
    const next = ui.blend ? null : states[ui.step + 1];
    if (ui.blend) {
      const between = (name) => combine(ui.blend[name], combine(net[name], ui.blend[name], -1), ui.blend.part);
      net = { A: between("A"), B: between("B") };
    }
    ui.scan = Math.min(ui.scan, r + D);
    const kind = view === "swap" && ui.adapter === 2 ? "other" : "train";
    const out = forward(net, scaling, ui.x);
    return { ...ui, view, r, scaling, states, next, kind, out, A: net.A, B: net.B, real: readLayer() };
  }

  // ---- drawing

  function draw() {
    const views = p.get("views").filter((view) => VIEWS[view]);
    const view = views.includes(p.get("view")) ? p.get("view") : views[0];
    for (const input of p.card.querySelectorAll("input[name=view]")) {
      input.parentElement.hidden = views.length < 2 || !views.includes(input.value);
    }
    p.check("view", [view]);
    const square = view === "size" && !p.get("models")[p.get("model")];
    p.offer(["view", ...CONTROLS[view].filter((name) => !square || name !== "layer"), ...(square ? ["d"] : [])]);
    p.one(".curve").hidden = view !== "size";
    p.one(".caption").hidden = view !== "model";
    p.one("details").hidden = view === "size"; // its table is beside it
    p.card.classList.toggle("second", view === "swap" && ui.adapter === 2);
    p.card.classList.toggle("many", view === "size" || view === "model");
    const [title, big, words, facts] = { size: drawLayer, model: drawWhole }[view]?.() ?? drawFlow(view);
    p.fill({ ".title": title, ".big": big, ".words": words, ".facts": facts });
    return `${big}. ${words}`;
  }

  function drawLayer() {
    const layer = readLayer();
    const size = sizes(layer.m, layer.n, layer.r);
    const ranks = octaves(1, Math.min(layer.m, layer.n));
    now = { view: "size", ranks, layer };
    offerModels("custom square layer", p.get("models")[p.get("model")] ? p.get("model") : "");
    p.choose("layer", layer.layers.map(([label, m, n]) => [label, `${label}: ${count(m)} × ${count(n)}`]), layer.layer);
    if (!layer.layer) p.slide("d", { values: WIDTHS, value: p.get("d"), words: count(p.get("d")) });
    showRank(ranks, layer.r, size.share, "W");
    drawn = drawSize(p.width(), size, ui);
    p.picture(drawn.svg, drawn.height, `W, ${count(size.m)} by ${count(size.n)}, with A above it and B beside it, ${count(size.r)}
      thick, to scale. In one patch, A and B would cover ${percent(Math.min(1, size.share))} of W.`);
    const chart = drawCurve(p.width(".curve"), size, ranks);
    p.picture(chart.svg, chart.height, `Numbers over the rank: A and B together rise from ${count(size.m + size.n)}
      at rank 1 and reach the ${count(size.full)} of W at rank ${about(size.even)}.`, ".curve svg");
    return tellSize(size);
  }

  function drawWhole() {
    const { name, model, roles, targets, most, counts } = readModel();
    const ranks = octaves(1, most);
    now = { view: "model", ranks, model, counts, targets };
    offerModels("", name);
    const wanted = roles.join();
    const box = p.one("[data-for=targets]");
    if (box.dataset.roles !== wanted) {
      box.dataset.roles = wanted;
      box.outerHTML = switches("targets", "adapt", roles.map((role) => [role, role])).replace("<fieldset", `<fieldset data-roles="${wanted}"`);
    }
    p.check("targets", targets);
    showRank(ranks, counts.rank, counts.share, "the model");
    drawn = drawModel(p.width(), model, counts, ui, ui.over);
    p.picture(drawn.svg, drawn.height, `${name} as a map in which area is numbers. Adapters on ${targets.join(", ")} of rank
      ${count(counts.rank)} take ${percent(counts.share)} of it.`);
    p.fill({ ".caption": tellRow(counts.rows[ui.over]) });
    fillTable(() => modelTable(counts));
    return tellModel(name, counts);
  }

  function drawFlow(view) {
    const toy = readToy(view);
    const { r, scan } = toy;
    now = { view, toy };
    const at = Math.ceil(scan);
    const where = !scan ? "to begin" : at <= r ? `row ${at} of A` : scan < r + D ? `row ${at - r} of W and B` : "done";
    p.slide("scan", { most: r + D, value: scan, words: where });
    p.slide("toy_rank", { most: MOST_RANK - 1, value: r - 1, words: String(r) });
    p.slide("alpha", { most: 3, value: Math.log2(p.get("alpha")), words: `${p.get("alpha")}, so α/r = ${about(toy.scaling)}` });
    p.check("adapter", [String(ui.adapter)]);
    const [go, act] = {
      start: ["play forward", ""],
      steps: ["take a step", "start over"],
      merge: [ui.merged >= 1 ? "unmerge" : "merge", "play forward"],
      swap: ["play forward", ""],
    }[view];
    p.one("button[name=go]").textContent = go;
    p.one("button[name=go]").disabled = view === "steps" && ui.step >= toy.states.length - 1;
    p.one("button[name=act]").textContent = act;
    p.one("button[name=act]").hidden = !act;
    drawn = drawToy(p.width(), toy);
    p.card.classList.toggle("tight", drawn.small);
    const y = toy.out.y.map((v) => v.toFixed(1)).join(", ");
    p.picture(drawn.svg, drawn.height, `A toy layer of 8 by 8: x flows through W, and through A and B; y is ${y}.`);
    fillTable(() => toyTable(toy));
    return tellToy(toy);
  }

  function showRank(ranks, rank, share, whole) {
    const words = `rank ${count(rank)}, ${percent(share)} of ${whole}`;
    p.slide("rank", { values: ranks, value: rank, words: count(rank), spoken: words });
    p.one("button[name=drop]").textContent = `${ui.dropped ? "lift the patch off" : "drop the patch on"} ${whole}`;
  }

  function offerModels(none, chosen) {
    p.choose("model", [...(none ? [["", none]] : []), ...names().map((name) => [name, name])], chosen);
  }

  function fillTable(table) {
    if (p.one("details").open) p.fill({ "details table": table() });
    now.table = table;
  }

  // ---- what controls and pulling do

  function afresh(change = {}) {
    p.stop();
    Object.assign(ui, begin, change);
  }

  function pass() {
    const rows = D + clamp(p.get("toy_rank"), 1, MOST_RANK);
    p.play(ROW * rows, (t) => {
      ui.scan = t * rows;
    });
  }

  /** A and B go over from what they are to what they become. */
  function blend(change) {
    const { A, B } = now.toy;
    afresh(change);
    const tick = (t) => {
      ui.blend = { A, B, part: 1 - (1 - t) ** 3 };
    };
    p.play(STEP, tick, () => {
      ui.blend = null;
    });
  }

  /** Let the gathered patch go: onto what it belongs to, or back where it lay. */
  function settle(dropped) {
    const from = [...ui.lift];
    const to = dropped ? [0, 0] : LIFTED;
    ui.dropped = dropped;
    p.play(SNAP, (t) => {
      const part = 1 - (1 - t) ** 3;
      ui.lift = from.map((v, i) => v + part * (to[i] - v));
    });
  }

  function toggle(target) {
    const { targets } = now;
    if (target === "all-linear") return targets.includes(target) ? [] : [target];
    const rest = targets.filter((one) => one !== "all-linear");
    return rest.includes(target) ? rest.filter((one) => one !== target) : [...rest, target];
  }

  const actions = {
    view(view) {
      afresh();
      ui.over = -1;
      p.set({ view });
    },
    model: (model) => p.set({ model, layer: "" }),
    layer: (layer) => p.set({ layer }),
    d: (d) => p.set({ d }),
    rank: (rank) => p.set({ rank }),
    targets: (target) => p.set({ targets: toggle(target) }),
    drop: () => settle(!ui.dropped),
    scan(scan) {
      p.stop();
      ui.scan = scan;
      p.redraw();
    },
    toy_rank(position) {
      afresh({ adapter: ui.adapter });
      p.set({ toy_rank: position + 1 });
    },
    alpha(position) {
      ui.step = 0;
      p.set({ alpha: 2 ** position });
    },
    token() {
      const token = (ui.token + 1) % TOKENS.length;
      Object.assign(ui, { token, x: [...TOKENS[token]], step: 0 });
      p.redraw();
    },
    adapter: (which) => blend({ adapter: Number(which) }),
    act: () => (now.view === "steps" ? blend({}) : pass()),
    go() {
      if (now.view === "steps") return blend({ step: ui.step + 1 });
      if (now.view !== "merge") return pass();
      const back = ui.merged >= 1;
      ui.scan = begin.scan;
      return p.play(back ? MERGE / 3 : MERGE, (t) => {
        ui.merged = back ? 1 - t : t;
      });
    },
  };

  p.one("details").addEventListener("toggle", () => now.table && fillTable(now.table));
  const svg = p.one(".picture svg");
  const rowAt = (target) => Number(target.closest("[data-row]")?.dataset.row ?? -1);
  svg.addEventListener("pointermove", ({ target, buttons }) => {
    if (now.view !== "model" || buttons || rowAt(target) === ui.over) return;
    ui.over = rowAt(target);
    p.fill({ ".caption": tellRow(now.counts.rows[ui.over]) });
  });
  svg.addEventListener("click", ({ target }) => {
    const row = now.view === "model" && now.model.rows[rowAt(target)];
    const roles = row ? Object.keys(row.trains).filter((role) => role !== "all-linear") : [];
    if (!row || !Object.keys(row.trains).length) return;
    const on = roles.some((role) => now.targets.includes(role)) || !roles.length;
    const rest = now.targets.filter((target) => target !== "all-linear" && !roles.includes(target));
    p.set({ targets: roles.length ? (on ? rest : [...rest, ...roles]) : toggle("all-linear") });
    p.save();
  });
  p.drag((target, x, y) => {
    if (target.closest(".grip")) return { move: (at) => actions.rank(now.ranks[nearest(now.ranks, drawn.rankAt(Math.max(60, at)))]) };
    if (target.dataset.bar) {
      return {
        move(_, up) {
          ui.x[target.dataset.bar] = clamp(Math.round((10 * (drawn.bars.up - up)) / drawn.bars.unit) / 10, -2.2, 2.2);
          p.redraw();
        },
      };
    }
    if (!target.closest(".gathered")) return null;
    const from = [...ui.lift];
    ui.dropped = false;
    return {
      move(at, up) {
        ui.lift = [from[0] + at - x, from[1] + up - y];
        p.redraw();
      },
      end: (at, up) => settle(drawn.onto(at, up)),
    };
  });
  return { actions, draw };
}

export default panel({ title: "LoRA to scale", css: LORA_CSS, traits: TRAITS, body: BODY, start });
