"""Report what an adapter folder contains, its faults, and its effect on a base model. The files are not trusted.

    norms:        ||scaling B A||_F of each module and, if a base model is given, its ratio to ||W||_F
    difference:   the largest change of a logit, if a base model is given

||B A||_F^2 = trace((B^T B)(A A^T)) needs only two rank x rank matrices, so the product B A is never computed.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import asdict, dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.adapter_layer import out_by_in
from lora_lab.errors import BadValue, LabError, NotFound
from lora_lab.files import as_path, read_json
from lora_lab.methods import attach
from lora_lab.methods.attach import adapter_layers, answering, own_parameters, plain_path, remove_adapters
from lora_lab.methods.io import CONFIG, OLD_WEIGHTS, WEIGHTS, AdapterFile, known_key, load_adapter, readable
from lora_lab.methods.lora_layers import LoRALayer
from lora_lab.methods.merge import MergeReport, disabled, rounding_of
from lora_lab.methods.peft import Refused, values_by_pattern
from lora_lab.methods.targets import HEADS, PREFIX

HIGH_RANK, LOW_SCALING = 32, 1 / 8  # PEFT's default alpha 8 scales by 1/8 at rank 64; QLoRA uses 16 / 64 on purpose
HALF = (torch.float16, torch.bfloat16)
SMALL = 30  # RMS of B in units of the smallest positive number; below 30, rounding errors (RMS 1 / sqrt(12)) exceed 1%
LOST = 0.5  # fraction of the update that merging into half-precision weights may lose
TOKENS = 12
PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
REMEDIES = read_json(Path(__file__).with_name("remedies.json"))  # {name of a fault: how to fix it}


@dataclass(frozen=True)
class Problem:
    """A fault, its location, the evidence for it, and how to fix it."""

    name: str
    where: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} ({self.where}): {self.why}. {self.remedy[0].upper()}{self.remedy[1:]}."


@dataclass
class Norm:
    """The update of one module: rank, scaling, ||scaling B A||_F and, if a base is given, ||W||_F and the ratio."""

    module: str
    rank: int
    scaling: float
    update: float
    weight: float | None = None
    ratio: float | None = None


@dataclass
class Inspection:
    """The result of an inspection. A field is None if its value is unknown (most fields, if a file is truncated)."""

    adapter: str
    format: str | None = None
    kind: str | None = None
    dtype: str | None = None
    bytes: int | None = None
    rank: int | None = None
    alpha: float | None = None
    scaling: float | None = None
    targets: list[str] | str | None = None
    parameters: int | None = None
    head: int | None = None
    norms: list[Norm] = field(default_factory=list)
    does_something: bool | None = None
    difference: float | None = None
    problems: list[Problem] = field(default_factory=list)

    def add(self, fault: str, where: str, why: str) -> None:
        """Add a problem. `fault` is a key of `REMEDIES`."""
        self.problems.append(Problem(fault, where, why, REMEDIES[fault]))

    def add_error(self, error: LabError, where: str, not_found: str) -> None:
        """Add the fault that caused an error, unless this fault has already been added."""
        fault = not_found if isinstance(error, NotFound) else getattr(error, "fault", "damaged settings")
        if all(problem.name != fault for problem in self.problems):
            self.add(fault, where, str(error))

    def to_json(self) -> dict[str, Any]:
        """Return what `lora-lab inspect --json` prints."""
        return asdict(self)


def inspect_adapter(path: str | Path, model: nn.Module | None = None) -> Inspection:
    """Inspect the adapter in the folder `path` and, if a base model is given, its effect on that model.

    model   A model without an adapter. The model ends up frozen but otherwise unchanged.
            A checkpoint of full fine-tuning overwrites the model's weights, so do not use the model afterwards.
    Raises: NotFound if the folder does not exist or does not contain an adapter; BadValue if the base model has an
    adapter or does not read tokens. The result lists all other faults.
    """
    if not os.path.isdir(folder := as_path(path)):  # unlike Path.is_dir, it raises no PermissionError
        raise NotFound(f"there is no folder {path}; pass the folder that contains adapter_config.json")
    if not any(os.path.lexists(folder / name) for name in (CONFIG, WEIGHTS, OLD_WEIGHTS)):
        hints = [f", such as {config.parent}" for config in sorted(folder.glob(f"*/{CONFIG}"))]
        raise NotFound(f"{path} is not an adapter: it has no {CONFIG}; pass a folder that has one{''.join(hints[:1])}")
    result = Inspection(str(path))
    try:
        with readable(path):
            file = AdapterFile(path)
            config, method = file.config, file.own.get("method")
            kind = method.get("name") if isinstance(method, dict) else config.get("peft_type")
            result.format, result.kind = ("lora_lab" if file.own else "peft"), str(kind)[:40]
            result.dtype, result.bytes = "+".join(sorted(set(file.dtypes.values()))), file.size
            result.head = sum(t.numel() for t in _head_of(file).values())
            result.parameters = sum(t.numel() for t in file.values()) - result.head
            result.targets = config.get("target_modules")
            rank, alpha = config.get("r"), config.get("lora_alpha")
            if type(rank) is int and isinstance(alpha, int | float) and rank > 0:
                result.rank, result.alpha = rank, alpha
                result.scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
            file.check_finite()
            _check_updates(result, file)
    except LabError as error:
        result.add_error(error, WEIGHTS, not_found="tensors missing")
        return result
    if model is not None:
        attach.refuse_adapted(model)  # otherwise, the file would be blamed
        _check_on_base(result, file, model)
    return result


def _head_of(file: AdapterFile) -> dict[str, Tensor]:
    names = "|".join(map(re.escape, (*HEADS, *(file.config.get("modules_to_save") or ()))))
    return {key: t for key, t in file.items() if re.match(rf"(base_model\.(model\.)?)?({names})\.(?!.*\.lora_)", key)}


def _check_updates(result: Inspection, file: AdapterFile) -> None:
    """Add the norm of each update, and the problems that can be found in the tensors alone."""
    if not file.own and (unknown := [key for key in file if not known_key(key)]):
        why = f"PEFT does not recognize {len(unknown)} of {len(file)} keys, for example {unknown[0]}"
        result.add("keys renamed", WEIGHTS, why)
        return
    pairs: dict[str, tuple[Tensor, Tensor]] = {}  # A (rank, in) and B (out, rank) of each module
    alone = {key for key in file if key.endswith((*PAIRS[0], *PAIRS[1]))}
    for key, a in file.items():
        for a_end, b_end in PAIRS:
            b_key = key.removesuffix(a_end) + b_end
            b = file.get(b_key)
            if key.endswith(a_end) and b is not None and a.dim() == b.dim() == 2 and len(a) == b.shape[1]:
                pairs[key.removesuffix(a_end).removeprefix(PREFIX)] = a, b
                alone -= {key, b_key}
    if alone:
        why = f"there is no partner of the same rank for {few(sorted(alone))}: A and B come in pairs"
        result.add("tensors missing", WEIGHTS, why)
    if pairs and result.rank is None:
        found = " and ".join(f"{name} is {str(file.config.get(name))[:40]!r}" for name in ("r", "lora_alpha"))
        result.add("damaged settings", CONFIG, f"{found}: r must be a positive whole number, and lora_alpha a number")
    if not pairs or result.rank is None:
        return
    ranks = values_by_pattern(file.config.get("rank_pattern"), pairs, result.rank)
    alphas = values_by_pattern(file.config.get("alpha_pattern"), pairs, result.alpha)
    zero, rounded = list[str](), list[str]()
    for module, (a, b) in pairs.items():
        info = torch.finfo(b.dtype)  # numbers below tiny are multiples of tiny * eps, the smallest positive number
        scaling = float(alphas[module] / ranks[module] ** (0.5 if file.config.get("use_rslora") else 1.0))
        update = scaling * product_norm(a, b)
        if not math.isfinite(update):
            raise Refused(f"B A overflows in {module}: its values are too large", "NaN or infinity")
        result.norms.append(Norm(module, len(a), scaling, update))
        if not a.any() or not b.any():  # in an embedding's adapter, A starts at zero, not B
            zero.append(module)
        elif b.dtype in HALF and b.double().square().mean().sqrt() < SMALL * info.tiny * info.eps:
            rounded.append(module)
    if len(zero) == len(pairs) and not file.config.get("use_dora"):
        result.does_something = False
        trained = any(tensor.any() for key, tensor in _head_of(file).items() if key.endswith("bias"))
        hint = ", while the head's bias is not: training ran, but no gradient reached the layers" if trained else ""
        why = f"B A is zero in all {len(pairs)} layers{hint}"
        result.add("gradient was cut" if trained else "zero update", "all layers", why)
    elif zero:
        why = f"B A is zero in {len(zero)} of {len(pairs)} layers: no gradient has reached them"
        result.add("B is zero in some layers", few(zero), why)
    if rounded:
        why = f"B is so small that storing it in {result.dtype} changed it by more than 1%"
        result.add("update too small", few(rounded), why)
    if result.rank >= HIGH_RANK and (result.scaling or 1) <= LOW_SCALING:
        why = f"alpha {result.alpha:g} at rank {result.rank} scales B A by {result.scaling:.3g}"
        result.add("default alpha at high rank", CONFIG, why)


def product_norm(a: Tensor, b: Tensor) -> float:
    """Return ||B A||_F for A (rank, in) and B (out, rank), without computing the product B A."""
    a, b = a.double(), b.double()
    return math.sqrt(max(0.0, ((b.T @ b) * (a @ a.T)).sum().item()))


def few(names: list[str]) -> str:
    """Shorten a list of names to the first name and the number of other names."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


