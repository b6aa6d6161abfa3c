// Controls as markup: native inputs, so that keys, touch and screen readers work by themselves.
// Each has a name; `panel.js` calls the action of that name with the new value.

import { escape, plain } from "./format.js";

/** A letter of a formula. */
export function letter(name) {
  return `<span class="m">${name}</span>`;
}

/** A slider over positions 0, 1, ...; `color` is "train", "frozen" or "ink". `below` is markup under the track. */
export function slider(name, label, color, below = "") {
  return `<label class="slider" data-for="${name}" style="--of: var(--${color})"><span>${label}</span>
    <b aria-hidden="true"></b><input type="range" min="0" step="1" name="${name}" aria-label="${plain(label)}">${below}
    </label>`;
}

/** One of a few: [[value, label], ...]. */
export function segments(name, legend, choices) {
  const one = ([value, label]) => `<label><input type="radio" name="${name}" value="${escape(value)}">${label}</label>`;
  return `<fieldset class="segments" data-for="${name}"><legend class="spoken">${legend}</legend>${choices
    .map(one)
    .join("")}</fieldset>`;
}

/** Any of a few, each switched by itself. */
export function switches(name, legend, choices) {
  const one = ([value, label]) =>
    `<label><input type="checkbox" name="${name}" value="${escape(value)}">${label}</label>`;
  return `<fieldset class="switches" data-for="${name}"><legend>${legend}</legend>${choices
    .map(one)
    .join("")}</fieldset>`;
}

export function menu(name, label) {
  return `<label class="menu" data-for="${name}"><span>${label}</span><select name="${name}"></select></label>`;
}

export function button(name, label, kind = "") {
  return `<button type="button" name="${name}" class="${kind}">${label}</button>`;
}

/** Rows of markup; the first cell of each names it, the others are numbers. `now` is the row to be seen first. */
export function table(head, rows, now = -1) {
  const columns = head.map((one) => (one ? `<th scope="col">${one}</th>` : "<td></td>")).join("");
  const row = ([name, ...cells], at) =>
    `<tr class="${at === now ? "now" : ""}"><th scope="row">${name}</th>${cells
      .map((cell) => `<td>${cell}</td>`)
      .join("")}</tr>`;
  return `<thead><tr>${columns}</tr></thead><tbody>${rows.map(row).join("")}</tbody>`;
}

/**
 * The stops of a slider by the logarithm: eight to an octave, 64, 72, 80, ..., so that real widths are among them.
 * Small numbers fill several positions: a doubling always takes the same way on the track.
 */
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
  let best = 0;
  stops.forEach((stop, at) => {
    if (Math.abs(stop - value) < Math.abs(stops[best] - value)) best = at;
  });
  return best;
}

/**
 * Where a slider that was moved by key has to go: past the positions that repeat the stop it came from.
 * A drag may stand on any position.
 */
export function pastRepeats(stops, from, to) {
  const way = Math.sign(to - from);
  let at = to;
  while (way && stops[at] === stops[from] && stops[at + way] !== undefined) at += way;
  return at;
}
