"""`lora-lab reproduce`: plans in seconds, results as JSON, one sentence for what cannot be."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from lora_lab import cli, experiments
from lora_lab.experiments import reproduce
from tests.experiments.reproduce.test_run import Made, Other


@pytest.fixture
def run(monkeypatch, capsys):
    """`run("table6", "--dry-run")`: exit code, stdout, stderr."""
    monkeypatch.setattr(
        reproduce, "items", lambda names: [Made()] if names != ("tabel6",) else reproduce.item("tabel6")
    )

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["lora-lab", "reproduce", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return (int(left.value.code or 0), *capsys.readouterr())

    return command


def test_a_dry_run_prints_the_plan_and_writes_nothing(run, tmp_path):
    code, out, _ = run("--dry-run", "--json", "--out", str(tmp_path / "out"))
    found = json.loads(out)
    assert code == 0
    assert found["items"][0] | {"item": "table6", "minutes": 2.0, "budget_minutes": 2.0} == found["items"][0]
    assert found["minutes"] == 2.0
    assert not (tmp_path / "out").exists()
    assert "steps 200" in run("--dry-run", "--out", str(tmp_path / "out"))[1]


def test_results_report_and_picture(run, tmp_path):
    code, out, err = run("table6", "--json", "--out", str(tmp_path))
    found = json.loads(out)
    assert code == 0, err
    assert found["items"][0]["standing"] == "holds"
    assert found["scale"] == "laptop"
    assert (tmp_path / "report.md").is_file()
    assert (tmp_path / "table6.png").read_bytes().startswith(b"\x89PNG")
    assert "The rule: Two is equal to two." in err
    assert "holds" in run("table6", "--out", str(tmp_path))[1]
    assert run("--out", str(tmp_path / "table6.png" / "below"))[0] == 2


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
    ],
)
def test_what_cannot_be_is_one_sentence(run, tmp_path, words, code, says):
    found = run(*words, "--out", str(tmp_path))
    assert found[0] == code
    assert says in found[2]
    assert "Traceback" not in found[2]


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
    monkeypatch.setattr(experiments, "protocol", made, raising=False)
    monkeypatch.setitem(sys.modules, "lora_lab.experiments.protocol", made)
    return made


def test_papers_plans_are_the_protocols(run, protocol):
    code, out, _ = run("--scale", "paper", "--dry-run", "--variant", "repo", "--json")
    assert code == 0
    assert json.loads(out)["items"] == [{"table": "table2"}, {"table": "table3"}]
    assert protocol.asked == [("plan", table, {"variant": "repo"}) for table in protocol.TABLES]


def test_papers_runs_are_the_protocols(run, protocol, tmp_path):
    words = ("--model-path", "m", "--data", "d", "--seeds", "1", "--out", str(tmp_path), "--json")
    code, out, _ = run("table3", "--scale", "paper", *words)
    assert code == 0
    assert json.loads(out) == {"scale": "paper", "table": "table3"}
    assert protocol.asked == [("run", "table3", {"model_path": "m", "data": "d", "seeds": 1, "out": str(tmp_path)})]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--scale", "paper"], "one table at a time"),
        (["table3", "--scale", "paper"], "--model-path"),
        (["table3", "--scale", "paper", "--model-path", "m"], "--data"),
        (["table3", "--scale", "paper", "--minutes", "5"], "--minutes is of --scale laptop"),
        (["--model-path", "m"], "of --scale paper"),
        (["table3", "--scale", "paper", "--steps-limit", "0"], "'--steps-limit': 0"),
        (["table3", "--scale", "paper", "--seeds", "0"], "'--seeds': 0"),
    ],
)
def test_what_the_protocol_lacks_is_one_sentence(run, protocol, words, says):
    code, _, err = run(*words)
    assert code == 2
    assert says in err
