import copy
import json
import os
import shutil
import struct
import time
import warnings
from collections import OrderedDict
from tempfile import TemporaryDirectory

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from lora_lab import FullFineTuning, LoRA, load_adapter, merge, save_adapter, unmerge
from lora_lab.adapter_layer import out_by_in
from lora_lab.errors import BadValue, LabError, LabWarning
from lora_lab.methods.inspect import inspect_adapter
from lora_lab.methods.io import CONFIG, MOST, OLD_WEIGHTS, WEIGHTS, AdapterFile, attach_from, parse_json
from lora_lab.methods.peft import Refused, patterns_from_a_file
from tests.conftest import BERT, assert_raises, logits, lora_layers, make_model, mapped, snapshot, tiny, with_adapter
from tests.methods.conftest import edit_config, edit_tensors, peft_lora, peft_model, replace_header, save_peft
from tests.methods.test_every_method import METHODS

LORA = LoRA(rank=4, alpha=8)


@pytest.mark.parametrize(("saved", "loaded"), [("float32", "bfloat16"), ("float16", "float32")])
def test_adapter_loads_on_its_base_in_another_dtype(saved, loaded, tmp_path):
    model, other = (tiny("roberta").to(getattr(torch, dtype)) for dtype in (saved, loaded))
    load_adapter(other, save_adapter(with_adapter(model, LORA), tmp_path))
    before, after = ([p for p in m.parameters() if p.requires_grad] for m in (model, other))
    assert {p.dtype for p in after} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


HEADS = {
    "identity": nn.Identity(),
    "batch norm": nn.Sequential(nn.BatchNorm1d(32), nn.Linear(32, 3)),
    "norm without weights": nn.Sequential(nn.LayerNorm(32, elementwise_affine=False), nn.Linear(32, 3)),
    "tuple": nn.RNN(32, 3),
}


@pytest.mark.parametrize("head", HEADS)
def test_head_of_any_kind_trains_and_is_saved(head, tmp_path):
    model = nn.Sequential(OrderedDict(q_proj=nn.Linear(8, 32), score=copy.deepcopy(HEADS[head]))).bfloat16()
    other, x = copy.deepcopy(model), torch.randn(4, 8, dtype=torch.bfloat16)
    with_adapter(model, LoRA(rank=2, targets="q"))
    model.train()(x)
    load_adapter(other, save_adapter(model, tmp_path))
    torch.testing.assert_close(other.eval()(x), model.eval()(x))


@settings(max_examples=20)
@given(
    alpha=st.one_of(st.floats(1e-30, 1e30), st.integers(1, 100)),
    rank=st.sampled_from([1, 3, 7]),
    kind=st.sampled_from(["roberta", "gpt2"]),
    rslora=st.booleans(),
)
def test_config_holds_the_scaling_of_any_alpha(alpha, rank, kind, rslora):
    model = tiny(kind)
    report = LoRA(rank=rank, alpha=alpha, rslora=rslora).attach(model)
    with TemporaryDirectory() as folder:
        config = json.loads((save_adapter(model, folder) / CONFIG).read_text())
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if rslora else config["r"])
    assert scaling == pytest.approx(report.placements[0].scaling, rel=1e-8, abs=0)
    assert config["alpha_pattern"] == {}
    if kind == "roberta" and isinstance(alpha, int):
        assert isinstance(config["lora_alpha"], int)


def test_save_is_refused_and_writes_nothing(tmp_path):
    model, folder = with_adapter("roberta", LORA), tmp_path / "adapter"
    merge(model)
    assert_raises(r"merged into its base.*unmerge\(model\) first", save_adapter, model, folder)
    assert_raises("has no adapter", save_adapter, tiny("llama"), folder)
    assert not folder.exists()
    unmerge(model)
    save_adapter(model, folder)
    assert_raises(r"cannot write into .*config", save_adapter, model, folder / CONFIG / "adapter")


