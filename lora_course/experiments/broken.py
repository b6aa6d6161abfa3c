"""The patients in lesson 07: ten adapters, made in seconds, that fail in ways that people have reported.

Each patient is a damaged copy of a working adapter, or an adapter that was trained for a few steps with a mistake.
"""

import json
import shutil
import struct
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

from lora_lab import LoRA, NotFound, load_model
from lora_lab.machine import quiet
from lora_lab.methods.base import Report
from lora_lab.methods.io import CONFIG, WEIGHTS, save_adapter
from lora_lab.training.assets import shipped

SOUND, USUAL = shipped("data/results/minilm-rt-r8"), LoRA(rank=8)


class Patient(NamedTuple):
    """A broken adapter: its owner's complaint, the fault, how to make it, and the dtype of the owner's base."""

    complaint: str
    fault: str
    make: Callable[[Path], object]
    dtype: str = "fp32"


def patient(letter: str, place: str | Path = "patients") -> Path:
    """Make a broken adapter in its own folder, and return the folder. Raises: NotFound for an unknown letter."""
    if letter not in PATIENTS:
        raise NotFound(f"there is no patient '{letter}'; available: {', '.join(PATIENTS)}")
    folder = Path(place) / letter
    shutil.rmtree(folder, ignore_errors=True)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        PATIENTS[letter].make(folder)
    return folder


