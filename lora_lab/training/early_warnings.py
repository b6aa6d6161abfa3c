"""What can be seen in the first step already: a rate far from the usual, an adapter that no gradient reaches.

Both end hours later in an adapter that does nothing, or in noise. A warning costs nothing; a loss that is NaN ends the
run at once, see `lane`.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from lora_lab.methods.attach import adapters, own_parameters
from lora_lab.methods.base import Method
from lora_lab.methods.inspect import few
from lora_lab.methods.lora_layers import LoRALayer
from lora_lab.training.recipe import Recipe

USUAL = {"full": (1e-6, 5e-4), "lora": (1e-5, 1e-2), "bottleneck": (1e-5, 1e-2)}
USUAL_FEW = (1e-4, 5.0)
"""Rates with AdamW that papers and our own tunings use, by method; the second for methods that train few numbers, such
as prompts and biases, which need large ones. Hu et al. 2021 use 2e-4 to 5e-4 for LoRA, QLoRA 1e-4 to 2e-4, the
comparison on minilm in `data/results` 2e-3 on q and v and 5e-4 on all linear layers.
"""
FAR = 3.0  # times beyond the range


def usual_rates(method: Method) -> tuple[float, float]:
    """The lowest and the highest rate that is usual for a method."""
    return USUAL.get(method.name, USUAL_FEW)


def rate_warning(recipe: Recipe) -> str | None:
    """A sentence where the rate is more than FAR times outside the usual range, else None."""
    low, high = usual_rates(recipe.method)
    if recipe.method.name == "probe" or low / FAR <= recipe.lr <= high * FAR:
        return None
    side, end = ("above", "it may diverge") if recipe.lr > high else ("below", "it may learn nothing")
    return f"lr {recipe.lr:g} is far {side} what is usual for {recipe.method.name}, {low:g} to {high:g}: {end}"


def gradient_warning(model: nn.Module) -> str | None:
    """A sentence where, after a backward pass, some adapter has no gradient or one that is all zero; else None."""
    gradients = {path: list(_gradients(part)) for path, part in adapters(model)}
    silent = [path for path, found in gradients.items() if found and not any(g is not None and g.any() for g in found)]
    layers = [path for path in silent if isinstance(model.get_submodule(path), LoRALayer) and ".experts." not in path]
    if not layers:
        return None
    why = "leave these layers out of the targets, for the model does not use what they compute"
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        why = "gradient checkpointing cuts it: pass use_reentrant=False, or call model.enable_input_require_grads()"
    places = few([path.replace(".base_layer", "") for path in layers])
    return f"no gradient reached {len(layers)} adapter{'s' * (len(layers) > 1)} ({places}), which will not learn: {why}"


def _gradients(part: nn.Module) -> Iterator[Tensor | None]:
    return (p.grad for _, p in own_parameters(part) if p.requires_grad)  # type: ignore[arg-type]
