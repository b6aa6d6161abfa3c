# %% [markdown]
# # 11 · QLoRA: training beside a base of 4 bits
#
# *An older lesson; where it names lessons by number, it means the older course, `old_00` to `old_15`.*
#
# **Goal.** Quantise a weight by hand, as NF4 does, and know where every bit goes. Train an adapter *through* such weights. Then find out, with verdicts, how few
# bits are too few, what it saves and what it costs, and why the numbers that do train stay in fp32.
#
# **Time box.** 55 minutes. One short training run in the second half; the first code cell says how long.
# **Before this:** lesson 05 (memory) and 08 (what a verdict may say).

# %%
import torch
from lora_course import checks
from lora_course.classroom.room import room_for
from lora_course.lesson import FAST, catch_up, compare, eta, reference_comparison, small, steps, workplace
from lora_lab import LoRA, load_model, memory

print(room_for("old_11"))
store = workplace("old_11")
task = small("rt", store, rows=120)
mark = " (illustration)" if FAST else ""
model = load_model("minilm", num_labels=2)
weight = model.bert.encoder.layer[2].attention.self.query.weight.detach()  # (384, 384), true fp32
print(f"One run: {eta(steps(200, 4))}.")

# %% [markdown]
# ## A weight is a number with far too many digits
# A frozen weight is only *read*: nothing is ever added to it. So it need not be as fine as one that trains. **Quantising** writes each weight as one of a few fixed
# values, the **levels**, and keeps only the index of the level, its **code**. With 16 levels a code takes 4 bits; fp32 takes 32, bf16 takes 16.
#
# QLoRA (Dettmers et al. 2023) keeps the base in 4 bits, and beside it the LoRA that you know, not quantised (the lab keeps it in fp32; the second half says why). Two more things belong to it. *Paged optimizers* move
# AdamW's moments to the CPU's memory while the GPU's is full. And the adapters are on **all linear layers**: with `q` and `v` alone it did not match full fine-tuning (figure 2; lesson 07). Our curve below adapts `q` and
# `v`, so it is a test of the bits, not of QLoRA's whole recipe.
#
# Let us quantise the first 64 numbers of a real matrix.
#
# Levels lie between -1 and 1, weights do not. So the 64 numbers, a **block**, are first divided by the largest of them in size, their **absmax**, which is kept.
# Which 16 levels? Let us begin with those of **NF4**, "4-bit NormalFloat"; why just these comes next.

# %%
from lora_lab.methods.quant import levels_of

block = weight[0, :64]
absmax = block.abs().max()
scaled = block / absmax
print(f"absmax {absmax:.4f}; the first weights {[round(x, 3) for x in block[:5].tolist()]}, scaled {[round(x, 3) for x in scaled[:5].tolist()]}")
levels = levels_of("nf4")
print("levels", [round(x, 3) for x in levels.tolist()])

# %% claim
assert scaled.abs().max() == 1 and len(levels) == 16 and levels[7] == 0 and levels[0] == -1 and levels[15] == 1

# %% [markdown]
# ### Exercise 1 · 4 minutes
# Write `codes(scaled, levels)`: for each number of `scaled` (n,) the *index* of the nearest level. One line will do: `scaled[:, None] - levels` has the shape (n, 16).


# %% exercise
def codes(scaled, levels):
    ...


checks.check_codes(codes)


# %% solution
def codes(scaled, levels):
    return (scaled[:, None] - levels).abs().argmin(1)


checks.check_codes(codes)

# %% [markdown]
# Back again is `level[code] * absmax`. The lab's own `quantize` does the same for a whole matrix and packs two codes in a byte. The error is the length of the
# difference over the length of the block, both taken as vectors.

# %%
from lora_lab.methods.quant import codes_of, quantize, unpack

mine = codes_of(scaled, levels).int()  # the library's, so that the lesson goes on unsolved too
back = levels[mine] * absmax
print("codes", mine[:12].tolist(), "->", [round(x, 3) for x in back[:5].tolist()])
print(f"error of the block: {float((back - block).norm() / block.norm()):.1%}")
held = quantize(weight, "nf4-single")

# %% claim
assert torch.equal(unpack(held.packed, 4)[:64], mine) and torch.equal(held.dequantized()[0, :64], back)
assert held.packed.numel() == weight.numel() / 2  # bytes

