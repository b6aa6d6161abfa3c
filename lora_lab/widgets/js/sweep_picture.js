// The playground's pictures and words: a map with a row for each rank or alpha, a column for each rate, and the predicted
// line; for the chosen cell, every seed's result, its loss curves, and a sentence about them.

import { letter } from "./controls.js";
import { about, clamp, count, decimal, extent, inFull, plural } from "./format.js";
import {
  axisBottom, circle, cross, curve, group, hatch, line, linear, outline, piled, rect, text, ticks,
} from "./svg.js";

const [LEFT, TOP, GAP] = [46, 24, 2];
const APART = 52; // pixels between two labels on the axis

export const isDead = (run) => run.state === "collapsed" || run.state === "failed";

/** A learning rate in its usual notation. */
export function rateName(rate, digits = 3) {
  const short = Number(rate.toPrecision(digits));
  return short < 1e-4 ? short.toExponential() : String(short);
}

/** `map` is { rows: [{ value, cells }], rates, ... }; see `draw` in sweep_panel.js. Returns { svg, height, place, dots }. */
export function drawMap(width, map) {
  const { rows, rates, chosen, line } = map;
  const w = (width - LEFT - 2) / rates.length;
  const h = clamp(330 / rows.length, 36, 66);
  const bottom = TOP + rows.length * h;
  const dots = w >= 34 && h >= 46; // room for a dot for each run
  const x = (column) => LEFT + column * w;
  const y = (row) => TOP + (rows.length - 1 - row) * h;
  const [down, across] = map.names;
  const parts = [hatch("untried"), text(LEFT - 10, 13, down, "soft end")];
  const words = []; // drawn over the line
  rows.forEach(({ value, cells }, row) => {
    parts.push(text(LEFT - 10, y(row) + h / 2 + 4, value, "end"));
    cells.forEach((cell, column) => {
      const [box, label] = drawCell(x(column), y(row), w, h, cell, { ...map, dots });
      parts.push(box);
      words.push(label);
    });
  });
  const every = Math.ceil(APART / w);
  rates.forEach((rate, column) => {
    if ((column - chosen.column) % every) return;
    const kind = column === chosen.column ? "mid strong" : "tick mid";
    parts.push(text(x(column) + w / 2, bottom + 16, rateName(column === chosen.column ? chosen.lr : rate, 2), kind));
  });
  parts.push(text(LEFT + (width - LEFT) / 2, bottom + 34, `learning rate, ${across}`, "soft mid"));
  if (line) parts.push(drawLine(line, rows, x, y, w, h, [LEFT, TOP, width - LEFT - 2, bottom - TOP]));
  parts.push(...words, outline(x(chosen.column), y(chosen.row), w, h, "chosen", 'rx="5"'));
  const place = (px, py) => ({
    column: clamp(Math.floor((px - LEFT) / w), 0, rates.length - 1),
    row: clamp(rows.length - 1 - Math.floor((py - TOP) / h), 0, rows.length - 1),
    inside: px > LEFT && py > TOP && py < bottom,
  });
  return { svg: parts.join(""), height: bottom + 40, place, dots };
}

