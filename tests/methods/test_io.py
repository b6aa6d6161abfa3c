"""Adapter files: what is saved comes back, and what does not fit is refused with the model left as it was."""

import json
import os
import pickle
import re
import shutil
import struct
import time
import warnings
from collections.abc import Callable
from itertools import product
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

from lora_lab import FullFineTuning, LoRA, load_adapter, merge, save_adapter, unmerge
from lora_lab.errors import BadValue, LabError, LabWarning
from lora_lab.methods import faults
from lora_lab.methods.attach import fingerprint
from lora_lab.methods.io import CONFIG, MOST, WEIGHTS, AdapterFile, attach_from, parse_json
from lora_lab.methods.peft import patterns_from_a_file
from tests.conftest import logits, tiny
from tests.fuzz.corpus import METHODS
from tests.methods.conftest import refused, with_adapter

ROBERTA = LoRA(rank=4, alpha=8, dropout=0.1, init="gaussian", rank_pattern={"v": 2})


def adapted(kind: str, method=ROBERTA) -> nn.Module:
    return with_adapter(kind, method)


# ---- there and back


@pytest.mark.parametrize(("saved", "loaded"), [("float32", "bfloat16"), ("float16", "float32")])
def test_an_adapter_loads_on_the_same_base_in_another_dtype(saved, loaded, tmp_path):
    model, again = (tiny("roberta").to(getattr(torch, dtype)) for dtype in (saved, loaded))
    load_adapter(again, save_adapter(with_adapter(model, ROBERTA), tmp_path))
    assert {p.dtype for p in again.parameters() if p.requires_grad} == {torch.float32}
    torch.testing.assert_close(logits(again), logits(model), rtol=0.1, atol=0.1)


@settings(max_examples=20)
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


