"""`lora-lab claims`: one verdict or all, and premises changed by hand."""

import json

from click.testing import CliRunner

from lora_course.claims import cards
from lora_lab.cli import commands


def told(*arguments: str) -> str:
    return CliRunner().invoke(commands, ["claims", *arguments], catch_exceptions=False).stdout


def test_a_claim_by_number_with_a_premise_changed():
    found = json.loads(told("4", "--set", "gpu_gb=48", "--json"))
    assert (found["id"], found["word"], found["changed"]) == ("one_24gb_card", "true", ["gpu_gb"])
    said = told("one_24gb_card", "--set", "bits=2")
    for words in ("bits = 2", "depends on model", "not shown:"):
        assert words in said


def test_all_claims_have_a_line_each(monkeypatch):
    some = {name: cards.judge(name) for name in ("times_fewer", "merging_is_free")}
    monkeypatch.setattr(cards, "judge_all", lambda: some)
    assert len(told().splitlines()) == 2
    assert [one["id"] for one in json.loads(told("--json"))["claims"]] == ["times_fewer", "merging_is_free"]
