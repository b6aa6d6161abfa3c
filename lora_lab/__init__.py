"""lora_lab: understand LoRA by running it.

    from lora_lab import LoRA, train
    run = train("minilm", "rt", LoRA(rank=8, alpha=16, targets=("q", "v")), lr=2e-3, steps=400)

Names are imported on first use, so importing the package does not import torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Torch's threads wait for each other many times per step. By default, they spin while they wait. On 2 cores, another
# busy program (such as a browser) then slows a 0.1 s step down to 2 s or more. Sleeping threads free their cores, but
# waking them takes time. A step of 8 short rows takes 50 ms if threads don't spin, 33 ms if they spin 1,000 times (a
# few microseconds), and 28 ms for 10,000 spins. With a busy program, the times are 48, 66 and 236 ms, so we use 1,000.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from lora_lab.accounting.memory import memory
    from lora_lab.accounting.params import params
    from lora_lab.errors import BadValue, LabError, NotFound
    from lora_lab.experiments.compare import compare
    from lora_lab.experiments.grid import Grid
    from lora_lab.experiments.statistics import verdict, verdicts
    from lora_lab.experiments.study import Study
    from lora_lab.experiments.sweep import sweep
    from lora_lab.methods.bank import AdapterBank
    from lora_lab.methods.bitfit import BitFit
    from lora_lab.methods.bottleneck import Bottleneck
    from lora_lab.methods.full import FullFineTuning, HeadOnly, Probe
    from lora_lab.methods.ia3 import IA3
    from lora_lab.methods.io import load_adapter, save_adapter
    from lora_lab.methods.lora import LoRA
    from lora_lab.methods.merge import detach, disabled, merge, merge_for_good, unmerge
    from lora_lab.methods.shared import LoRAXS, TinyLoRA, VeRA
    from lora_lab.methods.soft import PrefixTuning, PromptTuning, PTuning
    from lora_lab.training.models import load_model, load_tokenizer
    from lora_lab.training.recipe import Recipe
    from lora_lab.training.runs import Run, Store
    from lora_lab.training.tasks import load_task
    from lora_lab.training.train import evaluate_adapter, train
    from lora_lab.widgets.compare_panel import ComparePanel
    from lora_lab.widgets.lora_panel import LoRAPanel
    from lora_lab.widgets.memory_panel import MemoryPanel
    from lora_lab.widgets.rank_panel import RankPanel
    from lora_lab.widgets.sweep_panel import SweepPanel
    from lora_lab.widgets.train_panel import TrainPanel

__version__ = "0.2.0"

_NAMES = {  # by module
    "accounting.memory": "memory",
    "accounting.params": "params",
    "errors": "BadValue LabError NotFound",
    "experiments.compare": "compare",
    "experiments.grid": "Grid",
    "experiments.statistics": "verdict verdicts",
    "experiments.study": "Study",
    "experiments.sweep": "sweep",
    "methods.bank": "AdapterBank",
    "methods.bitfit": "BitFit",
    "methods.bottleneck": "Bottleneck",
    "methods.full": "FullFineTuning HeadOnly Probe",
    "methods.ia3": "IA3",
    "methods.io": "load_adapter save_adapter",
    "methods.lora": "LoRA",
    "methods.merge": "detach disabled merge merge_for_good unmerge",
    "methods.shared": "LoRAXS TinyLoRA VeRA",
    "methods.soft": "PTuning PrefixTuning PromptTuning",
    "training.models": "load_model load_tokenizer",
    "training.recipe": "Recipe",
    "training.runs": "Run Store",
    "training.tasks": "load_task",
    "training.train": "evaluate_adapter train",
    "widgets.compare_panel": "ComparePanel",
    "widgets.lora_panel": "LoRAPanel",
    "widgets.memory_panel": "MemoryPanel",
    "widgets.rank_panel": "RankPanel",
    "widgets.sweep_panel": "SweepPanel",
    "widgets.train_panel": "TrainPanel",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [  # written out for type checkers
    "AdapterBank", "BadValue", "BitFit", "Bottleneck", "ComparePanel", "FullFineTuning", "Grid", "HeadOnly", "IA3",
    "LabError", "LoRA", "LoRAPanel", "LoRAXS", "MemoryPanel", "NotFound", "PTuning", "PrefixTuning", "Probe",
    "PromptTuning", "RankPanel", "Recipe", "Run", "Store", "Study", "SweepPanel", "TinyLoRA", "TrainPanel", "VeRA",
    "compare", "detach", "disabled", "evaluate_adapter", "load_adapter", "load_model", "load_task", "load_tokenizer",
    "memory", "merge", "merge_for_good", "params", "save_adapter", "sweep", "train", "unmerge", "verdict", "verdicts",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lora_lab' has no attribute '{name}'")
    globals()[name] = value = getattr(import_module(f"lora_lab.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
