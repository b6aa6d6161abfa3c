// One claim: sliders and menus for its premises, the resulting verdict, and the evidence as marks on an axis.
// Python has judged every combination of values; this file only looks up verdicts.

import CLAIM_CSS from "./claim_panel.css";
import { button, drawn, folded, menu, nearest, slider, table } from "./controls.js";
import { about, clamp, escape, plural } from "./format.js";
import { panel } from "./panel.js";
import { axisBottom, circle, cross, line, linear, log, piled, rect, text, ticks } from "./svg.js";

const TRAITS = { cards: {}, claim: "", at: [] };
const MARKS = { true: "✓", false: "✗", depends: "◐", undecided: "?" };
const SIGNS = { 1: "●", 0: "×", [-1]: "○" };
const VERBS = { 1: "holds", 0: "fails", [-1]: "is undecided" };
const [ROW, DOT, SIDE, TOP] = [44, 7, 10, 22]; // pixels
const LABELED = 8; // up to this many cases get a row each

const BODY = `<header><div class="title"></div></header>
${menu("claim", "claim")}
<div class="body">
  <div><p class="sub">Drag the line, or a slider, until the verdict changes.</p>${drawn()}<p class="key"></p><p class="about"></p></div>
  <div class="side">
    <p class="big"></p><p class="words"></p><p class="decide"></p>
    <div class="premises"></div>
    <p class="changed"></p><div class="row">${button("reset", "as claimed")}</div>
  </div>
</div>
${folded("all cases as a table")}
<details><summary>what the evidence doesn't show</summary><p class="limits"></p></details>`;

