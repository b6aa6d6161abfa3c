// Methods compared: seeds and costs above, differences from a rival against a margin below. Python made every test; see
// experiments/margins.py for what it sends. Here outcomes are looked up and drawn.

import COMPARE_CSS from "./compare_panel.css";
import { adds, icon } from "./compare_icons.js";
import { AXES, drawForest, drawSeeds, drawStudies, span, thousands } from "./compare_picture.js";
import { button, menu, nearest, segments, slider, switches, table } from "./controls.js";
import { about, binary, bytes, clamp, count, decimal, escape, percent } from "./format.js";
import { panel } from "./panel.js";

const TRAITS = {
  stored: {}, mine: {}, view: "stored", live: {}, dance: {}, method: "", rival: "", margin: 0.015, axis: "trained", choices: [],
  methods: [], seeds: 2, rates: 4, steps: 200,
};
const OUTCOMES = {
  b: "better", w: "worse", e: "equivalent", B: "better, but within the margin", W: "worse, but within the margin",
  u: "undecided", "-": "not tested",
};
const STEPS = [20, 50, 100, 200, 400, 800];
const ROWS = [50, 100, 200, 500, 1000, 2000]; // of a study
const DANCE = 4000; // milliseconds
const numbers = (most) => Array.from({ length: most }, (_, i) => i + 1);

const part = (name) => `<div class="${name} drawn"><svg role="img"></svg></div>`;
const BODY = `<header><div class="title"></div>
  ${segments("view", "whose comparison", [["stored", "the reference"], ["mine", "yours"]])}
  ${segments("axis", "what stands across", [["trained", "trained numbers"], ["memory", "memory"], ["time", "time"]])}</header>
<fieldset class="ways"><legend>What each method adds (blue) to a layer: from below, tokens, q k v, output, MLP; on top the head. Click the <b class="other">rival</b> that all others are compared with.</legend>
  <div class="cards"></div></fieldset>
<div class="body">
  <div>${part("picture")}<p class="key"></p>${part("forest")}
    <p class="key">Thick: 90% interval, for equivalence. Thin: 95% interval, for a difference. Drag the edges of the band.</p></div>
  <div class="side">
    <div class="controls">${menu("method", "method")}${slider("margin", "margin", "ink")}
      <div class="row">${button("flip", "where the word changes")}</div></div>
    <p class="big"></p><p class="words"></p><p class="holm"></p>
    <table class="facts"></table>
  </div>
  <div data-for="dance" class="dance"><p class="question">Would another study say the same?</p>
    <div data-for="draws">${slider("rows", "sentences per study", "ink")}
      <div class="row">${button("dance", "draw 100 studies")}</div></div>
    <div class="drawn-studies">${part("studies")}${slider("scrub", "studies", "ink")}</div>
    <p class="misses"></p></div>
</div>
<div data-for="here" class="here"><p class="question">Compare on this machine</p>
  ${switches("methods", "", [])}
  <div class="plan">${slider("seeds", "seeds", "ink")}${slider("rates", "rates to try", "ink")}${slider("steps", "steps", "ink")}</div>
  <div class="row">${button("run", "", "first")}${button("halt", "Stop")}</div>
  <progress max="1" value="0" aria-label="methods compared"></progress><p class="doing"></p><p class="kernel"></p></div>
<p class="about"></p>
<details><summary>all methods as a table</summary><div class="scrolls" tabindex="0" role="group"
  aria-label="all methods as a table"><table class="all"></table></div></details>`;

const there = (data) => Boolean(data?.methods?.length);

