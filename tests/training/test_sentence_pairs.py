"""Two texts in one row: the model is told which token is of which text, as transformers' own tokenizer says it."""

import json

import pytest
import torch

from lora_lab import PrefixTuning, PromptTuning, load_model, load_task, load_tokenizer
from lora_lab.methods.probe import Probe
from lora_lab.training.batches import collate, encode
from lora_lab.training.evaluate import evaluate, logits_of
from lora_lab.training.pack import Pack
from lora_lab.training.probing import features

# The third and the fourth have the same tokens, and differ in where the second text begins.
PAIRS = [
    ("Ann ran.", "Ann moved."),
    ("It rained all day in the north.", "Dry."),
    ("a [SEP] b", "c"),
    ("a", "b [SEP] c"),
    ("One film.", "Two long films about the sea, with actors."),
]


@pytest.fixture
def pairs(tmp_path) -> str:
    """A task of pairs: the same ones to train on and to score."""
    rows = [json.dumps({"sentence1": a, "sentence2": b, "label": n % 2}) for n, (a, b) in enumerate(PAIRS)]
    for stem in ("train", "validation"):
        (tmp_path / f"{stem}.jsonl").write_text("\n".join(rows))
    return f"glue:rte:{tmp_path}"


def asked(model: str) -> dict[str, torch.Tensor]:
    """All pairs as the tokenizer itself encodes them."""
    firsts, seconds = map(list, zip(*PAIRS, strict=True))
    return dict(load_tokenizer(model)(firsts, seconds, padding=True, return_tensors="pt"))


@torch.no_grad()
def test_a_pair_is_answered_as_transformers_answers_it(tiny_encoder, pairs):
    task, tokenizer, model = load_task(pairs), load_tokenizer(tiny_encoder), load_model(tiny_encoder, 2)
    own = model(**asked(tiny_encoder)).logits
    rows = encode(task.test, task, tokenizer)
    torch.testing.assert_close(logits_of(model, collate(rows, tokenizer.pad_token_id)), own, atol=1e-6, rtol=1e-5)
    assert evaluate(model, rows, tokenizer.pad_token_id).predictions.tolist() == own.argmax(-1).tolist()
    Probe().attach(model)
    hidden = model.base_model(**asked(tiny_encoder)).last_hidden_state
    mask = asked(tiny_encoder)["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    found = torch.from_numpy(features(model, rows, tokenizer.pad_token_id, "cpu")).float()
    torch.testing.assert_close(found, mean, atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("method", [PromptTuning(3), PrefixTuning(3)], ids=lambda m: m.name)
def test_each_member_of_a_pack_reads_pairs_as_its_model_does_alone(recipe, pairs, tiny_encoder, method):
    pack = Pack([recipe(task=pairs, method=method, seed=seed, batch=2, max_length=64) for seed in (0, 1, 0)])
    for member in pack.members:
        for parameter in member.trained:
            parameter.normal_(std=0.1)
    rows = pack.rows_of("test")
    batch = collate([row for _ in pack.members for row in rows], pack.pad)
    answers = logits_of(pack.model.eval(), batch).chunk(3)
    for member, answer in zip(pack.members, answers, strict=True):
        own = member.model.eval()(**asked(tiny_encoder)).logits
        torch.testing.assert_close(answer, own, atol=1e-5, rtol=1e-5)
    uneven = collate([*rows[2:4], *rows[3:1:-1], *rows[2:4]], pack.pad)  # members whose tokens are alike, types apart
    answers, order = logits_of(pack.model, uneven).chunk(3), ([2, 3], [3, 2], [2, 3])
    for member, answer, places in zip(pack.members, answers, order, strict=True):
        own = member.model(**{name: given[places] for name, given in asked(tiny_encoder).items()}).logits
        torch.testing.assert_close(answer, own, atol=1e-5, rtol=1e-5)
