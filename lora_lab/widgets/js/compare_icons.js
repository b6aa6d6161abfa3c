// What each method adds to a transformer layer, as a small drawing: grey is frozen, blue trains.

import { circle, outline, rect } from "./svg.js";

// [x, y, width, height], from the head above to the queries, keys and values below
const BOXES = {
  down: [19, 24, 46, 9], up: [19, 40, 46, 9], o: [30, 60, 24, 9],
  q: [9, 80, 16, 11], k: [34, 80, 16, 11], v: [59, 80, 16, 11],
};
const EVERY = Object.keys(BOXES);
const TOKENS = 104;

/** Roles that a method's targets name; a path or a pattern names none that is drawn. */
const roles = (targets) => EVERY.filter((role) => (targets ?? []).some((one) => one === role || one === "all-linear"));

const each = (names, draw) => names.map((role) => draw(BOXES[role])).join("");
const blue = (x, y, width, height) => rect(x, y, width, height, "train", 'rx="1.5"');

const hourglass = (y) => `<path d="M24 ${y}h36l-12 3.5l12 3.5h-36l12 -3.5z" class="train"/>`; // few numbers in between
const row = (from, kind) => [0, 1, 2, 3, 4, 5, 6].slice(from).map((i) => outline(12 + 9 * i, TOKENS, 7, 7, kind)).join("");
const learned = [12, 21, 30].map((x) => rect(x, TOKENS, 7, 7, "train")).join("");

const thin = (targets, trained) => // A and B are frozen
  each(roles(targets), ([x, y, w, h]) =>
    outline(x, y - 4, w, 3, "frost edge") + outline(x + w + 1, y, 3, h, "frost edge") + trained(x, y, w, h));

/** [drawing, in words] of what a method adds; see `_method` in experiments/margins.py. */
const ADDS = {
  full: () => [each(EVERY, (box) => blue(...box)) + row(0, "train pale"), "every number of the layer"],
  lora: ({ targets }) => [
    each(roles(targets), ([x, y, w, h]) => rect(x, y - 4, w, 3, "train") + rect(x + w + 1, y, 3, h, "train")),
    `A and B beside ${(targets ?? []).join(", ")}`,
  ],
  "lora-xs": ({ targets, rank }) => [
    thin(targets, (x, y, w) => rect(x + w + 1, y - 4, 3, 3, "train")), `a square of ${rank ?? "a few"} between frozen A and B`,
  ],
  vera: ({ targets }) => [
    thin(targets, (x, y, w, h) => rect(x, y - 5.5, w, 1, "train") + rect(x + w + 4.5, y, 1, h, "train")),
    "a factor for each row of frozen A and B",
  ],
  tinylora: ({ targets, u }) => [
    thin(targets, (x, y, w) => circle(x + w + 2.5, y - 2.5, 1.5, "train")), `${u ?? "a few"} weights of frozen squares`,
  ],
  bitfit: () => [each(EVERY, ([x, y, w, h]) => rect(x, y + h + 1, w, 2.5, "train")), "the bias of each matrix"],
  ia3: ({ targets }) => [
    each(roles(targets), ([x, y, w]) => circle(x + w / 2, y - 3, 3.5, "train")),
    "a factor for each number that leaves k, v and the MLP",
  ],
  bottleneck: ({ size }) => [hourglass(52) + hourglass(15), `small layers ${size ?? ""} wide after attention and MLP`],
  prompt: ({ tokens }) => [learned, `${tokens ?? "a few"} learned vectors before the text`],
  ptuning: ({ tokens }) => [
    learned + rect(12, TOKENS + 9, 25, 3, "train"), `${tokens ?? "a few"} vectors before the text, made by a small network`,
  ],
  prefix: ({ tokens }) => [
    each(["k", "v"], ([x]) => rect(x - 6, 80, 5, 5, "train") + rect(x - 6, 86, 5, 5, "train")),
    `${tokens ?? "a few"} learned keys and values in each layer`,
  ],
  head: () => ["", "nothing: only the head trains"],
  probe: () => ["", "nothing: a logistic regression reads the last layer"],
};

const OWN = [circle(74, 56, 5, "train"), "something of its own"];
const added = ({ method, settings }) => ADDS[method]?.(settings ?? {}) ?? OWN;
export const adds = (one) => added(one)[1];

export function icon({ method, settings, head }) {
  const wires = `<path d="M42 101V14M17 95H67M17 95V74M42 95V74M67 95V74M17 74H67" class="rule"/>`;
  const base = each(EVERY, (box) => outline(...box, "frost edge", 'rx="1.5"'));
  const tokens = row(["prompt", "ptuning"].includes(method) ? 3 : 0, "frost edge");
  const kind = head ? "train" : "frost edge";
  const top = method === "probe" ? circle(42, 8, 5, "train") : rect(30, 3, 24, 8, kind, 'rx="4"');
  return `<svg viewBox="0 0 84 118" width="84" height="118" aria-hidden="true">${wires}${base}${tokens}
    ${added({ method, settings })[0]}${top}</svg>`;
}
