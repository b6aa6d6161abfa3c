import copy
import json
import warnings
from collections import OrderedDict
from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_lab import IA3, LoRA, LoRAXS, PrefixTuning, PromptTuning, TinyLoRA, VeRA, load_adapter, params, save_adapter
from lora_lab.layers import LoRALinear
from lora_lab.methods import REGISTRY
from lora_lab.methods.attach import report_of
from lora_lab.methods.bank import AdapterBank
from lora_lab.methods.inspect import answer_of, inspect_adapter
from lora_lab.methods.io import CONFIG, WEIGHTS
from tests.conftest import BART, BERT, assert_raises, logits, lora_layers, make_model, tiny, with_adapter
from tests.methods.conftest import CLOSE, PEFT_TARGETS, TASKS, load_peft, peft_lora, peft_model, save_peft

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


def our_name(name: str) -> str:
    name = name.removeprefix("base_model.model.").replace("modules_to_save.default", "trained")
    return name.replace(".default.weight", "").replace(".default", "")


def loss_of(model: nn.Module) -> torch.Tensor:
    output = logits(model)
    output = output if output.dim() == 2 else output[:, 4]
    return (output * torch.arange(output.numel()).view_as(output).cos()).sum()


def gradients(model: nn.Module) -> list[torch.Tensor]:
    """Return the gradient of each trainable parameter, sorted by our name."""
    named = {our_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    grads = dict(zip(named, torch.autograd.grad(loss_of(model), list(named.values())), strict=True))
    vectors = [name for name in grads if name.endswith(".v") or ".tinylora_v." in name]  # PEFT names these differently
    return [grads[name] for name in (*vectors, *sorted(grads.keys() - set(vectors)))]


def assert_same_outputs(ours: nn.Module, theirs: nn.Module) -> None:
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    assert_same_outputs(ours, theirs)
    for index, (actual, expected) in enumerate(zip(gradients(ours), gradients(theirs), strict=True)):
        scale = expected.abs().max()
        scaled = [gradient.squeeze() / scale for gradient in (actual, expected)]
        torch.testing.assert_close(*scaled, **CLOSE, msg=f"gradient {index}")


def unordered(settings):
    """Replace lists with sets, since PEFT writes targets in any order."""
    return {key: set(value) if isinstance(value, list | tuple) else value for key, value in settings.items()}


QKV = ["query", "key", "value"]
PATTERNS = {"rank_pattern": {"query": 2, r"layer\.1.*value": 5}, "alpha_pattern": {"layer.0.*key": 5}}
VALUE = "roberta.encoder.layer.0.attention.self.value"
LORAS = {
    "bert": ("bert", ["query", "value"], {}),
    "llama": ("llama", ["q_proj", "v_proj"], {}),
    "all-linear, with the pooler": ("bert", "all-linear", {}),
    "fused, gpt2": ("gpt2", ["c_attn"], {}),
    "fused, phi3": ("phi3", ["qkv_proj"], {}),
    "DoRA": ("roberta", ["query", "value"], {"use_dora": True, "use_rslora": True}),
    # PEFT's files of embeddings contain a copy of the base's.
    "tied embedding": ("llama", ["embed_tokens", "q_proj"], {}),
    "embedding, gpt2": ("gpt2", ["wte"], {}),
    "embedding with padding": ("roberta", ["word_embeddings"], {}),
    "embedding and head": ("phi3", ["lm_head", "embed_tokens"], {}),
    "scaled embedding": ("gemma2", ["embed_tokens"], {}),
    "patterns with rsLoRA": ("roberta", QKV, {"use_rslora": True, **PATTERNS}),
    "PEFT's alpha at rank 32": ("roberta", ["query"], {"r": 32, "lora_alpha": 8}),
    "rsLoRA of rank 32": ("roberta", ["query"], {"r": 32, "lora_alpha": 4, "use_rslora": True}),
    "layers_to_transform": ("roberta", QKV, {"layers_to_transform": 0}),
    "exclude_modules": ("roberta", QKV, {"exclude_modules": ["layer.0.attention.self.query"]}),
    "regular expression": ("roberta", r".*\.layer\.1\..*(query|key)", {}),
    "full path, not limited to layers": ("roberta", [VALUE, "query"], {"layers_to_transform": [1]}),
}
OTHERS = {  # the last is our equivalent method
    "IA3, bert": ("bert", peft.IA3Config(), IA3(("key", "value", "output.dense"), ("output.dense",))),
    "IA3, gpt2": ("gpt2", peft.IA3Config(), IA3(("c_attn", "mlp.c_proj"), ("mlp.c_proj",))),
    "IA3, llama": ("llama", peft.IA3Config(), IA3(("k_proj", "v_proj", "down_proj"), ("down_proj",))),
    "prefix, gpt2": ("gpt2", peft.PrefixTuningConfig(num_virtual_tokens=5), PrefixTuning(tokens=5)),
    "prefix, llama": ("llama", peft.PrefixTuningConfig(num_virtual_tokens=5), PrefixTuning(tokens=5)),
    "prompt, opt": ("opt", peft.PromptTuningConfig(num_virtual_tokens=5, token_dim=24), PromptTuning(5, init="random")),
    "VeRA, seed": (
        "llama",
        peft.VeraConfig(r=3, projection_prng_key=7, d_initial=0.5, save_projection=False),
        VeRA(rank=3, projection_seed=7, d_initial=0.5, save_projection=False),
    ),
    "TinyLoRA, tied": ("bert", peft.TinyLoraConfig(r=3, u=4, weight_tying=0.6), TinyLoRA(3, u=4, weight_tying=0.6)),
    "TinyLoRA, one vector": (
        "llama",
        peft.TinyLoraConfig(u=13, weight_tying=1.0, projection_seed=3, save_projection=False),
        TinyLoRA(u=13, weight_tying=1, projection_seed=3, save_projection=False),
    ),
    "TinyLoRA, rank above the layer's": ("gpt2", peft.TinyLoraConfig(r=40, u=2), TinyLoRA(rank=40, u=2)),
}
for kind in ("bert", "gpt2"):
    OTHERS |= {
        f"VeRA, {kind}": (kind, peft.VeraConfig(r=6), VeRA(rank=6)),
        f"prompt, {kind}": (kind, peft.PromptTuningConfig(num_virtual_tokens=5), PromptTuning(tokens=5, init="random")),
    }
CASES = [
    pytest.param(kind, peft_lora(kind, targets, **options), None, id=name)
    for name, (kind, targets, options) in LORAS.items()
]
CASES += [pytest.param(*case, id=name) for name, case in OTHERS.items()]


@pytest.mark.parametrize(("kind", "config", "method"), CASES)
def test_outputs_gradients_and_files_equal_peft(kind, config, method, tmp_path, monkeypatch):
    monkeypatch.setitem(REGISTRY, "own", type("Own", (type(method or LoRA()),), {"name": "own"}))
    config.task_type = TASKS.get(kind, "CAUSAL_LM")
    if isinstance(method, VeRA | TinyLoRA):
        config.target_modules, method = PEFT_TARGETS[kind], replace(method, targets=PEFT_TARGETS[kind])
    theirs, ours = peft_model(tiny(kind), config), tiny(kind)
    before = logits(ours)
    report = load_adapter(ours, save_peft(theirs, tmp_path / "theirs"))
    assert inspect_adapter(tmp_path / "theirs", tiny(kind)).problems == []
    assert_same(ours, theirs)
    assert not torch.allclose(logits(ours)[:, -1], before[:, -1], atol=1e-3)
    assert report.trainable == sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    trainable = not config.is_prompt_learning  # PEFT cannot continue training a prompt
    read = load_peft(tiny(kind), save_adapter(ours, tmp_path / "ours"), is_trainable=trainable)
    (assert_same if trainable else assert_same_outputs)(ours, read)
    written, original = (load_file(tmp_path / writer / WEIGHTS) for writer in ("ours", "theirs"))
    assert written.keys() == {key for key in original if "base_layer" not in key}  # PEFT copies the base's embeddings
    assert all(torch.equal(written[key], original[key]) for key in written)
    assert type(report.method) is type(method or LoRA())
    if method:
        assert unordered(vars(report.method)) == unordered(vars(method))
        assert report.adapter_parameters == params(tiny(kind), method).trainable
        written, original = (json.loads((tmp_path / writer / CONFIG).read_text()) for writer in ("ours", "theirs"))
        assert unordered({key: original[key] for key in written}) == unordered(written)


@pytest.mark.parametrize(
    "config",
    [peft.LoraConfig(target_modules=["gate"]), peft.IA3Config(target_modules=["gate"], feedforward_modules=[])],
)
def test_layer_named_like_a_role_is_adapted(config, tmp_path):
    mlp = nn.Sequential(OrderedDict(gate=nn.Linear(8, 8), gate_proj=nn.Linear(8, 8)))  # gate_proj has the role gate
    ours, x = nn.Sequential(OrderedDict(mlp=mlp)), torch.randn(3, 8)
    theirs = peft_model(copy.deepcopy(ours), config)
    load_adapter(ours, save_peft(theirs, tmp_path))
    torch.testing.assert_close(ours(x), theirs(x), **CLOSE)


def test_layers_of_ones_own_model_may_be_called_q_and_v(tmp_path):
    """No layer has the role q or v, which needs a path such as attn.q."""
    base, x = nn.Sequential(OrderedDict((name, nn.Linear(8, 8)) for name in "qkvo")), torch.randn(3, 8)
    ours = with_adapter(copy.deepcopy(base), LoRA(rank=2, targets="q,v"))
    theirs = load_peft(copy.deepcopy(base), save_adapter(ours, tmp_path))
    assert ours.lora_lab_report.adapter_parameters == 2 * 2 * 16
    torch.testing.assert_close(theirs(x), ours(x), **CLOSE)
    load_adapter(base, tmp_path)
    torch.testing.assert_close(base(x), ours(x), **CLOSE)


@pytest.mark.parametrize("layers", [[0], [1]])
def test_layers_are_selected_by_the_same_number_as_in_peft(layers, tmp_path):
    stage = nn.Sequential(OrderedDict(fc=nn.Linear(8, 8), out=nn.Linear(8, 8)))
    blocks = nn.Sequential(OrderedDict(blocks=nn.Sequential(copy.deepcopy(stage), copy.deepcopy(stage))))
    ours, x = nn.Sequential(OrderedDict(stages=nn.Sequential(blocks))), torch.randn(3, 8)  # stages.0.blocks.1.fc
    config = peft.LoraConfig(target_modules=["fc"], layers_to_transform=layers)
    theirs = peft_model(copy.deepcopy(ours), config)
    load_adapter(ours, save_peft(theirs, tmp_path))
    torch.testing.assert_close(ours(x), theirs(x), **CLOSE)


@pytest.mark.parametrize("options", [{"rank_pattern": {"b.*": 3}}, {"alpha_pattern": {"b.*": 3}}])
def test_path_that_ends_a_longer_path_is_not_confused_with_it(options, tmp_path):
    inner, x = nn.Sequential(OrderedDict(a=nn.Linear(8, 8))), torch.eye(8)
    base = nn.Sequential(OrderedDict(a=nn.Linear(8, 8), b=inner))
    ours = with_adapter(copy.deepcopy(base), LoRA(rank=2, targets="all-linear", **options))
    theirs = load_peft(copy.deepcopy(base), save_adapter(ours, tmp_path / "ours"))
    torch.testing.assert_close(theirs(x), ours(x), **CLOSE)
    bank = AdapterBank(copy.deepcopy(base))
    bank.load("both", save_peft(theirs, tmp_path / "theirs"))
    only_a = peft_model(copy.deepcopy(base), peft.LoraConfig(target_modules="a"))
    bank.load("only a", save_peft(only_a, tmp_path / "only_a"))
    bank.blend({"both": 1.0, "only a": 0.0}, "mix")
    for name, expected in {"both": ours, "only a": only_a, "mix": ours}.items():
        bank.use(name)
        torch.testing.assert_close(bank.model(x), expected(x), **CLOSE)


@pytest.mark.parametrize(
    ("model", "targets", "place"),
    [
        (tiny("bert"), ["query", "classifier"], r"the task's head \(.*classifier.lora_A"),
        (make_model("SqueezeBertModel", embedding_size=32), ["query"], "a Conv1d"),
    ],
    ids=["head", "convolution"],
)
def test_lora_in_a_layer_that_the_lab_does_not_adapt_is_refused_with_advice(model, targets, place, tmp_path):
    peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=4, target_modules=targets)).save_pretrained(tmp_path)
    assert_raises(f"{place}.* merge the adapter in PEFT", load_adapter, model, tmp_path, unchanged=model)


