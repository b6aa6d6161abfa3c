# %% [markdown]
# # 05 · Memory
#
# *An older lesson; where it names lessons by number, it means the older course, `old_00` to `old_15`.*
#
# **Goal.** Say where the memory of a training step goes, term by term; predict it, and check it to the byte; tell which card a
# fine-tuning fits, and why; and catch the claims that do not add up.
#
# **Time box.** 60 minutes. **You need** PyTorch a little. Lesson 01 met the bytes of a weight; here comes the rest.
#
# **This machine** takes a few real steps of a small model, some seconds each. Everything else is arithmetic and instant.
#
# ## Units first
# A **GB** is $10^9$ bytes, a **GiB** is $2^{30}$, 7 % more; a MB and a MiB differ by 5 %. A graphics card sold with "24 GB" has 24 GiB. A
# number in **fp32** takes 4 bytes, in **bf16** or fp16 two. Eight bits are a byte. A **row** is one text of a batch: `batch` rows of `seq` tokens.

# %%
import torch
from torch import nn

from lora_course import checks
from lora_course.classroom.room import room_for
from lora_course.lesson import compare
from lora_lab import FullFineTuning, LoRA, PromptTuning, memory, params

GiB, MiB = 2**30, 2**20
print(room_for("old_05"))

# %% [markdown]
# ## Four numbers per parameter
# A weight that trains brings more with it. **Backward** makes a **gradient** for it: which way to move. **Adam**, the usual optimizer,
# keeps two **moments** for it from one step to the next: a running mean of its gradient, and one of the gradient's square. So
# there are four numbers where one was. A frozen weight has only itself.
#
# ### Exercise 1 · 4 minutes
# Llama-3-8B has 8,030,261,248 parameters. All of it in fp32, all of it trains with Adam. How many **GiB** are weights, gradients and
# moments together? (Write the formula; Python computes.)

# %% exercise
adam_gib = ...
checks.check_adam_gib(adam_gib)

# %% solution
adam_gib = 8_030_261_248 * (4 + 4 + 4 + 4) / 2**30
checks.check_adam_gib(adam_gib)

# %% [markdown]
# The lab has an accountant: `memory(model, method, ...)` answers from the model's config, without any weights. Its answer is a list
# of **terms**, each with a category and the part of the model that made it; here they are summed by category. The row is made very short, so that what grows with it hardly counts.

# %%
full = memory("llama-3-8b", FullFineTuning(), batch=1, seq=8, dtype="fp32")
for category, size in full.categories.items():
    print(f"{category:12} {size / GiB:7.2f} GiB")
states = sum(full.categories[c] for c in ("weights", "gradients", "optimizer"))
print(f"weights, gradients, moments {states / GiB:.1f} GiB; the peak, {full.peak / GiB:.1f}, comes at {full.at}")

# %% claim
# 16 bytes per parameter; the rest are the frequencies of the positions, and a step counter for each tensor
assert 0 <= states - 16 * params("llama-3-8b", FullFineTuning()).total < 2**12
assert full.peak == full.phases[full.at] == max(full.phases.values())

# %% [markdown]
# Not all terms live at once: the **peak** is the fullest *moment*. Here it is the optimizer's step: gradients and moments are all there,
# Adam's arithmetic needs some scratch space, and what forward kept is already gone. With longer rows it will be another moment, right
# after the loss.
#
# In bf16 throughout it is 8 bytes. With bf16 for computing and fp32 copies for the update ("mixed precision") it is 2 + 2 + 4 + 4 + 4 = 16 again. So what
# did the LoRA paper mean by "from 1.2 TB to 350 GB" for GPT-3, with its 175 billion parameters?

# %%
print(f"1.2 TB are {1.2e12 / 175e9:.2f} bytes per parameter; 16 would be {16 * 175e9 / 1e12:.1f} TB")
print(f"350 GB are {350e9 / 175e9:.2f} bytes per parameter: the frozen weights in fp16, and nothing else")

# %% claim
assert 6 < 1.2e12 / 175e9 < 8

