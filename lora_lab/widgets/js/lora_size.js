// One layer to scale: W with A above and B to the right, so that entry (i, j) of the product BA lines up with W's (i, j).

import { letter, nearest, table } from "./controls.js";
import { about, count, percent } from "./format.js";
import { axisBottom, circle, curve, group, line, log, outline, rect, text } from "./svg.js";

/** Sizes that follow from a layer's shape and a rank. Counts are exact. */
export function sizes(m, n, r) {
  const full = m * n;
  const strips = r * (m + n);
  return { m, n, r, full, strips, share: strips / full, even: full / (m + n) };
}

/** Draw the layer. Returns { svg, height, onto(x, y), rankAt(x) }; `patch` is the state of the gathered patch. */
export function drawSize(width, size, patch) {
  const { m, n, r, share } = size;
  const [left, top, gap, below] = [34, 16, 8, 24];
  const room = Math.min(width, 580);
  const across = room - left - gap - 30;
  const down = Math.min(room, 570) - top - gap - below;
  const scale = Math.min(across / (n + r), down / (m + r)); // pixels for a row or column
  const [w, h, thick] = [n * scale, m * scale, r * scale];
  const strip = Math.max(1, thick);
  const [x, y] = [left, top + thick + gap];
  const right = x + w + gap;
  const parts = [rect(x, y, w, h, "frost"), outline(x, y, w, h, "rule")];

  parts.push(rect(x, y - gap - strip, w, strip, "train"), rect(right, y, strip, h, "train"));
  if (thick > 14) parts.push(outline(right, y - gap - thick, thick, thick, "rule"));
  parts.push(text(x - 10, y - gap - strip / 2 + 6, "A", "m train end"));
  parts.push(text(right + strip + 8, y + h / 2 + 6, "B", "m train"));

  let height = y + h + below;
  if (thick < 4) {
    const R = Math.min(62, width * 0.16);
    const within = w > 4 * R && h > 3.2 * R; // inside W if there is room, else below
    const [cx, cy] = [x + w - R - 18, within ? y + R + 18 : y + h + R + 34];
    height = Math.max(height, cy + R + 26);
    parts.push(lens(cx, cy, R, right + thick / 2, y - gap - thick / 2, thick));
  }
  const gathered = drawPatch([x, y, w, h], share, patch, ["A and B in one patch", "drag it onto W: how many fit?", "W"]);
  parts.push(gathered.svg);
  parts.push(text(x + 14, y + 30, "W", "m halo"));
  if (w > 120 && h > 90) parts.push(text(x + 14, y + 49, `${count(m)} × ${count(n)}, frozen`, "soft halo"));
  parts.push(group([rect(x + w - 16, y - 16, 32, 32, "touch"), circle(x + w, y, 6, "")], 'class="grip"'));
  const rankAt = (at) => Math.min(across / ((at - x) / n) - n, down / ((at - x) / n) - m); // the rank that puts W's corner there
  return { svg: parts.join(""), height, onto: gathered.onto, rankAt };
}

/** A and B as one patch in the shape of the box: when lifted, it overlaps the corner; when dropped, copies of it tile the box. */
export function drawPatch([x, y, w, h], share, { lift, dropped }, [name, hint, whole]) {
  const side = Math.sqrt(Math.min(1, share));
  const [pw, ph] = [side * w, side * h];
  const [px, py] = [x + lift[0], y + h - ph + lift[1]];
  const parts = [];
  if (dropped && pw >= 4 && share < 1) {
    const tile = `<path d="M0 ${ph}V0H${pw}" class="tiles${Math.min(pw, ph) < 9 ? " many" : ""}"/>`;
    const at = `x="${x}" y="${y + h}" width="${pw}" height="${ph}" patternUnits="userSpaceOnUse"`;
    parts.push(`<pattern id="tile" ${at}>${tile}</pattern>`, rect(x, y, w, h, "", 'fill="url(#tile)"'));
  }
  if (!dropped) parts.push(rect(px + 3, py + 3, pw, ph, "shadow", 'rx="1"'));
  parts.push(rect(px, py, pw, ph, "patch", 'rx="1"'));
  const [tw, th] = [Math.max(pw, 30), Math.max(ph, 30)]; // large enough for a finger
  parts.push(rect(px + (pw - tw) / 2, py + (ph - th) / 2, tw, th, "touch"));
  const level = dropped || hint ? Math.min(y + h - (hint ? 24 : 32), py + ph - 22) : py + ph; // one line may be below the box
  const covers = share > 1 ? `real size: ${about(share)} times ${whole}` : `${about(1 / share)} of these cover ${whole}`;
  const second = dropped || share > 1 ? covers : hint;
  const beside = pw < 0.5 * w && px + pw + 9 + 6.7 * Math.max(name.length, second.length) < x + w + 12; // there is room
  const [tx, ty] = beside ? [px + pw + 9, level] : [px + 14, py + ph - 30];
  if (w > 140) parts.push(text(tx, ty, name, "halo strong"), text(tx, ty + 15, second, "halo soft"));
  const onto = (at, up) => at > x && at < x + w && up > y && up < y + h;
  return { svg: group(parts, 'class="gathered"'), onto };
}

