# %% [markdown]
# # 12 · Are four bits enough?
#
# In 16 bits, the weights of Llama 3 8B take 15.0<!--fit.weights--> GiB, more than a 16 GB card can use. **QLoRA** stores the frozen weights in 4 bits, and trains LoRA beside them in full precision. But four bits allow only sixteen values, so nearly every weight is wrong.
#
# ## Three guesses
# 1. We round each number in one of MiniLM's matrices to one of sixteen values. **How large is the error, as a percentage of the matrix?** (Compare norms.)
# 2. We train LoRA on MiniLM in 4 and 16 bits. **How many points of accuracy do 4 bits cost?**
# 3. LoRA on Llama 3 8B (all linear layers, checkpointing, a text of 2,048 tokens) needs 18.7<!--bits.llama.16--> GiB. **What percentage of that does QLoRA need?**
#
# Be 80% sure.

# %%
import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_lab import LoRA, MemoryPanel, load_model, memory, params, verdict
from lora_lab.accounting.gpus import card, usable
from lora_lab.experiments.results import from_store
from lora_lab.methods.quant import import_bitsandbytes, levels_of, quantize
from lora_lab.training.assets import shipped
from lora_lab.training.train import evaluate_adapter

lesson.start("12")
lesson.predict("percent wrong in 4 bits", low=..., high=...)
lesson.predict("points lost with 4 bits", low=..., high=...)
lesson.predict("% of LoRA's memory", low=..., high=...)

model = load_model("minilm", num_labels=2)
weight = model.bert.encoder.layer[2].attention.self.query.weight.detach()  # (384, 384), fp32

# %% [markdown]
# ## A block by hand
# Training adds many small steps to a weight, and a coarse number would round them away. But a frozen weight is only *read*, so it may be coarse. **NF4** ("4-bit NormalFloat") stores it like this:
#
# 1. Cut the matrix into **blocks** of 64 numbers. For each block, keep **absmax**: its largest absolute value.
# 2. Divide the block by absmax. Now its numbers are between -1 and 1.
# 3. For each number, find the nearest of sixteen fixed **levels**. Store the level's index in 4 bits.
#
# To read a weight, **dequantize** it: multiply its level by its block's absmax.
#
# **Exercise 1: quantize a block.**

# %% exercise
row = lesson.draw("row", 7, 60, 150, 240, 330)
block, levels = weight[row, :64], levels_of("nf4")
absmax = ...
index = ...  # (64,), the index of the nearest level; a[:, None] - levels is (64, 16)
back = ...  # (64,), the dequantized numbers
checks.check_block(absmax, index, back, block)

# %% solution
row = lesson.draw("row", 7, 60, 150, 240, 330)
block, levels = weight[row, :64], levels_of("nf4")
absmax = block.abs().max()
index = (block[:, None] / absmax - levels).abs().argmin(1)
back = levels[index] * absmax
checks.check_block(absmax, index, back, block)


# %%
blocks = weight.view(-1, 64)
scales = blocks.abs().amax(1, keepdim=True)
scaled = blocks / scales


def wrong(levels):
    """Quantize every block, as you did with one, and return the error as a percentage of the matrix's norm."""
    back = levels[(scaled[..., None] - levels).abs().argmin(-1)] * scales
    return 100 * float((back - blocks).norm() / blocks.norm())


if theirs := import_bitsandbytes():  # the library that was released with QLoRA
    packed, state = theirs.functional.quantize_4bit(weight, quant_type="nf4")
    back = theirs.functional.dequantize_4bit(packed, state)
    same = torch.equal(back, quantize(weight, "nf4-single").dequantized())
    print("the lab's result equals that of bitsandbytes, bit for bit:", same)
lesson.reveal("percent wrong in 4 bits", wrong(levels_of("nf4")), "%")

# %% claim
assert not theirs or same
fitted, size = levels_of("nf4"), (scales**2).expand_as(scaled)
for _ in range(60):  # k-means, each weight as heavy as its error will be
    nearest = (scaled[..., None] - fitted).abs().argmin(-1)
    fitted = torch.stack([(size * scaled)[nearest == k].sum() / size[nearest == k].sum() for k in range(16)])
