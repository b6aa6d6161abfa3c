// The picture of a film: stacked areas over the moments of a step, a column for one moment, and cards as lines.

import { ACTS, CATEGORIES, MANY, openFilm } from "./film.js";
import { about, binary, clamp, escape } from "./format.js";
import { axisLeft, circle, group, hatch, line, linear, rect, spread, text, ticks } from "./svg.js";

const SHARES = [0.3, 0.2, 0.34, 0.16]; // of the width, for each act; not to scale in time
const GIB = 2 ** 30;
const [LEFT, TOP, FOOT] = [38, 22, 38]; // pixels

/** Where each scene begins, from 0 to 1, plus the end. */
export function places(film) {
  const { scenes, starts } = openFilm(film);
  const edges = new Float64Array(scenes.length + 1);
  let before = 0;
  SHARES.forEach((share, act) => {
    const [from, to] = [starts[act], starts[act + 1] ?? scenes.length];
    for (let i = from; i < to; i++) edges[i] = before + (share * (i - from)) / (to - from);
    before += share;
  });
  edges[scenes.length] = 1;
  return edges;
}

/** The scene at a position from 0 to 1. */
export function sceneAt(edges, position) {
  const at = edges.findLastIndex((edge) => edge <= position + 1e-9);
  return clamp(at, 0, edges.length - 2);
}