def _changed(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Save the working adapter with changed tensors and without our metadata."""
    shutil.copytree(SOUND, folder)
    tensors = load((folder / WEIGHTS).read_bytes())  # load_file keeps a file open; Windows couldn't overwrite it
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def _fill(tensors: dict[str, Tensor], value: float, *names: str) -> None:
    for key, tensor in tensors.items():
        if any(name in key for name in names):
            tensor.fill_(value)


def _restart(tensors: dict[str, Tensor]) -> None:
    """Reset block 0's A and B to their values at the start of training: random and 0."""
    for key, tensor in tensors.items():
        if "layer.0." in key:
            scale = 0.0 if "lora_B" in key else tensor.shape[1] ** -0.5  # like `kaiming_uniform_` with a = sqrt(5)
            tensor.uniform_(-scale, scale, generator=torch.Generator().manual_seed(0))


def _add_prefix(tensors: dict[str, Tensor], prefix: str) -> None:
    for key in list(tensors):
        tensors[prefix + key] = tensors.pop(key)


def _truncate(folder: Path) -> None:
    shutil.copytree(SOUND, folder)
    (folder / WEIGHTS).write_bytes((SOUND / WEIGHTS).read_bytes()[: 5 * 2**14])


def _parity_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Label random tokens by the parity of the second token; learning this moves every weight that gets a gradient."""
    return nn.functional.cross_entropy(model(input_ids=ids).logits, ids[:, 1] % 2)


def _trained(
    folder: Path, *, method: LoRA = USUAL, lr: float = 2e-3, steps: int = 2,
    before: Callable[[Any], object] = lambda model: None, labels: int | None = 2,
    loss: Callable[[nn.Module, Tensor], Tensor] = _parity_loss,
) -> None:  # fmt: skip
    """Change minilm with `before`, train an adapter on it, and save the adapter."""
    model = load_model("minilm", num_labels=labels)
    before(model)
    method.attach(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    model.train()
    for _ in range(steps):
        ids = torch.randint(1000, 20_000, (8, 12))
        optimizer.zero_grad()
        loss(model, ids).backward()
        optimizer.step()
    save_adapter(model, folder)


def checkpointing(model: nn.Module, *, reentrant: bool) -> None:
    """Enable gradient checkpointing as training scripts did before transformers 5. That version fixes the reentrant
    form: it makes the embeddings' output require a gradient. Direct calls to `torch.utils.checkpoint` are not fixed.
    """
    with warnings.catch_warnings(action="ignore"):  # transformers 5 has two names for the flag, and deprecates one
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})  # type: ignore[operator]
    if reentrant:
        model.disable_input_require_grads()  # type: ignore[operator]


class Cut(LoRA):
    """LoRA with patient C's mistake: a reentrant checkpoint around the encoder, which cuts its adapters' gradients."""

    def attach(self, model: Any, **options: Any) -> Report:
        def encode(*inputs: Tensor, run: Any = model.bert.encoder.forward, **named: Any) -> Any:
            return torch.utils.checkpoint.checkpoint(partial(run, **named), *inputs, use_reentrant=True)

        model.bert.encoder.forward = encode
        return super().attach(model, **options)


@torch.no_grad()
def _perturb(model: Any) -> None:
    for parameter in model.parameters():
        parameter += 0.02 * parameter.std(correction=0) * torch.randn_like(parameter)


def _mean_spread(model: nn.Module, ids: Tensor) -> Tensor:
    """Return the negative spread of sentence vectors, which are means over tokens and ignore the pooler."""
    return -model(input_ids=ids).last_hidden_state.mean(1).std(0).mean()


WITH_POOLER = LoRA(rank=8, targets=("q", "v", "pooler.dense"))
MADE: dict[str, tuple[Any, ...]] = {  # by letter: the fields of a Patient after the complaint
    "A": ("empty file", partial(_changed, change=dict.clear)),
    "B": ("zero update", partial(_changed, change=lambda tensors: _fill(tensors, 0, ".lora_B", "classifier.bias"))),
    "C": ("gradient was cut", partial(_trained, steps=4, before=lambda model: checkpointing(model, reentrant=True))),
    "D": ("truncated file", _truncate),
    "E": ("keys renamed", partial(_changed, change=lambda tensors: _add_prefix(tensors, "module."))),
    "F": ("wrong base", partial(_trained, before=_perturb)),
    "G": ("default alpha at high rank", partial(_trained, method=LoRA(rank=128, alpha=8))),
    "H": ("layer never used", partial(_trained, method=WITH_POOLER, labels=None, loss=_mean_spread)),
    "I": ("update too small", partial(_trained, lr=1e-6, steps=4), "bf16"),
    "J": ("NaN or infinity", partial(_changed, change=lambda tensors: _fill(tensors, torch.nan, ".lora_B"))),
}
COMPLAINTS = yaml.safe_load(shipped("data/checks/debugging.yaml").read_text(encoding="utf-8"))["complaints"]
PATIENTS = {letter: Patient(COMPLAINTS[letter], *made) for letter, made in MADE.items()}
ELEVENTH: tuple[tuple[str, Callable[[dict[str, Tensor]], object]], ...] = (
    ("gradient was cut", _restart),
    ("NaN or infinity", lambda tensors: next(t for key, t in sorted(tensors.items()) if "_A" in key).fill_(torch.inf)),
    ("tensors missing", lambda tensors: tensors.pop(min(key for key in tensors if "layer.4" in key and "_A" in key))),
    ("keys renamed", lambda tensors: _add_prefix(tensors, "_orig_mod.")),
)


def eleventh(number: int, folder: str | Path = "patients/K") -> Path:
    """Make the eleventh patient, entry `number` of `ELEVENTH`, and return its folder."""
    shutil.rmtree(folder, ignore_errors=True)
    _changed(Path(folder), ELEVENTH[number][1])
    return Path(folder)


def header(folder: str | Path) -> tuple[dict[str, list[int]], int, int]:
    """Return an adapter file's header: ({name: shape}, the size in bytes that it promises, the size of the file)."""
    content = (Path(folder) / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    tensors = {key: entry for key, entry in json.loads(content[8 : 8 + length]).items() if key != "__metadata__"}
    end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    return {key: entry["shape"] for key, entry in tensors.items()}, 8 + length + end, len(content)


def silently(folder: str | Path) -> bool:
    """Return whether the adapter is accepted by a lenient loader, which skips unknown keys and checks no values."""
    try:
        tensors = load_file(Path(folder) / WEIGHTS)
    except SafetensorError:
        return False
    config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    model = load_model("minilm")
    LoRA(rank=config["r"], targets=tuple(config["target_modules"])).attach(model)
    state = {key.removeprefix("base_model.model.bert.").removesuffix(".weight"): t for key, t in tensors.items()}
    model.load_state_dict(state, strict=False)  # no error for missing or unexpected keys
    return True


def largest(folder: str | Path, matrix: str = "B") -> dict[str, float]:
    """Return the largest absolute value of each layer's A or B in an adapter file; {} for an unreadable file."""
    try:
        tensors = load_file(Path(folder) / WEIGHTS)
    except SafetensorError:
        return {}
    key = f".lora_{matrix}"
    return {name.split(key)[0]: t.abs().max().item() for name, t in tensors.items() if key in name}
