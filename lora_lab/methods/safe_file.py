"""Files from strangers, read so that none of them can hurt: nothing is unpickled, followed outside, or believed.

    8 bytes   length of the header, little-endian
    header    JSON: {"__metadata__": {...}, "<key>": {"dtype": "F32", "shape": [8, 384], "data_offsets": [0, 12288]}}
    numbers   one tensor after the other, no gaps

A safetensors file says how large its tensors are. Here that is held against the file's own size before anything is
allocated, and each tensor is read when it is asked for, so that reading takes the memory of one tensor and MOST.
Source of the layout: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.faults import DAMAGED, EMPTY, NOT_FINITE, OUTSIDE, PICKLE, TRUNCATED, WRONG_DTYPE, Refused
from lora_lab.methods.safe_json import parse_object

MOST = 512 * 1024
"""Bytes of a config, and of a header with no numbers after it: a header may have 1/64 of the file's size more.

A header of 1,120 tensors, rank 8 on every layer of a 70-billion model, has 0.2 MB. As Python's objects it takes about
20 times its bytes, so what is read besides tensors stays near 10 MiB.
"""

LONGEST_NAME = 512
DIMENSIONS = 4
LIKELY = 100_000_000  # bytes of the largest header that the safetensors library reads
CHUNK = 1 << 18  # numbers looked at together
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPES = FLOATS | {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16,
    "I32": torch.int32, "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object from a file of an adapter's folder. Raises: NotFound, BadValue, as `opened` and `parse_object`."""
    with opened(folder, name) as file:
        content = file.read(MOST + 1)
    if len(content) > MOST:
        raise BadValue(f"{folder / name} is larger than {MOST // 1024} KiB, which no config is")
    return parse_object(content, str(folder / name))


def opened(folder: Path, name: str) -> Any:
    """A file of an adapter's folder, open for reading in bytes.

    Raises: NotFound where there is none; BadValue for what is not a plain file (a pipe would wait for ever, a device
    never end) and for a link that leads out of the folder. The hub's cache, where snapshots are links to blobs, is
    let through.
    """
    place = folder / name
    try:
        path = place.resolve(strict=True)
        if not stat.S_ISREG(path.stat().st_mode):
            raise Refused(f"{place} is not a plain file, so it is not read", OUTSIDE)
        if not any(path.is_relative_to(home) for home in _homes(folder)):
            raise Refused(f"{place} is a link that leads out of its folder, to {path}", OUTSIDE)
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
        return os.fdopen(os.open(path, flags), "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{folder} is not an adapter: it holds no {name}") from error
    except (OSError, RuntimeError, ValueError) as error:  # no right to it, links in a circle, a name that is none
        if isinstance(error, BadValue):
            raise
        raise BadValue(f"{place} cannot be read: {error}") from error


def _homes(folder: Path) -> Iterator[Path]:
    """Where a file of the folder may lie: in it, or in the hub cache's MODEL/blobs for MODEL/snapshots/REVISION."""
    home = folder.resolve()
    yield home
    if home.parent.name == "snapshots":
        yield home.parent.parent / "blobs"