def test_file_without_the_head_leaves_it_to_the_base(tmp_path):
    theirs = peft_model(tiny("roberta"), peft.LoraConfig(target_modules=["query"]))
    ours, again = tiny("roberta"), tiny("roberta")
    load_adapter(ours, save_peft(theirs, tmp_path / "theirs"))
    assert_same_outputs(ours, theirs)
    load_adapter(again, save_adapter(ours, tmp_path / "ours"))
    assert torch.equal(logits(again), logits(ours))
    bare, advice = tiny("roberta").roberta, "a head on top of this RobertaModel: load that"
    assert_raises(advice, load_adapter, bare, tmp_path / "theirs", unchanged=bare)


@pytest.mark.parametrize("targets", [["lm_head", "embed_tokens"], ["q_proj"]])
@pytest.mark.parametrize(
    ("parameter", "path"), [("model.embed_tokens.weight", "model.embed_tokens"), ("lm_head.bias", "lm_head")]
)
def test_file_with_other_embeddings_than_the_base_is_refused(parameter, path, targets, tmp_path):
    base = make_model("PhiForCausalLM")
    ours, other = copy.deepcopy(base), copy.deepcopy(base)
    theirs = peft_model(base, peft_lora("phi", targets))
    theirs.save_pretrained(tmp_path, save_embedding_layers=True)
    load_adapter(ours, tmp_path)
    assert_same_outputs(ours, theirs)
    other.get_parameter(parameter).data.add_(1)
    match = f"includes its own {path}, which differs .*: merge the adapter in PEFT first"
    assert_raises(match, load_adapter, other, tmp_path, unchanged=other)
    in_bf16 = peft_model(copy.deepcopy(other).bfloat16(), peft_lora("phi", targets))
    load_adapter(other, save_peft(in_bf16, tmp_path / "bf16"))  # PEFT copied the embeddings in bf16


