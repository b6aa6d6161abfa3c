"""How many tokens a step should have on this machine: from where on more of them no longer makes each one cheaper."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import platformdirs

from lora_lab.errors import BadValue
from lora_lab.files import read_json, write_json
from lora_lab.training import device

TOKENS = (256, 512, 1024, 2048, 4096, 8192)
GAIN = 0.95  # share of the best speed that is good enough: larger packs then only take memory


@lru_cache(maxsize=4)
def rewarding_tokens(where: str) -> int:
    """Tokens a step from which on the speed is within 5 % of the best; measured once a machine, in a second or two."""
    memory = Path(platformdirs.user_cache_dir("lora_lab")) / "throughput.json"
    machine = device.describe(where)
    try:
        known = read_json(memory)
    except BadValue:
        known = {}
    if machine not in known:
        known[machine] = {str(tokens): speed(where, tokens) for tokens in TOKENS}
        with suppress(BadValue):  # a home that cannot be written to: measured again next time
            write_json(memory, known)
    speeds = {int(tokens): float(value) for tokens, value in known[machine].items()}
    return min(tokens for tokens, value in speeds.items() if value >= GAIN * max(speeds.values()))


def speed(where: str, tokens: int) -> float:
    """Tokens a second through one small layer, forward and back, in rows of 32 tokens."""
    choice = device.choose(32, device=where)
    return tokens / device.time_layer(where, choice.torch_dtype, choice.attention, 32, total=tokens)
