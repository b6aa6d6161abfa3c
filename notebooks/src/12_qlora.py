# %% [markdown]
# # 12 · Are four bits enough?
#
# In 16 bits, the weights of Llama 3 8B take 15.0<!--fit.weights--> GiB. Only 13.4<!--fit.t4--> GiB of a 16 GB card is usable. **QLoRA** stores the frozen weights in 4 bits each, and trains LoRA beside them in 32 bits. But four bits allow only sixteen values, like a piano with sixteen keys: nearly every weight is slightly wrong. **Why does the model still work?**
#
# Let's round one matrix of MiniLM to 4 bits. **How large is the norm of the rounding error, as a percentage of the matrix's norm?**

# %%
import numpy as np
import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.checks.bits import CASES, in_gib
from lora_lab import LoRA, MemoryPanel, load_model, load_task, verdict
from lora_lab.experiments.results import from_store
from lora_lab.methods.quant import levels_of, quantize
from lora_lab.training.assets import shipped
from lora_lab.training.train import open_adapter

lesson.start("12")
lesson.predict("percent error in 4 bits", low=..., high=...)

model = load_model("minilm", num_labels=2)
weight = model.bert.encoder.layer[2].attention.self.query.weight.detach()  # (384, 384), fp32

# %% [markdown]
# ## A block by hand
# **NF4** ("4-bit NormalFloat") stores frozen weights like this:
#
# 1. Cut the matrix into **blocks** of 64 numbers. For each block, keep **absmax**, its largest absolute value.
# 2. Divide the block by absmax.
# 3. For each number, find the nearest of sixteen fixed **levels**. Store this level's index in 4 bits.
#
# To read a weight, **dequantize** it: multiply its level by its block's absmax.
#
# **Exercise 1: quantize a block.**

# %% exercise
row = lesson.draw("row", 7, 60, 150, 240, 330)
block, levels = weight[row, :64], levels_of("nf4")
absmax = ...
index = ...  # (64,), the index of the nearest level; if a is (64,), a[:, None] - levels is (64, 16)
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
# The sixteen levels aren't evenly spaced. **Why not?** Each black line is a level, and its stripe shows the weights that are rounded to it. (Lower half: even spacing.)

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
# **The error's norm is 9.3% of the matrix's.** Most weights are small, so NF4 has more levels near 0.
# </details>
#
# ## Is that a lot?
# When LoRA learned to judge movie reviews, it changed this matrix by 13.7%. The rounding error is two thirds of that. **Too much?**
#
# Now we round all linear layers to 4, 3 or 2 bits (at 2, the piano has four keys):
#
# - **After training** (diamonds, one adapter): LoRA learns on the 16-bit model. Then we round the model.
# - **Before training** (circles, five seeds): we round the model. Then LoRA learns on it.
#
# **If we round before training, how many points of accuracy do 4 bits cost? And 2 bits?**

# %%
lesson.predict("points lost with 4 bits", low=..., high=...)
lesson.predict("points lost with 2 bits", low=..., high=...)
adapter, task = shipped("data/results/minilm-rt-r8"), lesson.small("rt", lesson.workplace("12"), rows=120)
stored = from_store(shipped("data/results/sweeps/bits.zip"))  # made by train("minilm", "rt", LoRA(rank=8), dtype=form)
forms, before, after, scores = ("bf16", "nf4+bf16", "nf3+bf16", "nf2+bf16"), {}, {}, {}

# %% alt="Change in accuracy from 16 bits, in points, for models of 16, 4, 3 and 2 bits. At 16 and 4 bits, orange diamonds (rounded after training) and blue circles (before) are all near 0. At 3 bits, the diamond is at -5, and at 2 bits, at -20. From each of these two diamonds, an arrow goes up to the blue circles: near -1 at 3 bits, and at -7 at 2 bits. Training on the rounded model repairs 4 and 13 points."
plt.figure(figsize=(4.8, 4)), plt.ylabel("change from 16 bits, in points")
for x, form in enumerate(forms):
    before[form], tested = stored.at(dtype=form).scores, open_adapter(adapter, task, dtype=form).score()
    after[form], scores[form] = tested.metrics["accuracy"], np.diff(tested.by_row)[:, 0]
    low, dots = 100 * (after[form] - after["bf16"]), 100 * (before[form].mean(axis=1) - before["bf16"].mean())
    plt.plot(5 * [x], dots, "C0o", x, low, "C1D", fillstyle="none", markersize=8)
    if x > 1:
        plt.annotate("", (x, dots.min() - 0.3), (x, low + 0.5), arrowprops={"arrowstyle": "->", "linewidth": 2})
        plt.text(x - 0.07, (low + dots.mean()) / 2, f"LoRA repairs\n{dots.mean() - low:.0f} points", ha="right", va="center")
