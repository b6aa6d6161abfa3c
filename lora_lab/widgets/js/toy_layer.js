// The arithmetic of a toy layer, 8 x 8 with LoRA: y = W x + (alpha / r) B (A x), always with the same numbers.

export const [D, MOST_RANK] = [8, 4];

/** A pseudorandom matrix in tenths, so that products can be checked by hand. */
function matrix(seed, rows, columns, size) {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0; // mulberry32
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const value = () => Math.round(20 * size * (next() + next() + next() - 1.5)) / 10;
  return Array.from({ length: rows }, () => Array.from({ length: columns }, value));
}

const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
const times = (M, x) => M.map((row) => dot(row, x));
const norm = (M) => Math.hypot(...M.flat());
export const column = (M, j) => M.map((row) => row[j]);
export const combine = (M, N, f) => M.map((row, i) => row.map((v, j) => v + f * N[i][j]));
export const product = (B, A) => B.map((b) => A[0].map((_, j) => dot(b, column(A, j))));

export const W = matrix(1, D, D, 0.5);
export const TOKEN = matrix(22, 1, D, 0.8)[0];

/** A new adapter: A random, B zero. */
export const fresh = (r) => ({ A: matrix(5, MOST_RANK, D, 0.6).slice(0, r), B: W.map(() => Array(r).fill(0)) });

/** An adapter that looks trained. */
export function learned(r) {
  const B = matrix(51, D, MOST_RANK, 0.4).map((row) => row.slice(0, r));
  return { A: matrix(41, MOST_RANK, D, 0.45).slice(0, r), B };
}

/** The forward pass: h = A x of r numbers, base = W x, the detour (alpha / r) B h, and y. */
export function forward({ A, B }, scaling, x) {
  const h = times(A, x);
  const base = times(W, x);
  const detour = times(B, h).map((v) => scaling * v);
  return { h, base, detour, y: base.map((v, i) => v + detour[i]) };
}

/** Gradient descent on half the squared distance between y and a target: the states at steps 0 to 6. The rate is halved
 * until the loss falls. */
export function lesson(r, scaling, x) {
  const goal = learned(MOST_RANK);
  const target = times(combine(W, product(goal.B, goal.A), 1), x);
  let net = fresh(r);
  const first = times(net.A, x);
  let rate = 0.5 / (scaling * scaling * (dot(first, first) + dot(x, x) / 4) || 1);
  const errorOf = (some) => forward(some, scaling, x).y.map((v, i) => v - target[i]);
  const lossOf = (some) => norm([errorOf(some)]) ** 2 / 2;
  const states = [];
  for (let step = 0; step < 7; step++) {
    const [h, error, loss] = [times(net.A, x), errorOf(net), lossOf(net)];
    const back = h.map((_, k) => scaling * dot(error, column(net.B, k))); // the error that reaches A through B
    const dB = error.map((e) => h.map((v) => scaling * e * v));
    const dA = back.map((b) => x.map((v) => b * v));
    states.push({ ...net, target, loss, dA: norm(dA), dB: norm(dB) });
    const stepped = () => ({ A: combine(net.A, dA, -rate), B: combine(net.B, dB, -rate) });
    while (lossOf(stepped()) > loss) rate /= 2;
    net = stepped();
  }
  return states;
}
