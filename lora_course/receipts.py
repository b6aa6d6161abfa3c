"""Receipts: a lesson's results as one line to paste into a chat, and a parser for the lines of a whole class.

    LL1 03 Ada Lovelace: eNqLVjIwVtJRckxJVPDJL0vNSUxOVdKprtWJjtWpVkpMTi4tSkyuVLIy0LMwrI0FADIjDd0=.0500d1dc

After the colon come the receipt, as compressed JSON in base64, and a CRC-32 that detects damage in transit. A receipt
is neither secret nor tamper-proof: anyone can read or write one.
"""

import json
import os
import re
import unicodedata
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from hashlib import sha256
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from lora_lab.errors import BadValue, printable

RECEIPT = re.compile(r"LL1\s+\d\d\s")  # the start of a receipt, even directly after other text
LARGEST = 2**16  # maximum bytes of a receipt's JSON
Option = TypeVar("Option")


@dataclass
class Check:
    """The result of one exercise. `tries` counts answers up to and including the first right one."""

    passed: bool = False
    tries: int = 0


@dataclass
class Range:
    """A range that its author is 80% sure of. `low` and `high` are None for a skipped prediction."""

    what: str
    low: float | None
    high: float | None
    attempt: int = 1
    found: float | None = None  # the result, set when it is revealed

    @property
    def held(self) -> bool | None:
        """Whether the range contains the result; None if there is nothing to compare."""
        if self.low is None or self.high is None or self.found is None:
            return None
        return self.low <= self.found <= self.high


@dataclass
class Receipt:
    """What a student did in one lesson."""

    lesson: str = ""
    student: str = ""
    checks: dict[str, Check] = field(default_factory=dict)
    ranges: list[Range] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """Return the receipt as one line, which `read` parses."""
        name = " ".join(re.sub(r"LL1|[^\w.' -]", " ", self.student).split())[:40] or "(no name)"
        content = json.dumps(astuple(self), separators=(",", ":"))  # all fields in order, without their names
        packed = zlib.compress(content.encode(), 9)
        return f"LL1 {self.lesson} {name}: {b64encode(packed).decode()}.{zlib.crc32(packed):08x}"


CURRENT = Receipt()
"""The receipt of this notebook's lesson."""


def student() -> str:
    """Return the student's name, or ""; as in the log, "?" replaces bytes that are not valid UTF-8."""
    return os.environ.get("LORA_LAB_STUDENT", "").encode(errors="replace").decode()


def seed_of(name: str = "") -> int:
    """Return a student's seed (1 to 999,999), ignoring case and extra spaces in the name, or 0 without a name."""
    name = key_of(name or student())
    return 1 + _number(name) % 999_999 if name else 0


def key_of(name: str) -> str:
    """Return a name in canonical form, regardless of case, spacing and Unicode variants."""
    return unicodedata.normalize("NFKC", " ".join(name.casefold().split()))


def draw(what: str, *options: Option, name: str = "") -> Option:
    """Choose one of the options, depending on `what` and the student's seed; without a name, choose the first."""
    seed = seed_of(name)
    return options[_number(f"{seed} {what}") % len(options) if seed else 0]


def _number(text: str) -> int:
    data = text.encode(errors="surrogatepass")  # a system's user name may not be valid UTF-8
    return int.from_bytes(sha256(data).digest()[:8], "big")


def note(name: str, value: float) -> None:
    """Record a result for the receipt, such as an accuracy between 0 and 1: `note("accuracy", 0.81)`."""
    CURRENT.notes[name] = finite(value, name)


def receipt() -> None:
    """Print the lesson's receipt. Raises: BadValue if no lesson was started."""
    if not CURRENT.lesson:
        raise BadValue('no lesson was started: run the first cell, which has lesson.start("...")')
    print("Paste this line where your teacher collects receipts. It has your name, tries, predictions and results:\n")
    print(replace(CURRENT, student=student()).line())
    if not student():
        print(f'\nIt contains no name: lesson.start("{CURRENT.lesson}", student="Ada Lovelace") adds one.')


def finite(value: Any, what: str) -> float:
    """Return the value as a number below 1e300, so that a class's standard deviation stays finite. Raises: BadValue."""
    with suppress(TypeError, ValueError, OverflowError):
        if abs(number := float(value)) < 1e300:
            return number
    raise BadValue(f"'{what}' needs a number, not {value!r}")


