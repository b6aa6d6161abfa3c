import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lora_lab import detach, disabled, load_adapter, load_task, params, plugins, save_adapter
from lora_lab.errors import NotFound
from lora_lab.experiments import afterwards
from lora_lab.methods import REGISTRY, method_from
from lora_lab.training.pack import Pack, key
from lora_lab.training.tasks import Split, Task
from tests.conftest import logits, randomise, snapshot, tiny

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def readme(tmp_path) -> ModuleType:
    """The README's module; its method is unregistered afterwards."""
    section = README.read_text().partition("## Extend")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code.strip().splitlines()) <= 40
    file = tmp_path / "norm_scale.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("norm_scale", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del REGISTRY["norm-scale"]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_method_attaches_counts_saves_and_detaches(readme, kind, tmp_path):
    model, loaded, frozen = tiny(kind), tiny(kind), tiny(kind).requires_grad_(False)
    report = readme.NormScale().attach(model)
    assert torch.equal(logits(model), logits(frozen))
    assert report.adapter_parameters == params(model, readme.NormScale()).trainable == 5 * 32
    randomise(model)
    save_adapter(model, tmp_path / "adapter")
    assert load_adapter(loaded, tmp_path / "adapter").method == method_from({"name": "norm-scale"})
    assert torch.equal(logits(loaded), logits(model))
    with disabled(model):
        assert torch.equal(logits(model), logits(frozen))
    assert not torch.equal(logits(model), logits(frozen))
    detach(model)
    assert snapshot(model) == snapshot(frozen)


def test_method_trains_in_a_pack_as_alone(readme, recipe):
    recipes = [recipe(method=readme.NormScale(), steps=3, validations=1, lr=lr) for lr in (1e-3, 1e-2)]
    assert key(recipes[0]) == key(recipes[1])
    for recipe, packed in zip(recipes, Pack(recipes).run(), strict=True):
        (alone,) = Pack([recipe]).run()
        assert packed.status == "done"
        assert packed.adapter_parameters == 5 * 32
        torch.testing.assert_close(packed.history["loss"], alone.history["loss"], rtol=1e-5, atol=1e-5)


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


def test_unknown_task_is_read_by_a_plugin_and_empty_notes_omitted(plugin):
    assert load_task("mine:one", max_length=8).max_length == 8
    with pytest.raises(NotFound, match="there is no task or file 'yours:one'"):
        load_task("yours:one")
    assert plugins.notes("rt", {}) == ["rt is mine"]


def test_answers_are_scored_by_plugins(plugin, monkeypatch):
    task = load_task("restaurants")
    texts = task.test.texts[:2]
    monkeypatch.setattr(afterwards, "generate", lambda model, tokenizer, prompts, decoding: texts)
    scores = afterwards.score_answers(None, None, task, prompts=2)
    assert (scores["letters"], scores["of"]) == (sum(map(len, texts)), "restaurants")
    assert [row["long"] for row in scores["texts"]] == [len(text) for text in texts]
    assert scores["bleu"] == pytest.approx(100)
