"""Read a model's dimensions and modules from a copy that transformers builds without weights.

    config.json  ->  the model on torch's "meta" device (shapes, no data)  ->  Architecture

`zoo.json` holds the configs of well-known models. Descriptions of these models are in `zoo_modules.json`, written by
`python docs/zoo.py`, so looking up a model does not import torch. Nothing is downloaded.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

from lora_lab.accounting.setup import Setup
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.files import read_json
from lora_lab.lazy import nn, torch
from lora_lab.machine import BUILDING, quiet
from lora_lab.methods.base import plain, whole
from lora_lab.methods.targets import CONSTANT, HEADS, ROLES, Site, bits_per_weight, roles_of, sites_of_layer

ZOO_MODULES = Path(__file__).with_name("zoo_modules.json")
MOST = 2 * 10**4  # maximum number of layers, or of experts per layer (Doge: 16,384), since each becomes an object
LAYER = re.compile(r"(?<![^.])\d+(?![^.])")  # the layer index: the path component that is all digits
# Model types that have a table of positions. In the tables of `PADDED` types, two rows hold no position
PADDED = (
    "roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "roberta-prelayernorm", "xlm-roberta-xl", "xmod",
    "ibert", "lilt", "luke", "markuplm",
)  # fmt: skip
SHIFTED = (  # a prefix takes the first positions
    "gpt2", "gpt_neo", "gpt_bigcode", "opt", "biogpt", "codegen", "ctrl", "gptj", "openai-gpt", "data2vec-text",
    "roberta-prelayernorm", "xlm-roberta-xl", "xmod", "roformer", "bert-generation", "big_bird", "ernie", "gpt-sw3",
    "roc_bert",
)  # fmt: skip
TABLES = (
    *PADDED, *SHIFTED, "bert", "deberta-v2", "distilbert", "electra", "albert", "bart", "bigbird_pegasus", "blenderbot",
    "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart", "canine", "convbert", "deberta", "flaubert",
    "fnet", "layoutlm", "megatron-bert", "mobilebert", "mra", "nystromformer", "rembert", "squeezebert", "trocr",
    "yoso",
)  # fmt: skip
NEW_POOLER = "new pooler"  # the role of a pooler that the checkpoint lacks and that is trained as a head
EXPERTS = {"gate_up_proj": ("gate", "up"), "gate_proj": ("gate",), "up_proj": ("up",), "down_proj": ("down",)}


def layer_of(path: str) -> int | None:
    """Return the layer index in a module's path, or None for a module outside the layers."""
    return int(match.group()) if (match := LAYER.search(path)) else None


@dataclass(frozen=True)
class Module:
    """A module of the model, or the `count` experts of a layer, which share one tensor in transformers 5.

    name         The path in transformers' model, where * stands for the index of an expert.
    role         q k v o gate up down embed head pooler position constant norm router other, or "q+k+v".
    kind         linear or embedding (can be adapted), expert (counted as if it could be adapted), or other.
    parameters   The weight and bias of one module. A tied weight counts only in the first module that has it.
    """

    name: str
    role: str
    kind: str
    in_features: int
    out_features: int
    parameters: int
    count: int = 1

    @property
    def layer(self) -> int | None:
        """The index of the module's layer, or None if the module is outside the layers."""
        return layer_of(self.name)

    def frozen_bytes(self, setup: Setup) -> int:
        """Return the bytes that the module takes when frozen. Only matrices inside layers are quantized."""
        if setup.quantized == "none" or self.layer is None or self.kind != "linear":
            return self.count * self.parameters * setup.width
        matrix = self.in_features * self.out_features
        packed = int(matrix * bits_per_weight(setup.quantized) / 8)
        return self.count * (packed + (self.parameters - matrix) * setup.width)

    @property
    def in_task_head(self) -> bool:
        """Whether the module belongs to the head that a task adds."""
        return self.name.split(".")[0] in HEADS or self.role == NEW_POOLER


