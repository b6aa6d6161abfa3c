// What flows through a layer with LoRA, on a toy of 8 x 8 whose numbers can be seen.

import { letter, table } from "./controls.js";
import { about, clamp, count, decimal, tenth } from "./format.js";
import { sizes } from "./lora_size.js";
import { circle, group, line, outline, rect, text } from "./svg.js";
import { D, W, column, learned, product } from "./toy_layer.js";

const SUB = ["", "₁", "₂"];

/** The numbers of y's sum in tenths, as they are shown: base + detour = y. */
function shown({ base, detour }) {
  const parts = base.map((v, i) => [tenth(v), tenth(detour[i])]);
  return parts.map(([b, d]) => ({ base: b, detour: d, y: tenth(b + d) }));
}

/** A number as a square of that area: filled if it is positive, hollow if negative, a dot for zero. */
function square(x, y, cell, value, kind) {
  if (Math.abs(value) < 0.005) return circle(x + cell / 2, y + cell / 2, 1.5, kind);
  const side = clamp(0.86 * cell * Math.sqrt(Math.abs(value) / 1.2), 3, 0.94 * cell);
  const at = (cell - side) / 2;
  if (value > 0) return rect(x + at, y + at, side, side, kind, 'rx="1.5"');
  return rect(x + at + 0.8, y + at + 0.8, side - 1.6, side - 1.6, `${kind} no`, 'rx="1.5"');
}

/** A matrix of squares; the row `lit` shows its products with `by` in place of its numbers. */
function squares(x, y, cell, M, kind, lit = -1, by = []) {
  const one = (v, i, j) =>
    square(x + j * cell, y + i * cell, cell, i === lit ? v * by[j] : v, i === lit ? "ink" : kind);
  return M.map((row, i) => row.map((v, j) => one(v, i, j)).join("")).join("");
}

/** The same in a frame of cells. */
function grid(x, y, cell, M, kind, lit, by) {
  const [wide, high] = [M[0].length * cell, M.length * cell];
  const across = Array.from({ length: M.length + 1 }, (_, i) => `M${x} ${y + i * cell}h${wide}`);
  const down = Array.from({ length: M[0].length + 1 }, (_, j) => `M${x + j * cell} ${y}v${high}`);
  return `<path d="${across.join("")}${down.join("")}" class="cell"/>${squares(x, y, cell, M, kind, lit, by)}`;
}

/** Where everything stands, from the width there is and the rank. */
function layout(width, r) {
  const wide = width >= 480;
  const [left, gap, columns] = [30, wide ? 16 : 8, wide ? 3 : 1];
  const room = Math.min(width, 630);
  const cell = Math.floor(Math.min(32, (room - left - 2 * gap - columns * (wide ? 60 : 84)) / (D + r)));
  const numbers = cell >= 25; // there is room for numbers in the picture
  const up = 24; // half the height of x's bars
  const A = 2 * up + (numbers ? 28 : 12);
  const Wy = A + r * cell + gap;
  const B = left + D * cell + gap;
  const out = B + r * cell + gap;
  const broad = Math.min(100, (room - out) / columns);
  return { wide, left, gap, columns, room, cell, numbers, up, unit: up / 2.2, A, W: Wy, B, out, broad };
}