def handed_in(folder: Path, name: str) -> list[Path]:
    """Return the files below a folder that look like "guess.json", such as "Guess (1).json.txt"; skip hidden ones."""
    stem, _, suffix = name.rpartition(".")
    paths = (path for path in folder.rglob("*") if re.search(rf"(?i){stem}.*\.{suffix}(\.(txt|json))?$", path.name))
    hidden = re.compile(r"(^|/)\.")  # such as macOS's "._guess.json", and all files in Jupyter's ".ipynb_checkpoints"
    return sorted(path for path in paths if not hidden.search(path.relative_to(folder).as_posix()))


def read(text: str) -> tuple[list[Receipt], list[str]]:
    """Return the receipts in a text, and a message for each damaged receipt. Other text is ignored.

    A chat may have wrapped or quoted the receipts. For each student and lesson, the last receipt counts, but
    first attempts are kept from earlier receipts.
    """
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda escaped: chr(int(escaped[1], 16)), text)  # for exports in JSON (Slack)
    text = re.sub(r"\\[nrt]|<w?br ?/?>", " ", unescape(text))  # or in HTML
    kept, damaged = dict[tuple[str, str], Receipt](), list[str]()
    starts = [match.start() for match in RECEIPT.finditer(text)]
    for start, end in pairwise([*starts, len(text)]):
        # zlib's base64 starts with "eA" to "eP"; a ":" before other text may be half of a letter in UTF-16
        prefix, *payload = re.split(r":[\W_]*(?=e[\W_]*[A-P])", text[start:end], maxsplit=1)
        # Remove quote marks, spaces, invisible characters and the = of wrapped e-mails, in which "=3D" means "=".
        rest = re.sub(r"=3D|[^\w+/.]", "", "".join(payload))
        match = re.match(r"([\w+/]+)\.([0-9a-f]{8})", rest)
        try:
            packed = b64decode(match[1] + "=" * (-len(match[1]) % 4), validate=True) if match else b""
            if not match or zlib.crc32(packed) != int(match[2], 16):
                raise ValueError(match)
            parsed = _unpack(packed)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, zlib.error):
            line, excerpt = text.count("\n", 0, start) + 1, " ".join(prefix.split())[:50]
            damaged.append(printable(f"line {line} ({excerpt}) is damaged: ask for it again"))
        else:
            key = parsed.lesson, key_of(parsed.student) or match[2]
            if key in kept:  # after a restart, a receipt lacks the first attempts, but they still count
                earlier = kept[key].ranges
                ranges = [*earlier, *parsed.ranges, *(r for r in earlier if r.found is not None)]
                first = {r.what: r for r in ranges if r.attempt == 1}
                parsed.ranges = [*first.values(), *(r for r in parsed.ranges if r.attempt != 1)]
            kept[key] = parsed
    return list(kept.values()), damaged


def _unpack(packed: bytes) -> Receipt:
    def text(value: Any) -> str:
        return printable(str(value))[:200].strip()

    def number(value: Any) -> float | None:
        return None if value is None else finite(value, "receipt")

    lesson, name, checks, ranges, notes = json.loads(zlib.decompressobj().decompress(packed, LARGEST))
    return Receipt(
        text(lesson),
        text(name),
        {text(check): Check(passed is True, min(int(tries), 999)) for check, (passed, tries) in checks.items()},
        [Range(text(what), number(low), number(high), int(n), number(found)) for what, low, high, n, found in ranges],
        {text(name): finite(value, name) for name, value in notes.items()},
    )


def coverage(ranges: Iterable[Range]) -> dict[str, Any]:
    """Count first ranges that contain the result: `hits`, `of`, `share` with its exact 95% interval, and `words`."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    held = [r.held for r in ranges if r.attempt == 1 and r.held is not None]
    hits, total, share, low, high = sum(held), len(held), None, None, None
    words = "no range has been compared with a result yet"
    if total:
        share, (low, high) = hits / total, map(float, binomtest(hits, total).proportion_ci(0.95))
        judged = "too narrow: fewer than" if high < 0.8 else "too wide: more than" if low > 0.8 else "consistent with"
        words = (
            f"{hits} of {total} ranges contain the result: {100 * share:.0f}% (95% interval {100 * low:.0f} to "
            f"{100 * high:.0f}%), {judged} the 80% you aimed at"
        )
    return {"hits": hits, "of": total, "share": share, "low95": low, "high95": high, "words": words}
