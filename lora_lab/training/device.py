"""Choose the device, dtype and attention for this machine by timing them.

bf16 is fast only on hardware with bf16 matrix products. Fused attention is fast only for long rows or on a GPU. CPU
flags and versions are only hints, so one layer is timed briefly. All device-specific code is in this file.
"""

import ctypes
import gc
import os
import platform
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.errors import BadValue
from lora_lab.files import read_json, write_json
from lora_lab.methods.targets import QUANTIZED_BITS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ATTENTIONS = ("eager", "sdpa")
LENGTHS = (32, 256)  # tokens: a sentence and a page
AUTO = "auto"
MAX_PARTS = 4  # maximum number of parts of a pack: with more, threads wait for the interpreter lock
ROUNDED = "fp32 by bf16"  # timings of fp32 tensors with bf16 matrix products
CPU_FACTS = Path("/proc/cpuinfo")
Out = TypeVar("Out")
_timed: dict[Path, dict[str, Any]] = {}  # this process's timings by cache file, in case the cache is read-only


@dataclass(frozen=True)
class Choice:
    """Compute settings: the torch `device`, the `dtype` of the frozen base, and the transformers `attention` kind.

    quantized   The format in which the base's linear layers are stored, such as nf4, or "" for unquantized layers.
    products    The dtype of matrix products of fp32 tensors; see `rounded_products`.
    """

    device: str
    dtype: str
    attention: str
    quantized: str = ""
    products: str = "fp32"

    @property
    def load_as(self) -> str:
        """The dtype argument for `load_model`, such as bf16 or nf4+bf16."""
        return f"{self.quantized}+{self.dtype}" if self.quantized else self.dtype


def split_dtype(dtype: str) -> tuple[str, str]:
    """Split "nf4+fp32", "nf4" or "bf16" into the quantized base's format ("" for none) and the dtype of computation."""
    name, plus, compute_dtype = dtype.partition("+")
    if name in QUANTIZED_BITS:
        return name, compute_dtype if plus else AUTO
    return "", dtype


def dtype_to_train(dtype: str) -> str:
    """Return the dtype of trained weights for a base in `dtype`: fp32, or `dtype` itself if it is "auto" or unknown."""
    quantized, compute_dtype = split_dtype(dtype)
    return "fp32" if quantized or compute_dtype in DTYPES else dtype


def choose(
    tokens: int, *, device: str = AUTO, dtype: str = AUTO, attention: str = AUTO, products: str = "fp32"
) -> Choice:
    """Choose the fastest way to train on sequences of about `tokens` tokens on this machine.

    Values other than "auto" are kept. The environment variables LORA_LAB_DEVICE, LORA_LAB_DTYPE and LORA_LAB_ATTENTION
    replace "auto". The dtype "nf4" means a 4-bit base that computes in the fastest dtype. "nf4+fp32" computes in fp32.
    With `products="auto"`, matrix products of fp32 tensors may be rounded to bf16, unless LORA_LAB_DTYPE is set. bf16
    and rounding are chosen only if they save more than a tenth of the time.
    Raises: BadValue for an unknown name or a device that this machine doesn't have.
    """
    quantized, dtype = split_dtype(dtype)
    device = _allowed("device", device, ("cuda", "mps", "cpu"), available_devices())[0]
    if device != "cpu" and device not in available_devices():
        raise BadValue(f"this machine has no device {device}; its devices: {', '.join(available_devices())}")
    kinds = [*_allowed("dtype", dtype, DTYPES, ("fp32", "bf16"))]
    if products == AUTO and device == "cpu" and kinds[0] == "fp32" and os.getenv("LORA_LAB_DTYPE", AUTO) in ("", AUTO):
        kinds.append(ROUNDED)
    cases = [*product(kinds, _allowed("attention", attention, ATTENTIONS, ATTENTIONS))]
    if len(cases) == 1:  # nothing to measure
        return Choice(device, *cases[0], quantized)
    times, length = measured(device), min(LENGTHS, key=lambda n: abs(n - tokens))

    def seconds(case: tuple[str, str]) -> float:
        time = times.get(key(*case, length), times[key("fp32", case[1], length)])  # fp16 is never timed
        return time if case[0] == kinds[0] else time / 0.9

    kind, attention = min(cases, key=seconds)
    rounds = kind == ROUNDED
    return Choice(device, "fp32" if rounds else kind, attention, quantized, "bf16" if rounds else "fp32")


