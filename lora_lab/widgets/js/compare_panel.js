// A comparison of methods: seeds and costs at the top, differences from a rival below. Python ran every test; see
// experiments/margins.py for what it sends. This file looks up outcomes and draws them.

import COMPARE_CSS from "./compare_panel.css";
import { AXES, drawForest, drawSeeds, drawStudies, span, thousands } from "./compare_picture.js";
import { button, drawn, folded, menu, nearest, segments, slider, switches, table, trouble } from "./controls.js";
import { about, binary, bytes, clamp, count, decimal, escape, percent, plural } from "./format.js";
import { panel } from "./panel.js";

const TRAITS = {
  stored: {}, mine: {}, view: "stored", live: {}, dance: {}, method: "", rival: "", margin: 0.015, axis: "trained",
  choices: [], methods: [], seeds: 2, rates: 4, steps: 200,
};
const OUTCOMES = {
  b: "better", w: "worse", e: "equivalent", B: "better, but within the margin", W: "worse, but within the margin",
  u: "undecided",
};
const DANCE = 4000; // milliseconds
const STEPS = [20, 50, 100, 200, 400, 800];
const ROWS = [50, 100, 200, 500, 1000, 2000]; // per study
const upTo = (limit) => Array.from({ length: limit }, (_, i) => i + 1);

const BODY = `<header><div class="title"></div>
  ${segments("view", "whose comparison", [["stored", "the reference"], ["mine", "yours"]])}
  ${segments("axis", "horizontal axis")}</header>
<fieldset class="ways" data-for="ways"><legend>What each method adds (blue) to a layer, from the bottom: tokens, q k v,
  output, MLP, head. Click the <b class="other">method</b> that all others should be compared with.</legend>
  <div class="cards"></div></fieldset>
<div class="body tall" data-for="body">
  <div>${drawn()}<p class="key"></p><div data-for="forest">${drawn("forest")}
    <p class="key">Dot: the mean difference. Thick line: the 90% interval, for equivalence. Thin line: the 95% interval, for a difference. The intervals are for single tests; the verdicts take the number of tests into account. Drag the edges of the band.</p>
  </div></div>
  <div class="side">
    <div class="controls">${menu("method", "method")}${slider("margin", "margin", "ink")}
      <div class="row">${button("flip", "where the verdict changes")}</div></div>
    <p class="big"></p><p class="words"></p>
    <table class="facts"></table>
  </div>
  <div data-for="dance" class="dance"><p class="question">Would another study say the same?</p>
    <div data-for="draws">${slider("rows", "sentences per study", "ink")}
      <div class="row">${button("dance", "draw 100 studies")}</div></div>
    <div data-for="studies">${drawn("studies")}${slider("shown", "studies", "ink")}</div>
    <p class="misses"></p></div>
</div>
<div data-for="here" class="here"><p class="question">Compare on this machine</p>
  ${switches("methods", "methods")}
  <div class="plan">${slider("seeds", "seeds", "ink")}${slider("rates", "rates to try", "ink")}${slider("steps", "steps", "ink")}
  </div>
  <div class="row">${button("run", "", "first")}${button("halt", "Stop")}</div>
  <progress max="1" value="0" aria-label="methods compared"></progress><p class="doing"></p><p class="kernel"></p></div>
<p class="about"></p>${folded("all methods as a table")}`;

const hasMethods = (data) => Boolean(data?.methods?.length);

/** [name, text for a method] for each known quantity. */
const columns = ({ metric, unit }) => [
  [`test ${escape(metric)}${unit && ` (${unit})`}`, ({ mean, low, high }) =>
    decimal(mean) + (low === undefined ? "" : ` ± ${decimal((high - low) / 2)}`)],
  ["trained parameters", ({ trained }) => count(trained)],
  ["file", (entry) => (entry.adapter_bytes ? bytes(entry.adapter_bytes) : "–")],
  ["memory of a step", (entry) => (entry.bytes ? binary(entry.bytes) : "–")],
  ["seconds of a run", (entry) => (entry.seconds ? about(entry.seconds) : "–")],
  ["tokens added", (entry) => (entry.added_tokens ? count(entry.added_tokens) : "–")],
  ["learning rate", ({ lr, edge }) => (lr ? `${about(lr)}${edge ? " (edge)" : ""}` : "–")],
];

