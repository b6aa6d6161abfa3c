"""Predict the memory of a training step, and the moment when it peaks, by interpolating traces.

`memory` uses a fit (see `fit.py`) from presets/, which `python docs/presets.py` writes, or from the user's cache. If
neither has a fit, `memory` makes one or, where that is impossible, traces the step.
"""

import json
import lzma
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, lru_cache, partial
from hashlib import sha256
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs

from lora_lab.accounting.allocator import reserved
from lora_lab.accounting.fit import Fit, NoFit, Regime, fit
from lora_lab.accounting.models import architecture_of, auto_class, config_of, known_config, longest, positions_of, zoo
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import SHARDED, STEP, Label, Moment, Setup, optimizer_states, optimizer_temporaries
from lora_lab.errors import BadValue, nearest
from lora_lab.files import write_atomically
from lora_lab.methods.base import check_method
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA

PRESETS = Path(__file__).with_name("presets")
NOTES = (
    "the estimate is for eager PyTorch with transformers models, without compile, autocast, offload or chunked losses",
    "the estimate counts only live tensors; on a GPU, add the context (about 0.5 to 1 GiB), rounding and fragmentation",
)
EXPERTS = "experts are not quantized: they are plain tensors, and this lab and bitsandbytes quantize only linear layers"
EDGES = (  # rows of at least this length run different operations, or fill more than one chunk
    "sliding_window", "attention_chunk_size", "chunk_size", "mamba_chunk_size", "block_size", "index_topk",
    "keep_window_size",
)  # fmt: skip
SHORT = 8  # shorter rows are traced, not interpolated
FREE = ("alpha", "rslora", "lr_ratio", "alpha_pattern")  # options that do not affect memory
OPEN = ("batch", "seq", "shard", "optimizer", "master_weights", "num_labels")  # left out of a fit's conditions
_foreign: dict[tuple[type, str], str] = {}  # what `cached` made for methods that aren't the lab's own
FAR = 10**9  # the optimizer's storage numbers start here, far above those of a trace
compact = partial(json.dumps, separators=(",", ":"))  # JSON without spaces
cached_version = lru_cache(version)  # reading a version takes 2 ms, which slows sliders down


class Term(NamedTuple):
    """One term of a peak: its category, the module that allocated it, its formula if known, and its bytes."""

    category: str
    where: str
    formula: str | None
    bytes: int


