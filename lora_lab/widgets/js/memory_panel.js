// The film of a training step. Python sends films; every number that a slider changes is computed here.

import MEMORY_CSS from "./memory_panel.css";
import { button, drawn, folded, menu, octaves, slider, switches, table } from "./controls.js";
import { ACTS, actsOver, evaluate, largestFitting, peakOf } from "./film.js";
import { drawFilm, places, sceneAt, thumbnail } from "./film_picture.js";
import {
  actsTable, crossings, finding, formatWords, legendWords, reason, sceneWords, tokensWords,
} from "./film_words.js";
import { binary, clamp, count, escape, plural } from "./format.js";
import { panel } from "./panel.js";

const [FILM, LONGEST] = [9000, 32768]; // milliseconds to play a whole step; tokens
const [ROWS, RANKS] = [octaves(1, 128), octaves(1, 256)];
const NARROW = 300; // minimum width of a slider's track, in pixels
const SEARCHED = 2 ** 20; // upper limit of the search for the largest batch or length that fits
const TRAITS = {
  films: {}, model: "", method: "", batch: 1, seq: 512, rank: 8, checkpointing: false, optimizer: "adamw", card: "",
  cards: [], measurable: [], asked: 0, standing: "", measured: {}, longest: true,
};
const OPTIMIZERS = [
  ["adamw", "AdamW"], ["adamw-foreach", "AdamW, foreach"], ["adamw-fused", "AdamW, fused"],
  ["adamw-8bit", "AdamW in 8 bits"], ["sgd", "SGD"],
];
const SPELLED = { full: "full fine-tuning", prompt: "prompt tuning" };
const CHECKPOINTING = "gradient checkpointing: save only each layer’s input and recompute the rest";

const BODY = `<header><div class="title"></div></header>
<fieldset class="methods cards" data-for="method"></fieldset>
<div class="body">
  <div class="film">${drawn()}
    <div class="scrub">${slider("scrub", "moment", "ink")}</div>
    <p class="legend" aria-hidden="true"></p>
    <div class="row">${button("play", "play the step", "first")}${button("measure", "measure it here")}</div>
    <p class="standing"></p><p class="kernel"></p>
    <p class="caption"></p>
  </div>
  <div class="side">
    <div class="controls">
      <div class="menus">${menu("model", "model")}${menu("card", "device")}${menu("optimizer", "optimizer")}</div>
      ${slider("seq", "sequence length", "ink", '<span class="acts"></span>')}${slider("batch", "batch size", "ink")}
      ${slider("rank", "rank", "train")}${switches("checkpointing", "", [["on", CHECKPOINTING]])}
    </div>
    <p class="big"></p><table class="facts"></table><p class="words"></p>
  </div>
</div>
${folded("every phase in numbers")}`;

const tokens = (length) => `${count(length)} tokens`;
const sequences = (batch) => plural(batch, "sequence");

