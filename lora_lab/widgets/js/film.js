// The arithmetic of a film: live memory at every moment of a training step, from polynomials in batch, tokens and rank.
// See accounting/film.py for the format of a film, and accounting/setup.py for what an optimizer adds.

export const CATEGORIES = ["weights", "optimizer", "gradients", "activations", "logits", "temporaries"];
export const ACTS = ["forward", "loss", "backward", "update"];
export const MANY = CATEGORIES.length;
export const [WEIGHTS, OPTIMIZER, GRADIENTS, ACTIVATIONS, LOGITS, TEMPORARIES] = CATEGORIES.keys();
const UPDATE = 3;

const opened = new WeakMap();

function unfold(folds, flat = []) {
  for (const fold of folds) {
    if (typeof fold === "number") flat.push(fold);
    else for (let round = 0; round < fold[0]; round++) unfold(fold.slice(1), flat);
  }
  return flat;
}

/** Prepare a film for evaluation, once: `order` has a change for each moment, `acts` has the folds of each act,
 * and `scenes` are what the picture shows, { act, part, layer, from, to }: the computation of one part of the model.
 * The act "loss" is everything between the last layer's forward and backward passes. */
export function openFilm(film) {
  if (opened.has(film)) return opened.get(film);
  const order = Uint16Array.from(unfold(film.moments));
  const part = (at) => film.parts[film.changes[order[at]][0]];
  const inLayer = (phase) => (at) => part(at)[0] === phase && part(at)[1].includes("*");
  const all = Array.from(order, (_, at) => at);
  const update = all.findIndex((at) => part(at)[0] !== "forward" && part(at)[0] !== "backward");
  const loss = all.findLastIndex(inLayer("forward")) + 1;
  const inner = all.findIndex(inLayer("backward"));
  const backward = inner < 0 ? all.findIndex((at) => part(at)[0] === "backward") : inner; // if only the head trains
  const ends = [loss, backward, update, order.length];
  const scenes = [];
  let [act, layer] = [0, 0];
  for (let at = 0; at < update; at++) {
    while (at >= ends[act]) act += 1;
    const [partIndex, layerStep, ...entries] = film.changes[order[at]];
    const name = film.parts[partIndex][1].replace(/\.adapter$/, "");
    layer += layerStep;
    const last = scenes.at(-1);
    const tables = act === 1 && entries.some((category, i) => i % 3 === 0 && category === LOGITS);
    if (last && last.act === act && last.part === name && last.layer === layer && !tables) last.to = at + 1;
    else scenes.push({ act, part: name, layer, from: at, to: at + 1 });
  }
  for (const name of ["complete", "step", "freed"]) scenes.push({ act: UPDATE, part: name, layer: 0 });
  const layers = Math.max(...scenes.map((scene) => scene.layer)) + 1;
  const starts = ACTS.map((_, at) => scenes.findIndex((scene) => scene.act === at));
  const acts = ACTS.map(() => []); // the folds of each act; no repeat crosses into the next act
  let at = 0;
  for (const fold of film.moments) {
    acts[ends.findIndex((end) => at < end)].push(fold);
    at += unfold([fold]).length;
  }
  const prepared = { order, acts, scenes, layers, starts, update };
  opened.set(film, prepared);
  return prepared;
}

/** The monomials of a fit, and, if the film depends on the rank, each monomial times the rank. */
function monomials(film, { batch: b, seq: t, rank }) {
  if (film.fixed) return [1];
  const basis = [1, b, t, b * t, b * t * t, t * t];
  return film.ranked ? [...basis, ...basis.map((value) => rank * value)] : basis;
}

/** Bytes that the optimizer keeps for the whole step, and its temporary bytes. */
function optimizerBytes(film, { rank, optimizer }) {
  let [states, temporary, before] = [0, 0, 0];
  const widths = {};
  for (const [numbers, slope, width, copies] of film.trained) {
    const n = numbers + slope * (film.ranked ? rank : 0);
    if (optimizer === "adamw-8bit") states += copies * 2 * (n < 4096 ? 4 * n : n + 4 * Math.ceil(n / 256));
    else if (optimizer !== "sgd") states += copies * (2 * width * n + 4);
    if (optimizer === "adamw") temporary = Math.max(temporary, before + 2 * width * n);
    before = width * n;
    widths[width] = (widths[width] ?? 0) + copies * width * n;
  }
  if (optimizer === "adamw-foreach") temporary = Math.max(0, ...Object.values(widths));
  return { states, temporary };
}

