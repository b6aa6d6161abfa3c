"""Fixtures and helpers of all tests: models, a small task, runs, and the command line. Tests have no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LORA_LAB_HEADLESS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before importing torch, see lora_lab/__init__.py
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for this process and all that it starts, before importing numpy
    os.environ["OMP_NUM_THREADS"] = "1"

import gc
import random
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import tokenizers
import torch
import transformers
from hypothesis import HealthCheck, settings

from lora_course import cli
from lora_lab import BadValue, LoRA, Recipe, Run, load_model, load_tokenizer, save_adapter
from lora_lab.methods.lora_layers import LoRALayer
from lora_lab.methods.quant import import_bitsandbytes

sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # nbformat's import of it takes a second
settings.register_profile("slow machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("slow machine")
ROOT = Path(__file__).parents[1]
BWRAP = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all"]
MARK = "<img src=x onerror=alert(1)>"
HOSTILE = f"{MARK} $\\frac{{ | * `x` \x1b[31m"  # HTML, half a formula, a terminal escape
PLAIN = {"dtype": "fp32", "attention": "eager", "device": "cpu"}  # recipe settings that need no measurement
# Each of these takes minutes. If one of them started last, one of the two processes would be idle meanwhile.
SLOW_FILES = ("tests/notebooks/test_lessons.py", "tests/e2e/", "tests/test_first_adapter.py")
bwrap = shutil.which("bwrap")
no_sandbox = subprocess.run([*BWRAP, "true"], check=False).returncode != 0 if bwrap else "CI" not in os.environ
needs_bwrap = pytest.mark.skipif(no_sandbox, reason="bubblewrap does not work here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gc.freeze()  # otherwise, checking the libraries' objects for garbage takes a tenth of the time
    gc.set_threshold(100_000, 20, 20)
    items.sort(key=lambda item: [*map(item.nodeid.startswith, SLOW_FILES), True].index(True))
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


# Sizes of other tiny models
BERT = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
BART = {
    "vocab_size": 96, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
}  # fmt: skip
TWO_LAYERS, ENDS = {**BERT, "num_hidden_layers": 2}, {"eos_token_id": 0, "bos_token_id": 0}
ENCODER = {**TWO_LAYERS, "max_position_embeddings": 66, "num_labels": 3}
GROUPED = {**TWO_LAYERS, "num_key_value_heads": 2}
TINY = {
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **ENDS}),
    "bert": ("BertForSequenceClassification", ENCODER),
    "roberta": ("RobertaForSequenceClassification", ENCODER),
    "phi3": ("Phi3ForCausalLM", {**GROUPED, **ENDS, "pad_token_id": 0}),
    "llama": ("LlamaForCausalLM", {**GROUPED, "tie_word_embeddings": True}),
    "wide": ("LlamaForCausalLM", {**TWO_LAYERS, "hidden_size": 256, "intermediate_size": 512}),
    "gemma2": ("Gemma2ForCausalLM", {**GROUPED, "head_dim": 8}),  # scales its embeddings
    "opt": ("OPTForCausalLM", {**TWO_LAYERS, "ffn_dim": 64, "word_embed_proj_dim": 24}),  # narrower embeddings
}


def make_model(name: str, size=BERT, **options):
    """Return a small random model of a class of transformers, always with the same weights."""
    torch.manual_seed(0)
    cls = getattr(transformers, name)
    return cls(cls.config_class(**{**size, **options})).eval()


def tiny(kind: str):
    return make_model(*TINY[kind])


def snapshot(model) -> dict[str, tuple]:
    """Return a model's state for comparison with `==`: types and modes of modules, and weights bit by bit."""
    modules = {name: (type(m).__name__, m.training) for name, m in model.named_modules()}
    weights = {
        f"{name}!": (p.requires_grad, p.dtype, p.shape, p.detach().contiguous().view(torch.uint8).numpy().tobytes())
        for name, p in model.named_parameters()
    }
    return {**modules, **weights, "": tuple(sorted(vars(model)))}


def randomise(model, seed: int = 2) -> None:
    """Fill the trainable parameters with random numbers, as if they had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1, generator=generator)


def with_adapter(base, method, seed: int = 2):
    model = tiny(base) if isinstance(base, str) else base
    method.attach(model)
    randomise(model, seed)
    return model


def assert_raises(match, function, *arguments, error=BadValue, unchanged=None, **options) -> None:
    """Check that the call raises a one-line error that matches, and that the model `unchanged` doesn't change."""
    before = unchanged is not None and snapshot(unchanged)
    with pytest.raises(error, match=match) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert unchanged is None or snapshot(unchanged) == before


