"""Tiny RoBERTa whose tokens are bytes; files of GLUE and E2E."""

import random
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers.processors import RobertaProcessing

from tests.conftest import save_tokenizer


@pytest.fixture(scope="session")
def roberta(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("roberta")
    special = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    ends = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    count = save_tokenizer(folder, ends, **special, mask_token="<mask>")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.RobertaConfig(**size, vocab_size=count, max_position_embeddings=514, type_vocab_size=1)
    transformers.RobertaModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def glue(tmp_path_factory) -> Path:
    """CoLA, RTE, MNLI and STS-B without header lines, with a few sentences of our own."""
    folder, rng = tmp_path_factory.mktemp("glue"), random.Random(0)
    names = ("entailment", "neutral", "contradiction")

    def word() -> str:
        return rng.choice(["a boat", 'the "old" mill', "two foxes", "rain", "her uncle's hat"])

    def line(task: str, n: int) -> str:
        if task == "CoLA":
            return f"gj04\t{n % 2}\t{'' if n % 2 else '*'}\t{word()} {'sings' if n % 2 else 'sing of'}."
        if task == "RTE":
            return f"{n}\t{word()}\t{word()}\t{('entailment', 'not_entailment')[n % 2]}"
        if task == "STS-B":
            return f"{n}\tg\tf\t2012\t{n}\ts\ts\t{word()}\t{word()}\t{n % 6 * 0.9:.3f}"
        return f"{n}\tp\tq\tg\tb\tb\tp\tp\t{word()}\t{word()}\t{names[n % 3]}\t{names[n % 3]}"

    for task in ("CoLA", "RTE", "STS-B", "MNLI"):
        (folder / task).mkdir()
        sizes = {"dev_matched": 6, "dev_mismatched": 9} if task == "MNLI" else {"dev": 10}
        for split, rows in {"train": 24, **sizes}.items():
            (folder / task / f"{split}.tsv").write_text("\n".join(line(task, n) for n in range(rows)) + "\n")
    return folder


@pytest.fixture(scope="session")
def e2e(tmp_path_factory) -> Path:
    """E2E's three files in its own form: several references to each meaning."""
    folder = tmp_path_factory.mktemp("e2e")
    for name, places in (("trainset", "ABCDEF"), ("devset", "GH"), ("testset_w_refs", "IJ")):
        lines = ["mr,ref"]
        for place in places:
            meaning = f'"name[{place}], food[Thai], area[riverside]"'
            lines += [f"{meaning},{place} cooks Thai by the river.", f"{meaning},By the river {place} is Thai."]
        (folder / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder
