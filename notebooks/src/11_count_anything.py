# %% [markdown]
# # 11 · How many numbers are trained?
#
# You're planning a service for a hundred customers, each with their own adapter. A slide says: "LoRA trains 10,000 times fewer parameters." A blog says "100 to 1,000 times fewer", and a colleague says "about one percent". Each of these claims is roughly right for *some* model and rank. **Which one is right for your model, and how much disk space does your service save?**
#
# On one matrix, LoRA trains $r\,(d_{in} + d_{out})$ numbers (lesson 00).
#
# ## Three guesses
# All three are about LoRA at rank 8 on the query and value matrices (`q,v`).
#
# 1. Llama-3-8B is 2,356 times as large as its adapter. So one model and a hundred adapters take 95.9 times less disk than a hundred full models. Now each customer adds *one token* to the vocabulary. Embedding and head get one more row each, but PEFT saves all their rows with each adapter. **How many times less disk do they take now?**
# 2. **How many times as large as its adapter is Llama-3.1-405B?**
# 3. Mixtral is Mistral-7B with eight *experts*: each layer has eight sets of `gate`, `up` and `down` instead of one. So Mixtral is 6.4<!--count.mixtral--> times as large as Mistral. **How many times as large as Mistral's adapter is Mixtral's?**

# %%
import torch
from matplotlib import pyplot as plt
from transformers import AutoConfig, AutoModelForCausalLM

from lora_course import checks, lesson
from lora_course.checks.counting import slides
from lora_lab import LoRA, LoRAPanel, params
from lora_lab.accounting.models import architecture_of, config_of, zoo

lesson.start("11")
lesson.predict("with one new token each: times less disk", low=..., high=...)
lesson.predict("405B: times fewer", low=..., high=...)
lesson.predict("Mixtral's adapter / Mistral's", low=..., high=...)

# %% [markdown]
# ## A hundred customers
# In the panel (no new tokens), the gray map is Llama-3-8B. The blue patch below holds all adapters. Drag *customers*: the saving approaches a limit. **At how many customers does it reach half of this limit?**
#
# Then set *customers* to 1, and press *drop the patch on the model*. **Can you still find it?**

# %%
llama = params("llama-3-8b", LoRA(rank=8, targets="q,v"))
vocabulary = sum(layer.full for layer in llama.modules if layer.role in ("embed", "head"))
less = 100 * llama.total / (llama.total + 100 * (llama.trainable + vocabulary))
lesson.reveal("with one new token each: times less disk", less, "times")
LoRAPanel("model", ["model"], model="llama-3-8b", customers=2)

# %% claim
hundred = LoRAPanel("model", model="llama-3-8b", customers=100).describe()
assert "100 customers need 95.9 times less disk" in hundred and round(less, 1) == 7.1
assert round((llama.trainable + vocabulary) / llama.trainable) == 309 and round(llama.total / (llama.trainable + vocabulary), 1) == 7.6
assert round(2 * llama.trainable / 1e6, 1) == 6.8 and round(2 * (llama.trainable + vocabulary) / 1e9, 1) == 2.1
assert (llama.total / llama.trainable) // 1 == 2356 and round(2356 * llama.total / (llama.total + 2356 * llama.trainable)) == 1178
assert round(100 * 2 * llama.total / 1e12, 2) == 1.61
assert round(2 * (llama.total + 100 * llama.trainable) / 1e9, 1) == 16.7

# %% [markdown]
# <details><summary>What we found</summary>
#
# **One new token makes each file 309 times as large:** 2.1 GB instead of 6.8 MB. (LoRA trains no more numbers than before.) So you save a factor of 7.1, not 95.9. The limit falls from 2,356 to 7.6. (If all customers need the token, add it once, to the shared model.)
#
# At 2,356 customers, the adapters together are as large as the model: you save half of the limit, a factor of 1,178.
# </details>
#
# ## Count without weights
# To count, you don't need a model's weights: its **config** lists all sizes. On PyTorch's device `meta`, a tensor has a shape but no numbers, so it takes no memory. The code builds Llama-3.1-405B there, in seconds.

# %%
config = AutoConfig.for_model(**config_of("llama-3.1-405b"))
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(config)
total = sum(p.numel() for p in model.parameters())
layers = [m for name, m in model.named_modules() if name.endswith(("q_proj", "v_proj"))]
trained = sum(8 * (m.in_features + m.out_features) for m in layers)

