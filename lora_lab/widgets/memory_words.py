"""What the memory panel says: each term in plain words, the towers as a table, and the conclusion in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lora_lab.accounting.estimates import Estimate
from lora_lab.accounting.setup import QUANTISED_BITS
from lora_lab.accounting.units import binary
from lora_lab.plots.towers import STYLES, Line, Tower
from lora_lab.widgets.memory_measure import StepMeasured
from lora_lab.widgets.panel import escape, tabled

CELLS = "padding-right:12px; white-space:nowrap"
LETTERS = (
    "T = batch x sequence, tokens; S = sequence; B = batch; b = bytes of a number; L = layers; d = width of the model; "
    "f = width inside the MLP; V = vocabulary; r = rank; q, kv = widths of queries and of keys"
)

IN_WORDS = {
    "base": "the pretrained weights",
    **{
        f"base's linear layers in {form.upper()}": f"the frozen matrices in {bits} bits each, with the scale of every "
        "block of 64"
        for form, bits in QUANTISED_BITS.items()
    },
    "what is added to the base": "A and B, a prompt, a fresh head: what the method brings along, in fp32",
    "AdamW's two moments": "for each number that trains, a running mean of its gradient and one of its square",
    "AdamW's two moments in 8 bits": "the same two, rounded to a byte each",
    "all gradients": "one number for each number that trains",
    "weights of the later layers": "gradients already made: backward starts at the last layer",
    "weights of the piece in hand": "gradients of the layer that backward is in",
    "the tied embedding: the head's and the sum": "embedding and head are one matrix: its two gradients are added up",
    "the optimizer's arithmetic": "scratch space of the update",
    "gradients in flight": "what one operation of backward reads and writes; at the loss: gradients of the logits",
    "variables of the layer in hand": "what the model's own code still holds in its variables",
    "token numbers, labels, mask": "the batch itself",
    "rotary tables": "sines and cosines of the positions, shared by all layers",
    "the layers' inputs": "what went into a layer; all that checkpointing keeps",
    "inputs of norms": "a norm needs its input again",
    "inputs of norms in fp32": "RMSNorm computes in fp32, and keeps that copy",
    "normed inputs": "kept where the norm's own gain trains",
    "statistics of norms": "a number or two per token",
    "inputs of q, k, v": "kept where one of them trains or carries an adapter; frozen matrices keep nothing",
    "q, k, v": "attention needs all three again",
    "k, v repeated for each query head": "copies that this attention kernel asks for",
    "attention's output": "kept by the kernel, and as the input of o",
    "attention's logarithms": "one number per head and token, from which the kernel rebuilds its table",
    "attention's scores and weights": "a score for each pair of tokens: this model's attention has no fused kernel",
    "gains of norms": "the norm's gains in fp32",
    "normed inputs in fp32": "kept where the norm's own gain trains",
    "the router": "which experts each token goes to, and how strongly",
    "tokens of the experts": "each token as often as it has experts, sorted by expert",
    "gathered from the other devices": "the weights that this device borrows while it computes with them",
    "attention's masks": "which tokens are padding, in each layer",
    "inputs of the MLP": "kept where up or gate trains or carries an adapter",
    "inside the MLP": "the activation function and the product with the gate need their inputs again",
    "inputs of down": "the product of gate and up, kept where down trains or carries an adapter",
    "A x of the adapters": "the r numbers a token between A and B",
    "B x of the adapters": "what B made of them",
    "A in the base's dtype": "A is fp32 and multiplied in the base's dtype: this is the copy",
    "B in the base's dtype": "the same for B",
    "inputs of adapters in fp32": "PEFT's copy of each adapted input",
    "inputs of adapters after dropout": "the adapter's own, thinned-out input",
    "dropout masks": "which numbers were dropped: a byte each",
    "the head's input": "what reaches the last matrix",
    "logits in the model's dtype": "a score for each word of the vocabulary, at each token",
    "logits and their logarithms in fp32": "cross-entropy works in fp32: copies of the table of all scores",
    "logits of the classes": "a score for each class",
    "outputs that the loop still holds": "logits, keys and values that a variable of the loop keeps alive",
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
        "the loss's backward": "right after forward: everything kept is still there, and the loss "
        "needs its whole table of scores several times over",
        "the optimizer's step": "at the end: all gradients are there, and the optimizer works on them",
        "the embeddings' backward": "at the end of backward: all gradients are there, the embedding's last of all",
        "1's backward": "when backward reaches the first layer: almost all gradients are there",
        "2's backward": "near the end of backward: almost all gradients are there",
        "backward": "when backward enters that layer: everything kept below it is still there",
        "forward": "at the end of forward, with the layer's own variables on top of all that is kept",
    }
    reason = next((words for end, words in why.items() if at.endswith(end)), "")
    return f"{at} ({reason})" if reason else at


def conclusion(name: str, estimate: Estimate, cards: Sequence[Line]) -> str:
    """What one method needs, when, what for, and where that fits."""
    top = max(estimate.terms, key=lambda term: term.bytes)
    share = top.bytes / estimate.peak
    words = IN_WORDS.get(top.symbol, BY_CATEGORY.get(top.category, ""))
    return (
        f"<b>{escape(name)}: {binary(estimate.peak)}</b> at the peak. It falls at {escape(moment(estimate.at))}. "
        f"The largest term is <i>{escape(top.symbol)}</i>, {binary(top.bytes)} or {share:.0%}: {escape(words)}. "
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
    if not full or not lora:
        return f"{model}: its memory cannot be said"
    card = smallest(lora, cards)
    place = f"{card.name.partition(':')[0]} are enough" if card else "no single card has that"
    share = f"{lora / full:.0%} of full fine-tuning's {binary(full)}"
    return f"{model}: LoRA needs {binary(lora)}, {share}; {place}"


def towers_words(title: str, towers: Sequence[Tower]) -> str:
    """The picture in words, for those who cannot see it; the table below it has the categories."""
    heights = ", ".join(f"{t.name} {binary(t.peak)}" if t.parts else f"{t.name} cannot be said" for t in towers)
    return f"Towers of memory, a method each. {title.replace(chr(10), '. ')}. Peaks: {heights}."


def towers_table(towers: Sequence[Tower], refused: Mapping[str, str], cards: Sequence[Line]) -> str:
    """The picture as a table: a line a method, GiB by category, and the smallest card; what is refused, with why."""
    rows = []
    for tower in towers:
        if tower.name in refused:
            rows.append([tower.name, refused[tower.name]])
            continue
        card = smallest(tower.peak, cards)
        sizes = [binary(tower.parts[c]) if tower.parts.get(c) else "0" for c in STYLES]
        rows.append([tower.name, *sizes, binary(tower.peak), card.name.partition(":")[0] if card else "none"])
    return _table("memory by method and category", ("method", *STYLES, "peak", "smallest card"), rows)


def terms_table(estimate: Estimate) -> str:
    """Each term of an estimate, the largest first: bytes, share, category, what it is in words, formula."""
    rows = []
    for term in sorted(estimate.terms, key=lambda term: -term.bytes):
        words = escape(IN_WORDS.get(term.symbol, BY_CATEGORY.get(term.category, "")))
        told = f"<b>{escape(term.symbol)}</b>: {words}"
        sizes = (binary(term.bytes), f"{term.bytes / estimate.peak:.1%}", term.category)
        rows.append((*map(escape, sizes), _flowing(told, 170), _flowing(escape(term.formula), 90)))
    head = ("bytes", "share", "category", "term, in words", "formula")
    return tabled("terms of the chosen method", head, rows, cells=CELLS)


def moments_words(estimate: Estimate) -> str:
    """The candidates for the peak, in the order of the step, and what the letters of the formulas mean."""
    moments = "; ".join(f"{escape(at)} {binary(n)}" for at, n in estimate.moments.items())
    return f"<p style='line-height:1.4'>{escape(LETTERS)}.<br>Moments of the step: {moments}.</p>"


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
    for estimate, how in ((predicted, "closed form"), (traced, "fake tensors"), (measured, "a real step, here")):
        off = estimate.peak - measured.peak
        residual = "" if estimate is measured else f"{off:+,} bytes ({off / measured.peak:+.4%})"
        rows.append((estimate.mode, how, f"{estimate.peak:,}", binary(estimate.peak), estimate.at, residual))
    head = ("estimate", "how", "bytes at the peak", "size", "at", "beside measured")
    verdict = "to the byte" if traced.peak == measured.peak else f"but for {abs(traced.peak - measured.peak):,} bytes"
    resident = f" The whole process holds {binary(measured.process)}." if measured.process else ""
    return (
        f"<b>measured</b>: {escape(what)}. The trace agrees {verdict}, the closed form within "
        f"{abs(predicted.peak - measured.peak):,} bytes.{resident}" + _table("predicted beside measured", head, rows)
    )


def _table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabled(name, head, [[escape(cell) for cell in row] for row in rows], cells=CELLS)


def _flowing(markup: str, least: int) -> str:
    """What may be broken, in a column of so many pixels at least."""
    return f"<div style='white-space:normal; line-height:1.35; min-width:{least}px'>{markup}</div>"
