"""A bank of adapters: each answers as it does alone, however it is chosen, and the base stays what it was."""

import peft
import pytest
import torch
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from lora_lab import (
    IA3,
    AdapterBank,
    BitFit,
    Bottleneck,
    FullFineTuning,
    HeadOnly,
    LoRA,
    LoRAXS,
    Probe,
    PromptTuning,
    TinyLoRA,
    VeRA,
    load_adapter,
    merge,
    save_adapter,
)
from lora_lab.adapter_layer import is_conv1d
from lora_lab.errors import BadValue, LabError, NotFound
from lora_lab.methods.lora_layers import LoRALayer
from lora_lab.methods.packed import share
from tests.conftest import BART, BERT, snapshot, tiny
from tests.methods.conftest import TARGETS, with_adapter
from tests.methods.test_peft_parity import lora, peft_model, save_peft

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
IDS = torch.randint(1, 96, (6, 7), generator=torch.Generator().manual_seed(0))
GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}


def banked(base: nn.Module | str, *methods) -> tuple[AdapterBank, dict[str | None, nn.Module]]:
    """A bank with an adapter of each method, named a.0, a.1, ..., and each on a model of its own; None is the base."""
    base = tiny(base) if isinstance(base, str) else base
    bank, alone = AdapterBank(share(base)), {None: base}
    for n, method in enumerate(methods):
        alone[f"a.{n}"] = with_adapter(share(base), method, n)
        bank.add(f"a.{n}", alone[f"a.{n}"])
    return bank, alone


def answers(model: nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    """Logits of every row."""
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def row_by_row(alone: dict[str | None, nn.Module], names) -> torch.Tensor:
    """What each row's adapter says to it alone."""
    return torch.cat([answers(alone[name], IDS[n : n + 1]) for n, name in enumerate(names)])


@st.composite
def banks(draw: st.DrawFn, *kinds: str):
    """An architecture, some LoRAs of mixed ranks, scalings and targets, and the adapter of each of six rows."""
    kind, ranks, alphas = draw(st.sampled_from(kinds)), st.sampled_from([1, 3, 8, 16]), st.sampled_from([1, 8, 20])
    methods = [
        LoRA(draw(ranks), draw(alphas), draw(st.sampled_from(TARGETS[kind]))) for _ in range(draw(st.integers(1, 4)))
    ]
    names = [None, *(f"a.{n}" for n in range(len(methods)))]
    return kind, methods, draw(st.lists(st.sampled_from(names), min_size=6, max_size=6))


@settings(max_examples=8)
@given(banks(*TARGETS))
def test_each_answers_as_it_does_alone_whether_chosen_or_mixed(drawn):
    kind, methods, names = drawn
    bank, alone = banked(kind, *methods)
    for name, model in alone.items():
        bank.use(name)
        assert torch.equal(answers(bank.model), answers(model))
    with bank.mixed(names):
        together = answers(bank.model)
    torch.testing.assert_close(together, row_by_row(alone, names), **CLOSE)
    assert bank.used == list(alone)[-1]  # after the block as before it
    bank.close()
    assert torch.equal(answers(bank.model), answers(tiny(kind)))


def test_batches_of_the_same_and_of_other_rows_may_follow_in_any_mode_and_dtype():
    bank, alone = banked("bert", LoRA(3), LoRA(5, targets="all-linear"))
    neighbors = ["a.0", "a.0", "a.1", "a.1", None, None]
    orders = [["a.0", "a.1"] * 3, ["a.1", "a.0"] * 3, ["a.1", "a.0"] * 3, neighbors, ["a.0"] * 6, [None] * 6]
    for names, mode in zip(orders, [torch.inference_mode, torch.enable_grad, torch.no_grad] * 2, strict=True):
        with mode(), bank.mixed(names):
            together = bank.model(input_ids=IDS).logits
        torch.testing.assert_close(together.detach().clone(), row_by_row(alone, names), **CLOSE)
    for dtype in (torch.float32, torch.bfloat16):
        bank.model.to(dtype)
        with bank.mixed(neighbors):
            torch.testing.assert_close(answers(bank.model), row_by_row(alone, neighbors), rtol=0.05, atol=0.05)


def test_methods_that_are_no_low_rank_sum_mix_too():
    bank, alone = banked(
        "bert", LoRA(2), LoRA(2, dora=True), LoRA(2, init="pissa"), IA3(), BitFit(), Bottleneck(size=4),
        VeRA(4), LoRAXS(4), TinyLoRA(u=4),
    )  # fmt: skip
    names = [f"a.{n}" for n in range(9)]
    for order in (names[:6], names[3:], names[5::-1], [None, *names[1:3], None, *names[:2]]):
        with bank.mixed(order):
            torch.testing.assert_close(answers(bank.model), row_by_row(alone, order), **CLOSE)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bart"])
def test_each_row_goes_on_with_its_own_adapter_in_generation(kind):
    torch.manual_seed(0)
    bart = transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)).eval() if kind == "bart" else None
    bank, alone = banked(bart or kind, LoRA(4, targets="all-linear"), LoRA(2))
    names = ["a.1", "a.0", None, "a.0", "a.1", None]
    with bank.mixed(names):
        together = bank.model.generate(IDS, attention_mask=torch.ones_like(IDS), **GREEDY)
    for n, name in enumerate(names):
        row = IDS[n : n + 1]
        assert torch.equal(alone[name].generate(row, attention_mask=torch.ones_like(row), **GREEDY)[0], together[n])


