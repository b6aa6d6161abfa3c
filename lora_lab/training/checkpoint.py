"""Checkpoints of packs in training, from which an interrupted sweep resumes.

    STORE/unfinished/NAME.safetensors    # each member's trained tensors, AdamW's moments, `right`, and the random state
                                         # the JSON header holds the step, and each member's recipe, history and status

Nothing is pickled. The order of the data isn't stored, since it follows from the seed and the step.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from lora_lab.errors import BadValue, in_a_sentence, warn
from lora_lab.files import write_atomically
from lora_lab.training import device
from lora_lab.training.member import MOMENTS
from lora_lab.training.pack import Pack
from lora_lab.training.recipe import Recipe, recipe_from
from lora_lab.training.runs import FINISHED, dtype_of
from lora_lab.training.tasks import check_unchanged

FOLDER = "unfinished"
VERSION = 3
FACTS = ("history", "status", "error", "best", "since", "warnings")


@dataclass(frozen=True)
class Unfinished:
    path: Path
    step: int
    recipes: tuple[Recipe, ...]


def path_of(store: Path, recipes: Sequence[Recipe]) -> Path:
    """Return the path of the checkpoint for these recipes."""
    name = sha256(" ".join(recipe.hash for recipe in recipes).encode()).hexdigest()[:12]
    return store / FOLDER / f"{name}.safetensors"


def unfinished(store: Path) -> list[Unfinished]:
    """List the checkpoints; rename unusable files and warn about them. Raises: BadValue if a file cannot be read."""
    checkpoints = []
    for file in sorted((store / FOLDER).glob("*.safetensors")):
        try:
            try:
                header = _header(file)
                if header["version"] != VERSION:
                    raise ValueError(f"it has version {header['version']}, not {VERSION}")
                recipes = tuple(recipe_from(member["recipe"]) for member in header["members"])
                checkpoints.append(Unfinished(file, header["step"], recipes))
            except (SafetensorError, KeyError, TypeError, ValueError) as error:
                kept = file.rename(file.with_suffix(f".unreadable{time.time_ns()}"))
                problem = f"the checkpoint {file} cannot be used ({in_a_sentence(error)})"
                warn(f"{problem}: the file is kept as {kept.name}, and its runs start over")
        except FileNotFoundError:  # another sweep just finished or renamed it
            continue
        except OSError as error:
            message = f"the checkpoint {file} cannot be read or renamed ({error}): try again, or move it elsewhere"
            raise BadValue(message) from error
    return checkpoints


def write(pack: Pack, path: Path) -> None:
    """Write what the pack's members need to resume. Raises: BadValue if the checkpoint cannot be written."""
    tensors, members = {"random": device.module_of(pack.device).get_rng_state()}, []
    for member in pack.members:
        for name, values in {"": member.trained, **member.state()}.items():
            tensors |= {f"{member.recipe.hash}.{n}.{name}": t.detach().cpu().contiguous() for n, t in enumerate(values)}
        if member.right is not None:
            tensors[f"{member.recipe.hash}.right"] = torch.from_numpy(member.right)
        record = {"hash": member.recipe.hash, "recipe": member.recipe.settings()}
        members.append(record | {name: getattr(member, name) for name in FACTS})
    header = {"version": VERSION, "step": pack.step, "members": members, "peak_bytes": pack.peak_bytes, **pack.files}
    seconds, dtype = time.perf_counter() - pack.started, dtype_of(device.environment(pack.choice))
    write_atomically(path, save(tensors, {"lora_lab": json.dumps(header | {"seconds": seconds, "dtype": dtype})}))


@torch.no_grad()
def restore(pack: Pack, *paths: Path) -> None:
    """Resume a new pack's members, even those with status "stopped" or "behind", from checkpoints at the same step.

    If this machine now computes in another dtype, warn, and add the warning to the runs.
    Raises: BadValue if a member is in no checkpoint, and Changed if the task's file has changed since the checkpoint.
    """
    pending = {member.recipe.hash: member for member in pack.members}
    for path in paths:
        header, tensors = _header(path), load_file(path, backend="pread")  # Windows can't replace a mapped file
        check_unchanged(pack.members[0].recipe, header, pack.fingerprints)
        then, now = header.get("dtype"), dtype_of(device.environment(pack.choice))
        mixed = f"trained in {then} up to step {header['step']}, and then in {now}" if then not in (None, now) else ""
        warn(mixed and f"{path} is resumed in another dtype: {mixed}")
        for record in header["members"]:
            if member := pending.pop(record["hash"], None):
                names = [f"{record['hash']}.{n}." for n in range(len(member.trained))]
                for name, parameter in zip(names, member.trained, strict=True):
                    parameter.copy_(tensors[name])  # in place, since a pack member's parameters are views
                if f"{names[0]}{MOMENTS[0]}" in tensors:
                    moments = {moment: [tensors[name + moment] for name in names] for moment in MOMENTS}
                    member.start_adamw({"step": [tensors[f"{names[0]}step"]], **moments})
                for fact in FACTS:
                    setattr(member, fact, record[fact])
                member.warnings += filter(None, [mixed])
                if (right := tensors.get(f"{record['hash']}.right")) is not None:
                    member.right = right.numpy()
                member.status = member.status if member.status in (*FINISHED, "failed") else "training"
                pack.started -= header.get("seconds", 0.0) / len(header["members"])  # time before the interruption
        pack.step, pack.peak_bytes = header["step"], max(pack.peak_bytes, header["peak_bytes"])
        if tensors["random"].shape == pack.random.shape:  # a CPU's state doesn't fit a GPU's generator
            pack.random = tensors["random"]
    if pending:
        raise BadValue(f"{paths[0]} has no run {min(pending)}: remove the file to start the run over")


def _header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {})["lora_lab"])  # type: ignore[no-any-return]