@pytest.mark.parametrize(("name", "kind"), [("lora", "llama"), ("bitfit", "gpt2")])
def test_save_refuses_what_could_not_be_loaded_and_keeps_the_earlier_file(name, kind, tmp_path):
    model = with_adapter(kind, METHODS[name])
    trained, frozen = (next(p for p in model.parameters() if p.requires_grad is trains) for trains in (True, False))
    before = (save_adapter(model, tmp_path) / WEIGHTS).read_bytes()
    frozen.requires_grad_(True)
    with pytest.raises(BadValue, match=rf"^(model\.embed_tokens|transformer\.wte)\.weight is trainable, but {name}"):
        save_adapter(model, tmp_path)
    frozen.requires_grad_(False)
    trained.data[0] = torch.nan
    assert_raises("NaN or infinite values, so nothing was saved", save_adapter, model, tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == before


def test_file_of_full_fine_tuning_holds_frozen_weights_and_statistics(tmp_path):
    model, other = with_adapter("llama", FullFineTuning()), tiny("llama")
    model.model.embed_tokens.requires_grad_(False)
    load_adapter(other, save_adapter(model, tmp_path))
    assert torch.equal(logits(other), logits(model))
    norm, x = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), torch.randn(9, 4)
    loaded = copy.deepcopy(norm).eval()
    with_adapter(norm, FullFineTuning())(x)  # in training mode
    load_adapter(loaded, save_adapter(norm, tmp_path))
    assert torch.equal(loaded(x), norm.eval()(x))


