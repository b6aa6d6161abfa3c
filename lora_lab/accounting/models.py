"""A model's dimensions and every module that holds parameters, read off transformers' own model without any weights.

    config.json  ->  the model on torch's "meta" device (shapes, no numbers)  ->  Architecture

`zoo.json` holds the configs of well-known models. Their descriptions ship in `zoo_modules.json`, written by
`python docs/zoo.py`, so that looking one up imports no torch. Nothing is downloaded here.
"""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lab.errors import BadValue, NotFound, nearest, printable
from lora_lab.files import read_json
from lora_lab.methods.options import whole
from lora_lab.methods.targets import HEADS, ROLES, Site, roles_of, sites_of_layer

if TYPE_CHECKING:
    from torch import nn

ZOO_MODULES = Path(__file__).with_name("zoo_modules.json")
MOST = 10**4  # layers, or experts in a layer: each is built as an object
LAYER = re.compile(r"(?<![^.])\d+(?![^.])")  # a layer's number in a path: a part of it that is all digits
EXPERTS = {"gate_up_proj": ("gate", "up"), "gate_proj": ("gate",), "up_proj": ("up",), "down_proj": ("down",)}


@dataclass(frozen=True)
class Module:
    """One module of the model, or the experts of a layer, which share a tensor in transformers 5: `count` modules.

    name         transformers' path; an expert's number is *
    role         q k v o gate up down embed head pooler position norm router other; "q+k+v" for a fused layer
    kind         linear or embedding, which take an adapter; expert, which is counted as if it did; or other
    parameters   numbers in one of the `count`, with its bias; a tied weight counts where it stands first
    """

    name: str
    role: str
    kind: str
    in_features: int
    out_features: int
    parameters: int
    count: int = 1

    @property
    def weight(self) -> int:
        """Numbers in one weight: in x out."""
        return self.in_features * self.out_features

    @property
    def layer(self) -> int | None:
        """The number of the layer that holds it; None outside the layers."""
        number = LAYER.search(self.name)
        return int(number.group()) if number else None

    @property
    def in_task_head(self) -> bool:
        """Whether it belongs to the head that a task adds."""
        return self.name.split(".")[0] in HEADS


@dataclass(frozen=True)
class Architecture:
    """The dimensions of a model, and its modules in transformers' order.

    Sizes are counted in numbers: `hidden` and `head_dim` per token, `positions` and `vocabulary` in rows (positions
    0: none are stored or none are said), `experts` per layer (0: dense). `task` is encoder, causal or seq2seq; `widths`
    are the outputs of each role in a fused layer, {} where its slices cannot be told apart.
    """

    name: str
    task: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    experts: int
    widths: Mapping[str, int]
    modules: tuple[Module, ...]

    @cached_property
    def total(self) -> int:
        """Parameters of the whole model; tied weights count once."""
        return sum(m.parameters * m.count for m in self.modules)

    @cached_property
    def sites(self) -> dict[Site, Module]:
        """Every place for an adapter with its module: those of `methods.attach.sites_of`, and each layer's experts."""
        return {
            site: m
            for m in self.modules
            if m.kind != "other" and not m.in_task_head
            for site in sites_of_layer(m.name, m.in_features, m.out_features, m.kind, self.widths)
        }

    @property
    def roles(self) -> list[str]:
        """The roles that a target may name on this model, in the usual order; embeddings are left to code."""
        there = {site.role for site in self.sites}
        return [role for role in ROLES if role in there and role != "embed"]


# The zoo, and every other way of naming a model: a folder, a config.json, a hub id that is cached.


@cache
def zoo() -> dict[str, dict[str, Any]]:
    """The configs of well-known models by name, in the zoo's order; treat them as constants."""
    return read_json(ZOO_MODULES.with_name("zoo.json"))


def zoo_names() -> list[str]:
    """The names of the zoo."""
    return list(zoo())


@cache
def _shipped(name: str) -> Architecture:
    """As `docs/zoo.py` wrote it: modules are [first layer, number of layers like it, rows with # for its number]."""
    values = read_json(ZOO_MODULES)[name]
    layers = ((first + n, rows) for first, times, rows in values["modules"] for n in range(times))
    modules = (Module(row[0].replace("#", str(n)), *row[1:]) for n, rows in layers for row in rows)
    return Architecture(**{**values, "modules": tuple(modules)})


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
        return describe(meta_model(model, num_labels), _name(model))
    if not isinstance(model, str | Path):
        return describe(model)
    if num_labels is None and str(model) in zoo():
        return _shipped(str(model))
    return _described(str(model), num_labels, json.dumps(config_of(model)))


@lru_cache(maxsize=64)
def _described(model: str, num_labels: int | None, config: str) -> Architecture:
    """Kept while its config stays as it is: a slider asks for the same one again and again."""
    return describe(meta_model(model, num_labels), _name(model))


def config_of(model: Any) -> dict[str, Any]:
    """The fields of the config of a model that is named or loaded, as in its config.json, or those fields themselves.

    Raises: NotFound for an unknown name; BadValue for a damaged file, and for a model without a config.
    """
    if isinstance(model, Mapping):
        return dict(model)
    if not isinstance(model, str | Path):
        return dict(own_config(model).to_dict())
    return zoo()[str(model)] if str(model) in zoo() else read_json(_config_file(str(model)))


def own_config(model: Any) -> Any:
    """The config of a loaded model. Raises: BadValue for one that has none."""
    if not hasattr(getattr(model, "config", None), "to_dict"):
        said = f"a {type(model).__name__} has no config of transformers' to be counted from"
        raise BadValue(f"{said}: attach the method and read its report")
    return model.config


