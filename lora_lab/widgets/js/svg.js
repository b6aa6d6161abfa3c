// SVG as strings, in real pixels: shapes, scales, axes and direct labels.
// The class of a shape gives its role: "frozen", "train" or "other"; see panel.css.

import { count, inFull, sum } from "./format.js";

const px = (number) => Number(number.toFixed(2));

export function rect(x, y, width, height, kind, more = "") {
  const [w, h] = [px(Math.max(0, width)), px(Math.max(0, height))];
  return `<rect x="${px(x)}" y="${px(y)}" width="${w}" height="${h}" class="${kind}" ${more}/>`;
}

/** A rectangle whose one-pixel outline lies inside it. */
export const outline = (x, y, width, height, kind, more = "") =>
  rect(x + 0.5, y + 0.5, width - 1, height - 1, kind, more);

export const circle = (x, y, radius, kind, more = "") =>
  `<circle cx="${px(x)}" cy="${px(y)}" r="${px(radius)}" class="${kind}" ${more}/>`;

export const line = (x1, y1, x2, y2, kind) => `<path d="M${px(x1)} ${px(y1)}L${px(x2)} ${px(y2)}" class="${kind}"/>`;

/** A line through points [[x, y], ...]; empty if there are fewer than two. */
export function curve(points, kind) {
  if (points.length < 2) return "";
  return `<path d="M${points.map(([x, y]) => `${px(x)} ${px(y)}`).join("L")}" class="${kind}"/>`;
}

export const text = (x, y, words, kind = "", more = "") =>
  `<text x="${px(x)}" y="${px(y)}" class="${kind}" ${more}>${words}</text>`;

export const group = (parts, more = "") => `<g ${more}>${parts.join("")}</g>`;

/** The mark of a collapsed run. */
export function cross(x, y, size, kind = "ink") {
  const s = size / 2;
  return `<path d="M${px(x - s)} ${px(y - s)}l${size} ${size}m0 ${-size}l${-size} ${size}" class="stroke ${kind}"/>`;
}

/** The fill of an untried cell: define it once, then use fill="url(#id)". */
export function hatch(id) {
  return `<pattern id="${id}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
    <path d="M0 0V6" class="rule" stroke-width="2"/></pattern>`;
}

/** A linear scale: value -> pixel. */
export const linear = ([low, high], [from, to]) => (value) => from + ((value - low) / (high - low)) * (to - from);

/** A logarithmic scale: value -> pixel. */
export function log([low, high], [from, to]) {
  const scale = linear([Math.log(low), Math.log(high)], [from, to]);
  return (value) => scale(Math.log(value));
}

/** About `many` round numbers on a linear scale, in steps of 1, 2 or 5 times a power of ten. */
export function ticks([low, high], many = 5) {
  const rough = (high - low) / many;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((times) => times * unit >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

/** Ticks and their labels along the bottom; the outer labels stay within [left, right]. */
export function axisBottom(scale, values, y, format, [left, right] = [-Infinity, Infinity]) {
  const tick = (value) => {
    const x = scale(value);
    const anchor = x < left + 10 ? "" : x > right - 10 ? "end" : "mid";
    return line(x, y, x, y + 4, "rule") + text(x, y + 16, format(value), `tick ${anchor}`);
  };
  return values.map(tick).join("");
}

/** Horizontal lines with their labels on the left. */
export function axisLeft(scale, values, [left, right], format) {
  const tick = (value, y) => line(left, y, right, y, "rule") + text(left - 6, y + 4, format(value), "tick end");
  return values.map((value) => tick(value, scale(value))).join("");
}

/** Move heights at least `apart` from each other, keeping their order; those below the bottom are pushed back up. */
export function spread(heights, apart, [top, bottom] = [-Infinity, Infinity]) {
  const placed = heights.map(() => 0);
  const order = heights.map((_, i) => i).sort((a, b) => heights[a] - heights[b]);
  order.reduce((last, i) => (placed[i] = Math.max(heights[i], last)) + apart, top);
  order.reduceRight((last, i) => (placed[i] = Math.min(placed[i], last)) - apart, bottom);
  return placed;
}

/** For each mark, the number of earlier marks in the same column. */
export function piled(columns) {
  const piles = {};
  return columns.map((column) => (piles[column] = (piles[column] ?? -1) + 1));
}

/** Labels [{ y, words, kind }] at the right ends of their lines, moved apart so that none overlap. */
export function directLabels(x, labels, apart = 15) {
  const heights = spread(labels.map(({ y }) => y), apart);
  return labels.map(({ words, kind }, i) => text(x, heights[i] + 4, words, kind)).join("");
}

/** The mean of curves over each point and `reach` points on both sides; null where no curve has a value. */
function smoothed(curves, reach) {
  const longest = Math.max(0, ...curves.map((curve) => curve.length));
  return Array.from({ length: longest }, (_, i) => {
    const near = curves.flatMap((curve) => curve.slice(Math.max(0, i - reach), i + reach + 1));
    const losses = near.filter((loss) => loss !== null); // null: before a restart
    return losses.length ? sum(losses) / losses.length : null;
  });
}

/** Losses over the steps: pale lines for runs, their mean on top, and a line at the loss `mark`, labeled `name`. */
export function lossChart([left, right, top, bottom], runs, { steps, every, range, reach, mark, name, live }) {
  const [x, y] = [linear([0, steps], [left, right]), linear(range, [bottom, top])];
  const point = (loss, i) => (loss === null ? [] : [[x(Math.min(steps, (i + 0.5) * every)), Math.max(top, y(loss))]]);
  const mean = smoothed(runs, reach).flatMap(point);
  const parts = [axisLeft(y, ticks(range, 4), [left, right], inFull)];
  parts.push(axisBottom(x, ticks([0, steps], 4), bottom, count, [left, right]));
  if (mark) parts.push(line(left, y(mark), right, y(mark), "edge"));
  parts.push(...runs.map((losses) => curve(losses.flatMap(point), "stroke train faint")), curve(mean, "stroke train"));
  if (live && mean.length) parts.push(circle(...mean.at(-1), 4, "train"));
  if (mark) parts.push(text(right, y(mark) - 5, name, "tick end halo"));
  return parts.join("");
}
