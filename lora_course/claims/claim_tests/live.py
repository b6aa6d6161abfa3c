"""Experiments that do it: a layer is merged, swapped and trained here and now. Small, seeded, on one torch thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lora_course.claims.claim_tests.cases import Case, Finding, check_known, experiment

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lora_lab.layers import LoRALinear

ROWS = 64
VOCABULARY, WIDTH, PROMPT, LENGTH = 24, 32, 4, 8  # of the layer that reads a token's vector and scores the next token


@experiment
def merging_is_free(merged: bool, dtypes: list[str], d: int, rank: int, update: float) -> Finding:
    """Does an adapted layer do the base's arithmetic and no more? What merging rounds off is reported but not judged.

    merged  whether the update is in the weight; else it stands beside it
    update  length of the update as a share of the weight's
    """
    cases, rounded = [], []
    for dtype in dtypes:
        with _one_thread():
            layer, x = _adapted(dtype, d, rank, update)
            wanted, before = layer.delta_weight(), layer.frozen_weight().float().clone()
            base = _operations(layer.base_layer, x)
            served = _merged(layer, dtype) if merged else layer
            more = _operations(served, x) / base - 1
        if merged:
            rounded.append(f"{dtype} {float((served.weight.float() - before - wanted).norm() / wanted.norm()):.2g}")
        cases.append(Case({"dtype": dtype}, more == 0, f"{more:+.1%} arithmetic"))
    lost = f"Rounding is another question: it takes this share of the update: {'; '.join(rounded)}." if rounded else ""
    return Finding(tuple(cases), (f"a layer of {d} x {d}, adapted and asked here and now",), note=lost)


@experiment
def swapping_is_free(ways: list[str], adapters: int, d: int, rank: int, extra: float) -> Finding:
    """Do rows that want different adapters each get theirs, for at most so much more arithmetic than the base's?

    ways: "merged" (the first adapter is in the weight) and "beside" (each stands beside it).
    """
    import torch

    check_known(ways, ("merged", "beside"), "ways")
    cases = []
    for way in ways:
        with _one_thread():
            layers = [_adapted("fp32", d, rank, 0.1)[0] for _ in range(adapters)]
            x = torch.randn(ROWS, d)
            for seed, layer in enumerate(layers):
                layer.lora_A.data = torch.randn(rank, d, generator=torch.Generator().manual_seed(seed)) / d**0.5
            wanted = [layer(x) for layer in layers]
            base = _operations(layers[0].base_layer, x)
            serving: list[nn.Module] = [_merged(layers[0], "fp32")] * adapters if way == "merged" else [*layers]
            right = [torch.allclose(one(x), own, atol=1e-4) for one, own in zip(serving, wanted, strict=True)]
            more = _operations(serving[0], x) / base - 1
        found = f"{right.count(False)} of {adapters} adapters' rows answered wrongly, {more:+.1%} arithmetic"
        cases.append(Case({"way": way}, all(right) and more <= extra, found))
    return Finding(tuple(cases), (f"a layer of {d} x {d} with {adapters} adapters, asked here and now",))


@experiment
def trains_in(
    dtype: str, fp32_copy: bool, epsilons: list[float], rate: float, steps: int, d: int, rank: int, times: float
) -> Finding:
    """Does a student whose A and B are kept in this dtype come as near to its teacher as one in fp32, times a factor?

    fp32_copy  keep A, B and AdamW's moments in fp32 and only multiply in the dtype, as this lab does
    epsilons   what AdamW adds to the root of its second moment, the same for both students; its default is 1e-8
    """
    cases = []
    for eps in epsilons:
        with _one_thread():
            error = _student(dtype, fp32_copy, eps, rate, steps, d, rank)
            exact = _student("fp32", False, eps, rate, steps, d, rank)
        found = f"misses {error:.2%} of the update" if error == error else "ends in NaN"
        settings = {"dtype": dtype, "fp32 copy": fp32_copy, "eps": eps}
        cases.append(Case(settings, error <= times * exact, f"{found}, in fp32 {exact:.2%}"))  # NaN is not
    student = f"a student of rank {rank} beside a {d} x {d} weight, {steps} steps of AdamW, trained here and now"
    return Finding(tuple(cases), (student,))


@experiment
def one_and_the_same(methods: list[str], objectives: list[str], steps: int) -> Finding:
    """If LoRA were SFT, LoRA could not train for anything else, nor anything else for SFT: can they?

    methods: "lora" and "full"; objectives: "sft" (the response's tokens), "text" (all tokens), "preference" (one answer
    before another). Each pair trains one small layer with the same code; only the two arguments differ.
    """
    check_known(methods, ("lora", "full"), "methods")
    check_known(objectives, ("sft", "text", "preference"), "objectives")
    cases = []
    for method, objective in ((m, o) for m in methods for o in objectives if (m == "lora") != (o == "sft")):
        with _one_thread():
            first, last = _trained(method, objective, steps)
        found = f"the loss falls from {first:.3f} to {last:.3f}"
        cases.append(Case({"method": method, "objective": objective}, not last < 0.9 * first, found))
    if not cases:
        why = "nothing here could tell the two apart"
        return Finding((Case({}, None, why, "a second method, or a second objective"),), ())
    note = "LoRA says which numbers train, SFT says what they train for."
    return Finding(tuple(cases), ("a small layer trained here and now, by one piece of code",), always=True, note=note)


def _adapted(dtype: str, d: int, rank: int, update: float) -> tuple[LoRALinear, Tensor]:
    """A random frozen layer with an adapter whose update is so long beside the weight, and inputs (ROWS, d)."""
    import torch
    from torch import nn

    from lora_lab.layers import LoRALinear

    check_known([dtype], ("fp32", "bf16", "fp16", "nf4"), "dtypes")
    torch.manual_seed(0)
    numbers = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype, torch.float32)
    layer = LoRALinear(_quantized(nn.Linear(d, d, bias=False), dtype).to(numbers).requires_grad_(False), rank, 2.0)
    nn.init.normal_(layer.lora_B)
    with torch.no_grad():
        layer.lora_B.data *= update * layer.frozen_weight().float().norm() / layer.delta_weight().norm()
    return layer.requires_grad_(False), torch.randn(ROWS, d).to(numbers)


def _quantized(layer: nn.Linear, dtype: str) -> nn.Linear:
    """The layer; for NF4 with weights that lie on its levels."""
    from lora_lab.methods.quant import quantize

    if dtype == "nf4":
        layer.weight.data = quantize(layer.weight).dequantized()
    return layer


def _merged(layer: LoRALinear, dtype: str) -> nn.Linear:
    """What is left after merging; an NF4 base is quantized again."""
    base: nn.Linear = layer.base_layer  # type: ignore[assignment]
    base.weight.data = layer.merged_weights(base.weight.float(), None)[0].to(base.weight.dtype)
    return _quantized(base, dtype)


def _operations(layer: nn.Module, x: Tensor) -> int:
    from lora_course.experiments.flops import operations

    return operations(lambda: layer(x))


def _student(dtype: str, fp32_copy: bool, eps: float, rate: float, steps: int, d: int, rank: int) -> float:
    """What an adapter learns of a teacher's update of its own rank: |learned - update| / |update|."""
    import torch

    layer, _ = _adapted(dtype, d, rank, 0.5)
    update, frozen = layer.delta_weight(), layer.frozen_weight()  # the teacher's: the student begins anew
    layer.lora_A.data = torch.randn(rank, d) / d**0.5
    layer.lora_B.data.zero_()
    trained = [layer.lora_A, layer.lora_B]
    for parameter in trained:
        parameter.data = parameter.data.to(torch.float32 if fp32_copy else frozen.dtype)
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=rate, eps=eps, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(ROWS, d, generator=generator)
        optimizer.zero_grad()
        (layer(x.to(frozen.dtype)).float() - x @ (frozen.float() + update).T).square().mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float((layer.delta_weight() - update).norm() / update.norm())


