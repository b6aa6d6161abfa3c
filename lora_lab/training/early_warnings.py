"""Warn at the first step about an unusual learning rate or an adapter without a gradient.

Without these checks, a run can end, hours later, with an adapter that does nothing or outputs noise.
"""

from torch import nn

from lora_lab.methods.attach import adapter_layers, own_parameters, plain_path
from lora_lab.methods.inspect import few
from lora_lab.methods.lora_layers import LoRALayer
from lora_lab.training.recipe import Recipe

# AdamW's learning rates in papers and in our own tuning. USUAL_FEW is for methods that train few parameters, such as
# prompts and biases. For LoRA, Hu et al. 2021 use 2e-4 to 5e-4, QLoRA uses 1e-4 to 2e-4, and our comparison on minilm
# uses 2e-3 on q and v and 5e-4 on all linear layers.
USUAL = {"full": (1e-6, 5e-4), "lora": (1e-5, 1e-2), "bottleneck": (1e-5, 1e-2)}
USUAL_FEW = (1e-4, 5.0)
FACTOR = 3.0  # warn if the rate is outside the range by more than this factor


def rate_warning(recipe: Recipe) -> str | None:
    """Return a warning if the learning rate is outside the usual range by more than a factor of FACTOR, else None."""
    low, high = USUAL.get(recipe.method.name, USUAL_FEW)
    if recipe.method.name == "probe" or low / FACTOR <= recipe.lr <= high * FACTOR:
        return None
    side, end = ("above", "the run may diverge") if recipe.lr > high else ("below", "the run may learn nothing")
    return f"lr {recipe.lr:g} is far {side} the usual range for {recipe.method.name}, {low:g} to {high:g}: {end}"


def gradient_warning(model: nn.Module) -> str | None:
    """Return a warning if, after a backward pass, a LoRA layer has no gradient or only zeros, else None."""
    silent = []
    for path, layer in adapter_layers(model):
        gradients = [p.grad for _, p in own_parameters(layer) if p.requires_grad]
        reached = any(gradient is not None and gradient.any() for gradient in gradients)
        if isinstance(layer, LoRALayer) and gradients and not reached and ".experts." not in path:
            silent.append(plain_path(path))
    if not silent:
        return None
    reason = "the model does not use their outputs, so leave these layers out of the targets"
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        reason = "checkpointing blocks it, so pass use_reentrant=False, or call model.enable_input_require_grads()"
    plural = "s" if len(silent) > 1 else ""
    return f"no gradient reached {len(silent)} adapter{plural} ({few(silent)}), which will not learn: {reason}"
