"""One door to every base model: bundled, in a folder, or on the hub; and one sentence where it does not open."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lora_lab import load_model, load_tokenizer
from lora_lab.errors import BadValue, LabError, NotFound
from lora_lab.training.models import is_causal, local_name
from tests.conftest import BERT


def copy(source: str, target: Path) -> Path:
    return Path(shutil.copytree(source, target / "model"))


@pytest.mark.parametrize(
    ("name", "labels", "kind"),
    [
        ("minilm", None, transformers.BertModel),
        ("minilm", 3, transformers.BertForSequenceClassification),
        ("smollm2", None, transformers.LlamaForCausalLM),
    ],
)
def test_a_bundled_model_is_what_the_task_needs(loaded, name, labels, kind):
    model = loaded(name, labels)
    assert isinstance(model, kind)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.num_labels == (labels or 2)
    assert is_causal(model) == (kind is transformers.LlamaForCausalLM)
    assert local_name(model.config._name_or_path) == name  # the one that adapter files give it


@pytest.mark.parametrize(
    ("dtype", "attention", "expected"),
    [("bf16", "eager", torch.bfloat16), (torch.float16, "sdpa", torch.float16)],
)
def test_dtype_and_attention_are_those_asked_for(tiny_encoder, dtype, attention, expected):
    model = load_model(tiny_encoder, 2, dtype=dtype, attention=attention)
    assert {p.dtype for p in model.parameters()} == {expected}
    assert model.config._attn_implementation == attention


# ---- mistakes


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
@pytest.mark.parametrize("name", ["minilmm", "no/such-model", "../nowhere", ""])
def test_an_unknown_name_lists_what_is_bundled(load, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match=r"give a bundled one|holds no model") as caught:
        load(name)
    assert "\n" not in str(caught.value)


def assert_refused(folder: Path, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence) as caught:
        load_model(str(folder), 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"model_type": "no-such-model"}', b"{}"])
def test_a_damaged_config_is_refused(tiny_encoder, tmp_path, content):
    folder = copy(tiny_encoder, tmp_path)
    (folder / "config.json").write_bytes(content)
    assert_refused(folder, "cannot be loaded")


def test_truncated_weights_are_refused(tiny_encoder, tmp_path):
    folder = copy(tiny_encoder, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_refused(folder, "cannot be loaded")


@pytest.fixture
def headless(tmp_path) -> Path:
    """A checkpoint of BERT's body whose config speaks of a language model."""
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(tmp_path / "body")
    config = json.loads((tmp_path / "body" / "config.json").read_text())
    (tmp_path / "body" / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    return tmp_path / "body"


def test_a_checkpoint_without_the_head_that_its_config_names_is_the_body(headless):
    assert type(load_model(str(headless))) is transformers.BertModel
    tensors = {f"bert.{key}": t for key, t in load_file(headless / "model.safetensors").items()}
    tensors["cls.predictions.transform.dense.bias"] = torch.zeros(BERT["hidden_size"])
    save_file(tensors, headless / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadValue, match=r"lacks .* weights .*cls.* which would be random"):  # a part of a head is none
        load_model(str(headless))


@pytest.mark.parametrize("labels", [None, 2])
def test_a_checkpoint_that_lacks_more_than_its_head_is_refused_rather_than_filled_at_random(headless, labels):
    tensors = load_file(headless / "model.safetensors")
    del tensors["encoder.layer.0.attention.self.query.weight"]
    save_file(tensors, headless / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadValue, match=r"lacks .* weights .* would be random"):
        load_model(str(headless), labels)


def test_pickled_weights_are_not_opened(tiny_encoder, tmp_path):
    folder = copy(tiny_encoder, tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_refused(folder, "cannot be loaded")


def test_code_that_comes_with_a_checkpoint_is_neither_run_nor_asked_about(tiny_encoder, tmp_path):
    folder = copy(tiny_encoder, tmp_path)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    start = time.monotonic()
    assert_refused(folder, "cannot be loaded")
    assert time.monotonic() - start < 10  # transformers would wait 15 s for an answer
    assert not (tmp_path / "sprung").exists()