def write(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def damage_head(folder) -> None:
    edit_config(modules_to_save=None)(folder)
    edit_tensors(lambda tensors: tensors.pop("base_model.model.classifier.dense.bias"))(folder)


QUERY = "base_model.model.roberta.encoder.layer.0.attention.self.query.lora_A.weight"
BROKEN = {  # edits of PEFT's file
    "missing tensor": (edit_tensors(lambda t: t.pop(QUERY)), r"lacks 1 of 12 tensors, such as .*query\.lora_A"),
    "unexpected tensor": (edit_tensors(lambda t: t | {"extra": torch.ones(2)}), "1 unexpected tensors"),
    "wrong shape": (edit_tensors(lambda t: t | {QUERY: torch.ones(4, 31)}), r"\(4, 31\).*needs \(4, 32\)"),
    "NaN": (edit_tensors(lambda t: t | {QUERY: t[QUERY] * torch.nan}), "NaN or infinite values"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"not an adapter: it has no {WEIGHTS}"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), f"not an adapter: it has no {CONFIG}"),
    "not UTF-8": (write(CONFIG, b"\xff\xfe\x00{"), "not readable as JSON"),
    "empty config": (write(CONFIG, b"{}"), "peft_type is None"),
    "large config": (write(CONFIG, b" " * 2**20), "larger than 512 KiB"),
    "trained embedding": (edit_config(modules_to_save=["wte"]), r"modules_to_save=\['wte'\]"),
    "PiSSA": (edit_config(init_lora_weights="pissa_niter_4"), "changes the base weight too: merge the adapter"),
    "unknown kind": (edit_config(peft_type="XLORA"), "peft_type is 'XLORA'; only .*LORA"),
    "half a head": (damage_head, "lacks 1 of 12"),
    "no rank": (edit_config(r=None), "has no 'r'"),
    "huge rank": (edit_config(r=10**17), "rank must be at most"),
    "no targets": (edit_config(target_modules=None), "target_modules is empty"),
    "pattern is a number": (edit_config(rank_pattern=5), "config of the adapter in .* is damaged"),
    "invalid pattern": (edit_config(rank_pattern={"(": 4}), "is not a pattern: missing"),
}
LATER = json.dumps({"method": {**LORA.settings(), "gone": 1}})
BROKEN_OURS = {  # edits of our file
    "header is not JSON": (replace_header("{"), "part of the header .* is not readable as JSON"),
    "option of another version": (replace_header(LATER), f"{WEIGHTS} does not fit this version .*no option 'gone'"),
    "trained biases": (edit_config(bias="all"), "trained with bias='all'"),
    "method is a number": (replace_header('{"method": 5}'), "config of the adapter in .* is damaged"),
    "config contradicts header": (edit_config(r=3), "says r=3, but the adapter was saved with 4"),
}
REFUSED = [
    pytest.param(writer, *case, id=f"{writer}: {name}")
    for writer, cases in (("peft", BROKEN), ("ours", BROKEN_OURS))
    for name, case in cases.items()
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folders = {writer: tmp_path_factory.mktemp(writer) for writer in ("ours", "peft")}
    save_adapter(with_adapter("roberta", LORA), folders["ours"])
    save_peft(peft_model(tiny("roberta"), peft_lora("roberta", ["query", "value"])), folders["peft"])
    for folder in folders.values():  # without an edit, both load
        load_adapter(tiny("roberta"), folder)
    return folders


@pytest.mark.parametrize(("writer", "edit", "match"), REFUSED)
def test_broken_file_is_refused(saved, writer, edit, match, tmp_path):
    folder = shutil.copytree(saved[writer], tmp_path / "copy")
    edit(folder)
    model = tiny("roberta")
    assert_raises(match, load_adapter, model, folder, error=LabError, unchanged=model)


def test_warning_about_an_unknown_option_that_is_on(saved, tmp_path):
    folder = shutil.copytree(saved["peft"], tmp_path / "copy")
    edit_config(use_newest=False, newest_config={})(folder)
    with warnings.catch_warnings(action="error"):
        load_adapter(tiny("roberta"), folder)
    edit_config(use_newest=True)(folder)
    with pytest.warns(LabWarning, match="sets use_newest, which lora_lab does not know") as caught:
        load_adapter(tiny("roberta"), folder)
    assert {warning.filename for warning in caught} == {__file__}


def test_model_that_does_not_fit_is_refused(saved):
    other_weights, other_classes = tiny("roberta"), tiny("roberta")
    other_weights.roberta.encoder.layer[1].output.dense.weight.data.mul_(1.1)
    other_classes.classifier.out_proj = nn.Linear(32, 5)
    for model, folder, match in (
        (other_weights, saved["ours"], "trained on another base model"),
        (tiny("gpt2"), saved["peft"], "match no layer of this model"),
        (other_classes, saved["ours"], r"out_proj\.\w+ has shape \(3.*needs \(5"),
        (with_adapter("roberta", LORA), saved["ours"], "already has an adapter"),
    ):
        assert_raises(match, load_adapter, model, folder, error=LabError, unchanged=model)


def roberta(labels: int) -> nn.Module:
    """Return a model with the base of the tiny RoBERTa and a new head."""
    config = tiny("roberta").config
    config.num_labels = labels
    torch.manual_seed(5)
    model = transformers.RobertaForSequenceClassification(config).eval()
    model.roberta.load_state_dict(tiny("roberta").roberta.state_dict())
    return model


PATTERNS = LoRA(rank=4, rank_pattern={"v": 2}, alpha_pattern={"*.0.*.query": 3})
ATTACHED = [PATTERNS, *map(METHODS.get, ("pissa, freeze_a", "ptuning", "bitfit", "vera", "full"))]


@pytest.mark.parametrize("method", ATTACHED, ids=lambda method: method.name)
def test_attach_from_loads_the_adapter_and_keeps_the_head(method, tmp_path):
    first, second = with_adapter(roberta(3), method), roberta(2)
    expected = {name: p.clone() for name, p in second.classifier.named_parameters()}
    attach_from(method, second, save_adapter(first, tmp_path))
    head = getattr(second.classifier, "trained", second.classifier)
    assert all(torch.equal(p, expected[name]) for name, p in head.named_parameters())
    assert all(p.requires_grad for p in head.parameters())
    for model in (first, second):  # apart from the head, the models are equal
        model.classifier = nn.Identity()
    torch.testing.assert_close(logits(second), logits(first))


def test_attach_from_refuses_another_method(saved):
    wrong_rank, folder = LoRA(rank=8, alpha=8), saved["ours"]
    pissa = LoRA(rank=4, alpha=8, init="pissa")
    assert_raises("has init 'kaiming', but this run has 'pissa'", attach_from, pissa, roberta(2), folder)
    assert_raises("has rank 4, but this run has 8", attach_from, wrong_rank, roberta(2), folder)
    assert_raises("has name 'lora', but this run has 'full'", attach_from, FullFineTuning(), roberta(2), folder)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write_adapter(folder, content: str | dict | bytes, data: bytes = b"\0" * 8):
    """Write an empty config, and a weights file: either a header followed by data, or the given bytes."""
    (folder / CONFIG).write_text("{}")
    if not isinstance(content, bytes):
        header = (content if isinstance(content, str) else json.dumps(content)).encode()
        content = struct.pack("<Q", len(header)) + header + data
    (folder / WEIGHTS).write_bytes(content)
    return folder


def test_header_whose_length_looks_like_a_pickle_is_read_and_no_file_is_mapped(tmp_path):
    for length in (0x280, 0x10280):  # in the file, it starts with 0x80 like a pickle
        file = AdapterFile(write_adapter(tmp_path, json.dumps({"a": ENTRY}).ljust(length)))
        assert file["a"].tolist() == [0, 0]
        assert not mapped(tmp_path / WEIGHTS)  # reading a truncated map kills the process


HOSTILE = {
    "no tensors": ({}, "empty file"),
    "offset beyond the end": ({"a": {**ENTRY, "shape": [2**40], "data_offsets": [0, 2**42]}}, "truncated file"),
    "overlap": ({"a": ENTRY, "b": ENTRY}, "damaged file"),
    "deep JSON": ('{"a":' * 100_000, "damaged file"),
    "huge header": ({"__metadata__": {"a": "x" * 2 * MOST}, "a": ENTRY}, "damaged file"),
    "no bytes": (b"", "empty file"),
    "three bytes": (b"\x08\0\0", "truncated file"),
    "length of 2^63": (struct.pack("<Q", 2**63) + b"{", "damaged file"),
    "pickle": (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00.", "a pickle"),
    "zip": (b"PK\x03\x04" + b"\0" * 99, "a pickle"),
}


@pytest.mark.parametrize(("content", "fault"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_header_is_refused(content, fault, tmp_path):
    with pytest.raises(Refused, match=WEIGHTS) as caught:
        AdapterFile(write_adapter(tmp_path, content, data=b"" if content == {} else b"\0" * 8))
    assert caught.value.fault == fault


def test_nan_and_infinity_are_refused_anywhere(tmp_path):
    for value, index in ((torch.nan, 300_000), (-torch.inf, 599_999)):
        tensor = torch.zeros(600_000)
        tensor[index] = value
        save_file({"a": tensor}, write_adapter(tmp_path, b"") / WEIGHTS)
        assert_raises("a has NaN or infinite values", AdapterFile(tmp_path).check_finite, error=Refused)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda p: os.symlink(p, p), lambda p: os.symlink("/dev/zero", p)]
)
def test_special_file_is_not_read(make, name, tmp_path):
    path = write_adapter(tmp_path, {"a": ENTRY}) / name
    path.unlink()
    make(path)
    assert_raises("cannot be read", AdapterFile, tmp_path)


def test_hostile_json_is_refused():
    assert_raises("not JSON compliant", parse_json, '{"r": NaN}', "it")
    assert_raises("limit .* for integer string conversion", parse_json, '{"r": ' + "9" * 5000 + "}", "it")
    assert_raises("recursion", parse_json, '{"r": ' * 100_000, "it")
    assert_raises("surrogates", parse_json, '{"a": "\\ud800"}', "it")
    assert_raises("holds list, not a JSON object", parse_json, "[]", "it")


def test_dangerous_patterns_are_refused_and_slow_ones_share_a_time_limit():
    for pattern in ("((a{999}){999}){999}", "(?R)", "a{e<=5}", "(", "x" * 9999, 5):
        assert_raises("is not a pattern", patterns_from_a_file(), pattern, "a")
    fullmatch, start = patterns_from_a_file(seconds=0.1), time.process_time()
    for _ in range(20):
        assert_raises("takes too long", fullmatch, "(a|a)*[bc]", "a" * 99)
    assert time.process_time() - start < 1


def test_dropout_is_no_effect_of_an_adapter(tmp_path):
    model, base = tiny("roberta"), tiny("roberta").train()
    LoRA(rank=2).attach(model)
    assert not inspect_adapter(save_adapter(model, tmp_path), base).does_something
    assert base.training


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_norms_are_exact_and_the_model_is_unchanged(dtype, tmp_path):
    model = tiny("llama").requires_grad_(False)
    before = snapshot(model)
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}}
    config = peft_lora("llama", ["q_proj", "v_proj"], use_rslora=True, **patterns)
    save_peft(peft_model(tiny("llama"), config).to(dtype), tmp_path)
    found = inspect_adapter(tmp_path, model)
    assert found.problems == []
    assert snapshot(model) == before
    load_adapter(model, tmp_path)
    for norm, layer in zip(found.norms, lora_layers(model), strict=True):
        assert norm.update == pytest.approx(layer.delta_weight().norm().item(), rel=1e-5)
        assert norm.weight == pytest.approx(out_by_in(layer).norm().item(), rel=1e-5)
        assert norm.rank == layer.rank
        assert norm.scaling == pytest.approx(layer.scaling)


