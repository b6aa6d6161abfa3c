// Live training. Python trains and classifies; this file draws, and the dial selects precomputed answers.

import TRAIN_CSS from "./train_panel.css";
import { button, drawn, folded, letter, menu, nearest, slider, switches, table } from "./controls.js";
import { about, count, decimal, escape, percent, plain, plural, sum } from "./format.js";
import { panel } from "./panel.js";
import { drawDial, drawMoved, drawRun } from "./train_picture.js";
import { changedWords, countWords, dialWords, headline, statusWords, titleOf } from "./train_words.js";

const TRAITS = {
  offers: {}, model: "", task: "", method: "lora", rank: 8, alpha: 16, targets: [], lr: 2e-3, steps: 400, seed: 0,
  guess: null, setup: {}, live: {}, found: {}, answer: {}, strength: 1, at: null,
};
const SETTINGS = ["model", "task", "method", "rank", "alpha", "targets", "lr", "steps", "seed", "guess"];
const REPLAY = 4000; // milliseconds
const TYPED = 400; // milliseconds after the last key press before a sentence is sent
const s = letter("s");

const BODY = `<header><div class="title"></div></header>
<div class="body">
  <div>
    ${drawn()}
    <div class="replay">${slider("scrub", "replay, at step", "ink")}
      <div class="row" data-for="scrub">${button("play", "replay", "first")}</div></div>
    <div class="row trains" data-for="go">${button("go", "Start", "first")}${button("again", "train another seed")}</div>
    <progress max="1" value="0" aria-label="training"></progress>
    <p class="doing"></p><p class="kernel"></p>
    <div data-for="moved"><p class="sub">How far each weight has moved: |Δ${letter("W")}| / |${letter("W")}|</p>
      ${drawn("moved")}</div>
  </div>
  <div class="side">
    <div class="controls" data-for="setup">${menu("model", "model")}${menu("task", "task")}${menu("method", "method")}
      <div class="pairs">${slider("rank", `rank ${letter("r")}`, "train")}${slider("alpha", `alpha ${letter("α")}`, "train")}
      ${slider("lr", "learning rate", "train")}${slider("steps", "steps", "train")}</div>
      ${switches("targets", "targets")}<p class="count" data-for="go"></p>${slider("guess", "your guess", "ink")}
    </div>
    <p class="big"></p><p class="words"></p>
  </div>
  <div class="below" data-for="changes">
    <fieldset class="changes"></fieldset>
    <div class="dial">
      <label class="own" data-for="own"><span>Your own sentence</span>
        <input type="text" name="text" maxlength="400" autocomplete="off"></label>
      <p class="quoted"></p><p class="said"></p>
      ${slider("strength", `strength ${s} in ${letter("y")} = ${letter("Wx")} + ${s}·(${letter("α/r")})·${letter("BAx")}`, "train")}
      ${drawn("curve")}<p class="turns"></p>
    </div>
  </div>
</div>
${folded("the run in numbers")}`;