function start(p) {
  const ui = p.keep({ at: null }); // the position of the column from 0 to 1; null: at the peak
  const cache = new Map(); // the latest values, valid while only the column moves or the page's width changes
  let now; // what is drawn
  let described; // the settings of the last draw

  // ---- derived state
  /** The value of `compute`, recomputed only if `inputs` differ from the last call. */
  function memo(name, inputs, compute) {
    const key = JSON.stringify(inputs);
    if (cache.get(name)?.key !== key) cache.set(name, { key, value: compute() });
    return cache.get(name).value;
  }

  const evaluated = (film, point) => memo(film, point, () => evaluate(film, point));

  function read() {
    const all = p.get("films");
    const model = all[p.get("model")] ? p.get("model") : Object.keys(all)[0];
    const names = [...new Set(all[model].map((film) => film.method))];
    const method = names.includes(p.get("method")) ? p.get("method") : names[0];
    const pick = (name) => {
      const films = all[model].filter((film) => film.method === name);
      return films.find((film) => film.checkpointing === p.get("checkpointing")) ?? films[0];
    };
    const film = pick(method);
    const cards = p.get("cards").filter(([, , device]) => device === film.device);
    const card = cards.find(([name]) => name === p.get("card")) ?? cards[Math.floor(cards.length / 2)];
    const [batch, seq] = film.fixed ?? [p.get("batch"), clamp(p.get("seq"), film.low, film.high || Infinity)];
    const lengths = film.fixed ? [seq] : octaves(film.low, Math.min(film.high || LONGEST, LONGEST));
    const narrowest = Math.min(...film.trained.map(([, perRank]) => perRank || Infinity)); // side of an adapted layer
    const ranks = RANKS.filter((rank) => rank <= narrowest);
    const point = { batch, seq, rank: Math.min(p.get("rank"), narrowest), optimizer: p.get("optimizer") };
    const result = evaluated(film, point);
    const edges = places(film);
    const at = ui.at === null ? result.top : sceneAt(edges, ui.at);
    return { all, model, names, method, pick, film, cards, card, lengths, ranks, point, result, edges, at };
  }

  /** The measured step if its settings are exactly those shown, or null. */
  function measuredOf({ model, film, point }) {
    const step = p.get("measured");
    if (!step.film) return null;
    const shown = { ...point, model, method: film.method, checkpointing: film.checkpointing };
    const changed = Object.keys(shown).filter((name) => step[name] !== shown[name] && (film.ranked || name !== "rank"));
    return changed.length ? null : { ...step, result: evaluated(step.film, { ...point, rank: 0 }) };
  }

  // ---- drawing
  function draw() {
    now = read();
    const { model, method, film, result, point, card, cards, lengths, at } = now;
    const measured = measuredOf(now);
    const chosen = [model, method, film.checkpointing, point];
    const acts = memo("acts", chosen, () => (film.fixed ? [] : actsOver(film, point, lengths)));
    drawControls();
    memo("methods", [chosen, card, p.get("checkpointing")], drawMethods);
    p.check("method", [method]);
    p.find(".film").classList.toggle("whole", method === "full");
    now.drawn = drawFilm(p.width(), film, { result, at, card, cards, measured });
    const tops = ACTS.map((name, act) => `${name} ${binary(result.totals[result.tops[act]])}`).join(", ");
    p.picture(now.drawn, `Memory through one training step of ${model}, ${method}
      ${film.checkpointing ? "with checkpointing" : ""}: at most ${tops}; ${card[0]} has ${binary(card[1])}.`);
    drawSliders(acts);
    const fits = result.peak <= card[1];
    const title = finding(film, result, point);
    const words = `${reason(film, result, point)} ${crossings(acts, lengths)}`;
    const other = film.dtype !== "bf16" || card[2] === "cpu" || card[3] ? "" : " (in fp16 on this card, which takes as many bytes)";
    const step = `${tokensWords(point)} ${formatWords(film)}${other}`;
    p.fill({
      ".title": escape(title),
      ".big": `<b>${binary(result.peak)}</b><span>at the peak of one training step, ${step}</span>`,
      ".words": words,
      ".facts": memo("room", [chosen, card], () => room(fits)),
      ".standing": standing(measured),
      ".legend": now.drawn.wide ? "" : legendWords(result, at),
      ".caption": `Left to right: each part of the model in turn, at its fullest moment. Widths do not show
        time.${fits ? "" : " What does not fit is striped."}`,
    });
    p.numbers(() => actsTable(result, at));
    const settings = JSON.stringify([chosen, card]);
    const onlyMoved = ui.at !== null && settings === described;
    described = settings;
    if (onlyMoved) return sceneStatus();
    return `${title}. ${binary(result.peak)}. It ${fits ? "fits" : "does not fit"} ${card[0]}. ${words}`;
  }

  const sceneStatus = () => `${sceneWords(now.film, now.at)}: ${binary(now.result.totals[now.at])}`;

  function drawControls() {
    const { film, all, model, cards, card, names } = now;
    const both = all[model].some((other) => other.method === film.method && other.checkpointing !== film.checkpointing);
    const free = !film.fixed;
    p.offer({ method: names.length > 1, checkpointing: both, batch: free, seq: free, optimizer: free, rank: film.ranked });
    p.choose("model", Object.keys(all).map((name) => [name, name]), model);
    p.choose("card", cards.map(([name, size]) => [name, `${name}: ${binary(size)}`]), card[0]);
    p.choose("optimizer", OPTIMIZERS, p.get("optimizer"));
    p.check("checkpointing", film.checkpointing ? ["on"] : []);
    const off = p.gone() || p.waits() || p.get("standing").startsWith("measuring");
    p.button("measure", { hidden: !p.kernel || !p.get("measurable").includes(model), off });
  }

  /** A small film for each method, all on the same scale. */
  function drawMethods() {
    const { names, pick, point, card } = now;
    const label = (name) => `<label><input type="radio" name="method" value="${escape(name)}">
      <span>${escape(SPELLED[name] ?? name)}</span>
      <svg viewBox="0 0 100 48" preserveAspectRatio="none" aria-hidden="true"></svg><b></b></label>`;
    p.fill({ ".methods": `<legend class="spoken">method</legend>${names.map(label).join("")}` });
    const films = names.map(pick);
    const results = films.map((film) => evaluated(film, point));
    const topmost = 1.06 * Math.max(...results.map(({ peak }) => peak));
    p.card.querySelectorAll(".methods label").forEach((label, i) => {
      const fits = results[i].peak <= card[1];
      label.classList.toggle("whole", names[i] === "full");
      label.classList.toggle("not", !fits);
      label.querySelector("svg").innerHTML = thumbnail(films[i], results[i], 48, topmost, card[1]);
      label.querySelector("b").textContent = `${binary(results[i].peak)}, ${fits ? "fits" : "too big"}`;
    });
  }

  function drawSliders(acts) {
    const { film, point, lengths, edges, at, drawn: { from, to } } = now;
    // one scene per slider position, so that the thumb stays under the column
    const finest = Math.min(...Array.from(edges.slice(1), (edge, i) => edge - edges[i]));
    const steps = Math.ceil(1.5 / finest);
    const values = memo("stops", [now.model, film.method, film.checkpointing], () =>
      Array.from({ length: steps + 1 }, (_, i) => sceneAt(edges, i / steps)));
    p.slide("scrub", { values, value: at, words: sceneWords(film, at), spoken: sceneStatus() });
    Object.assign(p.find(".scrub").style, { paddingLeft: `${from - 9}px`, width: `${to + 9}px` });
    if (film.fixed) return;
    const few = (all) => (p.get("longest") ? all : [...new Set(all.filter((n) => !(n & (n - 1))))]); // powers of two
    p.slide("seq", { values: few(lengths), value: point.seq, words: tokens(point.seq) });
    p.slide("batch", { values: few(ROWS), value: point.batch, words: sequences(point.batch) });
    p.slide("rank", { values: now.ranks, value: point.rank, words: count(point.rank), spoken: `rank ${point.rank}` });
    const share = (position) => clamp((position - 0.5) / (lengths.length - 1));
    const band = ({ act, from: first }, i) => {
      const [low, high] = [share(first), i < acts.length - 1 ? share(acts[i + 1].from) : 1];
      const words = `${i ? "" : "peak: "}${ACTS[act]}${acts.length > 1 ? "" : ", at every length"}`;
      const room = (high - low) * NARROW > 6.5 * words.length;
      return `<i style="left: ${p.along(low)}; width: calc((100% - 18px) * ${high - low})">${room ? words : ""}</i>`;
    };
    p.fill({ ".acts": acts.map(band).join("") });
  }

  /** A table of what fits on the card. */
  function room(fits) {
    const { film, point, card, result } = now;
    const left = binary(Math.abs(card[1] - result.peak));
    const words = `<b class="${fits ? "" : "not"}">${fits ? `fits, ${left} free` : `${left} too much`}</b>`;
    const head = `<caption>${escape(card[0])}: ${words}</caption>`;
    if (film.fixed || !p.get("longest")) return head;
    const largest = (name, minimum, limit) =>
      largestFitting((n) => peakOf(film, { ...point, [name]: n }).bytes <= card[1], minimum, limit);
    const format = (n, unit) => (n ? `${unit(n)}${n >= SEARCHED ? " or more" : ""}` : "none");
    const longest = largest("seq", film.low, film.high || SEARCHED);
    const rows = [
      ["largest batch at this length", format(largest("batch", 1, SEARCHED), sequences)],
      ["longest sequence at this batch size", longest && longest === film.high ? `${count(longest)} (model’s limit)` : format(longest, tokens)],
    ];
    return head + table([], rows);
  }

  function standing(measured) {
    if (p.get("standing") && !p.gone() && !(measured && p.get("standing").startsWith("not"))) return escape(p.get("standing"));
    if (!measured) return "";
    const gap = now.result.peak - measured.result.peak;
    const comparison = `${binary(Math.abs(gap))} ${gap > 0 ? "less" : "more"} than predicted`;
    return `<b>Measured: ${count(measured.result.peak)} bytes</b>, ${gap ? comparison : "exactly as predicted"}. The line in the
      picture is the measured step (${escape(measured.where)}).`;
  }

  // ---- actions and dragging
  const go = (scene) => p.show({ at: now.edges[scene] });
  const atPeak = (trait) => (value) => {
    p.keep({ at: null });
    p.set({ [trait]: value });
  };
  const actions = {
    method: atPeak("method"),
    model: atPeak("model"),
    checkpointing: () => p.set({ checkpointing: !p.get("checkpointing") }),
    scrub: go,
    play: () => p.play(FILM, (t) => p.keep({ at: t < 1 ? t : null })),
    measure() {
      p.set({ ...now.point, asked: p.get("asked") + 1 });
      p.ask("standing");
    },
  };

  p.drag((target, x) => {
    if (!target.dataset.film) return false;
    const move = (at) => go(now.drawn.sceneAtX(at));
    move(x);
    return { move };
  });
  return { actions, draw };
}

export default panel({ title: "The film of a training step", css: MEMORY_CSS, traits: TRAITS, body: BODY, start });
