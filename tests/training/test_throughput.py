"""How many tokens a step should have: where more of them no longer pay, measured once."""

from __future__ import annotations

import platformdirs
import pytest

from lora_lab.training import device, throughput


@pytest.fixture(autouse=True)
def anew(monkeypatch, tmp_path):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path))
    throughput.speeds.cache_clear()
    yield
    throughput.speeds.cache_clear()


def test_the_fewest_tokens_at_nearly_the_best_speed(monkeypatch):
    speeds = dict(zip(throughput.TOKENS, (10, 60, 96, 97, 100, 80), strict=True))
    monkeypatch.setattr(throughput, "speed", lambda where, tokens: speeds[tokens])
    assert throughput.rewarding_tokens("cpu") == 1024
    monkeypatch.setattr(throughput, "speed", lambda *_: pytest.fail("it was measured again"))
    throughput.speeds.cache_clear()
    assert throughput.rewarding_tokens("cpu") == 1024  # from the disk


def test_a_real_layer_has_a_speed(monkeypatch):
    monkeypatch.setattr(device, "choose", lambda tokens, **_: device.Choice("cpu", "fp32", "eager"))
    assert throughput.speed("cpu", 256) > 1000