# %% [markdown]
# 6.86 bytes: weights and both moments in fp16 are 2 + 4 = 6; 0.86 are left for gradients (2 each) and activations, too few. Section 4.2
# hints at how it was counted: LoRA saves up to 2/3, because the optimizer states of frozen parameters need not be kept. The moments are
# 4 of those 6 bytes, which is 2/3; gradients are not mentioned. The ratio holds for this way of counting; do not carry it over to yours.
#
# ## Activations: what forward keeps for backward
# Take $y = Wx$. Backward needs $x$ to make the gradient of $W$, and needs $W$ to pass a gradient on to $x$. If $W$ is frozen, nobody
# asks for its gradient, so $x$ **need not be kept**. Tensors kept from forward for backward are called **activations**.
# They grow with every token.
#
# PyTorch tells us what it keeps: `saved_tensors_hooks` calls us for each tensor. We count those that are not parameters.

# %%
def kept(layers, x):
    """Bytes that forward keeps for backward, weights left out, each storage once."""
    own = {p.untyped_storage().data_ptr() for p in layers.parameters()}
    found = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        layers(x)
    return sum(found.values())

# %% [markdown]
# The toy: two matrices with a **GELU** between them (a curve applied to each number; its backward needs its input). 256 tokens of 512
# numbers in fp32 are 0.5 MiB. `x` asks for a gradient, as it does inside a model where something before it trains.
#
# **Predict.** How many MiB does the toy keep: when both matrices train; when both are frozen; and when both are frozen but
# the first carries a LoRA adapter of rank 8?

# %%
guess_trains, guess_frozen, guess_adapted = None, None, None  # MiB

# %%
class WithAdapter(nn.Module):
    def __init__(self, frozen, rank=8):
        super().__init__()
        self.frozen = frozen
        self.A = nn.Parameter(torch.randn(rank, 512) / 512**0.5)
        self.B = nn.Parameter(torch.zeros(512, rank))

    def forward(self, x):
        return self.frozen(x) + 2 * (x @ self.A.T @ self.B.T)


x = torch.randn(256, 512, requires_grad=True)
toy = nn.Sequential(nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 512))
trains = kept(toy, x)
frozen = kept(toy.requires_grad_(False), x)
adapted = kept(nn.Sequential(WithAdapter(toy[0]), toy[1], toy[2]), x)

# %%
print(compare("both train", guess_trains, trains / MiB, "MiB"))
print(compare("both frozen", guess_frozen, frozen / MiB, "MiB"))
print(compare("frozen, the first adapted", guess_adapted, adapted / MiB, "MiB"))
one = 256 * 512 * 4

# %% claim
assert trains == 3 * one  # x, GELU's input, and its output, which the second matrix needs
assert frozen == one  # GELU's input alone: frozen matrices keep nothing
assert adapted == 2 * one + 256 * 8 * 4  # x again, for A's gradient, and the 8 numbers a token between A and B

# %% [markdown]
# So LoRA does not do away with activations. What lies between the matrices (GELU, attention, norms) keeps its inputs either way;
# an adapter brings back the input of *its* matrix. The saving is the inputs of matrices that carry none.
#
# ## Predicted beside measured
# Now a real model, minilm, and a real training step on this machine: 4 rows of 64 tokens. Every tensor's storage is followed from
# birth to death. A **trace** does the same over tensors *without data*, which have shapes and no numbers. A **prediction** takes no step at
# all: between two operations, the live bytes are a polynomial in rows and tokens, and every further layer adds the same. So a few
# traces of a shallow model give all the coefficients, and the peak is the largest of these polynomials.
#
# **Predict.** Full fine-tuning needs about 436 MiB at its peak. And LoRA of rank 8 on q and v? It trains 0.3 % as much.

# %%
guess_lora = None  # MiB

# %%
from lora_lab.training.measure import measure

step = {"batch": 4, "seq": 64, "dtype": "fp32", "device": "cpu"}
peaks, traces, predictions = {}, {}, {}
for name, method in {"full": FullFineTuning(), "LoRA": LoRA(rank=8)}.items():
    predicted = memory("minilm", method, **step)
    traced = memory("minilm", method, trace=True, **step)
    measured = measure("minilm", method, **step)
    peaks[name], traces[name], predictions[name] = measured.peak, traced.peak, predicted.peak
    for e in (predicted, traced, measured):
        print(f"{name}: {e.mode:9} {e.peak / MiB:.2f} MiB")
