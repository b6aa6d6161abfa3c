"""The memory panel's Python: which films it sends, what it says of them, and a real step beside the prediction."""

import json
import random

import pytest

from lora_lab import LoRA, NotFound, memory
from lora_lab.accounting.film import moments
from lora_lab.accounting.memory import quick
from lora_lab.accounting.units import binary
from lora_lab.widgets.memory_panel import METHODS, SHIPPED, MemoryPanel, setup_of, shipped


def top(panel):
    return max(moments(panel.shown(), panel.rank, panel.setup), key=lambda moment: sum(moment.bytes.values()))


def test_what_ships_is_small_and_complete():
    assert set(shipped()) == set(SHIPPED)
    for films in shipped().values():
        assert {(film["method"], film["checkpointing"]) for film in films} == {(m, c) for m in METHODS for c in (0, 1)}
    assert len(json.dumps(shipped(), separators=(",", ":"))) < 200_000


def test_a_film_that_ships_is_what_the_accountant_says():
    draw = random.Random(0)
    for film in shipped()["llama-3-8b"]:
        name, checkpointing = film["method"], film["checkpointing"]
        for batch in (1, 2, 7):
            rank, seq = draw.choice([1, 8, 100]), draw.randint(40, 9000)
            method = LoRA(rank=rank, targets=METHODS[name].targets) if film["ranked"] else METHODS[name]
            setup = setup_of("llama-3-8b", name, batch=batch, seq=seq, checkpointing=checkpointing)
            said = quick("llama-3-8b", method, setup)
            assert said.mode == "predicted"
            live = max(moments(film, rank, setup), key=lambda moment: sum(moment.bytes.values())).bytes
            assert {category: size for category, size in live.items() if size} == said.categories, (name, setup)


def test_the_words_say_peak_moment_categories_and_card():
    words = MemoryPanel("llama-3-8b", "full", batch=1, seq=512).describe()
    assert binary(memory("llama-3-8b", METHODS["full"], batch=1, seq=512).peak) in words
    assert "at the update" in words
    assert "gradients 15.0 GiB" in words
    assert "does not fit RTX 4090 24 GB" in words
    assert "It fits A100 80 GB" in MemoryPanel("llama-3-8b", "full", card="A100 80").describe()
    with pytest.raises(NotFound):
        MemoryPanel(card="no such card")
