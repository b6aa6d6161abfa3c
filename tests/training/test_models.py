import copy
import json
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lora_lab import LoRA, PrefixTuning, Probe, PromptTuning, evaluate_adapter, load_adapter, params, train
from lora_lab.errors import BadValue, Failed, LabError, LabWarning, NotFound
from lora_lab.methods.inspect import inspect_adapter
from lora_lab.methods.io import save_adapter
from lora_lab.training.models import SHORT_ROWS, load_model, load_tokenizer, take_shortcuts
from tests.conftest import BERT, assert_raises, logits, make_model, randomise, save_tokenizer, tiny


def test_arguments_of_load_model(tiny_encoder, tmp_path):
    for dtype, attention, expected in (("bf16", "eager", torch.bfloat16), (torch.float16, "sdpa", torch.float16)):
        model = load_model(tiny_encoder, 3, dtype=dtype, attention=attention)
        assert {p.dtype for p in model.parameters()} == {expected}
        assert model.config._attn_implementation == attention
        assert not model.training
    tiny("gemma2").save_pretrained(tmp_path / "gemma2")  # its class has no sdpa
    assert load_model(str(tmp_path / "gemma2"), attention="sdpa").config._attn_implementation == "eager"
    model.save_pretrained(tmp_path)
    with pytest.warns(LabWarning, match="a head with 3 classes"):
        assert load_model(tmp_path, np.int64(2)).classifier.out_features == 2
    for labels in (0, 2.0, "2"):
        assert_raises("num_labels must be", load_model, tiny_encoder, labels)


def test_adapter_without_a_head_needs_a_base_that_has_one(tiny_encoder, opinions, tmp_path):
    base, adapter = str(tmp_path / "base"), str(tmp_path / "adapter")
    model = load_model(tiny_encoder, 2)
    model.save_pretrained(base)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"])).save_pretrained(adapter)
    with pytest.warns(LabWarning, match=r"neither the adapter .* has the head 'classifier', so it is random"):
        load_adapter(load_model(tiny_encoder, 2), adapter)
    with pytest.raises(BadValue, match=r"neither the adapter .* has a head, so scores are random: train"):
        evaluate_adapter(adapter, opinions, model=tiny_encoder, dtype="fp32", attention="eager", device="cpu")
    with warnings.catch_warnings(action="error", category=LabWarning):
        load_adapter(load_model(base, 2), adapter)


