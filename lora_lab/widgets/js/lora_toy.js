// The forward pass of a layer with LoRA, on an 8 x 8 toy small enough to show every number.

import { letter, table } from "./controls.js";
import { about, clamp, count, decimal, escape, tenth } from "./format.js";
import { circle, group, line, outline, rect, text } from "./svg.js";
import { D, W, column, combine, product } from "./toy_layer.js";

/** The terms of y in tenths, as they are shown: base + detour = y. */
const shown = ({ base, detour }) => base.map((v, i) => {
  const [b, d] = [tenth(v), tenth(detour[i])];
  return { base: b, detour: d, y: tenth(b + d) };
});

/** A number as a square with that area: filled if positive, hollow if negative, a dot for zero. */
function square(x, y, cell, value, kind) {
  if (Math.abs(value) < 0.005) return circle(x + cell / 2, y + cell / 2, 1.5, kind);
  const side = clamp(0.86 * cell * Math.sqrt(Math.abs(value) / 1.2), 3, 0.94 * cell);
  const pad = (cell - side) / 2;
  if (value > 0) return rect(x + pad, y + pad, side, side, kind, 'rx="1.5"');
  return rect(x + pad + 0.8, y + pad + 0.8, side - 1.6, side - 1.6, `${kind} no`, 'rx="1.5"');
}

/** A matrix of squares; the row `lit` shows its products with `factors` instead of its numbers. */
function squares(x, y, cell, M, kind, lit = -1, factors = []) {
  const entry = (v, i, j) =>
    square(x + j * cell, y + i * cell, cell, i === lit ? v * factors[j] : v, i === lit ? "ink" : kind);
  return M.map((row, i) => row.map((v, j) => entry(v, i, j)).join("")).join("");
}

/** The same, with grid lines. */
function grid(x, y, cell, M, kind, lit, factors) {
  const [width, height] = [M[0].length * cell, M.length * cell];
  const across = Array.from({ length: M.length + 1 }, (_, i) => `M${x} ${y + i * cell}h${width}`);
  const down = Array.from({ length: M[0].length + 1 }, (_, j) => `M${x + j * cell} ${y}v${height}`);
  return `<path d="${across.join("")}${down.join("")}" class="cell"/>${squares(x, y, cell, M, kind, lit, factors)}`;
}

/** The positions of all parts, from the available width and the rank. */
function layout(width, r) {
  const [wide, room] = [width >= 480, Math.min(width, 630)];
  const [left, gap, columns] = [30, wide ? 16 : 8, wide ? 3 : 1];
  const cell = Math.floor(Math.min(32, (room - left - 2 * gap - columns * (wide ? 60 : 84)) / (D + r)));
  const numbers = cell >= 25; // whether there is room for numbers in the picture
  const up = 24; // half the height of x's bars
  const A = 2 * up + (numbers ? 28 : 12);
  const Wy = A + r * cell + gap;
  const B = left + D * cell + gap;
  const out = B + r * cell + gap;
  const broad = Math.min(100, (room - out) / columns);
  return { wide, left, gap, columns, room, cell, numbers, up, unit: up / 2.2, A, W: Wy, B, out, broad };
}

