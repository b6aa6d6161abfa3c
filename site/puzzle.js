// Lines of code to be put in order: a puzzle for readers who cannot run them. Plain, for pages opened as files.

for (const place of document.querySelectorAll("[data-puzzle]")) {
  const { lines, shuffled, traps, rules, solved, glosses } = JSON.parse(place.querySelector("script").textContent);
  const wanted = lines.length - Object.keys(traps).length;
  const store = lab.kept("puzzle", []);
  let order = store.value.every((line) => lines[line]) ? store.value : []; // the lines taken, from top to bottom
  let said = order.length === wanted ? judge() : "";

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
    const words = text.replace(/(?<!self)\.(?=[a-z]+_)|(?<=\()(?=\w)/g, "<wbr>$&"); // it breaks between names, not in one
    return `<code style="--deep: ${lines[line].search(/\S/) / 4}">${words}</code>`;
  };

  function draw() {
    from.innerHTML = shuffled
      .filter((line) => !order.includes(line))
      .map((line) => `<li><button type="button" data-do="take" data-line="${line}">${code(line)}</button></li>`)
      .join("");
    to.innerHTML = order
      .map((line, at) => {
        const tools = [["up", "↑", "up"], ["down", "↓", "down"], ["drop", "×", "out"]];
        const buttons = tools.map(([action, symbol, where]) => button(action, line, symbol, `move line ${at + 1} ${where}`));
        return `<li>${code(line)}<span>${buttons.join("")}</span></li>`;
      })
      .join("");
    status.textContent = said;
  }

  /** What is wrong with the order, or what was built. A line that others need first may be below them, or not there. */
  function judge() {
    const trap = order.find((line) => traps[line]);
    if (trap !== undefined) return `Line ${order.indexOf(trap) + 1}: ${traps[trap]}`;
    for (const [firsts, thens, why] of rules) {
      const late = order.findIndex((line, at) => thens.includes(line) && !firsts.every((first) => order.slice(0, at).includes(first)));
      if (late >= 0) return `Line ${late + 1}: ${why}`;
    }
    const left = wanted - order.length;
    return left ? `So far so good: ${left} more ${left === 1 ? "line" : "lines"} to go.` : solved;
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

  function move(line, by) {
    const at = order.indexOf(line);
    if (!lines[order[at + by]]) return; // it is at the end already
    order.splice(at, 1);
    order.splice(at + by, 0, line);
  }

  place.addEventListener("click", ({ target }) => {
    const pressed = target.closest("button");
    if (!pressed) return;
    const { do: action, line } = pressed.dataset;
    const below = pressed.closest("li")?.nextElementSibling?.querySelector("button")?.dataset.line;
    actions[action](Number(line));
    store.save(order);
    const at = order.indexOf(Number(line)) + 1;
    said = { check: judge, take: () => `taken as line ${at}`, drop: () => "taken out" }[action]?.() ?? (line ? `now line ${at}` : "");
    draw();
    const again = ["up", "down"].includes(action) ? [action, line] : action === "take" ? ["take", below] : [];
    const next = place.querySelector(`[data-do="${again[0]}"][data-line="${again[1]}"]`);
    (next ?? (line ? (from.querySelector("button") ?? place.querySelector("[data-do=check]")) : pressed)).focus();
  });
  draw();
}
