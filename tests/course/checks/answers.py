"""ANSWERS has rows of a check's name and its arguments; for wrong answers, also parts of the reply and of the hint."""

import math
from copy import deepcopy
from math import exp, log
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import nn

from lora_course.checks.bits import CASES, sizes
from lora_course.checks.reward import EARNED
from lora_course.checks.variants import AS_PLAIN
from lora_course.checks.writing import LoRALinear
from lora_course.experiments.broken import PATIENTS
from lora_course.experiments.reward import reinforce
from lora_lab.methods.quant import levels_of

# ---- lesson 00
D, F, KV, LAYERS = 2048, 8192, 512, 16  # llama-3.2-1b
COST = 4 * LAYERS * 8
BYTES = COST * (2 * 2 * D + 2 * (D + KV) + 3 * (D + F))
WEIGHTS = 2 * D * D + 2 * D * KV + 3 * D * F
ANSWERS = [
    ("pair_numbers", (4224,)),
    ("file_bytes", (BYTES,)),
    ("pair_numbers", (576 * 1536,), "W, which stays frozen"),
    ("pair_numbers", (576 * 1536 + 4224,), "A and B alone"),
    ("pair_numbers", (2 * 576 * 1536,), "add inputs and outputs"),
    ("pair_numbers", (1152,), "A alone"),
    ("pair_numbers", (3072,), "B alone"),
    ("pair_numbers", (2304,), "square W"),
    ("pair_numbers", (2112,), "rank 1"),
    ("pair_numbers", (16896,), "bytes"),
    ("pair_numbers", (576 * 1536 - 4224,), "does not shrink the model"),
    ("pair_numbers", (5000,), "times too large"),
    ("file_bytes", (COST * (8 * D + 3 * (D + F)),), "narrow"),
    ("file_bytes", (BYTES // LAYERS,), "one layer"),
    ("file_bytes", (BYTES // 4,), "takes 4 bytes"),
    ("file_bytes", (BYTES // 2,), "2 bytes per number"),
    ("file_bytes", (BYTES * 8,), "bits"),
    ("file_bytes", (BYTES // 8,), "rank 1"),
    ("file_bytes", (BYTES / 1e6,), "those are MB"),
    ("file_bytes", (BYTES / 2**20,), "those are MiB"),
    ("file_bytes", (COST * (6 * D + F),), "A alone"),
    ("file_bytes", (COST * (3 * D + 2 * KV + 2 * F),), "B alone"),
    ("file_bytes", (COST * (4 * D + 2 * (D + KV)),), "gate, up and down"),
    ("file_bytes", (COST * 3 * (D + F),), "q, k, v and o"),
    ("file_bytes", (COST * (4 * D + 2 * (D + KV) + 2 * (D + F)),), "three matrices"),
    ("file_bytes", (COST * (3 * D + KV),), "q and v alone"),
    ("file_bytes", (4 * LAYERS * WEIGHTS,), "frozen weights"),
    ("file_bytes", (COST * WEIGHTS,), "not multiplied"),
]

# ---- lesson 01


class Model(nn.Sequential):
    def forward(self, x):
        return SimpleNamespace(logits=super().forward(x))


torch.manual_seed(0)
MODEL = Model(LoRALinear(nn.Linear(20, 48), 4, 12), nn.ReLU(), nn.Linear(48, 2))
nn.init.normal_(MODEL[0].lora_B)
TOKENS = {"x": torch.randn(16, 20)}
LABELS = MODEL(**TOKENS).logits.argmax(-1)
IN_MODEL = (MODEL, TOKENS, LABELS)


def merge_to(weight, shift=0):
    """Return a merge to a plain layer with the weight weight(W, BA) and a shifted bias. The scaling is 3."""

    def merge(layer):
        linear = deepcopy(layer.base_layer)
        linear.weight.data = weight(linear.weight.data, layer.lora_B.data @ layer.lora_A.data)
        linear.bias.data += shift
        return linear

    return merge


def lora_with(change):
    class Changed(LoRALinear):
        def __init__(self, base_layer, rank, alpha):
            super().__init__(base_layer, rank, alpha)
            change(self)

    return Changed


def forward_with(output):
    """Return a LoRALinear class whose layers return output(W x + b, B A x)."""

    def forward(self, x):
        return output(self.base_layer(x), x @ self.lora_A.T @ self.lora_B.T)

    return type("Changed", (LoRALinear,), {"forward": forward})


def a_is(other):
    """Return a LoRALinear class whose layers have other(A) instead of A."""
    return lora_with(lambda layer: setattr(layer, "lora_A", other(layer._parameters.pop("lora_A"))))


class Unfinished(nn.Module):
    def __init__(self, base_layer, rank, alpha):
        super().__init__()
        self.scaling = self.lora_A = self.lora_B = ...


SWAPPED = lora_with(lambda layer: (nn.init.zeros_(layer.lora_A), nn.init.normal_(layer.lora_B)))
LARGE_A = lora_with(lambda layer: nn.init.normal_(layer.lora_A))
MERGE = merge_to(lambda W, BA: W + 3 * BA)
ANSWERS += [
    ("lora_linear", (LoRALinear,)),
    ("merge", (MERGE, *IN_MODEL)),
    ("lora_linear", (Unfinished,), "not yet: replace each ... with code"),
    ("lora_linear", (lora_with(lambda layer: nn.init.normal_(layer.lora_B)),), "doesn't make learning slow"),
    ("lora_linear", (lora_with(lambda layer: nn.init.zeros_(layer.lora_A)),), "both zero"),
    ("lora_linear", (SWAPPED,), "the other way around"),
    ("lora_linear", (lora_with(lambda layer: nn.init.constant_(layer.lora_A, 0.01)),), "fill A at random"),
    ("lora_linear", (LARGE_A,), "kaiming_uniform_"),
    ("lora_linear", (lora_with(lambda layer: layer.base_layer.requires_grad_(True)),), "base_layer.weight would train"),
    ("lora_linear", (a_is(lambda a: a.data),), "nn.Parameter"),
    ("lora_linear", (a_is(lambda a: nn.Linear(48, 4, bias=False)),), "is a layer, as in PEFT"),
    ("lora_linear", (a_is(lambda a: nn.Parameter(a.data.T)),), "A is (4, 48)"),
    ("lora_linear", (lambda base_layer: base_layer,), "raises TypeError"),
    ("lora_linear", (forward_with(lambda base, update: update),), "exactly what base_layer(x)"),
    ("lora_linear", (forward_with(lambda base, update: base),), "only the frozen part"),
    ("lora_linear", (forward_with(lambda base, update: base + update),), "not multiplied"),
    ("lora_linear", (forward_with(lambda base, update: base + 12 * update),), "not divided by the rank"),
    ("lora_linear", (forward_with(lambda base, update: base + update / 3),), "upside down"),
    ("lora_linear", (forward_with(lambda base, update: base + 6 * update),), "rank-stabilized"),
    ("lora_linear", (forward_with(lambda base, update: base.mT),), "the output must be"),
    ("lora_linear", (forward_with(lambda base, update: base @ update),), "raises RuntimeError"),
    ("lora_linear", (forward_with(lambda base, update: base + 0.1 * update),), "leave out dropout"),
    ("lora_linear", (forward_with(lambda base, update: base + 3 * update.double()),), "the output must be"),
    ("lora_linear", (forward_with(lambda base, update: base + 3 * update.detach()),), "no gradient reaches A or B"),
    ("lora_linear", (forward_with(lambda base, update: base.detach() + 3 * update),), "for the layers below"),
    ("lora_linear", (forward_with(lambda base, update: base @ base if update.any() else base),), "raises"),
    ("merge", (lambda layer: layer, *IN_MODEL), "still beside W"),
    ("merge", (lambda layer: layer.base_layer, *IN_MODEL), "W alone"),
    ("merge", (lambda layer: layer.base_layer.weight + layer.lora_B @ layer.lora_A, *IN_MODEL), "not Tensor"),
    ("merge", (merge_to(lambda W, BA: W + BA), *IN_MODEL), "not multiplied"),
    ("merge", (merge_to(lambda W, BA: W - 3 * BA), *IN_MODEL), "you subtract"),
    ("merge", (merge_to(lambda W, BA: 3 * BA), *IN_MODEL), "update alone"),
    ("merge", (merge_to(lambda W, BA: W + 3 * BA, shift=1), *IN_MODEL), "the bias is new"),
    ("merge", (merge_to(lambda W, BA: W + 5 * BA), *IN_MODEL), "the order of A and B"),
    ("merge", (lambda layer: layer.lora_A @ layer.lora_B + layer.base_layer.weight, *IN_MODEL), "raises"),
    ("merge", (merge_to(lambda W, BA: (W + 3 * BA).T), *IN_MODEL), "raises RuntimeError"),
    ("merge", (MERGE, MODEL, TOKENS, 1 - LABELS), "train again"),
]

# ---- lesson 02


def table(n: int, only_a: int, only_b: int) -> pd.DataFrame:
    """Return n rows: 70% are right in both models, and `only_a` and `only_b` rows in one model alone."""
    counts = {(1, 0): only_a, (0, 1): only_b, (1, 1): int(0.7 * n)}
    rows = [pair for pair, count in counts.items() for _ in range(count)]
    return pd.DataFrame(rows + [(0, 0)] * (n - len(rows)), columns=["a", "b"])


CLOSE = table(2000, 130, 106)  # the models differ on 11.8%, and a is 1.2 points ahead
AHEAD = table(2000, 160, 80)  # 12% and 4 points
HALF, HALF_AHEAD = (1.96 * math.sqrt(share / 2000) for share in (0.118, 0.12))
NEARLY_ZERO = table(2000, 120, 91), 1.96 * math.sqrt(211 / 2000 / 2000)  # a resampled interval may exclude 0
ANSWERS += [
    ("half_width", (lambda p, n: 1.96 * math.sqrt(p * (1 - p) / n),)),
    ("report", (CLOSE, HALF, "undecided")),
    ("report", (AHEAD, HALF_AHEAD, "Better")),
    ("report", (AHEAD.rename(columns={"a": "b", "b": "a"}), HALF_AHEAD, "worse")),
    ("report", (CLOSE, 0.9906 * HALF, "undecided")),  # from 2,000 resamples
    ("report", (*NEARLY_ZERO, "better")),
    ("report", (*NEARLY_ZERO, "undecided")),
    ("report", (CLOSE, ..., ...), "not yet: replace the ..."),
    ("half_width", (lambda p, n: math.sqrt(p * (1 - p) / n),), "one standard error"),
    ("half_width", (lambda p, n: 2 * math.sqrt(p * (1 - p) / n),), "that uses 2"),
    ("half_width", (lambda p, n: 3.92 * math.sqrt(p * (1 - p) / n),), "from end to end"),
    ("half_width", (lambda p, n: 196 * math.sqrt(p * (1 - p) / n),), "in points"),
    ("half_width", (lambda p, n: 1.96 * p * (1 - p) / n,), "square root first"),
    ("half_width", (lambda p, n: 1.96 * math.sqrt(p * (1 - p)),), "spread of one sentence"),
    ("half_width", (lambda p, n: 1.96 * math.sqrt(p * (1 - p)) / n,), "under the root"),
    ("half_width", (lambda p, n: 0.98 / math.sqrt(n),), "only at p = 0.5"),
    ("report", (CLOSE, 100 * HALF, "undecided"), "half: that is in points", "** 0.5"),
    ("report", (CLOSE, HALF / 1.96, "undecided"), "half: that is one standard error"),
    ("report", (CLOSE, 2 * HALF, "undecided"), "half: that is the whole interval"),
    ("report", (CLOSE, 0.0265, "undecided"), "half: that is for two different tests"),
    ("report", (CLOSE, 0.0186, "undecided"), "half: that is one model's interval"),
    ("report", (CLOSE, HALF, "better"), "beats 75.3 only if the whole interval of a - b is above 0", "is 0 between"),
    ("report", (AHEAD, HALF_AHEAD, "undecided"), "0 is outside"),
    ("report", (CLOSE.rename(columns={"a": "A"}), HALF, "undecided"), "needs the columns a and b"),
    ("report", (2 * CLOSE, HALF, "undecided"), "there are other values"),
]

# ---- lesson 03


class FakePanel:
    """A sweep panel in which accuracy falls with the distance from the best rate: 2e-3 at alpha 16."""

    def __init__(self, error: str = "") -> None:
        cells = [self.cell(8, alpha, 2.0**octave) for alpha in (4.0, 16.0, 64.0) for octave in range(-16, -4)]
        self.data = {"cells": cells}
        self.seeds, self.picked, self.live = [0, 1, 2], list[list[float]](), {"busy": False}
        self.work = SimpleNamespace(alive=False, error=error)
        self.runs = 0

    def run(self) -> None:
        self.runs += 1
        if not self.work.error:
            self.data["cells"] += [self.cell(*picked) for picked in self.picked]

    def cell(self, rank: float, alpha: float, lr: float):
        mean = max(50, 77 - 2 * abs(math.log2(lr / (2e-3 * (16 / alpha) ** 0.5))))
        return {"targets": "q,v", "rank": rank, "alpha": alpha, "lr": lr, "mean": mean, "runs": [0, 1, 2]}


BEST = 2e-3 / 8**0.5  # at alpha 128
ANSWERS += [
    ("missed", (lambda r, R: 1 - sum(1 / R for _ in range(r)),)),  # 1e-16 instead of 0
    ("bracket", (BEST * np.array([1 / 2.1, 1, 2.1]), 128.0, FakePanel())),  # 2.1 points worse on each side
    ("bracket", (5, 128.0, FakePanel()), "not yet: replace each ... with a rate"),
    ("bracket", ([..., ..., ...], 128.0, FakePanel()), "not yet: replace each ... with a rate"),
    ("bracket", ([2.4e-4, 7e-4, 2.1e-3], 128.0, FakePanel(error="the disk is full")), "not yet: the disk is full"),
    ("missed", (lambda r, R: math.sqrt(1 - r / R),), "needs no root"),
    ("missed", (lambda r, R: r / R,), "what is left"),
    ("missed", (lambda r, R: R - r,), "what share of all pieces"),
    ("bracket", ([5e-4, 7e-4, 1e-3], 128.0, FakePanel()), "closer rates differ only by luck"),
    ("bracket", ([2.1e-3, 7e-4, 2.4e-4], 128.0, FakePanel()), "lowest rate first"),
    ("bracket", ([7e-5, 7e-4, 7e-3], 128.0, FakePanel()), "rates farther apart may miss the peak"),
    ("bracket", ([1e-3, 2e-3, 4e-3], 128.0, FakePanel()), "at a lower rate (rates for alpha 16 are too high here)"),
    ("bracket", ([BEST / 1.6, 1.25 * BEST, 4 * BEST], 128.0, FakePanel()), "rate doesn't beat the smallest"),
    ("bracket", ([BEST / 4, BEST / 1.25, 1.6 * BEST], 128.0, FakePanel()), "rate doesn't beat the largest"),
    ("bracket", ([0.5, 2.0, 8.0], 128.0, FakePanel()), "none of the three rates trains"),
]

# ---- lessons 04 and 05
V, L, H = 128_256, 32, 4096  # Llama 3 8B: vocabulary size, layers, hidden size
FIXED = 5.39 * 2**30 + 160 * 2**20
WORSE = "worse but within the margin"
LONGEST = {"T4 16 GB": 4616, "RTX 3060 12 GB": 2897, "L4 24 GB": 8970, "RTX 4090 24 GB": 9772}


def peak(tokens):
    return FIXED + tokens * (2 * L * H + 12 * V)


ANSWERS += [
    ("peak", (peak,)),
    *(("longest_row", ("QLoRA", True, "adamw", 1, float(seq), card)) for card, seq in LONGEST.items()),
    ("peak", (lambda t: FIXED + t * (2 * L * H + 4 * V),), "one table"),
    ("peak", (lambda t: FIXED + t * (2 * L * H + 6 * V),), "fp32"),
    ("peak", (lambda t: t * 12 * V,), "logits alone"),
    ("peak", (lambda t: FIXED + t * 2 * L * H,), "logits are missing"),
    ("peak", (lambda t: FIXED + t * (4 * L * H + 12 * V),), "2 bytes per number"),
    ("peak", (lambda t: t * (2 * L * H + 12 * V),), "even a short text needs both"),
    ("peak", (lambda t: 5.39 * 2**30 + t * (2 * L * H + 12 * V),), "optimizer is missing"),
    ("peak", (lambda t: FIXED + 2 * L * H + 12 * V,), "multiply by `tokens`"),
    ("peak", (lambda t: peak(t) / 2**30,), "multiply by 2**30"),
    ("peak", (lambda t: FIXED + t * (L * H + 12 * V),), "saves takes 2 bytes"),
    ("peak", (lambda t: peak(t) - FIXED + 5.39e9 + 160e6,), "GiB has 2**30"),
    ("peak", (lambda t: FIXED * t,), "per token"),
    *(("longest_row", ("QLoRA", True, "adamw", 1, seq + 1, card), "more than") for card, seq in LONGEST.items()),
    ("longest_row", ("full fine-tuning", True, "sgd", 1, 64), "trains every weight", "weights"),
    ("longest_row", ("LoRA q, v", True, "adamw", 1, 512), "no text is short enough"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 4617), "at the peak (the loss)"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 4682), "leaves out about 1%", "solve"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 5000), "the peak includes weights"),
    ("longest_row", ("QLoRA", False, "adamw", 1, 4600), "activations 2", "checkpointing"),
    ("longest_row", ("QLoRA", False, "adamw", 1, 1121), "without checkpointing"),
    ("longest_row", ("QLoRA", True, "adamw", 2, 2300), "2 texts share", "second text"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 4096), "only the text is too short"),
    ("longest_row", ("LoRA q, v", True, "adamw", 1, 4096, "RTX 4090 24 GB"), "in 4 bits"),
    ("longest_row", ("lora", True, "adamw", 1, 4600), "method must be one of"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 8), "at least 32"),
    ("longest_row", ("QLoRA", "no", "adamw", 1, 4600), "True or False"),
    ("equivalence_rule", (lambda low, high, margin: -margin < low and high < margin,)),
    ("defense", (np.float32(1.5), "Worse, but within the margin", "c")),
    ("equivalence_rule", (lambda low, high, margin: low < 0 < high,), "no difference was found"),
    ("equivalence_rule", (lambda low, high, margin: (-margin < low and high < margin) or None,), "in every case"),
    ("equivalence_rule", (lambda low, high, margin: abs(low + high) / 2 < margin,), "the middle"),
    ("equivalence_rule", (lambda low, high, m: high - low < 2 * m and abs(low + high) / 2 < m,), "may be outside"),
    ("equivalence_rule", (lambda low, high, margin: high < margin,), "only the upper end"),
    ("equivalence_rule", (lambda low, high, margin: low > -margin,), "only the lower end"),
    ("equivalence_rule", (lambda low, high, margin: high - low < margin,), "narrower"),
    ("equivalence_rule", (lambda low, high, margin: low < -margin or high > margin,), "must be inside"),
    ("defense", (0, ..., ...), "exact equality"),
    ("defense", (0.015, ..., ...), "give points"),
    ("defense", (8, ..., ...), "the probe"),
    ("defense", ("much", ..., ...), "not str"),
    ("defense", (1.5, "equal", ...), "the words are"),
    ("defense", (1.5, "worse", ...), "only half"),
    ("defense", (1.5, "undecided", ...), "a difference is shown"),
    ("defense", (1.5, "better but within the margin", ...), "on the other side of 0"),
    ("defense", (1.5, WORSE, "a"), "chosen to fit"),
    ("defense", (1.5, "undecided", ..., "all against q,v"), "inside the margin"),
    ("defense", (1.5, "worse", ..., "all against q,v"), "no difference is shown"),
    ("defense", (1.5, "equivalent", ..., "q,k,v,o against q,v"), "not inside the margin"),
    ("defense", (1.5, WORSE, ..., "2 bits against 16"), "not inside the margin"),
]

# ---- lesson 06
PAIRS = [{"prompt": f"question {n}", "response": "yes"} for n in range(12)]


def mask(*roles: str, ignored: int = -100):
    """Return a function that labels the tokens of turns in these roles; the others get `ignored`."""
    return lambda turns: [token if role in roles else ignored for role, tokens in turns for token in tokens]


ANSWERS += [
    ("turn_mask", (lambda turns: np.array(mask("assistant")(turns)),)),
    ("turn_mask", (lambda turns: mask("assistant")([turns.pop(0) for _ in [*turns]]),)),
    ("own_pairs", (PAIRS,)),
    ("own_pairs", ([],), "not yet: add at least 10 pairs"),
    ("own_pairs", ([{"prompt": "x", "response": ...}],), "not yet: replace each ..."),
    ("turn_mask", (mask("system", "user", "assistant"),), "nothing is masked"),
    ("turn_mask", (mask("system", "user"),), "the mask reversed"),
    ("turn_mask", (mask("system", "assistant"),), "count the system's turn"),
    ("turn_mask", (lambda turns: mask("assistant")(turns[-1:]),), "every token needs a label"),
    ("turn_mask", (lambda turns: mask()(turns[:-1]) + turns[-1][1],), "count only the last answer"),
    ("turn_mask", (mask("assistant", ignored=0),), "the labels are [-100, -100, 7, 8, 2]"),
    ("turn_mask", (lambda turns: 3,), "return a list of labels, not int"),
    ("own_pairs", (PAIRS[:9],), "your list contains 9 pairs; at least 10"),
    ("own_pairs", ([*PAIRS, {"prompt": "x"}],), "pair 13 has no text in 'response'"),
    ("own_pairs", (["x"] * 12,), "every pair is a dict"),
    ("own_pairs", ([*PAIRS, {"prompt": "x", "response": object()}],), "only strings"),
]

# ---- lesson 07
FAULTS = {letter: patient.fault for letter, patient in PATIENTS.items()}
ANSWERS += [
    ("diagnosis", (FAULTS,)),
    ("diagnosis", (FAULTS, {"a": "empty file"})),
    ("eleventh", ("NaN or infinity", 1)),
    ("diagnosis", ({**FAULTS, "A": ...},), "not yet: name the fault for each letter"),
    ("diagnosis", ({"A": FAULTS["A"]},), "not yet: name the fault for each letter"),
    ("diagnosis", ({**FAULTS, "C": "zero update"},), "C: the update is zero, but did anything else learn"),
    ("diagnosis", ({**FAULTS, "A": "truncated file", "D": "empty file"},), "does it promise?; D: compare"),
    ("diagnosis", ({**FAULTS, "A": "empty fil"},), "nearest: empty file"),
    ("diagnosis", (["empty file"],), "a fault for each letter"),
    ("diagnosis", ({**FAULTS, "Z": "empty file"},), "there is no patient 'Z'"),
    ("eleventh", ("wrong base", 0), "the fault isn't 'wrong base'"),
]

# ---- lesson 08
SIZES = (90_000_000, 300_000)  # bytes of the base and of an adapter


def mixed(x, W, A, B, scaling, which):
    return (x @ W.T + scaling * torch.einsum("nor,nri,ni->no", B[which], A[which], x)).double().numpy()


ANSWERS += [
    ("mixed_batch", (mixed,)),
    ("mixed_batch", (lambda x, W, A, B, scaling, which: mixed(x, W, A, B.mul_(scaling), 1.0, which),)),  # in place
    ("forty_copies", (40 * 90 / (90 + 12), *SIZES)),
    ("mixed_batch", (lambda x, W, *_: x @ W.T,), "W x alone"),
    ("mixed_batch", (lambda x, W, A, B, scaling, which: mixed(x, W, A, B, 1.0, which),), "scaling is missing"),
    ("mixed_batch", (lambda x, W, *rest: mixed(x, 0 * W, *rest),), "detours alone"),
    ("mixed_batch", (lambda *args: mixed(*args[:-1], 0 * args[-1]),), "the first adapter"),
    ("mixed_batch", (lambda x, W, A, B, s, _: x @ W.T + s * x @ (B @ A).sum(0).T,), "the sum of all adapters"),
    ("mixed_batch", (lambda x, *_: x,), "(rows, out), (6, 5)"),
    ("forty_copies", (102 / 3600, *SIZES), "other way around"),
    ("forty_copies", (300, *SIZES), "one base against one adapter"),
    ("forty_copies", (40, *SIZES), "almost"),
    ("forty_copies", (2, *SIZES), "by that of a base"),
]

# ---- lessons 09 and 10
TWO_PIECES = sum(np.outer(*np.random.default_rng(n).normal(size=(2, 64))) for n in (0, 1))
PLAN = {"method": "LoRA", "rate": 2e-4, "serve": "keep apart", "facts": "in the prompt", "rows": 1600}
ANSWERS += [
    ("flip", ({"models": "llama-2-70b"},)),
    ("brief", (PLAN, 0)),
    ("brief", ({**PLAN, "rows": ...}, 0), "not yet: make a choice for each line"),
    ("flip", ({"seq": ...},), "not yet: write a premise"),
    ("flip", ({"times": 2},), "the claim itself"),
    ("flip", ({"rank": 1},), 'stays "depends on model": the trainable part is small already'),
    ("flip", ({"seq": 2048},), 'is now "false": longer rows'),
    ("flip", ({"seq": 32, "batch": 1},), "change one premise"),
    ("flip", ({"store": "runs"},), "isn't a premise"),
    ("flip", ({"ranks": 4},), "nearest: rank"),
    ("brief", ({**PLAN, "method": "full"}, 0), "out of memory. It needs 62 GiB"),
    ("brief", ({**PLAN, "method": "QLoRA"}, 0), "LoRA would fit, too"),
    ("brief", ({**PLAN, "rate": "2e-5"}, 0), "near full fine-tuning's rate"),
    ("brief", ({**PLAN, "serve": "merge"}, 0), "all customers get the same tone"),
    ("brief", ({**PLAN, "facts": "in the weights", "rows": 100}, 0), "quotes this week's prices"),
    ("brief", ({**PLAN, "facts": "in the head"}, 0), "answer with one of"),
    ("brief", ({**PLAN, "rows": "400"}, 0), "±3.9 points, but the job asks for ±2"),
    ("brief", ({**PLAN, "rows": "10,000"}, 0), "rows that you don't need"),
    ("brief", ({"method": "LoRA"}, 0), "a plan has the lines"),
    ("energy", (lambda s, r: (s[:r] ** 2).sum() / (s**2).sum(),)),
    ("energy", (lambda s, r: np.square(s, out=s)[:r].sum() / s.sum(),)),  # in place
    ("first_step", (4, TWO_PIECES)),
    ("energy", (lambda s, r: s[:r].sum() / s.sum(),), "s squared"),
    ("energy", (lambda s, r: (s[:r] ** 2).sum(),), "divide by"),
    ("energy", (lambda s, r: (s[r:] ** 2).sum() / (s**2).sum(),), "what is lost"),
    ("energy", (lambda s, r: s[r - 1] ** 2 / (s**2).sum(),), "r-th value alone"),
    ("energy", (lambda s, r: np.sqrt((s[:r] ** 2).sum() / (s**2).sum()),), "square root"),
    ("energy", (lambda s, r: 100 * (s[:r] ** 2).sum() / (s**2).sum(),), "not a percentage"),
    ("energy", (lambda s, r: (s[: r + 1] ** 2).sum() / (s**2).sum(),), "r + 1 values"),
    ("energy", (lambda s, r: s[:r] ** 2 / (s**2).sum(),), "return their sum"),
    ("energy", (lambda s, r: s[r] / s.sum(),), "s[:r] contains the first r"),
    ("energy", (lambda s, r: (s[:r] ^ 2).sum() / s.sum(),), "a power is written **"),
    ("first_step", (2, TWO_PIECES), "the gradient itself"),
    ("first_step", (64, TWO_PIECES), "all of the energy"),
    ("first_step", (1, TWO_PIECES), "the same signs"),
]

# ---- lesson 11
ANSWERS += [
    ("rank_of_file", (10,)),
    ("rank_of_file", (32, "q,v", 36_715_216)),  # a published file
    *(("slide", (letter, n)) for n, letter in enumerate("CBA")),
    ("rank_of_file", (40,), "1 byte"),
    ("rank_of_file", (20,), "2 bytes"),
    ("rank_of_file", (280,), "one layer"),
    ("rank_of_file", (37_868_984 / 4 / 946_176,), "whole number"),
    ("rank_of_file", ((37_868_984 - 20_000) / 4 / 946_176,), "whole number"),
    ("slide", ("a",), "1,178 times: a higher rank", "its own model"),
    ("slide", ("llama",), "answer with one of A, B, C, D, E"),
]

# ---- lesson 12
LEVELS = levels_of("nf4")
BLOCK = torch.randn(64, generator=torch.Generator().manual_seed(1)) / 20
ABSMAX = BLOCK.abs().max()
DISTANCE = BLOCK[:, None] / ABSMAX - LEVELS
INDEX = DISTANCE.abs().argmin(1)
BACK = LEVELS[INDEX] * ABSMAX


def peak_gib(bits, case=CASES[0]):
    linear, other, rest = sizes(*case[::2])
    return (linear * bits / 8 + 2 * other + rest) / 2**30


def card(fits, *case):
    return "card", (peak_gib(4.127, case), fits, case)


PEAK = peak_gib(4.127)
ANSWERS += [
    ("block", (ABSMAX, INDEX, BACK, BLOCK)),
    ("card", (PEAK, "4.127 bits")),
    card("4.5 bits", "mistral-7b", "T4 16 GB", 2048),
    card("none", "gemma-2-9b", "T4 16 GB", 2048),
    card("16 bits", "qwen2.5-7b", "L4 24 GB", 2048),
    ("block", (BLOCK.min(), INDEX, BACK, BLOCK), "-0.9 counts as 0.9"),
    ("block", (BLOCK, INDEX, BACK, BLOCK), "largest absolute value"),
    ("block", (ABSMAX, 3, BACK, BLOCK), "must have 64 numbers"),
    ("block", (ABSMAX, "ab", BACK, BLOCK), "tensors of 64"),
    ("block", (ABSMAX, LEVELS[INDEX], BACK, BLOCK), "the levels themselves"),
    ("block", (ABSMAX, DISTANCE.argmin(1), BACK, BLOCK), "take abs()"),
    ("block", (ABSMAX, (BLOCK[:, None] - LEVELS).abs().argmin(1), BACK, BLOCK), "divide it by absmax"),
    ("block", (ABSMAX, 15 - INDEX, BACK, BLOCK), "its index is"),
    ("block", (ABSMAX, INDEX, LEVELS[INDEX], BLOCK), "multiply by absmax"),
    ("block", (ABSMAX, INDEX, BLOCK, BLOCK), "levels[index] * absmax"),
    ("card", (peak_gib(16), "none"), "16 bits for every weight"),
    ("card", (peak_gib(4), "none"), "the indices alone"),
    ("card", (peak_gib(4.5), "none"), "without double quantization"),
    ("card", (PEAK * 2**30 / 1e9, "none"), "GiB has 2**30"),
    ("card", (peak_gib(8 * 4.127), "none"), "divide by 8"),
    ("card", (1, "none"), "the rest of the step"),
    ("card", (PEAK, "4.5 bits"), "too much"),
    ("card", (PEAK, "none"), "is usable"),
]

# ---- lessons 13 to 19
TABLE2 = {"A": "undecided", "B": "not tested", "C": "holds"}
ANSWERS += [
    ("ranks", (16, 5)),
    ("plan", (9, "undecided", "c")),
    ("plan", (..., ..., ...), "not yet: standard deviation 1.57. How many"),
    *(("plan", (4, ..., ..., pair), "not yet: 95% interval") for pair in ("v against all", "up,down against q")),
    ("ranks", (32, 5), "more matrices at the same rank"),
    ("ranks", (16, 5.2), "a whole number"),
    ("ranks", (16, 6), "goes over the budget"),
    ("ranks", (16, 9), "not by their number"),
    ("plan", (8.59, ..., ...), "round up"),
    ("plan", (17, ..., ...), "two runs with the same seed are a pair"),
    ("plan", (2.93, ..., ...), "square it"),
    ("plan", (4.21, ..., ...), "add the 0.84"),
    ("plan", (19.3, ..., ...), "one point, not 1.5"),
    ("plan", (100, ..., ...), "the square of 1.57 / 1.5"),
    ("plan", (9, "worse", ...), "no difference is shown"),
    ("chance", (0.0026, 0.167, 64)),
    ("stranger", ("A and B", 0)),
    ("chance", (0, 64 / 384, 64), "at right angles"),
    ("chance", (384**-0.5, 64 / 384, 64), "flat arrow: that's the typical length of the shadow"),
    ("chance", (1 / 3, 64 / 384, 64), "in a room of three dimensions"),
    ("chance", (1 / 384, 2 / 384, 64), "floor: that's on a floor of 2 dimensions"),
    ("chance", (1 / 384, 1 / 384, 64), "64 times that"),
    ("stranger", ("C", 0), "answer with one of A, A and B, B, nothing"),
    ("ten", (10 * 2**0.5, 32 * (10 / 3) ** 2)),
    ("ten", (14, 360)),
    ("ten", (20, 356), "if only B moved", "the square root of 2"),
    ("ten", (7, 356), "not a lower one"),
    ("ten", (12, 356), "the square root of 2"),
    ("ten", (14.1, 107), "alpha × rate", "from ten to three"),
    ("ten", (14.1, 200), "by the square"),
    ("new_rate", (0.00055,)),
    ("new_rate", (5e-4,)),
    ("new_rate", (0.0022,), "only guess"),
    ("new_rate", (1.4e-4,), "divided by 16"),
    ("new_rate", (0.01,), "a lower rate"),
    ("new_rate", (0.0044,), "halve the rate twice"),
    ("loss_of_rewards", (reinforce,)),
    ("mean_reward", (EARNED.right,)),
    ("mean_reward", (lambda p, q: p * q,), "only the first half"),
    ("mean_reward", (lambda p, q: 1 - EARNED.right(p, q),), "the wrong answers"),
    ("mean_reward", (lambda p, q: p,), "also right"),
    ("mean_reward", (lambda p, q: q,), "always says"),
    ("mean_reward", (lambda p, q: max(q, 1 - q),), "the largest mean reward"),
    ("mean_reward", (lambda p, q: 0.5,), "try p = 1"),
    ("loss_of_rewards", (lambda log_p, rewards: -reinforce(log_p, rewards),), "wrong sign"),
    ("loss_of_rewards", (lambda log_p, rewards: -(rewards * log_p).mean(),), "subtract the mean reward"),
    ("loss_of_rewards", (lambda log_p, rewards: len(rewards) * reinforce(log_p, rewards),), "the sum over the batch"),
    ("loss_of_rewards", (lambda log_p, rewards: reinforce(log_p.exp(), rewards),), "take log_p"),
    ("loss_of_rewards", (lambda log_p, rewards: reinforce(log_p, rewards) / (rewards.std() + 1e-4),), "GRPO's scaling"),
    ("loss_of_rewards", (lambda log_p, rewards: -(rewards - rewards.mean()).mean() * log_p.mean(),), "inside the mean"),
    ("loss_of_rewards", (lambda log_p, rewards: log_p.mean(),), "the loss is -0.25"),
    ("loss_of_rewards", (lambda log_p, rewards: reinforce(log_p.detach(), rewards),), "no gradient reaches log_p"),
    ("loss_of_rewards", (lambda log_p, rewards: reinforce(log_p, rewards).item(),), "no gradient reaches log_p"),
    *(("as_plain", (AS_PLAIN.right, rate)) for rate in (0.002, ".002", np.float32(0.002))),
    ("as_plain", (AS_PLAIN.right, 0.004), "a lower rate", "divide 0.004"),
    ("as_plain", (AS_PLAIN.right, "0.001"), "square root of 2.8"),
    ("flattered", (2.5e-4, np.float64(-1.53))),
    ("flattered", ("0.008", -2.5, "LoRA-FA")),
    ("as_plain", (lambda alpha, rank: alpha / rank**0.5, 0.002), "rsLoRA's scaling"),
    ("as_plain", (lambda alpha, rank: alpha, 0.002), "sqrt(rank) times smaller", "Which x"),
    ("as_plain", (lambda alpha, rank: alpha * rank, 0.002), "divides by the root"),
    ("as_plain", (lambda alpha, rank: alpha / rank, 0.002), "the other way"),
    ("flattered", (5e-4, -1.5), "the table says +2.6", "largest number"),
    ("flattered", (2.5e-4, 17.3), "one rate for both"),
    ("flattered", (2.5e-4, 1.5), "wrong sign", "in the legend"),
    ("flattered", (2.5e-4, -0.015), "that is a fraction"),
    ("judge", (TABLE2, "table2")),
    ("published", (2.86, 5.6, "noise", "large")),
    ("judge", (TABLE2 | {"A": "fails"}, "table2"), "whole interval"),
    ("judge", (TABLE2 | {"B": "fails"}, "table2"), "look at the steps first"),
    ("published", (1.28, 5.6, "noise", "large"), "five times as many rows"),
    ("published", (2.0, 5.6, "noise", "large"), "add both variances"),
    ("published", (2.86, 8.0, "noise", "large"), "80% power"),
    ("published", (2.86, 0.056, "noise", "large"), "that is a fraction"),
    ("published", (2.86, 5.6, "a gap", "large"), "smaller than the one you need"),
    ("published", (3.2, 6.27, "a gap", "base"), "look at the marks"),
    ("remembered", (lambda n, loss: n * (1 - loss / 0.69),)),
    ("remembered", (lambda n, loss: n * (1 - loss),), "in nats"),
    ("remembered", (lambda n, loss: n * (log(2) - loss),), "one bit is"),
    ("remembered", (lambda n, loss: n * loss / log(2),), "doesn't know"),
    ("remembered", (lambda n, loss: n * exp(-loss),), "guessing already"),
    ("remembered", (lambda n, loss: 1 - loss / log(2),), "loss / ln 2 of"),
]