assert [round(wrong(levels), 1) for levels in (fitted, torch.linspace(-1, 1, 16))] == [8.9, 10.4]
assert 9 < wrong(levels_of("nf4")) < 9.5 and wrong(levels_of("int4")) > 1.15 * wrong(levels_of("nf4"))
twice = quantize(weight, "nf4").dequantized() - weight  # double quantization costs next to nothing
assert abs(wrong(levels_of("nf4")) - 100 * twice.norm() / weight.norm()) < 0.01

# %% [markdown]
# ## Why these sixteen?
# Trained weights are distributed like a bell curve, so NF4's levels come from one. Trim the curve's ends. Cut its right half into eight slices of equal area, and the left half into seven. The slices' 16 edges, scaled to lie between -1 and 1, are the levels.
#
# Below, all weights in a stripe are rounded to one level, the stripe's black line. *Your* levels are evenly spaced. **At how many bits do they beat NF's levels?**

# %% alt="Histograms of a matrix's weights, for 2, 3 and 4 bits. NF's levels are above; yours are below, mirrored. Colors show to which level each weight is rounded."
yours = {bits: torch.linspace(-1, 1, 2**bits) for bits in (2, 3, 4)}  # try others

_, axes = plt.subplots(1, 3, figsize=(12, 4.5), sharey=True, layout="constrained")
for ax, bits in zip(axes, yours):
    nf = (f"NF{bits}", levels_of(f"nf{bits}"), 1, "#0072B2", "#56B4E9")
    for name, levels, up, *colors in nf, ("yours", yours[bits], -1, "#D55E00", "#E69F00"):
        nearest = (scaled[..., None] - levels).abs().argmin(-1)
        stripes = [scaled[nearest == k].numpy() for k in range(len(levels))]
        heights = [0 * stripe + up for stripe in stripes]
        ax.hist(stripes, 200, weights=heights, stacked=True, color=(8 * colors)[: len(levels)])
        ax.vlines(levels, 0, 250 * up, color="black")
        ax.text(-1, 1900 * up, f"{name}: {wrong(levels):.1f}% wrong", color=colors[0], fontsize=14, va="center")
    ax.set(xlabel="weight / absmax of its block", xticks=[-1, 0, 1], yticks=[], ylim=(-2100, 2100), frame_on=False)
plt.show()

# %% claim
even = {bits: wrong(torch.linspace(-1, 1, 2**bits)) for bits in (2, 3, 4)}
normal = {bits: wrong(levels_of(f"nf{bits}")) for bits in even}
assert [[round(of[bits]) for of in (normal, even)] for bits in even] == [[57, 53], [20, 22], [9, 10]]
assert levels_of("nf2").tolist()[:2] == [-1, 0]  # nothing between them
assert (scaled[scaled < 0] > -0.5).float().mean() > 0.75  # of the negative weights, the share that NF2 makes 0
bell = torch.special.ndtr(levels_of("nf4").double() * torch.special.ndtri(torch.tensor(0.9677083).double()))
left, right = bell.diff()[:7], bell.diff()[7:]  # areas between the levels
assert bell[7] == 0.5 and len(right) == 8 and left.std() < 1e-6 > right.std()
assert (scaled.abs() == 1).sum() >= len(scaled)

# %% [markdown]
# <details><summary>What we found</summary>
#
# At 2 bits: 53% is wrong with evenly spaced levels, and 57% with NF2's. NF2 has no level between -1 and 0, so it makes most negative weights 0.
# </details>
#
# ## Static
# Three changes of our matrix, on one gray scale: its rounding error, the same error *shuffled*, and LoRA's update. **Which is which?**

# %% alt="Three gray squares. The first two look like the static of an old television, and nobody could tell them apart. The third is woven from dark and light rows and columns."
from safetensors.torch import load_file

