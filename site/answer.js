// Exercises on a page without a kernel: a form below each. The numbers that an answer is compared with and all replies
// come from the lesson's checks, as JSON beside the form. What was answered stays in this browser.
(() => {
  const { make } = lab;
  const store = lab.kept("answers", {});
  const given = store.value;
  const fill = (words, values) => words.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
  const two = (rate) => String(Number(rate.toPrecision(2))); // figures
  const right = (words) => ({ passed: true, words });
  const wrong = (words, hint) => ({ passed: false, words, hint });
  const TAKES = "Write a number or a formula: + - * / ** ( ) and sqrt.";

  /** A number as people write it: 1536, 1,536, 1.234.567, 0,0169, 2.5e-3; NaN for anything else. */
  function literal(text) {
    const [, digits, exponent = ""] = /^([^e]*)(e.*)?$/i.exec(text);
    let plain = digits.replace(",", ".");
    if (/^[1-9]\d{0,2}(,\d{3})+(\.\d*)?$/.test(digits)) plain = digits.replaceAll(",", "");
    if (/^[1-9]\d{0,2}((\.\d{3})+,\d+|(\.\d{3}){2,})$/.test(digits)) plain = digits.replaceAll(".", "").replace(",", ".");
    return plain ? Number(plain + exponent) : Number.NaN;
  }

  /** A number, or the value of a formula as Python reckons it; NaN for anything else. */
  function value(text) {
    const formula = text
      .replace(/(\d)[ \u00a0\u2009\u202f'’_](?=\d{3}(?!\d))/g, "$1") // between thousands
      .replace(/(\d)_(?=\d)/g, "$1")
      .replace(/\b(?:math|np)\.(?=sqrt)/g, "")
      .replace(/√/g, "sqrt")
      .replace(/\^/g, "**")
      .replace(/[×·x]/gi, "*")
      .replace(/÷/g, "/")
      .replace(/[−–]/g, "-");
    const parts = formula.match(/[\d.,]+(?:e[+-]?\d+)?|\*\*|\/\/|sqrt|\S/gi) ?? [];
    const take = (...wanted) => (wanted.includes(parts[0]) ? parts.shift() : undefined);
    const steps = {
      "+": (a, b) => a + b,
      "-": (a, b) => a - b,
      "*": (a, b) => a * b,
      "/": (a, b) => a / b,
      "//": (a, b) => Math.floor(a / b),
      "%": (a, b) => a - b * Math.floor(a / b),
    };

    function chain(next, ...signs) {
      let found = next();
      for (let sign = take(...signs); sign; sign = take(...signs)) found = steps[sign](found, next());
      return found;
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
      if (take("sqrt")) return Math.sqrt(single());
      const inside = take("(") ? sum() : undefined;
      const found = inside === undefined ? literal(parts.shift() ?? "") : take(")") && inside;
      if (!Number.isFinite(found)) throw new Error(TAKES);
      return found;
    }

    try {
      const found = sum();
      return parts.length === 0 && Number.isFinite(found) ? found : Number.NaN;
    } catch {
      return Number.NaN;
    }
  }

  const close = (a, b, within) => Math.abs(a - b) <= within * Math.max(Math.abs(a), Math.abs(b));
  /** Bytes of memory in words, with about three figures. */
  function binary(bytes) {
    const [unit, name] = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [1024, "KiB"]].find(([least]) => bytes >= least) ?? [1024, "KiB"];
    const count = bytes / unit;
    return `${count.toFixed(count >= 100 ? 0 : count >= 10 ? 1 : 2)} ${name}`;
  }

  /** What each kind of form makes of the values given: the rules of `lora_course/checks`, over their tables. */
  const judges = {
    fields({ fields, why }, values) {
      const judged = fields.map((field, at) => judges[field.judge](field, values[at]));
      const at = judged.findIndex((one) => !one.passed);
      if (at < 0) return right(why);
      return wrong(fields.length > 1 ? `${fields[at].name}: ${judged[at].words}` : judged[at].words, fields[at].hint);
    },
    number(field, answer) {
      const decimals = [1, 2].find((n) => answer === Number(answer.toFixed(n)) && answer * 10 ** n >= 100);
      const off = Math.abs(answer - field.right);
      if (close(answer, field.right, field.within) || (decimals && off <= 0.5 * 10 ** -decimals)) return right(field.why);
      const near = field.misconceptions.filter(([one]) => close(answer, one, 0.02));
      const [nearest, words] = near.sort(([a], [b]) => Math.abs(answer - a) - Math.abs(answer - b))[0] ?? [Infinity];
      if (Math.abs(answer - nearest) <= off) return wrong(words);
      if (field.fallback) return wrong(field.fallback);
      const factor = answer / field.right;
      if (!(factor > 0 && factor < Infinity)) return wrong(fill(field.far.sign, { side: field.right > 0 ? "above" : "below" }));
      if (factor > 0.97 && factor < 1.03) return wrong(field.far.nearly);
      return wrong(fill(factor > 1 ? field.far.large : field.far.small, { factor: Math.max(factor, 1 / factor).toLocaleString("en", { maximumSignificantDigits: 3 }) }));
    },
    choice: (field, answer) => (field.right.includes(answer) ? right(field.why) : wrong(field.replies[answer])),
    several(field, marks) {
      const are = (others) => marks.every((mark, at) => mark === others[at]);
      if (are(field.right)) return right();
      const at = marks.findIndex((mark, i) => mark !== field.right[i]);
      const other = `look again at ${field.options[at]}: ${field.look[Number(!marks[at])]}`;
      return wrong(field.near.find(([others]) => are(others))?.[1] ?? other);
    },
    bracket({ plateau, found, steps, words, carried }, [low, middle, high]) {
      if (![middle / low, high / middle].every((step) => steps[0] <= step && step <= steps[1])) return wrong(words.steps);
      if (middle < plateau[0]) return wrong(`${found}; ${words.below}`);
      if (middle > plateau[1]) return wrong(`${found}; ${words.above}${middle > carried[0] ? carried[1] : ""}`);
      const around = low <= plateau[0] && plateau[1] <= high;
      return right(`${found}; ${words.on_it}${around ? `, and ${fill(words.peak, { low: two(low), high: two(high) })}` : ""}`);
    },
    row({ cases, card, room, best, near, almost, parts, words }, [method, checkpointing, seq]) {
      if (!(seq >= words.shortest)) return wrong(`seq must be at least ${words.shortest} tokens, not ${seq}`, parts.seq);
      const one = cases.find(({ options }) => options[0] === method && options[1] === checkpointing);
      const next = one.sizes.findIndex((size) => size.seq > seq);
      const [from, to] = next < 0 ? one.sizes.slice(-2) : one.sizes.slice(next - 1, next + 1);
      const size = (part) => from[part] + ((to[part] - from[part]) * (seq - from.seq)) / (to.seq - from.seq);
      const peak = size("peak");
      const said = { card, size: binary(peak), at: from.at, seq: seq.toLocaleString("en") };
      if (seq > one.longest) {
        const held = ["weights", "logits", "activations"].filter(size).map((part) => `${part} ${binary(size(part))}`);
        const closely = one.part === "seq" && peak - room < almost * room;
        const why = closely ? words.left_out : one.over || fill(words.holds, { parts: held.join(", ") });
        return wrong(fill(words.over, { ...said, more: binary(peak - room), why }), parts[one.part]);
      }
      if (seq >= near * best) return right(fill(words.fits, { ...said, free: binary(room - peak) }));
      return wrong(fill(words.short, { ...said, times: (best / seq).toFixed(1), why: one.short }), parts[one.part]);
    },
    /** Each right answer brings the next field; the first margin counts. */
    defense(asked, [points, word, sentence]) {
      const margin = Math.round(10 * points) / 10;
      if (!(points > 0)) return wrong(asked.none);
      if (points < asked.limits[0]) return wrong(fill(asked.little, { margin: points }));
      if (points > asked.limits[1]) return wrong(asked.much);
      const found = asked.cases.findLast((one) => one.from <= margin);
      const named = (words) => fill(words, { margin, word: found.word, seen: found.seen });
      if (word === undefined) return { words: `${named(asked.sealed_at)}\n${asked.rule}`, next: asked.next[0] };
      if (word !== found.word) return wrong(`${found.why_not[word]}. ${found.seen}`, asked.parts.word);
      const options = found.replies.map(([text]) => named(text));
      if (sentence === undefined) return { words: named(asked.which), next: { ...asked.next[1], options } };
      const at = options.indexOf(sentence);
      return at === found.right ? right(found.replies[at][1]) : wrong(found.replies[at][1], asked.parts.sentence);
    },
  };

  /** What a field is drawn as: its element, its inputs, how their answer is read, and what it takes. */
  const kinds = {
    number(name, { whole }) {
      const input = make("input", { autocomplete: "off", required: true, placeholder: "a number or a formula" });
      input.addEventListener("input", () => {
        input.setCustomValidity(Number.isNaN(value(input.value)) ? TAKES : "");
      });
      return labeled(name, input, TAKES, () => (whole ? Math.floor(value(input.value) + 1e-9) : value(input.value)));
    },
    word(name, { options }) {
      const choices = ["", ...options].map((word) => make("option", { value: word, textContent: word || "choose" }));
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

  function form(place, asked, kept = given[asked.check]) {
    const alone = asked.fields.length === 1 && !asked.next; // then its label is the question
    const said = make("div", { role: "status" });
    const again = make("button", { type: "button", textContent: "Clear", hidden: true });
    const buttons = make("p", {}, make("button", { textContent: "Check" }), again);
    const element = make("form", { className: "lab-answer", noValidate: true, ariaLabel: `your answer. ${asked.told}` });
    element.append(make("p", { className: "title", textContent: "No Python here? Answer it on this page." }));
    if (!alone) element.append(make("p", { textContent: asked.told }));
    element.append(buttons, said);
    const fields = [];
    let tries = kept?.tries ?? 0;

    /** One field more; what was kept is written into it. */
    function add(field) {
      const added = kinds[field.kind](alone ? asked.told : field.name, field);
      for (const [at, input] of added.inputs.entries()) Object.assign(input, kept?.fields[fields.length]?.[at]);
      fields.push(added);
      buttons.before(added.element);
    }

    function check() {
      const { passed, words, next, hint: own } = judges[asked.judge](asked, fields.map((field) => field.get()));
      if (passed === false && !kept) tries += 1;
      const hint = passed === false ? own || asked.hints[Math.min(Math.max(tries, 1), asked.hints.length) - 1] : "";
      const mark = passed === undefined ? "" : passed ? "Right: " : "Not right: ";
      const told = [...(mark + words).split("\n"), hint].filter(Boolean);
      said.replaceChildren(...told.map((textContent) => make("p", { textContent })));
      element.classList.toggle("passed", passed === true);
      again.hidden = false;
      if (next) {
        fields.at(-1).inputs[0].disabled = true; // what was given stays
        add(next);
      }
    }

    element.addEventListener("submit", (event) => {
      event.preventDefault();
      const refused = fields.findIndex(({ inputs }) => !inputs.every((input) => input.checkValidity()));
      if (refused >= 0) {
        const { inputs, takes } = fields[refused];
        const name = fields.length > 1 ? `${(asked.fields[refused] ?? asked.next[refused - 1]).name}: ` : "";
        said.replaceChildren(make("p", { textContent: name + takes }));
        element.classList.remove("passed");
        return inputs[0].focus();
      }
      kept = undefined;
      const before = fields.length;
      check();
      if (fields.length > before) fields.at(-1).inputs[0].focus();
      given[asked.check] = { tries, fields: fields.map(({ inputs }) => inputs.map(({ value, checked }) => ({ value, checked }))) };
      store.save();
    });
    again.addEventListener("click", () => {
      delete given[asked.check];
      store.save();
      element.remove();
      form(place, asked).querySelector("input, select").focus();
    });
    for (const field of asked.fields) add(field);
    place.append(element);
    for (let at = asked.fields.length - 1; kept?.fields[at] && element.checkValidity(); at += 1) check();
    return element;
  }

  for (const place of document.querySelectorAll("[data-answer]")) form(place, JSON.parse(place.querySelector("script").textContent));
})();
