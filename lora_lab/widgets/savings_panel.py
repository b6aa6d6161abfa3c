"""The savings panel: what a pair of thin matrices saves, for one layer of any size and for the layers of a real model.

It needs no torch: everything is counted from the model's config.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import ipywidgets as W

from lora_lab.accounting.models import architecture_of, zoo_names
from lora_lab.accounting.params import ParameterCount, Row, params
from lora_lab.errors import LabError
from lora_lab.methods.lora import LoRA
from lora_lab.methods.targets import ALL_LINEAR
from lora_lab.plots import encoded
from lora_lab.widgets.controls import Ticks, slider
from lora_lab.widgets.panel import FULL_WIDTH, Panel, boxes_to_tick, escape, plain, side_by_side, tabled, wrapped
from lora_lab.widgets.savings_picture import draw_layer, draw_model, role_names, sheets, short_names
from lora_lab.widgets.shown import Shown, Table

SIZES = (64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 6144, 8192, 12288, 16384)
RANKS = tuple(2**n for n in range(14))
NO_DOT = ("embed", "position", "pooler", "head", "router")  # shown only where something trains there


class SavingsPanel(Panel):
    """d^2 against 2 d r for one layer, and full against LoRA for each kind of layer of a model.

    The arguments are where the controls start. d, rank: numbers; model: a name of the zoo; targets: roles.
    Raises: NotFound for an unknown model.
    """

    def __init__(
        self, model: str = "llama-3-8b", *, d: int = 4096, rank: int = 8, targets: Sequence[str] = ("q", "v")
    ) -> None:
        super().__init__("What LoRA saves", least=0)
        architecture_of(model)  # a wrong name is loud here, not in a callback
        self.sheets = sheets()
        self.table = W.HTML(layout=FULL_WIDTH)
        self.dots = Shown()
        for image in (self.picture, self.dots):  # side by side where there is room for both
            image.layout = W.Layout(flex="1 1 320px", min_width="0", max_width="430px")
        self.d = slider("d (layer of d x d)", SIZES, d, label="110px", width="330px")
        self.rank = slider("rank r", RANKS, rank, label="110px", width="330px")
        self.model = W.Dropdown(options=sorted({*zoo_names(), model}), value=model, description="model")
        self.target_box = Ticks(self._ticked)
        self._offer(targets)
        self.d.observe(self._paint, "value")
        self.rank.observe(self._paint, "value")
        self.model.observe(self._model_changed, "value")
        targets_line = boxes_to_tick("targets", self.target_box)
        sliders, pictures = wrapped(self.d, self.rank), side_by_side(self.picture, self.dots)
        self.arrange(sliders, wrapped(self.model, targets_line), self.words, pictures, self.table)
        self._paint()

    # ---- what the controls say

    @property
    def targets(self) -> tuple[str, ...]:
        """The roles that are ticked; all-linear stands for itself."""
        ticked = self.target_box.ticked
        return (ALL_LINEAR,) if ALL_LINEAR in ticked else ticked

    def counted(self) -> ParameterCount:
        """What the chosen LoRA trains on the chosen model. Raises: BadValue or NotFound where it cannot be."""
        return params(self.model.value, LoRA(rank=self.rank.value, targets=self.targets))

    def still(self) -> bytes:
        """Both pictures in one."""
        return encoded(*self.sheets)

    # ---- painting

    def _paint(self, _: object = None) -> None:
        """Bring picture, words and table to what the controls say."""
        with self.lock:
            d, rank, model, rows = self.d.value, self.rank.value, f"{self.model.value} (cannot be)", list[Row]()
            layer, dots = layer_words(d, rank), ""
            try:
                counted = self.counted()
            except LabError as error:
                self.words.value = f"{layer}<br><b>{escape(self.model.value)}:</b> {escape(str(error))}."
                self.table.value = ""
            else:
                model, rows = counted.model, shown(counted.modules)
                self.words.value = f"{layer}<br>{model_words(counted, self.targets)}"
                self.table.value = layer_table(rows)
                dots = dots_words(model, rows)
            left, right = self.sheets
            curve = left.paint("layer", partial(draw_layer, d=d, rank=rank))
            self.picture.show(curve, plain(layer.replace("<sup>2</sup>", "²")), layer_numbers(d, rank))
            kinds = model, *(row.name for row in rows)
            self.dots.show(right.paint(kinds, partial(draw_model, model=model, rows=rows)), dots)

    def _model_changed(self, _: object) -> None:
        self._offer(self.wanted)
        self._paint()

    def _ticked(self) -> None:
        self.wanted = self.targets
        self._paint()

    def _offer(self, ticked: Sequence[str]) -> None:
        """The roles that this model has, those ticked that were ticked last; all-linear where it has none of them."""
        self.wanted = tuple(ticked)
        roles = [*architecture_of(self.model.value).roles, ALL_LINEAR]
        self.target_box.offer(roles, [role for role in roles if role in ticked] or [ALL_LINEAR])


def layer_words(d: int, rank: int) -> str:
    """One square layer in a sentence."""
    full, lora = d * d, 2 * d * rank
    if rank > d:
        return f"<b>d = {d:,}:</b> no {d:,} x {d:,} matrix has a rank above {d:,}; r = {rank:,} only wastes numbers."
    saves = f"{full / lora:,.4g} times fewer" if lora < full else "no saving" if lora > full else "exactly as many"
    return (
        f"<b>d = {d:,}, r = {rank:,}:</b> the layer has d<sup>2</sup> = {full:,} numbers, LoRA 2 d r = {lora:,} "
        f"({100 * lora / full:.3g}%): {saves}. Break-even at r = d / 2 = {d / 2:,.0f}."
    )


def layer_numbers(d: int, rank: int) -> Table:
    """The curve in numbers: what LoRA adds to a layer of d x d at some ranks, and at the slider's."""
    ranks = sorted({rank, *(r for r in RANKS if r <= d), d // 2})
    rows = [(f"{r:,}", f"{2 * d * r:,}", f"{d * d:,}", f"{2 * r / d:.2%}") for r in ranks]
    return Table(f"one layer of {d:,} x {d:,}", ("rank r", "LoRA, 2 d r", "full, d x d", "LoRA of full"), rows)


def dots_words(model: str, rows: Sequence[Row]) -> str:
    """The dots in words; the table below them has every kind of layer."""
    trains = [f"{name} {_share(row)}" for name, row in zip(role_names(rows), rows, strict=True) if row.trained]
    return f"{model}, one layer of each kind, full against LoRA. What trains, of the layer's own: {', '.join(trains)}."


def model_words(counted: ParameterCount, targets: Sequence[str]) -> str:
    """A whole model in a sentence; MB are 10^6 bytes."""
    return (
        f"<b>{escape(counted.model)}, {escape(', '.join(targets))}:</b> {counted.trainable:,} of {counted.total:,} "
        f"train ({counted.fraction:.3%}); the adapter's file has {counted.adapter_bytes / 1e6:,.1f} MB in fp32."
    )


def shown(rows: Sequence[Row]) -> list[Row]:
    """The matrices within the layers, and whatever else trains."""
    return [row for row in rows if row.trained or (row.break_even_rank and row.role not in NO_DOT)]


def layer_table(rows: Sequence[Row]) -> str:
    """One line for each kind of layer: what it does, its name, shape, number, full, trained, share, break-even rank."""
    names = ("role", "layer", "in x out", "how many", "full, with biases", "LoRA trains", "share", "break-even rank")
    lines = map(_line, role_names(rows), short_names([row.name for row in rows]), rows)
    return tabled("kinds of layers", names, lines, cells="padding-right:12px; white-space:nowrap")


def _line(role: str, name: str, row: Row) -> Sequence[str]:
    even = row.break_even_rank
    return (
        escape(role), escape(name), f"{row.in_features:,} x {row.out_features:,}", f"{row.count:,}", f"{row.full:,}",
        f"{row.trained:,}" if row.trained else "frozen", _share(row),
        "none" if even is None else f"{even:,.0f}",
    )  # fmt: skip


def _share(row: Row) -> str:
    if not row.trained:
        return "0%"
    return f"{row.trained / row.full:.2%}" if row.full else "new"