/** [box, label]. */
function drawCell(x, y, w, h, cell, { dark, dots, line }) {
  const [left, top, width, height] = [x + GAP / 2, y + GAP / 2, w - GAP, h - GAP];
  const [cx, cy] = [x + w / 2, y + h / 2];
  const box = (kind, more = "") => rect(left, top, width, height, kind, `rx="3" ${more}`);
  if (cell.training !== undefined) {
    const done = height * cell.training;
    const words = w > 30 ? text(cx, cy + 4, `${Math.round(100 * cell.training)}%`, "mid small") : "";
    const filled = rect(left, top + height - done, width, done, "train pale");
    return [box("frost") + filled + outline(left, top, width, height, "at-work", 'rx="3"'), words];
  }
  if (!cell.runs) {
    const base = box("untried", 'fill="url(#untried)"');
    if (!cell.picked) return [base, ""];
    const rim = outline(left + 1, top + 1, width - 2, height - 2, "picked", 'rx="3"');
    return [base + rim, text(cx, cy + 4, w > 30 ? "run" : "+", "mid train strong halo")];
  }
  const dead = cell.runs.filter(isDead).length;
  const ink = (dark ? 8 : 5) + (dark ? 88 : 70) * cell.share ** 1.6; // most of the contrast near the best means
  const [fill, over] = [`color-mix(in srgb, var(--train) ${ink.toFixed(0)}%, var(--paper))`, !dark ? "ink" : ink > 65 ? "black" : "white"];
  const colored = box("", `style="fill: ${fill}"`);
  if (dead === cell.runs.length && !(dots && cell.mean !== null)) {
    return [colored, cross(cx, cy, Math.min(14, 0.5 * width), "soft")];
  }
  const words = w >= 34 ? cell.mean.toFixed(1) : w >= 19 ? cell.mean.toFixed(0) : "";
  const kind = `mid over ${over}${w < 34 ? " small" : ""}${cell.best ? " strong" : ""}`;
  const parts = [text(cx, dots ? cy + 1 : cy + 4, words, kind, `style="stroke: ${fill}"`)]; // covers the line behind it
  if (dots) parts.push(drawDots(cx, cy + 14, Math.min(6, (w - 8) / cell.runs.length), cell.runs, over));
  else if (dead) parts.push(cross(left + width - 6, top + 6, 6, over));
  if (cell.best && dots && w >= 34) parts.push(text(cx, top + 13, "best", `mid tiny ${over}`));
  if (cell.top && line && !(cell.best && w < 60)) {
    parts.push(`<path d="M${left + 3} ${top + 8}l5 -5l5 5l-5 5z" class="${over}"/>`);
  }
  return [colored, parts.join("")];
}

/** A dot for each run, or a cross if it collapsed. */
function drawDots(cx, y, apart, runs, over) {
  const from = cx - (apart * (runs.length - 1)) / 2;
  const r = Math.min(1.9, apart / 2.6);
  const mark = (run, i) => (isDead(run) ? cross(from + i * apart, y, 2.6 * r, over) : circle(from + i * apart, y, r, over));
  return group(runs.map(mark));
}

/** The predicted line: the rates at which rate * y^k is constant, drawn through the middles of the rows. */
function drawLine({ at, k, wide, name }, rows, x, y, w, h, [left, top, width, height]) {
  const column = (octave) => x(at - (k / wide) * octave) + w / 2;
  const path = rows.map(({ number }, row) => [column(Math.log2(number)), y(row) + h / 2]);
  const end = clamp(path.at(-1)[0], left + 80, left + width - 80);
  const clip = `<clipPath id="map"><rect x="${left}" y="${top}" width="${width}" height="${height}"/></clipPath>`;
  const lines = group([curve(path, "under"), curve(path, "predicted iso")], 'clip-path="url(#map)"');
  return clip + lines + text(end, 13, name, "strong mid");
}

/** A dot for each run, on the scale of all runs. Their mean is below; the best cell's mean is a line. */
export function drawResults(width, cell, best, range) {
  const [left, right, top, bottom] = [8, width - 8, 20, 74];
  const x = linear(range, [left, right]);
  const runs = (cell?.runs ?? []).filter((run) => run.value !== null);
  const piles = piled(runs.map((run) => Math.round(x(run.value) / 8))); // equal values are stacked
  const dots = runs.map((run, i) => {
    const y = 52 - 10 * Math.min(piles[i], 3);
    return isDead(run) ? cross(x(run.value), y, 8) : circle(x(run.value), y, 4, "train");
  });
  const parts = [];
  if (best) {
    const bx = x(best.mean);
    const name = text(clamp(bx, 46, width - 46), 11, `best cell ${best.mean.toFixed(1)}`, "tick mid");
    parts.push(line(bx, top - 4, bx, bottom, "ray"), name);
  }
  parts.push(line(left, bottom, right, bottom, "rule"), axisBottom(x, ticks(range), bottom, inFull, [left, right]));
  if (cell && cell.mean !== null) parts.push(line(x(cell.mean), 59, x(cell.mean), 69, "stroke train"));
  return { svg: parts.join("") + group(dots), height: bottom + 20 };
}

