"""Adapter files: what is saved comes back, and what does not fit is refused with the model left as it was."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lora_lab import (
    IA3,
    BitFit,
    Bottleneck,
    FullFineTuning,
    LoRA,
    LoRAXS,
    PrefixTuning,
    PromptTuning,
    PTuning,
    TinyLoRA,
    VeRA,
    detach,
    load_adapter,
    merge,
    save_adapter,
    unmerge,
)
from lora_lab.errors import BadValue, LabError, LabWarning, NotFound
from lora_lab.methods import faults
from lora_lab.methods.attach import fingerprint
from lora_lab.methods.io import (
    CONFIG,
    DEPTH,
    MOST,
    WEIGHTS,
    TensorFile,
    attach_from,
    parse_json,
    plain_file,
    read_config,
)
from lora_lab.methods.peft import patterns_from_a_file
from tests.conftest import logits, randomise, snapshot, tiny

ROBERTA = LoRA(rank=4, alpha=8, dropout=0.1, init="gaussian", rank_pattern={"v": 2})


def adapted(kind: str, method: LoRA = ROBERTA) -> nn.Module:
    model = tiny(kind)
    method.attach(model)
    randomise(model)
    return model


# ---- there and back


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("roberta", ROBERTA),
        ("gpt2", LoRA(rank=3, rslora=True)),
        ("phi3", LoRA(rank=4, targets=("q", "down", "gate"))),
        ("llama", LoRA(rank=4, targets=("embed", "all-linear"))),
    ],
)
def test_what_was_saved_comes_back(kind, method, tmp_path):
    model, again = adapted(kind, method), tiny(kind)
    assert save_adapter(model, tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    report = load_adapter(again, tmp_path / "new" / "folder")
    assert report.method == method
    assert torch.equal(logits(again), logits(model))
    assert snapshot(again) == snapshot(model)


def test_torch_is_told_which_random_numbers_to_keep(tmp_path, monkeypatch):
    save_adapter(adapted("roberta"), tmp_path)
    asked, fork = [], torch.random.fork_rng

    def older(devices, *, device_type="cuda"):  # torch 2.6 takes no None here
        asked.append((list(devices), device_type))
        return fork(devices, device_type=device_type)

    monkeypatch.setattr(torch.random, "fork_rng", older)
    load_adapter(tiny("roberta"), tmp_path)
    assert asked
    assert all(devices == [] and device_type == "cuda" for devices, device_type in asked)


def test_a_head_travels_with_its_adapter_and_detaching_leaves_it_behind(tmp_path):
    model, again = adapted("roberta"), tiny("roberta")
    save_adapter(model, tmp_path)
    load_adapter(again, tmp_path)
    assert torch.equal(again.classifier.trained.dense.weight, model.classifier.trained.dense.weight)
    detach(again)
    assert torch.equal(logits(again), logits(tiny("roberta")))


def test_an_adapter_of_an_fp32_base_loads_on_the_same_base_in_bf16(tmp_path):
    model, again = adapted("roberta"), tiny("roberta").bfloat16()
    save_adapter(model, tmp_path)
    load_adapter(again, tmp_path)
    assert {p.dtype for p in again.parameters() if p.requires_grad} == {torch.float32}
    torch.testing.assert_close(logits(again), logits(model), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_adapter_of_an_fp16_base_loads_on_the_same_base_in_any_dtype(dtype, tmp_path):
    model, again = tiny("roberta").half(), tiny("roberta").to(dtype)
    ROBERTA.attach(model)
    load_adapter(again, save_adapter(model, tmp_path))
    load_adapter(tiny("roberta").half(), save_adapter(again, tmp_path / "again"))


def test_saving_again_replaces_the_old_adapter(tmp_path):
    save_adapter(adapted("roberta", LoRA(rank=2, targets=("o",))), tmp_path)
    save_adapter(adapted("roberta"), tmp_path)
    assert load_adapter(tiny("roberta"), tmp_path).method == ROBERTA
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


@pytest.fixture
def replacing(monkeypatch) -> Callable[[int, bool], list[int]]:
    """`os.replace` that fails at its call of this number, and from then on if it says so, as when a machine stops."""
    replace = os.replace

    def failing(call: int, ever_after: bool) -> list[int]:
        calls: list[int] = []

        def moved(source: Path, target: Path) -> None:
            calls.append(len(calls) + 1)
            if len(calls) == call or (ever_after and len(calls) > call):
                raise OSError(5, "the machine stops")
            replace(source, target)

        monkeypatch.setattr(os, "replace", moved)
        return calls

    return failing


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_saving_that_fails_leaves_the_old_adapter(call, replacing, tmp_path):
    old = LoRA(rank=2, targets=("o",))
    save_adapter(adapted("roberta", old), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = replacing(call, False)
    try:
        save_adapter(adapted("roberta"), tmp_path)
    except BadValue:
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    else:
        assert len(calls) < call  # there were no more moves than that


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_saving_that_is_cut_off_never_leaves_weights_of_one_adapter_beside_the_config_of_another(
    call, replacing, tmp_path
):
    old = LoRA(rank=2, targets=("o",))
    save_adapter(adapted("roberta", old), tmp_path)
    replacing(call, True)
    with suppress(BadValue):
        save_adapter(adapted("roberta"), tmp_path)
    again = tiny("roberta")
    try:
        method = load_adapter(again, tmp_path).method
    except NotFound:
        return  # none is there
    assert method in (old, ROBERTA)
    assert torch.equal(logits(again), logits(adapted("roberta", method)))


@pytest.mark.parametrize("call", [1, 2])
def test_saving_that_fails_in_an_empty_folder_leaves_it_empty(call, replacing, tmp_path):
    replacing(call, False)
    with pytest.raises(BadValue, match="the machine stops"):
        save_adapter(adapted("roberta"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_file_is_in_pefts_layout(tmp_path):
    save_adapter(adapted("roberta"), tmp_path)
    tensors, config = load_file(tmp_path / WEIGHTS), json.loads((tmp_path / CONFIG).read_text())
    layer = "base_model.model.roberta.encoder.layer.1.attention.self"
    assert tensors[f"{layer}.query.lora_A.weight"].shape == (4, 32)
    assert tensors[f"{layer}.value.lora_B.weight"].shape == (32, 2)
    assert tensors["base_model.model.classifier.out_proj.weight"].shape == (3, 32)
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8, "LORA")
    assert sorted(config["target_modules"]) == ["query", "value"]
    assert config["modules_to_save"] == ["classifier", "score"]
    assert not set(config) - {f.name for f in peft.LoraConfig.__dataclass_fields__.values()}  # PEFT knows every field


@settings(max_examples=20, deadline=None)
@given(
    st.one_of(st.floats(1e-30, 1e30), st.integers(1, 100)),
    st.sampled_from([1, 3, 7]),
    st.sampled_from(["roberta", "gpt2"]),
    st.booleans(),
)
def test_the_config_says_the_scaling_of_every_alpha(alpha, rank, kind, rslora):
    model, method = tiny(kind), LoRA(rank=rank, alpha=alpha, rslora=rslora)
    report = method.attach(model)
    with TemporaryDirectory() as folder:
        config = json.loads((save_adapter(model, folder) / CONFIG).read_text())
    said = config["lora_alpha"] / (config["r"] ** 0.5 if rslora else config["r"])
    assert said == pytest.approx(report.placements[0].scaling, rel=1e-8, abs=0)
    assert config["alpha_pattern"] == {}
    if kind == "roberta" and isinstance(alpha, int):
        assert isinstance(config["lora_alpha"], int)


def test_a_sliced_adapter_is_written_as_blocks_with_zeros_for_k(tmp_path):
    save_adapter(adapted("gpt2", LoRA(rank=3)), tmp_path)
    tensors, config = load_file(tmp_path / WEIGHTS), json.loads((tmp_path / CONFIG).read_text())
    b = tensors["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"]  # (3 x 32, 2 x 3)
    assert b.shape == (96, 6)
    assert b[32:64].abs().max() == b[:32, 3:].abs().max() == b[64:, :3].abs().max() == 0
    assert b[:32, :3].abs().min() > 0
    assert b[64:, 3:].abs().min() > 0
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (6, 32, True)


# ---- saving is refused


def test_a_merged_adapter_is_not_saved_until_it_is_unmerged(tmp_path):
    model = adapted("roberta")
    merge(model)
    with pytest.raises(BadValue, match=r"merged into its base.*unmerge\(model\) first"):
        save_adapter(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    unmerge(model)
    save_adapter(model, tmp_path / "out")


def test_a_model_without_an_adapter_is_not_saved(tmp_path):
    with pytest.raises(BadValue, match="carries no adapter"):
        save_adapter(tiny("llama"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadValue, match=r"cannot write into .*file"):
        save_adapter(adapted("roberta"), tmp_path / "file" / "adapter")


# ---- the fingerprint of a base


def test_the_fingerprint_belongs_to_the_base_whatever_sits_on_it():
    model, plain = adapted("llama", LoRA(rank=4, targets=("q", "embed"))), tiny("llama")
    assert fingerprint(model) == fingerprint(plain) == fingerprint(plain.bfloat16())
    assert fingerprint(adapted("roberta")) == fingerprint(tiny("roberta"))


def test_another_base_has_another_fingerprint():
    model = tiny("llama")
    model.model.layers[1].mlp.down_proj.weight.data.mul_(1.1)
    assert len({fingerprint(m) for m in (model, tiny("llama"), tiny("phi3"), tiny("gpt2"))}) == 4


def test_smollm2_has_one_fingerprint_in_fp32_and_bf16(loaded):
    assert fingerprint(loaded("smollm2")) == fingerprint(loaded("smollm2", None, "bf16"))


# ---- loading is refused


def tensors_with(change: Callable[[dict], object]) -> Callable[[Path], object]:
    """An edit of the tensors in an adapter's folder, which keeps the header."""

    def edit(folder: Path) -> None:
        with safe_open(folder / WEIGHTS, "pt") as file:
            header = file.metadata()
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, header)

    return edit


