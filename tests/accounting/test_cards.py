from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import BadValue, LoRA, NotFound, PrefixTuning, PromptTuning
from lora_lab.accounting.gpus import UTILISATION, card, cards, of_size, seconds, usable
from lora_lab.accounting.memory import checked, estimate, largest
from lora_lab.accounting.models import config_of, longest
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import BINARY, DECIMAL, GIB, binary, decimal
from tests.conftest import assert_raises


def test_every_card_reserves_the_observed_memory_and_is_found_by_a_part_of_its_name():
    sizes = [gpu.memory for gpu in cards()]
    assert sizes == sorted(sizes)
    for gpu in cards():
        assert 0 < usable(gpu) < gpu.seen <= gpu.memory
        assert f"{gpu.memory // GIB} GB" in gpu.name
        assert card(gpu.name) is gpu
    assert [card(name).name for name in ("RTX-3090", "l4", "a100-80gb")] == ["RTX 3090 24 GB", "L4 24 GB", "A100 80 GB"]
    for name, match in (("4091", "4090"), ("a100", "A100 40 GB or A100 80 GB"), ("", "no card")):
        assert_raises(match, card, name, error=(BadValue, NotFound))
    # The CUDA context and fragmentation reduce a T4's 14.6 GiB; a 24 GB consumer card leaves 22 to 23 GiB.
    assert 13 < usable(card("T4")) / GIB < 14.6 - 0.8
    assert 22 < usable(card("4090")) / GIB < 23
    assert usable(of_size(24)) == usable(card("4090"))
    assert card("L4").seen < card("4090").seen  # the L4 has error correction


def test_peak_depends_on_the_dtype_and_seconds_need_one():
    t4 = card("T4")
    assert t4.peak("bf16") is None
    assert t4.peak("fp16") > t4.peak("fp32")
    assert "use --dtype fp16" in t4.lacks["bf16"]
    assert "bf16" not in card("4090").lacks
    assert "fp32" in card("8 gb laptop cpu").lacks["bf16"]
    assert seconds(312e12, card("a100 80")) == pytest.approx(1 / UTILISATION)
    for gpu in (t4, of_size(24)):  # no bf16, unknown peak
        with pytest.raises(BadValue):
            seconds(1, gpu)
    for size in (0, float("nan"), float("inf"), "8 GB"):
        with pytest.raises(BadValue):
            of_size(size)


@given(st.integers(1024, 10**15), st.sampled_from((binary, decimal)))
def test_formatted_size_is_exact_up_to_rounding(count, formatted):
    number, unit = formatted(count).split(" ")
    units = {name: size for size, name in (*BINARY, *DECIMAL, (1, "bytes"))}
    assert float(number.replace(",", "")) * units[unit] == pytest.approx(count, rel=0.006)
    assert (formatted(1), formatted(2)) == ("1 byte", "2 bytes")
    assert [binary(size * GIB) for size in (9.996, 99.97)] == ["10.0 GiB", "100 GiB"]  # three digits, as in the panels


@pytest.mark.parametrize(("name", "method"), [("minilm", PromptTuning()), ("llama-3-8b", LoRA())])
def test_one_more_row_or_token_does_not_fit(name, method):
    setup, available = Setup(seq=128, checkpointing=True), 100 * GIB
    last, estimated = longest(config_of(name)), partial(estimate, name, method)
    for field, limit in (("batch", None), ("seq", last - 20 if last else None)):
        found = largest(field, setup, estimated, available, limit)
        assert estimated(replace(setup, **{field: found})).peak <= available
        assert found == limit or estimated(replace(setup, **{field: found + 1})).peak > available
        assert largest(field, setup, estimated, 2**20) is None


def test_learned_positions_limit_the_length():
    assert [longest(config_of(name)) for name in ("gpt2", "roberta-base", "llama-3-8b")] == [1024, 512, None]
    assert longest(config_of("deberta-v2-xxlarge")) is None  # its positions are relative
    kinds = ("distilbert", "electra", "mpnet", "xlm-roberta-xl", "gptj", "bart", "mistral", "mobilebert", "luke")
    limits = [longest({"model_type": kind, "max_position_embeddings": 32}) for kind in kinds]
    assert limits == [32, 32, 30, 30, 32, 32, None, 32, 30]
    limits = [longest({"model_type": kind, "max_position_embeddings": 32}, PrefixTuning(5)) for kind in kinds[1:5]]
    assert limits == [32, 30, 25, 27]
    checked("roberta-base", LoRA(), Setup(seq=512))
    checked("roberta-base", PromptTuning(20), Setup(seq=492))
    assert_raises("after a prompt of 20", checked, "roberta-base", PromptTuning(20), Setup(seq=493))