/** { svg, height, bars, small } of the forward pass; bars says where x's bars can be pulled. */
export function drawToy(width, toy) {
  const { A, B, scan, merged, kind, view, adapter, x } = toy;
  const r = A.length;
  const at = layout(width, r);
  const { left, gap, cell, numbers, up } = at;
  const row = Math.ceil(scan) - 1; // rows of A first, then those of W and B together
  const running = scan > 0 && scan < r + D;
  const lit = { A: running && row < r ? row : -1, W: running && row >= r ? row - r : -1 };
  const band = lit.A >= 0 ? at.A + lit.A * cell : at.W + lit.W * cell;
  const fuse = clamp((merged - 0.75) / 0.25);
  const gone = merged >= 1;
  const away = gone || adapter === 0;
  const parts = [];
  if (running) {
    const long = lit.A >= 0 ? D * cell + gap + (row + 1) * cell : at.room - left;
    parts.push(rect(left, band, long, cell, "wash", 'rx="4"'));
    parts.push(...x.map((_, j) => line(left + (j + 0.5) * cell, at.A - 4, left + (j + 0.5) * cell, band + cell / 2, "ray")));
  }
  parts.push(drawX(at, x));

  const BA = product(B, A);
  const merging = W.map((row, i) => row.map((v, j) => v + fuse * toy.scaling * BA[i][j]));
  const name = gone ? "W′" : "W";
  parts.push(text(left - 12, at.W + 4 * cell + 6, name, "m end"), grid(left, at.W, cell, merging, "frozen", lit.W, x));
  if (merged > 0 && fuse < 1) {
    const painted = clamp(merged / 0.7) * r;
    const delta = B.map((b) => A[0].map((_, j) => toy.scaling * A.reduce((sum, a, k) => sum + clamp(painted - k) * b[k] * a[j], 0)));
    parts.push(group([squares(left, at.W, cell, delta, kind)], `class="over" opacity="${0.9 * (1 - fuse)}"`));
  }
  if (away) {
    parts.push(outline(left, at.A, D * cell, r * cell, "slot"), outline(at.B, at.W, r * cell, D * cell, "slot"));
  } else {
    parts.push(drawAdapter(at, toy, lit, band, fuse));
  }
  parts.push(drawOut(at, toy, gone, away));
  const note = gone ? "an enlarged toy, 8 × 8; merged" : "an enlarged toy, 8 × 8; W is frozen";
  parts.push(text(left, at.W + D * cell + (at.wide ? 20 : 42), note, "soft"));
  if (at.wide) parts.push(drawKey(at, toy, gone, away));
  return { svg: parts.join(""), height: at.W + D * cell + (at.wide ? 30 : 50), bars: { up, unit: at.unit }, small: cell < 30 };
}

/** x as bars over the columns of A and W; each can be pulled. */
function drawX({ left, cell, up, unit, numbers }, x) {
  const parts = [text(left - 12, up + 6, "x", "m end"), line(left, up, left + D * cell, up, "rule")];
  ["drag", "the bars"].forEach((words, i) => parts.push(text(left + D * cell + 8, up - 3 + 13 * i, words, "soft small")));
  x.forEach((v, j) => {
    parts.push(rect(left + (j + 0.3) * cell, up - Math.max(0, v) * unit, 0.4 * cell, Math.abs(v) * unit, "ink"));
    if (numbers) parts.push(text(left + (j + 0.5) * cell, 2 * up + 16, decimal(v), "num mid soft halo"));
    parts.push(rect(left + j * cell, 0, cell, 2 * up, "touch bar", `data-bar="${j}"`));
  });
  return parts.join("");
}

