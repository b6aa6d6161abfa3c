# %% [markdown]
# # 12 · Are four bits enough?
#
# Llama 3 8B has eight billion weights. In 16 bits they take 15.0<!--fit.weights--> GiB, more than a 16 GB card can use. **QLoRA** freezes them in 4 bits, and trains LoRA beside them in full precision. But four bits allow only sixteen values, so nearly every weight is now wrong.
#
# ## Three guesses
# 1. We write each number of a matrix of MiniLM as one of sixteen values. **By what percentage is the matrix wrong then?** (Compare norms: roots of sums of squares.)
# 2. We train LoRA on a MiniLM with such weights, and on MiniLM in 16 bits. **How many points of accuracy do 4 bits lose?** (Negative if they win.)
# 3. LoRA on Llama 3 8B (all linear layers, checkpointing, a text of 2,048 tokens) needs 18.7<!--bits.llama.16--> GiB. **What percentage of that does QLoRA need?**
#
# Ranges, 80% sure.

# %%
import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_lab import LoRA, MemoryPanel, RankPanel, load_model, memory, params, train, verdict
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
# A weight that trains gets many small additions, and a coarse number rounds them away. A frozen weight is only *read*, so it may be coarse. Here is **NF4**, "4-bit NormalFloat":
#
# 1. Cut the matrix into **blocks** of 64 numbers. For each, keep **absmax**: the largest absolute value.
# 2. Divide the block by absmax. Now all numbers are between -1 and 1.
# 3. Find the nearest of sixteen fixed **levels**. Store its index, 0 to 15: that's 4 bits.
#
# To read a weight, **dequantize** it: multiply its level by absmax.
#
# **Exercise 1: quantize a block.**

# %% exercise
row = lesson.draw("row", 7, 60, 150, 240, 330)
block, levels = weight[row, :64], levels_of("nf4")
absmax = ...
index = ...  # (64,), of the nearest level; a[:, None] - levels is (64, 16)
back = ...  # (64,), dequantized
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
    """Do to every block what you did to one. By what percentage is the matrix wrong?"""
    back = levels[(scaled[..., None] - levels).abs().argmin(-1)] * scales
    return 100 * float((back - blocks).norm() / blocks.norm())


if theirs := import_bitsandbytes():  # the library that came with QLoRA
    packed, state = theirs.functional.quantize_4bit(weight, quant_type="nf4")
    back = theirs.functional.dequantize_4bit(packed, state)
    same = torch.equal(back, quantize(weight, "nf4-single").dequantized())
    print("the lab equals bitsandbytes, bit for bit:", same)
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
# Trained weights form a bell curve. So NF4's levels are close together near 0 and far apart at the ends. Each stripe is one index: all its weights take the value at the black line. *Your* levels are evenly spaced; in Jupyter, change them. **Where do they beat NF, and why?**

# %%
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

# %% [markdown]
# ## Train on a rounded base
# W is dequantized in the forward and backward passes. First come two short runs, on 16 bits and on 4 (`nf4+bf16` computes in bf16), with one seed each, so their gap may be luck.
#
# Filled dots are twenty stored runs of 400 steps, five seeds for each base. Hollow dots show *one* adapter, trained on the 16-bit base and moved to each other. **Where this adapter falls further than the filled dots, LoRA has learned to repair the rounding.** At how many bits does that start?
#
# Last come our matrix's rounding error and that adapter's update. **How much of each is in one piece (lesson 10)?**

# %%
store = lesson.workplace("12")
task = lesson.small("rt", store, rows=120)
short = {"lr": 2e-3, "steps": lesson.steps(100, 5), "batch": 8, "validations": 0, "store": store}
for form in ("bf16", "nf4+bf16"):
    run = train("minilm", task, LoRA(rank=8), dtype=form, **short)
    print(f"a short run on {form}: {run.metrics['accuracy']:.1%} right")

# %%
stored = from_store(shipped("data/results/sweeps/bits.zip"))
adapter, right, moved = shipped("data/results/minilm-rt-r8"), {}, {}
for x, form in enumerate(("bf16", "nf4+bf16", "nf3+bf16", "nf2+bf16")):
    right[form] = stored.at(dtype=form).scores  # (5 seeds, 2,000 sentences)
    moved[form] = evaluate_adapter(adapter, task, dtype=form)["accuracy"]
    plt.plot(5 * [x], 100 * right[form].mean(axis=1), "C0o", alpha=0.6)
    plt.plot(x, 100 * moved[form], "C1o", fillstyle="none", markersize=10)
plt.title("Filled: trained on this base. Hollow: moved to it", loc="left")
plt.xticks(range(4), ["16 bits", "4 bits", "3 bits", "2 bits"])
plt.ylabel("percent right")
plt.show()
said = verdict(right["nf4+bf16"], right["bf16"], margin=0.015)
print("4 bits against 16:", said)
lesson.reveal("points lost with 4 bits", -100 * said.difference, "points")

# %%
from safetensors.torch import load_file

adapted = load_file(adapter / "adapter_model.safetensors")
A, B = (adapted[f"base_model.model.bert.encoder.layer.2.attention.self.query.lora_{one}.weight"] for one in "AB")
both = {"rounding error": quantize(weight, "nf4").dequantized() - weight, "LoRA's update": 2 * B @ A, "W": weight}
RankPanel({name: matrix.numpy() for name, matrix in both.items()}, rank=1, most=4, corner=96)  # choose "LoRA's update"