/** Draw the forward pass. Returns { svg, height, bars, small }; `bars` says where x's bars can be dragged. */
export function drawToy(width, toy) {
  const { A, B, scan, merged, x, out } = toy;
  const r = A.length;
  const at = layout(width, r);
  const { left, gap, cell, up } = at;
  const row = Math.ceil(scan) - 1; // rows of A first, then those of W and B together
  const running = scan > 0 && scan < r + D;
  const lit = { A: running && row < r ? row : -1, W: running && row >= r ? row - r : -1 };
  const band = lit.A >= 0 ? at.A + lit.A * cell : at.W + lit.W * cell;
  const fuse = clamp((merged - 0.75) / 0.25);
  const done = merged >= 1;
  const parts = [];
  if (running) {
    const long = lit.A >= 0 ? D * cell + gap + (row + 1) * cell : at.room - left;
    parts.push(rect(left, band, long, cell, "wash", 'rx="4"'));
    parts.push(...x.map((_, j) => line(left + (j + 0.5) * cell, at.A - 4, left + (j + 0.5) * cell, band + cell / 2, "ray")));
  }
  parts.push(drawX(at, x));

  const merging = combine(W, product(B, A), fuse * toy.scaling);
  parts.push(text(left - 12, at.W + 4 * cell + 6, done ? "W′" : "W", "m end"));
  parts.push(grid(left, at.W, cell, merging, "frozen", lit.W, x));
  if (merged > 0 && fuse < 1) {
    const painted = clamp(merged / 0.7) * r;
    const part = B.map((row) => row.map((v, k) => toy.scaling * clamp(painted - k) * v));
    const delta = squares(left, at.W, cell, product(part, A), "train");
    parts.push(group([delta], `class="over" opacity="${0.9 * (1 - fuse)}"`));
  }
  const slots = () => outline(left, at.A, D * cell, r * cell, "slot") + outline(at.B, at.W, r * cell, D * cell, "slot");
  parts.push(done ? slots() : drawAdapter(at, toy, lit, band, fuse), drawOut(at, toy, done));
  const bottom = at.W + D * cell;
  const note = `an enlarged toy, 8 × 8; ${done ? "merged" : "W is frozen"}`;
  parts.push(text(left, bottom + (at.wide ? 20 : 42), note, "soft"));
  if (at.wide) parts.push(drawKey(at, done));
  const y = shown(out).map((row) => decimal(row.y)).join(", ");
  return { svg: parts.join(""), height: bottom + (4 - r) * cell + (at.wide ? 30 : 50), bars: { up, unit: at.unit }, small: cell < 30, y };
}

/** x as bars over the columns of A and W; each can be dragged. */
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

/** A and B with the corner between them, where the r numbers of A x pass from A down into B. */
function drawAdapter(at, toy, lit, band, fuse) {
  const { left, cell, numbers } = at;
  const { A, B, out, scan } = toy;
  const r = A.length;
  const parts = [text(left - 12, at.A + (r * cell) / 2 + 6, "A", "m end train")];
  parts.push(text(at.B + (r * cell) / 2, at.W + D * cell + 22, "B", "m mid train"));
  const [half, end] = [0.44 * cell, lit.W >= 0 ? band + cell / 2 : `${at.W - 3}m-3 -4l3 4l3 -4`];
  parts.push(...A.map((_, k) => {
    const [x, y] = [at.B + (k + 0.5) * cell, at.A + (k + 0.5) * cell];
    return `<path d="M${left + D * cell + 3} ${y}H${x - half}M${x} ${y + half}V${end}" class="wire train"/>`;
  }));
  parts.push(grid(left, at.A, cell, A, "train", lit.A, toy.x), grid(at.B, at.W, cell, B, "train", lit.W, out.h));
  out.h.forEach((v, k) => {
    const [x, y] = [at.B + (k + 0.5) * cell, at.A + (k + 0.5) * cell];
    const box = rect(x - half, y - half, 2 * half, 2 * half, "chip train", 'rx="4"');
    const number = box + text(x, y + 4, decimal(v), "num mid train");
    const value = numbers ? number : square(x - cell / 2, y - cell / 2, cell, v, "train");
    parts.push(group([value], `opacity="${clamp(scan - k)}"`));
  });
  return group(parts, `opacity="${1 - fuse}"`);
}

