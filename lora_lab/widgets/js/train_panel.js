// Training while you watch. Python trains and answers; here it is drawn, and the dial goes over answers that are there.

import TRAIN_CSS from "./train_panel.css";
import { button, letter, menu, nearest, slider, switches, table } from "./controls.js";
import { about, count, decimal, escape, percent } from "./format.js";
import { panel } from "./panel.js";
import { drawDial, drawMoved, drawRun } from "./train_picture.js";
import { changedWords, counted, dialWords, headline, standing, titleOf } from "./train_words.js";

const TRAITS = {
  offers: {}, model: "", task: "", method: "lora", rank: 8, alpha: 16, targets: [], lr: 2e-3, steps: 400, seed: 0, guess: null,
  setup: {}, live: {}, found: {}, answer: {}, strength: 1,
};
const SETTINGS = ["model", "task", "method", "rank", "alpha", "targets", "lr", "steps", "seed", "guess"];
const REPLAY = 4000; // milliseconds
const TYPED = 400; // milliseconds after the last key before a sentence is asked
const s = letter("s");

const BODY = `<header><div class="title"></div></header>
<div class="body">
  <div>
    <div class="picture drawn"><svg role="img"></svg></div>
    <div class="replay">${slider("scrub", "replay, at step", "ink")}<div class="row" data-for="scrub">${button("play", "replay")}</div></div>
    <div class="row trains">${button("go", "Start", "first")}${button("again", "train another seed")}</div>
    <progress max="1" value="0" aria-label="training"></progress>
    <p class="doing"></p><p class="kernel"></p>
    <div data-for="moved"><p class="sub">How far each weight has moved: |Δ${letter("W")}| / |${letter("W")}|</p>
      <div class="moved drawn"><svg role="img"></svg></div></div>
  </div>
  <div class="side">
    <div class="controls">
      ${menu("model", "model")}${menu("task", "task")}${menu("method", "method")}
      <div class="pairs">${slider("rank", `rank ${letter("r")}`, "train")}${slider("alpha", `alpha ${letter("α")}`, "train")}
      ${slider("lr", "learning rate", "train")}${slider("steps", "steps", "train")}</div>
      <div class="targets"></div>
      <p class="count"></p>
      ${slider("guess", "your guess", "ink")}
    </div>
    <p class="big"></p><p class="words"></p>
  </div>
  <div class="below" data-for="changes">
    <fieldset class="changes"></fieldset>
    <div class="dial">
      <label class="own" data-for="own"><span>Your own sentence</span><input type="text" name="text" maxlength="400" autocomplete="off"></label>
      <p class="quoted"></p>
      <p class="said"></p>
      ${slider("strength", `strength ${s} in ${letter("y")} = ${letter("Wx")} + ${letter("s")}·${letter("BAx")}`, "train")}
      <div class="curve drawn"><svg role="img"></svg></div>
      <p class="turns"></p>
    </div>
  </div>
</div>
<details><summary>the run in numbers</summary><div class="scrolls" tabindex="0" role="group" aria-label="the run in numbers">
  <table class="checks"></table><table class="weights"></table></div></details>`;

