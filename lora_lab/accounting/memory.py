"""Predict the memory of a training step, and where in the step the peak is, by interpolating a trace.

`memory(model, method, batch=, seq=, ...)` looks for a fit (see `fit.py`) among those that ship, then in this user's
cache; otherwise it makes one, or traces that case if none is possible. Fits are in presets/, one file for each
model of the zoo, written by `python docs/presets.py`.
"""

from __future__ import annotations

import gzip
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, lru_cache
from hashlib import sha256
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from lora_lab.accounting.allocator import reserved
from lora_lab.accounting.fit import Fit, NoFit, Regime, fit
from lora_lab.accounting.models import Architecture, architecture_of, check_class, config_of, known_config, zoo
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import (
    SHARDED,
    STEP,
    Label,
    Moment,
    Setup,
    optimizer_bytes,
    optimizer_states,
    optimizer_temporaries,
)  # fmt: skip
from lora_lab.errors import BadValue, LabError
from lora_lab.files import write_atomically
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.targets import bits_per_weight

if TYPE_CHECKING:
    from lora_lab.accounting.trace import Trace

PRESETS = Path(__file__).with_name("presets")
NOTES = (
    "for eager PyTorch with transformers' models; compile, autocast, offload and chunked losses are not covered",
    "bytes of live tensors; add a GPU's context (about 0.5 to 1 GiB), rounding and fragmentation",
)
EDGES = ("sliding_window", "attention_chunk_size")  # from these lengths on, other operations run
SHORT = 8  # tokens of the shortest rows that are interpolated
FREE = ("alpha", "rslora", "lr_ratio", "alpha_pattern")  # options on which memory does not depend
LEARNED_POSITIONS = {
    "bert": 512, "roberta": 512, "xlm-roberta": 512, "deberta-v2": 512, "gpt2": 1024, "opt": 2048,
}  # fmt: skip  # and their length where a config leaves it out
FAR = 10**9  # numbers of the optimizer's storages start far above those of a trace
cached_version = lru_cache(version)  # reading it takes 2 ms, enough to slow a slider down


@dataclass(frozen=True)
class Term:
    """One summand of a peak: its category, the module it was born in, a formula where there is one, bytes."""

    category: str
    where: str
    formula: str | None
    bytes: int


@dataclass(frozen=True, eq=False)
class Estimate:
    """The live bytes at each moment of a step, and the peak.

    mode      predicted (interpolated), traced (tensors without data), bound (from above) or measured
    moments   (phase, module that is running)
    labels    (category, module that a storage was born in)
    live      (moments, labels)
    formulas  of the labels at the peak, where they are known
    flops     floating-point operations of the step's products; None where they were not counted
    reserved  what PyTorch's caching allocator takes from the device: simulated by a trace, measured on a GPU
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
    def totals(self) -> np.ndarray:
        """Live bytes at each moment."""
        return self.live.sum(axis=1)

    @property
    def top(self) -> int:
        """The moment of the peak."""
        return int(self.totals.argmax())

    @property
    def at(self) -> str:
        """When the peak occurs."""
        phase, path = self.moments[self.top]
        return f"{phase} of {path or 'the loss'}" if phase in ("forward", "backward") else phase

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The summands of the peak."""
        rows = zip_longest(self.labels, self.formulas, self.live[self.top])
        return tuple(
            Term(label[0], label[1], formula or None, round(size)) for label, formula, size in rows if round(size)
        )

    @property
    def peak(self) -> int:
        """The most bytes live at once."""
        return sum(term.bytes for term in self.terms)

    @property
    def categories(self) -> dict[str, int]:
        """Bytes at the peak by category; they sum to the peak."""
        sums: Counter[str] = Counter()
        for term in self.terms:
            sums[term.category] += term.bytes
        return dict(sums)

    @property
    def phases(self) -> dict[str, int]:
        """The peak of each phase."""
        peaks: dict[str, int] = {}
        for (phase, _), total in zip(self.moments, self.totals, strict=True):
            peaks[phase] = max(peaks.get(phase, 0), round(total))
        return peaks

    @property
    def timeline(self) -> tuple[Moment, ...]:
        """Bytes by category at each moment."""
        categories = list(dict.fromkeys(category for category, _ in self.labels))
        own = np.array([[category == one for one in categories] for category, _ in self.labels])
        rows = (self.live @ own).round().astype(int).tolist()
        return tuple(
            Moment(*m, dict(zip(categories, row, strict=True))) for m, row in zip(self.moments, rows, strict=True)
        )


