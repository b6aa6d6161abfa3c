"""One training step of ours against PEFT's: same dtype, attention, rows, rank, targets and starting weights.

A step is forward, loss, backward, fused AdamW and zero_grad, without clipping and without dropout. PEFT is left as it
comes: on a bf16 base it keeps its adapters in fp32 and computes them in fp32.
"""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import peft
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.measure import Paired, goal, paired, table
from lora_lab import LoRA, load_model, save_adapter
from lora_lab.accounting.tracker import Tracker

Step = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """What both are given."""

    model: str
    dtype: str
    attention: str
    rows: int
    tokens: int
    targets: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.model} {self.dtype} {self.attention} {self.rows}x{self.tokens} {'+'.join(self.targets)}"


@dataclass(frozen=True)
class Result:
    """What came of a case: seconds in pairs, and the most bytes that a step has alive beside the weights."""

    case: Case
    times: Paired
    our_bytes: int
    their_bytes: int

    def row(self) -> list[str]:
        """As a row of the table."""
        ours, theirs = median(self.times.ours), median(self.times.theirs)
        sizes = [f"{n / 2**20:.1f}" for n in (self.our_bytes, self.their_bytes)]
        milliseconds = [f"{1000 * s:.1f}" for s in (ours, theirs)]
        return [str(self.case), *milliseconds, str(self.times), *sizes, f"{self.our_bytes / self.their_bytes:.3f}"]


HEAD = ["case", "ours ms", "PEFT ms", "ratio (quartiles)", "ours MiB", "PEFT MiB", "ratio"]


def cases() -> Iterator[Case]:
    """MiniLM in every combination, SmolLM2 once."""
    shapes, targets = ((16, 32), (8, 64)), (("q", "v"), ("all-linear",))
    for dtype, attention, shape, wanted in itertools.product(("fp32", "bf16"), ("eager", "sdpa"), shapes, targets):
        yield Case("minilm", dtype, attention, *shape, wanted)
    yield Case("smollm2", "bf16", "sdpa", 2, 128, ("q", "v"))


def models(case: Case) -> tuple[nn.Module, nn.Module]:
    """Ours, and PEFT's with the weights of ours, which it reads from the adapter file."""
    torch.manual_seed(0)
    ours, base = (load_model(case.model, _labels(case), dtype=case.dtype, attention=case.attention) for _ in range(2))
    LoRA(rank=8, alpha=16, targets=case.targets).attach(ours)
    for name, parameter in ours.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.01)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_adapter(ours, folder)
        theirs = peft.PeftModel.from_pretrained(base, folder, is_trainable=True)
    return ours, theirs.eval()


def step_of(model: nn.Module, case: Case) -> Step:
    """One step on random tokens, the same at every call and for both; returns the loss."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 30000, (case.rows, case.tokens), generator=generator)
    mask = torch.ones_like(ids)
    labels = torch.arange(case.rows) % 2 if _labels(case) else ids[:, 1:].flatten()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, fused=True)

    def step() -> float:
        logits = model(input_ids=ids, attention_mask=mask).logits.float()
        loss = F.cross_entropy(logits if logits.dim() == 2 else logits[:, :-1].flatten(0, 1), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def measure(case: Case, pairs: int) -> Result:
    """Time a case. Raises: AssertionError when the two do not compute the same loss."""
    both = models(case)
    ours, theirs = (step_of(model, case) for model in both)
    a, b = ours(), theirs()  # from now on the optimizer has its states
    assert abs(a - b) < (1e-4 if case.dtype == "fp32" else 5e-2), f"{case}: losses {a} and {b} differ"
    times = paired(ours, theirs, pairs)
    return Result(case, times, *(peak_bytes(step, model) for step, model in zip((ours, theirs), both, strict=True)))


def peak_bytes(step: Step, model: nn.Module) -> int:
    """The most bytes of tensors that a step has alive at one time, beyond the model's own."""
    with Tracker() as tracker:
        tracker.claim([*model.parameters(), *model.buffers()], "weights", "")
        before = sum(tracker.live.values())
        step()
    return max(sum(moment.bytes.values()) for moment in tracker.moments) - before


def _labels(case: Case) -> int | None:
    return 2 if case.model == "minilm" else None


def report(quick: bool) -> str:
    """The table and the verdicts, in Markdown."""
    results = [measure(case, pairs=(8 if quick else 40) if case.model == "minilm" else 6) for case in cases()]
    return "\n".join(
        [
            "## One training step against PEFT\n",
            table(HEAD, [r.row() for r in results]) + "\n",
            _time_goal([r for r in results if r.case.dtype == "fp32"], "fp32", 1.0),
            _time_goal([r for r in results if r.case.dtype == "bf16"], "bf16", 0.9),
            goal("peak bytes, largest ratio", max(r.our_bytes / r.their_bytes for r in results), 1.0, 3),
        ]
    )


def _time_goal(results: list[Result], dtype: str, at_most: float) -> str:
    """The goal must hold in every case; the middle says how things stand on the whole."""
    ratios = [r.times.ratio for r in results]
    within = sum(ratio <= at_most for ratio in ratios)
    words = f"{dtype} time, the slowest case ({within} of {len(ratios)} within the goal, middle {median(ratios):.3f})"
    return goal(words, max(ratios), at_most, 3)
