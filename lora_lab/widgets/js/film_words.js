// A film in words: the finding, why the peak is where it is, and a table of every act by category.

import { table } from "./controls.js";
import {
  ACTIVATIONS, ACTS, CATEGORIES, GRADIENTS, LOGITS, MANY, OPTIMIZER, TEMPORARIES, WEIGHTS, openFilm,
} from "./film.js";
import { binary, count, escape, sum } from "./format.js";

const NAMES = [
  [/(self_attn|attn|attention)$/i, "attention"],
  [/(mlp|intermediate|output|feed_forward|ffn)$/i, "MLP"],
  [/(norm|ln_\w+)$/i, "norm"],
  [/(embed\w*|embeddings|wte|wpe|position_embeddings)$/i, "embedding"],
  [/rotary_emb$/, "positions"],
  [/(lm_head|classifier|score|pooler|classifier\.trained)$/, "head"],
  [/\*$/, "residual sum"],
];
const UPDATES = { complete: "all gradients are in memory", step: "the optimizer's step", freed: "gradients are freed" };

/** The name of a part of the model, as markup: "attention" for "model.layers.*.self_attn". */
function partName(path) {
  const match = NAMES.find(([pattern]) => pattern.test(path));
  return match?.[1] ?? escape(path.split(".").filter((part) => part !== "*").at(-1) ?? "");
}

/** Where a scene is: "forward, layer 12 of 32, attention". */
export function sceneWords(film, at) {
  const { scenes, layers, starts } = openFilm(film);
  const { act, part, layer } = scenes[at];
  const name = partName(part);
  if (ACTS[act] === "update") return `update: ${UPDATES[part]}`;
  if (part.includes("*")) return `${ACTS[act]}, layer ${layer + 1} of ${layers}, ${name}`;
  if (ACTS[act] !== "loss") return `${ACTS[act]}, ${name || "the model"}`;
  return `loss, operation ${at - starts[act] + 1} of ${starts[act + 1] - starts[act]}: ${name || "cross-entropy"}`;
}

/** Rows and tokens: "2 × 512 tokens". */
export const tokensWords = ({ batch, seq }) => `${count(batch)} × ${count(seq)} tokens`;

/** The number formats of the step: "in bf16, with frozen weights in NF4". */
export function formatWords({ dtype, quantized, checkpointing }) {
  const bits = quantized === "none" ? "" : `, with frozen weights in ${quantized.toUpperCase()}`;
  return `in ${dtype}${bits}${checkpointing ? ", with checkpointing" : ""}`;
}

/** The legend of a scene, for pictures without room for labels. */
export function legendWords(result, at) {
  const sizes = CATEGORIES.map((name, c) => [name, result.live[at * MANY + c]]).filter(([, size]) => size >= 1024);
  return sizes.map(([name, size]) => `<span><i class="of-${name}"></i>${name} ${binary(size)}</span>`).join(" ");
}

/** The finding: where the peak is, and what takes up most of it besides the weights. */
export function finding(film, result, point) {
  const { act } = openFilm(film).scenes[result.top];
  const live = result.live.subarray(result.top * MANY, result.top * MANY + MANY);
  const start = `Memory peaks ${["in the forward pass", "at the loss", "in the backward pass", "at the update"][act]}`;
  if (live[GRADIENTS] > Math.max(0.1 * live[WEIGHTS], live[ACTIVATIONS], live[LOGITS])) {
    const states = live[WEIGHTS] + live[OPTIMIZER] + live[GRADIENTS];
    return `${start}: ${live[OPTIMIZER] ? "weights, gradients and optimizer states" : "weights and gradients"} take ${binary(states)}`;
  }
  if (live[WEIGHTS] > 0.75 * result.peak) {
    const weights = film.method === "full" ? "weights" : "frozen weights";
    return `${start}, but ${weights} alone take ${binary(live[WEIGHTS])} of ${binary(result.peak)}`;
  }
  const sizes = [ACTIVATIONS, LOGITS, TEMPORARIES].map((c) => [live[c], CATEGORIES[c]]).sort((a, b) => b[0] - a[0]);
  const large = sizes.filter(([size]) => size > 0.2 * sizes[0][0]);
  const names = large.map(([, name]) => name).join(" and ");
  const taken = binary(sum(large.map(([size]) => size)));
  return `${start}: ${names} for ${count(point.batch * point.seq)} tokens take ${taken}`;
}

/** Why the peak is there, in a few sentences. */
export function reason(film, result, point) {
  const { scenes, layers } = openFilm(film);
  const { act, part, layer } = scenes[result.top];
  const live = (c) => result.live[result.top * MANY + c];
  const saved = `the ${binary(live(ACTIVATIONS))} of activations saved for the backward pass are in memory`;
  if (ACTS[act] === "update") {
    return `At the peak, all gradients are in memory, and so are the optimizer's states for every trained parameter. The optimizer's arithmetic
      briefly needs ${binary(live(TEMPORARIES))} more. The activations are already freed.`;
  }
  if (ACTS[act] === "loss") {
    const tokens = count(point.batch * point.seq);
    const logits = ` There are several copies of the logits: one score per vocabulary entry for each of ${tokens} tokens.`;
    return `At the peak, the forward pass has just ended: ${saved}.${live(LOGITS) > 0 ? logits : ""}`;
  }
  const where = part.includes("*") ? `layer ${layer + 1}'s ${partName(part)}` : `the ${partName(part) || "model"}`;
  if (ACTS[act] === "forward") return `The peak is in ${where}: ${saved}, and the layer's own intermediate values add to them.`;
  if (!part.includes("*")) return `The peak is in ${where}, at the end of the backward pass: the layers' gradients take
    ${binary(live(GRADIENTS))}, and this part's own gradient adds to them.`;
  if (film.checkpointing) {
    return `The peak is in ${where}. Checkpointing runs this layer again and briefly keeps all its activations.`;
  }
  const first = layer === layers - 1 ? "" : "first ";
  const below = layer > 0 ? ` by the ${first}${count(layer)} layers below` : "";
  return `The peak is in ${where}: the activations saved${below} are still in memory, and this layer's gradients add to them.`;
}

/** How the peak moves with the sequence length, if it does. */
export function crossings(acts, stops) {
  if (acts.length < 2) return "";
  const name = (act) => (ACTS[act] === "loss" || ACTS[act] === "update" ? `the ${ACTS[act]}` : `the ${ACTS[act]} pass`);
  const [first, ...later] = acts;
  const parts = later.map(({ act, from }) => `${name(act)} from about ${count(stops[from])} tokens on`);
  const until = `${name(first.act)} up to ${count(stops[later[0].from - 1])} tokens`;
  return `The place of the peak depends on the sequence length: ${until}, ${parts.join(", ")}.`;
}

/** The current scene and the fullest scene of each act, by category; each number is rounded separately. */
export function actsTable(result, at) {
  const [unit, name, places] = result.peak < 2 ** 30 ? [2 ** 20, "MiB", 1] : [2 ** 30, "GiB", 2];
  const cell = (value) => value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
  const row = (of) => [at, ...result.tops].map((scene) => of(scene) / unit);
  const all = CATEGORIES.map((category, c) => [category, ...row((scene) => result.live[scene * MANY + c])]);
  const rows = all.filter(([, ...parts]) => Math.max(...parts) >= 0.5 / 10 ** places);
  rows.push(["total", ...row((scene) => result.totals[scene])]);
  const lines = rows.map(([first, ...parts]) => [first, ...parts.map(cell)]);
  return table([name, "now", ...ACTS], lines, rows.length - 1);
}
