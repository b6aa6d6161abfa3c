# %% [markdown]
# # 11 · How many numbers are trained?
#
# "LoRA trains 10,000 times fewer parameters." "100 to 1,000 times fewer." "About one percent." You'll read all three claims, and each is right for *some* model, rank and choice of matrices. **So count for yourself: exactly, in seconds, without downloading weights.**
#
# On one matrix, LoRA trains $r\,(d_{in} + d_{out})$ numbers (lesson 00).
#
# ## Three guesses
# All three guesses are about LoRA at rank 8 on the query and value matrices (`q,v`). Give ranges that you're 80% sure of.
#
# 1. On MiniLM, full fine-tuning trains 308<!--count.minilm--> numbers for each number that LoRA trains. **What's this ratio on Llama-3.1-405B?**
# 2. We fit a line to 32 models. **On this line, if a model is ten times as large, by what factor is its adapter larger?**
# 3. Mixtral is Mistral-7B with eight *experts*: each layer has eight sets of `gate`, `up` and `down` instead of one. So Mixtral is 6.4<!--count.mixtral--> times as large as Mistral. **What's the size of Mixtral's adapter divided by that of Mistral's?**

# %%
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lora_course import checks, lesson
from lora_course.checks.counting import unseen
from lora_lab import LoRA, LoRAPanel, params
from lora_lab.accounting.models import architecture_of, config_of, zoo

lesson.start("11")
lesson.predict("405B: times fewer", low=..., high=...)
lesson.predict("growth of the adapter if the model grows tenfold", low=..., high=...)
lesson.predict("Mixtral's adapter / Mistral's", low=..., high=...)

# %% [markdown]
# ## Count without weights
# A **config** lists all sizes of a model. On PyTorch's device `meta`, a tensor has a shape but no numbers, so it takes no memory. The code builds the model there, and adds up the sizes of its tensors.
#
# In the panel, the patch is MiniLM's adapter. Press *drop the patch on the model*: 308<!--count.minilm--> patches cover MiniLM.

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
# Next, we count the same for 32 models without experts: LoRA on `q,v`, and LoRA on all linear layers of each block (`all-linear`).

# %%
dense = [name for name in zoo() if not architecture_of(name).experts]
qv = [params(name, LoRA(rank=8, targets="q,v")) for name in dense]
everything = [params(name, LoRA(rank=8, targets="all-linear")) for name in dense]

slope, _ = np.polyfit(np.log10([c.total for c in qv]), np.log10([c.trainable for c in qv]), 1)
lesson.reveal("growth of the adapter if the model grows tenfold", 10**slope, "times")

# %% alt="One dot per model: its number of parameters against the percentage that LoRA at rank 8 trains, both on logarithmic axes. The percentage falls as models grow. LoRA on q and v trains only a fraction of what LoRA on all linear layers trains."
plt.figure(figsize=(8, 5))
plt.axhspan(0.1, 1, color="0.93")
plt.text(5e11, 0.75, '"100 to 1,000 times fewer"', color="0.35", ha="right")
plt.axhline(0.01, color="0.6")
plt.text(1.7e7, 0.0105, '"10,000 times fewer"', color="0.35")
for counts, mark in ((everything, "C1s"), (qv, "C0o")):
    plt.loglog([c.total for c in counts], [100 * c.fraction for c in counts], mark, markersize=5)
for c in qv:
    if c.model in ("minilm", "gpt2-xl", "gpt3-175b", "llama-3.1-405b"):
        plt.text(c.total, 100 * c.fraction, f"  {c.model}", color="C0", va="center")
plt.text(3e8, 0.06, "LoRA on q,v", color="C0", ha="right"), plt.text(1.2e9, 1.1, "LoRA on all linear layers", color="C1")
plt.yticks([1, 0.1, 0.01], ["1%", "0.1%", "0.01%"])
plt.title("The larger the model, the smaller the share that trains", loc="left")
plt.gca().set(xlim=(1e7, 5e12), xlabel="parameters of the model", ylabel="share that trains, rank 8")
plt.show()

# %% claim
assert len(qv) == len(dense) == 32 and round(10**slope, 1) == 4.1
assert min(c.fraction for c in everything) < 0.001 < 0.014 < everything[1].fraction < 0.015  # minilm
assert all(0.008 < c.fraction < 0.02 for c in everything if c.total < 6e8)  # "about one percent"
assert max(c.total / c.trainable for c in qv) < 10_000  # none of them, at rank 8

# %% [markdown]
# <details><summary>What we found</summary>
#
# On MiniLM, LoRA trains one number per 308<!--count.minilm--> parameters; on Llama-3.1-405B, one number per 8,024<!--count.405b-->. If a model is ten times as large, its adapter is about 4.1<!--count.ten--> times as large (along our line, which isn't a law). "About one percent" is right for LoRA on all linear layers of small models (in the plot, the orange squares near 1%).
#
# **Why does LoRA's share fall?** If the width $d$ of a model doubles, each matrix has four times as many numbers, but its adapter has only twice as many. More blocks make the model and its adapter larger by the same factor. Real models grow in both ways.
# </details>
#
# ## Whose 10,000?
# For GPT-3, the LoRA paper claims "10,000 times" fewer trained parameters (abstract). It also claims an adapter of 35 MB, at 2 bytes per number (section 4.2). **At which rank are both claims nearly right?** (To get the bytes, double the number after *Trained*. The file size in the panel is larger: that file holds more numbers, at 4 bytes each.)

