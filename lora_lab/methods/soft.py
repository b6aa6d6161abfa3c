"""Vectors that train ahead of every row: a soft prompt, one made by a network (P-tuning), or a prefix in every layer.

    prompt    [P | embeddings]              P (tokens, hidden)          Lester et al. 2021, arXiv:2104.08691
    P-tuning  P = mlp(E)                    E (tokens, hidden)          Liu et al. 2021, arXiv:2103.10385
    prefix    [P_K | keys], [P_V | values]  in every layer              Li & Liang 2021, arXiv:2101.00190

None starts as the identity: the model attends to the new vectors at once, so they start small or as real tokens. The
attention mask, labels and positions grow with them. In `model.generate` they enter at the first step; from then on they
are in the cache, and only the mask and the positions account for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Report, one_of, register, whole
from lora_lab.methods.layer_method import Lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from lora_lab.methods import attach, peft
else:
    torch, F = Lazy("torch"), Lazy("torch.nn.functional")
    attach, peft = Lazy("lora_lab.methods.attach"), Lazy("lora_lab.methods.peft")

CACHE = ("cache", "past_key_values")  # the argument for earlier keys and values in transformers, newest name first
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
NO_LABEL = -100  # ignored by cross-entropy

Call = dict[str, Any]  # a model's keyword arguments


class Soft(Method):
    """`tokens` trained vectors ahead of every row, in the model as `model.<place>.prompt`.

    prompt   (tokens, hidden); of a prefix (tokens, layers * 2 * kv_heads * head_dim), a layer's keys before its values.
             PEFT's files hold it as `prompt_embeddings`
    """

    can_pack, place = True, "soft_prompt"
    decisive = ("peft_type", "num_virtual_tokens", "token_dim", "num_layers")
    tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("tokens", self.tokens)

    def start(self, model: Any) -> Mapping[str, Tensor | nn.Module]:
        """The vectors at the start as "prompt", and what else trains. Raises: BadValue where they do not fit."""
        raise NotImplementedError

    def attach(self, model: nn.Module) -> Report:
        config, name = getattr(model, "config", None), type(model).__name__
        if getattr(config, "is_encoder_decoder", False):
            raise BadValue(f"{self.name} needs a model with one stack of layers; use lora on {name}")
        try:
            reads_tokens = config is not None and isinstance(_embeddings(model).weight, torch.Tensor)
        except (AttributeError, NotImplementedError):  # images or sounds go in
            reads_tokens = False
        if not reads_tokens:
            raise BadValue(f"{self.name} needs a transformers model that reads tokens, which {name} does not; use lora")
        return attach.attach_ahead(model, self, self.place, lambda: self.start(model))

    def vectors(self, ahead: Any) -> Tensor:
        """The vectors ahead of each row."""
        return ahead.prompt  # type: ignore[no-any-return]

    def prepend(self, model: Any, call: Call, vectors: Tensor) -> Call:
        """The model's keyword arguments with vectors (rows, tokens, numbers) ahead of each row."""
        tokens, mask = vectors.shape[1], call.get("attention_mask")
        cached = any(call.get(name) is not None and call[name].get_seq_length() for name in CACHE)
        if mask is not None and mask.dim() == 2:  # a mask of more dimensions is the caller's own
            call["attention_mask"] = F.pad(mask, (tokens, 0), value=1)
        if call.get("position_ids") is not None and not (self.name == "prefix" and is_encoder(model)):
            call["position_ids"] = call["position_ids"] + tokens  # of an encoder with a prompt as well, as in PEFT
        if not cached:  # else they have entered, at the first step of generation
            self.enter(model, call, vectors)
        return call

    def enter(self, model: Any, call: Call, vectors: Tensor) -> None:
        """Put vectors (rows, tokens, hidden) ahead of the embeddings in the keyword arguments."""
        tokens, ids, embedded = vectors.shape[1], call.pop("input_ids", None), call.get("inputs_embeds")
        embedded = _embeddings(model)(ids) if embedded is None else embedded  # (rows, length, hidden)
        call["inputs_embeds"] = torch.cat([vectors, embedded], dim=1)
        for name, fill in (("labels", NO_LABEL), ("token_type_ids", 0)):
            given = call.get(name)
            if given is not None and given.shape == embedded.shape[:2]:
                call[name] = F.pad(given, (tokens, 0), value=fill)
        positions = call.get("position_ids")
        if positions is not None:
            before = torch.arange(tokens, device=positions.device).expand(len(positions), -1)
            call["position_ids"] = torch.cat([before, positions], 1)
        if hasattr(model, "score"):  # a causal classifier, which reads the last token and cannot find it without ids
            _pad_left(call)

    # ---- files

    def in_peft(self, model: Any) -> dict[str, Any]:
        """The fields of PEFT's config that are special to this method."""
        heads = getattr(model.config, "num_attention_heads", None)
        return {"token_dim": model.config.hidden_size, "num_attention_heads": heads}

    def to_peft(self, model: Any, report: Report) -> tuple[dict[str, Tensor], dict[str, Any]]:
        with torch.no_grad():
            prompt = self.vectors(getattr(model, self.place))
        return {"prompt_embeddings": prompt, **peft.head_tensors(model, peft.SOFT_PREFIX)}, {
            "peft_type": self.peft_type,
            "num_virtual_tokens": self.tokens,
            "num_transformer_submodules": 1,
            "num_layers": model.config.num_hidden_layers,
            **self.in_peft(model),
            **peft.common_config(model, report),
        }

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module, **options: Any) -> Method:
        if config.get("num_transformer_submodules") not in (None, 1):
            raise BadValue("the adapter was made for a model with two stacks of layers: lora_lab has no prompts for it")
        return cls(tokens=peft.required(config, "num_virtual_tokens"), **options)  # type: ignore[call-arg]

    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        getattr(model, self.place).prompt.data.copy_(tensors["prompt_embeddings"])
        peft.fill_heads(model, tensors, peft.SOFT_PREFIX)