adapter = shipped("data/results/minilm-rt-r8")
adapted = load_file(adapter / "adapter_model.safetensors")
A, B = (adapted[f"base_model.model.bert.encoder.layer.2.attention.self.query.lora_{one}.weight"] for one in "AB")
update, error = 2 * B @ A, quantize(weight, "nf4").dequantized() - weight
moved = error.flatten()[torch.randperm(error.numel(), generator=torch.manual_seed(0))].view_as(error)

_, axes = plt.subplots(1, 3, figsize=(10.5, 3.8), layout="constrained")
for number, (ax, change) in enumerate(zip(axes, (moved, error, update)), 1):
    ax.imshow(change[:96, :96], cmap="gray", vmin=-0.03, vmax=0.03)
    ax.set(title=str(number), xticks=[], yticks=[])
plt.show()
changes = [change.numpy() for change in (moved, error, update)]

# %% claim
from lora_lab.experiments.low_rank import rank_for_energy, spectrum

energy = [spectrum(one) ** 2 / (one**2).sum() for one in changes]
assert [round(100 * float(one[0]), 1) for one in energy[1:]] == [1.1, 79.3]
assert abs(energy[0].cumsum() - energy[1].cumsum()).max() < 0.01  # one curve
assert round(float(error.norm() / update.norm()), 2) == 0.68

# %% [markdown]
# <details><summary>What we found</summary>
#
# The second is the error, the third LoRA's update. By eye, the first two are alike: **rounding adds static; training weaves a pattern.** The strongest piece (lesson 10) holds 1.1% of the error's energy, but 79.3% of the update's.
# </details>
#
# ## Train on a rounded base
# The static is two thirds as large as the update. **Can LoRA still learn?**
#
# Blue dots are stored runs (five seeds each). The orange circles are *one* adapter, trained on 16 bits and moved to each base. Where a circle lies clearly below the dots, adapters trained there have learned to repair the rounding. **At how many bits does that start?** The triangle shows damage of the same size: on 16 bits, we shortened the update by the error's length.

# %% alt="Change in accuracy from 16 bits, in points, for bases of 16, 4, 3 and 2 bits. Blue dots, for adapters trained on that base, fall by 7 points at 2 bits. Orange circles, for one adapter moved to each base, fall further at 3 and 2 bits. A triangle at 16 bits, for a shortened update, lies at -3.4."
from lora_course.experiments.shortened import shortened

task = lesson.small("rt", store := lesson.workplace("12"), rows=120)
stored = from_store(shipped("data/results/sweeps/bits.zip"))  # made by train("minilm", "rt", LoRA(rank=8), dtype=form)
right, moved = {}, {}
for x, form in enumerate(("bf16", "nf4+bf16", "nf3+bf16", "nf2+bf16")):
    right[form] = stored.at(dtype=form).scores  # (5 seeds, 2,000 sentences)
    moved[form] = evaluate_adapter(adapter, task, dtype=form)["accuracy"]
    plt.plot(5 * [x], 100 * (right[form].mean(axis=1) - right["bf16"].mean()), "C0o", alpha=0.6)
    plt.plot(x, 100 * (moved[form] - moved["bf16"]), "C1o", fillstyle="none", markersize=10)
against = evaluate_adapter(shortened(adapter, store / "shortened"), task, dtype="bf16")["accuracy"]
plt.text(-0.055, 100 * (against - moved["bf16"]), "△ shortened update", color="C1", va="center")
plt.gca().set(title="Blue: trained on this base. Orange: trained on 16 bits", ylabel="change from 16 bits (in points)")
plt.xticks(range(4), ["16 bits", "NF4", "NF3", "NF2"])
print("4 bits against 16:", said := verdict(right["nf4+bf16"], right["bf16"], margin=0.015))
lesson.reveal("points lost with 4 bits", -100 * said.difference, "points")

# %% claim
import numpy as np

