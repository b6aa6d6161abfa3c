// One question, several voices: their answers side by side, as they come, at any strength; and the size of each file.

import VOICES_CSS from "./voices_panel.css";
import { button, letter, menu, slider, table } from "./controls.js";
import { about, bytes, count, escape } from "./format.js";
import { panel } from "./panel.js";
import { rect, text } from "./svg.js";

const TRAITS = {
  stored: {}, said: {}, live: {}, sizes: {}, names: [], questions: [], told: "", question: "", strength: 1, asks: false,
};
const STRENGTHS = [0, 0.5, 1, 1.5, 2];
const [BASE, TOLD] = ["base", "told"];
const BAR = 14; // pixels

const stops = `<span class="stops" aria-hidden="true">${STRENGTHS.map((one) => `<span>${one}</span>`).join("")}</span>`;
const BODY = `<header><div class="title"></div></header>
<div class="asks">
  ${menu("question", "question")}
  <label class="menu" data-for="own"><span>or yours</span><input type="text" name="own" maxlength="300" autocomplete="off"></label>
  ${slider("strength", `strength ${letter("s")} of every adapter`, "train", stops)}
</div>
<div class="row">${button("ask", "Ask", "first")}${button("halt", "Stop")}</div>
<p class="doing"></p><p class="kernel"></p>
<div class="voices"></div>
<p class="sub">Their files, to scale</p>
<div class="picture drawn"><svg role="img"></svg></div>
<p class="big"></p><p class="words"></p>
<p class="about"></p>
<details><summary>the files in numbers</summary><div class="scrolls" tabindex="0" role="group" aria-label="the files in numbers">
  <table class="all"></table></div></details>`;