# %% [markdown]
# ## Why just these levels?
# The plain way would be an **int4**: 15 levels, evenly spaced. NF4 puts its levels at **quantiles of the normal distribution**: as trained weights are bell-shaped, the codes are then used more
# evenly, and levels are dense where weights are. (In the picture below, the two spikes at -1 and 1 are the absmax of each block.) **Predict** int4's error in per cent of NF4's (100: the same), on all of MiniLM's quantised matrices. And why
# blocks? One large weight makes the levels coarse for all that share its absmax: how many times larger is NF4's error if the *whole* matrix is one block?

# %%
guess_int4, guess_one_block = None, None  # per cent of NF4's error; times

# %%
from lora_course.experiments.bits import weight_errors
from lora_course.plots.bits import levels_among_weights

errors = weight_errors(("nf4", "int4"))
print(compare("int4's error in per cent of NF4's", guess_int4, 100 * errors["int4"] / errors["nf4"], "%"))
used = {name: unpack(quantize(weight, name).packed, 4).bincount(minlength=16) / weight.numel() for name in errors}
print({name: f"most used code {share.max():.0%}, least used of its levels {share[share > 0].min():.1%}" for name, share in used.items()})
levels_among_weights((weight.view(-1, 64) / weight.view(-1, 64).abs().amax(1, keepdim=True)).numpy(), {n: levels_of(n).numpy() for n in errors}, errors)

# %% claim
assert errors["int4"] > 1.15 * errors["nf4"] and used["nf4"].max() < used["int4"].max()

# %%
# It is no magic: NF4 fits bells. On numbers that are spread evenly int4 wins, and the block matters more than the levels do.
def wrong(w, name):
    return float((quantize(w, name).dequantized() - w).norm() / w.norm())

even = torch.rand(384, 384, generator=torch.Generator().manual_seed(0)) - 0.5
print(f"evenly spread numbers: nf4 {wrong(even, 'nf4'):.1%}, int4 {wrong(even, 'int4'):.1%}")
whole = levels[codes_of(weight / weight.abs().max(), levels).int()] * weight.abs().max()
one_block = float((whole - weight).norm() / weight.norm())
print(compare("one block for the matrix, error against blocks of 64", guess_one_block, one_block / wrong(weight, "nf4"), "times"))

# %% claim
assert wrong(even, "int4") < wrong(even, "nf4") and one_block > 1.3 * wrong(weight, "nf4")

# %% [markdown]
# ## Where every bit goes
# Small blocks cost: an fp32 absmax for 64 weights is 32/64 = 0.5 bits a weight, an eighth on top. **Double quantisation** quantises the absmax too: their mean is subtracted, and what is left is
# written in 8 bits, in blocks of 256 absmax, which share one fp32 number.
#
# ### Exercise 2 · 3 minutes
# How many bits does a weight take then, all together? (The cell after it counts the bytes that are there. And it asks whether this is *the* NF4: where bitsandbytes is installed, the library that QLoRA
# came with, it compares codes, nested scales and the values that come back, to the last bit.)

# %% exercise
checks.check_bits_per_weight(...)

# %% solution
checks.check_bits_per_weight(4 + 8 / 64 + 32 / (64 * 256))

# %%
from lora_lab.methods.quant import import_bitsandbytes

for name in ("nf4-single", "nf4"):
    print(f"{name:10} {quantize(weight, name).bits_per_weight:.4f} bits a weight, error {wrong(weight, name):.3%}")

if theirs := import_bitsandbytes():
    packed, state = theirs.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    ours = quantize(weight)
    pairs = [(packed.flatten(), ours.packed), (state.absmax, ours.absmax), (state.state2.absmax, ours.scales)]
    pairs += [(theirs.functional.dequantize_4bit(packed, state), ours.dequantized())]
    same = all(torch.equal(one, other) for one, other in pairs)
print(f"equal to bitsandbytes, bit by bit: {same}" if theirs else "bitsandbytes is not installed here: pip install 'lora-lab[quantisation]'")

# %% claim
assert not theirs or same
assert quantize(weight, "nf4-single").bits_per_weight == 4.5
assert abs(quantize(weight).bits_per_weight - (4 + 8 / 64 + 32 / (64 * 256))) < 0.001
assert wrong(weight, "nf4") < 1.01 * wrong(weight, "nf4-single")  # 0.37 bits saved for next to nothing