/** A magnifying glass for strips thinner than a few pixels: the corner where A ends and B begins. */
function lens(cx, cy, R, px, py, thick) {
  const zoom = 2 ** Math.ceil(Math.log2(20 / thick));
  const wide = thick * zoom;
  const [ox, oy] = [cx - 2, cy + 2]; // W's corner
  const inside = [rect(cx - R, cy - R, 2 * R, 2 * R, "paper"), rect(cx - R, oy, ox - cx + R, R, "frost")];
  inside.push(rect(cx - R, oy - 5 - wide, ox - cx + R, wide, "train"), rect(ox + 5, oy, wide, R, "train"));
  const glass = `<clipPath id="glass">${circle(cx, cy, R, "")}</clipPath>${group(inside, 'clip-path="url(#glass)"')}`;
  const words = text(cx, cy + R + 17, `${count(zoom)} times larger`, "soft mid halo");
  return line(px, py, cx, cy, "ray") + glass + circle(cx, cy, R, "edge", 'stroke-width="1.5"') + words;
}

/** d^2 and 2dr against the rank, or bytes against the number of customers. The axis is the slider below: each rank is above its place on the track. */
export function drawCurve(width, size, ranks, names, unit = "numbers", format = count, marks = [1, 8, 64, 512, 4096]) {
  const { m, n, r, full, strips, even } = size;
  const [top, bottom] = [30, 114];
  const at = (rank) => 9 + ((width - 18) * nearest(ranks, rank)) / Math.max(1, ranks.length - 1);
  const last = ranks.at(-1);
  const [whole, added] = names ?? (m === n ? ["d²", "2dr"] : ["W", "A and B"]);
  const up = log([(m + n) * 0.8, Math.max(full, last * (m + n)) * 1.25], [bottom - 6, top]);
  const doubled = ranks.filter((rank) => Number.isInteger(Math.log2(rank) / 3) || rank === last); // the curve is straight in between
  const [x, y, cut] = [at(r), up(strips), at(even)];
  const parts = [rect(cut, top, width - 9 - cut, bottom - top, "frost")];
  parts.push(line(9, up(full), width - 9, up(full), "stroke frozen"), line(cut, top - 4, cut, bottom, "edge"));
  parts.push(text(0, 9, `${unit}, log scale`, "tick"));
  if (r >= even) parts.push(text(cut + 4, top - 9, `${names ? `${added} = ${whole}` : "break-even"}: ${about(even)}`, cut > width - 110 ? "tick end" : "tick"));
  parts.push(curve(doubled.map((rank) => [at(rank), up(rank * (m + n))]), "stroke train"));
  parts.push(text(9, up(full) - 6, `${whole} = ${format(full)}`, "soft small halo"));
  const sum = `${added} = ${format(strips)}`;
  parts.push(line(x, y, x, bottom, "ray"), circle(x, y, 5, "train"));
  if (x > width / 2) parts.push(text(x - 9, bottom - 8, sum, "train small halo end"));
  else parts.push(text(x + 9, y + 13, sum, "train small halo"));
  parts.push(axisBottom(at, [...marks.filter((rank) => at(last) - at(rank) > 46), last], bottom, count, [9, width - 9]));
  return { svg: parts.join(""), height: bottom + 22 };
}

/** [title, headline, sentence, table]. */
export function describeSize(size) {
  const { m, n, r, full, strips, even, share } = size;
  const [W, A, B] = ["W", "A", "B"].map(letter);
  const half = `rank ${about(even)}${m === n ? `, half of ${letter("d")}` : ""}`;
  const [factor, unit, rule, title] = strips < full // the break-even is for the reader to find
    ? [about(1 / share), "fewer parameters to train", "",
      `${W} is frozen; only ${A} and ${B} train, ${percent(share)} of its size`]
    : [about(share), "as many numbers as W", `LoRA saves parameters only below ${half}.`,
      `At rank ${count(r)}, ${A} and ${B} are no smaller than ${W}`];
  const words = `Stored: ${W} + ${count(strips)}. Trained: ${count(strips)}, which is ${percent(share)} of ${W}. The
    model does not shrink: it keeps ${W}, frozen, and adds ${A} and ${B}. ${rule}`;
  const rows = [
    [W, `${count(m)} × ${count(n)}`, count(full), "0"],
    [A, `${count(r)} × ${count(n)}`, count(r * n), count(r * n)],
    [B, `${count(m)} × ${count(r)}`, count(m * r), count(m * r)],
    ["total", "", count(full + strips), count(strips)],
  ];
  const facts = table(["", "shape", "numbers stored", "trained"], rows, 3);
  return [title, `<b>${factor}×</b> <span>${unit}</span>`, words, facts];
}
