// One claim: sliders and menus for what it rests on, the word that follows, and the evidence as marks on an axis.
// Python has judged every combination of values; here they are only looked up.

import CLAIM_CSS from "./claim_panel.css";
import { button, drawn, folded, menu, nearest, slider, table } from "./controls.js";
import { about, clamp, escape, plural } from "./format.js";
import { panel } from "./panel.js";
import { axisBottom, circle, cross, line, linear, log, piled, rect, text, ticks } from "./svg.js";

const TRAITS = { cards: {}, claim: "", at: [] };
const MARKS = { true: "✓", false: "✗", depends: "◐", undecided: "?" };
const SIGNS = { 1: "●", 0: "×", [-1]: "○" };
const VERBS = { 1: "holds", 0: "fails", [-1]: "is open" };
const [ROW, DOT, SIDE, TOP] = [44, 7, 10, 22]; // pixels
const LABELLED = 8; // up to so many cases have a row each

const BODY = `<header><div class="title"></div></header>
${menu("claim", "claim")}
<div class="body">
  <div><p class="sub">Drag the line, or a slider, until the word changes.</p>${drawn()}<p class="key"></p><p class="about"></p></div>
  <div class="side">
    <p class="big"></p><p class="words"></p>
    <div class="premises"></div>
    <p class="changed"></p><div class="row">${button("reset", "as claimed")}</div>
  </div>
</div>
${folded("all cases as a table")}`;

