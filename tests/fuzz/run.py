"""The fuzzer: a sequence of cases, each determined by the seed and its number."""

import copy
import gc
import json
import shutil
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from lora_lab import load_adapter
from lora_lab.methods.attach import is_adapted
from lora_lab.methods.inspect import inspect_adapter
from lora_lab.methods.io import WEIGHTS
from tests.fuzz.corpus import METHODS, base
from tests.fuzz.kinds import READ, write_valid
from tests.fuzz.mutations import ANYWHERE, MUTATIONS, mutate
from tests.fuzz.watch import Outcome, record_writes, size_of, watched

ROOM = 128 * 2**20  # bytes for tables, models without data and imported code


class Fuzzer:
    """Make and read cases in a folder."""

    def __init__(self, place: Path, seed: int = 0, kind: str = "adapters") -> None:
        self.place, self.seed, self.read = place, seed, READ.get(kind)
        self.results, self.mutations, self.failures = Counter[str](), Counter[str](), list[dict[str, Any]]()
        self.slowest, self.most, self.begun = 0.0, 0, time.monotonic()
        record_writes()
        (place / "secret").write_text("not yours")
        write_valid(kind, place)
        self.valid = sorted(place.glob("*/"))
        self.bases = {} if self.read else {kind: base(kind) for kind, _ in METHODS.values()}
        for start in self.valid:  # valid files must load; also imports what loading needs
            outcome = self._load(start, start, Random(1))
            assert outcome.result == "loaded" or kind == "recipes", (start.name, outcome.reason)
        gc.collect()
        gc.freeze()

    def case(self, number: int) -> Outcome:
        """Make a case and read it."""
        random = Random(f"{self.seed}:{number}")
        start, folder = random.choice(self.valid), self.place / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)
        if not self.read and random.random() < 0.05:  # the weights of another adapter
            shutil.copy(random.choice(self.valid) / WEIGHTS, folder)
        before = self._listing()
        names = mutate(folder, random, ANYWHERE if self.read else MUTATIONS)
        outcome = self._load(folder, start, random)
        if self._listing() != before:
            outcome.faults.append("files outside its folder have changed")
        self.results[outcome.result] += 1
        self.mutations.update(names)
        self.slowest, self.most = max(self.slowest, outcome.seconds), max(self.most, outcome.grown)
        if outcome.faults:
            case = {"case": number, "start": start.name, "mutations": names, "result": outcome.result}
            self.failures.append(case | {"reason": outcome.reason[:300], "faults": outcome.faults})
        return outcome

    def _load(self, folder: Path, start: Path, random: Random) -> Outcome:
        if read := self.read:
            return watched(lambda: read(folder, random), size_of(folder) + ROOM)
        kind, _ = METHODS[start.name.removeprefix("peft-")]
        model, on_base = copy.deepcopy(self.bases[kind]), random.random() < 0.8

        def load() -> object:
            inspected = None if on_base else inspect_adapter(folder).to_json()
            return load_adapter(model, folder) if on_base else json.dumps(inspected, allow_nan=False)

        outcome = watched(load, size_of(folder))
        if outcome.result == "refused" and is_adapted(model):
            outcome.faults.append("the refused adapter is still in the model")
        return outcome

    def _listing(self) -> dict[str, tuple[int, int]]:
        """Return sizes and times of all files outside the case."""
        files = (f for f in self.place.rglob("*") if f.relative_to(self.place).parts[0] != "case")
        return {str(f): (f.lstat().st_size, f.lstat().st_mtime_ns) for f in files}

    def summary(self) -> dict[str, Any]:
        """Return the results so far as JSON values."""
        return {
            "seed": self.seed, "cases": sum(self.results.values()), **self.results,
            "seconds": round(time.monotonic() - self.begun), "slowest_s": round(self.slowest, 2),
            "most_bytes": self.most, "failed": len(self.failures), "passed": not self.failures,
        }  # fmt: skip
