"""Exercises for lesson 00 (what's in this small file): count one pair of matrices, then a whole file."""

from lora_course.checks.verdict import Number, Verdict, exercise
from lora_lab.accounting.models import config_of

_FORMULA = "replace the ... with a number or a formula"
_INPUTS, _OUTPUTS = 576, 1536  # gate_proj in smollm2


@exercise
def check_pair_numbers(answer: int | None, rank: int = 2) -> Verdict:
    """Lesson 00: check how many numbers A and B hold for smollm2's gate, 576 -> 1,536."""
    i, o = _INPUTS, _OUTPUTS
    misconceptions = {
        i * o: "that is W, which stays frozen: only A and B are trained",
        i * o + rank * (i + o): "W is frozen: count A and B alone",
        rank * i * o: "only W has inputs times outputs numbers; for A and B, two thin matrices, add inputs and outputs",
        rank * i: "that is A alone: B has numbers, too",
        rank * o: "that is B alone: A has numbers, too",
        2 * rank * i: f"that is for a square W: this one has {i} inputs and {o:,} outputs",
        2 * rank * o: f"that is for a square W: this one has {i} inputs and {o:,} outputs",
        i + o: f"that is rank 1: at rank {rank} there are {rank} times as many",
        rank * (i + o) * 4: "those are bytes: the question asks how many numbers there are",
        i * o - rank * (i + o): "nothing is taken away from W: LoRA does not shrink the model, it adds to it",
    }
    right = rank * (i + o)
    why = f"{rank} x ({i} + {o:,}) = {right:,}, compared with {i * o:,} in W"
    return Number(right, misconceptions, why, hint=_FORMULA).judge(answer)


@exercise
def check_file_bytes(answer: float | None, model: str = "llama-3.2-1b", rank: int = 8) -> Verdict:
    """Lesson 00: check the bytes of an fp32 LoRA file, without its header, for all linear layers of a zoo model."""
    c = config_of(model)
    d, f, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
    kv = d * c["num_key_value_heads"] // c["num_attention_heads"]
    a_row = 4 * layers * rank  # bytes per input and per output, over all layers
    sides = 2 * (d + d) + 2 * (d + kv) + 3 * (d + f)
    right = a_row * sides
    misconceptions = {
        a_row * (4 * (d + d) + 3 * (d + f)): f"k and v are narrow in this model: they have {kv:,} outputs, not {d:,}",
        right // layers: f"that is one layer: the model has {layers}",
        right // 4: "those are numbers: each takes 4 bytes",
        right // 2: "that is for 2 bytes per number: here, each number takes 4",
        right * 8: "those are bits: a number takes 4 bytes",
        right // rank: f"that is rank 1: at rank {rank}, there are {rank} times as many bytes",
        right / 1e6: "those are MB: answer in bytes, or multiply by 10**6",
        right / 2**20: "those are MiB: answer in bytes, or multiply by 2**20",
        a_row * (6 * d + f): "that is A alone: B has numbers, too",
        a_row * (3 * d + 2 * kv + 2 * f): "that is B alone: A has numbers, too",
        a_row * (2 * (d + d) + 2 * (d + kv)): "gate, up and down are linear layers, too: three more in each layer",
        a_row * 3 * (d + f): "q, k, v and o are linear layers, too: four more in each layer",
        a_row * (2 * (d + d) + 2 * (d + kv) + 2 * (d + f)): "there are three matrices between d and f: gate, up, down",
        a_row * ((d + d) + (d + kv)): "that is q and v alone: count all linear layers, seven in each layer",
        4 * layers * (2 * d * d + 2 * d * kv + 3 * d * f): "those are the frozen weights: only A and B are saved",
        a_row * (2 * d * d + 2 * d * kv + 3 * d * f): "inputs and outputs are added, not multiplied: A and B are thin",
    }
    why = f"4 x {layers} x {rank} x {sides:,} = {right:,} bytes, {right / 1e6:,.1f} MB"
    return Number(right, misconceptions, why, hint=_FORMULA).judge(answer)
