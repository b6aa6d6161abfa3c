// Markup for controls: native inputs, which support keyboard, touch and screen readers.
// Each has a name; `panel.js` calls the action with that name and passes the new value.

import { escape, plain } from "./format.js";

/** A letter of a formula. */
export const letter = (name) => `<span class="m">${name}</span>`;

/** A slider over positions 0, 1, ...; `color` is "train", "frozen" or "ink". `below` is markup under the track. */
export function slider(name, label, color, below = "") {
  return `<label class="slider" data-for="${name}" style="--of: var(--${color})"><span>${label}</span>
    <b aria-hidden="true"></b><input type="range" min="0" step="1" name="${name}" aria-label="${escape(plain(label))}">${below}
    </label>`;
}

/** Labeled inputs of one type, "radio" or "checkbox": [[value, label], ...]. */
export function choices(type, name, all) {
  const input = ([value, label]) => `<input type="${type}" name="${name}" value="${escape(value)}">${label}`;
  return all.map((choice) => `<label>${input(choice)}</label>`).join("");
}

const fieldset = (kind, type, hidden) => (name, legend, all = []) =>
  `<fieldset class="${kind}" data-for="${name}"><legend class="${hidden}">${legend}</legend>
    <span class="choices">${choices(type, name, all)}</span></fieldset>`;

/** Choose one of a few. */
export const segments = fieldset("segments", "radio", "spoken");

/** Choose any of a few. */
export const switches = fieldset("switches", "checkbox", "");

export const menu = (name, label) =>
  `<label class="menu" data-for="${name}"><span>${label}</span><select name="${name}"></select></label>`;

export const button = (name, label, kind = "") =>
  `<button type="button" name="${name}" class="${kind}">${label}</button>`;

/** A place for `p.picture`. */
export const drawn = (name = "picture") => `<div class="${name} drawn"><svg role="img"></svg></div>`;

/** A place for `p.numbers`. */
export function folded(summary) {
  const scrolls = `<div class="scrolls" tabindex="0" role="group" aria-label="${summary}"></div>`;
  return `<details><summary>${summary}</summary>${scrolls}</details>`;
}

/** The message that panels show if their work failed or is stopping. */
export function trouble({ error, busy, halts }) {
  if (error) return `<strong>It failed.</strong> ${escape(error)}`;
  return busy && halts ? "Stopping after this step. Finished work is kept." : "";
}

/** What a page without a kernel shows instead of the training controls. */
export const NO_KERNEL = "Run the notebook to train your own adapter.";

/** A table as markup; the first cell of each row is its name, the others are numbers. `now` is the highlighted row. */
export function table(head, rows, now = -1) {
  const columns = head.map((name) => (name ? `<th scope="col">${name}</th>` : "<td></td>")).join("");
  const row = ([name, ...cells], at) => {
    const numbers = cells.map((cell) => `<td>${cell}</td>`).join("");
    return `<tr class="${at === now ? "now" : ""}"><th scope="row">${name}</th>${numbers}</tr>`;
  };
  return `${columns && `<thead><tr>${columns}</tr></thead>`}<tbody>${rows.map(row).join("")}</tbody>`;
}

/** The stops of a logarithmic slider: eight per doubling (64, 72, 80, ...), so that real widths are among them.
 * Small numbers repeat over several positions, so that a doubling always covers the same distance on the track. */
export function octaves(low, high) {
  const stops = [];
  for (let octave = 1; octave <= high; octave *= 2) {
    for (let eighth = 8; eighth < 16; eighth++) stops.push(Math.floor((octave * eighth) / 8));
  }
  const within = stops.filter((stop) => stop >= low && stop <= high);
  return within.at(-1) === high ? within.slice(0, within.indexOf(high) + 1) : [...within, high];
}

/** The index of the stop nearest to a value. */
export function nearest(stops, value) {
  const distances = stops.map((stop) => Math.abs(stop - value));
  return distances.indexOf(Math.min(...distances));
}

/** The new position of a slider that a key has moved: it skips the positions that repeat its previous stop.
 * A drag may end on any position. */
export function pastRepeats(stops, from, to) {
  const step = Math.sign(to - from);
  let at = to;
  while (step && stops[at] === stops[from] && stops[at + step] !== undefined) at += step;
  return at;
}
