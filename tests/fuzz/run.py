"""The fuzzer: case after case from one seed, each reproducible by its number alone."""

from __future__ import annotations

import argparse
import copy
import faulthandler
import gc
import json
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import torch

from lora_lab import load_adapter
from lora_lab.methods.attach import is_adapted
from lora_lab.methods.inspect import inspect_adapter
from tests.fuzz.corpus import base, corpus
from tests.fuzz.mutations import mutate
from tests.fuzz.watch import Outcome, listen, size_of, watched

HANGS = 300  # seconds of wall time, after which the process says where it stands and ends
LIMIT = 6 * 2**30  # bytes: what goes wrong must not take the machine with it


class Fuzzer:
    """Cases in a folder of their own; `seed` and the number of a case decide all of it."""

    def __init__(self, place: Path, seed: int = 0) -> None:
        self.place, self.seed = place, seed
        self.results, self.ways, self.failures = Counter[str](), Counter[str](), list[dict[str, Any]]()
        self.slowest, self.most, self.begun = 0.0, 0, time.monotonic()
        listen()
        (place / "secret").write_text("not yours")
        self.sound = corpus(place)
        self.bases = {one.kind: base(one.kind) for one in self.sound}
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
        before = self._listing()
        ways = mutate(folder, random)
        outcome = self._load(folder, start.kind, on_base=random.random() < 0.8)
        if self._listing() != before:
            outcome.faults.append("files outside its folder have changed")
        self.results[outcome.result] += 1
        self.ways.update(ways)
        self.slowest, self.most = max(self.slowest, outcome.seconds), max(self.most, outcome.grown)
        if outcome.faults:
            told = {"case": number, "start": start.name, "ways": ways, "result": outcome.result}
            self.failures.append(told | {"reason": outcome.reason[:300], "faults": outcome.faults})
        return outcome

    def _load(self, folder: Path, kind: str, *, on_base: bool) -> Outcome:
        model = copy.deepcopy(self.bases[kind])

        def load() -> object:
            return (
                load_adapter(model, folder)
                if on_base
                else json.dumps(inspect_adapter(folder).to_json(), allow_nan=False)
            )

        outcome = watched(load, size_of(folder))
        if outcome.result == "refused" and is_adapted(model):
            outcome.faults.append("the refused adapter is still in the model")
        return outcome

    def _listing(self) -> dict[str, tuple[int, int]]:
        """Everything in the place but the case itself."""
        files = (f for f in self.place.rglob("*") if f.relative_to(self.place).parts[0] != "case")
        return {str(f): (f.lstat().st_size, f.lstat().st_mtime_ns) for f in files}

    def summary(self) -> dict[str, Any]:
        """What came of it so far, as JSON can hold it."""
        return {
            "seed": self.seed, "cases": sum(self.results.values()), **self.results,
            "seconds": round(time.monotonic() - self.begun), "slowest_s": round(self.slowest, 2),
            "most_bytes": self.most, "failed": len(self.failures), "passed": not self.failures,
        }  # fmt: skip


def main() -> int:
    """Fuzz until the time is up; 1 if anything was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, default=None, help="only this one")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    with tempfile.TemporaryDirectory() as folder:
        fuzzer, number = Fuzzer(Path(folder), chosen.seed), 0
        if chosen.case is not None:
            print(fuzzer.case(chosen.case))
            return 0
        while time.monotonic() - fuzzer.begun < 60 * chosen.minutes:
            faulthandler.dump_traceback_later(HANGS, exit=True)
            fuzzer.case(number)
            number += 1
            if number % 500 == 0:
                print(json.dumps(fuzzer.summary()), file=sys.stderr, flush=True)
        faulthandler.cancel_dump_traceback_later()
    print(json.dumps(fuzzer.summary() | {"ways": fuzzer.ways, "failures": fuzzer.failures[:50]}, indent=1))
    return 1 if fuzzer.failures else 0


if __name__ == "__main__":
    sys.exit(main())
