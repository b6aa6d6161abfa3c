import copy
import json
from collections import Counter
from pathlib import Path

import huggingface_hub.file_download as hub
import numpy as np
import peft
import pytest
import torch
import transformers

from lora_lab import IA3, BadValue, FullFineTuning, LoRA, NotFound, PrefixTuning, memory, params, save_adapter
from lora_lab.accounting import models
from lora_lab.accounting.memory import EDGES
from lora_lab.accounting.models import describe, meta_model
from lora_lab.methods import method_from
from lora_lab.methods.attach import heads_of, sites_of
from lora_lab.methods.io import WEIGHTS
from lora_lab.methods.quant import quantize_model
from tests.accounting.conftest import SMALL, attachable, described, real_model, small_config
from tests.conftest import BART, BERT, assert_raises, make_model, tiny

CASES = [
    ("bert", 3), ("roberta", 3), ("deberta-v2 relative", None), ("gpt2 inner", None), ("llama", 3),
    ("llama tied", None), ("phi3", None), ("qwen3_moe", None), ("deepseek_v3", None), ("gpt_oss", None),
    ("t5 gated", None),
]  # fmt: skip
OFFICIAL = {
    "bert-base": 109_482_240, "roberta-base": 124_645_632, "roberta-large": 355_359_744,
    "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200,
    "gpt3-175b": 174_604_259_328,
    "llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320, "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248, "llama-3-70b": 70_553_706_496, "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096, "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304, "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648, "qwen3-8b": 8_190_735_360,
    "phi-3-mini": 3_821_079_552,
    "gemma-2-2b": 2_614_341_888, "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320,
    "smollm2": 134_515_008, "smollm2-360m": 361_821_120, "smollm2-1.7b": 1_711_376_384,
    "gpt-oss-20b": 20_914_757_184, "gpt-oss-120b": 116_829_156_672,
    # The next three are published only as rounded numbers: 22.7 million, 1.57 billion and 222.9 million.
    "minilm": 22_713_216, "deberta-v2-xxlarge": 1_564_549_632, "t5-base": 222_903_552,
    # The official 671,026,419,200 counts 58 x 256 biases of the router, which transformers keeps as a buffer.
    "deepseek-v3": 671_026_419_200 - 58 * 256,
}  # fmt: skip


@pytest.mark.parametrize(("case", "labels"), CASES)
def test_description_equals_the_real_model(case, labels):
    config = small_config(case)
    model, architecture = real_model(config, labels), described(config, labels)
    counts: Counter[str] = Counter()
    for module in architecture.modules:  # experts and sinks count toward the module that holds them
        counts[module.name.split(".*")[0].removesuffix(".sinks")] += module.parameters * module.count
    named = [name.rpartition(".")[0].removesuffix(".sinks") for name, _ in model.named_parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]  # a tied weight counts where it occurs first
    assert +counts == sum((Counter({name: size}) for name, size in zip(named, sizes, strict=True)), Counter())
    assert architecture.total == sum(sizes)
    assert attachable(architecture) == sites_of(model)
    head = sum(p.numel() for _, head in heads_of(model) for p in head.parameters())
    counted = params(architecture, FullFineTuning())
    assert (counted.head, counted.trainable) == (head, architecture.total - head)


def test_zoo_is_up_to_date_and_has_the_official_totals():
    assert {name: models.architecture_of(name).total for name in models.zoo()} == OFFICIAL
    for name in models.zoo():
        stored = models.architecture_of(name)
        assert models.describe(models.meta_model(name), name) == stored, name
        assert sum(row.full for row in params(name, LoRA(rank=2, targets="all-linear")).modules) == stored.total, name
        # Fits are found without torch, so the zoo must contain the fields that define their regimes.
        config, known = models.config_of(name), models.known_config(models.config_of(name))
        assert all(config.get(edge) == getattr(known, edge, None) for edge in EDGES), name


@pytest.mark.parametrize("case", ["deberta-v2 relative", "gpt2 inner"])
def test_config_saved_by_transformers_has_the_same_description(case, tmp_path):
    """transformers omits some fields and renames others."""
    config = small_config(case)
    real_model(config).config.save_pretrained(tmp_path)
    for path in (tmp_path, str(tmp_path / "config.json")):
        assert models.architecture_of(path).modules == described(config).modules


WHISPER = {"model_type": "whisper"}


QWEN_57B = {"model_type": "qwen2_moe", "num_hidden_layers": 1, "shared_expert_intermediate_size": 20_480}


GEMMA = {"model_type": "gemma4_text", "vocab_size_per_layer_input": 262_144}  # large, but not a number of layers