@dataclass(frozen=True, eq=False)
class Estimate:
    """The live bytes at each moment of a step, and the peak.

    mode      "predicted" (interpolated), "traced" (tensors without data), "bound" (an upper bound) or "measured".
    moments   (phase, running module) pairs.
    labels    (category, module that allocated the storage) pairs.
    live      The live bytes, as an array (moments, labels).
    formulas  The formula for each label at the peak, if known.
    flops     The FLOPs of the step's matrix products, or None if they are not counted.
    reserved  The bytes that PyTorch's caching allocator reserves: simulated by a trace, or measured on a GPU.
    """

    mode: str
    moments: Sequence[tuple[str, str]]
    labels: Sequence[Label]
    live: np.ndarray
    formulas: Sequence[str] = ()
    flops: int | None = None
    reserved: int | None = None
    notes: tuple[str, ...] = NOTES

    @cached_property
    def top(self) -> int:
        """The index of the moment with the most live bytes."""
        return int(self.live.sum(axis=1).argmax())

    @property
    def at(self) -> str:
        """When the peak occurs, in words."""
        phase, path = self.moments[self.top]
        if phase not in ("forward", "backward"):
            return phase
        return f"{phase} of {path}" if path else "the loss"

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The terms that add up to the peak."""
        rows = zip_longest(self.labels, self.formulas, self.live[self.top])
        return tuple(Term(a, b, formula or None, round(size)) for (a, b), formula, size in rows if round(size))

    @property
    def peak(self) -> int:
        """The maximum number of live bytes."""
        return sum(term.bytes for term in self.terms)

    @property
    def categories(self) -> dict[str, int]:
        """The bytes at the peak by category. Their sum is the peak."""
        sums = Counter[str]()
        for term in self.terms:
            sums[term.category] += term.bytes
        return dict(sums)

    @property
    def phases(self) -> dict[str, int]:
        """The peak memory of each phase."""
        peaks = Counter[str]()
        for (phase, _), total in zip(self.moments, self.live.sum(axis=1), strict=True):
            peaks[phase] = max(peaks[phase], round(total))
        return dict(peaks)

    @property
    def timeline(self) -> tuple[Moment, ...]:
        """The bytes by category at each moment."""
        categories = list(dict.fromkeys(category for category, _ in self.labels))
        one_hot = np.array([[category == other for other in categories] for category, _ in self.labels])
        rows = (dict(zip(categories, row, strict=True)) for row in (self.live @ one_hot).round().astype(int).tolist())
        return tuple(Moment(*moment, row) for moment, row in zip(self.moments, rows, strict=True))


def memory(model: Any, method: Any, *, trace: bool = False, **setup: Any) -> Estimate:
    """Predict the peak memory of one training step in bytes, the moment of the peak, and its terms.

    model   See `params`.
    trace   Trace this exact step on tensors without data, which takes seconds instead of microseconds.
    setup   The fields of `Setup`: `batch`, `seq`, `dtype`, `optimizer`, `checkpointing`, `quantized`, ...
    Raises: NotFound or BadValue as in `params` and `Setup`, and BadValue for a step that cannot be traced.
    """
    known = Setup.__dataclass_fields__
    if unknown := next((name for name in setup if name not in known), ""):
        raise BadValue(f"a step has no option '{unknown}'; nearest: {nearest(unknown, known)}")
    if hasattr(model, "config") and (labels := getattr(model, "num_labels", None)):  # a loaded classifier
        setup = {"num_labels": labels, **setup}
    return estimate(model, method, full := Setup(**setup), trace=trace or rounded_up(full))


def rounded_up(setup: Setup) -> bool:
    """Return whether attention's rounding up to multiples of 32 tokens matters, so that a step must be traced."""
    return setup.padded and setup.device == "cuda" and setup.seq < 128 and setup.seq % 32 > 0


def estimate(model: Any, method: Any, setup: Setup, *, trace: bool = False) -> Estimate:
    """Call `memory` with a `Setup`. Raises: see `memory`."""
    config, found = checked(model, method, setup), None
    if not trace:
        with suppress(NoFit):
            found = predicted(config, method, setup)
    found = found or traced(config, method, setup)
    if setup.quantized != "none" and architecture_of(model).experts:
        found = replace(found, notes=(*found.notes, EXPERTS))
    return found