function start(p) {
  let now;

  function read() {
    const [cards, claim, at] = ["cards", "claim", "at"].map(p.get);
    const card = cards[claim];
    return { cards, claim, card, at: at.length === card.own.length ? at : card.own };
  }

  /** The outcome at these positions: the last premise runs fastest. */
  function outcomeAt(at) {
    const { card } = now;
    return card.outcomes[at.reduce((place, one, i) => place * card.premises[i].options.length + one, 0)];
  }

  function draw() {
    now = read();
    const { cards, claim, card, at } = now;
    const outcome = outcomeAt(at);
    const all = Object.entries(cards).map(([id, one]) => [id, `${one.number}. ${one.statement}`]);
    p.choose("claim", all, claim);
    p.offer({ claim: all.length > 1 });
    p.fill({ ".premises": card.premises.map(control).join("") });
    card.premises.forEach((one, i) => {
      if (one.number) p.slide(`p${i}`, { most: one.options.length - 1, value: at[i], words: escape(one.options[at[i]]) });
      else p.choose(`p${i}`, one.options.map((words, place) => [place, words]), at[i]);
    });
    drawCases(outcome);
    const changed = card.premises.flatMap((one, i) =>
      at[i] === card.own[i] ? [] : [`${one.means}: ${one.options[card.own[i]]} → ${one.options[at[i]]}`]);
    const big = `<b>${MARKS[outcome.word]} ${outcome.word}</b> <span>${escape(outcome.on)}</span>`;
    const words = told(outcome);
    p.button("reset", { off: !changed.length });
    p.fill({
      ".title": `“${escape(card.statement)}”<span class="gloss">${escape(card.said_by)}. ${linked(card.source)}</span>`,
      ".big": big,
      ".words": words,
      ".key": "● holds, × fails, ○ is open.",
      ".changed": changed.length ? `You changed ${escape(changed.join("; "))}.` : "As claimed.",
      ".about": `<b>Right if:</b> ${escape(card.prediction)} <b>Not shown:</b> ${escape(card.limits)} ${decide(outcome)}`,
    });
    p.numbers(() => table(["case", "the claim", "found"], outcome.cases.map(([place, holds]) =>
      [escape(card.pool[place][0]), VERBS[holds], escape(card.pool[place][1])])));
    return `${outcome.word} ${outcome.on}. ${words} ${changed.join("; ")}`;
  }

  const decide = ({ tell }) => (tell ? `<b>Would decide it:</b> ${escape(tell)}.` : "");
  const control = (one, i) => (one.number ? slider : menu)(`p${i}`, escape(one.means), "train");
  const linked = (source) => escape(source).replace(/https?:\/\/[^\s,;)]+/, (to) => `<a href="${to}">${to}</a>`);

  /** How many cases hold, fail and are open. */
  function told(outcome) {
    const of = (wanted) => outcome.cases.filter(([, holds]) => holds === wanted).length;
    const counted = [1, 0, -1].filter(of).map((holds) => `${VERBS[holds]} in ${of(holds)}`).join(", ");
    return `It ${counted} of ${plural(outcome.cases.length, "case")}.`;
  }

  function scale() {
    const { card } = now;
    const [low, high] = card.domain;
    const room = 0.06 * (high - low || 1);
    const wider = card.log ? [low / 1.3, 1.3 * high] : [low - room, high + room];
    return { x: (card.log ? log : linear)(wider, [SIDE, p.width() - SIDE]), wider };
  }

  /** Round values on the axis; on a logarithmic one 1, 3 and 10. */
  function marks([low, high]) {
    if (!now.card.log) return ticks([low, high], p.width() > 500 ? 7 : 4);
    const powers = Array.from({ length: 16 }, (_, i) => 10 ** (i - 7));
    const fine = powers.flatMap((one) => [one, 3 * one]).filter((one) => one >= low && one <= high);
    return fine.length > 6 ? powers.filter((one) => one >= low && one <= high) : fine;
  }

  const short = (value) => (value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(0) : about(value));

  function drawCases(outcome) {
    const { card } = now;
    const { x, wider } = scale();
    const own = outcome.cases.map(([place, holds]) => ({ where: card.pool[place][0], span: card.pool[place][2], holds }));
    const rows = own.length <= LABELLED;
    const before = piled(own.map(({ span }) => Math.round(x(span[0]) / (2 * DOT)))); // of many, none covers another
    const most = Math.max(...before);
    const heights = own.map((_, i) => (rows ? TOP + 34 + i * ROW : TOP + 14 + (most - before[i]) * (2 * DOT + 2)));
    const bottom = Math.max(...heights) + 16;
    const parts = outcome.limits.map((limit) =>
      line(x(limit), TOP - 4, x(limit), bottom, "stroke thin predicted ink") +
      text(clamp(x(limit), 20, p.width() - 20), 12, `◂ ${short(limit)} ▸`, "strong mid") +
      rect(x(limit) - 14, 0, 28, bottom, "touch handle"));
    own.forEach((one, i) => {
      const [y, value] = [heights[i], one.span.length === 3 ? one.span[1] : one.span[0]];
      const label = one.where.replace(/^\w+ /, "") + (value === undefined ? `: ${VERBS[one.holds]}` : "");
      if (rows) parts.push(text(0, y - 12, `${SIGNS[one.holds]} ${escape(label)}`, "small halo"));
      if (value === undefined) return;
      if (one.span.length === 3) parts.push(line(x(one.span[0]), y, x(one.span[2]), y, "stroke thin train"));
      parts.push(one.holds ? circle(x(value), y, DOT, one.holds > 0 ? "train" : "train no") : cross(x(value), y, 2 * DOT));
    });
    parts.push(axisBottom(x, marks(wider), bottom, short, [0, p.width()]));
    parts.push(text(p.width(), bottom + 32, escape(card.axis), "small end"));
    const alt = own.map((one) => `${one.where}: ${VERBS[one.holds]}`).join("; ");
    const lines = outcome.limits.map(short).join(" and ");
    p.picture({ svg: parts.join(""), height: bottom + 38 }, `${card.axis}, the line at ${lines}. ${alt}`);
  }

  const move = (i, place) => p.set({ claim: now.claim, at: now.at.map((one, j) => (i === j ? place : one)) });
  const actions = {
    claim: (claim) => p.set({ claim, at: now.cards[claim].own }),
    reset: () => p.set({ at: now.card.own }),
  };
  for (let i = 0; i < 9; i++) actions[`p${i}`] = (place) => move(i, Number(place));

  p.drag((target) => {
    const i = now.card.handle;
    if (i < 0 || !target.classList.contains("handle")) return false;
    const { x } = scale();
    const places = now.card.premises[i].options.map((_, place) =>
      x(outcomeAt(now.at.map((one, j) => (i === j ? place : one))).limits.at(-1)));
    return { move: (at) => move(i, nearest(places, at)) };
  });
  return { actions, draw };
}

export default panel({ title: "A claim and its premises", css: CLAIM_CSS, traits: TRAITS, body: BODY, start });
