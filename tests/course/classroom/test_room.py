import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from lora_course import lesson
from lora_course.classroom import room
from lora_lab.training import assets

GB = 10**9


def test_warning_says_what_a_lesson_needs_and_what_to_close(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "_other_kernels", lambda: [0.7 * GB, 0.8 * GB])
    monkeypatch.setattr("psutil.Process.memory_info", lambda self: SimpleNamespace(rss=10**8))
    monkeypatch.setattr(room, "memory", lambda: (8 * GB, 5 * GB))
    assert room.room_for("05") == ""
    monkeypatch.setattr(room, "memory", lambda: (8 * GB, 10**7))
    words, peak = room.room_for("05"), room.peaks()["05_as_good_as_full"]
    assert f"up to {peak.bytes / 1e9:.1f} GB when measured ({peak.date}, {peak.hardware})" in words
    assert "this machine has 8.0 GB, of which only 0.1 GB is free for it: close browser tabs" in words
    assert "2 other notebooks hold 1.5 GB" in words
    monkeypatch.setattr(room, "memory", lambda: (None, None))
    assert room.room_for("05") == room.room_for("99") == ""


@pytest.mark.parametrize(
    ("gpu", "setting", "dtype"), [((7, 5), None, "fp16"), ((8, 9), None, None), ((7, 5), "fp32", "fp32")]
)
def test_colab_gets_widgets_assets_and_fp16_on_a_t4(gpu, setting, dtype, monkeypatch):
    monkeypatch.setenv("LORA_LAB_DTYPE", setting or "")
    if setting is None:
        monkeypatch.delenv("LORA_LAB_DTYPE")
    calls: list[str] = []
    monkeypatch.setattr(assets, "fetch", lambda names, say: calls.extend(names))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    lesson.prepare_colab()
    assert not calls
    output = ModuleType("google.colab.output")
    vars(output)["enable_custom_widget_manager"] = lambda: calls.append("widgets")
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    lesson.prepare_colab()
    assert calls == ["widgets", "minilm", "smollm2", "reviews", "kjv", "shakespeare"]
    assert os.environ.get("LORA_LAB_DTYPE") == dtype