assert said.outcome == "equivalent" and said.low95 < 0 < said.high95
assert right["nf3+bf16"].mean() < right["nf4+bf16"].mean() < right["bf16"].mean()
assert verdict(right["nf2+bf16"], right["bf16"], margin=0.015).outcome == "worse"
lost = {form: 100 * (right["bf16"].mean() - right[form].mean()) for form in right}
fell = {form: 100 * (moved["bf16"] - moved[form]) for form in moved}
assert [round(lost[form], 1) for form in ("nf3+bf16", "nf2+bf16")] == [0.8, 7.1]
assert lesson.FAST or 0.3 < fell["nf4+bf16"] < 0.9 < 100 * np.ptp(right["nf4+bf16"].mean(axis=1))
assert lesson.FAST or (4 < fell["nf3+bf16"] < 5.5 and 18 < fell["nf2+bf16"] < 22)
from lora_lab import load_task, load_tokenizer

rows, off = load_tokenizer("minilm")(list(load_task("rt").test.texts[:64]), padding=True, return_tensors="pt"), []


def compare(layer, inputs):  # the layer's output, with its weights in 4 bits and in full
    x, W = inputs[0][rows.attention_mask.bool()], layer.weight.detach()
    off.append(100 * (x @ (quantize(W, "nf4").dequantized() - W).T).norm() / (x @ W.T).norm())


for block in model.bert.encoder.layer:
    for layer in (block.attention.self.query, block.attention.self.value):
        layer.register_forward_pre_hook(compare)
with torch.no_grad():
    model(**rows)
assert len(off) == 12 and 7 < min(off) < max(off) < 11
counts, sizes = [], []
for number, block in enumerate(model.bert.encoder.layer):
    for role in ("query", "value"):
        W, name = getattr(block.attention.self, role).weight.detach(), f"layer.{number}.attention.self.{role}"
        A, B = (adapted[f"base_model.model.bert.encoder.{name}.lora_{one}.weight"] for one in "AB")
        error, update = (quantize(W, "nf4").dequantized() - W).numpy(), (2 * B @ A).numpy()
        counts.append([rank_for_energy(spectrum(one), 0.9) for one in (error, update)])
        sizes.append(np.linalg.norm(error) / np.linalg.norm(update))
noise, few = zip(*counts)
assert round(float(np.median(sizes)), 2) == 0.65
assert 185 < min(noise) < max(noise) < 197 and {*few} == {1, 2, 3, 4}
assert lesson.FAST or 0.03 < moved["bf16"] - against < 0.038
assert lesson.FAST or all(
    moved["bf16"] - moved[form] > 1.5 * (right["bf16"].mean() - right[form].mean()) for form in ("nf3+bf16", "nf2+bf16")
)

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Training on 4 bits costs nearly nothing:** LoRA gets 80.75<!--bits.nf4-->% right on a 4-bit base, and 80.93<!--bits.bf16-->% on 16 bits. The static is spread over all directions, so it does little harm. Shortening the update by as much costs 3.4 points (the triangle).
#
# **Below 4 bits, LoRA (with its head) repairs much of the damage.** At 3 bits, the moved adapter loses about 5 points, but adapters trained on 3 bits lose 0.8.
# </details>
#
# ## What it saves
# With one 32-bit absmax per 64 weights, NF4 takes 4.5 bits per weight. **Double quantization** stores absmax in 8 bits (plus 32 bits per 256 blocks), which makes 4.127 bits. Only linear layers are quantized: embeddings, norms and head keep 16 bits. Press *LoRA all-linear*, then *QLoRA*: **how much does the gray block shrink, and why not to a quarter?**

# %%
lora = LoRA(rank=8, targets="all-linear")
step = {"seq": 2048, "checkpointing": True}
steps = {form: memory("llama-3-8b", lora, quantised=form, **step) for form in ("none", "nf4")}
lesson.reveal("% of LoRA's memory", 100 * steps["nf4"].peak / steps["none"].peak, "%")
MemoryPanel("llama-3-8b", "QLoRA", card="T4", models=["llama-3-8b"], **step)

