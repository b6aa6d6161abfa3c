// Pictures of a comparison: quality against cost; differences from the rival at a margin; resampled studies.

import { about, binary, clamp, count, escape, extent, inFull, sum } from "./format.js";
import { axisBottom, axisLeft, circle, cross, group, line, linear, log, rect, text, ticks } from "./svg.js";

const FAR = 12; // a run that is this many points below its method's best seed becomes a cross at the bottom
const LETTER = 6.3; // average width of a 12 px letter, in pixels
const [TOP, ROW] = [22, 38]; // pixels above the forest, and per pair in it

export const AXES = {
  trained: {
    name: "trained parameters", words: "trained parameters with head (log scale)", value: ({ trained }) => Math.max(1, trained),
    scale: log, format: thousands,
  },
  memory: {
    name: "memory", words: "peak memory of a training step", value: ({ bytes }) => bytes, scale: linear,
    format: (bytes) => (bytes ? binary(bytes) : 0),
  },
  time: { name: "time", words: "seconds of a run", value: ({ seconds }) => seconds, scale: linear, format: about },
};

export function thousands(number) {
  if (number >= 1e6) return `${about(number / 1e6)} M`;
  return number >= 1e4 ? `${about(number / 1e3)} k` : count(number);
}

/** A method's color. */
const color = ({ label }, { method, rival }) => (label === method.label ? "train" : label === rival?.label ? "other" : "frozen");

/** A dot per seed, the mean and its 95% interval. Returns { svg, height, at(x, y) }, which finds the method at a point. */
export function drawSeeds(width, { data, axis, method, rival }) {
  const { value: costOf, words, scale, format } = AXES[axis];
  const shown = data.methods.filter((entry) => costOf(entry));
  const [left, right, top, bottom] = [40, width - 14, 14, clamp(0.52 * width, 240, 330)];
  const far = data.unit && !data.lower ? FAR : Infinity;
  const near = (entry, value) => value > Math.max(...entry.each) - far;
  const [low, high] = extent(shown.flatMap((entry) => entry.each.filter((value) => near(entry, value))));
  const pad = 0.08 * (high - low || 10);
  const range = [low - pad, high + pad];
  const [cheapest, dearest] = extent(shown.map(costOf));
  const ends = scale === log ? [cheapest / 3, 3 * dearest] : [0, 1.12 * dearest];
  const [x, y] = [scale(ends, [left, right]), linear(range, [bottom, top])];
  const even = dearest < 1.1 * cheapest; // all cost about the same: they stand side by side
  const under = even && LETTER * Math.max(...shown.map(({ name }) => name.length)) < (2 * (right - left)) / shown.length;
  const marks = even ? [] : scale === log ? tens(ends, width - 60) : axis === "memory" ? quarters(ends) : ticks(ends);
  const parts = [axisLeft(y, ticks(range), [left, right], inFull), line(left, bottom, right, bottom, "rule")];
  parts.push(axisBottom(x, marks, bottom, format, [left, right]));
  parts.push(text((left + right) / 2, bottom + (under ? 48 : 34), even ? `all have about the same ${AXES[axis].name}` : words, "soft mid"));
  const [boxes, names] = [[], []];
  const layer = (entry) => ["frozen", "other", "train"].indexOf(color(entry, { method, rival }));
  for (const entry of [...shown].sort((a, b) => layer(a) - layer(b))) {
    const kind = color(entry, { method, rival });
    const cx = even ? left + ((shown.indexOf(entry) + 0.5) * (right - left)) / shown.length : x(costOf(entry));
    const within = (value) => clamp(y(value), top, bottom);
    const off = entry.each.filter((value) => !near(entry, value));
    const shapes = entry.each.filter((value) => near(entry, value)).map((value) => circle(cx, y(value), 4, `${kind} dot`));
    shapes.push(...off.map((_, i) => cross(cx + 9 * (i - (off.length - 1) / 2), bottom - 7, 7, kind)));
    const [mean, ...ends] = [entry.mean, entry.low ?? entry.mean, entry.high ?? entry.mean].map(within);
    shapes.push(line(cx + 9, ends[0], cx + 9, ends[1], `stroke ${kind}`), line(cx + 5, mean, cx + 13, mean, `stroke ${kind}`));
    parts.push(group([`<title>${escape(entry.name)}</title>`, ...shapes]));
    const [upper, lower] = extent(entry.each.map(within));
    boxes.push([cx - 5, upper - 5, cx + 14, lower + 5], [cx + 7, ends[1], cx + 11, ends[0]]);
    names.push({ entry, cx, mean, kind });
  }
  for (const { entry, cx, mean, kind } of names.reverse()) {
    const strong = kind !== "frozen";
    const row = shown.indexOf(entry) % 2; // of two rows of names below the picture
    if (under) parts.push(text(cx, bottom + 14 + 14 * row, escape(entry.name), `mid ${strong ? `strong ${kind}` : "soft"}`));
    if (under) continue;
    const wide = entry.name.length * LETTER * (strong ? 1.06 : 1);
    const box = place(wide, cx, mean, boxes, [left, right, top, bottom - 15], strong); // above the crosses
    if (!box) continue; // its name would cover other marks
    boxes.push(box, box, box); // counted three times, so that other names cover dots rather than this name
    parts.push(text(box[0], box[3] - 3, escape(entry.name), `halo ${strong ? `strong ${kind}` : "soft"}`));
  }
  const at = (px, py) => {
    const distances = names.map(({ cx, mean }) => Math.hypot(px - cx, 0.4 * (py - mean)));
    const smallest = Math.min(...distances);
    return smallest < 40 ? names[distances.indexOf(smallest)].entry : undefined;
  };
  return { svg: parts.join(""), height: bottom + (under ? 54 : 40), at };
}

