"""The style panel: one question, the base and its voices side by side, token by token, each with its file's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets as W

from lora_course.experiments.styles import BASE, file_sizes, misfit, our_ear
from lora_course.panels.live_styles import LiveAnswers
from lora_course.plots import styles as pictures
from lora_lab.errors import BadValue
from lora_lab.methods.bank import AdapterBank
from lora_lab.training.pairs import VOICES
from lora_lab.training.watching import headless
from lora_lab.widgets.background import start_painted
from lora_lab.widgets.controls import button
from lora_lab.widgets.live_panel import LivePanel
from lora_lab.widgets.panel import FULL_WIDTH, cannot, escape, wrapped
from lora_lab.widgets.shown import Table

COLUMN = "flex:1 1 190px;min-width:0;border-top:3px solid #0072B2;padding:4px 6px;overflow-wrap:anywhere"


class StylePanel(LivePanel):
    """Ask one question; all voices answer at once, in one batch in which each row has its own adapter.

    adapters    folders by name; an answer under the name of a bundled voice is judged, too
    questions   offered beside the line to type in; the first is asked when nobody watches
    longest     tokens of an answer at most
    Raises: NotFound for a folder that is no adapter, BadValue for none.
    """

    live: LiveAnswers

    def __init__(
        self,
        adapters: Mapping[str, str | Path],
        model: str = "smollm2",
        *,
        questions: Sequence[str] = (),
        longest: int = 60,
    ) -> None:
        super().__init__("One question, several voices")
        if not adapters:
            raise BadValue("give at least one adapter: a name and its folder")
        self.sizes = file_sizes(adapters, model)
        self.live = LiveAnswers(adapters, model, longest)
        offered = list(questions) or ["Why is the sky blue?"]
        wide = W.Layout(width="430px")
        self.offer = W.Dropdown(options=offered, description="held out", layout=wide)
        self.line = W.Text(value=offered[0], description="question", layout=wide, continuous_update=False)
        self.ask_button = button("Ask", "comment", "all answer", self.ask, button_style="primary")
        self.stop_button = button("Stop", "stop", "end after this token", self.stop, disabled=True)
        self.columns = W.HTML(layout=FULL_WIDTH)
        self.offer.observe(self._offered, "value")
        controls = (wrapped(self.offer), wrapped(self.line, self.ask_button, self.stop_button))
        drawn = pictures.file_sizes(self.sizes)
        self.picture.show(drawn._repr_png_(), drawn.alt, sizes_table(self.sizes))
        self.arrange(*controls, self.words, self.columns, self.picture)
        self._paint()

    # ---- what the buttons do

    def show(self) -> StylePanel:
        """The panel, ready for Ask. With nobody watching (LORA_LAB_HEADLESS=1) the first question is answered."""
        if headless():
            self.live.ask(self.line.value)
            self.work_here(self.live)
        return self

    def ask(self, _: object = None) -> None:
        """Let all voices answer; does nothing while they do."""
        if self.live.alive:
            return
        if not self.line.value.strip():
            self.words.value = cannot("type a question first")
            return
        self.live.ask(self.line.value.strip())
        start_painted(self.live, self._paint, self.tell)

    def answers(self) -> dict[str, str]:
        """What each has said, the base first. Raises: BadValue, telling what to press, while nothing was asked."""
        if not self.live.tokens:
            raise BadValue("nothing has been asked yet: press Ask in the panel above, then run this cell again")
        return dict(self.live.texts)

    @property
    def bank(self) -> AdapterBank:
        """The base and the adapters that answered, so that none is opened twice.

        Raises: BadValue, telling what to do, before the first question and while one is being answered.
        """
        self.answers()
        if self.live.alive or self.live.opened is None:
            raise BadValue("the panel above is answering: wait or press Stop, then run this cell again")
        return self.live.opened[0]

    # ---- painting

    def _offered(self, _: object) -> None:
        self.line.value = self.offer.value

    def _paint(self, _: object = None) -> None:
        with self.lock:
            busy = self.live.alive
            self.ask_button.disabled, self.stop_button.disabled = busy, not busy
            self.words.value = standing(self.live)
            self.columns.value = columns(self.live.texts, self.sizes, over=self.live.state == "done")


def standing(live: LiveAnswers) -> str:
    """How far the answers are, in words."""
    if live.error:
        return cannot(live.error)
    if live.state in ("starting", "loading"):
        return "<b>loading</b> the base once, and every adapter beside it"
    if not live.tokens:
        return "<b>ready</b>. Choose or type a question, then press Ask."
    pace = live.tokens * len(live.texts) / max(live.seconds, 1e-9)
    words = "one base, one batch, each row with an adapter of its own"
    return f"<b>{live.state}</b>: {live.tokens} tokens a voice, {pace:.0f} tokens a second in all; {words}."


def columns(texts: Mapping[str, str], sizes: Mapping[str, int], *, over: bool) -> str:
    """The answers side by side; narrow notebooks stack them."""
    cells = [
        f"<div style='{COLUMN}'><b>{escape(name)}</b> ({sizes[name] / 1e6:,.1f} MB)<br>{escape(text) or '&nbsp;'}"
        f"<br><i>{escape(judged(name, text)) if over else ''}</i></div>"
        for name, text in texts.items()
    ]
    return f"<div style='display:flex;flex-flow:row wrap;gap:8px'>{''.join(cells)}</div>"


def sizes_table(sizes: Mapping[str, int]) -> Table:
    """The files in numbers: bytes, and how many times the base's file is theirs."""
    base = next(iter(sizes.values()))
    rows = [(name, f"{size:,}", f"{base / size:,.0f}") for name, size in sizes.items()]
    return Table("files of weights", ("voice", "bytes", "times smaller than the base's"), rows)


def judged(name: str, text: str) -> str:
    """In a few words whether an answer is in its voice, for those voices that have a measure."""
    if name == BASE:
        return "no adapter"
    if name == "json":
        return misfit(text) or "fits the schema"
    return f"by its words: {our_ear().hears(text)}" if name in VOICES else ""
