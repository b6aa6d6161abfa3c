"""What the memory panel says: each term in plain words, the towers as a table, and the conclusion in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lora_lab.accounting.memory import Estimate, Term
from lora_lab.accounting.units import binary
from lora_lab.methods.formats import QUANTISED_BITS
from lora_lab.plots.towers import STYLES, Line, Tower
from lora_lab.widgets.memory_measure import StepMeasured
from lora_lab.widgets.panel import escape, tabled

CELLS = "padding-right:12px; white-space:nowrap"
AT_MOST = "\nat most"  # behind the name of a tower that is a bound
LETTERS = "B = batch, S = sequence; the numbers are bytes. A star stands for every layer"

IN_WORDS = {  # by the end of the path of the module that a storage was made in
    "base": "the pretrained weights",
    **{
        f"base in {form}": f"the frozen matrices in {bits} bits each, with the scale of every block of 64"
        for form, bits in QUANTISED_BITS.items()
    },
    "adapters and head": "A and B, a prompt, a fresh head: what the method brings along, in fp32",
    "states": "for each number that trains, a running mean of its gradient and one of its square",
    "adapter": "what the adapters compute: their copies of A and B, A x, B A x",
    "self_attn": "queries, keys, values, and attention's output with its logarithms",
    "attn": "queries, keys, values, and attention's output with its logarithms",
    "attention": "queries, keys, values, and attention's output with its logarithms",
    "mlp": "the wide layers of the MLP and its activation function",
    "intermediate": "the wide layer of the MLP and its activation function",
    "output": "the way back from the MLP's width",
    "input_layernorm": "a norm's input, its statistics, and its output",
    "post_attention_layernorm": "a norm's input, its statistics, and its output",
    "ln_1": "a norm's statistics and output",
    "ln_2": "a norm's statistics and output",
    "*": "sums of the residual stream, one after each part of a layer",
    "norm": "the last norm's statistics and output",
    "ln_f": "the last norm's statistics and output",
    "LayerNorm": "a norm's statistics and output",
    "embed_tokens": "the tokens as vectors",
    "wte": "the tokens as vectors",
    "embeddings": "the tokens as vectors",
    "rotary_emb": "sines and cosines of the positions, shared by all layers",
    "lm_head": "a score for each word of the vocabulary, at each token",
    "gathered from the other devices": "the weights that this device borrows while it computes with them",
    "bound": "at most",
}

BY_CATEGORY = {
    "weights": "numbers that are computed with",
    "optimizer": "what the optimizer remembers",
    "gradients": "one number for each that trains",
    "activations": "what forward keeps for backward",
    "logits": "scores over the vocabulary",
    "temporaries": "what lives for a moment",
}


def moment(at: str) -> str:
    """When in the step something falls, with the reason in words."""
    why = {
        "backward of the loss": "right after forward: everything kept is still there, and the loss needs its whole "
        "table of scores several times over",
        "the optimizer's step": "at the end: all gradients are there, and the optimizer works on them",
        "backward of": "everything kept by the layers below is still there, and the gradients of those above",
        "forward of": "at the end of forward, with the layer's own variables on top of all that is kept",
    }
    reason = next((words for start, words in why.items() if at.startswith(start)), "")
    return f"{at} ({reason})" if reason else at


def in_words(term: Term) -> str:
    """What a term is for."""
    end = term.where.rpartition(".")[2] if "." in term.where else term.where
    return IN_WORDS.get(end, BY_CATEGORY.get(term.category, ""))


def conclusion(name: str, estimate: Estimate, cards: Sequence[Line]) -> str:
    """What one method needs, when, what for, and where that fits."""
    if estimate.mode == "bound":
        return (
            f"<b>{escape(name)}: at most {binary(estimate.peak)}</b>; the exact figure is being traced. "
            f"<b>{escape(fitting(estimate.peak, cards))}</b>."
        )
    top = max(estimate.terms, key=lambda term: term.bytes)
    share = top.bytes / estimate.peak
    return (
        f"<b>{escape(name)}: {binary(estimate.peak)}</b> at the peak. It falls during {escape(moment(estimate.at))}. "
        f"The largest term is <i>{escape(top.where or top.category)}</i>, "
        f"{binary(top.bytes)} or {share:.0%}: {escape(in_words(top))}. "
        f"<b>{escape(fitting(estimate.peak, cards))}</b>."
    )


def fitting(peak: int, cards: Sequence[Line]) -> str:
    """The smallest card that a peak fits, in words."""
    card = smallest(peak, cards)
    if card is None:
        return f"It fits no single card up to {cards[-1].name}"
    return f"The smallest card that it fits is {card.name}, which leaves {binary(card.bytes)} for tensors"


def smallest(peak: int, cards: Sequence[Line]) -> Line | None:
    """The smallest card with so much room; None when there is none. `cards` rise."""
    return next((card for card in cards if peak <= card.bytes), None)


def finding(model: str, towers: Sequence[Tower], cards: Sequence[Line]) -> str:
    """The picture's title: how far LoRA comes down from full fine-tuning, and what that means for a card."""
    by_name = {t.name: t.peak for t in towers if t.parts}
    full, lora = by_name.get("full"), by_name.get("LoRA")
    if any(t.name.endswith(AT_MOST) for t in towers):
        return f"{model}: exact figures are being traced, and until then these are upper bounds"
    if not full or not lora:
        return f"{model}: its memory cannot be said"
    card = smallest(lora, cards)
    place = f"{card.name.partition(':')[0]} are enough" if card else "no single card has that"
    share = f"{lora / full:.0%} of full fine-tuning's {binary(full)}"
    return f"{model}: LoRA needs {binary(lora)}, {share}; {place}"


