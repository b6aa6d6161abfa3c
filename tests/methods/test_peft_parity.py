"""PEFT is the peer: the same weights give the same outputs and gradients, and each reads the other's files."""

import copy
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from lora_lab import (
    IA3,
    LoRA,
    PrefixTuning,
    PromptTuning,
    TinyLoRA,
    VeRA,
    load_adapter,
    params,
    save_adapter,
)
from lora_lab.errors import BadValue
from lora_lab.methods.attach import report_of
from lora_lab.methods.base import Method
from lora_lab.methods.inspect import answer_of
from lora_lab.methods.io import CONFIG, WEIGHTS
from tests.conftest import BART, BERT, logits, lora_layers, randomise, tiny
from tests.methods.conftest import with_adapter

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
FUSED = {"gpt2": "c_attn", "phi3": "qkv_proj"}
TASK = dict.fromkeys(("minilm", "roberta", "bert"), "SEQ_CLS")


@pytest.fixture
def base(loaded) -> Callable[[str], nn.Module]:
    """`base("minilm")`: a fresh base model, the same weights at every call."""

    def fresh(kind: str) -> nn.Module:
        if kind not in ("minilm", "smollm2"):
            return tiny(kind)
        model = loaded(kind, 3 if kind == "minilm" else None)
        if kind == "smollm2":  # as real with fewer layers
            model.model.layers, model.config.num_hidden_layers = model.model.layers[:2], 2
        return model

    return fresh


def peft_model(model: nn.Module, config: peft.PeftConfig, seed: int = 1) -> peft.PeftModel:
    """The model with PEFT's adapter, all of it random, as training might leave it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fan_in_fan_out, which PEFT puts right itself; projections that are left out
        adapted = peft.get_peft_model(model, copy.deepcopy(config)).eval()
    randomise(adapted, seed)
    return adapted


def lora(kind: str, targets, **options) -> peft.LoraConfig:
    """PEFT's LoRA of rank 4 and alpha 8 for a model of that kind."""
    options = {"r": 4, "lora_alpha": 8, "task_type": TASK.get(kind, "CAUSAL_LM"), **options}
    return peft.LoraConfig(target_modules=targets, **options)


def save_peft(adapted: peft.PeftModel, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # embedding layers in target_modules
        adapted.save_pretrained(folder)
    return folder


def load_peft(model: nn.Module, folder: Path, **options) -> peft.PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tied embeddings
        warnings.filterwarnings("error", message=".*(missing|unexpected).*key(?!.*tinylora_P)")  # peft 0.19 to 0.21.1
        return peft.PeftModel.from_pretrained(model, str(folder), **options).eval()


def gradients(model: nn.Module) -> list[torch.Tensor]:
    """The gradients of a loss in the order of the parameters' names; PEFT's are brought into our form."""
    named = {plain(name): p for name, p in model.named_parameters() if p.requires_grad}
    out = logits(model)
    target = torch.arange(out.shape[0] * out.shape[-1]).view(out.shape[0], -1).float().cos()
    loss = ((out if out.dim() == 2 else out[:, 4]) * target).sum()
    found = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    vectors = [name for name in found if name.endswith(".v") or ".tinylora_v." in name]  # whose names differ in PEFT
    return [found[name] for name in (*vectors, *sorted(found.keys() - set(vectors)))]


def plain(name: str) -> str:
    name = name.removeprefix("base_model.model.").replace("modules_to_save.default", "trained")
    return name.replace(".default.weight", "").replace(".default", "")


def assert_alike(ours: nn.Module, theirs: nn.Module) -> None:
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)


def assert_the_same(ours: nn.Module, theirs: nn.Module) -> None:
    """In answers and in gradients."""
    assert_alike(ours, theirs)
    for place, (mine, other) in enumerate(zip(gradients(ours), gradients(theirs), strict=True)):
        scale = other.abs().max()
        torch.testing.assert_close(mine.squeeze() / scale, other.squeeze() / scale, **CLOSE, msg=f"gradient {place}")


def unordered(settings: dict[str, Any]) -> dict[str, Any]:
    """With sets in the place of lists: PEFT writes its targets in any order."""
    return {key: set(value) if isinstance(value, list | tuple) else value for key, value in settings.items()}


# ---- PEFT's files, loaded by us