# %% [markdown]
# ## Training through codes
# A code cannot be trained: there is no small step from 7 to 8. And it does not have to be. LoRA asks the frozen layer for two products, `x W` on the way forward and `dy W` on the way back, and for both W is
# **dequantized** on the fly, turned back into numbers and thrown away. For its backward pass the frozen layer itself keeps nothing: not W in 16 bits, and not its input either, for W wants no gradient. (The LoRA beside it
# does keep the input, for A's gradient; activations do not vanish.)

# %%
from torch import nn
from lora_lab.methods.quant import QuantizedLinear, quantize_model

layer, kept = QuantizedLinear(nn.Linear(384, 384)), []
x = torch.randn(8, 384, requires_grad=True)
with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
    y = layer(x)
y.sum().backward()
four = load_model("minilm", num_labels=2, dtype="nf4")
report = LoRA(rank=8).attach(four)
ids = torch.randint(1000, 2000, (2, 12), generator=torch.Generator().manual_seed(0))
four(input_ids=ids).logits.sum().backward()
reached = [name for name, p in four.named_parameters() if p.grad is not None]
print(f"the frozen layer alone kept {sum(kept)} bytes for its backward pass")
print(f"{report.trainable:,} of {report.total:,} numbers train; {len(reached)} tensors got a gradient, codes are not among them")

# %% claim
assert sum(kept) == 0 and torch.allclose(x.grad, torch.ones(8, 384) @ layer.dequantized(), atol=1e-5)
assert all("lora_" in name or "classifier" in name for name in reached) and report.total > 22_000_000
assert all(p.dtype == torch.float32 for p in four.parameters() if p.requires_grad)

# %% [markdown]
# ## What it saves
# 4.127 bits in the place of 16: a quarter. But of the *weights in linear layers* only. Embeddings, norms and head stay as they are, and so do activations (lesson 05).
# **Predict** the peak of a training step in per cent of that with a bf16 base: for MiniLM, and for Llama-2-70B (1 row of 512 tokens, checkpointing). Predicted is not measured, so MiniLM's step is
# also traced, and taken for real on this machine.

# %%
guess_minilm, guess_70b = None, None  # per cent

# %%
from lora_lab.training.measure import measure

share = {}
for name, setup in (("minilm", {"batch": 4, "seq": 64, "device": "cpu"}), ("llama-2-70b", {"batch": 1, "seq": 512, "checkpointing": True})):
    sixteen, fours = (memory(name, LoRA(rank=8), quantised=q, **setup) for q in ("none", "nf4"))
    share[name] = 100 * fours.peak / sixteen.peak
    print(f"{name}: {sixteen.peak / 2**20:,.0f} MiB -> {fours.peak / 2**20:,.0f} MiB, of which weights {fours.categories['weights'] / 2**20:,.0f}")
print(compare("minilm", guess_minilm, share["minilm"], "%"))
print(compare("llama-2-70b", guess_70b, share["llama-2-70b"], "%"))
setup = {"batch": 4, "seq": 64, "device": "cpu", "dtype": "bf16", "quantised": "nf4"}
predicted, traced, real = memory("minilm", LoRA(), **setup), memory("minilm", LoRA(), trace=True, **setup), measure("minilm", LoRA(), **setup)
print(f"minilm in NF4, LoRA: predicted {predicted.peak / 2**20:.2f} MiB, traced {traced.peak / 2**20:.2f}, measured {real.peak / 2**20:.2f}")

# %% claim
assert share["llama-2-70b"] < 33 and share["minilm"] > 60
assert abs(predicted.peak / real.peak - 1) < 0.03 and abs(traced.peak / real.peak - 1) < 0.03

# %% [markdown]
# A small model is mostly vocabulary: more than half of MiniLM is its table of embeddings. QLoRA is for models whose linear layers *are* the model.
#
# **What it costs** is time and exactness. Time: W is dequantized twice a step. Beside many tokens that is the smaller part of the work; beside few it is nearly all of it.

# %%
from lora_course.lesson import milliseconds

plain = nn.Linear(1536, 384).requires_grad_(False)
coded = {"bitsandbytes' kernel" if import_bitsandbytes() else "ours": QuantizedLinear(plain), "our own code": QuantizedLinear(plain, fast=False)}
for rows in (16, 2048):
    x = torch.randn(rows, 1536, requires_grad=True)
    took = milliseconds({how: lambda one=one, x=x: one(x).sum().backward() for how, one in {"fp32": plain, **coded}.items()}, rounds=5)
    print(f"{rows:5} tokens:", "; ".join(f"{how} {ms:.2f} ms" for how, ms in took.items()))

