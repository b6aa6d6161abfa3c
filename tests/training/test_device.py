import json
from functools import partial
from unittest.mock import Mock

import platformdirs
import pytest
import torch

from lora_lab.errors import BadValue
from lora_lab.training import device
from lora_lab.training.device import LENGTHS, Choice, choose, key
from tests.conftest import assert_raises

SLOW_BF16 = {"fp32": 1.0, "bf16": 5.0}
FAST_BF16 = {"fp32": 1.0, "bf16": 0.4}
SIMILAR_BF16 = {"fp32": 1.0, "bf16": 0.95}


@pytest.fixture(autouse=True)
def cpu_only(monkeypatch, tmp_path):
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
def fake_timings(monkeypatch):
    """`fake_timings(SLOW_BF16)` fakes the time of a layer; returns the list of devices that were timed."""

    def fake(seconds: dict[str, float]) -> list[str]:
        calls = []
        names = {dtype: name for name, dtype in device.DTYPES.items()}

        def time_layer(where, dtype, attention, tokens):
            calls.append(where)
            return seconds[names[dtype]] * ({32: 2.0, 256: 0.5}[tokens] if attention == "sdpa" else 1.0)

        monkeypatch.setattr(device, "time_layer", time_layer)
        return calls

    return fake


@pytest.mark.parametrize(("seconds", "dtype"), [(FAST_BF16, "bf16"), (SIMILAR_BF16, "fp32")])
def test_fastest_dtype_and_attention_are_chosen(fake_timings, seconds, dtype):
    fake_timings(seconds)
    assert choose(30).dtype == dtype
    assert [choose(tokens).attention for tokens in (10, 32, 200, 4000)] == ["eager", "eager", "sdpa", "sdpa"]


@pytest.mark.parametrize(
    ("share", "best"), [(0.4, Choice("cpu", "fp32", "eager", products="bf16")), (0.85, Choice("cpu", "fp32", "sdpa"))]
)
def test_products_are_rounded_only_on_request_and_if_faster(share, best, monkeypatch):
    """Rounding reduces the time of eager attention to `share` of the time without rounding."""

    def time_layer(where, dtype, attention, tokens):
        rounds = torch.get_float32_matmul_precision() == "medium"
        return {"eager": 1.0, "sdpa": 0.9}[attention] * (share if rounds and attention == "eager" else 1.0)

    monkeypatch.setattr(device, "time_layer", time_layer)
    assert choose(30, dtype="fp32", products="auto") == best
    facts = device.environment(best)
    assert (facts["torch"], facts["device"], facts["dtype"]) == (torch.__version__, "cpu", "fp32")
    assert facts.get("products", "fp32") == best.products
    assert choose(30, dtype="fp32") == Choice("cpu", "fp32", "sdpa")
    assert choose(30, dtype="fp32", attention="eager", products="auto").products == "bf16"
    assert choose(30, dtype="fp32", attention="sdpa", products="auto").products == "fp32"
    assert choose(30, dtype="bf16", products="auto").products == "fp32"
    monkeypatch.setenv("LORA_LAB_DTYPE", "fp32")
    assert choose(30, dtype="fp32", products="auto") == Choice("cpu", "fp32", "sdpa")


