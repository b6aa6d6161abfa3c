import copy
import json
import math
import shutil
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lora_course.experiments.broken import checkpointing
from lora_lab import FullFineTuning, HeadOnly, LoRA, Probe, PromptTuning, Recipe, Store, evaluate_adapter, sweep, train
from lora_lab.errors import BadValue, Failed, LabError, LabWarning, OutOfMemory
from lora_lab.experiments.tuning import AXES
from lora_lab.methods.io import CONFIG, WEIGHTS
from lora_lab.training.batches import collate, training_rows
from lora_lab.training.early_warnings import USUAL, USUAL_FEW, gradient_warning, rate_warning
from lora_lab.training.pack import Pack
from lora_lab.training.watching import training_lock, waits
from tests.conftest import PLAIN, assert_raises, logits, lora_layers, make_model, tiny, until


def test_run_equals_a_plain_loop_with_torchs_adamw(recipe):
    wanted = recipe(steps=6, lr=1e-2, weight_decay=5.0, clip=0.0, validations=0)
    pack = Pack([wanted])
    model, losses = copy.deepcopy(pack.model), []
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=5.0)
    for step, rows in enumerate(training_rows(pack.draws[0], 8, 6, seed=0), 1):
        batch = collate(rows, pack.pad)
        loss = model(**batch.inputs(model), labels=batch.labels).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = wanted.lr_at(step)
        optimizer.step()
    assert pack.run()[0].history["loss"] == pytest.approx(losses, rel=1e-5)


def test_run_is_recorded_with_adapter_and_predictions(recipe, tmp_path, opinions, voices):
    progress = []
    run = train(recipe(steps=5), store=tmp_path, callbacks=[progress.append])
    assert run.status == "done"
    assert run.history["step"] == [p.step for p in progress] == [1, 2, 3, 4, 5]
    assert run.history["lr"] == [p.lr for p in progress] == [run.recipe.lr_at(step) for step in range(1, 6)]
    assert run.history["loss"] == [p.loss for p in progress]
    assert run.history["validation"][1:] == [{"step": p.step, **p.validation} for p in progress if p.validation]
    assert [v["step"] for v in run.history["validation"]] == [0, 3, 5]
    assert run.metrics.keys() == {"accuracy", "macro_f1", "loss"}
    assert run.adapter_parameters == 2 * 2 * 8 * (32 + 32)  # two layers, q and v, rank 8
    assert run.head_parameters == run.trainable - run.adapter_parameters == 2 * 32 + 2
    assert run.peak_bytes > 2**20
    assert sorted(p.name for p in Path(run.adapter).iterdir()) == [CONFIG, WEIGHTS, "predictions.npy"]
    (stored,) = Store(tmp_path).runs()
    assert stored == run
    assert (len(stored.predictions), stored.predictions.tolist()) == (16, run.predictions.tolist())
    options = {"dtype": "fp32", "attention": "eager", "device": "cpu"}
    assert evaluate_adapter(run.adapter, opinions, **options) == pytest.approx(run.metrics)
    assert train(recipe(steps=5, seed=1), store=None).history["loss"] != run.history["loss"]
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(Path(opinions).read_text().replace(",good", ",alright"))  # sorts before "bad"
    with pytest.raises(BadValue, match=r"was trained on the classes bad, good, not alright, bad: pass a task"):
        evaluate_adapter(run.adapter, str(renamed), **options)
    with pytest.raises(BadValue, match="is for a language model: pass prompts or text instead of"):
        evaluate_adapter(voices["captain"], opinions, **options)
    config = Path(run.adapter) / CONFIG
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}))
    assert_raises("does not name its base model; pass the base with --model", evaluate_adapter, run.adapter, opinions)


def test_adapter_is_scored_as_in_its_run(recipe, opinions, tmp_path, monkeypatch, lora_lab):
    monkeypatch.setenv("LORA_LAB_DTYPE", "bf16")  # what "auto" chooses
    own, options = tmp_path / "own.csv", {"text_column": "words", "label_column": "class", "max_length": 6}
    own.write_text(Path(opinions).read_text().replace("text,label", "words,class"))
    run = train(recipe(task=str(own), method=FullFineTuning(), lr=1e-4, dtype="auto", **options), store=tmp_path)
    metrics = pytest.approx(run.metrics, rel=1e-5)
    done = lora_lab("evaluate", run.adapter, "--attention", "eager", "--json")
    assert json.loads(done.stdout) == {"task": str(own), "metrics": metrics}
    assert evaluate_adapter(run.adapter, own, attention="eager") == metrics  # with the run's columns and length
    own.write_text(own.read_text().replace("rain", "snow"))
    with pytest.warns(LabWarning, match=r"own\.csv has changed .* may include rows that it was trained on"):
        evaluate_adapter(run.adapter, attention="eager")
    own.write_text(Path(opinions).read_text().replace("text,label", "words,class"))
    (tmp_path / f"{run.recipe.hash}.json").unlink()
    assert evaluate_adapter(run.adapter, own, attention="eager", **options) == metrics
    with pytest.raises(BadValue, match="a base trained in fp32, which bf16 would round: pass dtype fp32"):
        evaluate_adapter(run.adapter, str(own), dtype="bf16", **options)