# %% claim
assert all(torch.equal(one.dequantized(), coded["our own code"].dequantized()) for one in coded.values())  # the same numbers either way

# %% [markdown]
# **Stop here** if time is short. You have NF4 in your hands; the rest asks how few bits are too few, and what the *trained* numbers need.
#
# ## Quality against bits
# Weights are 9 % wrong in NF4. Does the trained model suffer? The same LoRA (rank 8 on q and v), 400 steps of 16, five seeds, one rate (16 bits' own); the base in 16, 8, 4, 3 and 2 bits. The weights' errors are below.
# **Predict** the fewest bits at which accuracy is *equivalent* to that with 16, within 1.5 points.

# %%
errors = weight_errors(("int8", "nf4", "nf3", "nf2"))
print({name: f"{error:.1%}" for name, error in errors.items()})
guess_bits = None  # 8, 4, 3 or 2

# %%
from lora_course.experiments.bits import CURVE, bits_curve
from lora_course.plots.bits import quality_against_bits

print(catch_up("bits", store))
reference = bits_curve(store=store)  # finds all of them done
print(reference)
outcomes = {row["dtype"]: row["outcome"] for row in reference.table()}
means = {row["dtype"]: row["mean"] for row in reference.table()}
equivalent = [row["bits"] for row in reference.table() if row["outcome"] == "equivalent"]
print(compare("fewest bits that are equivalent", guess_bits, round(min(equivalent)), "bits"))
quality_against_bits(reference)

# %% claim
assert all(len(runs) == 5 for runs in reference.runs.values()) and set(reference.verdicts) == set(CURVE[1:])
assert outcomes["int8+bf16"] == outcomes["nf4+bf16"] == "equivalent"
assert outcomes["nf3+bf16"] == "undecided" and outcomes["nf2+bf16"] == "worse"
probe = next(row for row in reference_comparison("minilm_rt")["methods"] if row["method"] == "probe")
assert means["nf2+bf16"] < probe["accuracy"]["mean"]

# %% [markdown]
# Weights that are 9 % wrong cost nothing that 1.5 points would notice; at 57 % wrong seven points are gone (at 16 bits' own rate; fewer bits might want another, so what is lost at 3 and 2 bits is lost *at most*), and what remains is *below* the probe of lesson 08 (75.8<!--compare.probe--> % there). The adapter
# is trained on the quantised base, so it can learn to answer with the weights that are there. So an adapter belongs to the bits that it was trained on;
# merged into others (lesson 09) it meets weights that it has not seen.
#
# ### Exercise 3 · 2 minutes
# Somebody says of 3 bits: "The mean is 0.8 points lower than at 16, and the 95 % interval of this pair leaves out 0, so 3 bits are worse." Our sentence says *undecided*; it has four pairs to answer for, and Holm's correction is made for equivalence as it is for a difference. Which reply is right?
# - **a** "No, nothing was found, so 3 bits are as good as 16." **b** "Yes, five seeds are enough to compare means." **c** "The verdict decides, with a margin fixed beforehand and all pairs counted."

# %% exercise
checks.check_three_bits_said(...)

# %% solution
checks.check_three_bits_said("c")

# %%
# One point of your own, live: NF4, one seed, half as many steps.
live = bits_curve(("nf4+bf16",), task=task, seeds=1, steps=steps(200, 4), batch=16 if not FAST else 4, store=store)
print(f"yours: {live.values('nf4+bf16')[0]:.1%} after {steps(200, 4)} steps{mark}; ours after 400: {means['nf4+bf16']:.1%}")
quality_against_bits(reference, live)

# %% claim
assert 0 < live.values("nf4+bf16")[0] <= 1

# %% [markdown]
# ## Why not on SmolLM2?
# It is the lab's language model, and it came from a file of **Q4_1**: blocks of 32 weights, a code of 4 bits for each, and levels of the block's own. What fp32 shows of it now has been through 4 bits. If you quantise it *again*,
# you measure the second loss without the first. **Predict:** how many *different* numbers are there in a block of 32 of its weights, at most? And of MiniLM's?

# %%
guess_smollm2, guess_different = None, None

# %%
from safetensors import safe_open
from lora_lab.training.assets import asset_path

with safe_open(next(asset_path("smollm2").glob("*.safetensors")), "pt") as file:
    other = file.get_tensor("model.layers.0.self_attn.q_proj.weight")
