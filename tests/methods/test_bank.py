from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import lora_lab as lab
from lora_lab import BadValue, BitFit, HeadOnly, LabError, LoRA
from lora_lab.methods.attach import quantized_layers
from lora_lab.methods.packed import Packed, share, stack_members
from lora_lab.methods.quant import quantize_model
from tests.conftest import BART, assert_raises, logits, make_model, snapshot, tiny, with_adapter
from tests.methods.conftest import CLOSE, TARGETS
from tests.methods.test_every_method import CHANGES_OUTPUT, METHODS, TRAINS_BASE

IDS = torch.randint(1, 96, (6, 7), generator=torch.Generator().manual_seed(0))
DISTILBERT = {"vocab_size": 96, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}  # with two heads in a row
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}


def make_bank(base: nn.Module | str, *methods) -> tuple[lab.AdapterBank, dict[str | None, nn.Module]]:
    """Make a bank with an adapter a.0, a.1, ... per method. Also return models with one adapter; None is the base."""
    base = tiny(base) if isinstance(base, str) else base
    bank, alone = lab.AdapterBank(share(base)), {None: base}
    for n, method in enumerate(methods):
        alone[f"a.{n}"] = with_adapter(share(base), method, n)
        bank.add(f"a.{n}", alone[f"a.{n}"])
    return bank, alone


