"""What stands ahead of every row and trains: a soft prompt (also one that a network makes), or a prefix.

    prompt    [P | embeddings]            P (tokens, hidden) before the embeddings      Lester et al. 2021, arXiv:2104.08691
    P-tuning  P = mlp(E)                  E (tokens, hidden), and the network, train    Liu et al. 2021, arXiv:2103.10385
    prefix    [P_K | keys], [P_V | values]  in every layer                              Li & Liang 2021, arXiv:2101.00190

None starts as the identity: the model attends to what stands ahead at once, so the starts are small or real tokens.
Attention mask, labels and positions are lengthened with it. Prompts and prefixes see every call of the model: training,
scoring, and each step of `model.generate`. There they enter at the first step alone; from then on they stand in the
cache, and only the mask and the positions still tell of them.
"""  # noqa: E501

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
else:
    torch = Lazy("torch")

PROMPT, PREFIX = "soft_prompt", "soft_prefix"  # their names in the model
CACHE = ("cache", "past_key_values")  # what transformers calls keys and values of earlier tokens, the newest name first
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
NO_LABEL = -100  # what cross-entropy leaves out

Call = dict[str, Any]  # a model's keyword arguments


class Soft(Method):
    """What prompts and prefixes share: `vectors` stand ahead of every row, and are one table in PEFT's files.

    prompt_embeddings    a prompt: (tokens, hidden); of P-tuning the finished vectors alone
                         a prefix: (tokens, layers * 2 * token_dim), a layer's keys before its values;
                         token_dim is kv_heads * head_dim: less than hidden where heads share keys and values
    """

    packs: ClassVar[bool] = True
    decisive: ClassVar[tuple[str, ...]] = ("peft_type", "num_virtual_tokens", "token_dim", "num_layers")
    tokens: int

    def vectors(self, ahead: Any) -> Tensor:
        """What stands ahead of each row."""
        raise NotImplementedError

    def table(self, ahead: Any) -> Tensor:
        """The same as a file has it: (tokens, numbers of one token)."""
        return self.vectors(ahead)

    def fill_table(self, ahead: Any, table: Tensor) -> None:
        """The inverse of `table`."""
        ahead.prompt.copy_(table)

    def shape_in_peft(self, model: Any) -> dict[str, Any]:
        """What PEFT's config says of the table's shape."""
        config = model.config
        return {"token_dim": config.hidden_size, "num_attention_heads": getattr(config, "num_attention_heads", None)}

    def to_peft(self, model: Any, report: Report) -> tuple[dict[str, Tensor], dict[str, Any]]:
        from lora_lab.methods.peft import SOFT_PREFIX, common_config, head_tensors

        with torch.no_grad():
            tensors = {"prompt_embeddings": self.table(_ahead_of(model)), **head_tensors(model, SOFT_PREFIX)}
        return tensors, {
            "peft_type": self.peft_type,
            "num_virtual_tokens": self.tokens,
            "num_transformer_submodules": 1,
            "num_layers": model.config.num_hidden_layers,
            **self.shape_in_peft(model),
            **common_config(model, report),
        }

    @classmethod
    def check_peft(cls, config: Mapping[str, Any]) -> None:
        if config.get("num_transformer_submodules") not in (None, 1):
            raise BadValue("the adapter was made for a model with two stacks of layers, which lora_lab does not prompt")

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> Method:
        if not isinstance(tokens := config.get("num_virtual_tokens"), int):
            raise BadValue("adapter_config.json has no num_virtual_tokens, so its prompt's length is unknown")
        return cls(tokens=tokens, **cls.options_from_peft(config, model))  # type: ignore[call-arg]

    @classmethod
    def options_from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
        """Besides the number of tokens."""
        return {}

    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        from lora_lab.methods.peft import SOFT_PREFIX, fill_heads

        with torch.no_grad():
            self.fill_table(_ahead_of(model), tensors["prompt_embeddings"])
        fill_heads(model, tensors, SOFT_PREFIX)


def _ahead_of(model: Any) -> Any:
    return getattr(model, PREFIX, None) or getattr(model, PROMPT)


