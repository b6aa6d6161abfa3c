"""What can be seen of a machine with the standard library alone; each check is a function that is told what it sees.

So each fault can be planted in a test, and the installer can look before anything is installed.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PureWindowsPath

from lora_course.classroom.preflight.findings import Finding, green, note, red
from lora_lab.ports import PORTS

GIB = 2**30
NEEDED_MEMORY = 7 * GIB  # an "8 GB" machine shows 7.6, less what its graphics take
NEEDED_FREE_MEMORY = 35 * 10**8  # what a lesson may take, `room.KERNEL`
NEEDED_LIMIT = 4 * 10**9  # in a container without system and browser: a lesson, and Jupyter's server
NEEDED_DISK = 4 * GIB  # packages 1.6, models and data 0.7, runs, and room for what pip unpacks
DEEPEST = 170  # letters that the longest path of an installed package adds to the folder's
WINDOWS_LIMIT = 260
SYNCED = ("onedrive", "dropbox", "google drive", "googledrive", "icloud", "mobile documents", "nextcloud", "box sync")


def check_python(version: tuple[int, ...], bits: int = 64, implementation: str = "CPython") -> Finding:
    """The Python: 3.11 to 3.14, of 64 bits."""
    found = f"{implementation} {'.'.join(map(str, version[:3]))}, {bits} bits"
    get = "install Python 3.11 or 3.12 (64 bits, for yourself alone: no admin rights are needed) and use that one"
    if version < (3, 11):
        return red("python", f"{found}: too old", get)
    if version >= (3, 15):
        return red("python", f"{found}: so new that torch may have no wheel for it", get)
    if bits < 64 or implementation != "CPython":
        return red("python", f"{found}: torch has no wheel for it", get)
    return green("python", found)


def check_platform(
    system: str, machine: str, *, release: str = "", translated: bool = False, libc: tuple[str, str] = ("glibc", "2.35")
) -> Finding:
    """A system for which torch has wheels.

    release      of macOS
    translated   an Intel Python on Apple silicon
    libc         of Linux: its name and version
    """
    found, elsewhere = " ".join(part for part in (system, release, machine) if part), "in a browser: docs/install.md"
    if system == "Darwin" and translated:
        return red("platform", f"{found}: an Intel Python on Apple silicon", "install the Python for Apple silicon")
    if system == "Darwin" and machine == "x86_64":
        remedy = f"use another machine, or JupyterHub, Binder or Colab {elsewhere}"
        return red("platform", f"{found}: torch has had no wheels for Intel Macs since 2.2 (the lab needs 2.6)", remedy)
    if system == "Darwin" and release and int(release.split(".")[0]) < 14:
        return red(
            "platform", f"{found}: newer wheels of torch need macOS 14", "update macOS, or install from the network"
        )
    if system == "Windows" and machine.upper() != "AMD64":
        return red(
            "platform", f"{found}: several packages have no wheels for it", f"use another machine, or one {elsewhere}"
        )
    if system == "Linux" and (libc[0] != "glibc" or _numbers(libc[1]) < (2, 28)):
        remedy = f"use a Linux of 2019 or later that is not Alpine, or one {elsewhere}"
        return red("platform", f"{found}, {' '.join(libc).strip() or 'no glibc'}: wheels need glibc 2.28", remedy)
    return green("platform", found)


def check_memory(total: int | None, free: int | None, limit: int | None = None) -> Finding:
    """Memory in bytes: the machine's, and what is free of it now; None where nobody tells.

    limit   what a container may use, as on a hub; its system and browser take their memory elsewhere
    """
    if total is None or free is None:
        return green("memory", "not known before the lab is installed; 8 GB are needed")
    found = f"{total / GIB:.1f} GiB, of which {free / GIB:.1f} free"
    if limit is not None and limit <= total:
        found = f"{limit / GIB:.1f} GiB is the limit of this container"
        if limit < NEEDED_LIMIT:
            remedy = "ask for a larger limit, on a hub of who runs it: c.Spawner.mem_limit, docs/install.md"
            return red("memory", f"{found}, and {NEEDED_LIMIT / GIB:.1f} are needed", remedy)
    elif total < NEEDED_MEMORY:
        return red(
            "memory",
            f"{found}: the lessons are made for 8 GB",
            "share a machine with a neighbour, or use Binder or a hub",
        )
    if free < NEEDED_FREE_MEMORY:
        found = f"{found}; {NEEDED_FREE_MEMORY / GIB:.1f} must be free for the largest lesson"
        return red("memory", found, "close other programs and browser tabs, or restart the machine before the course")
    return green("memory", found)


def check_disk(free: int, where: str, needed: int = NEEDED_DISK) -> Finding:
    """Free bytes of the disk that holds a folder."""
    found = f"{free / GIB:.1f} GiB free at {where}"
    if free >= needed:
        return green("disk", found)
    short = f"free {(needed - free) / GIB:.1f} GiB more"
    remedy = f"{short}, or choose a folder on another disk and set LORA_LAB_HOME to one there too"
    return red("disk", f"{found}, {needed / GIB:.1f} are needed", remedy)


def check_writable(folder: Path, try_to: Callable[[Path], None] | None = None) -> Finding:
    """Whether a file can be written into a folder, or into the nearest one above it that is there."""
    try:
        (try_to or write_and_remove)(nearest_folder(folder))
    except OSError as error:
        words = f"cannot write into {folder}: {error.strerror or error}"
        return red("write", words, "choose a folder of your own (for the models and data: set LORA_LAB_HOME to one)")
    return green("write", f"{folder} can be written to")


def check_path(
    folder: str, *, system: str, long_paths: bool = False, environment: Mapping[str, str] | None = None
) -> Finding:
    """Whether a folder is short enough for Windows, and not one that a program copies to a server."""
    above = folder.lower()
    service = next((name for name in SYNCED if name in above), None)
    drives = [value for key, value in (environment or {}).items() if key.startswith("OneDrive") and value]
    if service or any(PureWindowsPath(folder).is_relative_to(drive) for drive in drives):
        remedy = "move it out, such as to C:\\lora-lab: each installed file would be copied, and locked meanwhile"
        return red("path", f"{folder} lies in a folder that is synchronised ({service or 'OneDrive'})", remedy)
    if system == "Windows" and not long_paths and len(folder) + DEEPEST > WINDOWS_LIMIT:
        remedy = f"choose a folder with at most {WINDOWS_LIMIT - DEEPEST} letters in its path, such as C:\\lora-lab"
        return red("path", f"{folder} has {len(folder)} letters, and Windows stops at {WINDOWS_LIMIT} in all", remedy)
    return green("path", folder)


def check_port(port: int, take: Callable[[int], None] | None = None, call: Callable[[], None] | None = None) -> Finding:
    """Whether a port of this machine is free, and whether the machine lets itself be called."""
    take = take or take_port
    try:
        (call or call_itself)()
    except OSError as error:
        remedy = "let Python be called at 127.0.0.1 by this machine itself: its firewall or virus scanner stops that"
        return red("port", f"this machine cannot call itself: {error.strerror or error}", remedy)
    if (refused := _refused(take, port)) is None:
        return green("port", f"{port} is free")
    found = f"port {port} of this machine cannot be used: {refused.strerror or refused}"
    other = next((one for one in range(port, min(port + PORTS, 65536)) if _refused(take, one) is None), None)
    if other is None:
        remedy = "close other programs, or start with: lora-lab --port 0, which takes any"
        return red("port", f"{found}, and none of the next {PORTS - 1}", remedy)
    by_itself = f"nothing has to be done: lora-lab takes the next one by itself, as with lora-lab --port {other}"
    return note("port", found, f"{by_itself}; for {port}, close the other program, often another JupyterLab")


def check_browser(find: Callable[[], object] = webbrowser.get) -> Finding:
    """Whether Python finds a browser to open."""
    try:
        find()
    except webbrowser.Error:
        remedy = (
            "start with: lora-lab --no-browser, and open the address that it prints (Firefox, Chrome, Edge or Safari)"
        )
        return red("browser", "none found", remedy)
    return green("browser", "found")


# ---- what the checks are told


def look(folder: Path, assets: Path, port: int = 8888, *, assets_there: bool = False) -> list[Finding]:
    """Every check of this file, on this machine; where the assets are there, only a folder for work is looked at."""
    python = check_python(sys.version_info[:3], 64 if sys.maxsize > 2**32 else 32, platform.python_implementation())
    findings = [python, look_at_platform(), check_memory(*memory(), container_limit())]
    findings += look_at_folder(folder, assets_there=assets_there)
    if not assets_there and assets != folder:
        findings += [_disk(assets, False), check_writable(assets)]
    return [*findings, check_port(port), check_browser()]


def look_at_platform() -> Finding:
    """The system of this machine."""
    system, release, libc = platform.system(), platform.mac_ver()[0], platform.libc_ver()
    return check_platform(system, platform.machine(), release=release, translated=translated(), libc=libc)


def look_at_folder(folder: Path, *, assets_there: bool = False) -> list[Finding]:
    """What can be wrong with a folder that something is to be installed into."""
    path = check_path(str(folder), system=platform.system(), long_paths=long_paths(), environment=os.environ)
    return [_disk(folder, assets_there), check_writable(folder), path]


def _disk(folder: Path, assets_there: bool) -> Finding:
    try:
        free = shutil.disk_usage(nearest_folder(folder)).free
    except OSError as error:
        return red("disk", f"{folder} cannot be looked at: {error.strerror or error}", "choose another folder")
    return check_disk(free, str(folder), GIB if assets_there else NEEDED_DISK)


def nearest_folder(path: Path) -> Path:
    """The folder itself where it is there, else the nearest above it."""
    return next((one for one in (path, *path.parents) if one.is_dir()), Path(path.anchor or "."))


def write_and_remove(folder: Path) -> None:
    """Write a file into a folder, and remove it. Raises: OSError."""
    with tempfile.TemporaryFile(dir=folder, prefix=".lora-lab-") as file:
        file.write(b"0" * 4096)
        file.flush()


def take_port(port: int) -> None:
    """Take a port of this machine, and give it back. Raises: OSError."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))


