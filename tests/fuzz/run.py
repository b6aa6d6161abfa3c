"""The fuzzer: case after case from one seed, each reproducible by its number alone."""

from __future__ import annotations

import copy
import faulthandler
import gc
import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from torch import nn

from lora_lab import load_adapter
from lora_lab.methods.attach import is_adapted
from lora_lab.methods.inspect import inspect_adapter
from tests.fuzz.corpus import Sound, base, corpus
from tests.fuzz.mutations import mutate
from tests.fuzz.watch import CONSTANT, Outcome, listen, size_of, watched

HANGS = 300  # seconds of wall time, after which the process says where it stands and ends


@dataclass
class Fuzzer:
    """Cases in a folder of their own; `seed` and the number of a case decide all of it."""

    place: Path
    seed: int = 0
    results: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0
    most: int = 0

    def __post_init__(self) -> None:
        listen()
        (self.place / "secret").write_text("not yours")
        self.sound: list[Sound] = corpus(self.place)
        self.bases: dict[str, nn.Module] = {one.kind: base(one.kind) for one in self.sound}
        for one in self.sound:  # the first time costs imports; and a sound file must load
            outcome = self._load(one.folder, one.kind, on_base=True)
            assert outcome.result == "loaded", (one.name, outcome.reason)
        gc.collect()
        gc.freeze()

    def case(self, number: int) -> Outcome:
        """Make case `number` and load it."""
        random = Random(f"{self.seed}:{number}")
        start, folder = random.choice(self.sound), self.place / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start.folder, folder)
        if random.random() < 0.05:  # the weights of another
            shutil.copy(random.choice(self.sound).folder / "adapter_model.safetensors", folder)
        before = _listing(self.place)
        ways = mutate(folder, random)
        outcome = self._load(folder, start.kind, on_base=random.random() < 0.8)
        if _listing(self.place) != before:
            outcome.faults.append("files outside its folder have changed")
        self._note(number, start, ways, outcome)
        return outcome

    def _load(self, folder: Path, kind: str, *, on_base: bool) -> Outcome:
        model, size = copy.deepcopy(self.bases[kind]), size_of(folder)
        load = (lambda: load_adapter(model, folder)) if on_base else (lambda: _inspected(folder))
        outcome = watched(load, size)
        if outcome.result == "refused" and is_adapted(model):
            outcome.faults.append("the refused adapter is still in the model")
        return outcome

    def _note(self, number: int, start: Sound, ways: list[str], outcome: Outcome) -> None:
        self.results[outcome.result] += 1
        self.ways.update(ways)
        self.slowest, self.most = max(self.slowest, outcome.seconds), max(self.most, outcome.grown)
        if outcome.faults:
            told = {"case": number, "start": start.name, "ways": ways, "result": outcome.result}
            self.failures.append(told | {"reason": outcome.reason[:300], "faults": outcome.faults})

    def summary(self, seconds: float) -> dict[str, Any]:
        """What came of it, as JSON can hold it."""
        return {
            "seed": self.seed, "cases": sum(self.results.values()), "seconds": round(seconds, 1), **self.results,
            "ways": dict(self.ways), "slowest_s": round(self.slowest, 2), "most_bytes": self.most,
            "constant_bytes": CONSTANT, "failures": self.failures[:50], "failed": len(self.failures),
            "passed": not self.failures,
        }  # fmt: skip


def fuzz(
    place: Path, seed: int, *, seconds: float, cases: int = 10**9, say: Any = lambda summary: None
) -> dict[str, Any]:
    """Run cases until the time is up or there are so many; `say` hears of the summary about once a minute."""
    fuzzer, begun = Fuzzer(place, seed), time.monotonic()
    said = begun
    for number in range(cases):
        faulthandler.dump_traceback_later(HANGS, exit=True)
        fuzzer.case(number)
        faulthandler.cancel_dump_traceback_later()
        now = time.monotonic()
        if now - said > 60:
            said = now
            say(fuzzer.summary(now - begun))
        if now - begun > seconds:
            break
    return fuzzer.summary(time.monotonic() - begun)


def _inspected(folder: Path) -> str:
    return json.dumps(inspect_adapter(folder).to_json(), allow_nan=False)


def _listing(place: Path) -> dict[str, tuple[int, int]]:
    """Everything in the place but the case itself."""
    files = (f for f in place.rglob("*") if f.relative_to(place).parts[0] != "case")
    return {str(f): (f.lstat().st_size, f.lstat().st_mtime_ns) for f in files}
