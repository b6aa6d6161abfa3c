import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lora_course.experiments import subspace
from lora_course.experiments.rates import best_rate, times
from lora_course.experiments.reward import Rewarded, halves_found, reinforce
from lora_course.experiments.styles import misfit
from lora_course.experiments.subspace import Update, above_chance, amplification, directions, phi
from lora_lab import LoRA, load_model
from lora_lab.training.pack import Pack
from tests.conftest import lora_layers, randomise, tiny

RNG = np.random.default_rng(7)
VALID = {"topic": "sky", "answer": "Blue.", "steps": ["look up"], "certainty": "high"}
VALUES = st.sampled_from(["x", "", None, 3, [], [""], ["x"], [3], "high", "low", "sure"])


@given(st.dictionaries(st.sampled_from([*VALID, "more"]), VALUES))
def test_misfit_accepts_only_the_schema(changes):
    value = VALID | changes
    valid = (
        set(value) == set(VALID)
        and all(isinstance(value[key], str) and value[key] for key in ("topic", "answer"))
        and isinstance(value["steps"], list)
        and all(isinstance(step, str) and step for step in value["steps"])
        and value["certainty"] in ("high", "medium", "low")
    )
    assert (misfit(json.dumps(value)) == "") == valid
    assert "not JSON" in misfit("[" * 10**5)  # nested too deeply for the parser


def test_phi_matches_its_definition():
    a1, a2 = RNG.standard_normal((4, 20)), RNG.standard_normal((9, 20))
    for i, j in ((2, 5), (4, 3)):
        u1, u2 = np.linalg.svd(a1)[2].T[:, :i], np.linalg.svd(a2)[2].T[:, :j]
        cosines, p = np.linalg.svd(u1.T @ u2, compute_uv=False), min(i, j)
        actual = phi(directions(a1)[:, :i], directions(a2)[:, :j])
        assert actual == pytest.approx(1 - (p - (cosines**2).sum()) / p)  # 1 - D^2 / p; the paper prints (1 - D^2) / p


def test_chance_level_is_the_larger_rank_over_d():
    d, k1, k2 = 12, 3, 5
    fixed = subspace.random_directions(d, k2, seed=1)  # only one of the two needs to be random
    drawn = [subspace.random_directions(d, k1, seed) for seed in range(100, 4100)]
    for i, j in ((1, 1), (1, k2), (k1, 1), (k1, k2)):
        assert abs(np.mean([above_chance(basis[:, :i], fixed[:, :j]) for basis in drawn])) < 0.01
    basis = subspace.random_directions(384, 8)
    assert above_chance(basis, basis) == pytest.approx(1 - 8 / 384)


def test_amplification_matches_its_definition():
    w, b, a = (RNG.standard_normal(shape) for shape in ((9, 14), (9, 2), (2, 14)))
    u, s, vt = np.linalg.svd(b @ a)
    actual = amplification(Update(w, u[:, :2], s[:2], vt[:2].T, a))
    assert actual["update"] == pytest.approx(np.linalg.norm(b @ a))
    assert actual["in_update"] == pytest.approx(np.linalg.norm(u[:, :2].T @ w @ vt[:2].T))
    assert actual["factor"] == pytest.approx(actual["update"] / actual["in_update"])
    u, _, vt = np.linalg.svd(w)
    assert actual["in_weight"] == pytest.approx(np.linalg.norm(u[:, :2].T @ w @ vt[:2].T))
    random = [(subspace.random_directions(9, 2, n), subspace.random_directions(14, 2, n + 9999)) for n in range(3000)]
    mean_square = np.mean([np.linalg.norm(left.T @ w @ right) ** 2 for left, right in random])
    assert actual["in_random"] == pytest.approx(np.sqrt(mean_square), rel=0.03)


@pytest.mark.parametrize(("family", "names"), [("bert", ("query", "value")), ("gpt2", ("c_attn[q]", "c_attn[v]"))])
def test_updates_match_their_layers(family, names):
    model = tiny(family)
    LoRA(rank=3, targets=("q", "v")).attach(model)
    randomise(model)
    updates = subspace.updates_in(model)
    assert len(updates) == 4
    for (name, update), layer in zip(updates.items(), lora_layers(model), strict=True):
        assert name.endswith(names)
        assert np.allclose((update.left * update.values) @ update.right.T, layer.delta_weight().detach(), atol=1e-5)
        assert np.allclose(update.weight, layer.frozen_weight().detach())
        assert (update.a.shape, len(update.values)) == ((3, 32), 3)


@given(st.floats(-0.49, 0.49), st.floats(0.01, 10), st.floats(-5, 5), st.floats(0.9, 1.1), st.floats(0.9, 1.1))
def test_best_rate_is_the_vertex_of_a_parabola(vertex, steepness, height, down, up):
    losses = {2**x: height + steepness * (x - vertex) ** 2 for x in (-down, 0, up)}
    assume(min(losses, key=losses.__getitem__) == 1)
    assert best_rate(losses) == pytest.approx(vertex, abs=1e-6)


def test_best_rate_of_rounded_rates_and_at_an_end():
    rates = [4.4e-5, 8.8e-5, 1.8e-4, 3.5e-4, 7.1e-4, 1.4e-3]  # as docs/rates.py rounds them
    vertex = math.log2(rates[2]) + 0.3
    assert best_rate({r: (math.log2(r) - vertex) ** 2 for r in rates}) == pytest.approx(vertex)
    assert all(math.isnan(best_rate({r: sign * r for r in rates})) for sign in (1, -1))
    assert times([-9.0, -8.5], [-9.0, -8.5]) == (1, 1, 1)


def test_expected_gradient_is_that_of_the_probability_of_being_right():
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    p, rewards = logits.softmax(-1), torch.tensor([0.0, 0.0, 1.0])
    (expected,) = torch.autograd.grad(p[2], logits, retain_graph=True)
    batches = [list(batch) for batch in product(range(3), repeat=2)]  # every pair of sampled labels
    loss = sum(p[batch].detach().prod() * reinforce(p[batch].log(), rewards[batch]) for batch in batches)
    (actual,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(actual, -expected / 2, atol=1e-6)  # a mean of n rewards as baseline scales it by 1 - 1 / n
    assert float(reinforce(p.detach().log(), torch.ones(3))) == 0


@pytest.mark.filterwarnings("ignore:lr 1e")
def test_training_learns_from_rewards_alone_and_packing_changes_nothing(recipe):
    recipes = [recipe(method=LoRA(rank=2), lr=2e-2, steps=80, validations=0, seed=seed) for seed in (0, 1)]
    diverging = replace(recipes[0], lr=1e20, clip=0.0)
    pack, alone = Rewarded([*recipes, diverging]), Rewarded(recipes[1:])
    (failed, *packed), (run,) = sorted(pack.run(), key=lambda run: -run.recipe.lr), alone.run()
    assert failed.status == "failed"
    assert [run.metrics["accuracy"] for run in packed] == [1.0, 1.0]
    assert run.history["loss"] == pytest.approx(packed[1].history["loss"], abs=1e-3)
    assert (rewards := alone.rewards[recipes[1]]) == pack.rewards[recipes[1]]
    assert len(rewards) == 80
    assert sum(rewards[-10:]) > sum(rewards[:10])
    assert Pack([replace(recipes[1], steps=2)]).run()[0].history["loss"][0] != run.history["loss"][0]  # from labels


def test_untrained_model_finds_halves_of_passages():
    assert halves_found(load_model("minilm", 2), passages=16) > 0.3