/** W x, the detour, and y, where the colored bar continues from the end of the gray one. */
function drawOut(at, { out, scan, scaling, A, view, states }, merged) {
  const { cell, columns, numbers } = at;
  const r = A.length;
  const target = view === "steps" ? states[0].target : [];
  const largest = Math.max(2, ...[...out.base, ...out.y, ...target].map(Math.abs));
  const margin = numbers ? 0 : 28; // room for y's number beside its bar
  const half = (at.broad - margin) / 2 - 4;
  const px = (v) => (v * half) / largest;
  const rows = shown(out);
  const heads = merged ? [["W′ x", ""], ["", ""]] : [["W x", "soft"], [`+ ${about(Number(scaling.toFixed(2)))} B A x`, "train"]];
  const parts = [];
  [...heads, ["= y", ""]].forEach(([head, style], which) => {
    if (!head || which < 3 - columns) return;
    const mid = at.out + (which - 3 + columns) * at.broad + (at.broad - margin) / 2;
    parts.push(text(mid, at.W - 10, head, `m term mid ${style}`), line(mid, at.W, mid, at.W + D * cell, "rule"));
    rows.forEach((row, i) => {
      const progress = clamp(scan - r - i);
      if (!progress) return;
      const base = merged ? out.y[i] : out.base[i];
      const extra = merged ? 0 : out.detour[i];
      const thick = Math.max(6, 0.34 * cell);
      const top = at.W + i * cell + (numbers ? 0.14 * cell : (cell - thick) / 2);
      const bar = (from, to, fill, down = 0, high = thick) =>
        rect(mid + px(Math.min(from, to)), top + down, Math.abs(px(to - from)), high, fill);
      const mark = rect(mid + px((base + extra) * progress) - 1, top - 2, 2, thick + 4, "ink");
      if (which === 0) parts.push(bar(0, base * progress, merged ? "ink" : "frozen"));
      if (which === 1) parts.push(bar(0, extra * progress, "train"));
      if (which === 2) {
        parts.push(bar(0, base * progress, "frozen", 0, thick / 2));
        parts.push(bar(base * progress, (base + extra) * progress, "train", thick / 2, thick / 2), mark);
        if (target.length) parts.push(circle(mid + px(target[i]), top + thick / 2, 4, "goal"));
      }
      if (progress < 1) return;
      const number = decimal([merged ? row.y : row.base, row.detour, row.y][which]);
      if (numbers) parts.push(text(mid, at.W + (i + 0.86) * cell, number, `num mid halo ${style}`));
      else if (which === 2) parts.push(text(at.out + at.broad, at.W + (i + 0.5) * cell + 4, number, "num end"));
    });
  });
  return parts.join("");
}

/** The key next to x, if there is room: the formula, and the meaning of the squares. */
function drawKey({ out }, merged) {
  const x = out + 4;
  const sum = '<tspan class="soft">W x</tspan> + <tspan class="train">α/r · B (A x)</tspan>';
  const parts = [text(x, 18, `y = ${merged ? "W′ x" : sum}`, "m term")];
  parts.push(square(x - 2, 28, 14, 0.8, "frozen"), text(x + 15, 39, "positive", "soft"));
  parts.push(square(x + 68, 28, 14, -0.8, "frozen"), text(x + 85, 39, "negative", "soft"), rect(x + 146, 28, 2, 14, "ink"), text(x + 153, 39, "y", "soft"));
  return parts.join("");
}

const gradient = (value) => (value < 0.005 ? "0" : value.toFixed(2));
const head = (big, unit) => `<b>${big}</b> <span>${unit}</span>`;
const [LA, LB, LW, Wx, Ax, BAx, Y] = ["A", "B", "W", "W x", "A x", "B (A x)", "y"].map(letter);

/** A sentence about the current row; "" if the pass has not started or is done. */
function describePass({ out, scan, A }) {
  const row = Math.ceil(scan) - 1;
  const r = A.length;
  if (row < 0 || scan >= r + D) return "";
  if (row < r) {
    return `Row ${row + 1} of ${LA} times ${letter("x")} is ${decimal(out.h[row])}: one number, which is passed on to ${LB}.`;
  }
  const { base, detour, y: all } = shown(out)[row - r];
  return `Row ${row - r + 1}: ${Wx} gives ${decimal(base)}, the adapter adds ${decimal(detour)}, so ${Y} is ${decimal(all)}.`;
}

