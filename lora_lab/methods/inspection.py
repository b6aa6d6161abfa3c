"""What is in an adapter's folder, what it does to a base, and what is wrong with it. Nothing in it is trusted.

    norms   ||scaling B A||_F of each module, and its ratio to ||W||_F where the base is there
    does    whether the base answers otherwise with it: the largest difference of a logit

||B A||_F^2 = trace((B^T B)(A A^T)): two products of rank x rank, so that B A itself is never formed.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_lab.errors import LabError, NotFound
from lora_lab.methods import faults
from lora_lab.methods.faults import Inspection, Norm, Problem, Refused, few, problem_of
from lora_lab.methods.io import WEIGHTS, AdapterFile, known_key, readable
from lora_lab.methods.layouts.base import PREFIX
from lora_lab.methods.layouts.lora_config import values_by_pattern
from lora_lab.methods.on_base import effect_of
from lora_lab.methods.targets import HEADS

HIGH_RANK, LOW_SCALING = 32, 1 / 8  # QLoRA's r = 64 with alpha = 16 is a choice; PEFT's alpha = 8 with it is none
HALF = (torch.float16, torch.bfloat16)
ROWS, SAMPLE = 512, 100_000  # of a matrix at a time; numbers that tell how much it was rounded
ROUNDING = 0.01  # of a matrix, relative: fp16 has 0.0002 for ordinary numbers, bf16 0.002


def inspect_adapter(path: str | Path, model: nn.Module | None = None) -> Inspection:
    """Look into the adapter in the folder `path`; with a base model also at what it does to that.

    model   a plain model; it is left as it was, but frozen, and after full fine-tuning's file not to be used further
    Raises: NotFound where there is no such folder. All else that can be wrong is among the problems.
    """
    if not Path(path).is_dir():
        raise NotFound(f"there is no folder {path}; give the one that holds adapter_config.json")
    found = Inspection(str(path))
    try:
        with readable(path):
            file = AdapterFile(path)
            _describe(found, file)
            file.tensors.check_finite()
            _look_at_pairs(found, file)
    except LabError as error:
        found.problems.append(problem_of(error, WEIGHTS))
        return found
    if model is not None:
        effect_of(found, file, model)
    return found


def _describe(found: Inspection, file: AdapterFile) -> None:
    """What the config and the header say."""
    config = file.config
    found.format, found.kind = ("lora_lab" if file.own else "peft"), str(config.get("peft_type"))[:40]
    if file.own and isinstance(file.own.get("method"), dict):
        found.kind = str(file.own["method"].get("name"))[:40]
    found.dtype = "+".join(sorted(set(file.tensors.dtypes.values())))
    found.bytes = file.tensors.size
    counts = {key: math.prod(shape) for key, shape in file.tensors.shapes.items()}
    found.head = sum(count for key, count in counts.items() if is_head(key))
    found.parameters = sum(counts.values()) - found.head
    found.targets = config.get("target_modules")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if isinstance(rank, int) and isinstance(alpha, int | float) and rank > 0:
        found.rank, found.alpha = rank, alpha
        found.scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def is_head(key: str) -> bool:
    """Whether a key is of the task's head."""
    path = key.removeprefix(PREFIX).removeprefix("base_model.")
    return path.split(".")[0] in HEADS and ".lora_" not in path


def _look_at_pairs(found: Inspection, file: AdapterFile) -> None:
    """Norms and what A and B betray by themselves."""
    strange = [key for key in file.tensors if not known_key(key)]
    if strange and not file.own:
        why = f"{len(strange)} of {len(file.tensors)} keys are none that PEFT reads, such as {strange[0]}"
        found.problems.append(Problem(faults.RENAMED, WEIGHTS, why))
        return
    pairs = pairs_in(file)
    if not pairs or found.rank is None:
        return
    scalings = _scalings(file, list(pairs), found)
    zero: list[str] = []
    rounded: list[str] = []
    for module, (first, second) in pairs.items():
        a, b = file.tensors[first], file.tensors[second]
        update = scalings[module] * product_norm(a, b)
        if not math.isfinite(update):
            raise Refused(f"the numbers of {module} are so large that B A overflows", faults.NOT_FINITE)
        found.norms.append(Norm(module, a.shape[0], scalings[module], update))
        if not b.any() or not a.any():
            zero.append(module)
        elif b.dtype in HALF and stored_rounding(b) > ROUNDING:
            rounded.append(module)
    _judge(found, file, zero, rounded)