/** A and B with the corner between them, where the r numbers of A x turn down into B. */
function drawAdapter(at, toy, lit, band, fuse) {
  const { left, cell, gap, numbers } = at;
  const { A, B, kind, merged, out, scan, next } = toy;
  const r = A.length;
  const sub = toy.view === "swap" ? SUB[toy.adapter] : "";
  const parts = [text(left - 12, at.A + (r * cell) / 2 + 6, `A${sub}`, `m end ${kind}`)];
  parts.push(text(at.B + (r * cell) / 2, at.W + D * cell + 22, `B${sub}`, `m mid ${kind}`));
  const piece = merged > 0 && merged < 0.7 ? Math.floor((merged / 0.7) * r) : -1;
  if (piece >= 0) {
    parts.push(rect(left, at.A + piece * cell, D * cell, cell, "wash"));
    parts.push(rect(at.B + piece * cell, at.W, cell, D * cell, "wash"));
  }
  for (let k = 0; k < r; k++) {
    const [x, y] = [at.B + (k + 0.5) * cell, at.A + (k + 0.5) * cell];
    const half = 0.44 * cell;
    const end = lit.W >= 0 ? band + cell / 2 : at.W - 3;
    const head = lit.W < 0 ? "m-3 -4l3 4l3 -4" : "";
    const path = `M${left + D * cell + 3} ${y}H${x - half}M${x} ${y + half}V${end}${head}`;
    parts.push(`<path d="${path}" class="wire ${kind}"/>`);
  }
  parts.push(grid(left, at.A, cell, A, kind, lit.A, toy.x), grid(at.B, at.W, cell, B, kind, lit.W, out.h));
  if (next) {
    const ghost = squares(left, at.A, cell, next.A, kind) + squares(at.B, at.W, cell, next.B, kind);
    parts.push(group([ghost], 'class="next"'));
  }
  out.h.forEach((v, k) => {
    const [x, y] = [at.B + k * cell, at.A + k * cell];
    const inset = 0.06 * cell;
    const box = rect(x + inset, y + inset, cell - 2 * inset, cell - 2 * inset, `chip ${kind}`, 'rx="4"');
    const value = numbers
      ? box + text(x + cell / 2, y + cell / 2 + 4, decimal(v), `num mid ${kind}`)
      : square(x, y, cell, v, kind);
    const seen = clamp(scan - k);
    if (seen) parts.push(group([value], `opacity="${seen}"`));
  });
  return group(parts, `opacity="${1 - fuse}"`);
}

/** W x, the detour, and y, where the colored bar goes on from the end of the grey one. */
function drawOut(at, toy, gone, away) {
  const { cell, columns, numbers } = at;
  const { out, kind, scan, scaling } = toy;
  const r = toy.A.length;
  const sub = toy.view === "swap" ? SUB[toy.adapter] : "";
  const most = Math.max(2, ...out.base.map(Math.abs), ...out.y.map(Math.abs));
  const aside = numbers ? 0 : 28; // room for y's number beside its bar
  const half = (at.broad - aside) / 2 - 4;
  const px = (v) => (v * half) / most;
  const rows = shown(out);
  const heads = [
    [gone ? "W′ x" : "W x", gone ? "" : "soft"],
    away ? ["", ""] : [`+ ${about(scaling)} B${sub} A${sub} x`, kind],
    ["= y", ""],
  ];
  const parts = [];
  heads.forEach(([head, how], which) => {
    if (!head || which < 3 - columns) return;
    const mid = at.out + (which - 3 + columns) * at.broad + (at.broad - aside) / 2;
    parts.push(text(mid, at.W - 10, head, `m term mid ${how}`), line(mid, at.W, mid, at.W + D * cell, "rule"));
    rows.forEach((row, i) => {
      const grown = clamp(scan - r - i);
      if (!grown) return;
      const base = gone ? out.y[i] : out.base[i];
      const extra = away ? 0 : out.detour[i];
      const thick = Math.max(6, 0.34 * cell);
      const top = at.W + i * cell + (numbers ? 0.14 * cell : (cell - thick) / 2);
      const bar = (from, to, fill, down = 0, high = thick) =>
        rect(mid + px(Math.min(from, to)), top + down, Math.abs(px(to - from)), high, fill);
      const mark = rect(mid + px((base + extra) * grown) - 1, top - 2, 2, thick + 4, "ink");
      if (which === 0) parts.push(bar(0, base * grown, gone ? "ink" : "frozen"));
      if (which === 1) parts.push(bar(0, extra * grown, kind));
      if (which === 2) {
        parts.push(bar(0, base * grown, "frozen", 0, thick / 2));
        parts.push(bar(base * grown, (base + extra) * grown, kind, thick / 2, thick / 2), mark);
      }
      if (grown < 1) return;
      const number = decimal([gone ? row.y : row.base, row.detour, away && !gone ? row.base : row.y][which]);
      if (numbers) parts.push(text(mid, at.W + (i + 0.86) * cell, number, `num mid halo ${how}`));
      else if (which === 2) parts.push(text(at.out + at.broad, at.W + (i + 0.5) * cell + 4, number, "num end"));
    });
  });
  return parts.join("");
}

