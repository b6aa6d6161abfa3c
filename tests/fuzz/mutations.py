"""Ways to make an adapter's folder wrong. Each takes the folder and a random generator, and nothing else decides."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from lora_lab.methods.io import CONFIG, WEIGHTS

Mutation = Callable[[Path, Random], None]

NUMBERS: list[Any] = [0, 1, -1, 2**31, 2**63, 10**17, 10**30, -(10**9), 0.5, 1e308, 1e-320, True]
WORDS: list[Any] = ["", "x", "../../../etc/passwd", "/dev/zero", "a\x00b", "\x1b[2J", "é" * 50, "q" * 30_000, "\ud800"]
PATTERNS: list[Any] = [
    ".*", "(a|b|.|.e|.*)*[X-Z]", "([a-z.]+)+[!]", "(.*)*(.*)*(.*)*$x", "((a{999}){999}){999}", "(?R)?", "(", "[", "\\",
    "(?:.*){e<=5}abc", "x?" * 900, "(" * 900, "(x|)" * 400, ".{0,999}" * 100, "(?P<a>.)(?P=a)*", "(?<=a*)b", "*a*" * 99,
]  # fmt: skip
OTHERS: list[Any] = [None, [], {}, [[]], {"": ""}, [None], [1, 2], {"a": {"a": 1}}, ["x"] * 5000, [["x"] * 9] * 9]
HOSTILE = [*NUMBERS, *WORDS, *PATTERNS, *OTHERS]
TYPES = ("F32", "F16", "BF16", "F64", "I8", "I64", "F8_E4M3", "BOOL", "U8", "Q4", "", "f32", None, 5)


def any_value(random: Random, old: Any = None) -> Any:
    """A hostile value, or the old one a little changed."""
    if isinstance(old, int) and random.random() < 0.3:
        return old + random.choice((-1, 1, 7, 10**6))
    if isinstance(old, list) and old and random.random() < 0.3:
        many = old * (3000 if len(old) < 100 else 1)  # not 3000 times 3000: that would fill the fuzz's own memory
        return random.choice([old[1:], old * 2, [*old, random.choice(HOSTILE)], many])
    return random.choice(HOSTILE)


# ---- bytes


def flip(file: str) -> Mutation:
    """Change some bytes, often near the beginning, where the header is."""

    def mutate(folder: Path, random: Random) -> None:
        content = bytearray((folder / file).read_bytes())
        reach = random.choice((9, 200, len(content)))
        for _ in range(random.choice((1, 2, 8, 64)) if content else 0):
            content[random.randrange(min(reach, len(content)))] = random.randrange(256)
        (folder / file).write_bytes(content)

    return mutate


def cut(file: str) -> Mutation:
    """Shorten, lengthen, double, empty."""

    def mutate(folder: Path, random: Random) -> None:
        content = (folder / file).read_bytes()
        at = random.randrange(len(content) + 1)
        (folder / file).write_bytes(
            random.choice([content[:at], content[at:], content + b"\0" * at, content * 2, b"", content[:7]])
        )

    return mutate


def lie_about_length(folder: Path, random: Random) -> None:
    """Another length of the header."""
    content = (folder / WEIGHTS).read_bytes()
    length = random.choice(
        [0, 1, 7, len(content), len(content) * 2, 2**31, 2**40, 2**63, 2**64 - 1, random.getrandbits(64)]
    )
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + content[8:])


def numbers_that_are_none(folder: Path, random: Random) -> None:
    """NaN, infinity or anything, somewhere among the numbers."""
    content = bytearray((folder / WEIGHTS).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    if start + 8 < len(content):
        at = start + random.randrange((len(content) - start) // 4) * 4
        content[at : at + 4] = random.choice(
            [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", b"\xff" * 4, random.randbytes(4)]
        )
        (folder / WEIGHTS).write_bytes(content)


# ---- the header


def header(change: Callable[[dict[str, Any], Random], Any]) -> Mutation:
    """Rewrite the header by a change of its JSON; a change that returns text replaces it by that."""

    def mutate(folder: Path, random: Random) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(content[:8], "little")
        told = json.loads(content[8 : 8 + length])
        text = change(told, random)
        new = (text if isinstance(text, str) else json.dumps(told)).encode("utf-8", "surrogatepass")
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])

    return mutate


def one_entry(told: dict[str, Any], random: Random) -> None:
    """Another dtype, shape or place of a tensor."""
    key = random.choice([k for k in told if k != "__metadata__"])
    entry, field = told[key], random.choice(("dtype", "shape", "data_offsets", "whole"))
    if field == "whole":
        told[key] = random.choice(HOSTILE)
    elif field == "dtype":
        entry["dtype"] = random.choice(TYPES)
    else:
        place = random.randrange(max(1, len(entry[field])))
        values = list(entry[field]) or [1]
        values[place] = any_value(random, values[place])
        entry[field] = random.choice([values, values[::-1], [*values, 1], values * 30, any_value(random)])


def names(told: dict[str, Any], random: Random) -> str | None:
    """Another name of a tensor, one twice, one gone, or ten thousand more."""
    key = random.choice([k for k in told if k != "__metadata__"])
    how = random.randrange(5)
    if how == 0:
        told[str(random.choice(WORDS))] = told.pop(key)
    elif how == 1:
        return json.dumps(told)[:-1] + f", {json.dumps(key)}: {json.dumps(told[key])}}}"
    elif how == 2:
        told.pop(key)
    elif how == 3:
        told |= {f"x.{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(10_000)}
    else:
        told[random.choice(("module.", "../", "base_model.model.")) + key] = told.pop(key)
    return None


def metadata(told: dict[str, Any], random: Random) -> None:
    """What stands in the header beside the tensors: our method, for one."""
    own = told.get("__metadata__")
    if not own or "lora_lab" not in own or random.random() < 0.2:
        told["__metadata__"] = random.choice(
            [*HOSTILE, {"lora_lab": random.choice(("{", "[]", "[" * 9999, '{"method": 5}'))}]
        )
        return
    ours = json.loads(own["lora_lab"])
    method = ours["method"]
    field = random.choice([*method, "invented", "name", "hidden", "tokens", "size"])
    method[field] = any_value(random, method.get(field))
    own["lora_lab"] = json.dumps(ours)


def text(told: dict[str, Any], random: Random) -> str:
    """A header that is some other JSON, or none."""
    return random.choice(
        ["", "{}", "[]", "null", "[" * 100_000, '{"a":' * 20_000, '{"__metadata__":{}}', '{"a":NaN}', "1" * 9999]
    )


# ---- the config


def config(folder: Path, random: Random) -> None:
    """Other values in the config, fields of other methods among them."""
    told = json.loads((folder / CONFIG).read_text())
    more = (
        "rank_pattern", "alpha_pattern", "num_virtual_tokens", "feedforward_modules", "layers_to_transform", "bias",
        "exclude_modules", "encoder_hidden_size", "peft_type", "use_dora", "modules_to_save", "lora_dropout",
    )  # fmt: skip
    for _ in range(random.choice((1, 1, 2, 5))):
        field = random.choice([*told, *more])
        told[field] = any_value(random, told.get(field))
        if "pattern" in field and random.random() < 0.7:
            told[field] = {str(random.choice(PATTERNS + WORDS)): random.choice(HOSTILE)}
        if "modules" in field and random.random() < 0.5:
            told[field] = random.choice(PATTERNS)
    (folder / CONFIG).write_bytes(json.dumps(told).encode())


def config_text(folder: Path, random: Random) -> None:
    """A config that is some other JSON, or none; NaN, names twice, deep or long."""
    old = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(
        random.choice(
            ["", "[]", "5", "null", "[" * 200_000, '{"r":' * 50_000, old[:-1] + ', "r": 3}', old.replace("8", "NaN"),
             old.replace("4", "1e999"), old.replace("4", "9" * 5000), " " * 10**6 + old, '{"a": "' + "x" * 10**6 + '"}']
        )
    )  # fmt: skip


# ---- other files


def other_file(folder: Path, random: Random) -> None:
    """A pickle, a zip, a text, a link, a pipe or a folder in the place of a file."""
    name = random.choice((CONFIG, WEIGHTS))
    (folder / name).unlink()
    how = random.randrange(9)
    if how == 0:
        (folder / name).write_bytes(pickle.dumps({"lora_A": [1.0] * random.randrange(999)}, random.randrange(6)))
    elif how == 1:
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({}))
    elif how == 2:
        os.mkfifo(folder / name)
    elif how == 3:
        (folder / name).mkdir()
    elif how == 4:
        (folder / name).symlink_to(folder / name)
    elif how == 5:
        (folder / name).symlink_to(random.choice(("/dev/zero", "/dev/stdin", "/etc/passwd", "/proc/self/mem", "/")))
    elif how == 6:
        (folder / name).symlink_to(folder.parent / "secret")
    elif how == 7:
        (folder / name).write_bytes(random.randbytes(random.randrange(5000)))
    else:
        (folder / "adapter_model.bin").write_bytes(pickle.dumps({}))


MUTATIONS: dict[str, Mutation] = {
    "flip weights": flip(WEIGHTS),
    "flip config": flip(CONFIG),
    "cut weights": cut(WEIGHTS),
    "cut config": cut(CONFIG),
    "length": lie_about_length,
    "numbers": numbers_that_are_none,
    "entry": header(one_entry),
    "names": header(names),
    "metadata": header(metadata),
    "text": header(text),
    "config": config,
    "config text": config_text,
    "other file": other_file,
}
WEIGHT_OF = {"config": 4, "entry": 3, "metadata": 3, "names": 2, "flip weights": 2}  # the deep ones oftener


def mutate(folder: Path, random: Random) -> list[str]:
    """Make a folder wrong in one to three ways; returns which. One that cannot read its file any more does nothing.

    Another kind of file comes last: none of these may write through a link, or wait for a pipe.
    """
    weights = [WEIGHT_OF.get(name, 1) for name in MUTATIONS]
    chosen = random.choices(list(MUTATIONS), weights, k=random.choice((1, 1, 1, 2, 3)))
    done = sorted(dict.fromkeys(chosen), key=lambda name: name == "other file")
    for name in done:
        try:
            MUTATIONS[name](folder, random)
        except (ValueError, KeyError, TypeError, IndexError, OSError, AttributeError, RecursionError):
            continue  # what an earlier one broke cannot be taken apart any more
    return done
