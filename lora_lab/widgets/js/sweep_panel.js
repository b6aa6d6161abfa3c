// The playground: a map of runs over rate, rank and alpha. Python sends runs, means and lines; this file draws them.

import SWEEP_CSS from "./sweep_panel.css";
import { NO_KERNEL, button, drawn, folded, letter, menu, nearest, segments, slider, table, trouble } from "./controls.js";
import { about, capital, clamp, count, decimal, escape, extent, octets, plural, sum } from "./format.js";
import { panel } from "./panel.js";
import { drawGuesses, drawMap, drawResults, isDead, points, rateName, describeCell } from "./sweep_picture.js";
import { lossChart } from "./svg.js";

const TRAITS = {
  data: {}, losses: null, live: {}, view: "rank", targets: "", rank: 8, alpha: 16, lr: 2e-3, picked: [], seeds: [],
  guess: {}, classroom: null, question: "",
};
const α = letter("α");
const FAMILIES = { // how the best rate changes
  rank: { alone: "stays the same", root: "grows with √r", whole: "grows with r" },
  alpha: { alone: "stays the same", root: "falls with √α", whole: "falls with α" },
};

const BODY = `<header><div class="title"></div>
  ${segments("view", "map", [["rank", "rate × rank"], ["alpha", `rate × ${α}`]])}</header>
<div class="body tall">
  <div>${drawn()}<p class="key"></p></div>
  <div class="side">
    <div class="controls">${menu("targets", "adapt")}${slider("lr", "learning rate", "train")}
      ${slider("rank", `rank ${letter("r")}`, "train")}${slider("alpha", `alpha ${α}`, "train")}</div>
    <div class="row">${button("best", "go to the best cell")}</div>
    <p class="big"></p><p class="words"></p>
    <p class="sub each"></p>${drawn("results")}
    <div data-for="curves"><p class="sub">Training loss at each step</p>${drawn("curve")}</div>
  </div>
  <div class="below">
    <div class="classroom" data-for="classroom"><p class="sub guessed"></p>${drawn("guesses")}
      <p class="near"></p><div class="row">${button("refresh", "Refresh", "first")}</div><p class="left"></p></div>
    <div data-for="predict"><p class="question"></p>${segments("family", "your prediction")}<p class="fits"></p></div>
    <div class="row trains" data-for="trains">${button("run", "", "first")}${button("halt", "Stop")}${button("pick", "")}
      ${button("row", "")}</div>
    <progress max="1" value="0" aria-label="training"></progress>
    <p class="doing"></p><p class="kernel"></p>
  </div>
</div>
<p class="about"></p>${folded("all cells as a table")}`;

const KEY = { seeds: "● a run", dead: "× a run collapsed (large ×: every run)", untried: "▨ not tried", top: "◆ best of its row" };

const close = (a, b) => Math.abs(a / b - 1) < 1e-6;
const byLoss = (lines) => Object.keys(lines).sort((a, b) => lines[a].lost - lines[b].lost);
const same = ([rank, alpha, lr], [r, a, l]) => rank === r && close(alpha, a) && close(lr, l);
const nearestTo = (values, value) => nearest(values.map(Math.log), Math.log(value));

