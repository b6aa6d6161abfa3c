// The arithmetic of a film: what is live at every moment of a training step, from polynomials in batch, tokens and rank.
// See accounting/film.py for what a film holds, and accounting/setup.py for what an optimizer adds.

export const CATEGORIES = ["weights", "optimizer", "gradients", "activations", "logits", "temporaries"];
export const ACTS = ["forward", "loss", "backward", "update"];
export const MANY = CATEGORIES.length;
export const [WEIGHTS, OPTIMIZER, GRADIENTS, ACTIVATIONS, LOGITS, TEMPORARIES] = CATEGORIES.keys();
const UPDATE = 3;

const opened = new WeakMap();

function unfold(folds, flat = []) {
  for (const one of folds) {
    if (typeof one === "number") flat.push(one);
    else for (let time = 0; time < one[0]; time++) unfold(one.slice(1), flat);
  }
  return flat;
}

/** A film ready to be evaluated, made once: `order` has a change for each moment, `acts` the folds of each act, and
 * `scenes` are what the picture shows, { act, part, layer, from, to }: one part of the model at work.
 * Loss is all between the last layer's forward and its backward. */
export function openFilm(film) {
  if (opened.has(film)) return opened.get(film);
  const order = Uint16Array.from(unfold(film.moments));
  const part = (at) => film.parts[film.changes[order[at]][0]];
  const inLayer = (phase) => (at) => part(at)[0] === phase && part(at)[1].includes("*");
  const all = Array.from(order, (_, at) => at);
  const update = all.findIndex((at) => part(at)[0] !== "forward" && part(at)[0] !== "backward");
  const loss = all.findLastIndex(inLayer("forward")) + 1;
  const backward = all.findIndex(inLayer("backward"));
  const ends = [loss, backward, update, order.length];
  const scenes = [];
  let [act, layer] = [0, 0];
  for (let at = 0; at < update; at++) {
    while (at >= ends[act]) act += 1;
    const [which, further, ...entries] = film.changes[order[at]];
    const name = film.parts[which][1].replace(/\.adapter$/, "");
    layer += further;
    const last = scenes.at(-1);
    const tables = act === 1 && entries.some((category, i) => i % 3 === 0 && category === LOGITS);
    if (last && last.act === act && last.part === name && last.layer === layer && !tables) last.to = at + 1;
    else scenes.push({ act, part: name, layer, from: at, to: at + 1 });
  }
  for (const name of ["complete", "step", "freed"]) scenes.push({ act: UPDATE, part: name, layer: 0 });
  const layers = Math.max(...scenes.map((scene) => scene.layer)) + 1;
  const starts = ACTS.map((_, at) => scenes.findIndex((scene) => scene.act === at));
  const acts = ACTS.map(() => []); // the folds of each: no repeat goes on in the next
  let at = 0;
  for (const one of film.moments) {
    acts[ends.findIndex((end) => at < end)].push(one);
    at += unfold([one]).length;
  }
  const made = { order, acts, scenes, layers, starts, update };
  opened.set(film, made);
  return made;
}

/** The monomials of a fit; those times the rank after those without. */
function monomials(film, { batch: b, seq: t, rank }) {
  if (film.fixed) return [1];
  const basis = [1, b, t, b * t, b * t * t, t * t];
  return film.ranked ? [...basis, ...basis.map((value) => rank * value)] : basis;
}

/** Bytes that the optimizer keeps for the whole step, and those it uses for a moment. */
function optimizerBytes(film, { rank, optimizer }) {
  let [states, temporary, before] = [0, 0, 0];
  const widths = {};
  for (const [numbers, slope, width, many] of film.trained) {
    const n = numbers + slope * (film.ranked ? rank : 0);
    if (optimizer === "adamw-8bit") states += many * 2 * (n < 4096 ? 4 * n : n + 4 * Math.ceil(n / 256));
    else if (optimizer !== "sgd") states += many * (2 * width * n + 4);
    if (optimizer === "adamw") temporary = Math.max(temporary, before + 2 * width * n);
    before = width * n;
    widths[width] = (widths[width] ?? 0) + many * width * n;
  }
  if (optimizer === "adamw-foreach") temporary = Math.max(0, ...Object.values(widths));
  return { states, temporary };
}

/** { live, totals, top, tops }: bytes by scene and category at each scene's fullest moment, and where peaks lie. */
export function evaluate(film, point) {
  const { order, scenes, update } = openFilm(film);
  const at = monomials(film, point);
  const { states, temporary } = optimizerBytes(film, point);
  const entries = film.changes.map(([, , ...numbers]) => {
    const pairs = [];
    for (let i = 0; i < numbers.length; i += 3) pairs.push(numbers[i], numbers[i + 2] * at[numbers[i + 1]]);
    return pairs;
  });
  const [live, totals, now] = [scenes.length * MANY, scenes.length, MANY].map((long) => new Float64Array(long));
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

/** How far a stretch of moments rises at most, and in all; what repeats is highest in its first or its last round. */
function rise(folds, sums, from = 0) {
  let [most, total] = [-Infinity, 0];
  for (let i = from; i < folds.length; i++) {
    if (typeof folds[i] === "number") {
      total += sums[folds[i]];
      most = Math.max(most, total);
    } else {
      const [times] = folds[i];
      const round = rise(folds[i], sums, 1);
      most = Math.max(most, total + round.most, total + (times - 1) * round.total + round.most);
      total += times * round.total;
    }
  }
  return { most, total };
}

/** { bytes, act } of the peak alone, many times faster: what repeats is evaluated once. */
export function peakOf(film, point) {
  const at = monomials(film, point);
  const { states, temporary } = optimizerBytes(film, point);
  const sums = new Float64Array(film.changes.length);
  film.changes.forEach((change, which) => {
    for (let i = 2; i < change.length; i += 3) sums[which] += change[i + 2] * at[change[i + 1]];
  });
  let [bytes, act, total] = [0, 0, states];
  openFilm(film).acts.forEach((folds, which) => {
    const up = rise(folds, sums);
    const most = total + up.most + (which === UPDATE ? temporary : 0);
    if (most > bytes) [bytes, act] = [most, which];
    total += up.total;
  });
  return { bytes, act };
}

/** The most n from `least` up to `limit` for which `fits` holds, if it holds up to some n and no further; else 0. */
export function largestFitting(fits, least, limit) {
  let most = 0;
  for (let step = 2 ** 20; step >= 1; step /= 2) {
    if (most + step <= limit && fits(most + step)) most += step;
  }
  return most < least ? 0 : most;
}

/** Which act holds the peak over the stops of the length: [{ act, from }], from as a position. */
export function actsOver(film, point, stops) {
  const acts = stops.map((seq) => peakOf(film, { ...point, seq }).act);
  return acts.map((act, from) => ({ act, from })).filter(({ act, from }) => act !== acts[from - 1]);
}
