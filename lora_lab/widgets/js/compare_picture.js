// Pictures of a comparison: quality against what it costs; differences from the rival against a margin; resampled studies.

import { about, binary, clamp, count, escape } from "./format.js";
import { axisBottom, axisLeft, circle, cross, line, linear, log, rect, text, ticks } from "./svg.js";

const FAR = 12; // points below the best seed of a method: its mark stands at the bottom, not to flatten all others
const LETTER = 6.3; // pixels of a letter of 12 px
const ROW = 38; // pixels of a pair in the forest
const TOP = 22;
const INK = { method: "train", rival: "other", else: "frozen" };

export const AXES = {
  trained: { of: (one) => Math.max(1, one.trained), words: "numbers that train, head included (log scale)", scale: log, format: thousands },
  memory: { of: (one) => one.bytes, words: "peak memory of a training step", scale: linear, format: (bytes) => (bytes ? binary(bytes) : 0) },
  time: { of: (one) => one.seconds, words: "seconds of a run", scale: linear, format: about },
};

export function thousands(number) {
  if (number >= 1e6) return `${about(number / 1e6)} M`;
  return number >= 1e4 ? `${about(number / 1e3)} k` : count(number);
}

/** A method's place among the colors. */
const role = (one, { method, rival }) => (one.label === method.label ? "method" : one.label === rival?.label ? "rival" : "else");

/** Every seed a dot, the mean and its 95% interval beside them. Gives { svg, height, at(x, y) }: the method there. */
export function drawSeeds(width, { data, behind, axis, method, rival }) {
  const { of, words, scale, format } = AXES[axis];
  const shown = data.methods.filter((one) => of(one));
  const [left, right, top, bottom] = [40, width - 14, 14, clamp(0.52 * width, 240, 330)];
  const far = data.unit && !data.lower ? FAR : Infinity;
  const near = (one, value) => value > Math.max(...one.each) - far;
  const values = shown.flatMap((one) => one.each.filter((value) => near(one, value)));
  const pad = 0.08 * (Math.max(...values) - Math.min(...values) || 1);
  const y = linear([Math.min(...values) - pad, Math.max(...values) + pad], [bottom, top]);
  const costs = shown.map(of);
  const ends = scale === log ? powers(costs) : [0, 1.12 * Math.max(...costs)];
  const x = scale(ends, [left, right]);
  const marks = scale === log ? tens(ends, width - 60) : axis === "memory" ? quarters(ends) : ticks(ends, 5);
  const parts = [axisLeft(y, ticks([Math.min(...values) - pad, Math.max(...values) + pad], 5), [left, right], about)];
  parts.push(line(left, bottom, right, bottom, "rule"), axisBottom(x, marks, bottom, format, [left, right]));
  parts.push(text((left + right) / 2, bottom + 34, words, "soft mid"));
  const old = new Map((behind?.methods ?? []).map((one) => [one.label, one]));
  const boxes = [];
  const names = [];
  const order = [...shown].sort((a, b) => rank(a) - rank(b));
  function rank(one) {
    return ["else", "rival", "method"].indexOf(role(one, { method, rival }));
  }
  for (const one of order) {
    const kind = INK[role(one, { method, rival })];
    const cx = x(of(one));
    const earlier = old.get(one.label);
    if (earlier) parts.push(...earlier.each.map((value) => circle(cx, clamp(y(value), top, bottom), 3, "soft no"))); // the reference
    const off = one.each.filter((value) => !near(one, value));
    parts.push(...one.each.filter((value) => near(one, value)).map((value) => circle(cx, y(value), 4, `${kind} dot`)));
    parts.push(...off.map((_, i) => cross(cx + 9 * (i - (off.length - 1) / 2), bottom - 7, 7, kind)));
    const mean = clamp(y(one.mean), top, bottom);
    if (one.low !== undefined) parts.push(line(cx + 9, clamp(y(one.low), top, bottom), cx + 9, clamp(y(one.high), top, bottom), `stroke ${kind}`));
    parts.push(line(cx + 5, mean, cx + 13, mean, `stroke ${kind}`));
    const ys = one.each.map((value) => clamp(y(value), top, bottom));
    boxes.push([cx - 5, Math.min(...ys) - 5, cx + 14, Math.max(...ys) + 5]);
    names.push({ one, cx, mean, kind });
  }
  for (const { one, cx, mean, kind } of names.reverse()) {
    const strong = kind !== "frozen";
    const box = place(one.name.length * LETTER * (strong ? 1.06 : 1), cx, mean, boxes, [left, right, top, bottom]);
    boxes.push(box);
    parts.push(text(box[0], box[3] - 3, escape(one.name), `halo ${strong ? `strong ${kind}` : "soft"}`));
  }
  const at = (px, py) => {
    const close = names.map(({ one, cx, mean }) => [Math.hypot(px - cx, 0.4 * (py - mean)), one]).sort(([a], [b]) => a - b)[0];
    return close && close[0] < 40 ? close[1] : undefined;
  };
  return { svg: parts.join(""), height: bottom + 40, at };
}