def rename(old: str, new: str):
    return edit_tensors(lambda tensors: {key.replace(old, new, 1): value for key, value in tensors.items()})


EXTRA = {"base_model.model.roberta.pooler.dense.weight": torch.ones(2)}
FAULTY = {  # other faults are tested in tests/course/checks/test_checks.py
    "a pickle": (lambda f: (f / WEIGHTS).rename(f / OLD_WEIGHTS).write_bytes(b"\x80\x04" + bytes(9**5)), "a pickle"),
    "keys of a model in memory": (rename(".weight", ".default.weight"), "keys renamed"),
    "no prefix": (rename("base_model.model.", ""), "keys renamed"),
    "an extra model.": (rename("model.roberta", "model.model.roberta"), "keys renamed"),
    "an extra tensor": (edit_tensors(lambda tensors: tensors | EXTRA), "extra tensors"),
    "integers": (edit_tensors(lambda t: {k: v.int() for k, v in t.items()}), "not floating-point"),
    "targets of another model": (edit_config(target_modules=["q_proj"]), "wrong base"),
    "B without A": (edit_tensors(lambda t: {k: v for k, v in t.items() if "lora_A" not in k}), "tensors missing"),
    "a rank that is none": (edit_config(r=True), "damaged settings"),
    "another kind": (edit_config(peft_type="ADALORA"), "not supported"),
    "another start": (edit_config(init_lora_weights="pissa"), "not supported"),
    "other trained modules": (edit_config(modules_to_save=["embed_tokens"]), "not supported"),
    "tiny numbers in fp16": (edit_tensors(lambda t: {k: (v * 1e-6).half() for k, v in t.items()}), "update too small"),
}


