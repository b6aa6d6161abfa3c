"""Adapter files: what is written comes back, and what does not fit is refused with the model left as it was."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lora_lab import LoRA, detach, load_adapter, merge, save_adapter, unmerge
from lora_lab.errors import BadValue, LabError, LabWarning, NotFound
from lora_lab.methods.adapters import CONFIG, WEIGHTS
from lora_lab.methods.attach import fingerprint
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
    "not a number": (tensors_with(lambda t: t[QUERY].fill_(torch.nan)), "no finite numbers"),
    "infinity": (tensors_with(lambda t: t[QUERY][0].fill_(torch.inf)), "no finite numbers"),
    "whole numbers": (tensors_with(lambda t: t.update({QUERY: torch.ones(4, 32).int()})), "int32"),
    "a truncated file": (truncate, "truncated or not a safetensors file"),
    "an empty file": (write(WEIGHTS, b""), "truncated or not a safetensors file"),
    "text renamed": (write(WEIGHTS, b"these are no weights at all"), "truncated or not a safetensors file"),
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
