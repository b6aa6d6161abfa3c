"""What a lesson says of memory: what it takes, what is here, and what to do; and its line for Colab."""

import os
import sys
from types import ModuleType

import pytest
import torch

from lora_course import lesson
from lora_course.classroom import room
from lora_lab.training import assets

GB = 10**9


def test_a_lesson_says_what_it_takes_what_is_there_and_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "_other_kernels", lambda: [0.7 * GB, 0.8 * GB])
    monkeypatch.setattr("psutil.Process.memory_info", lambda self: type("M", (), {"rss": 10**8}))
    monkeypatch.setattr("lora_course.classroom.room.memory", lambda: (8 * GB, 5 * GB))
    peak = room.peaks()["05_as_good_as_full"]
    assert room.room_for("05") == ""  # enough
    monkeypatch.setattr("lora_course.classroom.room.memory", lambda: (8 * GB, 10**7))
    words = room.room_for("05")
    assert f"at most {peak.bytes / 1e9:.1f} GB when measured" in words
    assert f"{peak.date}, {peak.hardware}" in words
    assert "here: 8.0 GB, of which you can have 0.1 GB: too little; close browser tabs" in words
    assert "2 other notebooks hold 1.5 GB" in words
    monkeypatch.setattr("lora_course.classroom.room.memory", lambda: (None, None))
    assert room.room_for("05") == room.room_for("99") == ""  # nothing is known


@pytest.mark.parametrize(
    ("gpu", "set_to", "dtype"), [((7, 5), None, "fp16"), ((8, 9), None, None), ((7, 5), "fp32", "fp32")]
)
def test_on_colab_widgets_are_switched_on_and_a_t4_keeps_the_model_in_fp16(
    gpu: tuple[int, int], set_to: str | None, dtype: str | None, monkeypatch: pytest.MonkeyPatch
):
    """Against a stand-in for its module; elsewhere nothing happens."""
    monkeypatch.setenv("LORA_LAB_DTYPE", set_to or "")
    if set_to is None:
        monkeypatch.delenv("LORA_LAB_DTYPE")
    called: list[str] = []
    monkeypatch.setattr(assets, "fetch", lambda names, say: called.extend(names))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    lesson.prepare_colab()
    assert not called
    output = ModuleType("google.colab.output")
    setattr(output, "enable_custom_widget_manager", lambda: called.append("widgets"))  # noqa: B010
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    lesson.prepare_colab()
    assert called == ["widgets", "minilm", "smollm2", "reviews", "kjv", "shakespeare"]
    assert os.environ.get("LORA_LAB_DTYPE") == dtype
