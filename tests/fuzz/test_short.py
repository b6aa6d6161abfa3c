"""The fuzzer, for some seconds: the same cases as the first of `python -m tests.fuzz`, and a look at its own watch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from lora_lab.errors import BadValue
from tests.fuzz.run import Fuzzer
from tests.fuzz.watch import CONSTANT, watched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its memory's peak")


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory, one_thread) -> Fuzzer:
    return Fuzzer(tmp_path_factory.mktemp("fuzz"))


def test_no_file_crashes_hangs_grows_or_writes(fuzzer):
    for number in range(150):
        fuzzer.case(number)
    assert fuzzer.failures == []
    assert fuzzer.results["refused"] > 75
    assert fuzzer.results["loaded"] > 5  # some changes are harmless, or the fuzzer would try nothing but the reader


def test_a_case_is_the_same_each_time(fuzzer):
    first, again = fuzzer.case(7), fuzzer.case(7)
    assert (first.result, first.reason) == (again.result, again.reason)


@pytest.mark.parametrize(
    ("load", "fault"),
    [
        (lambda folder: torch.ones(CONSTANT // 2), "bytes for files of 10"),
        (lambda folder: (folder / "x").write_text(""), "to write"),
        (lambda folder: {}["no"], "KeyError"),
    ],
    ids=["memory", "writing", "a crash"],
)
def test_the_watch_sees(fuzzer, tmp_path: Path, load, fault):
    assert any(fault in found for found in watched(lambda: load(tmp_path), 10).faults)


def test_a_refusal_is_no_fault():
    def refuse() -> None:
        raise BadValue("no")

    assert watched(refuse, 10).faults == []