def _refused(take: Callable[[int], None], port: int) -> OSError | None:
    try:
        take(port)
    except OSError as error:
        return error
    return None


def call_itself() -> None:
    """Let this machine call itself, which a firewall may stop. Raises: OSError."""
    with socket.socket() as server:  # any other: a port that was called stays taken for a minute
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        with socket.create_connection(server.getsockname(), timeout=3):
            server.settimeout(3)
            server.accept()[0].close()


def memory() -> tuple[int | None, int | None]:
    """Bytes in all, and bytes free, of this machine or of the container that this runs in; None where nobody tells."""
    with suppress(ImportError):
        import psutil

        seen, limit = psutil.virtual_memory(), container_limit()
        if limit is None or limit > seen.total:
            return seen.total, seen.available
        return limit, max(0, min(seen.available, limit - container_use()))
    with suppress(ValueError, OSError, AttributeError):  # before anything is installed; Windows has no sysconf
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    return None, None


def container_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The memory that a container may use, in bytes, or None where there is no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limit = int((root / name).read_text())
            return limit if limit < 2**50 else None
    return None


def container_use(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The memory that the programs of a container hold, in bytes, without files that are only kept at hand."""
    for name, held in (("memory.stat", ("anon", "shmem")), ("memory/memory.stat", ("total_rss", "total_shmem"))):
        with suppress(OSError, ValueError):
            told = dict(line.split() for line in (root / name).read_text().splitlines())
            return sum(int(told.get(one, 0)) for one in held)
    return 0


def long_paths() -> bool:
    """Whether Windows is set to take paths of more than 260 letters."""
    with suppress(ImportError, OSError):
        import winreg  # on Windows alone

        key = winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem")  # type: ignore[attr-defined]
        return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])  # type: ignore[attr-defined]
    return False


def translated() -> bool:
    """Whether this is an Intel program that Apple silicon translates."""
    return platform.system() == "Darwin" and platform.machine() == "x86_64" and "ARM64" in platform.version()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