/** Where a name covers least of what is drawn: [left, top, right, bottom]. */
function place(wide, cx, mean, boxes, [left, right, top, bottom]) {
  const spots = [];
  for (const dy of [0, -16, 16, -32, 32, -48, 48]) spots.push([cx + 17, mean + dy], [cx - 9 - wide, mean + dy], [cx - wide / 2, mean + dy]);
  const cost = ([l, m], i) => {
    const [r, t, b] = [l + wide, m - 8, m + 8];
    const over = boxes.reduce((sum, [l2, t2, r2, b2]) => sum + Math.max(0, Math.min(r, r2) - Math.max(l, l2)) * Math.max(0, Math.min(b, b2) - Math.max(t, t2)), 0);
    const out = Math.max(0, left - l) + Math.max(0, r - right - 12) + Math.max(0, top - 8 - t) + Math.max(0, b - bottom);
    return over + 40 * out + i;
  };
  const costs = spots.map(cost);
  const [l, m] = spots[costs.indexOf(Math.min(...costs))];
  return [l, m - 8, l + wide, m + 8];
}

const powers = (values) => [Math.min(...values) / 3, Math.max(...values) * 3];

/** Powers of ten between the ends, every second one where there is little room. */
function tens([low, high], room) {
  const first = Math.ceil(Math.log10(low));
  const all = Array.from({ length: Math.floor(Math.log10(high)) - first + 1 }, (_, i) => 10 ** (first + i));
  return room / all.length < 52 ? all.filter((_, i) => i % 2 === 0) : all;
}

const quarters = ([, high]) => ticks([0, high / 2 ** 20], 4).map((mib) => mib * 2 ** 20);

/** What the forest and the studies below it share: differences across, in points; [low, high] of what is drawn. */
export function span(intervals, scale) {
  const low = Math.min(-3, ...intervals.map(([, one]) => one * scale * 1.05));
  const high = Math.max(3, ...intervals.map(([, , one]) => one * scale * 1.05));
  return scale === 1 ? [Math.min(-0.03, low === -3 ? -0.03 : low), Math.max(0.03, high === 3 ? 0.03 : high)] : [Math.max(-FAR, low), Math.min(FAR, high)];
}

/** A pixel scale of differences, and the band between minus and plus the margin. */
function scaled(width, range) {
  const [left, right] = [12, width - 12];
  const x = linear(range, [left, right]);
  return { left, right, x: (value) => clamp(x(value), left, right), range };
}

function band({ x, left, right }, margin, top, bottom) {
  const [from, to] = [x(-margin), x(margin)];
  const rim = (at) => (at > left && at < right ? line(at, top, at, bottom, "stroke ink thin") + rect(at - 3, top - 2, 6, 14, "ink", 'rx="3"') + rect(at - 10, top, 20, bottom - top, "touch grip") : "");
  return rect(from, top, to - from, bottom - top, "wash") + rim(from) + rim(to);
}