plt.text(2.85, low, "rounded after training", color="C1", ha="right", va="center")
plt.text(2.85, dots.mean(), "rounded before training", color="C0", ha="right", va="center")
plt.xticks(range(4), ["16 bits", "4 bits", "3 bits", "2 bits"]), plt.show()
said = [verdict(before[form], before["bf16"], margin=0.015) for form in forms[1:]]  # 4, 3, 2 bits
lesson.reveal("points lost with 4 bits", -100 * said[0].difference, "points")
lesson.reveal("points lost with 2 bits", -100 * said[2].difference, "points")

# %% claim
assert said[0].outcome == "equivalent" and said[0].low95 < 0 < said[0].high95
assert before["nf3+bf16"].mean() < before["nf4+bf16"].mean() < before["bf16"].mean()
lost = {form: 100 * (before["bf16"].mean() - before[form].mean()) for form in before}
fell = {form: 100 * (after["bf16"] - after[form]) for form in after}
assert [round(lost[form], 1) for form in ("nf4+bf16", "nf3+bf16", "nf2+bf16")] == [0.2, 0.8, 7.1]
assert lesson.FAST or 0.3 < fell["nf4+bf16"] < 0.9 < 100 * np.ptp(before["nf4+bf16"].mean(axis=1))
assert lesson.FAST or (4.5 < fell["nf3+bf16"] < 5.5 and 19.5 < fell["nf2+bf16"] < 20.5)
assert lesson.FAST or [round(fell[form] - lost[form]) for form in ("nf3+bf16", "nf2+bf16")] == [4, 13]

# %% [markdown]
# <details><summary>What we found: all matrices</summary>
#
# **At 4 bits, there's hardly any damage.** Rounding before training costs 0.2 points.
#
# **At 3 bits, LoRA repairs about 4 of 5 points** (0.8 stay lost); **at 2 bits, 13 of 20** (7.1 stay lost).
# </details>
#
# ## Why does rounding hurt so little?
# Here are corners of three matrices: our 4-bit error, the same error with its numbers *shuffled*, and LoRA's update. **Which one is the update? Can you distinguish the other two?**

# %% alt="Three gray squares. The first two look like random noise, and nobody could tell them apart. The third is a pattern of dark and light rows and columns."
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
from lora_lab import load_tokenizer
from lora_lab.experiments.low_rank import spectrum

energy = [spectrum(change.numpy()) ** 2 / (change**2).sum().item() for change in (moved, error, update)]
assert abs(energy[0].cumsum() - energy[1].cumsum()).max() < 0.01  # one curve
assert (round(100 * float(update.norm() / weight.norm()), 1), round(float(error.norm() / update.norm()), 2)) == (
    13.7,
    0.68,
)
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
# **Training makes a pattern. Rounding makes noise.** Square 3 is the update, 2 the error, and 1 the shuffled error.
#
# A pattern's effects add up. Noise partly cancels out. On 100 reviews, the update changes this layer's outputs by 22%, but the error changes them by only 8%.
# </details>
#
# ## How can LoRA repair noise?
# At 3 bits, the error changes this layer's outputs by 16%. An update of rank 8 can't remove noise: at best, it turns the 16% into 13%. But LoRA repaired 4 of 5 points. **How?**
#
# *Score* here means positive minus negative: above 0, the model says *positive*. At 16 bits, the scores of positive and negative reviews form two hills. **What does rounding after training do to them?** (The dotted line is the median.)

# %% alt="Scores of 2,000 reviews in three rows: positive reviews as blue bars upward, negative ones as orange bars downward. With 16 bits, blue lies mostly right of the line at 0 and orange left: 82% right. With 3 bits, blue is flatter, and much of it has moved left of 0: 77% right, or 80% with a dotted line further left. With 2 bits, both form one narrow hill left of 0: 62% right, or 67% with a dotted line."
truth = np.array(load_task(task).test.labels)
_, axes = plt.subplots(3, sharex=True, figsize=(4.8, 5.2), layout="constrained")
titles = "16 bits: {:.0%} right", "3 bits: {:.0%} right (dotted line: {:.0%})", "2 bits: {:.0%} right (dotted line: {:.0%})"
for ax, form, title in zip(axes, ("bf16", *forms[2:]), titles):
    score = scores[form]
    line = np.median(score)  # half of the reviews are above it
    shares = [((score > at) == truth).mean() for at in (0, line)]
    ax.hist(score[truth == 1], 40, (-4, 4), color="C0")
    ax.hist(score[truth == 0], 40, (-4, 4), color="C1", weights=-np.ones(sum(truth == 0)))
    ax.axvline(0, color="black"), ax.axvline(line, color="black", linestyle=":", alpha=float(form != "bf16"))
    ax.set_yticks([]), ax.set_title(title.format(*shares), fontsize=11)