def test_it_mixes_as_peft_does_with_pefts_own_files(tmp_path):
    targets = {"a": ["query", "value"], "b": ["key"]}
    for seed, (name, modules) in enumerate(targets.items()):
        save_peft(peft_model(tiny("bert"), lora("bert", modules, r=3 + seed), seed), tmp_path / name)
    theirs = peft.PeftModel.from_pretrained(tiny("bert"), tmp_path / "a", adapter_name="a").eval()
    theirs.load_adapter(tmp_path / "b", "b")
    bank = AdapterBank(tiny("bert"))
    for name in targets:
        bank.load(name, tmp_path / name)
    names = ["b", "a", None, "a", "b", None]
    with bank.mixed(names), torch.no_grad():
        ours = bank.model(input_ids=IDS).logits
        wanted = theirs(input_ids=IDS, adapter_names=[name or "__base__" for name in names]).logits
    torch.testing.assert_close(ours, wanted, **CLOSE)


# ---- the weighted sum


@settings(max_examples=8)
@given(
    banks("bert", "roberta", "gpt2", "phi3"), st.lists(st.sampled_from([-0.5, 0.25, 0.5, 2.0]), min_size=4, max_size=4)
)
def test_a_blend_is_the_weighted_sum_of_the_updates(drawn, numbers):
    kind, methods, _ = drawn
    bank, alone = banked(kind, *methods)
    weights = dict(zip(list(alone)[1:], numbers, strict=False))
    assume(abs(sum(weights.values())) > 0.1)  # or the heads have no mean, see below
    bank.blend(weights, "mix")
    bank.use("mix")
    wanted = tiny(kind)
    for name, weight in weights.items():
        shift(wanted, alone[name], weight)
    if hasattr(wanted, "classifier"):
        states = [alone[name].classifier.trained.state_dict() for name in weights]
        shares = [weight / sum(weights.values()) for weight in weights.values()]
        mean = {key: sum(w * s[key] for w, s in zip(shares, states, strict=True)) for key in states[0]}
        wanted.classifier.load_state_dict(mean)
    torch.testing.assert_close(answers(bank.model), answers(wanted), rtol=1e-4, atol=1e-4)
    bank.close()
    assert snapshot(bank.model) == snapshot(tiny(kind).requires_grad_(False))


@torch.no_grad()
def shift(plain: nn.Module, adapted: nn.Module, weight: float) -> None:
    """Add the weighted update of each of an adapted model's layers to a plain model's own weight."""
    for path, layer in adapted.named_modules():
        if isinstance(layer, LoRALayer):
            own = plain.get_submodule(path.replace(".base_layer", ""))
            rows = slice(*(getattr(layer, "out_slice", None) or (None,)))
            (own.weight.t() if is_conv1d(own) else own.weight)[rows] += weight * layer.delta_weight()


def test_a_blend_is_saved_blended_and_mixed_like_any_other(tmp_path):
    bank, _ = banked("gpt2", LoRA(24), LoRA(20, targets="c_attn"))  # together above what a layer can hold
    bank.blend({"a.0": 0.5, "a.1": 0.5}, "mix")
    bank.blend({"mix": 2.0, "a.1": -1.0}, "first")  # which leaves a.0
    again = tiny("gpt2")
    load_adapter(again, bank.save("mix", tmp_path))
    bank.use("mix")
    torch.testing.assert_close(answers(again), answers(bank.model), **CLOSE)
    with bank.mixed(["first", "a.0"] * 3):
        twice = answers(bank.model, IDS[:1].repeat(6, 1))
    torch.testing.assert_close(twice[0], twice[1], **CLOSE)


def test_a_blend_that_cannot_be_says_why_and_leaves_the_bank_as_it_was():
    bank, _ = banked("bert", LoRA(2), LoRA(3), LoRA(2, dora=True), IA3(), HeadOnly())
    before, names = snapshot(bank.model), bank.names
    for weights, name, says in (
        ({}, "mix", "at least one"),
        ({"a.0": float("nan")}, "mix", "finite number"),
        ({"a.0": "much"}, "mix", "finite number"),
        ({"a.0": 1.0, "a.1": -1.0}, "mix", "sum to 0"),
        ({"a.0": 0.5, "a.2": 0.5}, "mix", "'a.2' is not a plain LoRA"),
        ({"a.0": 0.5, "a.3": 0.5}, "mix", "'a.3' is not a plain LoRA"),
        ({"a.4": 1.0}, "mix", "none of these adapters changes a layer, so there is nothing to blend"),
        ({"a.0": 0.5}, "a.1", "already"),
        ({"a.9": 0.5}, "mix", "no adapter 'a.9'; nearest: a.4, a.3"),
    ):
        with pytest.raises(LabError, match=says):
            bank.blend(weights, name)
    assert snapshot(bank.model) == before
    assert bank.names == names


