// Predictions on a page without a kernel. A cell that asks for ranges is followed by a form. Until its ranges are sealed or
// skipped, the panels, results and folded findings after it stay closed. The answers are stored in this browser.
// The first range for each result (empty if it was skipped) is stored too, and lesson 09 draws it.
(() => {
  const { make } = lab;
  const store = lab.kept("ranges", {});
  const given = store.value;
  const first = lab.kept("results", {}); // {question: [low, high, result]}
  /** Store the first result for a question, unless another tab has stored one. */
  const keepFirst = (name, result) => first.save(name, lab.kept("results", {}).value[name] ?? first.value[name] ?? result);
  const questionsIn = (text) => [...text.matchAll(/(?:lesson\.predict\(\s*"|# .* your (?=margin))([^"\n]+)/g)].map((match) => match[1]);
  const isMargin = (name) => name.startsWith("margin"); // one number: the margin that the first panel starts with
  const answered = (names) => names.every((name) => name in given);
  const range = (ends) => ends.join(" to ");

  const openPanel = (names) => names.filter((name) => isMargin(name) && given[name]).forEach((name) =>
    document.querySelector("[data-panel]").model.set("margin", Math.abs(given[name][0]) / 100));
  /** Add the form below a cell: two numbers for each question, or one for a margin. */
  function ask(cell) {
    const names = questionsIn(cell.textContent);
    const status = make("p", { role: "status" });
    const form = make("form", { className: "lab-predict", ariaLabel: `your ranges: ${names.join(", ")}` });
    const rows = names.map((name) => {
      const words = isMargin(name) ? ["±"] : ["from", "to"];
      const ends = words.map((word) => make("input", { inputMode: "decimal", ariaLabel: `${name}, ${word}` }));
      return { name, ends, row: make("p", {}, make("span", { textContent: name }), ...ends.flatMap((end, at) => [` ${words[at]} `, end])) };
    });
    const skip = make("button", { type: "button", textContent: "Skip" });
    const clear = make("button", { type: "button", textContent: "Clear" });
    form.append(...rows.map(({ row }) => row), make("button", { textContent: "Seal my ranges" }), skip, clear, status);
    cell.after(form);
    for (const printed of cell.querySelectorAll(".cell_output pre")) { // the form shows the question
      printed.textContent = printed.textContent.split("\n").filter((line) => !line.includes("needs your range")).join("\n");
      printed.closest(".cell_output").hidden = !printed.textContent.trim();
    }

    const answer = (rangeOf) => {
      for (const row of rows) {
        store.save(row.name, rangeOf(row));
        if (!given[row.name]) keepFirst(row.name, []); // its result is now shown, so no later range counts
      }
      update();
      openPanel(names);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const filled = ({ ends }) => ends.filter((end) => end.value).length;
      const half = rows.find((row) => filled(row) % row.ends.length);
      const numbers = ({ ends }) => ends.map((end) => lab.number(end.value.replace(/[−–]/g, "-").replace(/[\s%'’]/g, "")));
      const odd = rows.find((row) => filled(row) && !numbers(row).every(Number.isFinite));
      const swapped = rows.find((row) => numbers(row)[0] > numbers(row)[1]);
      if (!rows.some(filled)) status.textContent = "No range yet: fill in a row, or press Skip.";
      else if (half) status.textContent = `${half.name}: give both numbers, or leave both empty to skip this row.`;
      else if (odd) status.textContent = `${odd.name}: give numbers, such as 0.5 or 1,200.`;
      else if (swapped) status.textContent = `${swapped.name}: the first number is larger than the second. Swap them.`;
      else answer((row) => (filled(row) ? numbers(row) : null));
    });
    skip.addEventListener("click", () => answer(() => null));
    clear.addEventListener("click", () => {
      for (const name of names) store.save(name);
      update();
    });

    function show() {
      const done = answered(names);
      form.classList.toggle("done", done);
      const words = names.map((name) => `${name}: ${given[name] ? range(given[name]) : "skipped"}`);
      status.textContent = done ? `Sealed: ${words.join("; ")}.` : "You should be 80% sure of each range. Empty rows are skipped. Seal or skip your ranges to see our findings.";
    }
    return { cell, names, show };
  }

  const asks = [...document.querySelectorAll(".tag_predict")].map(ask);
  const results = [...document.querySelectorAll(".tag_reveal")].map((cell) => {
    const text = cell.querySelector(".cell_output pre");
    return { text, lines: text?.textContent.split("\n") ?? [] };
  });
  const asksBefore = (element) => asks.filter(({ cell }) => cell.compareDocumentPosition(element) === Node.DOCUMENT_POSITION_FOLLOWING);
  const select = (selector) => [...document.querySelectorAll(selector)].map((element) => ({ element, names: asksBefore(element).flatMap(({ names }) => names) }));
  const folds = select("article section > details");
  const outputs = select(":not(.tag_predict) > .cell_output, [data-seal]").filter(({ names }) => names.length);
  for (const [at, output] of outputs.entries()) {
    const again = outputs[at - 1]?.names.length === output.names.length; // the same form seals both
    const words = again ? "Sealed ↑" : "Sealed: give your ranges first, or skip them ↑";
    output.sign = make("button", { type: "button", className: "lab-sealed", textContent: words });
    output.element.before(output.sign);
  }

  /** Add the reader's range to a line such as "points lost: it is 1.5 points." */
  function judged(line) {
    const [, name, number] = line.match(/^(.+): it is (-?[\d,.]*\d)/) ?? [];
    if (!given[name]) return line;
    const value = Number(number.replaceAll(",", ""));
    const inside = given[name][0] <= value && value <= given[name][1];
    keepFirst(name, [...given[name], value]);
    return `${line.replace(/\.$/, "")}: ${inside ? "inside" : "outside"} your range, ${range(given[name])}.`;
  }

  /** How many of `n` ranges contain the result, for 95% of readers who are right 80% of the time: a binomial interval. */
  function luck(n) {
    return [0.025, 0.975].map((share) => {
      let [held, exactly, upTo] = [0, 0.2 ** n, 0.2 ** n];
      for (; upTo < share; held += 1, upTo += exactly) exactly *= (4 * (n - held)) / (held + 1);
      return held;
    });
  }

  /** Show the reader's own ranges from all lessons in place of the invented example. */
  function drawRanges(cell) {
    const own = lab.all("results").flatMap(([page, results]) =>
      Object.entries(results).filter(([, kept]) => kept.length).map(([name, [low, high, value]]) => ({
        words: `lesson ${page.slice(0, 2)}, ${name}: ${value}, your range ${range([low, high])}`,
        place: (value - low) / (high - low || 1e-9),
        held: low <= value && value <= high,
      })));
    const example = cell.querySelector(".cell_output");
    cell.querySelector(".lab-ranges")?.remove();
    example.hidden ||= own.length > 0;
    if (!own.length || !answered(asksBefore(cell).flatMap(({ names }) => names))) return;
    const [least, most] = luck(own.length);
    const title = `${own.filter(({ held }) => held).length} of your ${own.length} ranges on these pages contain the result. If you are right 80% of the time, expect between ${least} and ${most} to contain it.`;
    const rows = own.map(({ words, place, held }) => {
      const left = `left: ${(100 * (Math.min(Math.max(place, -0.9), 1.9) + 1)) / 3}%`;
      const mark = make("b", { style: left, textContent: held ? "●" : "×" });
      return make("li", {}, make("span", { ariaHidden: "true" }, mark), `${words}: ${held ? "inside" : "outside"}.`);
    });
    example.after(make("div", { className: "lab-ranges" }, make("p", { textContent: title }), make("ul", {}, ...rows)));
  }

  /** Say how many of the reader's ranges contain the result, on this page and on all pages. */
  function count(place) {
    const held = (pages) => pages.flatMap(Object.values).filter((kept) => kept.length).map(([low, high, value]) => low <= value && value <= high);
    const [here, all] = [held([first.value]), held(lab.all("results").map(([, results]) => results))];
    const of = (ranges) => `${ranges.filter(Boolean).length} of ${ranges.length}`;
    const far = all.length > here.length ? `, and ${of(all)} on all pages so far` : "";
    place.textContent = here.length ? `On this page, ${of(here)} ranges contain the result${far}. If you're 80% sure, about 4 of 5 should.` : "You gave no ranges on this page.";
  }

  function update() {
    for (const { show } of asks) show();
    for (const { text, lines } of results) if (text) text.textContent = lines.map(judged).join("\n");
    for (const { element, names, sign } of outputs) {
      element.hidden = !answered(names);
      sign.hidden = answered(names);
    }
    document.querySelectorAll(".tag_calibration").forEach(drawRanges);
    document.querySelectorAll(".lab-caught").forEach(count);
    for (const { element, names } of folds) {
      element.classList.toggle("sealed", !answered(names));
      if (!answered(names)) element.open = false;
    }
  }

  document.addEventListener("click", (event) => {
    const sealed = event.target.closest?.("details.sealed > summary, .lab-sealed"); // both lead to the form
    if (!sealed) return;
    event.preventDefault();
    const { cell } = asks.find(({ names }) => !answered(names));
    cell.nextElementSibling.querySelector("input").focus();
  });
  update();
  addEventListener("load", () => openPanel(Object.keys(given))); // after host.js has drawn it
})();