@dataclass(frozen=True)
class Architecture:
    """The dimensions of a model and its modules, in transformers' order.

    `task` is "encoder", "causal" or "seq2seq". `positions` is the config's input limit (0 if it sets none),
    `experts` is the number per layer (0 if dense), and `widths` has the output width of each fused role ({}: unknown).
    """

    name: str
    task: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    positions: int
    experts: int
    widths: Mapping[str, int]
    modules: tuple[Module, ...]

    @cached_property
    def total(self) -> int:
        """The number of parameters. Tied weights count once."""
        return sum(m.parameters * m.count for m in self.modules)

    @cached_property
    def sites(self) -> dict[Site, Module]:
        """Every place for an adapter, with its module: what `methods.attach.sites_of` finds, plus the experts."""
        return {
            site: m
            for m in self.modules
            if m.kind != "other" and not m.in_task_head
            for site in sites_of_layer(m.name, m.in_features, m.out_features, m.kind, self.widths)
        }

    @property
    def roles(self) -> list[str]:
        """The roles to offer as targets in a panel, in the usual order, without embeddings."""
        available = {site.role for site in self.sites}
        return [role for role in ROLES if role in available and role != "embed"]


@cache
def zoo() -> dict[str, dict[str, Any]]:
    """Return the configs of well-known models by name, in the zoo's order. Do not modify them."""
    return read_json(ZOO_MODULES.with_name("zoo.json"))


@cache
def _shipped(name: str) -> Architecture:
    """Read what `docs/zoo.py` wrote. `modules` has [first layer, number of equal layers, rows with # for the index]."""
    values = read_json(ZOO_MODULES)[name]
    layers = ((first + i, rows) for first, count, rows in values["modules"] for i in range(count))
    modules = (Module(row[0].replace("#", str(i)), *row[1:]) for i, rows in layers for row in rows)
    return Architecture(**{**values, "modules": tuple(modules)})


def architecture_of(model: Any, num_labels: int | None = None) -> Architecture:
    """Return the architecture of a model.

    model   As in `params`, or an `Architecture`. A transformers model is described as it is.
    With `num_labels`, describe a named model as a sequence classifier, including its head.
    Raises: NotFound, with the nearest names, for an unknown name; BadValue for a config that transformers cannot build.
    """
    if isinstance(model, Architecture):
        return model
    if not isinstance(model, str | Path | Mapping):
        return describe(model)
    if num_labels is None and str(model) in zoo():
        return _shipped(str(model))
    return _built(_name(model), num_labels, json.dumps(config_of(model), default=str))


@lru_cache(maxsize=64)
def _built(name: str, num_labels: int | None, config: str) -> Architecture:
    """Build and describe a model. The result is cached, because sliders ask for the same model repeatedly."""
    return describe(meta_model(json.loads(config), num_labels, name), name)


def config_of(model: Any) -> dict[str, Any]:
    """Return the config fields of a named or loaded model, as in its config.json. A dict of fields is copied.

    Raises: NotFound for an unknown name; BadValue for a damaged file or a model without a config.
    """
    if isinstance(model, Mapping):
        return dict(model)
    if not isinstance(model, str | Path):
        if not hasattr(getattr(model, "config", None), "to_dict"):
            kind = type(model).__name__
            raise BadValue(f"a {kind} has no config to count from: attach the method and read its report")
        return dict(model.config.to_dict())
    if str(model) in zoo():
        return zoo()[str(model)]
    from huggingface_hub import try_to_load_from_cache  # this import takes 0.1 s

    found: Any = None
    with suppress(OSError, RuntimeError, ValueError):  # neither a valid path nor a valid hub id
        path = Path(model).expanduser()
        file = path / "config.json" if path.is_dir() else path
        if path.is_dir() and not file.is_file():
            raise NotFound(f"the folder '{model}' has no config.json; pass the folder of a model")
        found = file if file.is_file() else try_to_load_from_cache(str(model), "config.json")
    if not isinstance(found, str | Path):
        kinds = "a folder, a config.json, a hub id in the local cache, or a zoo name"
        raise NotFound(f"no model '{model}': it is not {kinds}; nearest: {nearest(str(model).lower(), zoo())}")
    return read_json(Path(found))


def positions_of(method: Any, config: Mapping[str, Any]) -> int:
    """Return how many of a model's learned positions a method's prompt uses in every row."""
    return int(method.positions(causal=config.get("model_type") in SHIFTED)) if method else 0


