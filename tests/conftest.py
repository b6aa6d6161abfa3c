"""What the tests share: the real models, loaded once, tiny random ones, a task, the command line; and no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that asks the hub is wrong
os.environ.setdefault("LORA_LAB_HEADLESS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, see lora_lab/__init__.py
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import copy
import random
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from hypothesis import HealthCheck, settings
from torch import nn

from lora_course import cli
from lora_lab import LoRA, Recipe, Run, load_tokenizer, save_adapter
from lora_lab.methods.lora_layers import LoRALayer
from lora_lab.methods.quant import import_bitsandbytes
from lora_lab.training.models import load_model
from lora_lab.training.watching import quiet

settings.register_profile("slow machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("slow machine")
BWRAP = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all"]
MARK = "<img src=x onerror=alert(1)>"
HOSTILE = f"{MARK} $\\frac{{ | * `x` \x1b[31m"  # a stranger's text: markup, half a formula, a terminal's command
PLAIN = {"dtype": "fp32", "attention": "eager", "device": "cpu"}  # of a recipe: nothing to measure
# Minutes in one file each: begun last, one of the two processes would wait for the other.
LONG = ("tests/notebooks/test_lessons.py", "tests/e2e/", "tests/test_first_adapter.py")


def sandboxed() -> bool:
    """Whether bubblewrap is installed and may make namespaces, which some containers forbid."""
    try:
        return subprocess.run([*BWRAP, "true"], check=False).returncode == 0
    except OSError:
        return False


no_sandbox = not sandboxed() and bool(shutil.which("bwrap") or "CI" not in os.environ)
needs_bwrap = pytest.mark.skipif(no_sandbox, reason="no bubblewrap here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; tests of a GPU need one."""
    items.sort(key=lambda item: next((n for n, start in enumerate(LONG) if item.nodeid.startswith(start)), len(LONG)))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


def pytest_configure() -> None:
    """Beside another process of the suite, what the tests start has one thread too: kernels, commands, JupyterLab."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def loaded() -> Callable[..., nn.Module]:
    """`loaded("minilm", num_labels=2)`: a fresh copy of a bundled model that was read from disk once."""
    kept: dict[tuple, nn.Module] = {}

    def fresh(name: str, num_labels: int | None = None, dtype: str = "fp32") -> nn.Module:
        key = (name, num_labels, dtype)
        if key not in kept:
            torch.manual_seed(0)
            kept[key] = load_model(name, num_labels, dtype=dtype)
        return copy.deepcopy(kept[key])

    return fresh


# Sizes of models that `tiny` does not make.
BERT = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
BART = {
    "vocab_size": 96, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
}  # fmt: skip


def tiny(kind: str) -> nn.Module:
    """A small random model of an architecture, the same at every call."""
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)
        config.eos_token_id = config.bos_token_id = 0
        return transformers.GPT2LMHeadModel(config).eval()
    encoder, grouped = {"max_position_embeddings": 66, "num_labels": 3}, {"num_key_value_heads": 2}
    made, more = {
        "bert": (transformers.BertForSequenceClassification, encoder),
        "roberta": (transformers.RobertaForSequenceClassification, encoder),
        "phi3": (transformers.Phi3ForCausalLM, {**grouped, "pad_token_id": 0, "eos_token_id": 0, "bos_token_id": 0}),
        "llama": (transformers.LlamaForCausalLM, {**grouped, "tie_word_embeddings": True}),
        "gemma2": (transformers.Gemma2ForCausalLM, {**grouped, "head_dim": 8}),  # its embedding has a scale
    }[kind]
    return made(made.config_class(**{**BERT, "num_hidden_layers": 2}, **more)).eval()


def snapshot(model: nn.Module) -> dict[str, tuple]:
    """What must not change when something is refused: every module's type and mode, every weight and whether it trains.

    Compare two with `==`: weights are held as bytes, so equal means equal to the bit.
    """
    modules = {name: (type(m).__name__, m.training) for name, m in model.named_modules()}
    weights = {
        f"{name}!": (
            p.requires_grad,
            p.dtype,
            tuple(p.shape),
            p.detach().contiguous().view(torch.uint8).numpy().tobytes(),
        )
        for name, p in model.named_parameters()
    }
    return {**modules, **weights, "": tuple(sorted(vars(model)))}


def randomise(model: nn.Module, seed: int = 2) -> None:
    """Fill whatever trains with random numbers, as training might leave it."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1, generator=generator)


def lora_layers(model: nn.Module) -> list[nn.Module]:
    """Every LoRA layer of a model."""
    return [module for module in model.modules() if isinstance(module, LoRALayer)]


