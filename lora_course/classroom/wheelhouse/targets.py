"""The kinds of machine that a wheelhouse is for: a platform and a Python, and what pip and uv have to be told of them.

Only the standard library is used here: the installer runs it out of the lab's wheel before anything is installed.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from lora_lab.errors import BadValue, nearest

# A wheel's tag names the oldest system that it runs on: on Linux the C library (2.28 is Debian 10, Ubuntu 18.10, RHEL
# 8), on macOS the release. pip takes each tag that it is given, so older ones are named too.
GLIBC = (28, 27, 26, 24, 17, 12, 5)
PLATFORMS: Mapping[str, tuple[str, ...]] = {
    "linux": (*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC), "manylinux2014_x86_64", "linux_x86_64"),
    "windows": ("win_amd64",),
    "macos-arm64": ("macosx_14_0_arm64",),  # pip adds the older ones by itself
}
UV = {"linux": "x86_64-manylinux_2_28", "windows": "x86_64-pc-windows-msvc", "macos-arm64": "aarch64-apple-darwin"}
MACOS = "14.0"  # the oldest, uv takes it separately
NAMES = {"linux": "Linux (x86-64)", "windows": "Windows (x86-64)", "macos-arm64": "macOS 14 or newer (Apple silicon)"}


@dataclass(frozen=True)
class Target:
    """A kind of machine: `Target("windows", "3.11")`.

    Raises: BadValue for a platform that no wheels are gathered for, or a Python that the lab does not run on.
    """

    platform: str
    python: str

    def __post_init__(self) -> None:
        if self.platform not in PLATFORMS:
            raise BadValue(f"no platform '{self.platform}'; did you mean {nearest(self.platform, PLATFORMS)}?")
        if not re.fullmatch(r"3\.\d\d", self.python) or self.python < "3.11":
            raise BadValue(f"a Python such as 3.11 or 3.12 is wanted, 3.11 or newer, not '{self.python}'")

    @property
    def name(self) -> str:
        """What its files are called: windows-3.11."""
        return f"{self.platform}-{self.python}"

    @property
    def words(self) -> str:
        """For a person: Windows (x86-64), Python 3.11."""
        return f"{NAMES[self.platform]}, Python {self.python}"

    @property
    def options(self) -> list[str]:
        """What makes pip look for this machine's wheels, in place of those of the machine it runs on."""
        chosen = [word for tag in PLATFORMS[self.platform] for word in ("--platform", tag)]
        return [*chosen, "--python-version", self.python, "--implementation", "cp", "--only-binary=:all:"]

    @property
    def uv_options(self) -> list[str]:
        """What makes uv choose for this machine, conditions such as `; sys_platform == "win32"` included."""
        return ["--python-platform", UV[self.platform], "--python-version", self.python, "--only-binary", ":all:"]


def named(name: str) -> Target:
    """The target of a name such as windows-3.11."""
    where, _, python = name.rpartition("-")
    return Target(where, python)


def this_platform(system: str | None = None, machine: str | None = None) -> str | None:
    """The platform of the machine that runs this, or None where there are no wheels for it."""
    system, machine = system or platform.system(), (machine or platform.machine()).lower()
    kinds = {("linux", "x86_64"): "linux", ("windows", "amd64"): "windows", ("darwin", "arm64"): "macos-arm64"}
    return kinds.get((system.lower(), machine))


def this_python() -> str:
    """The Python that runs this, as 3.11."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