def config_with(**options: object) -> Callable[[Path], object]:
    """An edit of the config; None takes an option out."""

    def edit(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text()) | options
        (folder / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return edit


def header_with(value: str) -> Callable[[Path], object]:
    return lambda folder: save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, {"format": "pt", "lora_lab": value})


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def truncate(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


QUERY = "base_model.model.roberta.encoder.layer.0.attention.self.query.lora_A.weight"

BROKEN = {
    "a missing tensor": (tensors_with(lambda t: t.pop(QUERY)), r"lacks 1 of 12 tensors, first .*query\.lora_A"),
    "a missing head": (tensors_with(lambda t: t.pop("base_model.model.classifier.dense.bias")), "lacks 1 of 12"),
    "an unexpected tensor": (tensors_with(lambda t: t.update(extra=torch.ones(2))), "1 tensors that fit nothing"),
    "a wrong shape": (tensors_with(lambda t: t.update({QUERY: torch.ones(4, 31)})), r"\(4, 31\).*needs \(4, 32\)"),
    "a transposed tensor": (tensors_with(lambda t: t.update({QUERY: torch.ones(32, 4)})), r"needs \(4, 32\)"),
    "not a number": (tensors_with(lambda t: t[QUERY].fill_(torch.nan)), "NaN or infinite values"),
    "infinity": (tensors_with(lambda t: t[QUERY][0].fill_(torch.inf)), "NaN or infinite values"),
    "whole numbers": (tensors_with(lambda t: t.update({QUERY: torch.ones(4, 32).int()})), "has dtype I32"),
    "a truncated file": (truncate, "truncated or not a safetensors file"),
    "a pickle renamed": (write(WEIGHTS, pickle.dumps({"lora_A": [1.0]})), "truncated or not a safetensors file"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"not an adapter: it holds no {WEIGHTS}"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), f"not an adapter: it holds no {CONFIG}"),
    "a config that is not JSON": (write(CONFIG, b"r: 8"), "not readable as JSON"),
    "a config in no encoding": (write(CONFIG, b"\xff\xfe\x00{"), "not readable as JSON"),
    "a config that is a list": (write(CONFIG, b"[]"), "holds list, not a JSON object"),
    "an empty config": (write(CONFIG, b"{}"), "peft_type is None"),
    "DoRA without its lengths": (
        config_with(use_dora=True),
        r"lacks 4 of 16 tensors|says use_dora=True, but the adapter",
    ),
    "trained biases": (config_with(bias="all"), "trained with bias='all'"),
    "PiSSA": (config_with(init_lora_weights="pissa_niter_4"), "changes the base weight too"),
    "LoRA-GA": (config_with(init_lora_weights="lora_ga"), "changes the base weight too"),
    "KaSA": (config_with(kasa_config={"beta": 1e-4}), "trained with kasa_config"),
    "VeLoRA": (config_with(velora_config={"num_groups": 4}), "trained with velora_config"),
    "another kind of adapter": (config_with(peft_type="XLORA"), "peft_type is 'XLORA'; only .*LORA"),
}
# Only in a file of PEFT's: ours says these things in its header too.
BROKEN_PEFT = {
    "half a head that the config leaves out": (
        lambda folder: (
            config_with(modules_to_save=None)(folder),
            tensors_with(lambda t: t.pop("base_model.model.classifier.dense.bias"))(folder),
        ),
        "lacks 1 of 12",
    ),
    "no rank": (config_with(r=None), "has no 'r'"),
    "no alpha": (config_with(lora_alpha=None), "has no 'lora_alpha'"),
    "a rank of 0": (config_with(r=0), "rank must be"),
    "a rank that no tensor can have": (config_with(r=10**17), "rank must be at most"),
    "a rank in words": (config_with(r="eight"), "rank must be"),
    "another rank": (config_with(r=3), r"has shape \(4, 32\), this model needs \(3, 32\)"),
    "dropout above 1": (config_with(lora_dropout=1.5), "dropout must be"),
    "no targets": (config_with(target_modules=None), "target_modules is empty"),
    "targets that match nothing": (config_with(target_modules=["c_attn"]), "match no layer of this model"),
    "targets of which one matches nothing": (config_with(target_modules=["query"]), "tensors that fit nothing"),
    "a number for targets": (config_with(target_modules=5), "config of the adapter in .* is damaged"),
    "a broken regular expression": (config_with(target_modules="(query"), "is no pattern: missing"),
    "a broken pattern": (config_with(rank_pattern={"(": 4}), "is no pattern: missing"),
    "a list for a pattern": (config_with(alpha_pattern=[4]), "config of the adapter in .* is damaged"),
}
BROKEN_OURS = {
    "a header that is not JSON": (header_with("{"), "part of the header .* is not readable as JSON"),
    "a header that is a list": (header_with("[]"), "part of the header .* holds list"),
    "an unknown method": (header_with('{"method": {"name": "lroa"}}'), "unknown method 'lroa'"),
    "an unknown option": (header_with('{"method": {"name": "lora", "rnak": 1}}'), "no option 'rnak'"),
    "a method that is none": (header_with('{"method": 5}'), "config of the adapter in .* is damaged"),
    "a rank that only the config changes": (config_with(r=3), "says r=3, but the adapter was saved with 4"),
    "an alpha that only the config changes": (config_with(lora_alpha=99), "says lora_alpha=99"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """An adapter of the tiny RoBERTa as we write it, and one as PEFT does."""
    ours, theirs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    save_adapter(adapted("roberta", LoRA(rank=4, alpha=8, targets=("q", "v"))), ours)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value"])
    peft.get_peft_model(tiny("roberta"), config).save_pretrained(theirs)
    return {"ours": ours, "theirs": theirs}


def assert_refused(model: nn.Module, folder: Path, reason: str) -> None:
    before = snapshot(model)
    with pytest.raises(LabError, match=reason) as caught:
        load_adapter(model, folder)
    assert "\n" not in str(caught.value)
    assert snapshot(model) == before


def copy_of(folder: Path, target: Path) -> Path:
    for file in (CONFIG, WEIGHTS):
        (target / file).write_bytes((folder / file).read_bytes())
    return target


@pytest.mark.parametrize(
    ("whose", "edit", "reason"),
    [
        pytest.param(whose, *case, id=f"{whose}: {name}")
        for cases, owners in ((BROKEN, ("ours", "theirs")), (BROKEN_PEFT, ("theirs",)), (BROKEN_OURS, ("ours",)))
        for name, case in cases.items()
        for whose in owners
    ],
)
def test_a_broken_file_is_refused_with_the_reason_and_the_model_left_as_it_was(files, whose, edit, reason, tmp_path):
    folder = copy_of(files[whose], tmp_path)
    edit(folder)
    assert_refused(tiny("roberta"), folder, reason)


def test_the_unbroken_files_load(files):
    for folder in files.values():
        load_adapter(tiny("roberta"), folder)


def test_an_option_that_is_not_known_here_is_said_and_one_that_is_off_is_not(files, tmp_path):
    folder = copy_of(files["theirs"], tmp_path)
    config_with(use_newest=False, newest_config={})(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(tiny("roberta"), folder)
    config_with(use_newest=True)(folder)
    with pytest.warns(LabWarning, match="sets use_newest, which lora_lab does not know"):
        load_adapter(tiny("roberta"), folder)


def test_a_pickle_is_never_opened(files, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    folder = copy_of(files["ours"], tmp_path)
    (folder / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    assert_refused(tiny("roberta"), folder, "not a safetensors file")
    assert not (tmp_path / "sprung").exists()


def test_an_adapter_of_another_base_of_the_same_shape_is_refused(files):
    other = tiny("roberta")
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    assert_refused(other, files["ours"], "trained on another base model")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_adapter_of_another_architecture_is_refused(files, kind):
    assert_refused(tiny(kind), files["ours"], "trained on another base model")
    assert_refused(tiny(kind), files["theirs"], "match no layer of this model")


def test_a_head_of_another_number_of_classes_is_refused(files):
    model = tiny("roberta")
    model.classifier.out_proj = nn.Linear(32, 5)
    assert_refused(model, files["ours"], r"out_proj\.\w+ has shape \(3.*needs \(5")


def test_a_model_that_cannot_be_copied_is_called_so(files):
    model = tiny("roberta")
    model.lock = Lock()
    assert_refused(model, files["ours"], r"this RobertaForSequenceClassification cannot be copied \(TypeError: .*lock")


@pytest.mark.parametrize("error", [TypeError, AttributeError, RuntimeError, LookupError])
@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_mistake_in_our_own_code_is_not_blamed_on_the_file(files, whose, error, monkeypatch):
    def mistaken(*_, **__):
        raise error("a mistake of ours")

    monkeypatch.setattr(LoRA, "place", mistaken)
    before, model = snapshot(tiny("roberta")), tiny("roberta")
    with pytest.raises(error, match=r"^'?a mistake of ours'?$"):
        load_adapter(model, files[whose])
    assert snapshot(model) == before


def test_an_adapter_does_not_load_on_top_of_another(files):
    assert_refused(adapted("roberta"), files["ours"], "carries an adapter already")


def test_a_folder_that_is_not_there_is_no_adapter(tmp_path):
    assert_refused(tiny("roberta"), tmp_path / "nowhere", "nowhere is not an adapter")


# ---- starting from an adapter


def roberta(labels: int) -> nn.Module:
    """One base, and a head of so many classes."""
    config = tiny("roberta").config
    config.num_labels = labels
    torch.manual_seed(5)
    model = transformers.RobertaForSequenceClassification(config).eval()
    model.roberta.load_state_dict(tiny("roberta").roberta.state_dict())
    return model


@pytest.fixture
def mnli(tmp_path):
    """The folder of an adapter with three classes."""
    model = roberta(3)
    LoRA(rank=4, alpha=8).attach(model)
    randomise(model)
    return save_adapter(model, tmp_path / "mnli"), model


@pytest.mark.parametrize("labels", [2, 1])
def test_the_numbers_are_the_adapters_and_the_head_is_the_models(mnli, labels):
    folder, first = mnli
    model = roberta(labels)
    own = {name: p.clone() for name, p in model.classifier.named_parameters()}
    attach_from(LoRA(rank=4, alpha=8, dropout=0.1), model, folder)
    theirs = {name: p for name, p in first.named_parameters() if "lora_" in name}
    ours = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    head = dict(model.classifier.trained.named_parameters())
    assert all(torch.equal(head[name], own[name]) for name in own)
    assert all(p.requires_grad for p in (*ours.values(), *head.values()))


def test_with_the_head_beside_it_the_model_answers_as_the_loaded_one(mnli):
    folder, _ = mnli
    warm, loaded = roberta(3), roberta(3)
    attach_from(LoRA(rank=4, alpha=8), warm, folder)
    load_adapter(loaded, folder)
    warm.classifier.trained.load_state_dict(loaded.classifier.trained.state_dict())
    assert torch.equal(logits(warm), logits(loaded))


def test_a_whole_model_is_begun_from_too(tmp_path):
    first, second = roberta(3), roberta(2)
    FullFineTuning().attach(first)
    randomise(first)
    save_adapter(first, tmp_path)
    head = second.classifier.out_proj.weight.clone()
    attach_from(FullFineTuning(), second, tmp_path)
    assert torch.equal(
        second.roberta.embeddings.word_embeddings.weight, first.roberta.embeddings.word_embeddings.weight
    )
    assert torch.equal(second.classifier.out_proj.weight, head)


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (LoRA(rank=8, alpha=8), "has rank 4 and this run 8"),
        (LoRA(rank=4, alpha=16), "has alpha 8 and this run 16"),
        (LoRA(rank=4, alpha=8, targets="q"), "has targets"),
        (FullFineTuning(), "has name 'lora' and this run 'full'"),
    ],
)
def test_another_method_is_refused(mnli, method, sentence):
    with pytest.raises(BadValue, match=sentence):
        attach_from(method, roberta(2), mnli[0])


def test_what_does_not_fit_leaves_the_model_as_it_was(mnli):
    folder, _ = mnli
    tensors_with(lambda t: t.pop(QUERY))(folder)
    model = roberta(2)
    before = snapshot(model)
    with pytest.raises(BadValue, match="lacks 1 of"):
        attach_from(LoRA(rank=4, alpha=8), model, folder)
    assert snapshot(model) == before


def test_another_base_is_refused(mnli):
    model = roberta(2)
    model.roberta.embeddings.word_embeddings.weight.data += 1
    with pytest.raises(BadValue, match="trained on another base model"):
        attach_from(LoRA(rank=4, alpha=8), model, mnli[0])
    with pytest.raises(NotFound):
        attach_from(LoRA(rank=4, alpha=8), roberta(2), "/nowhere")


@pytest.mark.parametrize("labels", [3, 2])
@pytest.mark.parametrize(
    "method",
    [
        PromptTuning(tokens=3),
        PTuning(tokens=3),
        PrefixTuning(tokens=3),
        IA3(),
        BitFit(),
        Bottleneck(size=4),
        VeRA(rank=4),
        LoRAXS(rank=4),
        TinyLoRA(u=4),
    ],
    ids=lambda method: method.name,
)
def test_every_method_leaves_the_head_behind(method, labels, tmp_path):
    first, second = roberta(3), roberta(labels)
    method.attach(first)
    randomise(first)
    save_adapter(first, tmp_path)
    own = {name: p.clone() for name, p in second.classifier.named_parameters()}
    attach_from(method, second, tmp_path)
    head = dict(second.classifier.trained.named_parameters())
    assert all(torch.equal(head[name], own[name]) for name in own)
    first.classifier.trained = second.classifier.trained  # with one head, the two models answer alike
    torch.testing.assert_close(logits(second), logits(first))


# ---- files from strangers

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(folder: Path, header: str | dict, numbers: bytes = b"\0" * 8) -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + numbers)
    return folder


NAMES = st.from_regex(r"[a-z_.0-9]{1,20}", fullmatch=True)
DTYPES = st.sampled_from(["float32", "float16", "bfloat16", "float64"])


@given(st.dictionaries(NAMES, st.tuples(st.lists(st.integers(1, 5), max_size=3), DTYPES), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_what_safetensors_writes_is_read(tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("sound")
    tensors = {name: torch.randn(shape).to(getattr(torch, dtype)) for name, (shape, dtype) in wanted.items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    file = TensorFile(folder)
    file.check_finite()
    assert file.metadata == {"format": "pt"}
    assert file.keys() == tensors.keys()
    assert all(file[name].dtype == tensor.dtype and torch.equal(file[name], tensor) for name, tensor in tensors.items())
    assert file.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 0x280 + 2**16])
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(tmp_path, length):
    header = json.dumps({"a": ENTRY}).ljust(length)
    assert struct.pack("<Q", length)[:1] == b"\x80"
    assert TensorFile(written(tmp_path, header))["a"].tolist() == [0, 0]


HEADERS = {
    "no tensors": ({}, b"", faults.EMPTY),
    "a huge shape": ({"a": {**ENTRY, "shape": [2**40, 2**40]}}, None, faults.DAMAGED),
    "a huge place": ({"a": {**ENTRY, "shape": [2**40], "data_offsets": [0, 2**42]}}, None, faults.TRUNCATED),
    "too few bytes": ({"a": ENTRY}, b"\0" * 7, faults.TRUNCATED),
    "nothing in it": ({"a": {**ENTRY, "shape": [0], "data_offsets": [0, 0]}}, b"", faults.DAMAGED),
    "nothing, but wide": ({"a": {**ENTRY, "shape": [0, 2**62], "data_offsets": [0, 0]}}, b"", faults.DAMAGED),
    "an unknown dtype": ({"a": {**ENTRY, "dtype": "Q4"}}, None, faults.DAMAGED),
    "an overlap": ({"a": ENTRY, "b": ENTRY}, None, faults.DAMAGED),
    "a gap": ({"a": {**ENTRY, "data_offsets": [8, 16]}}, b"\0" * 16, faults.DAMAGED),
    "a control character": ({"a\x1b[2J": ENTRY}, None, faults.DAMAGED),
    "a long name": ({"a" * 9999: ENTRY}, None, faults.DAMAGED),
    "deep JSON": ('{"a":' * 100_000, None, faults.DAMAGED),
    "a huge header": ('{"a": "' + "x" * 2 * MOST + '"}', None, faults.DAMAGED),
}


@pytest.mark.parametrize(("header", "numbers", "fault"), HEADERS.values(), ids=HEADERS)
def test_a_hostile_header_is_refused_with_the_reason(header, numbers, fault, tmp_path):
    with pytest.raises(faults.Refused, match=WEIGHTS) as caught:
        TensorFile(written(tmp_path, header, b"\0" * 8 if numbers is None else numbers))
    assert caught.value.fault == fault
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", faults.EMPTY),
        (b"\x08\0\0", faults.TRUNCATED),
        (struct.pack("<Q", 5000) + b"{", faults.TRUNCATED),
        (struct.pack("<Q", 2**63) + b"{", faults.DAMAGED),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00.", faults.PICKLE),
        (b"PK\x03\x04" + b"\0" * 99, faults.PICKLE),
        (b"not at all a file of tensors", faults.DAMAGED),
    ],
)
def test_what_is_no_safetensors_file_is_named(content, fault, tmp_path):
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(faults.Refused) as caught:
        TensorFile(tmp_path)
    assert caught.value.fault == fault


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 300_000, 599_999])
def test_nan_and_infinity_are_found_wherever_they_are(value, place, tmp_path):
    numbers = torch.zeros(600_000)
    numbers[place] = value
    save_file({"a": numbers}, tmp_path / WEIGHTS)
    with pytest.raises(faults.Refused, match="a has NaN or infinite values"):
        TensorFile(tmp_path).check_finite()


