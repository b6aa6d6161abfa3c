"""Watch a load: its result, its time, its memory, and what it writes.

Memory is the growth of the peak resident size, which Linux can reset. An audit hook reports files that Python writes.
"""

import ctypes
import gc
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

from lora_lab.errors import LabError

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
    seconds: float = 0.0
    grown: int = 0
    faults: list[str] = field(default_factory=list)


def watched(load: Callable[[], Any], size: int) -> Outcome:
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
    outcome.seconds, outcome.grown = process_time() - begun, max(0, _status("VmHWM") - before)
    writes, _recorded = _recorded, None
    outcome.faults += [f"it did {what}" for what in writes]
    if outcome.seconds > SECONDS:
        outcome.faults.append(f"it took {outcome.seconds:.1f} s")
    if outcome.grown > 2 * size + CONSTANT:
        outcome.faults.append(f"it took {outcome.grown:,} bytes for files of {size:,}")
    return outcome


def size_of(folder: Path) -> int:
    """Return the bytes of the regular files in a folder."""
    return sum(f.lstat().st_size for f in folder.iterdir() if f.is_file() and not f.is_symlink())


def record_writes() -> None:
    """Start to record writes; this cannot be undone."""
    sys.dont_write_bytecode = True
    sys.addaudithook(_record)


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
