// The film of a training step. Python sends films; every number that a slider changes is computed here.

import MEMORY_CSS from "./memory_panel.css";
import { button, menu, octaves, slider, switches, table } from "./controls.js";
import { ACTS, actsOver, evaluate, largestFitting, openFilm, peakOf } from "./film.js";
import { drawFilm, places, thumbnail } from "./film_picture.js";
import { actsTable, crossings, finding, formatWords, legendWords, reason, sceneWords, tokensWords } from "./film_words.js";
import { binary, clamp, count, escape } from "./format.js";
import { panel } from "./panel.js";

const FILM = 9000; // milliseconds that a whole step plays
const [LONGEST, MOST_ROWS, MOST_RANK] = [32768, 128, 256];
const NARROW = 300; // pixels that a slider's track has at least
const SEARCHED = 2 ** 20; // rows or tokens up to which the largest that fits is looked for
const TRAITS = {
  films: {}, model: "", method: "", batch: 1, seq: 512, rank: 8, checkpointing: false, optimizer: "adamw", card: "",
  cards: [], measurable: [], asked: 0, standing: "", measured: {},
};
const OPTIMIZERS = [
  ["adamw", "AdamW"], ["adamw-foreach", "AdamW, foreach"], ["adamw-fused", "AdamW, fused"],
  ["adamw-8bit", "AdamW in 8 bits"], ["sgd", "SGD"],
];
const SPELLED = { full: "full fine-tuning", prompt: "prompt tuning" };
const RANKS = octaves(1, MOST_RANK);
const ROWS = octaves(1, MOST_ROWS);

const tokens = (length) => `${count(length)} tokens`;
const sequences = (batch) => `${count(batch)} ${batch === 1 ? "sequence" : "sequences"}`;

const BODY = `<header><div class="title"></div></header>
<fieldset class="methods drawn" data-for="method"><legend class="spoken">method</legend></fieldset>
<div class="body">
  <div class="film">
    <div class="picture drawn"><svg role="img"></svg></div>
    <div class="scrub">${slider("scrub", "moment", "ink")}</div>
    <p class="legend" aria-hidden="true"></p>
    <div class="row">${button("play", "play the step", "first")}${button("peak", "go to the peak")}${button("measure", "measure it here")}</div>
    <p class="standing"></p><p class="kernel"></p>
    <p class="caption"></p>
  </div>
  <div class="side">
    <div class="controls">
      <div class="menus">${menu("model", "model")}${menu("card", "device")}${menu("optimizer", "optimizer")}</div>
      ${slider("seq", "sequence length", "ink", '<span class="acts"></span>')}
      ${slider("batch", "batch size", "ink")}
      ${slider("rank", "rank", "train")}
      ${switches("checkpointing", "", [["on", "gradient checkpointing: save only each layer’s input, recompute the rest"]])}
    </div>
    <p class="big"></p><table class="facts"></table><p class="words"></p>
  </div>
</div>
<details><summary>every phase in numbers</summary><div class="scrolls" tabindex="0" role="group" aria-label="every phase in numbers">
  <table></table></div></details>`;