def test_adapter_tied_by_peft_is_refused(tmp_path):
    save_peft(peft_model(tiny("llama"), peft_lora("llama", ["lm_head"], ensure_weight_tying=True)), tmp_path)
    assert_raises("ensure_weight_tying=True", load_adapter, tiny("llama"), tmp_path)
    theirs = peft_model(tiny("llama"), peft_lora("llama", ["q_proj"], ensure_weight_tying=True))  # nothing to tie
    load_adapter(ours := tiny("llama"), save_peft(theirs, tmp_path))
    assert_same_outputs(ours, theirs)


LORA_FILES = {
    "patterns with rsLoRA": ("roberta", LoRA(rank=4, rslora=True, rank_pattern={"*.0.*": 2}, alpha_pattern={"v": 3})),
    "names": ("roberta", LoRA(rank=2, targets=("layer.1.attention.self.query", "*.0.*.dense"))),
    "DoRA of a fused layer": ("gpt2", LoRA(rank=4, alpha=8, targets=("c_attn", "c_proj"), dora=True)),
    "q, k and v": ("gpt2", LoRA(rank=2, targets=("q", "k", "v"))),
    "unequal slices with rsLoRA": ("gpt2", LoRA(rank=4, rslora=True, rank_pattern={"q": 1}, alpha_pattern={"v": 2})),
    "slices of unequal layers": ("gpt2", LoRA(rank=3, rank_pattern={"*.1.*": 2}, alpha_pattern={"*.0.*": 5})),
    "slices of phi3": ("phi3", LoRA(rank=3, targets=("q", "v", "o", "down"))),
}


