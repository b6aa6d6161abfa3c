import json
from collections.abc import Callable

from lora_course.claims import cards


def test_a_claim_is_judged_with_changed_premises(lora_lab: Callable):
    verdict = json.loads(lora_lab("claims", "4", "--set", "gpu_gb=48", "--json").stdout)
    assert (verdict["id"], verdict["word"], verdict["changed"]) == ("one_24gb_card", "true", ["gpu_gb"])
    text = lora_lab("claims", "one_24gb_card", "--set", "bits=2").stdout
    for words in ("bits = 2", "depends on model", "not shown:"):
        assert words in text


def test_all_claims_are_listed(lora_lab: Callable, monkeypatch):
    verdicts = {name: cards.judge(name) for name in ("times_fewer", "merging_is_free")}
    monkeypatch.setattr(cards, "judge_all", lambda: verdicts)
    assert len(lora_lab("claims").stdout.splitlines()) == 2
    claims = json.loads(lora_lab("claims", "--json").stdout)["claims"]
    assert [claim["id"] for claim in claims] == list(verdicts)