/** The top of the axis: a round number of bytes with room above the peak, and above the card if that is close. */
function ceiling(peak, card) {
  const needed = Math.max(1.12 * peak, card < 1.7 * peak ? 1.1 * card : 0);
  const unit = needed < GIB ? 2 ** 20 : GIB;
  const power = 10 ** Math.floor(Math.log10(needed / unit));
  return unit * power * [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((times) => times * power * unit >= needed);
}

/** The fullest scene of each pixel column, and where the columns begin: { xs, at }; `xs` also has the end. */
function columns(edges, totals, [from, to]) {
  const [xs, at] = [[], []];
  const scenes = totals.length;
  for (let i = 0; i < scenes; i++) {
    const x = Math.round(from + edges[i] * (to - from));
    if (xs.at(-1) !== x) {
      xs.push(x);
      at.push(i);
    } else if (totals[i] > totals[at.at(-1)]) at[at.length - 1] = i;
  }
  return { xs: [...xs, to], at };
}

/** The path of a category's area: its stacked upper edge, closed at the base. */
function area({ xs, at }, live, y, category, base) {
  let path = `M${xs[0]} ${base}`;
  let last = NaN;
  for (let i = 0; i < at.length; i++) {
    let sum = 0;
    for (let c = 0; c <= category; c++) sum += live[at[i] * MANY + c];
    const height = Math.round(10 * y(sum)) / 10;
    if (height !== last) path += `${i ? `H${xs[i]}` : ""}V${height}`;
    last = height;
  }
  return `${path}H${xs[at.length]}V${base}Z`;
}

/** The areas from the top category down, each drawn over the one above it. */
function areas(shown, live, y, base) {
  const occurs = (c) => shown.at.some((scene) => live[scene * MANY + c] > 0);
  const present = [...CATEGORIES.keys()].filter(occurs).reverse();
  return present.map((c) => `<path d="${area(shown, live, y, c, base)}" class="area of-${CATEGORIES[c]}"/>`).join("");
}

/** A whole film without labels, 100 wide, for comparison with others on the same scale. */
export function thumbnail(film, result, height, topmost, card) {
  const y = linear([0, topmost], [height, 2]);
  const limit = card < topmost ? `<path d="M0 ${y(card).toFixed(1)}H100" class="limit"/>` : "";
  return areas(columns(places(film), result.totals, [0, 100]), result.live, y, height) + limit;
}

/** Draw the film. Returns { svg, height, sceneAtX, ... }. cards: [[name, bytes], ...]; measured: { film, result } or null. */
export function drawFilm(width, film, { result, at, card, cards, measured }) {
  const { scenes, starts } = openFilm(film);
  const wide = width >= 520;
  const column = wide ? 58 : 34;
  const labels = wide ? 140 : 0;
  const right = width - column - labels - 14;
  const height = clamp(0.6 * width, 240, 390);
  const base = TOP + height;
  const topmost = ceiling(Math.max(result.peak, measured?.result.peak ?? 0), card[1]);
  const [x, y] = [linear([0, 1], [LEFT, right]), linear([0, topmost], [base, TOP])];
  const edges = places(film);
  const xs = Array.from(edges, (edge) => Math.round(10 * x(edge)) / 10);
  const parts = [hatch("over")];

  const unit = topmost < GIB ? 2 ** 20 : GIB;
  const ticked = ticks([0, topmost / unit], 6).map((value) => value * unit);
  parts.push(axisLeft(y, ticked, [LEFT, right], (value) => String(+(value / unit).toFixed(2))));
  parts.push(text(0, TOP - 9, unit === GIB ? "GiB" : "MiB", "tick"));

  const shown = columns(edges, result.totals, [LEFT, right]);
  parts.push(areas(shown, result.live, y, base));
  const limit = y(card[1]);
  if (card[1] < result.peak) {
    const outline = area(shown, result.live, y, MANY - 1, base);
    parts.push(`<clipPath id="beyond"><rect x="${LEFT}" y="0" width="${right - LEFT}" height="${limit}"/></clipPath>`);
    parts.push(`<path d="${outline}" fill="url(#over)" class="beyond" clip-path="url(#beyond)"/>`);
  }
  if (measured) {
    const measuredColumns = columns(places(measured.film), measured.result.totals, [LEFT, right]);
    const edge = area(measuredColumns, measured.result.live, y, MANY - 1, base);
    parts.push(`<path d="${edge.replace(/^(M\S+) \S+?V/, "$1 ").replace(/V[^V]*Z$/, "")}" class="measured"/>`);
  }

  const size = (bytes) => (wide ? binary(bytes) : about(bytes / unit)); // in the unit of the axis
  parts.push(...starts.slice(1).map((start) => line(xs[start], TOP - 6, xs[start], base + 6, "cut")));
  ACTS.forEach((name, act) => {
    const middle = (xs[starts[act]] + xs[starts[act + 1] ?? scenes.length]) / 2;
    const kind = `mid${result.tops[act] === result.top ? " strong" : ""}`;
    parts.push(text(middle, base + 17, name, kind));
    parts.push(text(middle, base + 32, size(result.totals[result.tops[act]]), `${kind} tick`));
  });
  const [middle, top] = [(xs[result.top] + xs[result.top + 1]) / 2, y(result.peak) - 3];
  parts.push(`<path d="M${middle} ${top}l-5 -7h10z" class="ink"/>`);
  parts.push(text(clamp(middle, LEFT + 48, right - 24), top - 11, `peak ${binary(result.peak)}`, "strong halo mid"));
  const cursor = (xs[at] + xs[at + 1]) / 2;
  parts.push(line(cursor, y(result.totals[at]), cursor, base, "cursor"), circle(cursor, base, 4.5, "ink"));
  parts.push(nowColumn(result.live.subarray(at * MANY, at * MANY + MANY), y, base, [right + 14, column], wide));
  parts.push(cardLines(cards, card, y, topmost, result, [LEFT, right + 14 + column], middle < (LEFT + right) / 2 ? right : 0)); // also across the column "now"
  const grip = rect(LEFT, TOP, right - LEFT, height + FOOT, "touch", 'data-film="1"');
  const sceneAtX = (px) => sceneAt(edges, clamp((px - LEFT) / (right - LEFT)));
  return { svg: parts.join("") + grip, height: base + FOOT, sceneAtX, from: LEFT, to: right, wide };
}

/** The chosen card, the smallest card that is large enough, and, where there is room, other cards larger than the
 * weights; the labels end at `end`, unless it is 0. */
function cardLines(cards, card, y, topmost, result, [left, right], end) {
  const taken = [y(result.peak) - 14];
  const lines = [];
  const enough = cards.find(([, size]) => size >= result.peak) ?? card;
  const others = cards.filter(([name, size]) => name !== card[0] && name !== enough[0] && size > 1.1 * result.totals[0]);
  for (const [name, size] of [card, ...(enough === card ? [] : [enough]), ...others]) {
    const at = y(size);
    const chosen = name === card[0];
    if (size > topmost || lines.length > 6 || (!chosen && taken.some((height) => Math.abs(height - at) < 30))) continue;
    const kind = `halo ink small${chosen ? " strong" : ""}`;
    taken.push(at);
    const words = `${escape(name)}: ${binary(size)}${chosen ? " usable" : ""}`;
    const above = at - y(result.peak); // pixels from the peak, whose mark takes the 21 pixels above it
    const level = size < result.totals[0] && at + 13 < y(0) ? at + 13 : above < -21 || above > 11 ? at - 5 : above > -7 ? at + 13 : y(result.peak) - 27;
    lines.push(line(left, at, right, at, chosen ? "limit" : "shelf"), text(end || left + 6, level, words, end ? `${kind} end` : kind));
  }
  return lines.join("");
}

/** The current moment as a column, with each category labeled. */
function nowColumn(live, y, base, [x, width], wide) {
  const parts = [text(x + width / 2, base + 17, "now", "mid strong")];
  const labels = [];
  let sum = 0;
  live.forEach((size, c) => {
    if (size < 1024) return;
    const [bottom, top] = [y(sum), y(sum + size)];
    parts.push(rect(x, top, width, bottom - top, `area of-${CATEGORIES[c]}`));
    labels.push({ middle: (bottom + top) / 2, name: CATEGORIES[c], size });
    sum += size;
  });
  parts.push(text(x + width / 2, base + 32, wide ? binary(sum) : binary(sum).split(" ")[0], "mid tick"));
  const heights = spread(labels.map(({ middle }) => middle), 16, [TOP + 4, base - 2]);
  const right = x + width;
  const label = ({ middle, name, size }, i) =>
    line(right, middle, right + 9, heights[i], "lead") + rect(right + 11, heights[i] - 4, 8, 8, `of-${name}`) +
    text(right + 23, heights[i] + 4, `${name} <tspan class="soft">${binary(size)}</tspan>`, "small");
  return group(wide ? [...parts, ...labels.map(label)] : parts);
}
