"""Names of tensors that wrappers left their mark on: which of them mean the same.

base_model.model.<path>.lora_A.weight               as it should be
base_model.model.<path>.lora_A.default.weight       the state_dict of a live PEFT model
module.base_model.model. ...                        DistributedDataParallel; _orig_mod. is torch.compile's
<path>.lora_A.weight                                without PEFT's prefix
<path>.lora_down.weight                             kohya's and diffusers' words for A, lora_up for B
"""

from __future__ import annotations

_MARKS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "default", "base_model", "model")
_WORDS = {"lora_down": "lora_A", "lora_up": "lora_B"}


def known_key(key: str) -> bool:
    """Whether it is a key that PEFT or we could have written."""
    marked = any(part in _MARKS[:5] or part in _WORDS for part in key.split("."))
    return key == "prompt_embeddings" or (key.startswith("base_model.") and not marked)


def plain_key(key: str) -> str:
    """Without any wrapper's mark, so that two names of one tensor are equal."""
    return ".".join(_WORDS.get(part, part) for part in key.split(".") if part not in _MARKS)
