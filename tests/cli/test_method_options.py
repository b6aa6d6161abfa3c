from dataclasses import fields

import pytest

from lora_lab import IA3, Bottleneck, LoRA, PromptTuning, VeRA
from lora_lab.cli.options import HELP
from lora_lab.methods import REGISTRY

METHODS = {
    "": LoRA(),
    "--rank 4 --alpha 8 --targets k --lora-dropout 0.1 --rslora": LoRA(4, 8, ("k",), 0.1, True),
    "--alpha-pattern q=0.5,v=32,k=1e-3": LoRA(alpha_pattern={"q": 0.5, "v": 32, "k": 1e-3}),
    "--dora --lr-ratio 4": LoRA(dora=True, lr_ratio=4),
    "--method prompt --tokens 40 --init random": PromptTuning(tokens=40, init="random"),
    "--method bottleneck --size 8 --placement lin": Bottleneck(size=8, placement="lin"),
    "--method vera --rank 64 --projection-seed 3 --no-save-projection": VeRA(64, ("q", "v"), 0.1, 3, False),
    "--method ia3 --targets up,v,k,v --feedforward up": IA3(targets=("k", "v", "up"), feedforward=("up",)),
} | {f"--method {name}": method() for name, method in REGISTRY.items()}


@pytest.fixture
def recipes(monkeypatch, lora_lab):
    """`recipes("train --method ia3")` returns the recipes that a command would run."""
    taken = []

    def take(recipes) -> None:
        taken.extend(recipes)
        raise SystemExit

    monkeypatch.setattr("lora_lab.training.train.train", lambda recipe, **_: take([recipe]))
    monkeypatch.setattr("lora_lab.experiments.sweep.Sweep.run", lambda self, recipes, choose: take(recipes))

    def run(words: str) -> list:
        taken.clear()
        done = lora_lab(*words.split())
        assert done.returncode == 0, done.stderr
        return list(taken)

    return run


def test_train_takes_every_method_with_its_options(recipes):
    for words, method in METHODS.items():
        assert [recipe.method for recipe in recipes(f"train {words}")] == [method], words
    assert {field.name for method in REGISTRY.values() for field in fields(method)} <= set(HELP)


def test_sweep_varies_rates_and_seeds_and_the_ranks_of_lora(recipes):
    swept = recipes("sweep --method bottleneck --size 16 --lr 1e-3,2e-3 --seed 0-2")
    assert {r.method for r in swept} == {Bottleneck(size=16)}
    assert sorted((r.lr, r.seed) for r in swept) == [(lr, seed) for lr in (1e-3, 2e-3) for seed in (0, 1, 2)]
    swept = recipes("sweep --rank 2,4 --alpha-rule 2rank --rslora")
    assert [r.method for r in swept] == [LoRA(2, 4, rslora=True), LoRA(4, 8, rslora=True)]


def test_qlora_is_lora_on_all_linear_layers_in_nf4(recipes):
    for words, expected in (
        ("train --method qlora", [(LoRA(targets="all-linear"), "nf4")]),
        ("train --method qlora --targets q --dtype nf4+fp32", [(LoRA(targets="q"), "nf4+fp32")]),
        ("train --method qlora --dtype bf16", [(LoRA(targets="all-linear"), "nf4+bf16")]),
        ("train --dtype int8", [(LoRA(), "int8")]),
        ("sweep --method qlora --rank 2,4", [(LoRA(rank, targets="all-linear"), "nf4") for rank in (2, 4)]),
    ):
        assert [(recipe.method, recipe.dtype) for recipe in recipes(words)] == expected