# ---- coming and going


def test_removing_one_leaves_the_others_and_removing_all_leaves_the_plain_model():
    bank, alone = banked("bert", LoRA(2), LoRA(3, targets="all-linear"))
    with bank.mixed(["a.0", "a.1"] * 3):
        answers(bank.model)
    bank.use("a.1")
    bank.remove("a.1")
    assert (bank.names, bank.used) == (("a.0",), None)
    assert torch.equal(answers(bank.model), answers(alone[None]))
    bank.add("b", alone["a.0"])
    bank.remove("a.0")
    bank.add("a.0", alone["a.1"])  # another one of that name
    with bank.mixed(["a.0", "b"] * 3):
        torch.testing.assert_close(answers(bank.model), row_by_row(alone, ["a.1", "a.0"] * 3), **CLOSE)
    bank.close()
    assert snapshot(bank.model) == snapshot(tiny("bert").requires_grad_(False))


def test_no_dropout_acts_on_a_model_left_in_training_mode():
    bank, alone = banked(tiny("llama").train(), LoRA(4, dropout=0.9))
    bank.use("a.0")
    assert torch.equal(answers(bank.model), answers(alone["a.0"].eval()))


# ---- what is refused


def test_what_a_bank_cannot_hold_is_refused(tmp_path):
    bank, alone = banked("bert", LoRA(2))
    before = snapshot(bank.model)
    other = tiny("bert")
    nn.init.normal_(other.bert.encoder.layer[0].attention.self.query.weight)
    whole = "works on the whole model"
    for base, method, says in (
        (other, LoRA(2), "another base"),
        (tiny("bert"), PromptTuning(tokens=3), whole),
        (tiny("bert"), Probe(), f"share the base|{whole}"),
        (tiny("bert"), FullFineTuning(), "share the base"),
    ):
        method.attach(base)
        with pytest.raises(BadValue, match=says):
            bank.load("b", save_adapter(base, tmp_path))
    assert snapshot(bank.model) == before
    assert bank.names == ("a.0",)
    for model in (bank.model, alone["a.0"]):
        with pytest.raises(BadValue, match="already has an adapter"):
            AdapterBank(model)
    with pytest.raises(BadValue, match=r"bank\.save.*bank\.close\(\)"):
        merge(bank.model)


def test_names_are_known_single_and_words(tmp_path):
    bank, alone = banked("bert", LoRA(2))
    bank.add("captain", alone["a.0"])
    for wrong in (bank.use, bank.remove, bank.report):
        with pytest.raises(NotFound, match="no adapter 'captan'; nearest: captain"):
            wrong("captan")
    with pytest.raises(NotFound, match="no adapter 'None'"):  # the base, which answers, but is none to be removed
        bank.remove(None)
    with pytest.raises(NotFound, match="nearest: captain"), bank.mixed(["captan"]):
        pass
    for name, says in (("captain", "already"), ("", "must be a non-empty string")):
        with pytest.raises(BadValue, match=says):
            bank.load(name, tmp_path)


def test_rows_and_names_must_be_as_many_and_one_that_answers_for_a_row_cannot_go():
    bank, alone = banked("bert", LoRA(2), LoRA(2))
    with bank.mixed(["a.0"] * 5), pytest.raises(BadValue, match="6 rows, but mixed was given 5 names"):
        answers(bank.model)
    for wrong in ([], "a.0"):
        with pytest.raises(BadValue, match="list"), bank.mixed(wrong):
            pass
    answers(bank.model)  # the check went with the block
    with bank.mixed([None, "a.1"] * 3):
        bank.remove("a.0")
        with pytest.raises(BadValue, match="after the mixed block"):
            bank.remove("a.1")
        torch.testing.assert_close(answers(bank.model), row_by_row(alone, [None, "a.1"] * 3), **CLOSE)


def test_a_layer_that_is_not_row_by_row_is_refused_in_a_mixed_batch_alone():
    """DeBERTa's layers read a table of 2 x 128 positions as well, which could be taken for six rows or for two."""
    relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}
    config = transformers.DebertaV2Config(**BERT, **relative, max_relative_positions=129)
    deberta = transformers.DebertaV2Model(config).eval()
    for base, method in (("gpt2", LoRA(2, targets="wpe")), (deberta, LoRA(2, targets="q,k"))):
        bank, alone = banked(base, method)
        bank.use("a.0")
        assert torch.equal(bank.model(input_ids=IDS)[0], alone["a.0"](input_ids=IDS)[0])
        with bank.mixed(["a.0", None] * 3), pytest.raises(BadValue, match="without one entry per row"):
            bank.model(input_ids=IDS)