@torch.no_grad()
def outputs(model: nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    return logits(model, ids)


def assert_mixed(bank: lab.AdapterBank, alone: dict[str | None, nn.Module], names, mode=torch.no_grad, **close) -> None:
    with mode(), bank.mixed(names):
        actual = logits(bank.model, IDS).detach().clone()
    expected = torch.cat([outputs(alone[name], IDS[n : n + 1]) for n, name in enumerate(names)])
    torch.testing.assert_close(actual, expected, **(close or CLOSE))


@st.composite
def banks(draw: st.DrawFn, *kinds: str):
    """Draw a model, LoRAs of mixed ranks, scalings and targets, and the adapter of each of six rows."""
    kind, ranks, alphas = draw(st.sampled_from(kinds)), st.sampled_from([1, 3, 8, 16]), st.sampled_from([1, 8, 20])
    method = st.builds(lab.LoRA, ranks, alphas, st.sampled_from(TARGETS[kind]), rslora=st.booleans())
    methods = draw(st.lists(method, min_size=1, max_size=4))
    names = [None, *(f"a.{n}" for n in range(len(methods)))]
    return kind, methods, draw(st.lists(st.sampled_from(names), min_size=6, max_size=6))


@settings(max_examples=8)
@given(banks(*TARGETS))
def test_bank_output_equals_each_adapter_alone(case):
    kind, methods, names = case
    bank, alone = make_bank(kind, *methods)
    for name, model in alone.items():
        bank.use(name)
        assert torch.equal(outputs(bank.model), outputs(model))
        with lab.disabled(bank.model, keep_head=True), lab.disabled(model, keep_head=True):
            assert torch.equal(outputs(bank.model), outputs(model))
    assert_mixed(bank, alone, names)
    assert bank.used == list(alone)[-1]  # restored after the block
    bank.close()
    assert torch.equal(outputs(bank.model), outputs(tiny(kind)))


@pytest.mark.parametrize("base", ["bert", make_model("DistilBertForSequenceClassification", DISTILBERT)])
def test_mixed_batches_can_change_rows_mode_and_dtype(base):
    bank, alone = make_bank(base, lab.LoRA(3), lab.LoRA(5, targets="all-linear"))
    neighbors = ["a.0", "a.0", "a.1", "a.1", None, None]
    batches = [["a.0", "a.1"] * 3, ["a.1", "a.0"] * 3, ["a.1", "a.0"] * 3, neighbors, ["a.0"] * 6, [None] * 6]
    for names, mode in zip(batches, [torch.inference_mode, torch.enable_grad, torch.no_grad] * 2, strict=True):
        assert_mixed(bank, alone, names, mode)
    embeddings = bank.model.get_input_embeddings()(IDS).requires_grad_()
    for mode in (torch.inference_mode, torch.enable_grad):  # autograd must accept what inference mode has cached
        with mode(), bank.mixed(neighbors):
            output = bank.model(inputs_embeds=embeddings).logits
    output.sum().backward()
    for dtype in (torch.float32, torch.bfloat16):
        bank.model.to(dtype)
        assert_mixed(bank, alone, neighbors, rtol=0.05, atol=0.05)


def test_every_layer_method_can_be_saved_and_mixed(tmp_path):
    methods = [method for name, method in METHODS.items() if name not in TRAINS_BASE | CHANGES_OUTPUT]
    bank, alone = make_bank("bert", *methods)
    names = [*bank.names, None, *bank.names[::-1], None]
    for start in range(0, len(names) - 5, 3):
        assert_mixed(bank, alone, names[start : start + 6])
    for name in bank.names:
        lab.load_adapter(loaded := tiny("bert"), bank.save(name, tmp_path / name))  # a bank's parameters don't train
        torch.testing.assert_close(outputs(loaded), outputs(alone[name]), **CLOSE)


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_generation_uses_each_rows_adapter(kind):
    base = make_model("BartForConditionalGeneration", BART) if kind == "bart" else kind
    bank, alone = make_bank(base, lab.LoRA(4, targets="all-linear"), lab.LoRA(2))
    names = ["a.1", "a.0", None, "a.0", "a.1", None]
    greedy = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    with bank.mixed(names):
        actual = bank.model.generate(IDS, attention_mask=torch.ones_like(IDS), **greedy)
    for n, name in enumerate(names):
        row = IDS[n : n + 1]
        assert torch.equal(actual[n], alone[name].generate(row, attention_mask=torch.ones_like(row), **greedy)[0])


@settings(max_examples=8)
@given(
    banks("bert", "roberta", "gpt2", "phi3"), st.lists(st.sampled_from([-0.5, 0.25, 0.5, 2.0]), min_size=4, max_size=4)
)
def test_blend_is_the_weighted_sum_of_updates(case, values):
    kind, methods, _ = case
    bank, alone = make_bank(kind, *methods)
    weights = dict(zip(bank.names, values, strict=False))
    total = sum(weights.values())
    assume(abs(total) > 0.1)  # otherwise, the weighted mean of the heads isn't defined
    bank.blend(weights, "mix")
    bank.use("mix")
    expected, merged = tiny(kind), {}
    for name in weights:
        lab.merge_for_good(alone[name])
        merged[name] = alone[name].state_dict()
    for key, value in expected.state_dict().items():
        scale = 1 / total if key.startswith("classifier") else 1  # heads are averaged
        value += sum(scale * weight * (merged[name][key] - value) for name, weight in weights.items())
    torch.testing.assert_close(outputs(bank.model), outputs(expected), rtol=1e-4, atol=1e-4)
    bank.close()
    assert snapshot(bank.model) == snapshot(tiny(kind).requires_grad_(False))


def test_blend_can_be_saved_blended_and_mixed(tmp_path):
    bank, _ = make_bank("gpt2", lab.LoRA(24), lab.LoRA(20, targets="c_attn"))  # together above the layer's highest rank
    bank.blend({"a.0": 0.5, "a.1": 0.5}, "mix")
    bank.blend({"mix": 2.0, "a.1": -1.0}, "a.0 again")
    loaded = tiny("gpt2")
    lab.load_adapter(loaded, bank.save("mix", tmp_path))
    bank.use("mix")
    torch.testing.assert_close(outputs(loaded), outputs(bank.model), **CLOSE)
    with bank.mixed(["a.0 again", "a.0"]):
        first, second = outputs(bank.model, IDS[:1].repeat(2, 1))
    torch.testing.assert_close(first, second, **CLOSE)


def test_adapters_can_be_removed_and_replaced():
    bank, alone = make_bank("bert", lab.LoRA(2), lab.LoRA(3, targets="all-linear"))
    assert_mixed(bank, alone, ["a.0", "a.1"] * 3)
    bank.use("a.1")
    bank.remove("a.1")
    assert (bank.names, bank.used) == (("a.0",), None)
    assert torch.equal(outputs(bank.model), outputs(alone[None]))
    bank.add("b", alone["a.0"])
    bank.remove("a.0")
    bank.add("a.0", alone["a.1"])  # another adapter with the old name
    assert_mixed(bank, {"a.0": alone["a.1"], "b": alone["a.0"]}, ["a.0", "b"] * 3)
    bank.close()
    assert snapshot(bank.model) == snapshot(tiny("bert").requires_grad_(False))


def test_adapters_share_the_base_after_it_has_moved():
    base = tiny("llama")
    assert {p.data_ptr() for p in base.parameters()} == {p.data_ptr() for p in share(base).parameters()}
    count = quantize_model(base)
    bank, alone = make_bank(base, lab.LoRA(2, targets="all-linear"))
    bank.model._apply(torch.clone)  # has the effect of moving it to another device
    bank.add("later", alone["a.0"])
    assert len({layer.packed.data_ptr() for layer in quantized_layers(bank.model)}) == count


def test_bank_has_no_dropout_in_training_mode():
    bank, alone = make_bank(tiny("llama").train(), lab.LoRA(4, dropout=0.9))
    bank.use("a.0")
    assert torch.equal(outputs(bank.model), outputs(alone["a.0"].eval()))


def test_bank_refuses_what_it_cannot_do_and_stays_as_it_was(tmp_path):
    bank, alone = make_bank("bert", lab.LoRA(2), lab.LoRA(3), lab.LoRA(2, dora=True), lab.IA3(), lab.HeadOnly())
    names, nearest = bank.names, "no adapter 'a.9'; nearest: a.4, a.3"
    calls = [
        (partial(bank.blend, weights, name), match)
        for weights, name, match in (
            ({}, "mix", "at least one"),
            ({"a.0": float("nan")}, "mix", "finite number"),
            ({"a.0": "much"}, "mix", "finite number"),
            ({"a.0": 1.0, "a.1": -1.0}, "mix", "sum to 0"),
            ({"a.0": 0.5, "a.2": 0.5}, "mix", "'a.2' is not plain LoRA"),
            ({"a.0": 0.5, "a.3": 0.5}, "mix", "'a.3' is not plain LoRA"),
            ({"a.4": 1.0}, "mix", "none of these adapters changes a layer, so there is nothing to blend"),
            ({"a.0": 0.5}, "a.1", "already"),
            ({"a.9": 0.5}, "mix", nearest),
            ([("a.0", 1.0)], "mix", "at least one"),
        )
    ]
    other_base = tiny("bert")
    nn.init.normal_(other_base.bert.encoder.layer[0].attention.self.query.weight)
    for base, method, match in (
        (other_base, lab.LoRA(2), "another base"),
        (tiny("bert"), lab.PromptTuning(tokens=3), "adapts the whole model, but a bank adapts only layers"),
        (tiny("bert"), lab.FullFineTuning(), "share the base"),
    ):
        method.attach(base)
        calls.append((partial(bank.load, "b", lab.save_adapter(base, tmp_path / method.name)), match))
    for function in (bank.use, bank.remove, bank.report, lambda name: bank.mixed([name]).__enter__()):
        calls.append((partial(function, "a.9"), nearest))
    calls += [
        (partial(bank.remove, None), "no adapter 'None'"),  # None is the base
        (partial(bank.use, ["a.0"]), "no adapter"),
        (lambda: bank.mixed(2).__enter__(), "a list of names"),
        (partial(bank.load, "a.0", tmp_path), "already"),
        (partial(bank.load, "", tmp_path), "must be a non-empty string"),
        (partial(lab.AdapterBank, bank.model), "already has an adapter"),
        (partial(lab.AdapterBank, alone["a.0"]), "already has an adapter"),
        (partial(lab.merge, bank.model), r"bank\.save.*bank\.close\(\)"),
    ]
    for call, match in calls:
        assert_raises(match, call, error=LabError, unchanged=bank.model)
    assert bank.names == names


def test_rows_of_images_are_mixed():
    base, images = make_model("ViTForImageClassification", image_size=8, patch_size=4), torch.randn(2, 3, 8, 8)
    bank, alone = make_bank(base, LoRA(rank=2))
    with torch.no_grad(), bank.mixed(["a.0", None]):
        mixed = bank.model(pixel_values=images).logits
    expected = [alone[name](pixel_values=image[None]).logits for name, image in zip(["a.0", None], images, strict=True)]
    torch.testing.assert_close(mixed, torch.cat(expected), **CLOSE)


def test_mixed_needs_one_name_per_row_and_keeps_used_adapters():
    bank, alone = make_bank("bert", lab.LoRA(2), lab.LoRA(2))
    with bank.mixed(["a.0"] * 5), pytest.raises(BadValue, match="6 rows, but mixed was given 5 names"):
        outputs(bank.model)
    for names in ([], "a.0"):
        with pytest.raises(BadValue, match="list"), bank.mixed(names):
            pass
    outputs(bank.model)  # rows are no longer counted
    bank.use("a.0")
    with bank.mixed([None, "a.1"] * 3):
        bank.remove("a.0")  # the adapter in use before the block
        assert_raises("after the mixed block", bank.remove, "a.1")
        assert_mixed(bank, alone, [None, "a.1"] * 3)
    assert bank.used is None


def test_mixed_refuses_layers_without_an_entry_per_row():
    """DeBERTa's layers also read a table of 2 x 129 positions, which could be taken for six rows."""
    deberta = make_model("DebertaV2Model", **RELATIVE, max_relative_positions=129)
    for base, method in (("gpt2", lab.LoRA(2, targets="wpe")), (deberta, lab.LoRA(2, targets="q,k"))):
        bank, alone = make_bank(base, method)
        bank.use("a.0")
        assert torch.equal(bank.model(input_ids=IDS)[0], alone["a.0"](input_ids=IDS)[0])
        with bank.mixed(["a.0", None] * 3), pytest.raises(BadValue, match="first dimension is not the number of rows"):
            bank.model(input_ids=IDS)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LongformerForSequenceClassification", {"attention_window": 4, "sep_token_id": 2}),  # (tokens, rows, d)
        ("SwitchTransformersEncoderModel", {"d_kv": 8, "num_hidden_layers": 2, "num_sparse_encoder_layers": 1}),
        ("NllbMoeModel", {**BART, "num_experts": 4, "encoder_sparse_step": 1, "decoder_sparse_step": 1}),
    ],
)
def test_layers_that_mix_or_reorder_rows_are_neither_packed_nor_mixed(name, options):
    """In a mixture of experts, only the experts mix rows: each expert reads tokens from any row."""
    base = make_model(name, **options)
    experts = [path for path, _ in base.named_modules() if ".experts." in path and path.endswith(("wi", "fc1"))]
    method = LoRA(2, targets=tuple(experts[:1]) or ("q", "v"))
    with pytest.raises(BadValue, match=r"mix or reorder rows, .* with --solo"):
        stack_members(base, [with_adapter(share(base), method)] * 2)
    bank, _ = make_bank(base, method)
    with pytest.raises(BadValue, match=r"mix or reorder rows: call use\(name\)"), bank.mixed(["a.0", None]):
        pass
    if experts:
        bank, _ = make_bank(base, LoRA(2))
        with bank.mixed(["a.0", None]):
            pass


