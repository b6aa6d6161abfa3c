"""Exercises for lesson 14 (reading an adapter): the overlap phi expected by chance, and which signs were flipped."""

from typing import Any

import torch
from safetensors.torch import load_file

from lora_course.checks.verdict import Choice, Number, Verdict, exercise, parts
from lora_lab.layers import LoRALinear
from lora_lab.training.assets import shipped

WIDTH = 384
STORED = "data/results/rank_one"
SIGNS = {"A and B": (-1, -1), "B": (1, -1), "A": (-1, 1), "nothing": (1, 1)}  # what was negated: signs of A and B
READS = "the adapter's readings tell you about A: are they reversed?"
ANSWERS = "the answers are reversed if A or B is negated, and stay the same if both are"


def stored(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return lora_A (1, 384) and lora_B (384, 1) of the rank-1 adapter of this seed, which ships with the lab."""
    tensors = load_file(shipped(f"{STORED}/seed{seed}") / "adapter_model.safetensors")
    return {matrix: next(t for key, t in tensors.items() if matrix in key) for matrix in ("lora_A", "lora_B")}


@torch.no_grad()
def disguise(adapter: LoRALinear, number: int) -> None:
    """Load the stored adapter into a layer, with A, B, both or neither negated."""
    a, b = list(SIGNS.values())[number]
    tensors = stored()
    adapter.lora_A.copy_(a * tensors["lora_A"])
    adapter.lora_B.copy_(b * tensors["lora_B"])


@exercise
def check_chance(arrow: float | None, floor: float | None, rank: int) -> Verdict:
    """Lesson 14: check the phi expected by chance for two arrows, and for an arrow and a floor of dimension `rank`."""
    zero = {0.0: "random arrows are hardly ever exactly at right angles"}
    first = zero | {
        WIDTH**-0.5: "that's the typical length of the shadow; phi is its square",
        1.0: "that's phi of an arrow with itself",
        1 / 3: "that's in a room of three dimensions; here there are 384",
        0.5: "that would be the overlap by chance in two dimensions; here there are 384",
    }
    second = zero | {
        (rank / WIDTH) ** 0.5: "that's the typical length of the shadow; phi is its square",
        1 / WIDTH: f"that's for two arrows; for a floor of {rank} dimensions, it's {rank} times that",
        2 / WIDTH: f"that's on a floor of 2 dimensions; this one has {rank}",
        1 / rank: "the whole space matters, too: it has 384 dimensions",
    }
    why = f"1/384, and {rank}/384: the overlap by chance grows with the rank and shrinks with the width"
    right = {"flat arrow": Number(1 / WIDTH, first, within=0.02)}
    return parts(right | {"floor": Number(rank / WIDTH, second, why, within=0.02)}, (arrow, floor))


@exercise
def check_stranger(negated: Any, number: int) -> Verdict:
    """Lesson 14: check what was negated in this unknown adapter: "A", "B", "A and B" or "nothing"."""
    right = list(SIGNS)[number]
    a, b = SIGNS[right]
    replies = {name: READS if signs[0] != a else ANSWERS for name, signs in SIGNS.items()}
    same = "the answers are as before" if a == b else "every answer is reversed"
    why = f"{right} negated: {same}, and the readings are {'as before' if a > 0 else 'reversed'}"
    return Choice([right], replies, why, hint=f"what was negated? One of {', '.join(SIGNS)}").judge(negated)