different = {name: max(len(block.unique()) for block in w.reshape(-1, 32)[:500]) for name, w in (("smollm2", other), ("minilm", weight))}
print(compare("smollm2", guess_smollm2, different["smollm2"]))
print(compare("minilm", guess_different, different["minilm"]))

# %% claim
assert different["smollm2"] <= 16 < different["minilm"] == 32

# %% [markdown]
# So of SmolLM2 we say what a step needs, and how far LoRA on NF4 lags behind LoRA on bf16 after equal steps, as *mechanics*; it is no measure of what 4 bits cost. Three seeds, 20 steps of 4 rows of 128 tokens
# of the King James Bible, every linear layer adapted.
# %%
print(catch_up("qlora_smollm2", store))
gap = bits_curve(("bf16", "nf4+bf16"), model="smollm2", task="kjv", method=LoRA(targets="all-linear"), lr=1e-3, steps=20, batch=4, seeds=3,
                 store=store, fields={"max_length": 128})
losses = {dtype: [round(x, 3) for x in gap.values(dtype, "loss")] for dtype in gap.runs}
print("test loss (nats a token):", losses)
print("NF4 against bf16, higher is better:", gap.verdicts["nf4+bf16"])
untrained = {"bf16": 3.288, "nf4+bf16": 3.591}  # reference: the bases before any step, on the same passages, same day and machine
means = {dtype: sum(each) / len(each) for dtype, each in losses.items()}
print(f"gap before training {untrained['nf4+bf16'] - untrained['bf16']:.3f}, after 20 steps {means['nf4+bf16'] - means['bf16']:.3f} nats a token")
left = (means["nf4+bf16"] - means["bf16"]) / (untrained["nf4+bf16"] - untrained["bf16"])

# %% claim
assert 0 < left < 0.7

# %% [markdown]
# Of the gap that the bases had before training, about half is left after these 20 steps. Both have learned the text meanwhile: whether the adapter undid damage, or whether two that learn one text come closer anyway, this cannot tell.
#
# ## What trains stays in fp32
# A frozen weight is read; a trained one is *added to*, a little at a time. There the digits count. **bf16** has 8 bits of exponent, as fp32 has, and 7 bits behind the point; **fp16** has 5 and 10: finer, but it ends at 65,504.
#
# ### Exercise 4 · 2 minutes
# Which is the smallest power of two that can be added to 1 in bf16 without being lost? (A tie goes to the even neighbour, here 1.)

# %% exercise
checks.check_bf16_step(...)

# %% solution
checks.check_bf16_step(2**-7)

# %%
one, thousand = torch.ones((), dtype=torch.bfloat16), torch.ones((), dtype=torch.bfloat16)
for _ in range(1000):
    thousand += torch.tensor(0.001).bfloat16()
print("1 + 2^-9 in bf16:", (one + 2**-9).item(), "| a thousand times 0.001 added to 1:", thousand.item())
print("70,000 in fp16:", torch.tensor(70_000.0).half().item(), "| 1e-8 in fp16:", torch.tensor(1e-8).half().item(), "| both in bf16:", torch.tensor([7e4, 1e-8]).bfloat16().tolist())

# %% claim
assert one + 2**-9 == 1 and thousand == 1
assert torch.tensor(70_000.0).half().isinf() and torch.tensor(1e-8).half() == 0 and torch.tensor(1e-8).bfloat16() > 0

# %% [markdown]
# AdamW moves each number by about the learning rate. **Predict:** of the numbers in A of a *trained* adapter (ours on `rt`), how many per cent would not move at all at a rate of 1e-4, if they were kept in bf16?

# %%
guess_lost = None  # per cent

# %%
from lora_course.lesson import reference as reference_run
from safetensors.torch import load_file

tensors = load_file(f"{reference_run('minilm-rt-r8').adapter}/adapter_model.safetensors")
a = torch.cat([t.flatten() for name, t in tensors.items() if "lora_A" in name])
lost = {(rate, d): 100 * float(((a.to(d) - rate) == a.to(d)).float().mean()) for rate in (2e-3, 1e-4, 1e-5) for d in (torch.bfloat16, torch.float16, torch.float32)}
for (rate, d), percent in lost.items():
    print(f"rate {rate:g}, A in {str(d)[6:]:8} {percent:5.1f} % do not move")
print(compare("bf16 at 1e-4", guess_lost, lost[1e-4, torch.bfloat16], "%"))

# %% claim
assert lost[2e-3, torch.bfloat16] == 0 and lost[1e-4, torch.bfloat16] > 30 and lost[1e-5, torch.float32] == 0