function start(p) {
  const ui = p.keep({ family: {} });
  let index; // an index of the data: cells by position, and shared ranges
  let now; // what is drawn
  let map;

  // ---- derived state
  function indexed() {
    const data = p.get("data");
    if (index?.data === data) return index;
    const curves = p.get("losses") ? octets(p.get("losses")) : new Uint8Array();
    const runs = data.runs.map((run, i) => {
      const levels = [...curves.subarray(i * data.points, (i + 1) * data.points)].filter((level) => level < 255);
      return { ...run, losses: levels.map((level) => (level * data.top) / 254) };
    });
    const cells = data.cells.map((cell) => ({ ...cell, runs: cell.runs.map((i) => runs[i]) }));
    const byPosition = new Map(cells.map((cell) => [[cell.targets, cell.rank, cell.alpha, cell.column].join(), cell]));
    const values = runs.map((run) => run.value).filter((value) => value !== null);
    const [low, high] = values.length ? extent(values) : [0, data.unit ? 100 : 1];
    const [starts, losses] = [runs.flatMap((run) => run.losses.slice(0, 1)), runs.flatMap((run) => run.losses)];
    const begin = starts.length ? sum(starts) / starts.length : 0;
    const [lowest, highest] = losses.length ? extent(losses) : [0, 0.1];
    const range = [Math.max(0, lowest - 0.05), Math.min(highest, Math.max(1.5 * begin, lowest + 0.1))];
    const bests = Object.fromEntries(Object.entries(data.best).map(([targets, i]) => [targets, cells[i]]));
    index = { data, byPosition, cells, low, high, begin, range, bests };
    return index;
  }

  function read() {
    const all = indexed();
    const { data } = all;
    const targets = data.targets.includes(p.get("targets")) ? p.get("targets") : data.targets[0];
    const axes = { rank: data.ranks, alpha: data.alphas, lr: data.rates };
    const views = ["rank", "alpha"].filter((name) => axes[name].length > 1);
    const view = views.includes(p.get("view")) ? p.get("view") : (views[0] ?? p.get("view"));
    const [rank, alpha] = ["rank", "alpha"].map((name) => axes[name][nearestTo(axes[name], p.get(name))]);
    const exact = Math.round((Math.log2(p.get("lr")) - data.start) / data.wide);
    const column = clamp(exact, 0, axes.lr.length - 1);
    const find = (r, a, c) => all.byPosition.get([targets, r, a, c].join());
    const cell = find(rank, alpha, column);
    const lr = cell?.lr ?? (exact === column ? p.get("lr") : axes.lr[column]);
    const chosen = { rank, alpha, column, lr, place: [rank, alpha, lr], row: axes[view].indexOf(view === "rank" ? rank : alpha) };
    const lines = data.lines[view][`${targets}|${view === "rank" ? alpha : rank}`];
    return { ...all, targets, axes, views, view, find, chosen, cell, best: all.bests[targets], lines };
  }

  /** The losses of a cell's runs in training; undefined if there are none. */
  function liveLosses(place) {
    const curves = (p.get("live").curves ?? []).filter((curve) => same(curve, place));
    return curves.length ? curves.map(([, , , losses]) => losses) : undefined;
  }

  const isPicked = (place) => p.kernel && p.get("picked").some((picked) => same(picked, place));

  /** [rank, alpha, rate] of a position on the map; an untried cell has the middle rate of its column. */
  function placeOf(rank, alpha, column) {
    const { find, cell, chosen, axes } = now;
    const untried = column === chosen.column && !cell ? chosen.lr : axes.lr[column];
    return [rank, alpha, find(rank, alpha, column)?.lr ?? untried];
  }

  const across = (number) => (now.view === "rank" ? [number, now.chosen.alpha] : [now.chosen.rank, number]);

  function rowsOf({ axes, view, find, data, low, high, best }) {
    return axes[view].map((number) => {
      const cells = axes.lr.map((_, column) => {
        const place = placeOf(...across(number), column);
        const cell = find(...across(number), column);
        const live = liveLosses(place);
        const longest = live && Math.max(...live.map(({ length }) => length));
        const base = { picked: isPicked(place), training: live && Math.min(1, (longest * data.every) / data.steps) };
        if (!cell) return base;
        const share = cell.mean === null ? 0 : (data.up ? cell.mean - low : high - cell.mean) / (high - low || 1);
        return { ...base, ...cell, share, best: cell === best };
      });
      const [top] = cells.filter((cell) => cell.runs && cell.mean !== null).sort((a, b) => b.share - a.share);
      if (top) top.top = true;
      return { number, value: about(number), cells };
    });
  }

  // ---- drawing
  function draw() {
    now = read();
    const { data, view, views, chosen, cell, axes, best, cells, lines, low, high } = now;
    const live = p.live();
    const training = liveLosses(chosen.place);
    const family = p.get("guess")[view] && (ui.family[view] ?? p.get("guess")[view]);
    const classroom = p.get("classroom");
    p.offer({
      view: views.length > 1, targets: data.targets.length > 1, predict: Boolean(lines),
      classroom: Boolean(classroom), trains: p.kernel && !classroom,
      curves: Boolean(training) || cells.some(({ runs }) => runs.some(({ losses }) => losses.length)),
    });
    p.card.classList.toggle("large", Boolean(classroom));
    if (classroom) drawClassroom(classroom);
    p.check("view", [view]);
    const labels = { lr: rateName(chosen.lr), rank: count(chosen.rank), alpha: about(chosen.alpha) };
    const at = { lr: chosen.column, rank: axes.rank.indexOf(chosen.rank), alpha: axes.alpha.indexOf(chosen.alpha) };
    for (const [name, spelled] of [["lr", "rate"], ["rank", "rank"], ["alpha", "alpha"]]) {
      const spoken = `${spelled} ${labels[name]}${cell ? "" : ", not tried"}`;
      p.slide(name, { most: axes[name].length - 1, value: at[name], words: labels[name], spoken });
      p.find(`input[name=${name}]`).disabled = axes[name].length < 2;
    }
    p.choose("targets", data.targets.map((value) => [value, value.replaceAll(",", ", ")]), now.targets);

    const line = lines && family && { ...lines[family], wide: data.wide, name: `best rate ${FAMILIES[view][family]}` };
    const rows = rowsOf(now);
    const names = view === "rank" ? ["rank", `at α ${labels.alpha}`] : ["α", `at rank ${labels.rank}`];
    map = drawMap(p.width(), { rows, rates: axes.lr, chosen, line, dark: p.dark(), names });
    const tried = rows.flatMap((row) => row.cells).filter(({ runs }) => runs).length;
    now.untried = rows.length * axes.lr.length - tried;
    p.picture(map, `Map of validation ${data.metric}: learning rate across, ${view} down, ${tried} of
      ${tried + now.untried} cells tried. The table below has every number.`);
    const shown = { seeds: map.dots, dead: cells.some(({ runs }) => runs.some(isDead)), untried: now.untried, top: line };
    p.fill({
      ".title": title(now),
      ".key": Object.keys(KEY).filter((name) => shown[name]).map((name) => `<span>${KEY[name]}</span>`).join(" "),
      ".about": escape(data.about),
      ".each": `${capital(data.metric)} of each run${data.unit ? `, ${data.unit}` : ""}`,
    });
    if (lines) drawPrediction(view, family, rows);

    const pad = 0.06 * (high - low || 10);
    const results = drawResults(p.width("results"), training ? undefined : cell, best, [low - pad, high + pad]);
    p.picture(results, "The result of every run of this cell on a line, as in the table below.", "results");
    const curves = training ?? cell?.runs.map((run) => run.losses) ?? [];
    const range = now.begin ? now.range : [0, Math.max(0.1, ...curves.flat())]; // no run is stored yet
    const marked = { ...data, range, reach: 2, mark: now.begin, name: "before training", live: training };
    const losses = { svg: lossChart([30, p.width("curve") - 10, 8, 112], curves, marked), height: 132 };
    const last = curves.map((losses) => losses.findLast((loss) => loss !== null)); // null: before the kernel restarted
    const ends = last.filter((loss) => loss !== undefined).map((loss) => loss.toFixed(2)).join(", ") || "no run yet";
    p.picture(losses, `Training loss from about ${now.begin.toFixed(2)}; at the end: ${ends}.`, "curve");
    const [big, words] = describeCell({ cell, chosen, best, live: training, broken: p.gone(), data, seeds: p.kernel && !classroom && p.get("seeds") });
    p.fill({ ".big": big, ".words": words, ".doing": status(live) });
    drawButtons(live);
    p.numbers(cellTable);
    return `${big}. ${words} ${status(live)}`;
  }

  /** Only in a classroom: everyone's guess next to the measured value, and which runs were left out. */
  function drawClassroom({ left_out: leftOut, guesses, measured }) {
    const { unit, metric } = now.data;
    const result = measured === null ? "" : `; line: measured, ${decimal(measured)}${unit}`;
    const error = ([, value]) => Math.abs(value - measured);
    const [name, value] = guesses.length && measured !== null ? guesses.reduce((a, b) => (error(b) < error(a) ? b : a)) : [];
    p.picture(drawGuesses(p.width("guesses"), guesses, measured), `Guesses of the test ${metric}${result}.`, "guesses");
    p.fill({
      ".guessed": `Dots: guesses of the best cell’s test ${metric}${result}`,
      ".near": name ? `<b>${escape(name)}</b> is nearest with ${about(value)}${unit}.` : "No guesses to compare yet.",
      ".left": escape(leftOut),
    });
    p.button("refresh", { hidden: !p.kernel, off: p.gone() || p.waits() });
  }

  /** A question until the reader has made a prediction; then the finding: which knob moves the metric, and how far. */
  function title({ data, targets, lines, axes, view }) {
    if (lines && untriedOfRow().length === axes.lr.length) return "An empty row: guess its results from its neighbors";
    if (lines && p.get("question")) return p.get("guess")[view] ? `As ${view === "rank" ? "rank" : α} grows, the best rate ${FAMILIES[view][byLoss(lines)[0]]}` : escape(p.get("question"));
    if (lines && !Object.keys(p.get("guess")).length) return `Which slider moves ${data.metric} the most? Drag each of them`;
    const names = { lr: "the learning rate", rank: "rank", alpha: "α" };
    const effects = Object.entries(data.moves[targets] ?? {}).sort(([, a], [, b]) => b - a);
    if (!effects[0]?.[1]) {
      if (data.runs.length) return "A first look at learning rate, rank and α";
      return p.get("classroom") ? "No runs have arrived yet: press Refresh" : "Nothing has been trained yet: pick cells and run them";
    }
    const [[first, effect], ...rest] = effects;
    const others = rest.map(([name, value]) => `, ${names[name]} ${decimal(value)}`).join("");
    const largest = data.unit ? `${points(effect, data.unit)} of ${data.metric}` : `${data.metric} by ${decimal(effect)}`;
    const basis = rest.length ? "Differences from worst to best, with each rank and each α at its best rate." : "The difference from worst to best.";
    const noise = data.luck ? ` By luck alone, two cells may be ${points(data.luck, data.unit)} apart, and the best and worst of several cells even further.` : "";
    return `${capital(names[first])} ${rest.length ? "matters most" : "matters"}: ${largest}${others} <span class="gloss">${basis}${noise}</span>`;
  }

  function drawPrediction(view, family, rows) {
    const { data, lines } = now;
    const [guess, name] = [p.get("guess")[view], view === "rank" ? "rank" : α];
    const values = rows.filter((row) => row.cells.filter(({ runs }) => runs).length >= 3).map((row) => row.value);
    p.fill({
      ".question": `${guess ? "When" : "Predict: when"} ${name} grows from ${values[0]} to ${values.at(-1)}, how does the
        best rate change?`,
      ".fits": family ? fits() : `Pick one. It is drawn as a line across the map. How much is lost if every row uses the
        rate on the line?`,
    });
    p.check("family", [family], Object.entries(FAMILIES[view]));

    function fits() {
      const fit = lines[family];
      const all = byLoss(lines).map((name) => `“${FAMILIES[view][name]}” ${lines[name].least ? "at least " : ""}${decimal(lines[name].lost)}`).join(", ");
      const worst = fit.worst < 0.05 ? "" : `, and most at ${name} ${about(fit.row)} (${decimal(fit.worst)})`;
      const yours = guess === family ? "Your prediction" : `You predicted “${FAMILIES[view][guess]}”. This line`;
      return `${yours} (${FAMILIES[view][family]}) loses ${fit.least ? "at least " : ""}${points(fit.lost, data.unit)} on average, compared with
        tuning each row${worst}. The three lines lose: ${all}.`;
    }
  }

  function drawButtons({ busy, halts, share }) {
    const { chosen, cell, best } = now;
    const [picked, untried] = [p.get("picked").length, untriedOfRow()];
    const row = `${untried.every(isPicked) ? "unpick" : "pick"} this row’s ${untried.length} untried cells`;
    const run = picked ? `: ${plural(picked, "cell")} × ${plural(p.get("seeds").length, "seed")}` : "";
    p.button("pick", { words: isPicked(chosen.place) ? "unpick this cell" : "pick this cell", hidden: Boolean(cell) || busy });
    p.button("row", { words: row, hidden: busy || untried.length < 2 });
    p.button("best", { hidden: !best, off: best === cell });
    p.button("run", { words: `run these${run}`, hidden: busy, off: !picked || p.gone() || p.waits() });
    p.button("halt", { hidden: !busy, off: halts });
    p.progress(busy ? (share ?? 0) : undefined);
  }

  function status(live) {
    const picked = p.get("picked");
    if (trouble(live)) return trouble(live);
    if (p.get("classroom")) return "";
    if (!p.kernel) return NO_KERNEL;
    if (live.busy) {
      const eta = typeof live.left === "number" ? `, about ${count(live.left)} s left` : "";
      const step = live.state === "training" ? `: step ${count(live.step)} of ${count(now.data.steps)}${eta}` : "";
      return `${capital(escape(live.state))}, ${plural(live.runs, "run")} side by side${step}.`;
    }
    if (live.state === "stopped") return "Stopped. Finished runs are kept; press “run these” to continue.";
    if (live.state === "done") return "Done: the new runs are on the map.";
    const list = picked.slice(0, 4).map(([r, a, l]) => `rate ${rateName(l)} at rank ${r}, ${α} ${about(a)}`).join("; ");
    if (list) return `Picked: ${list}${picked.length > 4 ? ` and ${picked.length - 4} more` : ""}.`;
    return now.untried ? "Striped cells haven’t been tried yet. Pick some and train them here." : "Every cell has been tried.";
  }

  function cellTable() {
    const { data, cells, cell, targets } = now;
    const matching = cells.filter((other) => other.targets === targets);
    const sorted = matching.sort((a, b) => a.rank - b.rank || a.alpha - b.alpha || a.lr - b.lr);
    const describe = ({ value, state, who }) => {
      const note = state === "done" ? "" : ` (${isDead({ state }) ? state : "nothing learned"})`;
      return `${who ? `${escape(who)} ` : ""}${value === null ? "failed" : value.toFixed(1)}${note}`;
    };
    const row = ({ rank, alpha, lr, mean, runs }) => [
      `rank ${rank}, α ${about(alpha)}, rate ${rateName(lr)}`,
      mean === null ? "" : mean.toFixed(1),
      runs.map(describe).join(", "),
    ];
    const head = ["cell", `mean${data.unit ? ` (${data.unit})` : ""}`, "every run"];
    return table(head, sorted.map(row), sorted.indexOf(cell));
  }

  // ---- actions and dragging
  function untriedOfRow() {
    const { axes, chosen, find } = now;
    const untried = [...axes.lr.keys()].filter((column) => !find(chosen.rank, chosen.alpha, column));
    return untried.map((column) => placeOf(chosen.rank, chosen.alpha, column));
  }

  function choose(rank, alpha, column) {
    p.set({ rank, alpha, lr: now.find(rank, alpha, column)?.lr ?? now.axes.lr[column] });
  }

  /** Pick cells, or unpick them if all of them are picked. */
  function toggle(places) {
    const rest = p.get("picked").filter((picked) => !places.some((place) => same(picked, place)));
    p.set({ picked: places.every(isPicked) ? rest : [...rest, ...places] });
  }

  const actions = {
    lr: (column) => choose(now.chosen.rank, now.chosen.alpha, column),
    rank: (at) => choose(now.axes.rank[at], now.chosen.alpha, now.chosen.column),
    alpha: (at) => choose(now.chosen.rank, now.axes.alpha[at], now.chosen.column),
    family(family) {
      p.keep({ family: { ...ui.family, [now.view]: family } });
      p.set({ guess: { [now.view]: family, ...p.get("guess") } }); // keep the first guess
    },
    pick: () => toggle([now.chosen.place]),
    row: () => toggle(untriedOfRow()),
    best: () => now.best && p.set({ rank: now.best.rank, alpha: now.best.alpha, lr: now.best.lr }),
    run() {
      const picked = p.get("picked");
      const [rank, alpha, lr] = picked[0];
      if (!isPicked(now.chosen.place)) p.set({ rank, alpha, lr });
      return p.ask("live", { do: "run", traits: { picked, targets: now.targets } });
    },
    refresh: () => p.ask("live", { do: "refresh" }),
  };

  p.drag((_, x, y) => {
    const from = map.place(x, y);
    if (!from.inside) return false;
    let moved = false;
    const go = ({ row, column }) => choose(...across(now.axes[now.view][row]), column);
    go(from);
    return {
      move(mx, my) {
        const to = map.place(mx, my);
        moved ||= to.row !== from.row || to.column !== from.column;
        if (moved) go(to);
      },
      end: (_x, _y, scrolls) => p.kernel && !scrolls && !p.get("classroom") && !moved && !now.cell && !p.live().busy && actions.pick(),
    };
  });

  return { actions, draw };
}

export default panel({ title: "Playground: learning rate, rank and alpha", css: SWEEP_CSS, traits: TRAITS, body: BODY, start });
