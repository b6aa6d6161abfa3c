// The pictures of the training panel: the run among other seeds, how far each weight has moved, and the strength dial.

import { about, clamp, count, decimal, escape, inFull, percent } from "./format.js";
import { axisBottom, axisLeft, circle, curve, directLabels, line, linear, lossChart, outline, rect, text, ticks } from "./svg.js";

const [HIGH, LOW] = [190, 92]; // heights of the metric chart and the loss chart, in pixels
const MEAN = 25; // steps averaged in each point of the smoothed loss
const ALONE = 8; // up to this many other seeds get a line each
const TEST = 84; // room for the test rows to the right of the curves, in pixels

/** The last value of [[step, value], ...] up to a step. */
const valueAt = (checks, step) => (checks.findLast(([at]) => at <= step) ?? checks[0])[1];

/** The range of the metric's axis: wide from the start, so that it does not jump during a run. */
function rangeOf({ metric, chance, checks, others, earlier, guess, found }) {
  const all = [{ checks }, ...others, ...earlier].flatMap((run) => run.checks.map(([, value]) => value));
  const ends = [...others.map((run) => run.value), guess, found.value, found.low, found.high].filter((value) => typeof value === "number");
  const seen = [...all, ...ends];
  if (metric === "accuracy") return [Math.min(10 * Math.floor(chance / 10 - 1), ...seen), Math.max(90, ...seen)];
  return metric === "perplexity" ? [0, 1.05 * Math.max(10, ...seen)] : [Math.min(0, ...seen), Math.max(100, ...seen)];
}

/** Validation above, loss below, over the same steps; test rows on the right. For `run` see `read` in train_panel.js. */
export function drawRun(width, run) {
  const { steps, checks, losses, every, others, earlier, found, guess, metric, chance } = run;
  const [left, right, top, bottom] = [34, width - TEST, 24, 24 + HIGH];
  const [x, y] = [linear([0, steps], [left, right]), linear(rangeOf(run), [bottom, top])];
  const place = (points) => points.filter(([step]) => step <= steps).map(([step, value]) => [x(step), y(value)]);
  const parts = [text(0, 11, `validation ${metric}${metric === "accuracy" ? ", %" : ""}`, "tick")];
  parts.push(axisLeft(y, ticks(rangeOf(run), 5), [left, right], inFull));
  const curves = others.map((other) => other.checks).filter((own) => own.length); // some runs have no validation
  if (curves.length > 2) {
    const at = [...new Set(curves.flatMap((own) => own.map(([step]) => step)))].sort((a, b) => a - b);
    const ends = (pick) => at.map((step) => [step, pick(...curves.map((own) => valueAt(own, step)))]);
    parts.push(curve(place([...ends(Math.max), ...ends(Math.min).reverse()]), "train pale"));
  }
  if (others.length <= ALONE) parts.push(...others.map((other) => curve(place(other.checks), "stroke train faint")));
  const lines = earlier.map(({ label, checks: curve }) => ({ words: escape(label), kind: "tick end halo", points: place(curve) }));
  const shown = lines.filter(({ points }) => points.length > 1);
  parts.push(...shown.map(({ points }) => curve(points, "stroke frozen thin")));
  parts.push(directLabels(right - 4, shown.map((label) => ({ ...label, y: label.points.at(-1)[1] - 9 })), 12));
  if (guess !== null) {
    parts.push(line(left, y(guess), others.length > ALONE ? right : width, y(guess), "predicted ink"));
    parts.push(text(left + 4, y(guess) + (y(guess) < top + 10 ? 13 : -5), `your guess, ${about(guess)}`, "tick halo"));
  }
  if (curves.length > 2) {
    const [step, value] = curves[0][Math.min(2, curves[0].length - 1)];
    const lowest = Math.min(...curves.map((own) => valueAt(own, step)), value);
    parts.push(text(Math.min(x(step), right - 80), Math.min(bottom - 6, y(lowest) + 16), `${count(others.length)} other seeds`, "tick halo"));
  }
  const points = place(checks);
  if (points.length > 1) parts.push(curve(points, "stroke train"));
  parts.push(...points.map(([cx, cy]) => circle(cx, cy, 3.5, "train")));
  if (points.length && found.value === undefined) {
    const [cx, cy] = points.at(-1);
    parts.push(text(Math.min(cx + 8, right), cy - 8, decimal(checks.at(-1)[1]), "strong halo"));
  }
  parts.push(testRows(right + 42, y, { others, found, high: top, low: bottom }));

  const [start, end] = [bottom + 34, bottom + 34 + LOW];
  const nats = losses.filter((loss) => loss !== null);
  const guessing = chance ? Math.log(100 / chance) : 0;
  const span = [0, Math.max(1.4 * guessing, 1.02 * Math.max(0, ...nats)) || 5];
  parts.push(text(0, start - 9, `training loss${chance ? "" : ", nats"}`, "tick"), text(right + 8, end + 16, "steps", "tick"));
  const marked = { mark: guessing, name: `guessing ${decimal(guessing, 2)}` };
  const chart = { ...marked, steps, every, range: span, reach: Math.round(MEAN / 2 / every) };
  parts.push(lossChart([left, right, start, end], [losses], chart));
  return { svg: parts.join(""), height: end + 20 };
}

