"""Trainable vectors in front of every row: a soft prompt, a prompt from a network (P-tuning), or a prefix per layer.

    prompt:     [P | embeddings], where P is (tokens, hidden)            (Lester et al. 2021, arXiv:2104.08691)
    P-tuning:   P = mlp(E), where E is (tokens, hidden)                  (Liu et al. 2021, arXiv:2103.10385)
    prefix:     [P_K | keys] and [P_V | values] in every layer           (Li & Liang 2021, arXiv:2101.00190)

All three methods change the initial output, because the model attends to the new vectors immediately. Therefore, the
vectors start small or as embeddings of tokens. The attention mask, labels and positions are extended to match. In its
first step, `model.generate` adds the vectors to the cache. Later steps only adjust the mask and positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lora_lab.errors import BadValue, warn
from lora_lab.lazy import F, Lazy, Tensor, nn, torch
from lora_lab.methods.base import OURS, Method, attach, peft, register

transformers: Any = Lazy("transformers")
CACHE = ("cache", "past_key_values")  # transformers' argument for cached keys and values, newest name first
# Models whose state is not a cache of keys and values: while generating, they would read a prompt before every token.
STATES = ("falcon_mamba", "mamba", "mamba2", "rwkv", "xlnet", "xlstm")
READERS = ("canine", "deepseek_v4", "esm", "ibert", "longformer")  # models that read more than embeddings
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra")

Call = dict[str, Any]  # a model's keyword arguments


class Soft(Method):
    """Base class for methods with `tokens` trainable vectors in front of every row, stored as `model.<place>.prompt`.

    prompt   The vectors, (tokens, hidden), which PEFT's files call `prompt_embeddings`.
             A prefix is (tokens, layers * 2 * kv_heads * head_dim), with a layer's keys before the layer's values.
    """

    can_pack, place, head_prefix = True, "soft_prompt", "base_model."
    unmergeable = "adds vectors in front of every row, which no weight can represent"
    allowed: ClassVar[Mapping[str, Any]] = {"tokens": 1}
    tokens: int

    @property
    def added_tokens(self) -> int:  # type: ignore[override]  # a class variable in other methods
        return self.tokens

    def start(self, model: Any, to_fill: bool) -> Mapping[str, Any]:
        """Return {name: trainable tensor}, including "prompt". Raises: BadValue if the model does not fit."""
        raise NotImplementedError

    def insert(self, model: Any, to_fill: bool) -> None:
        name, kind = type(model).__name__, getattr(getattr(model, "config", None), "model_type", "")
        per_layer = any(hasattr(module, "embed_tokens_per_layer") for module in model.modules())  # Gemma 3n and 4
        if kind in STATES + READERS or (per_layer and self.name != "prefix"):  # a prefix does not replace token ids
            reason = "cannot generate after a prompt" if kind in STATES else "needs token ids, not only embeddings"
            raise BadValue(f"{name} {reason}, so {self.name} does not fit; use lora")
        if "inputs_embeds" not in inspect.signature(model.forward).parameters:
            raise BadValue(f"{self.name} needs a transformers model with inputs_embeds, which {name} lacks; use lora")
        if model.config.is_encoder_decoder:
            raise BadValue(f"{self.name} does not support encoder-decoder models; use lora on {name}")
        attach.Ahead(self, self.start(model, to_fill)).train(model.training).register(model, self.place)

    def vectors(self, ahead: Any) -> Tensor:
        """Return the vectors to put in front of each row."""
        return ahead.prompt  # type: ignore[no-any-return]

    def prepend(self, model: Any, call: Call, vectors: Tensor) -> Call:
        """Return the model's keyword arguments with the vectors (rows, tokens, width) added in front of each row."""
        tokens, mask = vectors.shape[1], call.get("attention_mask")
        for name in CACHE:
            if type(call.get(name)).__name__ == "StaticCache":
                raise BadValue(f"a static cache has no room for the vectors of {self.name}: use the default cache")
            if getattr(call.get(name), "holds_only_a_prefix", False):  # passed by generate() even if use_cache=False
                call.pop(name)
        cached = max([0, *(call[name].get_seq_length() for name in CACHE if call.get(name) is not None)])
        positions = call.get("position_ids")
        if cached:  # generate may have mistaken the vectors in the cache for tokens of the text
            new = next(call[name] for name in ("input_ids", "inputs_embeds") if call.get(name) is not None)
            length = expected = cached + new.shape[1] - tokens  # of the whole text
            if mask is not None and mask.dim() == 2:
                length = mask.shape[1]
            elif mask is None and positions is not None and positions.dim() == 2:
                length = int(positions[0, -1]) + 1
            if length != expected:
                advice = "to continue a text, pass all of it without past_key_values, and a mask for only its tokens"
                raise BadValue(f"the cache holds {tokens} vectors of {self.name} besides the text: {advice}")
        if mask is not None and mask.dim() == 2:  # the caller is responsible for masks with more dimensions
            call["attention_mask"] = F.pad(mask, (tokens, 0), value=1)
        if positions is not None and not (self.name == "prefix" and is_encoder(model)):
            call["position_ids"] = positions + tokens  # as in PEFT, even for an encoder with a prompt
        if not cached:  # otherwise, the vectors were added at the first step of generation
            self.enter(model, call, vectors)
        return call

    def enter(self, model: Any, call: Call, vectors: Tensor) -> None:
        """Prepend vectors (rows, tokens, hidden) to the embeddings in the keyword arguments."""
        tokens, ids, embedded = vectors.shape[1], call.pop("input_ids", None), call.get("inputs_embeds")
        embedded = model.get_input_embeddings()(ids) if embedded is None else embedded  # (rows, length, hidden)
        call["inputs_embeds"] = torch.cat([vectors, embedded], dim=1)
        for name, fill in (("labels", -100), ("token_type_ids", 0)):  # -100 is ignored by cross-entropy
            values = call.get(name)  # floating-point labels (rows, classes) may have this shape too
            if values is not None and values.shape == embedded.shape[:2] and not values.is_floating_point():
                call[name] = F.pad(values, (tokens, 0), value=fill)
        for name in ("start_positions", "end_positions"):  # the labels in question answering
            if call.get(name) is not None:
                call[name] = call[name] + tokens
        if (positions := call.get("position_ids")) is not None:
            new_positions = torch.arange(tokens, device=positions.device).expand(len(positions), -1)
            call["position_ids"] = torch.cat([new_positions, positions], 1)
        mask = call.get("attention_mask")
        if attach.scores_last_token(model) and mask is not None and mask.dim() == 2:
            # A causal classifier cannot find the last token without ids: move padding to the start of each row.
            order = mask.long().argsort(dim=1, stable=True)  # (rows, length): zeros first
            call["inputs_embeds"] = call["inputs_embeds"].take_along_dim(order.unsqueeze(2), 1)
            if call.get("token_type_ids") is not None:
                call["token_type_ids"] = call["token_type_ids"].gather(1, order)
            call["attention_mask"] = mask = mask.gather(1, order)
            call["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)

    def in_peft(self, model: Any) -> dict[str, Any]:
        """Return the fields of PEFT's config that are specific to this method."""
        width = model.get_input_embeddings().weight.shape[1]
        return {"token_dim": width, "num_attention_heads": attention_heads(model.config.get_text_config())}

    def to_peft(self, model: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
        with torch.no_grad():
            prompt = self.vectors(getattr(model, self.place))
        layers = model.config.get_text_config().num_hidden_layers
        counts = {"num_virtual_tokens": self.tokens, "num_transformer_submodules": 1, "num_layers": layers}
        return {"prompt_embeddings": prompt}, {"peft_type": self.peft_type, **counts, **self.in_peft(model)}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module, **options: Any) -> Method:
        if attach.scores_last_token(model) and cls.name != "prefix":
            warn("padded rows are scored without padding; PEFT reads the last padding token, so its scores may differ")
        if (parts := config.get("num_transformer_submodules") or 1) != 1:
            fix = f"which {cls.name} does not support: train again with num_transformer_submodules=1, or use lora"
            message = f"num_transformer_submodules={parts!r} is for models with an encoder and a decoder, {fix}"
            raise peft.Refused(message, "not supported")
        return cls(tokens=peft.required(config, "num_virtual_tokens"), **options)  # type: ignore[call-arg]


@register
@dataclass(frozen=True)
class PromptTuning(Soft):
    """Train `tokens` input embeddings, initialized from random tokens ("vocabulary") or random numbers ("random").

    Hu et al. call this method PreEmbed (section 5.1). Raises: BadValue for an invalid value.
    """

    name, peft_type, may_differ = "prompt", "PROMPT_TUNING", ("init",)
    allowed: ClassVar[Mapping[str, Any]] = {"tokens": 1, "init": ("vocabulary", "random")}

    tokens: int = 20
    init: str = "vocabulary"

    def start(self, model: Any, to_fill: bool) -> Mapping[str, Tensor]:
        embed = model.get_input_embeddings()  # call the layer, since it may scale its weights (Gemma's by sqrt(hidden))
        (vocabulary, hidden), device = embed.weight.shape, embed.weight.device
        with torch.no_grad():
            if self.init == "vocabulary":
                return {"prompt": embed(torch.randint(0, vocabulary, (self.tokens,), device=device))}
            embeddings = embed(torch.arange(vocabulary, device=device))
            return {"prompt": torch.randn(self.tokens, hidden, device=device) * embeddings.float().std()}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module, **options: Any) -> Method:
        init = "random" if config.get("prompt_tuning_init") == "RANDOM" else "vocabulary"
        return super().from_peft(config, model, init=init)


