"""What this machine can do, with faked capabilities: no GPU is needed to test the choice of one."""

import json

import platformdirs
import pytest
import torch

from lora_lab.errors import BadValue
from lora_lab.training import device
from lora_lab.training.device import LENGTHS, Choice, choose, key

SLOW_BF16 = {"fp32": 1.0, "bf16": 5.0}
FAST_BF16 = {"fp32": 1.0, "bf16": 0.4}
ABOUT_EQUAL = {"fp32": 1.0, "bf16": 0.95}


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch, tmp_path):
    """A CPU alone, nothing overridden, and a cache of its own."""
    for name in ("DEVICE", "DTYPE", "ATTENTION"):
        monkeypatch.delenv(f"LORA_LAB_{name}", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Some GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


@pytest.fixture
def timed(monkeypatch):
    """`timed(SLOW_BF16)`: layers take as long as we say; returns the list of what was timed."""

    def fake(seconds: dict[str, float], sdpa: dict[int, float] | None = None) -> list[tuple]:
        calls = []
        names = {dtype: name for name, dtype in device.DTYPES.items()}

        def time_layer(where, dtype, attention, tokens):
            calls.append((where, names[dtype], attention, tokens))
            factor = (sdpa or {32: 2.0, 256: 0.5})[tokens] if attention == "sdpa" else 1.0
            return seconds[names[dtype]] * factor

        monkeypatch.setattr(device, "time_layer", time_layer)
        return calls

    return fake


@pytest.mark.parametrize(("seconds", "dtype"), [(FAST_BF16, "bf16"), (ABOUT_EQUAL, "fp32")])
def test_bf16_is_chosen_only_where_it_is_clearly_faster(timed, seconds, dtype):
    timed(seconds)
    assert choose(30).dtype == dtype


@pytest.mark.parametrize(
    ("share", "best"),
    [(0.4, Choice("cpu", "fp32", "eager", products="bf16")), (0.85, Choice("cpu", "fp32", "sdpa"))],
)
def test_products_are_rounded_only_where_that_is_asked_for_and_clearly_faster(share, best, monkeypatch):
    """A layer with products in bf16 takes that share of fp32's time, written out alone."""

    def time_layer(where, dtype, attention, tokens):
        rounds = torch.get_float32_matmul_precision() == "medium"
        return {"eager": 1.0, "sdpa": 0.9}[attention] * (share if rounds and attention == "eager" else 1.0)

    monkeypatch.setattr(device, "time_layer", time_layer)
    assert choose(30, dtype="fp32", products="auto") == best
    assert choose(30, dtype="fp32") == Choice("cpu", "fp32", "sdpa")
    assert choose(30, dtype="fp32", attention="eager", products="auto").products == "bf16"
    assert choose(30, dtype="fp32", attention="sdpa", products="auto").products == "fp32"
    assert choose(30, dtype="bf16", products="auto").products == "fp32"
    monkeypatch.setenv("LORA_LAB_DTYPE", "fp32")  # whoever asks for a dtype keeps products exact
    assert choose(30, dtype="fp32", products="auto") == Choice("cpu", "fp32", "sdpa")


def test_attention_is_chosen_for_the_length_of_the_texts(timed):
    timed(SLOW_BF16)
    assert [choose(tokens).attention for tokens in (10, 32, 200, 4000)] == ["eager", "eager", "sdpa", "sdpa"]


def test_cuda_comes_before_mps_and_the_cpu_may_be_asked_for(timed, cuda, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    calls = timed(FAST_BF16)
    assert device.available_devices() == ["cuda", "mps", "cpu"]
    assert choose(30) == Choice("cuda", "bf16", "eager")
    assert {where for where, *_ in calls} == {"cuda"}
    assert choose(30, device="cpu").device == "cpu"
    assert choose(30, dtype="fp32", products="auto").products == "fp32"  # a GPU's stay exact
    assert not any(name.startswith(device.ROUNDED) for name in device.measured("cuda"))


def test_arguments_are_kept_and_nothing_is_timed_for_them(timed):
    calls = timed(FAST_BF16)
    assert choose(30, dtype="fp16", attention="sdpa") == Choice("cpu", "fp16", "sdpa")
    assert calls == []
    assert choose(30, dtype="fp32") == Choice("cpu", "fp32", "eager")
    assert choose(30, dtype="fp16") == Choice("cpu", "fp16", "eager")
    assert choose(30, attention="sdpa").attention == "sdpa"


def test_the_environment_overrides_auto_but_not_an_argument(timed, cuda, monkeypatch):
    timed(FAST_BF16)
    monkeypatch.setenv("LORA_LAB_DEVICE", "cpu")
    monkeypatch.setenv("LORA_LAB_DTYPE", "fp32")
    monkeypatch.setenv("LORA_LAB_ATTENTION", "sdpa")
    assert choose(30) == Choice("cpu", "fp32", "sdpa")
    assert choose(30, device="cuda", dtype="bf16", attention="eager") == Choice("cuda", "bf16", "eager")


def test_an_unknown_name_lists_the_known_ones_and_a_device_that_is_not_there_is_refused(monkeypatch):
    dtypes = "fp32, bf16, fp16, nf4, nf4-single, int8, int4, nf3, nf2"
    with pytest.raises(BadValue, match=f"dtype must be one of {dtypes} or auto, not 'fp8'"):
        choose(30, dtype="fp8")
    monkeypatch.setenv("LORA_LAB_DEVICE", "tpu")
    with pytest.raises(BadValue, match="device must be one of cuda, mps, cpu or auto, not 'tpu'"):
        choose(30)
    with pytest.raises(BadValue, match="this machine has no device cuda; it has cpu"):
        choose(30, device="cuda", dtype="fp32", attention="eager")


def test_a_run_names_its_versions_and_hardware_and_rounded_products():
    facts = device.environment(Choice("cpu", "fp32", "eager"))
    assert (facts["torch"], facts["device"], facts["dtype"]) == (torch.__version__, "cpu", "fp32")
    assert "products" not in facts
    assert device.environment(Choice("cpu", "fp32", "eager", products="bf16"))["products"] == "bf16"


def test_a_measurement_is_made_once_a_machine_and_remembered(timed, tmp_path):
    calls = timed(SLOW_BF16)
    first = device.measured("cpu")
    assert len(calls) == 12
    assert device.measured("cpu") == first
    assert len(calls) == 12
    assert json.loads((tmp_path / "cache" / "machine.json").read_text()) == {device.describe("cpu"): first}


def test_where_nothing_can_be_remembered_a_process_measures_once(timed, tmp_path):
    """Else the packs of one sweep might train in different dtypes."""
    (tmp_path / "cache").write_text("in the way")
    calls = timed(SLOW_BF16)
    assert device.measured("cpu") == device.measured("cpu")
    assert len(calls) == 12


def test_processors_of_one_name_that_multiply_bf16_differently_are_measured_apart(timed, tmp_path, monkeypatch):
    facts = tmp_path / "cpuinfo"
    monkeypatch.setattr(device, "CPU_FACTS", facts)
    own = ("flags\t\t: fpu\n\nprocessor\t: 1", "flags\t\t: fpu avx512_bf16 amx_bf16", "Features\t: asimd bf16")
    for flags, seconds, dtype in zip(own, (SLOW_BF16, FAST_BF16, SLOW_BF16), ("fp32", "bf16", "fp32"), strict=True):
        facts.write_text(f"processor\t: 0\nmodel name\t: Maker(R) Server\n{flags}\npower management:\n")
        timed(seconds)
        assert choose(30).dtype == dtype


def test_a_damaged_or_partial_memory_is_measured_anew(timed, tmp_path):
    timed(SLOW_BF16)
    (tmp_path / "cache").mkdir()
    partial = [json.dumps({device.describe("cpu"): value}) for value in (5, {key("fp32", "eager", LENGTHS[0]): 1.0})]
    for remembered in ("", "[]", '{"cpu": 1}', *partial):
        (tmp_path / "cache" / "machine.json").write_text(remembered)
        assert choose(30) == Choice("cpu", "fp32", "eager")


def test_the_real_measurement_times_every_dtype_attention_and_length():
    times = device.measured("cpu")
    kinds = ("fp32", "bf16", device.ROUNDED)
    assert times.keys() == {key(d, a, n) for d in kinds for a in device.ATTENTIONS for n in LENGTHS}
    assert all(0 < seconds < 10 for seconds in times.values())
