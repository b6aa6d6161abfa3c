"""Time a batch whose rows use sixteen adapters against one adapter for all rows, PEFT's mixed batch, and switching.

Rows change their order in each batch, so nothing can be reused. "One" is the largest adapter for all rows. "Switching"
runs each adapter alone on its own rows. PEFT reads the same files: its mixed batch is `adapter_names=`, its switch
`set_adapter`. Only forward passes on random tokens are timed.
"""

import itertools
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import peft
import torch
from torch import Tensor, nn

from benchmarks.measure import Paired, goal, paired, seconds, table, worst_goal
from lora_lab import AdapterBank, LoRA, detach, load_model, save_adapter

ADAPTERS = 16
HEAD = ["case", "mixed ms", "one", "PEFT mixed", "switching", "mixed / one (quartiles)", "/ PEFT", "/ switching", "off"]


@dataclass(frozen=True)
class Case:
    """MiniLM with 16 adapters; ranks and targets are assigned in turn."""

    dtype: str
    tokens: int
    ranks: tuple[int, ...] = (8,)
    targets: tuple[str, ...] = ("q,v",)
    rows: int = ADAPTERS

    @property
    def uniform(self) -> bool:
        """Whether all adapters have the same rank and targets."""
        return len(self.ranks) == len(self.targets) == 1

    def __str__(self) -> str:
        ranks = "/".join(map(str, self.ranks))
        return f"{self.dtype} {self.rows}x{self.tokens} r={ranks} {' or '.join(self.targets)}"


CASES = (
    Case("fp32", 28),
    Case("fp32", 128),
    Case("fp32", 28, rows=64),
    Case("fp32", 28, (8,), ("all-linear",)),
    Case("fp32", 28, (4, 8, 16), ("all-linear", "q,v")),
    Case("bf16", 28),
    Case("bf16", 128),
)


class Result(NamedTuple):
    """Times of a case, and the largest difference between a logit of the mixed batch and of a separate run."""

    case: Case
    one: Paired
    peft: Paired
    switching: Paired
    difference: float
    switches: list[float]
    peft_switches: list[float]


def save_adapters(case: Case, folder: Path) -> dict[str, Path]:
    """Save sixteen adapters with random B; return their paths by name."""
    base, saved = load_model("minilm", 2, dtype=case.dtype), {}
    ranks, targets = itertools.cycle(case.ranks), itertools.cycle(case.targets)
    for n in range(ADAPTERS):
        torch.manual_seed(n)
        LoRA(rank=next(ranks), alpha=16, targets=next(targets)).attach(base)
        for name, parameter in base.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                nn.init.normal_(parameter, std=0.1)
        saved[f"a{n}"] = save_adapter(base, folder / f"a{n}")
        detach(base)
    return saved


def load_both(saved: dict[str, Path], dtype: str) -> tuple[AdapterBank, nn.Module]:
    """Load all adapters into our bank and into a PEFT model, each with its own base."""
    bank, (first, *others) = AdapterBank(load_model("minilm", 2, dtype=dtype)), saved
    for name, path in saved.items():
        bank.load(name, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = load_model("minilm", 2, dtype=dtype)
        model = peft.PeftModel.from_pretrained(base, saved[first], adapter_name=first)
        for name in others:
            model.load_adapter(saved[name], name)
    return bank, model.eval()


@torch.inference_mode()
def measure(case: Case, pairs: int) -> Result:
    """Time a case. Raises: AssertionError if PEFT's mixed batch gives other logits."""
    with tempfile.TemporaryDirectory() as folder:
        bank, peft_model = load_both(save_adapters(case, Path(folder)), case.dtype)
    ids = torch.randint(5, 30000, (case.rows, case.tokens), generator=torch.Generator().manual_seed(0))
    mask, generator = torch.ones_like(ids), torch.Generator().manual_seed(0)
    largest = max(bank.names, key=lambda name: bank.report(name).trainable)

    def shuffled() -> list[str]:
        names = [f"a{n}" for n in range(ADAPTERS)] * (case.rows // ADAPTERS)
        return [names[i] for i in torch.randperm(case.rows, generator=generator)]

    def mixed(names: list[str]) -> Tensor:
        with bank.mixed(names):
            return bank.model(input_ids=ids, attention_mask=mask).logits

    def one() -> Tensor:
        bank.use(largest)
        return bank.model(input_ids=ids, attention_mask=mask).logits

    def peft_mixed(names: list[str]) -> Tensor:
        return peft_model(input_ids=ids, attention_mask=mask, adapter_names=names).logits

    def switching(names: list[str]) -> Tensor:
        logits = torch.empty(case.rows, 2)
        for name in bank.names:
            rows = [row for row, own in enumerate(names) if own == name]
            bank.use(name)
            logits[rows] = bank.model(input_ids=ids[rows], attention_mask=mask[rows]).logits
        return logits

    names = shuffled()
    difference = float((mixed(names) - switching(names)).abs().max())
    from_peft = float((mixed(names) - peft_mixed(names)).abs().max())
    assert from_peft < (1e-4 if case.dtype == "fp32" else 0.1), f"{case}: {from_peft} from PEFT's mixed batch"
    switches, peft_switches = (
        [seconds(lambda n=n, use=use: use(n)) for n in bank.names] for use in (bank.use, peft_model.set_adapter)
    )
    rivals = (one, lambda: peft_mixed(shuffled()), lambda: switching(shuffled()))
    times = [paired(lambda: mixed(shuffled()), rival, pairs, warm_up=2) for rival in rivals]
    return Result(case, *times, difference, switches, peft_switches)


def report(quick: bool) -> Iterator[str]:
    """Yield the report in Markdown."""
    results = [measure(case, pairs=8 if quick else 30) for case in CASES]
    rows = []
    for r in results:
        times = [f"{1000 * median(t):.0f}" for t in (r.one.ours, r.one.theirs, r.peft.theirs, r.switching.theirs)]
        rows.append([str(r.case), *times, *map(str, (r.one, r.peft, r.switching)), f"{r.difference:.1e}"])
    yield "## Sixteen adapters on one base"
    yield table(HEAD, rows)
    yield worst_goal("mixed batch against one adapter", [r.one.ratio for r in results if r.case.uniform], 1 / 0.9)
    for r in results:
        if not r.case.uniform:
            yield f"- {r.case}, all padded to the largest rank, against the largest adapter alone: {r.one}"
    yield worst_goal("mixed batch against PEFT's", [r.peft.ratio for r in results], 1.0)
    difference = max(r.difference for r in results if r.case.dtype == "fp32")
    yield goal("mixed batch against separate runs in fp32, largest difference in 1e-5", difference / 1e-5, 1.0)
    switches = [1000 * time for result in results for time in result.switches]
    peft_switches = [1000 * time for result in results for time in result.peft_switches]
    details = f"the slowest of {len(switches)} (PEFT's set_adapter: median {median(peft_switches):.1f})"
    yield goal(f"milliseconds of a switch, {details}", max(switches), 1.0, 4)
