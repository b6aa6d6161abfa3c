"""Mutations of a folder's files, each determined by the folder and a random generator."""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from lora_lab.methods.io import CONFIG, WEIGHTS

NUMBERS: list[Any] = [0, 1, -1, 2**31, 2**63, 10**17, 10**30, -(10**9), 0.5, 1e308, 1e-320, True]
WORDS: list[Any] = ["", "x", "../../../etc/passwd", "/dev/zero", "a\x00b", "\x1b[2J", "é" * 50, "q" * 30_000, "\ud800"]
PATTERNS: list[Any] = [
    ".*", "(a|b|.|.e|.*)*[X-Z]", "([a-z.]+)+[!]", "(.*)*(.*)*(.*)*$x", "((a{999}){999}){999}", "(?R)?", "(", "[", "\\",
    "(?:.*){e<=5}abc", "x?" * 900, "(" * 900, "(x|)" * 400, ".{0,999}" * 100, "(?P<a>.)(?P=a)*", "(?<=a*)b", "*a*" * 99,
]  # fmt: skip
CONTAINERS: list[Any] = [None, [], {}, [[]], {"": ""}, [None], [1, 2], {"a": {"a": 1}}, ["x"] * 5000, [["x"] * 9] * 9]
HOSTILE = [*NUMBERS, *WORDS, *PATTERNS, *CONTAINERS]
TYPES = ("F32", "F16", "BF16", "F64", "I8", "I64", "F8_E4M3", "BOOL", "U8", "Q4", "", "f32", None, 5)
FIELDS = (
    "rank_pattern", "alpha_pattern", "num_virtual_tokens", "feedforward_modules", "layers_to_transform", "bias",
    "exclude_modules", "encoder_hidden_size", "peft_type", "use_dora", "modules_to_save", "lora_dropout",
)  # fmt: skip


def any_value(random: Random, old: Any = None) -> Any:
    """Return a hostile value, or the old one with a small change."""
    if isinstance(old, int) and random.random() < 0.3:
        return old + random.choice((-1, 1, 7, 10**6))
    if isinstance(old, list) and old and random.random() < 0.3:
        many = old * (3000 if len(old) < 100 else 1)  # repeated twice, this would fill the memory
        return random.choice([old[1:], old * 2, [*old, random.choice(HOSTILE)], many])
    return random.choice(HOSTILE)


# ---- mutations of a file's bytes


def flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    reach = min(random.choice((9, 200, len(changed))), len(changed))
    for _ in range(random.choice((1, 2, 8, 64))):
        changed[random.randrange(reach)] = random.randrange(256)
    return bytes(changed)


def cut(content: bytes, random: Random) -> bytes:
    at = random.randrange(len(content) + 1)
    return random.choice([content[:at], content[at:], content + b"\0" * at, content * 2, b"", content[:7]])


def false_length(content: bytes, random: Random) -> bytes:
    own, any_length = len(content), random.getrandbits(64)
    length = random.choice([0, 1, 7, own, own * 2, 2**31, 2**40, 2**63, 2**64 - 1, any_length])
    return struct.pack("<Q", length) + content[8:]


