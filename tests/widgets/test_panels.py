import json
import random
import shutil
from itertools import combinations

import numpy as np
import pytest
from traitlets import TraitError

import lora_lab as lab
from lora_lab import BadValue, ComparePanel, LoRA, LoRAPanel, NotFound, TrainPanel, compare, memory, params, verdict
from lora_lab.accounting.film import moments
from lora_lab.accounting.memory import quick
from lora_lab.accounting.models import zoo
from lora_lab.accounting.units import binary
from lora_lab.experiments.margins import scores_in
from lora_lab.methods import REGISTRY
from lora_lab.methods.soft import PromptTuning
from lora_lab.training import assets
from lora_lab.training.models import load_model
from lora_lab.widgets.base import MIME, uncompressed
from lora_lab.widgets.lora_panel import layers_of, zoo_layers
from lora_lab.widgets.memory_panel import METHODS, SHIPPED, MemoryPanel, setup_of, shipped
from lora_lab.widgets.rank_panel import RankPanel
from lora_lab.widgets.sweep_panel import SweepPanel
from tests.conftest import PLAIN, assert_raises, said


def trained(rows: list[dict], targets: tuple[str, ...], rank: int) -> int:
    """Count as `js/lora_model.js` does."""
    return rank * sum(row["trains"].get(target, 0) for row in rows for target in targets)


def test_shipped_layers_are_current():
    assert list(zoo_layers()) == list(zoo())
    for name in zoo():
        assert zoo_layers()[name] == layers_of(name), name


@pytest.mark.parametrize("model", ["gpt2", "phi-3-mini", "mixtral-8x7b", "t5-base"])
def test_rows_add_up_to_params(model):
    rows = zoo_layers()[model]
    available = [target for target in ("q", "v", "up", "down") if any(target in row["trains"] for row in rows)]
    for targets in (("all-linear",), *combinations(available, 2)):
        count = params(model, LoRA(rank=4, targets=targets))
        assert trained(rows, targets, 4) == count.trainable, targets
        assert sum(row["numbers"] for row in rows) == count.total


def test_shape_of_a_layer_errors_and_description():
    assert LoRAPanel().shape == (4096, 4096)
    assert LoRAPanel(model="llama-3-8b", layer="v").shape == (1024, 4096)
    assert LoRAPanel(model="gpt2", layer="q+k+v").shape == (2304, 768)
    assert LoRAPanel(model="gpt2", layer="k of q+k+v").shape == (768, 768)
    assert_raises("no layer 'c_attn'; it has q, k, v", LoRAPanel, model="llama-3-8b", layer="c_attn", error=NotFound)
    assert_raises("1 to 64", LoRAPanel, d=64, rank=65)
    words = LoRAPanel(d=4096, rank=8).describe()
    assert "16,777,216 parameters, which stay frozen" in words
    assert [LoRAPanel(views=views).view for views in (["merge"], "merge")] == ["merge", "merge"]
    assert [*LoRAPanel(models="gpt2").models] == [*LoRAPanel(models=["gpt2"]).models] == ["gpt2"]
    assert LoRAPanel(views=[]).view == "size"
    assert list(LoRAPanel("model", models=[]).models) == list(zoo())
    assert "add 65,536 (0.391%), which are trained. Break-even is at rank 2,048." in words
    panel = LoRAPanel("model", model="llama-3-8b", rank=8)
    assert f"adds {params('llama-3-8b', LoRA(rank=8)).trainable:,} (0.042%)" in panel.describe()
    assert "customers" not in panel.describe()
    panel.customers = 100
    assert panel.describe().endswith("100 customers need 95.9 times less disk.")


def test_wrong_values_are_refused_in_one_sentence():
    for panel, wrong, words in (
        (LoRAPanel, {"view": "top"}, "'top'"), (LoRAPanel, {"views": ["top"]}, "'top'"),
        (LoRAPanel, {"targets": "query"}, "not 'query'"),
        *((SweepPanel, {name: value}, f"^{name} must")
          for name, value in (("rank", 0), ("alpha", float("nan")), ("lr", 0), ("seed", -1))),
        *((ComparePanel, {name: 2}, f"no field '{name}'") for name in ("margn", "minutes", "workers", "base")),
        (MemoryPanel, {"card": 5}, "cannot use"), (ComparePanel, {"reference": {"a": 1}}, "cannot use"),
        (RankPanel, {"source": np.eye(3), "corner": 0}, "cannot use"), (TrainPanel, {"ranks": 3}, "cannot use"),
    ):  # fmt: skip
        assert_raises(words, panel, **wrong)
    for made, name, wrong in (
        (LoRAPanel(), "model", "zz"), (LoRAPanel(), "views", []), (SweepPanel(into="none"), "lr", -1.0),
        *((SweepPanel(into="none"), "picked", wrong) for wrong in ([[8]], "abc", [["a", 1, 2]], [[np.inf, 1, 2]])),
    ):  # fmt: skip
        before = made.snapshot()
        with pytest.raises((BadValue, TraitError)):
            setattr(made, name, wrong)
        assert made.snapshot() == before


def test_numpy_numbers_are_numbers():
    panel = TrainPanel(lr=np.float32(0.5), steps=np.int64(3), guess=np.float32(80), store="none")
    assert (panel.lr, panel.steps, panel.guess) == (0.5, 3, 80)
    assert ComparePanel(seeds=np.int64(4)).seeds == 4
    assert SweepPanel(into="none", picked=np.array([[8, 16, 0.5]])).picked == [[8, 16, 0.5]]


def test_own_model_is_counted_and_unchanged():
    model = load_model("minilm", num_labels=2)
    panel = LoRAPanel("model", model=model, rank=2, models=["gpt2"])
    assert list(panel.models) == [panel.model, "gpt2"]
    assert LoRAPanel("model", model=model, rank=2, targets="q,v").targets == panel.targets
    assert f"has {sum(p.numel() for p in model.parameters()):,} parameters" in panel.describe()
    assert f"rank-2 LoRA on q, v adds {params(model, LoRA(rank=2)).trainable:,}" in panel.describe()
    assert all("lora" not in name for name, _ in model.named_parameters())
    json.dumps(panel.state())
    LoRA().attach(model)
    assert LoRAPanel("model", model=model, rank=2, models=["gpt2"], targets="q,v").state() == panel.state()


def test_notebook_output_has_words_and_a_snapshot(tmp_path):
    data, _ = LoRAPanel(rank=16)._repr_mimebundle_()
    assert data["text/plain"].startswith("LoRA to scale: W of 4,096 x 4,096")
    snapshot = uncompressed(data[MIME])
    assert (snapshot["panel"], snapshot["file"], snapshot["state"]["rank"]) == ("LoRAPanel", "lora_panel.js", 16)
    assert not [name for name in snapshot["state"] if name.startswith("_")]
    state = TrainPanel(guess=float("nan"), store="none").snapshot()["state"]
    assert json.loads(json.dumps(state, allow_nan=False))["guess"] is None
    assert '<div data-panel="LoRAPanel">' in LoRAPanel(rank=16).save(tmp_path / "panel.html").read_text()
    assert_raises("is a folder", LoRAPanel(rank=16).save, tmp_path)


def test_shipped_films_are_complete_and_match_the_accountant():
    assert set(shipped()) == set(SHIPPED)
    assert len(json.dumps(shipped(), separators=(",", ":"))) < 200_000
    for films in shipped().values():
        assert {(film["method"], film["checkpointing"]) for film in films} == {(m, c) for m in METHODS for c in (0, 1)}
    draw = random.Random(0)
    for film in shipped()["llama-3-8b"]:
        name = film["method"]
        for batch in (1, 2, 7):
            rank, seq = draw.choice([1, 8, 100]), draw.randint(40, 9000)
            method = LoRA(rank=rank, targets=METHODS[name].targets) if film["ranked"] else METHODS[name]
            setup = setup_of("llama-3-8b", name, batch=batch, seq=seq, checkpointing=film["checkpointing"])
            expected = quick("llama-3-8b", method, setup)
            assert expected.mode == "predicted"
            peak = max(moments(film, rank, setup), key=lambda moment: sum(moment.bytes.values())).bytes
            assert {category: size for category, size in peak.items() if size} == expected.categories, (name, setup)


def test_description_names_peak_moment_categories_and_card():
    words = MemoryPanel("llama-3-8b", "full", batch=1, seq=512).describe()
    assert binary(memory("llama-3-8b", METHODS["full"], batch=1, seq=512).peak) in words
    for part in ("at the update", "gradients 15.0 GiB", "does not fit RTX 4090 24 GB"):
        assert part in words
    assert " in the forward pass" in MemoryPanel("minilm", lab.HeadOnly()).describe()
    assert "It fits A100 80 GB" in MemoryPanel("llama-3-8b", "full", card="A100 80").describe()
    with pytest.raises(NotFound):
        MemoryPanel(card="no such card")
    assert "1 x 512 tokens" in MemoryPanel("minilm", "full", seq=4096).describe()  # its maximum, as in the browser
    assert "1 x 32 tokens" in MemoryPanel("minilm", "full", seq=16).describe()  # the film's shortest
    panel = MemoryPanel("t5-base", seq=8, batch=2)
    panel.batch = 4  # its film is fixed
    assert "2 x 8 tokens" in panel.describe()
    narrow, wide = (MemoryPanel(rank=rank) for rank in (384, 1000))
    narrow.model = wide.model = "minilm"
    assert wide.describe() == narrow.describe()  # both become the width of its layers
    for options in ({"rank": 0}, {"rank": 5000}, {"shard": "fsdp:8"}, {"padded": True}, {"method": None}):
        with pytest.raises(BadValue):
            MemoryPanel("llama-3-8b", **options)
    for name in ("model", "method", "card"):
        assert_raises(f"^{name} must be one of .* not 'x'", setattr, panel := MemoryPanel(), name, "x")
        assert panel.describe() == MemoryPanel().describe()