@pytest.mark.parametrize(
    ("name", "table"),
    [("BertModel", "position_embeddings"), ("GPT2Model", "wpe"), ("T5EncoderModel", "relative_attention_bias")],
)
def test_position_tables_are_not_packed(name, table):
    """A table of positions is read once for all rows: (1, tokens), or (tokens, tokens) in T5."""
    base, method = make_model(name), LoRA(2, targets=("q", table))
    with pytest.raises(BadValue, match="positions, which all runs may share"):
        stack_members(base, [with_adapter(share(base), method)] * 2)


def test_deberta_packs_only_its_head():
    """DeBERTa's layers also read a table of 2 x 128 positions, which could be taken for rows of two members."""
    options = {**RELATIVE, "max_relative_positions": 128, "norm_rel_ebd": "layer_norm"}
    base = make_model("DebertaV2ForSequenceClassification", **options)
    for method in (LoRA(2, targets=("query_proj", "value_proj")), BitFit()):
        with pytest.raises(BadValue, match=r"positions, which all runs may share: .* with --solo"):
            stack_members(base, [with_adapter(share(base), method)] * 2)
    members = [with_adapter(share(base), HeadOnly(), seed) for seed in range(2)]
    expected = torch.cat([logits(model, rows) for model, rows in zip(members, IDS.chunk(2), strict=True)])
    torch.testing.assert_close(logits(stack_members(base, members)[0], IDS), expected)


