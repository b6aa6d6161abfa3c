// Methods compared: seeds and costs above, differences from a rival against a margin below. Python made every test; see
// experiments/margins.py for what it sends. Here outcomes are looked up and drawn.

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
  u: "undecided", "-": "not tested",
};
const DANCE = 4000; // milliseconds
const STEPS = [20, 50, 100, 200, 400, 800];
const ROWS = [50, 100, 200, 500, 1000, 2000]; // of a study
const upTo = (most) => Array.from({ length: most }, (_, i) => i + 1);

const BODY = `<header><div class="title"></div>
  ${segments("view", "whose comparison", [["stored", "the reference"], ["mine", "yours"]])}
  ${segments("axis", "what stands across")}</header>
<fieldset class="ways" data-for="ways"><legend>What each method adds (blue) to a layer: from below, tokens, q k v, output,
  MLP; on top the head. Click the <b class="other">rival</b> that all others are compared with.</legend>
  <div class="cards"></div></fieldset>
<div class="body tall" data-for="body">
  <div>${drawn()}<p class="key"></p><div data-for="forest">${drawn("forest")}
    <p class="key">Dot: the mean difference. Thick: 90% interval, for equivalence. Thin: 95% interval, for a difference. Drag the edges of the band.</p>
  </div></div>
  <div class="side">
    <div class="controls">${menu("method", "method")}${slider("margin", "margin", "ink")}
      <div class="row">${button("flip", "where the word changes")}</div></div>
    <p class="big"></p><p class="words"></p><p class="holm"></p>
    <table class="facts"></table>
  </div>
  <div data-for="dance" class="dance"><p class="question">Would another study say the same?</p>
    <div data-for="draws">${slider("rows", "sentences per study", "ink")}
      <div class="row">${button("dance", "draw 100 studies")}</div></div>
    <div data-for="studies">${drawn("studies")}${slider("shown", "studies", "ink")}</div>
    <p class="misses"></p></div>
</div>
<div data-for="here" class="here"><p class="question">Compare on this machine</p>
  ${switches("methods", '<span class="spoken">methods to compare</span>')}
  <div class="plan">${slider("seeds", "seeds", "ink")}${slider("rates", "rates to try", "ink")}${slider("steps", "steps", "ink")}
  </div>
  <div class="row">${button("run", "", "first")}${button("halt", "Stop")}</div>
  <progress max="1" value="0" aria-label="methods compared"></progress><p class="doing"></p><p class="kernel"></p></div>
<p class="about"></p>${folded("all methods as a table")}`;

const there = (data) => Boolean(data?.methods?.length);

/** [name, text of a method] for all that is known of it. */
const columns = ({ metric, unit }) => [
  [`test ${metric}${unit && ` (${unit})`}`, ({ mean, low, high }) =>
    decimal(mean) + (low === undefined ? "" : ` ± ${decimal((high - low) / 2)}`)],
  ["trained numbers", (one) => count(one.trained)],
  ["file", (one) => (one.adapter_bytes ? bytes(one.adapter_bytes) : "–")],
  ["memory of a step", (one) => (one.bytes ? binary(one.bytes) : "–")],
  ["seconds of a run", (one) => (one.seconds ? about(one.seconds) : "–")],
  ["tokens added", (one) => (one.added_tokens ? count(one.added_tokens) : "–")],
  ["learning rate", (one) => (one.lr ? `${about(one.lr)}${one.edge ? " (edge)" : ""}` : "–")],
];

