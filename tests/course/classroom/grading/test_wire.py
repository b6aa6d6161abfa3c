"""What crosses between the student's process and the judge's is data, and nothing else."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from lora_course.classroom.grading.wire import decode, encode, write_back
from lora_course.paper import Table
from lora_lab.errors import BadValue

plain = some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text() | some.just(...)
keys = some.text() | some.integers() | some.tuples(some.integers(), some.text())
values = some.recursive(
    plain,
    lambda inner: (
        some.lists(inner) | some.tuples(inner, inner) | some.dictionaries(keys, inner) | some.frozensets(some.text())
    ),
    max_leaves=12,
)


def crossed(value):
    """The value on the other side, after it was text."""
    return decode(json.loads(json.dumps(encode(value, []))), lambda place: f"function {place}")


@given(values)
def test_plain_values_cross_unchanged(value):
    arrived = crossed(value)
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]
)
def test_tensors_cross_with_their_dtype(dtype: torch.dtype):
    value = torch.arange(6).reshape(2, 3).to(dtype).T.requires_grad_(dtype.is_floating_point)
    arrived = crossed(value)
    assert arrived.dtype == dtype
    assert torch.equal(arrived, value.detach())


def test_arrays_columns_frames_and_numbers_of_other_libraries_cross():
    array = np.arange(6.0).reshape(2, 3)[:, ::2]
    assert np.array_equal(crossed(array), array)
    frame = pd.DataFrame({"lr": [1e-3, 2e-3], "method": ["lora", None]})
    pd.testing.assert_frame_equal(crossed(frame), frame)
    assert crossed(frame["lr"]) == [1e-3, 2e-3]
    assert (crossed(np.float32(0.5)), crossed(np.int64(3)), crossed(Fraction(1, 2))) == (0.5, 3, 0.5)


def test_a_function_crosses_as_its_place_and_anything_else_as_its_name():
    functions: list = []
    assert encode([len, max], functions)["of"] == [{"": "function", "place": 0}, {"": "function", "place": 1}]
    assert functions == [len, max]
    assert crossed(len) == "function 0"
    assert type(crossed(object())).__name__ == "object"


def test_a_record_of_the_lab_crosses_with_its_fields():
    table = Table("t", "a title", "s", "derived", "5", ("a",), ((1.5,), (None,)), (), ("x",), {"a": "b"})
    assert crossed(table) == table


@pytest.mark.parametrize(
    "message",
    [
        {"": "array", "dtype": "|O", "shape": [1], "of": "AAAAAAAAAAA="},
        {"": "array", "dtype": "<f8", "shape": [10**12], "of": ""},
        {"": "dataclass", "type": "subprocess:Popen", "of": {"": "dict", "of": []}},
        {"": "dataclass", "type": "lora_course.paper:Path", "of": {"": "dict", "of": []}},
        {"": "dict", "of": [[{"": "list", "of": []}, 1]]},
        {"": "unheard of"},
        {"no": "kind"},
    ],
)
def test_what_encode_does_not_make_is_an_error_and_not_an_object(message: dict):
    with pytest.raises(BadValue, match="damaged"):
        decode(message, lambda place: None)


def test_what_a_function_did_to_its_arguments_is_carried_over():
    mine = ([1, 2], np.zeros(2), torch.zeros(2), 3, np.zeros(2))
    write_back(mine, ([3], np.ones(2), torch.ones(2), 4, np.ones(3)))
    assert mine[0] == [3]
    assert (mine[1].sum(), mine[2].sum(), mine[4].sum()) == (2, 2, 0)
