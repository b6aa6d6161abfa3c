// Controls as markup: native inputs, so that keys, touch and screen readers work by themselves.
// Each has a name; `panel.js` calls the action of that name with the new value.

import { escape, plain } from "./format.js";

/** A letter of a formula. */
export const letter = (name) => `<span class="m">${name}</span>`;

/** A slider over positions 0, 1, ...; `color` is "train", "frozen" or "ink". `below` is markup under the track. */
export function slider(name, label, color, below = "") {
  return `<label class="slider" data-for="${name}" style="--of: var(--${color})"><span>${label}</span>
    <b aria-hidden="true"></b><input type="range" min="0" step="1" name="${name}" aria-label="${plain(label)}">${below}
    </label>`;
}

/** Inputs of a type, "radio" or "checkbox", in labels: [[value, label], ...]. */
export function choices(type, name, all) {
  const one = ([value, label]) => `<input type="${type}" name="${name}" value="${escape(value)}">${label}`;
  return all.map((choice) => `<label>${one(choice)}</label>`).join("");
}

const fieldset = (kind, type, hidden) => (name, legend, all = []) =>
  `<fieldset class="${kind}" data-for="${name}"><legend class="${hidden}">${legend}</legend>
    <span class="choices">${choices(type, name, all)}</span></fieldset>`;

/** One of a few. */
export const segments = fieldset("segments", "radio", "spoken");

/** Any of a few, each switched by itself. */
export const switches = fieldset("switches", "checkbox", "");

export const menu = (name, label) =>
  `<label class="menu" data-for="${name}"><span>${label}</span><select name="${name}"></select></label>`;

export const options = (all) =>
  all.map(([value, label]) => `<option value="${escape(value)}">${escape(label)}</option>`).join("");

export const button = (name, label, kind = "") =>
  `<button type="button" name="${name}" class="${kind}">${label}</button>`;

/** A place for `p.picture`. */
export const drawn = (name = "picture") => `<div class="${name} drawn"><svg role="img"></svg></div>`;

/** A place for `p.numbers`. */
export function folded(summary) {
  const scrolls = `<div class="scrolls" tabindex="0" role="group" aria-label="${summary}"></div>`;
  return `<details><summary>${summary}</summary>${scrolls}</details>`;
}

/** What every panel that works says of it: that it failed, or will end. */
export function trouble({ error, busy, halts }) {
  if (error) return `<strong>It failed.</strong> ${escape(error)}`;
  return busy && halts ? "Stopping after this step. What has finished is kept." : "";
}

/** What a page without a kernel says in the place of what trains. */
export const NO_KERNEL = "Run the notebook to train your own.";

/** Rows of markup; the first cell of each names it, the others are numbers. `now` is the row to be seen first. */
export function table(head, rows, now = -1) {
  const columns = head.map((one) => (one ? `<th scope="col">${one}</th>` : "<td></td>")).join("");
  const row = ([name, ...cells], at) => {
    const numbers = cells.map((cell) => `<td>${cell}</td>`).join("");
    return `<tr class="${at === now ? "now" : ""}"><th scope="row">${name}</th>${numbers}</tr>`;
  };
  return `${columns && `<thead><tr>${columns}</tr></thead>`}<tbody>${rows.map(row).join("")}</tbody>`;
}

/** The stops of a slider by the logarithm: eight to an octave, 64, 72, 80, ..., so that real widths are among them.
 * Small numbers fill several positions: a doubling always takes the same way on the track. */
export function octaves(least, most) {
  const stops = [];
  for (let octave = 1; octave <= most; octave *= 2) {
    for (let eighth = 8; eighth < 16; eighth++) stops.push(Math.floor((octave * eighth) / 8));
  }
  const within = stops.filter((stop) => stop >= least && stop <= most);
  return within.at(-1) === most ? within.slice(0, within.indexOf(most) + 1) : [...within, most];
}

/** The position of the stop that is nearest to a value. */
export function nearest(stops, value) {
  const apart = stops.map((stop) => Math.abs(stop - value));
  return apart.indexOf(Math.min(...apart));
}

/** Where a slider that was moved by key has to go: past the positions that repeat the stop it came from.
 * A drag may stand on any position. */
export function pastRepeats(stops, from, to) {
  const way = Math.sign(to - from);
  let at = to;
  while (way && stops[at] === stops[from] && stops[at + way] !== undefined) at += way;
  return at;
}
