"""Base models, loaded through one door: a bundled name, a folder, or a hub id that is already on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from lora_lab.errors import BadValue, Failed, NotFound
from lora_lab.methods.quant import quantize_model
from lora_lab.methods.targets import HEADS, QUANTISED_BITS
from lora_lab.training.assets import asset_path
from lora_lab.training.device import ATTENTIONS, AUTO, DTYPES, split_dtype
from lora_lab.training.watching import quiet

# The bundled models, with the name that the rest of the world knows them by; adapter files name that one.
BUNDLED = {"minilm": "sentence-transformers/all-MiniLM-L6-v2", "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
FIRST_TOKEN = ("bert", "roberta", "xlm-roberta")  # whose heads read the first token alone
SHORT_ROWS = "lora_lab_short_rows"
STORED = "stored"  # the dtype that a checkpoint's weights have


def load_model(
    name: str, num_labels: int | None = None, *, dtype: str | torch.dtype = "fp32", attention: str | None = None,
    download: bool = False, body: bool = False,
) -> PreTrainedModel:  # fmt: skip
    """A plain transformers model, in eval mode on the CPU: a classifier when `num_labels` is given, else what its
    config says that it is (a language model: causal, masked or text to text; or an encoder without a head).

    name        "minilm", "smollm2", a folder with a checkpoint, or a hub id
    dtype       of all weights: "fp32", "bf16", "fp16", a torch dtype, or "stored" for that of the checkpoint; "nf4",
                "int8", "nf3", "nf2" quantize the linear layers from the checkpoint's own numbers, with the rest and
                the arithmetic in fp32, or in bf16 as "nf4+bf16"
    attention   "eager" or "sdpa"; transformers' own choice when None
    download    allow the hub to be asked; without it only files on this machine are read
    body        leave out the head of a masked or text-to-text language model, as when a checkpoint has none
    Raises: NotFound for a model that is not on this machine, naming what is; BadValue for a checkpoint that is damaged
    or lacks weights, which would then be random. No code from a checkpoint is run, and nothing is unpickled.
    """
    quantised, computed = _formats(dtype)
    if attention not in (None, *ATTENTIONS):
        raise BadValue(f"attention must be one of {', '.join(ATTENTIONS)}, not '{attention}'")
    with _loading(name, download) as (source, options):
        config = transformers.AutoConfig.from_pretrained(source, **options)
        loader = getattr(transformers, _loader(config, num_labels, body))
        if num_labels is not None:
            config.num_labels = num_labels
            if getattr(config, "pad_token_id", None) is None:  # a causal model classifies the token before the padding
                eos = getattr(config, "eos_token_id", None)
                config.pad_token_id = eos[0] if isinstance(eos, list) else eos
        model, info = loader.from_pretrained(
            source, config=config, dtype="auto" if quantised else computed, attn_implementation=attention,
            use_safetensors=True, output_loading_info=True, **options,
        )  # fmt: skip
    missing = [key for key in info["missing_keys"] if key.split(".")[0] not in HEADS]
    if missing and not body and _lacks_only_head(model, set(info["missing_keys"])):
        del model
        return load_model(name, dtype=dtype, attention=attention, download=download, body=True)
    if missing:
        said = f"lacks {len(missing)} weights ({missing[0]}, ...), which would be random"
        raise BadValue(f"the checkpoint of '{name}' {said}")
    model.config._name_or_path = BUNDLED.get(name, name)
    if quantised:
        quantize_model(model.eval(), quantised)
        model.to(computed)  # the rest
    return model.eval()  # type: ignore[no-any-return]


def _lacks_only_head(model: PreTrainedModel, missing: set[str]) -> bool:
    """Whether a masked or text-to-text language model lacks its head, all of it and nothing else."""
    if auto_class(type(model).__name__, model.config) not in ("AutoModelForSeq2SeqLM", "AutoModelForMaskedLM"):
        return False
    inside = f"{model.base_model_prefix}."
    head = {key for key, _ in model.named_parameters() if not key.startswith(inside)}  # a tied one is its first owner's
    return bool(head) and head <= missing and not any(key.startswith(inside) for key in missing)


def shapes_of_model(name: str, *, download: bool = False) -> PreTrainedModel:
    """The model that `load_model(name)` loads, on the meta device: shapes without numbers. Raises: as `load_model`."""
    with _loading(name, download) as (source, options), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(source, **options)
        return getattr(transformers, _loader(config, None, body=False)).from_config(config)  # type: ignore[no-any-return]


def answer_at_first_token(model: PreTrainedModel) -> None:
    """Let the last layer of a classifier of BERT's kind go on with its first token only, all that the head reads.

    After attention the layer's products are 9 of its 12 d^2 a token. What is left out reached neither the answer nor
    any gradient.
    """
    if model.config.model_type in FIRST_TOKEN and type(model).__name__.endswith("ForSequenceClassification"):
        layer: Any = model.base_model.encoder.layer[-1]
        layer.attention.output.register_forward_pre_hook(lambda _, inputs: tuple(x[:, :1] for x in inputs))


def attend_in_fp32(model: PreTrainedModel) -> None:
    """Let a model of BERT's kind with "eager" attention take the softmax in fp32, whose CPU kernel is fast where that
    of bf16 is not: forward and backward take half the time. In fp32 it is the same computation up to rounding.
    """
    if model.config.model_type in FIRST_TOKEN and model.config._attn_implementation == "eager":
        model.set_attn_implementation(SHORT_ROWS)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, **_: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """query, key, value (rows, heads, tokens, d), mask added to the scores -> (rows, tokens, heads, d), weights."""
    scaled = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)  # smaller than the scores
    scores = scaled @ key.transpose(2, 3)  # (rows, heads, tokens, tokens)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.dropout(scores.float().softmax(-1).to(query.dtype), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


transformers.AttentionInterface.register(SHORT_ROWS, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(SHORT_ROWS, ALL_MASK_ATTENTION_FUNCTIONS["eager"])


def load_tokenizer(name: str, *, download: bool = False, as_it_came: bool = False) -> PreTrainedTokenizerBase:
    """A model's tokenizer; one without a padding token pads with its end-of-text token, on the right.

    as_it_came   leave that to the tokenizer's own files
    Raises: as `load_model`.
    """
    with _loading(name, download) as (source, options):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
    if not as_it_came:
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        tokenizer.padding_side = "right"
    return tokenizer  # type: ignore[no-any-return]


def weight_bytes(name: str) -> int:
    """Bytes of the weight files of a bundled model or a folder. Raises: NotFound if there are none."""
    files = list(Path(_source(name)).glob("*.safetensors"))
    if not files:
        raise NotFound(f"there is no folder of safetensors for '{name}'; bundled are {', '.join(BUNDLED)}")
    return sum(file.stat().st_size for file in files)


def is_causal(model: PreTrainedModel) -> bool:
    """Whether a model predicts the next token."""
    return type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))


def local_name(hub_id: str) -> str:
    """The bundled name of a hub id that is bundled, else the id itself."""
    return next((name for name, known in BUNDLED.items() if known == hub_id), hub_id)


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; however the block ends, each module is in its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def auto_class(made_as: str, config: Any) -> str:
    """The class of transformers whose `from_pretrained` gives a model of the class `made_as`, its head included."""
    if made_as.endswith("ForSequenceClassification"):
        return "AutoModelForSequenceClassification"
    if made_as.endswith(("ForCausalLM", "LMHeadModel")):
        return "AutoModelForCausalLM"
    for name in ("AutoModelForSeq2SeqLM", "AutoModelForMaskedLM"):
        known = getattr(transformers, name)._model_mapping
        if type(config) in known and getattr(known[type(config)], "__name__", "") == made_as:
            return name
    return "AutoModel"


def _loader(config: Any, num_labels: int | None, body: bool) -> str:
    if num_labels is not None:
        if num_labels < 1:
            raise BadValue(f"num_labels must be at least 1, not {num_labels}")
        return "AutoModelForSequenceClassification"
    found = auto_class((getattr(config, "architectures", None) or [""])[0], config)
    return "AutoModel" if found == "AutoModelForSequenceClassification" or body else found


def _formats(dtype: str | torch.dtype) -> tuple[str, torch.dtype | str]:
    """The format of quantized linear layers, "" for none; the dtype of all the rest."""
    if isinstance(dtype, torch.dtype):
        return "", dtype
    if dtype == STORED:
        return "", "auto"  # transformers' word for it
    quantised, computed = split_dtype(str(dtype))
    computed = "fp32" if quantised and computed == AUTO else computed
    if computed not in DTYPES:
        raise BadValue(f"dtype must be one of {', '.join([*DTYPES, *QUANTISED_BITS])}, not '{computed}'")
    return quantised, DTYPES[computed]


def _source(name: str) -> str:
    if name in BUNDLED:
        return str(asset_path(name))
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        raise NotFound(f"the folder {name} holds no model: there is no config.json in it")
    return str(path) if path.is_dir() else name


@contextmanager
def _loading(name: str, download: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a model is and the options to read it with; transformers' many errors become one sentence."""
    source = _source(name)
    try:
        with quiet():
            yield source, {"local_files_only": not download, "trust_remote_code": False}  # None would ask the user
    except (BadValue, NotFound):
        raise
    except Exception as error:  # OSError, ValueError, SafetensorError, hub errors: there is no common base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(name).expanduser().is_dir() or name in BUNDLED or not isinstance(error, OSError):
            raise BadValue(f"the model in '{name}' cannot be loaded: {reason}") from error
        if download:
            raise Failed(f"the hub did not give '{name}': {reason}") from error
        raise NotFound(
            f"there is no model '{name}' on this machine; bundled are {', '.join(BUNDLED)}; give one of these, "
            "a folder, or a hub id with download allowed (--download, or download=True)"
        ) from error
