"""One load under watch: what came of it, how long it took, how much memory, and what was written.

Memory is the growth of the process's resident peak, which Linux lets one reset; it counts torch's memory too. Writing
is seen by an audit hook, which hears of every file that Python opens.
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

CONSTANT = 16 * 2**20  # bytes that a load may take beside twice the files' size: 512 KiB of JSON as Python's objects
SECONDS = 10.0  # of computing; a pattern has 2, and a busy machine does not count

_WRITES = (
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate", "os.system",
    "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class",
)  # fmt: skip
_heard: list[str] | None = None


@dataclass
class Outcome:
    """loaded, refused with a reason, or "crash"; `faults` says what must not happen."""

    result: str
    reason: str = ""
    seconds: float = 0.0
    grown: int = 0
    faults: list[str] = field(default_factory=list)


def watched(load: Callable[[], Any], size: int) -> Outcome:
    """Call `load`, of files of so many bytes, and judge it."""
    global _heard
    gc.collect()  # quick where what was there at first is frozen
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, begun, _heard, outcome = _status("VmRSS"), process_time(), [], Outcome("loaded")
    try:
        load()
    except LabError as error:
        outcome = Outcome("refused", str(error))
        if "\n" in str(error) or len(str(error)) > 1500:
            outcome.faults.append("its reason is not one short sentence")
    except Exception as error:
        outcome = Outcome("crash", repr(error)[:300], faults=[traceback.format_exc()[-1500:]])
    outcome.seconds, outcome.grown = process_time() - begun, max(0, _status("VmHWM") - before)
    written, _heard = _heard, None
    outcome.faults += [f"it did {what}" for what in written]
    if outcome.seconds > SECONDS:
        outcome.faults.append(f"it took {outcome.seconds:.1f} s")
    if outcome.grown > 2 * size + CONSTANT:
        outcome.faults.append(f"it took {outcome.grown:,} bytes for files of {size:,}")
    return outcome


def size_of(folder: Path) -> int:
    """Bytes of the plain files in a folder."""
    return sum(f.lstat().st_size for f in folder.iterdir() if f.is_file() and not f.is_symlink())


def listen() -> None:
    """Hear of writing from now on; cannot be undone."""
    sys.dont_write_bytecode = True  # nor write what is imported late
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _heard is None:
        return
    if event == "open":
        path, mode, flags = arguments
        if (isinstance(mode, str) and any(c in mode for c in "wax+")) or (isinstance(flags, int) and flags & 3):
            _heard.append(f"open {path!r} to write")
    elif event in _WRITES:
        _heard.append(f"{event} {arguments!r:.100}")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