/** The differences of all methods from the rival, best first. Gives { svg, height, row(y), value(x), edge(x) }. */
export function drawForest(width, { rows, range, margin, shownMargin, method, rival, scale, gap }) {
  const frame = scaled(width, range);
  const { x, left, right } = frame;
  const bottom = TOP + ROW * rows.length + 4;
  const parts = [band(frame, margin, TOP - 6, bottom), line(x(0), TOP - 6, x(0), bottom, "edge")];
  parts.push(text(clamp(x(0), 60, width - 60), 10, `the margin: ±${shownMargin}`, "mid soft"));
  rows.forEach(({ one, entry, word, within }, i) => {
    const y = TOP + ROW * i + 27;
    const kind = one.label === method.label ? "train" : "frozen";
    if (kind === "train") parts.push(rect(0, y - 26, width, ROW - 2, "chosen", 'rx="5"'));
    parts.push(text(left, y - 12, escape(one.name), `halo${kind === "train" ? " strong train" : ""}`));
    parts.push(text(right, y - 12, word, `end halo${kind === "train" ? " strong" : " soft"}`));
    parts.push(line(x(scale * entry.low), y, x(scale * entry.high), y, `stroke ${kind} thin`));
    if (within) parts.push(line(x(scale * within[0]), y, x(scale * within[1]), y, `stroke ${kind} wide`));
    parts.push(...[[entry.low, -1], [entry.high, 1]].map(([end, way]) => beyond(frame, scale * end, way, y, kind)));
    const middle = scale * entry.difference;
    if (middle > range[0] && middle < range[1]) parts.push(circle(x(middle), y, 4.5, `${kind} rim`));
    else parts.push(text(x(middle) + (middle < 0 ? 8 : -8), y + 4, signed(Number(middle.toFixed(1))), `tick halo${middle < 0 ? "" : " end"}`));
  });
  parts.push(line(left, bottom, right, bottom, "rule"), axisBottom(x, ticks(range, width > 500 ? 8 : 5), bottom, signed, [left, right]));
  parts.push(text(left, bottom + 32, "← worse", "tick"), text(right, bottom + 32, "better →", "tick end"));
  parts.push(text((left + right) / 2, bottom + 32, `${gap} from ${escape(rival.name)}`, "soft mid"));
  const edge = (px) => Math.min(Math.abs(px - x(margin)), Math.abs(px - x(-margin))) < 12;
  const value = (px) => Math.abs(range[0] + ((px - left) / (right - left)) * (range[1] - range[0]));
  return { svg: parts.join(""), height: bottom + 38, edge, value, row: (py) => rows[Math.floor((py - TOP) / ROW)]?.one };
}

/** An arrow where an interval goes on beyond the frame. */
function beyond({ left, right, range }, end, way, y, kind) {
  if (way < 0 ? end >= range[0] : end <= range[1]) return "";
  const tip = way < 0 ? left - 8 : right + 8;
  return `<path d="M${tip} ${y}l${-8 * way} -5v10z" class="${kind}"/>`;
}

function signed(value) {
  return value > 0 ? `+${about(value)}` : about(value).replace("-", "−");
}

/** The first studies, a line each: those that miss the truth are marked. */
export function drawStudies(width, { studies, truth, range, margin, scale, shown }) {
  const frame = scaled(width, range);
  const { x } = frame;
  const bottom = TOP + 3 * studies.length + 4;
  const parts = [band(frame, margin, TOP - 6, bottom), line(x(scale * truth), TOP - 10, x(scale * truth), bottom, "stroke train thin")];
  parts.push(text(clamp(x(scale * truth), 50, width - 50), 8, "the truth here", "mid tick"));
  studies.slice(0, shown).forEach(([difference, low, high], i) => {
    const y = TOP + 3 * i + 2;
    const hit = low <= truth && truth <= high;
    parts.push(line(x(scale * low), y, x(scale * high), y, hit ? "study" : "study miss"));
    if (!hit) parts.push(cross(x(scale * difference), y, 7, "ink"));
  });
  return { svg: parts.join(""), height: bottom + 2 };
}
