"""What a check finds: green, red or a note, in words, with the remedy; and the words without anybody's name in them.

Only the standard library is used here and in `machine.py`: they run out of the wheel, before anything is installed.
"""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One check: its name, whether all is well, what was found, and what to do where it is not.

    harmless   it is not as it should be, and yet the lab runs without anything being done
    """

    name: str
    green: bool
    found: str
    remedy: str = ""
    harmless: bool = False

    @property
    def in_the_way(self) -> bool:
        """Whether something has to be done about it."""
        return not (self.green or self.harmless)


def green(name: str, found: str) -> Finding:
    """All is well."""
    return Finding(name, True, found)


def red(name: str, found: str, remedy: str) -> Finding:
    """Something is in the way, and this is what helps."""
    return Finding(name, False, found, remedy)


def note(name: str, found: str, remedy: str) -> Finding:
    """Worth knowing, and in nobody's way."""
    return Finding(name, False, found, remedy, harmless=True)


def words(findings: Iterable[Finding]) -> str:
    """The findings for a person, a line each, and what to do below those that are not green."""
    lines = []
    for one in findings:
        mark = "RED" if one.in_the_way else "ok " if one.green else "(!)"
        lines.append(f"{mark}  {one.name:10}  {one.found}")
        if not one.green:
            lines.append(f"     {'':10}  -> {one.remedy}")
    return "\n".join(lines)


def letter(findings: Iterable[Finding], lab: str, date: str) -> dict[str, Any]:
    """What is sent back: the findings and the kind of machine, without the names of its user and of itself."""
    every = list(findings)
    told = {
        "lab": lab,
        "date": date,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "green": not any(one.in_the_way for one in every),
        "findings": [asdict(one) for one in every],
    }
    return anonymous(told, private_words())


def private_words() -> dict[str, str]:
    """What must not leave the machine, and what stands for it: the home folder, the user's and the machine's name."""
    private = {str(Path.home()): "~", platform.node(): "<machine>"}
    with suppress(OSError, KeyError, ImportError):  # a container's user without a name
        private[getpass.getuser()] = "<user>"
    return {word: instead for word, instead in private.items() if len(word) > 1}


def anonymous(value: Any, private: dict[str, str]) -> Any:
    """The same JSON value with each private word replaced, the longest first; a name only where it stands alone."""
    if isinstance(value, dict):
        return {key: anonymous(one, private) for key, one in value.items()}
    if isinstance(value, list):
        return [anonymous(one, private) for one in value]
    if not isinstance(value, str):
        return value
    for word in sorted(private, key=len, reverse=True):
        parts = re.split(rf"(?<!\w){re.escape(word)}(?!\w)", value, flags=re.IGNORECASE)
        value = private[word].join(parts)
    return value
