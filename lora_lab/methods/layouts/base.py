"""What a layout of adapter files is, and what all of them write alike: the head, and the base's name."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.methods.attach import adapter_layers
from lora_lab.methods.base import Method, Report
from lora_lab.methods.heads import TrainedCopy
from lora_lab.methods.targets import HEADS

PREFIX = "base_model.model."
# What a config of PEFT may say without a word: each is read here, refused where we do not compute it, or of no weight.
_OPTIONS = """
    alora_invocation_tokens alpha_pattern arrow_config auto_mapping base_model_name_or_path bias corda_config
    encoder_dropout encoder_hidden_size encoder_num_layers encoder_reparameterization_type ensure_weight_tying
    eva_config exclude_modules fan_in_fan_out feedforward_modules inference_mode init_ia3_weights
    init_lora_weights init_weights kasa_config layer_replication layers_pattern layers_to_transform loftq_config
    lora_alpha lora_bias lora_dropout lora_ga_config megatron_config megatron_core modules_to_save
    monteclora_config num_attention_heads num_layers num_transformer_submodules num_virtual_tokens peft_type
    peft_version prefix_projection prompt_tuning_init prompt_tuning_init_text qalora_group_size r rank_pattern
    revision runtime_config target_modules target_parameters task_type token_dim tokenizer_kwargs
    tokenizer_name_or_path trainable_token_indices use_bdlora use_dora use_qalora use_rslora velora_config
    d_initial init_v_bound projection_prng_key projection_seed save_projection tinylora_dropout u
    vera_dropout weight_tying
"""
KNOWN = frozenset(_OPTIONS.split())


class Layout(Protocol):
    """How an attached method becomes a file and a file an attached method. Subclass it.

    peft_types   values of peft_type in adapter_config.json that it reads
    decisive     fields of the config that must say what our own header says, where there is one
    """

    peft_types: tuple[str, ...]
    decisive: tuple[str, ...] = ("peft_type",)

    def tensors(self, model: nn.Module, report: Report) -> dict[str, Tensor]:
        """What the file holds, by key, of a model that carries the method."""
        ...

    def config(self, model: nn.Module, report: Report) -> dict[str, Any]:
        """adapter_config.json."""
        ...

    def method(self, config: Mapping[str, Any], model: nn.Module) -> Method:
        """The method of a PEFT file, which has no header of ours. Raises: BadValue, NotFound for what does not fit."""
        ...

    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        """Put the file's numbers into a model to which the method is attached."""
        ...

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises BadValue for a config that says what this method does not compute."""
        return

    def attach(self, method: Method, model: nn.Module) -> Report:
        """Attach a method that was trained already, to be filled from its file."""
        return method.attach(model)

    def lighter(self, method: Method) -> Method:
        """The method without what no file holds, and what a loaded one therefore does not need."""
        return method

    def copies(self, report: Report) -> set[str]:
        """Keys under which PEFT may write a frozen weight beside the adapter."""
        return set()

    def check_copies(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        """Raises: BadValue where such a weight is not the base's own."""
        return


def by_module(model: nn.Module, kind: Any) -> dict[str, list[Any]]:
    """The adapted layers of a kind around each module: more than one where it is a fused one."""
    found: dict[str, list[Any]] = {}
    for name, layer in adapter_layers(model):
        if isinstance(layer, kind):
            found.setdefault(name.replace(".base_layer", ""), []).append(layer)
    return found


def head_tensors(model: nn.Module, prefix: str = PREFIX) -> dict[str, Tensor]:
    """The trained copies of the heads, by key."""
    found: dict[str, Tensor] = {}
    for name, head in adapter_layers(model):
        if isinstance(head, TrainedCopy):
            found |= {f"{prefix}{name}.{key}": value for key, value in head.trained.state_dict().items()}
    return found


@torch.no_grad()
def fill_heads(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str = PREFIX) -> None:
    """The inverse of `head_tensors`; a head that the file leaves to the base stays as the base has it."""
    for key, value in head_tensors(model, prefix).items():
        if key in tensors:
            value.copy_(tensors[key])


def head_prefixes(head: str) -> tuple[str, str]:
    """How the keys of a head begin: in most files, and in those of prompts and prefixes."""
    return f"{PREFIX}{head}.", f"base_model.{head}."


def check_saved(config: Mapping[str, Any]) -> None:
    """Raises BadValue for a config that says that something else than a head was trained as a whole."""
    others = [name for name in config.get("modules_to_save") or () if name.split(".")[0] not in HEADS]
    if others:
        said = f"the adapter was trained with modules_to_save={others}, which lora_lab does not train"
        raise BadValue(f"{said}: merge it in PEFT first")


def left_to_base(config: Mapping[str, Any], report: Report, keys: Iterable[str], there: Container[str]) -> set[str]:
    """Those of the keys that belong to a head of which a file of PEFT's brings nothing, nor says that it would.

    So it is after training on a finished classifier: with no task_type PEFT saves the head only where it is told to.
    """
    saved = tuple(config.get("modules_to_save") or ())
    left: set[str] = set()
    for name in (name for name, _ in report.heads if not name.endswith(saved)):
        own = {key for key in keys if key.startswith(head_prefixes(name))}
        left |= own if not any(key in there for key in own) else set()
    return left


def common_config(model: nn.Module, report: Report) -> dict[str, Any]:
    """What every config says: the kind of task, the heads, the name of the base."""
    heads, task = [name for name, _ in report.heads], _task_type(model, report)
    usual = ["classifier", "score"] if task in ("SEQ_CLS", "TOKEN_CLS") else []  # as PEFT writes it
    return {
        "task_type": task,
        "modules_to_save": list(dict.fromkeys([*heads, *usual])) or None,
        "base_model_name_or_path": getattr(getattr(model, "config", None), "_name_or_path", None) or None,
        "inference_mode": True,
    }


def _task_type(model: nn.Module, report: Report) -> str:
    """PEFT's word for it, which decides the class of transformers that `AutoPeftModel...` takes."""
    name = type(model).__name__
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    if name.endswith("ForConditionalGeneration") and getattr(model.config, "is_encoder_decoder", False):
        return "SEQ_2_SEQ_LM"
    known = {"ForTokenClassification": "TOKEN_CLS", "ForQuestionAnswering": "QUESTION_ANS"}
    other = next((task for ending, task in known.items() if name.endswith(ending)), "SEQ_CLS")
    return other if report.heads else "FEATURE_EXTRACTION"