def test_real_step_takes_the_method_that_was_given(monkeypatch):
    monkeypatch.setenv("LORA_LAB_HEADLESS", "1")
    assert MemoryPanel("minilm", LoRA(rank=3), seq=32).rank == 3
    panel = MemoryPanel("minilm", PromptTuning(tokens=5), seq=32)  # a different prompt from the one in METHODS
    panel.measure()
    assert panel.standing == ""
    steps = (moments(film, panel.rank, panel.setup) for film in (panel.shown(), panel.measured["film"]))
    predicted, measured = (max(sum(moment.bytes.values()) for moment in step) for step in steps)
    assert predicted == measured
    panel = MemoryPanel("smollm2", LoRA(rank=3), seq=32, models="minilm")
    panel.model = "minilm"  # it has no film of this method, so the browser shows the first method
    assert "minilm, full, 1 x 32 tokens" in panel.describe()
    panel.measure()
    assert (panel.standing, panel.measured["method"]) == ("", "full")
    panel = MemoryPanel()
    panel.model = "minilm"
    assert "fits RTX" not in panel.describe()  # its step runs on a CPU


def test_shipped_comparison_is_described_at_any_margin_and_resampled():
    panel = ComparePanel(methods="lora,full")
    assert panel.methods == ["lora", "full"]
    assert panel.pair == ("LoRA r8 q,v", "full")
    assert panel.margin == 0.015
    for words in ("q,v is worse than full", "full fine-tuning 82.3%", "at that rate were scored on the test rows"):
        assert words in panel.describe()
    panel.margin = 0.01
    assert "At a margin of 1 point, " in panel.describe()
    panel.margin = 0.03
    assert "worse than, but within the margin of, full" in panel.describe()
    panel.method, panel.rival = "LoRA r8 all-linear", "LoRA r8 q,v"
    assert "At a margin of 3 points, LoRA r8 all-linear is equivalent to LoRA r8 q,v" in panel.describe()
    assert len(json.dumps(panel.state())) < 60_000
    other = ComparePanel(task="kjv", methods=("lora", "lora:rank=1"))
    assert {choice.split(":")[0] for choice in other.choices} == set(REGISTRY)
    assert [choice for choice in other.choices if choice in other.methods] == ["lora", "lora:rank=1"] == other.methods
    assert (other.stored, other.pair, other.dance) == ({}, ("", ""), {})
    assert "Nothing has been compared yet" in other.describe()
    said(panel, "dance", rows=100, traits={"method": "LoRA r8 all-linear", "rival": "full"})
    first = panel.dance
    assert (first["method"], first["rival"], first["rows"]) == ("LoRA r8 all-linear", "full", 100)
    assert len(first["studies"]) == len(first["outcomes"]) == 100
    assert first["truth"] == pytest.approx(panel.stored["against"]["full"]["LoRA r8 all-linear"]["difference"])
    panel.resample(100, count=5)
    assert panel.dance["studies"] != first["studies"][:5]
    assert_raises("rows", panel.resample, 0)
    for name in ("seeds", "rates", "steps", "batch"):
        assert_raises(f"^{name} must", ComparePanel, **{name: 0})


def test_invalid_methods_are_reported(tmp_path):
    panel = ComparePanel(methods=["lorra"], store=tmp_path / "own")
    assert_raises("lorra", panel.show)
    assert "lorra" in panel.live["error"]
    panel.live = {}
    said(panel, "run")
    assert "lorra" in panel.live["error"]
    assert not (tmp_path / "own").exists()


def test_panel_gives_the_result_of_compare_and_reuses_its_runs(tiny_encoder, opinions, tmp_path):
    terms = {"steps": 6, "rates": 2, "seeds": 1, "batch": 8, "growth": 0, **PLAIN}
    panel = ComparePanel(tiny_encoder, opinions, ("head", "lora"), store=str(tmp_path), **terms).show()
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    expected = compare(tiny_encoder, opinions, "head,lora", tmp_path, **terms).to_json()
    assert stamps == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert panel.work.found == expected
    assert panel.live["state"] == "done"
    assert all(len(row["accuracy"]["each"]) == 1 and row["error"] is None for row in expected["methods"])
    entry, scores = panel.mine["against"]["LoRA r8 q,v"]["head"], scores_in(expected)
    difference = verdict(scores["head"], scores["LoRA r8 q,v"], 0.015).difference
    assert entry["difference"] == pytest.approx(difference, abs=1e-6)
    failing = ComparePanel(tiny_encoder, opinions, "lora:alpha=1e30", steps=2, store=tmp_path)
    assert_raises("every method failed: ", failing.show)


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(assets.shipped("data/results/sweeps/seeds.zip"), tmp_path)
    seeds = "~/seeds.zip", tmp_path / "seeds.zip"
    one, other = (TrainPanel(store="none", seeds=place).setup for place in seeds)
    assert one == other
    panel = SweepPanel("~/seeds.zip", targets=["v", "q"])
    assert panel.targets == "q,v"
    assert panel.save("~/panel.html") == tmp_path / "panel.html"
