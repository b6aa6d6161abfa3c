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
from lora_lab.training.watching import quiet
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


def test_a_causal_model_can_classify_too(tiny_causal):
    model = load_model(tiny_causal, 2)
    assert type(model).__name__ == "LlamaForSequenceClassification"
    assert model.config.pad_token_id is not None
    ids = torch.tensor([[5, 6, 7, model.config.pad_token_id]])
    assert model(input_ids=ids).logits.shape == (1, 2)


@pytest.mark.parametrize(("dtype", "expected"), [("bf16", torch.bfloat16), (torch.float16, torch.float16)])
def test_the_dtype_is_the_one_asked_for(tiny_encoder, dtype, expected):
    assert {p.dtype for p in load_model(tiny_encoder, 2, dtype=dtype).parameters()} == {expected}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_is_the_one_asked_for(tiny_encoder, attention):
    assert load_model(tiny_encoder, attention=attention).config._attn_implementation == attention


def test_the_model_knows_the_name_that_adapter_files_give_it(loaded, tiny_encoder):
    assert loaded("minilm", 2).config._name_or_path == "sentence-transformers/all-MiniLM-L6-v2"
    assert local_name("sentence-transformers/all-MiniLM-L6-v2") == "minilm"
    assert load_model(tiny_encoder).config._name_or_path == tiny_encoder
    assert local_name(tiny_encoder) == tiny_encoder


def test_the_head_starts_random_and_seeded(tiny_encoder):
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(load_model(tiny_encoder, 2).classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_a_tokenizer_can_pad_on_the_right(name):
    tokenizer = load_tokenizer(name)
    batch = tokenizer(["a long sentence of words", "short"], padding=True)
    assert tokenizer.padding_side == "right"
    assert batch["attention_mask"][1][-1] == 0


def test_loading_is_quiet_and_leaves_transformers_as_it_was(tiny_encoder, capfd):
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(tiny_encoder, 2)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    with pytest.raises(KeyError), quiet():
        raise KeyError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


# ---- mistakes


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
@pytest.mark.parametrize("name", ["minilmm", "no/such-model", "../nowhere", ""])
def test_an_unknown_name_lists_what_is_bundled(load, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match=r"give a bundled one|holds no model") as caught:
        load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_a_bundled_model_that_is_not_fetched_names_the_command(empty_home, name):
    with pytest.raises(NotFound, match=f"the asset '{name}' is missing; run: lora-lab fetch"):
        load_model(name)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dtype": "fp8"}, "dtype must be one of fp32, bf16, fp16, nf4, nf4-single, int8, int4, nf3, nf2, not 'fp8'"),
        ({"dtype": "nf4+stored"}, "dtype must be one of fp32, bf16, fp16, nf4.* not 'stored'"),
        ({"dtype": None}, "dtype must be one of fp32, bf16, fp16, nf4.* not 'None'"),
        ({"attention": "flash"}, "attention must be one of eager, sdpa, not 'flash'"),
        ({"num_labels": 0}, "num_labels must be at least 1, not 0"),
    ],
)
def test_an_unknown_option_is_refused(tiny_encoder, options, sentence):
    with pytest.raises(BadValue, match=sentence):
        load_model(tiny_encoder, **options)


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(NotFound, match=r"holds no model: it has no config\.json"):
        load_model(str(tmp_path))


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


def test_a_checkpoint_that_lacks_weights_is_refused_rather_than_filled_at_random(tiny_encoder, tmp_path):
    folder = copy(tiny_encoder, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.attention.self.query.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert_refused(folder, "lacks 1 weights .*query.* which would be random")


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


def test_a_checkpoint_that_lacks_more_than_its_head_is_refused(headless):
    tensors = load_file(headless / "model.safetensors")
    del tensors["encoder.layer.0.attention.self.query.weight"]
    save_file(tensors, headless / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadValue, match="would be random"):
        load_model(str(headless))


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