def _loss(objective: str, model: Callable[[Tensor], Tensor], good: Tensor, bad: Tensor) -> Tensor:
    from torch.nn import functional as F

    def nll(tokens: Tensor) -> Tensor:
        """The loss of each next token, (rows, LENGTH - 1)."""
        return F.cross_entropy(model(tokens)[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")

    if objective == "preference":
        return -F.logsigmoid((nll(bad) - nll(good))[:, PROMPT - 1 :].sum(1)).mean()
    return nll(good)[:, PROMPT - 1 if objective == "sft" else 0 :].mean()


def _trained(method: str, objective: str, steps: int) -> tuple[float, float]:
    """The loss before and after so many steps: `method` says what trains, `objective` what for."""
    import torch
    from torch import nn

    from lora_lab.layers import LoRALinear

    torch.manual_seed(0)
    embedding, layer = nn.Embedding(VOCABULARY, WIDTH).requires_grad_(False), nn.Linear(WIDTH, VOCABULARY)
    top = LoRALinear(layer.requires_grad_(False), 4, 2.0) if method == "lora" else layer
    good = torch.randint(VOCABULARY, (16, LENGTH))
    good[:, PROMPT:] = (good[:, :1] + torch.arange(LENGTH - PROMPT)) % VOCABULARY  # an answer that can be learned
    bad = good.roll(1, 0)
    bad[:, :PROMPT] = good[:, :PROMPT]
    optimizer = torch.optim.AdamW([p for p in top.parameters() if p.requires_grad], lr=3e-2, weight_decay=0.0)
    losses = []
    for _ in range(steps + 1):
        optimizer.zero_grad()
        loss = _loss(objective, lambda tokens: top(embedding(tokens)), good, bad)
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from a second thread; the random state is left as it was."""
    import torch

    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