@register
@dataclass(frozen=True)
class PTuning(Soft):
    """Train `tokens` vectors through a network of width `hidden`, which is the model's own width by default.

    E (tokens, d) -> linear (d, h) -> ReLU -> linear (h, h) -> ReLU -> linear (h, d) -> the prompt (tokens, d)

    The network makes the vectors depend on each other. In the paper, the network begins with an LSTM. Files hold
    only the network's output, as in PEFT: nothing else is needed after training. Raises: BadValue for an invalid value.
    """

    name, peft_type = "ptuning", "P_TUNING"
    allowed: ClassVar[Mapping[str, Any]] = {"tokens": 1, "hidden": 1}

    tokens: int = 20
    hidden: int | None = None

    def start(self, model: Any, to_fill: bool) -> Mapping[str, Any]:
        weight = model.get_input_embeddings().weight
        d, factory = weight.shape[1], {"device": weight.device, "dtype": torch.float32}
        prompt = torch.randn(self.tokens, d, device=weight.device)
        if to_fill:  # files hold the network's output, not the network
            return {"prompt": prompt, "encoder": None}
        h = self.hidden or d
        layers = [nn.Linear(*shape, **factory) for shape in ((d, h), (h, h), (h, d))]
        return {"prompt": prompt, "encoder": nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])}

    def vectors(self, ahead: Any) -> Tensor:
        if ahead.encoder is None and ahead.training and torch.is_grad_enabled():
            raise BadValue("P-tuning files don't hold the network that trained the prompt: train a new adapter")
        return ahead.prompt if ahead.encoder is None else ahead.encoder(ahead.prompt)  # type: ignore[no-any-return]

    def insert(self, model: Any, to_fill: bool) -> None:
        super().insert(model, to_fill)
        model.soft_prompt.prompt.requires_grad_(not to_fill)  # without the network, only the head can be trained

    def in_peft(self, model: Any) -> dict[str, Any]:
        values = {"encoder_reparameterization_type": "MLP", **super().in_peft(model)}
        return values | {"encoder_hidden_size": self.hidden or values["token_dim"]}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module, **options: Any) -> Method:
        return super().from_peft(config, model, hidden=config.get("encoder_hidden_size"))