function start(p) {
  const ui = p.keep({ sentence: "0", text: "", at: p.get("at") }); // at: the position of the replay from 0 to 1; null: at the end
  let typing;
  let asked = p.get("answer").text; // the last sentence that was sent

  // ---- derived state
  function read() {
    const [setup, found, live] = [p.get("setup"), p.get("found"), p.live()];
    if (!live.hash || live.hash === setup.hash) ui.beside = setup; // later slider moves do not affect this run
    const { others = [], earlier = [], metric = "", chance = 0, factor = 1 } =
      ui.beside ?? { ...setup, others: [], earlier: [] };
    const [method, rank, alpha, targets] = ["method", "rank", "alpha", "targets"].map(p.get);
    const countable = setup.plain && targets.every((target) => setup.roles[target]);
    const trains = countable ? rank * sum(targets.map((target) => setup.roles[target])) : setup.trains;
    const run = live.hash ? live : { steps: p.get("steps"), checks: [], losses: [], every: 1, guess: p.get("guess") };
    const { steps, every } = run;
    const guess = run.guess ?? null;
    if (p.get("live").busy || found.value === undefined) ui.at = null;
    const seen = ui.at === null ? run.losses.length : Math.round(ui.at * run.losses.length);
    const losses = run.losses.slice(0, seen);
    const checks = ui.at === null ? run.checks : run.checks.filter(([step]) => step <= seen * every);
    return {
      setup, live, found, others, earlier, metric, chance, factor, method, rank, alpha, targets, trains,
      seen, steps, checks, losses, every, guess,
    };
  }

  /** The sentence on the dial: { text, p }; `p` is missing until it has been classified. */
  function chosen({ sentences = [] }) {
    if (ui.sentence !== "own") return sentences[ui.sentence] ?? sentences[0];
    const answer = p.get("answer");
    return answer.text === ui.text ? answer : { text: ui.text };
  }

  // ---- drawing
  function draw() {
    const now = read();
    const { live, found, metric } = now;
    const { losses = [] } = live;
    const page = !p.kernel;
    ui.ended ||= ui.at === null; // a page may open before the first step, without results
    const moved = (ui.ended && live.moved) || [];
    const dials = Boolean(ui.ended && (found.sentences?.length || (found.strengths && !page)));
    const replays = !live.busy && found.value !== undefined && losses.length > 1;
    const lora = now.method === "lora";
    p.offer({
      setup: !page, own: !page, go: !page, targets: lora, rank: lora, alpha: lora, moved: moved.length > 0, changes: dials,
      scrub: replays,
    });
    if (!page) drawControls(now);

    const at = now.seen === losses.length ? live.step : now.seen * now.every;
    if (replays) p.slide("scrub", { most: losses.length, value: now.seen, words: count(at), spoken: `step ${at}` });
    const broken = p.gone() && p.get("live").busy;
    const busy = live.busy || ui.at !== null || (broken && now.checks.length > 0); // the words stay as they are
    const shown = { ...now, page, live: { ...live, busy }, found: ui.at === null ? found : {} };
    p.picture(drawRun(p.width(), shown), `Validation ${metric} and training loss at each step,
      ${plural(now.others.length, "other seed")} in the background. The table below has every number.`);
    const [title, gloss] = titleOf(shown);
    const [big, words] = headline(shown);
    const status = statusWords({ ...now, page, broken });
    const heading = `${title}${gloss && ` <span class="gloss">${gloss}</span>`}`;
    p.fill({ ".title": heading, ".big": big, ".words": words, ".doing": status });
    p.progress(live.busy ? live.step / live.steps || 0 : undefined);
    if (moved.length) {
      p.picture(drawMoved(p.width("moved"), moved), "How far each weight has moved, as in the table below.", "moved");
    }
    const answer = dials ? drawChanges(found) : "";
    const weight = ([layer, role, share]) => [`layer ${layer}, ${escape(role)}`, percent(share)];
    const weights = moved.length ? [() => table(["weight", "|ΔW| / |W|"], moved.map(weight))] : [];
    p.numbers(() => checkTable(now), ...weights);
    if (ui.lastTitle === title && answer && !now.setup.error) return answer;
    ui.lastTitle = title;
    return `${title}. ${gloss} ${words} ${status}`;
  }

  function drawControls({ setup, live, targets, trains, method, rank, alpha, metric }) {
    const { busy, halts, state, hash } = live;
    const { models, tasks, methods, ranks, alphas, rates, steps } = p.get("offers");
    for (const [name, values] of Object.entries({ model: models, task: tasks[p.get("model")], method: methods })) {
      p.choose(name, values.map((value) => [value, value]), p.get(name));
    }
    for (const [name, values] of Object.entries({ rank: ranks, alpha: alphas, lr: rates, steps })) {
      p.slide(name, { values, value: p.get(name), words: about(p.get(name)) });
    }
    const unit = metric === "accuracy" ? "%" : "";
    const [low, high] = metric === "perplexity" ? [1, 60] : [metric === "accuracy" ? Math.round(setup.chance) : 0, 100];
    const guess = p.get("guess");
    p.slide("guess", {
      values: Array.from({ length: high - low + 1 }, (_, i) => low + i), value: guess ?? Math.round((low + high) / 2),
      words: guess === null ? "none yet" : `${about(guess)}${unit}`,
    });
    p.find("input[name=guess]").disabled = busy;
    p.fill({ ".count": countWords({ setup, trains, method, rank, alpha }) });
    p.check("targets", targets, Object.keys(setup.roles ?? {}).map((role) => [role, escape(role)]));
    const same = hash === setup.hash;
    const words = busy ? "Stop" : state === "stopped" && same ? "go on" : "Start";
    p.button("go", { words, off: p.gone() || p.waits() || halts || (!busy && Boolean(setup.error)) });
    p.button("again", { hidden: busy || state !== "done" || !same, off: p.gone() || p.waits() });
  }

  function drawChanges(found) {
    const line = ([change, i]) => `<label class="change"><input type="radio" name="sentence" value="${i}">
      <span><q>${escape(change.text)}</q> <span class="was">${escape(change.without)}</span> →
      <span class="is">${escape(change.with_adapter)}</span></span></label>`;
    const all = (found.sentences ?? []).map((change, i) => [change, i]);
    const group = (name, better) => {
      const changes = all.filter(([change]) => (change.truth === change.with_adapter) === better);
      return changes.length ? `<p class="sub">${name}</p>${changes.map(line).join("")}` : "";
    };
    const groups = group("✓ now right", true) + group("✗ now wrong", false);
    const legend = '<legend class="spoken">the sentence on the dial</legend>';
    p.fill({ ".changes": `${legend}<p>${changedWords(found)}</p>${groups}` });
    p.check("sentence", [ui.sentence]);
    p.find("input[name=text]").disabled = p.gone();
    const sentence = chosen(found);
    const strengths = found.strengths;
    const strength = strengths[nearest(strengths, p.get("strength"))];
    const label = strength.toFixed(strengths.length > 2 ? 1 : 0);
    p.slide("strength", { values: strengths, value: strength, words: label, spoken: `strength ${label}` });
    const answered = Boolean(sentence?.p);
    p.find(".curve").hidden = !answered;
    p.find(".dial").style.setProperty("--right", `${found.labels.length > 2 ? 75 : 3}px`);
    p.fill({ ".quoted": sentence?.text ? `<q>${escape(sentence.text)}</q>` : "" });
    if (!answered) {
      p.fill({ ".said": "", ".turns": sentence?.error ? escape(sentence.error) : "" });
      return "";
    }
    const shown = { ...sentence, strengths, labels: found.labels, strength };
    const [big, words] = dialWords(shown);
    p.picture(drawDial(p.width("curve"), shown), `Probability of the answer at each strength. ${plain(words)}`, "curve");
    p.fill({ ".said": big, ".turns": words });
    return `${big} at strength ${strength}. ${words}`;
  }

  function checkTable({ losses, every, checks, metric }) {
    const loss = (step) => losses[Math.min(losses.length, Math.ceil(step / every)) - 1];
    const rows = checks.map(([step, value]) => [count(step), step ? decimal(loss(step), 3) : "", decimal(value)]);
    return table(["step", "training loss, nats", `validation ${metric}`], rows);
  }

  // ---- actions
  function begin(changes = {}) {
    p.set(changes);
    p.show({ sentence: "0" });
    p.ask("live", { do: "run", traits: p.values(SETTINGS) });
  }

  const actions = {
    model: (model) => p.set({ model, task: p.get("offers").tasks[model][0], targets: ["q", "v"], guess: null }),
    task: (task) => p.set({ task, guess: null }),
    go: () => (p.live().busy ? p.halt : begin)(),
    scrub: (step, of = p.get("live").losses.length) => p.show({ at: step < of ? step / of : null }),
    play: () => p.play(REPLAY, (t) => p.keep({ at: t < 1 ? t : null })),
    again() {
      p.find("button[name=go]").focus(); // this button is about to be hidden
      begin({ seed: p.get("seed") + 1 });
    },
    text(words) {
      const text = words.trim();
      clearTimeout(typing);
      const ask = () => {
        if (p.get("answer").text === text && asked === text) return; // the kernel doesn't send an unchanged answer
        asked = text;
        p.ask("answer", { do: "ask", text });
      };
      if (text) typing = setTimeout(ask, TYPED);
      p.show({ text, sentence: text ? "own" : "0" });
    },
  };
  return { actions, draw };
}

export default panel({ title: "Train an adapter", css: TRAIN_CSS, traits: TRAITS, body: BODY, start });
