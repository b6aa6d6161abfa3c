import json
from unittest.mock import Mock

import pytest
import torch
import transformers
from safetensors import SafetensorError

from lora_lab import FullFineTuning, LoRA, evaluate_adapter, load_adapter, load_model, save_adapter, train
from lora_lab.errors import Failed
from lora_lab.methods.attach import is_adapted
from lora_lab.methods.inspect import answer_of
from lora_lab.training.assets import asset_path
from lora_lab.training.models import load_tokenizer
from lora_lab.training.named import MARKER, inspect_folder, write_merged
from tests.conftest import BART, TWO_LAYERS, assert_raises, logits, make_model, save_tokenizer, tiny, with_adapter
from tests.methods.conftest import edit_tensors

CLASSIFIER, CAUSAL = transformers.AutoModelForSequenceClassification, transformers.AutoModelForCausalLM
AUTO = {"bert": CLASSIFIER, "roberta": CLASSIFIER, "gpt2": CAUSAL, "llama": CAUSAL}
XLNET = {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64}
AUTO["masked"] = transformers.AutoModelForMaskedLM


def saved(folder, kind: str, method) -> tuple[str, str]:
    base, adapter = folder / "base", folder / "adapter"
    (make_model("BertForMaskedLM") if kind == "masked" else tiny(kind)).save_pretrained(base)
    save_adapter(with_adapter(load_model(str(base), 3 if AUTO[kind] is CLASSIFIER else None), method), adapter)
    return str(base), str(adapter)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("roberta", LoRA(rank=4, targets=("word_embeddings", "q"))),
        ("roberta", FullFineTuning()),
        ("gpt2", LoRA(rank=4, targets=("wte", "c_attn"))),  # the tied head keeps the base's weights
        ("llama", LoRA(rank=4, targets=("embed", "lm_head", "q"))),
        ("masked", LoRA(rank=4, targets=("q", "v"))),  # keeps its head
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_merged_checkpoint_loads_in_plain_transformers(kind, method, tmp_path):
    base, adapter = saved(tmp_path, kind, method)
    result = write_merged(adapter, tmp_path / "out", base=base)
    plain, info = AUTO[kind].from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not is_adapted(plain)
    model = load_model(base, 3 if AUTO[kind] is CLASSIFIER else None)
    load_adapter(model, adapter)
    torch.testing.assert_close(logits(plain), logits(model), rtol=1e-4, atol=1e-4)
    assert result["loads_as"] == AUTO[kind].__name__
    assert result["difference"] < 1e-5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "base", "out"]  # no scratch folder is left


@torch.no_grad()
def test_adapter_of_a_body_merges_into_the_body(tmp_path, monkeypatch):
    masked = make_model("BertForMaskedLM")
    masked.bert = transformers.BertModel(masked.config)  # with a pooler, as in BERT's own checkpoint
    masked.save_pretrained(tmp_path / "base")
    base, adapter = str(tmp_path / "base"), tmp_path / "adapter"
    model = transformers.BertModel.from_pretrained(base).eval()
    save_adapter(with_adapter(model, LoRA(rank=2, targets="q,v")), adapter)
    assert_raises("body=True", load_adapter, load_model(base), adapter)
    load_adapter(load_model(base, body=True), adapter)
    with monkeypatch.context() as patch:  # the masked model must not be loaded as well
        patch.setattr(transformers.AutoModelForMaskedLM, "from_pretrained", lambda *_, **__: pytest.fail("two models"))
        result = write_merged(adapter, tmp_path / "out", base=base)
    assert result["loads_as"] == "AutoModel"
    assert inspect_folder(adapter, base).does_something
    plain = transformers.AutoModel.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(answer_of(plain), answer_of(model), rtol=1e-4, atol=1e-4)
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"task_type": "TOKEN_CLS"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert_raises("is for TOKEN_CLS", write_merged, adapter, tmp_path / "other", base=base)


@torch.no_grad()
def test_adapter_of_a_4_bit_base_merges_into_dequantized_weights(tmp_path):
    base, adapter = saved(tmp_path, "gpt2", LoRA(rank=4))
    result = write_merged(adapter, tmp_path / "out", base=base, dtype="nf4")
    assert len(result["merged"]["dequantized"]) == 8
    assert result["merged"]["added_bytes"] > 0
    assert result["dtype"] == "fp32"
    quantized, unquantized = load_model(base, dtype="nf4"), load_model(base)
    for model in (quantized, unquantized):
        load_adapter(model, adapter)
    plain = CAUSAL.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(plain), logits(quantized), rtol=1e-4, atol=1e-4)
    assert (logits(plain) - logits(unquantized)).abs().max() > 1e-3


def test_base_and_tokenizer_are_found_from_the_adapter(tmp_path):
    model = load_model("minilm", 2)
    save_adapter(with_adapter(model, LoRA(rank=2)), tmp_path / "adapter")
    result = write_merged(tmp_path / "adapter", tmp_path / "out")
    assert result["tokenizer"]
    assert result["base"] == "minilm"
    text = "An adapter is worth its megabytes."
    ids = [transformers.AutoTokenizer.from_pretrained(f)(text) for f in (tmp_path / "out", asset_path("minilm"))]
    assert ids[0].input_ids == ids[1].input_ids
    merged = load_model(str(tmp_path / "out"), 2)  # it can be used as a base
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-4, atol=1e-4)


