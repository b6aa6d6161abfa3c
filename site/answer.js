// Adds a form below each exercise on a page without a kernel. The correct numbers and all replies come from the lesson's
// checks, as JSON next to the form. The answers are stored in this browser.
(() => {
  const { make } = lab;
  const store = lab.kept("answers", {});
  const given = store.value;
  const fill = (words, values) => words.replace(/\{(\w+)\}/g, (placeholder, name) => values[name] ?? placeholder);
  const twoDigits = (rate) => String(Number(rate.toPrecision(2)));
  const right = (words) => ({ passed: true, words });
  const wrong = (words, hint) => ({ passed: false, words, hint });
  const FUNCTIONS = { sqrt: Math.sqrt, log2: Math.log2, log10: Math.log10, log: Math.log, ln: Math.log };
  const TAKES = "Write a number or a formula: + - * / ** ( ), sqrt, log and log2.";

  /** A number, or the value of a formula by Python's rules; NaN for anything else. */
  function value(text) {
    const formula = text
      .replace(/(\d)[ \u00a0\u2009\u202f'’_](?=\d{3}(?!\d))/g, "$1") // thousands separators
      .replace(/(\d)_(?=\d)/g, "$1")
      .replace(/([\d.)])\s*%\s*$/, "$1/100") // 62.5% is 0.625
      .replace(/\b(?:math|np|torch)\.(?=sqrt|log)/g, "")
      .replace(/√/g, "sqrt")
      .replace(/\^/g, "**")
      .replace(/[×·x]/gi, "*")
      .replace(/÷/g, "/")
      .replace(/[−–]/g, "-");
    const parts = formula.match(/[\d.,]+(?:e[+-]?\d+)?|\*\*|\/\/|sqrt|log2|log10|log|ln|\S/gi) ?? [];
    const take = (...tokens) => (tokens.includes(parts[0]) ? parts.shift() : undefined);
    const steps = {
      "+": (a, b) => a + b,
      "-": (a, b) => a - b,
      "*": (a, b) => a * b,
      "/": (a, b) => a / b,
      "//": (a, b) => Math.floor(a / b),
      "%": (a, b) => a - b * Math.floor(a / b),
    };

    function chain(next, ...signs) {
      let result = next();
      for (let sign = take(...signs); sign; sign = take(...signs)) result = steps[sign](result, next());
      return result;
    }

    const sum = () => chain(product, "+", "-");
    const product = () => chain(signed, "*", "/", "//", "%");
    function signed() {
      const sign = take("+", "-");
      if (!sign) return power();
      return sign === "-" ? -signed() : signed();
    }
    function power() {
      const base = single();
      return take("**") ? base ** signed() : base;
    }
    function single() {
      const name = take(...Object.keys(FUNCTIONS));
      if (name) return FUNCTIONS[name](single());
      const inside = take("(") ? sum() : undefined;
      const result = inside === undefined ? lab.number(parts.shift() ?? "") : take(")") && inside;
      if (!Number.isFinite(result)) throw new Error(TAKES);
      return result;
    }

    try {
      const result = sum();
      return parts.length === 0 && Number.isFinite(result) ? result : Number.NaN;
    } catch {
      return Number.NaN;
    }
  }

  const close = (a, b, within) => Math.abs(a - b) <= within * Math.max(Math.abs(a), Math.abs(b));
  /** Bytes of memory in words, with about three digits. */
  function binary(bytes) {
    const [unit, name] = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [1024, "KiB"]].find(([size]) => bytes >= size) ?? [1024, "KiB"];
    const count = bytes / unit;
    return `${count.toFixed(count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2)} ${name}`;
  }

  /** A judge for each kind of form. It applies the rules of `lora_course/checks` to the form's data. */
  const judges = {
    fields({ fields, why, every }, values) {
      const judged = fields.map((field, at) => ({ ...judges[field.judge](field, values[at]), name: field.name, hint: field.hint }));
      const marks = every && judged.map(({ passed }) => (passed ? "✓" : "✗"));
      const missed = judged.filter(({ passed }) => !passed).slice(0, every ? undefined : 1);
      if (!missed.length) return { ...right(why), marks };
      const words = missed.map((one) => (fields.length > 1 ? `${one.name}: ${one.words}` : one.words));
      const count = every ? `${fields.length - missed.length} of ${fields.length} are right.\n` : "";
      return { ...wrong(count + words.join("\n"), missed[0].hint), marks };
    },
    number(field, answer) {
      const decimals = [1, 2].find((n) => answer === Number(answer.toFixed(n)) && answer * 10 ** n >= 100);
      const off = Math.abs(answer - field.right);
      if (close(answer, field.right, field.within) || (decimals && off <= 0.5 * 10 ** -decimals)) return right(field.why);
      const near = field.misconceptions.filter(([number]) => close(answer, number, field.slack));
      const [nearest, words] = near.sort(([a], [b]) => Math.abs(answer - a) - Math.abs(answer - b))[0] ?? [Infinity];
      if (Math.abs(answer - nearest) < off) return wrong(words);
      const factor = answer / field.right;
      if (factor > 0.97 && factor < 1.03) return wrong(field.far.nearly);
      if (field.fallback) return wrong(field.fallback);
      if (!(factor > 0 && factor < Infinity)) return wrong(fill(field.far.sign, { side: field.right > 0 ? "above" : field.right ? "below" : "nearer to" }));
      return wrong(fill(factor > 1 ? field.far.large : field.far.small, { factor: Math.max(factor, 1 / factor).toLocaleString("en", { maximumSignificantDigits: 3 }) }));
    },
    early: ({ why }) => ({ words: why }), // the first answers, from which a later form starts
    choice: (field, answer) => (field.right.includes(answer) ? right(field.why) : wrong(field.replies[answer])),
    several(field, marks) {
      const matches = (others) => marks.every((mark, at) => mark === others[at]);
      if (matches(field.right)) return right();
      const at = marks.findIndex((mark, i) => mark !== field.right[i]);
      const fallback = `look again at ${field.options[at]}: ${field.look[Number(!marks[at])]}`;
      return wrong(field.near.find(([others]) => matches(others))?.[1] ?? fallback);
    },
    bracket({ plateau, found, steps, words, carried }, [low, middle, high]) {
      const ratios = [middle / low, high / middle];
      if (ratios.some((ratio) => ratio < 1)) return wrong(words.order);
      if (!ratios.every((ratio) => ratio >= steps[0])) return wrong(words.close);
      if (!ratios.every((ratio) => ratio <= steps[1])) return wrong(words.wide);
      const why = middle > carried[0] ? carried[1] : "";
      if (middle < plateau[0]) return wrong(words.below);
      if (middle > plateau[1]) return wrong(words.above + why);
      const sides = [low >= plateau[0] && words.lower + why, high <= plateau[1] && words.higher].filter(Boolean);
      if (sides.length) return wrong(sides.join("; "));
      return right(`${found}; ${fill(words.peak, { low: twoDigits(low), high: twoDigits(high) })}`);
    },
    row({ cases, card, room, best, near, almost, parts, words }, [method, checkpointing, seq]) {
      if (!(seq >= words.shortest)) return wrong(`seq must be at least ${words.shortest} tokens, not ${seq}`, parts.seq);
      const match = cases.find(({ options }) => options[0] === method && options[1] === checkpointing);
      const next = match.sizes.findIndex((size) => size.seq > seq);
      const [from, to] = next < 0 ? match.sizes.slice(-2) : match.sizes.slice(next - 1, next + 1);
      const size = (part) => from[part] + ((to[part] - from[part]) * (seq - from.seq)) / (to.seq - from.seq);
      const peak = size("peak");
      const facts = { card, size: binary(peak), at: from.at, seq: seq.toLocaleString("en") };
      if (seq > match.longest) {
        const held = ["weights", "logits", "activations"].filter(size).map((part) => `${part} ${binary(size(part))}`);
        const narrowly = match.part === "seq" && peak - room < almost * room;
        const why = narrowly ? words.left_out : match.over || fill(words.holds, { parts: held.join(", ") });
        return wrong(fill(words.over, { ...facts, more: binary(peak - room), why }), parts[match.part]);
      }
      if (seq >= near * best) return right(fill(words.fits, { ...facts, free: binary(room - peak) }));
      return wrong(fill(words.short, { ...facts, times: (best / seq).toFixed(1), why: match.short }), parts[match.part]);
    },
    /** After each right answer, show a text and the next field. */
    rounds({ fields, next, shown, why }, values) {
      const all = [...fields, ...next].map((field, at) => ({ ...field, ...judges[field.judge](field, values[at]) }));
      const missed = all.slice(0, values.length).find(({ passed }) => !passed);
      if (missed) return wrong(missed.words, missed.hint);
      return values.length === all.length ? right(why) : { words: shown[values.length - 1], next: next[values.length - 1] };
    },
    /** The same for the margin exercise: the first margin counts, and can't be changed. */
    defense(asked, [points, word, sentence]) {
      const margin = Math.round(10 * points) / 10;
      if (!(points > 0)) return wrong(asked.none);
      if (points < asked.limits[0]) return wrong(fill(asked.little, { margin: points }));
      if (points > asked.limits[1]) return wrong(asked.much);
      if (margin !== points) return wrong("give tenths of a point, such as 1.5");
      const verdict = asked.cases.findLast(({ from }) => from <= margin);
      const named = (words) => fill(words, { margin, word: verdict.word, seen: verdict.seen });
      if (word === undefined) return { words: named(asked.sealed_at), next: asked.next[0] };
      if (word !== verdict.word) return wrong(`${verdict.why_not[word]}. ${verdict.seen}`, asked.parts.word);
      const options = verdict.replies.map(([text]) => named(text));
      if (sentence === undefined) return { words: named(asked.which), next: { ...asked.next[1], options } };
      const at = options.indexOf(sentence);
      const reply = named(verdict.replies[at][1]);
      return at === verdict.right ? right(reply) : wrong(reply, asked.parts.sentence);
    },
  };

  /** For each kind of field: its element, its inputs, a function that reads the answer, and the accepted format. */
  const kinds = {
    number(name, { whole }) {
      const input = make("input", { autocomplete: "off", required: true, placeholder: "a number or a formula" });
      input.addEventListener("input", () => {
        input.setCustomValidity(Number.isNaN(value(input.value)) ? TAKES : "");
      });
      const read = () => value(/points|margin|tuned/.test(name) ? input.value.replace("%", "") : input.value); // 3.2% is 3.2 points
      return labeled(name, input, TAKES, () => (whole ? Math.floor(read() + 1e-9) : read()));
    },
    word(name, { options, shown = {} }) {
      const choices = ["", ...options].map((word) => make("option", { value: word, textContent: (shown[word] ?? word) || "choose" }));
      const input = make("select", { required: true }, ...choices);
      return labeled(name, input, "Choose a word.", () => input.value);
    },
    several: (name, { options }) => marked(name, options, "checkbox", (checked) => checked),
    one: (name, { options }) => marked(name, options, "radio", (checked) => options[checked.indexOf(true)]),
  };

  function labeled(name, input, takes, get) {
    return { element: make("label", {}, make("span", { textContent: name }), input), inputs: [input], takes, get };
  }

  function marked(name, options, type, get) {
    const inputs = options.map(() => make("input", { type, name, required: type === "radio" }));
    const labels = inputs.map((input, at) => make("label", {}, input, make("span", { textContent: options[at] })));
    const element = make("fieldset", { className: type }, make("legend", { textContent: name }), ...labels);
    return { element, inputs, takes: "Choose one.", get: () => get(inputs.map((input) => input.checked)) };
  }

  function form(place, asked, kept = given[asked.check] ?? given[asked.first]) {
    const alone = asked.fields.length === 1 && !asked.next; // then the question is the label
    const status = make("div", { role: "status" });
    const clear = make("button", { type: "button", textContent: "Clear", hidden: true });
    const buttons = make("p", {}, make("button", { textContent: asked.button ?? "Check" }), clear);
    const element = make("form", { className: "lab-answer", noValidate: true, ariaLabel: `your answer. ${asked.told}` });
    element.append(make("p", { className: "title", textContent: "No Python here? Solve the exercise on this page." }));
    if (!alone) element.append(make("p", { textContent: asked.told }));
    element.append(buttons, status);
    const fields = [];
    const cells = (name, texts) => texts.map((textContent) => make(name, { textContent }));
    const rows = make("tbody");
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...cells("th", asked.head ?? []))), rows);
    let row; // the table row being filled, if the form has a table
    let tries = kept?.tries ?? 0;

    /** Add a field and restore its stored answer. A field with a line starts a row of the table, and the next fields continue it. */
    function add(field) {
      const added = kinds[field.kind](alone ? asked.told : field.name, { shown: asked.shown, ...field });
      for (const [at, input] of added.inputs.entries()) Object.assign(input, kept?.fields[fields.length]?.[at]);
      fields.push(added);
      added.element.addEventListener("input", () => delete added.element.dataset.mark);
      if (field.line) rows.append((row = make("tr", {}, ...cells("th", field.line.slice(0, 1)), ...cells("td", field.line.slice(1)))));
      if (row) row.append(make("td", {}, added.element));
      buttons.before(row ? table : added.element);
    }

    function check() {
      const judge = (answers) => judges[asked.judge](asked, answers);
      const { passed, words, next, marks, hint: ownHint } = judge(fields.map((field) => field.get()));
      if (marks) for (const [at, { element: marked }] of fields.entries()) marked.dataset.mark = marks[at];
      if (passed === false && !kept) tries += 1;
      const hint = passed === false ? ownHint || asked.hints[Math.min(Math.max(tries, 1), asked.hints.length) - 1] : "";
      const mark = passed === undefined ? "" : passed ? "Right: " : "Not right: ";
      const early = given[asked.first]?.fields.map(([{ value }]) => value);
      const first = early && `${judge(early).marks.filter((one) => one === "✓").length} of your first ${early.length} were right.`;
      const paragraphs = [...(mark + words).split("\n"), first, hint].filter(Boolean);
      status.replaceChildren(...paragraphs.map((textContent) => make("p", { textContent })));
      element.classList.toggle("passed", passed === true);
      clear.hidden = false;
      if (asked.judge === "early") for (const { inputs: [input] } of fields) input.disabled = true;
      if (next) {
        fields.at(-1).inputs[0].disabled = true; // the first answer is final, even after Clear
        add(next);
      }
    }

    /** Store the answers, and redraw the form that starts from them. */
    function save(answers) {
      store.save(asked.check, answers);
      for (const [at, later] of places.filter(([, { first }]) => first === asked.check)) form(at, later, at.querySelector("form").remove());
    }

    element.addEventListener("submit", (event) => {
      event.preventDefault();
      const invalid = fields.findIndex(({ inputs }) => !inputs.every((input) => input.checkValidity()));
      if (invalid >= 0) {
        const { inputs, takes } = fields[invalid];
        const name = fields.length > 1 ? `${(asked.fields[invalid] ?? asked.next[invalid - 1]).name}: ` : "";
        status.replaceChildren(make("p", { textContent: name + takes }));
        element.classList.remove("passed");
        return inputs[0].focus();
      }
      kept = undefined;
      const before = fields.length;
      check();
      if (fields.length > before) fields.at(-1).inputs[0].focus();
      save({ tries, fields: fields.map(({ inputs }) => inputs.map(({ value, checked }) => ({ value, checked }))) });
    });
    clear.addEventListener("click", () => {
      const sealed = asked.next && fields[0].inputs[0].disabled;
      save(sealed ? { tries: 0, fields: given[asked.check].fields.slice(0, 1) } : undefined);
      element.remove();
      form(place, asked).querySelector(":is(input, select):enabled").focus();
    });
    for (const field of asked.fields) add(field);
    place.append(element);
    for (let at = asked.fields.length - 1; given[asked.check]?.fields[at] && element.checkValidity(); at += 1) check();
    return element;
  }

  const places = [...document.querySelectorAll("[data-answer]")].map((place) => [place, JSON.parse(place.querySelector("script").textContent)]);
  for (const [place, asked] of places) form(place, asked);
})();
