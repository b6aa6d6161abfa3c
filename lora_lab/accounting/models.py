"""A model's dimensions and every module that holds parameters, read off transformers' own model without any weights.

    config.json  ->  the model on torch's "meta" device (shapes, no numbers)  ->  Architecture
                       model.embed_tokens                  1 x   49152 x  576
                       model.layers.*.self_attn.q_proj    30 x     576 x  576    role q
                       model.layers.*.self_attn.k_proj    30 x     576 x  192    role k
                       ...
                       total 134,515,008

Well-known models have names (`zoo.json` holds their configs, in transformers' field names). Their descriptions ship in
`zoo_modules.json`, written by `python -m lora_lab.accounting.models`, so that looking one up imports no torch. Nothing
is downloaded here, and no weights are read.
"""

from __future__ import annotations

import copy
import gc
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lab.errors import BadValue, NotFound, nearest, printable
from lora_lab.files import read_json
from lora_lab.methods.targets import HEADS, ROLES, Site, roles_of, sites_of_layer, widths_of

if TYPE_CHECKING:
    from torch import Tensor, nn

ZOO = Path(__file__).with_name("zoo.json")
ZOO_MODULES = Path(__file__).with_name("zoo_modules.json")

MOST = 10**4  # layers, or experts in a layer: each is built as an object


@dataclass(frozen=True)
class Module:
    """One kind of module, which occurs `count` times in the model.

    name       transformers' path, with * for the layer's number and a second * for the expert's
    role       q k v o gate up down embed head pooler position norm router other; "q+k+v" for a fused layer
    kind       linear, conv1d (GPT-2's transposed linear), embedding, norm or other
    numbers    the layers that hold it; () outside the layers
    site       whether an adapter can be attached; experts, which share one tensor in transformers 5, take none
    tied       its weight is another module's, counted there
    A norm has in_features 1. Units: features and counts in numbers.
    """

    name: str
    role: str
    kind: str
    in_features: int
    out_features: int
    bias: bool = False
    count: int = 1
    numbers: tuple[int, ...] = ()
    site: bool = True
    tied: bool = False

    @property
    def weight(self) -> int:
        """Numbers in one weight: in x out."""
        return self.in_features * self.out_features

    @property
    def parameters(self) -> int:
        """Numbers in one such module that are its own, with its bias."""
        return (0 if self.tied else self.weight) + self.biases

    @property
    def biases(self) -> int:
        """Numbers in one such module's bias."""
        return self.out_features if self.bias else 0

    @property
    def expert(self) -> bool:
        """Whether it occurs once for each expert of a layer."""
        return self.name.count("*") == 2

    @property
    def in_task_head(self) -> bool:
        """Whether it belongs to the head that a task adds."""
        return self.name.split(".")[0] in HEADS

    @property
    def each(self) -> int:
        """How often it occurs in one layer: the number of experts, or 1."""
        return self.count // max(len(self.numbers), 1)


@dataclass(frozen=True)
class Slot:
    """A site, the module that it is one of, and for how many places it stands: the experts of a layer, else 1."""

    site: Site
    module: Module
    times: int