/** A place near a mean where a name covers nothing, or little if it `must` be shown: [left, top, right, bottom]. */
function place(wide, cx, mean, boxes, [left, right, top, bottom], must) {
  const sides = [cx + 17, cx - 9 - wide, cx - wide / 2].map((side) => clamp(side, left, right + 12 - wide));
  const tops = [0, -16, 16, ...(must ? [-32, 32, -48, 48] : [])].map((shift) => clamp(mean + shift - 8, top - 8, bottom - 16));
  const spots = tops.flatMap((t) => sides.map((l) => [l, t, l + wide, t + 16]));
  const overlap = (from, to, from2, to2) => Math.max(0, Math.min(to, to2) - Math.max(from, from2));
  const costs = spots.map(([l, t, r, b], i) => i + sum(boxes.map(([l2, t2, r2, b2]) => overlap(l, r, l2, r2) * overlap(t, b, t2, b2))));
  const least = Math.min(...costs);
  return must || least < spots.length ? spots[costs.indexOf(least)] : undefined;
}

/** Powers of ten between the ends; every second or fifth one if there is little room. */
function tens([low, high], room) {
  return ticks([low, high].map(Math.log10), Math.floor(room / 52)).filter(Number.isInteger).map((power) => 10 ** power);
}

const quarters = ([, high]) => ticks([0, high / 2 ** 20], 4).map((mib) => mib * 2 ** 20);

/** The range [low, high] of the difference axis, in points, which the forest and the studies below it share. */
export function span(intervals, scale) {
  const [smallest, largest] = scale === 1 ? [0.03, Infinity] : [3, FAR];
  const lows = intervals.map(([, low]) => 1.05 * scale * low);
  const highs = intervals.map(([, , high]) => 1.05 * scale * high);
  return [Math.max(-largest, Math.min(-smallest, ...lows)), Math.min(largest, Math.max(smallest, ...highs))];
}

/** A pixel scale for differences, clipped to the picture. */
function scaled(width, range) {
  const [left, right] = [12, width - 12];
  const x = linear(range, [left, right]);
  return { left, right, x: (value) => clamp(x(value), left, right), range };
}

function band({ x, left, right }, margin, top, bottom) {
  const [from, to] = [x(-margin), x(margin)];
  const rim = (at) => line(at, top, at, bottom, "stroke ink thin") + rect(at - 3, top - 2, 6, 14, "ink", 'rx="3"') +
    rect(at - 10, top, 20, bottom - top, "touch grip");
  const rims = [from, to].filter((at) => at > left && at < right).map(rim);
  return rect(from, top, to - from, bottom - top, "wash") + rims.join("");
}

