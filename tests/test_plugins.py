"""What another package adds to the lab: a kind of task, a score of answers, words below the metrics."""

import pytest

from lora_lab import load_task, plugins
from lora_lab.errors import NotFound
from lora_lab.experiments import afterwards
from lora_lab.training.tasks import Split, Task


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that reads `mine:...`, counts letters, and has a word to say."""

    def read(name: str, *, max_length: int | None = None, download: bool = False) -> Task | None:
        split = Split(("good", "bad"), (1, 0))
        return Task(name, ("no", "yes"), max_length or 16, split, split, split) if name.startswith("mine:") else None

    def score(task, prompts, texts):
        return plugins.Scores({"letters": sum(map(len, texts))}, {"of": task.name}, [{"long": len(t)} for t in texts])

    monkeypatch.setattr(plugins, "read_task", [read])
    monkeypatch.setattr(plugins, "score_answers", [score])
    monkeypatch.setattr(plugins, "note_beside", [lambda task, metrics: f"{task} is mine", lambda task, metrics: ""])


def test_a_name_that_the_lab_does_not_know_is_a_plugins(mine):
    assert load_task("mine:one", max_length=8).max_length == 8
    with pytest.raises(NotFound, match="there is no task or file 'yours:one'"):
        load_task("yours:one")


def test_answers_are_scored_by_plugins_too(mine, monkeypatch):
    task = load_task("restaurants")
    monkeypatch.setattr(afterwards, "generate", lambda model, tokenizer, prompts, decoding: task.test.texts[:2])
    found = afterwards.score_answers(None, None, task, prompts=2)
    assert (found["letters"], found["of"]) == (sum(map(len, task.test.texts[:2])), "restaurants")
    assert [one["long"] for one in found["texts"]] == [len(text) for text in task.test.texts[:2]]
    assert found["bleu"] == pytest.approx(100)


def test_a_note_that_is_empty_is_left_out(mine):
    assert plugins.notes("rt", {}) == ["rt is mine"]
