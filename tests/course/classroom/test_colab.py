"""The line for Colab, against a stand-in for its module; elsewhere it does nothing and says nothing."""

from __future__ import annotations

import os
import sys
from types import ModuleType

import pytest

from lora_course.classroom import colab
from lora_lab.training import assets


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if on Colab: what is called."""
    called: list[str] = []
    output = ModuleType("google.colab.output")
    setattr(output, "enable_custom_widget_manager", lambda: called.append("widgets"))  # noqa: B010
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    monkeypatch.setattr(assets, "fetch", lambda names, say: called.extend(names))
    monkeypatch.delenv("LORA_LAB_DTYPE", raising=False)
    yield called
    os.environ.pop("LORA_LAB_DTYPE", None)


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delenv("LORA_LAB_DTYPE", raising=False)
    colab.ready(capability=lambda: pytest.fail("nobody asked"))
    assert capsys.readouterr().out == ""
    assert "LORA_LAB_DTYPE" not in os.environ


def test_on_a_t4_the_frozen_model_is_kept_in_fp16(there: list[str], capsys: pytest.CaptureFixture[str]):
    colab.ready(capability=lambda: (7, 5))
    assert os.environ["LORA_LAB_DTYPE"] == "fp16"
    assert there == ["widgets", "minilm", "smollm2", "reviews", "kjv", "shakespeare"]
    assert "capability 7.5, dtype fp16" in capsys.readouterr().out


@pytest.mark.parametrize("capability", [(8, 9), None])
def test_a_newer_gpu_or_none_is_measured_as_everywhere(there: list[str], capability: tuple[int, int] | None):
    colab.ready(capability=lambda: capability)
    assert "LORA_LAB_DTYPE" not in os.environ


def test_what_the_user_has_chosen_stays(there: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_LAB_DTYPE", "fp32")
    colab.ready(capability=lambda: (7, 5))
    assert os.environ["LORA_LAB_DTYPE"] == "fp32"
