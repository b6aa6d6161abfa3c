"""One panel of each kind, for the browser tests; notebooks import this file, so it imports no test."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from lora_course.panels.claim_panel import ClaimPanel
from lora_course.panels.class_panel import ClassPanel
from lora_course.panels.mixer_panel import MixerPanel
from lora_course.panels.voices_panel import VoicesPanel
from lora_lab import ComparePanel, LoRAPanel, MemoryPanel, RankPanel, SweepPanel, TrainPanel
from tests.e2e.pages import class_in


def with_traits(panel, **values):
    for name, value in values.items():
        setattr(panel, name, value)
    return panel


lora = partial(LoRAPanel, models=["minilm", "gpt2", "llama-3-8b"])
claim = partial(ClaimPanel, claims=["one_24gb_card", "no_quality_drop"])


def sweep(**values) -> SweepPanel:
    return with_traits(SweepPanel(into="nothing here"), **{"rank": 8, "alpha": 16.0, "lr": 2e-3} | values)


def memory(model: str = "llama-3-8b", method: str = "LoRA q, v") -> MemoryPanel:
    return MemoryPanel(model, method, models=[model])


def train(**values) -> TrainPanel:
    """A finished run among three other seeds, with invented numbers."""
    panel = TrainPanel(store="nothing here")
    checks = [[0, 51.0], [200, 74.0], [400, 79.2]]
    others = [{"checks": [[step, value + by] for step, value in checks], "value": 80.0 + by} for by in (-1, 0.5, 2)]
    others.append({"checks": [], "value": 80.2})  # it was trained without validations
    earlier = [{"checks": [[0, 50.0], [400, 62.0]], "label": "lr 0.0001"}]
    moved = [[layer, role, 0.1 + 0.04 * layer] for layer in range(6) for role in ("q", "v")]
    panel.setup = panel.setup | {"others": others, "earlier": earlier}
    panel.live = {
        "state": "done", "busy": False, "error": "", "hash": panel.setup["hash"], "guess": 75, "left": 0, "step": 400,
        "steps": 400, "every": 1, "losses": [0.69 - 0.0008 * n for n in range(400)], "checks": checks, "moved": moved,
    }  # fmt: skip
    strengths = [step / 10 for step in range(21)]
    sentence = {"text": "not a dull film", "truth": "positive", "without": "negative", "with_adapter": "positive"}
    rising = [[0.7 - 0.3 * s, 0.3 + 0.3 * s] for s in strengths]
    panel.found = {
        "metric": "accuracy", "value": 80.9, "half": 1.7, "low": 79.2, "high": 82.6, "rows": 2000, "steps": 400,
        "seconds": 97, "adapter": "runs/a", "words": "minilm on rt", "labels": ["negative", "positive"],
        "made": {"date": "today", "hardware": "a laptop", "lora_lab": "0"}, "strengths": strengths,
        "changed": 9, "of": 50, "better": 6, "without": 70.0, "with": 76.0,
        "sentences": [sentence | {"p": rising}, sentence | {"truth": "negative", "p": rising[::-1]}],
    }  # fmt: skip
    return with_traits(panel, **values)


def training() -> TrainPanel:
    panel = train(found={})
    losses, checks = panel.live["losses"][:230], panel.live["checks"][:2]
    progress = {"losses": losses, "checks": checks, "step": 230, "left": 41, "busy": True, "state": "training"}
    return with_traits(panel, live=panel.live | progress)


def mixer() -> MixerPanel:
    """A panel with 200 texts; the answer to each changes at a random share of the second adapter."""
    shares, turns = np.linspace(0, 1, 21), np.random.default_rng(0).normal(0.6, 0.15, 200)
    probabilities = 1 / (1 + np.exp(12 * (shares[:, None] - turns)))
    texts = [f"film number {n}" for n in range(200)]
    return MixerPanel(("critic", "contrarian"), shares.tolist(), probabilities, texts)


def classroom() -> ClassPanel:
    with tempfile.TemporaryDirectory() as folder:
        return ClassPanel(class_in(Path(folder)))


ONE_EACH = {
    "lora": lora, "sweep": sweep, "memory": memory, "rank": RankPanel, "voices": VoicesPanel, "train": train,
    "compare": ComparePanel, "mixer": mixer, "claim": claim, "class": classroom,
}  # fmt: skip
ONE_EACH_CELL = """
import ipywidgets
from tests.e2e.panels import ONE_EACH, training
ipywidgets.VBox([make() for make in (*ONE_EACH.values(), training)])
"""
