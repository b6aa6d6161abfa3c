from dataclasses import replace

import peft
import pytest
import torch
import transformers
from torch import nn

from lora_lab import PrefixTuning, PromptTuning, PTuning, load_adapter, save_adapter
from lora_lab.errors import BadValue, LabWarning
from lora_lab.methods.merge import detach
from lora_lab.training.batches import check_fits
from lora_lab.training.tasks import Split, Task
from tests.conftest import logits, raises_unchanged, tiny, with_adapter
from tests.methods.conftest import CLOSE, edit_config, load_peft, peft_model

METHODS = {"prompt": PromptTuning(tokens=5), "ptuning": PTuning(tokens=5, hidden=24), "prefix": PrefixTuning(tokens=5)}


def make_inputs(rows: int = 2, tokens: int = 7) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 96, (rows, tokens), generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize(("kind", "task"), [("gpt2", "CAUSAL_LM"), ("bert", "SEQ_CLS")])
def test_ptuning_and_its_file_equal_peft(kind, task, tmp_path):
    config = peft.PromptEncoderConfig(num_virtual_tokens=5, encoder_hidden_size=24, task_type=task)
    theirs, ours, loaded, again = peft_model(tiny(kind), config), tiny(kind), tiny(kind), tiny(kind)
    METHODS["ptuning"].attach(ours)
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
    assert type(load_adapter(loaded, tmp_path / "theirs").method) is PTuning
    torch.testing.assert_close(logits(loaded), expected, **CLOSE)
    load_adapter(again, save_adapter(loaded, tmp_path / "again"))
    assert torch.equal(logits(again), logits(loaded))
    with pytest.raises(BadValue, match="train a new one"):
        logits(loaded.train())


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")  # renamed in later releases
def test_what_soft_methods_cannot_do_is_refused(tmp_path):
    save_adapter(with_adapter("gpt2", METHODS["prompt"]), tmp_path / "prompt")
    edit_config(num_virtual_tokens=6)(tmp_path / "prompt")
    config = peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="FEATURE_EXTRACTION")
    peft.get_peft_model(tiny("bert").bert, config).save_pretrained(tmp_path / "prefix")
    cases = (tiny("gpt2"), "prompt", "num_virtual_tokens"), (tiny("bert").bert, "prefix", "positions")
    for model, name, match in cases:
        with raises_unchanged(model, match):
            load_adapter(model, tmp_path / name)
    for name in METHODS:
        with pytest.raises(BadValue, match=f"no room for the vectors of {name}"):
            with_adapter("gpt2", METHODS[name]).generate(**make_inputs(), cache_implementation="static", max_length=9)
    model = with_adapter("gpt2", METHODS["prefix"])
    model.train().gradient_checkpointing_enable()
    with pytest.raises(BadValue, match="turn checkpointing off"):
        logits(model)


@pytest.mark.parametrize(("kind", "name"), [*(("gpt2", name) for name in METHODS), ("llama", "prefix")])
def test_generation_equals_repeated_forward_passes(kind, name):
    model, inputs = with_adapter(kind, METHODS[name]), make_inputs()
    greedy = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = inputs["input_ids"]
    for _ in range(6):
        last = model(input_ids=expected, attention_mask=torch.ones_like(expected)).logits[:, -1]
        expected = torch.cat([expected, last.argmax(-1, keepdim=True)], dim=1)
    for use_cache in (True, False):
        out = model.generate(**inputs, use_cache=use_cache, output_logits=True, return_dict_in_generate=True, **greedy)
        assert torch.equal(out.sequences, expected)
        torch.testing.assert_close(out.logits[-1], last, **CLOSE)
    padded = {key: nn.functional.pad(value, (3, 0)) for key, value in inputs.items()}
    beams = model.generate(**inputs, num_beams=2, **greedy)
    assert torch.equal(model.generate(**padded, num_beams=2, **greedy)[:, 3:], beams)


def gpt2_classifier() -> nn.Module:
    config = tiny("gpt2").config
    config.pad_token_id = 0
    return transformers.GPT2ForSequenceClassification(config).eval()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("roberta", name) for name in METHODS),
        ("llama", "prefix"),
        (gpt2_classifier, "prompt"),
        (gpt2_classifier, "prefix"),
    ],
)
def test_padding_does_not_change_outputs(kind, name):
    model, inputs = with_adapter(kind if isinstance(kind, str) else kind(), METHODS[name]), make_inputs()
    pad = int(kind == "roberta")
    ids = nn.functional.pad(inputs["input_ids"], (0, 3), value=pad)
    mask = nn.functional.pad(inputs["attention_mask"], (0, 3))
    padded, expected = model(ids, attention_mask=mask).logits, model(**inputs).logits  # ids as a positional argument
    torch.testing.assert_close(padded if padded.dim() == 2 else padded[:, :-3], expected, **CLOSE)


@pytest.mark.parametrize("name", ["prompt", "ptuning"])
def test_prompt_leaves_classes_that_look_like_token_labels(name):
    model = with_adapter("bert", METHODS[name])  # three classes
    model.config.problem_type = "multi_label_classification"
    assert model(**make_inputs(2, 3), labels=torch.rand(2, 3)).loss.isfinite()


def test_warning_about_padded_rows_of_a_causal_classifier():
    with pytest.warns(LabWarning, match="padded rows"):
        PromptTuning.from_peft({"num_virtual_tokens": 5}, gpt2_classifier())


@pytest.mark.parametrize(
    ("kind", "name", "limit"),
    [("bert", "ptuning", 60), ("bert", "prefix", 66), ("roberta", "prompt", 58)],  # a prefix takes no positions
)
def test_longest_text_beside_a_prompt(kind, name, limit):
    with_adapter(kind, METHODS[name])(**make_inputs(1, limit))
    task = Task("made", ("no", "yes"), limit, *[Split(())] * 3)
    check_fits(tiny(kind), task, METHODS[name])
    with pytest.raises(BadValue, match=f"exceeds the {limit} tokens"):
        check_fits(tiny(kind), replace(task, max_length=limit + 1), METHODS[name])


@pytest.mark.parametrize("kind", ["llama", "gemma2"])  # Gemma scales its embeddings
def test_prompt_starts_as_tokens_or_with_their_standard_deviation(kind):
    model = tiny(kind)
    embeddings = model.get_input_embeddings()(torch.arange(96))
    PromptTuning(tokens=5).attach(model)
    assert all((vector == embeddings).all(1).any() for vector in model.soft_prompt.prompt)
    detach(model)
    PromptTuning(tokens=50, init="random").attach(model)
    assert model.soft_prompt.prompt.std().item() == pytest.approx(embeddings.std().item(), rel=0.2)


@pytest.mark.filterwarnings("error::FutureWarning")  # no deprecated form of transformers' cache is used
@pytest.mark.parametrize(("kind", "limit"), [("bert", 0.01), ("gpt2", 1)])  # in a causal model, positions move too
def test_prefix_starts_with_a_small_effect_and_gets_gradients(kind, limit):
    model, before = tiny(kind), logits(tiny(kind))
    PrefixTuning(tokens=5).attach(model)
    assert 0 < (logits(model) - before).abs().max() < limit
    logits(model.train()).square().sum().backward()
    assert model.soft_prefix.prompt.grad.any()
