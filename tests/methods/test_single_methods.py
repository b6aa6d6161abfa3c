import copy
import gc
import importlib
import weakref
from dataclasses import replace
from itertools import product

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import lora_lab as lab
from lora_lab import LoRA, detach, load_adapter, merge, save_adapter
from lora_lab.adapter_layer import out_by_in
from lora_lab.errors import BadValue, LabWarning
from lora_lab.methods.attach import Frozen, PooledHead, adapter_layers
from lora_lab.methods.lora_layers import DoRALinear, PiSSALinear
from lora_lab.methods.packed import share
from lora_lab.training.batches import check_fits
from lora_lab.training.member import Member
from lora_lab.training.tasks import Split, Task
from tests.conftest import assert_raises, logits, lora_layers, make_model, randomise, snapshot, tiny, with_adapter
from tests.methods.conftest import CLOSE, edit_config, load_peft, peft_model


def test_bottleneck_placements_are_counted_and_start_without_effect():
    for method, paths in (
        (lab.Bottleneck(size=4, layers=1), ["1.self_attn.o_proj", "1.mlp.down_proj"]),
        (lab.Bottleneck(size=4, placement="lin"), ["0.mlp.down_proj", "1.mlp.down_proj"]),
    ):
        model, plain = tiny("llama"), tiny("llama")
        assert method.attach(model).adapter_parameters == lab.params(plain, method).trainable
        assert [path for path, _ in adapter_layers(model)] == [f"model.layers.{path}" for path in paths]
        torch.testing.assert_close(logits(model), logits(plain), rtol=1e-6, atol=1e-6)
    randomise(model)
    x, layer = torch.randn(2, 3, 64), model.get_submodule("model.layers.0.mlp.down_proj")
    y = layer.base_layer(x)
    torch.testing.assert_close(layer(x), y + layer.up(F.gelu(layer.down(layer.norm(y)))))


def test_pissa_drops_only_inputs_of_what_trains_and_dora_keeps_autocasts_dtype():
    layer, x = PiSSALinear(nn.Linear(12, 9), 3, 2.0, dropout=0.5), torch.randn(4, 12)
    torch.manual_seed(1)
    actual = layer(x)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(x, 0.5)
    torch.testing.assert_close(actual, layer.base_layer(x) + 2.0 * (dropped - x) @ (layer.lora_B @ layer.lora_A).t())
    layer = lora_layers(with_adapter("bert", LoRA(rank=2, dora=True)))[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(1, 32)).dtype == layer.base_layer(torch.ones(1, 32)).dtype == torch.bfloat16
        assert layer.row_norms(layer.frozen_weight()).dtype == torch.float32
    nn.init.zeros_((linear := nn.Linear(12, 9)).weight[0])  # as for a padding token in an output layer
    assert torch.equal(DoRALinear(linear, 3, 2.0)(x), linear(x))


def test_lora_plus_moves_b_further():
    moved: dict[float, dict[str, float]] = {}
    for ratio in (1.0, 8.0):
        model, recipe = tiny("roberta"), lab.Recipe("tiny", "random", LoRA(rank=4, lr_ratio=ratio), warmup=0, clip=0)
        recipe.method.attach(model)
        nn.init.normal_(lora_layers(model)[0].lora_B)
        member = Member(recipe, model)
        before = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
        logits(model).square().sum().backward()
        member.optimizer_step(1, 1.0, member.clip().item())
        moved[ratio] = {name: (model.get_parameter(name) - p).abs().max().item() for name, p in before.items()}
        assert member.history["lr"][0] == recipe.lr_at(1)
    assert max(moved[1.0].values()) == pytest.approx(recipe.lr, rel=1e-3)  # Adam's first update is rate times sign
    for name, plain in moved[1.0].items():
        assert moved[8.0][name] == pytest.approx(plain * (8 if name.endswith("lora_B") else 1), rel=1e-3), name


SHARED = {"vera": lab.VeRA(rank=8), "lora-xs": lab.LoRAXS(rank=4), "tinylora": lab.TinyLoRA(u=5, weight_tying=0.5)}
FUSED = [*(("gpt2", method) for method in SHARED.values()), ("phi3", SHARED["vera"]), ("gpt2", lab.IA3(("q", "v"), ()))]


@pytest.mark.parametrize(("kind", "method"), FUSED)
def test_one_adapter_of_a_fused_layer_keeps_k(kind, method, tmp_path):
    """Targets q and v become one adapter of the fused layer, which PEFT reads."""
    model, plain, x = with_adapter(kind, method), tiny(kind), torch.randn(2, 5, 32)
    theirs = load_peft(tiny(kind), save_adapter(model, tmp_path))
    torch.testing.assert_close(logits(theirs), logits(model), **CLOSE)
    start, stop = (32, 64) if kind == "gpt2" else (32, 48)
    for path in [path for path, _ in plain.named_modules() if path.endswith(("c_attn", "qkv_proj"))]:
        change = (model.get_submodule(path)(x) - plain.get_submodule(path)(x)).abs().amax((0, 1))
        assert change[start:stop].max() == 0
        assert min(change[:start].max(), change[stop:].max()) > 1e-4


def test_lora_xs_computes_its_formula():
    for path, layer in adapter_layers(with_adapter("gpt2", lab.LoRAXS(rank=4, alpha=6, targets="c_attn"))):
        weight, a, b = out_by_in(layer).detach(), layer.frozen.A, layer.frozen.B
        u, s, v = torch.linalg.svd(weight)
        torch.testing.assert_close(b @ a, u[:, :4] * s[:4] @ v[:4], **CLOSE, msg=path)  # the best of rank 4
        torch.testing.assert_close(b.t() @ b, torch.eye(4), **CLOSE)
        torch.testing.assert_close(a.norm(dim=1), s[:4], **CLOSE)
        x, r = torch.randn(3, 5, weight.shape[1]), layer.lora_R.detach().clone().requires_grad_()
        actual, expected = layer(x), F.linear(x, weight, layer.bias) + 1.5 * x @ a.t() @ r.t() @ b.t()
        torch.testing.assert_close(actual, expected, **CLOSE)
        grads = torch.autograd.grad(actual.sin().sum(), layer.lora_R), torch.autograd.grad(expected.sin().sum(), r)
        torch.testing.assert_close(*grads, **CLOSE)


def test_vera_shares_one_pair():
    model = with_adapter("llama", lab.VeRA(rank=8, targets=("q", "v", "up")))
    for other in (model, copy.deepcopy(model), share(model), copy.deepcopy(model).double().float()):
        layers = [layer for _, layer in adapter_layers(other) if not layer.head]
        assert len({id(layer.frozen.A) for layer in layers}) == len({id(layer.frozen.B) for layer in layers}) == 1
        assert len(layers) >= 4
    assert not [key for key in model.state_dict() if "frozen" in key]


def test_replica_of_data_parallel_computes_the_same(monkeypatch):
    replicate = importlib.import_module("torch.nn.parallel.replicate")
    copies = lambda tensors, devices, detach=False: [[t.clone() for t in tensors] for _ in devices]  # noqa: E731
    monkeypatch.setattr(replicate, "_broadcast_coalesced_reshape", copies)  # in place of several GPUs
    monkeypatch.setattr(replicate, "_get_device_index", lambda device, optional=None: device)
    model = with_adapter("bert", LoRA(rank=2))
    for replica in replicate.replicate(model, [0, 1]):
        assert torch.equal(logits(replica), logits(model))
    for parameter in model.parameters():  # unlike model.to, this leaves buffers as they are
        parameter.data = parameter.data.bfloat16()
    assert logits(model).dtype == torch.float32


def test_detach_frees_frozen_matrices():
    model, references = tiny("llama").requires_grad_(False), []
    before = snapshot(model)
    for method in SHARED.values():
        method.attach(model)
        frozen = [part for part in model.modules() if isinstance(part, Frozen)]
        assert frozen
        references += [weakref.ref(tensor) for part in frozen for tensor in part.buffers()]
        del frozen
        merge(model)
        detach(model)
        assert snapshot(model) == before
    gc.collect()
    assert [reference() for reference in references if reference() is not None] == []


def test_random_numbers_are_fp32_whatever_torchs_default_dtype():
    for name in ("vera", "tinylora"):
        expected, model = tiny("llama"), tiny("llama")
        SHARED[name].attach(expected)
        torch.set_default_dtype(torch.bfloat16)
        try:
            SHARED[name].attach(model)
        finally:
            torch.set_default_dtype(torch.float32)
        assert snapshot(model) == snapshot(expected)
        assert all(a.equal(b) for a, b in zip(model.buffers(), expected.buffers(), strict=True))