def lora_layers(model):
    return [module for module in model.modules() if isinstance(module, LoRALayer)]


def logits(model, ids: torch.Tensor | None = None) -> torch.Tensor:
    """Return the model's logits for these tokens, or for two rows, one of which is padded."""
    if ids is not None:
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    ids = torch.randint(1, 96, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return model(input_ids=ids, attention_mask=mask).logits


def mapped(file: Path) -> bool:
    """Return whether this process still maps the file, which Windows could not replace meanwhile. Needs Linux."""
    maps = Path("/proc/self/maps")
    return maps.exists() and str(file) in maps.read_text()


@pytest.fixture(scope="session")
def bitsandbytes():
    """The module bitsandbytes. If it is missing, tests fail in CI and are skipped elsewhere."""
    module = import_bitsandbytes()
    if module is None and not os.environ.get("CI"):
        pytest.skip("bitsandbytes does not start on this machine")
    assert module, "bitsandbytes is missing; the test extra installs it"
    return module


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Use one thread: on busy cores, tiny models are 10 times slower with several."""
    torch.set_num_threads(1)


# ---- a tiny model and a small task to train on


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> str:
    """The folder of a random BERT of width 32 with MiniLM's tokenizer."""
    folder, tokenizer = tmp_path_factory.mktemp("encoder"), load_tokenizer("minilm")
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
    make_model("BertModel", TWO_LAYERS, **size).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_tokenizer(folder: Path, ends=None, **special: str) -> int:
    """Save a tokenizer whose tokens are bytes, and return its size; `ends` is its post-processor."""
    tokens = [*dict.fromkeys(special.values()), *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({token: n for n, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=ends is None)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    if ends:
        tokenizer.post_processor = ends
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return len(tokens)


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory) -> str:
    """The folder of a random Llama of width 32 whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("causal")
    vocab_size = save_tokenizer(folder, eos_token="<end>")
    make_model("LlamaForCausalLM", TWO_LAYERS, vocab_size=vocab_size, **ENDS).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def voices(tiny_causal, tmp_path_factory) -> dict[str, Path]:
    """The folders of two random adapters of the tiny Llama, which answer differently."""
    models = {name: with_adapter(load_model(tiny_causal), LoRA(rank=2), len(name)) for name in ("captain", "json")}
    return {name: save_adapter(model, tmp_path_factory.mktemp(name)) for name, model in models.items()}


@pytest.fixture(scope="session")
def opinions(tmp_path_factory) -> str:
    """The path of a CSV file with 80 short texts, whose label depends on one word."""
    rng, lines = random.Random(0), ["text,label"]
    words = ["the", "film", "was", "long", "and", "its", "actors", "walked", "through", "rain", "to", "a", "house"]
    for n in range(80):
        text = " ".join(rng.sample(words, rng.randint(3, 9)))
        lines.append(f"{text} {n} {('awful,bad', 'lovely,good')[n % 2]}")
    file = tmp_path_factory.mktemp("task") / "opinions.csv"
    file.write_text("\n".join(lines))
    return str(file)


@pytest.fixture
def recipe(tiny_encoder, opinions):
    """Return a function that makes a quick recipe: `recipe(steps=3)`."""
    defaults = {"model": tiny_encoder, "task": opinions, "steps": 4, "batch": 8, "validations": 2, **PLAIN}
    return lambda **changes: Recipe(**{**defaults, **changes})


def made_run(recipe: Recipe, answers=None, environment=None, **metrics: float) -> Run:
    """Return an invented finished run whose only validation has the metrics of its test."""
    validation = [{"step": recipe.steps, "loss": 0.5} | metrics]
    history = {"step": [recipe.steps], "loss": [0.5], "lr": [recipe.lr], "validation": validation}
    return Run(recipe, metrics, history, 100, 10, 1000, 1.0, 1, environment or {}, predictions=answers)


def said(panel, does: str, **more) -> None:
    panel._handle_custom_msg({"do": does, **more}, [])


def until(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        time.sleep(0.02)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORA_LAB_HEADLESS")


# ---- the command line, in this process: this is faster, because torch is already imported


@pytest.fixture
def lora_lab(monkeypatch, capfd):
    """Return a function that runs a command: `lora_lab("sweep", "--rank", "4")`."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command line replaces it

    def run(*arguments: str) -> CompletedProcess:
        monkeypatch.setattr("sys.argv", ["lora-lab", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        return CompletedProcess(arguments, int(exit_info.value.code or 0), *capfd.readouterr())

    return run