class Prompted(Soft):
    """Vectors (tokens, hidden) before the embeddings. As in PEFT, an encoder's first position is then the first one."""

    def prepend(self, model: Any, call: Call, vectors: Tensor) -> Call:
        """The model's keyword arguments with vectors (rows, tokens, hidden) ahead of the embeddings."""
        tokens = vectors.shape[1]
        if _under_way(call):
            _lengthen_mask(call, tokens)
            _move_positions(call, tokens)
            return call
        ids, embedded = call.pop("input_ids", None), call.get("inputs_embeds")
        if embedded is None:
            embedded = model.get_input_embeddings()(ids)  # (rows, tokens, hidden)
        call["inputs_embeds"] = torch.cat([vectors, embedded], dim=1)
        _lengthen_mask(call, tokens)
        for name, fill in (("labels", NO_LABEL), ("token_type_ids", 0)):
            given = call.get(name)
            if given is not None and given.shape == embedded.shape[:2]:
                call[name] = _longer(given, tokens, fill)
        if call.get("position_ids") is not None:
            _move_positions(call, tokens)
            after = call["position_ids"]
            before = torch.arange(tokens, device=after.device).expand(len(after), -1)
            call["position_ids"] = torch.cat([before, after], 1)
        if hasattr(model, "score"):  # a causal classifier, which reads the last token and cannot find it without ids
            _pad_left(call)
        return call


@register
@dataclass(frozen=True)
class PromptTuning(Prompted):
    """`tokens` vectors of the model's width, starting as those of real tokens ("vocabulary") or at random.

    Hu et al. call it PreEmbed (section 5.1). Raises: BadValue for an impossible value.
    """

    name: ClassVar[str] = "prompt"
    peft_type: ClassVar[str] = "PROMPT_TUNING"
    may_differ: ClassVar[tuple[str, ...]] = ("init",)

    tokens: int = 20
    init: str = "vocabulary"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("tokens", self.tokens)
        one_of("init", self.init, ("vocabulary", "random"))

    def attach(self, model: nn.Module) -> Report:
        from lora_lab.methods.attach import attach_ahead

        _refuse_two_stacks(model, "prompt tuning")
        embed: Any = model.get_input_embeddings()  # type: ignore[operator]

        def start() -> Mapping[str, Tensor]:
            # The layer is called, for it may give more than the rows of its table: Gemma's are sqrt(hidden) times it.
            (known, hidden), device = embed.weight.shape, embed.weight.device
            with torch.no_grad():
                if self.init == "vocabulary":
                    return {"prompt": embed(torch.randint(0, known, (self.tokens,), device=device))}
                every = embed(torch.arange(known, device=device))
                return {"prompt": torch.randn(self.tokens, hidden, device=device) * every.float().std()}

        return attach_ahead(model, self, PROMPT, start)

    def vectors(self, ahead: Any) -> Tensor:
        return ahead.prompt  # type: ignore[no-any-return]

    @classmethod
    def options_from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
        return {"init": "random" if config.get("prompt_tuning_init") == "RANDOM" else "vocabulary"}