@torch.no_grad()
def test_hook_can_keep_the_output_of_a_frozen_layer():
    base, kept = tiny("roberta"), []
    packed, _, _ = stack_members(base, [with_adapter(share(base), LoRA(2), seed) for seed in range(2)])
    for layer in (m.base_layer for m in packed.modules() if isinstance(m, Packed) and not m.head):
        layer.register_forward_hook(lambda layer, args, output: kept.append((output, output.clone())))
    logits(packed, IDS)
    assert kept
    assert all(torch.equal(output, before) for output, before in kept)


@torch.no_grad()
def test_each_member_has_its_own_dropout_rate():
    base, rates = tiny("roberta"), (0.0, 0.3, 0.9)
    members = [with_adapter(share(base), LoRA(4, targets="q", dropout=rate), 1) for rate in rates]
    path = "roberta.encoder.layer.0.attention.self.query"
    packed = stack_members(base, members)[0].get_submodule(path).train()
    torch.manual_seed(0)
    x = torch.randn(1, 400, 32).repeat(3, 1, 1)
    frozen = base.get_submodule(path)(x)
    update, expected = packed(x) - frozen, members[0].get_submodule(path).eval()(x) - frozen
    torch.testing.assert_close(update[0], expected[0], rtol=1e-4, atol=1e-5)
    noise = (update - expected).square().mean((1, 2)) / expected[0].square().mean()
    assert noise[1] == pytest.approx(0.3 / 0.7, rel=0.5)  # the variance of x / (1 - p) where it is kept
    assert noise[2] == pytest.approx(0.9 / 0.1, rel=0.5)
    torch.testing.assert_close(packed.eval()(x) - frozen, expected, rtol=1e-4, atol=1e-5)
