"""A random RoBERTa and a random GPT-2 in folders, with tokenizers whose tokens are bytes; GLUE's and E2E's files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from tokenizers.processors import RobertaProcessing


def letters(special: list[str]) -> tokenizers.Tokenizer:
    """A byte a token, as RoBERTa's and GPT-2's own tokenizers begin."""
    tokens = [*special, *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())]
    made = tokenizers.Tokenizer(tokenizers.models.BPE({token: n for n, token in enumerate(tokens)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    return made


@pytest.fixture(scope="session")
def roberta(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("roberta")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made = letters(special)
    made.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), special, strict=True))
    own = {"cls_token": "<s>", "sep_token": "</s>", "model_input_names": ["input_ids", "attention_mask"]}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names, **own).save_pretrained(folder)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        **size, vocab_size=len(special) + 256, max_position_embeddings=514, type_vocab_size=1
    )
    transformers.RobertaModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("gpt2")
    end = "<|endoftext|>"
    transformers.PreTrainedTokenizerFast(tokenizer_object=letters([end]), eos_token=end, bos_token=end).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=512, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def glue(tmp_path_factory) -> Path:
    """CoLA, RTE, MNLI and STS-B as they are downloaded, with a few sentences of our own."""
    folder, rng = tmp_path_factory.mktemp("glue"), random.Random(0)

    def write(name: str, header: str, lines: list[str]) -> None:
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join([header, *lines] if header else lines) + "\n", encoding="utf-8")

    def word() -> str:
        return rng.choice(["a boat", 'the "old" mill', "two foxes", "rain", "her uncle's hat"])

    for split, rows in (("train", 24), ("dev", 10)):
        good = [
            f"gj04\t{n % 2}\t{'' if n % 2 else '*'}\t{word()} {'sings' if n % 2 else 'sing of'}." for n in range(rows)
        ]
        write(f"CoLA/{split}.tsv", "", good)
        pairs = [f"{n}\t{word()}\t{word()}\t{('entailment', 'not_entailment')[n % 2]}" for n in range(rows)]
        write(f"RTE/{split}.tsv", "index\tsentence1\tsentence2\tlabel", pairs)
        scores = [f"{n}\tg\tf\t2012\t{n}\ts\ts\t{word()}\t{word()}\t{n % 6 * 0.9:.3f}" for n in range(rows)]
        header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
        write(f"STS-B/{split}.tsv", header, scores)
    columns = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
    columns += "sentence2_parse\tsentence1\tsentence2\tlabel1"
    names = ("entailment", "neutral", "contradiction")
    for split, rows, judges in (("train", 18, 1), ("dev_matched", 6, 5), ("dev_mismatched", 9, 5)):
        more = "".join(f"\tlabel{n}" for n in range(2, judges + 1))
        lines = [
            f"{n}\tp\tq\tg\tb\tb\tp\tp\t{word()}\t{word()}" + f"\t{names[n % 3]}" * (judges + 1) for n in range(rows)
        ]
        write(f"MNLI/{split}.tsv", f"{columns}{more}\tgold_label", lines)
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