QKV, DORA = ["query", "key", "value"], {"use_dora": True, "use_rslora": True}
VALUE = "roberta.encoder.layer.0.attention.self.value"
LOADED = {
    "a real encoder": ("minilm", ["query", "value"], {}),
    "a real decoder": ("smollm2", ["q_proj", "v_proj"], {}),
    "all-linear, which takes BERT's pooler in": ("minilm", "all-linear", {}),
    "a fused layer as a whole": ("gpt2", ["c_attn"], {}),
    "another": ("phi3", ["qkv_proj"], {}),
    "DoRA": ("roberta", ["query", "value"], DORA),
    # Files of embeddings hold a copy of the base's.
    "a tied embedding": ("llama", ["embed_tokens", "q_proj"], {}),
    "GPT-2's": ("gpt2", ["wte"], {}),
    "an embedding and the head": ("phi3", ["lm_head", "embed_tokens"], {}),
    "an embedding that scales": ("gemma2", ["embed_tokens"], {}),
    "patterns with rsLoRA": (
        "roberta",
        QKV,
        {"use_rslora": True, "rank_pattern": {"query": 2, r"layer\.1.*value": 5}, "alpha_pattern": {"layer.0.*key": 5}},
    ),
    "one layer as a number": ("roberta", QKV, {"layers_to_transform": 0}),
    "without one module": ("roberta", QKV, {"exclude_modules": ["layer.0.attention.self.query"]}),
    "a regular expression": ("roberta", r".*\.layer\.1\..*(query|key)", {}),
    "a full path, which is not bound to the layers": ("roberta", [VALUE, "query"], {"layers_to_transform": [1]}),
}
QV = {"bert": ("query", "value"), "llama": ("q_proj", "v_proj"), "gpt2": ("c_attn",)}
OTHERS: dict[str, tuple[str, Any, Method]] = {  # PEFT's config, and the method of ours that means the same
    "IA3, bert": ("bert", peft.IA3Config(), IA3(("key", "value", "output.dense"), ("output.dense",))),
    "IA3, gpt2": ("gpt2", peft.IA3Config(), IA3(("c_attn", "mlp.c_proj"), ("mlp.c_proj",))),
    "IA3, llama": ("llama", peft.IA3Config(), IA3(("k_proj", "v_proj", "down_proj"), ("down_proj",))),
    "prefix, gpt2": ("gpt2", peft.PrefixTuningConfig(num_virtual_tokens=5), PrefixTuning(tokens=5)),
    "prefix, llama": ("llama", peft.PrefixTuningConfig(num_virtual_tokens=5), PrefixTuning(tokens=5)),
    "VeRA, seed": (
        "llama",
        peft.VeraConfig(r=3, projection_prng_key=7, d_initial=0.5, save_projection=False),
        VeRA(rank=3, projection_seed=7, d_initial=0.5, save_projection=False),
    ),
    "TinyLoRA, tied": ("bert", peft.TinyLoraConfig(r=3, u=4, weight_tying=0.6), TinyLoRA(3, u=4, weight_tying=0.6)),
    "TinyLoRA, one for all": (
        "llama",
        peft.TinyLoraConfig(u=13, weight_tying=1.0, projection_seed=3, save_projection=False),
        TinyLoRA(u=13, weight_tying=1, projection_seed=3, save_projection=False),
    ),
    "TinyLoRA, a rank above the layers'": ("gpt2", peft.TinyLoraConfig(r=40, u=2), TinyLoRA(rank=40, u=2)),
}
for kind in QV:
    OTHERS |= {
        f"VeRA, {kind}": (kind, peft.VeraConfig(r=6), VeRA(rank=6)),
        f"TinyLoRA, {kind}": (kind, peft.TinyLoraConfig(u=5), TinyLoRA(u=5)),
        f"prompt, {kind}": (kind, peft.PromptTuningConfig(num_virtual_tokens=5), PromptTuning(tokens=5, init="random")),
    }
CASES = [pytest.param(kind, lora(kind, targets, **more), None, id=n) for n, (kind, targets, more) in LOADED.items()]
CASES += [pytest.param(*case, id=name) for name, case in OTHERS.items()]