@register
@dataclass(frozen=True)
class PTuning(Prompted):
    """`tokens` vectors through a network `hidden` wide, as wide as the model when None.

    E (tokens, d) -> linear (d, h) -> ReLU -> linear (h, h) -> ReLU -> linear (h, d) -> the prompt (tokens, d)

    The network makes the vectors depend on each other. After training only its outcome is needed: as in PEFT, that is
    all a file holds. The paper's network begins with an LSTM. Raises: BadValue for an impossible value.
    """

    name: ClassVar[str] = "ptuning"
    peft_type: ClassVar[str] = "P_TUNING"

    tokens: int = 20
    hidden: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("tokens", self.tokens)
        if self.hidden is not None:
            whole("hidden", self.hidden)

    def attach(self, model: nn.Module) -> Report:
        from lora_lab.methods.attach import attach_ahead

        _refuse_two_stacks(model, "P-tuning")
        table: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
        where: Any = {"device": table.device, "dtype": torch.float32}
        d, nn = table.shape[1], torch.nn
        h = self.hidden or d

        def start() -> Mapping[str, Tensor | nn.Module]:
            prompt = torch.randn(self.tokens, d, device=table.device)
            first, second = nn.Linear(d, h, **where), nn.Linear(h, h, **where)
            last = nn.Linear(h, d, **where)
            return {"prompt": prompt, "encoder": nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)}

        return attach_ahead(model, self, PROMPT, start)

    def vectors(self, ahead: Any) -> Tensor:
        if ahead.encoder is not None:
            return ahead.encoder(ahead.prompt)  # type: ignore[no-any-return]
        if ahead.training and torch.is_grad_enabled():
            raise BadValue("a P-tuning file holds no encoder, so it answers and cannot be trained on: train it anew")
        return ahead.prompt  # type: ignore[no-any-return]

    def attach_empty(self, model: nn.Module) -> Report:
        meta = next(model.parameters()).is_meta  # only counted; else small, for a file holds no network
        return (self if meta else replace(self, hidden=1)).attach(model)

    def fill_table(self, ahead: Any, table: Tensor) -> None:
        ahead.encoder = None
        ahead.prompt.copy_(table)
        ahead.prompt.requires_grad_(False)

    def shape_in_peft(self, model: Any) -> dict[str, Any]:
        width = self.hidden or model.config.hidden_size
        own = {"encoder_reparameterization_type": "MLP", "encoder_hidden_size": width}
        return super().shape_in_peft(model) | own

    @classmethod
    def options_from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
        return {"hidden": config.get("encoder_hidden_size")}


@register
@dataclass(frozen=True)
class PrefixTuning(Soft):
    """`tokens` learned keys and values in front of every layer: layers x tokens x 2 x kv_heads x head_dim numbers.

    They are handed to the model as if they were earlier tokens', in the cache that generation uses. On a causal model
    the text's positions go on after the prefix, as in PEFT. On an encoder they stay as they are: its first token, which
    the head reads, has learned to stand at position 0. Raises: BadValue for an impossible value.
    """

    name: ClassVar[str] = "prefix"
    peft_type: ClassVar[str] = "PREFIX_TUNING"
    retired: ClassVar[Mapping[str, Any]] = {"form": "keys-values"}

    tokens: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("tokens", self.tokens)

    def attach(self, model: nn.Module) -> Report:
        from lora_lab.methods.attach import attach_ahead

        _refuse_two_stacks(model, "prefix tuning")
        shape, device = prefix_shape(model, self.tokens), next(model.parameters()).device
        # Small random numbers: zeros would stay alike, token by token.
        return attach_ahead(model, self, PREFIX, lambda: {"keys_values": torch.randn(shape, device=device) * 0.02})

    def vectors(self, ahead: Any) -> Tensor:
        """(layers, tokens, 2, kv_heads, head_dim)."""
        return ahead.keys_values  # type: ignore[no-any-return]

    def table(self, ahead: Any) -> Tensor:
        return self.vectors(ahead).transpose(0, 1).flatten(1)

    def fill_table(self, ahead: Any, table: Tensor) -> None:
        layers, tokens, *layer = ahead.keys_values.shape
        ahead.keys_values.copy_(table.view(tokens, layers, *layer).transpose(0, 1))

    def shape_in_peft(self, model: Any) -> dict[str, Any]:
        *_, heads, size = prefix_shape(model, self.tokens)
        width = heads * size
        own = {"prefix_projection": False, "encoder_hidden_size": width}
        return {"token_dim": width, "num_attention_heads": heads, **own}

    @classmethod
    def options_from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
        if is_encoder(model):
            raise BadValue(
                "PEFT's prefix on an encoder moves the text's positions, lora_lab's does not, so the answers would "
                "differ: train the prefix here, or use this file with PEFT"
            )
        return {}

    def prepend(self, model: Any, call: Call, vectors: Tensor) -> Call:
        """The model's keyword arguments with a cache that holds the prefix, (rows, layers, tokens, 2, heads, dim)."""
        if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            raise BadValue("checkpointing drops the cache, and the prefix with it: leave checkpointing out")
        tokens, encoder = vectors.shape[2], is_encoder(model)
        if not _under_way(call):
            name = str(_cache_name(model))
            cache = call[name] = call.get(name) or _new_cache(model.config, encoder)
            for number, layer in enumerate(vectors.permute(1, 3, 0, 4, 2, 5).unbind()):
                cache.update(*layer.unbind(), number)  # keys and values (rows, kv_heads, tokens, head_dim)
        _lengthen_mask(call, tokens)
        if not encoder:
            _move_positions(call, tokens)
        return call