def test_merged_classifier_names_the_classes_of_its_run(recipe, tmp_path):
    for kind, size in {"BertForSequenceClassification": TWO_LAYERS, "XLNetLMHeadModel": XLNET}.items():
        vocab_size = save_tokenizer(base := tmp_path / kind, eos_token="<end>")
        make_model(kind, size, vocab_size=vocab_size, id2label={0: "good", 1: "bad"}).save_pretrained(base)
        run = train(recipe(model=str(base), method=LoRA(targets="all-linear"), steps=1), store=tmp_path / "runs")
        assert evaluate_adapter(run.adapter, attention="eager", device="cpu") == pytest.approx(run.metrics)
        write_merged(run.adapter, tmp_path / "out")
        config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
        assert (config.id2label, config.label2id) == ({0: "bad", 1: "good"}, {"bad": 0, "good": 1})


def test_merged_bart_keeps_two_classes(tmp_path):
    """Its default is three, and transformers does not write the names of two."""
    make_model("BartForConditionalGeneration", BART, vocab_size=96).save_pretrained(base := tmp_path / "base")
    adapter = save_adapter(with_adapter(load_model(base, 2), LoRA(rank=2)), tmp_path / "adapter")
    write_merged(adapter, tmp_path / "out", base=str(base))
    assert CLASSIFIER.from_pretrained(tmp_path / "out").config.num_labels == 2


@torch.no_grad()
def test_causal_classifier_ignores_the_padding_of_its_tokenizer(tmp_path):
    vocab_size = save_tokenizer(base := tmp_path / "base", eos_token="<end>", pad_token="<pad>")
    options = {"vocab_size": vocab_size, "eos_token_id": 0, "pad_token_id": None}  # as in Qwen2.5
    make_model("LlamaForCausalLM", **options).save_pretrained(base)
    model, tokenizer = load_model(base, 2), load_tokenizer(base)
    write_merged(save_adapter(with_adapter(model, LoRA(rank=2)), tmp_path / "adapter"), tmp_path / "out")
    batch, alone = (tokenizer(texts, padding=True, return_tensors="pt") for texts in (["no", "longer"], ["no"]))
    for classifier in (model, CLASSIFIER.from_pretrained(tmp_path / "out")):
        torch.testing.assert_close(classifier(**batch).logits[:1], classifier(**alone).logits)


def test_merged_folder_is_replaced_but_no_input_and_no_other_file(tmp_path):
    base, adapter = saved(tmp_path, "bert", LoRA(rank=4))
    for dtype in ("bf16", "fp32"):
        result = write_merged(adapter, tmp_path / "out", base=base, dtype=dtype)
        assert (result["merged"]["rounding"] > 1e-3) == (result["difference"] > 1e-5) == (dtype == "bf16")
        marker = json.loads((tmp_path / "out" / MARKER).read_text())
        assert marker["dtype"] == dtype
        assert set(marker["files"]) == {p.name for p in (tmp_path / "out").iterdir()}
    save_adapter(with_adapter(load_model(str(tmp_path / "out"), 3), LoRA(rank=2)), tmp_path / "second")
    assert_raises("is an input of the merge", write_merged, tmp_path / "second", tmp_path / "out")
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for taken in ("out", "file", "base", "adapter"):
        assert_raises(r"choose another folder", write_merged, adapter, tmp_path / taken, base=base)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_head_without_classes_is_refused(tmp_path):
    base, adapter = saved(tmp_path, "bert", LoRA(rank=2))
    key = "base_model.model.classifier.weight"
    edit_tensors(lambda tensors: tensors | {key: torch.tensor(1.0)})(tmp_path / "adapter")
    assert_raises(r"classifier.weight has shape \(\)", write_merged, adapter, tmp_path / "out", base=base)


def test_checkpoint_with_different_outputs_is_not_kept(tmp_path, monkeypatch):
    base, adapter = saved(tmp_path, "llama", LoRA(rank=4))
    save = transformers.PreTrainedModel.save_pretrained

    def save_wrong_head(model, folder):
        model.lm_head.weight.data += 1
        save(model, folder)
        model.lm_head.weight.data -= 1

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", save_wrong_head)
    with pytest.raises(Failed, match="in plain transformers, its logits are off"):
        write_merged(adapter, tmp_path / "out", base=base)
    full = Mock(side_effect=SafetensorError("No space left on device"))
    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
    assert_raises("No space left on device; free disk space", write_merged, adapter, tmp_path / "out", base=base)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "base"]


def test_merged_checkpoint_keeps_the_dtype_of_its_base(tmp_path):
    base, adapter = saved(tmp_path, "llama", LoRA(rank=2))
    tiny("llama").bfloat16().save_pretrained(base)
    assert write_merged(adapter, tmp_path / "out", base=base)["dtype"] == "bf16"