@pytest.mark.parametrize(("kind", "config", "method"), CASES)
def test_pefts_file_answers_learns_and_is_written_the_same_here_and_peft_reads_ours(
    base, kind, config, method, tmp_path
):
    config.task_type = TASK.get(kind, "CAUSAL_LM")
    if isinstance(method, VeRA | TinyLoRA):
        config.target_modules, method = list(QV[kind]), replace(method, targets=QV[kind])
    theirs, ours = peft_model(base(kind), config), base(kind)
    before = logits(ours)
    report = load_adapter(ours, save_peft(theirs, tmp_path / "theirs"))
    assert_the_same(ours, theirs)
    assert not torch.allclose(logits(ours)[:, -1], before[:, -1], atol=1e-3)  # the adapter does something
    assert report.trainable == sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    trainable = not config.is_prompt_learning  # PEFT reads a prompt only to answer
    again = load_peft(base(kind), save_adapter(ours, tmp_path / "ours"), is_trainable=trainable)
    (assert_the_same if trainable else assert_alike)(ours, again)
    mine, other = (load_file(tmp_path / who / WEIGHTS) for who in ("ours", "theirs"))
    assert mine.keys() == {key for key in other if "base_layer" not in key}
    assert all(torch.equal(mine[key], other[key]) for key in mine)
    if method:
        assert (type(report.method), unordered(vars(report.method))) == (type(method), unordered(vars(method)))
        assert report.adapter_parameters == params(tiny(kind), method).trainable
        written, read = (json.loads((tmp_path / who / CONFIG).read_text()) for who in ("ours", "theirs"))
        assert unordered({key: read[key] for key in written}) == unordered(written)