def prefix_shape(model: Any, tokens: int) -> tuple[int, int, int, int, int]:
    """(layers, tokens, 2, kv_heads, head_dim). Raises: BadValue for a model whose layers take no keys and values."""
    config = model.config
    heads = getattr(config, "num_attention_heads", None)
    if _cache_name(model) is None or getattr(config, "kv_lora_rank", None) or not heads:
        raise BadValue(f"{type(model).__name__} takes no keys and values from outside; use prompt tuning there")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    one = getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False)  # Falcon's
    kv_heads = 1 if one else getattr(config, "num_key_value_heads", None) or heads
    return config.num_hidden_layers, tokens, 2, kv_heads, head_dim


def is_encoder(model: Any) -> bool:
    """Whether the model's tokens attend to later ones too."""
    return model.config.model_type in ENCODERS and not getattr(model.config, "is_decoder", False)


def _cache_name(model: Any) -> str | None:
    """What the model's body calls the cache, None when it takes none."""
    known = inspect.signature(type(model.base_model).forward).parameters
    return next((name for name in CACHE if name in known), None)


def _new_cache(config: Any, encoder: bool) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache() if encoder else DynamicCache(config=config)
    if encoder:  # nothing in it is a token, and an encoder's positions do not count from it
        cache.get_seq_length = lambda layer_idx=0: 0  # type: ignore[method-assign]
    return cache


def _refuse_two_stacks(model: Any, what: str) -> None:
    """Raises BadValue for a model with an encoder and a decoder, and for one without a table of tokens."""
    config, name = getattr(model, "config", None), type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise BadValue(f"{what} is for a model with one stack of layers; use lora on {name}")
    try:
        reads_tokens = config is not None and isinstance(model.get_input_embeddings().weight, torch.Tensor)
    except (AttributeError, NotImplementedError):  # no such method, or pictures or sounds go in
        reads_tokens = False
    if not reads_tokens:
        raise BadValue(f"{what} is for a transformers model that reads tokens, and {name} is none; use lora")


def _under_way(call: Call) -> bool:
    """Whether earlier tokens, and what stands ahead of them, are in the cache already."""
    cache = next((call[name] for name in CACHE if call.get(name) is not None), None)
    return cache is not None and bool(cache.get_seq_length())


def _lengthen_mask(call: Call, tokens: int) -> None:
    mask = call.get("attention_mask")
    if mask is not None and mask.dim() == 2:  # one that says row by row who attends to whom is the caller's own
        call["attention_mask"] = _longer(mask, tokens, 1)


def _move_positions(call: Call, tokens: int) -> None:
    if call.get("position_ids") is not None:
        call["position_ids"] = call["position_ids"] + tokens


def _longer(values: Tensor, by: int, fill: int) -> Tensor:
    """(rows, by + length): `fill` before each row."""
    return torch.cat([values.new_full((len(values), by), fill), values], dim=1)


def _pad_left(call: Call) -> None:
    """Move each row's padding from its end to its beginning, so that its last token is the last of all."""
    mask = call.get("attention_mask")
    if mask is None or mask.dim() != 2:
        return
    length = mask.shape[1]
    last = length - 1 - mask.flip(1).long().argmax(1)  # (rows,): where each row's own tokens end
    places = (torch.arange(length, device=mask.device) + last.unsqueeze(1) + 1) % length  # (rows, length)
    embedded = call["inputs_embeds"]
    call["inputs_embeds"] = embedded.gather(1, places.unsqueeze(2).expand_as(embedded))
    if call.get("token_type_ids") is not None:
        call["token_type_ids"] = call["token_type_ids"].gather(1, places)
    call["attention_mask"] = mask = mask.gather(1, places)
    call["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)