@pytest.mark.parametrize("config", [GEMMA, WHISPER, QWEN_57B], ids=str)
def test_unlisted_model_type_is_counted(config):
    model = models.meta_model(config)
    assert attachable(models.describe(model)) == sites_of(model)
    counted = params(config, LoRA(rank=1, targets="all-linear"))
    assert counted.total == sum(row.full for row in counted.modules) == sum(p.numel() for p in model.parameters()) > 0


@pytest.mark.parametrize("name", ["Llava", "Pix2Struct"])
def test_model_with_images_is_counted_with_its_language_head(name):
    config = getattr(transformers, f"{name}Config")()
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    assert params(config.to_dict(), LoRA(targets="all-linear")).total == sum(p.numel() for p in model.parameters())


def test_number_of_labels_may_be_numpys():
    first, second = (params("minilm", LoRA(rank=3), num_labels=labels) for labels in (np.int64(7), 7))
    assert first.head == second.head == 7 * 385


def test_transposed_experts_of_llama4_are_counted_by_input_and_output():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_local_experts": 2}
    experts = [m for m in described({"model_type": "llama4_text", **sizes}).modules if m.kind == "expert"]
    shapes = {module.role: (module.in_features, module.out_features) for module in experts}
    assert shapes == {"gate": (32, 48), "up": (32, 48), "down": (48, 32)}


REFUSED = [  # a model, its number of labels, and the reason
    (small_config("llama", model_type="lama"), None, "unknown model_type 'lama'.*llama"),
    (small_config("llama", num_hidden_layers=10**9), None, "'num_hidden_layers' of .* must be at most 20,000"),
    (small_config("llama", hidden_size="64"), None, "'hidden_size'.*'64'"),
    (small_config("llama", model_type="gemma3n"), None, "timm"),
    ("broken", None, "not readable as JSON"),
    ("empty", None, r"has no config\.json"),
    *((name, None, "nearest: ") for name in ("not / a :: hub id", "~nobodyhere/x", "x" * 300, "a\0b")),
    ("lama-2-70b", None, "'lama-2-70b'.*llama-2-70b"),
    *(("minilm", labels, "num_labels") for labels in (0, True, "2")),
    (WHISPER, 2, "without num_"),
]


def test_impossible_model_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "broken"):
        Path(folder).mkdir()
    Path("broken", "config.json").write_text('{"model_type": "llama"')
    for model, labels, message in REFUSED:
        assert_raises(message, models.meta_model, model, labels, error=(BadValue, NotFound))


def test_hub_id_is_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--maker--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(models.zoo()["smollm2"]))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    assert models.architecture_of("maker/model").total == OFFICIAL["smollm2"]
    assert models.architecture_of("maker/model").name == "model"
    assert_raises("a hub id in the local cache", models.architecture_of, "maker/another", error=NotFound)


def test_fused_layer_is_listed_by_slices_if_a_slice_trains():
    rows = {row.name: row for row in params("gpt2", LoRA(rank=4)).modules}
    q, k = rows["transformer.h.*.attn.c_attn[q]"], rows["transformer.h.*.attn.c_attn[k]"]
    assert (q.trained, k.trained, q.full, q.break_even_rank) == (12 * 4 * 2 * 768, 0, 12 * 769 * 768, 384)
    assert rows["transformer.h.*.mlp.c_fc"].break_even_rank == 768 * 3072 / (768 + 3072)
    counted = params("gpt2", LoRA(rank=2, targets=("*.0.attn.c_attn", "transformer.h.1.attn.c_attn[q]")))
    assert sum(row.full for row in counted.modules) == counted.total
    assert counted.trainable == 2 * (4 * 768) + 2 * (2 * 768)


def test_published_and_expected_counts():
    # From method_comparison/MetaMathQA in huggingface/peft. For LoRA, see test_memory.py and tests/course.
    assert params("llama-3.2-3b", IA3()).trainable == 286_720
    assert params("llama-3.2-3b", PrefixTuning(tokens=200)).trainable == 11_468_800
    embeddings = params("t5-base", LoRA(targets="embed"))  # without `shared`, which is never called
    assert embeddings.trainable == 2 * 8 * (32_128 + 768)
    gemma3 = {"model_type": "gemma3", "text_config": small_config("gemma3_text")}  # of text and images
    assert params(gemma3, method_from({"name": "prompt", "tokens": 3})).trainable == 3 * 40
    # Each expert has its own adapter.
    for patterns, ranks in (({}, 12), ({"*.experts.*.up_proj": 2}, 10)):
        method = LoRA(rank=4, targets=("gate", "up", "down"), rank_pattern=patterns)
        assert params("mixtral-8x7b", method).trainable == 32 * 8 * ranks * (4096 + 14_336)


