// One question, several voices: their answers side by side, streamed, at any strength; and the size of each file.

import VOICES_CSS from "./voices_panel.css";
import { NO_KERNEL, button, drawn, folded, letter, menu, slider, table, trouble } from "./controls.js";
import { about, bytes, count, escape, plural } from "./format.js";
import { panel } from "./panel.js";
import { rect, text } from "./svg.js";

const TRAITS = {
  stored: {}, said: {}, live: {}, sizes: {}, names: [], questions: [], told: "", question: "", strength: 1,
  asks: false,
};
const STRENGTHS = [0, 0.5, 1, 1.5, 2];
const MEANS = { 0: "base", 1: "as trained" };
const [BASE, TOLD] = ["base", "told"];
const BAR = 14; // pixels

const stops = `<span class="stops" aria-hidden="true">${STRENGTHS.map((strength) =>
  `<span>${strength}<small>${MEANS[strength] ?? ""}</small></span>`).join("")}</span>`;
const BODY = `<header><div class="title"></div></header>
<div class="asks">
  ${menu("question", "question")}
  <label class="menu" data-for="own"><span>or yours</span>
    <input type="text" name="own" maxlength="300" autocomplete="off"></label>
  ${slider("strength", `strength ${letter("s")} of every adapter`, "train", stops)}
</div>
<div class="row" data-for="ask">${button("ask", "Ask", "first")}${button("halt", "Stop")}</div>
<p class="doing"></p><p class="kernel"></p>
<div class="voices"></div>
<p class="sub">The files, to scale</p>${drawn()}
<p class="big"></p><p class="words"></p>
<p class="about"></p>${folded("the files in numbers")}`;