@pytest.mark.parametrize("change", [lambda p: os.truncate(p, 5000), lambda p: os.replace(p.with_name("new"), p)])
def test_a_file_that_changes_while_it_is_read_is_refused(change, tmp_path):
    for name, value in ((WEIGHTS, 0.0), ("new", 1.0)):
        save_file({"a": torch.full((100_000,), value), "b": torch.full((100_000,), value)}, tmp_path / name)
    file = TensorFile(tmp_path)
    assert not file["a"].any()
    change(tmp_path / WEIGHTS)
    with pytest.raises(faults.Refused, match="changed while it was read"):
        file["b"]


def test_links_inside_and_to_the_hubs_blobs_are_followed_and_no_others(tmp_path):
    hub = tmp_path / "models--x"
    snapshot, blobs = hub / "snapshots" / "abc", hub / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "f00").write_text("{}")
    (snapshot / CONFIG).symlink_to("../../blobs/f00")
    (snapshot / "other.json").symlink_to(CONFIG)
    assert read_config(snapshot) == read_config(snapshot, "other.json") == {}
    (tmp_path / "secret.json").write_text("{}")
    (snapshot / "out.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(faults.Refused) as caught:
        read_config(snapshot, "out.json")
    assert caught.value.fault == faults.OUTSIDE


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda p: os.symlink(p, p), lambda p: os.symlink("/dev/zero", p)]
)
def test_a_pipe_a_folder_a_circle_and_a_device_are_not_read(make, tmp_path):
    make(tmp_path / WEIGHTS)
    with pytest.raises(BadValue, match=r"not a plain file|cannot be read"):
        plain_file(tmp_path, WEIGHTS)


