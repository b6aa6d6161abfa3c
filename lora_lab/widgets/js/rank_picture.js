// The pictures of the rank panel: rank-one pieces of a matrix, unpacked, added up and painted, and two charts against
// the rank. Dark is negative, light is positive.

import { count } from "./format.js";
import { axisBottom, axisLeft, circle, curve, directLabels, line, linear, ticks } from "./svg.js";

const INKS = {
  // negative, zero, positive; the hue distinguishes the matrices
  train: [[3, 38, 60], [79, 155, 201], [246, 251, 255]],
  other: [[61, 26, 0], [208, 138, 76], [255, 250, 244]],
  frozen: [[24, 24, 24], [140, 140, 140], [252, 252, 252]],
};
const LEVELS = 255;

const inks = Object.fromEntries(
  Object.entries(INKS).map(([kind, [low, zero, high]]) => {
    const table = new Uint32Array(LEVELS);
    for (let level = 0; level < LEVELS; level++) {
      const t = (2 * level) / (LEVELS - 1) - 1;
      const [r, g, b] = zero.map((value, i) => Math.round(value + Math.abs(t) * ((t < 0 ? low : high)[i] - value)));
      table[level] = (255 << 24) | (b << 16) | (g << 8) | r; // the byte order of canvas pixels
    }
    return [kind, table];
  }),
);

/** Unpack a matrix from Python: columns and rows as bytes, and room for the sum of the first `rank` pieces. */
export function unpacked({ rows, columns, pieces, scales }) {
  const bytes = Int8Array.from(atob(pieces), (letter) => letter.charCodeAt(0));
  const piece = (i) => {
    const from = i * (rows + columns);
    return { column: bytes.subarray(from, from + rows), row: bytes.subarray(from + rows, from + rows + columns), scale: scales[i] };
  };
  return { rows, columns, maxRank: scales.length, piece, sum: new Float32Array(rows * columns), rank: 0 };
}

/** Add a piece, multiplied by `times`, to `sum`, of shape (rows, columns). */
function add({ rows, columns }, { column, row, scale }, times, sum) {
  const across = Float32Array.from(row);
  for (let y = 0, at = 0; y < rows; y++) {
    const weight = times * scale * column[y];
    for (let x = 0; x < columns; x++, at++) sum[at] += weight * across[x];
  }
}

/** Update the sum to a given rank, from the current rank or from zero, whichever is closer. */
export function bring(matrix, rank) {
  if (rank < matrix.rank - rank) {
    matrix.sum.fill(0);
    matrix.rank = 0;
  }
  while (matrix.rank < rank) add(matrix, matrix.piece(matrix.rank++), 1, matrix.sum);
  while (matrix.rank > rank) add(matrix, matrix.piece(--matrix.rank), -1, matrix.sum);
}

/** The entries of one piece; or those of `onto` plus `times` the piece. */
export function withPiece(matrix, piece, times = 1, onto = new Float32Array(matrix.sum.length)) {
  const entries = onto.slice();
  add(matrix, piece, times, entries);
  return entries;
}

/** Paint a Float32Array of entries onto a canvas of rows by columns; entries of size `limit` get the strongest color. */
export function paint(canvas, rows, columns, kind, limit, entries) {
  if (canvas.width !== columns) canvas.width = columns;
  if (canvas.height !== rows) canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const table = inks[kind];
  const half = (LEVELS - 1) / 2;
  const steep = half / limit;
  for (let i = 0; i < pixels.length; i++) {
    const level = (half + 0.5 + steep * entries[i]) | 0;
    pixels[i] = table[level < 0 ? 0 : level >= LEVELS ? LEVELS - 1 : level];
  }
  context.putImageData(image, 0, 0);
}

const rms = (side) => Math.sqrt(side.reduce((sum, value) => sum + value * value, 0) / side.length);

/** The entry of a piece drawn in the strongest color: three times the root mean square, or 1 for a matrix of zeros. */
export const limitOf = ({ column, row, scale }) => 3 * scale * rms(column) * rms(row) || 1;

const RANKS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256];
const NAMES = 114; // room for the names of the lines, in pixels

/** Lines against the rank, up to `full`, each { kind, name, points, bold, dots, dash }; `ring` marks the value in the headline. */
export function drawRanks(width, { series, range, full, now, ring }) {
  const [left, right, top, bottom] = [38, width - NAMES, 8, 138];
  const along = linear([0, Math.log2(1 + full)], [left, right]);
  const x = (rank) => along(Math.log2(1 + Math.min(rank, full)));
  const y = linear(range, [bottom, top]);
  const marks = [...RANKS.filter((rank) => rank < full && x(full) - x(rank) > 32), full];
  const shown = marks.filter((rank, i) => i === 0 || i === marks.length - 1 || x(rank) - x(marks[i - 1]) > 15);
  const parts = [axisLeft(y, ticks(range, 4), [left, right], (value) => `${value}%`)];
  parts.push(axisBottom(x, shown, bottom, count), line(x(now), top, x(now), bottom, "ray"));
  for (const { kind, points, bold, dots, dash } of series) {
    const placed = points.map(([rank, value]) => [x(rank), y(value)]);
    parts.push(curve(placed, `stroke ${kind} ${bold ? "" : "thin"} ${dash ?? ""}`));
    if (dots) parts.push(...placed.map(([px, py]) => circle(px, py, bold ? 3.5 : 2, kind)));
  }
  if (ring) parts.push(circle(x(ring[0]), y(ring[1]), 7.5, `no ${ring[2]}`));
  const labels = series.map(({ kind, name, points, bold }) => ({
    y: y(points.at(-1)[1]), words: name, kind: `${kind} tick-name${bold ? " strong" : ""}`,
  }));
  parts.push(directLabels(right + 8, labels, 14));
  return { svg: parts.join(""), height: bottom + 20 };
}
