# %% [markdown]
# # 12 · Are four bits enough?
#
# In 16 bits, the weights of Llama 3 8B take 15.0<!--fit.weights--> GiB: too much to train on a 16 GB card. **QLoRA** stores the frozen weights in 4 bits each, and trains LoRA beside them in 32 bits. But four bits allow only sixteen values, so nearly every weight is a little wrong. **Why does the model still work?**
#
# Let's round one matrix of MiniLM to 4 bits. **How large is the norm of the rounding error, as a percentage of the matrix's norm?** Give a range that you're 80% sure of.

# %%
import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.checks.bits import CASES, in_gib
from lora_lab import LoRA, MemoryPanel, load_model, memory, verdict
from lora_lab.experiments.results import from_store
from lora_lab.methods.quant import levels_of, quantize
from lora_lab.training.assets import shipped
from lora_lab.training.train import evaluate_adapter

lesson.start("12")
lesson.predict("percent error in 4 bits", low=..., high=...)

model = load_model("minilm", num_labels=2)
weight = model.bert.encoder.layer[2].attention.self.query.weight.detach()  # (384, 384), fp32

# %% [markdown]
# ## A block by hand
# **NF4** ("4-bit NormalFloat") stores frozen weights like this:
#
# 1. Cut the matrix into **blocks** of 64 numbers. For each block, keep **absmax**, its largest absolute value.
# 2. Divide the block by absmax. Now its numbers are between -1 and 1.
# 3. For each number, find the nearest of sixteen fixed **levels**. Store this level's index in 4 bits.
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


# %% [markdown]
# ## All blocks
# The sixteen levels aren't evenly spaced. **Why not?** Below, each black line is a level, and its stripe shows the weights that are rounded to it. The lower half has evenly spaced levels.

# %% alt="A histogram of a matrix's weights, shaped like a bell, in 16 blue stripes that are narrowest in the middle: 9.3% error. Below it, mirrored, the same weights in 16 orange stripes of equal width: 10.4% error. Thin bars at -1 and 1: each block's absmax."
blocks = weight.view(-1, 64)
scales = blocks.abs().amax(1, keepdim=True)
scaled = blocks / scales
nf4, even, wrong = levels_of("nf4"), torch.linspace(-1, 1, 16), {}
plt.figure(figsize=(6, 3.8))
for name, levels, up, *colors in (("NF4", nf4, 1, "C0", "#56B4E9"), ("evenly spaced", even, -1, "C1", "#E69F00")):
    nearest = (scaled[..., None] - levels).abs().argmin(-1)
    wrong[name] = 100 * float((levels[nearest] * scales - blocks).norm() / blocks.norm())
    stripes = [scaled[nearest == k].numpy() for k in range(16)]
    plt.hist(stripes, 200, weights=[0 * stripe + up for stripe in stripes], stacked=True, color=8 * colors)
    plt.vlines(levels, 0, 250 * up, color="black")
    plt.text(-0.95, 1300 * up, f"{name}:\n{wrong[name]:.1f}% error", color=colors[0], fontsize=11, va="center")
plt.text(0.97, 600, "each block's\nabsmax", ha="right", fontsize=9, color="#666666")
plt.gca().set(xlabel="weight / absmax of its block", xticks=[-1, 0, 1], yticks=[], frame_on=False), plt.show()
lesson.reveal("percent error in 4 bits", wrong["NF4"], "%")

# %% claim
from lora_lab.methods.quant import import_bitsandbytes

if theirs := import_bitsandbytes():  # the library that was released with QLoRA
    packed, state = theirs.functional.quantize_4bit(weight, quant_type="nf4")
    assert torch.equal(theirs.functional.dequantize_4bit(packed, state), quantize(weight, "nf4-single").dequantized())
assert [f"{of:.1f}" for of in wrong.values()] == ["9.3", "10.4"]
twice = quantize(weight, "nf4").dequantized() - weight  # double quantization costs next to nothing
assert abs(wrong["NF4"] - 100 * twice.norm() / weight.norm()) < 0.01

