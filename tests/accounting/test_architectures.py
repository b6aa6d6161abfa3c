"""An architecture from a config alone is the model that transformers builds: total, every module, every site."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab.accounting.models import Architecture
from lora_lab.errors import BadValue
from lora_lab.methods.attach import sites_of
from lora_lab.methods.heads import heads_of
from tests.accounting.conftest import CLASSIFIERS, SMALL, real_model, small_config

CASES = [(case, labels) for case in SMALL for labels in (None, 3) if labels is None or case in CLASSIFIERS]


def counted_by_module(architecture: Architecture) -> Counter[str]:
    """Numbers that each module of the real model should hold; the experts of a layer, and sinks, where they live."""
    counts: Counter[str] = Counter()
    for path, module in architecture.paths():
        holder = path.split(".*")[0].removesuffix(".sinks")
        counts[holder] += module.parameters * module.each
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
    model, architecture = real_model(config, labels), Architecture.from_config(config, num_labels=labels)
    assert counted_by_module(architecture) == held_by_module(model)
    assert architecture.total == sum(p.numel() for p in model.parameters())
    assert architecture.sites() == sites_of(model)
    assert architecture.head_parameters == sum(p.numel() for _, head in heads_of(model) for p in head.parameters())
    if labels:
        assert Architecture.from_config(config).head(labels) == architecture.head_parameters


@pytest.mark.parametrize("case", SMALL)
def test_a_saved_config_reads_the_same(case, tmp_path):
    """What transformers writes leaves some fields out and spells others in its own way."""
    from lora_lab.files import read_json

    config = small_config(case)
    real_model(config).config.save_pretrained(tmp_path)
    saved = Architecture.from_config(read_json(tmp_path / "config.json"))
    assert saved.modules == Architecture.from_config(config).modules


SIZES = st.integers(1, 5)


@settings(max_examples=15, deadline=None)
@given(kv=SIZES, group=SIZES, head_dim=st.integers(1, 9), times=SIZES, layers=SIZES, tied=st.booleans())
def test_any_shape_of_llama(kv, group, head_dim, times, layers, tied):
    hidden = kv * group * times  # transformers refuses others, although head_dim makes them possible
    config = {
        "model_type": "llama",
        "vocab_size": 31,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": kv * group,
        "num_key_value_heads": kv,
        "head_dim": 2 * head_dim,
        "intermediate_size": hidden + 7,
        "tie_word_embeddings": tied,
    }
    model, architecture = real_model(config), Architecture.from_config(config)
    assert architecture.total == sum(p.numel() for p in model.parameters())
    assert architecture.sites() == sites_of(model)


@settings(max_examples=15, deadline=None)
@given(heads=SIZES, head_dim=st.integers(1, 9), inner=st.integers(1, 60), layers=SIZES, family=st.sampled_from([0, 1]))
def test_any_shape_of_bert_and_gpt2(heads, head_dim, inner, layers, family):
    d = heads * head_dim
    bert = {"hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner}
    gpt2 = {"n_embd": d, "n_layer": layers, "n_head": heads, "n_inner": inner}
    config = {"vocab_size": 97, **({"model_type": "bert", **bert} if family else {"model_type": "gpt2", **gpt2})}
    model, architecture = real_model(config), Architecture.from_config(config)
    assert architecture.total == sum(p.numel() for p in model.parameters())
    assert architecture.sites() == sites_of(model)


LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "intermediate_size": 96,
    "vocab_size": 100,
}


@pytest.mark.parametrize("field", sorted(LLAMA))
def test_a_needed_field_that_is_missing_is_named(field):
    with pytest.raises(BadValue, match=f"lacks '{field}'"):
        Architecture.from_config({key: value for key, value in LLAMA.items() if key != field}, "mine")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "lama"}, "unknown model_type 'lama'.*llama"),
        ({"model_type": 7}, "model_type"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' of mine must be at most 10,000"),
        ({"hidden_size": 10**10}, "'hidden_size' of mine must be at most 1,000,000,000"),
        ({"hidden_size": -64}, "'hidden_size' of mine must be a whole number of at least 1, not -64"),
        ({"hidden_size": "64"}, "'hidden_size'.*not '64'"),
        ({"hidden_size": True}, "'hidden_size'"),
        ({"num_hidden_layers": 0}, "'num_hidden_layers'"),
        ({"vocab_size": 1.5}, "'vocab_size'"),
        ({"num_attention_heads": 7}, "64 of mine is no multiple of its 7"),
        ({"num_key_value_heads": 3}, "8 attention heads of mine cannot share 3"),
        ({"tie_word_embeddings": "yes"}, "'tie_word_embeddings'.*true or false"),
        ({"hidden_act": 3}, "'hidden_act'.*string"),
        ({"model_type": "bert", "num_attention_heads": 7}, "no multiple"),
        ({"model_type": "mixtral", "num_local_experts": 1}, "'num_experts_per_tok'"),
        ({"model_type": "qwen3_moe", "num_key_value_heads": 4, "mlp_only_layers": 3}, "'mlp_only_layers'"),
        ({"model_type": "deberta-v2", "pos_att_type": 3, "relative_attention": True}, "'pos_att_type'"),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence(change, words):
    with pytest.raises(BadValue, match=words) as error:
        Architecture.from_config(LLAMA | change, "mine")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [0, -1, True, "2"])
def test_labels_that_cannot_be(labels):
    with pytest.raises(BadValue, match="num_labels"):
        Architecture.from_config(LLAMA, num_labels=labels)


def test_t5_has_no_head_for_classes_here():
    with pytest.raises(BadValue, match="without num_labels"):
        Architecture.from_config(small_config("t5"), num_labels=2)
    with pytest.raises(BadValue, match="without num_labels"):
        Architecture.from_config(small_config("t5")).head(2)