@register
@dataclass(frozen=True)
class PromptTuning(Soft):
    """`tokens` vectors of the model's width, starting as those of real tokens ("vocabulary") or at random.

    Hu et al. call it PreEmbed (section 5.1). Raises: BadValue for an impossible value.
    """

    name, peft_type, may_differ = "prompt", "PROMPT_TUNING", ("init",)

    tokens: int = 20
    init: str = "vocabulary"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("init", self.init, ("vocabulary", "random"))

    def start(self, model: Any) -> Mapping[str, Tensor]:
        embed = _embeddings(model)  # called, for it may scale the rows of its table: Gemma's by sqrt(hidden)
        (known, hidden), device = embed.weight.shape, embed.weight.device
        with torch.no_grad():
            if self.init == "vocabulary":
                return {"prompt": embed(torch.randint(0, known, (self.tokens,), device=device))}
            every = embed(torch.arange(known, device=device))
            return {"prompt": torch.randn(self.tokens, hidden, device=device) * every.float().std()}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module, **options: Any) -> Method:
        init = "random" if config.get("prompt_tuning_init") == "RANDOM" else "vocabulary"
        return super().from_peft(config, model, init=init)


@register
@dataclass(frozen=True)
class PTuning(Soft):
    """`tokens` vectors through a network `hidden` wide, as wide as the model when None.

    E (tokens, d) -> linear (d, h) -> ReLU -> linear (h, h) -> ReLU -> linear (h, d) -> the prompt (tokens, d)

    The network makes the vectors depend on each other. After training only its output is needed: as in PEFT, a file
    holds nothing else. The paper's network begins with an LSTM. Raises: BadValue for an impossible value.
    """

    name, peft_type = "ptuning", "P_TUNING"

    tokens: int = 20
    hidden: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden is not None:
            whole("hidden", self.hidden)

    def start(self, model: Any) -> Mapping[str, Tensor | nn.Module]:
        table, nn = _embeddings(model).weight, torch.nn
        d, where = table.shape[1], {"device": table.device, "dtype": torch.float32}
        h = self.hidden or d
        prompt = torch.randn(self.tokens, d, device=table.device)
        layers = [nn.Linear(*shape, **where) for shape in ((d, h), (h, h), (h, d))]
        return {"prompt": prompt, "encoder": nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])}

    def vectors(self, ahead: Any) -> Tensor:
        if ahead.encoder is not None:
            return ahead.encoder(ahead.prompt)  # type: ignore[no-any-return]
        if ahead.training and torch.is_grad_enabled():
            raise BadValue("a P-tuning file holds no encoder, so it cannot be trained any further: train a new one")
        return ahead.prompt  # type: ignore[no-any-return]

    def attach_empty(self, model: nn.Module) -> Report:
        meta = next(model.parameters()).is_meta  # only counted; else small, for a file holds no network
        return (self if meta else replace(self, hidden=1)).attach(model)

    def fill(self, model: Any, report: Report, tensors: Mapping[str, Tensor]) -> None:
        super().fill(model, report, tensors)
        model.soft_prompt.encoder = None
        model.soft_prompt.prompt.requires_grad_(False)

    def in_peft(self, model: Any) -> dict[str, Any]:
        width = self.hidden or model.config.hidden_size
        return super().in_peft(model) | {"encoder_reparameterization_type": "MLP", "encoder_hidden_size": width}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module, **options: Any) -> Method:
        return super().from_peft(config, model, hidden=config.get("encoder_hidden_size"))


