# %% [markdown]
# # 11 · How many numbers are trained?
#
# You plan a service for a hundred customers, each with an adapter of their own. A slide says: "LoRA trains 10,000 times fewer parameters." A blog says "100 to 1,000 times fewer", and a colleague "about one percent". Each of these claims is about right for *some* model and rank. **Which one is right for your model, and how much disk space does your service save?**
#
# On one matrix, LoRA trains $r\,(d_{in} + d_{out})$ numbers (lesson 00).
#
# ## Three guesses
# Guesses 1 and 2 are about LoRA at rank 8 on the query and value matrices (`q,v`). Give ranges that you're 80% sure of.
#
# 1. MiniLM has 308<!--count.minilm--> times as many numbers as its adapter. **What's this factor for Llama-3.1-405B?**
# 2. Mixtral is Mistral-7B with eight *experts*: each layer has eight sets of `gate`, `up` and `down` instead of one. So Mixtral is 6.4<!--count.mixtral--> times as large as Mistral. **What do you get if you divide the size of Mixtral's adapter by the size of Mistral's?**
# 3. In the LoRA paper, GPT-3 takes 350 GB, and an adapter takes 35 MB: 10,000 times less. For a hundred customers, you can store a hundred full models, or one model and a hundred adapters. **How many times less disk space does the second way take?**

# %%
import numpy as np
import torch
from matplotlib import pyplot as plt
from transformers import AutoConfig, AutoModelForCausalLM

from lora_course import checks, lesson
from lora_course.checks.counting import slides
from lora_lab import LoRA, LoRAPanel, params
from lora_lab.accounting.models import architecture_of, config_of, zoo

lesson.start("11")
lesson.predict("405B: times fewer", low=..., high=...)
lesson.predict("Mixtral's adapter / Mistral's", low=..., high=...)
lesson.predict("a hundred customers: times less disk", low=..., high=...)

# %% [markdown]
# ## Count without weights
# To count, you don't need a model's weights: its **config** lists all sizes. On PyTorch's device `meta`, a tensor has a shape but no numbers, so it takes no memory. The code builds Llama-3.1-405B there, in seconds.
#
# What does a factor like 308 mean? In the panel, the patch is MiniLM's adapter. Press *drop the patch on the model*: 308<!--count.minilm--> patches cover MiniLM. **So "308 times fewer" means that 308 customers' adapters hold as many numbers as one model.** Then choose your own model in the menu.

# %%
config = AutoConfig.for_model(**config_of("llama-3.1-405b"))
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(config)
total = sum(p.numel() for p in model.parameters())
layers = [m for name, m in model.named_modules() if name.endswith(("q_proj", "v_proj"))]
trained = sum(8 * (m.in_features + m.out_features) for m in layers)

print(f"{total:,} parameters; LoRA trains {trained:,} numbers, or {trained / total:.4%} as many")
lesson.reveal("405B: times fewer", total / trained, "times")
LoRAPanel("model", ["model"], model="minilm")

# %% claim
assert params("llama-3.1-405b", LoRA(rank=8)).trainable == trained and params("llama-3.1-405b", LoRA()).total == total
assert round(total / trained) == 8024

# %% [markdown]
# Next, we count for 32 models without experts: LoRA on `q,v`, and LoRA on all linear layers of each block (`all-linear`). **Where in the picture is each of the three claims right?**

# %%
dense = [name for name in zoo() if not architecture_of(name).experts]
qv = [params(name, LoRA(rank=8, targets="q,v")) for name in dense]
everything = [params(name, LoRA(rank=8, targets="all-linear")) for name in dense]