function start(p) {
  let now;

  function read() {
    const adapters = p.get("names").filter((name) => name !== BASE && name !== TOLD);
    const [names, sizes, question, strength] = ["names", "sizes", "question", "strength"].map(p.get);
    const live = p.live();
    const current = live.texts && live.question === question && live.strength === strength;
    const asks = p.get("asks") && p.kernel;
    return { names, sizes, adapters, live, asks, question, strength, streams: current && (live.busy || live.tokens) };
  }

  /** The answer of a voice to the question at this strength; undefined if it is not known. */
  function answer(name) {
    const { live, question, strength, streams } = now;
    if (streams) return live.texts[name];
    const byStrength = p.get("said")[question] ?? {};
    const fixed = name === BASE || name === TOLD; // not affected by the strength
    const answers = byStrength[strength] ?? (fixed ? Object.values(byStrength)[0] : undefined);
    if (answers) return answers[name];
    if (!fixed && strength === 0) return answer(BASE);
    const stored = p.get("stored");
    const index = stored.questions?.indexOf(question) ?? -1;
    return index < 0 ? undefined : stored.answers[name]?.[fixed ? 0 : strength]?.[index];
  }

  function draw() {
    now = read();
    const { names, adapters, live, asks, sizes, strength, question } = now;
    p.offer({ own: asks, ask: asks });
    p.slide("strength", { values: STRENGTHS, value: strength, words: `${strength} ×`, spoken: `strength ${strength}` });
    const questions = [...new Set([...p.get("questions"), question])];
    p.choose("question", questions.map((text) => [text, text]), question);
    p.button("ask", { off: live.busy || p.gone() || p.waits() || !question.trim() });
    p.button("halt", { off: !live.busy || live.halts });
    drawFiles();
    const fileSizes = adapters.map((name) => sizes[name]);
    const sizeWords = new Set(fileSizes).size === 1 ? `${bytes(fileSizes[0])} each` : fileSizes.map(bytes).join(", ");
    const factor = about(sizes[BASE] / Math.max(...fileSizes));
    const owner = adapters.length > 1 ? "each adapter’s" : "the adapter’s";
    const instruction = p.get("told") ? `The instruction to the base: “${escape(p.get("told"))}” ` : "";
    p.fill({
      ".title": `${plural(adapters.length, "voice")} of ${sizeWords}, beside a base of ${bytes(sizes[BASE])}`,
      ".voices": names.map(card).join(""),
      ".big": `<b>${factor}×</b> <span>smaller than the base: ${owner} file</span>`,
      ".words": `The strength ${letter("s")} multiplies what an adapter adds: at 0, every voice is the base; at 1, each adapter acts
        as trained.`,
      ".doing": statusWords(),
      ".about": instruction + escape(p.get("stored").about ?? ""),
    });
    const row = (name) => [escape(name), count(sizes[name]), about(sizes[BASE] / sizes[name])];
    p.numbers(() => table(["file", "bytes", "base ÷ file"], [BASE, ...adapters].map(row)));
    const answered = names.filter(answer);
    return `${escape(question)} Strength ${strength}: ${answered.length} of ${names.length} answers. ${statusWords()}`;
  }

  function card(name) {
    const { sizes, strength, asks } = now;
    const small = {
      [BASE]: `no adapter, ${bytes(sizes[BASE])}`, [TOLD]: "no adapter, only an instruction",
    }[name] ?? `adapter × ${strength}, ${bytes(sizes[name])}`;
    const kind = name === BASE || name === TOLD ? "" : "adapter";
    const reply = answer(name);
    const none = asks ? "Press Ask to hear it." : "Not stored at this strength.";
    const words = reply === undefined ? `<p class="none">${none}</p>` : `<p>${escape(reply) || "…"}</p>`;
    return `<div class="voice ${kind}" data-voice="${escape(name)}"><div class="head">
      ${name === TOLD ? "base, told" : escape(name)}</div><small>${small}</small>${words}</div>`;
  }

  /** The base's file as a gray bar, with each adapter's file below it on the same scale. */
  function drawFiles() {
    const { sizes, adapters } = now;
    const width = p.width();
    const per = width / sizes[BASE];
    const thin = adapters.some((name) => sizes[name] * per < 2);
    const parts = [rect(0, 0, width, BAR, "frozen"), text(0, BAR + 14, `base ${bytes(sizes[BASE])}`, "small")];
    adapters.forEach((name, i) => {
      const y = BAR + 22 + i * (BAR + 5);
      const wide = Math.max(2, sizes[name] * per);
      parts.push(rect(0, y, wide, BAR, "train"), text(wide + 8, y + 11, `${escape(name)} ${bytes(sizes[name])}`, "small"));
    });
    const height = BAR + 22 + adapters.length * (BAR + 5);
    if (thin) parts.push(text(width, height - 8, "drawn two pixels wide", "small end"));
    const labels = adapters.map((name) => `${name} ${bytes(sizes[name])}`).join(", ");
    p.picture({ svg: parts.join(""), height }, `Bars to scale: the base ${bytes(sizes[BASE])}, ${labels}.`);
  }

  function statusWords() {
    const { live, names, asks } = now;
    if (trouble(live)) return trouble(live);
    if (!asks) return p.kernel ? "" : NO_KERNEL;
    const speed = about((live.tokens * names.length) / Math.max(live.seconds, 1e-9));
    const pace = live.tokens ? `${count(live.tokens)} tokens each, ${speed} a second in total` : "";
    if (live.state === "answering") return `Answering: ${pace}, in one batch in which each row has its own adapter.`;
    if (["loading", "starting"].includes(live.state)) return "Loading the base once, and every adapter beside it.";
    if (live.busy) return `${escape(live.state)}.`;
    return pace ? `${live.state === "done" ? "Done" : "Stopped"}: ${pace}.` : "Choose or type a question, then press Ask.";
  }

  const actions = {
    question(question) {
      p.find("input[name=own]").value = "";
      p.set({ question });
    },
    own: (question) => p.set({ question: question.trim() || p.get("questions")[0] }),
    ask: () => p.ask("live", { do: "run", traits: p.values(["question", "strength"]) }),
  };

  p.find("input[name=own]").addEventListener("keydown", ({ key, isComposing }) => { // while composing, Enter accepts letters
    if (key === "Enter" && !isComposing) p.find("button[name=ask]").click();
  });
  return { actions, draw };
}

export default panel({ title: "One question, several voices", css: VOICES_CSS, traits: TRAITS, body: BODY, start });
