// The playground's map: a row for each rank or alpha, a column for each rate, and the line that was predicted.

import { clamp } from "./format.js";
import { circle, cross, curve, group, hatch, outline, rect, text } from "./svg.js";

const [LEFT, TOP, GAP] = [46, 24, 2];
const APART = 46; // pixels between two names at the axis

/** What a cell is colored: more of the blue for a better mean. The best tenths of the range get most of the ink. */
export function shade(share, dark) {
  const ink = dark ? 8 + 88 * share ** 1.6 : 5 + 70 * share ** 1.6;
  return { fill: `color-mix(in srgb, var(--train) ${ink.toFixed(0)}%, var(--paper))`, over: dark && ink > 62 ? "on" : "ink" };
}

/** A rate as people write it. */
export function rateName(rate, digits = 3) {
  const short = Number(rate.toPrecision(digits));
  return short < 1e-4 ? short.toExponential() : String(short);
}

/** `map` is { rows: [{ value, cells }], rates, ... }; see `read` in sweep_panel.js. Gives { svg, height, place }. */
export function drawMap(width, map) {
  const { rows, rates, chosen, line } = map;
  const w = (width - LEFT - 2) / rates.length;
  const h = clamp(330 / rows.length, 36, 66);
  const bottom = TOP + rows.length * h;
  const x = (column) => LEFT + column * w;
  const y = (row) => TOP + (rows.length - 1 - row) * h;
  const parts = [hatch("untried")];
  parts.push(text(LEFT - 10, 13, map.down, "soft end"));
  const words = []; // over the line
  rows.forEach(({ value, cells }, row) => {
    parts.push(text(LEFT - 10, y(row) + h / 2 + 4, value, "end"));
    cells.forEach((cell, column) => {
      const [box, own] = drawCell(x(column), y(row), w, h, cell, map);
      parts.push(box);
      words.push(own);
    });
  });
  const every = Math.ceil(APART / w);
  rates.forEach((rate, column) => {
    if ((column - chosen.column) % every) return;
    const own = column === chosen.column ? "mid strong" : "tick mid";
    parts.push(text(x(column) + w / 2, bottom + 16, rateName(column === chosen.column ? chosen.lr : rate, 2), own));
  });
  parts.push(text(LEFT + (width - LEFT) / 2, bottom + 34, `learning rate, ${map.at}`, "soft mid"));
  if (line) parts.push(drawLine(line, rows, x, y, w, h, [LEFT, TOP, width - LEFT - 2, bottom - TOP]));
  parts.push(...words);
  parts.push(outline(x(chosen.column), y(chosen.row), w, h, "chosen", 'rx="5"'));
  const place = (px, py) => ({
    column: clamp(Math.floor((px - LEFT) / w), 0, rates.length - 1),
    row: clamp(rows.length - 1 - Math.floor((py - TOP) / h), 0, rows.length - 1),
    inside: px > LEFT && py > TOP && py < bottom,
  });
  return { svg: parts.join(""), height: bottom + 40, place };
}

/** [box, what stands on it]. */
function drawCell(x, y, w, h, cell, map) {
  const [left, top, wide, high] = [x + GAP / 2, y + GAP / 2, w - GAP, h - GAP];
  const [cx, cy] = [x + w / 2, y + h / 2];
  const box = (kind, more = "") => rect(left, top, wide, high, kind, `rx="3" ${more}`);
  if (cell.training !== undefined) {
    const done = high * cell.training;
    const words = w > 30 ? text(cx, cy + 4, `${Math.round(100 * cell.training)}%`, "mid small") : "";
    const filled = rect(left, top + high - done, wide, done, "train pale");
    return [box("frost") + filled + outline(left, top, wide, high, "at-work", 'rx="3"'), words];
  }
  if (!cell.runs) {
    const base = box("untried", 'fill="url(#untried)"');
    if (!cell.picked) return [base, ""];
    const rim = outline(left + 1, top + 1, wide - 2, high - 2, "picked", 'rx="3"');
    return [base + rim, text(cx, cy + 4, w > 30 ? "run" : "+", "mid train strong halo")];
  }
  const dead = cell.runs.filter((run) => run.state === "collapsed" || run.state === "failed").length;
  const { fill, over } = shade(cell.share, map.dark);
  const colored = box("", `style="fill: ${fill}"`);
  const dots = w >= 34 && h >= 46;
  if (dead === cell.runs.length && !(dots && cell.mean !== null)) return [colored, cross(cx, cy, Math.min(14, 0.5 * wide), "soft")];
  const parts = [];
  const words = w >= 34 ? cell.mean.toFixed(1) : w >= 19 ? cell.mean.toFixed(0) : "";
  const kind = `mid over ${over}${w < 34 ? " small" : ""}${cell.best ? " strong" : ""}`;
  parts.push(text(cx, dots ? cy + 1 : cy + 4, words, kind, `style="stroke: ${fill}"`)); // the line passes behind it
  if (dots) parts.push(drawDots(cx, cy + 14, Math.min(6, (w - 8) / cell.runs.length), cell.runs, over));
  else if (dead) parts.push(cross(left + wide - 6, top + 6, 6, over));
  if (cell.best && dots && w >= 34) parts.push(text(cx, top + 13, "best", `mid tiny ${over}`));
  if (cell.top && map.line && !(cell.best && w < 60)) parts.push(`<path d="M${(left + 3).toFixed(1)} ${(top + 8).toFixed(1)}l5 -5l5 5l-5 5z" class="${over}"/>`);
  return [colored, parts.join("")];
}

/** A dot for each run, a cross for one that collapsed. */
function drawDots(cx, y, apart, runs, over) {
  const from = cx - (apart * (runs.length - 1)) / 2;
  const r = Math.min(1.9, apart / 2.6);
  const one = (run, i) =>
    run.state === "collapsed" || run.state === "failed"
      ? cross(from + i * apart, y, 2.6 * r, over)
      : circle(from + i * apart, y, r, over);
  return group(runs.map(one), 'class="seeds"');
}

/** The rates at which rate * y^k is constant, through the middles of the rows and half a row beyond. */
function drawLine({ at, k, wide, name }, rows, x, y, w, h, [left, top, width, height]) {
  const column = (octave) => x(at - (k / wide) * octave) + w / 2;
  const octaves = rows.map((row) => Math.log2(row.number));
  const points = octaves.map((octave, row) => [column(octave), y(row) + h / 2]);
  const beyond = (from, next) => [from[0] + (from[0] - next[0]) / 2, from[1] + (from[1] - next[1]) / 2];
  const all = [beyond(points[0], points[1]), ...points, beyond(points.at(-1), points.at(-2))];
  const end = clamp(all.at(-1)[0], left + 80, left + width - 80);
  const clip = `<clipPath id="map"><rect x="${left}" y="${top}" width="${width}" height="${height}"/></clipPath>`;
  return clip + group([curve(all, "under"), curve(all, "predicted iso")], 'clip-path="url(#map)"') + text(end, 13, name, "strong mid");
}
