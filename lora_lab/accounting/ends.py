"""What stands before and after the layers: embeddings at one end, the head and its loss at the other, on the tape."""

from __future__ import annotations

from lora_lab.accounting.blocks import NORM_INPUT
from lora_lab.accounting.models import Architecture
from lora_lab.accounting.operations import Operations
from lora_lab.accounting.tape import Label, Storage, Value

LOGITS: Label = ("logits", "logits in the model's dtype", "T·V·b")
LOGITS_FP32: Label = ("logits", "logits and their logarithms in fp32", "4·T·V each")
HIDDEN_IN: Label = ("activations", "the layers' inputs", "T·d·b")
HEAD_IN: Label = ("activations", "the head's input", "T·d·b")
ENCODERS = ("bert", "roberta", "xlm-roberta")


def embeddings(on: Operations, a: Architecture, prompt: int, encoder: bool) -> Value:
    """The first hidden states. A soft prompt is put before each row, so that a gradient flows from here on."""
    size = on.tokens * a.hidden * on.b
    trained = a.hidden * on.b if on.trains else 0
    rotary = not encoder and a.model_type not in ("gpt2", "gpt3")
    positions, types = 0 if rotary else trained * a.positions, trained * a.token_types
    words = on.op(size, [], weights=trained * a.vocabulary, label=HIDDEN_IN)
    if on.setup.checkpointing and not on.trains:  # transformers then asks for the gradient of the embeddings' output
        out = Storage(size, HIDDEN_IN)
        leaf = [] if rotary and not prompt else [out]  # which is the first layer's input, and counted there
        words = on.op(size, [], leaf, weights=size, inside=out)
    if prompt:
        words = on.op(size, [words], weights=prompt * a.hidden * 4, label=HIDDEN_IN)
    if rotary:
        return on.scale(words, HIDDEN_IN) if a.model_type.startswith("gemma") else words
    x = on.op(size, [words], weights=positions + types, alias=True, label=NORM_INPUT)
    if encoder:
        x = on.layer_norm(x, HIDDEN_IN)
    return on.dropout(x, on.p, HIDDEN_IN)


def language_head(on: Operations, x: Value, a: Architecture, prompt: int) -> Value:
    """Norm, logits over the vocabulary, cross-entropy in fp32: its backward holds three tensors of 4·T·V bytes."""
    gemma = a.model_type.startswith("gemma")
    norm = on.layer_norm if a.model_type in ("gpt2", "gpt3") else on.gemma_norm if gemma else on.rms_norm
    logits = on.linear(norm(x, HEAD_IN), a.hidden, a.vocabulary, LOGITS, quantised=False)
    if a.model_type == "gemma2":  # its logits are capped by a tanh
        logits = on.scale(on.pointwise(on.scale(logits, LOGITS), LOGITS), LOGITS)
    fp32 = on.cast(logits, on.tokens * a.vocabulary * 4, LOGITS_FP32)
    log_p = on.pointwise(fp32, LOGITS_FP32)
    return on.op(4, [log_p], [log_p])


def classification_head(on: Operations, x: Value, a: Architecture, labels: int) -> Value:
    """The first token's hidden state, a dense layer with tanh, the logits of each class, cross-entropy.

    The head trains, beside a frozen base in fp32. Slicing one token keeps the storage of all of them.
    """
    rows, b = on.setup.batch, on.b
    dense = on.trains or a.model_type != "bert"  # BERT's pooler is pretrained and stays frozen
    width = b if on.trains else 4
    first = on.op(rows * a.hidden * b, [x], inside=x.storage)
    keeps = [first] if dense else []
    pooled = on.op(rows * a.hidden * b, [first], keeps, weights=a.hidden * (a.hidden + 1) * width * dense)
    tanh = on.pointwise(pooled, ("activations", "the head's input", "B·d·b"))
    scores = on.op(rows * labels * 4, [tanh], [tanh], weights=labels * (a.hidden + 1) * width)
    kept = Storage(rows * labels * 4, ("logits", "logits of the classes", "4·B·classes"))
    return on.op(4, [scores], [kept])