def test_unknown_model_is_refused_and_the_hub_used_only_with_download(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for load in (load_model, load_tokenizer):
        for name in ("minilmm", "no/such-model", "../nowhere", ""):
            assert_raises(r"pass a bundled one|contains no model", load, name, error=NotFound)
    for cls, load in ((transformers.AutoConfig, load_model), (transformers.AutoTokenizer, load_tokenizer)):
        for download, error, match in ((False, NotFound, "with download allowed"), (True, Failed, "the hub could not")):
            monkeypatch.setattr(cls, "from_pretrained", asked := Mock(side_effect=OSError("no network")))
            assert_raises(match, load, "someone/model", download=download, error=error)
            asked.assert_called_once_with("someone/model", local_files_only=not download, trust_remote_code=False)


def test_damaged_config_and_weights_are_refused(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    config, weights = folder / "config.json", folder / "model.safetensors"
    intact = config.read_bytes()
    for content in (b"{", b"[]", b"\xff", b'{"model_type": "no-such-model"}', b"{}"):
        config.write_bytes(content)
        assert_raises("cannot be loaded", load_model, str(folder), 2, error=LabError)
    config.write_bytes(intact)
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_raises("cannot be loaded", load_model, str(folder), 2, error=LabError)
    weights.unlink()  # pickled weights are never loaded
    assert_raises("cannot be loaded", load_model, str(folder), 2, error=LabError)


def test_tokenizer_must_exist_and_fit_its_model(tiny_encoder, opinions, tmp_path):
    for file in Path(tiny_encoder).glob("[cm]*"):  # without the tokenizer
        shutil.copy(file, tmp_path)
    assert_raises("has no tokenizer", train, str(tmp_path), opinions, steps=1, store=None)
    save_tokenizer(tmp_path)
    assert_raises("no padding token", load_tokenizer, str(tmp_path))
    tokenizer = load_tokenizer(tiny_encoder)
    tokenizer.add_tokens(["qzx"])
    tokenizer.save_pretrained(tmp_path)
    (rare := tmp_path / "rare.csv").write_text("text,label,split\na,0,train\nb,1,train\nc,0,validation\nqzx,1,test")
    for size, task in ((200, opinions), (len(tokenizer) - 1, rare)):  # in `rare`, only a test row is unknown
        make_model("BertModel", vocab_size=size).save_pretrained(tmp_path)
        assert_raises(f"knows only {size} tokens", train, str(tmp_path), str(task), steps=1, store=None)


def test_causal_classifier_skips_the_padding_of_its_tokenizer(tmp_path):
    save_tokenizer(tmp_path, eos_token="<end>", unk_token="<unk>")
    model = make_model("LlamaForCausalLM", vocab_size=300, pad_token_id=1, eos_token_id=0)
    model.save_pretrained(tmp_path)
    tokenizer, model = load_tokenizer(str(tmp_path)), load_model(str(tmp_path), num_labels=2)
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    short, both = (tokenizer(texts, padding=True, return_tensors="pt") for texts in (["no"], ["no", "a longer one"]))
    with torch.no_grad():
        torch.testing.assert_close(model(**both).logits[:1], model(**short).logits, atol=1e-6, rtol=1e-5)


def test_checkpoint_may_lack_only_its_whole_head(tmp_path):
    make_model("BertModel").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(load_model(str(tmp_path))) is transformers.BertModel
    body = {key: tensor.clone() for key, tensor in load_file(tmp_path / "model.safetensors").items()}
    query = "encoder.layer.0.attention.self.query.weight"
    without_query = {key: tensor for key, tensor in body.items() if key != query}
    with_part_of_head = {f"bert.{key}": tensor for key, tensor in body.items()}
    with_part_of_head["cls.predictions.transform.dense.bias"] = torch.zeros(BERT["hidden_size"])
    cases = (with_part_of_head, None, "cls"), (without_query, None, ""), (without_query, 2, query)
    for tensors, labels, name in cases:
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        assert_raises(rf"lacks .* weights .*{name}.* which would be random", load_model, str(tmp_path), labels)


@pytest.mark.parametrize("kind", ["DebertaV2Model", "BertModel"])
def test_pooler_that_a_checkpoint_lacks_is_trained_and_saved_with_the_head(kind, tmp_path):
    make_model(kind, pooler_hidden_size=32).save_pretrained(tmp_path)
    tensors = load_file(file := tmp_path / "model.safetensors")
    save_file({key: t for key, t in tensors.items() if "pooler" not in key}, file, {"format": "pt"})
    model, counted = load_model(str(tmp_path), 2), params(load_model(str(tmp_path), 2), LoRA(2))
    report = LoRA(2).attach(model)
    assert (counted.trainable, counted.head) == (report.adapter_parameters, report.head_parameters)
    randomise(model)
    folder, again = save_adapter(model, tmp_path / "adapter"), load_model(str(tmp_path), 2)
    load_adapter(again, folder)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    for other in (again, peft.PeftModel.from_pretrained(plain, str(folder)).eval()):
        torch.testing.assert_close(logits(other), logits(model))
    assert inspect_adapter(folder).head == 1122


HEADS = {"EuroBertModel": "dense,classifier", "ModernBertModel": "head,classifier", "XLMModel": "sequence_summary"}


@pytest.mark.parametrize(("kind", "heads"), HEADS.items())
def test_every_layer_outside_the_base_model_that_a_checkpoint_lacks_is_trained_as_a_head(kind, heads, tmp_path):
    make_model(kind, pad_token_id=0).save_pretrained(tmp_path)
    report = LoRA(2, targets="all-linear").attach(load_model(str(tmp_path), 2))
    assert ",".join(path for path, _ in report.heads) == heads


def test_head_of_another_size_outside_the_base_model_is_replaced(tmp_path):
    make_model("XLMModel", pad_token_id=0).save_pretrained(tmp_path / "base")
    load_model(str(tmp_path / "base"), 3).save_pretrained(tmp_path / "three")
    with pytest.warns(LabWarning, match="a head with 3 classes"):
        assert load_model(str(tmp_path / "three"), 2).sequence_summary.summary.out_features == 2


def test_config_may_name_no_architecture(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": None}))
    assert type(load_model(str(folder))).__name__ == "BertModel"


def test_code_in_a_checkpoint_is_not_run(tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asks whether to run it"))
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert_raises("cannot be loaded", load_model, str(folder), 2, error=LabError)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("method", "attention", "dtype"),
    [
        (Probe(), "eager", torch.float32),
        (PrefixTuning(tokens=5), "eager", torch.float32),
        (PromptTuning(tokens=5), "sdpa", torch.float32),
        (LoRA(4), "eager", torch.bfloat16),
        (LoRA(4, targets="all-linear"), "eager", torch.float32),
        (LoRA(4, targets="k,o"), "sdpa", torch.float32),
    ],
)
def test_shortcuts_keep_outputs_and_gradients(method, attention, dtype):
    model = tiny("roberta").to(dtype)
    model.set_attn_implementation(attention)
    method.attach(model)
    randomise(model)
    short, lengths, queries = copy.deepcopy(model), [], []
    take_shortcuts(short, method)
    for layer in short.roberta.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, inputs, output: lengths.append(output.shape[1]))
        layer.attention.self.register_forward_hook(lambda module, inputs, output: queries.append(output[1]))
    assert short.config._attn_implementation == (SHORT_ROWS if attention == "eager" else attention)
    close = {"atol": 1e-5, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    outputs = [logits(model), logits(short)]
    torch.testing.assert_close(*outputs, **close)
    assert lengths[-1] == (9 if isinstance(method, Probe) else 1)
    assert attention == "sdpa" or queries[-1].shape[2] == lengths[-1]
    for output in outputs:
        output.square().sum().backward()
    for a, b in zip(model.parameters(), short.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, **close)


@pytest.mark.parametrize("name", ["LlamaForSequenceClassification", "BertForMaskedLM"])
def test_other_models_are_unchanged(name):
    model = make_model(name)
    model.set_attn_implementation("eager")
    take_shortcuts(model, LoRA())
    assert model.config._attn_implementation == "eager"
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_models_can_be_loaded_in_several_threads(tiny_encoder):  # transformers changes the state of the whole process
    def dtypes(n: int) -> set[torch.dtype]:
        return {p.dtype for p in load_model(tiny_encoder, 2, dtype=("bf16", "fp32")[n % 2]).parameters()}

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(dtypes, range(16))) == [{torch.bfloat16}, {torch.float32}] * 8
    assert torch.get_default_dtype() == torch.float32