@dataclass(frozen=True)
class Architecture:
    """The dimensions of a model, and its modules in transformers' order.

    Sizes are counted in numbers: `hidden` and `head_dim` per token, `positions` and `vocabulary` in rows (positions
    0: none are stored or none are said), `experts` per layer (0: dense). `task` is encoder, causal or seq2seq.
    """

    name: str
    model_type: str
    task: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    tied: bool
    experts: int = 0
    experts_per_token: int = 0
    modules: tuple[Module, ...] = ()

    @cached_property
    def total(self) -> int:
        """Parameters of the whole model; tied weights count once."""
        return sum(m.parameters * m.count for m in self.modules)

    @property
    def head_parameters(self) -> int:
        """Parameters of the head that a task added; 0 when no num_labels was given."""
        return sum(m.parameters * m.count for m in self.modules if m.in_task_head)

    def sites(self) -> list[Site]:
        """Every place for an adapter, in the model's order: what `methods.attach.sites_of` finds in the real model."""
        return [slot.site for slot in self.slots if slot.module.site]

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The sites and, as kind "expert", the experts of each layer, which can be counted though not attached to."""
        return tuple(
            Slot(site, module, module.each)
            for path, module in self.paths()
            if (module.site and not module.in_task_head) or module.expert
            for site in sites_of_layer(path, module.in_features, module.out_features, _kind(module), self.widths)
        )

    @property
    def roles(self) -> list[str]:
        """The roles that a target may name on this model, in the usual order; embeddings are left to code."""
        there = {slot.site.role for slot in self.slots}
        return [role for role in ROLES if role in there and role != "embed"]

    @property
    def widths(self) -> dict[str, int]:
        """Outputs of each role in a fused layer, {} where its slices cannot be told apart."""
        return widths_of(self.model_type, self.heads, self.kv_heads, self.head_dim, self.intermediate)

    def paths(self) -> Iterator[tuple[str, Module]]:
        """Every module's path with its layer's number in place, in the model's order; experts keep their own *."""
        for _, stack in groupby(self.modules, key=lambda m: m.name.partition("*")[0] if m.numbers else m.name):
            together = list(stack)
            for number in sorted({n for m in together for n in m.numbers}):
                yield from ((m.name.replace("*", str(number), 1), m) for m in together if number in m.numbers)
            yield from ((m.name, m) for m in together if not m.numbers)

    def to_json(self) -> dict[str, Any]:
        """The description as plain values, what is at its default left out."""
        return _set(self) | {"modules": [_set(m) | _layers(m) for m in self.modules]}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_json`."""
        modules = tuple(Module(**{**m, "numbers": _numbers(m.get("numbers", ()))}) for m in values["modules"])
        return Architecture(**{**values, "modules": modules})


def _set(one: Any) -> dict[str, Any]:
    return {f.name: value for f in fields(one) if (value := getattr(one, f.name)) != f.default}


def _layers(module: Module) -> dict[str, Any]:
    """The numbers of all first n layers as n, others as a list."""
    n = len(module.numbers)
    return {"numbers": n if module.numbers == tuple(range(n)) else list(module.numbers)} if n else {}


def _numbers(written: Any) -> tuple[int, ...]:
    return tuple(range(written) if isinstance(written, int) else written)


def _kind(module: Module) -> str:
    return "expert" if module.expert else "embedding" if module.kind == "embedding" else "linear"


# The zoo, and every other way of naming a model: a folder, a config.json, a hub id that is cached.


@cache
def zoo() -> dict[str, dict[str, Any]]:
    """The configs of well-known models by name; treat them as constants."""
    return read_json(ZOO)


def zoo_names() -> list[str]:
    """The names of the zoo, in its order."""
    return list(zoo())


@cache
def _zoo_modules() -> dict[str, Architecture]:
    return {name: Architecture.from_json(values) for name, values in read_json(ZOO_MODULES).items()}


def architecture_of(model: Any, num_labels: int | None = None) -> Architecture:
    """The architecture of a model that is named, loaded, or described already.

    model   a name of the zoo, a folder, a config.json or its fields, a hub id in the local cache, an `Architecture`, or
            a model of transformers', which is described as it is
    With `num_labels` a named model is the one for sequence classification, its head included.
    Raises: NotFound, with the nearest names, for an unknown name; BadValue for a config that transformers cannot build.
    """
    if isinstance(model, Architecture):
        return model
    if isinstance(model, Mapping):
        return describe(meta_model(model, num_labels), str(model.get("model_type", "")))
    if not isinstance(model, str | Path):
        return describe(model)
    if num_labels is None and str(model) in zoo():
        return _zoo_modules()[str(model)]
    file = None if str(model) in zoo() else _config_file(str(model))
    return _described(str(model), num_labels, file and file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _described(model: str, num_labels: int | None, changed: int | None) -> Architecture:
    """Kept once made: a slider asks for the same one again and again."""
    return describe(meta_model(model, num_labels), _name(model))


def config_of(model: Any) -> dict[str, Any]:
    """The fields of the config of a model that is named or loaded, as in its config.json, or those fields themselves.

    Raises: NotFound for an unknown name; BadValue for a damaged file, and for a model without a config.
    """
    if isinstance(model, Mapping):
        return dict(model)
    if not isinstance(model, str | Path):
        fields: dict[str, Any] = own_config(model).to_dict()
        return fields
    return zoo()[str(model)] if str(model) in zoo() else read_json(_config_file(str(model)))


def _name(model: str) -> str:
    """What a model is called in answers: its folder, or the last part of its hub id."""
    path = Path(model).expanduser()
    return path.parent.name if path.is_file() else model.rstrip("/").rsplit("/", 1)[-1]


def _config_file(model: str) -> Path:
    try:
        given = Path(model).expanduser()
        if given.is_file():
            return given
        if (given / "config.json").is_file():
            return given / "config.json"
        folder = given.is_dir()
    except (OSError, RuntimeError, ValueError):  # too long, of a user unknown here, or with a zero in it: no path
        folder = False
    if folder:
        raise NotFound(f"the folder {model} holds no config.json; give the folder of a model")
    cached = _in_hub_cache(model)
    if cached is None:
        raise NotFound(
            f"no model '{model}': no folder or config.json, no hub id in the local cache, and no name of the zoo; "
            f"nearest there: {nearest(model.lower(), zoo_names())}"
        )
    return cached


def _in_hub_cache(model: str) -> Path | None:
    """The cached config.json of a hub id, or None; nothing is asked of the network."""
    from huggingface_hub import try_to_load_from_cache  # 0.1 s, and only here
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except (HFValidationError, OSError, ValueError):  # not the form of a hub id
        return None
    return Path(found) if isinstance(found, str) else None


# From a config to transformers' model and from any model to its description: both take torch.


def meta_model(model: str | Path | Mapping[str, Any], num_labels: int | None = None) -> nn.Module:
    """transformers' model of a config on the meta device: every shape and no numbers, in a fraction of a second.

    model   a name as in `architecture_of`, or the fields of a config.json
    With `num_labels` a model for sequence classification; else a language model, or an encoder without any head.
    Raises: NotFound for an unknown name; BadValue, in one sentence, for a config that transformers cannot build.
    """
    if isinstance(model, str | Path):
        name, values = _name(str(model)), config_of(model)
    else:
        name, values = "this model", dict(model)
    with _uncollected():
        import torch

        config = known_config(values, name)
        if num_labels is not None:
            if isinstance(num_labels, bool) or not isinstance(num_labels, int) or num_labels < 1:
                raise BadValue(f"num_labels must be a whole number of at least 1, not {num_labels!r}")
            config.num_labels = num_labels
        made = auto_class(config, classify=num_labels is not None)
        with _in_one_sentence(name), torch.device("meta"):
            built: nn.Module = made.from_config(config, attn_implementation="eager")
    return built


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's garbage collector, which takes a quarter of the time that importing transformers takes."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def known_config(values: Mapping[str, Any], name: str = "this model") -> Any:
    """transformers' config object of the fields of a config.json, its defaults filled in.

    Raises: BadValue for a model_type that transformers does not know, and for a value that it refuses.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    family = values.get("model_type")
    if not isinstance(family, str):
        raise BadValue(f"the config of {name} lacks 'model_type', which says how to read the rest")
    family = "gpt2" if family == "gpt3" else family  # the same layers, larger
    if family not in CONFIG_MAPPING:
        known = nearest(family, CONFIG_MAPPING)
        raise BadValue(f"unknown model_type '{family}'; nearest that transformers knows: {known}")
    for field, value in values.items():
        if ("layer" in field or "expert" in field) and isinstance(value, int) and value > MOST:
            raise BadValue(f"'{field}' of {name} must be at most {MOST:,}, not {value:,}: no model has as many")
    own = {key: value for key, value in values.items() if key not in ("model_type", "quantization_config")}
    with _in_one_sentence(name):
        return AutoConfig.for_model(family, **copy.deepcopy(own))


def task_of(config: Any) -> str:
    """seq2seq, causal, or encoder for a model that learned to fill in masked words, or anything else."""
    from transformers.models.auto import modeling_auto as auto

    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    masked = config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "causal" if config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not masked else "encoder"


def auto_class(config: Any, *, classify: bool) -> Any:
    """The class of transformers whose `from_config` builds the model that is counted.

    Raises: BadValue where it has none for sequence classification.
    """
    import transformers

    names = {"seq2seq": "AutoModelForSeq2SeqLM", "causal": "AutoModelForCausalLM"}
    name = "AutoModelForSequenceClassification" if classify else names.get(task_of(config), "AutoModel")
    made = getattr(transformers, name)
    if type(config) in made._model_mapping:
        return made
    if classify:
        kind = config.model_type
        raise BadValue(f"transformers has no model for sequence classification of type '{kind}'; leave num_labels out")
    return transformers.AutoModel


@contextmanager
def _in_one_sentence(name: str) -> Iterator[None]:
    """Whatever transformers raises on the way, a missing package or an impossible value, as one sentence."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        said = printable(" ".join(str(error).split()))[:300]
        raise BadValue(f"transformers cannot build {name} from its config ({type(error).__name__}: {said})") from error
    finally:
        logging.set_verbosity(level)


def describe(model: nn.Module, name: str = "") -> Architecture:
    """The architecture of a model of transformers' that carries no adapter, on whatever device it is.

    Modules of equal shape at the same place of several layers are one `Module`. Experts that share a tensor count as
    their makers count them: gate, up and down of each expert.
    Raises: BadValue for a model without a config of transformers'.
    """
    config = own_config(model).get_text_config()
    modules = tuple(_grouped(model))

    def number(*names: str) -> int:
        """The first of these that the config states as a number; 0 if none."""
        values = (_stated(config, name) for name in names)
        return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), 0)

    def first(*roles: str) -> int:
        return next((m.out_features for m in modules if m.role in roles), 0)

    hidden, heads = number("hidden_size"), number("num_attention_heads")
    experts = next((m.each for m in modules if m.expert), 0)
    return Architecture(
        name=name or type(model).__name__,
        model_type=config.model_type,
        task=task_of(config),
        layers=number("num_hidden_layers"),
        hidden=hidden,
        intermediate=number("intermediate_size") or first("up"),
        heads=heads,
        kv_heads=number("num_key_value_heads") or heads,
        head_dim=number("qk_head_dim", "head_dim") or (hidden // heads if heads else 0),
        vocabulary=number("vocab_size"),
        positions=number("max_position_embeddings"),
        tied=bool(getattr(config, "tie_word_embeddings", False)),
        experts=experts,
        experts_per_token=number("num_experts_per_tok") if experts else 0,
        modules=modules,
    )


def own_config(model: Any) -> Any:
    """The config of a loaded model. Raises: BadValue for one that has none."""
    if not hasattr(getattr(model, "config", None), "to_dict"):
        said = f"a {type(model).__name__} has no config of transformers' to be counted from"
        raise BadValue(f"{said}: attach the method and read its report")
    return model.config


def _stated(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:  # transformers refuses to name one value where layers differ, as Gemma 4's head_dim
        return None


def _grouped(model: nn.Module) -> list[Module]:
    """The kinds of modules, each where it comes among those of its layer."""
    order: list[Module] = []
    places: dict[Module, list[int]] = {}
    seen: set[int] = set()
    last, layer = -1, ""
    for path, module in model.named_modules():
        number = next((part for part in path.split(".") if part.isdecimal()), "")
        for one in _rows(path, module, seen):
            kind = replace(one, name=re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", one.name, count=1))
            here = f"{kind.name.partition('*')[0]}*{number}" if number else kind.name
            if kind not in places:
                stack = (n for n, k in enumerate(order) if number and k.name.startswith(here.partition("*")[0]))
                order.insert(last + 1 if here == layer else next(stack, len(order)), kind)
                places[kind] = []
            last, layer = order.index(kind), here
            places[kind] += [int(number)] if number else []
    return [replace(kind, numbers=tuple(places[kind]), count=kind.count * max(1, len(places[kind]))) for kind in order]


EXPERTS = {"gate_up_proj": ("gate", "up"), "gate_proj": ("gate",), "up_proj": ("up",), "down_proj": ("down",)}


def _rows(path: str, module: nn.Module, seen: set[int]) -> Iterator[Module]:
    """What one module itself holds: a row for a weight with its bias, others parameter by parameter.

    `seen` are the parameters that were met before, which this one shares.
    """
    from lora_lab.layers import is_conv1d, out_by_in, site_kind

    own = dict(module.named_parameters(recurse=False))
    new = {name for name, p in own.items() if id(p) not in seen}
    seen |= {id(p) for p in own.values()}
    kind = site_kind(module)
    if kind:
        outputs, inputs = out_by_in(module).shape
        if kind == "embedding":  # a table of `vocabulary` rows: tokens in, vectors out
            inputs, outputs = outputs, inputs
        role = "+".join(roles_of(path)) or ("embed" if kind == "embedding" else "other")
        bias = getattr(module, "bias", None) is not None and ("bias" in new or "bias" not in own)
        kind = "conv1d" if is_conv1d(module) else kind
        yield Module(path, role, kind, inputs, outputs, bias, tied="weight" in own and "weight" not in new)
        return
    shared = [name for name in EXPERTS if name in own and own[name].dim() == 3]
    for name in shared:
        count, outputs, inputs = own[name].shape
        if getattr(module, "is_transposed", False):
            inputs, outputs = outputs, inputs
        bias = f"{name}_bias" in own
        for role in EXPERTS[name]:
            at, out = f"{path}.*.{role}_proj", outputs // len(EXPERTS[name])
            yield Module(at, role, "linear", inputs, out, bias, count, site=False)
    rest = {name: p for name, p in own.items() if name in new and name.removesuffix("_bias") not in shared}
    weight = rest.pop("weight", None)
    if weight is not None:
        bias = "bias" in rest and rest["bias"].numel() == weight.shape[0] and bool(rest.pop("bias").numel())
        yield replace(_weight(path, module, weight), bias=bias)
    for name, parameter in rest.items():
        outputs = parameter.shape[0] if parameter.dim() else 1
        at = f"{path}.{name}".removeprefix(".")
        yield Module(at, "other", "other", parameter.numel() // max(outputs, 1), outputs, site=False)


def _weight(path: str, module: nn.Module, weight: Tensor) -> Module:
    """A weight beside which no adapter is put: a norm, a router, an embedding that does more, a convolution."""
    outputs, kind = weight.shape[0] if weight.dim() else 1, type(module).__name__.lower()
    inputs, role = weight.numel() // max(outputs, 1), "+".join(roles_of(path)) or "other"
    if weight.dim() == 1 and "norm" in kind:
        return Module(path, "norm", "norm", 1, outputs, site=False)
    if "embedding" in kind:
        return Module(path, role, "embedding", outputs, inputs, site=False)
    leaf = path.rpartition(".")[2]
    return Module(path, "router" if leaf in ("gate", "router") else role, "other", inputs, outputs, site=False)


def write_zoo() -> None:
    """Describe every model of the zoo anew and write `zoo_modules.json`."""
    described = {name: describe(meta_model(name), name).to_json() for name in zoo()}
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in described.items()]
    ZOO_MODULES.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write_zoo()
