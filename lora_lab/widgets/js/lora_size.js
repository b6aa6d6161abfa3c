// One layer to scale: W with A above and B to the right, so that entry (i, j) of the product BA falls onto W's (i, j).

import { letter, nearest, table } from "./controls.js";
import { about, count, percent } from "./format.js";
import { axisBottom, circle, curve, group, line, log, outline, rect, text } from "./svg.js";

/** What follows from the width of a square layer and a rank. Counts are exact. */
export const sizes = ({ d, r }) => ({ d, r, full: d * d, strips: 2 * d * r, share: (2 * r) / d, even: d / 2 });

/** { svg, height, rankAt(x), onto(x, y) } of the layer; `patch` says where the gathered patch is. */
export function drawSize(width, size, patch) {
  const { d, r, share } = size;
  const [left, top, gap, below] = [34, 16, 8, 24];
  const room = Math.min(width, 580);
  const across = room - left - gap - 30;
  const down = Math.min(room, 570) - top - gap - below;
  const scale = Math.min(across, down) / (d + r); // pixels for a row or column
  const [w, h, thick] = [d * scale, d * scale, r * scale];
  const strip = Math.max(1, thick);
  const [x, y] = [left, top + thick + gap];
  const right = x + w + gap;
  const parts = [rect(x, y, w, h, "frost"), outline(x, y, w, h, "rule")];

  parts.push(rect(x, y - gap - strip, w, strip, "train"), rect(right, y, strip, h, "train"));
  if (thick > 14) parts.push(outline(right, y - gap - thick, thick, thick, "rule"));
  parts.push(text(x - 10, y - gap - strip / 2 + 6, "A", "m train end"));
  parts.push(text(right + strip + 8, y + h / 2 + 6, "B", "m train"));

  const R = Math.min(62, width * 0.16);
  if (thick < 4) parts.push(lens(x + w - R - 18, y + R + 18, R, right + thick / 2, y - gap - thick / 2, thick, r));
  const gathered = drawPatch([x, y, w, h], share, patch, ["A and B in one patch", "drag it onto W: how many fit?", "W"]);
  parts.push(gathered.svg);
  if (w > 120 && h > 90) {
    parts.push(text(x + 14, y + 30, "W", "m halo"), text(x + 14, y + 49, `${count(d)} × ${count(d)}`, "soft halo"));
    parts.push(text(x + 14, y + 65, "frozen", "soft halo"));
  } else {
    parts.push(text(x + w / 2, y + h / 2 + 6, "W", "m mid"));
  }
  parts.push(group([rect(x + w - 16, y - 16, 32, 32, "touch"), circle(x + w, y, 6, "")], 'class="grip"'));
  const rankAt = (at) => Math.min(across, down) / ((at - x) / d) - d; // with W's corner there
  return { svg: parts.join(""), height: y + h + below, onto: gathered.onto, rankAt };
}

/** What A and B hold, as one patch in the shape of the box [x, y, w, h]: it fills the box at break-even. Lifted it lies
 * across the corner; dropped it fits the corner, and its outline is repeated until the box is full. */
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
  const [tw, th] = [Math.max(pw, 30), Math.max(ph, 30)]; // enough for a finger
  parts.push(rect(px + (pw - tw) / 2, py + (ph - th) / 2, tw, th, "touch"));
  const beside = pw < 0.5 * w;
  const [tx, ty] = beside ? [px + pw + 9, Math.min(y + h - 24, py + ph - 22)] : [px + 14, py + ph - 30];
  const second = dropped ? (share < 1 ? `${about(1 / share)} of these cover ${whole}` : `it covers ${whole}`) : hint;
  if (w > 140) parts.push(text(tx, ty, name, "halo strong"), text(tx, ty + 15, second, "halo soft"));
  const onto = (at, up) => at > x && at < x + w && up > y && up < y + h;
  return { svg: group(parts, 'class="gathered"'), onto };
}

