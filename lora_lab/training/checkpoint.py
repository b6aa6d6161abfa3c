"""A pack in the middle of its training, on disk: a killed sweep goes on from its last validation.

    STORE/unfinished/NAME.safetensors     each lane's numbers, the optimizer's moments, the random numbers' state;
                                          in the header as JSON: the step, each lane's recipe, history and status,
                                          and what one's own file held

Nothing is pickled. The order of the data follows from seed and step, so it need not be kept.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from lora_lab.errors import BadValue, LabWarning, in_a_sentence
from lora_lab.files import write_atomically
from lora_lab.training.lane import Lane
from lora_lab.training.own_file import check_unchanged
from lora_lab.training.pack import Pack
from lora_lab.training.recipe import Recipe, recipe_from

FOLDER = "unfinished"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Unfinished:
    """A checkpoint as its header tells of it, without its tensors."""

    path: Path
    step: int
    recipes: tuple[Recipe, ...]


def path_of(store: Path, recipes: Sequence[Recipe]) -> Path:
    """Where the checkpoint of these recipes lies."""
    name = sha256(" ".join(recipe.hash for recipe in recipes).encode()).hexdigest()[:12]
    return store / FOLDER / f"{name}.safetensors"


def unfinished(store: Path) -> list[Unfinished]:
    """Every checkpoint that can be read; one that is damaged or of a newer version is renamed, with a warning.

    Raises: BadValue where the disk does not give one up, or does not let it be renamed; it stays as it is.
    """
    found = []
    for file in sorted((store / FOLDER).glob("*.safetensors")):
        try:
            header = _header(file)
            found.append(Unfinished(file, header["step"], tuple(recipe_from(one["recipe"]) for one in header["lanes"])))
        except FileNotFoundError:
            continue  # another sweep of this store has just finished it
        except OSError as error:
            raise BadValue(f"cannot read the checkpoint {file} ({error}): try again, or move it away") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            why = in_a_sentence(error)
            try:
                aside = _set_aside(file)
            except FileNotFoundError:
                continue  # another sweep has just set it aside
            except OSError as refused:
                said = f"the checkpoint {file} cannot be used ({why}), nor renamed ({refused}): move it away"
                raise BadValue(said) from refused
            said = f"the checkpoint {file} cannot be used ({why}): it is kept as {aside.name}, and its runs begin anew"
            warnings.warn(said, LabWarning, stacklevel=2)
    return found


def forget(store: Path, recipes: Sequence[Recipe]) -> None:
    """Take away the checkpoints in which these runs are: all of them have ended."""
    for one in unfinished(store):
        if set(one.recipes) & set(recipes):
            one.path.unlink(missing_ok=True)


def _set_aside(file: Path) -> Path:
    """Rename a checkpoint so that no sweep looks at it, and none that was set aside earlier is replaced."""
    names = (file.with_suffix(f".unreadable{n or ''}") for n in count())
    aside = next(name for name in names if not name.exists())
    return file.rename(aside)


def write(pack: Pack, path: Path) -> None:
    """Write down everything that the pack's lanes need to go on. Raises: BadValue where it cannot be written."""
    tensors = {f"{lane.recipe.hash}.{name}": t for lane in pack.lanes for name, t in _tensors(lane).items()}
    lanes = [_told(lane) for lane in pack.lanes]
    told = {"step": pack.step, "lanes": lanes, "peak_bytes": pack.peak_bytes, "data": pack.task.data}
    header = json.dumps({**told, "seconds": time.perf_counter() - pack.started})
    write_atomically(path, save(tensors, {"lora_lab": header}))


def restore(pack: Pack, *paths: Path) -> None:
    """Bring the lanes of a pack, laid out anew, to where they were; of several packs all were at the same step.

    Raises: BadValue for a lane that is in none, Changed where one's own file held something else.
    """
    left = {lane.recipe.hash: lane for lane in pack.lanes}
    for path in paths:
        header, tensors = _header(path), load_file(path)
        check_unchanged(pack.task.name, header.get("data"), pack.task.data)
        for told in header["lanes"]:
            if lane := left.pop(told["hash"], None):
                prefix = f"{told['hash']}."
                _set_tensors(lane, {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
                _set_told(lane, told)
                pack.started -= header.get("seconds", 0.0) / len(header["lanes"])  # what it took before counts, too
        pack.step, pack.peak_bytes = header["step"], max(pack.peak_bytes, header["peak_bytes"])
    if left:
        raise BadValue(f"{paths[0]} holds no run {min(left)}: take it away, and the run begins anew")


def _header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads((file.metadata() or {})["lora_lab"])
        return header


def _tensors(lane: Lane) -> dict[str, Tensor]:
    """A lane's numbers by name: its parameters, their moments, its random numbers."""
    found = {"random": lane.stream.state, "updates": lane.updates}
    found |= {f"{number}": parameter.detach() for number, parameter in enumerate(lane.trained)}
    for moment in MOMENTS:
        found |= {f"{number}.{moment}": t for number, t in enumerate(lane.moments(moment))}
    return {name: t.cpu().contiguous() for name, t in found.items()}


@torch.no_grad()
def _set_tensors(lane: Lane, tensors: dict[str, Tensor]) -> None:
    lane.stream.state = tensors["random"]
    for number, parameter in enumerate(lane.trained):
        parameter.copy_(tensors[f"{number}"])  # in place: in a pack it is a view
    if f"0.{MOMENTS[0]}" in tensors:
        numbers = range(len(lane.trained))
        moments = {moment: [tensors[f"{number}.{moment}"] for number in numbers] for moment in MOMENTS}
        lane.set_moments(moments, tensors["updates"].to(lane.trained[0].device))


def _told(lane: Lane) -> dict[str, Any]:
    return {
        "hash": lane.recipe.hash,
        "recipe": lane.recipe.settings(),
        "history": lane.history.columns(),
        "status": lane.status,
        "error": lane.error,
        "best": lane.best,
        "since": lane.since,
    }


def _set_told(lane: Lane, told: dict[str, Any]) -> None:
    lane.history.restore(told["history"], lane.recipe.steps)
    lane.status = "training" if told["status"] == "stopped" else told["status"]
    lane.error, lane.best, lane.since = told["error"], told["best"], told["since"]
