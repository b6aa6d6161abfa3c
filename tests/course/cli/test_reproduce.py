"""`lora-lab reproduce`: plans in seconds, results as JSON, one sentence for what cannot be."""

from __future__ import annotations

import json
import sys
from functools import partial
from types import ModuleType, SimpleNamespace

import pytest

from lora_course import paper
from lora_course.paper import reproduce
from tests.course.paper.reproduce.test_run import Made, Other


@pytest.fixture
def run(monkeypatch, lora_lab):
    """`run("table6", "--dry-run")`."""
    monkeypatch.setattr(
        reproduce, "items", lambda names: [Made()] if names != ("tabel6",) else reproduce.item("tabel6")
    )
    return partial(lora_lab, "reproduce")


def test_a_dry_run_prints_the_plan_and_writes_nothing(run, tmp_path):
    done = run("--dry-run", "--json", "--out", str(tmp_path / "out"))
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["items"][0] | {"item": "table6", "minutes": 2.0, "budget_minutes": 2.0} == found["items"][0]
    assert found["minutes"] == 2.0
    assert not (tmp_path / "out").exists()
    assert "steps 200" in run("--dry-run", "--out", str(tmp_path / "out")).stdout


def test_results_report_and_picture(run, tmp_path):
    done = run("table6", "--json", "--out", str(tmp_path))
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert found["items"][0]["standing"] == "holds"
    assert found["scale"] == "laptop"
    assert (tmp_path / "report.md").is_file()
    assert (tmp_path / "table6.png").read_bytes().startswith(b"\x89PNG")
    assert "The rule: Two is equal to two." in done.stderr
    assert "holds" in run("table6", "--out", str(tmp_path)).stdout
    (tmp_path / "report.md").unlink()
    judged = run("--rejudge", "--json", "--out", str(tmp_path))
    assert json.loads(judged.stdout)["items"] == found["items"]
    assert (tmp_path / "report.md").is_file()
    assert run("--out", str(tmp_path / "table6.png" / "below")).returncode == 2


def test_the_report_keeps_what_earlier_calls_found(run, tmp_path, monkeypatch):
    run("--out", str(tmp_path))
    monkeypatch.setattr(reproduce, "items", lambda names: [Other()])
    run("--out", str(tmp_path))
    text = (tmp_path / "report.md").read_text()
    assert "## table5" in text
    assert "## table6" in text


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["tabel6"], 2, "nearest: table6"),
        (["--minutes", "0"], 2, "above 0"),
        (["--scale", "moon"], 2, "moon"),
        (["--minutes", "0.5"], 1, "too few minutes"),
        (["--rejudge"], 2, "no result of these items"),
    ],
)
def test_what_cannot_be_is_one_sentence(run, tmp_path, words, code, says):
    done = run(*words, "--out", str(tmp_path))
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


# ---- --scale paper


class Protocol(ModuleType):
    """Stands where the protocol is: notes what it is asked, and answers something that can be printed."""

    TABLES = ("table2", "table3")

    def __init__(self) -> None:
        super().__init__("protocol")
        self.asked: list = []

    def plan(self, table, **options):
        self.asked.append(("plan", table, options))
        return [SimpleNamespace(to_json=lambda: {"table": table})]

    def run(self, table, **options):
        self.asked.append(("run", table, options))
        return SimpleNamespace(to_json=lambda: {"table": table})


@pytest.fixture
def protocol(monkeypatch):
    made = Protocol()
    monkeypatch.setattr(paper, "protocol", made, raising=False)
    monkeypatch.setitem(sys.modules, "lora_course.paper.protocol", made)
    return made


def test_papers_plans_are_the_protocols(run, protocol):
    done = run("--scale", "paper", "--dry-run", "--variant", "repo", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["items"] == [{"table": "table2"}, {"table": "table3"}]
    assert protocol.asked == [("plan", table, {"variant": "repo"}) for table in protocol.TABLES]


def test_papers_runs_are_the_protocols(run, protocol, tmp_path):
    words = ("--model-path", "m", "--data", "d", "--seeds", "1", "--out", str(tmp_path), "--json")
    done = run("table3", "--scale", "paper", *words)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"scale": "paper", "table": "table3"}
    assert protocol.asked == [("run", "table3", {"model_path": "m", "data": "d", "seeds": 1, "out": str(tmp_path)})]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--scale", "paper"], "one table at a time"),
        (["table3", "--scale", "paper"], "--model-path"),
        (["table3", "--scale", "paper", "--model-path", "m"], "--data"),
        (["table3", "--scale", "paper", "--minutes", "5"], "--minutes is of --scale laptop"),
        (["table3", "--scale", "paper", "--rejudge"], "--rejudge is of --scale laptop"),
        (["--model-path", "m"], "of --scale paper"),
        (["table3", "--scale", "paper", "--steps-limit", "0"], "'--steps-limit': 0"),
        (["table3", "--scale", "paper", "--seeds", "0"], "'--seeds': 0"),
    ],
)
def test_what_the_protocol_lacks_is_one_sentence(run, protocol, words, says):
    done = run(*words)
    assert done.returncode == 2
    assert says in done.stderr