# %%
LoRAPanel("model", ["model"], model="gpt3-175b", models=["gpt3-175b", "mixtral-8x7b"])

# %% claim
gpt3 = params("gpt3-175b", LoRA(rank=4))
assert round(gpt3.total / gpt3.trainable) == 9251 and round(2 * gpt3.trainable / 1e6, 1) == 37.7
assert gpt3.trainable == 18 * 2**20
usual = params("gpt3-175b", LoRA(rank=8))
assert int(usual.total / usual.trainable) == 4625 and round(2 * usual.trainable / 1e6, 1) == 75.5
assert f"adds {usual.trainable:,} (" in LoRAPanel("model", model="gpt3-175b", rank=8).describe()

# %% [markdown]
# <details><summary>What we found</summary>
#
# At rank 4, LoRA trains 9,251<!--count.paper--> times fewer numbers, and the adapter takes 37.7<!--count.paper.mb--> MB (36 MiB). No other rank comes near both claims.
# </details>
#
# ## Your turn: a stranger's file
# **Exercise 1: what's the rank of this adapter for Llama-3.2-3B?** Its numbers take 4 bytes each, and about 20,000 bytes of the file are tensor names. (The file is from PEFT's [comparison of methods](https://github.com/huggingface/peft/tree/main/method_comparison). Which file you get depends on your name.)

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
# ## Experts
# Go back to the panel under *Whose 10,000?* and choose `mixtral-8x7b` at rank 8. There, LoRA on `q,v` trains 13,704<!--count.mixtral.fewer--> times fewer numbers than Mixtral has. Then click *gate*, *up* and *down*. **What happens to this ratio?**

# %%
mistral, mixtral = (params(name, LoRA(rank=8)) for name in ("mistral-7b", "mixtral-8x7b"))
lesson.reveal("Mixtral's adapter / Mistral's", mixtral.trainable / mistral.trainable)

# %% claim
assert mixtral.trainable == mistral.trainable and round(mixtral.total / mistral.total, 1) == 6.4
in_experts = params("mixtral-8x7b", LoRA(rank=8, targets="gate,up,down")).trainable
assert in_experts > 30 * mixtral.trainable
assert int(mixtral.total / (mixtral.trainable + in_experts)) == 400  # in the panel

# %% [markdown]
# <details><summary>What we found</summary>
#
# Mixtral's adapter is as large as Mistral's, because attention has no experts. LoRA on `q,v` trains 13,704<!--count.mixtral.fewer--> times fewer numbers only because the experts get no adapters. If all experts have adapters, this ratio falls to 400: the experts' adapters train 33<!--count.experts--> times as many numbers as the adapters on `q,v`.
# </details>
#
# ## Prove it: audit a model that nobody has built
# We made up a config. **Exercise 2: exactly how many numbers does LoRA train on this model's seven kinds of matrices (`q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`)?** (In the config, `head_dim` is the width of one attention head.)

# %% exercise
which, rank = lesson.draw("config", (0, 8), (1, 16), (2, 4), (3, 32), (4, 12))
config = unseen(which)
print("rank", rank, config)  # a dict, for AutoConfig.for_model(**config)
my_count = ...
checks.check_audit(my_count, which, rank)

# %% solution
which, rank = lesson.draw("config", (0, 8), (1, 16), (2, 4), (3, 32), (4, 12))
config = unseen(which)
print("rank", rank, config)
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
layers = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name != "lm_head"]
my_count = sum(rank * (m.in_features + m.out_features) for m in layers)
checks.check_audit(my_count, which, rank)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Count on `meta`:** you need a model's shapes, but not its weights.
# 2. **The trained share falls as models grow.** At rank 8 on all linear layers, LoRA trains about 1% of a small model, 0.3<!--count.8b.all-->% of an 8B model and 0.08<!--count.405b.all-->% of a 405B model. *Ours: counted for 32 models.*
# 3. **Ask four questions about every claim of "x times fewer":** which model, which rank, which matrices, and is the head counted? (With its head, MiniLM's factor is 305<!--as_good.times-->, not 308<!--count.minilm-->. *The LoRA paper doesn't count the head, [says an author](https://github.com/microsoft/LoRA/issues/16).*)
#
# At the rank $d_{in}\,d_{out} / (d_{in} + d_{out})$, $A$ and $B$ together hold as many numbers as $W$. At this rank or a higher one, LoRA saves nothing. For `v` in Llama-2-70B (8,192 inputs, 1,024 outputs), this rank is only 910<!--count.break-even-->.
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
