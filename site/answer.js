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
  const figures = (value, digits) => String(Number(value.toPrecision(digits)));
  const right = (words) => ({ passed: true, words });
  const wrong = (words) => ({ passed: false, words });

  /** A number, or the value of a formula as Python writes it; NaN for anything else. */
  function value(text) {
    const formula = text.trim().replace(/,(?=\d{3}(?!\d))/g, "").replace(/×/g, "*").replace(/−/g, "-").replace(/\/\//g, "/");
    if (!/^[\d.e+\-*/()\s]+$/i.test(formula) || formula.includes("/*")) return Number.NaN;
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
      return wrong(fill(factor > 1 ? field.far.large : field.far.small, { factor: figures(Math.max(factor, 1 / factor), 3) }));
    },
    choice: (field, answer) => (field.right.includes(answer) ? right(field.why) : wrong(field.replies[answer])),
    several(field, marks) {
      const are = (others) => marks.every((mark, at) => mark === others[at]);
      return are(field.right) ? right() : wrong(field.near.find(([others]) => are(others))?.[1] ?? field.fallback);
    },
    bracket({ best, steps, words, carried }, [low, middle, high]) {
      if (![middle / low, high / middle].every((step) => steps[0] <= step && step <= steps[1])) return wrong(words.steps);
      const [below, at, above] = [low, middle, high].map((rate) => Math.abs(Math.log2(rate / best)));
      const ends = { rate: figures(best, 2), low: figures(low, 2), high: figures(high, 2) };
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

  let count = 0;
  /** What a field is drawn as, and how it is read, written, and closed. */
  const kinds = {
    number(label) {
      const input = make("input", { autocomplete: "off", required: true, placeholder: "a number or a formula" });
      const get = () => {
        const number = value(input.value);
        input.setCustomValidity(Number.isNaN(number) ? "Write a number, or a formula such as 3 * 2**10." : "");
        return input.checkValidity() ? number : undefined;
      };
      input.addEventListener("input", () => input.setCustomValidity(""));
      const set = (text) => {
        input.value = text;
      };
      return { element: make("label", {}, make("span", { textContent: label }), input), input, get, set, text: () => input.value };
    },
    word(label, { options }) {
      const input = make("select", { required: true }, make("option", { value: "", textContent: "choose" }));
      input.append(...options.map((word) => make("option", { value: word, textContent: word })));
      const set = (word) => {
        input.value = word;
      };
      const get = () => input.value || undefined;
      return { element: make("label", {}, make("span", { textContent: label }), input), input, get, set, text: get };
    },
    several: (label, field) => marks(label, field, "checkbox", (inputs) => inputs.map((one) => one.checked)),
    one: (label, field) => marks(label, field, "radio", (inputs) => field.options[inputs.findIndex((one) => one.checked)]),
  };

  function marks(label, { options }, type, get) {
    count += 1;
    const inputs = options.map(() => make("input", { type, name: `answer-${count}`, required: type === "radio" }));
    const labels = inputs.map((input, at) => make("label", {}, input, make("span", { textContent: options[at] })));
    const element = make("fieldset", { className: type }, make("legend", { textContent: label }), ...labels);
    const set = (checked) => {
      for (const [at, input] of inputs.entries()) input.checked = checked[at];
    };
    return { element, input: inputs[0], get: () => get(inputs), set, text: () => inputs.map((one) => one.checked) };
  }

  function form(place, asked) {
    const said = make("div", { role: "status" });
    const again = make("button", { type: "button", textContent: "Clear", hidden: true });
    const buttons = make("p", {}, make("button", { textContent: "Check" }), again);
    const element = make("form", { className: "lab-answer", ariaLabel: "your answer" });
    const title = make("p", { className: "title", textContent: "No Python here? Answer it on this page." });
    const fields = [];
    const alone = asked.fields.length === 1 && !asked.next;
    let tries = 0;
    element.append(title, ...(alone ? [] : [make("p", { textContent: asked.told })]), buttons, said);

    function add(field) {
      fields.push(kinds[field.kind](alone ? asked.told : field.name, field));
      buttons.before(fields.at(-1).element);
    }

    function check(fresh) {
      const values = fields.map((field) => field.get());
      if (values.includes(undefined)) return fresh && element.reportValidity();
      const { passed, words, next } = judges[asked.judge](asked, values);
      if (fresh && passed === false) tries += 1;
      const hint = passed === false ? asked.hints[Math.min(Math.max(tries, 1), asked.hints.length) - 1] : "";
      const mark = { true: "Right: ", false: "Not right: " }[passed] ?? "";
      said.replaceChildren(make("p", { textContent: mark + words }), ...(hint ? [make("p", { textContent: hint })] : []));
      element.classList.toggle("passed", passed === true);
      again.hidden = false;
      keep(asked.check, { texts: fields.map((field) => field.text()), tries });
      if (!next) return;
      fields.at(-1).input.disabled = true; // it was given, and stays
      add(next);
      if (fresh) fields.at(-1).input.focus();
    }

    element.addEventListener("submit", (event) => {
      event.preventDefault();
      check(true);
    });
    again.addEventListener("click", () => {
      keep(asked.check, undefined);
      element.remove();
      form(place, asked).querySelector("input, select").focus();
    });
    for (const field of asked.fields) add(field);
    place.append(element);
    const kept = given[asked.check];
    if (kept) {
      tries = kept.tries;
      for (const [at, text] of kept.texts.entries()) {
        if (!fields[at]) break;
        fields[at].set(text);
        if (at >= asked.fields.length - 1) check(false);
      }
    }
    return element;
  }

  for (const place of document.querySelectorAll("[data-answer]")) form(place, JSON.parse(place.querySelector("script").textContent));
})();