function start(p) {
  const ui = p.keep({ rows: 200, shown: 100, seen: p.get("dance").number });
  let now;
  let seeds;
  let forest;

  // ---- derived state
  function read() {
    const view = hasMethods(p.get(p.get("view"))) ? p.get("view") : hasMethods(p.get("mine")) ? "mine" : "stored";
    const data = p.get(view);
    if (!hasMethods(data)) return { view, data: undefined };
    const find = (label) => data.methods.find((entry) => entry.label === label);
    const rival = find(p.get("rival")) ?? find(data.pair[1]);
    const candidates = [p.get("method"), data.pair[0], ...data.methods.map((entry) => entry.label)];
    const method = find(candidates.find((label) => find(label) && label !== rival.label)) ?? rival;
    const at = nearest(data.margins, p.get("margin"));
    const margin = data.margins[at];
    const rows = data.methods.flatMap((entry) => {
      const test = data.against[rival.label]?.[entry.label];
      if (!test) return [];
      const within = test.within.filter(([from]) => from <= at).at(-1).slice(1); // the 90% interval
      return [{ entry, test, letter: test.together[at], alone: test.outcomes[at], within, word: OUTCOMES[test.together[at]] }];
    });
    rows.sort((a, b) => b.test.difference - a.test.difference);
    const pair = rows.find(({ entry }) => entry === method);
    const dance = p.get("dance");
    const danced = dance.method === method.label && dance.rival === rival.label && dance.view === view ? dance : undefined;
    const available = (name) => data.methods.filter(AXES[name].value).length >= Math.min(2, data.methods.length);
    const axes = Object.keys(AXES).filter(available);
    const axis = axes.includes(p.get("axis")) ? p.get("axis") : axes[0];
    const format = (value) => decimal(data.scale * value, data.scale === 1 ? 3 : 1);
    const size = `${about(Number((data.scale * margin).toPrecision(3)))} ${data.gap}`.replace(/^1 points$/, "1 point");
    return { view, data, rival, method, at, margin, rows, pair, danced, axes, axis, format, size };
  }

  // ---- words
  function title({ method, rival, pair, size }) {
    if (method === rival) return `${escape(rival.name)}, and nothing to compare it with yet`;
    const share = method.trained / rival.trained;
    const trains = share === 1 ? "as many" : share < 1 ? `${percent(share)} of the` : `${about(share)} times the`;
    const verdict = pair ? ` <span class="gloss">At a margin of ${size} it is ${pair.word}</span>` : "";
    return `${escape(method.name)} trains ${trains} parameters ${share === 1 ? "as" : "of"} ${escape(rival.name)}${verdict}`;
  }

  /** [headline, sentence] for the pair. */
  function verdictWords({ method, rival, pair, rows, at, margin, format, size, data }) {
    if (method === rival) return ["<b>one method</b>", "A comparison needs two methods."];
    const names = `${escape(method.name)} and ${escape(rival.name)}`;
    if (!pair) return ["<b>not tested</b>", `${names} were not tested against each other.`];
    const { test, letter, alone, within } = pair;
    const ends = `${format(test.low)} to ${format(test.high)}`;
    const wide = `The 90% interval, ${format(within[0])} to ${format(within[1])},`;
    const beyond = within[1] < -margin || within[0] > margin;
    const matters = beyond ? "lies beyond the margin: the difference matters" : `reaches beyond ±${size}: the difference may matter`;
    const differs = `The 95% interval, ${ends}, excludes 0. Luck alone rarely causes this.`;
    const real = `${differs} ${wide} ${matters}.`;
    const small = `${differs} ${wide} lies inside ±${size}: ${escape(method.name)} is ${alone === "W" ? "worse" : "better"}, but
      not by more than the margin that you set.`;
    const words = {
      e: `${wide} lies inside ±${size}: whatever the difference is, it is too small to matter here.`,
      u: `The 95% interval, ${ends}, includes 0, so neither is shown to be better. ${wide} reaches beyond the margin, so they
        are not shown to be equivalent.`,
      w: real, b: real, W: small, B: small,
    };
    const many = rows.length > 1 && "eWB".includes(letter) ? ` This also holds after Holm’s correction for ${rows.length} tests.` : "";
    const why = letter === alone ? words[alone] + many : `A single test would say <b>${OUTCOMES[alone]}</b>: ${words[alone].split(":")[0]}.
      But this is one of ${rows.length} tests, so it needs stronger evidence (Holm’s correction).`;
    const [word, qualifier] = OUTCOMES[letter].split(", ");
    const difference = `<span>${test.difference > 0 ? "+" : ""}${format(test.difference)} ${data.gap}</span>`;
    return [`<b>${word}</b> ${qualifier ? `<strong>${qualifier}</strong> ` : ""}${difference}`, `${why} ${moreData(pair, at)}`];
  }

  /** What would decide an undecided pair. */
  function moreData({ test, letter }, at) {
    const needed = test.more[[...test.together.slice(0, at)].filter((other) => other === "u").length];
    if (letter !== "u" || !needed) return "";
    const [more, rows] = needed;
    const options = [more && plural(more, "more seed"), rows && plural(rows, "more test sentence")].filter(Boolean);
    if (!options.length) return "A decision would need far more seeds and test sentences.";
    return `About ${options.join(" or ")} would probably decide it.`;
  }

  // ---- drawing
  function draw() {
    now = read();
    const { data, pair, danced, rows, axis, format, rival, size, margin } = now;
    const draws = Boolean(p.kernel && pair);
    const dances = draws || Boolean(p.get("dance").number);
    const [any, both] = [Boolean(data), hasMethods(p.get("stored")) && hasMethods(p.get("mine"))];
    p.offer({
      here: p.kernel, draws, view: both, dance: dances, studies: Boolean(danced), axis: now.axes?.length > 1, ways: any, body: any,
      forest: Boolean(rows?.length),
    });
    p.find("details").hidden = !data;
    const status = drawHere(p.live());
    if (!data) {
      p.fill({ ".title": "Nothing has been compared yet", ".about": "" });
      return `Nothing has been compared yet. ${status}`;
    }
    drawControls(now);
    seeds = drawSeeds(p.width(), now);
    const means = data.methods.map(({ name, mean }) => `${name} ${decimal(mean)}${data.unit}`).join(", ");
    p.picture(seeds, `Test ${data.metric} of every seed against ${AXES[axis].words}. Means: ${means}.`);
    const range = span([...rows.map(({ test }) => [0, test.low, test.high]), ...(danced?.studies ?? [])], data.scale);
    forest = drawForest(p.width("forest"), { ...now, range, margin: data.scale * margin, scale: data.scale, gap: data.gap });
    const pairs = rows.map(({ entry, test, word }) => `${entry.name} ${format(test.difference)}, ${word}`).join("; ");
    p.picture(forest, `Differences from ${rival.name} in ${data.gap} at a margin of ${size}: ${pairs}.`, "forest");
    const [big, words] = verdictWords(now);
    const costs = columns(data).map(([name, cell]) => [name, cell(now.method), cell(rival)]);
    const known = costs.filter(([, a, b]) => a !== "–" || b !== "–");
    const facts = table(["", escape(now.method.name), escape(rival.name)], known);
    const failed = data.failed.map(([label, why]) => ` ${label} has no result: ${why}.`).join("");
    p.fill({
      ".title": title(now),
      ".key": `Test ${escape(data.metric)}${data.unit && `, ${data.unit}`}${data.lower ? ", lower is better" : ""}. Each dot is one run with its
        own seed (initial weights, row order, sampled rows); click it to see its method. Beside the dots: the mean and its 95% interval
        over seeds, for this test set only. A cross at the bottom is a run far below the others.`,
      ".big": big, ".words": words, ".facts": facts, ".about": escape(data.about + failed),
    });
    if (dances) drawDance(range, draws);
    p.numbers(methodTable);
    return `${title(now)}. ${big}. ${words} ${status}`;
  }

  function drawControls({ data, method, rival, margin, axis, axes, view, size }) {
    p.check("view", [view]);
    p.check("axis", [axis], axes.map((name) => [name, AXES[name].name]));
    const cards = data.methods.map((entry) => {
      const [name, trains] = [escape(entry.name), escape(entry.adds)];
      const input = `<input type="radio" name="rival" value="${escape(entry.label)}" aria-label="${name}: trains ${trains}">`;
      return `<label>${input}${entry.icon}<span>${name}</span><small>${thousands(entry.trained)} train</small></label>`;
    });
    p.fill({ ".cards": cards.join("") });
    p.check("rival", [rival.label]);
    p.card.querySelectorAll(".cards label").forEach((label, i) => {
      label.classList.toggle("chosen-way", data.methods[i] === method);
    });
    p.choose("method", data.methods.filter((entry) => entry !== rival).map(({ label, name }) => [label, name]), method.label);
    p.button("flip", { off: flips(now) < 0 });
    p.slide("margin", { values: data.margins, value: margin, words: `±${size}` });
  }

  /** The next margin at which the pair's outcome changes, or else the first one; -1 if the outcome never changes. */
  function flips({ pair, at }) {
    const letters = pair ? [...pair.test.together] : [];
    const changes = (letter, i) => i > 0 && letter !== letters[i - 1];
    const next = letters.findIndex((letter, i) => i > at && changes(letter, i));
    return next < 0 ? letters.findIndex(changes) : next;
  }

  function drawDance(range, draws) {
    const { danced, data, at, margin, pair } = now;
    const sizes = ROWS.filter((rows) => rows <= Math.max(data.rows, ROWS[0]));
    p.keep({ rows: sizes[nearest(sizes, ui.rows)] });
    p.slide("rows", { values: sizes, value: ui.rows, words: count(ui.rows) });
    p.button("dance", { off: p.gone() || p.waits() });
    const stored = "The stored studies are about another pair of methods: choose that pair again to see them.";
    if (!danced) return p.fill({ ".misses": draws ? "Each study draws new sentences from the test set." : stored });
    if (danced.number !== ui.seen) {
      p.keep({ seen: danced.number, shown: 0 });
      setTimeout(() => p.play(DANCE, (t) => p.keep({ shown: Math.round(danced.studies.length * t) })));
    }
    const shown = clamp(ui.shown, 0, danced.studies.length);
    p.slide("shown", { most: danced.studies.length, value: shown, words: count(shown), spoken: `${shown} of ${danced.studies.length} studies` });
    const studies = drawStudies(p.width("studies"), { ...danced, range, margin: data.scale * margin, scale: data.scale, shown });
    const without = (value) => danced.studies.slice(0, shown).filter(([, low, high]) => value < low || high < value).length;
    const letters = danced.outcomes.slice(0, shown).map((outcomes) => outcomes[at]);
    const counts = Object.entries(OUTCOMES).map(([key, word]) => [letters.filter((letter) => letter === key).length, word]);
    const parts = counts.filter(([times]) => times).sort(([a], [b]) => b - a).map(([times, word]) => `${times} ${word}`);
    const words = `${without(danced.truth)} of ${shown} intervals (crosses) miss the truth, ${now.format(danced.truth)}.
      On average, at most 5% of all 95% intervals miss it. ${without(0)} intervals (blue) exclude 0. A single test on ${count(danced.rows)} sentences says: ${parts.join(", ") || "nothing yet"}. On the full test set: ${OUTCOMES[pair.alone]}.`;
    p.picture(studies, words, "studies");
    return p.fill({ ".misses": words });
  }

  function drawHere(live) {
    const { busy, halts } = live;
    const chosen = p.get("methods");
    p.fill({ ".doing": statusWords(live) });
    p.check("methods", chosen, p.get("choices").map((choice) => [choice, escape(choice)]));
    const steps = [...new Set([...STEPS, p.get("steps")])].sort((a, b) => a - b);
    for (const [name, values] of Object.entries({ seeds: upTo(20), rates: upTo(10), steps })) {
      p.slide(name, { values, value: p.get(name), words: count(p.get(name)) });
    }
    for (const input of p.card.querySelectorAll(".here input")) input.disabled = busy;
    const off = !chosen.length || p.gone() || p.waits();
    p.button("run", { words: `Start: ${plural(chosen.length, "method")}`, hidden: busy, off });
    p.button("halt", { hidden: !busy, off: halts });
    p.progress(busy ? live.done / live.of || 0 : undefined);
    return p.kernel ? statusWords(live) : "";
  }

  function statusWords(live) {
    const done = live.of ? `${live.done} of ${plural(live.of, "method")}` : "";
    if (trouble(live)) return trouble(live);
    if (live.busy) return `${escape(live.state)}, ${done}. ${escape(live.words ?? "")}`;
    if (live.state === "stopped") return `Stopped: ${done}. Finished runs are kept, and Start continues with the rest.`;
    if (live.state === "done") return `Done: ${done}.`;
    return "Each method is tuned on validation rows and then run with every seed. Runs in the store are not trained again.";
  }

  function methodTable() {
    const { data, rows, rival, format, method } = now;
    const quantities = columns(data);
    const line = (entry) => {
      const row = rows.find((other) => other.entry === entry);
      const tried = entry.tried.map(([rate, value]) => `${about(rate)}: ${decimal(value)}`).join(", ") || "–";
      const [difference, low, high] = row ? [row.test.difference, row.test.low, row.test.high].map(format) : [];
      return [
        escape(entry.name), ...quantities.map(([, cell]) => cell(entry)), entry.each.map((value) => decimal(value)).join(" "), tried,
        row ? `${difference} (${low} to ${high})` : "–", row?.word ?? "–",
      ];
    };
    const [names, minus] = [quantities.map(([name]) => name), `minus ${escape(rival.name)}, ${data.gap}`];
    const head = ["method", ...names, "every seed", "validation at each rate", minus, "outcome"];
    const best = [...data.methods].sort((a, b) => (data.lower ? a.mean - b.mean : b.mean - a.mean));
    return table(head, best.map(line), best.indexOf(method));
  }

  // ---- actions and dragging
  const actions = {
    rival: (rival) => p.set(rival === now.method.label ? { rival, method: now.rival.label } : { rival }), // or swap the two
    flip: () => p.set({ margin: now.data.margins[flips(now)] }),
    dance() {
      const traits = { view: now.view, method: now.method.label, rival: now.rival.label };
      p.ask("dance", { do: "dance", rows: ui.rows, traits });
    },
    run: () => p.ask("live", { do: "run", traits: p.values(["methods", "seeds", "rates", "steps"]) }),
  };

  /** Select the clicked method, if any; return whether there was one. */
  function select(entry) {
    if (entry) p.set({ method: entry.label });
    return Boolean(entry);
  }

  p.drag((_, x, y) => {
    const entry = seeds.at(x, y);
    return entry !== now.rival && select(entry);
  });
  p.drag((_, x, y) => {
    const { margins, scale } = now.data;
    const move = (px) => p.set({ margin: margins[nearest(margins, forest.value(px) / scale)] });
    return forest.edge(x) ? { move } : select(forest.row(y));
  }, "forest");

  return { actions, draw };
}

export default panel({ title: "Methods compared", css: COMPARE_CSS, traits: TRAITS, body: BODY, start });
