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

const [FILM, LONGEST] = [9000, 32768]; // milliseconds that a whole step plays; tokens
const [ROWS, RANKS] = [octaves(1, 128), octaves(1, 256)];
const NARROW = 300; // pixels that a slider's track has at least
const SEARCHED = 2 ** 20; // rows or tokens up to which the largest that fits is looked for
const TRAITS = {
  films: {}, model: "", method: "", batch: 1, seq: 512, rank: 8, checkpointing: false, optimizer: "adamw", card: "",
  cards: [], measurable: [], asked: 0, standing: "", measured: {}, longest: true,
};
const OPTIMIZERS = [
  ["adamw", "AdamW"], ["adamw-foreach", "AdamW, foreach"], ["adamw-fused", "AdamW, fused"],
  ["adamw-8bit", "AdamW in 8 bits"], ["sgd", "SGD"],
];
const SPELLED = { full: "full fine-tuning", prompt: "prompt tuning" };
const CHECKPOINTING = "gradient checkpointing: save only each layer’s input, recompute the rest";

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
  const ui = p.keep({ at: null }); // the place of the column from 0 to 1; null: the peak
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
    const pick = (name) => {
      const own = all[model].filter((film) => film.method === name);
      return own.find((film) => film.checkpointing === p.get("checkpointing")) ?? own[0];
    };
    const film = pick(method);
    const cards = p.get("cards").filter(([, , device]) => device === film.device);
    const card = cards.find(([name]) => name === p.get("card")) ?? cards[Math.floor(cards.length / 2)];
    const [batch, seq] = film.fixed ?? [p.get("batch"), clamp(p.get("seq"), film.low, film.high || Infinity)];
    const lengths = film.fixed ? [seq] : octaves(film.low, Math.min(film.high || LONGEST, LONGEST));
    const point = { batch, seq, rank: p.get("rank"), optimizer: p.get("optimizer") };
    const found = evaluated(film, point);
    const edges = places(film);
    const at = ui.at === null ? found.top : sceneAt(edges, ui.at);
    return { all, model, names, method, pick, film, cards, card, lengths, point, found, edges, at };
  }

  /** A measured step of exactly what is shown, or null. */
  function measuredOf({ model, film, point }) {
    const one = p.get("measured");
    if (!one.film) return null;
    const wanted = { ...point, model, method: film.method, checkpointing: film.checkpointing };
    const others = Object.keys(wanted).filter((name) => one[name] !== wanted[name] && (film.ranked || name !== "rank"));
    return others.length ? null : { ...one, found: evaluated(one.film, { ...point, rank: 0 }) };
  }

  // ---- drawing
  function draw() {
    now = read();
    const { model, method, film, found, point, card, cards, lengths, at } = now;
    const measured = measuredOf(now);
    const chosen = [model, method, film.checkpointing, point];
    const acts = memo("acts", chosen, () => (film.fixed ? [] : actsOver(film, point, lengths)));
    drawControls();
    memo("methods", [chosen, card, p.get("checkpointing")], drawMethods);
    p.check("method", [method]);
    p.one(".film").classList.toggle("whole", method === "full");
    now.drawn = drawFilm(p.width(), film, { found, at, card, cards, measured });
    const tops = ACTS.map((name, act) => `${name} ${binary(found.totals[found.tops[act]])}`).join(", ");
    p.picture(now.drawn, `Memory through one training step of ${model}, ${method}
      ${film.checkpointing ? "with checkpointing" : ""}: at most ${tops}; ${card[0]} has ${binary(card[1])}.`);
    drawSliders(acts);
    const fits = found.peak <= card[1];
    const title = finding(film, found, point);
    const words = `${reason(film, found, point)} ${crossings(acts, lengths)}`;
    const step = `${tokensWords(point)} ${formatWords(film)}`;
    p.fill({
      ".title": escape(title),
      ".big": `<b>${binary(found.peak)}</b><span>at the peak of one training step, ${step}</span>`,
      ".words": words,
      ".facts": memo("room", [chosen, card], () => room(fits)),
      ".standing": standing(measured),
      ".legend": now.drawn.wide ? "" : legendWords(found, at),
      ".caption": `Left to right: each part of the model in turn, at its fullest moment. Widths do not show
        time.${fits ? "" : " Hatched: what does not fit."}`,
    });
    p.numbers(() => actsTable(found, at));
    const onlyMoved = ui.at !== null && memo("told", [chosen, card], () => ui.at) !== ui.at;
    if (onlyMoved) return sceneSaid();
    return `${title}. ${binary(found.peak)}. It ${fits ? "fits" : "does not fit"} ${card[0]}. ${words}`;
  }

  const sceneSaid = () => `${sceneWords(now.film, now.at)}: ${binary(now.found.totals[now.at])}`;

  function drawControls() {
    const { film, all, model, cards, card, names } = now;
    const both = all[model].some((one) => one.method === film.method && one.checkpointing !== film.checkpointing);
    const free = !film.fixed;
    p.offer({ method: names.length > 1, checkpointing: both, batch: free, seq: free, optimizer: free, rank: film.ranked });
    p.choose("model", Object.keys(all).map((name) => [name, name]), model);
    p.choose("card", cards.map(([name, size]) => [name, `${name}: ${binary(size)}`]), card[0]);
    p.choose("optimizer", OPTIMIZERS, p.get("optimizer"));
    p.check("checkpointing", film.checkpointing ? ["on"] : []);
    p.button("measure", { hidden: !p.kernel || !p.get("measurable").includes(model), off: p.gone() || p.waits() });
  }

  /** A small film for each method, on one scale. */
  function drawMethods() {
    const { names, pick, point, card } = now;
    const one = (name) => `<label><input type="radio" name="method" value="${escape(name)}">
      <span>${escape(SPELLED[name] ?? name)}</span>
      <svg viewBox="0 0 100 48" preserveAspectRatio="none" aria-hidden="true"></svg><b></b></label>`;
    p.fill({ ".methods": `<legend class="spoken">method</legend>${names.map(one).join("")}` });
    const films = names.map(pick);
    const found = films.map((film) => evaluated(film, point));
    const topmost = 1.06 * Math.max(...found.map(({ peak }) => peak));
    p.card.querySelectorAll(".methods label").forEach((label, i) => {
      const fits = found[i].peak <= card[1];
      label.classList.toggle("whole", names[i] === "full");
      label.classList.toggle("not", !fits);
      label.querySelector("svg").innerHTML = thumbnail(films[i], found[i], 48, topmost, card[1]);
      label.querySelector("b").textContent = `${binary(found[i].peak)}, ${fits ? "fits" : "too big"}`;
    });
  }

  function drawSliders(acts) {
    const { film, point, lengths, edges, at, drawn: { from, to } } = now;
    // a scene for each position, so that the thumb stands under the column
    const finest = Math.min(...Array.from(edges.slice(1), (edge, i) => edge - edges[i]));
    const many = Math.ceil(1.5 / finest);
    const values = memo("stops", [now.model, film.method, film.checkpointing], () =>
      Array.from({ length: many + 1 }, (_, i) => sceneAt(edges, i / many)));
    p.slide("scrub", { values, value: at, words: sceneWords(film, at), spoken: sceneSaid() });
    Object.assign(p.one(".scrub").style, { paddingLeft: `${from - 9}px`, width: `${to + 9}px` });
    if (film.fixed) return;
    p.slide("seq", { values: lengths, value: point.seq, words: tokens(point.seq) });
    p.slide("batch", { values: ROWS, value: point.batch, words: sequences(point.batch) });
    if (film.ranked) {
      p.slide("rank", { values: RANKS, value: point.rank, words: count(point.rank), spoken: `rank ${point.rank}` });
    }
    const share = (position) => clamp((position - 0.5) / (lengths.length - 1));
    const band = ({ act, from: first }, i) => {
      const [low, high] = [share(first), i < acts.length - 1 ? share(acts[i + 1].from) : 1];
      const words = `${i ? "" : "peak: "}${ACTS[act]}${acts.length > 1 ? "" : ", at every length"}`;
      const room = (high - low) * NARROW > 6.5 * words.length;
      return `<i style="left: ${p.along(low)}; width: calc((100% - 18px) * ${high - low})">${room ? words : ""}</i>`;
    };
    p.fill({ ".acts": acts.map(band).join("") });
  }

  /** What fits on the card. */
  function room(fits) {
    const { film, point, card, found } = now;
    const left = binary(Math.abs(card[1] - found.peak));
    const words = `<b class="${fits ? "" : "not"}">${fits ? `fits, ${left} free` : `${left} short`}</b>`;
    const head = `<caption>${escape(card[0])}: ${words}</caption>`;
    if (film.fixed) return head;
    const most = (name, least, limit) =>
      largestFitting((n) => peakOf(film, { ...point, [name]: n }).bytes <= card[1], least, limit);
    const say = (n, unit) => (n ? `${unit(n)}${n >= SEARCHED ? " or more" : ""}` : "none");
    const longest = most("seq", film.low, film.high || SEARCHED);
    const rows = [
      ["largest batch at this length", say(most("batch", 1, SEARCHED), sequences)],
      ["longest at this batch size", longest && longest === film.high ? `${count(longest)} (model’s limit)` : say(longest, tokens)],
    ];
    return head + table([], rows.slice(0, p.get("longest") ? 2 : 1));
  }

  function standing(measured) {
    if (p.get("standing") && !p.gone()) return escape(p.get("standing"));
    if (!measured) return "";
    const off = now.found.peak - measured.found.peak;
    const than = `${binary(Math.abs(off))} ${off > 0 ? "less" : "more"} than predicted`;
    return `<b>Measured: ${count(measured.found.peak)} bytes</b>, ${off ? than : "the prediction, to the byte"}. The line in the
      picture is the measured step (${escape(measured.where)}).`;
  }

  // ---- what controls and pulling do
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
      p.set({ asked: p.get("asked") + 1 });
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
