"""Ask other memory estimators about the runs of PEFT's suite, with all details that each estimator accepts.

Estimates are in bytes. An estimator that doesn't know the method gives no estimate.
"""

from functools import cache

import torch
from accelerate.commands.estimate import estimate_training_usage
from accelerate.utils import calculate_maximum_sizes

from benchmarks.metamath import CONDITIONS, CUT, FITTED, LONGEST, Run, model, runs
from lora_lab import FullFineTuning, LoRA
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


def estimates(run: Run) -> dict[str, float]:
    """Return the estimate of each installed estimator, by name.

    "weights + 16 B" is the rule of thumb: 16 bytes per trainable parameter, and 2 bytes per frozen parameter.
    """
    sixteen_bytes = 16 * run.trainable + 2 * (_parameters() if run.config else 0)
    result: dict[str, float] = {"accelerate": accelerate(), "weights + 16 B": sixteen_bytes}
    if estimator is None:
        return result
    if isinstance(run.method, LoRA | FullFineTuning):  # fitcheck and peft-doctor know no other methods
        result["fitcheck"] = fitcheck(run, LONGEST)
        result["fitcheck, own length"] = fitcheck(run, fitcheck_length())
        result["peft-doctor"] = peft_doctor(run)
    return result | {"torch-preflight": torch_preflight(run)}


@cache
def accelerate() -> int:
    """Return what `accelerate estimate-memory` prints for training with Adam in bf16. It ignores the method."""
    with torch.device("meta"):
        empty = trace.build(config_of(model()), Setup(dtype="fp32"))
    total, _ = calculate_maximum_sizes(empty)
    return max(estimate_training_usage(total, "bfloat16").values())


def fitcheck(run: Run, seq: int) -> float:
    """Return fitcheck-llm's total for LoRA or full fine-tuning. It calls SDPA's memory-efficient kernel "flash"."""
    config = config_of(model())
    names = ("hidden_size", "num_attention_heads", "intermediate_size", "vocab_size", "head_dim", "tie_word_embeddings")
    sizes = {name: config[name] for name in names}
    sizes |= {"num_layers": config["num_hidden_layers"], "num_kv_heads": config["num_key_value_heads"]}
    shape = config_parser.ModelConfig(name=model(), num_params=_parameters(), **sizes)
    method = {"lora_rank": None, "optimizer_dtype": "bf16"}
    if run.config:
        method = {"lora_rank": run.config["r"], "lora_targets": run.config["target_modules"]}
    training = estimator.TrainingConfig(batch_size=CONDITIONS["batch"], seq_len=seq, flash_attn=True, **method)
    return estimator.estimate(shape, training, gpu_db.get_gpu("l40s")).total_mib * 2**20


@cache
def fitcheck_length() -> int:
    """Return the length at which fitcheck-llm is closest to the run that our length is fitted to."""
    fitted = runs()[FITTED]
    return min(range(64, CUT + 1), key=lambda seq: abs(fitcheck(fitted, seq) - fitted.reserved))


def peft_doctor(run: Run) -> float:
    """Return peft-doctor's total for full fine-tuning or LoRA; it takes no rank or targets. Its "GB" are GiB."""
    config, step = config_of(model()), {"seq_len": LONGEST, "batch_size": CONDITIONS["batch"]}
    shape = {"hidden_size": config["hidden_size"], "num_layers": config["num_hidden_layers"]}
    options = {"lora": bool(run.config), "gradient_checkpointing": False, "params_billion": _parameters() / 1e9}
    return estimate_vram_gb(model(), **options, **step, **shape).metadata["estimated_total_gb"] * 2**30


def torch_preflight(run: Run) -> float:
    """Return torch-preflight's total. Its only input about the method is the fraction of trained parameters."""
    config, fields = config_of(model()), {"layers": "num_hidden_layers", "hidden": "hidden_size", "vocab": "vocab_size"}
    fields |= {"heads": "num_attention_heads", "kv_heads": "num_key_value_heads", "intermediate": "intermediate_size"}
    sizes = {own: config[theirs] for own, theirs in fields.items()}
    shape = types.TransformerShape(tied_embeddings=True, gated_mlp=True, has_lm_head=True, **sizes)
    frozen = {"frozen_fraction": 1 - run.trainable / _parameters(), "precision": types.PrecisionMode.PURE_BF16}
    step = {"batch_size": CONDITIONS["batch"], "seq_len": LONGEST, "flash_attention": True}
    return estimate_config(static.from_shape(shape), types.RunConfig(**step, **frozen)).total


def _parameters() -> int:
    """Return the number of parameters of the model, which is what full fine-tuning trains."""
    return next(run.trainable for run in runs().values() if not run.config)
