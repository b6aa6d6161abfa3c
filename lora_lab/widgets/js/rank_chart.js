// Two charts over the rank: right answers, and the energy that is kept. Rank 0 has a place on the axis, too.

import { count } from "./format.js";
import { axisBottom, axisLeft, circle, curve, directLabels, line, linear, ticks } from "./svg.js";

const RANKS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256];
const NAMES = 114; // pixels for the names of the lines

/**
 * Lines over the rank. series: { kind, name, points: [[rank, value], ...], bold, dots }; `full` is the last rank and `now`
 * the present one; `ring` marks the value that the headline says.
 */
export function drawRanks(width, { series, range, full, now, ring, unit = "%" }) {
  const [left, right, top, bottom] = [38, width - NAMES, 8, 138];
  const along = linear([0, Math.log2(1 + full)], [left, right]);
  const x = (rank) => along(Math.log2(1 + Math.min(rank, full)));
  const y = linear(range, [bottom, top]);
  const marks = [...RANKS.filter((rank) => rank < full && x(full) - x(rank) > 32), full];
  const shown = marks.filter((rank, i) => i === 0 || i === marks.length - 1 || x(rank) - x(marks[i - 1]) > 15);
  const parts = [axisLeft(y, ticks(range, 4), [left, right], (value) => `${value}${unit}`)];
  parts.push(axisBottom(x, shown, bottom, count), line(x(now), top, x(now), bottom, "ray"));
  for (const { kind, points, bold, dots } of series) {
    const placed = points.map(([rank, value]) => [x(rank), y(value)]);
    parts.push(curve(placed, `stroke ${kind} ${bold ? "" : "thin"}`));
    if (dots) parts.push(...placed.map(([px, py]) => circle(px, py, bold ? 3.5 : 2, kind)));
  }
  if (ring) parts.push(circle(x(ring[0]), y(ring[1]), 7.5, `no ${ring[2]}`));
  const labels = series.map(({ kind, name, points, bold }) => ({
    y: y(points.at(-1)[1]), words: name, kind: `${kind} tick-name${bold ? " strong" : ""}`,
  }));
  parts.push(directLabels(right + 8, labels, 14));
  return { svg: parts.join(""), height: bottom + 20 };
}
