import json
from itertools import combinations

import pytest

from lora_lab import BadValue, LoRA, LoRAPanel, NotFound, params
from lora_lab.accounting.models import zoo_names
from lora_lab.widgets.base import MIME, uncompressed
from lora_lab.widgets.lora_panel import layers_of, zoo_layers


def trained(rows: list[dict], targets: tuple[str, ...], rank: int) -> int:
    """Count as `js/lora_model.js` does."""
    return rank * sum(row["trains"].get(target, 0) for row in rows for target in targets)


def test_shipped_layers_are_current():
    assert list(zoo_layers()) == zoo_names()
    for name in zoo_names():
        assert zoo_layers()[name] == layers_of(name), name


@pytest.mark.parametrize("model", ["gpt2", "phi-3-mini", "mixtral-8x7b", "t5-base"])
def test_rows_add_up_to_params(model):
    rows = zoo_layers()[model]
    available = [target for target in ("q", "v", "up", "down") if any(target in row["trains"] for row in rows)]
    for targets in (("all-linear",), *combinations(available, 2)):
        count = params(model, LoRA(rank=4, targets=targets))
        assert trained(rows, targets, 4) == count.trainable, targets
        assert sum(row["numbers"] for row in rows) == count.total


def test_shape_of_a_layer_errors_and_description():
    assert LoRAPanel().shape == (4096, 4096)
    assert LoRAPanel(model="llama-3-8b", layer="v").shape == (1024, 4096)
    assert LoRAPanel(model="gpt2", layer="q+k+v").shape == (2304, 768)
    assert LoRAPanel(model="gpt2", layer="k of q+k+v").shape == (768, 768)
    with pytest.raises(NotFound, match="no layer 'c_attn'; it has q, k, v"):
        LoRAPanel(model="llama-3-8b", layer="c_attn")
    with pytest.raises(BadValue, match="1 to 64"):
        LoRAPanel(d=64, rank=65)
    words = LoRAPanel(d=4096, rank=8).describe()
    assert "16,777,216 parameters, which stay frozen" in words
    assert "add 65,536 (0.391%), which are trained. Break-even is at rank 2,048." in words
    panel = LoRAPanel("model", model="llama-3-8b", rank=8)
    assert f"adds {params('llama-3-8b', LoRA(rank=8)).trainable:,} (0.042%)" in panel.describe()


def test_own_model_is_counted_and_unchanged(loaded):
    model = loaded("minilm", num_labels=2)
    panel = LoRAPanel("model", model=model, rank=2, models=["gpt2"])
    assert list(panel.models) == [panel.model, "gpt2"]
    rows = panel.models[panel.model]["rows"]
    assert trained(rows, ("q", "v"), 2) == params(model, LoRA(rank=2)).trainable == 6 * 2 * 2 * (384 + 384)
    assert sum(row["numbers"] for row in rows) == sum(p.numel() for p in model.parameters())
    assert all("lora" not in name for name, _ in model.named_parameters())
    json.dumps(panel.state())


def test_notebook_output_has_words_and_a_snapshot(tmp_path):
    data, _ = LoRAPanel(rank=16)._repr_mimebundle_()
    assert data["text/plain"].startswith("LoRA to scale: W of 4,096 x 4,096")
    snapshot = uncompressed(data[MIME])
    assert (snapshot["panel"], snapshot["file"], snapshot["state"]["rank"]) == ("LoRAPanel", "lora_panel.js", 16)
    assert not [name for name in snapshot["state"] if name.startswith("_")]
    assert '<div data-panel="LoRAPanel">' in LoRAPanel(rank=16).save(tmp_path / "panel.html").read_text()