# %% [markdown]
# <details><summary>What we found: one matrix</summary>
#
# **The error is 9.3% of the matrix.** Most weights are small, so NF4 has more levels near 0.
# </details>
#
# ## Is that a lot?
# When LoRA learned to judge movie reviews, it changed this matrix by 13.7%. The rounding error is two thirds of that.
#
# Now we round the whole model to 4, 3 or 2 bits:
#
# - **After training** (diamonds, one adapter): LoRA learns on the 16-bit model. Then we round the model.
# - **Before training** (circles, five seeds): we round the model. Then LoRA learns on it.
#
# Each is compared with its own accuracy at 16 bits. **How many points of accuracy do 4 bits cost, if we round before training?** Give a range. **And at how many bits is the damage too large for LoRA to repair?**

# %%
lesson.predict("points lost with 4 bits", low=..., high=...)

# %% alt="Change in accuracy from 16 bits, in points, for models of 16, 4, 3 and 2 bits. At 16 and 4 bits, orange diamonds (rounded after training) and blue circles (before) are all near 0. At 3 bits, the diamond is at -5, and at 2 bits, at -20. From each of these, an arrow goes up to the blue circles: near -1 at 3 bits, and at -7 at 2 bits. Training there repairs 4 and 13 points."
adapter, task = shipped("data/results/minilm-rt-r8"), lesson.small("rt", lesson.workplace("12"), rows=120)
stored = from_store(shipped("data/results/sweeps/bits.zip"))  # made by train("minilm", "rt", LoRA(rank=8), dtype=form)
before, after = {}, {}
plt.figure(figsize=(4.8, 4)), plt.ylabel("change from 16 bits, in points")
for x, form in enumerate(("bf16", "nf4+bf16", "nf3+bf16", "nf2+bf16")):
    before[form], after[form] = stored.at(dtype=form).scores, evaluate_adapter(adapter, task, dtype=form)["accuracy"]
    low, dots = 100 * (after[form] - after["bf16"]), 100 * (before[form].mean(axis=1) - before["bf16"].mean())
    plt.plot(5 * [x], dots, "C0o", x, low, "C1D", fillstyle="none", markersize=8)
    if x > 1:
        plt.annotate("", (x, dots.min() - 0.3), (x, low + 0.5), arrowprops={"arrowstyle": "->", "linewidth": 2})
        plt.text(x - 0.07, (low + dots.mean()) / 2, f"LoRA repairs\n{dots.mean() - low:.0f} points", ha="right", va="center")
plt.text(2.85, low, "rounded after training", color="C1", ha="right", va="center")
plt.text(2.85, dots.mean(), "rounded before training", color="C0", ha="right", va="center")
plt.xticks(range(4), ["16 bits", "4 bits", "3 bits", "2 bits"]), plt.show()
lesson.reveal("points lost with 4 bits", -100 * (said := verdict(before["nf4+bf16"], before["bf16"], margin=0.015)).difference, "points")

# %% claim
import numpy as np

assert said.outcome == "equivalent" and said.low95 < 0 < said.high95
assert before["nf3+bf16"].mean() < before["nf4+bf16"].mean() < before["bf16"].mean()
assert verdict(before["nf2+bf16"], before["bf16"], margin=0.015).outcome == "worse"
lost = {form: 100 * (before["bf16"].mean() - before[form].mean()) for form in before}
fell = {form: 100 * (after["bf16"] - after[form]) for form in after}
assert [round(lost[form], 1) for form in ("nf4+bf16", "nf3+bf16", "nf2+bf16")] == [0.2, 0.8, 7.1]
assert lesson.FAST or 0.3 < fell["nf4+bf16"] < 0.9 < 100 * np.ptp(before["nf4+bf16"].mean(axis=1))
assert lesson.FAST or (4.5 < fell["nf3+bf16"] < 5.5 and 19.5 < fell["nf2+bf16"] < 20.5)
assert lesson.FAST or [round(fell[form] - lost[form]) for form in ("nf3+bf16", "nf2+bf16")] == [4, 13]

