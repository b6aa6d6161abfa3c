"""What the lessons share."""

from __future__ import annotations

import pytest

from lora_lab import lesson
from lora_lab.errors import NotFound


@pytest.mark.parametrize(
    ("guess", "words"),
    [
        (None, "You made no guess"),
        (80, "you said 80%, measured 82%: 2% too low"),
        (90, "8% too high"),
        (82, "exactly right"),
    ],
)
def test_a_guess_is_set_beside_the_measurement(guess: float | None, words: str):
    assert words in lesson.compare("accuracy", guess, 82, "%")


def test_fast_shortens_and_never_lengthens(monkeypatch: pytest.MonkeyPatch):
    assert lesson.steps(400) == (40 if lesson.FAST else 400)
    monkeypatch.setattr(lesson, "FAST", True)
    assert (lesson.steps(400), lesson.steps(20)) == (40, 20)
    assert "illustration" in lesson.eta(40)


def test_the_time_to_train_grows_with_the_steps():
    seconds = [int(lesson.eta(n).split()[1]) for n in (100, 200, 400)]
    assert seconds[0] < seconds[1] < seconds[2]


def test_an_unknown_reference_names_those_there_are():
    with pytest.raises(NotFound, match="minilm-rt-r8"):
        lesson.reference("nothing")
