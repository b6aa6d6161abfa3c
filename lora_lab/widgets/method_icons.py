"""What each method adds to a transformer layer, as a small SVG: gray is frozen, blue trains."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# x, y, width, height: MLP and output above; queries, keys and values below
BOXES = {
    "down": (19, 24, 46, 9), "up": (19, 40, 46, 9), "o": (30, 60, 24, 9),
    "q": (9, 80, 16, 11), "k": (34, 80, 16, 11), "v": (59, 80, 16, 11),
}  # fmt: skip
TOKENS = 104  # y of the row of tokens
HOURGLASS = '<path d="M24 {}h36l-12 3.5l12 3.5h-36l12 -3.5z" class="train"/>'  # narrow in the middle: few numbers
ADDS = {  # what a method adds, with its settings
    "full": "every weight of the layer",
    "lora": "A and B beside {targets}",
    "lora-xs": "a square matrix of size {rank} between frozen A and B",
    "vera": "a factor for each row of frozen A and B",
    "tinylora": "{u} weights for frozen square matrices",
    "bitfit": "the bias of each matrix",
    "ia3": "a factor for each feature of k, v and the MLP",
    "bottleneck": "small layers of width {size} after attention and MLP",
    "prompt": "{tokens} learned vectors before the text",
    "ptuning": "{tokens} vectors before the text, made by a small network",
    "prefix": "{tokens} learned keys and values in each layer",
    "head": "nothing: only the head trains",
    "probe": "only a new last layer: a logistic regression",
}


def _rect(x: float, y: float, width: float, height: float, kind: str = "train", radius: float = 0) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" class="{kind}" rx="{radius}"/>'


def _frozen(x: float, y: float, width: float, height: float, radius: float = 0) -> str:
    return _rect(x + 0.5, y + 0.5, width - 1, height - 1, "frost edge", radius)


def _circle(x: float, y: float, radius: float) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" class="train"/>'


def _beside(draw_a: Callable[..., str], draw_b: Callable[..., str], x: float, y: float, w: float, h: float) -> str:
    return draw_a(x, y - 4, w, 3) + draw_b(x + w + 1, y, 3, h)


def _on_each(targets: Iterable[str], draw: Callable[..., str]) -> str:
    """Draw a mark on each matrix whose role is a target; a target that is a path or a pattern gets no mark."""
    names = set(targets)
    return "".join(draw(*box) for role, box in BOXES.items() if names & {role, "all-linear"})


def drawing(method: str, settings: Mapping[str, Any], head: bool) -> dict[str, str]:
    """Return "icon", an SVG of what the method adds to a layer, and "adds", the same in words.

    method      a name in the registry; an unknown one is drawn as a dot
    settings    as `Method.settings()` returns them
    head        whether the head trains
    """
    targets = settings.get("targets") or ()
    learned = "".join(_rect(x, TOKENS, 7, 7) for x in (12, 21, 30))
    pale = "".join(_rect(12.5 + 9 * i, TOKENS + 0.5, 6, 6, "train pale") for i in range(7))
    draw_a = _frozen if settings.get("freeze_a") else _rect  # LoRA-FA

    def frozen_adapter(trained: Callable[..., str]) -> str:  # A and B, and the trained part between them
        return _on_each(targets, lambda *box: _beside(_frozen, _frozen, *box) + trained(*box))

    drawings = {
        "full": _on_each(BOXES, lambda x, y, w, h: _rect(x, y, w, h, radius=1.5)) + pale,
        "lora": _on_each(targets, lambda *box: _beside(draw_a, _rect, *box)),
        "lora-xs": frozen_adapter(lambda x, y, w, h: _rect(x + w + 1, y - 4, 3, 3)),
        "vera": frozen_adapter(lambda x, y, w, h: _rect(x, y - 5.5, w, 1) + _rect(x + w + 4.5, y, 1, h)),
        "tinylora": frozen_adapter(lambda x, y, w, h: _circle(x + w + 2.5, y - 2.5, 1.5)),
        "bitfit": _on_each(BOXES, lambda x, y, w, h: _rect(x, y + h + 1, w, 2.5)),
        "ia3": _on_each(targets, lambda x, y, w, h: _circle(x + w / 2, y - 3, 3.5)),
        "bottleneck": HOURGLASS.format(52) + HOURGLASS.format(15),
        "prompt": learned,
        "ptuning": learned + _rect(12, TOKENS + 9, 25, 3),
        "prefix": _on_each("kv", lambda x, *_: _rect(x - 6, 80, 5, 5) + _rect(x - 6, 86, 5, 5)),
        "head": "",
        "probe": "",
    }
    added = drawings.get(method, _circle(74, 56, 5))
    words = defaultdict[str, Any](lambda: "a few", {**settings, "targets": ", ".join(targets)})
    wires = '<path d="M42 101V14M17 95H67M17 95V74M42 95V74M67 95V74M17 74H67" class="rule"/>'
    layer = "".join(_frozen(*box, radius=1.5) for box in BOXES.values())
    first = 3 if method in ("prompt", "ptuning") else 0
    tokens = "".join(_frozen(12 + 9 * i, TOKENS, 7, 7) for i in range(first, 7))
    top = _rect(30, 3, 24, 8, "train", 4) if head else _frozen(30, 3, 24, 8, 4)
    top = _circle(42, 8, 5) if method == "probe" else top
    parts = wires + layer + tokens + added + top
    svg = f'<svg viewBox="0 0 84 118" width="84" height="118" aria-hidden="true">{parts}</svg>'
    return {"icon": svg, "adds": ADDS.get(method, "its own parameters").format_map(words)}
