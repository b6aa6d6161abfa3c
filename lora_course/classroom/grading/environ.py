"""The environment of a student's process: what a computation needs of the teacher's, and places of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import platformdirs

from lora_lab.training import device
from lora_lab.training.assets import home

PLAIN = {  # whatever else is in the teacher's, such as keys to a cloud, is no notebook's business
    "PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "USERNAME", "HF_HOME", "LD_LIBRARY_PATH",
    "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "PROGRAMDATA", "APPDATA", "LOCALAPPDATA",
    "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE",
}  # fmt: skip
PREFIXES = ("LC_", "LORA_LAB_", "CUDA_", "PYTORCH_", "TORCH_",
            "OMP_", "MKL_", "KMP_", "OPENBLAS_", "VECLIB_", "NUMEXPR_")  # fmt: skip


def environment(place: Path, full: bool) -> dict[str, str]:
    """The plain part of this process's, with a home and a place for temporary files in the copy: nothing is shared."""
    from matplotlib import get_cachedir

    own = {name: str(place / f".{name.lower()}") for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "IPYTHONDIR")}
    for folder in own.values():
        Path(folder).mkdir(exist_ok=True)
    _what_is_known_of_the_machine(own)
    fixed = {"LORA_LAB_HEADLESS": "1", "LORA_LAB_HOME": str(home()), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg",
             "MPLCONFIGDIR": get_cachedir(), "FAST": "" if full else "1", "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    windows = {"TEMP": own["TMPDIR"], "TMP": own["TMPDIR"], "USERPROFILE": own["HOME"]} if os.name == "nt" else {}
    inductor = {"TORCHINDUCTOR_CACHE_DIR": str(place / ".torch")}  # which torch makes in the common /tmp, even unused
    return {**_plain(), **own, **fixed, **inductor, **windows}


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in PLAIN or name.startswith(PREFIXES)}


def _what_is_known_of_the_machine(own: dict[str, str]) -> None:
    """Lay what was measured of this machine where the notebook's process looks for it: else each would measure anew."""
    device.measured(device.pick_device())
    known = Path(platformdirs.user_cache_dir("lora_lab")) / "machine.json"
    for folder in (Path(own["XDG_CACHE_HOME"]), Path(own["HOME"]) / "Library" / "Caches"):  # Linux, macOS
        (folder / "lora_lab").mkdir(parents=True)
        if known.is_file():
            shutil.copy(known, folder / "lora_lab")
