"""Trainings of several threads: each comes out as it does alone, and nobody waits for ever."""

import threading

import pytest
import torch

from lora_lab import LoRA, Recipe, train
from lora_lab.errors import Failed
from lora_lab.training.pack import Pack
from lora_lab.training.watching import training_lock, waits


@pytest.fixture
def drawing(recipe) -> Recipe:
    """A run that draws random numbers in every step."""
    return recipe(method=LoRA(4, dropout=0.3))


def in_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_two_that_train_at_once_are_as_one_alone_whatever_is_drawn_in_between(drawing: Recipe):
    alone, found = train(drawing, store=None), []
    threads = [in_thread(lambda: found.append(train(drawing, store=None))) for _ in range(2)]
    for thread in threads:
        thread.join(60)
    assert [run.history for run in found] == [alone.history] * 2
    assert [run.metrics for run in found] == [alone.metrics] * 2
    pack = Pack([drawing])
    torch.manual_seed(9)
    (run,) = pack.run()
    assert run.history == alone.history


def test_a_run_that_raises_ends_its_turn_and_a_training_within_a_training_does_not_wait_for_itself(recipe):
    def fail(_: object) -> None:
        raise RuntimeError("a callback's own fault")

    with pytest.raises(RuntimeError, match="own fault"):
        train(recipe(), store=None, callbacks=[fail])
    inner = []
    within = [lambda _: inner.append(train(recipe(seed=1, steps=1), store=None))]
    in_thread(lambda: train(recipe(steps=2), store=None, callbacks=within)).join(60)
    assert [run.status for run in inner] == ["done"] * 2


def test_a_stop_while_it_waits_ends_it(drawing: Recipe):
    stop, said = threading.Event(), []

    def waiting() -> None:
        with pytest.raises(Failed, match="while waiting"):
            train(drawing, store=None, stop=stop)
        said.append("over")

    with training_lock() as mine:
        assert mine
        thread = in_thread(waiting)
        while not waits(thread):
            assert thread.is_alive()
        stop.set()
        thread.join(60)
    assert said == ["over"]
    assert not waits(thread)
