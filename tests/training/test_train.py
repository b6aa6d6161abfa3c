"""From a recipe to a kept run, on a tiny model and a tiny task."""

import json
import sys
import threading
from pathlib import Path

import pytest

from lora_lab import LoRA, PromptTuning, Store, evaluate_adapter, train
from lora_lab.errors import BadValue, Failed, LabError, OutOfMemory
from lora_lab.methods.io import CONFIG, WEIGHTS
from tests.conftest import PLAIN


def test_a_run_trains_scores_and_keeps_record_adapter_and_predictions(recipe, tmp_path, opinions):
    wanted = recipe(steps=5)
    run = train(wanted, store=tmp_path)
    assert run.status == "done"
    assert run.history["step"] == [1, 2, 3, 4, 5]
    assert run.metrics.keys() == {"accuracy", "macro_f1", "loss"}
    assert run.adapter_parameters == 2 * 2 * 8 * (32 + 32)  # two layers, q and v, rank 8
    assert run.head_parameters == 2 * 32 + 2
    assert run.seconds > 0
    assert run.peak_bytes > 2**20
    assert sorted(p.name for p in Path(run.adapter).iterdir()) == [CONFIG, WEIGHTS, "predictions.npy"]
    (kept,) = Store(tmp_path).runs()
    assert kept == run
    assert len(kept.predictions) == 16
    options = {"dtype": "fp32", "attention": "eager", "device_name": "cpu"}
    assert evaluate_adapter(run.adapter, opinions, **options) == pytest.approx(run.metrics)
    assert train(recipe(steps=5, seed=1), store=None).history["loss"] != run.history["loss"]
    json.dumps(run.to_json(), allow_nan=False)


def test_callbacks_are_called_and_a_stopped_run_is_scored_and_kept(recipe, tmp_path):
    stop, seen = threading.Event(), []

    def watch(progress) -> None:
        seen.append(progress.step)
        if progress.step == 2:
            stop.set()

    run = train(recipe(steps=50), store=tmp_path, callbacks=[watch], stop=stop)
    assert seen == [1, 2]
    assert run.status == "stopped"
    assert "accuracy" in run.metrics
    assert Store(tmp_path).runs() == [run]


def test_a_run_that_diverges_is_recorded_as_failed_with_the_reason(recipe, tmp_path):
    with pytest.raises(Failed, match="lower the rate"):
        train(recipe(lr=1e30, steps=20), store=tmp_path)
    (run,) = Store(tmp_path).runs()
    assert run.status == "failed"
    assert "lower the rate (lr was 1e+30)" in run.error
    assert (run.metrics, run.adapter) == ({}, None)
    assert 1 <= len(run.history["step"]) < 20  # what there was before it failed


def test_a_recipe_that_cannot_be_is_refused_before_anything_is_written(recipe, tmp_path):
    for changes, sentence in (
        ({"task": "kjv"}, "kjv is language modeling: it needs a causal model"),
        ({"method": LoRA(rank=33)}, "rank 33 is above"),
        ({"max_length": 128, "method": PromptTuning(tokens=4)}, "exceeds the 124 tokens that this model can read"),
        ({"label_column": "stars"}, "no column 'stars'"),
        ({"device": "tpu"}, "device must be"),
    ):
        with pytest.raises(LabError, match=sentence):
            train(recipe(**changes), store=tmp_path / "runs")
        assert not (tmp_path / "runs").exists()


def test_a_store_that_cannot_be_written_is_refused_before_training(recipe, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadValue, match="cannot write into"):
        train(recipe(), store=tmp_path / "file", callbacks=[lambda progress: pytest.fail("it trained")])


def test_either_a_recipe_or_its_parts_are_given_and_a_task_is_among_them(recipe, tiny_encoder, opinions):
    parts = {"steps": 4, "batch": 8, "validations": 2, **PLAIN}
    assert train(tiny_encoder, opinions, LoRA(rank=2), store=None, **parts).recipe == recipe(method=LoRA(rank=2))
    with pytest.raises(BadValue, match="name a task"):
        train("minilm", None, LoRA())
    with pytest.raises(BadValue, match="either a Recipe or its fields"):
        train(recipe(), steps=5)


def test_an_adapter_that_names_no_base_asks_for_one(recipe, tmp_path, opinions):
    run = train(recipe(), store=tmp_path)
    config = Path(run.adapter) / CONFIG
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(BadValue, match="does not name its base model; pass one with --model"):
        evaluate_adapter(run.adapter, opinions)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_kernel_survives_when_memory_runs_out_and_learns_which_batch_to_try(recipe, tmp_path, monkeypatch):
    import resource

    monkeypatch.setenv("LORA_LAB_NO_MEMORY_CHECK", "1")
    rows = [f"{'a long and ' * 40}{word} film {n},{word}" for n in range(2000) for word in ("good", "bad")]
    (tmp_path / "films.csv").write_text("\n".join(["text,label", *rows]))
    films = recipe(task=str(tmp_path / "films.csv"), steps=1, validations=0, batch=2000)
    own, most = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    try:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28, most))
        with pytest.raises(OutOfMemory, match=r"with batch 2000: try batch \d+,") as caught:
            train(films, store=tmp_path / "runs")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (own, most))
    (kept,) = Store(tmp_path / "runs").runs()
    assert (kept.status, kept.error) == ("failed", str(caught.value))
    assert train(recipe(), store=None).status == "done"