# %% claim
count = params("llama-3-8b", lora)
linear = sum(layer.full for layer in count.modules if layer.trained)
sizes = [linear * 16, linear * 4.127, (count.total - linear) * 16]  # bits
assert [round(size / 8 / 2**30, 1) for size in sizes] == [13.0, 3.4, 2.0]
assert 45 < 100 * steps["nf4"].peak / steps["none"].peak < 51
assert (
    steps["nf4"].peak - steps["nf4"].categories["weights"] == steps["none"].peak - steps["none"].categories["weights"]
)

# %% [markdown]
# <details><summary>What we found</summary>
#
# QLoRA needs 48<!--bits.llama.share-->% of LoRA's memory. The weights shrink from 15.0<!--fit.weights--> to 5.4<!--bits.llama.weights--> GiB: linear layers go from 13.0 to 3.4, but embeddings and head still take 2.0. The other 3.6<!--bits.llama.rest--> GiB, mostly logits, don't change.
# </details>
#
# ## Your card
# **Exercise 2:** with NF4 and double quantization, how large is the peak? What does double quantization save? How many bits per weight fit?

# %%
small, t4 = "RTX 3060 12 GB", "T4 16 GB"
cases = [("llama-3-8b", small, 2800), ("mistral-7b", t4, 2048), ("gemma-2-9b", t4, 2048)]
cases += [("llama-2-13b", small, 4096), ("qwen2.5-7b", "L4 24 GB", 2048)]
name, device, tokens = case = lesson.draw("case", *cases)
room, count = usable(card(device)), params(name, lora)
linear = sum(layer.full for layer in count.modules if layer.trained)
other = count.total - linear  # embeddings, norms, head
rest = memory(name, lora, seq=tokens, checkpointing=True).peak - 2 * count.total
print(f"{name}: {linear:,} weights in linear layers, {other:,} elsewhere")
print(f"{tokens:,} tokens: {rest:,} bytes for adapter, AdamW, activations and logits")
print(f"{device}: {room:,} bytes usable")

# %% exercise
peak = ...  # GiB (2**30 bytes)
saved = ...  # MiB (2**20 bytes)
fits = ...  # the most bits that fit: "16 bits", "4.5 bits", "4.127 bits" or "none"
checks.check_card(peak, saved, fits, case)


# %% solution
def needed(bits):
    return linear * bits / 8 + 2 * other + rest


peak = needed(4.127) / 2**30
saved = (needed(4.5) - needed(4.127)) / 2**20
fits = next((f"{bits} bits" for bits in (16, 4.5, 4.127) if needed(bits) < room), "none")
checks.check_card(peak, saved, fits, case)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **A weight that's only read may be coarse.** Freeze the base in 4 bits; train A and B in 32 bits.
# 2. **QLoRA saves three quarters of the memory for the weights of linear layers**, and nothing on embeddings, head, activations and logits.
# 3. **QLoRA takes more time (published). Below 4 bits, use an adapter only on the base that it was trained on.**
#
# Start with NF4 and double quantization. *Published, for chat models: rank 64, α 16, rate 2e-4 (1e-4 for 33B and larger; [QLoRA's scripts](https://github.com/artidoro/qlora)).*
#
# *Ours (MiniLM, one task, rank 8 on `q,v`): 4 and 16 bits are equivalent within 1.5 points. Published: on MMLU, LLaMA 7B to 65B averaged 53.1% with 4 bits and 53.0% with 16 ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314)). QLoRA took 2.8 hours, LoRA 1.9 (Llama-2-7B on an A100: [Raschka 2023](https://lightning.ai/pages/community/lora-insights/)). We read these sources in part, but only a summary of Raschka's article.*
#
# The same in PEFT:
# ```python
# bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
#                           bnb_4bit_use_double_quant=True,
#                           bnb_4bit_compute_dtype=torch.bfloat16)
# base = AutoModelForCausalLM.from_pretrained("meta-llama/Meta-Llama-3-8B",
#                                             dtype=torch.bfloat16, quantization_config=bits)
# base.gradient_checkpointing_enable({"use_reentrant": False})
# config = LoraConfig(r=64, lora_alpha=16, target_modules="all-linear")
# model = get_peft_model(base, config)
# ```
# </details>

# %%
lesson.receipt()
