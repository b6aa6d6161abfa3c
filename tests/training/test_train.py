"""Tests of training runs: records, refusals, running out of memory, and several threads."""

import json
import sys
import threading
from pathlib import Path

import pytest
import torch

from lora_lab import LoRA, PromptTuning, Store, evaluate_adapter, train
from lora_lab.errors import BadValue, Failed, LabError, OutOfMemory
from lora_lab.methods.io import CONFIG, WEIGHTS
from lora_lab.training.loop import Progress
from lora_lab.training.pack import Pack
from lora_lab.training.watching import training_lock, waits
from tests.conftest import PLAIN


def test_run_is_recorded_with_adapter_and_predictions(recipe, tmp_path, opinions):
    progress: list[Progress] = []
    run = train(recipe(steps=5), store=tmp_path, callbacks=[progress.append])
    assert run.status == "done"
    assert run.history["step"] == [p.step for p in progress] == [1, 2, 3, 4, 5]
    assert run.history["lr"] == [p.lr for p in progress] == [run.recipe.lr_at(step) for step in range(1, 6)]
    assert run.history["loss"] == [p.loss for p in progress]
    validations = [{"step": p.step, **p.validation} for p in progress if p.validation]
    assert run.history["validation"][1:] == validations
    assert [v["step"] for v in run.history["validation"]] == [0, 3, 5]
    assert run.metrics.keys() == {"accuracy", "macro_f1", "loss"}
    assert run.adapter_parameters == 2 * 2 * 8 * (32 + 32)  # two layers, q and v, rank 8
    assert run.head_parameters == run.trainable - run.adapter_parameters == 2 * 32 + 2
    assert run.peak_bytes > 2**20
    assert sorted(p.name for p in Path(run.adapter).iterdir()) == [CONFIG, WEIGHTS, "predictions.npy"]
    (stored,) = Store(tmp_path).runs()
    assert stored == run
    assert stored.predictions.tolist() == run.predictions.tolist()
    assert len(stored.predictions) == 16
    options = {"dtype": "fp32", "attention": "eager", "device_name": "cpu"}
    assert evaluate_adapter(run.adapter, opinions, **options) == pytest.approx(run.metrics)
    assert train(recipe(steps=5, seed=1), store=None).history["loss"] != run.history["loss"]
    config = Path(run.adapter) / CONFIG
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(BadValue, match="does not name its base model; pass the base with --model"):
        evaluate_adapter(run.adapter, opinions)


def test_stopped_run_is_scored_and_recorded(recipe, tmp_path):
    stop, steps = threading.Event(), []

    def stop_at_2(progress) -> None:
        steps.append(progress.step)
        if progress.step == 2:
            stop.set()

    run = train(recipe(steps=50), store=tmp_path, callbacks=[stop_at_2], stop=stop)
    assert steps == [1, 2]
    assert run.status == "stopped"
    assert "accuracy" in run.metrics
    assert Store(tmp_path).runs() == [run]


def test_diverged_run_is_recorded_as_failed(recipe, tmp_path):
    with pytest.raises(Failed, match=r"the loss became \w+ at step \d+: lower the rate \(lr was 1e\+30\)") as error:
        train(recipe(lr=1e30, steps=20), store=tmp_path)
    (run,) = Store(tmp_path).runs()
    assert (run.status, run.error, run.metrics, run.adapter) == ("failed", str(error.value), {}, None)
    assert 1 <= len(run.history["step"]) < 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "kjv"}, "kjv is language modeling: it needs a causal model"),
        ({"method": LoRA(rank=33)}, "rank 33 is above"),
        ({"max_length": 128, "method": PromptTuning(tokens=4)}, "exceeds the 124 tokens that this model can read"),
        ({"label_column": "stars"}, "no column 'stars'"),
        ({"device": "tpu"}, "device must be"),
    ],
)
def test_impossible_recipe_is_refused_before_writing(recipe, tmp_path, changes, message):
    with pytest.raises(LabError, match=message):
        train(recipe(**changes), store=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_unwritable_store_is_refused_before_training(recipe, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BadValue, match="cannot write into"):
        train(recipe(), store=tmp_path / "file", callbacks=[lambda progress: pytest.fail("it trained")])


def test_train_takes_a_recipe_or_its_fields(recipe, tiny_encoder, opinions):
    fields = {"steps": 4, "batch": 8, "validations": 2, **PLAIN}
    assert train(tiny_encoder, opinions, LoRA(rank=2), store=None, **fields).recipe == recipe(method=LoRA(rank=2))
    with pytest.raises(BadValue, match="name a task"):
        train("minilm", None, LoRA())
    with pytest.raises(BadValue, match="either a Recipe or its fields"):
        train(recipe(), steps=5)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory with Linux's setrlimit")
def test_out_of_memory_suggests_a_batch_and_the_process_survives(recipe, tmp_path, monkeypatch):
    import resource

    monkeypatch.setenv("LORA_LAB_NO_MEMORY_CHECK", "1")
    rows = [f"{'a long and ' * 40}{word} film {n},{word}" for n in range(750) for word in ("good", "bad")]
    (tmp_path / "films.csv").write_text("\n".join(["text,label", *rows]))
    films = recipe(task=str(tmp_path / "films.csv"), steps=1, validations=0, batch=1000, max_length=128)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    try:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28, hard))
        with pytest.raises(OutOfMemory, match=r"with batch 1000: try batch \d+,") as error:
            train(films, store=tmp_path / "runs")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    (run,) = Store(tmp_path / "runs").runs()
    assert (run.status, run.error) == ("failed", str(error.value))
    assert train(recipe(), store=None).status == "done"


# ---- several threads: they train one at a time


def in_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_concurrent_runs_give_the_same_result_as_one(recipe):
    dropout = recipe(method=LoRA(4, dropout=0.3))  # draws random numbers in every step
    expected, runs = train(dropout, store=None), []
    threads = [in_thread(lambda: runs.append(train(dropout, store=None))) for _ in range(2)]
    for thread in threads:
        thread.join(60)
    pack = Pack([dropout])
    torch.manual_seed(9)
    runs += pack.run()
    assert [run.history for run in runs] == [expected.history] * 3
    assert [run.metrics for run in runs] == [expected.metrics] * 3


def test_lock_is_released_after_an_error_and_reentrant(recipe):
    def fail(_: object) -> None:
        raise RuntimeError("error in a callback")

    with pytest.raises(RuntimeError, match="error in a callback"):
        train(recipe(), store=None, callbacks=[fail])
    inner = []
    callbacks = [lambda _: inner.append(train(recipe(seed=1, steps=1), store=None))]
    in_thread(lambda: train(recipe(steps=2), store=None, callbacks=callbacks)).join(60)
    assert [run.status for run in inner] == ["done"] * 2


def test_stop_ends_a_waiting_run(recipe):
    stop, errors = threading.Event(), []

    def wait_for_turn() -> None:
        try:
            train(recipe(), store=None, stop=stop)
        except Failed as error:
            errors.append(str(error))

    with training_lock():
        thread = in_thread(wait_for_turn)
        while not waits(thread):
            assert thread.is_alive()
        stop.set()
        thread.join(60)
    assert len(errors) == 1
    assert "while waiting" in errors[0]
    assert not waits(thread)