/** Beside x, where there is room: the formula, the key, and the real layer in its true proportions. */
function drawKey({ out, broad }, toy, gone, away) {
  const { kind, view, next, adapter } = toy;
  const x = out + 4;
  const terms = gone ? "W′ x" : `<tspan class="soft">W x</tspan>${away ? "" : ` + <tspan class="${kind}">α/r · B (A x)</tspan>`}`;
  const parts = [text(x, 18, `y = ${terms}`, "m term")];
  parts.push(square(x - 2, 28, 14, 0.8, "frozen"), text(x + 15, 39, "positive", "soft"));
  parts.push(square(x + 68, 28, 14, -0.8, "frozen"), text(x + 85, 39, "negative", "soft"));
  if (next) parts.push(text(x, 58, "pale: after one more step", kind));
  if (view === "swap" && adapter) {
    const other = 3 - adapter;
    const spare = learned(other, toy.A.length);
    const its = other === 2 ? "other" : "first";
    const cell = 5;
    const strips = grid(x, 50, cell, spare.A, its) + grid(x + D * cell + 4, 50, cell, spare.B, its);
    parts.push(group([strips], 'opacity=".8"'));
    parts.push(text(x + (D + spare.A.length) * cell + 12, 62, `A${SUB[other]} B${SUB[other]} not in use`, its));
  }
  if (3 * broad > 220) parts.push(drawReal(out + 3 * broad - 54, 26, toy.real)); // else the formula needs the room
  return parts.join("");
}

/** The real layer in its true proportions, so that nobody takes the toy's for them. */
function drawReal(x, y, { m, n, r }) {
  const scale = 46 / Math.max(m, n);
  const [w, h, thick] = [n * scale, m * scale, Math.max(0.8, r * scale)];
  const parts = [rect(x, y + thick + 2, w, h, "frost"), outline(x, y + thick + 2, w, h, "rule")];
  parts.push(rect(x, y, w, thick, "train"), rect(x + w + 2, y + thick + 2, thick, h, "train"));
  parts.push(text(x + 50, y + 66, "a real layer, to scale", "soft small end"));
  return parts.join("");
}