# %% [markdown]
# At 2e-3, the rate that this adapter was trained at, all of A still moves in bf16. But a rate falls towards the end of its schedule, and at 1e-4, where large models often *begin*, half of this trained A would stand
# still. That is why the lab keeps A, B and AdamW's moments in fp32 beside any base: for MiniLM's rank-8 adapter on `q` and `v` that is under 1 MiB.
#
# **fp16 and loss scaling.** In fp16 the *gradients* are in danger: below 3e-8 they become 0. The remedy is to multiply the loss by S, hence every gradient, and to divide by S in fp32 before the step. Too large an
# S overflows: then the step is skipped and S is halved. Here the gradients of B on 16 random rows, divided by 10,000: as small as those of a model that is nearly sure.

# %%
rows = torch.randint(1000, 20000, (16, 24), generator=torch.Generator().manual_seed(1))
four.zero_grad()
nn.functional.cross_entropy(four(input_ids=rows).logits, torch.arange(16) % 2).backward()
gradient = torch.cat([p.grad.flatten() for name, p in four.named_parameters() if "lora_B" in name]) / 10_000
over = 2 ** (1 + int(torch.log2(65_504 / gradient.abs().max())))  # 65,504 is the largest number of fp16
halves = {scale: (gradient * scale).half() for scale in (1, 2**12, 2**24, over)}
for scale, half in halves.items():
    print(f"S = {scale:>17,}: {(half == 0).float().mean():6.1%} of the gradients are 0 in fp16; overflow: {bool(half.isinf().any())}")

# %% claim
assert (halves[1] == 0).float().mean() > 0.5 and (halves[2**24] == 0).float().mean() < 0.01
assert halves[over].isinf().any() and not halves[2**24].isinf().any()

# %% [markdown]
# **AdamW in fp16.** AdamW divides a gradient's running mean by the root of the mean of its squares, plus **eps**, which is 1e-8 by default. In the first step B is 0, so A's gradient is exactly 0. **Predict**
# what becomes of an A of ones in that step, if A, its gradient and its means are in fp16: with the default eps, and with 1e-4?

# %%
guess_default, guess_larger = None, None  # two numbers, or "NaN"

# %%
after = {}
for eps in (1e-8, 1e-4):
    ones = nn.Parameter(torch.ones(3, dtype=torch.float16))
    ones.grad = torch.zeros_like(ones)
    torch.optim.AdamW([ones], lr=1e-3, eps=eps, weight_decay=0.0).step()
    after[eps] = ones.detach()
    print(f"eps {eps:g}, in fp16 {torch.tensor(eps).half().item():g}: A is {ones.tolist()}")
print("you said", guess_default, "and", guess_larger)

from lora_course.lesson import claim

said = claim("16")  # "train the adapter in fp16": a student whose A, B and moments are kept in fp16, without loss scaling, at three eps
said

# %% claim
assert after[1e-8].isnan().all() and (after[1e-4] == 1).all()
assert said.word == "depends" and said.on == ("eps",) and claim("16", fp32_copy=True).word == "true"

# %% [markdown]
# 1e-8 is 0 in fp16, and 0/0 is NaN: that is a default of the optimizer, not a verdict on fp16. With a larger eps the student stays finite, but 1e-4 is not enough to train well here. A gradient below 5e-3 adds less to the mean of the squares
# than fp16 can hold, so what it is divided by is eps and little else. At 1e-3 it trains. (A larger eps slows fp32 down, as the card shows; at its default fp32 is the best of all.) Or keep fp32 copies and scale the loss, as mixed
# precision does; then eps does not matter so.
#
# bf16 has fp32's exponent, so it needs neither loss scaling nor another eps. That, and not precision, is its advantage in training.
#
# ## What you know now
# - NF4: 16 levels at quantiles of a bell, blocks of 64 with an absmax each, which are quantised again: 4 + 8/64 + 32/16,384 = **4.127 bits**.
# - The base is only read, so W is dequantized on the fly, twice a step; nothing of it is kept. What trains stays in fp32.
# - QLoRA's recipe is more than 4 bits: adapters on all linear layers, and paged optimizers.
# - It saves three quarters of the *linear layers*, so almost three quarters of a 70B model and little of a small one. It costs time, and exactness that a verdict has to judge.
# - A model that has been in 4 bits already cannot show what 4 bits cost.
#
# **Next:** [lesson 07](07_why_does_it_do_nothing.ipynb) has adapters that do nothing at all.
