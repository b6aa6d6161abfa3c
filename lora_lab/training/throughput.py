"""How many tokens a step should have on this machine: from where on more of them no longer makes each one cheaper."""

from __future__ import annotations

from functools import lru_cache

from lora_lab.training import device

TOKENS = (256, 512, 1024, 2048, 4096, 8192)
GAIN = 0.95  # share of the best speed that is good enough: larger packs then only take memory


def rewarding_tokens(where: str) -> int:
    """Tokens a step from which on the speed is within 5 % of the best; measured once a machine, in a second or two."""
    found = speeds(where)
    return min(tokens for tokens, value in found.items() if value >= GAIN * max(found.values()))


def best_speed(where: str) -> float:
    """Tokens a second through one small layer at the best size of a step; measured once a machine."""
    return max(speeds(where).values())


@lru_cache(maxsize=4)
def speeds(where: str) -> dict[int, float]:
    """Tokens a second by tokens a step; kept on this machine."""
    names = {str(tokens): tokens for tokens in TOKENS}
    found = device.remembered(
        "throughput.json", where, names, lambda: {name: speed(where, tokens) for name, tokens in names.items()}
    )
    return {tokens: found[name] for name, tokens in names.items()}


def speed(where: str, tokens: int) -> float:
    """Tokens a second through one small layer, forward and back, in rows of 32 tokens."""
    choice = device.choose(32, device=where)
    return tokens / device.time_layer(where, choice.torch_dtype, choice.attention, 32, total=tokens)