def test_cuda_is_preferred_to_mps_and_cpu(fake_timings, cuda, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    calls = fake_timings(FAST_BF16)
    assert device.available_devices() == ["cuda", "mps", "cpu"]
    assert choose(30) == Choice("cuda", "bf16", "eager")
    assert set(calls) == {"cuda"}
    assert choose(30, device="cpu").device == "cpu"
    assert choose(30, dtype="fp32", products="auto").products == "fp32"  # rounding is for CPUs only
    assert not any(name.startswith(device.ROUNDED) for name in device.measured("cuda"))


def test_arguments_override_the_environment_and_timings(fake_timings, cuda, monkeypatch):
    calls = fake_timings(FAST_BF16)
    assert choose(30, device="cpu", dtype="fp16", attention="sdpa") == Choice("cpu", "fp16", "sdpa")
    assert calls == []
    assert choose(30, device="cpu", dtype="fp16") == Choice("cpu", "fp16", "eager")
    assert choose(30, device="cpu", attention="sdpa") == Choice("cpu", "bf16", "sdpa")
    monkeypatch.setenv("LORA_LAB_DEVICE", "cpu")
    monkeypatch.setenv("LORA_LAB_DTYPE", "fp32")
    monkeypatch.setenv("LORA_LAB_ATTENTION", "sdpa")
    assert choose(30) == Choice("cpu", "fp32", "sdpa")
    assert choose(30, device="cuda", dtype="bf16", attention="eager") == Choice("cuda", "bf16", "eager")


def test_unknown_names_and_missing_devices_are_refused(fake_timings, monkeypatch):
    fake_timings(SLOW_BF16)
    dtypes = "fp32, bf16, fp16, nf4, nf4-single, int8, int4, nf3, nf2"
    assert_raises(f"dtype must be one of {dtypes} or auto, not 'fp8'", choose, 30, dtype="fp8")
    with pytest.raises(BadValue, match="this machine has no device cuda; its devices: cpu"):
        choose(30, device="cuda", dtype="fp32", attention="eager")
    for variable, value in {"LORA_LAB_DEVICE": "tpu", "LORA_LAB_DTYPE": "nf4"}.items():
        monkeypatch.setenv(variable, value)
        assert_raises(f"{variable} must be one of [^n]*, [^n]* or auto, not '{value}'", choose, 30)
        monkeypatch.setenv(variable, "")  # the same as unset
    assert choose(30) == Choice("cpu", "fp32", "eager")


@pytest.mark.parametrize("home", ["writable", "no folder", "read-only"])
def test_timings_are_measured_once(fake_timings, tmp_path, home, monkeypatch):
    """With a read-only home, timings are kept in memory, so that packs of one sweep can't differ in dtype."""
    if home == "no folder":
        (tmp_path / "cache").write_text("not a folder")
    else:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "machine.json").write_text('{"another machine": {}}')
    if home == "read-only":
        monkeypatch.setattr(device, "write_json", Mock(side_effect=BadValue("read-only")))
    calls = fake_timings(SLOW_BF16)
    timings = device.measured("cpu")
    assert device.measured("cpu") == timings
    assert len(calls) == 12
    if home == "writable":
        stored = json.loads((tmp_path / "cache" / "machine.json").read_text())
        assert stored == {"another machine": {}, device.describe("cpu"): timings}


def test_processors_with_different_bf16_flags_are_timed_separately(fake_timings, tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(device, "CPU_FACTS", cpuinfo)
    for flags, seconds, dtype in (
        ("flags\t\t: fpu\n\nprocessor\t: 1", SLOW_BF16, "fp32"),
        ("flags\t\t: fpu avx512_bf16 amx_bf16", FAST_BF16, "bf16"),
        ("Features\t: asimd bf16", SLOW_BF16, "fp32"),
    ):
        cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Maker(R) Server\n{flags}\npower management:\n")
        fake_timings(seconds)
        assert choose(30).dtype == dtype


def test_damaged_or_partial_cache_is_measured_again(fake_timings, tmp_path):
    fake_timings(SLOW_BF16)
    incomplete = json.dumps({device.describe("cpu"): {key("fp32", "eager", LENGTHS[0]): 1.0}})
    other_types = (json.dumps({device.describe("cpu"): value}) for value in (1, dict.fromkeys(device.measured("cpu"))))
    for content in ("", "[]", '{"cpu": 1}', incomplete, *other_types):
        (tmp_path / "cache" / "machine.json").write_text(content)
        assert choose(30) == Choice("cpu", "fp32", "eager")


def test_real_timings_cover_every_dtype_attention_and_length(monkeypatch):
    monkeypatch.setattr(device, "time_layer", partial(device.time_layer, total=256, repeats=1))
    times = device.measured("cpu")
    kinds = ("fp32", "bf16", device.ROUNDED)
    assert times.keys() == {key(d, a, n) for d in kinds for a in device.ATTENTIONS for n in LENGTHS}
    assert all(0 < seconds < 10 for seconds in times.values())