def not_finite(content: bytes, random: Random) -> bytes:
    start = 8 + int.from_bytes(content[:8], "little")
    at = start + random.randrange((len(content) - start) // 4) * 4
    number = random.choice([b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", b"\xff" * 4, random.randbytes(4)])
    return content[:at] + number + content[at + 4 :]


# ---- mutations of JSON: they change the header or config in place, or return a text to replace it


def in_json(value: Any, random: Random) -> Any:
    """Replace or remove one part of a value."""
    if not isinstance(value, dict | list) or not value or random.random() < 0.1:
        return random.choice(TYPES) if value in TYPES and random.random() < 0.7 else any_value(random, value)
    key = random.choice(list(value)) if isinstance(value, dict) else random.randrange(len(value))
    value[key] = in_json(value[key], random)
    if random.random() < 0.05:
        del value[key]
    return value


def names(header: dict[str, Any], random: Random) -> str | None:
    """Rename, duplicate or remove a tensor, or add ten thousand."""
    key = random.choice([k for k in header if k != "__metadata__"])
    how = random.randrange(5)
    if how == 0:
        return json.dumps(header)[:-1] + f", {json.dumps(key)}: {json.dumps(header[key])}}}"
    if how == 1:
        header |= {f"x.{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(10_000)}
        return None
    entry, prefix = header.pop(key), random.choice(("module.", "../", "base_model.model."))
    if how > 2:
        header[str(random.choice(WORDS)) if how == 3 else prefix + key] = entry
    return None


def metadata(header: dict[str, Any], random: Random) -> None:
    """Change our part of the header, such as the method."""
    own = header.get("__metadata__")
    if not own or "lora_lab" not in own or random.random() < 0.2:
        damaged = {"lora_lab": random.choice(("{", "[]", "[" * 9999, '{"method": 5}'))}
        header["__metadata__"] = random.choice([*HOSTILE, damaged])
        return
    ours = json.loads(own["lora_lab"])
    field = random.choice([*ours["method"], "invented", "name", "hidden", "tokens", "size"])
    ours["method"][field] = any_value(random, ours["method"].get(field))
    own["lora_lab"] = json.dumps(ours)


def options(config: dict[str, Any], random: Random) -> None:
    """Change fields of the config, or add those of other methods."""
    for _ in range(random.choice((1, 1, 2, 5))):
        field = random.choice([*config, *FIELDS])
        config[field] = any_value(random, config.get(field))
        if "pattern" in field and random.random() < 0.7:
            config[field] = {str(random.choice(PATTERNS + WORDS)): random.choice(HOSTILE)}
        if "modules" in field and random.random() < 0.5:
            config[field] = random.choice(PATTERNS)


def replace_json(value: dict[str, Any], random: Random) -> str:
    """Return other or invalid JSON: with NaN, duplicate names, deep nesting or long numbers."""
    old = json.dumps(value)
    return random.choice(
        ["", "{}", "[]", "5", "null", "[" * 200_000, '{"a":' * 50_000, '{"__metadata__":{}}', '{"a":NaN}', "1" * 9999,
         old[:-1] + ', "r": 3}', old.replace("8", "NaN"), old.replace("4", "1e999"), old.replace("4", "9" * 5000),
         " " * 10**6 + old, '{"a": "' + "x" * 10**6 + '"}']
    )  # fmt: skip


# ---- mutations of folders


def other_file(folder: Path, random: Random) -> None:
    """Replace a file with a pickle, a zip, random bytes, a link, a pipe or a folder."""
    place, secret = folder / _any_file(folder, random), folder.parent / "secret"
    place.unlink()
    links = [place, secret, *map(Path, ("/dev/zero", "/dev/stdin", "/etc/passwd", "/proc/self/mem", "/"))]
    random.choice(
        [
            lambda: place.write_bytes(pickle.dumps({"lora_A": [1.0] * random.randrange(999)}, random.randrange(6))),
            lambda: zipfile.ZipFile(place, "w").writestr("archive/data.pkl", pickle.dumps({})),
            lambda: os.mkfifo(place),
            place.mkdir,
            lambda: place.symlink_to(random.choice(links)),
            lambda: place.write_bytes(random.randbytes(random.randrange(5000))),
            lambda: (folder / "adapter_model.bin").write_bytes(pickle.dumps({})),
        ]
    )()


def _any_file(folder: Path, random: Random) -> str:
    return random.choice(sorted(file.name for file in folder.iterdir() if file.is_file()))


Mutation = Callable[[Path, Random], object]


def _bytes(file: str | None, change: Callable[[bytes, Random], bytes]) -> Mutation:
    def changed(folder: Path, random: Random) -> None:
        path = folder / (file or _any_file(folder, random))
        path.write_bytes(change(path.read_bytes(), random))

    return changed


def _json(file: str, change: Callable[[dict[str, Any], Random], Any]) -> Mutation:
    """Change the config or the header of the weights, in place or into the returned text."""

    def in_file(content: bytes, random: Random) -> bytes:
        start = 8 if file == WEIGHTS else 0
        end = 8 + int.from_bytes(content[:8], "little") if start else len(content)
        value = json.loads(content[start:end])
        changed = change(value, random)
        new = (changed if isinstance(changed, str) else json.dumps(value)).encode("utf-8", "surrogatepass")
        return (struct.pack("<Q", len(new)) if start else b"") + new + content[end:]

    return _bytes(file, in_file)


def json_inside(content: bytes, random: Random) -> bytes:
    lines = [content] if content[:2] in (b"{\n", b"{ ") else content.split(b"\n")
    at = random.randrange(len(lines))
    lines[at] = json.dumps(in_json(json.loads(lines[at]), random)).encode()
    return b"\n".join(lines)


def words_inside(content: bytes, random: Random) -> bytes:
    word = str(random.choice([*WORDS, *NUMBERS, *'",\t\n\r\ufeff{=', "[" * 9999]))
    at = random.randrange(len(content) + 1)
    return content[:at] + word.encode("utf-8", "surrogatepass") + content[at:]


FLIP, CUT, OTHER = (3, _bytes(None, flip)), (2, _bytes(None, cut)), (1, other_file)  # weight and mutation
ANYWHERE: dict[str, tuple[int, Mutation]] = {
    "flip": FLIP, "cut": CUT, "json": (12, _bytes(None, json_inside)), "words": (6, _bytes(None, words_inside)),
    "other file": OTHER,
}  # fmt: skip
MUTATIONS: dict[str, tuple[int, Mutation]] = {
    "flip": FLIP, "cut": CUT, "length": (1, _bytes(WEIGHTS, false_length)), "numbers": (1, _bytes(WEIGHTS, not_finite)),
    "entry": (3, _json(WEIGHTS, in_json)), "names": (2, _json(WEIGHTS, names)),
    "metadata": (3, _json(WEIGHTS, metadata)), "header": (1, _json(WEIGHTS, replace_json)),
    "options": (4, _json(CONFIG, options)), "config": (1, _json(CONFIG, replace_json)), "other file": OTHER,
}  # fmt: skip


def mutate(folder: Path, random: Random, mutations: Mapping[str, Any]) -> list[str]:
    """Apply one to three mutations and return their names; those that cannot read a damaged file do nothing.

    "other file" comes last, because no other mutation may write through a link or wait for a pipe.
    """
    weights = [weight for weight, _ in mutations.values()]
    chosen = random.choices(list(mutations), weights, k=random.choice((1, 1, 1, 2, 3)))
    names = sorted(dict.fromkeys(chosen), key="other file".__eq__)
    for name in names:
        with suppress(ValueError, KeyError, TypeError, IndexError, OSError, AttributeError, RecursionError):
            mutations[name][1](folder, random)
    return names