# %% [markdown]
# <details><summary>What we found: all matrices</summary>
#
# **At 4 bits, there's hardly any damage.** Rounding before training costs 0.2 points (80.75<!--bits.nf4-->% instead of 80.93<!--bits.bf16-->%).
#
# **At 3 bits, LoRA repairs most of the damage.** Rounding after training costs about 5 points, but rounding before it costs only 0.8. **At 2 bits, 7.1 points stay lost.**
# </details>
#
# ## Why does rounding hurt so little?
# Below, in some order, are corners of three matrices: our 4-bit error, the same error with its numbers *shuffled*, and LoRA's update. **Which one is the update? Can you tell the other two apart?**

# %% alt="Three gray squares. The first two look like the static of an old television, and nobody could tell them apart. The third is woven from dark and light rows and columns."
from safetensors.torch import load_file

adapted = load_file(adapter / "adapter_model.safetensors")
A, B = (adapted[f"base_model.model.bert.encoder.layer.2.attention.self.query.lora_{one}.weight"] for one in "AB")
update, error = 2 * B @ A, quantize(weight, "nf4").dequantized() - weight
moved = error.flatten()[torch.randperm(error.numel(), generator=torch.manual_seed(0))].view_as(error)

_, axes = plt.subplots(1, 3, figsize=(4.8, 1.9), layout="constrained")
for number, (ax, change) in enumerate(zip(axes, (moved, error, update)), 1):
    ax.imshow(change[:96, :96], cmap="gray", vmin=-0.03, vmax=0.03)
    ax.set(title=str(number), xticks=[], yticks=[])
plt.show()

# %% claim
from lora_lab import load_task, load_tokenizer
from lora_lab.experiments.low_rank import spectrum

energy = [spectrum(change.numpy()) ** 2 / (change**2).sum().item() for change in (moved, error, update)]
assert abs(energy[0].cumsum() - energy[1].cumsum()).max() < 0.01  # one curve
assert (round(100 * float(update.norm() / weight.norm()), 1), round(float(error.norm() / update.norm()), 2)) == (13.7, 0.68)
seen, texts = [], [*map(str, load_task("rt").test.texts[:100])]
reading = load_tokenizer("minilm")(texts, return_tensors="pt", padding=True)
query = model.bert.encoder.layer[2].attention.self.query
hook = query.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
with torch.no_grad():
    model.eval()(**reading)
hook.remove()
read = seen[0][reading["attention_mask"].bool()]  # the inputs of this layer: one row per token
changes = [update, *(quantize(weight, form).dequantized() - weight for form in ("nf4", "nf3", "nf2"))]
shares = [round(100 * float((read @ change.T).norm() / (read @ weight.T).norm())) for change in changes]
assert shares == [22, 8, 16, 45]
noise = torch.linalg.svdvals(read @ changes[2].T)  # 3 bits; without the first eight, the least that rank 8 can leave
assert round(100 * float(noise[8:].norm() / (read @ weight.T).norm())) == 13

# %% [markdown]
# <details><summary>What we found: a pattern and noise</summary>
#
# **Training makes a pattern. Rounding makes noise.** The third square is the update. The second is the error, but nobody can tell it from the first (shuffled).
#
# The update's numbers form a pattern, so their effects add up. The error's numbers partly cancel. On 100 reviews, the update changes this layer's outputs by 22%, but the error by 8%. At 3 bits, the error's effect is 16%. At 2 bits, it's 45%: **the noise is stronger than the pattern.**
#
# **How can LoRA repair noise without a pattern?** It hardly removes the noise: even the best update of rank 8 would reduce the 16% only to 13%. Our guess: training makes what the task needs stronger than the noise.
# </details>
#
# ## What does QLoRA save?
# Training LoRA on Llama 3 8B takes 18.7<!--bits.llama.16--> GiB (all linear layers, gradient checkpointing, one text of 2,048 tokens). **What percentage of this memory does QLoRA need?** Give a range. Then press *LoRA all-linear* and *QLoRA* in the panel. **Which parts don't shrink?**

# %%
lesson.predict("% of LoRA's memory", low=..., high=...)

# %%
lora = LoRA(rank=8, targets="all-linear")
step = {"seq": 2048, "checkpointing": True}
steps = {form: memory("llama-3-8b", lora, quantised=form, **step) for form in ("none", "nf4")}
lesson.reveal("% of LoRA's memory", 100 * steps["nf4"].peak / steps["none"].peak, "%")
MemoryPanel("llama-3-8b", "QLoRA", card="T4", models=["llama-3-8b"], **step)

