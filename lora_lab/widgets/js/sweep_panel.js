// The playground: a map of runs over rate, rank and alpha. Python sends runs, means and lines; here they are drawn.

import SWEEP_CSS from "./sweep_panel.css";
import { button, letter, menu, segments, slider, table } from "./controls.js";
import { about, capital, clamp, count, decimal, escape } from "./format.js";
import { panel } from "./panel.js";
import { drawMap, rateName } from "./sweep_map.js";
import { drawLosses, drawResults, interval, points, tellCell } from "./sweep_runs.js";

const TRAITS = {
  data: {}, losses: null, live: {}, view: "rank", targets: "", rank: 8, alpha: 16, lr: 2e-3, picked: [], seeds: [], guess: {},
};
const α = letter("α");
const FAMILIES = {
  // what the best rate does
  rank: { alone: "stays the same", root: "grows with √r", whole: "grows with r" },
  alpha: { alone: "stays the same", root: "falls with √α", whole: "falls with α" },
};

const drawn = (name) => `<div class="${name} drawn"><svg role="img"></svg></div>`;
const BODY = `<header><div class="title"></div>
  ${segments("view", "what stands over the rate", [["rank", "rate × rank"], ["alpha", `rate × ${α}`]])}</header>
<div class="body">
  <div>${drawn("picture")}<p class="key"></p></div>
  <div class="side">
    <div class="controls">
      ${menu("targets", "adapt")}
      ${slider("lr", "learning rate", "train")}
      ${slider("rank", `rank ${letter("r")}`, "train")}
      ${slider("alpha", `alpha ${α}`, "train")}
    </div>
    <div class="row">${button("best", "go to the best cell")}</div>
    <p class="big"></p><p class="words"></p>
    <p class="sub each"></p>
    ${drawn("results")}
    <p class="sub">Training loss at each step</p>
    ${drawn("curve")}
  </div>
  <div class="below">
    <div class="row trains">${button("run", "", "first")}${button("halt", "Stop")}${button("pick", "")}${button("row", "")}</div>
    <progress max="1" value="0" aria-label="training"></progress>
    <p class="doing"></p><p class="kernel"></p>
    <div data-for="predict"><p class="question"></p>
      ${segments("family", "your prediction", Object.keys(FAMILIES.rank).map((name) => [name, `<span class="${name}"></span>`]))}
      <p class="fits"></p></div>
  </div>
</div>
<p class="about"></p>
<details><summary>all cells as a table</summary><div class="scrolls" tabindex="0" role="group"
  aria-label="all cells as a table"><table class="all"></table></div></details>`;

const swatch = (inner) => `<svg viewBox="0 0 13 13" aria-hidden="true">${inner}</svg>`;
const KEY = {
  seeds: `<span>${swatch('<circle cx="6.5" cy="6.5" r="3" class="ink"/>')}a run</span>`,
  dead: `<span>${swatch('<path d="M3 3l7 7m0 -7l-7 7" class="stroke ink"/>')}a run that collapsed</span>`,
  untried: `<span>${swatch('<rect x=".5" y=".5" width="12" height="12" class="edge"/><path d="M1 9l8 -8M4 12l8 -8" class="edge"/>')}not tried: click to pick</span>`,
  top: `<span>${swatch('<path d="M1.5 6.5l5 -5l5 5l-5 5z" class="ink"/>')}best of its row</span>`,
};

const close = (one, other) => Math.abs(one / other - 1) < 1e-6;

