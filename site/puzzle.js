// A puzzle for readers who cannot run code: put the lines in order. A classic script, for pages opened as files.

for (const place of document.querySelectorAll("[data-puzzle]")) {
  const { lines, shuffled, traps, rules, solved, glosses } = JSON.parse(place.querySelector("script").textContent);
  const needed = lines.length - Object.keys(traps).length;
  const store = lab.kept("puzzle", {});
  let order = store.value.order?.every((line) => lines[line]) ? store.value.order : []; // the chosen lines, from top to bottom
  let message = order.length === needed ? judge() : "";

  place.insertAdjacentHTML(
    "beforeend",
    `<p>No PyTorch here? Build the layer from these lines. Two of them are wrong.</p>
    <ul>${Object.entries(glosses).map(([name, words]) => `<li><code>${name}</code>: ${words}</li>`).join("")}</ul>
    <div class="puzzle"><div><p id="puzzle-from">Take the next line</p><ul aria-labelledby="puzzle-from"></ul></div>
    <div><p id="puzzle-to">Your layer</p><ol aria-labelledby="puzzle-to"></ol></div></div>
    <p class="puzzle-do"><button type="button" data-do="check">Check</button>
    <button type="button" data-do="restart">Start over</button></p><p role="status"></p>`,
  );
  const [from, to, status] = [".puzzle ul", ".puzzle ol", "[role=status]"].map((part) => place.querySelector(part));
  place.hidden = false;

  const button = (action, line, symbol, words) =>
    `<button type="button" data-do="${action}" data-line="${line}" aria-label="${words}">${symbol}</button>`;
  const code = (line) => {
    const text = lines[line].trim().replace(/&/g, "&amp;").replace(/</g, "&lt;");
    const words = text.replace(/(?<!self)\.(?=[a-z]+_)|(?<=\()(?=\w)/g, "<wbr>$&"); // break lines between names, not inside them
    return `<code style="--deep: ${lines[line].search(/\S/) / 4}">${words}</code>`;
  };

  function draw() {
    from.innerHTML = shuffled
      .filter((line) => !order.includes(line))
      .map((line) => `<li><button type="button" data-do="take" data-line="${line}">${code(line)}</button></li>`)
      .join("");
    to.innerHTML = order
      .map((line, at) => {
        const tools = [["up", "↑", "up"], ["down", "↓", "down"], ["drop", "×", "out of the layer"]];
        const buttons = tools.map(([action, symbol, where]) => button(action, line, symbol, `move line ${at + 1} ${where}`));
        return `<li>${code(line)}<span>${buttons.join("")}</span></li>`;
      })
      .join("");
    status.textContent = message;
  }

  /** A message about the order: its first mistake, how many lines are missing, or that it is solved. */
  function judge() {
    const trap = order.find((line) => traps[line]);
    if (trap !== undefined) return `Line ${order.indexOf(trap) + 1}: ${traps[trap]}`;
    for (const [firsts, thens, why] of rules) {
      const early = order.findIndex((line, at) => thens.includes(line) && !firsts.every((first) => order.slice(0, at).includes(first)));
      if (early >= 0) return `Line ${early + 1}: ${why}`;
    }
    const left = needed - order.length;
    return left ? `Correct so far: ${left} more ${left === 1 ? "line" : "lines"} to go.` : solved;
  }

  const actions = {
    take: (line) => order.push(line),
    drop: (line) => order.splice(order.indexOf(line), 1),
    up: (line) => move(line, -1),
    down: (line) => move(line, 1),
    check: () => {},
    restart: () => {
      order = [];
    },
  };

  function move(line, shift) {
    const at = order.indexOf(line);
    if (!lines[order[at + shift]]) return; // already at the end
    order.splice(at, 1);
    order.splice(at + shift, 0, line);
  }

  place.addEventListener("click", ({ target }) => {
    const pressed = target.closest("button");
    if (!pressed) return;
    const { do: action, line } = pressed.dataset;
    const below = pressed.closest("li")?.nextElementSibling?.querySelector("button")?.dataset.line;
    actions[action](Number(line));
    store.save("order", order);
    const at = order.indexOf(Number(line)) + 1;
    message = { check: judge, take: () => `taken as line ${at}`, drop: () => "removed" }[action]?.() ?? (line ? `now line ${at}` : "");
    draw();
    const [nextAction, nextLine] = ["up", "down"].includes(action) ? [action, line] : action === "take" ? ["take", below] : [];
    const next = place.querySelector(`[data-do="${nextAction}"][data-line="${nextLine}"]`);
    (next ?? (line ? (from.querySelector("button") ?? place.querySelector("[data-do=check]")) : pressed)).focus();
  });
  draw();
}
