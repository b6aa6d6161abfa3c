"""Methods with even fewer trainable parameters than LoRA. A and B are frozen, and only a few other numbers are trained.

    VeRA:       y = W x + b * B (d * A x)                   # d (rank) and b (out) are trained
    LoRA-XS:    y = W x + (alpha / rank) B R A x            # R (rank, rank) is trained
    TinyLoRA:   y = W x + B (v_1 P_1 + ... + v_u P_u) A x   # v (u) is trained, and layers may share v

                A is (rank, in), and B is (out, rank)
    VeRA:       A and B are random, and the whole model has one pair: each layer uses a slice of it
    LoRA-XS:    A = S V^T and B = U, where U S V^T is the truncated SVD of W
    TinyLoRA:   A = S^1/2 V^T and B = U S^1/2, with the same SVD of W, and each P (rank, rank) is random

The parameters b, R and v start at zero, so the output is initially unchanged, but their gradients are not zero. (The
official code of LoRA-XS samples R with a standard deviation of 1e-5.) Roles in a fused layer, such as q and v in
GPT-2's c_attn, share one adapter, and the other outputs are unchanged. A, B and P are sampled as in PEFT.

Sources: VeRA, Kopiczko et al. 2024 (arXiv:2310.11454); LoRA-XS, Bałazy et al. 2024 (arXiv:2405.17604); TinyLoRA, Morris
et al. 2026 (arXiv:2602.04118).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.lazy import F, Tensor, nn, torch
from lora_lab.methods.base import POSITIVE, adapter_layer, attach, register
from lora_lab.methods.layer_method import Rows, TargetMethod, gather, scatter

MAX_SAMPLES = 2**28  # 1 GiB in fp32; rank-1024 VeRA on Llama-70B needs 38 million


class FrozenPair(TargetMethod):
    """The base class for VeRA, LoRA-XS and TinyLoRA. The attribute `frozen` of an adapter holds A and B."""

    rank: int

    def update(self, adapter: Any, h: Tensor, out_features: int) -> Tensor:
        """Return the update of the output as a tensor (..., out_features), given h = A x, a tensor (..., rank)."""
        raise NotImplementedError

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        a = adapter.frozen.A[:, : x.shape[-1]]
        return y + self.update(adapter, F.linear(x.to(y.dtype), a.to(y.dtype)), y.shape[-1])

    def merged_weights(self, adapter: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        a = adapter.frozen.A[:, : weight.shape[1]].float()
        return weight + self.update(adapter, a.t(), len(weight)).t(), bias


@register
@dataclass(frozen=True)
class VeRA(FrozenPair):
    """VeRA: the model has one frozen random pair A, B, and each layer trains a factor for each row of A and of B.

    rank              The number of rows of A. It can be much higher than in LoRA, since a row adds only one parameter.
    d_initial         The initial value of the factors d of A's rows.
    projection_seed   The seed from which A and B are sampled.
    save_projection   Whether files hold A and B. If not, files are small, but A and B are sampled again on loading,
                      and another version of torch may sample different values.
    Raises: BadValue for an invalid value.
    """

    name, peft_type, allowed = "vera", "VERA", {"rank": 1, "projection_seed": 0}
    numbers: ClassVar[Mapping[str, Any]] = {
        "d_initial": ("other than 0, from -1e30 to 1e30", lambda value: 0 < abs(value) <= 1e30)
    }
    by_output: ClassVar[Mapping[str, str]] = {"vera_lambda_b": "vera_lambda_b"}
    in_peft: ClassVar[Mapping[str, str]] = {
        "r": "rank", "d_initial": "d_initial", "projection_prng_key": "projection_seed",
        "save_projection": "save_projection",
    }  # fmt: skip
    always: ClassVar[Mapping[str, Any]] = {"bias": "none", "vera_dropout": 0.0, "init_weights": True}

    rank: int = 256
    targets: tuple[str, ...] = ("q", "v")
    d_initial: float = 0.1
    projection_seed: int = 0
    save_projection: bool = True

    def places(self, model: nn.Module) -> list[tuple[str, dict[str, Any]]]:
        places, device = super().places(model), next(model.parameters()).device
        shapes = [adapter_layer.out_by_in(model.get_submodule(path)).shape for path, _ in places]
        out_features, in_features = map(max, zip(*shapes, strict=True))
        check_count(self.rank * (in_features + out_features))
        generator = torch.Generator().manual_seed(self.projection_seed)

        def kaiming(*shape: int) -> Tensor:
            bound = math.sqrt(3) * (math.sqrt(2) / math.sqrt(shape[1]))  # sqrt(6 / in), rounded as PEFT rounds it
            return sample(shape, device, lambda matrix: matrix.uniform_(-bound, bound, generator=generator))

        frozen = attach.Frozen(A=kaiming(self.rank, in_features), B=kaiming(out_features, self.rank))
        return [(path, {**options, "frozen": frozen}) for path, options in places]

    def start(self, layer: nn.Module, **options: Any) -> dict[str, Tensor]:
        weight = adapter_layer.out_by_in(layer)
        fp32: Any = {"dtype": torch.float32, "device": weight.device}
        b = torch.zeros(len(gather(weight, options["rows"])), **fp32)
        return {"vera_lambda_d": torch.full((self.rank,), self.d_initial, **fp32), "vera_lambda_b": b}

    def update(self, adapter: Any, h: Tensor, out_features: int) -> Tensor:
        d, b = adapter.vera_lambda_d, scatter(adapter.vera_lambda_b, adapter.rows, out_features)
        return b.to(h.dtype) * F.linear(d.to(h.dtype) * h, adapter.frozen.B[:out_features].to(h.dtype))

    def saved(self, adapter: Any, key: str) -> dict[str, Tensor]:
        b = scatter(adapter.vera_lambda_b, adapter.rows, len(adapter_layer.out_by_in(adapter)))
        trained = {f"{key}vera_lambda_b": b, f"{key}vera_lambda_d": adapter.vera_lambda_d}
        shared = {"base_model.vera_A": adapter.frozen.A, "base_model.vera_B": adapter.frozen.B}
        return trained | shared if self.save_projection else trained


@register
@dataclass(frozen=True)
class LoRAXS(FrozenPair):
    """LoRA-XS: train a small square matrix R between frozen A and B. PEFT reads the file as LoRA, with B R as its B.

    Raises: BadValue for an invalid value, or for a rank above what a layer can hold.
    """

    name, allowed, numbers = "lora-xs", {"rank": 1}, {"alpha": POSITIVE}
    in_peft: ClassVar[Mapping[str, str]] = {"r": "rank", "lora_alpha": "alpha"}
    always: ClassVar[Mapping[str, Any]] = {  # without our header, the file is read as LoRA
        "peft_type": "LORA", "bias": "none", "lora_dropout": 0.0, "use_rslora": False, "init_lora_weights": True,
    }  # fmt: skip

    rank: int = 16
    alpha: float = 16
    targets: tuple[str, ...] = ("q", "v")

    def start(self, layer: nn.Module, **options: Any) -> dict[str, Tensor | nn.Module]:
        u, s, v = truncated_svd(layer, self.rank, **options)
        if len(s) < self.rank:
            raise BadValue(f"rank {self.rank} is too high for a {v.shape[1]} x {len(u)} layer: use at most {len(s)}")
        return {"frozen": attach.Frozen(A=s[:, None] * v, B=u), "lora_R": u.new_zeros(self.rank, self.rank)}

    def update(self, adapter: Any, h: Tensor, out_features: int) -> Tensor:
        r = (self.alpha / self.rank * adapter.lora_R).to(h.dtype)
        return F.linear(F.linear(h, r), adapter.frozen.B.to(h.dtype))

    def saved(self, adapter: Any, key: str) -> dict[str, Tensor]:
        a, b, r = adapter.frozen.A, adapter.frozen.B, adapter.lora_R
        return {f"{key}lora_A.weight": a, f"{key}lora_B.weight": b @ r, f"{key}loraxs_B": b, f"{key}loraxs_R": r}


@register
@dataclass(frozen=True)
class TinyLoRA(FrozenPair):
    """TinyLoRA: LoRA-XS whose matrix R is a weighted sum of frozen random matrices. Only the weights v are trained.

    rank              The rank of the square matrices. Layers that are too small for this rank have a lower rank.
    u                 The length of v, which is also the number of random matrices.
    weight_tying      0 gives each layer its own v, 0.5 lets two layers share a v, and 1 lets all layers share one v.
    projection_seed   The seed of P in the first layer. The seed increases by 1 for each following layer.
    save_projection   Whether files hold P, like A and B in `VeRA`.
    """

    name, peft_type, allowed = "tinylora", "TINYLORA", {"rank": 1, "u": 1, "projection_seed": 0}
    numbers: ClassVar[Mapping[str, Any]] = {"weight_tying": ("from 0 to 1", lambda value: 0 <= value <= 1)}
    in_peft: ClassVar[Mapping[str, str]] = {
        "r": "rank", **{name: name for name in ("u", "weight_tying", "projection_seed", "save_projection")},
    }  # fmt: skip
    always: ClassVar[Mapping[str, Any]] = {"bias": "none", "tinylora_dropout": 0.0, "init_weights": True}

    rank: int = 2
    u: int = 64
    targets: tuple[str, ...] = ("q", "v")
    weight_tying: float = 0.0
    projection_seed: int = 42
    save_projection: bool = True

    def places(self, model: nn.Module) -> list[tuple[str, dict[str, Any]]]:
        places, device = super().places(model), next(model.parameters()).device
        shapes = (adapter_layer.out_by_in(model.get_submodule(path)).shape for path, _ in places)
        check_count(sum(self.u * min(self.rank, *shape) ** 2 for shape in shapes))
        groups = max(1, round(len(places) * (1 - self.weight_tying)))
        shared = [torch.nn.ParameterDict({"v": torch.zeros(self.u, device=device).float()}) for _ in range(groups)]
        for index, (_, options) in enumerate(places):
            group = min(index // (len(places) // groups), groups - 1)  # the last group takes any remainder
            options.update(index=index, group=group, shared=shared[group])
        return places

    def start(self, layer: nn.Module, **options: Any) -> dict[str, nn.Module]:
        u, s, v = truncated_svd(layer, self.rank, options["rows"], options["empty"])
        generator, rank = torch.Generator().manual_seed(self.projection_seed + options["index"]), len(s)
        p = sample((self.u, rank, rank), u.device, lambda p: p.normal_(0, 1 / rank**0.5, generator=generator))
        return {"frozen": attach.Frozen(A=s.sqrt()[:, None] * v, B=u * s.sqrt(), P=p)}

    def update(self, adapter: Any, h: Tensor, out_features: int) -> Tensor:
        r = torch.einsum("u,uij->ij", adapter.shared.v.to(adapter.frozen.P), adapter.frozen.P).to(h.dtype)
        return F.linear(F.linear(h, r), adapter.frozen.B.to(h.dtype))

    def saved(self, adapter: Any, key: str) -> dict[str, Tensor]:
        names = ("A", "B", "P") if self.save_projection else ("A", "B")
        frozen = {f"{key}tinylora_{name}": getattr(adapter.frozen, name) for name in names}
        return frozen | {f"base_model.tinylora_v.{adapter.group}": adapter.shared.v}


def check_count(numbers: int) -> None:
    """Raise BadValue for too many frozen random numbers. Even a small file can ask for many without storing them."""
    if numbers > MAX_SAMPLES:
        raise BadValue(f"{numbers:,} frozen random numbers exceed the limit of {MAX_SAMPLES:,}: use a lower rank or u")


def sample(shape: tuple[int, ...], device: torch.device, fill: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the CPU generator's random numbers, the same on all devices. On the meta device, return only a shape."""
    empty = torch.empty(shape, device=device if device.type == "meta" else "cpu", dtype=torch.float32)
    return empty if empty.is_meta else fill(empty).to(device)


def truncated_svd(layer: nn.Module, rank: int, rows: Rows, empty: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (out, r), S (r) and V^T (r, in) for the r largest singular values of the given rows of W; r <= rank.

    empty   Whether to return zeros, to be filled from a file, because the SVD of a large matrix takes minutes.
    """
    weight = adapter_layer.out_by_in(layer).detach().float()
    selected = gather(weight, rows)
    r = min(rank, *selected.shape)
    if empty:
        return weight.new_zeros(len(weight), r), weight.new_zeros(r), weight.new_zeros(r, weight.shape[1])
    u, s, v = torch.linalg.svd(selected, full_matrices=False)
    return scatter(u[:, :r].t(), rows, len(weight)).t().clone(), s[:r].clone(), v[:r]