@pytest.mark.parametrize(("kind", "method"), LORA_FILES.values(), ids=LORA_FILES)
def test_peft_reads_our_loras(kind, method, tmp_path):
    ours, loaded = with_adapter(kind, method), tiny(kind)
    theirs = load_peft(tiny(kind), save_adapter(ours, tmp_path), is_trainable=True)
    if slices := [layer for layer in lora_layers(ours) if layer.out_slice]:
        # For PEFT, the slices of a layer are one adapter, whose rank is their sum.
        assert_same_outputs(ours, theirs)
        fused = next(layer for path, layer in theirs.named_modules() if path.endswith(("c_attn", "qkv_proj")))
        assert fused.r["default"] == sum(layer.rank for layer in slices[: len(slices) // 2])  # the first of two layers
    else:
        assert_same(ours, theirs)
    assert load_adapter(loaded, tmp_path) == report_of(ours)
    exact = not method.alpha_pattern and not method.rank_pattern
    torch.testing.assert_close(loaded.state_dict(), ours.state_dict(), rtol=0 if exact else 1e-6, atol=0)
    for actual, expected in zip(lora_layers(loaded), lora_layers(ours), strict=True):
        assert (actual.out_slice, actual.scaling) == (expected.out_slice, expected.scaling)
        assert torch.equal(actual.lora_A, expected.lora_A)


@pytest.mark.parametrize("targets", ["q", "down"])
def test_warning_about_dense_layers_that_peft_takes_for_experts(targets, tmp_path):
    size = {**BERT, "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 16}
    base = make_model("Qwen3MoeForCausalLM", size, num_experts=4, num_experts_per_tok=2, mlp_only_layers=[0])
    ours = with_adapter(copy.deepcopy(base), LoRA(rank=2, targets=targets))
    with warnings.catch_warnings(record=True) as caught:
        save_adapter(ours, tmp_path)
    assert [str(warning.message)[:26] for warning in caught] == ["PEFT may mistake down_proj"] * (targets == "down")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path)).eval()
    assert torch.allclose(logits(theirs), logits(ours), **CLOSE) == (targets == "q")


AS_LORA = {
    "PiSSA with rsLoRA": ("gpt2", LoRA(rank=3, init="pissa", rslora=True)),
    "PiSSA with patterns": ("gpt2", LoRA(rank=4, init="pissa", rank_pattern={"v": 2}, alpha_pattern={"q": 3})),
    "LoRA-XS": ("bert", LoRAXS(rank=4, alpha=6, targets=("query", "value"))),
}


@pytest.mark.parametrize(("kind", "method"), AS_LORA.values(), ids=AS_LORA)
def test_file_without_our_header_is_plain_lora(kind, method, tmp_path, monkeypatch):
    ours, loaded, plain = with_adapter(kind, method), tiny(kind), tiny(kind)
    theirs = load_peft(tiny(kind), save_adapter(ours, tmp_path))
    assert theirs.peft_config["default"].peft_type == "LORA"
    assert_same_outputs(ours, theirs)
    monkeypatch.setattr(torch.linalg, "svd", lambda *_, **__: pytest.fail("loading must not decompose the weights"))
    assert load_adapter(loaded, tmp_path).method == method
    assert_same_outputs(loaded, ours)
    tensors = {key: t for key, t in load_file(tmp_path / WEIGHTS).items() if ".loraxs_" not in key}
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})
    report = load_adapter(plain, tmp_path)
    assert (report.method.name, report.method.init) == ("lora", "kaiming")
    assert {type(layer) for layer in lora_layers(plain)} == {LoRALinear}
    assert_same_outputs(plain, ours)