def test_transformers_saves_parameters_that_layers_share(tmp_path):
    method, bank = lab.TinyLoRA(u=5, weight_tying=1), lab.AdapterBank(tiny("llama"))
    model, loaded = with_adapter("llama", method), with_adapter("llama", method, seed=3)
    model.save_pretrained(tmp_path)
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    assert snapshot(loaded) == snapshot(model)
    for name in ("a", "b"):
        bank.add(name, model)
    bank.model.save_pretrained(tmp_path)


CAUSAL = {  # causal classifiers; the head of the last two is not called `score`
    "gpt2": ("GPT2ForSequenceClassification", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "ctrl": ("CTRLForSequenceClassification", {"n_embd": 32, "n_layer": 1, "n_head": 4, "dff": 64}),
    "modernbert-decoder": ("ModernBertDecoderForSequenceClassification",),
}


def classifier(kind: str) -> nn.Module:
    if kind in CAUSAL:
        return make_model(*CAUSAL[kind], vocab_size=96, num_labels=3, pad_token_id=0)
    return make_model("LlamaForTokenClassification") if kind == "token labels" else tiny(kind)


def head_of(model: nn.Module) -> PooledHead:
    return next(module for module in model.modules() if isinstance(module, PooledHead))


# The head reads a vector, a row's tokens, or each token.
@pytest.mark.parametrize("kind", ["bert", "roberta", *CAUSAL])
def test_probe_reads_the_mean_of_each_rows_tokens(kind):
    model = classifier(kind).requires_grad_(False)
    before = snapshot(model)
    ids = torch.randint(1, 96, (2, 9), generator=torch.Generator().manual_seed(0))  # as in logits()
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    hidden = model.base_model(input_ids=ids, attention_mask=mask)[0]
    means = torch.stack([hidden[0].mean(0), hidden[1, :6].mean(0)])
    lab.Probe().attach(model)
    assert logits(model).abs().max() == 0
    randomise(model)
    head = head_of(model).trained
    assert torch.allclose(logits(model), means @ head.weight.T + head.bias, atol=1e-5)
    detach(model)
    assert snapshot(model) == before
    assert not model.base_model._forward_hooks


def test_copied_probe_has_its_own_hook():
    model = classifier("bert")
    lab.Probe().attach(model)
    other = share(model)
    other.base_model.register_forward_hook(lambda module, args, out: (out[0] * 0, *out[1:]), prepend=True)
    for m in (other, model):
        m.base_model(input_ids=torch.ones(2, 5, dtype=torch.long))
    assert head_of(other).features().abs().max() == 0
    assert head_of(model).features().abs().max() > 0
    detach(other)
    assert head_of(model).hook.id in model.base_model._forward_hooks
    assert head_of(model).hook.id not in other.base_model._forward_hooks


def test_probe_is_counted():
    counted = lab.params("minilm", lab.Probe(), num_labels=2)
    assert (counted.trainable, counted.head) == (0, 770)
    roberta = lab.params("roberta-base", lab.Probe(), num_labels=3)  # its own head is far larger
    assert 0 < roberta.adapter_bytes - 4 * 3 * 769 < 1000  # the file's header


# ---- vectors in front of every row

SOFT = {"prompt": lab.PromptTuning(5), "ptuning": lab.PTuning(5, hidden=24), "prefix": lab.PrefixTuning(5)}


def make_inputs(rows: int = 2, tokens: int = 7) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 96, (rows, tokens), generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize(("kind", "task"), [("gpt2", "CAUSAL_LM"), ("bert", "SEQ_CLS")])
def test_ptuning_and_its_file_equal_peft(kind, task, tmp_path):
    config = peft.PromptEncoderConfig(num_virtual_tokens=5, encoder_hidden_size=24, task_type=task)
    theirs, ours, loaded, again = peft_model(tiny(kind), config), tiny(kind), tiny(kind), tiny(kind)
    SOFT["ptuning"].attach(ours)
    encoder = theirs.prompt_encoder["default"]
    ours.soft_prompt.prompt.data.copy_(encoder.embedding.weight)
    ours.soft_prompt.encoder.load_state_dict(encoder.mlp_head.state_dict())
    if kind == "bert":
        ours.classifier.trained.load_state_dict(theirs.classifier.modules_to_save["default"].state_dict())
    actual, expected = logits(ours), logits(theirs)
    torch.testing.assert_close(actual, expected, **CLOSE)
    for output in (actual, expected):
        output.square().mean().backward()
    norms = [sum(p.grad.square().sum() for p in m.parameters() if p.requires_grad) for m in (ours, theirs)]
    torch.testing.assert_close(*norms, **CLOSE)
    # Files hold the encoder's output, so they cannot be trained further.
    read = load_peft(tiny(kind), save_adapter(ours, tmp_path / "ours"))
    torch.testing.assert_close(logits(read), expected, **CLOSE)
    theirs.save_pretrained(tmp_path / "theirs")
    assert type(load_adapter(loaded, tmp_path / "theirs").method) is lab.PTuning
    torch.testing.assert_close(logits(loaded), expected, **CLOSE)
    load_adapter(again, save_adapter(loaded, tmp_path / "again"))
    assert torch.equal(logits(again), logits(loaded))
    assert_raises("train a new adapter", logits, loaded.train())


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")  # renamed in later releases
def test_what_soft_methods_cannot_do_is_refused(tmp_path):
    save_adapter(with_adapter("gpt2", SOFT["prompt"]), tmp_path / "prompt")
    edit_config(num_virtual_tokens=6)(tmp_path / "prompt")
    config = peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="FEATURE_EXTRACTION")
    peft.get_peft_model(tiny("bert").bert, config).save_pretrained(tmp_path / "prefix")
    two = peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM", num_transformer_submodules=2)
    peft.get_peft_model(tiny("gpt2"), two).save_pretrained(tmp_path / "two")
    cases = (tiny("gpt2"), "prompt", "num_virtual_tokens"), (tiny("bert").bert, "prefix", "positions")
    for model, name, match in (*cases, (tiny("gpt2"), "two", "=2 is for .* prefix does not support: train again with")):
        assert_raises(match, load_adapter, model, tmp_path / name, unchanged=model)
    for name in SOFT:
        with pytest.raises(BadValue, match=f"no room for the vectors of {name}"):
            with_adapter("gpt2", SOFT[name]).generate(**make_inputs(), cache_implementation="static", max_length=9)
        for padding in (0, 2):
            turn = {key: nn.functional.pad(value, (padding, 0)) for key, value in make_inputs().items()}
            model, options = with_adapter("llama", SOFT[name]), {"max_new_tokens": 4, "pad_token_id": 0}
            first = model.generate(**turn, **options, return_dict_in_generate=True)
            longer = {key: nn.functional.pad(value, (0, 9), value=1) for key, value in turn.items()}
            with pytest.raises(BadValue, match=f"vectors of {name} besides the text"):
                model.generate(**longer, **options, past_key_values=first.past_key_values)
    model = with_adapter("gpt2", SOFT["prefix"])
    model.train().gradient_checkpointing_enable()
    assert_raises("turn checkpointing off", logits, model)