/** The result on the test rows, with its interval, among those of other seeds (if many, on their own scale). */
function testRows(x, y, { others, found, high, low }) {
  const values = [...others, { value: found.low }, { value: found.high }].map((run) => run.value).filter((value) => value !== undefined);
  const [lowest, highest] = [Math.min(...values), Math.max(...values)];
  const glass = others.length > ALONE && highest > lowest;
  const z = glass ? linear([lowest, highest], [low, high]) : y;
  const parts = others.map(({ value }, i) => circle(x + (((i * 7) % 13) - 6) * 2, z(value), 2.5, "ink seed"));
  if (glass) {
    parts.push(outline(x - 22, high - 6, 44, low - high + 12, "rule"));
    parts.push(...ticks([lowest, highest], 4).map((value) => text(x + 24, z(value) + 4, inFull(value), "tick")));
  }
  const name = text(x, 11, `${found.rows ? count(found.rows) : ""} test rows`, "tick mid");
  if (found.value === undefined) return others.length ? [...parts, name].join("") : "";
  const band = found.half ? rect(x - 20, z(found.high), 40, z(found.low) - z(found.high), "train pale") : "";
  const value = text(x, clamp(z(glass ? found.value : found.high ?? found.value) - 6, high - 1, low), decimal(found.value), "mid strong halo");
  return [band, ...parts, line(x - 20, z(found.value), x + 20, z(found.value), "stroke train"), name, value].join("");
}

/** A row of bars for each role, one bar per layer: |dW| / |W|. `moved`: [[layer, role, share], ...]. */
export function drawMoved(width, moved) {
  const [left, high] = [104, 34]; // pixels
  const roles = [...new Set(moved.map(([, role]) => role))];
  const sharesOf = (role) => moved.filter(([, name]) => name === role).map(([, , share]) => share);
  const [layers, largest] = [moved.map(([layer]) => layer), Math.max(1e-9, ...moved.map(([, , share]) => share))];
  const x = linear([Math.min(...layers), Math.max(...layers) + 1], [left, width]);
  const bars = moved.map(([layer, role, share]) => {
    const tall = ((high - 6) * share) / largest;
    return rect(x(layer), high * (roles.indexOf(role) + 1) - tall, clamp(x(1) - x(0) - 2, 1, 26), tall, "train");
  });
  const names = roles.map((role, i) => line(left, high * (i + 1), width, high * (i + 1), "rule") +
    text(0, high * (i + 1) - 4, `<tspan class="strong">${escape(role)}</tspan>: up to ${percent(Math.max(...sharesOf(role)))}`, "tick"));
  return { svg: [...names, ...bars].join(""), height: high * roles.length + 4 };
}

/** Probability against strength: one line for class 1 of two classes, else one per class. `p`: (strengths, classes). */
export function drawDial(width, { p, strengths, labels, strength }) {
  const two = labels.length === 2;
  const [left, right, top, bottom] = [36, width - (two ? 12 : 84), 12, 128];
  const x = linear([0, strengths.at(-1)], [left, right]);
  const y = linear([0, 1], [bottom, top]);
  const parts = [axisLeft(y, [0, 0.5, 1], [left, right], (share) => `${100 * share}%`)];
  parts.push(axisBottom(x, strengths.length > 2 ? [0, 0.5, 1, 1.5, 2] : [0, 1], bottom, about, [left, right]));
  parts.push(text(x(0) + 2, bottom + 30, "adapter off", "tick"), text(x(1), bottom + 30, "as trained", "tick mid"));
  const at = strengths.indexOf(strength);
  const shown = two ? [1] : labels.map((_, c) => c);
  const winner = p[at].indexOf(Math.max(...p[at]));
  for (const c of shown) parts.push(curve(p.map((row, i) => [x(strengths[i]), y(row[c])]), `stroke train ${two || c === winner ? "" : "faint"}`));
  if (two) parts.push(text(left + 6, top + 10, escape(labels[1]), "tick halo"), text(left + 6, bottom - 5, escape(labels[0]), "tick halo"));
  else parts.push(directLabels(right + 8, shown.map((c) => ({ y: y(p.at(-1)[c]), words: escape(labels[c]), kind: "tick" })), 13));
  const [off, on] = [0, strengths.indexOf(1)].map((i) => [x(strengths[i]), y(p[i][two ? 1 : winner])]);
  parts.push(circle(...off, 4, "frozen"), circle(...on, 4, "train"));
  parts.push(line(x(strength), top - 4, x(strength), bottom, "ray"), circle(x(strength), y(p[at][two ? 1 : winner]), 6, "train grip"));
  return { svg: parts.join(""), height: bottom + 36 };
}
