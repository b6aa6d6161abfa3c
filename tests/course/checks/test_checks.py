import math
from copy import deepcopy
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lora_course import checks
from lora_course.checks import bits, comparing, debugging, knobs, planning, reading, reproducing
from lora_course.checks.reward import loss_or_ours
from lora_course.checks.sure import half_width_or_ours
from lora_course.checks.verdict import NEARLY, Choice, Function, Number, Right
from lora_course.checks.writing import LoRALinear, layer_or_ours
from lora_course.experiments import broken
from lora_course.experiments.broken import ELEVENTH, PATIENTS, eleventh, patient
from lora_course.experiments.reward import reinforce
from lora_course.receipts import Check, Receipt
from lora_lab import layers
from lora_lab.experiments import playground
from lora_lab.methods.quant import levels_of
from lora_lab.training.assets import shipped
from lora_lab.training.named import inspect_folder
from tests.course.checks import answers
from tests.course.checks.answers import ANSWERS


def assert_each_mistake_gets_its_reply(right: Right | None):
    """Assert that no reply to a wrong answer is hidden by another; a mistake may happen to give the right number."""
    if isinstance(right, Function):
        replies = {wrong: reply for reply, wrong in right.near.items()}
    elif isinstance(right, Choice):
        replies = {word: reply for word, reply in right.replies.items() if word not in right.right}
    else:
        replies = {n: reply for n, reply in right.misconceptions.items() if n != right.right} if right else {}
    for wrong, reply in replies.items():
        assert repr(right.judge(wrong)) == f"not right: {reply}"


@pytest.mark.parametrize("name", sorted(name for name in checks.__all__ if name.startswith("check_")))
def test_right_wrong_and_unsolved_answers(name: str):
    check, rows = getattr(checks, name), [row for row in ANSWERS if row[0] == name.removeprefix("check_")]
    assert {bool(replies) for _, _, *replies in rows} == {True, False}, "a right and a wrong answer"
    for _, arguments, *replies in rows:
        verdict, (reply, hint) = check(*arguments), [*replies, "", ""][:2]
        kind = "right: " if not reply else "not yet: " if reply.startswith("not yet: ") else "not right: "
        assert repr(verdict).startswith(kind)
        assert reply.removeprefix(kind) in verdict.words
        assert hint in verdict.hint
        if not reply:
            assert len(verdict.words) > 20
            for part in verdict.right.values() if isinstance(verdict.right, dict) else [verdict.right]:
                assert_each_mistake_gets_its_reply(part)
    first, *rest = rows[0][1]
    for placeholder in (None, ...) if name != "check_report" else ():  # its first argument is a given table
        answer = (lambda *args, value=placeholder: value) if callable(first) else placeholder
        assert repr(check(answer, *rest)).startswith("not yet: ")


def test_numbers_of_any_type_are_accepted_and_must_be_finite():
    for number in (np.int64(4224), np.float32(4224), 4224.0, Decimal(4224), np.array(4224), torch.tensor(4224)):
        assert checks.check_pair_numbers(number).passed
    assert checks.check_energy(lambda s, r: torch.tensor((s[:r] ** 2).sum() / (s**2).sum())).passed
    assert checks.check_half_width(lambda p, n: Decimal(1.96 * (p * (1 - p) / n) ** 0.5)).passed
    assert checks.check_flattered(np.float64(0.008), np.float32(-2.5), "LoRA-FA").passed
    assert checks.check_flip({"seq": torch.tensor(32)}).passed
    for margin in (Fraction(3, 2), Decimal("1.5"), torch.tensor(1.5), np.array(1.5)):
        assert checks.check_defense(margin, "worse but within the margin", "c").passed
    assert checks.check_energy(lambda s, r: "0.6").words == "return a number, not str"
    assert "'float' object" not in checks.check_energy(0.6).words  # the function's value
    assert "int too large" in checks.check_pair_numbers(10**400).words
    for number in (math.inf, math.nan):
        assert "a finite number" in checks.check_pair_numbers(number).words
        assert "a finite number" in checks.check_published(number, 1, "noise", "large").words
        assert checks.check_energy(lambda s, r, number=number: number).passed is False