/** A dot for each guess, equal guesses stacked, and the measured value as a line. */
export function drawGuesses(width, guesses, measured) {
  const values = guesses.map(([, value]) => value).concat(measured ?? []);
  const [low, high] = values.length ? extent(values) : [0, 100];
  const range = [low - 0.1 * (high - low || 10), high + 0.1 * (high - low || 10)];
  const x = linear(range, [8, width - 8]);
  const piles = piled(guesses.map(([, value]) => Math.round(x(value) / 11)));
  const bottom = 29 + 11 * Math.max(2, ...piles);
  const dots = guesses.map(([, value], i) => circle(x(value), bottom - 8 - 11 * piles[i], 5, "frozen"));
  const result = measured === null ? "" : line(x(measured), 2, x(measured), bottom, "stroke train");
  const axis = line(8, bottom, width - 8, bottom, "rule") + axisBottom(x, ticks(range), bottom, inFull, [8, width - 8]);
  return { svg: group(dots) + result + axis, height: bottom + 20 };
}

/** A difference: in points for metrics between 0 and 1, otherwise in the metric's own unit. */
export const points = (value, unit) => `${decimal(value)}${unit ? " points" : ""}`;

/** [headline, sentence] for the chosen cell. */
export function describeCell({ cell, chosen, best, live, broken, data, seeds }) {
  const setting = `rate ${rateName(chosen.lr)}, rank ${chosen.rank}, ${letter("α")} ${about(chosen.alpha)}
    (${letter("α/r")}\u00a0=\u00a0${about(chosen.alpha / chosen.rank)})`;
  if (live) {
    const step = Math.max(...live.map(({ length }) => length)) * data.every;
    const words = step ? `step ${count(Math.min(step, data.steps))} of ${count(data.steps)}` : "about to start";
    const big = `<b>${broken ? "interrupted" : "training"}</b> <span>${words}</span>`;
    return [big, `${plural(live.length, "seed")} at ${setting}.`];
  }
  if (!cell) {
    const train = seeds && `, then train it: ${plural(seeds.length, "seed")} of ${count(data.steps)} steps`;
    return ["<b>not tried</b>", `No run at ${setting} yet. Guess the result from its neighbors${train || ""}.`];
  }
  const n = cell.runs.length;
  const runs = plural(n, "run");
  if (cell.mean === null) return ["<b>failed</b>", `${runs} at ${setting}: none finished. The rate is too high.`];
  const [failed, flat, unclear] = [isDead, (run) => run.state === "flat", (run) => run.state === "unlearned"].map((test) => cell.runs.filter(test).length);
  const big = `<b>${cell.mean.toFixed(1)}${data.unit}</b> <span>validation ${data.metric}</span>`;
  const words = [`${n > 1 ? `Mean of ${runs}` : "One run"} at ${setting}.`];
  const share = (number) => (number < n ? `${number} of ${n}` : n > 1 ? "All" : "It");
  if (failed) {
    words.push(`<strong>${share(failed)} collapsed</strong>: at this high rate, the validation loss fell by less than 0.01.`);
  } else if (flat + unclear) {
    words.push(`<strong>${share(flat + unclear)} learned nothing yet</strong>: the rate is too low${flat ? "" : ", or too high,"} for ${count(data.steps)} steps.`);
  }
  if (cell === best) words.push("This is the best cell of this map.");
  else if (best && failed < n) words.push(behind(cell, best, data));
  return [big, words.join(" ")];
}

function behind({ mean }, best, { cells, unit, up }) {
  const gap = up ? best.mean - mean : mean - best.mean;
  const many = cells.filter((cell) => cell.targets === best.targets && cell.mean !== null).length;
  if (!gap) return "Its mean equals that of the best cell.";
  const rival = gap < 0 ? "ahead of the best cell with enough seeds" : "behind the best cell";
  const lucky = gap < 0 ? "" : ` (the best of ${count(many)} cells: part of its lead is luck)`;
  return `It is ${points(Math.abs(gap), unit)} ${rival}${lucky}.`;
}
