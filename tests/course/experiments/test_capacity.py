"""Rank shows where a task needs rank: the knee is at the teacher's, and labels by lot take room to store."""

from __future__ import annotations

import math

import pytest
import torch

from lora_course.experiments.capacity import HELD_OUT, coin_flips, memorise, recover, student, teacher
from lora_lab import BadValue
from lora_lab.training.tasks import load_task
from lora_lab.widgets.matrices import weight


@pytest.fixture(scope="module")
def of():
    """A teacher of rank 4."""
    return teacher(4)


def test_a_teacher_has_the_rank_and_the_length_that_were_asked_for(of):
    singular = of.singular_values
    assert torch.allclose(singular[:4], singular[0], rtol=1e-4)
    assert singular[4] < 1e-5 * singular[0]
    assert math.isclose(of.update.norm(), 0.5 * of.weight.norm(), rel_tol=1e-4)
    assert torch.equal(of.weight, torch.tensor(weight(0, "q")))  # the one that lesson 01 looks at
    assert torch.equal(of.update, teacher(4).update)
    assert not torch.allclose(of.update, teacher(4, seed=1).update)


@pytest.mark.parametrize(("rank", "best"), [(0, 1.0), (1, 0.75**0.5), (3, 0.5), (4, 0.0), (9, 0.0)])
def test_the_least_error_is_the_tail_of_the_singular_values(of, rank: int, best: float):
    assert math.isclose(of.best_error(rank), best, abs_tol=1e-4)


def test_a_student_of_the_teachers_rank_finds_the_update_and_one_below_it_what_its_rank_allows(of):
    found = recover(of, [2, 3, 4, 8]).set_index("rank")
    assert (found.error >= found.best - 1e-6).all()
    assert (found.error[[2, 3]] < found.best[[2, 3]] + 0.1).all()
    assert (found.error[[4, 8]] < 0.05).all()


def test_the_first_step_knows_only_the_product_of_alpha_and_rate(of):
    one = student(of, 8, alpha=16, lr=2e-3, steps=1)
    assert torch.allclose(one, student(of, 8, alpha=64, lr=5e-4, steps=1), rtol=1e-3, atol=1e-7)
    assert not torch.allclose(one, student(of, 8, alpha=64, lr=2e-3, steps=1), rtol=1e-3, atol=1e-7)
    assert torch.linalg.matrix_rank(one) <= 8


@pytest.mark.parametrize("rank", [0, 385])
def test_a_rank_that_cannot_be_is_refused(of, rank: int):
    with pytest.raises(BadValue, match="from 1 to 384"):
        teacher(rank)
    with pytest.raises(BadValue, match="from 1 to 384"):
        student(of, rank)


def test_coins_are_real_training_sentences_of_which_half_are_heads():
    coins = coin_flips(40, seed=1)
    train = coins[coins.split == "train"]
    assert (len(train), train.label.sum()) == (40, 20)
    assert (coins.split.value_counts()[["validation", "test"]] == HELD_OUT).all()
    assert not coins.text.duplicated().any()
    assert set(coins.text) <= set(load_task("rt").train.texts)
    assert coins.equals(coin_flips(40, seed=1))
    assert not coins.equals(coin_flips(40, seed=2))


def test_labels_are_asked_of_the_sentences_that_were_trained_on(tiny_encoder):
    learned = memorise([1, 8], n=8, model=tiny_encoder, steps=60, batch=8, lr=3e-2)
    assert learned["rank"].tolist() == [1, 8]
    assert (learned.learned == 1).all()  # eight sentences are soon known by heart; by luck one time in 256