@pytest.mark.parametrize(("kind", "name"), [("gpt2", "prompt"), ("gpt2", "prefix"), ("llama", "prefix")])
def test_generation_equals_repeated_forward_passes(kind, name):
    model, inputs = with_adapter(kind, SOFT[name]), make_inputs()
    greedy = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = inputs["input_ids"]
    for _ in range(6):
        last = model(input_ids=expected, attention_mask=torch.ones_like(expected)).logits[:, -1]
        expected = torch.cat([expected, last.argmax(-1, keepdim=True)], dim=1)
    for use_cache in (True, False):
        out = model.generate(**inputs, use_cache=use_cache, output_logits=True, return_dict_in_generate=True, **greedy)
        assert torch.equal(out.sequences, expected)
        torch.testing.assert_close(out.logits[-1], last, **CLOSE)
    first, last, cache = inputs["input_ids"], expected[:, -2:-1], transformers.DynamicCache()
    for ids in (first, expected[:, first.shape[1] : -2], last):  # the caller's own cache is filled
        continued = model(input_ids=ids, past_key_values=cache).logits
    torch.testing.assert_close(continued[:, -1], out.logits[-1], **CLOSE)
    padded = {key: nn.functional.pad(value, (3, 0)) for key, value in inputs.items()}
    beams = model.generate(**inputs, num_beams=2, **greedy)
    assert torch.equal(model.generate(**padded, num_beams=2, **greedy)[:, 3:], beams)


PADDED = [*product(("roberta", "gpt2"), SOFT), ("llama", "prefix")]
PADDED += [(kind, "prompt") for kind in ("ctrl", "modernbert-decoder", "token labels")]


