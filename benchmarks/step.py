"""Compare our training step with PEFT's, with the same dtype, attention, rows, rank, targets and initial weights.

A step consists of forward, loss, backward, fused AdamW and zero_grad, without clipping and without dropout. PEFT uses
its defaults, so on a bf16 base, its adapters are stored and computed in fp32.
"""

import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

import peft
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.measure import Paired, goal, paired, table, worst_goal
from lora_lab import LoRA, load_model, save_adapter
from lora_lab.accounting.tracker import Tracker

HEAD = ["case", "ours ms", "PEFT ms", "ratio (quartiles)", "ours MiB", "PEFT MiB", "ratio"]


class Case(NamedTuple):
    """The settings that both models share; `labels` is None for a language model."""

    model: str
    labels: int | None
    dtype: str
    attention: str
    rows: int
    tokens: int
    targets: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.model} {self.dtype} {self.attention} {self.rows}x{self.tokens} {'+'.join(self.targets)}"


CASES = [
    *(
        Case("minilm", 2, dtype, attention, rows, tokens, targets)
        for dtype, attention, (rows, tokens), targets in itertools.product(
            ("fp32", "bf16"), ("eager", "sdpa"), ((16, 32), (8, 64)), (("q", "v"), ("all-linear",))
        )
    ),
    Case("smollm2", None, "bf16", "sdpa", 2, 128, ("q", "v")),
]


class Result(NamedTuple):
    """The paired times of a case, and the peak bytes of a step without the weights, ours and theirs."""

    case: Case
    times: Paired
    bytes: tuple[int, int]


def models(case: Case) -> tuple[nn.Module, nn.Module]:
    """Return our model, and PEFT's with the same weights, read from our adapter file."""
    torch.manual_seed(0)
    ours, base = (load_model(case.model, case.labels, dtype=case.dtype, attention=case.attention) for _ in range(2))
    LoRA(rank=8, alpha=16, targets=case.targets).attach(ours)
    for name, parameter in ours.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.01)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_adapter(ours, folder)
        theirs = peft.PeftModel.from_pretrained(base, folder, is_trainable=True)
    return ours, theirs.eval()


def step_of(model: nn.Module, case: Case) -> Callable[[], float]:
    """Return a function that takes one step on fixed random tokens and returns the loss."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 30000, (case.rows, case.tokens), generator=generator)
    mask = torch.ones_like(ids)
    labels = torch.arange(case.rows) % 2 if case.labels else ids[:, 1:].flatten()
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
    """Time a case. Raises: AssertionError if the two losses differ."""
    both = models(case)
    ours, theirs = (step_of(model, case) for model in both)
    a, b = ours(), theirs()  # creates the optimizer states
    assert abs(a - b) < (1e-4 if case.dtype == "fp32" else 5e-2), f"{case}: losses {a} and {b} differ"
    return Result(case, paired(ours, theirs, pairs), (peak_bytes(ours, both[0]), peak_bytes(theirs, both[1])))


def peak_bytes(step: Callable[[], float], model: nn.Module) -> int:
    """Return the peak bytes of live tensors in a step, without the model's own."""
    with Tracker() as tracker:
        tracker.claim([*model.parameters(), *model.buffers()], "weights", "")
        before = sum(tracker.live.values())
        step()
    return max(sum(moment.bytes.values()) for moment in tracker.moments) - before


def report(quick: bool) -> Iterator[str]:
    results = [measure(case, pairs=(8 if quick else 40) if case.model == "minilm" else 6) for case in CASES]
    rows = []
    for case, times, peaks in results:
        milliseconds = [f"{1000 * median(seconds):.1f}" for seconds in (times.ours, times.theirs)]
        sizes = [f"{peak / 2**20:.1f}" for peak in peaks]
        rows.append([str(case), *milliseconds, str(times), *sizes, f"{peaks[0] / peaks[1]:.3f}"])
    yield "## One training step against PEFT"
    yield table(HEAD, rows)
    for dtype, at_most in (("fp32", 1.0), ("bf16", 0.9)):
        yield worst_goal(f"{dtype} time", [r.times.ratio for r in results if r.case.dtype == dtype], at_most)
    yield goal("peak bytes, largest ratio", max(r.bytes[0] / r.bytes[1] for r in results), 1.0, 3)