def test_what_cannot_be_saved_is_said_and_leaves_nothing(tmp_path):
    model = adapted("roberta")
    merge(model)
    with pytest.raises(BadValue, match=r"merged into its base.*unmerge\(model\) first"):
        save_adapter(model, tmp_path / "out")
    with pytest.raises(BadValue, match="has no adapter"):
        save_adapter(tiny("llama"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    unmerge(model)
    save_adapter(model, tmp_path / "out")
    with pytest.raises(BadValue, match=r"cannot write into .*config"):
        save_adapter(model, tmp_path / "out" / CONFIG / "adapter")


def test_the_fingerprint_belongs_to_the_base_whatever_sits_on_it():
    model, plain = adapted("llama", LoRA(rank=4, targets=("q", "embed"))), tiny("llama")
    other = tiny("llama")
    other.model.layers[1].mlp.down_proj.weight.data.mul_(1.1)
    assert fingerprint(model) == fingerprint(plain) == fingerprint(plain.bfloat16())
    assert fingerprint(adapted("roberta")) == fingerprint(tiny("roberta"))
    assert len({fingerprint(m) for m in (other, plain, tiny("phi3"), tiny("gpt2"))}) == 4


# ---- loading is refused


def tensors_with(change: Callable[[dict], object]) -> Callable[[Path], object]:
    """An edit of the tensors in an adapter's folder, in place or by a new dictionary, which keeps the header."""

    def edit(folder: Path) -> None:
        with safe_open(folder / WEIGHTS, "pt") as file:
            header = file.metadata()
        tensors = load_file(folder / WEIGHTS)
        changed = change(tensors)
        save_file(changed if isinstance(changed, dict) else tensors, folder / WEIGHTS, header)

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
DENSE = "base_model.model.classifier.dense.bias"

BROKEN = {
    "a missing tensor": (tensors_with(lambda t: t.pop(QUERY)), r"lacks 1 of 12 tensors, such as .*query\.lora_A"),
    "an unexpected tensor": (tensors_with(lambda t: t.update(extra=torch.ones(2))), "1 unexpected tensors"),
    "a wrong shape": (tensors_with(lambda t: t.update({QUERY: torch.ones(4, 31)})), r"\(4, 31\).*needs \(4, 32\)"),
    "not a number": (tensors_with(lambda t: t[QUERY].fill_(torch.nan)), "NaN or infinite values"),
    "whole numbers": (tensors_with(lambda t: t.update({QUERY: torch.ones(4, 32).int()})), "has dtype I32"),
    "a truncated file": (truncate, "truncated or not a safetensors file"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"not an adapter: it has no {WEIGHTS}"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), f"not an adapter: it has no {CONFIG}"),
    "a config in no encoding": (write(CONFIG, b"\xff\xfe\x00{"), "not readable as JSON"),
    "an empty config": (write(CONFIG, b"{}"), "peft_type is None"),
    "a config of a megabyte": (write(CONFIG, b" " * 2**20), "larger than 512 KiB"),
    "DoRA without its lengths": (config_with(use_dora=True), "lacks 4 of 16 tensors"),
    "trained biases": (config_with(bias="all"), "trained with bias='all'"),
    "a trained embedding": (config_with(modules_to_save=["wte"]), r"modules_to_save=\['wte'\]"),
    "PiSSA": (config_with(init_lora_weights="pissa_niter_4"), "changes the base weight too"),
    "another kind of adapter": (config_with(peft_type="XLORA"), "peft_type is 'XLORA'; only .*LORA"),
    "half a head that the config leaves out": (
        lambda folder: (config_with(modules_to_save=None)(folder), tensors_with(lambda t: t.pop(DENSE))(folder)),
        "lacks 1 of 12",
    ),
    "no rank": (config_with(r=None), "has no 'r'"),
    "a rank that no tensor can have": (config_with(r=10**17), "rank must be at most"),
    "another rank": (config_with(r=3), r"has shape \(4, 32\), this model needs \(3, 32\)"),
    "no targets": (config_with(target_modules=None), "target_modules is empty"),
    "targets of which one matches nothing": (config_with(target_modules=["query"]), "unexpected tensors"),
    "a number for targets": (config_with(target_modules=5), "config of the adapter in .* is damaged"),
    "a broken pattern": (config_with(rank_pattern={"(": 4}), "is not a pattern: missing"),
}
BROKEN_OURS = {
    "a header that is not JSON": (header_with("{"), "part of the header .* is not readable as JSON"),
    "an unknown method": (header_with('{"method": {"name": "lroa"}}'), "unknown method 'lroa'"),
    "a method that is none": (header_with('{"method": 5}'), "config of the adapter in .* is damaged"),
    "trained biases": BROKEN["trained biases"],
    "a rank that only the config changes": (config_with(r=3), "says r=3, but the adapter was saved with 4"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """An adapter of the tiny RoBERTa as we write it, and one as PEFT does."""
    ours, theirs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    save_adapter(adapted("roberta", LoRA(rank=4, alpha=8, targets=("q", "v"))), ours)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value"])
    peft.get_peft_model(tiny("roberta"), config).save_pretrained(theirs)
    for folder in (ours, theirs):  # unbroken, they load
        load_adapter(tiny("roberta"), folder)
    return {"ours": ours, "theirs": theirs}


def assert_refused(model: nn.Module, folder: Path, reason: str) -> None:
    with refused(model, reason, LabError):
        load_adapter(model, folder)


@pytest.mark.parametrize(
    ("whose", "edit", "reason"),
    [
        pytest.param(whose, *case, id=f"{whose}: {name}")
        for whose, cases in (("theirs", BROKEN), ("ours", BROKEN_OURS))
        for name, case in cases.items()
    ],
)
def test_a_broken_file_is_refused_with_the_reason_and_the_model_left_as_it_was(files, whose, edit, reason, tmp_path):
    folder = shutil.copytree(files[whose], tmp_path / "copy")
    edit(folder)
    assert_refused(tiny("roberta"), folder, reason)


def test_an_option_that_is_not_known_here_is_said_and_one_that_is_off_is_not(files, tmp_path):
    folder = shutil.copytree(files["theirs"], tmp_path / "copy")
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

    folder = shutil.copytree(files["ours"], tmp_path / "copy")
    (folder / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    assert_refused(tiny("roberta"), folder, "not a safetensors file")
    assert not (tmp_path / "sprung").exists()


def test_an_adapter_of_another_base_of_the_same_shape_is_refused(files):
    other, classes = tiny("roberta"), tiny("roberta")
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    assert_refused(other, files["ours"], "trained on another base model")
    assert_refused(tiny("gpt2"), files["ours"], "trained on another base model")
    assert_refused(tiny("gpt2"), files["theirs"], "match no layer of this model")
    classes.classifier.out_proj = nn.Linear(32, 5)
    assert_refused(classes, files["ours"], r"out_proj\.\w+ has shape \(3.*needs \(5")


def test_a_model_that_cannot_take_it_is_called_so(files, tmp_path):
    model = tiny("roberta")
    model.lock = Lock()
    assert_refused(model, files["ours"], r"this RobertaForSequenceClassification cannot be copied.*TypeError: .*lock")
    assert_refused(adapted("roberta"), files["ours"], "already has an adapter")
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


ENCODER_METHODS = {name: METHODS[name][1] for name in ("patterns", "pissa", "ptuning", "bitfit", "vera", "full")}


@pytest.mark.parametrize("method", ENCODER_METHODS.values(), ids=ENCODER_METHODS)
def test_a_run_starts_from_the_adapters_numbers_and_the_models_own_head(method, tmp_path):
    first, second = with_adapter(roberta(3), method), roberta(2)
    own = {name: p.clone() for name, p in second.classifier.named_parameters()}
    attach_from(method, second, save_adapter(first, tmp_path))
    head = getattr(second.classifier, "trained", second.classifier)
    assert all(torch.equal(p, own[name]) for name, p in head.named_parameters())
    assert all(p.requires_grad for p in head.parameters())
    for model in (first, second):  # with one head, the two models answer alike
        model.classifier = nn.Identity()
    torch.testing.assert_close(logits(second), logits(first))


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (LoRA(rank=8, alpha=8), "has rank 4 and this run 8"),
        (LoRA(rank=4, alpha=8, targets="q"), "has targets"),
        (FullFineTuning(), "has name 'lora' and this run 'full'"),
    ],
)
def test_a_run_does_not_start_from_another_method(method, sentence, files):
    with pytest.raises(BadValue, match=sentence):
        attach_from(method, roberta(2), files["ours"])


# ---- files from strangers

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(folder: Path, content: str | dict | bytes, numbers: bytes = b"\0" * 8) -> Path:
    """A folder whose weights have this header before these numbers, or are these bytes."""
    (folder / CONFIG).write_text("{}")
    if not isinstance(content, bytes):
        text = (content if isinstance(content, str) else json.dumps(content)).encode()
        content = struct.pack("<Q", len(text)) + text + numbers
    (folder / WEIGHTS).write_bytes(content)
    return folder


NAMES = st.from_regex(r"[a-z_.0-9]{1,20}", fullmatch=True)
DTYPES = st.sampled_from(["float32", "float16", "bfloat16", "float64"])


@given(st.dictionaries(NAMES, st.tuples(st.lists(st.integers(1, 5), max_size=3), DTYPES), min_size=1, max_size=5))
@settings(max_examples=20)
def test_what_safetensors_writes_is_read(wanted):
    tensors = {name: torch.randn(shape).to(getattr(torch, dtype)) for name, (shape, dtype) in wanted.items()}
    with TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_text("{}")
        save_file(tensors, Path(folder) / WEIGHTS, {"format": "pt"})
        file = AdapterFile(folder)
        file.check_finite()
        assert file.keys() == tensors.keys()
        assert all(file[name].dtype == t.dtype and torch.equal(file[name], t) for name, t in tensors.items())
        assert file.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("length", [640, 0x280 + 2**16])
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(tmp_path, length):
    assert struct.pack("<Q", length)[:1] == b"\x80"
    assert AdapterFile(written(tmp_path, json.dumps({"a": ENTRY}).ljust(length)))["a"].tolist() == [0, 0]


HOSTILE = {
    "no tensors": ({}, b"", faults.EMPTY),
    "a huge place": ({"a": {**ENTRY, "shape": [2**40], "data_offsets": [0, 2**42]}}, None, faults.TRUNCATED),
    "too few bytes": ({"a": ENTRY}, b"\0" * 7, faults.TRUNCATED),
    "nothing in it": ({"a": {**ENTRY, "shape": [0], "data_offsets": [0, 0]}}, b"", faults.DAMAGED),
    "an overlap": ({"a": ENTRY, "b": ENTRY}, None, faults.DAMAGED),
    "a control character": ({"a\x1b[2J": ENTRY}, None, faults.DAMAGED),
    "a long name": ({"a" * 9999: ENTRY}, None, faults.DAMAGED),
    "deep JSON": ('{"a":' * 100_000, None, faults.DAMAGED),
    "a huge header": ({"__metadata__": {"a": "x" * 2 * MOST}, "a": ENTRY}, None, faults.DAMAGED),
    "no bytes": (b"", None, faults.EMPTY),
    "three bytes": (b"\x08\0\0", None, faults.TRUNCATED),
    "a length of 2^63": (struct.pack("<Q", 2**63) + b"{", None, faults.DAMAGED),
    "a pickle": (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00.", None, faults.PICKLE),
    "a zip": (b"PK\x03\x04" + b"\0" * 99, None, faults.PICKLE),
}


@pytest.mark.parametrize(("content", "numbers", "fault"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_refused_with_the_reason(content, numbers, fault, tmp_path):
    with pytest.raises(faults.Refused, match=WEIGHTS) as caught:
        AdapterFile(written(tmp_path, content, b"\0" * 8 if numbers is None else numbers))
    assert caught.value.fault == fault
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(("value", "place"), [(torch.nan, 300_000), (-torch.inf, 599_999)])
def test_nan_and_infinity_are_found_wherever_they_are(value, place, tmp_path):
    numbers = torch.zeros(600_000)
    numbers[place] = value
    save_file({"a": numbers}, written(tmp_path, b"") / WEIGHTS)
    with pytest.raises(faults.Refused, match="a has NaN or infinite values"):
        AdapterFile(tmp_path).check_finite()


@pytest.mark.parametrize(
    "change", [lambda p: os.truncate(p, 5000), lambda p: os.replace(p.with_name("new"), p), os.remove]
)
def test_a_file_that_changes_while_it_is_read_is_refused(change, tmp_path):
    written(tmp_path, b"")
    for name, value in ((WEIGHTS, 0.0), ("new", 1.0)):
        save_file({"a": torch.full((100_000,), value), "b": torch.full((100_000,), value)}, tmp_path / name)
    file = AdapterFile(tmp_path)
    assert not file["a"].any()
    change(tmp_path / WEIGHTS)
    with pytest.raises(faults.Refused, match="changed while it was read"):
        file["b"]


def test_a_pipe_a_folder_a_circle_and_a_device_are_not_read(tmp_path):
    makers = (os.mkfifo, os.mkdir, lambda p: os.symlink(p, p), lambda p: os.symlink("/dev/zero", p))
    for number, (make, name) in enumerate(product(makers, (CONFIG, WEIGHTS))):
        folder = tmp_path / str(number)
        folder.mkdir()
        written(folder, {"a": ENTRY})
        (folder / name).unlink()
        make(folder / name)
        with pytest.raises(BadValue, match="cannot be read"):
            AdapterFile(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"r": NaN}', "not JSON compliant"),
        ('{"r": ' + "9" * 5000 + "}", "not JSON compliant"),
        ('{"r": ' * 100_000, "recursion"),
        ('{"r": ' + "[" * 50 + "]" * 50 + "}", "nested more than 16 levels deep"),
        ('{"a": "\\ud800"}', "surrogates"),
    ],
)
def test_json_that_would_break_something_later_is_refused_now(text, reason):
    with pytest.raises(BadValue, match=reason):
        parse_json(text, "it")


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


@pytest.mark.parametrize("pattern", ["((a{999}){999}){999}", "(?R)", "a{e<=5}", "(", "x" * 9999, 5])
def test_a_pattern_that_could_take_the_machine_is_none(pattern):
    with pytest.raises(BadValue, match="is not a pattern"):
        patterns_from_a_file()(pattern, "a")
