// The chosen cell of the playground: every seed's result on a line, its loss curves, and what is to be said of them.

import { letter } from "./controls.js";
import { about, capital, clamp, count, decimal } from "./format.js";
import { axisBottom, axisLeft, circle, cross, curve, group, line, linear, text, ticks } from "./svg.js";
import { rateName } from "./sweep_map.js";

const dead = (run) => run.state === "collapsed" || run.state === "failed";

/** Every run a dot on the scale of all runs; below them their mean and its interval; the best cell's mean as a line. */
export function drawResults(width, cell, best, [low, high], unit) {
  const [left, right, top] = [8, width - 8, 20];
  const x = linear([low, high], [left, right]);
  const within = (value) => Math.min(right, Math.max(left, x(value)));
  const parts = [];
  const taken = new Map(); // equal ones stand on each other
  const dots = (cell?.runs ?? []).filter((run) => run.value !== null).map((run) => {
    const place = Math.round(x(run.value) / 8);
    const level = taken.get(place) ?? 0;
    taken.set(place, level + 1);
    const y = 52 - 10 * Math.min(level, 3);
    return dead(run) ? cross(x(run.value), y, 8, "ink") : circle(x(run.value), y, 4, "train");
  });
  const bottom = 74;
  if (best) {
    const bx = x(best.mean);
    parts.push(line(bx, top - 4, bx, bottom, "ray"));
    parts.push(text(bx, 11, `best cell ${best.mean.toFixed(1)}`, `tick ${bx > width - 90 ? "end" : bx < 60 ? "" : "mid"}`));
  }
  parts.push(line(left, bottom, right, bottom, "rule"), axisBottom(x, ticks([low, high], 5), bottom, about, [left, right]));
  if (cell?.mean !== undefined && cell.mean !== null) {
    if (cell.low !== null) parts.push(line(within(cell.low), 64, within(cell.high), 64, "stroke train thin"));
    parts.push(line(x(cell.mean), 59, x(cell.mean), 69, "stroke train"));
  }
  return { svg: parts.join("") + group(dots), height: bottom + 20, unit };
}

/** Loss over the steps: every run pale, the mean of the runs, smoothed, on top. */
export function drawLosses(width, curves, { steps, every, range, start, live }) {
  const [left, right, top, bottom] = [30, width - 10, 8, 112];
  const x = linear([0, steps], [left, right]);
  const y = linear(range, [bottom, top]);
  const at = (i, loss) => [x(Math.min(steps, (i + 0.5) * every)), Math.max(top, y(loss))];
  const place = (losses) => losses.flatMap((loss, i) => (loss === null ? [] : [at(i, loss)])); // null: before a restart
  const parts = [axisLeft(y, ticks(range, 4), [left, right], (v) => v.toFixed(1))];
  parts.push(axisBottom(x, ticks([0, steps], 4), bottom, count, [left, right]));
  if (start) parts.push(line(left, y(start), right, y(start), "edge"));
  for (const one of curves) {
    const seen = place(one);
    if (seen.length > 1) parts.push(curve(seen, "stroke train faint"));
  }
  const mean = place(smoothed(curves));
  if (mean.length > 1) parts.push(curve(mean, "stroke train"));
  if (live && mean.length) parts.push(circle(...mean.at(-1), 4, "train"));
  if (start) parts.push(text(right, y(start) - 5, "before training", "tick end halo"));
  return { svg: parts.join(""), height: bottom + 20 };
}

/** The mean of the curves at each point, and of the two points at each side. */
function smoothed(curves) {
  const longest = Math.max(0, ...curves.map((one) => one.length));
  const means = Array.from({ length: longest }, (_, i) => {
    const there = curves.filter((one) => (one[i] ?? null) !== null);
    return there.length ? there.reduce((sum, one) => sum + one[i], 0) / there.length : null;
  });
  return means.map((mean, i) => {
    const near = means.slice(Math.max(0, i - 2), i + 3).filter((one) => one !== null);
    return mean === null ? null : near.reduce((sum, one) => sum + one, 0) / near.length;
  });
}

const NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const number = (n) => NUMBERS[n] ?? count(n);

/** An interval in words; shares stay within 0 and 100. */
export const interval = ({ low, high }, unit) =>
  [low, high].map((value) => decimal(unit ? clamp(value, 0, 100) : value)).join(" to ");

/** Points of a share, or the unit of the metric. */
export const points = (value, unit) => `${decimal(value)}${unit ? " points" : ""}`;

/** [headline, sentence] of the chosen cell. */
export function tellCell({ cell, chosen, best, live, broken, data, seeds }) {
  const setting = `rate ${rateName(chosen.lr)}, rank ${chosen.rank}, ${letter("α")} ${about(chosen.alpha)}
    (${letter("α/r")}\u00a0=\u00a0${about(chosen.alpha / chosen.rank)})`;
  if (live) {
    const step = Math.max(...live.map((one) => one.length)) * data.every;
    const words = step ? `step ${count(Math.min(step, data.steps))} of ${count(data.steps)}` : "about to begin";
    return [`<b>${broken ? "broken off" : "training"}</b> <span>${words}</span>`, capital(`${number(live.length)} seed${live.length > 1 ? "s" : ""} at ${setting}.`)];
  }
  if (!cell) {
    const all = seeds.length;
    return [
      "<b>not tried</b>",
      `No run at ${setting} yet. Guess from its neighbors, then train it: ${number(all)} seed${all > 1 ? "s" : ""} of
       ${count(data.steps)} steps.`,
    ];
  }
  const n = cell.runs.length;
  const failed = cell.runs.filter(dead).length;
  const flat = cell.runs.filter((run) => run.state === "flat").length;
  const of = `${number(n)} run${n > 1 ? "s" : ""}`;
  if (cell.mean === null) return ["<b>failed</b>", `${of} at ${setting}: none of them finished. The rate is too high.`];
  const big = `<b>${cell.mean.toFixed(1)}${data.unit}</b> <span>validation ${data.metric}</span>`;
  const range = cell.low === null || failed === n ? "" : `, 95% interval ${interval(cell, data.unit)}`;
  const words = [`${n > 1 ? `Mean of ${of}` : "One run"} at ${setting}${range}.`];
  if (failed) words.push(`<strong>${failed === n ? "All" : capital(`${number(failed)} of ${number(n)}`)} collapsed</strong>: at this rate a run ends where it began, by guessing.`);
  else if (flat) words.push(`<strong>${flat === n ? "All" : capital(`${number(flat)} of ${number(n)}`)} learned nothing yet</strong>: the rate is too low for ${count(data.steps)} steps.`);
  if (cell === best) words.push("The best cell of this map.");
  else if (cell.behind) words.push(behind(cell.behind, data));
  return [big, capital(words.join(" "))];
}

function behind([mean, low, high], { unit }) {
  const apart = mean < 0 ? `${points(-mean, unit)} ahead of the best cell with enough seeds` : `${points(mean, unit)} behind the best cell`;
  const sure = low === null ? "" : ` (95% interval ${decimal(low)} to ${decimal(high)}${low > 0 ? "" : ", so it may be as good"})`;
  return `On the same seeds, it is ${apart}${sure}.`;
}
