// A whole model as a treemap: each kind of matrix is a block, area is numbers, and what LoRA adds is a sliver of it.

import { table } from "./controls.js";
import { about, bytes, clamp, count, escape, percent } from "./format.js";
import { drawPatch } from "./lora_size.js";
import { group, outline, rect, text } from "./svg.js";
import { squarify } from "./treemap.js";

const FP32 = 4; // bytes of a number in an adapter's file
const BF16 = 2; // and of one in most base models'
const SEEN = 2; // pixels that a sliver has at least, or nobody would see it; the patch is to scale
const ROWS = 7; // of the table beside the picture

/** What LoRA of a rank trains where on a model: its rows with `trained`, and the sums. Counts are exact. */
export function modelCounts(model, targets, rank) {
  const rows = model.rows.map((row) => {
    const hit = targets.filter((target) => row.trains[target]);
    const trained = hit.reduce((sum, target) => sum + rank * row.trains[target], 0);
    const sliced = row.slices && !hit.includes("all-linear"); // PEFT's file holds a fused layer's A and B whole
    const stored = sliced ? hit.length * rank * (row.in + row.out) * row.count : trained;
    return { ...row, trained, stored, hit };
  });
  const total = rows.reduce((sum, row) => sum + row.numbers, 0);
  const trained = rows.reduce((sum, row) => sum + row.trained, 0);
  const stored = rows.reduce((sum, row) => sum + row.stored, 0);
  return { rows, total, trained, stored, share: trained / total, rank, targets };
}

/** The largest rank that every chosen layer has. */
export function mostRank(model, targets) {
  const sides = model.rows.flatMap((row) =>
    targets
      .filter((target) => row.trains[target])
      .map((target) => Math.min(row.in, row.slices?.[target] ?? row.out)),
  );
  return Math.min(...sides, 16384);
}

const placed = new WeakMap(); // blocks of a model by width: they do not depend on the rank

/** The blocks of a model in a box: kinds of matrix, those of one part of the model together. */
function blocks(model, width, height) {
  const kept = placed.get(model);
  if (kept?.width === width && kept.height === height) return kept.blocks;
  const groups = {};
  model.rows.forEach((row, at) => (groups[row.group] ??= []).push(at));
  const largest = (a, b) => b.value - a.value;
  const valued = Object.values(groups).map((all) => {
    const inner = all.map((at) => ({ at, value: model.rows[at].numbers })).sort(largest);
    return { inner, value: inner.reduce((sum, one) => sum + one.value, 0) };
  });
  const found = squarify(valued.sort(largest), [0, 0, width, height]).flatMap(({ item, x, y, w, h }) =>
    squarify(item.inner, [x + 1, y + 1, Math.max(1, w - 2), Math.max(1, h - 2)]),
  );
  placed.set(model, { width, height, blocks: found });
  return found;
}

/** { svg, height, onto } of the map; `over` is the row under the pointer. */
export function drawModel(full, model, counts, patch, over) {
  const left = 14; // where a lifted patch lies across the corner
  const width = Math.min(full, 640) - left;
  const height = clamp(0.68 * width, 230, 430);
  const parts = [];
  for (const { item, x, y, w, h } of blocks(model, width, height)) {
    const row = counts.rows[item.at];
    const box = [left + x, y, w, h];
    const adapted = row.trained > 0;
    const inner = [rect(...box, "block frost"), layers(box, row.count)];
    const thin = adapted ? sliver(box, row.trained / row.numbers) : null;
    if (adapted) inner.push(rect(...thin, "train"));
    inner.push(outline(...box, "rim"), ...names(box, thin ?? [x, y, 0, 0], row));
    const can = Object.keys(row.trains).length > 0;
    const kind = `tile${can ? " can" : ""}${over === item.at ? " over" : ""}`;
    parts.push(group(inner, `class="${kind}" data-row="${item.at}"`));
  }
  const words = width > 330 ? ["all A and B in one patch", "drag it onto the model", "the model"] : ["", "", "the model"];
  const gathered = drawPatch([left, 0, width, height], counts.share, patch, words);
  if (counts.trained) parts.push(gathered.svg);
  return { svg: parts.join(""), height: height + 16, onto: gathered.onto };
}

/** The layers of a block as faint lines, where there is room for them. */
function layers([x, y, w, h], many) {
  const long = Math.max(w, h);
  if (many < 2 || long / many < 5) return "";
  const cuts = Array.from({ length: many - 1 }, (_, i) => ((i + 1) * long) / many);
  const path = cuts.map((at) => (w >= h ? `M${(x + at).toFixed(1)} ${y}v${h}` : `M${x} ${(y + at).toFixed(1)}h${w}`));
  return `<path d="${path.join("")}" class="cuts"/>`;
}

