"""Load base models by the name of a bundled model, by folder, or by hub id from the local cache."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from lora_lab.errors import BadValue, Failed, LabError, NotFound, warn
from lora_lab.machine import BUILDING, quiet
from lora_lab.methods.attach import scores_last_token
from lora_lab.methods.base import Method, plain, whole
from lora_lab.methods.full import Probe
from lora_lab.methods.quant import quantize_model
from lora_lab.methods.targets import QUANTIZED_BITS
from lora_lab.training.assets import asset_path
from lora_lab.training.device import AUTO, DTYPES, split_dtype

# Bundled models and their hub ids, which adapter files refer to.
BUNDLED = {"minilm": "sentence-transformers/all-MiniLM-L6-v2", "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
FIRST_TOKEN = ("bert", "roberta", "xlm-roberta")  # models whose heads read only the first token
SHORT_ROWS = "lora_lab_short_rows"
STORED = "stored"  # the checkpoint's own dtype
HEADED = ("AutoModelForSeq2SeqLM", "AutoModelForMaskedLM")  # a checkpoint may lack the whole head of such a model


def load_model(
    name: str, num_labels: int | None = None, *, dtype: str | torch.dtype = "fp32", attention: str | None = None,
    download: bool = False, body: bool = False,
) -> PreTrainedModel:  # fmt: skip
    """Load a plain transformers model in eval mode on the CPU. With `num_labels`, the model is a classifier. Otherwise,
    the config selects a causal, masked or text-to-text language model, or an encoder without a head.

    name        "minilm", "smollm2", a folder with a checkpoint, or a hub id.
    dtype       "fp32", "bf16", "fp16", a torch dtype, or "stored" for the checkpoint's dtype.
                "nf4", "int8", "nf3" and "nf2" quantize linear layers and compute in fp32. "nf4+bf16" computes in bf16.
    attention   "eager", "sdpa" or None. "sdpa" and None use sdpa if the class has it, else eager, as in transformers.
    download    Whether downloads from the model hub are allowed. By default, only local files are read.
    body        Leave out the head of a masked or text-to-text language model.
    Raises: NotFound for a model that is not on this machine, with a list of the local models; BadValue for a checkpoint
    that is damaged or lacks weights (which would be random). No code from a checkpoint runs, and nothing is unpickled.
    """
    quantized, compute_dtype = "", dtype  # the format of quantized linear layers, and the dtype of everything else
    if not isinstance(dtype, torch.dtype):
        quantized, name_of_dtype = split_dtype(str(dtype))
        dtypes = DTYPES | ({AUTO: torch.float32} if quantized else {STORED: "auto"})  # transformers calls it "auto"
        if name_of_dtype not in dtypes:
            raise BadValue(f"dtype must be one of {', '.join([*DTYPES, *QUANTIZED_BITS])}, not '{name_of_dtype}'")
        compute_dtype = dtypes[name_of_dtype]
    if num_labels is not None:
        num_labels = whole("num_labels", plain(num_labels))
    with _loading(name, download) as (source, options):
        config = transformers.AutoConfig.from_pretrained(source, **options)
        loader = getattr(transformers, _loader(config, num_labels, body))
        if num_labels is not None:
            config.num_labels = num_labels
            if getattr(config, "pad_token_id", None) is None:  # a causal classifier reads the last real token
                eos = getattr(config, "eos_token_id", None)
                config.pad_token_id = eos[0] if isinstance(eos, list) else eos
        model, info = loader.from_pretrained(
            source, config=config, dtype="auto" if quantized else compute_dtype,
            attn_implementation=None if attention == "sdpa" else attention,  # the default: "sdpa" if the class has it
            use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **options,
        )  # fmt: skip
    # A classifier's checkpoint may lack everything outside the base model, and the base model's pooler
    head_of = re.compile(rf"((?!{model.base_model_prefix or '.*'}\.)\w+|(?:\w+\.)?pooler)\.").match
    for key, there, here in info["mismatched_keys"]:
        if num_labels is None or not head_of(key) or "pooler" in key:
            raise BadValue(f"checkpoint '{name}' has {key} of shape {tuple(there)}, but the config says {tuple(here)}")
        warn(f"'{name}' has a head with {there[0]} classes; a new head with {here[0]} classes replaces it")
    missing = [key for key in info["missing_keys"] if num_labels is None or not head_of(key)]
    if missing and not body and auto_class(type(model).__name__, config) in HEADED:
        prefix = f"{model.base_model_prefix}."
        head = {key for key, _ in model.named_parameters() if not key.startswith(prefix)}  # tied weights appear once
        if head and head <= set(info["missing_keys"]) and not any(key.startswith(prefix) for key in missing):
            del model  # the checkpoint lacks the whole head and nothing else
            return load_model(name, dtype=dtype, attention=attention, download=download, body=True)
    if missing:
        reason = f"lacks {len(missing)} weights ({missing[0]}, ...), which would be random"
        raise BadValue(f"the checkpoint of '{name}' {reason}: choose a complete checkpoint")
    unread = (*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"]))
    model.lora_lab_random_heads = {head[1] for head in map(head_of, unread) if head}  # read by `heads_of`
    model.config._name_or_path = BUNDLED.get(name, str(name))
    if num_labels is not None and scores_last_token(model):
        with suppress(LabError):  # without a tokenizer, the config's padding token stays
            model.config.pad_token_id = load_tokenizer(name, download=download).pad_token_id
    if quantized:
        quantize_model(model.eval(), quantized)
        model.to(compute_dtype)  # the layers that are not quantized
    return model.eval()  # type: ignore[no-any-return]


def shapes_of_model(name: str, *, download: bool = False) -> PreTrainedModel:
    """Build the model that `load_model` would load, without weights. Raises: see `load_model`."""
    with _loading(name, download) as (source, options), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(source, **options)
        return getattr(transformers, _loader(config, None, body=False)).from_config(config)  # type: ignore[no-any-return]


def take_shortcuts(model: PreTrainedModel, method: Method) -> None:
    """Speed up a BERT-like classifier for training or scoring with `method`. Leave other models unchanged.

    Except in a probe, the head reads only the first token. So in the last layer, the MLP runs only for that token,
    which saves 9 d^2 of the layer's 12 d^2 products per token, and "eager" attention uses only that token's query. The
    skipped values affect neither the output nor the gradients. "eager" attention computes its softmax in fp32, which is
    faster on a CPU than in bf16: forward and backward take half the time. With an fp32 base, these changes affect only
    the rounding of results.
    """
    if model.config.model_type not in FIRST_TOKEN or not type(model).__name__.endswith("ForSequenceClassification"):
        return
    if not isinstance(method, Probe):
        layer: Any = model.base_model.encoder.layer[-1]
        layer.attention.self.first_token_only = True  # read by `_attention`
        layer.attention.output.register_forward_pre_hook(lambda _, inputs: tuple(x[:, :1].contiguous() for x in inputs))
    if model.config._attn_implementation == "eager":
        model.set_attn_implementation(SHORT_ROWS)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, **_: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return attention's output (rows, tokens, heads, d) and weights for inputs of shape (rows, heads, tokens, d)."""
    tokens = query.shape[2]
    if getattr(module, "first_token_only", False):
        query, attention_mask = query[:, :, :1], None if attention_mask is None else attention_mask[:, :, :1]
    scaled = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)  # has fewer elements than the scores
    scores = scaled @ key.transpose(2, 3)  # (rows, heads, tokens, tokens)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.dropout(scores.float().softmax(-1).to(query.dtype), dropout, module.training)
    return (weights @ value).transpose(1, 2).expand(-1, tokens, -1, -1).contiguous(), weights