print(compare("LoRA", guess_lora, peaks["LoRA"] / MiB, "MiB"))

# %% claim
assert predictions == traces == peaks  # to the byte

# %% [markdown]
# All three agree to the byte (at lengths between the multiples of 32, a prediction may be off by up to 0.1 %). A trace of any size needs
# neither weights nor a GPU; a prediction takes less than a millisecond once its polynomials are known. Where they are not, the lab makes
# them with a progress bar, and keeps them. Measured here means *bytes of tensors*. The process holds more: Python and its libraries, and
# gaps between tensors.
#
# **Stop here** if time is short: you know the terms. What follows uses them.
#
# ## The film of a step
# **Predict** before you touch the panel. On Llama-3-8B, one row of 512 tokens, LoRA needs 29 % of what full fine-tuning needs where all is in bf16,
# AdamW's moments too (8 bytes per parameter). What percentage does it need at 32,768 tokens?
#
# The panel shows one step from left to right. Choose a method above it, and pull the line through the picture. Each horizontal line is a card's
# *usable* memory: its size minus CUDA's 0.8 GiB and 3 % fragmentation (an RTX 3090 of 24 GB shows programs 23.6 GiB; these three figures are from
# memory, not measured here). Find out: at what length does the peak of full fine-tuning move from the update to the loss? Which slider brings LoRA
# nearest to full fine-tuning, and at what share does it stop? For `minilm` and `smollm2`, **measure it here** takes the step for real.

# %%
guess_share = None  # percent

# %%
from lora_lab import MemoryPanel

MemoryPanel("llama-3-8b", "full", batch=1, seq=512, rank=8)

# %% [markdown]
# ## "A single 24 GB card can fine-tune a 70B model with QLoRA"
# **QLoRA** freezes the base in 4 bits (**NF4**): a code of 4 bits per number, and a scale for each block of 64. The scales, themselves rounded,
# add 0.127 bits. Embeddings and head stay in bf16. Adapters train beside it as usual.
#
# ### Exercise 2 · 5 minutes
# Llama-2-70B has 68,451,041,280 numbers in the matrices of its layers and 525,606,912 elsewhere. How many **GiB** are the weights?

# %% exercise
nf4_gib = ...
checks.check_nf4_gib(nf4_gib)

# %% solution
nf4_gib = (68_451_041_280 * 4.127 / 8 + 525_606_912 * 2) / 2**30
checks.check_nf4_gib(nf4_gib)

# %% [markdown]
# The weights alone are more than 24 GiB. Still, let us be fair: one row of 512 tokens, **checkpointing** (explained below) to save activations, the
# smallest usual adapter and a larger one, Llama 2 and Llama 3.

# %%
from lora_lab.accounting.gpus import card, cards, usable
from lora_lab.plots.towers import Tower, lines, peaks_picture, towers_picture

small, large = LoRA(rank=8, targets=("q", "v")), LoRA(rank=16, targets="all-linear")
qlora = {"batch": 1, "seq": 512, "checkpointing": True, "quantised": "nf4"}
cases = {}
for name, model in {"Llama-2-70B": "llama-2-70b", "Llama-3-70B": "llama-3-70b"}.items():
    cases[f"{name}\nr8 on q, v"] = memory(model, small, **qlora)
    cases[f"{name}\nr16, all linear"] = memory(model, large, **qlora)
lowest = min(e.peak for e in cases.values())
title = f"The smallest needs {lowest / GiB:.1f} GiB: no 24 GB card holds a 70B in 4 bits"
two = [line for line in lines(cards()) if line.name.startswith(("24 GB", "48 GB"))]
towers_picture([Tower(n, e.categories) for n, e in cases.items()], two, title)

# %% claim
assert lowest > 24 * GiB  # not one fits 24 GB ...
assert max(e.peak for e in cases.values()) < usable(card("L40S"))  # ... all fit 48

# %% [markdown]
# The claim is **false** as it stands. What would change the answer? Fewer bits, for one. We replace the 4.127 bits by others and leave all
# else as it was.