# ---- on a base model


@torch.no_grad()
def _check_on_base(result: Inspection, file: AdapterFile, model: nn.Module) -> None:
    """Load the adapter. Add ||W||, the effect on logits, and problems that can be found only with a base model."""
    before = answer_of(model)
    try:
        report = load_adapter(model, file.path)
    except LabError as error:
        if not any(problem.name == "keys renamed" for problem in result.problems):
            result.add_error(error, "on this base", not_found="wrong base")
        return
    try:
        layers = [(path, layer) for path, layer in adapter_layers(model) if isinstance(layer, LoRALayer)]
        after = answer_of(model)
        if not report.method.trains_base:
            with disabled(model, keep_head=not all(part.head for _, part in adapter_layers(model))):
                before = answer_of(model)
        for norm in result.norms:
            norm.weight = out_by_in(model.get_submodule(norm.module)).float().norm().item()
            norm.ratio = norm.update / norm.weight if norm.weight else None
        weights = ((path, layer, layer.frozen_weight()) for path, layer in layers)  # only one at a time is in memory
        rounded = tuple(rounding_of(p, w, w.float() + x.delta_weight()) for p, x, w in weights if w.dtype in HALF)
        if (lost := MergeReport(rounded).rounding) > LOST:
            why = f"merging the adapter into {rounded[0].dtype} weights would lose {lost:.0%} of the update to rounding"
            result.add("update too small", "on this base", why)
        _check_gradients(result, model, layers)
    finally:
        if not report.method.trains_base:
            remove_adapters(model)
    difference = (after[:, -before.shape[1] :] - before).abs().max().item()  # a soft prompt adds positions in front
    if not math.isfinite(difference):
        result.add("NaN or infinity", "on this base", "with the adapter, the base returns NaN or infinity")
        return
    result.difference, result.does_something = difference, difference > 0
    explained = ("zero update", "gradient was cut", "update too small")
    if not (result.does_something or any(problem.name in explained for problem in result.problems)):
        why = "the base returns the same logits with and without the adapter"
        result.add("no effect on this base", "on this base", why)


