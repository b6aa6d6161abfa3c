"""Mutations of a folder's files, each determined by the folder and a random generator."""

import json
import os
import pickle
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

NUMBERS = [0, 1, -1, 2**31, 2**63, 10**17, 10**30, -(10**9), 0.5, 1e308, 1e-320, True]
WORDS = ["", "x", "../../../etc/passwd", "/dev/zero", "a\x00b", "\x1b[2J", "é" * 50, "q" * 30_000, "\ud800"]
PATTERNS = [
    ".*", "(a|b|.|.e|.*)*[X-Z]", "([a-z.]+)+[!]", "(.*)*(.*)*(.*)*$x", "((a{999}){999}){999}", "(?R)?", "(", "[", "\\",
    "(?:.*){e<=5}abc", "x?" * 900, "(" * 900, "(x|)" * 400, ".{0,999}" * 100, "(?P<a>.)(?P=a)*", "(?<=a*)b", "*a*" * 99,
]  # fmt: skip
CONTAINERS = [None, [], {}, [[]], {"": ""}, [None], [1, 2], {"a": {"a": 1}}, ["x"] * 5000, [["x"] * 9] * 9]
HOSTILE = [*NUMBERS, *WORDS, *PATTERNS, *CONTAINERS, *({pattern: 3} for pattern in PATTERNS)]
TYPES = ("F32", "F16", "BF16", "F64", "I8", "I64", "F8_E4M3", "BOOL", "U8", "Q4", "", "f32", None, 5)
FIELDS = (
    "rank_pattern", "alpha_pattern", "num_virtual_tokens", "feedforward_modules", "layers_to_transform", "bias",
    "exclude_modules", "encoder_hidden_size", "peft_type", "use_dora", "modules_to_save", "lora_dropout", "invented",
)  # fmt: skip


def any_value(random, old=None):
    """Return a hostile value, or the old one with a small change."""
    if isinstance(old, int) and random.random() < 0.3:
        return old + random.choice((-1, 1, 7, 10**6))
    if isinstance(old, list) and old and random.random() < 0.3:
        many = old * (3000 if len(old) < 100 else 1)  # repeated twice, this would fill the memory
        return random.choice([old[1:], old * 2, [*old, random.choice(HOSTILE)], many])
    return random.choice(HOSTILE)


def flip(content: bytes, random) -> bytes:
    """Overwrite a few bytes at random, or replace a number with infinity."""
    changed = bytearray(content)
    reach = min(random.choice((9, 200, len(changed))), len(changed))
    for _ in range(random.choice((1, 2, 8, 64))):
        at = random.randrange(reach)
        changed[at] = random.randrange(256)
        if random.random() < 0.1:
            changed[at - at % 4 : at - at % 4 + 4] = b"\x00\x00\x80\x7f"
    return bytes(changed)


def cut(content: bytes, random) -> bytes:
    at = random.randrange(len(content) + 1)
    return random.choice([content[:at], content[at:], content + b"\0" * at, content * 2, b"", content[:7]])


def words_inside(content: bytes, random) -> bytes:
    word = str(random.choice([*WORDS, *NUMBERS, *'",\t\n\r\ufeff{=', "[" * 9999]))
    at = random.randrange(len(content) + 1)
    return content[:at] + word.encode("utf-8", "surrogatepass") + content[at:]


def in_json(value, random):
    """Replace, remove, rename or add one part of a value, at any depth, even in JSON inside a string."""
    if isinstance(value, str) and value.startswith("{"):
        return json.dumps(in_json(json.loads(value), random))
    if not isinstance(value, dict | list) or not value or random.random() < 0.1:
        return random.choice(TYPES) if value in TYPES and random.random() < 0.7 else any_value(random, value)
    key = random.choice(list(value)) if isinstance(value, dict) else random.randrange(len(value))
    for ours in ("__metadata__", "lora_lab", "method"):  # the path to the method in a header of the lab
        if ours in value and random.random() < 0.5:
            key = ours
    how = random.random()
    if how < 0.05:
        del value[key]
    elif how < 0.2 and isinstance(value, dict):
        value[random.choice([*FIELDS, f"module.{key}", "../x"])] = value.pop(key) if how < 0.1 else any_value(random)
    else:
        value[key] = in_json(value[key], random)
    return value


def other_json(value, random) -> str:
    """Return other or invalid JSON: with NaN, duplicate names, ten thousand tensors, deep nesting or long numbers."""
    old, tensor = json.dumps(value), '{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}'
    return random.choice(
        ["", "{}", "[]", "5", "null", "[" * 200_000, '{"a":' * 50_000, '{"__metadata__":{}}', '{"a":NaN}', "1" * 9999,
         f"{old[:-1]}, {old[1:]}", old.replace("8", "NaN"), old.replace("4", "1e999"), old.replace("4", "9" * 5000),
         " " * 10**6 + old, '{"a": "' + "x" * 10**6 + '"}', old[:-1] + f', "x": {tensor}' * 10_000 + "}"]
    )  # fmt: skip


def json_inside(content: bytes, random) -> bytes:
    """Change JSON: all of a file, one of its lines, or the header of a safetensors file."""
    start = 8 if content[7:8] == b"\0" else 0
    end = start + int.from_bytes(content[:8], "little") if start else len(content)
    lines = [content[start:end]] if start or content[:2] in (b"{\n", b"{ ") else content.split(b"\n")
    at = random.randrange(len(lines))
    value = json.loads(lines[at])
    changed = other_json(value, random) if random.random() < 0.1 else json.dumps(in_json(value, random))
    lines[at] = changed.encode("utf-8", "surrogatepass")
    new = b"\n".join(lines)
    return (struct.pack("<Q", len(new)) if start else b"") + new + content[end:]


def other_file(path: Path, random) -> None:
    links = [path, path.parents[1] / "secret", *map(Path, ("/dev/zero", "/dev/stdin", "/etc/passwd", "/proc/self/mem"))]
    path.unlink()
    makers = [
        lambda: path.write_bytes(pickle.dumps({"lora_A": [1.0] * random.randrange(999)}, random.randrange(6))),
        lambda: zipfile.ZipFile(path, "w").writestr("archive/data.pkl", pickle.dumps({})),
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: path.symlink_to(random.choice(links)),
        lambda: path.write_bytes(random.randbytes(random.randrange(5000))),
        lambda: path.with_name("adapter_model.bin").write_bytes(pickle.dumps({})),
    ]
    random.choice(makers)()


WEIGHTS = {flip: 3, cut: 2, json_inside: 16, words_inside: 3, other_file: 1}


def mutate(folder: Path, random) -> list[str]:
    """Apply one to three mutations and return their names; mutations that cannot read a damaged file do nothing.

    `other_file` comes last, because no other mutation may write through a link or wait for a pipe.
    """
    chosen = random.choices(list(WEIGHTS), [*WEIGHTS.values()], k=random.choice((1, 1, 1, 2, 3)))
    mutations = sorted(dict.fromkeys(chosen), key=lambda mutation: mutation is other_file)
    for mutation in mutations:
        path = random.choice(sorted(file for file in folder.iterdir() if file.is_file()))
        with suppress(ValueError, KeyError, TypeError, IndexError, OSError, AttributeError, RecursionError):
            if mutation is other_file:
                other_file(path, random)
            else:
                path.write_bytes(mutation(path.read_bytes(), random))
    return [mutation.__name__ for mutation in mutations]
