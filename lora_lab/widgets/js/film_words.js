// A film in words: its finding, why the peak lies where it does, and every act by category as a table.

import { table } from "./controls.js";
import {
  ACTIVATIONS, ACTS, CATEGORIES, GRADIENTS, LOGITS, MANY, OPTIMIZER, TEMPORARIES, WEIGHTS, openFilm,
} from "./film.js";
import { binary, count } from "./format.js";

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

/** A part of the model: "attention" from "model.layers.*.self_attn". */
function partName(path) {
  const known = NAMES.find(([pattern]) => pattern.test(path));
  return known?.[1] ?? path.split(".").filter((part) => part !== "*").at(-1) ?? "";
}

/** Where a scene is: "forward, layer 12 of 32, attention". */
export function sceneWords(film, at) {
  const { scenes, layers, starts } = openFilm(film);
  const { act, part, layer } = scenes[at];
  if (ACTS[act] === "update") return `update: ${UPDATES[part]}`;
  if (part.includes("*")) return `${ACTS[act]}, layer ${layer + 1} of ${layers}, ${partName(part)}`;
  const name = partName(part);
  if (ACTS[act] === "loss") {
    return `loss, operation ${at - starts[act] + 1} of ${starts[act + 1] - starts[act]}: ${name || "cross-entropy"}`;
  }
  return `${ACTS[act]}, ${name || "the model"}`;
}

/** Rows and tokens: "2 × 512 tokens". */
export function tokensWords({ batch, seq }) {
  return `${count(batch)} × ${count(seq)} tokens`;
}

/** In what the step computes: "in bf16, the frozen weights in 4 bits". */
export function formatWords({ dtype, quantised, checkpointing }) {
  const bits = quantised === "none" ? "" : `, the frozen weights in ${quantised.toUpperCase()}`;
  return `in ${dtype}${bits}${checkpointing ? ", with checkpointing" : ""}`;
}

/** What is live in a scene, where the picture has no room to say it. */
export function legendWords(found, at) {
  const sizes = CATEGORIES.map((name, c) => [name, found.live[at * MANY + c]]).filter(([, size]) => size >= 1024);
  return sizes.map(([name, size]) => `<span><i class="of-${name}"></i>${name} ${binary(size)}</span>`).join(" ");
}

/** The finding: where the peak is, and what takes the most of it besides the weights. */
export function finding(film, found, point) {
  const { act } = openFilm(film).scenes[found.top];
  const live = found.live.subarray(found.top * MANY, found.top * MANY + MANY);
  const where = { forward: "in the forward pass", loss: "at the loss", backward: "in the backward pass", update: "at the update" }[ACTS[act]];
  const start = `Memory peaks ${where}`;
  if (ACTS[act] === "update" && live[GRADIENTS] > 0.1 * live[WEIGHTS]) {
    const states = live[WEIGHTS] + live[OPTIMIZER] + live[GRADIENTS];
    return `${start}: weights, gradients and optimizer states take ${binary(states)}`;
  }
  if (live[WEIGHTS] > 0.75 * found.peak) {
    return `${start}, but ${film.method === "full" ? "" : "frozen "}weights alone take ${binary(live[WEIGHTS])} of ${binary(found.peak)}`;
  }
  const sizes = [ACTIVATIONS, LOGITS, TEMPORARIES].map((c) => [live[c], CATEGORIES[c]]).sort((a, b) => b[0] - a[0]);
  const large = sizes.filter(([size]) => size > 0.2 * sizes[0][0]);
  const most = large.reduce((sum, [size]) => sum + size, 0);
  const names = large.map(([, name]) => name).join(" and ");
  return `${start}: ${names} for ${count(point.batch * point.seq)} tokens take ${binary(most)}`;
}

/** Why the peak is there, in two sentences at most. */
export function reason(film, found, point) {
  const { scenes, layers } = openFilm(film);
  const { act, part, layer } = scenes[found.top];
  const live = (c) => found.live[found.top * MANY + c];
  const kept = live(ACTIVATIONS) > 0
    ? `the ${binary(live(ACTIVATIONS))} of activations saved for the backward pass are in memory`
    : "no activations are saved";
  if (ACTS[act] === "update") {
    return `All gradients are in memory, and so are the optimizer's states for every number that trains. Its arithmetic needs
      ${binary(live(TEMPORARIES))} more for a moment. The activations are already freed.`;
  }
  if (ACTS[act] === "loss") {
    const table = live(LOGITS) > 0
      ? ` The logits are there in several copies: one score per vocabulary entry for each of
        ${count(point.batch * point.seq)} tokens.`
      : "";
    return `The forward pass has just ended: ${kept}.${table}`;
  }
  const where = part.includes("*") ? `layer ${layer + 1}'s ${partName(part)}` : `the ${partName(part) || "model"}`;
  if (ACTS[act] === "forward") return `The peak is in ${where}: ${kept}, and the layer's own intermediate values come on top.`;
  if (film.checkpointing) {
    return `The peak is in ${where}. Checkpointing runs this layer again and keeps all its activations for a moment.`;
  }
  const few = layer === layers - 1 ? "" : "first ";
  const below = layer > 0 && part.includes("*") ? ` by the ${few}${count(layer)} layers below` : "";
  return `The peak is in ${where}: the activations saved${below} are still in memory, and this layer's gradients come on top.`;
}

/** How the peak moves with the length, where it does. */
export function crossings(acts, stops) {
  if (acts.length < 2) return "";
  const name = (act) => (ACTS[act] === "loss" || ACTS[act] === "update" ? `the ${ACTS[act]}` : `the ${ACTS[act]} pass`);
  const [first, ...later] = acts;
  const parts = later.map(({ act, from }) => `${name(act)} from about ${count(stops[from])} on`);
  return `The peak moves with the sequence length: ${name(first.act)} up to ${count(stops[first.to - 1] ?? stops[0])} tokens, ${parts.join(", ")}.`;
}

/** Parts in one unit, rounded so that they add up to their rounded sum. */
function rounded(parts, unit, places) {
  const scale = 10 ** places / unit;
  const exact = parts.map((part) => part * scale);
  const floors = exact.map(Math.floor);
  const missing = Math.round(exact.reduce((a, b) => a + b, 0)) - floors.reduce((a, b) => a + b, 0);
  const order = exact.map((value, i) => [value - floors[i], i]).sort((a, b) => b[0] - a[0]);
  for (const [, i] of order.slice(0, missing)) floors[i] += 1;
  return floors.map((value) => value / 10 ** places);
}

/** The scene that is looked at, and the fullest of each act, by category. */
export function actsTable(found, at) {
  const unit = found.peak < 2 ** 30 ? 2 ** 20 : 2 ** 30;
  const places = unit === 2 ** 30 ? 2 : 1;
  const columns = [at, ...found.tops].map((scene) =>
    rounded(Array.from(found.live.subarray(scene * MANY, scene * MANY + MANY)), unit, places),
  );
  const cell = (value) => value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
  const rows = CATEGORIES.flatMap((name, c) =>
    columns.some((column) => column[c] > 0) ? [[name, ...columns.map((column) => cell(column[c]))]] : [],
  );
  rows.push(["total", ...columns.map((column) => cell(column.reduce((a, b) => a + b, 0)))]);
  return table([unit === 2 ** 30 ? "GiB" : "MiB", "now", ...ACTS], rows, rows.length - 1);
}