/** What is thinner than a pixel, through a glass: the corner where A ends and B begins, r lines in each. */
function lens(cx, cy, R, px, py, thick, r) {
  const zoom = 2 ** Math.ceil(Math.log2(20 / thick));
  const wide = thick * zoom;
  const [ox, oy] = [cx - 2, cy + 2]; // W's corner
  const inside = [rect(cx - R, cy - R, 2 * R, 2 * R, "paper"), rect(cx - R, oy, ox - cx + R, R, "frost")];
  inside.push(rect(cx - R, oy - 5 - wide, ox - cx + R, wide, "train"), rect(ox + 5, oy, wide, R, "train"));
  for (let i = 1; i < r && wide / r >= 1.7; i++) {
    const at = (i * wide) / r - 0.4;
    inside.push(rect(cx - R, oy - 5 - wide + at, ox - cx + R, 0.8, "paper"), rect(ox + 5 + at, oy, 0.8, R, "paper"));
  }
  const turn = Math.acos(Math.min(1, R / Math.hypot(px - cx, py - cy)));
  const aim = Math.atan2(py - cy, px - cx);
  const tangents = [aim - turn, aim + turn].map((a) => line(px, py, cx + R * Math.cos(a), cy + R * Math.sin(a), "ray"));
  const glass = `<clipPath id="glass">${circle(cx, cy, R, "")}</clipPath>${group(inside, 'clip-path="url(#glass)"')}`;
  const words = text(cx, cy + R + 17, `${count(zoom)} times larger`, "soft mid halo");
  return tangents.join("") + glass + circle(cx, cy, R, "edge", 'stroke-width="1.5"') + words;
}

/** d^2 against 2dr over the rank. The slider below is the axis: a rank stands where the thumb would be. */
export function drawCurve(width, size, ranks) {
  const { d, r, full, strips, even } = size;
  const [top, bottom] = [30, 114];
  const at = (rank) => 9 + ((width - 18) * nearest(ranks, rank)) / Math.max(1, ranks.length - 1);
  const most = ranks.at(-1);
  const up = log([1.6 * d, Math.max(full, 2 * d * most) * 1.25], [bottom - 6, top]);
  const doubled = ranks.filter((rank) => Number.isInteger(Math.log2(rank)) || rank === most); // between them it is straight
  const [x, y, cut] = [at(r), up(strips), at(even)];
  const parts = [rect(cut, top, width - 9 - cut, bottom - top, "frost")];
  parts.push(line(9, up(full), width - 9, up(full), "stroke frozen"), line(cut, top - 4, cut, bottom, "edge"));
  parts.push(text(0, 9, "numbers, log scale", "tick"));
  parts.push(text(cut + 4, top - 9, `break-even: ${about(even)}`, cut > width - 110 ? "tick end" : "tick"));
  parts.push(curve(doubled.map((rank) => [at(rank), up(2 * d * rank)]), "stroke train"));
  parts.push(text(9, up(full) - 6, `d² = ${count(full)}`, "soft small halo"));
  const sum = `2dr = ${count(strips)}`;
  parts.push(line(x, y, x, bottom + 22, "ray"), circle(x, y, 5, "train"));
  if (x > width / 2) parts.push(text(x - 9, bottom - 8, sum, "train small halo end"));
  else parts.push(text(x + 9, y + 13, sum, "train small halo"));
  const names = [1, 8, 64, 512, 4096].filter((rank) => at(most) - at(rank) > 46).concat(most);
  parts.push(axisBottom(at, names, bottom, count, [9, width - 9]));
  return { svg: parts.join(""), height: bottom + 22 };
}

/** [title, headline, sentence, table] in words and numbers. */
export function tellSize(size) {
  const { d, r, full, strips, even, share } = size;
  const [W, A, B] = ["W", "A", "B"].map(letter);
  const half = `rank ${about(even)}, half of ${letter("d")}`;
  const [big, than, rule, title] = strips < full
    ? [about(1 / share), "fewer numbers to train", `At ${half}, they would hold as many numbers as ${W}.`,
      `${W} is frozen; only ${A} and ${B} train, ${percent(share)} of its size`]
    : [about(share), "as many numbers as W", `From ${half}, LoRA saves nothing.`,
      `At rank ${count(r)}, ${A} and ${B} are no smaller than ${W}`];
  const words = `Stored: ${W} + ${count(strips)}. Trained: ${count(strips)}, which is ${percent(share)} of ${W}. The
    model does not shrink: ${W} stays, frozen, and ${A} and ${B} are added to it. ${rule}`;
  const rows = [
    [W, `${count(d)} × ${count(d)}`, count(full), "0"],
    [A, `${count(r)} × ${count(d)}`, count(r * d), count(r * d)],
    [B, `${count(d)} × ${count(r)}`, count(r * d), count(r * d)],
    ["total", "", count(full + strips), count(strips)],
  ];
  const facts = table(["", "shape", "numbers stored", "trained"], rows, 3);
  return [title, `<b>${big}×</b> <span>${than}</span>`, words, facts];
}