print(f"{total:,} parameters; LoRA trains {trained:,} numbers, or {trained / total:.4%} as many")
lesson.reveal("405B: times fewer", total / trained, "times")

# %% claim
assert params("llama-3.1-405b", LoRA(rank=8)).trainable == trained and params("llama-3.1-405b", LoRA()).total == total
assert round(total / trained) == 8024

# %% [markdown]
# Next, we count for 32 models without experts: LoRA on `q,v`, and on all linear layers of each block (`all-linear`). **Up to what model size is "about one percent" right on all linear layers? And why does the factor grow more slowly than the model?**

# %%
dense = [name for name in zoo() if not architecture_of(name).experts]
qv = [params(name, LoRA(rank=8, targets="q,v")) for name in dense]
everything = [params(name, LoRA(rank=8, targets="all-linear")) for name in dense]

# %% alt="One dot per model: its number of parameters against the factor by which LoRA at rank 8 trains fewer numbers, both on logarithmic axes. The factor grows with the model. For LoRA on all linear layers, it is near 100 for the smallest models and near 1,000 for the largest. For LoRA on q and v, it grows from about 300 to 8,000. No dot reaches 10,000."
plt.figure(figsize=(4.8, 4.2), layout="constrained")
plt.axhspan(100, 1000, color="0.93")
for factor, claim in ((70, "about one percent"), (110, "100 to 1,000 times fewer"), (10_400, "10,000 times fewer")):
    plt.text(2e13, factor, f'"{claim}"', color="0.35", va="bottom", ha="right")
plt.axhline(100, color="0.6"), plt.axhline(10_000, color="0.6")
for counts, mark in ((everything, "C1s"), (qv, "C0o")):
    plt.loglog([c.total for c in counts], [c.total / c.trainable for c in counts], mark, markersize=5)
for c in qv:
    if c.model in ("llama-3-8b", "gpt3-175b", "llama-3.1-405b"):
        plt.text(1.4 * c.total, c.total / c.trainable, c.model, color="C0", va="center", size=9)
plt.text(3e9, 4000, "LoRA on q,v", color="C0", ha="right"), plt.text(2e10, 280, "all linear layers", color="C1")
plt.xticks([1e7, 1e8, 1e9, 1e10, 1e11, 1e12], ["10M", "100M", "1B", "10B", "100B", "1T"])
plt.yticks([100, 1000, 10_000], ["100", "1,000", "10,000"])
plt.gca().set(xlim=(1e7, 3e13), ylim=(45, 16_000), xlabel="parameters of the model", ylabel="times fewer, at rank 8")
plt.show()

# %% claim
assert len(qv) == len(dense) == 32
factors = [[(c.total, c.total / c.trainable) for c in counts] for counts in (qv, everything)]
small = [100 / f for total, f in factors[1] if total < 1e9]  # "about one percent"
assert (round(min(small), 1), round(max(small), 1)) == (0.8, 1.8)
assert all(100 < f < 1000 for total, f in factors[1] if 1e9 < total < 1e11)
assert all(100 < f < 1000 for total, f in factors[0] if total < 1e9)
assert max(f for _, f in factors[0]) == total / trained < 10_000

# %% [markdown]
# <details><summary>What we found</summary>
#
# **On `q,v`, the factor grows more slowly than the model:** from 308<!--count.minilm--> on MiniLM to 8,024<!--count.405b--> on Llama-3.1-405B. At twice the width, a matrix has four times the numbers and its adapter twice as many, so the factor doubles.
#
# - *"About one percent"* is right for all linear layers of models below 1B: LoRA trains 0.8% to 1.8%.
# - *"100 to 1,000 times fewer"* is right for `q,v` of models below 1B, and for all linear layers from 1B to 100B.
# - *"10,000 times fewer"* isn't right to within 10% for any of the 32 models at rank 8. (Llama-3.1-405B comes closest.)
#
# **And your model?** Choose it in the first panel.
# </details>
#
# ## Whose 10,000?
# This claim comes from the LoRA paper's abstract, and it's about GPT-3. **At which rank is it correct to within 10%?** Drag the rank.
#
# Then choose `mixtral-8x7b` at rank 8. Its factor is 13,704<!--count.mixtral.fewer-->, above every dot in the plot. Click to add *gate*, *up* and *down*. **Why was it so high?**

# %%
mistral, mixtral = (params(name, LoRA(rank=8)) for name in ("mistral-7b", "mixtral-8x7b"))
lesson.reveal("Mixtral's adapter / Mistral's", mixtral.trainable / mistral.trainable)
LoRAPanel("model", ["model"], model="gpt3-175b", models=["gpt3-175b", "mixtral-8x7b"])

# %% claim
gpt3 = params("gpt3-175b", LoRA(rank=4))
assert round(gpt3.total / gpt3.trainable) == 9251 and round(2 * gpt3.trainable / 1e6, 1) == 37.7
assert gpt3.trainable == 18 * 2**20
assert 0.9 < 9251 / 10_000 < 1.1 and 8024 / 10_000 < 0.9
usual = params("gpt3-175b", LoRA(rank=8))
assert f"adds {usual.trainable:,} (" in LoRAPanel("model", model="gpt3-175b", rank=8).describe()
assert mixtral.trainable == mistral.trainable and round(mixtral.total / mistral.total, 1) == 6.4
in_experts = params("mixtral-8x7b", LoRA(rank=8, targets="gate,up,down")).trainable
assert int(mixtral.total / (mixtral.trainable + in_experts)) == 400  # in the panel

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The 10,000 is for GPT-3, at rank 4, on `q,v`.** There, LoRA trains 9,251<!--count.paper--> times fewer numbers. At 2 bytes each, they take 37.7<!--count.paper.mb--> MB (paper: 35).
#
# **Mixtral's factor is high because its experts get no adapters.** Its adapter on `q,v` is exactly as large as Mistral's, because attention has no experts. If all 8 experts in each of the 32 layers get adapters, too, the factor falls to 400.
# </details>
#
# ## Which slide is right?
# **Exercise 1: five slides say "10,000 times". Only one is correct to within 10%. Which one?** (Find the factor at rank 8 in the first panel. Halving the rank doubles the factor.)

# %% exercise
which = lesson.draw("slides", 0, 1, 2)
for letter, (claim, _) in slides(which).items():
    print(f"{letter}: {claim}")
checks.check_slide(..., which)

# %% solution
which = lesson.draw("slides", 0, 1, 2)
for letter, (claim, _) in slides(which).items():
    print(f"{letter}: {claim}")
count = params("llama-3-8b", LoRA(rank=2, targets="q,v"))
print(f"C: {count.total / count.trainable:,.0f} times fewer")
checks.check_slide("C", which)

# %% [markdown]
# ## Find the rank from a file's size
# Be a detective: you find an adapter for Llama-3.2-3B, and see only its file's size. **Exercise 2: find its rank without opening the file.** Its numbers take 4 bytes each, and the tensor names take about 20,000 bytes. (It's a real file, from PEFT's [comparison of methods](https://github.com/huggingface/peft/tree/main/method_comparison). Count by hand, or call `params`.)

# %% exercise
targets, size = lesson.draw("file", ("gate,up,down", 37_868_984), ("q,v", 36_715_216), ("q,v", 73_415_408))
print(f"{size:,} bytes, LoRA on {targets}")
print(config_of("llama-3.2-3b"))
my_rank = ...
checks.check_rank_of_file(my_rank, targets, size)

# %% solution
targets, size = lesson.draw("file", ("gate,up,down", 37_868_984), ("q,v", 36_715_216), ("q,v", 73_415_408))
print(f"{size:,} bytes, LoRA on {targets}")
print(config_of("llama-3.2-3b"))
my_rank = round(size / 4 / params("llama-3.2-3b", LoRA(rank=1, targets=targets)).trainable)
checks.check_rank_of_file(my_rank, targets, size)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **"x times fewer" means that x adapters hold as many numbers as the model.** But with n customers, you save less than a factor of n.
# 2. **Roughly, x grows with the model's size.** At rank 8 on all linear layers, LoRA trains about 1% of a small model, 0.3<!--count.8b.all-->% of an 8B model and 0.08<!--count.405b.all-->% of a 405B model. *Ours: counted for 32 models.*
# 3. **Check every claim:** which model, which rank, which matrices, and is the head counted? (*The LoRA paper doesn't count the head, [says an author](https://github.com/microsoft/LoRA/issues/16).*)
#
# The same in PEFT:
# ```python
# with torch.device("meta"):
#     model = AutoModelForCausalLM.from_config(config)
# model = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
# model.print_trainable_parameters()  # the printed total includes the adapter
# ```
# </details>

# %%
lesson.receipt()