axes[0].text(-4.2, 50, "positive reviews", color="C0"), axes[0].text(0.9, -60, "negative reviews", color="C1")
plt.xlabel("score: above 0, the model says positive")
plt.show()

# %% claim
gained = {form: round(100 * (((s > np.median(s)) == truth).mean() - after[form])) for form, s in scores.items()}
assert lesson.FAST or (gained["nf3+bf16"], gained["nf2+bf16"]) == (3, 5)
labels = np.array(load_task("rt").test.labels)
assert lesson.FAST or [round(100 * (scores[form] > 0).mean()) for form in ("bf16", "nf3+bf16")] == [48, 36]
assert round(100 * np.where(before["nf3+bf16"], labels, 1 - labels).mean()) == 48  # five seeds

# %% [markdown]
# <details><summary>What we found: LoRA and noise</summary>
#
# **At 3 bits, the noise barely mixes the hills, but it pushes many positive reviews below 0.** The dotted line recovers 3 of the 5 lost points.
#
# **LoRA needn't find every error: it can move the scores back.** After rounding, the model calls 36% of reviews positive, not 48%. If LoRA trains on 3 bits, it's 48% again.
#
# **At 2 bits, the hills overlap.** Moving the line repairs 5 of 20 points, but LoRA repairs 13: it learns from what the noise hasn't destroyed.
# </details>
#
# ## What does QLoRA save?
# Training LoRA on Llama 3 8B takes 18.7<!--bits.llama.16--> GiB (all linear layers, checkpointing, one text of 2,048 tokens). With 32 bits for each absmax, NF4 takes $4+32/64=4.5$ bits per weight. **Double quantization** stores each absmax in 8 bits, and one 32-bit scale for 256 of them: $4+8/64+32/(64\cdot256)=4.127$ bits per weight.
#
# In the panel, press *LoRA all-linear* and *QLoRA*. **Which parts don't shrink?**
#
# **Exercise 2: your case.** From the printed sizes, what's the peak at 4.127 bits? What's the most that fits: 16, 4.5 or 4.127 bits, or none?

# %%
step = {"seq": 2048, "checkpointing": True}
MemoryPanel("llama-3-8b", "QLoRA", card="T4", models=["llama-3-8b"], **step)

# %% claim
from lora_lab import memory, params

lora = LoRA(rank=8, targets="all-linear")
steps = {form: memory("llama-3-8b", lora, quantized=form, **step) for form in ("none", "nf4")}
count = params("llama-3-8b", lora)
linear = sum(layer.full for layer in count.modules if layer.trained)
sizes = [linear * 16, linear * 4.127]  # bits
assert [round(size / 8 / 2**30, 1) for size in sizes] == [13.0, 3.4]
assert (
    steps["nf4"].peak - steps["nf4"].categories["weights"] == steps["none"].peak - steps["none"].categories["weights"]
)

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
# <details><summary>What we found: memory</summary>
#
# **Only the weights of linear layers shrink:** from 13.0 to 3.4 GiB. The others keep 16 bits. Everything except the base's weights (mostly logits) takes 3.7<!--bits.llama.rest--> GiB. **So the peak is 9.0 GiB, and our 16 GB card is enough.**
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **A weight that's only read needs few bits.** Freeze the base in 4 bits; train A and B in 32 bits.
# 2. **Round the base first, then train.**
# 3. **QLoRA shrinks only the weights of linear layers,** to about a quarter.
#
# Start with NF4, double quantization and the rate 2e-4 *(published, for chat models: [QLoRA's scripts](https://github.com/artidoro/qlora); we read parts).*
#
# *Ours (MiniLM, one task, rank 8): 4 and 16 bits are equivalent within 1.5 points. Published: on MMLU, LLaMA 7B to 65B got 53.1% with 4 bits, and 53.0% with 16 ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314); we read parts).*
#
# The same in PEFT:
# ```python
# bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
#                           bnb_4bit_use_double_quant=True,
#                           bnb_4bit_compute_dtype=torch.float16)  # a T4 has no bf16
# base = AutoModelForCausalLM.from_pretrained("meta-llama/Meta-Llama-3-8B",
#                                             dtype=torch.float16, quantization_config=bits)
# config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
# model = get_peft_model(base, config)
# ```
# </details>

# %%
lesson.receipt()