/** The differences of all methods from the rival, best first. Returns { svg, height, row(y), value(x), edge(x) }. */
export function drawForest(width, { rows, range, margin, size, method, rival, scale, gap }) {
  const frame = scaled(width, range);
  const { x, left, right } = frame;
  const bottom = TOP + ROW * rows.length + 4;
  const parts = [band(frame, margin, TOP - 6, bottom), line(x(0), TOP - 6, x(0), bottom, "edge")];
  parts.push(text(clamp(x(0), 60, width - 60), 10, `the margin: ±${size}`, "mid soft"));
  rows.forEach(({ entry, test, word, within }, i) => {
    const y = TOP + ROW * i + 27;
    const [low, middle, high] = [test.low, test.difference, test.high].map((value) => scale * value);
    const selected = entry.label === method.label;
    const kind = selected ? "train" : "frozen";
    if (selected) parts.push(rect(0, y - 26, width, ROW - 2, "chosen", 'rx="5"'));
    parts.push(text(left, y - 12, escape(entry.name), `halo${selected ? " strong train" : ""}`));
    parts.push(text(right, y - 12, word, `end halo${selected ? " strong" : " soft"}`));
    parts.push(line(x(low), y, x(high), y, `stroke ${kind} thin`));
    if (within) parts.push(line(x(scale * within[0]), y, x(scale * within[1]), y, `stroke ${kind} wide`));
    if (low < range[0]) parts.push(`<path d="M${left - 8} ${y}l8 -5v10z" class="${kind}"/>`); // it continues beyond the edge
    if (high > range[1]) parts.push(`<path d="M${right + 8} ${y}l-8 -5v10z" class="${kind}"/>`);
    const far = signed(Number(middle.toFixed(1)));
    if (middle <= range[0]) parts.push(text(Math.max(left + 8, x(high) + 6), y + 4, far, "tick halo"));
    else if (middle >= range[1]) parts.push(text(x(low) < left + 50 ? right - 8 : Math.min(right - 8, x(low) - 6), y + 4, far, "tick halo end"));
    else parts.push(circle(x(middle), y, 4.5, `${kind} rim`));
  });
  const marks = ticks(range, width > 500 ? 8 : 5);
  parts.push(line(left, bottom, right, bottom, "rule"), axisBottom(x, marks, bottom, signed, [left, right]));
  parts.push(text(left, bottom + 32, "← worse", "tick"), text(right, bottom + 32, "better →", "tick end"));
  const words = `${gap} from ${rival.name}`;
  const below = 114 + LETTER * words.length > right - left ? 16 : 0; // no room between the two
  parts.push(text((left + right) / 2, bottom + 32 + below, escape(words), "soft mid"));
  const edge = (px) => Math.min(Math.abs(px - x(margin)), Math.abs(px - x(-margin))) < 12;
  const value = (px) => Math.abs(range[0] + ((px - left) / (right - left)) * (range[1] - range[0]));
  return { svg: parts.join(""), height: bottom + 38 + below, edge, value, row: (py) => rows[Math.floor((py - TOP) / ROW)]?.entry };
}

const signed = (value) => (value > 0 ? `+${about(value)}` : about(value).replace("-", "−"));

/** The first studies, one line each: blue if the interval excludes 0, crossed if it misses the truth. */
export function drawStudies(width, { studies, truth, range, margin, scale, shown }) {
  const frame = scaled(width, range);
  const { x } = frame;
  const bottom = TOP + 3 * studies.length + 4;
  const parts = [band(frame, margin, TOP - 6, bottom), line(x(scale * truth), TOP - 10, x(scale * truth), bottom, "stroke train thin")];
  parts.push(text(clamp(x(scale * truth), 50, width - 50), 8, "the truth here", "mid tick"));
  parts.push(line(x(0), TOP - 6, x(0), bottom, "stroke ink thin"), text(x(0), bottom + 12, "0", "mid tick"));
  studies.slice(0, shown).forEach(([difference, low, high], i) => {
    const y = TOP + 3 * i + 2;
    const hit = low <= truth && truth <= high;
    parts.push(line(x(scale * low), y, x(scale * high), y, low > 0 || high < 0 ? "study found" : "study"));
    if (!hit) parts.push(cross(x(scale * difference), y, 7, "ink"));
  });
  return { svg: parts.join(""), height: bottom + 16 };
}
