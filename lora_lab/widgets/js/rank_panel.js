// A matrix, one rank-one piece after another, and what is left of a model when every update is cut to the first r.

import RANK_CSS from "./rank_panel.css";
import { button, menu, slider, table } from "./controls.js";
import { about, count, escape, percent } from "./format.js";
import { panel } from "./panel.js";
import { drawRanks } from "./rank_chart.js";
import { bring, limitOf, paint, unpacked, withPiece } from "./rank_sum.js";
import { circle, group, line, outline, text } from "./svg.js";

const TRAITS = { data: {}, cuts: {}, choices: [], source: "", rank: 2 };
const STOPS = [...Array(17).keys(), 20, 24, 28, 32, 40, 48, 56, 64];
const KINDS = ["train", "other", "frozen"]; // of the updates, in their order
const OWN = { train: "var(--one)", other: "var(--other)" }; // of the controls
const LARGEST = 300; // pixels of a side
const STRIP = 12;
const GAP = 44; // between the sum and the piece
const HEAD = 20; // above, for captions
const ENOUGH = 0.8; // of what an update gains

const drawn = (name) => `<div class="${name} drawn"><svg role="img"></svg></div>`;
const BODY = `<header><div class="title"></div></header>
<div class="body">
  <div>
    <div class="picture drawn"><svg role="img"></svg>${["sum", "piece", "column", "line"]
      .map((name) => `<canvas class="${name}" aria-hidden="true"></canvas>`)
      .join("")}</div>
    <p class="key"></p>
  </div>
  <div class="side">
    <div class="controls">${menu("source", "matrix")}${slider("rank", "pieces added", "train")}</div>
    <div class="row">${button("more", "add the next piece", "first")}${button("less", "take it away")}</div>
    <p class="big"></p><p class="words"></p>
    <table class="numbers"></table>
  </div>
  <div class="below">
    <div data-for="cuts"><p class="sub">Right answers, every matrix of the update cut to rank r</p>${drawn("accuracy")}</div>
    <div><p class="sub">Energy of this matrix in its first r pieces</p>${drawn("energy")}</div>
    <div class="examples" data-for="examples"></div>
  </div>
</div>
<p class="about"></p>
<details><summary>all ranks as a table</summary><div class="scrolls" tabindex="0" role="group" aria-label="all ranks as a table">
  <table class="all"></table></div></details>`;

const share = (value) => (value > 0.9995 && value < 1 ? "99.9%" : `${(100 * value).toFixed(1)}%`); // 100.0% only if it is