function start(p) {
  let now;

  function read() {
    const [cards, claim, at] = ["cards", "claim", "at"].map(p.get);
    const card = cards[claim];
    return { cards, claim, card, at: at.length === card.own.length ? at : card.own };
  }

  /** The outcome at these positions; the last premise varies fastest. */
  function outcomeAt(at) {
    const { card } = now;
    return card.outcomes[at.reduce((index, position, i) => index * card.premises[i].options.length + position, 0)];
  }

  function draw() {
    now = read();
    const { cards, claim, card, at } = now;
    const outcome = outcomeAt(at);
    const levels = [...new Set(outcome.cases.flatMap(([i]) => card.pool[i][1].match(/(?<=\()9[05]%(?=: )/) ?? []))].sort();
    const all = Object.entries(cards).map(([id, entry]) => [id, `${entry.number}. ${entry.statement}`]);
    p.choose("claim", all, claim);
    p.offer({ claim: all.length > 1 });
    p.fill({ ".premises": card.premises.map(control).join("") });
    card.premises.forEach(({ number, options }, i) => {
      if (number) p.slide(`p${i}`, { most: options.length - 1, value: at[i], words: escape(options[at[i]]) });
      else p.choose(`p${i}`, options.map((words, position) => [position, words]), at[i]);
    });
    drawCases(outcome);
    const changed = card.premises.flatMap(({ means, options }, i) =>
      at[i] === card.own[i] ? [] : [`${means}: ${options[card.own[i]]} → ${options[at[i]]}`]);
    const counts = [1, 0, -1].map((verdict) => [VERBS[verdict], outcome.cases.filter(([, holds]) => holds === verdict).length]);
    const tally = counts.filter(([, times]) => times).map(([verb, times]) => `${verb} in ${times}`).join(", ");
    const words = `The claim ${tally} of ${plural(outcome.cases.length, "case")}.`;
    p.button("reset", { off: !changed.length });
    p.fill({
      ".title": `“${escape(card.statement)}”<span class="gloss">${escape(card.said_by)}. ${linked(card.source)}</span>`,
      ".big": `<b>${MARKS[outcome.word]} ${outcome.word}</b> <span>${escape(outcome.on)}</span>`, ".words": words,
      ".key": `● holds, × fails, ○ is undecided.${levels.length ? ` A line is a ${levels.join(" or ")} interval${levels.length > 1 ? "; the table says which" : ""}.` : ""}`,
      ".changed": changed.length ? `Compared with the claim as stated: ${escape(changed.join("; "))}.` : "",
      ".about": `<b>Right if:</b> ${escape(card.prediction)}`, ".limits": escape(card.limits),
      ".decide": outcome.tell ? `<b>What would decide it:</b> ${escape(outcome.tell)}.` : "",
    });
    p.numbers(() => table(["case", "the claim", "found"], outcome.cases.map(([index, holds]) =>
      [escape(card.pool[index][0]), VERBS[holds], escape(card.pool[index][1])])));
    return `${outcome.word} ${escape(outcome.on)}. ${words} ${escape(changed.join("; "))}`;
  }

  const control = ({ number, means }, i) => (number ? slider : menu)(`p${i}`, escape(means), "train");
  const linked = (source) => escape(source).replace(/https?:\/\/[^\s,;)]+/, (url) => `<a href="${url}">${url}</a>`);

  function scale() {
    const { card } = now;
    const [low, high] = card.domain;
    const pad = 0.06 * (high - low || 1);
    const wider = card.log ? [low / 1.3, 1.3 * high] : [low - pad, high + pad];
    return { x: (card.log ? log : linear)(wider, [SIDE, p.width() - SIDE]), wider };
  }

  /** Round values for the axis; on a logarithmic one, 1 and 3 times powers of ten. */
  function marks([low, high]) {
    if (!now.card.log) return ticks([low, high], p.width() > 500 ? 7 : 4);
    const powers = Array.from({ length: 16 }, (_, i) => 10 ** (i - 7));
    const fine = powers.flatMap((power) => [power, 3 * power]).filter((value) => value >= low && value <= high);
    return fine.length > 6 ? powers.filter((value) => value >= low && value <= high) : fine;
  }

  const short = (value) => (value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(0) : about(value)).replace("-", "−");

  function drawCases(outcome) {
    const { card } = now;
    const { x, wider } = scale();
    const cases = outcome.cases.map(([index, holds]) => ({ where: card.pool[index][0], span: card.pool[index][2], holds }));
    const labeled = cases.length <= LABELED;
    const piles = piled(cases.map(({ span }) => Math.round(x(span[0]) / (2 * DOT)))); // so that no mark covers another
    const tallest = Math.max(...piles);
    const heights = cases.map((_, i) => (labeled ? TOP + 34 + i * ROW : TOP + 14 + (tallest - piles[i]) * (2 * DOT + 2)));
    const bottom = Math.max(...heights) + 16;
    const held = card.handle < 0 ? -1 : outcome.limits.length - 1; // the limit that a drag moves
    const place = (i) => clamp(Math.min(x(outcome.limits[i]), i < held ? place(held) - 26 : Infinity), 20, p.width() - 20); // the label's position
    const parts = outcome.limits.map((limit, i) =>
      line(x(limit), TOP - 4, x(limit), bottom, "stroke thin predicted ink") +
      text(place(i), 12, i === held ? `◂ ${short(limit)} ▸` : short(limit), `strong ${i < held ? "end" : "mid"}`) +
      (i === held ? rect(x(limit) - 14, 0, 28, bottom, "touch handle") : ""));
    cases.forEach((item, i) => {
      const [y, value] = [heights[i], item.span.length === 3 ? item.span[1] : item.span[0]];
      const label = item.where.replace(/^\w+ /, "") + (value === undefined ? `: ${VERBS[item.holds]}` : "");
      if (labeled) parts.push(line(0, y + 12, p.width(), y + 12, "rule"), text(0, y - 12, `${SIGNS[item.holds]} ${escape(label)}`, "halo"));
      if (value === undefined) return;
      if (item.span.length === 3) parts.push(line(x(item.span[0]), y, x(item.span[2]), y, "stroke thin train"));
      parts.push(item.holds ? circle(x(value), y, DOT, item.holds > 0 ? "train" : "train no") : cross(x(value), y, 2 * DOT));
    });
    parts.push(axisBottom(x, marks(wider), bottom, short, [0, p.width()]));
    parts.push(text(p.width(), bottom + 32, escape(card.axis), "small end"));
    const alt = cases.map((item) => `${item.where}: ${VERBS[item.holds]}`).join("; ");
    const lines = outcome.limits.map(short).join(" and ");
    p.picture({ svg: parts.join(""), height: bottom + 38 }, `${card.axis}, with a line at ${lines}. ${alt}`);
  }

  const move = (i, position) => p.set({ claim: now.claim, at: now.at.with(i, position) });
  const actions = {
    claim: (claim) => p.set({ claim, at: now.cards[claim].own }),
    reset: () => p.set({ at: now.card.own }),
  };
  for (let i = 0; i < 9; i++) actions[`p${i}`] = (position) => move(i, Number(position));

  p.drag((target) => {
    const i = now.card.handle;
    if (i < 0 || !target.classList.contains("handle")) return false;
    const { x } = scale();
    const places = now.card.premises[i].options.map((_, position) =>
      x(outcomeAt(now.at.with(i, position)).limits.at(-1)));
    return { move: (at) => move(i, nearest(places, at)) };
  });
  return { actions, draw };
}

export default panel({ title: "A claim and its premises", css: CLAIM_CSS, traits: TRAITS, body: BODY, start });