# %% claim
from lora_lab import params

count = params("llama-3-8b", lora)
linear = sum(layer.full for layer in count.modules if layer.trained)
sizes = [linear * 16, linear * 4.127, (count.total - linear) * 16]  # bits
assert [round(size / 8 / 2**30, 1) for size in sizes] == [13.0, 3.4, 2.0]
assert 45 < 100 * steps["nf4"].peak / steps["none"].peak < 51
assert (
    steps["nf4"].peak - steps["nf4"].categories["weights"] == steps["none"].peak - steps["none"].categories["weights"]
)

# %% [markdown]
# <details><summary>What we found: memory</summary>
#
# **Only the weights of linear layers shrink:** from 13.0 to 3.4 GiB. Embeddings, norms and the head keep 16 bits, and take 2.0 GiB. Everything except the weights, mostly logits, takes 3.6<!--bits.llama.rest--> GiB.
# </details>
#
# **Exercise 2: your card.** Each absmax takes memory, too. With 32 bits for each, NF4 takes $4+32/64=4.5$ bits per weight. **Double quantization** stores each absmax in 8 bits, and one 32-bit scale for 256 of them: $4+8/64+32/(64\cdot256)=4.127$ bits per weight.
#
# With double quantization, how large is the peak memory of training? And what's the largest number of bits per weight at which the model fits on your card?

# %% exercise
name, device, tokens = case = lesson.draw("case", *CASES)
linear, other, rest, room = in_gib(case)
print(f"{name}, in 16 bits: {linear:.2f} GiB in linear layers, {other:.2f} GiB elsewhere")
print(f"{tokens:,} tokens: {rest:.2f} GiB for adapter, AdamW, activations and logits")
print(f"{device}: {room:.2f} GiB usable")
peak = ...  # GiB
fits = ...  # the most bits that fit: "16 bits", "4.5 bits", "4.127 bits" or "none"
checks.check_card(peak, fits, case)

# %% solution
name, device, tokens = case = lesson.draw("case", *CASES)
linear, other, rest, room = in_gib(case)
print(f"{name}, in 16 bits: {linear:.2f} GiB in linear layers, {other:.2f} GiB elsewhere")
print(f"{tokens:,} tokens: {rest:.2f} GiB for adapter, AdamW, activations and logits")
print(f"{device}: {room:.2f} GiB usable")
needed = {bits: linear * bits / 16 + other + rest for bits in (16, 4.5, 4.127)}
peak = needed[4.127]
fits = next((f"{bits} bits" for bits, size in needed.items() if size < room), "none")
checks.check_card(peak, fits, case)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **A weight that's only read can be coarse.** Freeze the base in 4 bits; train A and B in 32 bits.
# 2. **Train on the base that you'll use.**
# 3. **QLoRA shrinks only the weights of linear layers,** to about a quarter. And it takes more time: *for Llama-2-7B on an A100, 2.8 hours instead of LoRA's 1.9 (published: [Raschka 2023](https://lightning.ai/pages/community/lora-insights/); we read a summary).*
#
# Start with NF4 and double quantization. *Published, for chat models: rank 64, α 16, rate 2e-4 ([QLoRA's scripts](https://github.com/artidoro/qlora), read in part).*
#
# *Ours (MiniLM, one task, rank 8 on `q,v`): 4 and 16 bits are equivalent within 1.5 points. Published: on MMLU, the mean of LLaMA 7B to 65B was 53.1% with 4 bits, and 53.0% with 16 ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314), read in part).*
#
# The same in PEFT:
# ```python
# bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
#                           bnb_4bit_use_double_quant=True,
#                           bnb_4bit_compute_dtype=torch.bfloat16)  # T4: float16, here and below
# base = AutoModelForCausalLM.from_pretrained("meta-llama/Meta-Llama-3-8B",
#                                             dtype=torch.bfloat16, quantization_config=bits)
# base.gradient_checkpointing_enable({"use_reentrant": False})
# config = LoraConfig(r=64, lora_alpha=16, target_modules="all-linear")
# model = get_peft_model(base, config)
# ```
# </details>

# %%
lesson.receipt()
