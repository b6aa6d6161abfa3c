"""The memory panel without a browser: what it predicts, says, refuses and measures, and that it needs no torch."""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path

import pytest
from matplotlib.image import imread

from lora_lab import FullFineTuning, LoRA, PromptTuning, memory
from lora_lab.accounting.memory import Estimate, Term
from lora_lab.accounting.setup import OPTIMIZERS, Setup
from lora_lab.accounting.units import GIB, binary
from lora_lab.errors import BadValue, NotFound
from lora_lab.plots.towers import STYLES
from lora_lab.widgets import memory_measure, memory_panel
from lora_lab.widgets.memory_panel import METHODS, MemoryPanel, models
from lora_lab.widgets.memory_words import BY_CATEGORY, compared, conclusion, fitting, in_words, moment
from lora_lab.widgets.panel import plain
from tests.widgets.conftest import until


@pytest.fixture
def panel() -> MemoryPanel:
    return MemoryPanel()


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no stored fit stays a bound."""
    monkeypatch.setattr(memory_panel.Traced, "_work", lambda tracing: None)


def test_a_tower_a_method_is_what_the_accountant_says(panel: MemoryPanel):
    expected = {
        "full": memory("llama-3-8b", FullFineTuning(), batch=1, seq=512),
        "LoRA": memory("llama-3-8b", LoRA(), batch=1, seq=512),
        "QLoRA": memory("llama-3-8b", LoRA(), batch=1, seq=512, quantised="nf4"),
        "prompt": memory("llama-3-8b", PromptTuning(), batch=1, seq=512),
    }
    blocks = panel.sheet.axes[0].patches
    heights = [sum(b.get_height() for b in blocks if round(b.get_x() + 0.31) == place) for place in range(4)]
    assert heights == pytest.approx([expected[name].peak / GIB for name in METHODS[:4]])
    table = plain(panel.towers.value)
    assert all(binary(estimate.peak) in table for estimate in expected.values())


def test_the_conclusion_names_peak_moment_largest_term_and_card(panel: MemoryPanel):
    words = plain(panel.words.value)
    assert words.startswith(
        "LoRA on llama-3-8b: 18.0 GiB at the peak. It falls during backward of the loss (right after"
    )
    assert "The largest term is base , 15.0 GiB or 83%: the pretrained weights" in words
    assert "The smallest card that it fits is 24 GB: RTX 3090" in words
    assert "LoRA needs 18.0 GiB, 29% of full fine-tuning's 61.8 GiB; 24 GB are enough" in panel.picture.alt


def test_the_batch_that_is_said_to_fit_does_and_the_next_does_not(panel: MemoryPanel):
    a_card = next(c for c in panel.cards if c.name.startswith("24 GB"))
    most = int(plain(panel.words.value).rpartition("up to ")[2].rstrip("."))
    fits = [memory("llama-3-8b", LoRA(), batch=n, seq=512).peak <= a_card.bytes for n in (most, most + 1)]
    assert fits == [True, False]


def test_the_terms_are_explained_and_sum_to_the_peak(panel: MemoryPanel):
    estimate = panel.estimate("LoRA")
    assert sum(term.bytes for term in estimate.terms) == estimate.peak
    assert panel.terms.value.count("<tr>") == len(estimate.terms) + 1
    assert "S = sequence" in panel.moments.value
    assert "backward 18.0 GiB; the optimizer's step 15.0 GiB" in plain(panel.moments.value)


LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256}  # fmt: skip


def test_what_has_no_stored_fit_is_a_bound_until_it_is_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: None
):
    release, exact = threading.Event(), memory_panel.estimate

    def slow(*step: object) -> Estimate:
        assert release.wait(60)
        return exact(*step)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where nothing is stored yet
    monkeypatch.setattr(memory_panel, "estimate", slow)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    panel = MemoryPanel(str(tmp_path), batch=2, seq=64)
    bounds = {name: panel.estimate(name) for name in ("full", "LoRA", "QLoRA", "prompt")}
    assert plain(panel.words.value).startswith(f"LoRA on {tmp_path}: at most {binary(bounds['LoRA'].peak)} ; the exact")
    assert "these are upper bounds" in panel.picture.alt
    assert "LoRA at most" in plain(panel.towers.value)
    release.set()
    until(lambda: "at most" not in panel.words.value + panel.towers.value + panel.picture.alt)
    for name, bound in bounds.items():
        assert panel.estimate(name).peak <= bound.peak
    assert binary(panel.estimate("LoRA").peak) in panel.words.value
    assert "no biases" in panel.towers.value  # BitFit's


def test_what_was_moved_while_it_traced_is_traced_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: None):
    release, asked = threading.Event(), []

    def slow(model: str, method: object, setup: Setup) -> Estimate:
        assert release.wait(60)
        asked.append(setup.seq)
        return Estimate("traced", 100, "backward of the loss", (Term("weights", "base", None, 100),), {"backward": 100})

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(memory_panel, "estimate", slow)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    panel = MemoryPanel(str(tmp_path), batch=2, seq=64)
    panel.seq.value = 128
    release.set()
    until(lambda: "at most" not in panel.words.value + panel.towers.value)
    assert set(asked) == {64, 128}
    assert "128 tokens" in panel.picture.alt


@pytest.mark.parametrize("model", models("gpt2"))
def test_every_model_is_drawn(untraced: None, panel: MemoryPanel, model: str):
    panel.model.value = model
    assert plain(panel.words.value).startswith((f"LoRA on {model}: ", "LoRA: target"))


def test_every_category_has_words_and_a_color():
    gpt2 = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 31}
    step = memory(gpt2, FullFineTuning(), batch=1, seq=8, trace=True)
    assert set(step.timeline[0].bytes) == set(BY_CATEGORY) == set(STYLES)


@pytest.mark.parametrize("model", ["minilm", "gpt2", LLAMA], ids=["minilm", "gpt2", "llama"])
@pytest.mark.parametrize("method", [FullFineTuning(), LoRA(), PromptTuning()], ids=lambda method: method.name)
def test_every_term_and_moment_has_words(model: str | dict, method: object):
    quantised = "none" if isinstance(method, FullFineTuning) else "nf4"
    for step in ({}, {"checkpointing": True, "quantised": quantised, "padded": True}):
        found = memory(model, method, batch=2, seq=16, trace=True, **step)
        assert all(in_words(term) for term in found.terms)
        assert "(" in moment(found.at)
        large = [term for term in found.terms if term.bytes > found.peak / 20 and term.where]
        assert all(in_words(term) != BY_CATEGORY[term.category] for term in large), large


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_moment_of_the_peak_has_a_reason(optimizer: str):
    assert "(" in moment(memory("gpt2", FullFineTuning(), batch=2, seq=32, optimizer=optimizer).at)


def test_every_control_repaints(untraced: None, panel: MemoryPanel):
    moves = {
        panel.seq: 4096, panel.batch: 4, panel.rank: 64, panel.dtype: "fp32", panel.optimizer: "sgd",
        panel.targets: "all linear", panel.checkpointing: True, panel.model: "gpt2-xl",
    }  # fmt: skip
    for control, value in moves.items():
        if value == "gpt2-xl":
            panel.seq.value = 1024
        before = panel.picture.value, panel.words.value
        control.value = value
        assert (panel.picture.value, panel.words.value) != before, control.description
    panel.method.value = "full"
    assert plain(panel.words.value).startswith("full on gpt2-xl: ")


def test_what_is_refused_is_said_in_words(untraced: None, panel: MemoryPanel):
    assert "no biases" in plain(panel.towers.value)
    panel.method.value = "BitFit"
    assert plain(panel.words.value).startswith("BitFit: bitfit finds nothing to train")
    assert panel.terms.value == ""
    panel.model.value, panel.seq.value = "gpt2", 2048
    assert "above the 1024 tokens" in plain(panel.towers.value)
    assert "gpt2: its memory cannot be said" in panel.picture.alt
    panel.seq.value, panel.method.value, panel.rank.value = 512, "LoRA", 256
    panel.model.value = "minilm"
    assert "LoRA on minilm: " in plain(panel.words.value)


def test_a_wrong_start_is_loud():
    with pytest.raises(NotFound, match="llama"):
        MemoryPanel("lama-3-8b")
    with pytest.raises(BadValue, match="method must be"):
        MemoryPanel(method="LORA")
    with pytest.raises(BadValue, match="targets must be"):
        MemoryPanel(targets="q")
    with pytest.raises(BadValue, match="dtype"):
        MemoryPanel(dtype="int8")
    assert MemoryPanel(batch=3, seq=700, rank=6).seq.value == 700


def test_a_real_step_is_set_beside_the_prediction():
    panel = MemoryPanel("minilm", batch=2, seq=64, dtype="fp32").show()
    step = panel.measuring
    assert step is not None
    assert step.error == ""
    assert step.traced.peak == step.measured.peak
    assert step.predicted.peak == step.measured.peak
    words = plain(panel.measured.value)
    assert words.startswith("measured : LoRA on minilm, 2 x 64 tokens, fp32, adamw, with this machine's CPU")
    assert "The trace agrees to the byte" in words
    assert f"{step.measured.peak:,}" in words
    assert "measured : LoRA on minilm" in panel.describe()
    assert not panel.measure_button.disabled


def test_with_somebody_watching_it_measures_in_a_thread(monkeypatch: pytest.MonkeyPatch, watched: None):
    release = threading.Event()
    estimate = Estimate("traced", 100, "backward of the loss", (), {"backward": 100})

    def slow(step: memory_measure.StepMeasured) -> None:
        release.wait(10)
        step.predicted = step.traced = step.measured = estimate

    monkeypatch.setattr(memory_measure.StepMeasured, "_work", slow)
    panel = MemoryPanel("minilm").show()
    assert panel.measuring is None  # nothing until the button is pressed
    panel.measure_button.click()
    first = panel.measuring
    panel.measure_button.click()  # a second press while one goes on
    assert panel.measuring is first
    panel.seq.value = 64
    assert panel.measure_button.disabled
    release.set()
    until(lambda: "measured" in panel.measured.value)
    assert "1 x 512 tokens" in panel.measured.value  # what was measured, not what the sliders say by now
    until(lambda: not panel.measure_button.disabled)


@pytest.mark.parametrize(
    ("start", "why"),
    [({"optimizer": "adamw-8bit"}, "PyTorch's own"), ({"batch": 64}, "minutes")],
)
def test_what_cannot_be_measured_is_said(start: dict, why: str):
    panel = MemoryPanel("minilm", **{"batch": 2, "seq": 64, "dtype": "fp32", **start})
    panel.measure()
    assert plain(panel.measured.value).startswith("not measured: ")
    assert why in plain(panel.measured.value)


def test_a_step_above_the_free_memory_is_not_begun(monkeypatch: pytest.MonkeyPatch):
    class Little:
        available = 10**6

    monkeypatch.setattr(memory_measure.psutil, "virtual_memory", Little)
    panel = MemoryPanel("minilm", batch=2, seq=64, dtype="fp32")
    panel.measure()
    assert "are free" in panel.measured.value


def test_an_error_of_any_kind_ends_in_words(monkeypatch: pytest.MonkeyPatch):
    def broken(step: memory_measure.StepMeasured) -> None:
        raise RuntimeError("<no memory>")

    monkeypatch.setattr(memory_measure.StepMeasured, "_work", broken)
    panel = MemoryPanel("minilm", seq=64)
    panel.measure()
    assert "RuntimeError: &lt;no memory&gt;" in panel.measured.value


def test_only_bundled_models_offer_a_real_step(untraced: None, panel: MemoryPanel):
    assert panel.measure_button.disabled
    assert "minilm and smollm2" in panel.hint.value
    assert panel.show().measuring is None
    panel.model.value = "smollm2"
    assert not panel.measure_button.disabled
    assert panel.hint.value == ""


def test_a_saved_notebook_shows_the_picture_and_the_words(panel: MemoryPanel):
    data, _ = panel._repr_mimebundle_()
    assert data["text/plain"].startswith("Where training memory goes. LoRA on llama-3-8b: 18.0 GiB")
    assert imread(io.BytesIO(base64.b64decode(data["image/png"]))).std() > 0.05


def test_words():
    panel_cards = MemoryPanel().cards
    assert fitting(10**13, panel_cards) == "It fits no single card up to 192 GB: B200"
    huge = Estimate("predicted", 10**13, "backward of the loss", (Term("weights", "base", None, 10**13),), {})
    assert "no single card" in conclusion("full", huge, panel_cards)
    one = Estimate("measured", 100, "x", (), {}, process=2**30)
    off = Estimate("traced", 90, "x", (), {})
    assert "but for 10 bytes" in compared(off, off, one, "a step")
    assert "1.00 GiB" in compared(off, off, one, "a step")


def test_a_set_up_is_one_of_the_accountants(panel: MemoryPanel):
    assert Setup(**panel.conditions) == Setup(batch=1, seq=512, dtype="bf16", optimizer="adamw")