function start(p) {
  const ui = { at: null }; // the place of the column from 0 to 1; null: the peak
  const kept = new Map(); // what was computed last: moving the column or the page's width changes none of it
  let now; // what is drawn

  // ---- what follows from what was chosen

  /** What `compute` says, computed anew only when `inputs` are others than the last time. */
  function memo(name, inputs, compute) {
    const key = JSON.stringify(inputs);
    if (kept.get(name)?.key !== key) kept.set(name, { key, value: compute() });
    return kept.get(name).value;
  }

  const evaluated = (film, point) => memo(film, point, () => evaluate(film, point));

  function read() {
    const all = p.get("films");
    const model = all[p.get("model")] ? p.get("model") : Object.keys(all)[0];
    const names = [...new Set(all[model].map((film) => film.method))];
    const method = names.includes(p.get("method")) ? p.get("method") : names[0];
    const wanted = p.get("checkpointing");
    const pick = (name) => {
      const own = all[model].filter((film) => film.method === name);
      return own.find((film) => film.checkpointing === wanted) ?? own[0];
    };
    const film = pick(method);
    const cards = p.get("cards").filter(([, , device]) => device === film.device);
    const card = cards.find(([name]) => name === p.get("card")) ?? cards[Math.floor(cards.length / 2)];
    const lengths = film.fixed ? [film.fixed[1]] : octaves(film.low, film.high ? Math.min(film.high, LONGEST) : LONGEST);
    const seq = film.fixed ? film.fixed[1] : clamp(p.get("seq"), film.low, film.high || Infinity);
    const batch = film.fixed ? film.fixed[0] : p.get("batch");
    const point = { batch, seq, rank: p.get("rank"), optimizer: p.get("optimizer") };
    const found = evaluated(film, point);
    const { scenes } = openFilm(film);
    const edges = places(film);
    const at = ui.at === null ? found.top : clamp(edges.findLastIndex((edge) => edge <= ui.at + 1e-9), 0, scenes.length - 1);
    return { model, models: Object.keys(all), names, method, pick, film, cards, card, lengths, point, found, edges, at };
  }

  /** A measured step of exactly what is shown, or null. */
  function measuredOf({ model, film, point }) {
    const one = p.get("measured");
    const same = one.film && one.model === model && one.method === film.method && one.checkpointing === film.checkpointing;
    const here = same && ["batch", "seq", "optimizer"].every((name) => one[name] === point[name]);
    if (!here || (film.ranked && one.rank !== point.rank)) return null;
    return { ...one, found: evaluated(one.film, { ...point, rank: 0 }) };
  }

  // ---- drawing

  function draw() {
    now = read();
    const { film, found, point, card, cards, lengths, at, edges } = now;
    const measured = measuredOf(now);
    const chosen = [now.model, now.method, film.checkpointing, point];
    const acts = memo("acts", chosen, () => (film.fixed ? [] : actsOver(film, point, lengths)));
    offer();
    memo("methods", [chosen, card, p.get("checkpointing")], drawMethods);
    p.check("method", [now.method]);
    p.one(".film").classList.toggle("whole", now.method === "full");
    now.drawn = drawFilm(p.width(), film, { found, at, card, cards, measured });
    p.picture(now.drawn.svg, now.drawn.height, alternative());
    showSliders(acts);
    const fits = found.peak <= card[1];
    const legend = now.drawn.wide ? "" : legendWords(found, at);
    const title = finding(film, found, point);
    const big = `<b>${binary(found.peak)}</b><span>at the peak of one training step, ${tokensWords(point)} ${formatWords(film)}</span>`;
    const words = `${reason(film, found, point)} ${crossings(acts, lengths)}`;
    const facts = memo("room", [chosen, card], () => room(fits));
    p.fill({ ".title": escape(title), ".big": big, ".words": words, ".facts": facts, ".standing": standing(measured), ".legend": legend, ".caption": caption(fits) });
    if (p.one("details").open) p.fill({ "details table": actsTable(found, at) });
    const onlyMoved = ui.at !== null && memo("told", [chosen, card], () => ui.at) !== ui.at;
    if (onlyMoved) return sceneSaid();
    return `${title}. ${binary(found.peak)}. It ${fits ? "fits" : "does not fit"} ${card[0]}. ${words}`;
  }

  function caption(fits) {
    const over = fits ? "" : " Hatched: what does not fit.";
    return `Left to right: each part of the model in turn, at its fullest moment. Widths do not show time.${over}`;
  }

  function alternative() {
    const { film, found, model, method, card } = now;
    const tops = ACTS.map((name, act) => `${name} ${binary(found.totals[found.tops[act]])}`).join(", ");
    return `Memory through one training step of ${model}, ${method}${film.checkpointing ? " with checkpointing" : ""}: at most ${tops};
      ${card[0]} has ${binary(card[1])}.`;
  }

  function sceneSaid() {
    return `${sceneWords(now.film, now.at)}: ${binary(now.found.totals[now.at])}`;
  }

  /** Which controls there are. */
  function offer() {
    const { film, models, model, cards, card, names } = now;
    const both = p.get("films")[model].some((one) => one.method === film.method && one.checkpointing !== film.checkpointing);
    p.offer([
      "scrub", "model", "card", ...(names.length > 1 ? ["method"] : []), ...(film.fixed ? [] : ["batch", "seq", "optimizer"]),
      ...(film.ranked ? ["rank"] : []), ...(both ? ["checkpointing"] : []),
    ]);
    p.choose("model", models.map((name) => [name, name]), model);
    p.choose("card", cards.map(([name, size]) => [name, `${name}: ${binary(size)}`]), card[0]);
    p.choose("optimizer", OPTIMIZERS, p.get("optimizer"));
    p.check("checkpointing", film.checkpointing ? ["on"] : []);
    p.one("button[name=measure]").hidden = !p.kernel || !p.get("measurable").includes(model);
    p.one("button[name=measure]").disabled = p.gone() || p.waits();
    p.one("button[name=peak]").disabled = ui.at === null;
  }

  /** A small film for each method, on one scale. */
  function drawMethods() {
    const { names, pick, point, card } = now;
    const box = p.one(".methods");
    if (box.dataset.names !== names.join()) {
      box.dataset.names = names.join();
      const one = (name) => `<label><input type="radio" name="method" value="${escape(name)}"><span>${escape(SPELLED[name] ?? name)}</span>
        <svg viewBox="0 0 100 48" preserveAspectRatio="none" aria-hidden="true"></svg><b></b></label>`;
      box.innerHTML = `<legend class="spoken">method</legend>${names.map(one).join("")}`;
    }
    const films = names.map(pick);
    const found = films.map((film) => evaluated(film, point));
    const topmost = 1.06 * Math.max(...found.map(({ peak }) => peak));
    box.querySelectorAll("label").forEach((label, i) => {
      const fits = found[i].peak <= card[1];
      label.classList.toggle("whole", names[i] === "full");
      label.querySelector("svg").innerHTML = thumbnail(films[i], found[i], 48, topmost, card[1]);
      const told = label.querySelector("b");
      told.textContent = `${binary(found[i].peak)}, ${fits ? "fits" : "too big"}`;
      told.classList.toggle("not", !fits);
    });
  }

  function showSliders(acts) {
    const { film, point, lengths, edges, at, drawn } = now;
    const positions = scrubStops(film, edges);
    p.slide("scrub", { values: positions, value: at, words: sceneWords(film, at), spoken: sceneSaid() });
    const track = p.one(".scrub");
    track.style.paddingLeft = `${drawn.from - 9}px`;
    track.style.width = `${drawn.to + 9}px`;
    if (film.fixed) return;
    p.slide("seq", { values: lengths, value: point.seq, words: tokens(point.seq) });
    p.slide("batch", { values: ROWS, value: point.batch, words: sequences(point.batch) });
    if (film.ranked) p.slide("rank", { values: RANKS, value: point.rank, words: count(point.rank), spoken: `rank ${point.rank}` });
    const last = lengths.length - 1;
    const band = ({ act, from, to }, i) => {
      const share = (position, end) => (end ? 1 : Math.max(0, position - 0.5) / last);
      const [low, high] = [share(from, false), share(to, i === acts.length - 1)];
      const words = acts.length > 1 ? `${i ? "" : "peak: "}${ACTS[act]}` : `peak: ${ACTS[act]}, at every length`;
      const fits = (high - low) * NARROW > 6.5 * words.length;
      return `<i style="left: ${p.along(low)}; width: calc((100% - 18px) * ${high - low})">${fits ? words : ""}</i>`;
    };
    p.fill({ ".acts": `${acts.map(band).join("")}` });
  }

  /** A scene for each position of the scrub slider, so that its thumb stands under the column's place in the picture. */
  function scrubStops(film, edges) {
    if (now.film.stops) return now.film.stops;
    const finest = Math.min(...Array.from(edges.slice(1), (edge, i) => edge - edges[i]));
    const many = Math.ceil(1.5 / finest);
    let scene = 0;
    const stops = Array.from({ length: many + 1 }, (_, i) => {
      while (scene < edges.length - 2 && edges[scene + 1] <= i / many) scene += 1;
      return scene;
    });
    Object.defineProperty(film, "stops", { value: stops }); // not among what is sent back
    return stops;
  }

  /** What fits on the card. */
  function room(fits) {
    const { film, point, card, found } = now;
    const left = Math.abs(card[1] - found.peak);
    const head = `<caption>${escape(card[0])}: <b class="${fits ? "" : "not"}">${fits ? `fits, ${binary(left)} free` : `${binary(left)} short`}</b></caption>`;
    if (film.fixed) return head;
    const under = (change) => (n) => peakOf(film, { ...point, [change]: n }).bytes <= card[1];
    const rows = largestFitting(under("batch"), 1, SEARCHED);
    const longest = largestFitting(under("seq"), film.low, film.high || SEARCHED);
    const most = (n, words) => (n ? `${words(n)}${n >= SEARCHED ? " or more" : ""}` : "none");
    const all = film.high && longest === film.high ? `${count(longest)} (model’s limit)` : most(longest, tokens);
    return head + table([], [
      ["largest batch at this length", most(rows, sequences)],
      ["longest at this batch size", all],
    ]).replace("<thead><tr></tr></thead>", "");
  }

  function standing(measured) {
    if (p.get("standing") && !p.gone()) return escape(p.get("standing"));
    if (!measured) return "";
    const off = now.found.peak - measured.found.peak;
    const verdict = off ? `${binary(Math.abs(off))} ${off > 0 ? "less" : "more"} than predicted` : "the prediction, to the byte";
    return `<b>Measured: ${count(measured.found.peak)} bytes</b>, ${verdict}. The line in the picture is the measured step
      (${escape(measured.where)}).`;
  }

  // ---- what controls and pulling do

  function go(scene) {
    p.stop();
    ui.at = now.edges[scene];
    p.redraw();
  }

  const change = (name) => (value) => p.set({ [name]: value });
  const actions = {
    seq: change("seq"),
    batch: change("batch"),
    rank: change("rank"),
    card: change("card"),
    optimizer: change("optimizer"),
    method: (method) => {
      ui.at = null;
      p.set({ method });
    },
    model: (model) => {
      ui.at = null;
      p.set({ model });
    },
    checkpointing: () => p.set({ checkpointing: !p.get("checkpointing") }),
    scrub: go,
    peak() {
      p.stop();
      ui.at = null;
      p.redraw();
    },
    play: () => p.play(FILM, (t) => {
      ui.at = Math.min(t, 1 - 1e-6);
    }, () => {
      ui.at = null;
    }),
    measure() {
      p.set({ asked: p.get("asked") + 1 });
      p.ask("standing");
    },
  };

  p.one("details").addEventListener("toggle", () => now && p.redraw(true));
  p.drag((target, x) => {
    if (!target.dataset.film) return null;
    go(now.drawn.sceneAtX(x));
    return { move: (at) => go(now.drawn.sceneAtX(at)) };
  });
  return { actions, draw };
}

export default panel({ title: "The film of a training step", css: MEMORY_CSS, traits: TRAITS, body: BODY, start });