def towers_words(title: str, towers: Sequence[Tower]) -> str:
    """The picture in words, for those who cannot see it; the table below it has the categories."""
    heights = ", ".join(f"{t.name} {binary(t.peak)}" if t.parts else f"{t.name} cannot be said" for t in towers)
    return f"Towers of memory, a method each. {title.replace(chr(10), '. ')}. Peaks: {heights.replace(chr(10), ' ')}."


def towers_table(towers: Sequence[Tower], refused: Mapping[str, str], cards: Sequence[Line]) -> str:
    """The picture as a table: a line a method, GiB by category, and the smallest card; what is refused, with why."""
    rows = []
    for tower in towers:
        if tower.name in refused:
            rows.append([tower.name, refused[tower.name]])
            continue
        card = smallest(tower.peak, cards)
        sizes = [binary(tower.parts[c]) if tower.parts.get(c, 0) >= 1024 else "0" for c in STYLES]
        rows.append([tower.name, *sizes, binary(tower.peak), card.name.partition(":")[0] if card else "none"])
    return _table("memory by method and category", ("method", *STYLES, "peak", "smallest card"), rows)


def terms_table(estimate: Estimate) -> str:
    """Each term of an estimate, the largest first: bytes, share, category, what it is in words, formula."""
    rows = []
    for term in sorted(estimate.terms, key=lambda term: -term.bytes):
        told = f"<b>{escape(term.where or 'the loss')}</b>: {escape(in_words(term))}"
        sizes = (binary(term.bytes), f"{term.bytes / estimate.peak:.1%}", term.category)
        rows.append((*map(escape, sizes), _flowing(told, 170), _flowing(escape(term.formula or ""), 90)))
    head = ("bytes", "share", "category", "term, in words", "formula")
    return tabled("terms of the chosen method", head, rows, cells=CELLS)


def moments_words(estimate: Estimate) -> str:
    """The candidates for the peak, in the order of the step, and what the letters of the formulas mean."""
    moments = "; ".join(f"{escape(at)} {binary(n)}" for at, n in estimate.phases.items())
    return f"<p style='line-height:1.4'>{escape(LETTERS)}.<br>Peaks of the phases: {moments}.</p>"


def standing(step: StepMeasured) -> str:
    """What came of a real step, or that it is being taken."""
    if step.alive:
        return "<b>measuring</b>: the model is built, two steps are taken, the second one counts."
    if step.predicted and step.traced and step.measured:
        return compared(step.predicted, step.traced, step.measured, step.describe())
    return f"<b>not measured:</b> {escape(step.error)}."


def compared(predicted: Estimate, traced: Estimate, measured: Estimate, what: str) -> str:
    """Predicted, traced and measured side by side, with what is left between them."""
    rows = []
    for estimate, how in (
        (predicted, "interpolated"),
        (traced, "tensors without data"),
        (measured, "a real step, here"),
    ):
        off = estimate.peak - measured.peak
        residual = "" if estimate is measured else f"{off:+,} bytes ({off / measured.peak:+.4%})"
        rows.append((estimate.mode, how, f"{estimate.peak:,}", binary(estimate.peak), estimate.at, residual))
    head = ("estimate", "how", "bytes at the peak", "size", "at", "beside measured")
    verdict = "to the byte" if traced.peak == measured.peak else f"but for {abs(traced.peak - measured.peak):,} bytes"
    resident = f" The whole process holds {binary(measured.process)}." if measured.process else ""
    return (
        f"<b>measured</b>: {escape(what)}. The trace agrees {verdict}, the prediction within "
        f"{abs(predicted.peak - measured.peak):,} bytes.{resident}" + _table("predicted beside measured", head, rows)
    )


def _table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabled(name, head, [[escape(cell) for cell in row] for row in rows], cells=CELLS)


def _flowing(markup: str, least: int) -> str:
    """What may be broken, in a column of so many pixels at least."""
    return f"<div style='white-space:normal; line-height:1.35; min-width:{least}px'>{markup}</div>"