def test_impossible_recipe_is_refused_before_writing(recipe, tmp_path):
    (tmp_path / "dev.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "label": 1.5}')
    for changes, message in (
        ({"task": "kjv"}, "kjv is language modeling, which needs a causal model"),
        ({"task": "kjv", "method": HeadOnly()}, "head needs a task with labels, but kjv has none: pass labels, or use"),
        ({"task": f"glue:sts-b:{tmp_path}", "method": Probe()}, "probe needs a task with classes, but glue"),
        ({"method": LoRA(rank=33)}, "rank 33 is above"),
        ({"max_length": 128, "method": PromptTuning(tokens=4)}, "exceeds the 124 tokens that this model can read"),
        ({"label_column": "stars"}, "no column 'stars'"),
        ({"device": "tpu"}, "device must be"),
    ):
        assert_raises(message, train, recipe(**changes), store=tmp_path / "runs", error=LabError)
    assert not (tmp_path / "runs").exists()


def test_train_takes_a_recipe_or_its_fields_and_a_writable_store(recipe, tiny_encoder, opinions, tmp_path):
    fields = {"steps": 4, "batch": 8, "validations": 2, **PLAIN}
    run = train(Path(tiny_encoder), Path(opinions), LoRA(rank=2), store=None, **fields)
    assert sweep(run.recipe, tmp_path / "runs").runs[0].recipe == run.recipe == recipe(method=LoRA(rank=2))
    assert_raises("name a task", train, "minilm", None, LoRA())
    assert_raises("either a Recipe or its fields", train, recipe(), steps=5)
    for callbacks in (print, [print, None]):
        with pytest.raises(BadValue, match=r"callbacks must be a list of functions, such as \[print\], not"):
            train(recipe(), callbacks=callbacks)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BadValue, match="cannot write into"):
        train(recipe(), store=tmp_path / "file", callbacks=[lambda progress: pytest.fail("it trained")])


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory with Linux's setrlimit")
def test_out_of_memory_suggests_a_batch_and_the_process_survives(recipe, tmp_path, monkeypatch):
    import resource

    monkeypatch.setenv("LORA_LAB_NO_MEMORY_CHECK", "1")
    rows = [f"{'a long and ' * 40}{word} film {n},{word}" for n in range(750) for word in ("good", "bad")]
    (tmp_path / "films.csv").write_text("\n".join(["text,label", *rows]))
    films = recipe(task=str(tmp_path / "films.csv"), steps=1, validations=0, batch=1000, max_length=128)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages, ballast = int(Path("/proc/self/statm").read_text().split()[0]), list[torch.Tensor]()
    try:
        limit = pages * resource.getpagesize() + 2**28
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        with pytest.raises(RuntimeError, match="allocate"):  # use up what earlier tests have freed
            ballast.extend(torch.empty(2**23) for _ in range(10_000))
        del ballast[-4:]  # leave 128 MiB for tensors, and as much for other things, such as mapped files
        resource.setrlimit(resource.RLIMIT_AS, (limit + 2**27, hard))
        with pytest.raises(OutOfMemory, match=r"with batch 1000: try batch 500,") as error:
            train(films, store=tmp_path / "runs")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert [(run.status, run.error) for run in Store(tmp_path / "runs").runs()] == [("failed", str(error.value))]
    assert train(recipe(), store=None).status == "done"


def test_concurrent_runs_give_the_same_result_as_one(recipe):
    dropout = recipe(method=LoRA(4, dropout=0.3))  # draws random numbers in every step
    expected, pack = train(dropout, store=None), Pack([dropout])
    with ThreadPoolExecutor(2) as executor:
        runs = list(executor.map(lambda _: train(dropout, store=None), range(2), timeout=60))
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
    with ThreadPoolExecutor(1) as executor:
        executor.submit(train, recipe(steps=2), store=None, callbacks=callbacks).result(60)
    assert [run.status for run in inner] == ["done"] * 2


def test_stop_ends_a_waiting_run(recipe):
    stop = threading.Event()
    with ThreadPoolExecutor(1) as executor, training_lock():
        waiting = executor.submit(train, recipe(), store=None, stop=stop)
        until(lambda: any(map(waits, threading.enumerate())))
        stop.set()
        assert_raises("while waiting", waiting.result, 60, error=Failed)
        assert not any(map(waits, threading.enumerate()))


