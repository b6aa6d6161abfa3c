"""The fuzzer makes cases, each determined by the seed and its number, and records the effects of reading them.

Memory is the growth of the peak resident size, which Linux can reset. An audit hook reports files that Python writes.
"""

import copy
import ctypes
import gc
import json
import shutil
import sys
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

from lora_lab import LabError, load_adapter
from lora_lab.methods.attach import is_adapted
from lora_lab.methods.inspect import inspect_adapter
from lora_lab.methods.io import WEIGHTS
from tests.conftest import tiny
from tests.fuzz.kinds import METHODS, READ, write_valid
from tests.fuzz.mutations import mutate

ROOM = 128 * 2**20  # bytes for tables, models without data and imported code
CONSTANT = 16 * 2**20  # bytes in addition to twice the size of the files: 512 KiB of JSON as Python objects
SECONDS = 10.0  # of CPU time; matching a pattern may take 2
_WRITES = (
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate", "os.system",
    "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class",
)  # fmt: skip
_recorded: list[str] | None = None


@dataclass
class Outcome:
    """The result is "loaded", "refused" or "crash"; `faults` lists forbidden effects."""

    result: str
    reason: str = ""
    grown: int = 0
    faults: list[str] = field(default_factory=list)


def watched(load, size: int) -> Outcome:
    """Call `load`, which reads `size` bytes of files, and check its effects."""
    global _recorded
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, begun, _recorded, outcome = _status("VmRSS"), process_time(), [], Outcome("loaded")
    try:
        load()
    except LabError as error:
        outcome = Outcome("refused", str(error))
        if "\n" in str(error) or len(str(error)) > 1500:
            outcome.faults.append("its reason is not one short sentence")
    except Exception as error:
        outcome = Outcome("crash", repr(error)[:300], faults=[traceback.format_exc()[-1500:]])
    seconds, outcome.grown = process_time() - begun, max(0, _status("VmHWM") - before)
    writes, _recorded = _recorded, None
    outcome.faults += [f"it did {what}" for what in writes]
    if seconds > SECONDS:
        outcome.faults.append(f"it took {seconds:.1f} s")
    if outcome.grown > 2 * size + CONSTANT:
        outcome.faults.append(f"it took {outcome.grown:,} bytes for files of {size:,}")
    return outcome


def size_of(folder: Path) -> int:
    return sum(f.lstat().st_size for f in folder.iterdir() if f.is_file() and not f.is_symlink())


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if _recorded is None:
        return
    if event == "open":
        path, mode, flags = arguments
        if (isinstance(mode, str) and any(c in mode for c in "wax+")) or (isinstance(flags, int) and flags & 3):
            _recorded.append(f"open {path!r} to write")
    elif event in _WRITES:
        _recorded.append(f"{event} {arguments!r:.100}")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


class Fuzzer:
    """Make and read cases in a folder. After the first instance, the process writes no bytecode and is audited."""

    def __init__(self, place: Path, seed: int = 0, kind: str = "adapters") -> None:
        self.place, self.seed, self.read = place, seed, READ.get(kind)
        self.results, self.failures = Counter[str](), list[dict[str, Any]]()
        sys.dont_write_bytecode = True
        sys.addaudithook(_record)
        (place / "secret").write_text("not yours")
        write_valid(kind, place)
        self.valid = sorted(place.glob("*/"))
        self.bases = {} if self.read else {kind: tiny(kind) for kind, _ in METHODS.values()}
        for start in self.valid:  # valid files must load; also imports what loading needs
            outcome = self._load(start, start, Random(1))
            assert outcome.result == "loaded" or kind == "recipes", (start.name, outcome.reason)
        gc.collect()
        gc.freeze()

    def case(self, number: int) -> Outcome:
        random = Random(f"{self.seed}:{number}")
        start, folder = random.choice(self.valid), self.place / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)
        if not self.read and random.random() < 0.05:  # the weights of another adapter
            shutil.copy(random.choice(self.valid) / WEIGHTS, folder)
        names = mutate(folder, random)
        outcome = self._load(folder, start, random)
        self.results[outcome.result] += 1
        if outcome.faults:
            self.failures.append({"case": number, "start": start.name, "mutations": names, **vars(outcome)})
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