@pytest.mark.parametrize("name", ["LlamaModel", "BertForMaskedLM"])
def test_loaded_model_of_another_class_is_counted(name):
    model = make_model(name)
    counted = params(model, LoRA(rank=2))
    assert counted.total == sum(row.full for row in counted.modules) == sum(p.numel() for p in model.parameters())
    assert_raises(f"the memory of a {name} is unknown", memory, model, LoRA(rank=2))
    assert counted.trainable == LoRA(rank=2).attach(model).adapter_parameters


@pytest.mark.parametrize("name", ["MarianMTModel", "PegasusForConditionalGeneration", "RoFormerForMaskedLM"])
def test_full_fine_tuning_keeps_sinusoidal_positions(name):
    model, method = make_model(name, {**BERT, **BART}, pad_token_id=0), FullFineTuning()
    counted, report = params(model, method), method.attach(model)
    constant = {n: p.numel() for n, p in model.named_parameters() if not p.requires_grad}
    assert {n.split(".")[-2] for n in constant} == {"embed_positions"}
    assert counted.trainable == report.trainable == counted.total - sum(constant.values())
    assert counted.adapter_bytes == 4 * report.total


def test_quantized_or_adapted_model_is_counted_as_the_plain_one():
    model = tiny("bert")
    plain = params(model, LoRA(rank=2))
    quantize_model(model)
    assert params(model, LoRA(rank=2)) == plain
    LoRA(rank=4).attach(model)
    assert params(model, LoRA(rank=2)) == plain


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_experts_are_counted_although_they_cannot_be_attached_to(case):
    method = LoRA(rank=2, targets=("o", "down"))
    counted = params(described(small_config(case)), method)
    in_experts = sum(row.trained for row in counted.modules if ".experts." in row.name)
    model = real_model(small_config(case))
    if case == "mixtral":  # all its layers named `down` are in experts, which contain no linear layers
        with pytest.raises(NotFound):
            method.attach(model)
        method = LoRA(rank=2, targets="o")
    assert counted.trainable - in_experts == method.attach(model).adapter_parameters
    assert ["one adapter per expert" in note for note in counted.notes] == [True]
    counted = params(described(small_config(case)), LoRA(rank=1, targets="all-linear"))
    assert ["all-linear leaves out experts and routers" in note for note in counted.notes] == [True]
    assert ["header" in note for note in params(model, FullFineTuning()).notes] == [True]
    assert params({"model_type": "jetmoe", "num_hidden_layers": 1}, LoRA(targets="all-linear")).notes == ()


def test_count_and_file_size_are_exact(tmp_path):
    for case, labels, method in (
        ("bert", 3, LoRA(rank=3, targets=("all-linear", "embed"), rank_pattern={"q": 12})),
        ("gpt2", None, LoRA(rank=3, targets=("c_attn",), dora=True)),
        ("gpt2", 2, LoRA(rank=2, rank_pattern={"q": 5})),
        ("phi3", None, LoRA(rank=3, targets=("q", "gate", "down"), init="pissa", freeze_a=True)),
        *((case, None, LoRA(rank=2)) for case in ("t5", "mixtral")),
    ):
        model = real_model(small_config(case), labels, device="cpu")
        report = method.attach(model)
        counted = params(described(small_config(case), num_labels=labels), method)
        assert counted.trainable == report.adapter_parameters
        assert counted.adapter_bytes == (save_adapter(model, tmp_path) / WEIGHTS).stat().st_size


def test_retired_option_is_accepted_only_at_its_default():
    for name, option, value in (("full", "top", 2), ("prefix", "form", "activations"), ("bottleneck", "layernorms", 2)):
        settings = method_from({"name": name}).settings()
        assert option in settings  # keeps the hashes of older recipes
        assert method_from(settings).settings() == settings
        assert_raises(f"no option '{option}'", method_from, {**settings, option: value})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SMALL)
def test_count_equals_peft(kind):
    model = meta_model(small_config(kind))

    def peft_count(targets: list[str] | str, exclude: str | None = None) -> int:
        lora = peft.LoraConfig(r=2, target_modules=targets, exclude_modules=exclude)
        adapted = peft.get_peft_model(copy.deepcopy(model), lora)
        return sum(p.numel() for p in adapted.parameters() if p.requires_grad)

    sites = [s for s in describe(model).sites if s.kind == "linear" and s.out_slice is None]
    attention = [s for s in sites if s.role not in ("head", "pooler") and "mlp" not in s.module]
    names = list({s.module.rpartition(".")[2] for s in attention})
    assert params(model, LoRA(rank=2, targets=names)).trainable == peft_count(names) > 0
    if kind not in ("mixtral", "qwen3_moe", "deepseek_v3"):  # PEFT's all-linear includes experts and routers
        count = params(model, LoRA(rank=2, targets="all-linear")).trainable
        assert count == peft_count("all-linear", exclude=r".*pooler\.dense" if "bert" in kind else None)