def longest(config: Mapping[str, Any], method: Any = None) -> int | None:
    """Return the longest row that the model's table of positions allows, or None if the model has no table.

    The positions that the method's prompt uses are subtracted. Positions that are computed have no limit: a model with
    rotary positions that was trained on 8,192 tokens also runs on longer rows, with poor results.
    Raises: BadValue for a method whose prompt leaves no position for text.
    """
    kind = str(config.get("model_type"))
    if kind not in TABLES or config.get("position_biased_input") is False:  # DeBERTa-v3 has only relative positions
        return None
    given = config.get("n_positions") or config.get("max_position_embeddings")
    given = given or known_config(config).max_position_embeddings  # the default
    limit, prompt = whole("max_position_embeddings", given) - 2 * (kind in PADDED), positions_of(method, config)
    if limit <= prompt:
        raise BadValue(f"tokens={prompt} leaves no position for text: {kind} has {limit}, so use at most {limit - 1}")
    return limit - prompt


def _name(model: str | Path | Mapping[str, Any]) -> str:
    """Return the model's name for output: its folder, the last part of its hub id, or its type."""
    if isinstance(model, Mapping):
        return str(model.get("model_type", "this model"))
    path = Path(model)
    return path.parent.name if path.name == "config.json" else path.name


def meta_model(model: str | Path | Mapping[str, Any], num_labels: int | None = None, name: str = "") -> nn.Module:
    """Build the transformers model for a config on the meta device, which has shapes but no data.

    model   A name as in `architecture_of`, or the fields of a config.json. Error messages contain `name`.
    With `num_labels`, build a sequence classifier. Otherwise, build a language model, or an encoder without a head.
    Raises: NotFound for an unknown name; BadValue for a config that transformers cannot build.
    """
    name = name or _name(model)
    config = known_config(config_of(model), name)
    if num_labels is not None:
        config.num_labels = whole("num_labels", plain(num_labels))
    loader = auto_class(config, classify=num_labels is not None)
    with _in_one_sentence(name), torch.device("meta"):
        return loader.from_config(config, attn_implementation="eager")  # type: ignore[no-any-return]