def quick(model: Any, method: Any, setup: Setup) -> Estimate:
    """Estimate a step's memory from a stored fit, or else return an upper bound. Nothing is traced.

    bound = weights + trainable tensors (gradient, optimizer, one temporary) + activations + logits. For T tokens in B
    rows of length S, b bytes per number, width d, MLP width f and vocabulary V, a layer of any common model family
    keeps less than T (b (10 d + 6 f) + 16 d) bytes, and the loss keeps 12 T V bytes. Without fused attention, a layer
    with H heads also keeps (4 + b) B H S^2 bytes of scores or, with dropout, 12 B H S^2 bytes. (DeBERTa, and GPT-J in
    fp32, can need up to 15% more than the bound.)
    Raises: see `memory`. A step that cannot be traced raises no error.
    """
    config = checked(model, method, setup)
    with suppress(NoFit):
        return predicted(config, method, setup, make=False)
    a, b, full_config = architecture_of(model), setup.width, known_config(config)
    tokens = setup.batch * (setup.seq + method.added_tokens)
    trained, width = trained_by(method, model), b if method.trains_base else 4  # elements, and bytes per element
    layer = tokens * (b * (10 * a.hidden + 6 * a.intermediate) + 16 * a.hidden)
    cls = auto_class(full_config)._model_mapping.get(type(full_config), None)
    if (setup.device == "cpu" and setup.dropout) or not getattr(cls, "_supports_sdpa", False):
        layer += tokens**2 // setup.batch * a.heads * (12 if setup.dropout else 4 + b)
    sizes = {
        "weights": sum(m.frozen_bytes(setup) for m in a.modules) + trained * width * (not method.trains_base),
        "gradients": trained * width,
        "optimizer": sum(optimizer_states(trained, width, setup)),
        "activations": layer * (2 if setup.checkpointing else a.layers) * (3 if a.task == "seq2seq" else 1),
        "logits": tokens * a.vocabulary * 12 * (a.task != "encoder"),
        "temporaries": layer + max(trained * width, sum(optimizer_temporaries([(trained, width, 1)], setup)) // 2),
    }
    return of_moments([Moment("bound", "", {(category, "bound"): size for category, size in sizes.items()})], "bound")


def trained_by(method: Any, model: Any) -> int:
    """Return how many elements a method trains, including the head of an encoder."""
    return _trained(method, json.dumps(config_of(model), default=str), architecture_of(model).task == "encoder")


@lru_cache(maxsize=256)
def _trained(method: Any, config: str, classify: bool) -> int:
    count = params(json.loads(config), method, 2 if classify else None)
    return count.trainable + count.head


def checked(model: Any, method: Any, setup: Setup) -> dict[str, Any]:
    """Return a model's config, including the fields in `EDGES`. Raises: BadValue for an impossible step."""
    check_method(method)
    if setup.device == "mps":
        raise BadValue("Apple's kernels are not covered: measure a step on the Mac, or use device cpu")
    config = config_of(model)
    if hasattr(model, "config"):
        autos = dict.fromkeys((auto_class(model.config), auto_class(model.config, classify=False)))
        classes = [auto._model_mapping[type(model.config)] for auto in autos]
        if not isinstance(model, tuple(classes)):
            kind, known = type(model).__name__, " or ".join(cls.__name__ for cls in classes)
            raise BadValue(f"the memory of a {kind} is unknown; use a {known}, or pass a config.json")
    limit, prompt = longest(config, method), positions_of(method, config)
    if limit is not None and setup.seq > limit:
        after = f" after a prompt of {prompt}" if prompt else ""
        raise BadValue(f"seq {setup.seq} exceeds the {limit} tokens that {config['model_type']} can read{after}")
    if name := zoo_name(config):
        _check_placement(name, method)
        return config
    if isinstance(method, LoRA):
        trained_by(method, config)  # raises for a rank that is too high, which a stored fit would accept
    full_config = known_config(config)  # fills in defaults
    return config | {edge: value for edge in EDGES if (value := getattr(full_config, edge, None))}


@lru_cache(maxsize=256)
def _check_placement(name: str, method: Any) -> None:
    """Check that LoRA's targets are in the model, and that LoRA's ranks are not too high. Raises: see `LoRA.place`."""
    if isinstance(method, LoRA):
        method.place(list(architecture_of(name).sites))


def zoo_name(config: Mapping[str, Any]) -> str:
    """Return the name of the zoo model with this config, or ""."""
    return next((name for name, values in zoo().items() if values == config), "")


# ---- finding a fit


def predicted(config: Mapping[str, Any], method: Any, setup: Setup, make: bool = True) -> Estimate:
    """Estimate from a shipped or cached fit or, if `make` is true, from a new fit. Raises: NoFit if there is none."""
    regime = regime_of(config, method, setup)
    key = key_of(method, setup, regime)

    def made() -> dict[str, Any]:
        if not make:
            raise NoFit("there is no stored fit")
        try:
            return fit(config, method, setup, regime).pruned().to_json()
        except NoFit as reason:
            return {"refused": str(reason)}

    found = _fit_of(presets(zoo_name(config)).get(key) or cached(config, key, method, made), regime)
    rank = method.rank if regime.ranked else 0
    vector = regime.vector((setup.batch, setup.seq, rank))
    flops = round(float(found.flops @ vector))
    passes = Estimate("predicted", found.moments, found.labels, found.coefficients @ vector, flops=flops)
    step = with_optimizer(passes, found.trained, rank, setup)
    formulas = [found.formula(row, rank) for row in found.coefficients[step.top]]
    return sharded(replace(step, formulas=formulas), config, setup)


def with_optimizer(passes: Estimate, trained: Sequence[Sequence[int]], rank: int, setup: Setup) -> Estimate:
    """Add the optimizer's states and the temporaries of its step. For `trained`, see `Fit`."""
    weights = [(numbers + slope * rank, width, count) for numbers, slope, width, count in trained]
    states = sum(count * sum(optimizer_states(numbers, width, setup)) for numbers, width, count in weights)
    temporaries = sum(optimizer_temporaries(weights, setup))
    added = [[states, temporaries * (phase == STEP)] for phase, _ in passes.moments]
    live = np.hstack([passes.live, added])
    return replace(passes, live=live, labels=[*passes.labels, ("optimizer", "states"), ("temporaries", STEP)])


def regime_of(config: Mapping[str, Any], method: Any, setup: Setup) -> Regime:
    """Return the batch sizes and lengths that run the same operations as `setup`. Raises: NoFit for very short rows."""
    if setup.seq < SHORT:
        raise NoFit(f"steps with rows of fewer than {SHORT} tokens are traced, not interpolated")
    if config.get("model_type") in ("big_bird", "canine"):
        raise NoFit("long rows attend in blocks, unlike the short rows of a fit")
    prompt, limit = positions_of(method, config), longest(config, method)
    edges = [int(config[name]) - prompt for name in EDGES if config.get(name)]
    ends = [edge - 1 for edge in edges if edge > setup.seq] + ([limit] if limit else [])
    low = max([32 if not limit or limit >= 160 else 8, *(edge for edge in edges if edge <= setup.seq)])
    ranked = hasattr(method, "rank") and not method.settings().get("rank_pattern")
    return Regime(setup.batch == 1, low, min(ends, default=0), ranked)


def key_of(method: Any, setup: Setup, regime: Regime) -> str:
    """Return the conditions of a fit as JSON: everything but batch, length, rank, optimizer and sharding."""
    free = (*FREE, "rank") if regime.ranked else FREE
    options = {name: value for name, value in method.settings().items() if name not in free}
    setup = replace(setup, dtype="bf16") if setup.dtype == "fp16" else setup  # numbers of both types take two bytes
    values = ((field.name, getattr(setup, field.name), field.default) for field in fields(setup))
    conditions = {name: value for name, value, default in values if name not in OPEN and value != default}
    for given in (options, conditions):
        if "dropout" in given:
            given["dropout"] = given["dropout"] > 0
    return json.dumps([options, conditions, [regime.one_row, regime.low, regime.high], setup.num_labels])


@lru_cache(maxsize=256)
def _fit_of(text: str, regime: Regime) -> Fit:
    """Parse a stored fit. Raises: NoFit if a reason is stored instead of a fit."""
    data = json.loads(text)
    if "refused" in data:
        raise NoFit(data["refused"])
    return Fit.from_json(data, regime)


@cache
def presets(name: str) -> dict[str, str]:
    """Return a model's shipped fits by key, as JSON text, so that only the needed fit is parsed."""
    file = PRESETS / f"{name}.json.xz"
    return dict(json.loads(lzma.decompress(file.read_bytes()))) if file.exists() else {}


def cached(config: Mapping[str, Any], key: str, method: Any, make: Callable[[], Any]) -> str:
    """Return JSON from the user's cache, or make it and, if possible, cache it for the installed versions.

    For a method that isn't the lab's own, the cache lasts until the process ends or the class is defined again.
    """
    versions = [4, *map(cached_version, ("torch", "transformers", "lora-lab"))]  # 4 is the version of our traces
    digest = sha256(json.dumps([config, key, versions], sort_keys=True, default=str).encode()).hexdigest()
    if not (kind := type(method)).__module__.startswith("lora_lab."):
        if (kind, digest) not in _foreign:
            _foreign[kind, digest] = compact(make())
        return _foreign[kind, digest]
    file = Path(platformdirs.user_cache_dir("lora_lab")) / "fits" / f"{digest[:32]}.json"
    with suppress(OSError, ValueError):
        if (text := file.read_text("utf-8")).endswith("}"):  # otherwise, the file is damaged and is made again
            return text
    text = compact(make())
    with suppress(BadValue):
        write_atomically(file, text.encode())
    return text


# ---- from moments to an estimate


def traced(config: Mapping[str, Any], method: Any, setup: Setup) -> Estimate:
    """Trace this exact step, moment by moment. Raises: BadValue for a model whose step cannot be traced."""
    from lora_lab.accounting import trace  # imports torch

    point = setup.batch, setup.seq, 0
    try:
        (run,) = trace.record(config, method, setup, [point])
    except BadValue:
        if setup.dtype != "fp16":
            raise
        (run,) = trace.record(config, method, replace(setup, dtype="bf16"), [point])  # BART's layers need data in fp16
    weights, passes, freed = run.events
    sizes = [(n, width, 1) for n, width in run.trained]
    states = list(enumerate((size for n, w, _ in sizes for size in optimizer_states(n, w, setup)), FAR))
    temporaries = list(enumerate(filter(None, optimizer_temporaries(sizes, setup)), 2 * FAR))
    frees = [(number, 0) for number, _ in temporaries]
    # Simulate two steps, because the optimizer allocates its states in the first step.
    held = reserved([*weights, *passes, *states, *temporaries, *frees, *freed, *passes, *temporaries])
    step = of_moments(run.moments, "traced", flops=run.flops, reserved=held)
    return sharded(with_optimizer(step, [[n, 0, width, 1] for n, width in run.trained], 0, setup), config, setup)


def of_moments(moments: Sequence[Moment], mode: str, **more: Any) -> Estimate:
    """Return the estimate of a step from its moments, the last of which has every label."""
    labels = list(moments[-1].bytes)
    live = np.array([[moment.bytes.get(label, 0) for label in labels] for moment in moments])
    return Estimate(mode, [(moment.phase, moment.path) for moment in moments], labels, live, **more)


def sharded(step: Estimate, config: Mapping[str, Any], setup: Setup) -> Estimate:
    """Return the estimate for one of the setup's devices, without formulas or reserved bytes."""
    kind, _, devices = setup.shard.partition(":")
    if not kind or int(devices) == 1:
        return step
    split = [category in SHARDED[kind] or where == STEP for category, where in step.labels]
    live = step.live / np.where(split, int(devices), 1)
    labels = list(step.labels)
    if "weights" in SHARDED[kind]:  # each device also gathers one layer and everything outside the layers
        a = architecture_of(zoo_name(config) or config)
        gathered = sum(m.frozen_bytes(setup) for m in a.modules if m.layer in (None, a.layers - 1))
        labels.append(("weights", "gathered from the other devices"))
        live = np.column_stack([live, np.full(len(live), gathered)])
    return replace(step, labels=labels, live=live, formulas=(), reserved=None)


# ---- what fits


def largest(
    field: str, setup: Setup, estimated: Callable[[Setup], Estimate], available: int, limit: int | None = None
) -> int | None:
    """Return the largest "batch" or "seq" whose step fits, or None if not even 1 row or 8 tokens fit.

    estimated  A function that estimates the memory of a setup.
    limit      The maximum number of tokens per row; see `longest`.
    Raises: BadValue for "seq" if the model's steps cannot be interpolated: tracing many lengths would be slow.
    """

    def fits(n: int) -> bool:
        step = estimated(replace(setup, **{field: n}))  # type: ignore[arg-type]
        if step.mode == "traced" and field == "seq" and n >= SHORT:
            raise BadValue("this model's steps cannot be interpolated, and tracing many is slow: try a few lengths")
        return step.peak <= available

    least = SHORT if field == "seq" and (limit is None or limit >= SHORT) else 1  # avoid tracing shorter rows
    return most(fits, limit, least)


def most(fits: Callable[[int], bool], limit: int | None = None, least: int = 1) -> int | None:
    """Return the largest n from `least` to `limit` for which `fits(n)` is true, or None. `fits` must be monotonic."""
    high = least
    while (limit is None or high <= limit) and fits(high):
        high *= 2
    end = high if limit is None else min(high, limit + 1)
    found = bisect_left(range(end), True, lo=max(high // 2 + 1, least), key=lambda n: not fits(n)) - 1
    return found if found >= least else None


@lru_cache(maxsize=64)
def _weights_and_cache(config: str, method: Any, setup: Setup) -> tuple[dict[Label, int], list[tuple[int, int]]]:
    """Return the bytes of the weights by part, and `trace.kv_cache`. Cached for `largest`, which tries many lengths."""
    from lora_lab.accounting import trace  # imports torch

    with trace.without_data(json.loads(config), method, setup) as (network, tracker, _):
        return {label: size for label, size in tracker.live.items() if size}, trace.kv_cache(network)


def inference(model: Any, setup: Setup, method: Any = None) -> Estimate:
    """Predict the memory needed to generate the last of `seq` tokens in each of `batch` rows, with an unmerged adapter.

    The cache holds the keys and values of all tokens (and of a prompt or prefix) or of a layer's sliding window.
    The logits take B V b bytes (B rows, V words, b bytes per number), plus an fp32 copy.
    Raises: BadValue if the model cannot generate or caches anything but keys and values, or if an option has no effect.
    """
    for name in ("shard", "checkpointing", "dropout", "padded", "outputs_kept", "master_weights", "optimizer"):
        if getattr(setup, name) != getattr(Setup, name):
            raise BadValue(f"{name} has no effect on generation, which is estimated on one device: omit {name}")
    a, config = architecture_of(model), checked(model, method or FullFineTuning(), setup)
    if a.task != "causal":
        raise BadValue(f"{a.name} is not a causal language model; pass one such as llama-3-8b")
    added = method.settings().get("tokens", 0) if method else 0  # a prefix takes up space in the cache, too
    tokens, length = setup.seq + added, f"(S + {added})" if added else "S"
    logits = setup.batch * a.vocabulary
    weights, layers = _weights_and_cache(json.dumps(config, default=str), method, replace(setup, batch=1, seq=SHORT))
    sizes = dict(weights)
    per_token = "" if any(window for _, window in layers) else f"{sum(size for size, _ in layers):,} · B·{length}"
    formulas = [*("" for _ in sizes), per_token, "B·V·b"]
    row = sum(size * min(tokens, window or tokens) for size, window in layers)
    sizes["cache", "keys and values"] = setup.batch * row
    sizes["logits", "the next token's logits"] = setup.width * logits
    if setup.width != 4:
        sizes["logits", "the next token's logits in fp32"] = 4 * logits
        formulas.append("4·B·V")
    wide = setup.tokens * (3 * a.intermediate + a.hidden) * setup.width
    note = f"a first step that reads all {setup.tokens:,} tokens at once takes about {wide / 2**20:,.0f} MiB more"
    return of_moments([Moment("generation", "", sizes)], "predicted", formulas=formulas, notes=(*NOTES, note))
