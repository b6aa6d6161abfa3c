"""The panel "LoRA to scale": what it sends to the browser is what `params` counts."""

import json
from itertools import combinations
from pathlib import Path

import pytest

from lora_lab import BadValue, LoRA, LoRAPanel, NotFound, params
from lora_lab.accounting.models import zoo_names
from lora_lab.widgets.base import MIME
from lora_lab.widgets.lora_panel import layers_of, zoo_layers


def trained(rows: list[dict], targets: tuple[str, ...], rank: int) -> int:
    """As `js/lora_model.js` adds it up."""
    return rank * sum(row["trains"].get(target, 0) for row in rows for target in targets)


def test_what_ships_is_what_is_counted():
    assert list(zoo_layers()) == zoo_names()
    for name in zoo_names():
        assert zoo_layers()[name] == layers_of(name), name


def test_rows_sum_to_what_params_says():
    for model in ("gpt2", "phi-3-mini", "mixtral-8x7b", "t5-base"):
        rows = zoo_layers()[model]
        targets = [target for target in ("q", "v", "up", "down") if any(target in row["trains"] for row in rows)]
        for chosen in (("all-linear",), *combinations(targets, 2)):
            counted = params(model, LoRA(rank=4, targets=chosen))
            assert trained(rows, chosen, 4) == counted.trainable, (model, chosen)
            assert sum(row["numbers"] for row in rows) == counted.total, model


def test_a_layer_has_the_shape_of_the_real_one_and_one_that_is_not_there_is_one_sentence():
    assert LoRAPanel().shape == (4096, 4096)
    assert LoRAPanel(model="llama-3-8b", layer="v").shape == (1024, 4096)
    assert LoRAPanel(model="gpt2", layer="q+k+v").shape == (2304, 768)
    assert LoRAPanel(model="gpt2", layer="k of q+k+v").shape == (768, 768)
    with pytest.raises(NotFound, match="no layer 'c_attn'; it has q, k, v"):
        LoRAPanel(model="llama-3-8b", layer="c_attn")
    with pytest.raises(BadValue, match="1 to 64"):
        LoRAPanel(d=64, rank=65)


def test_in_words_it_says_what_is_stored_and_what_trains():
    words = LoRAPanel(d=4096, rank=8).describe()
    assert "16,777,216 numbers, which stay frozen" in words
    assert "add 65,536 (0.391%), which train. Break-even at rank 2,048." in words
    panel = LoRAPanel("model", model="llama-3-8b", rank=8)
    assert f"adds {panel.counted().trainable:,} (0.042%)" in panel.describe()


def test_a_model_of_your_own(loaded):
    model = loaded("minilm", num_labels=2)
    panel = LoRAPanel("model", model=model, rank=2, models=["gpt2"])
    assert list(panel.models) == [panel.model, "gpt2"]
    rows = panel.models[panel.model]["rows"]
    assert trained(rows, ("q", "v"), 2) == panel.counted().trainable == 6 * 2 * 2 * (384 + 384)
    assert sum(row["numbers"] for row in rows) == sum(p.numel() for p in model.parameters())
    assert all("lora" not in name for name, _ in model.named_parameters())  # nothing was attached
    json.dumps(panel.state())


def test_a_notebook_that_is_built_keeps_what_a_page_needs(tmp_path: Path):
    data, _ = LoRAPanel(rank=16)._repr_mimebundle_()
    assert data["text/plain"].startswith("LoRA to scale: W of 4,096 x 4,096")
    snapshot = json.loads(data[MIME])
    assert (snapshot["panel"], snapshot["file"], snapshot["state"]["rank"]) == ("LoRAPanel", "lora_panel.js", 16)
    assert not [name for name in snapshot["state"] if name.startswith("_")]
    assert '<div data-panel="LoRAPanel">' in LoRAPanel(rank=16).save(tmp_path / "panel.html").read_text()
