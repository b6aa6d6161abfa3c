// A treemap: areas to scale, blocks as square as they can be (Bruls, Huizing and van Wijk, 2000).

/** [{ value, ... }], the largest first, as [{ item, x, y, w, h }] that fill a box. */
export function squarify(items, [x, y, w, h]) {
  const total = items.reduce((sum, item) => sum + item.value, 0);
  const scale = (w * h) / total;
  const placed = [];
  let rest = [...items];
  while (rest.length) {
    const side = Math.min(w, h);
    let row = [rest[0]];
    while (row.length < rest.length) {
      const longer = rest.slice(0, row.length + 1);
      if (worst(longer, side, scale) > worst(row, side, scale)) break;
      row = longer;
    }
    const thick = (row.reduce((sum, item) => sum + item.value, 0) * scale) / side;
    let at = 0;
    for (const item of row) {
      const long = (item.value * scale) / thick;
      placed.push(
        w >= h ? { item, x, y: y + at, w: thick, h: long } : { item, x: x + at, y, w: long, h: thick },
      );
      at += long;
    }
    if (w >= h) [x, w] = [x + thick, w - thick];
    else [y, h] = [y + thick, h - thick];
    rest = rest.slice(row.length);
  }
  return placed;
}

/** The longest over the shortest side of the worst block in a row along a side. */
function worst(row, side, scale) {
  const areas = row.map((item) => item.value * scale);
  const sum = areas.reduce((a, b) => a + b, 0);
  return Math.max((side ** 2 * Math.max(...areas)) / sum ** 2, sum ** 2 / (side ** 2 * Math.min(...areas)));
}