function start(p) {
  const ui = { halts: false, help: false };
  let now;

  function read() {
    const sizes = p.get("sizes");
    const adapters = p.get("names").filter((name) => name !== BASE && name !== TOLD);
    const live = p.gone() ? { ...p.get("live"), busy: false, state: "stopped" } : p.get("live");
    const [question, strength] = [p.get("question"), p.get("strength")];
    const here = live.texts && live.question === question && live.strength === strength;
    return { sizes, adapters, live, question, strength, streams: here && (live.busy || live.tokens) };
  }

  /** What a voice says to the question at the strength, and where that is from; undefined where it is not known. */
  function answer(name) {
    const { live, question, strength, streams } = now;
    if (streams) return live.texts[name];
    const said = p.get("said")[question] ?? {};
    const same = name === BASE || name === TOLD; // which no strength changes
    const there = said[strength] ?? (same ? Object.values(said)[0] : undefined);
    if (there) return there[name];
    if (!same && strength === 0) return answer(BASE);
    const stored = p.get("stored");
    const place = stored.questions?.indexOf(question) ?? -1;
    return place < 0 ? undefined : stored.answers[name]?.[same ? 0 : strength]?.[place];
  }

  // ---- drawing

  function draw() {
    now = read();
    const { adapters, live, sizes, strength, question } = now;
    if (!live.busy) ui.halts = false;
    const asks = p.get("asks") && p.kernel;
    p.offer(["question", "strength", ...(asks ? ["own"] : [])]);
    p.slide("strength", { values: STRENGTHS, value: strength, words: `${strength} ×`, spoken: `strength ${strength}` });
    offerQuestions();
    p.one("button[name=ask]").disabled = Boolean(live.busy) || p.gone() || p.waits() || !question.trim();
    p.one("button[name=halt]").disabled = !live.busy || ui.halts;
    p.one("button[name=halt]").hidden = !asks;
    drawFiles();
    const each = adapters.map((name) => sizes[name]);
    const alike = new Set(each).size === 1 ? `${bytes(each[0])} each` : each.map(bytes).join(", ");
    const times = sizes[BASE] / Math.max(...each);
    p.fill({
      ".title": `${adapters.length} voice${adapters.length === 1 ? "" : "s"} of ${alike}, beside a base of ${bytes(sizes[BASE])}`,
      ".voices": p.get("names").map(card).join(""),
      ".big": `<b>${about(times)}×</b> <span>smaller than the base: the file of ${adapters.length > 1 ? "each adapter" : "the adapter"}</span>`,
      ".words": `The strength multiplies the update, ${letter("W")} + ${letter("s")} (${letter("α/r")}) ${letter("BA")}: at 0 every voice is the base, at 1 it is as it was trained.`,
      ".doing": doing(),
      ".about": `${p.get("told") ? `The base is told: “${escape(p.get("told"))}” ` : ""}${escape(p.get("stored").about ?? "")}`,
      ".all": table(["file", "bytes", "base ÷ file"], [BASE, ...adapters].map((name) => [escape(name), count(sizes[name]), about(sizes[BASE] / sizes[name])])),
    });
    const heard = p.get("names").filter((name) => answer(name));
    return `${escape(question)} Strength ${strength}: ${heard.length} of ${p.get("names").length} answers. ${doing()}`;
  }

  function card(name) {
    const { sizes, strength } = now;
    const own = name !== BASE && name !== TOLD;
    const title = name === TOLD ? "base, told" : escape(name);
    const small = own ? `adapter × ${strength}, ${bytes(sizes[name])}` : name === BASE ? `no adapter, ${bytes(sizes[name])}` : "no adapter, only an instruction";
    const said = answer(name);
    const none = p.get("asks") ? "Press Ask to hear it." : "Not stored at this strength.";
    const words = said === undefined ? `<p class="none">${none}</p>` : `<p>${escape(said) || "…"}</p>`;
    return `<div class="voice ${own ? "adapter" : ""}" data-voice="${escape(name)}"><div class="head">${title}</div><small>${small}</small>${words}</div>`;
  }

  function offerQuestions() {
    const { question } = now;
    const known = p.get("questions");
    const all = known.includes(question) ? known : [...known, question];
    p.choose("question", all.map((one) => [one, one]), question);
  }

  /** The base's file as a grey bar, below it each adapter's on the same scale. */
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
    p.picture(parts.join(""), height, `Bars to scale: the base ${bytes(sizes[BASE])}, ${adapters.map((name) => `${name} ${bytes(sizes[name])}`).join(", ")}.`);
  }

  function doing() {
    const { live } = now;
    if (live.error) return `<strong>It failed.</strong> ${escape(live.error)}`;
    if (!p.get("asks") || !p.kernel) {
      return ui.help ? `Nobody can answer here. In the lab (<code>make lab</code>), run <code>from lora_course.panels.voices_panel import
        VoicesPanel</code> and <code>VoicesPanel({"mine": FOLDER})</code> with an adapter of yours.` : "";
    }
    if (ui.halts) return "Stopping after this token.";
    const pace = live.tokens ? `${count(live.tokens)} tokens each, ${about((live.tokens * p.get("names").length) / Math.max(live.seconds, 1e-9))} a second in all` : "";
    if (live.state === "answering") return `Answering: ${pace}, one batch in which each row has its own adapter.`;
    if (live.busy) return live.state === "loading" || live.state === "starting" ? "Loading the base once, and every adapter beside it." : `${escape(live.state)}.`;
    return pace ? `${live.state === "stopped" ? "Stopped" : "Done"}: ${pace}.` : "Choose or type a question, then press Ask.";
  }

  // ---- what controls do

  const actions = {
    question(question) {
      p.one("input[name=own]").value = "";
      p.set({ question });
    },
    own: (question) => p.set({ question: question.trim() || p.get("questions")[0] }),
    strength: (strength) => p.set({ strength }),
    ask() {
      if (p.kernel && p.get("asks")) return p.ask("live", { do: "ask", question: p.get("question"), strength: p.get("strength") });
      ui.help = true;
      return p.redraw();
    },
    halt() {
      ui.halts = true;
      p.ask("live", { do: "stop" });
    },
  };

  p.one("input[name=own]").addEventListener("keydown", (event) => event.key === "Enter" && !p.one("button[name=ask]").disabled && actions.ask());
  return { actions, draw };
}

export default panel({ title: "One question, several voices", css: VOICES_CSS, traits: TRAITS, body: BODY, start });
