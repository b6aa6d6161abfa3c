"""Well-known models by name, and every other way of naming one: a folder, a config.json, a hub id that is cached.

Nothing is downloaded here and no weights are read. `zoo.json` holds each model's config in transformers' own field
names, so an entry can be checked against the config.json that its maker publishes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from lora_lab.accounting.architectures import Architecture
from lora_lab.errors import NotFound, nearest
from lora_lab.files import read_json

ZOO = Path(__file__).with_name("zoo.json")


@cache
def zoo() -> dict[str, dict[str, Any]]:
    """The configs by name; treat them as constants."""
    return read_json(ZOO)


def names() -> list[str]:
    """The names of the zoo, in its order."""
    return list(zoo())


def architecture(model: str | Path, num_labels: int | None = None) -> Architecture:
    """The architecture behind a name of the zoo, a folder, a config.json, or a hub id in the local cache.

    With `num_labels` it is the model for sequence classification, its head included.
    Raises: NotFound, with the nearest names, for anything else; BadValue for a config that cannot be read.
    """
    # Those of the zoo are kept once made: a slider asks for the same one again and again.
    return _named(str(model), num_labels) if str(model) in zoo() else _from_file(str(model), num_labels)


def config(model: str | Path) -> dict[str, Any]:
    """The config behind what `architecture` takes, as in its config.json. Raises: as `architecture`."""
    return zoo()[str(model)] if str(model) in zoo() else read_json(_config_file(str(model)))


@cache
def _named(name: str, num_labels: int | None) -> Architecture:
    return Architecture.from_config(zoo()[name], name, num_labels)


def _from_file(model: str, num_labels: int | None) -> Architecture:
    path = _config_file(model)
    name = path.parent.name if model == str(path) else model.rstrip("/").rsplit("/", 1)[-1]
    return Architecture.from_config(read_json(path), name, num_labels)


def _config_file(model: str) -> Path:
    try:
        given = Path(model).expanduser()
        if given.is_file():
            return given
        if (given / "config.json").is_file():
            return given / "config.json"
        folder = given.is_dir()
    except (OSError, RuntimeError, ValueError):  # too long, of a user unknown here, or with a zero in it: no path
        folder = False
    if folder:
        raise NotFound(f"the folder {model} holds no config.json; give the folder of a model")
    cached = _in_hub_cache(model)
    if cached is None:
        raise NotFound(
            f"no model '{model}': no folder or config.json, no hub id in the local cache, and no name of the zoo; "
            f"nearest there: {nearest(model.lower(), names())}"
        )
    return cached


def _in_hub_cache(model: str) -> Path | None:
    """The cached config.json of a hub id, or None; nothing is asked of the network."""
    from huggingface_hub import try_to_load_from_cache  # 0.1 s, and only here
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except (HFValidationError, OSError, ValueError):  # not the form of a hub id
        return None
    return Path(found) if isinstance(found, str) else None
