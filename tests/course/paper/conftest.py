"""Fixtures for the tests of the paper's protocol: a tiny RoBERTa, and small files in the formats of GLUE and E2E."""

import random
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers.processors import RobertaProcessing

from tests.conftest import save_tokenizer


@pytest.fixture(scope="session")
def roberta(tmp_path_factory) -> str:
    """The folder of a random RoBERTa whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("roberta")
    special = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    vocab_size = save_tokenizer(folder, processor, **special, mask_token="<mask>")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.RobertaConfig(**size, vocab_size=vocab_size, max_position_embeddings=514, type_vocab_size=1)
    transformers.RobertaModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def glue(tmp_path_factory) -> Path:
    """A folder with CoLA, RTE, STS-B and MNLI, without header lines."""
    folder, rng = tmp_path_factory.mktemp("glue"), random.Random(0)
    nouns = ["a boat", 'the "old" mill', "two foxes", "rain", "her uncle's hat"]
    labels = ["entailment", "neutral", "contradiction"]
    formats = {
        "CoLA": lambda n, a, b: f"gj04\t{n % 2}\t{'' if n % 2 else '*'}\t{a} {'sings' if n % 2 else 'sing of'}.",
        "RTE": lambda n, a, b: f"{n}\t{a}\t{b}\t{('entailment', 'not_entailment')[n % 2]}",
        "STS-B": lambda n, a, b: f"{n}\tg\tf\t2012\t{n}\ts\ts\t{a}\t{b}\t{n % 6 * 0.9:.3f}",
        "MNLI": lambda n, a, b: f"{n}\tp\tq\tg\tb\tb\tp\tp\t{a}\t{b}\t{labels[n % 3]}\t{labels[n % 3]}",
    }
    for task, line in formats.items():
        (folder / task).mkdir()
        dev = {"dev_matched": 6, "dev_mismatched": 9} if task == "MNLI" else {"dev": 10}
        for split, rows in {"train": 24, **dev}.items():
            text = "".join(f"{line(n, *rng.choices(nouns, k=2))}\n" for n in range(rows))
            (folder / task / f"{split}.tsv").write_text(text)
    return folder


@pytest.fixture(scope="session")
def e2e(tmp_path_factory) -> Path:
    """A folder with E2E's three CSV files, with two references for each meaning."""
    folder = tmp_path_factory.mktemp("e2e")
    for name, places in (("trainset", "ABCDEF"), ("devset", "GH"), ("testset_w_refs", "IJ")):
        lines = ["mr,ref"]
        for place in places:
            meaning = f'"name[{place}], food[Thai], area[riverside]"'
            lines += [f"{meaning},{place} cooks Thai by the river.", f"{meaning},By the river {place} is Thai."]
        (folder / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder
