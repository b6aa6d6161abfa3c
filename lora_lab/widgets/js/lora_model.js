// A whole model as a treemap: each kind of matrix is a block, its area shows its size, and a strip of it is LoRA's share.

import { table } from "./controls.js";
import { about, bytes, clamp, count, escape, percent, sum } from "./format.js";
import { drawPatch } from "./lora_size.js";
import { group, rect, text } from "./svg.js";

export const BF16 = 2; // bytes per number in most models' files
const MIN_WIDTH = 2; // minimum width of a strip in pixels, to keep it visible; the patch is to scale
const HINT = `Area shows how many numbers a part holds. Click a block to add or remove its adapter. Blue strips are drawn at
  least ${MIN_WIDTH} pixels wide; the patch is to scale.`;

/** What LoRA of a given rank trains in a model: its rows with `trained`, and the totals. Counts are exact. */
export function modelCounts(model, targets, rank) {
  const rows = model.rows.map((row) => {
    const matching = targets.filter((target) => row.trains[target]);
    const trained = rank * sum(matching.map((target) => row.trains[target]));
    return { ...row, trained };
  });
  const [total, trained] = ["numbers", "trained"].map((key) => sum(rows.map((row) => row[key])));
  return { rows, total, trained, share: trained / total, rank, targets };
}

/** The largest rank that every chosen layer allows. */
export function maxRank(model, targets) {
  const sides = targets.flatMap((target) => model.rows.filter((row) => row.trains[target])
    .map((row) => Math.min(row.in, row.slices?.[target] ?? row.out)));
  return Math.min(...sides, 16384);
}

/** A treemap: items with a value, as [{ item, x, y, w, h }], in a box that is halved repeatedly along its longer side. */
function treemap(items, [x, y, w, h]) {
  if (items.length < 2) return items.map((item) => ({ item, x, y, w, h }));
  const [first, ...rest] = [...items].sort((a, b) => b.value - a.value);
  const total = sum(items.map((item) => item.value));
  const half = [first];
  let part = first.value / total;
  while (rest.length > 1 && part + rest[0].value / total / 2 < 0.5) {
    part += rest[0].value / total;
    half.push(rest.shift());
  }
  const [left, right] = w >= h
    ? [[x, y, part * w, h], [x + part * w, y, (1 - part) * w, h]]
    : [[x, y, w, part * h], [x, y + part * h, w, (1 - part) * h]];
  return [...treemap(half, left), ...treemap(rest, right)];
}

/** The blocks of a model in a box: one per kind of matrix, grouped by part of the model. */
function blocks(model, width, height) {
  const items = model.rows.map((row, at) => ({ at, group: row.group, value: row.numbers }));
  const groups = [...new Set(items.map((item) => item.group))].map((name) => {
    const inner = items.filter((item) => item.group === name);
    return { inner, value: sum(inner.map((item) => item.value)) };
  });
  return treemap(groups, [0, 0, width, height]).flatMap(({ item, x, y, w, h }) =>
    treemap(item.inner, [x + 1, y + 1, Math.max(1, w - 2), Math.max(1, h - 2)]));
}

/** Draw the map, with the adapters of all customers in one patch. Returns { svg, height, onto }. */
export function drawModel(full, model, counts, patch, customers) {
  const left = 14; // room for a lifted patch that overlaps the corner
  const width = Math.min(full, 640) - left;
  const height = clamp(0.68 * width, 230, 430);
  const parts = [];
  for (const { item, x, y, w: wide, h: high } of blocks(model, width, height)) {
    const row = counts.rows[item.at];
    const [w, h] = [wide - 2, high - 2]; // a gap between blocks
    const box = [left + x + 1, y + 1, w, h];
    const inner = [rect(...box, "block")];
    const thick = (side) => Math.max(MIN_WIDTH, Math.min(1, row.trained / row.numbers) * side);
    if (row.trained) inner.push(rect(box[0], box[1], w >= h ? thick(w) : w, w >= h ? h : thick(h), "train")); // A and B, to scale
    const kind = Object.keys(row.trains).length ? "tile can" : "tile";
    parts.push(group([...inner, ...names(box, row, counts.rows)], `class="${kind}" data-row="${item.at}"`));
  }
  const whose = customers > 1 ? `${count(customers)} adapters` : "all A and B";
  const name = width > 360 ? `${whose} in one patch${patch.dropped ? "" : ": drag it onto the model"}` : "";
  const gathered = drawPatch([left, 0, width, height], customers * counts.share, patch, [name, "", "the model"]);
  if (counts.trained) parts.push(gathered.svg);
  return { svg: parts.join(""), height: height + 16, onto: gathered.onto };
}

