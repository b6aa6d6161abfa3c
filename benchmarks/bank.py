"""Compare a batch whose rows use sixteen adapters with a batch of one adapter, PEFT's mixed batch, and switching.

The rows are reordered for each batch, so nothing can be reused. "One" uses the largest adapter for all rows, and
"switching" runs each adapter alone on its own rows. PEFT reads the same files; its mixed batch uses `adapter_names=`,
and its switch is `set_adapter`. The benchmark times only forward passes, on random tokens.
"""

import tempfile
import warnings
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

import peft
import torch
from torch import Tensor, nn

from benchmarks.measure import Paired, goal, paired, seconds, table, worst_goal
from lora_lab import AdapterBank, LoRA, detach, load_model, save_adapter

ADAPTERS = 16
HEAD = ["case", "mixed ms", "one", "PEFT mixed", "switching", "mixed / one (quartiles)", "/ PEFT", "/ switching", "off"]


class Case(NamedTuple):
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
    """The times of a case, and the largest difference between the logits of the mixed batch and of separate runs."""

    case: Case
    one: Paired
    peft: Paired
    switching: Paired
    difference: float
    switches: list[list[float]]  # ours and PEFT's


def load_both(case: Case) -> tuple[AdapterBank, nn.Module]:
    """Load sixteen adapters with random B into our bank and into a PEFT model; each of the two has its own base."""
    source, ours, theirs = (load_model("minilm", 2, dtype=case.dtype) for _ in range(3))
    bank, model = AdapterBank(ours), None
    for n in range(ADAPTERS):
        torch.manual_seed(n)
        rank, targets = case.ranks[n % len(case.ranks)], case.targets[n % len(case.targets)]
        LoRA(rank=rank, alpha=16, targets=targets).attach(source)
        for name, parameter in source.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                nn.init.normal_(parameter, std=0.1)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bank.load(f"a{n}", save_adapter(source, folder))
            if model is None:
                model = peft.PeftModel.from_pretrained(theirs, folder, adapter_name="a0")
            else:
                model.load_adapter(folder, f"a{n}")
        detach(source)
    return bank, model.eval()


@torch.inference_mode()
def measure(case: Case, pairs: int) -> Result:
    """Time a case. Raises: AssertionError if PEFT's mixed batch gives different logits."""
    bank, peft_model = load_both(case)
    ids = torch.randint(5, 30000, (case.rows, case.tokens), generator=torch.Generator().manual_seed(0))
    mask, generator = torch.ones_like(ids), torch.Generator().manual_seed(0)
    largest = max(bank.names, key=lambda name: bank.report(name).trainable)

    def shuffled() -> list[str]:
        return [f"a{row % ADAPTERS}" for row in torch.randperm(case.rows, generator=generator).tolist()]

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
    uses = (bank.use, peft_model.set_adapter)
    switches = [[seconds(lambda n=n, use=use: use(n)) for n in bank.names] for use in uses]
    rivals = (one, lambda: peft_mixed(shuffled()), lambda: switching(shuffled()))
    times = [paired(lambda: mixed(shuffled()), rival, pairs, warm_up=2) for rival in rivals]
    return Result(case, *times, difference, switches)


def report(quick: bool) -> Iterator[str]:
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
            yield f"- {r.case}, with all adapters padded to the largest rank, against only the largest adapter: {r.one}"
    yield worst_goal("mixed batch against PEFT's", [r.peft.ratio for r in results], 1.0)
    difference = max(r.difference for r in results if r.case.dtype == "fp32")
    yield goal("largest difference of a mixed batch from separate runs in fp32, in 1e-5", difference / 1e-5, 1.0)
    switches, peft_switches = ([1000 * t for r in results for t in r.switches[way]] for way in (0, 1))
    details = f"the slowest of {len(switches)} (PEFT's set_adapter: median {median(peft_switches):.1f})"
    yield goal(f"milliseconds of a switch, {details}", max(switches), 1.0, 4)