# %%
e = cases["Llama-2-70B\nr8 on q, v"]
matrices = next(t.bytes for t in e.terms if t.where == "base in nf4")
fits = {}
for bits in (4.127, 3, 2):
    needed = e.peak - matrices + 68_451_041_280 * bits / 8
    fits[bits] = needed <= usable(card("3090"))
    verdict = "fits" if fits[bits] else "does not fit"
    print(f"{bits:5g} bits: {needed / GiB:4.1f} GiB, {verdict} a 24 GB card's {usable(card('3090')) / GiB:.1f} usable")

# %% claim
assert fits == {4.127: False, 3: False, 2: True}

# %%
from lora_course.lesson import claim

said = claim("8")  # the claim as a card, its verdict computed here; try claim("8", gpu_gb=48)
said

# %% claim
assert said.word == "false" and claim("8", gpu_gb=48).word == "true"

# %% [markdown]
# Two bits would do (and cost quality), or a 48 GB card, or two 24 GB cards with parts of the model moved out to the CPU's memory. The QLoRA
# paper claims 65B on one *48 GB* card (Dettmers et al. 2023, abstract); for 24 GB
# we know of one paper, ModuLoRA: 65B "in 2/3/4-bit precision on as little as one 24GB GPU" (Yin et al. 2023, abstract only; the arithmetic above leaves 2 bits). When a
# claim about memory comes without bits, length, batch and targets, ask for them.
#
# ## A term that is easily forgotten
# A language model ends in **logits**: a score for *each word of the vocabulary* at *each token*. Cross-entropy, the loss, works on them in fp32,
# and its backward holds three such tables at once: 12 T V bytes for T tokens and V words.
#
# ### Exercise 3 · 4 minutes
# GPT-2 knows 50,257 words. How many **MB** ($10^6$ bytes) is one fp32 table of logits, for 8 rows of 512 tokens?

# %% exercise
logits_mb = ...
checks.check_logits_mb(logits_mb)

# %% solution
logits_mb = 8 * 512 * 50257 * 4 / 10**6
checks.check_logits_mb(logits_mb)

# %%
gpt2 = memory("gpt2", LoRA(rank=8), batch=8, seq=512, dtype="fp32")
weights = 4 * params("gpt2", LoRA()).total
print(f"all of GPT-2's weights: {weights / 1e6:,.0f} MB")
for term in gpt2.terms:
    if term.category == "logits":
        print(f"logits: {term.bytes / 1e6:,.0f} MB = {term.formula} bytes, for B rows of S tokens")
tables = gpt2.categories["logits"] + gpt2.categories["temporaries"]
print(f"the peak falls at {gpt2.at}; {tables / gpt2.peak:.0%} of it are such tables")

# %% claim
assert weights < 8 * 512 * 50257 * 4  # one table is more than the whole model
assert abs(tables / (12 * 8 * 512 * 50257) - 1) < 0.001 and "loss" in gpt2.at  # and the loss holds three: 12 T V bytes

# %% [markdown]
# No adapter helps with this: LoRA leaves the head and its table as they are. Computing the loss in chunks of c tokens, backward included, would make it 12 c V bytes (by arithmetic: this lab does not model it).
#
# ## "Dramatically less memory"?
# LoRA takes away gradients and moments. It keeps the weights, the logits and most activations. You guessed LoRA's share at 32,768 tokens
# above, with all in bf16. We also set it against *mixed precision*, which keeps fp32 copies of the weights, and try **checkpointing**: it
# keeps only each layer's input, and computes the rest again (more below).

# %%
lengths = [512, 2048, 8192, 32768]
ways = {
    "full": (FullFineTuning(), {}),
    "LoRA": (LoRA(rank=8), {}),
    "full, ckpt.": (FullFineTuning(), {"checkpointing": True}),
    "LoRA, ckpt.": (LoRA(rank=8), {"checkpointing": True}),
    "QLoRA, ckpt.": (LoRA(rank=8), {"checkpointing": True, "quantised": "nf4"}),
}
by_length = {
    name: [memory("llama-3-8b", method, batch=1, seq=seq, **more).peak for seq in lengths]
    for name, (method, more) in ways.items()
}
share = [lora / full for lora, full in zip(by_length["LoRA"], by_length["full"])]
less = [lora / full for lora, full in zip(by_length["LoRA, ckpt."], by_length["full, ckpt."])]
print(compare("LoRA's share at 32,768 tokens", guess_share, 100 * share[-1], "%"))
print(f"checkpointing on both sides: {less[0]:.0%} at 512 tokens, {less[-1]:.0%} at 32,768")
mixed = (2 + 2 + 4 + 4 + 4) * params("llama-3-8b", FullFineTuning()).total  # bf16 weight and gradient; fp32 copy and moments
print(f"mixed precision takes {mixed / GiB:.1f} GiB before activations; LoRA at 512 tokens is {by_length['LoRA'][0] / mixed:.0%} of that")
print("QLoRA, checkpointed:", {n: f"{peak / GiB:.1f} GiB" for n, peak in zip(lengths, by_length["QLoRA, ckpt."])})
title = f"At 32,768 tokens LoRA needs {share[-1]:.0%} of full fine-tuning (all in bf16), at 512 only {share[0]:.0%}"
peaks_picture(lengths, by_length, lines(cards()), title)