T5 = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}


@pytest.mark.parametrize(
    ("name", "size", "task", "heads"),
    [
        ("T5ForConditionalGeneration", T5, "Seq2SeqLM", []),
        ("BertForQuestionAnswering", BERT, "QuestionAnswering", ["qa_outputs"]),
        ("BertForTokenClassification", BERT, "TokenClassification", ["classifier"]),
        ("BartForSequenceClassification", {**BART, "vocab_size": 8}, "SequenceClassification", ["classification_head"]),
        ("BertModel", BERT, "FeatureExtraction", []),
    ],
)
def test_auto_peft_model_of_the_task_loads_our_file(name, size, task, heads, tmp_path):
    base = make_model(name, size)
    base.save_pretrained(tmp_path / "base")
    ours = with_adapter(base.from_pretrained(tmp_path / "base").eval(), LoRA(rank=2))
    assert [head for head, _ in report_of(ours).heads] == heads
    save_adapter(ours, tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing|unexpected).*key.*")
        theirs = getattr(peft, f"AutoPeftModelFor{task}").from_pretrained(tmp_path / "ours").eval()
    torch.testing.assert_close(answer_of(theirs), answer_of(ours), **CLOSE)


def make_mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(a=nn.Sequential(OrderedDict(a=nn.Linear(8, 8), b=nn.ReLU())), b=nn.Linear(8, 3)))


