"""`lora-lab reproduce`: plans in seconds, and results as JSON."""

import json
from functools import partial

import pytest

from lora_course.paper import protocol, reproduce
from tests.course.paper.test_reproduce import Made


@pytest.fixture
def run(monkeypatch, lora_lab):
    """`run("table6", "--dry-run")`."""
    monkeypatch.setattr(reproduce, "items", lambda names: [Made()])
    return partial(lora_lab, "reproduce")


def test_a_dry_run_prints_the_plan_and_writes_nothing(run, tmp_path):
    done = run("--dry-run", "--json", "--out", str(tmp_path / "out"))
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["items"][0] | {"item": "table6", "minutes": 2.0, "budget_minutes": 2.0} == found["items"][0]
    assert (found["scale"], found["minutes"]) == ("laptop", 2.0)
    assert "steps 200" in run("--dry-run", "--out", str(tmp_path / "out")).stdout
    assert not (tmp_path / "out").exists()
    short = run("--minutes", "0.5", "--out", str(tmp_path))
    assert (short.returncode, "too few minutes" in short.stderr, "Traceback" in short.stderr) == (1, True, False)


def test_results_report_and_picture_are_kept_for_later_calls(run, tmp_path, monkeypatch):
    done = run("table6", "--json", "--out", str(tmp_path))
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (found["scale"], found["items"][0]["standing"]) == ("laptop", "holds")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "The rule: Two is equal to two." in done.stderr
    assert "holds" in run("table6", "--out", str(tmp_path)).stdout
    (tmp_path / "report.md").unlink()
    assert json.loads(run("--rejudge", "--json", "--out", str(tmp_path)).stdout)["items"] == found["items"]
    assert (tmp_path / "report.md").is_file()
    assert run("--out", str(tmp_path / "report.png" / "below")).returncode == 2
    monkeypatch.setattr(reproduce, "items", lambda names: [Made(name="table5")])
    run("--out", str(tmp_path))
    text = (tmp_path / "report.md").read_text()
    assert "## table5" in text
    assert "## table6" in text


def test_the_papers_scale_is_the_protocols(run, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(protocol, "plan", lambda table, **given: asked.append((table, given)) or [{"table": table}])
    monkeypatch.setattr(protocol, "plan_in_words", str)
    monkeypatch.setattr(protocol, "run", lambda table, **given: asked.append((table, given)) or {"table": table})
    monkeypatch.setattr(protocol, "result_in_words", str)
    done = run("--scale", "paper", "--dry-run", "--variant", "repo", "--json")
    assert json.loads(done.stdout) == {"scale": "paper", "items": [{"table": "table2"}, {"table": "table3"}]}
    words = ("--model-path", "m", "--data", "d", "--seeds", "1", "--out", str(tmp_path), "--json")
    assert json.loads(run("table3", "--scale", "paper", *words).stdout) == {"scale": "paper", "table": "table3"}
    plans = [(table, {"variant": "repo"}) for table in ("table2", "table3")]
    assert asked == [*plans, ("table3", {"model_path": "m", "data": "d", "seeds": 1, "out": str(tmp_path)})]