/** The name and shape of a block, if there is room for them. */
function names([x, y, w, h], row, rows) {
  if (w < 7.2 * row.label.length + 12 || h < 20) return [];
  const sides = row.in ? [...(row.count > 1 ? [row.count] : []), row.out, row.in].map(count) : [];
  const moe = row.group === "experts" && rows.find(({ label }) => label === "router");
  const lines = moe ? [`${moe.count} layers`, `× ${moe.out} experts`, `× ${sides[1]}`, `× ${sides[2]}`] : [sides.join(" × ")];
  const fits = h > 26 + 14 * lines.length && w > 6.4 * Math.max(...lines.map((words) => words.length)) + 12;
  const below = fits ? lines.map((words, at) => text(x + 9, y + 32 + 14 * at, words, "soft small halo")) : [];
  return [text(x + 9, y + 17, escape(row.label), `halo ${row.trained ? "strong" : ""}`), ...below];
}

/** A sentence about one block. */
export function describeRow(row) {
  if (!row) return HINT;
  const name = `<b>${escape(row.label)}</b>`;
  if (!row.in) return `${name}: ${count(row.numbers)} numbers that LoRA does not adapt.`;
  const even = (row.in * row.out) / (row.in + row.out);
  const what = row.count > 1 ? `${count(row.count)} matrices of` : "a matrix of";
  const train = row.trained ? `LoRA trains ${count(row.trained)} (${percent(row.trained / row.numbers)})` : "frozen";
  return `${name}: ${what} ${count(row.out)} × ${count(row.in)}, ${count(row.numbers)} numbers; ${train}.
    Break-even at rank ${about(even)}.`;
}

/** [title, headline, sentence]. */
export function describeModel(name, { rows, total, trained, share }, customers) {
  const none = [`Without an adapter, nothing in ${escape(name)} trains`, "<b>0</b> <span>parameters to train</span>"];
  if (!trained) return [...none, "No layer has an adapter. Choose at least one layer."];
  const big = `<b>${about(share < 1 ? 1 / share : share)}×</b> <span>${share < 1 ? "fewer" : "as many"} parameters to train</span>`;
  const title = `LoRA on ${escape(name)} trains ${percent(share)} of its size`;
  if (customers > 1) {
    const [many, one, all] = [count(customers), BF16 * total, BF16 * customers * trained];
    const disk = `${many} full models take ${bytes(customers * one)}. One model (${bytes(one)}) and ${many} adapters (${bytes(all)})
      take ${bytes(one + all)}, at ${BF16} bytes a number (bf16).`;
    return [title, `<b>${about((customers * one) / (one + all))}×</b> <span>less disk for ${many} customers</span>`, disk];
  }
  const experts = rows.some((row) => row.trained && row.group === "experts") ? " Each expert has its own adapter." : "";
  const words = `Stored: the model's ${count(total)} + ${count(trained)}. Trained: ${count(trained)}, which is
    ${percent(share)}.${experts} At ${BF16} bytes a number (bf16), ${escape(name)} takes ${bytes(BF16 * total)}, and its adapter
    ${bytes(BF16 * trained)}; in fp32, twice as much.`;
  return [title, big, words];
}

/** Every kind of layer in numbers: what the picture shows, for exact values and for screen readers. */
export function modelTable(counts) {
  const head = ["layer", "out × in", "how many", "numbers", "LoRA trains", "share", "break-even rank"];
  const lines = counts.rows.map((row) => [
    escape(row.label),
    row.in ? `${count(row.out)} × ${count(row.in)}` : "",
    count(row.count),
    count(row.numbers),
    row.trained ? count(row.trained) : "frozen",
    percent(row.trained / row.numbers),
    row.in ? about((row.in * row.out) / (row.in + row.out)) : "",
  ]);
  lines.push(["total", "", "", count(counts.total), count(counts.trained), percent(counts.share), ""]);
  return table(head, lines, lines.length - 1);
}