/** { live, totals, top, tops, peak }: bytes by scene and category at each scene's fullest moment, and the peaks. */
export function evaluate(film, point) {
  const { order, scenes, update } = openFilm(film);
  const basis = monomials(film, point);
  const { states, temporary } = optimizerBytes(film, point);
  const entries = film.changes.map(([, , ...numbers]) => {
    const pairs = [];
    for (let i = 0; i < numbers.length; i += 3) pairs.push(numbers[i], numbers[i + 2] * basis[numbers[i + 1]]);
    return pairs;
  });
  const [live, totals, now] = [scenes.length * MANY, scenes.length, MANY].map((length) => new Float64Array(length));
  now[OPTIMIZER] = states;
  let total = states;
  const keep = (scene, sum) => {
    totals[scene] = sum;
    live.set(now, scene * MANY);
  };
  const step = scenes.length - 2;
  let scene = 0;
  for (let moment = 0; moment < order.length; moment++) {
    const pairs = entries[order[moment]];
    for (let i = 0; i < pairs.length; i += 2) {
      now[pairs[i]] += pairs[i + 1];
      total += pairs[i + 1];
    }
    if (moment === 0) keep(step + 1, total);
    if (moment < update) {
      if (moment >= scenes[scene].to) scene += 1;
      if (total > totals[scene]) keep(scene, total);
    } else {
      if (moment === update) keep(step - 1, total);
      now[TEMPORARIES] += temporary;
      if (total + temporary > totals[step]) keep(step, total + temporary);
      now[TEMPORARIES] -= temporary;
    }
  }
  const fullest = (best, i) => (totals[i] > totals[best] ? i : best);
  const tops = ACTS.map((_, act) => [...scenes.keys()].filter((i) => scenes[i].act === act).reduce(fullest));
  const top = tops.reduce(fullest);
  return { live, totals, top, tops, peak: totals[top] };
}

/** The maximum and the total rise over a stretch of moments; a repeat peaks in its first or its last round. */
function rise(folds, sums, from = 0) {
  let [highest, total] = [-Infinity, 0];
  for (let i = from; i < folds.length; i++) {
    if (typeof folds[i] === "number") {
      total += sums[folds[i]];
      highest = Math.max(highest, total);
    } else {
      const [times] = folds[i];
      const round = rise(folds[i], sums, 1);
      highest = Math.max(highest, total + round.highest, total + (times - 1) * round.total + round.highest);
      total += times * round.total;
    }
  }
  return { highest, total };
}

/** Only the peak, { bytes, act }: many times faster than `evaluate`, because repeats are evaluated once. */
export function peakOf(film, point) {
  const basis = monomials(film, point);
  const { states, temporary } = optimizerBytes(film, point);
  const sums = new Float64Array(film.changes.length);
  film.changes.forEach((change, index) => {
    for (let i = 2; i < change.length; i += 3) sums[index] += change[i + 2] * basis[change[i + 1]];
  });
  let [bytes, act, total] = [0, 0, states];
  openFilm(film).acts.forEach((folds, index) => {
    const stretch = rise(folds, sums);
    const highest = total + stretch.highest + (index === UPDATE ? temporary : 0);
    if (highest > bytes) [bytes, act] = [highest, index];
    total += stretch.total;
  });
  return { bytes, act };
}

/** The largest n from `minimum` to `limit` that fits, or 0; `fits` must be true up to some n and false beyond. */
export function largestFitting(fits, minimum, limit) {
  let largest = 0;
  for (let step = 2 ** 20; step >= 1; step /= 2) {
    if (largest + step <= limit && fits(largest + step)) largest += step;
  }
  return largest < minimum ? 0 : largest;
}

/** Which act has the peak at each sequence length in `stops`: [{ act, from }], where `from` is an index. */
export function actsOver(film, point, stops) {
  const acts = stops.map((seq) => peakOf(film, { ...point, seq }).act);
  return acts.map((act, from) => ({ act, from })).filter(({ act, from }) => act !== acts[from - 1]);
}