def known_config(values: Mapping[str, Any], name: str = "this model") -> Any:
    """Return transformers' config object for the fields of a config.json, with defaults filled in.

    Raises: BadValue for a `model_type` that transformers does not know or a value that it rejects.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    family = values.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        similar = nearest(str(family), CONFIG_MAPPING)
        raise BadValue(f"unknown model_type {family!r} in the config of {name}; transformers knows {similar}")
    for field, value in values.items():
        counts = ("layer" in field or "expert" in field) and not (field.endswith("_size") or field.startswith("vocab"))
        if counts and isinstance(value, int) and value > MOST:
            raise BadValue(f"'{field}' of {name} must be at most {MOST:,}, not {value:,}: no model has that many")
    options = {key: value for key, value in values.items() if key not in ("model_type", "quantization_config")}
    with _in_one_sentence(name):
        return AutoConfig.for_model(family, **copy.deepcopy(options))


def task_of(config: Any) -> str:
    """Return "seq2seq", "causal" or, for masked language models and everything else, "encoder"."""
    from transformers.models.auto import modeling_auto as auto

    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    masked = config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "causal" if config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not masked else "encoder"


def auto_class(config: Any, *, classify: bool | None = None) -> Any:
    """Return transformers' auto class for the model. By default, an encoder gets a classification head.

    Raises: BadValue if transformers has no classifier of this type.
    """
    import transformers

    classify = task_of(config) == "encoder" if classify is None else classify
    names = {"seq2seq": "AutoModelForSeq2SeqLM", "causal": "AutoModelForCausalLM"}
    name = "AutoModelForSequenceClassification" if classify else names.get(task_of(config), "AutoModel")
    auto = getattr(transformers, name)
    if type(config) in auto._model_mapping and name != "AutoModel":
        return auto
    if classify:
        message = f"transformers has no sequence classification model of type '{config.model_type}'"
        raise BadValue(f"{message}; only its parameters can be counted, with params and without num_labels")
    others = ("AutoModelForMultimodalLM", "AutoModelForSpeechSeq2Seq", "AutoModel", *dir(transformers))
    classes = (getattr(transformers, name) for name in others if name.startswith("AutoModel"))
    return next((c for c in classes if type(config) in getattr(c, "_model_mapping", ())), transformers.AutoModel)


@contextmanager
def _in_one_sentence(name: str) -> Iterator[None]:
    """Silence transformers, and re-raise any error (a missing package, an invalid value) as one sentence."""
    try:
        with BUILDING, quiet():
            yield
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise BadValue(f"transformers cannot build {name} from its config ({reason})") from error


def describe(model: nn.Module, name: str = "") -> Architecture:
    """Describe a transformers model without an adapter, on any device. Raises: BadValue if the model has no config."""
    from lora_lab.methods.attach import role_widths

    config_of(model)  # raises if there is none
    full_config: Any = model.config
    config, modules = full_config.get_text_config(), tuple(_modules(model))

    def number(field: str) -> int:
        """Return a field of the config, or 0 if it is missing."""
        with suppress(Exception):  # transformers raises an error if layers differ
            if isinstance(value := getattr(config, field, None), int):
                return value
        return 0

    return Architecture(
        name=name or type(model).__name__,
        task=task_of(full_config),
        layers=number("num_hidden_layers"),
        hidden=number("hidden_size"),
        intermediate=number("intermediate_size") or next((m.out_features for m in modules if m.role == "up"), 0),
        heads=number("num_attention_heads"),
        vocabulary=number("vocab_size"),
        positions=number("max_position_embeddings"),
        experts=next((m.count for m in modules if m.kind == "expert"), 0),
        widths=role_widths(model),
        modules=modules,
    )


def _modules(model: nn.Module) -> Iterator[Module]:
    """Yield each module's own parameters: a weight together with its bias, any other parameter by itself.

    Experts that share a tensor are counted one by one, as model authors count them: gate, up and down of each expert.
    """
    from lora_lab.adapter_layer import out_by_in
    from lora_lab.methods.attach import heads_of, site_kind

    new_pooler = {module for name, head in heads_of(model) if name not in HEADS for module in head.modules()}
    seen: set[int] = set()
    for path, module in model.named_modules():
        parameters = dict(module.named_parameters(recurse=False))
        new = {name: p for name, p in parameters.items() if id(p) not in seen and p.numel()}
        seen |= {id(p) for p in parameters.values()}
        role, kind = NEW_POOLER if module in new_pooler else "+".join(roles_of(path)), site_kind(module)
        if kind:
            outputs, inputs = out_by_in(module).shape
            sizes = {"weight": inputs * outputs, "bias": outputs if getattr(module, "bias", None) is not None else 0}
            numbers = sum(size for name, size in sizes.items() if name in new or name not in parameters)
            if kind == "embedding":  # the weight has one row per token: tokens in, vectors out
                inputs, outputs, role = outputs, inputs, role or "embed"
            yield Module(path, role or "other", kind, inputs, outputs, numbers)
            continue
        for name in [name for name in EXPERTS if name in new and new[name].dim() == 3]:
            count, outputs, inputs = new.pop(name).shape
            if getattr(module, "is_transposed", type(module).__name__ == "Llama4TextExperts"):  # which lacks the flag
                inputs, outputs = outputs, inputs
            outputs //= len(EXPERTS[name])
            numbers = outputs * (inputs + (new.pop(f"{name}_bias", None) is not None))
            for role in EXPERTS[name]:
                yield Module(f"{path}.*.{role}_proj", role, "expert", inputs, outputs, numbers, count)
        if "norm" in type(module).__name__.lower():
            role = "norm"
        elif CONSTANT in type(module).__name__:
            role = "constant"
        elif path.endswith((".gate", ".router")):
            role = "router"
        bias = new.pop("bias").numel() if {"weight", "bias"} <= new.keys() else 0  # counted with the weight
        for name, p in new.items():
            main = name == "weight"  # the weight of a norm, a router, a convolution or a special embedding
            part = path if main else f"{path}.{name}".removeprefix(".")
            outputs = p.shape[0] if p.dim() else 1
            numbers = p.numel() + bias * main
            yield Module(part, (main and role) or "other", "other", p.numel() // outputs, outputs, numbers)
