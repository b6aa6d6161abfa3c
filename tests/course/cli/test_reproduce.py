import json
from functools import partial

import pytest

from lora_course.paper import protocol, reproduce
from tests.course.paper.test_reproduce import Made


@pytest.fixture
def run(monkeypatch, lora_lab):
    """Run `lora-lab reproduce` with one toy item."""
    monkeypatch.setattr(reproduce, "items", lambda names: [Made()])
    return partial(lora_lab, "reproduce")


def test_dry_run_prints_the_plan_and_writes_nothing(run, tmp_path):
    done = run("--dry-run", "--json", "--out", str(tmp_path / "out"))
    plan = json.loads(done.stdout)
    assert done.returncode == 0
    assert plan["items"][0].items() >= {"item": "table6", "minutes": 2.0, "budget_minutes": 2.0}.items()
    assert (plan["scale"], plan["minutes"]) == ("laptop", 2.0)
    assert "steps 200" in run("--dry-run", "--out", str(tmp_path / "out")).stdout
    assert not (tmp_path / "out").exists()
    short = run("--minutes", "0.5", "--out", str(tmp_path))
    assert short.returncode == 1
    assert "too few minutes" in short.stderr
    assert "Traceback" not in short.stderr


def test_results_are_kept_and_reported_again_later(run, tmp_path, monkeypatch):
    done = run("table6", "--json", "--out", str(tmp_path))
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (result["scale"], result["items"][0]["standing"]) == ("laptop", "holds")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "The rule: Two is equal to two." in done.stderr
    assert "holds" in run("table6", "--out", str(tmp_path)).stdout
    (tmp_path / "report.md").unlink()
    assert json.loads(run("--rejudge", "--json", "--out", str(tmp_path)).stdout)["items"] == result["items"]
    assert (tmp_path / "report.md").is_file()
    assert run("--out", str(tmp_path / "report.png" / "below")).returncode == 2
    (tmp_path / "table6" / "result.json").write_text('{"item": "table6"}')
    assert "no result of these items" in run("--rejudge", "--out", str(tmp_path)).stderr
    run("table6", "--out", str(tmp_path))
    monkeypatch.setattr(reproduce, "items", lambda names: [Made(name="table5")])
    run("--out", str(tmp_path))
    assert {"## table5", "## table6"} <= set((tmp_path / "report.md").read_text().splitlines())


def test_paper_scale_runs_the_protocol(run, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(protocol, "plan", lambda table, **given: calls.append((table, given)) or [{"table": table}])
    monkeypatch.setattr(protocol, "plan_in_words", str)
    monkeypatch.setattr(protocol, "run", lambda table, **given: calls.append((table, given)) or {"table": table})
    monkeypatch.setattr(protocol, "result_in_words", str)
    done = run("--scale", "paper", "--dry-run", "--variant", "repo", "--json")
    assert json.loads(done.stdout) == {"scale": "paper", "items": [{"table": "table2"}, {"table": "table3"}]}
    for option in (("--seeds", "1"), ("--download",)):
        assert "doesn't change the plan" in run("--scale", "paper", "--dry-run", *option).stderr
    options = {"model_path": "m", "data": "d", "seeds": 1, "out": str(tmp_path)}
    words = ("--model-path", "m", "--data", "d", "--seeds", "1", "--out", str(tmp_path), "--json")
    assert json.loads(run("table3", "--scale", "paper", *words).stdout) == {"scale": "paper", "table": "table3"}
    assert calls == [("table2", {"variant": "repo"}), ("table3", {"variant": "repo"}), ("table3", options)]