def of_sizes(mode: str, phase: str, sizes: Mapping[Label, int], **more: Any) -> Estimate:
    """An estimate of one moment."""
    return Estimate(mode, [(phase, "")], list(sizes), np.array([list(sizes.values())]), **more)


def memory(model: Any, method: Any, *, trace: bool = False, num_labels: int = 2, **setup: Any) -> Estimate:
    """The peak of one training step in bytes, when in the step it occurs, and each of its terms.

    model       as in `params`
    trace       follow this exact step over tensors without data: seconds instead of microseconds
    num_labels  classes of an encoder's head
    setup       the fields of `Setup`: batch, seq, dtype, optimizer, checkpointing, quantised, ...
    Raises: NotFound, BadValue as `params` and `Setup`; BadValue for a step that cannot be traced.
    """
    return estimate(model, method, Setup(**setup), num_labels=num_labels, trace=trace)


def estimate(model: Any, method: Any, setup: Setup, *, num_labels: int = 2, trace: bool = False) -> Estimate:
    """`memory` of a `Setup`. Raises: as `memory`."""
    name, config = checked(model, method, setup)
    if not trace:
        with suppress(NoFit):
            return predicted(name, config, method, setup, num_labels)
    return traced(config, method, setup, num_labels)


def quick(model: Any, method: Any, setup: Setup, *, num_labels: int = 2) -> Estimate:
    """The same from a stored fit, else a bound from above: nothing is traced.

    bound = weights + what trains (gradient, optimizer, one temporary) + activations + logits, with
    T (b (10 d + 6 f) + 16 d) bytes per layer, more than any of the common families keeps, and 12 T V for the loss.
    Raises: as `memory`, except for what cannot be traced.
    """
    name, config = checked(model, method, setup)
    with suppress(NoFit):
        return predicted(name, config, method, setup, num_labels, make=False)
    a, b = architecture_of(model), setup.width
    tokens = setup.batch * (setup.seq + prompt_of(method))
    trained, own = trained_by(method, a), b if method.trains_base else 4  # bytes of an element that trains
    layer = tokens * (b * (10 * a.hidden + 6 * a.intermediate) + 16 * a.hidden)
    coded = sum(m.weight * m.count for m in a.modules if m.layer is not None and m.kind in ("linear", "expert"))
    spared = coded * (b - bits_per_weight(setup.quantised) / 8) if setup.quantised != "none" else 0
    numbers = {
        "weights": a.total * b - int(spared) + trained * own * (not method.trains_base),
        "gradients": trained * own,
        "optimizer": sum(optimizer_states(trained, own, setup)),
        "activations": layer * (2 if setup.checkpointing else a.layers),
        "logits": tokens * a.vocabulary * 12 * (a.task == "causal"),
        "temporaries": layer + max(trained * own, sum(optimizer_temporaries([(trained, own, 1)], setup)) // 2),
    }
    return of_sizes("bound", "bound", {(category, "bound"): size for category, size in numbers.items()})


def trained_by(method: Any, a: Architecture) -> int:
    """At most this many elements train: LoRA's are counted; other methods on a frozen base train under a twentieth."""
    return params(a, method).trainable if isinstance(method, LoRA | FullFineTuning) else a.total // 20


def checked(model: Any, method: Any, setup: Setup) -> tuple[str, dict[str, Any]]:
    """A model's name in the zoo, or "", and its config. Raises: BadValue for an impossible step."""
    if setup.device == "mps":
        raise BadValue("what Apple's kernels keep is not covered: measure a step there, or use device cpu")
    config = config_of(model)
    if hasattr(model, "config"):
        check_class(model)
    last, prompt = longest(config), prompt_of(method)
    if last is not None and setup.seq + prompt > last:
        beside = f" beside a prompt of {prompt}" if prompt else ""
        kind = config["model_type"]
        raise BadValue(f"seq {setup.seq} is above the {last - prompt} tokens that {kind} can read{beside}")
    if isinstance(model, str | Path) and str(model) in zoo():
        _placed(str(model), method)
        return str(model), config
    known = known_config(config)  # fills in the defaults that a config leaves out
    return "", config | {edge: value for edge in EDGES if (value := getattr(known, edge, None))}


@lru_cache(maxsize=256)
def _placed(name: str, method: Any) -> None:
    """Raises: as the method's `place` for a target or rank that the model does not have."""
    if isinstance(method, LoRA):
        method.place(list(architecture_of(name).sites))


def prompt_of(method: Any) -> int:
    """Tokens that a method puts ahead of every row."""
    return int(method.settings().get("tokens", 0)) if method.name in ("prompt", "ptuning") else 0


def longest(config: Mapping[str, Any]) -> int | None:
    """Tokens per row that a table of learned positions allows; None without such a table.

    Rotary positions have no limit: a model trained for 8,192 tokens also runs on longer rows, but badly.
    """
    kind = config.get("model_type")
    if kind not in LEARNED_POSITIONS:
        return None
    positions = int(config.get("n_positions") or config.get("max_position_embeddings") or LEARNED_POSITIONS[kind])
    return positions - 2 * (kind in ("roberta", "xlm-roberta"))  # two rows of their tables belong to padding


# ---- which fit


def predicted(
    name: str, config: Mapping[str, Any], method: Any, setup: Setup, num_labels: int = 2, make: bool = True
) -> Estimate:
    """The estimate of a shipped or cached fit, or with `make` of a new one. Raises: NoFit where there is none."""
    regime = regime_of(config, method, setup)
    key = key_of(method, setup, regime, num_labels)
    file = cache_file(config, key)
    found = _stored(name, key, file, regime)
    if found is None and not make:
        raise NoFit("it is not among the stored fits")
    if found is None:
        try:
            found = fit(config, method, setup, regime, num_labels).pruned()
            keep(file, compact(found.to_json()))
        except NoFit as reason:
            found = reason
            keep(file, compact({"refused": str(reason)}))
        _stored.cache_clear()
    if isinstance(found, Exception):
        raise found
    rank = method.rank if regime.ranked else 0
    vector = regime.vector((setup.batch, setup.seq, rank))
    flops = round(float(found.flops @ vector))
    step = Estimate("predicted", found.moments, found.labels, found.coefficients @ vector, flops=flops)
    step = with_optimizer(step, found.trained, rank, setup)
    formulas = [found.formula(row, rank) for row in found.coefficients[step.top]]
    return sharded(replace(step, formulas=formulas), config, setup)


def with_optimizer(found: Estimate, trained: Sequence[Sequence[int]], rank: int, setup: Setup) -> Estimate:
    """Add what the optimizer keeps and what its step makes; `trained` as in `Fit`."""
    states, temporaries = optimizer_bytes(trained, rank, setup)
    step = [temporaries * (phase == STEP) for phase, _ in found.moments]
    live = np.column_stack([found.live, np.full(len(step), states), step])
    return replace(found, live=live, labels=[*found.labels, ("optimizer", "states"), ("temporaries", STEP)])


def regime_of(config: Mapping[str, Any], method: Any, setup: Setup) -> Regime:
    """One row or several, and between which lengths the same operations run. Raises: NoFit for very short rows."""
    if setup.seq < SHORT:
        raise NoFit(f"rows of fewer than {SHORT} tokens are traced one by one")
    prompt, last = prompt_of(method), longest(config) or 0
    low = 32 if not last or last >= 160 else 8
    high = last - prompt if last else 0
    edges = [int(config[name]) - prompt for name in EDGES if config.get(name)]  # from there on a mask is made
    low = max([low, *(edge for edge in edges if edge <= setup.seq)])
    above = [edge - 1 for edge in edges if edge > setup.seq]
    high = min([high, *above] if high else above, default=0)
    ranked = hasattr(method, "rank") and not method.settings().get("rank_pattern")
    return Regime(setup.batch == 1, low, high, ranked)


def key_of(method: Any, setup: Setup, regime: Regime, num_labels: int) -> str:
    """What a fit holds for, as JSON: all that memory depends on, except batch, length, rank, optimizer and sharding."""
    options = {k: v for k, v in method.settings().items() if k not in (*FREE, *(["rank"] if regime.ranked else []))}
    if "dropout" in options:
        options["dropout"] = options["dropout"] > 0
    conditions = {}
    for field in fields(setup):
        value, default = getattr(setup, field.name), field.default
        if field.name == "dropout":
            value, default = value > 0, False
        value = "bf16" if value == "fp16" and field.name == "dtype" else value
        if field.name not in ("batch", "seq", "shard", "optimizer", "master_weights") and value != default:
            conditions[field.name] = value
    return json.dumps([options, conditions, [regime.one_row, regime.low, regime.high], num_labels])


@lru_cache(maxsize=256)
def _stored(name: str, key: str, file: Path, regime: Regime) -> Fit | Exception | None:
    """A shipped or cached fit, or why there can be none; None where there is neither."""
    text = presets(name).get(key) or (file.read_text() if file.exists() else None)
    if text is None:
        return None
    found = json.loads(text)
    if "moments" in found:
        return Fit.from_json(found, regime)
    return BadValue(found["error"]) if "error" in found else NoFit(found["refused"])


@cache
def presets(name: str) -> dict[str, str]:
    """The fits that ship with a model, as JSON texts by their keys: parsing all of them for one would take longer."""
    file = PRESETS / f"{name}.json.gz"
    return dict(json.loads(gzip.decompress(file.read_bytes()))) if file.exists() else {}


def keep(file: Path, text: str) -> None:
    """Cache a fit, if the file can be written."""
    with suppress(BadValue):
        write_atomically(file, text.encode())


def compact(found: Any) -> str:
    """The shortest JSON."""
    return json.dumps(found, separators=(",", ":"))


def cache_file(config: Mapping[str, Any], key: str) -> Path:
    """Where this user's own fit is kept, for these versions of what it depends on."""
    versions = [cached_version(name) for name in ("torch", "transformers", "lora-lab")]
    said = json.dumps([config, key, versions], sort_keys=True, default=str)
    return Path(platformdirs.user_cache_dir("lora_lab")) / "memory" / f"{sha256(said.encode()).hexdigest()[:32]}.json"


# ---- from moments to an estimate


def traced(config: Mapping[str, Any], method: Any, setup: Setup, num_labels: int = 2) -> Estimate:
    """The peak of this exact step, moment by moment. Raises: BadValue for a model whose step cannot be traced."""
    from lora_lab.accounting import trace  # imports torch

    (one,) = trace.record(config, method, setup, [(setup.batch, setup.seq, 0)], num_labels)
    found = of_moments(one.moments, "traced", flops=one.flops, reserved=_reserved(one, setup))
    return sharded(with_optimizer(found, [[n, 0, width, 1] for n, width in one.trained], 0, setup), config, setup)


def _reserved(one: Trace, setup: Setup) -> int:
    """What the allocator takes for two steps: in the first the optimizer makes its states."""
    weights, passes, freed = one.events
    sizes = [(n, width, 1) for n, width in one.trained]
    made = [(FAR + i, size) for i, size in enumerate(s for n, w, _ in sizes for s in optimizer_states(n, w, setup))]
    temporaries = [(2 * FAR + i, size) for i, size in enumerate(optimizer_temporaries(sizes, setup)) if size]
    gone = [(number, 0) for number, _ in temporaries]
    return reserved([*weights, *passes, *made, *temporaries, *gone, *freed, *passes, *temporaries])


def of_moments(seen: Sequence[Moment], mode: str, **more: Any) -> Estimate:
    """The estimate of a step that was followed."""
    labels = list(seen[-1].bytes)  # a tracker never forgets one
    live = np.array([[moment.bytes.get(label, 0) for label in labels] for moment in seen])
    return Estimate(mode, [(moment.phase, moment.path) for moment in seen], labels, live, **more)


def sharded(found: Estimate, config: Mapping[str, Any], setup: Setup) -> Estimate:
    """The same on each of the setup's devices, without formulas."""
    kind, _, devices = setup.shard.partition(":")
    if not kind:
        return found
    live = found.live / [int(devices) if category in SHARDED[kind] else 1 for category, _ in found.labels]
    labels = list(found.labels)
    if "weights" in SHARDED[kind]:  # each device also gathers both ends and one layer
        a = architecture_of(next((name for name, known in zoo().items() if known == config), config))
        whole = sum(m.parameters * m.count for m in a.modules if m.layer in (None, a.layers - 1))
        labels.append(("weights", "gathered from the other devices"))
        live = np.column_stack([live, np.full(len(live), whole * setup.width)])
    return replace(found, labels=labels, live=live, formulas=())


# ---- what fits


def largest(
    field: str, setup: Setup, estimated: Callable[[Setup], Estimate], available: int, limit: int | None = None
) -> int | None:
    """The most rows ("batch") or tokens per row ("seq") that fit in a step; None if even 1 row or 8 tokens do not.

    estimated  the memory of a setup
    limit      of tokens: what `longest` says
    """
    before = SHORT - 1 if field == "seq" and (limit is None or limit >= SHORT) else 0  # shorter rows: each is traced

    def fits(n: int) -> bool:
        changed: dict[str, Any] = {field: n + before}
        return estimated(replace(setup, **changed)).peak <= available

    beyond = most(fits, limit and limit - before)
    return beyond and beyond + before


def most(fits: Callable[[int], bool], limit: int | None = None) -> int | None:
    """The largest n >= 1 (and <= limit) for which `fits` holds, if it holds up to some n and no further; else None."""
    high = 1
    while (limit is None or high <= limit) and fits(high):
        high *= 2
    beyond = high if limit is None else min(high, limit + 1)
    return bisect_left(range(beyond), True, lo=high // 2 + 1, key=lambda n: not fits(n)) - 1 or None


def largest_model(method: Any, setup: Setup, available: int, names: Iterable[str]) -> str | None:
    """The model with the most parameters that the method can train in `available` bytes, by `quick`; else None."""
    fitting: dict[str, int] = {}
    for name in names:
        with suppress(LabError):  # it lacks the method's targets, or cannot read rows this long
            if quick(name, method, setup).peak <= available:
                fitting[name] = architecture_of(name).total
    return max(fitting, key=lambda name: fitting[name], default=None)


def inference(model: Any, setup: Setup, method: Any = None) -> Estimate:
    """Memory while the last token of `seq` is generated for `batch` rows; a method's adapter is kept unmerged.

    The cache holds the keys and values of all tokens, 2 L kv_heads head_dim b B S, with those of a soft prompt or
    prefix. That is exact if every layer attends to the whole past. The logits are those of one token, B V b, and in
    fp32 for sampling.
    Raises: BadValue for a model that generates nothing, or whose cache holds a latent instead, and for sharding.
    """
    from lora_lab.accounting import trace  # imports torch

    if setup.shard:
        raise BadValue("generation is estimated on one device; leave out shard")
    a, config = architecture_of(model), config_of(model)
    if a.task != "causal":
        raise BadValue(f"{a.name} does not generate token by token; give a causal model such as llama-3-8b")
    if any(module.name.endswith(".kv_b_proj") for module in a.modules):
        raise BadValue(f"{a.name} caches a latent instead of keys and values, which is not covered; try llama-3-70b")
    tokens = setup.seq + (int(method.settings().get("tokens", 0)) if method is not None else 0)
    cache = 2 * a.layers * a.kv_heads * a.head_dim * setup.width * setup.batch * tokens
    logits = setup.batch * a.vocabulary
    sizes = {("weights", part): size for part, size in trace.weights(config, method, setup).items()}
    sizes["cache", "keys and values"] = cache
    sizes["logits", "the next token's logits"] = setup.width * logits
    if setup.width != 4:
        sizes["logits", "the next token's logits in fp32"] = 4 * logits
    wide = setup.tokens * (3 * a.intermediate + a.hidden) * setup.width
    notes = [*NOTES, f"reading all {setup.tokens:,} tokens at once takes about {wide / 2**20:,.0f} MiB more at first"]
    if config.get("sliding_window"):
        notes.append("layers with a sliding window keep less of a long past than is counted here")
    known = {"keys and values": "2·L·kv_heads·head_dim·b·B·S", "the next token's logits": "B·V·b"}
    formulas = [(known | {"the next token's logits in fp32": "4·B·V"}).get(term, "") for _, term in sizes]
    return of_sizes("predicted", "generation", sizes, formulas=formulas, notes=tuple(notes))
