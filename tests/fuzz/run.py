"""The fuzzer: case after case from one seed, each reproducible by its number alone."""

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
from tests.fuzz.corpus import Sound, base, corpus
from tests.fuzz.kinds import READ, sound
from tests.fuzz.mutations import ANYWHERE, MUTATIONS, mutate
from tests.fuzz.watch import Outcome, listen, size_of, watched

HANGS = 300  # seconds of wall time, after which the process says where it stands and ends
ROOM = 128 * 2**20  # bytes for a table, a model without data or the code of its family
LIMIT = 6 * 2**30  # bytes: what goes wrong must not take the machine with it


class Fuzzer:
    """Cases in a folder of their own; `seed` and the number of a case decide all of it."""

    def __init__(self, place: Path, seed: int = 0, kind: str = "adapters") -> None:
        self.place, self.seed, self.read = place, seed, READ.get(kind)
        self.results, self.ways, self.failures = Counter[str](), Counter[str](), list[dict[str, Any]]()
        self.slowest, self.most, self.begun = 0.0, 0, time.monotonic()
        listen()
        (place / "secret").write_text("not yours")
        sound(kind, place)
        self.sound = [Sound(f.name, f, "") for f in sorted(place.glob("*/"))] if self.read else corpus(place)
        self.bases = {one.kind: base(one.kind) for one in self.sound if one.kind}
        for one in self.sound:  # the first time costs imports; and a sound file must load
            outcome = self._load(one.folder, one.kind, Random(1))
            assert outcome.result == "loaded" or kind == "recipes", (one.name, outcome.reason)
        gc.collect()
        gc.freeze()

    def case(self, number: int) -> Outcome:
        """Make case `number` and load it."""
        random = Random(f"{self.seed}:{number}")
        start, folder = random.choice(self.sound), self.place / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start.folder, folder)
        if not self.read and random.random() < 0.05:  # the weights of another
            shutil.copy(random.choice(self.sound).folder / "adapter_model.safetensors", folder)
        before = self._listing()
        ways = mutate(folder, random, ANYWHERE if self.read else MUTATIONS)
        outcome = self._load(folder, start.kind, random)
        if self._listing() != before:
            outcome.faults.append("files outside its folder have changed")
        self.results[outcome.result] += 1
        self.ways.update(ways)
        self.slowest, self.most = max(self.slowest, outcome.seconds), max(self.most, outcome.grown)
        if outcome.faults:
            told = {"case": number, "start": start.name, "ways": ways, "result": outcome.result}
            self.failures.append(told | {"reason": outcome.reason[:300], "faults": outcome.faults})
        return outcome

    def _load(self, folder: Path, kind: str, random: Random) -> Outcome:
        if read := self.read:
            return watched(lambda: read(folder, random), size_of(folder) + ROOM)
        model, on_base = copy.deepcopy(self.bases[kind]), random.random() < 0.8

        def load() -> object:
            inspected = None if on_base else inspect_adapter(folder).to_json()
            return load_adapter(model, folder) if on_base else json.dumps(inspected, allow_nan=False)

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
    parser.add_argument("--kind", choices=["adapters", *READ], default="adapters")
    parser.add_argument("--case", type=int, default=None, help="only this one")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    with tempfile.TemporaryDirectory() as folder:
        fuzzer, number = Fuzzer(Path(folder), chosen.seed, chosen.kind), 0
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
