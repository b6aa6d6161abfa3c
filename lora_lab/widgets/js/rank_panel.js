// A matrix as a sum of rank-one pieces, and the accuracy of a model when every update is cut to its first r pieces.

import RANK_CSS from "./rank_panel.css";
import { button, drawn, folded, menu, slider, table } from "./controls.js";
import { about, count, escape, extent, percent, plural } from "./format.js";
import { panel } from "./panel.js";
import { bring, drawRanks, limitOf, paint, unpacked, withPiece } from "./rank_picture.js";
import { circle, group, outline, text } from "./svg.js";

const TRAITS = { data: {}, cuts: {}, choices: [], source: "", rank: 2 };
const STOPS = [...Array(17).keys(), 20, 24, 28, 32, 40, 48, 56, 64];
const KINDS = ["train", "other", "frozen"]; // colors of the updates, in order
const COLORS = { train: "var(--one)", other: "var(--other)" }; // of the controls
const LARGEST = 300; // pixels per side
const STRIP = 12;
const GAP = 44; // between the sum and the piece
const HEAD = 20; // room for captions
const ENOUGH = 0.8; // share of an update's gain that the headline looks for

const CANVASES = ["sum", "piece", "column", "line"].map((name) => `<canvas class="${name}" aria-hidden="true"></canvas>`);
const BODY = `<header><div class="title"></div></header>
<div class="body">
  <div><div class="picture drawn"><svg role="img"></svg>${CANVASES.join("")}</div><p class="key"></p></div>
  <div class="side">
    <div class="controls">${menu("source", "matrix")}${slider("rank", "pieces added", "train")}</div>
    <div class="row">${button("more", "add the next piece", "first")}${button("less", "take it away")}</div>
    <p class="big"></p><p class="words"></p>
  </div>
  <div class="below">
    <div data-for="cuts"><p class="sub measured"></p>${drawn("accuracy")}</div>
    <div><p class="sub">Energy of this matrix in its first r pieces</p>${drawn("energy")}</div>
    <div class="examples" data-for="examples"></div>
  </div>
</div>
<p class="about"></p>${folded("all ranks as a table")}`;

const share = (value) => (value > 0.9995 && value < 1 ? "99.9%" : `${(100 * value).toFixed(1)}%`); // "100.0%" only if exact