function start(p) {
  const ui = p.keep({ rows: 200, shown: 100, seen: p.get("dance").number });
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
    const rows = data.methods.flatMap((one) => {
      const entry = data.against[rival.label]?.[one.label];
      if (!entry) return [];
      const within = entry.within.filter(([from]) => from <= at).at(-1)?.slice(1); // the 90% interval
      return [{ one, entry, letter: entry.outcomes[at], within, word: OUTCOMES[entry.outcomes[at]] }];
    });
    rows.sort((a, b) => b.entry.difference - a.entry.difference);
    const own = rows.find(({ one }) => one === method);
    const dance = p.get("dance");
    const danced = dance.method === method.label && dance.rival === rival.label && dance.view === view ? dance : undefined;
    const known = (name) => data.methods.filter(AXES[name].of).length >= Math.min(2, data.methods.length);
    const axes = Object.keys(AXES).filter(known);
    const axis = axes.includes(p.get("axis")) ? p.get("axis") : axes[0];
    const say = (value) => decimal(data.scale * value, data.scale === 1 ? 3 : 1);
    const size = `${about(Number((data.scale * margin).toPrecision(3)))} ${data.gap}`;
    return { view, data, rival, method, at, margin, rows, own, danced, axes, axis, say, size };
  }

  // ---- words
  function title({ method, rival, own, size }) {
    if (method === rival) return `${escape(rival.name)}, and nothing to compare it with yet`;
    const share = method.trained / rival.trained;
    const trains = share < 1 ? `${percent(share)} of` : `${about(share)} times`;
    const found = own && own.letter !== "-" ? `; at a margin of ${size} it is ${own.word}` : "";
    return `${escape(method.name)} trains ${trains} the numbers of ${escape(rival.name)}${found}`;
  }

  /** [headline, sentence] of the pair. */
  function tell({ method, rival, own, at, margin, say, size, data }) {
    if (method === rival) return ["<b>one method</b>", "Two are needed for a comparison."];
    const both = `${escape(method.name)} and ${escape(rival.name)}`;
    if (!own) return ["<b>not tested</b>", `${both} were not tested against each other.`];
    const { entry, letter, within } = own;
    const ends = `${say(entry.low)} to ${say(entry.high)}`;
    const wide = within ? `The 90% interval, ${say(within[0])} to ${say(within[1])},` : "The 90% interval";
    const beyond = within && (within[1] < -margin || within[0] > margin);
    const matters = beyond ? "is beyond the margin as a whole, so it matters" : `reaches beyond ±${size}, so it may matter`;
    const differs = `The 95% interval, ${ends}, leaves out 0: a real difference.`;
    const real = `${differs} ${within ? `${wide} ${matters}.` : ""}`;
    const small = `${differs} ${wide} lies inside ±${size}: it is ${letter === "W" ? "worse" : "better"} by less than you said
      would matter.`;
    const words = {
      e: `${wide} lies inside ±${size}: whatever the difference is, it is too small to matter here.`,
      u: `The 95% interval, ${ends}, holds 0, so neither is shown to be better. ${wide} leaves the margin, so they are not
        shown to be equivalent. ${tellMore(entry, at)}`,
      "-": `The 95% interval is ${ends}. This comparison kept no answers, so only its own margin of
        ${about(data.scale * data.margin)} ${data.gap} was tested.`,
      w: real, b: real, W: small, B: small,
    };
    const [word, but] = OUTCOMES[letter].split(", ");
    const by = `<span>${entry.difference > 0 ? "+" : ""}${say(entry.difference)} ${data.gap}</span>`;
    return [`<b>${word}</b> ${but ? `<strong>${but}</strong> ` : ""}${by}`, words[letter]];
  }

  /** What would decide an undecided pair. */
  function tellMore(entry, at) {
    const found = entry.more[[...entry.outcomes.slice(0, at)].filter((one) => one === "u").length];
    if (!found) return "";
    const [more, rows] = found;
    const ways = [more && plural(more, "more seed"), rows && plural(rows, "more test sentence")].filter(Boolean);
    if (!ways.length) return "It takes far more seeds and test sentences to decide.";
    return `About ${ways.join(" or ")} would probably decide.`;
  }

  function tellHolm({ own, rows, at }) {
    const together = own?.entry.together[at];
    if (!own || together === own.letter || together === "-") return "";
    return `Asked as one of ${rows.length} questions at once (Holm’s correction), it is <b>${OUTCOMES[together]}</b>.`;
  }

  function facts({ method, rival, data }) {
    const rows = columns(data).map(([name, of]) => [name, of(method), of(rival)]);
    return table(["", escape(method.name), escape(rival.name)], rows.filter(([, a, b]) => a !== "–" || b !== "–"));
  }

  // ---- drawing
  function draw() {
    now = read();
    const { data, view, own, danced, rows, axis, say, rival, size, margin } = now;
    const dances = Boolean(danced || (p.kernel && own && !own.entry.outcomes.includes("-")));
    const [some, both] = [Boolean(data), there(p.get("stored")) && there(p.get("mine"))];
    p.offer({
      here: p.kernel, draws: p.kernel, view: both, dance: dances, studies: Boolean(danced), axis: some, ways: some, body: some,
      forest: Boolean(rows?.length),
    });
    p.one("details").hidden = !data;
    const doing = drawHere(p.live());
    if (!data) {
      p.fill({ ".title": "Nothing is compared yet", ".about": "" });
      return `Nothing is compared yet. ${doing}`;
    }
    drawControls(now);
    seeds = drawSeeds(p.width(), now);
    const told = data.methods.map((one) => `${one.name} ${decimal(one.mean)}${data.unit}`).join(", ");
    p.picture(seeds, `Test ${data.metric} of every seed over ${AXES[axis].words}. Means: ${told}.`);
    const range = span([...rows.map(({ entry }) => [0, entry.low, entry.high]), ...(danced?.studies ?? [])], data.scale);
    const { scale, gap } = data;
    forest = drawForest(p.width("forest"), { ...now, range, margin: scale * margin, scale, gap });
    const pairs = rows.map(({ one, entry, word }) => `${one.name} ${say(entry.difference)}, ${word}`).join("; ");
    p.picture(forest, `Differences from ${rival.name} in ${gap} at a margin of ${size}: ${pairs}.`, "forest");
    const [big, words] = tell(now);
    const failed = data.failed.map(([label, why]) => ` ${label} has no result: ${why}.`).join("");
    p.fill({
      ".title": title(now),
      ".key": `Test ${data.metric}${data.unit && `, ${data.unit}`}${data.lower ? ", lower is better" : ""}. Each dot is one run;
        runs of a method differ only in their random seed. Beside them their mean and its 95% interval; a cross at the bottom is
        a run far below.`,
      ".big": big, ".words": words, ".holm": tellHolm(now), ".facts": facts(now), ".about": escape(data.about + failed),
    });
    if (dances) drawDance(range);
    p.numbers(methodTable);
    return `${title(now)}. ${big}. ${words} ${doing}`;
  }

  function drawControls({ data, method, rival, margin, axis, axes, view, size }) {
    p.check("view", [view]);
    p.check("axis", [axis], axes.map((name) => [name, AXES[name].name]));
    const ways = data.methods.map((one) => {
      const [name, trains] = [escape(one.name), escape(one.adds)];
      const input = `<input type="radio" name="rival" value="${escape(one.label)}" aria-label="${name}: trains ${trains}">`;
      return `<label>${input}${one.icon}<span>${name}</span><small>${thousands(one.trained)} train</small></label>`;
    });
    p.fill({ ".cards": ways.join("") });
    p.check("rival", [rival.label]);
    p.card.querySelectorAll(".cards label").forEach((label, i) => {
      label.classList.toggle("chosen-way", data.methods[i] === method);
    });
    p.choose("method", data.methods.filter((one) => one !== rival).map((one) => [one.label, one.name]), method.label);
    p.button("flip", { off: flips(now) < 0 });
    p.slide("margin", { values: data.margins, value: margin, words: `±${size}` });
  }

  /** The next margin, or the first, at which the pair has another outcome. */
  function flips({ own, at }) {
    const letters = own ? [...own.entry.outcomes] : [];
    const other = (letter) => letter !== letters[at] && letter !== "-";
    const next = letters.findIndex((letter, i) => i > at && other(letter));
    return next < 0 ? letters.findIndex(other) : next;
  }

  function drawDance(range) {
    const { danced, data, at, margin, own } = now;
    const sizes = ROWS.filter((rows) => rows <= Math.max(data.rows, ROWS[0]));
    p.keep({ rows: sizes[nearest(sizes, ui.rows)] });
    p.slide("rows", { values: sizes, value: ui.rows, words: count(ui.rows) });
    p.button("dance", { off: p.gone() || p.waits() });
    if (!danced) return p.fill({ ".misses": "Each study draws its sentences anew, from those that were tested." });
    if (danced.number !== ui.seen) {
      p.keep({ seen: danced.number, shown: 0 });
      setTimeout(() => p.play(DANCE, (t) => p.keep({ shown: Math.round(danced.studies.length * t) })));
    }
    const shown = clamp(ui.shown, 0, danced.studies.length);
    p.slide("shown", { most: danced.studies.length, value: shown, words: count(shown), spoken: `${shown} studies` });
    const { scale } = data;
    const studies = drawStudies(p.width("studies"), { ...danced, range, margin: scale * margin, scale, shown });
    const missed = danced.studies.slice(0, shown).filter(([, low, high]) => danced.truth < low || high < danced.truth).length;
    const letters = danced.outcomes.slice(0, shown).map((one) => one[at]);
    const found = Object.entries(OUTCOMES).map(([one, word]) => [letters.filter((letter) => letter === one).length, word]);
    const each = found.filter(([times]) => times).sort(([a], [b]) => b - a).map(([times, word]) => `${times} ${word}`);
    const words = `${missed} of ${shown} intervals miss the truth, ${now.say(danced.truth)}; of 95% intervals about 5 in 100
      may. With ${count(danced.rows)} sentences a study finds: ${each.join(", ") || "nothing yet"}. All of them: ${own.word}.`;
    p.picture(studies, words, "studies");
    return p.fill({ ".misses": words });
  }

  function drawHere(live) {
    const { busy, halts } = live;
    const chosen = p.get("methods");
    p.fill({ ".doing": doing(live) });
    p.check("methods", chosen, p.get("choices").map((one) => [one, escape(one)]));
    const steps = [...new Set([...STEPS, p.get("steps")])].sort((a, b) => a - b);
    for (const [name, values] of Object.entries({ seeds: upTo(20), rates: upTo(10), steps })) {
      p.slide(name, { values, value: p.get(name), words: count(p.get(name)) });
    }
    for (const input of p.card.querySelectorAll(".here input")) input.disabled = busy;
    const off = !chosen.length || p.gone() || p.waits();
    p.button("run", { words: `Start: ${plural(chosen.length, "method")}`, hidden: busy, off });
    p.button("halt", { hidden: !busy, off: halts });
    p.progress(busy ? live.done / live.of || 0 : undefined);
    return p.kernel ? doing(live) : "";
  }

  function doing(live) {
    const done = live.of ? `${live.done} of ${live.of} methods` : "";
    if (trouble(live)) return trouble(live);
    if (live.busy) return `${escape(live.state)}, ${done}. ${escape(live.words ?? "")}`;
    if (live.state === "stopped") return `Stopped: ${done}. What has finished is kept, and Start continues with the rest.`;
    if (live.state === "done") return `Done: ${done}.`;
    return "Each method is tuned on validation rows and then run with every seed. Runs in the store are not trained again.";
  }

  function methodTable() {
    const { data, rows, rival, say, method } = now;
    const known = columns(data);
    const line = (one) => {
      const pair = rows.find((other) => other.one === one);
      const tried = one.tried.map(([rate, value]) => `${about(rate)}: ${decimal(value)}`).join(", ") || "–";
      const [difference, low, high] = pair ? [pair.entry.difference, pair.entry.low, pair.entry.high].map(say) : [];
      return [
        escape(one.name), ...known.map(([, of]) => of(one)), one.each.map((value) => decimal(value)).join(" "), tried,
        pair ? `${difference} (${low} to ${high})` : "–", pair?.word ?? "–",
      ];
    };
    const [names, less] = [known.map(([name]) => name), `less ${escape(rival.name)}, ${data.gap}`];
    const head = ["method", ...names, "every seed", "validation at each rate", less, "outcome"];
    const best = [...data.methods].sort((a, b) => (data.lower ? a.mean - b.mean : b.mean - a.mean));
    return table(head, best.map(line), best.indexOf(method));
  }

  // ---- what controls and pulling do
  const actions = {
    rival: (rival) => p.set(rival === now.method.label ? { rival, method: now.rival.label } : { rival }), // or change places
    flip: () => p.set({ margin: now.data.margins[flips(now)] }),
    dance() {
      const traits = { view: now.view, method: now.method.label, rival: now.rival.label };
      p.ask("dance", { do: "dance", rows: ui.rows, traits });
    },
    run() {
      const traits = Object.fromEntries(["methods", "seeds", "rates", "steps"].map((name) => [name, p.get(name)]));
      p.ask("live", { do: "run", traits });
    },
  };

  /** Look at a method; true where one was pressed. */
  function look(found) {
    if (found) p.set({ method: found.label });
    return Boolean(found);
  }

  p.drag((_, x, y) => {
    const found = seeds.at(x, y);
    return found !== now.rival && look(found);
  });
  p.drag((_, x, y) => {
    const { margins, scale } = now.data;
    const move = (px) => p.set({ margin: margins[nearest(margins, forest.value(px) / scale)] });
    return forest.edge(x) ? { move } : look(forest.row(y));
  }, "forest");

  return { actions, draw };
}

export default panel({ title: "Methods compared", css: COMPARE_CSS, traits: TRAITS, body: BODY, start });