def _name(model: str | Path | Mapping[str, Any]) -> str:
    """What a model is called in answers: its folder, the last part of its hub id, or its type."""
    if isinstance(model, Mapping):
        return str(model.get("model_type", "this model"))
    return Path(model).parent.name if Path(model).name == "config.json" else str(model).rstrip("/").rsplit("/", 1)[-1]


def _config_file(model: str) -> Path:
    from huggingface_hub import try_to_load_from_cache  # 0.1 s, and only here

    with suppress(OSError, RuntimeError, ValueError):  # too long, of a user unknown here, or with a zero in it: no path
        given = Path(model).expanduser()
        file = given / "config.json" if given.is_dir() else given
        if file.is_file():
            return file
        if given.is_dir():
            raise NotFound(f"the folder {model} holds no config.json; give the folder of a model")
    with suppress(OSError, ValueError):  # not the form of a hub id
        cached = try_to_load_from_cache(model, "config.json")
        if isinstance(cached, str):
            return Path(cached)
    raise NotFound(
        f"no model '{model}': no folder or config.json, no hub id in the local cache, and no name of the zoo; "
        f"nearest there: {nearest(model.lower(), zoo_names())}"
    )


# From a config to transformers' model, and from any model to its description: both take torch.


def meta_model(model: str | Path | Mapping[str, Any], num_labels: int | None = None) -> nn.Module:
    """transformers' model of a config on the meta device: every shape and no numbers, in a fraction of a second.

    model   a name as in `architecture_of`, or the fields of a config.json
    With `num_labels` a model for sequence classification; else a language model, or an encoder without any head.
    Raises: NotFound for an unknown name; BadValue, in one sentence, for a config that transformers cannot build.
    """
    import torch

    name = _name(model)
    config = known_config(config_of(model), name)
    if num_labels is not None:
        config.num_labels = whole("num_labels", num_labels)
    made = auto_class(config, classify=num_labels is not None)
    with _in_one_sentence(name), torch.device("meta"):
        built: nn.Module = made.from_config(config, attn_implementation="eager")
    return built


def known_config(values: Mapping[str, Any], name: str = "this model") -> Any:
    """transformers' config object of the fields of a config.json, its defaults filled in.

    Raises: BadValue for a model_type that transformers does not know, and for a value that it refuses.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    family = values.get("model_type")
    if not isinstance(family, str):
        raise BadValue(f"the config of {name} lacks 'model_type', which says how to read the rest")
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

    Raises: BadValue for a model without a config of transformers'.
    """
    from lora_lab.methods.attach import role_widths

    config = own_config(model).get_text_config()
    modules = tuple(_modules(model))

    def number(*names: str) -> int:
        """The first of these that the config states; 0 if none."""
        for one in names:
            with suppress(Exception):  # transformers refuses where layers differ, as in Gemma 4's head_dim
                if isinstance(value := getattr(config, one, None), int) and value:
                    return value
        return 0

    hidden, heads = number("hidden_size"), number("num_attention_heads")
    return Architecture(
        name=name or type(model).__name__,
        task=task_of(config),
        layers=number("num_hidden_layers"),
        hidden=hidden,
        intermediate=number("intermediate_size") or next((m.out_features for m in modules if m.role == "up"), 0),
        heads=heads,
        kv_heads=number("num_key_value_heads") or heads,
        head_dim=number("qk_head_dim", "head_dim") or (hidden // heads if heads else 0),
        vocabulary=number("vocab_size"),
        positions=number("max_position_embeddings"),
        experts=next((m.count for m in modules if m.kind == "expert"), 0),
        widths=role_widths(model),
        modules=modules,
    )


def _modules(model: nn.Module) -> Iterator[Module]:
    """What each module itself holds: a row for a weight with its bias, others parameter by parameter.

    Experts that share a tensor count as their makers count them: gate, up and down of each expert.
    """
    from lora_lab.layers import out_by_in, site_kind

    seen: set[int] = set()
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        new = {name: p for name, p in own.items() if id(p) not in seen and p.numel()}
        seen |= {id(p) for p in own.values()}
        role, kind = "+".join(roles_of(path)), site_kind(module)
        if kind:
            outputs, inputs = out_by_in(module).shape
            sizes = {"weight": inputs * outputs, "bias": outputs if getattr(module, "bias", None) is not None else 0}
            numbers = sum(size for name, size in sizes.items() if name in new or name not in own)
            if kind == "embedding":  # a table of `vocabulary` rows: tokens in, vectors out
                inputs, outputs, role = outputs, inputs, role or "embed"
            yield Module(path, role or "other", kind, inputs, outputs, numbers)
            continue
        for name in [name for name in EXPERTS if name in new and new[name].dim() == 3]:
            count, outputs, inputs = new.pop(name).shape
            if getattr(module, "is_transposed", False):
                inputs, outputs = outputs, inputs
            outputs //= len(EXPERTS[name])
            numbers = outputs * (inputs + (new.pop(f"{name}_bias", None) is not None))
            for role in EXPERTS[name]:
                yield Module(f"{path}.*.{role}_proj", role, "expert", inputs, outputs, numbers, count)
        if "norm" in type(module).__name__.lower():
            role = "norm"
        elif path.endswith((".gate", ".router")):
            role = "router"
        bias = new.pop("bias").numel() if {"weight", "bias"} <= new.keys() else 0  # counts with its weight
        for name, p in new.items():
            main = name == "weight"  # of a norm, a router, a convolution, an embedding that does more
            at = path if main else f"{path}.{name}".removeprefix(".")
            outputs = p.shape[0] if p.dim() else 1
            numbers = p.numel() + bias * main
            yield Module(at, (main and role) or "other", "other", p.numel() // outputs, outputs, numbers)
