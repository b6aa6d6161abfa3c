"""The zoo's totals are the official ones, and every way of naming a model finds it."""

from __future__ import annotations

import json
import subprocess
import sys

import huggingface_hub.file_download as hub
import pytest

from lora_lab import LoRA, params
from lora_lab.accounting.memory import EDGES
from lora_lab.accounting.models import architecture_of, config_of, known_config, zoo, zoo_names
from lora_lab.errors import BadValue, NotFound

OFFICIAL = {
    "bert-base": 109_482_240,
    "roberta-base": 124_645_632,
    "roberta-large": 355_359_744,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt3-175b": 174_604_259_328,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-8b": 8_190_735_360,
    "phi-3-mini": 3_821_079_552,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2-27b": 27_227_128_320,
    "smollm2": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    # all-MiniLM-L6-v2: "22.7M"
    "minilm": 22_713_216,
    # published only as about 1.57 and 222.9 million
    "deberta-v2-xxlarge": 1_564_549_632,
    "t5-base": 222_903_552,
    # The official 671,026,419,200 counts 58 x 256 biases of the router, which transformers keeps as a buffer.
    "deepseek-v3": 671_026_419_200 - 58 * 256,
}


def test_every_total_is_the_official_one():
    assert {name: architecture_of(name).total for name in zoo_names()} == OFFICIAL


def test_a_folder_and_a_file_are_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(zoo()["gpt2"]))
    for place in (tmp_path, tmp_path / "config.json", str(tmp_path)):
        assert architecture_of(place).total == OFFICIAL["gpt2"]
    assert params(tmp_path, LoRA(), num_labels=2).head == 2 * 768


def test_a_hub_id_is_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--maker--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(zoo()["smollm2"]))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    assert architecture_of("maker/model").total == OFFICIAL["smollm2"]
    assert architecture_of("maker/model").name == "model"
    with pytest.raises(NotFound, match="no hub id in the local cache"):
        architecture_of("maker/another")


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(NotFound, match=r"'lama-2-70b'.*llama-2-70b"):
        architecture_of("lama-2-70b")
    with pytest.raises(NotFound, match="nearest there"):
        architecture_of("not / a :: hub id")


@pytest.mark.parametrize("name", ["~nobodyhere/x", "x" * 300, f"maker/{'x' * 300}", "a\0b"])
def test_a_name_that_cannot_be_a_path_is_an_unknown_one(name):
    with pytest.raises(NotFound, match="nearest there"):
        architecture_of(name)


def test_a_folder_without_a_config_and_a_damaged_one(tmp_path):
    with pytest.raises(NotFound, match=r"holds no config\.json"):
        architecture_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"')
    with pytest.raises(BadValue, match="not readable as JSON"):
        architecture_of(tmp_path)


@pytest.mark.parametrize("model", ["llama-3.1-405b", "no/such"])
def test_no_torch_is_needed(model):
    code = (
        "import sys, lora_lab.accounting.models as z\n"
        f"try: z.architecture_of({model!r})\n"
        "except LookupError: pass\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", zoo_names())
def test_a_window_that_transformers_would_fill_in_is_stated(name):
    """Fits are looked up without torch, so what their regimes depend on stands in the zoo itself."""
    config, known = config_of(name), known_config(config_of(name))
    for edge in EDGES:
        assert config.get(edge) == getattr(known, edge, None)
