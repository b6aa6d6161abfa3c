// The words of the training panel: its finding, the progress of a run, and the reading of the dial.

import { NO_KERNEL, letter, trouble } from "./controls.js";
import { about, capital, count, decimal, escape, extent, percent, plural } from "./format.js";

const shown = (value, metric) => `${decimal(value)}${metric === "accuracy" ? "%" : ""}`;
const points = (value, scale) => `${decimal(value)}${scale === 100 ? " points" : ""}`;

/** [finding, gloss]. The argument comes from `read` in train_panel.js. */
export function titleOf({ found, live, metric, checks, others }) {
  if (found.value !== undefined) {
    const end = `after ${plural(found.steps, "step")}${live.state === "stopped" ? ", stopped there" : ""}`;
    const value = metric === "accuracy" ? shown(found.value, metric) : `${capital(metric)} ${decimal(found.value)}`;
    const [from, to] = [checks[0], checks.at(-1)].map((check) => check && decimal(check[1])); // of the validation rows
    if (!found.half) return [to ? `Validation ${metric} ${to} ${end}, from ${from}` : `${value} ${end}`, "The test rows are scored once, at the end."];
    const ends = extent(others.map(({ value }) => value)).map((value) => decimal(value));
    const range = others.length > 1 ? ` Other seeds of this recipe: ${ends.join(" to ")}.` : "";
    const between = `from ${decimal(found.low)} to ${decimal(found.high)}`;
    const gloss = `95% interval: ${between}. It reflects the random choice of ${count(found.rows)} test rows.${range}`;
    return [`${value} ± ${points(found.half, 100)} ${end}`, gloss];
  }
  if (live.busy && checks.length) {
    const [[, first], [step, last]] = [checks[0], checks.at(-1)];
    const progress = `${shown(last, metric)} on validation at step ${count(step)}, from ${decimal(first)}`;
    return [step ? progress : `The run starts at ${shown(first, metric)}`, "Validation rows are never trained on."];
  }
  return [live.error ? "No run yet" : "What will it learn? Make a guess, then start", ""];
}

/** [headline, sentence]. */
export function headline({ found, live, metric, factor, checks, others, guess, page }) {
  if (found.value !== undefined) {
    const rows = `${count(found.rows)} test rows`;
    const unit = metric === "accuracy" ? `of ${rows} right` : `${metric} on ${rows}`;
    const words = [];
    if (guess !== null) {
      const error = found.value - guess;
      const miss = `You guessed ${about(guess)}: ${points(Math.abs(error), factor)} too ${error > 0 ? "low" : "high"}.`;
      words.push(Math.abs(error) < 0.05 ? "Your guess was right." : miss);
    }
    if (others.length > 1) {
      const sign = metric === "perplexity" ? -1 : 1;
      const better = others.filter(({ value }) => sign * value > sign * found.value).length;
      words.push(`Among ${count(others.length + 1)} seeds of this recipe, this run is number ${count(better + 1)}.`);
    }
    const file = found.adapter ? `; the adapter is in <code>${escape(found.adapter)}</code>` : "";
    if (!page) words.push(`It took ${count(Math.round(found.seconds))} s${file}.`);
    return [`<b>${shown(found.value, metric)}</b> <span>${unit}</span>`, words.join(" ")];
  }
  if (live.busy) {
    const last = checks.at(-1);
    const what = metric === "accuracy" ? "of the validation rows right" : `validation ${metric}`;
    const hint = others.length > 2 ? "Does the line stay in the band of the other seeds?" : "Thin line: each step’s loss. Thick line: its mean.";
    const reached = last ? `<b>${shown(last[1], metric)}</b> <span>${what}</span>` : `<b>${page ? "replay" : "loading"}</b>`;
    return [reached, page && !last?.[0] ? "Press replay." : hint];
  }
  const ask = metric === "accuracy" ? "what share of unseen texts will it get right" : `what ${metric} will it reach on unseen texts`;
  return ["<b>not trained</b>", `Guess first: ${ask}?`];
}

/** The number of trained parameters, in words. */
export function countWords({ setup, trains, method, rank, alpha }) {
  if (setup.error) return "";
  const scaling = method === "lora" ? ` ${letter("α/r")} = ${about(alpha / rank)}.` : "";
  const head = setup.head ? ` + ${count(setup.head)} in the head` : "";
  return `<b>${count(trains)}</b> parameters in the adapter${head}: ${percent((trains + setup.head) / setup.total)} of the model’s
    ${count(setup.total)} parameters are trained.${scaling}`;
}

/** The status of the run. */
export function statusWords({ live, found, page, broken, setup }) {
  if (page) {
    const { date, hardware, lora_lab: version } = found.made ?? {};
    const ran = date ? `${escape(found.words)}. Trained ${escape(date)} with lora_lab ${escape(version)} on ${escape(hardware)}.` : "";
    return `${ran} ${NO_KERNEL}`;
  }
  if (broken) return "Interrupted.";
  if (setup.error && !live.busy) return `<strong>That isn’t possible.</strong> ${escape(setup.error)}`;
  if (trouble(live)) return trouble(live);
  if (live.busy && live.state === "training") {
    const left = typeof live.left === "number" ? `, about ${count(live.left)} s left` : "";
    return `Step ${count(live.step)} of ${count(live.steps)}${left}.`;
  }
  if (live.busy) return `${capital(escape(live.state))}.`;
  if (live.state === "stopped") return found.value === undefined ? "Stopped before it began." : `Stopped at step ${count(live.step)}. Its progress is kept.`;
  return live.state === "done" ? "Done. Try another setting: finished runs stay in the picture." : "";
}

/** How the adapter changed the answers. */
export function changedWords({ changed, of, better, without, with: after }) {
  return `With the same head, the adapter changed ${count(changed)} of ${count(of)} validation answers, <b>${count(better)}</b>
    for the better and <b>${count(changed - better)}</b> for the worse. Accuracy is ${decimal(without)}% with the adapter off
    and ${decimal(after)}% with it on.`;
}

const top = (row) => row.indexOf(Math.max(...row));

/** [headline, sentence] for the dial. */
export function dialWords({ p, strengths, labels, strength }) {
  const row = p[strengths.indexOf(strength)];
  const big = `<b>${percent(Math.round(1000 * row[top(row)]) / 1000)}</b> <span>${escape(labels[top(row)])}</span>`;
  const flip = p.findIndex((probs, i) => i && top(probs) !== top(p[i - 1]));
  const name = (i) => escape(labels[top(p[i])]);
  if (flip < 0) return [big, `At every strength, the answer is ${name(0)}.`];
  const back = p.findIndex((probs, i) => i > flip && top(probs) !== top(p[i - 1]));
  const more = back < 0 ? "" : `, and to ${name(back)} at ${about(strengths[back])}`;
  return [big, `The answer changes from ${name(flip - 1)} to ${name(flip)} at ${letter("s")} = ${about(strengths[flip])}${more}.`];
}
