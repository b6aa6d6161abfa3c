"""Every command takes every method: what is said on the command line is the method that a recipe holds."""

from dataclasses import fields

import pytest
from click.testing import CliRunner

from lora_lab import IA3, Bottleneck, LoRA, PromptTuning, VeRA
from lora_lab.cli import commands
from lora_lab.cli.options import HELP
from lora_lab.methods import REGISTRY


@pytest.fixture
def recipes(monkeypatch):
    """`recipes("train", "--method", "ia3")`: the recipes that a command would run."""
    taken = []

    def train(recipe, **how):
        taken.append(recipe)
        raise SystemExit

    def sweep(self, given, choose):
        taken.extend(given)
        raise SystemExit

    monkeypatch.setattr("lora_lab.training.train.train", train)
    monkeypatch.setattr("lora_lab.experiments.sweep.Sweep.run", sweep)

    def run(*words: str) -> list:
        taken.clear()
        done = CliRunner().invoke(commands, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return list(taken)

    return run


METHODS = {
    "": LoRA(),
    "--rank 4 --alpha 8 --targets k --lora-dropout 0.1 --rslora": LoRA(4, 8, ("k",), 0.1, True),
    "--alpha-pattern q=0.5,v=32,k=1e-3": LoRA(alpha_pattern={"q": 0.5, "v": 32, "k": 1e-3}),
    "--dora --lr-ratio 4": LoRA(dora=True, lr_ratio=4),
    "--method prompt --tokens 40 --init random": PromptTuning(tokens=40, init="random"),
    "--method bottleneck --size 8 --placement lin": Bottleneck(size=8, placement="lin"),
    "--method vera --rank 64 --projection-seed 3 --no-save-projection": VeRA(64, ("q", "v"), 0.1, 3, False),
    "--method ia3 --targets k,v,up --feedforward up": IA3(targets=("k", "v", "up"), feedforward=("up",)),
} | {f"--method {name}": method() for name, method in REGISTRY.items()}


def test_train_takes_every_method_with_its_options(recipes):
    for words, method in METHODS.items():
        (recipe,) = recipes("train", *words.split())
        assert recipe.method == method, words


def test_a_method_without_ranks_is_swept_over_rates_and_seeds_and_lora_over_ranks_as_well(recipes):
    swept = recipes("sweep", *["--method", "bottleneck", "--size", "16", "--lr", "1e-3,2e-3", "--seed", "0-2"])
    assert {r.method for r in swept} == {Bottleneck(size=16)}
    assert sorted((r.lr, r.seed) for r in swept) == [(lr, seed) for lr in (1e-3, 2e-3) for seed in (0, 1, 2)]
    swept = recipes("sweep", *["--rank", "2,4", "--alpha-rule", "2rank", "--rslora"])
    assert [r.method for r in swept] == [LoRA(2, 4, rslora=True), LoRA(4, 8, rslora=True)]


def test_qlora_is_lora_on_all_linear_layers_of_a_base_in_4_bits(recipes):
    (recipe,) = recipes("train", "--method", "qlora")
    assert (recipe.method, recipe.dtype) == (LoRA(targets="all-linear"), "nf4")
    (recipe,) = recipes("train", "--method", "qlora", "--targets", "q", "--dtype", "nf4+fp32")
    assert (recipe.method, recipe.dtype) == (LoRA(targets="q"), "nf4+fp32")
    (recipe,) = recipes("train", "--dtype", "int8")
    assert (recipe.method, recipe.dtype) == (LoRA(), "int8")
    swept = recipes("sweep", "--method", "qlora", "--rank", "2,4")
    assert [(r.method, r.dtype) for r in swept] == [(LoRA(n, targets="all-linear"), "nf4") for n in (2, 4)]


def test_every_option_of_a_method_says_what_it_is():
    assert {field.name for method in REGISTRY.values() for field in fields(method)} <= set(HELP)
