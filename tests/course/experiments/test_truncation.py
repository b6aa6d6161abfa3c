"""Both ends of a specimen are exact, the middle is the best cut, chance has the norm; what was seen is kept."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from lora_course.experiments.microscope import Microscope, Seen, Views, views_from
from lora_course.experiments.truncation import plain_state, specimen, specimen_of
from lora_lab import FullFineTuning, LoRA
from lora_lab.errors import BadValue, NotFound
from lora_lab.files import read_json, write_json
from lora_lab.training.runs import Store
from lora_lab.training.train import train
from tests.conftest import logits, randomise, tiny


@pytest.fixture(scope="module")
def base():
    return tiny("bert")


@pytest.fixture(scope="module")
def full(base):
    """A model of which everything has moved, and the specimen of it."""
    after = copy.deepcopy(base)
    FullFineTuning().attach(after)
    generator = torch.Generator().manual_seed(0)
    for parameter in after.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return after, specimen("full", base.state_dict(), plain_state(after))


def answers(base, weights):
    model = copy.deepcopy(base)
    model.load_state_dict(base.state_dict() | weights)
    return logits(model).detach()


def test_at_full_rank_it_is_the_trained_model_and_at_none_the_base_with_the_trained_head(base, full):
    after, one = full
    assert one.rank == 32
    assert torch.equal(answers(base, one.weights(32)), logits(after))
    assert torch.equal(answers(base, one.weights(99)), logits(after))
    headed = copy.deepcopy(base)
    headed.classifier = after.classifier
    assert torch.equal(answers(base, one.weights(0)), logits(headed))
    assert not torch.equal(answers(base, one.weights(8)), logits(after))
    assert [one.energy(0), one.energy(32)] == [0, pytest.approx(1)]


def test_in_between_each_matrix_is_the_best_of_its_rank(full):
    one = full[1]
    part = next(part for part in one.parts if part.name.endswith("layer.0.output.dense.weight"))
    delta = (part.after - part.before).double().numpy()
    u, s, vt = np.linalg.svd(delta)
    assert np.allclose((part.at(3) - part.before).numpy(), (u[:, :3] * s[:3]) @ vt[:3], atol=1e-6)
    assert part.energy(3) == pytest.approx((s[:3] ** 2).sum(), rel=1e-5)


def test_a_vector_is_there_from_rank_1_on_and_linear_layers_can_be_cut_alone(full):
    one = full[1]
    bias = next(part for part in one.parts if part.name.endswith("layer.0.output.dense.bias"))
    assert torch.equal(bias.at(0), bias.before)
    assert torch.equal(bias.at(1), bias.after)
    dense = one.dense()
    assert len(dense.parts) == 2 * 6 + 1
    assert all(part.after.dim() == 2 for part in dense.parts)
    assert not any("embeddings" in part.name for part in dense.parts)
    assert dense.head.keys() == {"classifier.weight", "classifier.bias"}


def test_a_lora_is_cut_to_nothing_beyond_its_rank(base):
    model = copy.deepcopy(base)
    LoRA(rank=3).attach(model)
    randomise(model)
    expected = logits(model).detach()
    one = specimen("lora", base.state_dict(), plain_state(model))
    assert one.rank == 3
    assert len(one.parts) == 4
    assert torch.allclose(answers(base, one.weights(3)), expected, atol=1e-5)
    assert not torch.allclose(answers(base, one.weights(1)), expected, atol=1e-3)
    energies = [one.energy(rank) for rank in range(4)]
    assert energies == sorted(energies)


def test_chance_has_each_part_s_norm_the_rows_that_moved_and_the_head(base):
    after = copy.deepcopy(base)
    after.bert.embeddings.word_embeddings.weight.data[5:9] += 1
    after.bert.encoder.layer[0].output.dense.weight.data += 0.1
    after.classifier.weight.data += 1
    one = specimen("full", base.state_dict(), after.state_dict())
    chance = one.random(seed=1)
    for real, other in zip(one.parts, chance.parts, strict=True):
        assert (other.after - other.before).norm().item() == pytest.approx(
            (real.after - real.before).norm().item(), rel=1e-4
        )
    moved = (chance.parts[0].after - chance.parts[0].before).any(1)
    assert moved.nonzero().flatten().tolist() == [5, 6, 7, 8]
    assert chance.parts[1].rank == 32 > one.parts[1].rank == 1
    assert torch.equal(chance.head["classifier.weight"], after.classifier.weight)


def test_states_of_different_models_are_no_specimen(base):
    with pytest.raises(BadValue, match="different models"):
        specimen("x", base.state_dict(), tiny("gpt2").state_dict())
    with pytest.raises(BadValue, match="0 or more"):
        specimen("x", base.state_dict(), base.state_dict()).weights(-1)


@pytest.fixture(scope="module")
def scope(tiny_encoder, opinions, tmp_path_factory):
    """A microscope over a full run and a LoRA that were trained for a moment, and their runs."""
    store = Store(tmp_path_factory.mktemp("store"))
    plain = {"steps": 6, "batch": 8, "validations": 0, "dtype": "fp32", "attention": "eager", "device": "cpu"}
    runs = [
        train(tiny_encoder, opinions, method, lr=lr, store=store, **plain)
        for method, lr in ((FullFineTuning(), 1e-2), (LoRA(rank=2), 5e-2))
    ]
    full, lora = (
        specimen_of(name, run.adapter, opinions, tiny_encoder) for name, run in zip(("full", "lora"), runs, strict=True)
    )
    return Microscope([full, lora, full.random()], opinions, tiny_encoder, count=7, ranks=(0, 1, 4)), runs


def test_a_look_between_the_ranks_is_none_of_those_to_come(scope):
    """A slider that serves a LoRA of rank 3 stands at 3 for full fine-tuning, too."""
    views = Views(scope[0].views.sentences, {"full": (0, 1, 4, 32)})
    for rank in (3, 0, 1, 4):
        views.seen.setdefault("full", {})[rank] = Seen(rank, 0.5, views.sentences.labels)
    assert views.left == 1
    views.seen["full"][32] = Seen(32, 1.0, views.sentences.labels)
    assert views.left == 0


def test_the_microscope_looks_once_and_keeps_what_it_saw(scope):
    microscope, _ = scope
    views = microscope.views
    assert views.ranks["lora"] == (0, 1, 2)
    assert len(views.sentences.texts) == 7
    for _ in microscope.all():
        pass
    assert views.left == 0
    found = views.at("lora", 1)
    assert microscope.look("lora", 1) is found
    assert views.at("lora", 99) is views.whole("lora")
    assert views.flipped("full", 32) == []
    ranks, accuracies, energies = views.curve("full")
    assert ranks == [0, 1, 4, 32]
    assert energies[0] == 0
    assert energies[-1] == pytest.approx(1)
    assert all(0 <= value <= 1 for value in accuracies)
    with pytest.raises(NotFound, match="lora"):
        views.at("lorra", 1)


def test_the_untruncated_model_answers_as_the_run_does(scope, opinions):
    from lora_lab.training.batches import encode
    from lora_lab.training.evaluate import evaluate
    from lora_lab.training.train import open_adapter

    microscope, runs = scope
    for name, run in zip(("full", "lora"), runs, strict=True):
        opened = open_adapter(run.adapter, opinions, model=run.recipe.model, dtype="fp32")
        rows = encode(opened.task.validation, opened.task, opened.tokenizer)
        said = evaluate(opened.model, rows, int(opened.tokenizer.pad_token_id)).predictions
        asked = list(microscope.views.sentences.places)
        assert (microscope.look(name, 99).answers == said[asked]).all()


def test_views_survive_a_file(scope, opinions, tmp_path):
    microscope, _ = scope
    microscope.look("full", 1)
    write_json(tmp_path / "views.json", microscope.views.to_json())
    again = views_from(read_json(tmp_path / "views.json"), opinions)
    assert again.sentences.texts == microscope.views.sentences.texts
    assert (again.at("full", 1).answers == microscope.views.at("full", 1).answers).all()
    with pytest.raises(BadValue, match="no views"):
        views_from({"places": []}, opinions)


def test_no_specimen_is_no_microscope(opinions, tiny_encoder):
    with pytest.raises(BadValue, match="at least one"):
        Microscope([], opinions, tiny_encoder)
    with pytest.raises(BadValue, match="no classes"):
        Microscope([specimen("x", {}, {})], "kjv", tiny_encoder)
