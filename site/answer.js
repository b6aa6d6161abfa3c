// Exercises on a page without a kernel: a form below each. The numbers that an answer is compared with and all replies
// come from the lesson's checks, as JSON beside the form. What was answered stays in this browser.
(() => {
  const STORE = `answers of ${location.pathname.split("/").at(-1)}`;
  const given = read();

  function read() {
    try {
      return JSON.parse(localStorage.getItem(STORE)) ?? {};
    } catch {
      return {}; // no storage: answers last as long as the page
    }
  }

  function keep(check, answer) {
    given[check] = answer;
    try {
      localStorage.setItem(STORE, JSON.stringify(given));
    } catch {
      // as above
    }
  }

  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const fill = (words, values) => words.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
  const two = (rate) => String(Number(rate.toPrecision(2))); // figures
  const right = (words) => ({ passed: true, words });
  const wrong = (words) => ({ passed: false, words });

  /** A number, or the value of a formula as Python writes it; NaN for anything else. */
  function value(text) {
    const decimal = /^-?(0,\d+|\d+,(\d{1,2}|\d{4,}))$/.test(text.trim()); // 0,0294
    const point = text.trim().replace(/,(?=\d{3}(?!\d))|,/g, (comma) => (decimal ? "." : ""));
    const formula = point.replace(/×/g, "*").replace(/−/g, "-").replace(/\/\//g, "/");
    if (!/^[\d_.e+\-*/()\s]+$/i.test(formula) || formula.includes("/*")) return Number.NaN;
    try {
      return Number(Function(`"use strict"; return (${formula})`)());
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
      return at < 0 ? right(why) : wrong(fields.length > 1 ? `${fields[at].name}: ${judged[at].words}` : judged[at].words);
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
      return are(field.right) ? right() : wrong(field.near.find(([others]) => are(others))?.[1] ?? field.fallback);
    },
    bracket({ best, steps, words, carried }, [low, middle, high]) {
      if (![middle / low, high / middle].every((step) => steps[0] <= step && step <= steps[1])) return wrong(words.steps);
      const [below, at, above] = [low, middle, high].map((rate) => Math.abs(Math.log2(rate / best)));
      const ends = { rate: two(best), low: two(low), high: two(high) };
      if (at <= Math.min(below, above)) return right(fill(`${words.ridge}; ${words.peak}`, ends));
      return wrong(above < below ? words.higher : `${words.lower}${middle > carried[0] ? carried[1] : ""}`);
    },
    row({ cases, card, room, best, near, words }, [method, checkpointing, seq]) {
      if (!Number.isInteger(seq) || seq < words.shortest) return wrong(`seq is a whole number of tokens, at least ${words.shortest}`);
      const one = cases.find(({ options }) => options[0] === method && options[1] === checkpointing);
      const next = one.sizes.findIndex((size) => size.seq > seq);
      const [from, to] = next < 0 ? one.sizes.slice(-2) : one.sizes.slice(next - 1, next + 1);
      const size = (part) => from[part] + ((to[part] - from[part]) * (seq - from.seq)) / (to.seq - from.seq);
      const peak = size("peak");
      const said = { card, size: binary(peak), at: from.at, seq: seq.toLocaleString("en") };
      if (seq > one.longest) {
        const parts = ["weights", "logits", "activations"].filter(size).map((part) => `${part} ${binary(size(part))}`);
        const why = one.over || fill(words.holds, { parts: parts.join(", ") });
        return wrong(fill(words.over, { ...said, more: binary(peak - room), why }));
      }
      if (seq >= near * best) return right(fill(words.fits, { ...said, free: binary(room - peak) }));
      return wrong(fill(words.short, { ...said, times: (best / seq).toFixed(1), why: one.short }));
    },
    /** Each right answer brings the next field; the first margin counts. */
    defense(asked, [points, word, sentence]) {
      const margin = Math.round(10 * points) / 10;
      if (points <= 0) return wrong(asked.none);
      if (points < asked.limits[0]) return wrong(fill(asked.little, { margin: points }));
      if (points > asked.limits[1]) return wrong(asked.much);
      const found = asked.cases.findLast((one) => one.from <= margin);
      const named = (words) => fill(words, { margin, word: found.word, seen: found.seen });
      if (word === undefined) return { words: named(asked.sealed_at), next: asked.next[0] };
      if (word !== found.word) return wrong(`${found.why_not[word]}. ${found.seen}`);
      const options = found.replies.map(([text]) => named(text));
      if (sentence === undefined) return { words: named(asked.which), next: { ...asked.next[1], options } };
      const at = options.indexOf(sentence);
      return { passed: at === found.right, words: found.replies[at][1] };
    },
  };

  /** What a field is drawn as: its element, its inputs, and how their answer is read; undefined where there is none. */
  const kinds = {
    number(name) {
      const input = make("input", { autocomplete: "off", required: true, placeholder: "a number or a formula" });
      input.addEventListener("input", () => {
        const none = input.value && Number.isNaN(value(input.value));
        input.setCustomValidity(none ? "Write a number, or a formula such as 3 * 2**10." : "");
      });
      return labelled(name, input, () => value(input.value));
    },
    word(name, { options }) {
      const choices = ["", ...options].map((word) => make("option", { value: word, textContent: word || "choose" }));
      const input = make("select", { required: true }, ...choices);
      return labelled(name, input, () => input.value);
    },
    several: (name, { options }) => marked(name, options, "checkbox", (checked) => checked),
    one: (name, { options }) => marked(name, options, "radio", (checked) => options[checked.indexOf(true)]),
  };

  function labelled(name, input, get) {
    return { element: make("label", {}, make("span", { textContent: name }), input), inputs: [input], get };
  }

  function marked(name, options, type, get) {
    const inputs = options.map(() => make("input", { type, name, required: type === "radio" }));
    const labels = inputs.map((input, at) => make("label", {}, input, make("span", { textContent: options[at] })));
    const element = make("fieldset", { className: type }, make("legend", { textContent: name }), ...labels);
    return { element, inputs, get: () => get(inputs.map((input) => input.checked)) };
  }

  function form(place, asked, kept = given[asked.check]) {
    const alone = asked.fields.length === 1 && !asked.next; // then its label is the question
    const said = make("div", { role: "status" });
    const again = make("button", { type: "button", textContent: "Clear", hidden: true });
    const buttons = make("p", {}, make("button", { textContent: "Check" }), again);
    const element = make("form", { className: "lab-answer", ariaLabel: `your answer. ${asked.told}` });
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
      const { passed, words, next } = judges[asked.judge](asked, fields.map((field) => field.get()));
      if (passed === false && !kept) tries += 1;
      const hint = passed === false ? asked.hints[Math.min(Math.max(tries, 1), asked.hints.length) - 1] : "";
      const mark = passed === undefined ? "" : passed ? "Right: " : "Not right: ";
      said.replaceChildren(...[mark + words, hint].filter(Boolean).map((textContent) => make("p", { textContent })));
      element.classList.toggle("passed", passed === true);
      again.hidden = false;
      if (next) {
        fields.at(-1).inputs[0].disabled = true; // what was given stays
        add(next);
      }
    }

    element.addEventListener("submit", (event) => {
      event.preventDefault();
      kept = undefined;
      const before = fields.length;
      check();
      if (fields.length > before) fields.at(-1).inputs[0].focus();
      keep(asked.check, { tries, fields: fields.map(({ inputs }) => inputs.map(({ value, checked }) => ({ value, checked }))) });
    });
    again.addEventListener("click", () => {
      keep(asked.check, undefined);
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