def _judge(found: Inspection, file: AdapterFile, zero: list[str], rounded: list[str]) -> None:
    """The faults that show in A and B."""
    all_layers = len(found.norms)
    if len(zero) == all_layers and not file.config.get("use_dora"):
        found.does_something = False
        learned = any(file.tensors[key].any() for key in file.tensors if is_head(key) and key.endswith("bias"))
        why = f"B A is zero in all {all_layers} layers"
        if learned:
            why += ", and yet the head has learned: its bias has left zero, so training ran and did not reach them"
        found.problems.append(Problem(faults.CUT if learned else faults.ZERO_B, "all layers", why))
    elif zero:
        why = f"B A is zero in {len(zero)} of {all_layers} layers: no gradient has reached them"
        found.problems.append(Problem(faults.SOME_ZERO, few(zero), why))
    if rounded:
        why = f"the numbers of B are so small that {found.dtype} has rounded them by more than {ROUNDING:.0%}"
        found.problems.append(Problem(faults.ROUNDED, few(rounded), why))
    if (found.rank or 0) >= HIGH_RANK and (found.scaling or 1) <= LOW_SCALING:
        why = f"alpha {found.alpha:g} with rank {found.rank} scales B A by {found.scaling:.3g}"
        found.problems.append(Problem(faults.LOW_ALPHA, "adapter_config.json", why))


def pairs_in(file: AdapterFile) -> dict[str, tuple[str, str]]:
    """The keys of A and B by module; an embedding's A counts as B, for there A starts at zero."""
    found = {}
    for key in file.tensors:
        for a, b in ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B")):
            if key.endswith(a) and key.removesuffix(a) + b in file.tensors:
                module = key.removesuffix(a).removeprefix(PREFIX)
                found[module] = (key, key.removesuffix(a) + b)
    return {m: pair for m, pair in found.items() if _fit(file, *pair)}


def _fit(file: AdapterFile, a: str, b: str) -> bool:
    first, second = file.tensors.shapes[a], file.tensors.shapes[b]
    return len(first) == len(second) == 2 and first[0] == second[1]


def _scalings(file: AdapterFile, modules: list[str], found: Inspection) -> dict[str, float]:
    """What the config multiplies each module's B A by."""
    ranks = values_by_pattern(file.config.get("rank_pattern"), modules, found.rank)
    alphas = values_by_pattern(file.config.get("alpha_pattern"), modules, found.alpha)
    root = 0.5 if file.config.get("use_rslora") else 1.0
    return {m: float(alphas[m] / ranks[m] ** root) for m in modules}


def product_norm(a: Tensor, b: Tensor) -> float:
    """||B A||_F of A (rank, in) and B (out, rank), without forming B A."""
    return math.sqrt(max(0.0, (_gram(b) * _gram(a.T)).sum().item()))


def _gram(matrix: Tensor) -> Tensor:
    """M^T M of M (n, rank), (rank, rank) in fp64, some rows at a time: a copy of all of M in fp64 would be twice M."""
    pieces = (part.double() for part in matrix.split(ROWS))
    return sum((piece.T @ piece for piece in pieces), torch.zeros((), dtype=torch.float64))


def stored_rounding(values: Tensor) -> float:
    """By how much the dtype of these numbers has rounded them, relative to their size: a root mean square.

    A number x lies between multiples of the spacing s(x) = eps 2^floor(log2 |x|), which stops shrinking at the smallest
    normal number; rounding to the nearest is off by s / sqrt(12) in the mean.
    """
    every = max(1, values.numel() // SAMPLE)
    info, x = torch.finfo(values.dtype), values.flatten()[::every].double().abs()
    spacing = info.eps * torch.exp2(torch.floor(torch.log2(x.clamp(min=info.tiny))))
    return math.sqrt((spacing**2).mean().item() / 12 / max((x**2).mean().item(), 1e-300))
