"""Other estimators on the runs of PEFT's suite, each told as much as it can be told. In bytes; None where it cannot."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from accelerate.commands.estimate import estimate_training_usage
from accelerate.utils import calculate_maximum_sizes

from benchmarks.metamath import CONDITIONS, CUT, FITTED, LONGEST, Run, model, runs
from lora_lab.accounting import trace
from lora_lab.accounting.models import config_of
from lora_lab.accounting.setup import Setup

try:
    from fitcheck import config_parser, estimator, gpu_db
    from peft_doctor.estimator import estimate_vram_gb
    from torch_preflight.vram import estimate_config, types
    from torch_preflight.vram.providers import static
except ImportError:
    estimator = None

MISSING = "fitcheck-llm, peft-doctor and torch-preflight are not installed: pip install '.[bench]'"


def said(run: Run) -> dict[str, float | None]:
    """Of each that is installed, by its name."""
    known: dict[str, float | None] = {"accelerate": accelerate(), "weights + 16 B": sixteen_bytes(run)}
    if estimator is None:
        return known
    own = {"fitcheck": fitcheck(run, LONGEST), "fitcheck, own length": fitcheck(run, fitcheck_length())}
    return known | own | {"peft-doctor": peft_doctor(run), "torch-preflight": torch_preflight(run)}


@cache
def accelerate() -> int:
    """What `accelerate estimate-memory` prints for training this model with Adam in bf16: it ignores the method."""
    with torch.device("meta"):
        empty = trace.build(config_of(model()), Setup(dtype="fp32"))
    total, _ = calculate_maximum_sizes(empty)
    return max(estimate_training_usage(total, "bfloat16").values())


def sixteen_bytes(run: Run) -> int:
    """The rule of thumb: 16 bytes for each number that trains, and the frozen ones as they are."""
    frozen = _parameters() if run.config else 0
    return 16 * run.trainable + 2 * frozen


def fitcheck(run: Run, seq: int) -> float | None:
    """fitcheck-llm's total; it knows LoRA and full fine-tuning, and calls SDPA's memory-efficient kernel flash."""
    if not _plain(run):
        return None
    report = estimator.estimate(_model(), _training(run, seq), gpu_db.get_gpu("l40s"))
    return report.total_mib * 2**20


def peft_doctor(run: Run) -> float | None:
    """peft-doctor's total; it knows LoRA, without rank or targets, and full fine-tuning. Its GB are GiB."""
    if not _plain(run):
        return None
    config, step = config_of(model()), {"seq_len": LONGEST, "batch_size": CONDITIONS["batch"]}
    shape = {"hidden_size": config["hidden_size"], "num_layers": config["num_hidden_layers"]}
    options = {"lora": bool(run.config), "gradient_checkpointing": False, "params_billion": _parameters() / 1e9}
    return estimate_vram_gb(model(), **options, **step, **shape).metadata["estimated_total_gb"] * 2**30


def torch_preflight(run: Run) -> float:
    """torch-preflight's total; of a method it knows the fraction that trains."""
    config, fields = config_of(model()), {"layers": "num_hidden_layers", "hidden": "hidden_size", "vocab": "vocab_size"}
    fields |= {"heads": "num_attention_heads", "kv_heads": "num_key_value_heads", "intermediate": "intermediate_size"}
    sizes = {own: config[theirs] for own, theirs in fields.items()}
    shape = types.TransformerShape(tied_embeddings=True, gated_mlp=True, has_lm_head=True, **sizes)
    frozen = {"frozen_fraction": 1 - run.trainable / _parameters(), "precision": types.PrecisionMode.PURE_BF16}
    step = {"batch_size": CONDITIONS["batch"], "seq_len": LONGEST, "flash_attention": True}
    return estimate_config(static.from_shape(shape), types.RunConfig(**step, **frozen)).total


def _plain(run: Run) -> bool:
    return not run.config or (run.config["peft_type"] == "LORA" and not run.config.get("use_dora"))


@cache
def fitcheck_length() -> int:
    """The length that brings fitcheck-llm nearest to the run on which ours is fitted."""
    first = runs()[FITTED]
    return min(range(64, CUT + 1), key=lambda seq: abs(fitcheck(first, seq) - first.reserved))


def _training(run: Run, seq: int) -> Any:
    common = {"batch_size": CONDITIONS["batch"], "seq_len": seq, "flash_attn": True}
    if not run.config:
        return estimator.TrainingConfig(**common, lora_rank=None, optimizer_dtype="bf16")
    return estimator.TrainingConfig(**common, lora_rank=run.config["r"], lora_targets=run.config["target_modules"])


@cache
def _model() -> Any:
    config = config_of(model())
    same = ("hidden_size", "num_attention_heads", "intermediate_size", "vocab_size", "head_dim", "tie_word_embeddings")
    others = {"num_layers": config["num_hidden_layers"], "num_kv_heads": config["num_key_value_heads"]}
    sizes = {name: config[name] for name in same} | others
    return config_parser.ModelConfig(name=model(), num_params=_parameters(), **sizes)


def _parameters() -> int:
    return next(run.trainable for run in runs().values() if not run.config)
