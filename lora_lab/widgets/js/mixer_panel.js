// A mixture of two adapters: each text is a dot that moves with the probability of its right answer.

import MIXER_CSS from "./mixer_panel.css";
import { drawn, folded, nearest, slider, table } from "./controls.js";
import { about, count, escape, octets, percent, sum } from "./format.js";
import { panel } from "./panel.js";
import { axisBottom, axisLeft, circle, curve, line, linear, piled, text } from "./svg.js";

const TRAITS = { names: ["", ""], shares: [], sure: null, texts: [], share: 0.5 };
const [PITCH, COLUMN, QUOTED] = [6, 20, 3]; // pixels between dots, a pile's width; number of texts to quote
const ENDS = '<span class="ends" aria-hidden="true"><span class="first"></span><span class="second"></span></span>';
const shareRight = (row) => sum(Array.from(row, (byte) => byte > 127)) / row.length;
const BODY = `<header><div class="title"></div></header>
<div class="body tall">
  <div>${drawn()}<p class="key"></p></div>
  <div class="side">
    <div class="controls">${slider("share", "", "other", ENDS)}</div>
    <p class="big"></p><p class="words"></p><p class="sub">Right answers</p>${drawn("curve")}</div>
  <div><p class="question"></p><ul></ul></div></div>
${folded("every share in numbers")}`;

function start(p) {
  function read() {
    const [names, shares, texts] = [p.get("names").map(escape), p.get("shares"), p.get("texts")];
    const bytes = octets(p.get("sure"));
    const sure = shares.map((_, i) => bytes.subarray(i * texts.length, (i + 1) * texts.length));
    const at = nearest(shares, p.get("share"));
    const turned = sure.map((row, i) => [...texts.keys()].filter((n) => i && (row[n] > 127) !== (sure[i - 1][n] > 127)));
    return { names, shares, texts, sure, at, right: sure.map(shareRight), turned, share: shares[at] };
  }

  /** Piles of dots by the probability of the right answer: filled is right, hollow is wrong. */
  function drawDots(width, { sure, at }) {
    const columns = 2 * Math.floor(width / 2 / COLUMN), wide = width / columns, across = Math.floor(wide / PITCH);
    const column = (byte) => Math.floor((byte / 256) * columns);
    const piles = sure.map((row) => piled(Array.from(row, column)));
    const largest = Math.max(...piles.map((row) => Math.max(...row))) + 1; // the same at every share
    const bottom = 22 + PITCH * Math.ceil(largest / across);
    const dots = piles[at].map((n, i) => {
      const x = column(sure[at][i]) * wide + ((n % across) + 0.5) * (wide / across);
      return circle(x, bottom - 4 - PITCH * Math.floor(n / across), 2.3, sure[at][i] > 127 ? "train" : "other no");
    });
    const heads = [text(width / 2 - 8, 11, "← surely wrong", "other end"), text(width / 2 + 8, 11, "surely right →", "train")];
    const axis = [line(0, bottom, width, bottom, "rule"),
      axisBottom(linear([0, 1], [0, width]), [0, 0.25, 0.5, 0.75, 1], bottom, percent, [0, width])];
    return { svg: [line(width / 2, 0, width / 2, bottom, "edge"), ...heads, ...dots, ...axis].join(""), height: bottom + 22 };
  }

  /** Right answers against the share. */
  function drawCurve(width, { shares, right, at }) {
    const [left, end, top, bottom] = [38, width - 8, 8, 116];
    const [x, y] = [linear([0, 1], [left, end]), linear([0, 1], [bottom, top])];
    const points = right.map((value, i) => [x(shares[i]), y(value)]);
    const parts = [axisLeft(y, [0, 0.5, 1], [left, end], percent), axisBottom(x, [0, 0.5, 1], bottom, about, [left, end])];
    parts.push(curve(points, "stroke ink"), line(x(shares[at]), top, x(shares[at]), bottom, "ray"), circle(...points[at], 6, "ink"));
    return { svg: parts.join(""), height: bottom + 20 };
  }

  function draw() {
    const now = read();
    const { names, shares, texts, sure, at, right, turned, share } = now;
    const [first, second] = [about(1 - share), about(share)];
    const average = percent(sum(Array.from(sure[at], (byte) => Math.max(byte, 255 - byte))) / 255 / texts.length);
    const worst = [...texts.keys()].sort((a, b) => sure[0][a] - sure[0][b]);
    const word = turned[at].length === 1 ? "answer changes" : "answers change";
    const found = `the mixture is ${average} sure on average`;
    p.slide("share", { values: shares, value: share, words: second, spoken: `${first} ${names[0]}, ${second} ${names[1]}` });
    p.picture(drawDots(p.width(), now), `${texts.length} dots by the probability of the right answer; ${percent(right[at])} are right.`);
    p.picture(drawCurve(p.width("curve"), now), `Right answers from ${percent(right[0])} to ${percent(right.at(-1))}.`, "curve");
    p.fill({
      ".title": `From ${names[0]} (${percent(right[0])} right) to ${names[1]} (${percent(right.at(-1))} right)`,
      ".slider span": `share of ${names[1]}`, ".first": names[0], ".second": names[1],
      ".key": "Each dot is a text, placed by the rounded probability of the right answer: filled if right, empty if wrong.",
      ".big": `<b>${percent(right[at])}</b> <span>of ${count(texts.length)} right</span>`,
      ".words": `With ${first} × ${names[0]} + ${second} × ${names[1]}, ${found}.`,
      ".question": at ? `${count(turned[at].length)} ${word} between ${about(shares[at - 1])} and ${second}` : `The texts most surely wrong with only ${names[0]}`,
      ul: (at ? turned[at] : worst).slice(0, QUOTED).map((n) => `<li>${escape(texts[n])}</li>`).join(""),
    });
    const rows = shares.map((s, i) => [about(s), percent(right[i]), count(turned[i].length)]);
    p.numbers(() => table([`share of ${names[1]}`, "right", "answers that change"], rows, at));
    return `${percent(right[at])} right with ${first} ${names[0]} and ${second} ${names[1]}; ${found}.`;
  }
  return { actions: {}, draw };
}

export default panel({ title: "A mixture of two adapters", css: MIXER_CSS, traits: TRAITS, body: BODY, start });