/** [title, headline, sentence, table]. */
export function describeToy(toy) {
  const parts = { start: describeStart, steps: describeSteps, merge: describeMerge }[toy.view](toy);
  return parts.with(2, describePass(toy) || parts[2]);
}

function describeStart({ out }) {
  const h = out.h.map((value) => decimal(value)).join(", ");
  const words = `${Ax} is (${h}), but every number in ${LB} is zero, so ${BAx} is zero as well: ${Y} is exactly ${Wx}, for
    any token.`;
  return [`A new adapter changes nothing, because ${LB} starts at zero`, head("+ 0", "added by a new adapter"), words, ""];
}

function describeSteps({ states, step }) {
  const [{ loss }, { dA, dB }] = [states[step], states[Math.max(step - 1, 0)]]; // the gradients of the step just taken
  const last = step === states.length - 1 ? " This was the last step: start over to see it again." : "";
  const words = [
    `${LA} is random, and every number in ${LB} is zero. The loss is half the squared distance from ${Y} to a target (the ring). A step moves each number against its gradient.`,
    `To reach ${LA}, the error has to pass through ${LB}, which was zero, so only ${LB} has moved. From here on, ${LA} has a gradient too.`,
  ][step] ?? `Both learn: the loss has fallen from ${states[0].loss.toFixed(2)} to ${loss.toFixed(2)}.${last}`;
  const told = (value) => (step ? gradient(value) : "?"); // the reader guesses before the first step
  const rows = states.slice(0, step + 1).map((state, k) => [k && k === step && !last ? "next" : k, state.loss.toFixed(2), told(state.dA), told(state.dB)]);
  const pair = (value, name) => `<span class="pair">${head(told(value), `gradient of ${name}${step ? " in the step just taken" : ""}`)}</span>`;
  const title = step ? `The first step moves only ${LB}; then ${LA} learns too` : "Take a step: which matrix moves?";
  return [
    title, pair(dA, LA) + pair(dB, LB), words,
    table(["step", "loss", `gradient of ${LA}`, `gradient of ${LB}`], rows, step - 1),
  ];
}

function describeMerge({ merged, real: { m, n, r, name }, A }) {
  const strips = 2 * D * A.length;
  const done = merged >= 1;
  const words = done
    ? `${letter("BA")} has the same shape as ${LW} and was added to ${LW}. One product is left, with the same ${Y}.`
    : merged
      ? `${letter("BA")} is added piece by piece. Each piece is a column of ${LB} times a row of ${LA}, and its entry (i, j) is
        added to entry (i, j) of ${LW}.`
      : `Besides ${Wx}, every token needs two more products: ${Ax}, then ${LB} times the result. They are small, but each
        costs time.`;
  return [
    merged ? "Merging keeps the output and drops the extra cost" : "Press merge: what happens to the output and the cost?",
    head(done ? D * D : `${D * D} + ${strips}`, "multiplications"), words,
    table(["multiplications per token", "this toy", `${escape(name)}, r = ${count(r)}`], [
      [Wx, D * D, count(m * n)], [BAx, done ? 0 : strips, done ? 0 : count(r * (m + n))],
    ]),
  ];
}

/** All numbers in the picture, as a table. */
export function toyTable({ A, B, x, out, scaling }) {
  const row = (name, values) => [name, ...values.map((v) => decimal(v))];
  const sums = [["W x", "base"], [`${about(scaling)} B A x`, "detour"], ["y", "y"]];
  const rows = [
    row("x", x), ...A.map((a, k) => row(`A, row ${k + 1}`, a)), ...A.map((_, k) => row(`B, column ${k + 1}`, column(B, k))),
    ...W.map((w, i) => row(`W, row ${i + 1}`, w)), ...sums.map(([name, key]) => row(name, shown(out).map((terms) => terms[key]))),
  ];
  const caption = `<caption>A x: ${out.h.map((v) => decimal(v)).join(", ")}; α/r = ${about(scaling)}</caption>`;
  return caption + table(["number", ...x.map((_, j) => j + 1)], rows);
}