def _allowed(option: str, value: str, choices: Collection[str], auto: Sequence[str]) -> Sequence[str]:
    """Return a list of one value (from the argument or environment), or `auto` if the best value must be measured."""
    variable = f"LORA_LAB_{option.upper()}"
    if value == AUTO and os.environ.get(variable):  # the variable can't name the format of a quantized base
        option, value = variable, os.environ[variable]
    if value not in (*choices, AUTO):
        formats = QUANTIZED_BITS if option == "dtype" else ()
        raise BadValue(f"{option} must be one of {', '.join([*choices, *formats])} or auto, not '{value}'")
    return auto if value == AUTO else [value]


# ---- timings


def measured(device: str) -> dict[str, float]:
    """Return a layer's seconds per step, keyed by "dtype/attention/tokens". The layer is timed once per machine."""
    cache, machine = Path(platformdirs.user_cache_dir("lora_lab")) / "machine.json", describe(device)
    # fp16 is left out: without loss scaling, its gradients underflow.
    kinds = ["fp32"]
    if device == "cpu":
        kinds += ["bf16", ROUNDED]
    elif torch.cuda.is_bf16_supported() if device == "cuda" else torch.backends.mps.is_macos_or_newer(14, 0):
        kinds += ["bf16"]
    cases = {key(*case): case for case in product(kinds, ATTENTIONS, LENGTHS)}
    timings = _timed.setdefault(cache, {})
    with suppress(BadValue):
        timings |= read_json(cache)
    known = timings.get(machine)
    if not (isinstance(known, dict) and all(isinstance(known.get(name), float) for name in cases)):
        own = {}
        for name, (kind, attention, tokens) in cases.items():
            with rounded_products("bf16" if kind == ROUNDED else "fp32"):
                own[name] = time_layer(device, DTYPES.get(kind, torch.float32), attention, tokens)
        timings[machine] = own
        with suppress(BadValue):  # if the home directory is read-only, each process repeats the timing
            write_json(cache, {**timings})
    return timings[machine]  # type: ignore[no-any-return]


def key(dtype: str, attention: str, tokens: int) -> str:
    return f"{dtype}/{attention}/{tokens}"


def time_layer(
    device: str, dtype: torch.dtype, attention: str, tokens: int, *, total: int = 512, repeats: int = 3
) -> float:
    """Time one MiniLM-sized layer, forward and backward, on `total` tokens in rows of `tokens`. Return the seconds."""
    rows, d, heads = total // tokens, 384, 12
    w_in, w_out = (torch.randn(shape, device=device, dtype=dtype) * 0.05 for shape in ((4 * d, d), (d, 4 * d)))
    x = torch.randn(rows, tokens, d, device=device, dtype=dtype, requires_grad=True)
    mask = torch.ones(rows, 1, tokens, tokens, device=device, dtype=torch.bool)

    def eager(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:  # as in transformers
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~attn_mask, torch.finfo(q.dtype).min)
        return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v

    attend: Callable[..., Tensor] = eager if attention == "eager" else F.scaled_dot_product_attention
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        q, k, v, _ = F.linear(x, w_in).view(rows, tokens, 4 * heads, d // heads).transpose(1, 2).chunk(4, dim=1)
        y = attend(q, k, v, attn_mask=mask).transpose(1, 2).reshape(rows, tokens, d)
        F.linear(F.gelu(F.linear(y, w_in)), w_out).sum().backward()
        torch.get_device_module(device).synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


# ---- devices


def available_devices() -> list[str]:
    """List the devices that torch can use here, with the fastest device first and "cpu" last."""
    devices = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()), ("cpu", True)]
    return [name for name, available in devices if available]


