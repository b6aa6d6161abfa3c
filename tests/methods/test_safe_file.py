"""Files from strangers: each hostile one is refused with its reason; what is sound reads as safetensors reads it."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from lora_lab.errors import BadValue, LabError, NotFound
from lora_lab.methods import faults
from lora_lab.methods.patterns import Matcher
from lora_lab.methods.safe_file import MOST, TensorFile, opened, read_config
from lora_lab.methods.safe_json import DEPTH, parse_object

NAME = "adapter_model.safetensors"
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(folder: Path, header: str | dict, numbers: bytes = b"\0" * 8) -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    (folder / NAME).write_bytes(struct.pack("<Q", len(text)) + text + numbers)
    return folder


# ---- what is sound


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_.0-9]{1,20}", fullmatch=True).filter(lambda name: ".." not in name),
        st.tuples(
            st.lists(st.integers(1, 5), max_size=3), st.sampled_from(["float32", "float16", "bfloat16", "float64"])
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=30, deadline=None)
def test_what_safetensors_writes_is_read_as_it_reads(tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("sound")
    tensors = {name: torch.randn(shape).to(getattr(torch, dtype)) for name, (shape, dtype) in wanted.items()}
    save_file(tensors, folder / NAME, {"format": "pt"})
    file, theirs = TensorFile(folder, NAME), load_file(folder / NAME)
    file.check_finite()
    assert file.metadata == {"format": "pt"}
    assert file.keys() == theirs.keys()
    for name, tensor in file.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name])


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 0x280 + 2**16])
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(tmp_path, length):
    header = json.dumps({"a": ENTRY}).ljust(length)
    assert struct.pack("<Q", length)[:1] == b"\x80"
    assert TensorFile(written(tmp_path, header), NAME)["a"].tolist() == [0, 0]


@given(st.binary(min_size=1, max_size=40), st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_what_safetensors_refuses_is_refused(tmp_path_factory, junk, at):
    content = bytearray(save({"a.weight": torch.ones(2, 3), "b": torch.ones(4)}, {"format": "pt"}))
    content[at : at + len(junk)] = junk
    folder = tmp_path_factory.mktemp("junk")
    (folder / NAME).write_bytes(content)
    try:
        load_file(folder / NAME)
    except Exception:
        with pytest.raises(LabError):
            dict(TensorFile(folder, NAME))


# ---- hostile tensors

HEADERS = {
    "no tensors": ({}, b"", "holds no tensor", faults.EMPTY),
    "a huge shape": ({"a": {**ENTRY, "shape": [2**40, 2**40]}}, None, "its place 8", faults.DAMAGED),
    "a huge place": (
        {"a": {**ENTRY, "shape": [2**40], "data_offsets": [0, 2**42]}},
        None,
        "promises .* bytes",
        faults.TRUNCATED,
    ),
    "more than it promises": ({"a": ENTRY}, b"\0" * 99, "promises .* bytes", faults.DAMAGED),
    "a negative shape": ({"a": {**ENTRY, "shape": [-2]}}, None, "impossible shape", faults.DAMAGED),
    "a shape of fractions": ({"a": {**ENTRY, "shape": [2.0]}}, None, "impossible shape", faults.DAMAGED),
    "a shape of truths": ({"a": {**ENTRY, "shape": [True, 2]}}, None, "impossible shape", faults.DAMAGED),
    "nothing in it": ({"a": {**ENTRY, "shape": [0], "data_offsets": [0, 0]}}, None, "impossible shape", faults.DAMAGED),
    "forty dimensions": ({"a": {**ENTRY, "shape": [1] * 39 + [2]}}, None, "impossible shape", faults.DAMAGED),
    "an unknown dtype": ({"a": {**ENTRY, "dtype": "Q4"}}, None, "unknown dtype 'Q4'", faults.DAMAGED),
    "a dtype that is a list": ({"a": {**ENTRY, "dtype": []}}, None, "unknown dtype", faults.DAMAGED),
    "an overlap": ({"a": ENTRY, "b": ENTRY}, None, "overlap", faults.DAMAGED),
    "a gap": ({"a": {**ENTRY, "data_offsets": [8, 16]}}, b"\0" * 16, "gaps", faults.DAMAGED),
    "a backward place": ({"a": {**ENTRY, "data_offsets": [8, 0]}}, None, "its place -8", faults.DAMAGED),
    "path traversal": ({"../../a": ENTRY}, None, "no name of a tensor", faults.DAMAGED),
    "a path": ({"/etc/passwd": ENTRY}, None, "no name of a tensor", faults.DAMAGED),
    "a control character": ({"a\x1b[2J": ENTRY}, None, "no name of a tensor", faults.DAMAGED),
    "a long name": ({"a" * 9999: ENTRY}, None, "no name of a tensor", faults.DAMAGED),
    "no entry": ({"a": 5}, None, "does not give dtype", faults.DAMAGED),
    "metadata of numbers": ({"__metadata__": {"a": 5}, "a": ENTRY}, None, "not a table of strings", faults.DAMAGED),
    "one name twice": ('{"a": {"x": 1}, "a": {}}', None, "'a' stands twice", faults.DAMAGED),
    "deep JSON": ("[" * 100_000, None, "nested deeper", faults.DAMAGED),
    "a list": ("[]", None, "not a JSON object", faults.DAMAGED),
    "a huge header": ('{"a": "' + "x" * 2 * MOST + '"}', None, "too much for a file", faults.DAMAGED),
}


@pytest.mark.parametrize(("header", "numbers", "reason", "fault"), HEADERS.values(), ids=HEADERS)
def test_a_hostile_header_is_refused_with_the_reason(header, numbers, reason, fault, tmp_path):
    with pytest.raises(faults.Refused, match=reason) as caught:
        TensorFile(written(tmp_path, header, b"\0" * 8 if numbers is None else numbers), NAME)
    assert caught.value.fault == fault
    assert len(str(caught.value)) < 500 + len(str(tmp_path))
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
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(faults.Refused) as caught:
        TensorFile(tmp_path, NAME)
    assert caught.value.fault == fault


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 300_000, 599_999])
def test_a_number_that_is_none_is_found_wherever_it_is(value, place, tmp_path):
    numbers = torch.zeros(600_000)
    numbers[place] = value
    save_file({"a": numbers}, tmp_path / NAME)
    with pytest.raises(faults.Refused, match=r"a holds torch\.float32 values that are no finite numbers"):
        TensorFile(tmp_path, NAME).check_finite()


# ---- hostile files


def test_links_inside_and_to_the_hubs_blobs_are_followed_and_no_others(tmp_path):
    hub = tmp_path / "models--x"
    snapshot, blobs = hub / "snapshots" / "abc", hub / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "f00").write_text("{}")
    (snapshot / "adapter_config.json").symlink_to("../../blobs/f00")
    (snapshot / "other.json").symlink_to("adapter_config.json")
    assert read_config(snapshot, "adapter_config.json") == read_config(snapshot, "other.json") == {}
    (tmp_path / "secret.json").write_text("{}")
    (snapshot / "out.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(faults.Refused, match="leads out of its folder"):
        read_config(snapshot, "out.json")


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda p: os.symlink(p, p), lambda p: os.symlink("/dev/zero", p)]
)
def test_a_pipe_a_folder_a_circle_and_a_device_are_not_read(make, tmp_path):
    make(tmp_path / NAME)
    with pytest.raises(BadValue, match=r"not a plain file|cannot be read"):
        opened(tmp_path, NAME)


def test_a_name_with_a_zero_byte_and_one_that_is_not_there(tmp_path):
    with pytest.raises(LabError, match="cannot be read"):
        opened(tmp_path, "a\0b")
    with pytest.raises(NotFound, match="holds no other"):
        opened(tmp_path, "other")


# ---- JSON


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"r": 8, "r": 4}', "'r' stands twice"),
        ('{"r": NaN}', "NaN is not a finite"),
        ('{"r": -Infinity}', "not a finite"),
        ('{"r": 1e999}', "not a finite"),
        ('{"r": ' + "9" * 5000 + "}", "an integer of 5000 digits"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), "nested deeper"),
        ('{"r": ' * 100_000, "nested deeper"),
        ('{"a": [' + "1," * 9999 + "1]}", "10,000 entries"),
        ('{"a": "\\ud800"}', "surrogates"),
        ("", "Expecting value"),
    ],
)
def test_json_that_would_break_something_later_is_refused_now(text, reason):
    with pytest.raises(BadValue, match=reason):
        parse_object(text, "it")


def test_a_config_of_a_megabyte_is_not_read(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}" + " " * 2**20)
    with pytest.raises(BadValue, match="larger than 512 KiB"):
        read_config(tmp_path, "adapter_config.json")


# ---- patterns


@given(
    st.sampled_from([r".*\.(q|v)", r"(.*\.)?(h\.\d+\.attn)", ".*q", r"h\.[01]\..*", "^(?!.*1).*v$", r"h\.\d{1,2}\.q"]),
    st.sampled_from(["h.0.q", "h.1.v", "h.0.attn", "x.h.12.q", "q"]),
)
def test_a_pattern_means_what_it_means_to_python(pattern, name):
    import re

    assert Matcher().whole(pattern, name) == (re.fullmatch(pattern, name) is not None)


def test_patterns_share_one_limit_of_time():
    matcher = Matcher(seconds=0.0)
    with pytest.raises(BadValue, match="takes too long"):
        matcher.whole(".*", "a")


@pytest.mark.parametrize("pattern", ["((a{999}){999}){999}", "(?R)", "a{e<=5}", "(", "x" * 9999, "(?<=a)b", 5, None])
def test_a_pattern_that_could_take_the_machine_is_none(pattern):
    with pytest.raises(BadValue, match="is no pattern"):
        Matcher().whole(pattern, "a")