def test_choice_ignores_case_and_punctuation():
    choice = Choice(["b", "QLoRA"], {"a": "no"}, "yes")
    assert all(choice.judge(answer).passed for answer in ("b)", "B.", "(b)", " b ", "qlora"))
    assert choice.judge("A:").words == "no"
    assert choice.judge(3).words == "answer with one of QLoRA, a, b, not 3"
    assert checks.check_diagnosis({letter: f"{p.fault}." for letter, p in PATIENTS.items()}).passed


def test_number_replies_with_the_nearest_hint():
    number = Number(100, {100: "ignored", 101: "one too many", 102: "two too many"}, "why", fallback="no")
    replies = {100: "why", 100.4: NEARLY, 90: "no", 100.6: "one too many", 101.4: "one too many", 101.6: "two too many"}
    assert {answer: number.judge(answer).words for answer in replies} == replies
    close_hint = Number(4.12695, {4.125: "nearly"}, "why")
    assert close_hint.judge(4.13).words == "why"  # rounded to three figures
    assert close_hint.judge(4.12).words == "nearly"


def test_wrong_tries_are_counted_and_get_the_next_hint(monkeypatch: pytest.MonkeyPatch):
    receipt = Receipt("04")
    monkeypatch.setattr("lora_course.checks.verdict.CURRENT", receipt)
    for answer, hint in ((..., ""), (1, "Hint 1 of 3"), (2, "Hint 2"), (..., ""), (3, "Hint 3"), (4, "Hint 3")):
        shown = repr(checks.check_peak(lambda tokens, answer=answer: answer)).partition("\n")[2]
        assert shown.startswith(hint)
        assert bool(shown) == bool(hint)
    assert receipt.checks == {"peak": Check(False, 4)}
    checks.check_peak(answers.peak)
    checks.check_peak(lambda tokens: 5)
    assert receipt.checks == {"peak": Check(True, 5)}  # tries after the right answer don't count


def test_gaussian_a_is_right_for_every_layer_shape(monkeypatch: pytest.MonkeyPatch):
    gaussian = answers.lora_with(lambda layer: nn.init.normal_(layer.lora_A, std=layer.base_layer.in_features**-0.5))
    for name in ("Ada Lovelace", "Alan Turing", "Grace Hopper", "Emmy Noether"):  # the shape depends on the name
        monkeypatch.setenv("LORA_LAB_STUDENT", name)
        assert checks.check_lora_linear(gaussian).passed, name
        assert checks.check_lora_linear(answers.LARGE_A).passed is False, name


def test_in_place_merge_is_refused_and_leaves_the_model_unchanged():
    def in_place(layer):
        layer.base_layer.weight += layer.scaling * (layer.lora_B @ layer.lora_A)
        return layer.base_layer

    before = deepcopy(answers.MODEL.state_dict())
    assert "a second call would add the update twice" in checks.check_merge(in_place, *answers.IN_MODEL).words
    assert all(torch.equal(before[name], value) for name, value in answers.MODEL.state_dict().items())


def test_unfinished_code_is_replaced_by_ours_with_a_note(capsys: pytest.CaptureFixture[str]):
    ((half_width,),) = [row[1] for row in ANSWERS if row[0] == "half_width" and len(row) == 2]
    assert layer_or_ours(LoRALinear) is LoRALinear
    assert half_width_or_ours(half_width) is half_width
    assert loss_or_ours(reinforce) is reinforce
    assert not capsys.readouterr().out
    assert layer_or_ours(answers.Unfinished) is LoRALinear
    assert half_width_or_ours(lambda p, n: None)(0.5, 100) == pytest.approx(0.098)
    assert loss_or_ours(lambda log_p, rewards: float(reinforce(log_p, rewards))) is reinforce  # has no gradient
    assert capsys.readouterr().out.count("uses ours") == 3