def describe(device: str) -> str:
    """Describe this machine and, on Linux, its bf16 support, because processors with the same name may differ."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        facts: dict[str, str] = dict(re.findall(r"^(\S[^\t:]*?)\s*: (.*)$", CPU_FACTS.read_text("utf-8"), re.MULTILINE))
        flags = facts.get("flags", facts.get("Features", "")).split()
        if "model name" in facts:
            name = " ".join([facts["model name"].strip(), *sorted(flag for flag in flags if flag.endswith("bf16"))])
    name = torch.cuda.get_device_name() if device == "cuda" else name
    return f"{device} {name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def environment(choice: Choice) -> dict[str, Any]:
    """Return the versions and the hardware for a run's record."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "lora_lab": version("lora-lab"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "hardware": describe(choice.device),
        **{name: value for name, value in vars(choice).items() if value != getattr(Choice, name, None)},  # no defaults
    }


def used_bytes(device: str) -> int:
    """Return memory use in bytes: on CUDA, the peak since `reset_peak_memory_stats`; elsewhere, the current value."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    if device == "mps":
        return int(torch.mps.driver_allocated_memory())
    return int(psutil.Process().memory_info().rss)


def free_memory() -> None:
    gc.collect()
    for module in (torch.cuda, torch.mps):
        if module.is_available():
            module.empty_cache()


def module_of(device: str) -> Any:
    """Return the module whose `get_rng_state` and `set_rng_state` handle the random state that dropout uses."""
    return torch if device == "cpu" else torch.get_device_module(device)


@contextmanager
def rounded_products(dtype: str) -> Iterator[None]:
    """In a `with` block on a CPU, let torch round the fp32 inputs of matrix products to `dtype` (bf16 or fp32).

    Sums, weights, gradients and updates stay fp32. On hardware with bf16 products, rounding cuts the time to a third.
    The setting is process-wide, so the products of other threads are rounded too.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if dtype == "bf16" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step instead of returning the memory to Linux.

    Otherwise, the Linux kernel maps and zeroes tensors of a few MiB hundreds of times per step, which takes an eighth
    of a pack's time. On other systems, this function does nothing.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: smaller blocks come from the heap
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap is never trimmed


# ---- parts of a pack, one per core: members 0-7 train on core 0, members 8-15 on core 1, synchronized once per step
# By default, torch splits each operation across threads, which wait for the slowest thread hundreds of times per step.


class Parts(nn.ModuleList):
    """A list of models, each of which computes one slice of the members."""

    def __init__(self, models: Sequence[nn.Module], members: Sequence[slice]) -> None:
        super().__init__(models)
        self.config: Any = models[0].config
        self.members = members
        self.pool = ThreadPoolExecutor(len(models))


def cut(members: int, device: str) -> list[slice]:
    """Divide members into parts of nearly equal size, and return their slices. On a GPU, there is only one part."""
    parts = min(members, MAX_PARTS, torch.get_num_threads()) if device == "cpu" else 1
    return [slice(members * i // parts, members * (i + 1) // parts) for i in range(parts)]


def in_parts(work: Callable[[nn.Module, slice], Out], model: nn.Module, members: int) -> list[Out]:
    """Run work(part, slice of members) for all parts at once, and return the result of each part.

    Each part gets an equal share of torch's threads. A model without parts runs in this thread, for all members.
    """
    if not isinstance(model, Parts):
        return [work(model, slice(0, members))]
    threads = torch.get_num_threads()

    def run_part(part: nn.Module, members_of_part: slice) -> Out:
        torch.set_num_threads(max(1, threads // len(model)))  # for this thread, and for threads that start meanwhile
        return work(part, members_of_part)

    try:
        return list(model.pool.map(run_part, model, model.members))
    finally:
        torch.set_num_threads(threads)
