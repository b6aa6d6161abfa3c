// The picture of a film: areas over the moments of a step, the column of one moment beside them, cards as lines.

import { ACTS, CATEGORIES, MANY, openFilm } from "./film.js";
import { binary, clamp } from "./format.js";
import { axisLeft, circle, group, hatch, line, linear, rect, spread, text, ticks } from "./svg.js";

const SHARES = [0.3, 0.2, 0.34, 0.16]; // of the width for each act: they are not to scale in time
const GIB = 2 ** 30;
const [LEFT, TOP, FOOT] = [38, 22, 38]; // pixels

/** Where each scene begins, from 0 to 1; one more for the end. */
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

/** The scene at a place from 0 to 1. */
export function sceneAt(edges, place) {
  const at = edges.findLastIndex((edge) => edge <= place + 1e-9);
  return clamp(at, 0, edges.length - 2);
}

/** The top of the axis: a round number of bytes with room above the peak, and above the card where it is near. */
function ceiling(peak, card) {
  const wanted = Math.max(1.12 * peak, card < 1.7 * peak ? 1.1 * card : 0);
  const unit = wanted < GIB ? 2 ** 20 : GIB;
  const power = 10 ** Math.floor(Math.log10(wanted / unit));
  return unit * power * [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((times) => times * power * unit >= wanted);
}

/** The fullest scene of each pixel column, and where the columns begin: { xs, at }, one more of xs for the end. */
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

/** The upper edge of all up to a category, closed at the base. */
function area({ xs, at }, live, y, category, base) {
  let path = `M${xs[0]} ${base}`;
  let last = NaN;
  for (let i = 0; i < at.length; i++) {
    let sum = 0;
    for (let c = 0; c <= category; c++) sum += live[at[i] * MANY + c];
    const now = Math.round(10 * y(sum)) / 10;
    if (now !== last) path += `${i ? `H${xs[i]}` : ""}V${now}`;
    last = now;
  }
  return `${path}H${xs[at.length]}V${base}Z`;
}

/** The areas from the top category down, each over the one above it. */
function areas(shown, live, y, base) {
  const some = (c) => shown.at.some((scene) => live[scene * MANY + c] > 0);
  const there = [...CATEGORIES.keys()].filter(some).reverse();
  return there.map((c) => `<path d="${area(shown, live, y, c, base)}" class="area of-${CATEGORIES[c]}"/>`).join("");
}

/** A whole film without words, 100 wide: to compare it with others on one scale. */
export function thumbnail(film, found, height, topmost, card) {
  const y = linear([0, topmost], [height, 2]);
  const limit = card < topmost ? `<path d="M0 ${y(card).toFixed(1)}H100" class="limit"/>` : "";
  return areas(columns(places(film), found.totals, [0, 100]), found.live, y, height) + limit;
}

/** { svg, height, sceneAtX, ... } of the film. cards: [[name, bytes], ...]; measured: { film, found } or null. */
export function drawFilm(width, film, { found, at, card, cards, measured }) {
  const { scenes, starts } = openFilm(film);
  const wide = width >= 520;
  const column = wide ? 58 : 34;
  const labels = wide ? 140 : 0;
  const right = width - column - labels - 14;
  const height = clamp(0.6 * width, 240, 390);
  const base = TOP + height;
  const topmost = ceiling(Math.max(found.peak, measured?.found.peak ?? 0), card[1]);
  const [x, y] = [linear([0, 1], [LEFT, right]), linear([0, topmost], [base, TOP])];
  const edges = places(film);
  const xs = Array.from(edges, (place) => Math.round(10 * x(place)) / 10);
  const parts = [hatch("over")];

  const unit = topmost < GIB ? 2 ** 20 : GIB;
  const ticked = ticks([0, topmost / unit], 6).map((value) => value * unit);
  parts.push(axisLeft(y, ticked, [LEFT, right], (value) => String(+(value / unit).toFixed(2))));
  parts.push(text(0, TOP - 9, unit === GIB ? "GiB" : "MiB", "tick"));

  const shown = columns(edges, found.totals, [LEFT, right]);
  parts.push(areas(shown, found.live, y, base));
  const limit = y(card[1]);
  if (card[1] < found.peak) {
    const outline = area(shown, found.live, y, MANY - 1, base);
    parts.push(`<clipPath id="beyond"><rect x="${LEFT}" y="0" width="${right - LEFT}" height="${limit}"/></clipPath>`);
    parts.push(`<path d="${outline}" fill="url(#over)" class="beyond" clip-path="url(#beyond)"/>`);
  }
  if (measured) {
    const own = columns(places(measured.film), measured.found.totals, [LEFT, right]);
    const edge = area(own, measured.found.live, y, MANY - 1, base);
    parts.push(`<path d="${edge.replace(/^(M\S+) \S+?V/, "$1 ").replace(/V[^V]*Z$/, "")}" class="measured"/>`);
  }

  const size = (bytes) => (wide ? binary(bytes) : binary(bytes).split(" ")[0]);
  parts.push(...starts.slice(1).map((start) => line(xs[start], TOP - 6, xs[start], base + 6, "cut")));
  ACTS.forEach((name, act) => {
    const middle = (xs[starts[act]] + xs[starts[act + 1] ?? scenes.length]) / 2;
    const kind = `mid${found.tops[act] === found.top ? " strong" : ""}`;
    parts.push(text(middle, base + 17, name, kind));
    parts.push(text(middle, base + 32, size(found.totals[found.tops[act]]), `${kind} tick`));
  });
  parts.push(cardLines(cards, card, y, topmost, found, [LEFT, right + 14 + column]));
  parts.push(peakMark(xs, found, y, right));
  const cursor = (xs[at] + xs[at + 1]) / 2;
  parts.push(line(cursor, y(found.totals[at]), cursor, base, "cursor"), circle(cursor, base, 4.5, "ink"));
  parts.push(nowColumn(found.live.subarray(at * MANY, at * MANY + MANY), y, base, [right + 14, column], wide));
  const grip = rect(LEFT, TOP, right - LEFT, height + FOOT, "touch", 'data-film="1"');
  const sceneAtX = (px) => sceneAt(edges, clamp((px - LEFT) / (right - LEFT)));
  return { svg: parts.join("") + grip, height: base + FOOT, sceneAtX, from: LEFT, to: right, wide };
}

function peakMark(xs, found, y, right) {
  const [middle, top] = [(xs[found.top] + xs[found.top + 1]) / 2, y(found.peak) - 3];
  const words = text(clamp(middle, LEFT + 48, right - 24), top - 11, `peak ${binary(found.peak)}`, "strong halo mid");
  return `<path d="M${middle} ${top}l-5 -7h10z" class="ink"/>${words}`;
}

/** The chosen card, the smallest that is enough, and others between the weights and the top where there is room. */
function cardLines(cards, card, y, topmost, found, [left, right]) {
  const taken = [y(found.peak) - 14];
  const lines = [];
  const enough = cards.find(([, size]) => size >= found.peak) ?? card;
  const others = cards.filter(([name, size]) => name !== card[0] && name !== enough[0] && size > 1.1 * found.totals[0]);
  for (const [name, size] of [card, ...(enough === card ? [] : [enough]), ...others]) {
    const at = y(size);
    const chosen = name === card[0];
    if (size > topmost || lines.length > 6 || (!chosen && taken.some((one) => Math.abs(one - at) < 30))) continue;
    const kind = `halo ink small${chosen ? " strong" : ""}`;
    taken.push(at);
    const words = `${name}: ${binary(size)}${chosen ? " usable" : ""}`;
    lines.push(line(left, at, right, at, chosen ? "limit" : "shelf"), text(left + 6, at - 5, words, kind));
  }
  return lines.join("");
}

/** The moment as a column, each category named beside it. */
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