function start(p) {
  const ui = { pick: 0, text: "", halts: false, at: null }; // at: the moment of the replay from 0 to 1; null: the end
  let typing;

  // ---- what follows from what was chosen

  function read() {
    const [setup, live, found] = ["setup", "live", "found"].map(p.get);
    if (!live.busy) ui.halts = false;
    if (!live.hash || live.hash === setup.hash) ui.beside = setup; // moving a slider later changes nothing about this run
    const { others = [], earlier = [], metric = "", chance = 0, factor = 1 } = ui.beside ?? { ...setup, others: [], earlier: [] };
    const [method, rank, alpha, targets] = ["method", "rank", "alpha", "targets"].map(p.get);
    const known = setup.plain && targets.every((one) => setup.roles[one]);
    const trains = known ? rank * targets.reduce((sum, one) => sum + setup.roles[one], 0) : setup.trains;
    const run = live.hash ? live : { steps: p.get("steps"), checks: [], losses: [], every: 1, guess: p.get("guess") };
    const { steps, every } = run;
    const guess = run.guess ?? null;
    if (live.busy || found.value === undefined) ui.at = null;
    const seen = ui.at === null ? run.losses.length : Math.round(ui.at * run.losses.length);
    const losses = run.losses.slice(0, seen);
    const checks = ui.at === null ? run.checks : run.checks.filter(([step]) => step <= seen * every);
    return {
      setup, live, found, others, earlier, metric, chance, factor, method, rank, alpha, targets, trains,
      seen, steps, checks, losses, every, guess,
    };
  }

  /** The sentence on the dial: { text, p }, with `p` missing where nobody has answered yet. */
  function chosen({ sentences = [] }) {
    if (ui.pick !== "own") return sentences[ui.pick] ?? sentences[0];
    const answer = p.get("answer");
    return answer.text === ui.text ? answer : { text: ui.text };
  }

  // ---- drawing

  function draw() {
    const now = read();
    const { setup, live, found, metric } = now;
    const busy = Boolean(live.busy) && !p.gone();
    const page = !p.kernel;
    const lora = now.method === "lora";
    const dials = Boolean(found.sentences?.length || (found.strengths && !page));
    const replays = !busy && found.value !== undefined && live.losses.length > 1;
    const offered = page ? [] : ["model", "task", "method", "lr", "steps", "targets", "guess", "own"];
    if (lora && !page) offered.push("rank", "alpha");
    if (live.moved?.length) offered.push("moved");
    if (dials) offered.push("changes", "strength");
    if (replays) offered.push("scrub");
    p.offer(offered);
    p.one(".targets").hidden = !lora || page;
    p.one(".trains").hidden = page;
    p.one(".count").hidden = page;
    if (!page) drawControls(now, busy);

    const points = live.losses?.length ?? 0;
    const at = now.seen === points ? live.step : now.seen * now.every;
    if (replays) p.slide("scrub", { most: points, value: now.seen, words: count(at), spoken: `step ${at}` });
    const shown = { ...now, live: { ...live, busy: busy || ui.at !== null }, found: ui.at === null ? found : {} };
    const picture = drawRun(p.width(), shown);
    p.picture(picture.svg, picture.height, alternative(shown));
    const [title, gloss] = titleOf(shown);
    const [big, words] = headline(shown);
    const doing = standing({ live: { ...live, busy }, found, halts: ui.halts, page, gone: p.gone() });
    p.fill({ ".title": `${title}${gloss ? ` <span class="gloss">${gloss}</span>` : ""}`, ".big": big, ".words": words, ".doing": doing });
    const bar = p.one("progress");
    bar.hidden = !busy;
    bar.value = live.steps ? live.step / live.steps : 0;

    if (live.moved?.length) {
      const moved = drawMoved(p.width(".moved"), live.moved);
      const each = live.moved.map(([layer, role, share]) => `${role} of layer ${layer} ${percent(share)}`).join(", ");
      p.picture(moved.svg, moved.height, `How far each weight has moved: ${each}.`, ".moved svg");
    }
    const said = dials ? drawChanges(found) : "";
    fillTable(live, metric);
    if (ui.told === title && said) return said;
    ui.told = title;
    return `${title}. ${gloss} ${words} ${doing}`;
  }

  function alternative({ checks, losses, metric, others, found }) {
    const seeds = others.length ? ` ${others.length} other seeds behind.` : "";
    if (!checks.length) return `Axes for validation ${metric} and training loss; nothing is trained yet.${seeds}`;
    const end = losses.length ? ` Training loss from ${decimal(losses[0], 2)} to ${decimal(losses.at(-1), 2)}.` : "";
    const test = found.value === undefined ? "" : ` On the test rows ${decimal(found.value)}.`;
    const [first, last] = [checks[0], checks.at(-1)].map(([, value]) => decimal(value));
    return `Validation ${metric} from ${first} to ${last} over the steps.${end}${test}${seeds} The table below has every number.`;
  }

  /** Markup that is written only when it is another: what has the focus keeps it. */
  function put(selector, markup) {
    const element = p.one(selector);
    if (element.dataset.markup === markup) return;
    element.dataset.markup = markup;
    element.innerHTML = markup;
  }

  function drawControls({ setup, live, targets, trains, method, rank, alpha, metric }, busy) {
    const offers = p.get("offers");
    const menus = { model: offers.models, task: offers.tasks?.[p.get("model")] ?? [p.get("task")], method: offers.methods };
    for (const [name, values] of Object.entries(menus)) {
      p.choose(name, (values ?? []).map((one) => [one, one]), p.get(name));
    }
    p.slide("rank", { values: offers.ranks, value: rank, words: count(rank) });
    p.slide("alpha", { values: offers.alphas, value: alpha, words: about(alpha) });
    p.slide("lr", { values: offers.rates, value: p.get("lr"), words: String(p.get("lr")) });
    p.slide("steps", { values: offers.steps, value: p.get("steps"), words: count(p.get("steps")) });
    const unit = metric === "accuracy" ? "%" : "";
    const [low, high] = metric === "perplexity" ? [1, 60] : [metric === "accuracy" ? Math.round(setup.chance) : 0, 100];
    const guess = p.get("guess");
    p.slide("guess", {
      values: Array.from({ length: high - low + 1 }, (_, i) => low + i), value: guess ?? Math.round((low + high) / 2),
      words: guess === null ? "none yet" : `${about(guess)}${unit}`,
    });
    p.one("input[name=guess]").disabled = busy;
    put(".targets", switches("targets", "targets", Object.keys(setup.roles ?? {}).map((one) => [one, escape(one)])));
    p.check("targets", targets);
    p.fill({ ".count": counted({ setup, trains, method, rank, alpha }) });
    const goes = live.state === "stopped" && live.hash === setup.hash;
    const go = p.one("button[name=go]");
    go.textContent = busy ? "Stop" : goes ? "go on" : "Start";
    go.disabled = p.gone() || (!busy && Boolean(setup.error));
    go.setAttribute("aria-disabled", p.waits() || ui.halts); // a button that is disabled loses the focus
    const again = p.one("button[name=again]");
    again.hidden = busy || live.state !== "done" || live.hash !== setup.hash;
    again.disabled = p.gone();
  }

  function drawChanges(found) {
    const line = (one, i) => `<label class="change"><input type="radio" name="sentence" value="${i}"><span><q>${escape(one.text)}</q>
      <span class="was">${escape(one.without)}</span> → <span class="is">${escape(one.with_adapter)}</span></span></label>`;
    const group = (name, better) => {
      const own = (found.sentences ?? []).flatMap((one, i) => ((one.truth === one.with_adapter) === better ? [line(one, i)] : []));
      return own.length ? `<p class="sub">${name}</p>${own.join("")}` : "";
    };
    const groups = group("✓ now right", true) + group("✗ now wrong", false);
    put(".changes", `<legend class="spoken">the sentence on the dial</legend><p>${changedWords(found)}</p>${groups}`);
    p.check("sentence", [String(ui.pick)]);
    p.one("input[name=text]").disabled = p.gone();
    const sentence = chosen(found);
    const strengths = found.strengths;
    const strength = strengths[nearest(strengths, p.get("strength"))];
    const written = strength.toFixed(strengths.length > 2 ? 1 : 0);
    p.slide("strength", { values: strengths, value: strength, words: written, spoken: `strength ${written}` });
    const there = Boolean(sentence?.p);
    p.one(".curve").hidden = !there;
    p.one(".dial").style.setProperty("--right", `${found.labels.length > 2 ? 75 : 3}px`);
    p.fill({ ".quoted": sentence?.text ? `<q>${escape(sentence.text)}</q>` : "" });
    if (!there) {
      p.fill({ ".said": "", ".turns": sentence?.error ? escape(sentence.error) : "" });
      return "";
    }
    const shown = { ...sentence, strengths, labels: found.labels, strength };
    const [big, words] = dialWords(shown);
    const dial = drawDial(p.width(".curve"), shown);
    p.picture(dial.svg, dial.height, `How sure the answer is at each strength. ${words}`, ".curve svg");
    p.fill({ ".said": big, ".turns": words });
    return `${big} at strength ${strength}. ${words}`;
  }

  function fillTable(live, metric) {
    if (!p.one("details").open) return;
    const loss = (step) => live.losses[Math.min(live.losses.length, Math.ceil(step / live.every)) - 1];
    const checks = (live.checks ?? []).map(([step, value]) => [count(step), step ? decimal(loss(step), 3) : "", decimal(value)]);
    const moved = (live.moved ?? []).map(([layer, role, share]) => [`layer ${layer}, ${escape(role)}`, percent(share)]);
    p.fill({
      ".checks": table(["step", "training loss, nats", `validation ${metric}`], checks),
      ".weights": moved.length ? table(["weight", "|ΔW| / |W|"], moved) : "",
    });
  }

  // ---- what controls do

  const begin = (more = {}) => {
    const settings = { ...Object.fromEntries(SETTINGS.map((name) => [name, p.get(name)])), ...more };
    p.stop();
    p.set(more);
    ui.pick = 0;
    p.ask("live", { do: "start", settings }); // traits may come later
  };

  const actions = {
    model: (model) => p.set({ model, task: p.get("offers").tasks[model][0], targets: ["q", "v"], guess: null }),
    task: (task) => p.set({ task, guess: null }),
    method: (method) => p.set({ method }), // Python sets its usual rate
    ...Object.fromEntries(["rank", "alpha", "lr", "steps", "guess", "strength"].map((name) => [name, (value) => p.set({ [name]: value })])),
    targets(role, { checked }) {
      const ticked = (one) => (one === role ? checked : p.get("targets").includes(one));
      p.set({ targets: Object.keys(p.get("setup").roles).filter(ticked) });
    },
    go() {
      if (p.waits() || ui.halts) return undefined;
      if (!p.get("live").busy) return begin();
      ui.halts = true;
      return p.ask("live", { do: "stop" });
    },
    scrub(at) {
      p.stop();
      ui.at = at / p.get("live").losses.length;
      p.redraw();
    },
    play: () => p.play(REPLAY, (t) => { ui.at = t; }, () => { ui.at = null; }),
    again() {
      p.one("button[name=go]").focus(); // this one goes
      if (!p.waits()) begin({ seed: p.get("seed") + 1 });
    },
    sentence(at) {
      ui.pick = Number(at);
      p.redraw();
    },
    text(text) {
      ui.text = text.trim();
      ui.pick = ui.text ? "own" : 0;
      clearTimeout(typing);
      if (ui.text) typing = setTimeout(() => p.ask("answer", { do: "ask", text: ui.text }), TYPED);
      p.redraw();
    },
  };
  p.one("details").addEventListener("toggle", () => p.redraw(true));
  return { actions, draw };
}

export default panel({ title: "Train an adapter", css: TRAIN_CSS, traits: TRAITS, body: BODY, start });