function start(p) {
  const ui = { family: {}, help: false, halts: false };
  let seen; // the data that `index` is of
  let index;
  let now; // what is drawn
  let map;
  let tabled = {}; // what the table shows

  // ---- what follows from what was chosen

  /** Cells by their place, and what is the same for all of them; made anew only when Python sends other data. */
  function indexed() {
    const data = p.get("data");
    if (seen === data) return index;
    seen = data;
    const bytes = p.get("losses");
    const curves = bytes ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array();
    const runs = data.runs.map((run, i) => {
      const own = [...curves.subarray(i * data.points, (i + 1) * data.points)];
      return { ...run, losses: own.filter((point) => point < 255).map((point) => (point * data.top) / 254) };
    });
    const cells = data.cells.map((cell) => ({ ...cell, runs: cell.runs.map((i) => runs[i]) }));
    const all = runs.flatMap((run) => (run.value === null ? [] : [run.value]));
    const losses = runs.flatMap((run) => run.losses);
    const starts = runs.flatMap((run) => run.losses.slice(0, 1));
    const place = new Map(cells.map((cell) => [[cell.targets, cell.rank, cell.alpha, cell.column].join(), cell]));
    const [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : data.unit ? [0, 100] : [0, 1];
    const begin = starts.length ? starts.reduce((sum, one) => sum + one, 0) / starts.length : 0;
    const span = losses.length ? [Math.min(...losses), Math.max(...losses)] : [0, data.top];
    const range = [Math.max(0, span[0] - 0.05), Math.min(span[1], Math.max(1.5 * begin, span[0] + 0.1))];
    index = { data, place, cells, low, high, begin, range, bests: Object.fromEntries(Object.entries(data.best).map(([t, i]) => [t, cells[i]])) };
    return index;
  }

  function read() {
    const all = indexed();
    const { data } = all;
    const targets = data.targets.includes(p.get("targets")) ? p.get("targets") : data.targets[0];
    const axes = { rank: data.ranks, alpha: data.alphas, lr: data.rates };
    const many = { rank: data.ranks.length > 1, alpha: data.alphas.length > 1 };
    const view = many[p.get("view")] || !many.alpha ? p.get("view") : "alpha";
    const at = { rank: nearestTo(axes.rank, p.get("rank")), alpha: nearestTo(axes.alpha, p.get("alpha")) };
    at.lr = clamp(Math.round((Math.log2(p.get("lr")) - data.start) / data.wide), 0, axes.lr.length - 1);
    const find = (rank, alpha, column) => all.place.get([targets, rank, alpha, column].join());
    const chosen = { rank: axes.rank[at.rank], alpha: axes.alpha[at.alpha], column: at.lr, row: at[view] };
    const cell = find(chosen.rank, chosen.alpha, chosen.column);
    chosen.lr = cell?.lr ?? (columnOf(data, p.get("lr")) === at.lr ? p.get("lr") : axes.lr[at.lr]);
    const fixed = view === "rank" ? "alpha" : "rank";
    const best = all.bests[targets];
    return { ...all, targets, axes, many, view, fixed, at, find, chosen, cell, best, line: data.lines[view][`${targets}|${chosen[fixed]}`] };
  }

  const columnOf = (data, lr) => Math.round((Math.log2(lr) - data.start) / data.wide);
  const nearestTo = (values, value) =>
    values.reduce((best, one, i) => (Math.abs(Math.log(one / value)) < Math.abs(Math.log(values[best] / value)) ? i : best), 0);

  /** The losses of a cell's runs that train now; undefined where none does. */
  function atWork(rank, alpha, lr) {
    const found = (p.get("live").curves ?? []).filter(([r, a, l]) => r === rank && close(a, alpha) && close(l, lr));
    return found.length ? found.map(([, , , losses]) => losses) : undefined;
  }

  const isPicked = (rank, alpha, lr) =>
    p.get("picked").some(([r, a, l]) => r === rank && close(a, alpha) && close(l, lr));

  /** The rate that an untried place of the map stands for. */
  const rateAt = (column) => (column === now.chosen.column && !now.cell ? now.chosen.lr : now.data.rates[column]);

  function rowsOf({ axes, view, chosen, find, data, low, high, best }) {
    return axes[view].map((number) => {
      const [rank, alpha] = view === "rank" ? [number, chosen.alpha] : [chosen.rank, number];
      let top;
      const cells = axes.lr.map((_, column) => {
        const cell = find(rank, alpha, column);
        const lr = cell?.lr ?? rateAt(column);
        const live = atWork(rank, alpha, lr);
        const base = { picked: isPicked(rank, alpha, lr) };
        if (live) base.training = (Math.max(...live.map((one) => one.length)) * data.every) / data.steps;
        if (!cell) return base;
        const share = cell.mean === null ? 0 : data.up ? (cell.mean - low) / (high - low || 1) : (high - cell.mean) / (high - low || 1);
        const made = { ...base, ...cell, share, best: cell === best };
        if (cell.mean !== null && (!top || (data.up ? cell.mean > top.mean : cell.mean < top.mean))) top = made;
        return made;
      });
      if (top) top.top = true;
      return { number, value: about(number), cells };
    });
  }

  // ---- drawing

  function draw() {
    now = read();
    const { data, view, chosen, cell, many, axes, at, best, cells } = now;
    const live = p.gone() ? { ...p.get("live"), busy: false, state: "" } : p.get("live");
    if (!live.busy) ui.halts = false;
    const own = atWork(chosen.rank, chosen.alpha, chosen.lr);
    const family = p.get("guess")[view] && (ui.family[view] ?? p.get("guess")[view]);
    const predicts = Boolean(now.line);
    p.offer(["lr", "rank", "alpha", ...(many.rank && many.alpha ? ["view"] : []), ...(data.targets.length > 1 ? ["targets"] : []), ...(predicts ? ["predict", "family"] : [])]);
    p.check("view", [view]);
    p.slide("lr", { most: axes.lr.length - 1, value: at.lr, words: rateName(chosen.lr), spoken: `rate ${rateName(chosen.lr)}${cell ? "" : ", not tried"}` });
    p.slide("rank", { most: axes.rank.length - 1, value: at.rank, words: count(chosen.rank), spoken: `rank ${chosen.rank}` });
    p.slide("alpha", { most: axes.alpha.length - 1, value: at.alpha, words: about(chosen.alpha), spoken: `alpha ${about(chosen.alpha)}` });
    for (const name of ["lr", "rank", "alpha"]) p.one(`input[name=${name}]`).disabled = axes[name].length < 2;
    p.choose("targets", data.targets.map((one) => [one, one.replaceAll(",", ", ")]), now.targets);

    const line = predicts && family && { ...now.line[family], wide: data.wide, name: `best rate ${FAMILIES[view][family]}` };
    const rows = rowsOf(now);
    map = drawMap(p.width(), {
      rows, rates: axes.lr, chosen, line, dark: p.dark(), down: view === "rank" ? "rank" : "α",
      at: view === "rank" ? `at α ${about(chosen.alpha)}` : `at rank ${chosen.rank}`,
    });
    const tried = rows.flatMap((row) => row.cells).filter((one) => one.runs).length;
    p.picture(map.svg, map.height, `Map of validation ${data.metric}: learning rate across, ${view} down, ${tried} of
      ${rows.length * axes.lr.length} cells tried. The table below has every number.`);
    now.untried = rows.length * axes.lr.length - tried;
    const dead = cells.some((one) => one.runs.some((run) => run.state === "collapsed" || run.state === "failed"));
    p.fill({
      ".title": title(now),
      ".key": [KEY.seeds, ...(dead ? [KEY.dead] : []), ...(now.untried ? [KEY.untried] : []), ...(line ? [KEY.top] : [])].join(""),
      ".about": escape(data.about),
      ".each": `${capital(data.metric)} of each run${data.unit ? `, ${data.unit}` : ""}`,
    });
    if (predicts) drawPrediction(view, family, rows);

    const results = drawResults(p.width(".results"), own ? undefined : cell, best, pad(now), data.unit);
    p.picture(results.svg, results.height, cell ? `Every run: ${cell.runs.map((run) => run.value ?? "failed").join(", ")}.` : "No run yet.", ".results svg");
    const curves = own ?? (cell ? cell.runs.map((run) => run.losses) : []);
    const losses = drawLosses(p.width(".curve"), curves, { steps: data.steps, every: data.every, range: now.range, start: now.begin, live: own });
    const ends = curves.filter((one) => one.length).map((one) => one.at(-1).toFixed(2));
    p.picture(losses.svg, losses.height, ends.length ? `Loss of each run at the end: ${ends.join(", ")}; all began near ${now.begin.toFixed(2)}.` : "No curve yet.", ".curve svg");
    const [big, words] = tellCell({ cell, chosen, best, live: own, broken: p.gone(), data, seeds: p.get("seeds") });
    p.fill({ ".big": big, ".words": words });
    const doing = drawTraining(live);
    fillTable();
    return `${big}. ${words} ${doing}`;
  }

  const pad = ({ low, high }) => [low - 0.06 * (high - low || 1), high + 0.06 * (high - low || 1)];

  /** The finding: which knob moves the metric, and how far. */
  function title({ data, targets }) {
    const names = { lr: "the learning rate", rank: "rank", alpha: "α" };
    const told = Object.entries(data.moves[targets] ?? {}).sort(([, a], [, b]) => b - a);
    if (!told.length) return data.runs.length ? "A first look at learning rate, rank and α" : "Nothing is trained yet: pick cells and run them";
    const [[first, by], ...rest] = told;
    const others = rest.map(([name, value]) => `, ${names[name]} ${decimal(value)}`).join("");
    const most = data.unit ? `${points(by, data.unit)} of ${data.metric}` : `${data.metric} by ${decimal(by)}`;
    const apart = rest.length ? "Worst to best, each rank and each α at its best rate." : "Worst to best.";
    const noise = data.spread ? ` Means are known to ±${decimal(data.spread)}, so less may be chance.` : "";
    return `${capital(names[first])} ${rest.length ? "matters most" : "matters"}: ${most}${others} <span class="gloss">${apart}${noise}</span>`;
  }

  function drawPrediction(view, family, rows) {
    const { data, line } = now;
    const guess = p.get("guess")[view];
    const values = rows.filter((row) => row.cells.filter((one) => one.runs).length >= 3).map((row) => row.value);
    const what = `${view === "rank" ? "rank" : α} grows from ${values[0]} to ${values.at(-1)}`;
    p.fill({ ".question": `${guess ? "When" : "Predict: when"} ${what}, what does the best rate do?` });
    for (const [name, label] of Object.entries(FAMILIES[view])) p.fill({ [`.${name}`]: label });
    p.check("family", family ? [family] : []);
    if (!family) return p.fill({ ".fits": "Pick one. It is drawn as a line across the map: how much is lost if every row’s rate follows it?" });
    const fit = line[family];
    const order = Object.keys(line).sort((a, b) => line[a].lost - line[b].lost);
    const all = order.map((name) => `“${FAMILIES[view][name]}” ${decimal(line[name].lost)}`).join(", ");
    const where = `${view === "rank" ? "rank" : α} ${about(fit.row)}`;
    const most = fit.worst < 0.05 ? "" : `, most at ${where}: ${decimal(fit.worst)}`;
    const yours = guess === family ? "Your prediction" : `You predicted “${FAMILIES[view][guess]}”. This line`;
    return p.fill({
      ".fits": `${yours} (${FAMILIES[view][family]}) loses ${points(fit.lost, data.unit)} on average, compared with tuning
        each row${most}. All three: ${all}.`,
    });
  }

  function drawTraining(live) {
    const { chosen, cell, view, axes, best } = now;
    const picked = p.get("picked").length;
    const busy = Boolean(live.busy);
    const mine = isPicked(chosen.rank, chosen.alpha, chosen.lr);
    const left = untriedOfRow();
    const set = (name, words, hidden, disabled = false) => {
      const one = p.one(`button[name=${name}]`);
      if (words) one.textContent = words;
      one.hidden = hidden;
      one.disabled = disabled;
    };
    set("pick", mine ? "unpick this cell" : "pick this cell", Boolean(cell) || busy);
    const whole = left.every((one) => isPicked(...one));
    set("row", `${whole ? "unpick" : "pick"} this row’s ${left.length} untried cells`, busy || left.length < 2);
    set("best", "", !best, best === cell);
    const seeds = p.get("seeds").length;
    set("run", picked ? `run these: ${count(picked)} cell${picked > 1 ? "s" : ""} × ${seeds} seed${seeds > 1 ? "s" : ""}` : "run these", busy, !picked || p.gone() || p.waits());
    set("halt", "", !busy, ui.halts);
    const bar = p.one("progress");
    bar.hidden = !busy;
    bar.value = live.share ?? 0;
    const words = doing(live, busy, picked, axes, view);
    p.fill({ ".doing": words });
    return words;
  }

  function doing(live, busy, picked) {
    if (ui.help) {
      const list = p.get("picked").map(([r, a, l]) => `(${r}, ${about(a)}, ${rateName(l)})`).join(", ");
      return `This page cannot train. In the lab (<code>make lab</code>), run <code>from lora_lab import SweepPanel</code> and
        <code>SweepPanel(picked=[${list}])</code>, then press <em>run these</em> there.`;
    }
    if (live.error) return `<strong>It failed.</strong> ${escape(live.error)}`;
    if (busy && ui.halts) return "Stopping after this step.";
    if (busy) {
      const eta = live.left === null || live.left === undefined ? "" : `, about ${count(live.left)} s to go`;
      const step = live.state === "training" ? `: step ${count(live.step)} of ${count(now.data.steps)}${eta}` : "";
      return `${capital(escape(live.state))}, ${count(live.runs)} runs side by side${step}.`;
    }
    if (live.state === "stopped") return "Stopped. What has finished is kept; run these continues from there.";
    if (live.state === "done") return "Done: the map has the new runs.";
    const list = p.get("picked").slice(0, 4).map(([r, a, l]) => `rate ${rateName(l)} at rank ${r}, ${α} ${about(a)}`);
    const more = picked > 4 ? ` and ${picked - 4} more` : "";
    if (picked) return `Picked: ${list.join("; ")}${more}.`;
    return now.untried ? "Hatched cells are not tried yet. Pick some and train them here." : "Every cell of this map has been tried.";
  }

  function fillTable() {
    if (!p.one("details").open) return;
    const { data, cells, targets } = now;
    if (tabled.data === data && tabled.targets === targets) return markRow();
    const sorted = cells.filter((one) => one.targets === targets).sort((a, b) => a.rank - b.rank || a.alpha - b.alpha || a.lr - b.lr);
    const each = (run) => {
      const value = run.value === null ? "failed" : run.value.toFixed(1);
      const marked = run.state === "done" ? value : `${value} (${run.state === "flat" ? "nothing learned" : run.state})`;
      return run.who ? `${escape(run.who)} ${marked}` : marked;
    };
    const row = (one) => [
      `rank ${one.rank}, α ${about(one.alpha)}, rate ${rateName(one.lr)}`,
      one.mean === null ? "" : one.mean.toFixed(1),
      one.low === null ? "" : interval(one, data.unit),
      one.runs.map(each).join(", "),
    ];
    const unit = data.unit ? ` (${data.unit})` : "";
    p.fill({ ".all": table(["cell", `mean${unit}`, "95% interval", "every run"], sorted.map(row)) });
    tabled = { data, targets, sorted };
    return markRow();
  }

  function markRow() {
    p.one(".all .now")?.classList.remove("now");
    p.card.querySelectorAll(".all tbody tr")[tabled.sorted.indexOf(now.cell)]?.classList.add("now");
  }

  // ---- what controls and pulling do

  function untriedOfRow() {
    const { axes, chosen, find } = now;
    return axes.lr.flatMap((_, column) => (find(chosen.rank, chosen.alpha, column) ? [] : [[chosen.rank, chosen.alpha, rateAt(column)]]));
  }

  function choose(rank, alpha, column) {
    const cell = now.find(rank, alpha, column);
    ui.help = false;
    p.set({ rank, alpha, lr: cell?.lr ?? now.data.rates[column] });
  }

  function toggle() {
    const { rank, alpha, lr } = now.chosen;
    const rest = p.get("picked").filter(([r, a, l]) => !(r === rank && close(a, alpha) && close(l, lr)));
    p.set({ picked: rest.length < p.get("picked").length ? rest : [...rest, [rank, alpha, lr]] });
  }

  const actions = {
    view: (view) => p.set({ view }),
    targets: (targets) => p.set({ targets }),
    lr: (column) => choose(now.chosen.rank, now.chosen.alpha, column),
    rank: (at) => choose(now.axes.rank[at], now.chosen.alpha, now.chosen.column),
    alpha: (at) => choose(now.chosen.rank, now.axes.alpha[at], now.chosen.column),
    family(family) {
      const { view } = now;
      ui.family[view] = family;
      if (p.get("guess")[view]) p.redraw();
      else p.set({ guess: { ...p.get("guess"), [view]: family } });
    },
    pick: toggle,
    row() {
      const row = untriedOfRow();
      const more = row.filter((one) => !isPicked(...one));
      const others = p.get("picked").filter(([r, a]) => r !== now.chosen.rank || !close(a, now.chosen.alpha));
      p.set({ picked: more.length ? [...p.get("picked"), ...more] : others });
    },
    best: () => now.best && p.set({ rank: now.best.rank, alpha: now.best.alpha, lr: now.best.lr }),
    run() {
      if (!p.kernel) {
        ui.help = true;
        return p.redraw();
      }
      const [rank, alpha, lr] = p.get("picked").find(([r, a, l]) => isPicked(r, a, l));
      if (!isPicked(now.chosen.rank, now.chosen.alpha, now.chosen.lr)) p.set({ rank, alpha, lr });
      return p.ask("live", { do: "run", picked: p.get("picked"), targets: now.targets }); // traits may come later
    },
    halt() {
      ui.halts = true;
      p.ask("live", { do: "stop" });
    },
  };

  p.one("details").addEventListener("toggle", fillTable);
  p.drag((_, x, y) => {
    const place = map.place(x, y);
    if (!place.inside) return undefined;
    const go = ({ row, column }) => {
      const number = now.axes[now.view][row];
      if (now.view === "rank") choose(number, now.chosen.alpha, column);
      else choose(now.chosen.rank, number, column);
    };
    go(place);
    let moved = false;
    return {
      move(mx, my) {
        const to = map.place(mx, my);
        if (to.row === place.row && to.column === place.column && !moved) return;
        moved = true;
        go(to);
      },
      end: () => !moved && !now.cell && !p.get("live").busy && toggle(),
    };
  });

  return { actions, draw };
}

export default panel({ title: "Playground: learning rate, rank and alpha", css: SWEEP_CSS, traits: TRAITS, body: BODY, start });