def answer_of(model: nn.Module) -> Tensor:
    """Return a model's fp32 output for two fixed rows of random tokens: its logits, or else its last hidden states.

    Raises: BadValue if the model does not read tokens.
    """
    config: Any = getattr(model, "config", None)
    if config is None or "input_ids" not in signature(model.forward).parameters:
        raise BadValue(f"this {type(model).__name__} doesn't read tokens: inspect the adapter without a base model")
    vocabulary, generator = config.get_text_config().vocab_size, torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (2, TOKENS), generator=generator).to(next(model.parameters()).device)
    inputs: dict[str, Any] = {"input_ids": ids}
    if getattr(config, "is_encoder_decoder", False):
        eos = config.eos_token_id
        if isinstance(eos, int):  # the classifiers of BART and T5 need exactly one EOS token per row
            ids = torch.where(ids == eos, (eos + 1) % vocabulary, ids)
            ids[:, -1] = eos
        inputs = {"input_ids": ids, "decoder_input_ids": ids}
    if "use_cache" in signature(model.forward).parameters:
        inputs["use_cache"] = False  # RWKV changes its cache in place, so gradients can't be computed
    try:
        with answering(model):  # with dropout, two answers would always differ
            output: Tensor = model(attention_mask=torch.ones_like(ids), **inputs)[0]  # in question answering, starts
    except (LabError, torch.OutOfMemoryError):
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:  # CLIP needs images
        reason = " ".join(str(error).split()).rstrip(".")
        words = f"this {type(model).__name__} does not run on two rows of tokens ({reason})"
        raise BadValue(f"{words}: pass another base model, or inspect the adapter without one") from error
    return output.float()


def _stack_of(path: str) -> str:
    return re.split(r"\.\d+\.", path)[0]


def _check_gradients(result: Inspection, model: nn.Module, layers: list[tuple[str, LoRALayer]]) -> None:
    """Find layers whose adapter receives no gradient from the model's output."""
    trained = [(path, p) for path, layer in layers for _, p in own_parameters(layer) if p.requires_grad]
    if not trained:
        return
    with torch.enable_grad():
        output = answer_of(model)
        weights = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output).sin()
        gradients = torch.autograd.grad((output * weights).sum(), [p for _, p in trained], allow_unused=True)
    reached = {path for (path, _), g in zip(trained, gradients, strict=True) if g is not None and g.any()}
    nonzero = {path for path, p in trained if p.any() and ".experts." not in path}  # an expert may receive no tokens
    config: Any = model.config
    if config.get_text_config() is not config:  # no token reaches the layers for images
        stacks = {_stack_of(path) for path in reached}
        nonzero = {path for path in nonzero if _stack_of(path) in stacks}
    unused = list(dict.fromkeys(plain_path(path) for path, _ in trained if path in nonzero - reached))
    if unused:
        result.problems = [problem for problem in result.problems if problem.name != "B is zero in some layers"]
        why = "the output of the layer does not reach the output of the model, so its adapter cannot learn"
        result.add("layer never used", few(unused), why)