@dataclass(frozen=True)
class Entry:
    """What the header says of a tensor: dtype as safetensors names it, shape, and where its bytes begin in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    bytes: int


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file by key; each is read, into memory of its own, when it is asked for.

    entries    what the header says of each; all of it has been held against the file's size
    metadata   the header's own strings
    Raises: NotFound, BadValue as `opened`; BadValue, with the reason, for a file that is not whole or not safetensors.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        with opened(folder, name) as file:
            self.size = os.fstat(file.fileno()).st_size
            try:
                start, header = _header(file, self.size)
                self.metadata = _metadata(header)
                self.entries = {key: _entry(key, told, start) for key, told in header.items()}
                _check_tiled(list(self.entries.values()), start, self.size)
            except ValueError as error:
                fault = error.fault if isinstance(error, Refused) else DAMAGED
                raise Refused(f"{folder / name} is truncated or not a safetensors file: {error}", fault) from error

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {key: entry.shape for key, entry in self.entries.items()}

    def __getitem__(self, key: str) -> Tensor:
        entry = self.entries[key]
        self._check_float(key)
        tensor = torch.empty(entry.shape, dtype=FLOATS[entry.dtype])
        self._fill(tensor, entry.begin)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def check_finite(self) -> None:
        """Raises BadValue for a tensor that holds anything but finite floats. Reads a piece at a time."""
        for key, entry in self.entries.items():
            self._check_float(key)
            size = FLOATS[entry.dtype].itemsize
            for first in range(0, entry.bytes // size, CHUNK):
                piece = torch.empty(min(CHUNK, entry.bytes // size - first), dtype=FLOATS[entry.dtype])
                self._fill(piece, entry.begin + first * size)
                if not piece.isfinite().all():
                    said = f"{self._said(key)} holds {FLOATS[entry.dtype]} values that are no finite numbers"
                    raise Refused(said, NOT_FINITE)

    def _check_float(self, key: str) -> None:
        dtype = self.entries[key].dtype
        if dtype not in FLOATS:
            said = f"{self._said(key)} holds {DTYPES[dtype]} values; adapters are {', '.join(FLOATS)}"
            raise Refused(said, WRONG_DTYPE)

    def _fill(self, tensor: Tensor, begin: int) -> None:
        """Read straight into the tensor's memory; the file is opened anew, so it may have changed since."""
        with opened(self.folder, self.name) as file:
            file.seek(begin)
            room: Any = tensor.reshape(-1).view(torch.uint8).numpy().data
            if file.readinto(room) < len(room):
                raise Refused(f"{self.folder / self.name} became shorter while it was read", TRUNCATED)

    def _said(self, key: str) -> str:
        return f"the adapter in {self.folder}: {key}"


def _header(file: Any, size: int) -> tuple[int, dict[str, Any]]:
    """Where the numbers begin, and the header. Raises: ValueError saying what is wrong."""
    first, then = file.read(8), file.read(1)
    if len(first) < 8:
        raise Refused(f"it has {size} bytes", EMPTY if not size else TRUNCATED)
    pickled = first[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or first[:4] == b"PK\x03\x04"
    if pickled and then != b"{":  # a header of 640 bytes begins with the same two, and then with its brace
        raise Refused("it is a pickle, which could run any program; it was not opened", PICKLE)
    length = int.from_bytes(first, "little")
    if length > size - 8:
        fault = TRUNCATED if length < LIKELY else DAMAGED  # the eight bytes of another kind of file make a huge number
        raise Refused(f"its header would have {length:,} bytes, the whole file has {size:,}", fault)
    if length > MOST + size // 64:
        raise ValueError(f"its header has {length:,} bytes, too much for a file of {size:,}")
    return 8 + length, parse_object((then + file.read(length))[:length], "its header", width=length)


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    """Take the header's own strings out of it."""
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ in its header is not a table of strings")
    return metadata


def _entry(key: str, told: Any, start: int) -> Entry:
    """What the header says of one tensor, if it can be so."""
    if not 0 < len(key) <= LONGEST_NAME or not key.isprintable() or any(part in key for part in ("/", "\\", "..")):
        raise ValueError(f"{key[:60]!r} is no name of a tensor")
    if not isinstance(told, dict) or told.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its header does not give dtype, shape and data_offsets of {key}")
    dtype, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{key} has the unknown dtype {str(dtype)[:20]!r}")
    if not _counts(shape) or len(shape) > DIMENSIONS or 0 in shape:
        raise ValueError(f"{key} has the impossible shape {str(shape)[:60]}")
    if not _counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{key} has the impossible place {str(offsets)[:60]}")
    size = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != size:
        raise ValueError(f"{key} of shape {shape} has {size:,} bytes, its place {offsets[1] - offsets[0]:,}")
    return Entry(dtype, tuple(shape), start + offsets[0], size)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_tiled(entries: list[Entry], start: int, size: int) -> None:
    """Raises ValueError unless the tensors lie one after the other, up to the end of the file."""
    end = start
    for entry in sorted(entries, key=lambda entry: entry.begin):
        if entry.begin != end:
            raise ValueError("its tensors overlap or leave gaps")
        end += entry.bytes
    if not entries:
        raise Refused("it holds no tensor at all", EMPTY)
    if end != size:
        fault = TRUNCATED if end > size else DAMAGED
        raise Refused(f"its header promises {end:,} bytes, the file has {size:,}", fault)