def test_a_name_with_a_zero_byte_and_one_that_is_not_there(tmp_path):
    with pytest.raises(LabError, match="cannot be read"):
        plain_file(tmp_path, "a\0b")
    with pytest.raises(NotFound, match="holds no other"):
        plain_file(tmp_path, "other")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"r": 8, "r": 4}', "a name occurs twice"),
        ('{"r": NaN}', "not JSON compliant"),
        ('{"r": -Infinity}', "not JSON compliant"),
        ('{"r": 1e999}', "not JSON compliant"),
        ('{"r": ' + "9" * 5000 + "}", "not JSON compliant"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), "nested deeper"),
        ('{"r": ' * 100_000, "recursion"),
        ('{"a": [' + "1," * 9999 + "1]}", "more than 4,096 entries"),
        ('{"a": "\\ud800"}', "surrogates"),
        ("", "Expecting value"),
    ],
)
def test_json_that_would_break_something_later_is_refused_now(text, reason):
    with pytest.raises(BadValue, match=reason):
        parse_json(text, "it")


def test_a_config_of_a_megabyte_is_not_read(tmp_path):
    (tmp_path / CONFIG).write_text("{}" + " " * 2**20)
    with pytest.raises(BadValue, match="larger than 512 KiB"):
        read_config(tmp_path)


@given(
    st.sampled_from([r".*\.(q|v)", r"(.*\.)?(h\.\d+\.attn)", ".*q", r"h\.[01]\..*", "^(?!.*1).*v$", r"h\.\d{1,2}\.q"]),
    st.sampled_from(["h.0.q", "h.1.v", "h.0.attn", "x.h.12.q", "q"]),
)
def test_a_pattern_means_what_it_means_to_python(pattern, name):
    assert (patterns_from_a_file()(pattern, name) is None) == (re.fullmatch(pattern, name) is None)


def test_patterns_share_one_limit_of_time():
    fullmatch, start = patterns_from_a_file(seconds=0.2), time.process_time()
    for _ in range(2):
        with pytest.raises(BadValue, match="takes too long"):
            fullmatch("(a|a)*[bc]", "a" * 99)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("pattern", ["((a{999}){999}){999}", "(?R)", "a{e<=5}", "(", "x" * 9999, "(?<=a)b", 5, None])
def test_a_pattern_that_could_take_the_machine_is_none(pattern):
    with pytest.raises(BadValue, match="is no pattern"):
        patterns_from_a_file()(pattern, "a")