@pytest.mark.parametrize(("edit", "fault"), FAULTY.values(), ids=FAULTY)
def test_fault_is_named(edit, fault, saved, tmp_path):
    folder = shutil.copytree(saved["peft"], tmp_path / "adapter")
    edit(folder)
    (problem,) = json.loads(json.dumps(inspect_adapter(folder, tiny("roberta")).to_json(), allow_nan=False))["problems"]
    assert list(problem) == ["name", "where", "why", "remedy"]
    assert problem["name"] == fault
    assert all(problem.values())
    assert fault not in ("tensors missing", "damaged settings") or inspect_adapter(folder).problems[0].name == fault


def test_base_with_a_state_or_images_is_inspected_and_one_that_reads_no_tokens_is_refused(tmp_path):
    """RWKV changes its state in place, and Gemma 3 also reads images."""
    text = {**BERT, "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 8}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 16, "patch_size": 8}
    gemma = {"text_config": text, "vision_config": vision, "mm_tokens_per_image": 1, "image_token_id": 95}
    for name, size, targets in (
        ("RwkvForCausalLM", {**BERT, "num_hidden_layers": 2}, "receptance"),
        ("Gemma3ForConditionalGeneration", gemma, "*.q_proj"),  # also of the layers for images
    ):
        model, other = (make_model(name, size) for _ in range(2))
        folder = save_adapter(with_adapter(model, LoRA(rank=2, targets=targets)), tmp_path)
        assert inspect_adapter(folder, other).problems == []
        assert_raises("already has an adapter", inspect_adapter, folder, model, unchanged=model)
    next(module for name, module in other.named_modules() if name.endswith("language_model.layers.1")).forward = (
        lambda hidden, *_, **__: hidden
    )
    assert [problem.name for problem in inspect_adapter(folder, other).problems] == ["layer never used"]
    for base in (make_model("ViTModel", image_size=8, patch_size=4), nn.Sequential(nn.Linear(4, 4))):
        match = "doesn't read tokens: inspect the adapter without a base"
        assert_raises(match, inspect_adapter, folder, base, unchanged=base)
