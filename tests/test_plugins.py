"""Tests of plugins: tasks, scores of answers, and notes from other packages."""

import pytest

from lora_lab import load_task, plugins
from lora_lab.errors import NotFound
from lora_lab.experiments import afterwards
from lora_lab.training.tasks import Split, Task


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that reads `mine:...`, counts letters, and adds a note."""

    def read(name: str, *, max_length: int | None = None, download: bool = False) -> Task | None:
        split = Split(("good", "bad"), (1, 0))
        return Task(name, ("no", "yes"), max_length or 16, split, split, split) if name.startswith("mine:") else None

    def score(task, prompts, texts):
        return plugins.Scores({"letters": sum(map(len, texts))}, {"of": task.name}, [{"long": len(t)} for t in texts])

    monkeypatch.setattr(plugins, "read_task", [read])
    monkeypatch.setattr(plugins, "score_answers", [score])
    monkeypatch.setattr(plugins, "note_beside", [lambda task, metrics: f"{task} is mine", lambda task, metrics: ""])


def test_unknown_task_is_read_by_a_plugin(plugin):
    assert load_task("mine:one", max_length=8).max_length == 8
    with pytest.raises(NotFound, match="there is no task or file 'yours:one'"):
        load_task("yours:one")


def test_answers_are_scored_by_plugins(plugin, monkeypatch):
    task = load_task("restaurants")
    texts = task.test.texts[:2]
    monkeypatch.setattr(afterwards, "generate", lambda model, tokenizer, prompts, decoding: texts)
    scores = afterwards.score_answers(None, None, task, prompts=2)
    assert (scores["letters"], scores["of"]) == (sum(map(len, texts)), "restaurants")
    assert [row["long"] for row in scores["texts"]] == [len(text) for text in texts]
    assert scores["bleu"] == pytest.approx(100)


def test_empty_notes_are_omitted(plugin):
    assert plugins.notes("rt", {}) == ["rt is mine"]