# %% claim
assert share[0] < 0.35 and share[-1] > 0.65  # dramatic for short rows, not for long ones
assert less[0] < 0.35 and less[-1] > 0.65  # with checkpointing as well
assert 0.14 < by_length["LoRA"][0] / mixed < 0.16  # of mixed precision LoRA takes half the share
assert by_length["LoRA, ckpt."][-1] < 0.4 * by_length["LoRA"][-1]  # what helps with long rows
assert by_length["QLoRA, ckpt."][2] < usable(card("3090")) < by_length["LoRA, ckpt."][2]  # 8,192 tokens on a 24 GB card
assert by_length["QLoRA, ckpt."][-1] > 0.8 * by_length["LoRA, ckpt."][-1]  # at 32,768 four-bit weights matter little

# %% [markdown]
# What a share is measured against decides it: LoRA at 512 tokens is 29 % of full fine-tuning in pure bf16 (8 bytes per parameter), but 15 % of the
# usual mixed precision (16 bytes, a sum; `memory(..., master_weights=True)` follows such a step, and finds that widening the gradients to fp32 comes on top). With long rows, activations decide, on both sides; checkpointing
# helps, and with QLoRA it brings rows of 8,192 tokens onto a 24 GB card.
#
# ### Adapting the MLP too · Exercise 4 · 4 minutes
# "Adapters everywhere defeat the purpose"? Count. In an **MLP** (feed-forward network), `down` takes f = 14,336 numbers per token.
# Llama-3-8B has 32 layers. For 1,000 tokens in bf16: how many **GiB** of activations are kept only because `down` carries an adapter?

# %% exercise
down_gib = ...
checks.check_down_gib(down_gib)

# %% solution
down_gib = 1000 * 14336 * 2 * 32 / 2**30
checks.check_down_gib(down_gib)

# %%
long = {"batch": 1, "seq": 1000}
attention = memory("llama-3-8b", LoRA(rank=8, targets=("q", "v")), **long)
everywhere = memory("llama-3-8b", LoRA(rank=8, targets="all-linear"), **long)
whole = memory("llama-3-8b", FullFineTuning(), **long)
more = {c: everywhere.categories[c] - attention.categories[c] for c in ("activations", "weights", "optimizer")}
grew, states = more["activations"], more["weights"] + more["optimizer"]
print(f"all linear instead of q, v: activations +{grew / GiB:.2f} GiB, adapters and their moments +{states / GiB:.2f} GiB")
print(f"peaks: q, v {attention.peak / GiB:.1f}, all linear {everywhere.peak / GiB:.1f}, full {whole.peak / GiB:.1f} GiB")

# %% claim
assert grew > 5 * states  # what it costs is activations, not parameters ...
assert everywhere.peak < 1.15 * attention.peak and everywhere.peak < whole.peak / 2  # ... and the purpose stands

# %% [markdown]
# ## Checkpointing: memory for arithmetic
# Keep only each layer's *input*, and in backward run the layer's forward again. Count the price in forwards: backward for the
# inputs costs one forward's arithmetic, backward for the weights another. Full fine-tuning needs both, LoRA almost only the first.
#
# ### Exercise 5 · 3 minutes
# By what factor does checkpointing raise the arithmetic of a step: for full fine-tuning, and for LoRA?

# %% exercise
checks.check_recompute(full=..., lora=...)

# %% solution
checks.check_recompute(full=4 / 3, lora=3 / 2)