def test_fast_bracket_is_judged_by_the_stored_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAST", "1")
    panel = SimpleNamespace(data=playground.shown(playground.load())[0])
    assert f"{panel.data['luck']:.1f}" == f"{knobs.LUCK}"
    assert all(f"({knobs.LUCK} points)" in knobs.WORDS[side] for side in ("lower", "higher"))
    for alpha in (128.0, 32.0, 8.0):
        middle = 2e-3 * (16 / alpha) ** 0.5
        lowest, highest = knobs.plateau(panel.data, alpha)
        assert lowest < middle < highest < 6 * lowest
        for step in (3, 4, 5):
            assert checks.check_bracket([middle / step, middle, step * middle], alpha, panel).passed
        for factors in ((4, 16, 64), (1 / 20, 1 / 5, 1)):
            assert checks.check_bracket([factor * middle for factor in factors], alpha, panel).passed is False
    for rates, lower in (([3e-4, 6e-4, 1.2e-3], True), ([1e-4, 3e-4, 6e-4], False)):  # on the plateau; too low
        verdict = checks.check_bracket(rates, 128.0, panel)
        assert (verdict.passed, knobs.WORDS["lower"] in verdict.words) == (False, lower)
    assert knobs.WORDS["higher"] in verdict.words


def test_bracket_trains_only_missing_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAST", "")
    panel = answers.FakePanel()
    for _ in range(2):
        assert "77.0" in checks.check_bracket([2.5e-4, answers.BEST, 2e-3], 128.0, panel).words
    assert panel.runs == 1
    panel.data["cells"].append(panel.cell(8, 32.0, 0.0014))  # where a map keeps all rates that agree to three digits
    assert checks.check_bracket(np.geomspace(3.5e-4, 5.6e-3, 3), 32.0, panel).passed is not None


def test_teacher_has_the_rank_drawn_for_the_student(monkeypatch: pytest.MonkeyPatch):
    assert torch.linalg.matrix_rank(knobs.teacher()) == 6
    ranks = set()
    for name in ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Hedy"):
        monkeypatch.setenv("LORA_LAB_STUDENT", name)
        values = torch.linalg.svdvals(knobs.teacher())
        rank = int((values > 0.5).sum())
        assert torch.allclose(values[:rank], torch.ones(rank), atol=1e-5)
        ranks.add(rank)
    assert len(ranks) > 2


def test_defense_shows_one_step_at_a_time_and_keeps_its_margin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(comparing, "CURRENT", Receipt())  # without a lesson, as in the grader, no margin is kept
    assert all(checks.check_defense(margin, ..., ...).passed is None for margin in (1, 3))
    monkeypatch.setattr(comparing, "CURRENT", receipt := Receipt("05"))
    assert "interval" not in repr(checks.check_defense(..., ..., ...))
    assert not receipt.notes
    with_margin = repr(checks.check_defense(1, ..., ...))
    assert "-1.53 to -0.09" in with_margin
    assert "If neither is yes, it is undecided" in checks.check_defense(1, "equivalent", ...).hint
    assert receipt.notes == {"margin, 3 bits against 16": 0.01}
    with_word = repr(checks.check_defense(1, "worse", ...))
    assert all(f"\n  {letter}: for " in with_word for letter in "abcd")
    changed = checks.check_defense(3, answers.WORSE, "c")
    assert changed.passed is False
    assert "your margin was 1" in changed.words
    assert "to -0.24. You can write: for MiniLM on rt, LoRA on" in checks.check_defense(1, "worse", "c").words


def test_each_pair_has_one_right_word_and_sentence(monkeypatch: pytest.MonkeyPatch):
    def right(pair: str) -> tuple[str, str]:
        (word,) = [word for word in comparing.WORDS if checks.check_defense(1.5, word, ..., pair).passed is None]
        (letter,) = [letter for letter in "abcd" if checks.check_defense(1.5, word, letter, pair).passed]
        return word, letter

    found = {pair: right(pair) for pair in comparing.PAIRS}
    assert "at a margin of 1 point" in {comparing.defense(pair, 1).sentence[-22:] for pair in comparing.PAIRS}
    monkeypatch.setenv("LORA_LAB_STUDENT", "Ada")  # the grader, which doesn't know her name, must agree
    assert {pair: right(pair) for pair in comparing.PAIRS} == found