transformers.AttentionInterface.register(SHORT_ROWS, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(SHORT_ROWS, ALL_MASK_ATTENTION_FUNCTIONS["eager"])


def load_tokenizer(name: str, *, download: bool = False, as_it_came: bool = False) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer, and set it to pad on the right. If it has no padding token, use the end-of-text token.

    as_it_came   Keep the padding settings that the tokenizer's files define.
    Raises: see `load_model`.
    """
    with _loading(name, download) as (source, options):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # without files, transformers makes an empty tokenizer
        raise BadValue(f"'{name}' has no tokenizer: put one there with tokenizer.save_pretrained")
    if not as_it_came:
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise BadValue(f"the tokenizer of '{name}' has no padding token: set tokenizer.pad_token and save it again")
        tokenizer.padding_side = "right"
    return tokenizer  # type: ignore[no-any-return]


def weight_bytes(name: str) -> int:
    """Return the size in bytes of a bundled model's or folder's weight files. Raises: NotFound if no files exist."""
    if size := sum(file.stat().st_size for file in Path(_source(name)).glob("*.safetensors")):
        return size
    raise NotFound(f"there is no folder of safetensors for '{name}'; the bundled models are {', '.join(BUNDLED)}")


def is_causal(model: PreTrainedModel) -> bool:
    """Return whether a model predicts each token from earlier tokens only, unlike XLNet, or BERT as an encoder."""
    name, decodes = type(model).__name__, getattr(model.config, "is_decoder", True)
    looks_ahead = name.startswith(("XLNet", "XLMWith", "Flaubert")) or not (decodes or name.startswith("GPTNeoX"))
    return name.endswith(("ForCausalLM", "LMHeadModel")) and not looks_ahead


def auto_class(made_as: str, config: Any) -> str:
    """Return the Auto class whose `from_pretrained` loads a model of class `made_as`, including its head."""
    for name in ("AutoModelForSequenceClassification", "AutoModelForCausalLM", *HEADED):
        made = getattr(transformers, name)._model_mapping.get(type(config), None)
        if getattr(made, "__name__", None) == made_as:
            return name
    return "AutoModel"


def _loader(config: Any, num_labels: int | None, body: bool) -> str:
    if num_labels is not None:
        return "AutoModelForSequenceClassification"
    name = auto_class((getattr(config, "architectures", None) or [""])[0], config)
    return "AutoModel" if name == "AutoModelForSequenceClassification" or body else name


def _source(name: str) -> str:
    if name in BUNDLED:
        return str(asset_path(name))
    path = os.path.expanduser(str(name))  # accepts any text, unlike Path.expanduser
    if os.path.isdir(path) and not os.path.isfile(os.path.join(path, "config.json")):
        raise NotFound(f"the folder {name} contains no model: it has no config.json")
    return path


@contextmanager
def _loading(name: str, download: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a model's source and its loading options, and convert transformers' errors to the lab's errors."""
    source = _source(name)
    try:
        with BUILDING, quiet():
            yield source, {"local_files_only": not download, "trust_remote_code": False}  # None would ask the user
    except Exception as error:  # OSError, ValueError, SafetensorError, hub errors: they have no common base class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if os.path.isdir(source) or name in BUNDLED or not isinstance(error, OSError):
            raise BadValue(f"the model in '{name}' cannot be loaded: {reason}") from error
        if download:
            raise Failed(f"the hub could not provide '{name}': {reason}") from error
        advice = "a folder, or a hub id with download allowed (--download, or download=True)"
        message = f"there is no model '{name}' on this machine; pass a bundled one ({', '.join(BUNDLED)})"
        raise NotFound(f"{message}, {advice}") from error
