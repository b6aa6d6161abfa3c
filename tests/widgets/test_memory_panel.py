import json
import random

import pytest

from lora_lab import LoRA, NotFound, memory
from lora_lab.accounting.film import moments
from lora_lab.accounting.memory import quick
from lora_lab.accounting.units import binary
from lora_lab.widgets.memory_panel import METHODS, SHIPPED, MemoryPanel, setup_of, shipped


def test_shipped_films_are_complete_and_match_the_accountant():
    assert set(shipped()) == set(SHIPPED)
    assert len(json.dumps(shipped(), separators=(",", ":"))) < 200_000
    for films in shipped().values():
        assert {(film["method"], film["checkpointing"]) for film in films} == {(m, c) for m in METHODS for c in (0, 1)}
    draw = random.Random(0)
    for film in shipped()["llama-3-8b"]:
        name = film["method"]
        for batch in (1, 2, 7):
            rank, seq = draw.choice([1, 8, 100]), draw.randint(40, 9000)
            method = LoRA(rank=rank, targets=METHODS[name].targets) if film["ranked"] else METHODS[name]
            setup = setup_of("llama-3-8b", name, batch=batch, seq=seq, checkpointing=film["checkpointing"])
            expected = quick("llama-3-8b", method, setup)
            assert expected.mode == "predicted"
            peak = max(moments(film, rank, setup), key=lambda moment: sum(moment.bytes.values())).bytes
            assert {category: size for category, size in peak.items() if size} == expected.categories, (name, setup)


def test_description_names_peak_moment_categories_and_card():
    words = MemoryPanel("llama-3-8b", "full", batch=1, seq=512).describe()
    assert binary(memory("llama-3-8b", METHODS["full"], batch=1, seq=512).peak) in words
    for part in ("at the update", "gradients 15.0 GiB", "does not fit RTX 4090 24 GB"):
        assert part in words
    assert "It fits A100 80 GB" in MemoryPanel("llama-3-8b", "full", card="A100 80").describe()
    with pytest.raises(NotFound):
        MemoryPanel(card="no such card")
