// What each method adds to a transformer layer, as a small drawing: grey is frozen, blue trains.

import { circle, line, outline, rect } from "./svg.js";

export const ICON = { width: 84, height: 112 };
const BOXES = {
  // [x, y, width, height], from the head above to the queries, keys and values below
  down: [19, 24, 46, 9],
  up: [19, 40, 46, 9],
  o: [30, 60, 24, 9],
  q: [9, 80, 16, 11],
  k: [34, 80, 16, 11],
  v: [59, 80, 16, 11],
};
const EVERY = Object.keys(BOXES);
const TOKENS = 104;

/** Roles that a method's targets name; a path or a pattern names none that is drawn. */
function roles(targets) {
  const named = targets ?? [];
  return named.includes("all-linear") ? EVERY : EVERY.filter((role) => named.includes(role));
}

const frozen = (box) => outline(...box, "frost edge", 'rx="1.5"');
const blue = (box) => rect(...box, "train", 'rx="1.5"');

/** A above and B at the right, as in the drawing of LoRA to scale. */
const beside = ([x, y, w, h]) => rect(x, y - 4, w, 3, "train") + rect(x + w + 1, y, 3, h, "train");
const bias = ([x, y, w, h]) => rect(x, y + h + 1, w, 2.5, "train");
const factorOn = ([x, y, w]) => circle(x + w / 2, y - 3, 3.5, "train");

/** Down to a few numbers and up again. */
const hourglass = (y) => `<path d="M24 ${y}h36l-12 3.5l12 3.5h-36l12 -3.5z" class="train"/>`;

const tokens = (from, kind) => Array.from({ length: 7 - from }, (_, i) => outline(12 + 9 * (from + i), TOKENS, 7, 7, kind)).join("");
const learned = rect(12, TOKENS, 7, 7, "train") + rect(21, TOKENS, 7, 7, "train") + rect(30, TOKENS, 7, 7, "train");

/** [drawing, in words] of what a method adds; see `_method` in experiments/margins.py. */
const ADDS = {
  full: () => [EVERY.map((role) => blue(BOXES[role])).join("") + tokens(0, "train pale"), "every number of the layer"],
  lora({ targets }) {
    const named = roles(targets);
    return [named.map((role) => beside(BOXES[role])).join(""), `A and B beside ${(targets ?? []).join(", ")}`];
  },
  bitfit: () => [EVERY.map((role) => bias(BOXES[role])).join(""), "the bias of each matrix"],
  ia3: ({ targets }) => [roles(targets).map((role) => factorOn(BOXES[role])).join(""), "a factor for each number that leaves k, v and the MLP"],
  bottleneck: ({ size }) => [hourglass(52) + hourglass(15), `small layers ${size ?? ""} wide after attention and MLP`],
  prompt: ({ tokens: many }) => [learned, `${many ?? "a few"} learned vectors before the text`],
  ptuning: ({ tokens: many }) => [`${learned}${rect(12, TOKENS + 9, 25, 3, "train")}`, `${many ?? "a few"} vectors before the text, made by a small network`],
  prefix: ({ tokens: many }) => [["k", "v"].map((role) => [0, 6].map((dy) => rect(BOXES[role][0] - 6, 80 + dy, 5, 5, "train")).join("")).join(""), `${many ?? "a few"} learned keys and values in each layer`],
  head: () => ["", "nothing: only the head trains"],
  probe: () => ["", "nothing: a logistic regression reads the last layer"],
};

/** Words for what a method adds. */
export function adds({ method, settings }) {
  return ADDS[method]?.(settings ?? {})[1] ?? "something of its own";
}

export function icon({ method, settings, head }) {
  const [own] = ADDS[method]?.(settings ?? {}) ?? [circle(74, 56, 5, "train")];
  const wires = line(42, 101, 42, 14, "rule") + EVERY.slice(3).map((role) => line(BOXES[role][0] + 8, 95, BOXES[role][0] + 8, 74, "rule")).join("") + line(17, 95, 67, 95, "rule") + line(17, 74, 67, 74, "rule");
  const base = EVERY.map((role) => frozen(BOXES[role])).join("");
  const plain = ["prompt", "ptuning"].includes(method) ? tokens(3, "frost edge") : tokens(0, "frost edge");
  const top = method === "probe" ? circle(42, 8, 5, "train") : rect(30, 3, 24, 8, head ? "train" : "frost edge", 'rx="4"');
  return `<svg viewBox="0 0 ${ICON.width} ${ICON.height + 6}" width="${ICON.width}" height="${ICON.height + 6}" aria-hidden="true">${wires}${base}${plain}${own}${top}</svg>`;
}