@pytest.mark.filterwarnings("ignore")
def test_layers_without_a_gradient_are_named():
    blocked, unused = tiny("roberta").train(), make_model("BertModel").train()
    LoRA(rank=2).attach(blocked)
    checkpointing(blocked, reentrant=True)
    logits(blocked).square().mean().backward()
    assert all(layer.lora_B.grad is None for layer in lora_layers(blocked))
    LoRA(rank=2, targets=("q", "pooler.dense")).attach(unused)
    unused(input_ids=torch.ones(1, 4, dtype=torch.long)).last_hidden_state.square().sum().backward()
    for model, layers, remedy in (
        (blocked, "4 adapters", "use_reentrant=False"),
        (unused, "1 adapter (pooler.dense)", "leave these layers out"),
    ):
        message = gradient_warning(model)
        assert f"no gradient reached {layers}" in message
        assert remedy in message
    embedding = LoRA(rank=2, targets=("embed", "all-linear"))
    for kind, method in (("roberta", LoRA(2, freeze_a=True)), ("llama", embedding), ("llama", PromptTuning(tokens=3))):
        model = tiny(kind)
        method.attach(model)  # B is 0 at first, so A's gradient is 0, which is no reason to warn
        logits(model).square().mean().backward()
        assert gradient_warning(model) is None


def test_unusual_rate_is_named_and_its_warning_recorded(recipe, tmp_path):
    for method, lr, expected in ((LoRA(), 0.5, "above"), (LoRA(), 1e-7, "below"), (FullFineTuning(), 2e-2, "above")):
        assert f"far {expected}" in rate_warning(Recipe("minilm", "rt", method, lr=lr))
    for name, axis in AXES.items():  # tuning tries only usual rates
        if axis.name == "lr":
            low, high = USUAL.get(name, USUAL_FEW)
            assert low <= axis.grid(4)[0]
            assert axis.grid(4)[-1] <= high
    with pytest.warns(LabWarning, match="far above"):
        run = train(recipe(lr=0.5, steps=2), store=tmp_path)
    assert len(run.warnings) == 1
    assert "far above" in run.warnings[0]
    assert Store(tmp_path).runs()[0].warnings == run.warnings
    with warnings.catch_warnings(action="error", category=LabWarning):
        assert train(recipe(lr=2e-3, steps=2), store=None).warnings == []


def trained(recipe: Recipe, **attributes) -> Pack:
    """Train a pack of one run with other attributes, such as `validate`, and return the pack."""
    pack = Pack([recipe])
    vars(pack).update(attributes)
    pack.fit()
    return pack


def test_gradients_are_clipped(recipe):
    norms = []

    def measure(optimizer, *_):
        gradients = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.cat(gradients).norm().item())

    hook = register_optimizer_step_pre_hook(measure)
    try:
        trained(recipe(clip=0.05))
        trained(recipe(clip=0.0))
    finally:
        hook.remove()
    assert len(norms) == 8
    assert max(norms[:4]) <= 0.0501 < max(norms[4:])


@pytest.mark.parametrize("base_dropout", [False, True])
def test_dropout_is_active_in_adapters_and_optional_in_the_base(recipe, base_dropout):
    pack, modes = Pack([recipe(method=LoRA(rank=2, dropout=0.1), dropout=base_dropout, steps=2, validations=0)]), {}
    parts = {
        "base": pack.model.bert.embeddings.dropout,
        "adapter": lora_layers(pack.model)[0].dropout,
        "head": pack.model.classifier.trained,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda module, *_, name=name: modes.update({name: module.training}))
    pack.fit()
    assert modes == {"base": base_dropout, "adapter": True, "head": True}
    assert not any(module.training for module in pack.model.modules())


def test_patience_counts_validations_without_improvement(recipe):
    for patience, metrics, last in (
        (0, [0.5] * 6, 6),
        (1, [0.5, 0.5, 0.9, 0.9, 0.9, 0.9], 2),
        (2, [0.5, 0.5, 0.6, 0.4, 0.6, 0.9], 5),
    ):
        values = iter({"accuracy": value} for value in (0.9, *metrics))  # the untrained model's score doesn't count
        pack = trained(recipe(steps=6, patience=patience, validations=6), validate=lambda v=values: [next(v)])
        (member,) = pack.members
        assert member.history["step"][-1] == last
        assert member.status == ("early" if last < 6 else "done")


@pytest.mark.parametrize("validations", [0, 1])
def test_nan_in_the_base_is_not_blamed_on_the_rate(recipe, tiny_encoder, tmp_path, validations):
    model = shutil.copytree(tiny_encoder, tmp_path / "model") / "model.safetensors"
    save_file({name: tensor * math.nan for name, tensor in load_file(model).items()}, model, {"format": "pt"})
    with pytest.raises(Failed, match="loss is nan before the first update: check the model's weights, or train with"):
        train(recipe(model=str(model.parent), validations=validations), store=tmp_path / "runs")
    (run,) = Store(tmp_path / "runs").runs()
    assert (run.status, run.history["validation"]) == ("failed", [])


def test_nan_validation_loss_fails_the_run(recipe):
    values = iter({"accuracy": 0.5, "loss": loss} for loss in (0.7, math.nan))  # the last update ruined the weights
    (member,) = trained(recipe(steps=1), validate=lambda: [next(values)]).members
    assert "validation loss became nan at step 1: lower the rate" in member.error
