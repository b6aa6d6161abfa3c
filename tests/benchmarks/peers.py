"""Other estimators on the runs of PEFT's suite, each told as much as it can be told. In bytes; None where it cannot."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from accelerate.commands.estimate import estimate_training_usage
from accelerate.utils import calculate_maximum_sizes

from lora_lab.accounting import trace
from lora_lab.accounting.models import config_of
from lora_lab.accounting.setup import Setup
from tests.benchmarks.metamath import CONDITIONS, FITTED, LONGEST, Run, model, runs

try:
    from fitcheck import config_parser, estimator, gpu_db
except ImportError:
    estimator = None

CARD = "l40s"
MISSING = "fitcheck-llm is not installed: pip install fitcheck-llm"


@cache
def accelerate() -> int:
    """What `accelerate estimate-memory` prints for training this model with Adam in bf16: it knows no method."""
    with torch.device("meta"):
        empty = trace.build(config_of(model()), Setup(dtype="fp32"))
    total, _ = calculate_maximum_sizes(empty)
    return max(estimate_training_usage(total, "bfloat16").values())


def weights_times_four() -> int:
    """The rule of thumb: weights, gradients and two states."""
    return 4 * 2 * _parameters()


def sixteen_bytes(run: Run) -> int:
    """The rule of thumb: 16 bytes for each number that trains, and the frozen ones as they are."""
    frozen = _parameters() if run.config else 0
    return 16 * run.trainable + 2 * frozen


def fitcheck(run: Run, seq: int) -> float | None:
    """fitcheck-llm's total; it knows LoRA and full fine-tuning, and calls SDPA's memory-efficient kernel flash."""
    plain_lora = run.config.get("peft_type") == "LORA" and not run.config.get("use_dora")
    if estimator is None or not (plain_lora or not run.config):
        return None
    report = estimator.estimate(_model(), _training(run, seq), gpu_db.get_gpu(CARD))
    return report.total_mib * 2**20


@cache
def fitcheck_length() -> int:
    """The length that brings fitcheck-llm nearest to the run on which ours is fitted."""
    first = runs()[FITTED]
    return min(range(64, LONGEST + 1), key=lambda seq: abs(fitcheck(first, seq) - first.reserved))


def _training(run: Run, seq: int) -> Any:
    common = {"batch_size": CONDITIONS["batch"], "seq_len": seq, "flash_attn": True}
    if not run.config:
        return estimator.TrainingConfig(**common, lora_rank=None, optimizer_dtype="bf16")
    return estimator.TrainingConfig(**common, lora_rank=run.config["r"], lora_targets=run.config["target_modules"])


@cache
def _model() -> Any:
    config = config_of(model())
    return config_parser.ModelConfig(
        name=model(),
        num_params=_parameters(),
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_attention_heads=config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        intermediate_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        head_dim=config["head_dim"],
        tie_word_embeddings=config["tie_word_embeddings"],
    )


def _parameters() -> int:
    return next(run.trainable for run in runs().values() if not run.config)