# %% [markdown]
# PyTorch counts the operations of a real step for us (its matrix products; the optimizer's step has none).

# %%
from torch.utils.flop_counter import FlopCounterMode

from lora_lab.accounting.models import config_of
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.trace import build, forward_backward, prepare

flops = {}
for name, method in {"full": FullFineTuning(), "LoRA": LoRA(rank=8)}.items():
    for again in (False, True):
        setup = Setup(batch=2, seq=64, dtype="fp32", device="cpu", checkpointing=again)
        model = build(config_of("minilm"), setup)  # the real model's shapes, with random weights
        prepare(model, method, setup)  # attach the method, switch checkpointing on or off
        with FlopCounterMode(display=False) as counter:
            forward_backward(model, setup)
        flops[name, again] = counter.get_total_flops()
    print(f"{name}: checkpointing costs {flops[name, True] / flops[name, False]:.2f} times the arithmetic")

# %% claim
assert 1.25 < flops["full", True] / flops["full", False] < 1.40 < flops["LoRA", True] / flops["LoRA", False] < 1.55

# %% [markdown]
# LoRA's step is two forwards' worth to full fine-tuning's three (Schulman 2025, *LoRA Without Regret*, counts the same two thirds), and
# checkpointing makes it three to four.
#
# ## Optimizers, and twenty vectors in place of matrices
# Where all weights train, the optimizer matters. **foreach** updates all parameters at once and needs scratch space for all; **fused** needs none;
# **8-bit** rounds the moments to a byte each. And **prompt tuning** trains 20 or 200 vectors before the text, far fewer numbers than LoRA.
# **Predict:** which of the two prompts needs less memory than LoRA of rank 32?

# %%
guess_lighter = None  # "both", "20", "200" or "neither"

# %%
by_optimizer = {}
for optimizer in ("adamw-foreach", "adamw", "adamw-fused", "adamw-8bit", "sgd"):
    e = memory("llama-3-8b", FullFineTuning(), batch=1, seq=512, optimizer=optimizer)
    by_optimizer[optimizer] = e.peak
    print(f"full, {optimizer:14} {e.peak / GiB:6.1f} GiB at {e.at}")
rows = {"batch": 4, "seq": 768}
methods = {"LoRA r32": LoRA(rank=32)} | {f"{n} prompt vectors": PromptTuning(tokens=n) for n in (20, 200)}
for name, method in methods.items():
    peaks[name] = memory("llama-3.2-3b", method, **rows).peak
    print(f"{name:19} {params('llama-3.2-3b', method).trainable:10,} numbers train, {peaks[name] / GiB:5.1f} GiB")

# %% claim
assert list(by_optimizer.values()) == sorted(by_optimizer.values(), reverse=True)  # each lighter than the one before
assert peaks["20 prompt vectors"] < peaks["LoRA r32"] < peaks["200 prompt vectors"]  # each vector is one more token in every layer

# %% [markdown]
# Twenty vectors: a little less; 200: more, though they are a fifteenth of LoRA's numbers. Hugging Face's PEFT team measured the second on a GPU: 22.7 GiB for 200 vectors, 20.8 for LoRA r32 (their figures are *reserved* memory, with
# adapters in fp32). Few parameters are not little memory.
#
# ## What this accountant does not know
# - `torch.compile`, losses in chunks, offloading to the CPU's memory and autocast (half precision chosen operation by operation) change what is kept. They are not modelled.
# - An allocator rounds each tensor up and leaves gaps: `memory(..., trace=True).reserved` simulates PyTorch's. CUDA's own context, about 0.8 GiB, comes on top of both.
# - The *longest* padded batch makes the peak, not the mean one.
#
# ## What you know now
# - A parameter that trains with Adam in fp32 takes 16 bytes, a frozen one 4; in bf16 half as much; frozen in NF4, about half a byte.
# - The peak is the fullest moment of a step, not the sum of all terms.
# - A matrix keeps its input if it trains or is adapted; everything between the matrices keeps its own.
# - Logits take 12 T V bytes at the loss, and no adapter changes that.
# - LoRA saves most for short rows; for long rows it is checkpointing that saves.
#
# **Next:** lesson 06 turns to quality: rate, rank and alpha.
