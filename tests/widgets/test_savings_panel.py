"""The savings panel without a browser: what it counts, says and draws, and that it needs no torch."""

from __future__ import annotations

import base64
import io
import threading

import numpy as np
import pytest
from matplotlib.image import imread

from lora_lab import LoRA, params
from lora_lab.accounting.models import zoo_names
from lora_lab.errors import NotFound
from lora_lab.widgets.panel import plain
from lora_lab.widgets.savings_panel import SavingsPanel, layer_words, shown
from lora_lab.widgets.savings_picture import role_names, short_names


@pytest.fixture
def panel() -> SavingsPanel:
    return SavingsPanel("gpt2", d=1024, rank=4)


def tick(panel: SavingsPanel, role: str, value: bool = True) -> None:
    next(box for box in panel.target_box.children if box.description == role).value = value


def dots(panel: SavingsPanel) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What is drawn of each kind of layer: all of it, what trains, its name."""
    (axes,) = panel.sheets[1].axes
    whole, trained = (np.asarray(line.get_xdata()) for line in axes.lines)
    return whole, trained, [label.get_text() for label in axes.get_yticklabels()]


def test_one_layer_is_counted_and_its_break_even_said(panel: SavingsPanel):
    words = plain(panel.words.value)
    assert "d 2 = 1,048,576 numbers, LoRA 2 d r = 8,192 (0.781%): 128 times fewer" in words
    assert "Break-even at r = d / 2 = 512" in words
    panel.rank.value = 512
    assert "exactly as many" in panel.words.value
    panel.rank.value = 1024
    assert "no saving" in panel.words.value
    assert "only wastes numbers" in layer_words(64, 128)


def test_the_model_is_that_of_the_accountant(panel: SavingsPanel):
    assert "gpt2, q, v: 147,456 of 124,439,808 train (0.118%)" in plain(panel.words.value)
    tick(panel, "k")
    assert f"{panel.counted().trainable:,} of" in panel.words.value
    assert panel.counted().trainable == 147_456 * 3 // 2


def test_the_table_has_a_line_for_each_kind_of_layer(panel: SavingsPanel):
    table = plain(panel.table.value)
    assert "c_attn[q] 768 x 768 12 7,087,104 73,728 1.04% 384" in table
    assert "frozen" in table
    assert len(shown(panel.counted().modules)) == panel.table.value.count("<tr>") - 1


def test_names_are_as_long_as_it_takes_to_tell_them_apart():
    names = ["h.*.attn.c_attn", "h.*.attn.c_proj", "h.*.mlp.c_proj"]
    assert short_names(names) == ["c_attn", "attn.c_proj", "mlp.c_proj"]
    assert short_names(["a.*.dense"]) == ["a.dense"]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("minilm", ["q", "k", "v", "o", "up", "down"]),
        ("gpt2", ["q", "k", "v", "o", "up", "down"]),
        ("deepseek-v3", ["o", "gate", "gate experts", "gate shared_experts"]),
        ("t5-base", ["q encoder.SelfAttention", "q decoder.SelfAttention", "q decoder.EncDecAttention", "up encoder"]),
    ],
)
def test_a_layer_is_called_by_what_it_does(model: str, names: list[str]):
    found = role_names(shown(params(model, LoRA(8, targets="o" if model == "deepseek-v3" else "q,v")).modules))
    assert set(names) <= set(found)
    assert len(set(found)) == len(found)


def test_what_is_frozen_has_no_dot_of_its_own_and_the_title_not_the_answer(panel: SavingsPanel):
    _, trained, labels = dots(panel)
    trains = dict(zip(labels, trained, strict=True))
    assert trains["q  r* 384"] == 4 * (768 + 768)
    assert np.isnan(trains["k  r* 384"])
    (gaps,) = panel.sheets[1].axes[0].collections
    assert len(gaps.get_segments()) == 2
    assert "512" not in panel.sheets[0].axes[0].get_title()


@pytest.mark.parametrize("model", ["minilm", "mixtral-8x7b", "deepseek-v3", "phi-3-mini", "llama-3.1-405b", "t5-base"])
def test_every_kind_of_model_is_drawn(panel: SavingsPanel, model: str):
    before = panel.dots.value
    panel.model.value = model
    assert f"{model}, " in plain(panel.words.value)
    assert " train (" in plain(panel.words.value)
    assert panel.dots.value != before
    whole, trained, labels = dots(panel)
    assert np.nanmax(trained) > 0
    assert (whole > np.nan_to_num(trained)).all()
    assert len(trained) == len(labels) == len(set(labels))


def test_a_model_without_those_roles_falls_back_and_the_next_has_them_again(panel: SavingsPanel):
    panel.model.value = "deepseek-v3"  # its q is made in two steps that have no role
    assert panel.targets == ("all-linear",)
    assert "all-linear" in panel.words.value
    panel.model.value = "llama-3-8b"
    assert panel.targets == ("q", "v")
    tick(panel, "q", False)
    tick(panel, "v", False)
    assert "targets is empty" in panel.words.value
    tick(panel, "o")
    panel.model.value = "minilm"
    assert panel.targets == ("o",)


def test_a_rank_above_a_layer_is_said_and_not_counted(panel: SavingsPanel):
    panel.rank.value = 1024  # gpt2's layers are 768 wide
    assert "at most 768" in panel.words.value
    assert panel.table.value == ""
    panel.rank.value = 8
    assert "294,912 of" in panel.words.value


def test_a_saved_notebook_shows_the_picture_and_the_words(panel: SavingsPanel):
    data, _ = panel._repr_mimebundle_()
    assert data["text/plain"].startswith("What LoRA saves. d = 1,024, r = 4")
    both = imread(io.BytesIO(base64.b64decode(data["image/png"])))
    halves = [imread(io.BytesIO(image.value)) for image in (panel.picture, panel.dots)]
    assert (np.concatenate(halves, axis=1) == both).all()
    assert both.shape[2] == 3  # no alpha: opaque, so it reads on a dark theme too
    assert all(half.std() > 0.05 for half in halves)


def test_a_start_between_two_stops_and_an_unknown_model():
    assert SavingsPanel("minilm", d=1000, rank=6).d.value == 1000
    with pytest.raises(NotFound, match="llama"):
        SavingsPanel("lama-3-8b")


def test_every_model_of_the_zoo_can_be_chosen(panel: SavingsPanel):
    for model in zoo_names():
        panel.model.value = model
        assert " train (" in plain(panel.words.value), model


def test_no_thread_paints_while_a_panel_is_shown(panel: SavingsPanel, monkeypatch: pytest.MonkeyPatch):
    free: list[bool] = []

    def still() -> bytes:
        another = threading.Thread(target=lambda: free.append(panel.lock.acquire(blocking=False)))
        another.start()
        another.join()
        return b""

    monkeypatch.setattr(panel, "still", still)
    panel._repr_mimebundle_()
    assert free == [False]
