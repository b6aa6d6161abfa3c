"""Sixteen adapters on one base: in one batch against one adapter, PEFT's mixed batch and swapping; and their switches.

Each row has an adapter of its own, and each batch another order of rows, so that nothing is left over from the last
one. One adapter, the largest, answers for as many rows. Swapping asks each adapter for its own row, one after the
other. PEFT reads the same files; its mixed batch is `adapter_names=`, its switch `set_adapter`. Forward passes only, on
random tokens.
"""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import median

import peft
import torch
from torch import Tensor, nn

from benchmarks.measure import Paired, goal, paired, seconds, table
from lora_lab import AdapterBank, LoRA, detach, load_model, save_adapter

MANY = 16


@dataclass(frozen=True)
class Case:
    """MiniLM with 16 adapters: rank, and targets, of each in turn."""

    dtype: str
    tokens: int
    ranks: tuple[int, ...] = (8,)
    targets: tuple[str, ...] = ("q,v",)
    rows: int = MANY

    @property
    def alike(self) -> bool:
        """Whether all adapters have one rank and the same targets."""
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


@dataclass(frozen=True)
class Result:
    """What was measured; `apart`: the largest difference between a logit of the mixed batch and of a separate run."""

    case: Case
    one: Paired
    theirs: Paired
    swapping: Paired
    apart: float
    switch: list[float]
    their_switch: list[float]

    def row(self) -> list[str]:
        """A line of the table."""
        ms = [
            1000 * median(times) for times in (self.one.ours, self.one.theirs, self.theirs.theirs, self.swapping.theirs)
        ]
        ratios = [str(pair) for pair in (self.one, self.theirs, self.swapping)]
        return [str(self.case), *(f"{time:.0f}" for time in ms), *ratios, f"{self.apart:.1e}"]


HEAD = ["case", "mixed ms", "one", "PEFT mixed", "swapping", "mixed / one (quartiles)", "/ PEFT", "/ swapping", "apart"]


def files(case: Case, folder: Path) -> dict[str, Path]:
    """Sixteen adapters with random B, saved, by name."""
    base, saved = load_model("minilm", 2, dtype=case.dtype), {}
    for n, rank, targets in zip(range(MANY), itertools.cycle(case.ranks), itertools.cycle(case.targets), strict=False):
        torch.manual_seed(n)
        LoRA(rank=rank, alpha=16, targets=targets).attach(base)
        for name, parameter in base.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                nn.init.normal_(parameter, std=0.1)
        saved[f"a{n}"] = save_adapter(base, folder / f"a{n}")
        detach(base)
    return saved


def both(case: Case, saved: dict[str, Path]) -> tuple[AdapterBank, peft.PeftModel]:
    """Ours and PEFT's, each with all adapters on a base of its own."""
    bank, (first, *others) = AdapterBank(load_model("minilm", 2, dtype=case.dtype)), saved
    for name, path in saved.items():
        bank.load(name, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.PeftModel.from_pretrained(
            load_model("minilm", 2, dtype=case.dtype), saved[first], adapter_name=first
        )
        for name in others:
            theirs.load_adapter(saved[name], name)
    return bank, theirs.eval()


def orders(case: Case) -> Callable[[], list[str]]:
    """Another order of the rows' adapters at each call."""
    generator = torch.Generator().manual_seed(0)
    names = [f"a{n}" for n in range(MANY)] * (case.rows // MANY)
    return lambda: [names[i] for i in torch.randperm(case.rows, generator=generator)]


@torch.inference_mode()
def measure(case: Case, pairs: int) -> Result:
    """Time a case. Raises: AssertionError when PEFT's mixed batch answers otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        bank, theirs = both(case, files(case, Path(folder)))
    ids = torch.randint(5, 30000, (case.rows, case.tokens), generator=torch.Generator().manual_seed(0))
    mask, order = torch.ones_like(ids), orders(case)

    def mixed(names: list[str] | None = None) -> Tensor:
        with bank.mixed(names or order()):
            return bank.model(input_ids=ids, attention_mask=mask).logits

    largest = max(bank.names, key=lambda name: bank.report(name).trainable)

    def one() -> Tensor:
        bank.use(largest)
        return bank.model(input_ids=ids, attention_mask=mask).logits

    def peft_mixed(names: list[str] | None = None) -> Tensor:
        return theirs(input_ids=ids, attention_mask=mask, adapter_names=names or order()).logits

    def swapping(names: list[str] | None = None) -> Tensor:
        names, answers = names or order(), torch.empty(case.rows, 2)
        for name in bank.names:
            own = [row for row, its in enumerate(names) if its == name]
            bank.use(name)
            answers[own] = bank.model(input_ids=ids[own], attention_mask=mask[own]).logits
        return answers

    names = order()
    apart = float((mixed(names) - swapping(names)).abs().max())
    between = float((mixed(names) - peft_mixed(names)).abs().max())
    assert between < (1e-4 if case.dtype == "fp32" else 0.1), f"{case}: {between} from PEFT's mixed batch"
    switch, their_switch = (
        [seconds(lambda n=n, use=use: use(n)) for n in bank.names] for use in (bank.use, theirs.set_adapter)
    )
    others = [paired(mixed, other, pairs, warm_up=2) for other in (one, peft_mixed, swapping)]
    return Result(case, *others, apart, switch, their_switch)


def report(quick: bool) -> str:
    """The table and the verdicts, in Markdown."""
    results = [measure(case, pairs=8 if quick else 30) for case in CASES]
    switch, their_switch = (
        [1000 * t for r in results for t in get(r)] for get in map(attrgetter, ("switch", "their_switch"))
    )
    exact = max(r.apart for r in results if r.case.dtype == "fp32")
    each = f"the slowest of {len(switch)} (PEFT's set_adapter: median {median(their_switch):.1f})"
    return "\n".join(
        [
            "## Sixteen adapters on one base\n",
            table(HEAD, [r.row() for r in results]) + "\n",
            _time_goal("one adapter at equal rows", [r.one.ratio for r in results if r.case.alike], 1 / 0.9),
            *(
                f"- {r.case}, so all padded to the largest rank, against the largest alone: {r.one}"
                for r in results
                if not r.case.alike
            ),
            _time_goal("PEFT's", [r.theirs.ratio for r in results], 1.0),
            goal("mixed batch against separate runs in fp32, largest difference in 1e-5", exact / 1e-5, 1.0),
            goal(f"milliseconds of a switch, {each}", max(switch), 1.0, 4),
        ]
    )


def _time_goal(against: str, ratios: list[float], at_most: float) -> str:
    """The goal must hold in every case; the middle says how things stand on the whole."""
    words = f"time of a mixed batch against {against}, the slowest case (middle {median(ratios):.3f})"
    return goal(words, max(ratios), round(at_most, 3), 3)