@register
@dataclass(frozen=True)
class PrefixTuning(Soft):
    """Train `tokens` keys and values in every layer, with layers x tokens x 2 x kv_heads x head_dim parameters in all.

    The model receives the prefix through its generation cache, like the keys and values of earlier tokens. In causal
    models, the text's positions continue after the prefix, as in PEFT. In an encoder, positions are unchanged, because
    the head reads the first token, which was pretrained at position 0. Raises: BadValue for an invalid value.
    """

    name, peft_type, place = "prefix", "PREFIX_TUNING", "soft_prefix"
    added_tokens = 0  # type: ignore[assignment]  # only keys and values
    retired: ClassVar[Mapping[str, Any]] = {"form": "keys-values"}

    tokens: int = 20

    def positions(self, causal: bool) -> int:
        return self.tokens if causal else 0

    def start(self, model: Any, to_fill: bool) -> Mapping[str, Tensor]:
        layers, heads, head_dim, _ = prefix_shape(model)
        if not all(hasattr(layer, "update") for layer in transformers.DynamicCache(config=model.config).layers):
            raise BadValue(f"some layers of {type(model).__name__} cache no keys or values; use prompt tuning")
        shape, device = (layers, self.tokens, 2 * heads * head_dim), next(model.parameters()).device
        small = torch.randn(shape, device=device) * 0.02  # if they started at zero, all tokens would stay equal
        return {"prompt": small.transpose(0, 1).flatten(1)}

    def enter(self, model: Any, call: Call, vectors: Tensor) -> None:
        """Add the prefix (rows, tokens, width) to the cache in the keyword arguments."""
        if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            raise BadValue("gradient checkpointing drops the cache, which holds the prefix: turn checkpointing off")
        layers, heads, head_dim, name = prefix_shape(model)
        encoder = is_encoder(model)
        cache = next((call.pop(key) for key in CACHE if call.get(key) is not None), None)  # an empty cache is falsy
        if cache is None:
            cache = transformers.DynamicCache(config=None if encoder else model.config)
        call[name] = cache
        cache.holds_only_a_prefix = call.get("use_cache") is False
        if encoder:  # an encoder must not offset positions by the length of the cache
            cache.get_seq_length = lambda layer_idx=0: 0
        layered = vectors.view(*vectors.shape[:2], layers, 2, heads, head_dim).permute(2, 3, 0, 4, 1, 5)
        for number, layer in enumerate(layered.unbind()):
            cache.update(*layer.unbind(), number)  # keys and values (rows, kv_heads, tokens, head_dim)

    def in_peft(self, model: Any) -> dict[str, Any]:
        _, heads, head_dim, _ = prefix_shape(model)
        width = {"token_dim": heads * head_dim, "encoder_hidden_size": heads * head_dim}
        kind = OURS if is_encoder(model) else self.peft_type  # in an encoder, PEFT's prefix would shift positions
        return {"peft_type": kind, "num_attention_heads": heads, "prefix_projection": False, **width}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module, **options: Any) -> Method:
        if is_encoder(model):
            message = "in an encoder, PEFT's prefix shifts the text's positions, but lora_lab's does not"
            message += ", so the outputs would differ: train the prefix here, or use this file with PEFT"
            raise peft.Refused(message, "not supported")
        return super().from_peft(config, model)