@pytest.mark.parametrize(("kind", "name"), PADDED)
def test_padding_does_not_change_outputs(kind, name):
    model, inputs = with_adapter(classifier(kind), SOFT[name]), make_inputs()
    pad = int(kind == "roberta")
    ids = nn.functional.pad(inputs["input_ids"], (0, 3), value=pad)
    mask = nn.functional.pad(inputs["attention_mask"], (0, 3))
    padded, expected = model(ids, attention_mask=mask).logits, model(**inputs).logits  # ids as a positional argument
    torch.testing.assert_close(padded if padded.dim() == 2 else padded[:, :-3], expected, **CLOSE)


def test_prompt_leaves_classes_that_look_like_token_labels():
    model = with_adapter("bert", SOFT["prompt"])  # three classes
    model.config.problem_type = "multi_label_classification"
    assert model(**make_inputs(2, 3), labels=torch.rand(2, 3)).loss.isfinite()


def test_prompt_moves_the_span_of_an_answer():
    plain = make_model("BertForQuestionAnswering")
    model = with_adapter(copy.deepcopy(plain), SOFT["prompt"])
    tokens, inputs = SOFT["prompt"].tokens, make_inputs(2, 6)
    starts, ends = torch.tensor([1, 6]), torch.tensor([3, 6])  # the second span is outside of the text: ignored
    found = model(**inputs, start_positions=starts, end_positions=ends)
    sides = zip((found.start_logits, found.end_logits), (starts, ends), strict=True)
    expected = [nn.functional.cross_entropy(logits[:1], labels[:1] + tokens) for logits, labels in sides]
    torch.testing.assert_close(found.loss, sum(expected) / 2)


def test_warning_about_padded_rows_of_a_causal_classifier():
    with pytest.warns(LabWarning, match="padded rows"):
        lab.PromptTuning.from_peft({"num_virtual_tokens": 5}, classifier("gpt2"))


def test_longest_text_beside_a_prompt():
    """A prefix uses no position embeddings of the text."""
    for kind, name, limit in (("bert", "ptuning", 60), ("bert", "prefix", 66), ("roberta", "prompt", 58)):
        with_adapter(kind, SOFT[name])(**make_inputs(1, limit))
        task = Task("made", ("no", "yes"), limit, *[Split(())] * 3)
        check_fits(tiny(kind), task, SOFT[name])
        with pytest.raises(BadValue, match=f"exceeds the {limit} tokens"):
            check_fits(tiny(kind), replace(task, max_length=limit + 1), SOFT[name])
        (unlimited := tiny(kind)).config.max_position_embeddings = -1  # as in XLNet
        check_fits(unlimited, replace(task, max_length=999), SOFT[name])
    mpnet = make_model("MPNetForSequenceClassification", max_position_embeddings=66)  # two rows aren't positions
    assert_raises("exceeds the 64 tokens", check_fits, mpnet, replace(task, max_length=65), lab.LoRA())


def test_prompt_starts_as_tokens_or_with_their_standard_deviation():
    model = tiny("gemma2")  # scales its embeddings
    embeddings = model.get_input_embeddings()(torch.arange(96))
    lab.PromptTuning(tokens=5).attach(model)
    assert all((vector == embeddings).all(1).any() for vector in model.soft_prompt.prompt)
    detach(model)
    lab.PromptTuning(tokens=50, init="random").attach(model)
    assert model.soft_prompt.prompt.std().item() == pytest.approx(embeddings.std().item(), rel=0.2)


@pytest.mark.filterwarnings("error::FutureWarning")  # no deprecated form of transformers' cache is used
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_prefix_starts_as_small_as_the_models_weights_and_gets_gradients(kind):
    model, before = tiny(kind), logits(tiny(kind))
    lab.PrefixTuning(tokens=5).attach(model)
    assert model.soft_prefix.prompt.std().item() == pytest.approx(model.config.initializer_range, rel=0.2)
    assert not torch.equal(logits(model), before)
    logits(model.train()).square().sum().backward()
    assert model.soft_prefix.prompt.grad.any()


def test_peft_refuses_the_file_of_an_encoders_prefix(tmp_path):
    """PEFT would shift the text's positions."""
    save_adapter(with_adapter("bert", SOFT["prefix"]), tmp_path)
    with pytest.raises((KeyError, ValueError), match="LORA_LAB"):
        peft.PeftModel.from_pretrained(tiny("bert"), str(tmp_path))