def logits(model: nn.Module) -> torch.Tensor:
    """The model's answer to two rows of which one is padded."""
    ids = torch.randint(1, 96, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return model(input_ids=ids, attention_mask=mask).logits


def mapped(file: Path) -> bool:
    """Whether a tensor of this process is still a view of the file, which Windows then neither replaces nor deletes."""
    maps = Path("/proc/self/maps")  # Linux tells
    return maps.exists() and str(file) in maps.read_text()


@pytest.fixture
def silent():
    """transformers without its advice."""
    with quiet():
        yield


@pytest.fixture(scope="session")
def bitsandbytes():
    """The peer of 4-bit weights, which the test extra installs."""
    found = import_bitsandbytes()
    if found is None and not os.environ.get("CI"):
        pytest.skip("bitsandbytes does not start on this machine (in CI this is a failure)")
    assert found, "bitsandbytes is missing; the test extra installs it"
    return found


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models on one thread: where the cores are busy, threads that wait for each other are 10 times slower."""
    torch.set_num_threads(1)


# ---- a tiny model and a small task to train on


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> str:
    """The folder of a random BERT of width 32 with MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = load_tokenizer("minilm")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(**size, vocab_size=len(tokenizer), max_position_embeddings=128)
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_tokenizer(folder: Path, ends: Any = None, **special: str) -> int:
    """A tokenizer with a token for each byte after the special ones, and what encloses a text; returns its size."""
    tokens = [*dict.fromkeys(special.values()), *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())]
    letters = tokenizers.Tokenizer(tokenizers.models.BPE({token: n for n, token in enumerate(tokens)}, []))
    letters.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=ends is None)
    letters.decoder = tokenizers.decoders.ByteLevel()
    if ends:
        letters.post_processor = ends
    transformers.PreTrainedTokenizerFast(tokenizer_object=letters, **special).save_pretrained(folder)
    return len(tokens)


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory) -> str:
    """The folder of a random Llama of width 32 whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("causal")
    count = save_tokenizer(folder, eos_token="<end>")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.LlamaConfig(**size, vocab_size=count, bos_token_id=0, eos_token_id=0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def voices(tiny_causal, tmp_path_factory) -> dict[str, Path]:
    """Two adapters of the tiny Llama, which nobody trained: they say different things."""
    folder, found = tmp_path_factory.mktemp("voices"), {}
    for seed, name in enumerate(("captain", "json")):
        model = load_model(tiny_causal)
        LoRA(rank=2).attach(model)
        randomise(model, seed)
        found[name] = save_adapter(model, folder / name)
    return found


@pytest.fixture(scope="session")
def opinions(tmp_path_factory) -> str:
    """A CSV of 80 short opinions, whose label is plain from one word."""
    rng = random.Random(0)
    words = ["the", "film", "was", "long", "and", "its", "actors", "walked", "through", "rain", "to", "a", "house"]
    lines = ["text,label"]
    for n in range(80):
        label = ("bad", "good")[n % 2]
        text = " ".join(rng.sample(words, rng.randint(3, 9)))
        lines.append(f"{text} {n} {'awful' if label == 'bad' else 'lovely'},{label}")
    file = tmp_path_factory.mktemp("task") / "opinions.csv"
    file.write_text("\n".join(lines))
    return str(file)


@pytest.fixture
def recipe(tiny_encoder, opinions):
    """`recipe(steps=3)`: a run on the tiny encoder that takes a moment."""

    def make(**changes) -> Recipe:
        return Recipe(
            **{"model": tiny_encoder, "task": opinions, "steps": 4, "batch": 8, "validations": 2, **PLAIN, **changes}
        )

    return make


def made_run(recipe: Recipe, answers: Any = None, environment: dict[str, Any] | None = None, **metrics: float) -> Run:
    """A finished run that nobody trained, with the same metrics in its one validation and on test."""
    seen = [{"step": recipe.steps, "loss": 0.5} | metrics]
    history = {"step": [recipe.steps], "loss": [0.5], "lr": [recipe.lr], "validation": seen}
    return Run(recipe, metrics, history, 100, 10, 1000, 1.0, 1, environment or {}, predictions=answers)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is there to press a panel's buttons."""
    monkeypatch.delenv("LORA_LAB_HEADLESS")


# ---- the command line, in this process, where torch is imported already


@dataclass
class Done:
    """What a command left: as `subprocess.run` names it."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def lora_lab(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`lora_lab("sweep", "--rank", "4")`: the command, run to its end."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the command line sets

    def command(*words: str) -> Done:
        monkeypatch.setattr("sys.argv", ["lora-lab", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Done(int(left.value.code or 0), *capfd.readouterr())

    return command