@register
@dataclass(frozen=True)
class PrefixTuning(Soft):
    """`tokens` learned keys and values in front of every layer: layers x tokens x 2 x kv_heads x head_dim numbers.

    The model gets them as if they were earlier tokens', in the cache that generation uses. On a causal model the text's
    positions go on after the prefix, as in PEFT. On an encoder they stay as they are: its first token, which the head
    reads, has learned to stand at position 0. Raises: BadValue for an impossible value.
    """

    name, peft_type, place = "prefix", "PREFIX_TUNING", "soft_prefix"
    retired: ClassVar[Mapping[str, Any]] = {"form": "keys-values"}

    tokens: int = 20

    def start(self, model: Any) -> Mapping[str, Tensor]:
        layers, heads, head_dim = prefix_shape(model)
        shape, device = (layers, self.tokens, 2 * heads * head_dim), next(model.parameters()).device
        small = torch.randn(shape, device=device) * 0.02  # zeros would stay alike, token by token
        return {"prompt": small.transpose(0, 1).flatten(1)}

    def enter(self, model: Any, call: Call, vectors: Tensor) -> None:
        """Put the prefix, (rows, tokens, numbers), into the cache among the keyword arguments."""
        from transformers import DynamicCache

        if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            raise BadValue("checkpointing drops the cache, and the prefix with it: turn checkpointing off")
        layers, heads, head_dim = prefix_shape(model)
        name, encoder = str(_cache_name(model)), is_encoder(model)
        cache = call[name] = call.get(name) or (DynamicCache() if encoder else DynamicCache(config=model.config))
        if encoder:  # nothing in it is a token, and an encoder's positions do not count from it
            cache.get_seq_length = lambda layer_idx=0: 0
        layered = vectors.view(*vectors.shape[:2], layers, 2, heads, head_dim).permute(2, 3, 0, 4, 1, 5)
        for number, layer in enumerate(layered.unbind()):
            cache.update(*layer.unbind(), number)  # keys and values (rows, kv_heads, tokens, head_dim)

    def in_peft(self, model: Any) -> dict[str, Any]:
        _, heads, head_dim = prefix_shape(model)
        width = {"token_dim": heads * head_dim, "encoder_hidden_size": heads * head_dim}
        return {"num_attention_heads": heads, "prefix_projection": False, **width}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module, **options: Any) -> Method:
        if is_encoder(model):
            raise BadValue(
                "PEFT's prefix on an encoder moves the text's positions and lora_lab's does not, so the answers would "
                "differ: train the prefix here, or use this file with PEFT"
            )
        return super().from_peft(config, model)


def prefix_shape(model: Any) -> tuple[int, int, int]:
    """(layers, kv_heads, head_dim). Raises: BadValue for a model whose layers take no keys and values."""
    config = model.config
    heads = getattr(config, "num_attention_heads", None)
    if _cache_name(model) is None or getattr(config, "kv_lora_rank", None) or not heads:
        raise BadValue(f"{type(model).__name__} accepts no keys and values as input; use prompt tuning")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    one = getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False)  # Falcon's
    return config.num_hidden_layers, 1 if one else getattr(config, "num_key_value_heads", None) or heads, head_dim


def is_encoder(model: Any) -> bool:
    """Whether the model's tokens attend to later ones too."""
    return model.config.model_type in ENCODERS and not getattr(model.config, "is_decoder", False)


def _embeddings(model: Any) -> Any:
    return model.get_input_embeddings()


def _cache_name(model: Any) -> str | None:
    """The argument of the model's body for the cache, None when it takes none."""
    known = inspect.signature(type(model.base_model).forward).parameters
    return next((name for name in CACHE if name in known), None)


def _pad_left(call: Call) -> None:
    """Move each row's padding from its end to its beginning, so that its last token is the last of all."""
    mask = call.get("attention_mask")
    if mask is None or mask.dim() != 2:
        return
    order = mask.long().argsort(dim=1, stable=True)  # (rows, length): zeros first
    embedded = call["inputs_embeds"]
    call["inputs_embeds"] = embedded.gather(1, order.unsqueeze(2).expand_as(embedded))
    if call.get("token_type_ids") is not None:
        call["token_type_ids"] = call["token_type_ids"].gather(1, order)
    call["attention_mask"] = mask = mask.gather(1, order)
    call["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)