/** [title, headline, sentence, table] in words and numbers. */
export function tellToy(toy) {
  const { view, out, scan, states, step, merged, adapter, real } = toy;
  const [A, B, Wx, y] = ["A", "B", "W x", "y"].map(letter);
  const r = toy.A.length;
  const [all, strips] = [D * D, 2 * D * r];
  const row = Math.ceil(scan) - 1;
  let now = "";
  if (row >= 0 && scan < r + D) {
    const sum = row >= r && shown(out)[row - r];
    now = sum
      ? `Row ${row - r + 1}: ${Wx} gives ${decimal(sum.base)}, the adapter adds ${decimal(sum.detour)}, so ${y} is ${decimal(sum.y)}.`
      : `Row ${row + 1} of ${A} times ${letter("x")} is ${decimal(out.h[row])}: one number, which turns down into ${B}.`;
  }
  const head = (big, unit) => `<b>${big}</b> <span>${unit}</span>`;
  if (view === "start") {
    const words = `${letter("A x")} is (${out.h.map((v) => decimal(v)).join(", ")}), but every number in ${B} is zero, so
      ${letter("B (A x)")} is zero as well: ${y} is exactly ${Wx}, for any token.`;
    return [`A new adapter changes nothing, because ${B} starts at zero`, head("+ 0", "added by a new adapter"), now || words, ""];
  }
  if (view === "steps") {
    const { loss, dA, dB } = states[step];
    const said = [
      `The error at ${y} reaches ${B} directly. To reach ${A} it has to pass through ${B}, which is zero: only ${B} will move.`,
      `${B} has moved, ${A} has not. Now the error passes through ${B}: from here on ${A} has a gradient too.`,
    ][step];
    const last = step === states.length - 1 ? " This was the last step: start over to see it again." : "";
    const words = said ?? `Both learn: the loss has fallen from ${states[0].loss.toFixed(2)} to ${loss.toFixed(2)}.${last}`;
    const rows = states.slice(0, step + 1).map((one, k) => [k, one.loss.toFixed(2), size(one.dA), size(one.dB)]);
    const pair = (value, name) => `<span class="pair"><b>${size(value)}</b> <span>gradient of ${name}</span></span>`;
    const big = pair(dA, A) + pair(dB, B);
    const title = `The first step moves only ${B}; then ${A} learns too`;
    return [title, big, now || words, table(["step", "loss", `gradient of ${A}`, `gradient of ${B}`], rows, step)];
  }
  const layer = sizes(real.m, real.n, real.r);
  const both = (of, first, second, mine, its) =>
    table([of, "this toy", escapeName(real)], [[first, all, count(layer.full)], [second, mine, its]]);
  if (view === "merge") {
    const done = merged >= 1;
    const words = done
      ? `${letter("BA")} has the same shape as ${letter("W")}, so it was added to it: one product again, and the same ${y}.`
      : merged
        ? `${letter("BA")} is added piece by piece, one column of ${B} times one row of ${A}: entry (i, j) goes onto entry (i, j) of ${letter("W")}.`
        : `Besides ${Wx}, every token needs two more products: ${letter("A x")}, then ${B} times the result. They are small, but each costs time.`;
    const big = head(done ? all : `${all} + ${strips}`, "multiplications");
    const title = "Merging keeps the output and drops the extra cost";
    return [title, big, now || words, both("multiplications a token", Wx, letter("B (A x)"), done ? 0 : strips, done ? 0 : count(layer.strips))];
  }
  const words = adapter
    ? `Adapter ${adapter} is in use. A swap replaces ${A} and ${B} and leaves ${letter("W")} as it is.`
    : `No adapter is in use: ${y} is ${Wx}, the output of the base model.`;
  const big = head(adapter ? strips : 0, `numbers to swap; ${all} stay`);
  const title = `One frozen ${letter("W")} serves many tasks: swap only ${A} and ${B}`;
  return [title, big, now || words, both("numbers", `${letter("W")}, kept`, `${A} and ${B}, swapped`, adapter ? strips : 0, adapter ? count(layer.strips) : 0)];
}

const size = (gradient) => (gradient < 0.005 ? "0" : gradient.toFixed(2));
const escapeName = ({ name, r }) => `${name}, r = ${count(r)}`;

/** All numbers of the picture, as rows of a table. */
export function toyTable({ A, B, x, out, scaling }) {
  const row = (name, values) => [name, ...values.map((v) => decimal(v, 1))];
  const rows = [row("x", x), ...A.map((a, k) => row(`A, row ${k + 1}`, a))];
  rows.push(...A.map((_, k) => row(`B, column ${k + 1}`, column(B, k))), ...W.map((w, i) => row(`W, row ${i + 1}`, w)));
  const sums = shown(out);
  for (const [name, key] of [["W x", "base"], [`${about(scaling)} B A x`, "detour"], ["y", "y"]]) {
    rows.push(row(name, sums.map((sum) => sum[key])));
  }
  const caption = `<caption>A x: ${out.h.map((v) => decimal(v)).join(", ")}; α/r = ${about(scaling)}</caption>`;
  return caption + table(["number", ...x.map((_, j) => j + 1)], rows);
}