function start(p) {
  const ui = p.keep({ t: 1 }); // the share of the last piece that has been added
  const cache = new Map(); // unpacked matrices by name
  let now;

  function read() {
    const data = p.get("data");
    const source = data[p.get("source")] ? p.get("source") : Object.keys(data)[0];
    const shown = data[source];
    if (cache.get(source)?.packed !== shown) cache.set(source, { ...unpacked(shown), packed: shown });
    const matrix = cache.get(source);
    const rank = Math.min(p.get("rank"), matrix.maxRank);
    const { n, updates = {} } = p.get("cuts");
    const cut = updates[source];
    const kindOf = (name) => KINDS[Object.keys(updates).indexOf(name)] ?? "frozen";
    const at = cut ? cut.ranks.findLastIndex((r) => r <= rank) : -1;
    const all = shown.kept[matrix.maxRank][1] < 1 ? shown.full : matrix.maxRank; // number of nonzero pieces
    const both = Object.values(updates).some(({ others }) => others); // the first pieces alone, and all the others
    const stops = both ? cut.ranks.filter((r) => r <= matrix.maxRank) : [...STOPS.filter((r) => r < matrix.maxRank), matrix.maxRank];
    const [before, next] = both ? [stops.findLast((r) => r < rank), stops.find((r) => r > rank)] : [rank - 1, rank + 1];
    return { data, source, shown, matrix, rank, all, updates, cut, at, kindOf, kind: kindOf(source), n, stops, both, next, before };
  }

  // ---- drawing
  function draw() {
    now = read();
    const { matrix, shown, rank, cut, stops, data, source, all } = now;
    const available = p.get("choices").filter(([name]) => p.kernel || data[name]);
    p.choose("source", available, source);
    p.find("[data-for=source] > span").textContent = now.both ? "keep" : "matrix";
    p.find("select[name=source]").disabled = available.length < 2;
    p.offer({ cuts: Boolean(cut), examples: Boolean(cut?.sentences) });
    const spoken = `rank ${rank}, ${share(shown.kept[rank][1])} of the energy`;
    p.slide("rank", { values: stops, value: rank, words: `${rank} of ${all}`, spoken });
    p.find("input[name=rank]").ariaLabel = p.find("[data-for=rank] > span").textContent = cut?.others ? "pieces taken away" : "pieces added";
    p.button("more", { off: rank >= matrix.maxRank, words: `${cut?.others ? "take" : "add"} the next ${now.next > rank + 1 ? `${now.next - rank} pieces` : "piece"}${cut?.others ? " away" : ""}` });
    p.button("less", { off: rank === 0, words: `${cut?.others ? "put" : "take"} ${rank > now.before + 1 ? "them" : "it"} ${cut?.others ? "back" : "away"}` });
    p.find(".side").style.setProperty("--train", COLORS[now.kind] ?? (p.dark() ? "#c8c8c8" : "#555"));
    drawSum();
    drawCharts();
    const [big, words] = cut ? describeCut() : describeMatrix();
    p.fill({
      ".title": `${cut ? findingOf(cut) : findingOfMatrix()} <span class="gloss">Energy is the sum of the squared entries.</span>`,
      ".big": big,
      ".words": words,
      ".measured": now.both
        ? "Right answers if every matrix keeps only its first r pieces (blue) or all but these (orange)"
        : "Right answers when every matrix of the update is cut to rank r",
      ".examples": cut?.sentences ? examples() : "",
      ".about": cut ? escape(p.get("cuts").about ?? "") : "",
    });
    p.numbers(rankTable);
    return `${big}. ${words}`;
  }

  const choice = (name) => p.get("choices").find(([key]) => key === name) ?? [name, name, ""]; // with a label and an origin

  function place(name, ...box) {
    const [left, top, width, height] = box.map((length) => `${length}px`);
    const imageRendering = now.matrix.rows < 200 ? "pixelated" : "auto"; // cells, or a photograph
    Object.assign(p.find(`canvas.${name}`).style, { left, top, width, height, imageRendering });
  }

  function drawSum() {
    const { matrix, matrix: { rows, columns }, rank, kind, shown, source, cut } = now;
    const unit = Math.min(LARGEST, (p.width() - GAP - STRIP - 4) / 2) / Math.max(rows, columns);
    const [w, h] = [columns * unit, rows * unit].map((side) => Math.max(side, 6));
    const top = HEAD + STRIP + 4;
    const right = w + GAP + STRIP + 4; // where the piece begins
    bring(matrix, rank);
    const last = rank ? matrix.piece(rank - 1) : undefined;
    const partly = last && ui.t < 1 ? withPiece(matrix, last, ui.t - 1, matrix.sum) : matrix.sum;
    paint(p.find("canvas.sum"), rows, columns, kind, shown.limit, partly);
    place("sum", 0, top, w, h);
    for (const name of ["piece", "column", "line"]) p.find(`canvas.${name}`).hidden = !last;
    const frame = (x) => outline(x - 1, top - 1, w + 2, h + 2, "edge");
    const parts = [text(0, HEAD - 6, `${cut?.others ? "taken away: " : ""}${rank === 1 ? "the first piece" : rank ? `sum of ${rank} pieces` : "no piece"}`, "strong"), frame(0)];
    let key = `${escape(choice(source)[2])} ${shown.shape[0] > rows ? `${rows} × ${columns} of ` : ""}${shown.shape.map(count).join(" × ")}; light is positive, dark is negative.`;
    if (last) {
      const limit = limitOf(last);
      paint(p.find("canvas.piece"), rows, columns, kind, limit, withPiece(matrix, last));
      paint(p.find("canvas.column"), rows, 1, kind, 90, last.column);
      paint(p.find("canvas.line"), 1, columns, kind, 90, last.row);
      place("piece", right, top, w, h);
      place("column", right - STRIP - 4, top, STRIP, h);
      place("line", right, top - STRIP - 4, w, STRIP);
      const middle = top + h / 2;
      const name = `piece ${rank}${right + 148 > p.width() ? "" : " = column × row"}`;
      parts.push(text(Math.max(right - STRIP - 4, 124), HEAD - 6, name, "strong"), frame(right));
      parts.push(text(w + (GAP - 4) / 2, middle - 8, rank === 1 ? "=" : "+", "sign mid soft"));
      if (rank > 1) parts.push(`<path d="M${w + GAP - 8} ${middle}H${w + 8}m6 -4l-6 4l6 4" class="edge"/>`);
      const [contrast, energy] = [shown.limit / limit, shown.kept[rank][1] - shown.kept[rank - 1][1]];
      key += ` Piece ${rank} holds ${percent(energy)} of the energy.`;
      if (contrast > 1.05) key += ` (Drawn with ${about(contrast)} times the contrast.)`;
    }
    p.fill({ ".key": key });
    p.picture({ svg: group(parts), height: top + h + 4 }, `${choice(source)[1]}, ${rows} by ${columns}: the sum of its first
      ${rank} rank-one pieces${last ? `, and piece ${rank} beside it, a column times a row` : ""}.`);
  }

  function drawCharts() {
    const { shown, rank, cut, at, updates, kind, kindOf, n, source } = now;
    const series = [
      { kind, name: "this matrix", bold: true, points: shown.kept.map(([r, value]) => [r, 100 * value]) },
      { kind: "frozen", name: "shuffled (dashed)", dash: "predicted", points: shown.kept.map(([r, , value]) => [r, 100 * value]) },
    ];
    const [, energy, shuffled] = shown.kept[rank];
    const options = { series, range: [0, 100], full: shown.full, now: rank, ring: [rank, 100 * energy, kind] };
    p.picture(drawRanks(p.width("energy"), options), `Energy kept: ${share(energy)} at rank ${rank}; after shuffling,
      ${share(shuffled)}.`, "energy");
    if (!cut) return;
    const full = Math.max(...Object.values(updates).map(({ ranks }) => ranks.at(-1)));
    const lines = Object.entries(updates).map(([name, update]) => {
      const points = update.ranks.map((r, i) => [r, (100 * update.right[i]) / n]);
      if (points.at(-1)[0] < full) points.push([full, points.at(-1)[1]]); // nothing more to cut
      return { kind: kindOf(name), name: escape(update.label), bold: name === source, dots: name === source, points };
    });
    const [low, high] = extent(lines.flatMap(({ points }) => points.map(([, value]) => value / 10)));
    const range = [10 * Math.floor(low), 10 * Math.ceil(high)];
    const ring = [cut.ranks[at], (100 * cut.right[at]) / n, kind];
    const chart = drawRanks(p.width("accuracy"), { series: lines, range, full, now: rank, ring });
    const ends = lines.map(({ name, points }) => `${name} ${points.at(-1)[1].toFixed(1)}%`).join(", ");
    p.picture(chart, `Right answers from rank 0 to ${full}, ending at: ${ends}.`, "accuracy");
  }

  // ---- words
  function findingOf({ label: name, ranks, right, energy, others }) {
    if (others) return `${ranks[now.at] ? `All but the ${plural(ranks[now.at], "strongest piece")}` : "All pieces"} of every matrix: ${share(right[now.at] / now.n)} right`;
    const gain = right.at(-1) - right[0];
    if (gain < 0.02 * now.n) return `The ${escape(name)} update gains nothing, at any rank`;
    const at = right.findIndex((correct) => correct - right[0] >= ENOUGH * gain);
    const [part, kept] = [(right[at] - right[0]) / gain, energy[at]].map((part) => `${Math.round(100 * part)}%`);
    return `Rank ${ranks[at]} is enough for ${part} of the gain from ${escape(name)}, with ${kept} of the energy of all matrices`;
  }

  function findingOfMatrix() {
    const [needed] = now.shown.ninety;
    if (now.rank < Math.min(needed, now.matrix.maxRank)) return "How many pieces hold 90% of the matrix’s energy?";
    return `${count(needed)} of ${count(now.shown.full)} pieces hold 90% of the matrix’s energy`;
  }

  function describeCut() {
    const { cut, at, n, rank } = now;
    const [measured, name] = [cut.ranks[at], escape(cut.label)];
    const right = (i) => `${((100 * cut.right[i]) / n).toFixed(1)}%`;
    const big = `<b>${right(at)}</b> <span>right ${cut.others ? (measured ? `without ${plural(measured, "piece")}` : "with all pieces") : `at rank ${measured}`}</span>`;
    const pieces = measured === 1 ? "strongest piece" : `${measured} strongest pieces`;
    const between = measured === rank ? "" : ` The nearest measured ranks are ${measured} and ${cut.ranks[at + 1]}.`;
    if (cut.others) return [big, `${measured ? `Every matrix of the update loses its ${pieces} and keeps the others` : "Nothing is taken away yet"}. With all pieces, ${right(0)} of the answers are right.${between}`];
    if (at === cut.ranks.length - 1) return [big, `The ${name} update has no more pieces, so nothing is cut.`];
    const what = measured
      ? `In the ${name} update, every matrix keeps only its ${pieces}.`
      : `This is the base model with the trained head: nothing else of the ${name} update is left.`;
    const differ = `${count(cut.flips[at])} of ${count(n)} answers differ from those at this rank`;
    return [big, `${what} With nothing cut, ${right(cut.right.length - 1)} of the answers are right; ${differ}.${between}`];
  }

  function describeMatrix() {
    const { rank, shown, shown: { shape: [m, n] } } = now;
    const holds = (rank * (m + n)) / (m * n);
    const savings = holds < 1 ? `take ${percent(holds)} of the numbers in` : "take at least as many numbers as";
    return [
      `<b>${share(shown.kept[rank][1])}</b> <span>of the energy in ${plural(rank, "piece")}</span>`,
      `The same numbers, shuffled, would keep ${share(shown.kept[rank][2])}. A column and a row for each piece ${savings}
        the matrix.`,
    ];
  }

  /** Sentences that are right at this rank and above, and some that are still wrong. */
  function examples() {
    const { cut, at, kind } = now;
    const { labels } = p.get("cuts");
    const list = (places, later) => places.map((i) => {
      const [sentence, truth, answers] = cut.sentences[i];
      const right = [...answers].map((answer) => Number(answer) === truth);
      const dots = right.map((isRight, i) => circle(5 + 10 * i, 5, i === at ? 4 : 2.4, isRight ? kind : `no ${kind}`));
      const svg = `<svg aria-hidden="true" style="width: ${10 * dots.length + 2}px">${dots.join("")}</svg>`;
      const from = later ? `, right at rank ${cut.ranks[right.lastIndexOf(false) + 1]} and above` : "";
      return `<li>${svg}${escape(sentence)} <small>${escape(labels[truth])}${from}</small></li>`;
    }).join("") || "<li>None.</li>";
    const block = (head, items) => `<div><div class="head">${head}</div><ul>${items}</ul></div>`;
    return `${block(at ? `Right at rank ${cut.ranks[at]} and above` : "Right at every rank", list(cut.gained[at], false))}
      ${block(`Wrong at rank ${cut.ranks[at]}, right with nothing cut`, list(cut.lost[at], true))}
      <p class="sub">There is a dot for each rank (${cut.ranks.join(", ")}): filled if right, empty if wrong.</p>`;
  }

  function rankTable() {
    const { shown, cut, n, rank } = now;
    const ranks = cut?.ranks ?? shown.kept.map(([r]) => r).filter((r) => r === shown.full || (r & (r - 1)) === 0);
    const energies = Object.fromEntries(shown.kept.map(([r, ...shares]) => [r, shares.map(share)]));
    const rows = ranks.map((r, i) => [
      cut?.others ? `${r} taken away` : `rank ${r}`, ...(energies[r] ?? ["", ""]),
      ...(cut ? [share(cut.right[i] / n), ...(cut.others ? [] : [count(cut.flips[i]), share(cut.energy[i])])] : []),
    ]);
    const head = ["", "energy", "shuffled", ...(cut ? ["right", "answers that differ", "energy, whole model"] : [])].slice(0, cut?.others ? 4 : 6);
    return table(head, rows, ranks.findLastIndex((r) => r <= rank));
  }

  // ---- actions
  function go(rank) {
    p.keep({ t: 1 });
    p.stop();
    p.set({ rank });
  }

  const actions = {
    source(source) {
      const packed = p.get("data")[source];
      if (packed) p.set({ source, rank: Math.min(p.get("rank"), packed.scales.length) });
      else p.ask("data", { source });
    },
    rank: go,
    less: () => go(now.before),
    more() {
      p.keep({ t: 0 });
      p.set({ rank: now.next });
      p.play(500, (t) => p.keep({ t }));
    },
  };

  return { actions, draw };
}

export default panel({ title: "A matrix as a sum of rank-one pieces", css: RANK_CSS, traits: TRAITS, body: BODY, start });