class Routed(nn.Module):
    """A layer that is called as we call the role of another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mlp = nn.ModuleDict({"gate": nn.Linear(8, 4), "gate_proj": nn.Linear(8, 4)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp["gate"](x) * self.mlp["gate_proj"](x)


@pytest.mark.parametrize(
    "config",
    [peft.LoraConfig(target_modules=["gate"]), peft.IA3Config(target_modules=["gate"], feedforward_modules=[])],
)
def test_a_layer_whose_name_is_our_word_for_a_role_is_itself(config, tmp_path):
    theirs, ours, x = peft_model(Routed(), config), Routed(), torch.randn(3, 8)
    load_adapter(ours, save_peft(theirs, tmp_path))
    torch.testing.assert_close(ours(x), theirs(x), **CLOSE)


@pytest.mark.parametrize(
    "config",
    [peft.LoraConfig(target_modules=["query"]), peft.IA3Config(target_modules=["query"], feedforward_modules=[])],
)
def test_on_a_finished_classifier_the_head_may_be_left_to_the_base(config, tmp_path):
    theirs = peft_model(tiny("roberta"), config)
    ours, again = tiny("roberta"), tiny("roberta")
    load_adapter(ours, save_peft(theirs, tmp_path / "theirs"))
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)
    load_adapter(again, save_adapter(ours, tmp_path / "ours"))
    assert torch.equal(logits(again), logits(ours))


def test_an_embedding_that_differs_from_the_base_is_refused(tmp_path):
    other = tiny("phi3")
    other.model.embed_tokens.weight.data.mul_(2)
    save_peft(peft_model(other, lora("phi3", ["embed_tokens"])), tmp_path)
    with pytest.raises(ValueError, match=r"includes its own model.embed_tokens, which differs"):
        load_adapter(tiny("phi3"), tmp_path)


def test_an_adapter_that_peft_has_tied_is_refused_by_the_options_name(tmp_path):
    save_peft(peft_model(tiny("llama"), lora("llama", ["lm_head"], ensure_weight_tying=True)), tmp_path)
    with pytest.raises(BadValue, match="ensure_weight_tying=True"):
        load_adapter(tiny("llama"), tmp_path)


def test_the_bias_of_an_lm_head_is_compared_as_well(tmp_path):
    config = transformers.PhiConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    base = transformers.PhiForCausalLM(config).eval()
    other, again = copy.deepcopy(base), copy.deepcopy(base)
    save_peft(peft_model(base, lora("phi", ["lm_head"])), tmp_path)
    load_adapter(again, tmp_path)
    torch.testing.assert_close(logits(again), logits(base), **CLOSE)
    other.lm_head.bias.data.add_(1)
    with pytest.raises(ValueError, match="includes its own lm_head, which differs"):
        load_adapter(other, tmp_path)


# ---- our files, loaded by PEFT

READ = {
    "all patterns with rsLoRA": (
        "roberta",
        LoRA(rank=4, rslora=True, rank_pattern={"*.0.*": 2}, alpha_pattern={"v": 3}),
    ),
    "names": ("roberta", LoRA(rank=2, targets=("layer.1.attention.self.query", "*.0.*.dense"))),
    "DoRA": ("llama", LoRA(rank=4, alpha=8, targets=("q", "v", "down"), dora=True)),
    "DoRA of a fused layer": ("gpt2", LoRA(rank=4, alpha=8, targets=("c_attn", "c_proj"), dora=True)),
}


def assert_peft_reads(ours: nn.Module, fresh: nn.Module, folder: Path) -> peft.PeftModel:
    theirs = load_peft(fresh, save_adapter(ours, folder), is_trainable=True)
    torch.testing.assert_close(logits(theirs), logits(ours), **CLOSE)
    return theirs


@pytest.mark.parametrize(("kind", "method"), READ.values(), ids=READ)
def test_peft_reads_our_file_and_writes_the_same_tensors(base, kind, method, tmp_path):
    ours = with_adapter(base(kind), method)
    theirs = assert_peft_reads(ours, base(kind), tmp_path / "ours")
    assert_the_same(ours, theirs)
    save_peft(theirs, tmp_path / "theirs")
    mine, other = (load_file(tmp_path / who / WEIGHTS) for who in ("ours", "theirs"))
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[key], other[key]) for key in mine)


def test_in_a_fused_layer_ia3_leaves_q_alone(tmp_path):
    ours = with_adapter("gpt2", IA3())
    assert_peft_reads(ours, tiny("gpt2"), tmp_path)
    factors = load_file(tmp_path / WEIGHTS)["base_model.model.transformer.h.0.attn.c_attn.ia3_l"]
    assert factors.shape == (96, 1)
    assert (factors[:32] == 1).all()
    assert (factors[32:] != 1).all()
    assert report_of(ours).adapter_parameters == 2 * (32 + 32 + 128)


SLICED = {
    "q, k and v": LoRA(rank=2, targets=("q", "k", "v")),
    "unequal with rsLoRA": LoRA(rank=4, rslora=True, rank_pattern={"q": 1}, alpha_pattern={"v": 2}),
    "one layer differs": LoRA(rank=3, rank_pattern={"*.1.*": 2}, alpha_pattern={"*.0.*": 5}),
    "beside other layers": LoRA(rank=3, targets=("q", "v", "o", "down")),
}


@pytest.mark.parametrize(
    ("kind", "method"), [*(("gpt2", method) for method in SLICED.values()), ("phi3", SLICED["beside other layers"])]
)
def test_our_slices_are_one_peft_adapter_of_the_summed_rank_and_come_back_exactly(kind, method, tmp_path):
    ours, again = with_adapter(kind, method), tiny(kind)
    theirs = assert_peft_reads(ours, tiny(kind), tmp_path)
    layer = next(m for name, m in theirs.named_modules() if name.endswith(FUSED[kind]))
    slices = [x for name, x in ours.named_modules() if FUSED[kind] in name and ".0." in name and hasattr(x, "rank")]
    assert layer.r["default"] == sum(x.rank for x in slices)
    assert load_adapter(again, tmp_path) == report_of(ours)
    for mine, other in zip(lora_layers(ours), lora_layers(again), strict=True):
        assert (mine.out_slice, mine.rank, mine.scaling) == (other.out_slice, other.rank, other.scaling)
        assert torch.equal(mine.lora_A, other.lora_A)
        exact = method.alpha_pattern == () and method.rank_pattern == ()
        torch.testing.assert_close(mine.lora_B, other.lora_B, rtol=0 if exact else 1e-6, atol=0)


T5 = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}


@pytest.mark.parametrize(
    ("kind", "size", "task"),
    [
        ("T5ForConditionalGeneration", T5, "Seq2SeqLM"),
        ("BertForQuestionAnswering", BERT, "QuestionAnswering"),
        ("BertForTokenClassification", BERT, "TokenClassification"),
        ("BartForSequenceClassification", {**BART, "vocab_size": 8}, "SequenceClassification"),
        ("BertModel", BERT, "FeatureExtraction"),
    ],
)
def test_pefts_class_for_the_task_loads_our_file_with_its_base(kind, size, task, tmp_path):
    made = getattr(transformers, kind)
    made(made.config_class(**size)).save_pretrained(tmp_path / "base")
    ours = made.from_pretrained(tmp_path / "base").eval()
    with_adapter(ours, LoRA(rank=2))
    save_adapter(ours, tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing|unexpected).*key.*")
        theirs = getattr(peft, f"AutoPeftModelFor{task}").from_pretrained(tmp_path / "ours").eval()
    torch.testing.assert_close(answer_of(theirs), answer_of(ours), **CLOSE)


def test_an_adapter_of_pefts_has_none_of_ours_beside_its_a_and_b():
    model = peft.get_peft_model(tiny("llama"), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(BadValue, match=r"a PEFT adapter.*merge_and_unload"):
        LoRA(rank=2, targets="all-linear").attach(model)