function start(p) {
  const ui = { rows: 200, shown: 100, seen: p.get("dance").number, halts: false, markup: {} };
  let now;
  let seeds;
  let forest;

  // ---- what follows from what was chosen

  function read() {
    const view = there(p.get(p.get("view"))) ? p.get("view") : there(p.get("mine")) ? "mine" : "stored";
    const data = p.get(view);
    if (!there(data)) return { view, data: undefined };
    const of = (label) => data.methods.find((one) => one.label === label);
    const rival = of(p.get("rival")) ?? of(data.pair[1]);
    const wanted = [p.get("method"), data.pair[0], ...data.methods.map((one) => one.label)];
    const method = of(wanted.find((label) => of(label) && label !== rival.label)) ?? rival;
    const at = nearest(data.margins, p.get("margin"));
    const margin = data.margins[at];
    const pairs = data.against[rival.label] ?? {};
    const rows = data.methods
      .filter((one) => pairs[one.label])
      .map((one) => row(one, pairs[one.label], at))
      .sort((a, b) => b.entry.difference - a.entry.difference);
    const own = rows.find(({ one }) => one === method);
    const dance = p.get("dance");
    const danced = dance.method === method.label && dance.rival === rival.label && dance.view === view ? dance : undefined;
    const axes = Object.keys(AXES).filter((name) => data.methods.filter(AXES[name].of).length >= Math.min(2, data.methods.length));
    const axis = axes.includes(p.get("axis")) ? p.get("axis") : axes[0];
    const places = data.scale === 1 ? 3 : 1;
    const say = (value) => decimal(data.scale * value, places);
    return { view, data, rival, method, at, margin, rows, own, danced, axes, axis, say, size: `${about(Number((data.scale * margin).toPrecision(3)))} ${data.gap}` };
  }

  /** A pair at the present margin: `letter` is its outcome, `within` its 90% interval. */
  function row(one, entry, at) {
    const letter = entry.outcomes[at];
    const within = entry.within.filter(([from]) => from <= at).at(-1)?.slice(1);
    return { one, entry, letter, within, word: OUTCOMES[letter] };
  }

  // ---- words

  function title({ method, rival, own, size }) {
    if (method === rival) return `${escape(rival.name)}, and nothing to compare it with yet`;
    const share = method.trained / rival.trained;
    const costs = share < 1 ? `${percent(share)} of` : `${about(share)} times`;
    const is = {
      b: "is better", w: "is worse", e: `is equivalent within ${size}`, B: `is better by less than ${size}`,
      W: `is worse by less than ${size}`, u: "cannot be told apart from it yet",
    }[own?.letter];
    return `${escape(method.name)} trains ${costs} the numbers of ${escape(rival.name)}${is ? ` and ${is}` : ""}`;
  }

  /** [headline, sentence] of the pair. */
  function tell({ method, rival, own, at, say, size, data }) {
    if (method === rival) return ["<b>one method</b>", "Two are needed for a comparison."];
    if (!own) return ["<b>not tested</b>", `${escape(method.name)} and ${escape(rival.name)} were not tested against each other.`];
    const { entry, letter, within } = own;
    const by = `<span>${entry.difference > 0 ? "+" : ""}${say(entry.difference)} ${data.gap}</span>`;
    const [low, high] = [entry.low, entry.high].map(say);
    const wide = within && `${say(within[0])} to ${say(within[1])}`;
    const differs = `The 95% interval, ${low} to ${high}, leaves out 0`;
    const beyond = within && (within[1] < -now.margin || within[0] > now.margin);
    const side = letter.toLowerCase() === "w" ? "worse" : "better";
    const words = {
      e: `The 90% interval, ${wide}, lies inside ±${size}: whatever the difference is, it is too small to matter here.`,
      u: `The 95% interval, ${low} to ${high}, holds 0, so neither is shown to be better. The 90% interval${wide ? `, ${wide},` : ""} leaves the margin, so they are not shown to be equivalent. ${tellMore(entry, at)}`,
      "-": `The 95% interval is ${low} to ${high}. This comparison kept no answers, so only its own margin of ${about(data.scale * data.margin)} ${data.gap} was tested.`,
    };
    words.w = words.b = `${differs}: a real difference. ${beyond ? `All of the 90% interval, ${wide}, is beyond the margin, so it matters.` : within ? `The 90% interval, ${wide}, reaches beyond ±${size}, so it may matter.` : ""}`;
    words.W = words.B = `Both hold. ${differs}: it is ${side}. ${wide ? `And the 90% interval, ${wide},` : "And its 90% interval"} lies inside ±${size}: by less than you said would matter.`;
    return [`<b>${OUTCOMES[letter].split(",")[0]}</b> ${letter === letter.toLowerCase() ? "" : "<strong>but within the margin</strong> "}${by}`, words[letter]];
  }

  /** What would decide an undecided pair. */
  function tellMore(entry, at) {
    const found = entry.more[[...entry.outcomes.slice(0, at)].filter((one) => one === "u").length];
    if (!found) return "";
    const [more, rows] = found;
    const ways = [more && `${count(more)} more seed${more > 1 ? "s" : ""}`, rows && `${count(rows)} more test sentence${rows > 1 ? "s" : ""}`].filter(Boolean);
    return ways.length ? `About ${ways.join(" or ")} would probably decide.` : "It takes far more seeds and test sentences to decide.";
  }

  function tellHolm({ own, rows, at }) {
    const together = own?.entry.together[at];
    if (!own || together === own.letter || together === "-") return "";
    return `Asked as one of ${rows.length} questions at once (Holm’s correction), it is <b>${OUTCOMES[together]}</b>.`;
  }

  function facts({ method, rival, data }) {
    const unit = data.unit;
    const half = (one) => (one.low === undefined ? "" : ` ± ${decimal((one.high - one.low) / 2)}`);
    const lines = [
      [`test ${data.metric}${unit && ` (${unit})`}`, (one) => `${decimal(one.mean)}${half(one)}`],
      ["trained numbers", (one) => count(one.trained)],
      ["file", (one) => one.adapter_bytes && bytes(one.adapter_bytes)],
      ["memory of a step", (one) => one.bytes && binary(one.bytes)],
      ["seconds of a run", (one) => one.seconds && about(one.seconds)],
      ["tokens added", (one) => one.added_tokens],
      ["learning rate", (one) => one.lr && `${about(one.lr)}${one.edge ? " (edge)" : ""}`],
    ];
    const shown = lines.map(([name, of]) => [name, of(method) || "–", of(rival) || "–"]).filter(([, a, b]) => a !== "–" || b !== "–");
    return table(["", escape(method.name), escape(rival.name)], shown);
  }

  // ---- drawing

  function draw() {
    now = read();
    const { data } = now;
    const live = p.gone() ? { ...p.get("live"), busy: false, state: "" } : p.get("live");
    const answers = now.own && !now.own.entry.outcomes.includes("-");
    const dances = Boolean(now.danced || (p.kernel && answers));
    p.offer([
      "axis", "method", "margin", "seeds", "rates", "steps", "rows", "scrub", "methods", ...(p.kernel ? ["here", "draws"] : []),
      ...(there(p.get("stored")) && there(p.get("mine")) ? ["view"] : []), ...(dances ? ["dance"] : []),
    ]);
    const doing = drawHere(live);
    for (const name of [".ways", ".body", "details"]) p.one(name).hidden = !data;
    p.one("header .segments[data-for=axis]").hidden = !data;
    if (!data) {
      p.fill({ ".title": "Nothing is compared yet", ".about": "" });
      return `Nothing is compared yet. ${doing}`;
    }
    drawControls(now);
    seeds = drawSeeds(p.width(), { ...now, behind: now.view === "mine" && p.get("stored").metric === data.metric ? p.get("stored") : undefined });
    const told = (one) => `${one.name} ${decimal(one.mean)}${data.unit}`;
    p.picture(seeds.svg, seeds.height, `Test ${data.metric} of every seed over ${AXES[now.axis].words}. Means: ${data.methods.map(told).join(", ")}.`);
    p.one(".forest").hidden = p.one(".forest + .key").hidden = !now.rows.length;
    const range = span([...now.rows.map(({ entry }) => [0, entry.low, entry.high]), ...(now.danced?.studies ?? [])], data.scale);
    forest = drawForest(p.width(".forest"), { ...now, range, margin: data.scale * now.margin, shownMargin: now.size, scale: data.scale, gap: data.gap });
    const pair = ({ one, entry, word }) => `${one.name}: ${now.say(entry.difference)}, ${now.say(entry.low)} to ${now.say(entry.high)}, ${word}`;
    p.picture(forest.svg, forest.height, `Differences from ${now.rival.name} in ${data.gap} with 95% intervals, at a margin of ${now.size}. ${now.rows.map(pair).join("; ")}.`, ".forest svg");
    const [big, words] = tell(now);
    const pale = now.view === "mine" && there(p.get("stored")) ? " Hollow: the reference." : "";
    const failed = data.failed.map(([label, why]) => ` ${label} has no result: ${why}.`).join("");
    p.fill({
      ".title": title(now),
      ".key": `Test ${data.metric}${data.unit && `, ${data.unit}`}${data.lower ? ", lower is better" : ""}: a dot for each seed; beside it the mean and its 95% interval; a cross at the bottom for a seed far below.${pale}`,
      ".big": big, ".words": words, ".holm": tellHolm(now), ".facts": facts(now), ".about": escape(data.about + failed),
    });
    if (dances) drawDance(range);
    fillTable();
    return `${title(now)}. ${big}. ${words} ${doing}`;
  }

  function drawControls({ data, method, rival, margin, axis, axes, view, size }) {
    p.check("view", [view]);
    p.check("axis", [axis]);
    for (const input of p.card.querySelectorAll("input[name=axis]")) input.closest("label").hidden = !axes.includes(input.value);
    const ways = data.methods.map((one) => {
      const name = escape(one.name);
      return `<label><input type="radio" name="rival" value="${escape(one.label)}" aria-label="${name}: trains ${escape(adds(one))}">${icon(one)}
        <span>${name}</span><small>${thousands(one.trained)} train</small></label>`;
    });
    remake(".cards", ways.join(""));
    p.check("rival", [rival.label]);
    p.card.querySelectorAll(".cards label").forEach((label, i) => {
      label.classList.toggle("chosen-way", data.methods[i] === method);
    });
    p.choose("method", data.methods.filter((one) => one !== rival).map((one) => [one.label, one.name]), method.label);
    p.one("button[name=flip]").disabled = flips(now) < 0;
    p.slide("margin", { values: data.margins, value: margin, words: `±${size}` });
  }

  /** The next margin, or the first, at which the pair has another outcome. */
  function flips({ own, at }) {
    const letters = own ? [...own.entry.outcomes] : [];
    const other = (letter) => letter !== letters[at] && letter !== "-";
    const next = letters.findIndex((letter, i) => i > at && other(letter));
    return next < 0 ? letters.findIndex(other) : next;
  }

  /** Markup that keeps the focus where it has not changed. */
  function remake(selector, markup) {
    if (ui.markup[selector] === markup) return;
    ui.markup[selector] = markup;
    p.one(selector).innerHTML = markup;
  }

  function drawDance(range) {
    const { danced, data, at, margin, own } = now;
    const sizes = ROWS.filter((rows) => rows <= Math.max(data.rows, ROWS[0]));
    ui.rows = sizes[nearest(sizes, ui.rows)];
    p.slide("rows", { values: sizes, value: ui.rows, words: count(ui.rows) });
    p.one("button[name=dance]").disabled = p.gone() || p.waits();
    p.one(".drawn-studies").hidden = !danced;
    if (!danced) return p.fill({ ".misses": "A study draws its seeds and sentences anew from all of these answers. Here the truth is known: does its 95% interval catch it?" });
    if (danced.number !== ui.seen) {
      ui.seen = danced.number;
      ui.shown = 0;
      setTimeout(() => p.play(DANCE, (t) => { ui.shown = Math.round(danced.studies.length * t); }));
    }
    const shown = clamp(ui.shown, 0, danced.studies.length);
    p.slide("scrub", { most: danced.studies.length, value: shown, words: count(shown), spoken: `${shown} studies` });
    const studies = drawStudies(p.width(".studies"), { ...danced, range, margin: data.scale * margin, scale: data.scale, shown });
    const missed = danced.studies.slice(0, shown).filter(([, low, high]) => danced.truth < low || high < danced.truth).length;
    const letters = danced.outcomes.slice(0, shown).map((one) => one[at]);
    const found = Object.keys(OUTCOMES).map((one) => [letters.filter((l) => l === one).length, OUTCOMES[one]]).filter(([many]) => many);
    const words = `${missed} of ${shown} intervals miss the truth, ${now.say(danced.truth)}; of 95% intervals about 5 in 100 may. With ${count(danced.rows)} sentences a study finds: ${found.sort(([a], [b]) => b - a).map(([many, word]) => `${many} ${word}`).join(", ") || "nothing yet"}. All of them: ${own.word}.`;
    p.picture(studies.svg, studies.height, words, ".studies svg");
    return p.fill({ ".misses": words });
  }

  function drawHere(live) {
    if (!live.busy) ui.halts = false;
    const busy = Boolean(live.busy);
    const chosen = p.get("methods");
    remake(".here fieldset", `<legend class="spoken">methods to compare</legend>${p.get("choices").map((one) => `<label><input type="checkbox" name="methods" value="${escape(one)}">${escape(one)}</label>`).join("")}`);
    p.check("methods", chosen);
    p.slide("seeds", { values: numbers(20), value: clamp(p.get("seeds"), 1, 20), words: count(p.get("seeds")) });
    p.slide("rates", { values: numbers(10), value: clamp(p.get("rates"), 1, 10), words: count(p.get("rates")) });
    const steps = [...new Set([...STEPS, p.get("steps")])].sort((a, b) => a - b);
    p.slide("steps", { values: steps, value: p.get("steps"), words: count(p.get("steps")) });
    for (const input of p.card.querySelectorAll(".here input")) input.disabled = busy;
    const run = p.one("button[name=run]");
    run.hidden = busy;
    run.textContent = `Start: ${chosen.length} method${chosen.length === 1 ? "" : "s"}`;
    run.disabled = !chosen.length || p.gone() || p.waits();
    p.one("button[name=halt]").hidden = !busy;
    p.one("button[name=halt]").disabled = ui.halts;
    p.one("progress").hidden = !busy;
    p.one("progress").value = live.of ? live.done / live.of : 0;
    const doing = busyWords(live, busy);
    p.fill({ ".doing": doing });
    return p.kernel ? doing : "";
  }

  function busyWords(live, busy) {
    const done = live.of ? `${live.done} of ${live.of} methods` : "";
    if (live.error) return `<strong>It failed.</strong> ${escape(live.error)}`;
    if (busy && ui.halts) return `Stopping after this step: ${done}.`;
    if (busy) return `${escape(live.state)}, ${done}. ${escape(live.words ?? "")}`;
    if (live.state === "stopped") return `Stopped: ${done}. What has finished is kept, and Start goes on with the rest.`;
    if (live.state === "done") return `Done: ${done}.`;
    return "Each method is tuned on validation rows and then run with every seed. What is in the store is not trained again.";
  }

  function fillTable() {
    if (!p.one("details").open) return;
    const { data, rows, rival, say } = now;
    const line = (one) => {
      const pair = rows.find((other) => other.one === one);
      const tried = one.tried.map(([rate, value]) => `${about(rate)}: ${decimal(value)}`).join(", ");
      return [
        escape(one.name), decimal(one.mean), one.each.map((value) => decimal(value)).join(" "), count(one.trained),
        one.adapter_bytes ? bytes(one.adapter_bytes) : "–", one.bytes ? binary(one.bytes) : "–", one.seconds ? about(one.seconds) : "–",
        one.lr ? `${about(one.lr)}${one.edge ? " (edge)" : ""}` : "–", tried || "–",
        pair ? `${say(pair.entry.difference)} (${say(pair.entry.low)} to ${say(pair.entry.high)})` : "–", pair ? pair.word : "–",
      ];
    };
    const head = [
      "method", `mean${data.unit && `, ${data.unit}`}`, "every seed", "train", "file", "memory", "seconds", "rate", "validation at each rate",
      `less ${escape(rival.name)}, ${data.gap}`, "outcome",
    ];
    const best = [...data.methods].sort((a, b) => (data.lower ? a.mean - b.mean : b.mean - a.mean));
    p.fill({ ".all": table(head, best.map(line), best.indexOf(now.method)) });
  }

  // ---- what controls and pulling do

  /** The method that was looked at as the rival: the two change places. */
  function meet(rival) {
    p.set(rival === now.method.label ? { rival, method: now.rival.label } : { rival });
  }

  const plan = () => Object.fromEntries(["methods", "seeds", "rates", "steps"].map((name) => [name, p.get(name)]));
  const actions = {
    view: (view) => p.set({ view }),
    axis: (axis) => p.set({ axis }),
    method: (method) => p.set({ method }),
    rival: meet,
    margin: (margin) => p.set({ margin }),
    flip: () => p.set({ margin: now.data.margins[flips(now)] }),
    seeds: (value) => p.set({ seeds: value }),
    rates: (rates) => p.set({ rates }),
    steps: (steps) => p.set({ steps }),
    methods(name, input) {
      const others = p.get("methods").filter((one) => one !== name);
      p.set({ methods: p.get("choices").filter((one) => others.includes(one) || (one === name && input.checked)) });
    },
    rows(rows) {
      ui.rows = rows;
      p.redraw();
    },
    scrub(shown) {
      p.stop();
      ui.shown = shown;
      p.redraw();
    },
    dance() {
      const traits = { view: now.view, method: now.method.label, rival: now.rival.label };
      p.ask("dance", { do: "dance", rows: ui.rows, traits });
    },
    run: () => p.ask("live", { do: "run", traits: plan() }),
    halt() {
      ui.halts = true;
      p.ask("live", { do: "stop" });
    },
  };

  p.one("details").addEventListener("toggle", fillTable);
  p.drag((_, x, y) => {
    const found = seeds?.at(x, y);
    if (!found || found === now.rival) return undefined;
    p.set({ method: found.label });
    return { move() {} };
  });
  p.drag((_, x, y) => {
    const to = (px) => p.set({ margin: now.data.margins[nearest(now.data.margins, forest.value(px) / now.data.scale)] });
    if (forest?.edge(x)) return { move: to };
    const found = forest?.row(y);
    if (!found) return undefined;
    p.set({ method: found.label });
    return { move() {} };
  }, ".forest svg");

  return { actions, draw };
}

export default panel({ title: "Methods compared", css: COMPARE_CSS, traits: TRAITS, body: BODY, start });