# %% alt="One dot per model: its number of parameters against the factor by which LoRA at rank 8 trains fewer, both on logarithmic axes. The factor grows with the model. For LoRA on all linear layers, it is near 100 for the smallest models and near 1,000 for the largest. For LoRA on q and v, it grows from about 300 to 8,000. No dot reaches 10,000."
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
assert all(50 < f < 132 for total, f in factors[1] if total < 1e9)  # "about one percent"
assert all(100 < f < 1000 for total, f in factors[1] if 1e9 < total < 1e11)
assert all(100 < f < 1000 for total, f in factors[0] if total < 1e9)
assert max(f for _, f in factors[0]) == total / trained < 10_000

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The factor grows with the model:** from 308<!--count.minilm--> on MiniLM to 8,024<!--count.405b--> on Llama-3.1-405B. If a layer is twice as wide, its matrix has four times as many numbers, but its adapter has only twice as many. (More layers make both larger by the same factor.)
#
# - *"About one percent"* is right for all linear layers of models below 1B.
# - *"100 to 1,000 times fewer"* is right for `q,v` of models below 1B, and for all linear layers of models from 1B to 100B.
# - *"10,000 times fewer"* isn't right for any of the 32 models at rank 8.
# </details>
#
# ## Whose 10,000?
# This claim comes from the LoRA paper's abstract, and it's about GPT-3. **At which rank is it correct to within 10%?** Drag the rank.
#
# Then choose `mixtral-8x7b` at rank 8. Its factor is 13,704<!--count.mixtral.fewer-->. Click to add *gate*, *up* and *down*. (`256 ×` means 8 experts in each of 32 layers.) **Why does the factor fall so far?**

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
# **The 10,000 is for GPT-3, at rank 4, on `q,v`.** There, LoRA trains 9,251<!--count.paper--> times fewer numbers. At 2 bytes each, they take 37.7<!--count.paper.mb--> MB. (The paper says 35 MB.)
#
# **Mixtral's factor is high because its experts get no adapters.** Its adapter on `q,v` is exactly as large as Mistral's, because attention has no experts. If the experts get adapters, too, the factor falls to 400.
# </details>
#
# ## A hundred customers
# Guess 3 uses the paper's sizes (section 4.2). **How many customers do you need for 10,000 times less disk space?**

# %% alt="Number of customers against how many times less disk one model with all adapters takes than as many full models, both on logarithmic axes. The curve rises as the number of customers at first: 99 at 100 customers. It bends at 10,000 customers, where it is at 5,000, and comes close to 10,000 only from a million customers on."
model_size, adapter_size = 350e9, 35e6  # bytes


def less(customers):
    return customers * model_size / (model_size + customers * adapter_size)


lesson.reveal("a hundred customers: times less disk", less(100), "times")
n = np.geomspace(1, 1e6)
plt.figure(figsize=(4.8, 3.4), layout="constrained")
plt.axhline(10_000, color="0.6"), plt.text(1.2, 11_000, "model / adapter: 10,000", color="0.35")
plt.loglog(n, less(n), "C0", linewidth=2.5), plt.ylim(1, 40_000)
for customers in (100, 10_000):
    plt.plot(customers, less(customers), "C0o"), plt.text(customers, 0.5 * less(customers), f"   {less(customers):,.0f}")
plt.xticks([1, 100, 1e4, 1e6], ["1", "100", "10,000", "1M"]), plt.yticks([1, 100, 1e4], ["1", "100", "10,000"])
plt.gca().set(xlabel="customers", ylabel="times less disk")
plt.show()

# %% claim
assert round(less(100)) == 99 and less(1e4) == 5000 and less(1e6) < 10_000
assert round((350e9 + 100 * 35e6) / 1e9, 1) == 353.5 and 100 * 350e9 == 35e12 and 10_000 * 35e6 == 350e9

# %% [markdown]
# <details><summary>What we found</summary>
#
# **A hundred customers need 99 times less, and no number of customers needs 10,000 times less.** The disk must hold the model itself, too: 353.5 GB instead of 35 TB. So with n customers, this factor stays below n, however small the adapters are. With 10,000 customers, the adapters together are as large as the model, and the factor is 5,000.
# </details>
#
# ## Which slide is right?
# **Exercise 1: five slides say "10,000 times". Only one is correct to within 10%. Which one?** (Find the factor at rank 8 in the first panel or the plot. Half the rank doubles the factor.)

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
# You find an adapter for Llama-3.2-3B. You see the size of its file, but not its rank. **Exercise 2: find the rank before you download the file.** Its numbers take 4 bytes each, and the tensor names take about 20,000 bytes. (It's a real file, from PEFT's [comparison of methods](https://github.com/huggingface/peft/tree/main/method_comparison). Your name decides which file you get.)

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
# 2. **This factor grows with the model.** At rank 8 on all linear layers, LoRA trains about 1% of a small model, 0.3<!--count.8b.all-->% of an 8B model and 0.08<!--count.405b.all-->% of a 405B model. *Ours: counted for 32 models.*
# 3. **Ask of every claim:** which model, which rank, which matrices, and is the head counted? (*The LoRA paper doesn't count the head, [says an author](https://github.com/microsoft/LoRA/issues/16).*)
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
