"""Merged checkpoints: plain transformers reads them, they agree, and nothing is overwritten or left behind."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from lora_lab import FullFineTuning, LoRA, load_adapter, save_adapter
from lora_lab.errors import BadValue, Failed
from lora_lab.methods.attach import is_adapted
from lora_lab.methods.inspect import answer_of
from lora_lab.training import named
from lora_lab.training.assets import asset_path
from lora_lab.training.models import load_model
from lora_lab.training.named import MARKER, inspect_folder, write_merged
from tests.conftest import BERT, logits, randomise, tiny

AUTO = {
    "bert": transformers.AutoModelForSequenceClassification,
    "roberta": transformers.AutoModelForSequenceClassification,
    "gpt2": transformers.AutoModelForCausalLM,
    "llama": transformers.AutoModelForCausalLM,
}
CASES = [
    ("roberta", LoRA(rank=4, targets=("word_embeddings", "q"))),
    ("roberta", FullFineTuning()),
    ("gpt2", LoRA(rank=4, targets=("wte", "c_attn"))),  # the tied head keeps its own numbers
    ("llama", LoRA(rank=4, targets=("embed", "lm_head", "q"))),
]


def saved(folder: Path, kind: str, method) -> tuple[str, str]:
    """A tiny base and an adapter for it, each in a folder."""
    base, adapter = folder / "base", folder / "adapter"
    tiny(kind).save_pretrained(base)
    model = load_model(str(base), 3 if AUTO[kind] is AUTO["bert"] else None)
    method.attach(model)
    randomise(model)
    save_adapter(model, adapter)
    return str(base), str(adapter)


def beside(base: str, adapter: str, kind: str) -> torch.Tensor:
    model = load_model(base, 3 if AUTO[kind] is AUTO["bert"] else None)
    load_adapter(model, adapter)
    return logits(model)


@pytest.mark.parametrize(("kind", "method"), CASES, ids=lambda value: value if isinstance(value, str) else value.name)
def test_plain_transformers_reads_what_was_written_and_agrees(kind, method, tmp_path):
    base, adapter = saved(tmp_path, kind, method)
    written = write_merged(adapter, tmp_path / "out", base=base)
    with torch.no_grad():
        plain, info = AUTO[kind].from_pretrained(tmp_path / "out", output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert not is_adapted(plain)
        torch.testing.assert_close(logits(plain), beside(base, adapter, kind), rtol=1e-4, atol=1e-4)
    assert written.loads_as == AUTO[kind].__name__
    assert written.difference < 1e-5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "base", "out"]  # no scratch is left


@torch.no_grad()
def test_the_head_of_another_language_model_is_in_the_checkpoint(tmp_path, silent):
    torch.manual_seed(0)
    cls = transformers.BertForMaskedLM
    cls(transformers.BertConfig(**BERT)).eval().save_pretrained(tmp_path / "base")
    model = load_model(str(tmp_path / "base"))
    assert type(model) is cls
    LoRA(rank=2, targets="q,v").attach(model)
    randomise(model)
    save_adapter(model, tmp_path / "adapter")
    written = write_merged(tmp_path / "adapter", tmp_path / "out", base=str(tmp_path / "base"))
    assert written.loads_as == "AutoModelForMaskedLM"
    plain, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    base = cls.from_pretrained(tmp_path / "base").state_dict()
    changed = {name for name, value in plain.state_dict().items() if not torch.equal(value, base[name])}
    assert base.keys() == plain.state_dict().keys()
    assert changed == {f"{site.module}.weight" for site in (p.site for p in model.lora_lab_report.placements)}
    torch.testing.assert_close(answer_of(plain), answer_of(model), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_adapter_of_the_body_alone_is_merged_into_the_body(tmp_path, silent, monkeypatch):
    torch.manual_seed(0)
    whole = transformers.BertForMaskedLM(transformers.BertConfig(**BERT))
    whole.bert = transformers.BertModel(whole.config)  # with a pooler, as BERT's own checkpoint has
    whole.save_pretrained(tmp_path / "base")
    model = transformers.BertModel.from_pretrained(tmp_path / "base").eval()
    LoRA(rank=2, targets="q,v").attach(model)
    randomise(model)
    save_adapter(model, tmp_path / "adapter")
    base = str(tmp_path / "base")
    with pytest.raises(BadValue, match="body=True"):
        load_adapter(load_model(base), tmp_path / "adapter")
    load_adapter(load_model(base, body=True), tmp_path / "adapter")
    masked = transformers.AutoModelForMaskedLM
    with monkeypatch.context() as patch:  # the model that is not needed is not loaded
        patch.setattr(masked, "from_pretrained", lambda *_, **__: pytest.fail("two models at once"))
        written = write_merged(tmp_path / "adapter", tmp_path / "out", base=base)
    assert written.loads_as == "AutoModel"
    assert inspect_folder(tmp_path / "adapter", base).does_something
    plain = transformers.AutoModel.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(answer_of(plain), answer_of(model), rtol=1e-4, atol=1e-4)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text()) | {"task_type": "TOKEN_CLS"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(BadValue, match="is for TOKEN_CLS"):
        write_merged(tmp_path / "adapter", tmp_path / "other", base=base)


def test_the_adapter_of_a_4_bit_base_is_merged_into_the_numbers_that_it_has_met(tmp_path):
    base, adapter = saved(tmp_path, "gpt2", LoRA(rank=4))
    written = write_merged(adapter, tmp_path / "met", base=base, dtype="nf4")
    assert len(written.report.dequantised) == 8
    assert written.report.added_bytes > 0
    assert written.dtype == "fp32"
    model = load_model(base, dtype="nf4")
    load_adapter(model, adapter)
    plain, own = AUTO["gpt2"].from_pretrained(tmp_path / "met"), beside(base, adapter, "gpt2")
    torch.testing.assert_close(logits(plain), logits(model), rtol=1e-4, atol=1e-4)
    assert (logits(plain) - own).abs().max() > 1e-3  # quantising has moved the numbers, and that stays


def test_the_tokenizer_comes_along_and_the_base_is_the_one_that_the_adapter_names(loaded, tmp_path, silent):
    model = loaded("minilm", 2)
    LoRA(rank=2).attach(model)
    randomise(model)
    save_adapter(model, tmp_path / "adapter")
    written = write_merged(tmp_path / "adapter", tmp_path / "out")
    assert written.tokenizer
    assert written.base == "minilm"
    words = "An adapter is worth its megabytes."
    ours, own = (transformers.AutoTokenizer.from_pretrained(f) for f in (tmp_path / "out", asset_path("minilm")))
    assert ours(words).input_ids == own(words).input_ids
    again = load_model(str(tmp_path / "out"), 2)  # it is a base like any other
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-4, atol=1e-4)


# ---- the folder


def test_an_earlier_result_is_replaced_and_names_its_files_but_not_where_it_is_the_base(tmp_path):
    base, adapter = saved(tmp_path, "bert", LoRA(rank=4))
    for dtype in ("bf16", "fp32"):
        written = write_merged(adapter, tmp_path / "out", base=base, dtype=dtype)
        assert (written.report.rounding > 1e-3) == (written.difference > 1e-5) == (dtype == "bf16")
        marker = json.loads((tmp_path / "out" / MARKER).read_text())
        assert marker["dtype"] == dtype
        assert set(marker["files"]) == {p.name for p in (tmp_path / "out").iterdir()}
    model = load_model(str(tmp_path / "out"), 3)
    LoRA(rank=2).attach(model)
    save_adapter(model, tmp_path / "second")
    with pytest.raises(BadValue, match="is an input of the merge"):
        write_merged(tmp_path / "second", tmp_path / "out")


def test_what_is_not_ours_is_never_written_over(tmp_path):
    base, adapter = saved(tmp_path, "bert", LoRA(rank=4))
    write_merged(adapter, tmp_path / "out", base=base)
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for taken in ("out", "file", "base", "adapter"):
        with pytest.raises(BadValue, match=r"choose another folder"):
            write_merged(adapter, tmp_path / taken, base=base)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_checkpoint_that_answers_otherwise_is_not_kept(tmp_path, monkeypatch):
    base, adapter = saved(tmp_path, "llama", LoRA(rank=4))

    def spoiled(model, folder, *rest):
        model.lm_head.weight.data += 1
        model.save_pretrained(folder)
        model.lm_head.weight.data -= 1
        return False

    monkeypatch.setattr(named, "_save", spoiled)
    with pytest.raises(Failed, match="answers differently in plain transformers"):
        write_merged(adapter, tmp_path / "out", base=base)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "base"]
