"""A description is the model that transformers builds: total, every module, every site; and the zoo's is up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest
import transformers

from lora_lab.accounting.models import Architecture, architecture_of, describe, meta_model, zoo_names
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue
from lora_lab.methods.attach import heads_of, sites_of
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from tests.accounting.conftest import CLASSIFIERS, SMALL, attachable, described, real_model, small_config

CASES = [(case, labels) for case in SMALL for labels in (None, 3) if labels is None or case in CLASSIFIERS]


def counted_by_module(architecture: Architecture) -> Counter[str]:
    """Numbers that each module of the real model should hold; the experts of a layer, and sinks, where they live."""
    counts: Counter[str] = Counter()
    for module in architecture.modules:
        holder = module.name.split(".*")[0].removesuffix(".sinks")
        counts[holder] += module.parameters * module.count
    return +counts


def held_by_module(model) -> Counter[str]:
    """Numbers that each module of a real model holds itself; a tied weight counts where it stands first."""
    counts: Counter[str] = Counter()
    seen = set()
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            counts[path] += 0 if parameter in seen else parameter.numel()
            seen.add(parameter)
    return +counts


@pytest.mark.parametrize(("case", "labels"), CASES)
def test_it_is_the_model_that_transformers_builds(case, labels):
    config = small_config(case)
    model, architecture = real_model(config, labels), described(config, labels)
    assert counted_by_module(architecture) == held_by_module(model)
    assert architecture.total == sum(p.numel() for p in model.parameters())
    assert attachable(architecture) == sites_of(model)
    head = sum(p.numel() for _, head in heads_of(model) for p in head.parameters())
    assert params(architecture, FullFineTuning()).head == head


@pytest.mark.parametrize("name", zoo_names())
def test_the_zoo_as_shipped_is_the_model_built_anew_and_attaching_meets_the_same(name):
    model, shipped = meta_model(name), architecture_of(name)
    assert describe(model, name) == shipped
    assert attachable(shipped) == sites_of(model)
    method = LoRA(rank=2, targets="all-linear")
    report, counted = method.attach(model), params(name, method)
    assert method.place(attachable(shipped)) == report.placements
    trains = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted.trainable == report.adapter_parameters == trains


@pytest.mark.parametrize("case", ["bert", "deberta-v2 relative", "gpt2 inner", "deepseek_v3", "gpt_oss", "t5 gated"])
def test_a_saved_config_reads_the_same(case, tmp_path):
    """What transformers writes leaves some fields out and spells others in its own way."""
    config = small_config(case)
    real_model(config).config.save_pretrained(tmp_path)
    assert architecture_of(tmp_path).modules == described(config).modules


def test_layers_that_differ_keep_the_models_order():
    """Dense first, then experts, and attention of two kinds."""
    for kind in ("afmoe", "qwen3_next", "jamba"):
        model = meta_model({"model_type": kind, "num_hidden_layers": 9})
        assert attachable(describe(model)) == sites_of(model)


@pytest.mark.parametrize("kind", ["gemma4_text", "mamba", "whisper", "modernbert", "falcon_h1"])
def test_a_type_that_nobody_listed_is_counted(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    real = sum(p.numel() for p in meta_model(tmp_path).parameters())
    counted = params(tmp_path, LoRA(rank=1, targets="all-linear"))
    assert counted.total == sum(row.full for row in counted.modules) == real > 0


LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "intermediate_size": 96,
    "vocab_size": 100,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "lama"}, "unknown model_type 'lama'.*llama"),
        ({"model_type": 7}, "model_type"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' of mine must be at most 10,000"),
        ({"hidden_size": 10**10}, "cannot build mine"),
        ({"hidden_size": -64}, "cannot build mine.*-64"),
        ({"hidden_size": "64"}, "'hidden_size'.*'64'"),
        ({"hidden_size": True}, "'hidden_size'"),
        ({"vocab_size": 1.5}, "'vocab_size'"),
        ({"num_attention_heads": 7}, "not a multiple of the number of attention heads"),
        ({"tie_word_embeddings": "yes"}, "'tie_word_embeddings'"),
        ({"model_type": "gemma3n"}, "timm"),
    ],
)
def test_a_config_that_cannot_be_built_is_one_sentence(change, words, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA | change))
    with pytest.raises(BadValue, match=words) as error:
        architecture_of(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [0, -1, True, "2"])
def test_labels_that_cannot_be(labels):
    with pytest.raises(BadValue, match="num_labels"):
        meta_model(LLAMA, labels)


def test_a_type_without_a_classifier_says_so():
    with pytest.raises(BadValue, match="leave num_labels out"):
        meta_model({"model_type": "whisper"}, 2)


def test_a_model_is_built_without_noise_or_numbers():
    code = (
        "from lora_lab.accounting.models import meta_model\n"
        "model = meta_model({'model_type': 'bert', 'num_hidden_layers': 1}, 2)\n"
        "assert all(p.is_meta for p in model.parameters())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_classes_are_transformers_own():
    made = {kind: type(meta_model({"model_type": kind})) for kind in ("bert", "gpt2", "t5")}
    assert made == {
        "bert": transformers.BertModel,
        "gpt2": transformers.GPT2LMHeadModel,
        "t5": transformers.T5ForConditionalGeneration,
    }
