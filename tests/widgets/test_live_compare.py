"""A comparison in a thread, with the real `compare` on a tiny model: stopped, resumed, shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_lab.experiments import compare as module
from lora_lab.experiments.compare import compare
from lora_lab.experiments.margins import scores_in
from lora_lab.experiments.statistics import verdict
from lora_lab.widgets.compare_panel import ComparePanel, LiveCompare
from tests.training.conftest import PLAIN, opinions, tiny_encoder, tiny_models  # noqa: F401

TERMS = {"steps": 6, "batch": 8, "rates": 2, "growth": 0, "seeds": 1, **PLAIN}


def test_stopped_and_started_again_it_is_what_compare_gives(
    tiny_encoder: str,  # noqa: F811
    opinions: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    live = LiveCompare(tiny_encoder, opinions, ("head", "lora"), tmp_path / "live", TERMS)
    live.start()
    live.stop()  # before the first step
    live.wait(120)
    assert (live.state, live.error, live.done) == ("stopped", "", 0)
    assert not (tmp_path / "live" / "comparison.json").exists()
    calls, seen = [], []
    monkeypatch.setattr(module, "compare", lambda *a, **k: calls.append(a) or compare(*a, **k))
    monkeypatch.setattr(
        live, "_say", lambda words: seen.append((live.done, (tmp_path / "live" / "comparison.json").exists()))
    )
    live.work()
    assert (live.state, live.error, live.done) == ("done", "", 2)
    assert len(calls) == 1
    assert dict.fromkeys(seen) == {(0, False): None, (1, False): None}  # seen to grow, and written when it is whole
    whole = compare(tiny_encoder, opinions, "head,lora", tmp_path / "live", **TERMS).to_json()
    assert live.found == whole
    assert all(len(row["accuracy"]["each"]) == 1 and row["error"] is None for row in whole["methods"])

    terms = {name: value for name, value in TERMS.items() if name not in ("steps", "rates", "seeds")}
    own = {"steps": 6, "rates": 2, "seeds": 1, "store": str(tmp_path / "live")}
    panel = ComparePanel(tiny_encoder, opinions, ("head", "lora"), **own, **terms).show()
    assert panel.result().to_json() == whole  # found, not trained again
    assert panel.live["state"] == "done"
    entry = panel.mine["against"]["LoRA r8 q,v"]["head"]
    assert "-" not in entry["outcomes"]  # its answers were kept
    scores = scores_in(whole)
    found = verdict(scores["head"], scores["LoRA r8 q,v"], 0.015)
    assert entry["difference"] == pytest.approx(found.difference, abs=1e-6)
