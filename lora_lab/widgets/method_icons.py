"""What each method adds to a transformer layer, as a small SVG: gray is frozen, blue trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

# x, y, width, height: MLP and output above; queries, keys and values below
BOXES = {
    "down": (19, 24, 46, 9), "up": (19, 40, 46, 9), "o": (30, 60, 24, 9),
    "q": (9, 80, 16, 11), "k": (34, 80, 16, 11), "v": (59, 80, 16, 11),
}  # fmt: skip
TOKENS = 104  # y of the row of tokens


def _rect(x: float, y: float, width: float, height: float, kind: str = "train", radius: float = 0) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" class="{kind}" rx="{radius}"/>'


def _frozen(x: float, y: float, width: float, height: float, radius: float = 0) -> str:
    return _rect(x + 0.5, y + 0.5, width - 1, height - 1, "frost edge", radius)


def _circle(x: float, y: float, radius: float) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" class="train"/>'


def _hourglass(y: float) -> str:  # a narrow waist: few numbers in between
    return f'<path d="M24 {y}h36l-12 3.5l12 3.5h-36l12 -3.5z" class="train"/>'


def _on_each(targets: Iterable[str], draw: Callable[..., str]) -> str:
    """Draw at each matrix whose role is a target; for a path or a pattern as a target, draw nothing."""
    names = set(targets)
    return "".join(draw(*box) for role, box in BOXES.items() if names & {role, "all-linear"})


def _frozen_adapter(targets: Iterable[str], trained: Callable[..., str]) -> str:
    """Draw frozen A and B, and the trained part between them."""
    return _on_each(
        targets, lambda x, y, w, h: _frozen(x, y - 4, w, 3) + _frozen(x + w + 1, y, 3, h) + trained(x, y, w, h)
    )


def drawing(method: str, settings: Mapping[str, Any], head: bool) -> dict[str, str]:
    """Return "icon", an SVG of what the method adds to a layer, and "adds", the same in words.

    method      a name in the registry; an unknown one is drawn as a dot
    settings    as `Method.settings()` returns them
    head        whether the head trains
    """
    targets, few = settings.get("targets") or (), "a few"
    learned = "".join(_rect(x, TOKENS, 7, 7) for x in (12, 21, 30))
    pale = "".join(_rect(12.5 + 9 * i, TOKENS + 0.5, 6, 6, "train pale") for i in range(7))
    draw_a = _frozen if settings.get("freeze_a") else _rect  # LoRA-FA
    drawings: dict[str, tuple[str, str]] = {
        "full": (_on_each(BOXES, lambda x, y, w, h: _rect(x, y, w, h, radius=1.5)) + pale, "every weight of the layer"),
        "lora": (
            _on_each(targets, lambda x, y, w, h: draw_a(x, y - 4, w, 3) + _rect(x + w + 1, y, 3, h)),
            f"A and B beside {', '.join(targets)}",
        ),
        "lora-xs": (
            _frozen_adapter(targets, lambda x, y, w, h: _rect(x + w + 1, y - 4, 3, 3)),
            f"a square matrix of size {settings.get('rank', few)} between frozen A and B",
        ),
        "vera": (
            _frozen_adapter(targets, lambda x, y, w, h: _rect(x, y - 5.5, w, 1) + _rect(x + w + 4.5, y, 1, h)),
            "a factor for each row of frozen A and B",
        ),
        "tinylora": (
            _frozen_adapter(targets, lambda x, y, w, h: _circle(x + w + 2.5, y - 2.5, 1.5)),
            f"{settings.get('u', few)} weights for frozen square matrices",
        ),
        "bitfit": (_on_each(BOXES, lambda x, y, w, h: _rect(x, y + h + 1, w, 2.5)), "the bias of each matrix"),
        "ia3": (
            _on_each(targets, lambda x, y, w, h: _circle(x + w / 2, y - 3, 3.5)),
            "a factor for each feature of k, v and the MLP",
        ),
        "bottleneck": (
            _hourglass(52) + _hourglass(15), f"small layers {settings.get('size', '')} wide after attention and MLP",
        ),
        "prompt": (learned, f"{settings.get('tokens', few)} learned vectors before the text"),
        "ptuning": (
            learned + _rect(12, TOKENS + 9, 25, 3),
            f"{settings.get('tokens', few)} vectors before the text, made by a small network",
        ),
        "prefix": (
            _on_each("kv", lambda x, *_: _rect(x - 6, 80, 5, 5) + _rect(x - 6, 86, 5, 5)),
            f"{settings.get('tokens', few)} learned keys and values in each layer",
        ),
        "head": ("", "nothing: only the head trains"),
        "probe": ("", "nothing: a logistic regression reads the last layer"),
    }  # fmt: skip
    added, words = drawings.get(method, (_circle(74, 56, 5), "something of its own"))
    wires = '<path d="M42 101V14M17 95H67M17 95V74M42 95V74M67 95V74M17 74H67" class="rule"/>'
    layer = "".join(_frozen(*box, radius=1.5) for box in BOXES.values())
    first = 3 if method in ("prompt", "ptuning") else 0
    tokens = "".join(_frozen(12 + 9 * i, TOKENS, 7, 7) for i in range(first, 7))
    top = _rect(30, 3, 24, 8, "train", 4) if head else _frozen(30, 3, 24, 8, 4)
    top = _circle(42, 8, 5) if method == "probe" else top
    parts = wires + layer + tokens + added + top
    svg = f'<svg viewBox="0 0 84 118" width="84" height="118" aria-hidden="true">{parts}</svg>'
    return {"icon": svg, "adds": words}
