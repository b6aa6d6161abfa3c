import json
from collections import Counter

import huggingface_hub.file_download as hub
import pytest

from lora_lab.accounting import models
from lora_lab.accounting.memory import EDGES
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.attach import heads_of, sites_of
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from tests.accounting.conftest import attachable, described, real_model, small_config

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


def test_zoo_totals_are_the_official_ones():
    assert {name: models.architecture_of(name).total for name in models.zoo_names()} == OFFICIAL


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


def test_zoo_is_up_to_date():
    for name in models.zoo_names():
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


@pytest.mark.parametrize("config", [{"model_type": "gemma4_text"}, WHISPER], ids=str)
def test_unlisted_model_type_is_counted(config):
    model = models.meta_model(config)
    assert attachable(models.describe(model)) == sites_of(model)
    counted = params(config, LoRA(rank=1, targets="all-linear"))
    assert counted.total == sum(row.full for row in counted.modules) == sum(p.numel() for p in model.parameters()) > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_type": "lama"}, "unknown model_type 'lama'.*llama"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' of mine must be at most 10,000"),
        ({"hidden_size": "64"}, "'hidden_size'.*'64'"),
        ({"model_type": "gemma3n"}, "timm"),
        ('{"model_type": "llama"', "not readable as JSON"),
        (None, r"has no config\.json"),
    ],
)
def test_impossible_config_is_refused_in_one_line(content, message, tmp_path):
    (folder := tmp_path / "mine").mkdir()
    llama = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8}
    if content:
        text = content if isinstance(content, str) else json.dumps(llama | content)
        (folder / "config.json").write_text(text)
    with pytest.raises((BadValue, NotFound), match=message) as error:
        models.architecture_of(folder)
    assert "\n" not in str(error.value)


def test_impossible_num_labels_is_refused():
    for model, labels, match in (*(("minilm", n, "num_labels") for n in (0, True, "2")), (WHISPER, 2, "without num_")):
        with pytest.raises(BadValue, match=match):
            models.meta_model(model, labels)


def test_hub_id_is_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--maker--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(models.zoo()["smollm2"]))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    assert models.architecture_of("maker/model").total == OFFICIAL["smollm2"]
    assert models.architecture_of("maker/model").name == "model"
    with pytest.raises(NotFound, match="a hub id in the local cache"):
        models.architecture_of("maker/another")


def test_unknown_name_suggests_the_nearest():
    for name in ("not / a :: hub id", "~nobodyhere/x", "x" * 300, "a\0b"):
        with pytest.raises(NotFound, match="nearest: "):
            models.architecture_of(name)
    with pytest.raises(NotFound, match=r"'lama-2-70b'.*llama-2-70b"):
        models.architecture_of("lama-2-70b")
