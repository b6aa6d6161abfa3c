// SVG as strings, in real pixels: shapes, scales, axes and labels that stand beside what they name.
// A shape's class says whose it is: "frozen", "train" or "other"; see panel.css.

const px = (number) => Number(number.toFixed(2));

export function rect(x, y, width, height, kind, more = "") {
  const [w, h] = [px(Math.max(0, width)), px(Math.max(0, height))];
  return `<rect x="${px(x)}" y="${px(y)}" width="${w}" height="${h}" class="${kind}" ${more}/>`;
}

/** A rectangle whose one-pixel outline lies within its size. */
export function outline(x, y, width, height, kind, more = "") {
  return rect(x + 0.5, y + 0.5, width - 1, height - 1, kind, more);
}

export function circle(x, y, radius, kind, more = "") {
  return `<circle cx="${px(x)}" cy="${px(y)}" r="${px(radius)}" class="${kind}" ${more}/>`;
}

export function line(x1, y1, x2, y2, kind) {
  return `<path d="M${px(x1)} ${px(y1)}L${px(x2)} ${px(y2)}" class="${kind}"/>`;
}

/** A line through points [[x, y], ...]. */
export function curve(points, kind) {
  return `<path d="M${points.map(([x, y]) => `${px(x)} ${px(y)}`).join("L")}" class="${kind}"/>`;
}

export function text(x, y, words, kind = "", more = "") {
  return `<text x="${px(x)}" y="${px(y)}" class="${kind}" ${more}>${words}</text>`;
}

export function group(parts, more = "") {
  return `<g ${more}>${parts.join("")}</g>`;
}

/** A run that collapsed. */
export function cross(x, y, size, kind = "ink") {
  const s = size / 2;
  return `<path d="M${px(x - s)} ${px(y - s)}l${size} ${size}m0 ${-size}l${-size} ${size}" class="stroke ${kind}"/>`;
}

/** The fill of a cell that was not tried: define it once, then use fill="url(#id)". */
export function hatch(id) {
  return `<pattern id="${id}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
    <path d="M0 0V6" class="rule" stroke-width="2"/></pattern>`;
}

/** value -> pixel, linearly. */
export function linear([low, high], [from, to]) {
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

/** value -> pixel, by the logarithm. */
export function log([low, high], [from, to]) {
  const scale = linear([Math.log(low), Math.log(high)], [from, to]);
  return (value) => scale(Math.log(value));
}

/** About `many` round numbers of a linear scale: steps of 1, 2 or 5 times a power of ten. */
export function ticks([low, high], many = 5) {
  const rough = (high - low) / many;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((times) => times * unit >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

/** Ticks and their numbers along the bottom; those at the ends stay within [left, right]. */
export function axisBottom(scale, values, y, format, [left, right] = [-Infinity, Infinity]) {
  const one = (value) => {
    const x = scale(value);
    const anchor = x < left + 10 ? "" : x > right - 10 ? "end" : "mid";
    return line(x, y, x, y + 4, "rule") + text(x, y + 16, format(value), `tick ${anchor}`);
  };
  return values.map(one).join("");
}

/** Lines across and their numbers at the left. */
export function axisLeft(scale, values, [left, right], format) {
  const one = (value) => line(left, scale(value), right, scale(value), "rule");
  return values.map((v) => one(v) + text(left - 6, scale(v) + 4, format(v), "tick end")).join("");
}

/** Labels [{ y, words, kind }] at the right ends of their lines, moved apart until none covers another. */
export function directLabels(x, labels, apart = 15) {
  const sorted = [...labels].sort((a, b) => a.y - b.y);
  let last = -Infinity;
  return sorted.map(({ y, words, kind }) => text(x, (last = Math.max(y, last + apart)) + 4, words, kind)).join("");
}