# %% claim
assert said.outcome == "equivalent" and said.low95 < 0 < said.high95
assert right["nf3+bf16"].mean() < right["nf4+bf16"].mean() < right["bf16"].mean()
assert verdict(right["nf2+bf16"], right["bf16"], margin=0.015).outcome == "worse"
lost = {form: 100 * (right["bf16"].mean() - right[form].mean()) for form in right}
fell = {form: 100 * (moved["bf16"] - moved[form]) for form in moved}
assert [round(lost[form], 1) for form in ("nf3+bf16", "nf2+bf16")] == [0.8, 7.1]
assert lesson.FAST or 0.3 < fell["nf4+bf16"] < 0.9
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
import shutil

from safetensors.torch import save_file

from lora_lab.experiments.low_rank import rank_for_energy, spectrum

against, counts = dict(adapted), []
for number, block in enumerate(model.bert.encoder.layer):
    for role in ("query", "value"):
        W, name = getattr(block.attention.self, role).weight.detach(), f"layer.{number}.attention.self.{role}"
        A, B = (adapted[f"base_model.model.bert.encoder.{name}.lora_{one}.weight"] for one in "AB")
        error, update = (quantize(W, "nf4").dequantized() - W).numpy(), (2 * B @ A).numpy()
        s, t = spectrum(error), spectrum(update)
        counts.append([rank_for_energy(s, 0.9), rank_for_energy(t, 0.9)])
        size = float((s**2).sum() / (t**2).sum()) ** 0.5  # an error of this size, against the update
        against[f"base_model.model.bert.encoder.{name}.lora_B.weight"] = (1 - size) * B
noise, few = zip(*counts)
assert 185 < min(noise) < max(noise) < 197 and {*few} == {1, 2, 3, 4}
if not lesson.FAST:
    shutil.copytree(adapter, store / "against", dirs_exist_ok=True)
    save_file(against, store / "against" / "adapter_model.safetensors")
    assert 0.03 < moved["bf16"] - evaluate_adapter(store / "against", task, dtype="bf16")["accuracy"] < 0.038
assert lesson.FAST or all(
    moved["bf16"] - moved[form] > 1.5 * (right["bf16"].mean() - right[form].mean()) for form in ("nf3+bf16", "nf2+bf16")
)

# %% [markdown]
# <details><summary>What we found</summary>
#
# The matrix is off by 9.3<!--bits.nf4.wrong-->%. At 2 bits, even spacing beats NF, which has no level between -1 and 0. Training in 4 bits costs nearly nothing: 80.75<!--bits.nf4-->% right versus 80.93<!--bits.bf16-->%, *equivalent* within 1.5 points. (On `q` and `v`, at the rate for 16 bits.)
#
# **Why does it work?** W is rounded once, so no step adds to the error. The error is noise, spread over all directions: 90% of its energy takes about 190 of 384 pieces; the adapter's update needs only 1 to 4. Direction matters: moved to 4 bits, the adapter loses only 0.6 points. With errors of the same size in `q` and `v`, but *against* its update, it loses 3.4.
#
# **Does LoRA repair? Yes, if there's something to repair.** At 3 bits, the moved adapter loses about 5 points, and adapters trained there lose 0.8; at 2 bits, about 20 and 7.
# </details>
#
# ## What it saves
# An absmax takes 32 bits and serves 64 weights: 32/64 = 0.5 bits more for each. **Double quantization** rounds the absmax too, to 8 bits; 256 of them share one 32-bit number. A weight takes 4 + 8/64 + 32/(64 · 256) = 4.127 bits. But that's only in linear layers: embeddings, norms and head keep 16 bits. Press *LoRA all-linear*, then *QLoRA*: **how much does the gray block shrink, and why not to a quarter?**

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
# QLoRA needs 48<!--bits.llama.share-->%. The weights shrink from 15.0<!--fit.weights--> to 5.4<!--bits.llama.weights--> GiB: linear layers from 13.0 to 3.4; embeddings and head keep 2.0. The other 3.6<!--bits.llama.rest--> GiB, mostly logits, don't change.
# </details>
#
# ## Your card
# **Exercise 2:** with NF4 and double quantization, how large is the peak? What does double quantization save? How many bits per weight fit at most?

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
fits = ...  # the most that fit: "16 bits", "4.5 bits", "4.127 bits" or "none"
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
# 1. **What is only read may be coarse.** Freeze the base in 4 bits; train A and B in 32 bits.
# 2. **QLoRA saves three quarters of the memory of linear weights**, and nothing on embeddings, head, activations and logits.
# 3. **QLoRA costs time, and an adapter belongs to the weights it was trained on.** Serve it on that base, or add $BA$ to the dequantized weights.
#
# Start with NF4 and double quantization; the rest as in lesson 09. *Published, for Guanaco: rank 64, α 16, rate 2e-4 (1e-4 for 33B and larger), [QLoRA's scripts](https://github.com/artidoro/qlora), read in part.*
#
# *Ours, at rank 8: equivalent within 1.5 points; one 23M encoder, one task. Published, read in part: on MMLU, a quiz, 4 bits got 53.1 and 16 bits 53.0, a mean over LLaMA 7B to 65B ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314)). QLoRA took 2.8 hours, LoRA 1.9 (Llama-2-7B, an A100: [Raschka 2023](https://lightning.ai/pages/community/lora-insights/); we read a summary).*
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