function start(p) {
  const ui = { t: 1, wanted: "" };
  const kept = new Map(); // matrices by name, unpacked
  let now;

  function read() {
    const data = p.get("data");
    const source = data[p.get("source")] ? p.get("source") : Object.keys(data)[0];
    const shown = data[source];
    if (kept.get(source)?.of !== shown) kept.set(source, { ...unpacked(shown), of: shown });
    const matrix = kept.get(source);
    const rank = Math.min(p.get("rank"), matrix.most);
    const updates = p.get("cuts").updates ?? {};
    const cut = updates[source];
    const names = Object.keys(updates);
    const kindOf = (name) => KINDS[Math.min(names.indexOf(name), KINDS.length - 1)] ?? "frozen";
    const at = cut ? cut.ranks.findLastIndex((one) => one <= rank) : -1;
    const stops = [...new Set([...STOPS.filter((stop) => stop < matrix.most), matrix.most])];
    const all = matrix.most < STOPS.at(-1) ? matrix.most : shown.full; // pieces that are not zero
    return { data, source, shown, matrix, rank, all, updates, cut, at, kindOf, kind: kindOf(source), n: p.get("cuts").n, stops };
  }

  // ---- drawing

  function draw() {
    now = read();
    const { matrix, shown, rank, cut, stops } = now;
    offerMatrices();
    p.offer(["source", "rank", ...(cut ? ["cuts", "examples"] : [])]);
    p.slide("rank", { values: stops, value: rank, words: `${rank} of ${now.all}`, spoken: `rank ${rank}, ${share(shown.kept[rank][1])} of the energy` });
    p.one("button[name=more]").disabled = rank >= matrix.most;
    p.one("button[name=less]").disabled = rank === 0;
    p.one(".side").style.setProperty("--train", OWN[now.kind] ?? (p.dark() ? "#c8c8c8" : "#555"));
    drawSum();
    drawCharts();
    const [big, words] = cut ? tellCut() : tellMatrix();
    p.fill({
      ".title": cut ? findingOf(cut) : findingOfMatrix(),
      ".big": big,
      ".words": words + (failure() ? ` <strong>${escape(failure())}</strong>` : ""),
      ".numbers": numbers(),
      ".examples": cut ? examples() : "",
      ".about": cut ? escape(p.get("cuts").about ?? "") : "",
    });
    fillTable();
    return `${big}. ${words}`;
  }

  const failure = () => (now.data[ui.wanted]?.error ? `${label(ui.wanted)}: ${now.data[ui.wanted].error}` : "");
  const label = (name) => p.get("choices").find(([one]) => one === name)?.[1] ?? name;
  const origin = (name) => p.get("choices").find(([one]) => one === name)?.[2] ?? "";

  function offerMatrices() {
    const there = p.get("choices").filter(([name]) => p.kernel || (now.data[name] && !now.data[name].error));
    p.choose("source", there, now.source);
    p.one("select[name=source]").disabled = there.length < 2;
  }

  function place(name, x, y, width, height) {
    Object.assign(p.one(`canvas.${name}`).style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
  }

  function drawSum() {
    const { matrix, rank, kind, shown } = now;
    const { rows, columns } = matrix;
    const longest = Math.min(LARGEST, (p.width() - GAP - STRIP - 4) / 2);
    const unit = longest / Math.max(rows, columns);
    const [w, h] = [columns * unit, rows * unit].map((side) => Math.max(side, 6));
    const top = HEAD + STRIP + 4;
    const right = w + GAP + STRIP + 4; // where the piece begins
    bring(matrix, rank);
    const last = rank ? matrix.piece(rank - 1) : undefined;
    const partly = last && ui.t < 1 ? withPiece(matrix, last, ui.t - 1, matrix.sum) : matrix.sum;
    paint(p.one("canvas.sum"), rows, columns, kind, shown.limit, partly);
    place("sum", 0, top, w, h);
    for (const name of ["piece", "column", "line"]) p.one(`canvas.${name}`).hidden = !last;
    const parts = [text(0, HEAD - 6, rank === 1 ? "the first piece" : `sum of ${rank} pieces`, "strong"), outline(-1, top - 1, w + 2, h + 2, "edge")];
    let contrast = 1;
    if (last) {
      const limit = limitOf(last);
      contrast = shown.limit / limit;
      paint(p.one("canvas.piece"), rows, columns, kind, limit, withPiece(matrix, last));
      paint(p.one("canvas.column"), rows, 1, kind, 90, last.column);
      paint(p.one("canvas.line"), 1, columns, kind, 90, last.row);
      place("piece", right, top, w, h);
      place("column", right - STRIP - 4, top, STRIP, h);
      place("line", right, top - STRIP - 4, w, STRIP);
      parts.push(text(right - STRIP - 4, HEAD - 6, `piece ${rank} = column × row`, "strong"), outline(right - 1, top - 1, w + 2, h + 2, "edge"));
      const middle = top + h / 2;
      parts.push(text(w + (GAP - 4) / 2, middle - 8, rank === 1 ? "=" : "+", "sign mid soft"));
      if (rank > 1) parts.push(line(w + GAP - 8, middle, w + 8, middle, "edge"), line(w + 8, middle, w + 14, middle - 4, "edge"), line(w + 8, middle, w + 14, middle + 4, "edge"));
    }
    const more = last && contrast > 1.05 ? ` It is drawn ${about(contrast)} times stronger than the sum.` : "";
    p.fill({ ".key": `${escape(origin(now.source))} ${count(rows)} × ${count(columns)}; light is positive, dark is negative. ${last ? `Piece ${rank} holds ${percent(shown.kept[rank][1] - shown.kept[rank - 1][1])} of the energy.${more}` : ""}` });
    p.picture(group(parts), top + h + 4, `${label(now.source)}, ${rows} by ${columns}: the sum of its first ${rank} rank-one pieces${last ? `, and piece ${rank} beside it, a column times a row` : ""}.`);
  }

  function drawCharts() {
    const { shown, rank, cut, at, updates, kind, kindOf, n, source } = now;
    const series = [
      { kind, name: "this matrix", bold: true, points: shown.kept.map(([r, value]) => [r, 100 * value]) },
      { kind: "frozen", name: "shuffled", points: shown.kept.map(([r, , value]) => [r, 100 * value]) },
    ];
    const energy = drawRanks(p.width(".energy"), { series, range: [0, 100], full: shown.full, now: rank, ring: [rank, 100 * shown.kept[rank][1], kind] });
    p.picture(energy.svg, energy.height, `Energy kept: ${share(shown.kept[rank][1])} at rank ${rank}; the same numbers shuffled ${share(shown.kept[rank][2])}.`, ".energy svg");
    if (!cut) return;
    const full = Math.max(...Object.values(updates).map((one) => one.ranks.at(-1)));
    const lines = Object.entries(updates).map(([name, one]) => {
      const points = one.ranks.map((r, i) => [r, (100 * one.right[i]) / n]);
      if (points.at(-1)[0] < full) points.push([full, points.at(-1)[1]]); // nothing more to cut
      return { kind: kindOf(name), name: escape(one.label), bold: name === source, dots: name === source, points };
    });
    const values = lines.flatMap((one) => one.points.map(([, value]) => value));
    const range = [Math.floor(Math.min(...values) / 10) * 10, Math.ceil(Math.max(...values) / 10) * 10];
    const ring = [cut.ranks[at], (100 * cut.right[at]) / n, kind];
    const chart = drawRanks(p.width(".accuracy"), { series: lines, range, full, now: rank, ring });
    const told = lines.map((one) => `${one.name} from ${one.points[0][1].toFixed(1)}% to ${one.points.at(-1)[1].toFixed(1)}%`);
    p.picture(chart.svg, chart.height, `Right answers from rank 0 to ${full}: ${told.join("; ")}.`, ".accuracy svg");
  }

  // ---- words

  function findingOf({ label: name, ranks, right, energy }) {
    const gain = right.at(-1) - right[0];
    if (gain < 0.02 * now.n) return `The ${escape(name)} update gains nothing, at any rank`;
    const at = right.findIndex((one) => one - right[0] >= ENOUGH * gain);
    return `Rank ${ranks[at]} holds ${percent((right[at] - right[0]) / gain)} of what ${escape(name)} gained, in ${percent(energy[at])} of its energy`;
  }

  function findingOfMatrix() {
    const [own, shuffled] = now.shown.ninety;
    return `${count(own)} of ${count(now.shown.full)} pieces hold 90% of its energy; shuffled, it takes ${count(shuffled)}`;
  }

  function tellCut() {
    const { cut, at, n, rank } = now;
    const measured = cut.ranks[at];
    const whole = at === cut.ranks.length - 1;
    const all = `${((100 * cut.right.at(-1)) / n).toFixed(1)}%`;
    const big = `<b>${((100 * cut.right[at]) / n).toFixed(1)}%</b> <span>right at rank ${measured}</span>`;
    const name = escape(cut.label);
    const what = whole ? `The ${name} update has no more pieces, so nothing is cut.`
      : measured === 0 ? `The base model with the head that was trained: nothing else of the ${name} update is left.`
      : `Of the ${name} update, every matrix keeps its ${measured === 1 ? "strongest piece" : `${measured} strongest pieces`}.`;
    const flips = whole ? "" : ` With nothing cut ${all} are right; ${count(cut.flips[at])} of ${count(n)} answers differ from that.`;
    const between = measured === rank || whole ? "" : ` Measured at ranks ${measured} and ${cut.ranks[at + 1]}.`;
    return [big, what + flips + between];
  }

  function tellMatrix() {
    const { shown, rank, matrix } = now;
    const holds = rank * (matrix.rows + matrix.columns);
    const all = matrix.rows * matrix.columns;
    const saves = holds < all ? `${percent(holds / all)} as many numbers as the matrix` : "no saving: as many numbers as the matrix, or more";
    return [
      `<b>${share(shown.kept[rank][1])}</b> <span>of the energy in ${rank} piece${rank === 1 ? "" : "s"}</span>`,
      `The same numbers, shuffled, would keep ${share(shown.kept[rank][2])}. A column and a row for each piece are ${saves}.`,
    ];
  }

  function numbers() {
    const { shown, rank, matrix, cut, at } = now;
    const rows = [
      ["energy, this matrix", share(shown.kept[rank][1]), "100%"],
      ["the same, shuffled", share(shown.kept[rank][2]), "100%"],
      ["numbers", count(rank * (matrix.rows + matrix.columns)), count(matrix.rows * matrix.columns)],
    ];
    if (cut) rows.splice(2, 0, [`energy, whole model${cut.ranks[at] === rank ? "" : `, rank ${cut.ranks[at]}`}`, share(cut.energy[at]), "100%"]);
    return table(["", `rank ${rank}`, `all ${now.all}`], rows);
  }

  /** Sentences that are right from this rank on, and some that are not yet. */
  function examples() {
    const { cut, at } = now;
    const labels = p.get("cuts").labels;
    const list = (places, words) => places.map((i) => {
      const [sentence, truth, answers] = cut.sentences[i];
      const dots = [...answers].map((answer, rank) => {
        const kind = `${Number(answer) === truth ? "" : "no "}${now.kind}`;
        return circle(5 + 10 * rank, 5, rank === at ? 4 : 2.4, kind);
      });
      const from = cut.ranks[[...answers].findLastIndex((answer) => Number(answer) !== truth) + 1];
      return `<li><svg aria-hidden="true" style="width: ${10 * dots.length + 2}px">${dots.join("")}</svg>${escape(sentence)} <small>${escape(labels[truth])}${words(from)}</small></li>`;
    }).join("");
    const head = at === 0 ? "Right at every rank" : `Right from rank ${cut.ranks[at]} on`;
    const gained = list(cut.gained[at], () => "") || "<li>None.</li>";
    const lost = list(cut.lost[at], (from) => `, right from rank ${from} on`) || "<li>None.</li>";
    return `<div><div class="head">${head}</div><ul>${gained}</ul></div><div><div class="head">Wrong at rank ${cut.ranks[at]}, right in the end</div><ul>${lost}</ul></div>
      <p class="sub">A dot for each rank, ${cut.ranks.join(", ")}: filled is right, hollow is wrong.</p>`;
  }

  function fillTable() {
    if (!p.one("details").open) return;
    const { shown, cut, n } = now;
    const ranks = cut ? cut.ranks : shown.kept.map(([r]) => r).filter((r) => r === shown.full || (r & (r - 1)) === 0);
    const energies = Object.fromEntries(shown.kept.map(([r, ...both]) => [r, both.map(share)]));
    const rows = ranks.map((r, i) => [
      `rank ${r}`, ...(energies[r] ?? ["", ""]),
      ...(cut ? [share(cut.right[i] / n), count(cut.flips[i]), share(cut.energy[i])] : []),
    ]);
    const head = ["", "energy", "shuffled", ...(cut ? ["right", "answers that differ", "energy, whole model"] : [])];
    p.fill({ ".all": table(head, rows, ranks.findLastIndex((r) => r <= now.rank)) });
  }

  // ---- what controls do

  function go(rank) {
    p.stop();
    ui.t = 1;
    p.set({ rank });
  }

  const actions = {
    source(source) {
      ui.wanted = source;
      if (p.get("data")[source] && !p.get("data")[source].error) p.set({ source, rank: Math.min(p.get("rank"), p.get("data")[source].scales.length) });
      else p.ask("data", { source });
    },
    rank: go,
    less: () => go(now.rank - 1),
    more() {
      ui.t = 0;
      p.set({ rank: now.rank + 1 });
      p.play(500, (t) => {
        ui.t = t;
      });
    },
  };

  p.one("details").addEventListener("toggle", fillTable);
  return { actions, draw };
}

export default panel({ title: "A matrix as a sum of rank-one pieces", css: RANK_CSS, traits: TRAITS, body: BODY, start });
