"""One door to every base model: bundled, in a folder, or on the hub; and one sentence where it does not open."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lora_lab import load_model, load_tokenizer
from lora_lab.errors import BadValue, LabError, LabWarning, NotFound
from lora_lab.training.models import BUNDLED, is_causal
from tests.conftest import BERT


def test_a_head_of_another_number_of_classes_is_replaced(tiny_encoder, tmp_path):
    load_model(tiny_encoder, 3).save_pretrained(tmp_path)
    with pytest.warns(LabWarning, match="a head of 3 classes"):
        assert load_model(str(tmp_path), 2).classifier.out_features == 2


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
    assert model.config._name_or_path == BUNDLED[name]  # the one that adapter files give it


def test_dtype_and_attention_are_those_asked_for(tiny_encoder):
    for dtype, attention, found in (("bf16", "eager", torch.bfloat16), (torch.float16, "sdpa", torch.float16)):
        model = load_model(tiny_encoder, 2, dtype=dtype, attention=attention)
        assert {p.dtype for p in model.parameters()} == {found}
        assert model.config._attn_implementation == attention


# ---- mistakes


def test_an_unknown_name_lists_what_is_bundled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for load in (load_model, load_tokenizer):
        for name in ("minilmm", "no/such-model", "../nowhere", ""):
            with pytest.raises(NotFound, match=r"pass a bundled one|contains no model") as caught:
                load(name)
            assert "\n" not in str(caught.value)


def assert_refused(folder: Path, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence) as caught:
        load_model(str(folder), 2)
    assert "\n" not in str(caught.value)


def test_a_damaged_config_truncated_weights_and_pickled_ones_are_refused(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    config, weights = (folder / "config.json").read_bytes(), folder / "model.safetensors"
    for content in (b"{", b"[]", b"\xff", b'{"model_type": "no-such-model"}', b"{}"):
        (folder / "config.json").write_bytes(content)
        assert_refused(folder, "cannot be loaded")
    (folder / "config.json").write_bytes(config)
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_refused(folder, "cannot be loaded")
    weights.unlink()
    assert_refused(folder, "cannot be loaded")


def test_a_checkpoint_may_lack_its_whole_head_and_nothing_else_which_would_be_filled_at_random(tmp_path):
    body = tmp_path / "body"
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(body)
    config = json.loads((body / "config.json").read_text())
    (body / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    assert type(load_model(str(body))) is transformers.BertModel
    whole = {key: tensor.clone() for key, tensor in load_file(body / "model.safetensors").items()}
    query = "encoder.layer.0.attention.self.query.weight"
    without_query = {key: tensor for key, tensor in whole.items() if key != query}
    part_of_head = {"cls.predictions.transform.dense.bias": torch.zeros(BERT["hidden_size"])}
    with_part = {f"bert.{key}": tensor for key, tensor in whole.items()} | part_of_head
    for tensors, labels, name in ((with_part, None, "cls"), (without_query, None, ""), (without_query, 2, query)):
        save_file(tensors, body / "model.safetensors", {"format": "pt"})
        with pytest.raises(BadValue, match=rf"lacks .* weights .*{name}.* which would be random"):
            load_model(str(body), labels)


def test_code_that_comes_with_a_checkpoint_is_neither_run_nor_asked_about(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    start = time.monotonic()
    assert_refused(folder, "cannot be loaded")
    assert time.monotonic() - start < 10  # transformers would wait 15 s for an answer
    assert not (tmp_path / "sprung").exists()