/** Where A and B of a block lie, in the block's own scale, along its shorter side: [x, y, w, h]. */
function sliver([x, y, w, h], share) {
  const part = Math.min(1, share);
  return w >= h ? [x, y, Math.max(SEEN, part * w), h] : [x, y, w, Math.max(SEEN, part * h)];
}

/** What a block is called and its shape, beside its sliver; on it where nothing is left. */
function names([left, top, wide, high], [, , sw, sh], row) {
  const room = 7.2 * row.label.length + 12;
  const along = wide >= high;
  const covered = along ? sw > wide - room : sh > high - 20;
  const [x, y] = covered ? [left, top] : [left + (along ? sw : 0), top + (along ? 0 : sh)];
  const [w, h] = [left + wide - x, top + high - y];
  if (w < room || h < 20) return [];
  if (covered) return [text(x + 9, y + 17, escape(row.label), "on strong")];
  const kind = `halo ${row.trained ? "train strong" : ""}`;
  const lines = [text(x + 7, y + 17, escape(row.label), kind)];
  const shape = row.in ? `${row.count > 1 ? `${count(row.count)} × ` : ""}${count(row.out)} × ${count(row.in)}` : "";
  if (h > 40 && w > 6.4 * shape.length + 12) lines.push(text(x + 7, y + 32, shape, "soft small halo"));
  return lines;
}

/** One block in a sentence. */
export function tellRow(row) {
  if (!row) {
    return `Area shows how many numbers a part holds. Click a block to add or remove its adapter. Blue slivers are drawn at
      least ${SEEN} pixels wide; the patch is to scale.`;
  }
  const name = `<b>${escape(row.label)}</b>`;
  if (!row.in) return `${name}: ${count(row.numbers)} numbers, to which LoRA adds nothing.`;
  const even = (row.in * row.out) / (row.in + row.out);
  const what = row.count > 1 ? `${count(row.count)} matrices of` : "a matrix of";
  const train = row.trained ? `LoRA trains ${count(row.trained)}, ${percent(row.trained / row.numbers)}` : "frozen";
  return `${name}: ${what} ${count(row.out)} × ${count(row.in)}, ${count(row.numbers)} numbers; ${train}.
    Break-even at rank ${about(even)}.`;
}

/** [title, headline, sentence, table] in words and numbers. */
export function tellModel(name, counts) {
  const { rows, total, trained, stored, share, rank, targets } = counts;
  if (!trained) return [`Without an adapter, nothing of ${escape(name)} trains`, "<b>0</b> <span>numbers train</span>", "No layer has an adapter. Choose at least one.", ""];
  const less = share < 1;
  const big = `<b>${about(less ? 1 / share : share)}×</b> <span>${less ? "fewer" : "as many"} numbers to train</span>`;
  const fused = stored > trained ? " The file holds fused layers whole, so it has more numbers than train." : "";
  const experts = rows.some((row) => row.trained && row.group === "experts");
  const each = experts ? " Each expert has its own adapter." : "";
  const words = `Stored: the model's ${count(total)} + ${count(trained)}. Trained: ${count(trained)}, which is
    ${percent(share)}.${each} The adapter file: ${count(stored)} numbers of ${FP32} bytes, ${bytes(FP32 * stored)}. In bf16,
    ${escape(name)} itself takes ${bytes(BF16 * total)}.${fused}`;
  const own = rows.filter((row) => row.trained);
  const shown = own.slice(0, own.length > ROWS ? ROWS - 1 : ROWS);
  const lines = shown.map((row) => [escape(row.label), count(row.count), count(row.trained)]);
  const left = own.slice(shown.length);
  if (left.length) {
    const sum = (key) => left.reduce((all, row) => all + row[key], 0);
    lines.push([`${left.length} more kinds`, count(sum("count")), count(sum("trained"))]);
  }
  lines.push([`rank ${count(rank)}, ${escape(targets.join(", "))}`, "", count(trained)]);
  const title = `LoRA on ${escape(name)} trains ${percent(share)} of its size`;
  return [title, big, words, table(["adapted", "matrices", "numbers trained"], lines, lines.length - 1)];
}

/** Every kind of layer in numbers: what the picture shows, for those who do not see it or want to know exactly. */
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