def prefix_shape(model: Any) -> tuple[int, int, int, str]:
    """Return (layers, kv_heads, head_dim, cache argument). Raises: BadValue if the model accepts no keys or values."""
    config, parameters = model.config, inspect.signature(type(model.base_model).forward).parameters
    cache = next((name for name in CACHE if name in parameters), "")
    heads = attention_heads(config)
    unused = config.model_type in ("flaubert", "megatron-bert", "rembert", "xlm")  # they ignore or misread the cache
    if unused or not cache or not heads or getattr(config, "kv_lora_rank", None):
        raise BadValue(f"{type(model).__name__} does not accept keys and values of a single shape; use prompt tuning")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    mqa = getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False)  # Falcon
    kv_heads = 1 if mqa else getattr(config, "num_key_value_heads", None) or heads
    return config.num_hidden_layers, kv_heads, head_dim, cache


def attention_heads(config: Any) -> int | None:
    """Return the number of attention heads, or None if the config lacks this number or layers may differ."""
    return None if getattr(config, "is_heterogeneous", False) else getattr(config, "num_attention_heads", None)


def is_encoder(model: Any) -> bool:
    """Return whether the model's tokens also attend to later tokens."""
    return model.config.model_type in ENCODERS and not getattr(model.config, "is_decoder", False)