def make_clip() -> nn.Module:
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16, "patch_size": 8}
    return make_model("CLIPForImageClassification", {"vision_config": vision}, num_labels=3)


@pytest.mark.parametrize(("make", "shape"), [(make_mlp, (2, 8)), (make_clip, (2, 3, 16, 16))])
def test_peft_loads_our_file_of_a_model_that_reads_no_text(make, shape, tmp_path):
    ours, x = with_adapter(make(), LoRA(rank=2, targets="all-linear")), torch.randn(shape)
    theirs = load_peft(make(), save_adapter(ours, tmp_path))
    outputs = [getattr(y, "logits", y) for y in (ours(x), theirs(x))]
    torch.testing.assert_close(*outputs, **CLOSE)


@pytest.mark.parametrize("dora", [False, True])
def test_dropout_equals_pefts(dora, tmp_path):
    theirs = peft_model(tiny("llama"), peft_lora("llama", use_dora=dora, lora_dropout=0.3))
    ours, outputs = tiny("llama"), []
    load_adapter(ours, save_peft(theirs, tmp_path))
    for model in (ours, theirs):
        torch.manual_seed(3)
        outputs.append(logits(model.train()))
    torch.testing.assert_close(*outputs, **CLOSE)
    assert not torch.allclose(outputs[0], logits(ours.eval()), atol=1e-3)


def test_pissa_starts_and_trains_as_peft():
    ours, plain = tiny("llama"), tiny("llama")
    theirs = peft.get_peft_model(tiny("llama"), peft_lora("llama", init_lora_weights="pissa")).eval()
    LoRA(rank=4, alpha=8, targets=PEFT_TARGETS["llama"], init="pissa").attach(ours)
    assert_same(ours, theirs)
    for model in (ours, theirs):
        optimizer = torch.optim.SGD([p for n, p in model.named_parameters() if "lora_" in n], lr=0.3)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
    assert_same_outputs(ours, theirs)
    assert not torch.allclose(logits(ours), logits(plain), atol=1e-3)