def test_lesson_07_shows_the_complaints():
    source = (shipped("notebooks") / "src/07_why_does_it_do_nothing.py").read_text(encoding="utf-8")
    assert all(f'"{letter}": ...,  # {one.complaint}\n' in source for letter, one in PATIENTS.items())
    counted = checks.check_diagnosis(answers.FAULTS, dict.fromkeys(PATIENTS, "Empty file."))
    assert counted.passed
    assert counted.words.endswith("infinity. 1 of your first ten were right")


def test_hints_do_not_name_a_fault():
    assert set(debugging.HINTS) == set(debugging.NAMES)
    assert not any(name in hint for name, hint in debugging.HINTS.items())


def test_inspect_finds_the_fault_of_each_patient_and_no_other(tmp_path):
    for letter, sick in PATIENTS.items():
        report = inspect_folder(patient(letter, tmp_path), "minilm", dtype=sick.dtype)
        assert [problem.name for problem in report.problems] == [sick.fault], letter
    for number, (fault, _) in enumerate(ELEVENTH):
        problem, *_ = inspect_folder(eleventh(number, tmp_path / "K"), "minilm").problems
        assert problem.name == (fault if number else "B is zero in some layers")  # block 0's gradient was cut
        assert checks.check_eleventh("wrong base", number).hint
        if fault == "gradient was cut":  # A is as small as at the start, too
            first, *_, last = broken.largest(tmp_path / "K", "A").values()
            assert first <= 384**-0.5 < last
        assert checks.check_eleventh(fault.upper(), number).passed


def test_every_brief_has_one_right_plan():
    for number, brief in enumerate(planning.BRIEFS):
        choices = planning.lines(number)
        plan = {name: choice.right[0] for name, choice in choices.items()}
        assert checks.check_brief(plan, number).passed, number
        assert all(len(choice.right) == 1 and choice.right[0] in choice.replies for choice in choices.values())
        assert all(text in planning.brief(number) for text in (*planning.TEXTS["questions"].values(), brief["text"]))


def test_page_quotes_the_levels():
    levels = levels_of("nf4")
    assert ", ".join(f"{level:.3f}" for level in levels) in bits.PAGE["question"]
    assert (levels - 0.0512 / 0.25).abs().argmin() == bits.PARTS["index"].right
    assert bits.PARTS["weight read back"].right == pytest.approx(float(levels[10]) * 0.25)


def test_stranger_is_the_stored_adapter_with_other_signs():
    layer, tensors = layers.LoRALinear(nn.Linear(384, 384), 1, 16.0), reading.stored()
    for number, (name, (a, b)) in enumerate(reading.SIGNS.items()):
        reading.disguise(layer, number)
        assert torch.equal(layer.lora_A, a * tensors["lora_A"])
        assert torch.equal(layer.lora_B, b * tensors["lora_B"])
        for answer, signs in reading.SIGNS.items():
            verdict = checks.check_stranger(answer, number)
            assert verdict.passed is (answer == name)
            assert verdict.passed or ("about A" in verdict.words) is (signs[0] != a)


def test_runs_of_an_item_have_three_different_outcomes():
    for name in reproducing.ITEMS:
        outcomes = reproducing.outcomes(name)
        assert len(set(outcomes.values())) == 3, name
        assert reproducing.runs(name).keys() == outcomes.keys()
        assert checks.check_judge(outcomes, name).passed


def test_word_for_a_published_pair_follows_from_gap_and_marks():
    for name, (*rows, _) in reproducing.PAIRS.items():
        first, second = reproducing.published(name)
        _, points, word = checks.check_published(..., ..., ..., name).right.values()
        expected = "a gap" if [row[2] for row in rows] == ["†", "†"] else "different starts"
        assert word.right == ("noise" if abs(first - second) < points.right else expected,), name
