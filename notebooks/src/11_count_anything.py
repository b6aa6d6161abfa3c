# %% [markdown]
# # 11 · How many numbers train?
#
# "LoRA trains 10,000 times fewer parameters." "100 to 1,000 times fewer." "About one percent." You'll read all three, and each is right for *some* model, rank and choice of matrices. **So count it yourself: any model, up to 405 billion parameters, to the last digit, in one second, without downloading any weights.**
#
# As lesson 00 showed, LoRA on a matrix trains $r\,(d_{in} + d_{out})$ numbers. Here you count them for whole models.
#
# ## Three guesses
# All are about the query and value matrices (`q,v`), as in the LoRA paper, at rank 8. Be 80% sure.
#
# 1. **Llama-3.1-405B: how many times fewer numbers does LoRA train than the model has?**
# 2. One model has ten times as many parameters as another. **How many times as many numbers train?**
# 3. Mixtral is Mistral-7B with eight *experts*: in each layer, eight sets of `gate`, `up` and `down` instead of one. So it's 6.4<!--count.mixtral--> times as large. **How many times as many numbers train?**

# %%
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lora_course import checks, lesson
from lora_course.checks.counting import unseen
from lora_lab import IA3, BitFit, FullFineTuning, LoRA, LoRAPanel, PrefixTuning, PromptTuning, params
from lora_lab.accounting.models import architecture_of, config_of, zoo_names

lesson.start("11")
lesson.predict("405B: times fewer", low=..., high=...)
lesson.predict("growth of the adapter if the model grows tenfold", low=..., high=...)
lesson.predict("Mixtral's adapter over Mistral's", low=..., high=...)

# %% [markdown]
# ## Count without weights
# A **config** lists all of a model's sizes. On PyTorch's device `meta`, a tensor has a shape but no numbers, so it takes no memory. Build the model there, and add up the sizes.
#
# In the panel below, areas show parameter counts. Press *drop the patch on the model*: 308<!--count.minilm--> such adapters cover MiniLM. **How many of its own cover `llama-3.1-405b`?**

# %%
config = AutoConfig.for_model(**config_of("llama-3.1-405b"))
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(config)
total = sum(p.numel() for p in model.parameters())
layers = [m for name, m in model.named_modules() if name.endswith(("q_proj", "v_proj"))]
trained = sum(8 * (m.in_features + m.out_features) for m in layers)

print(f"{total:,} parameters, {trained:,} of them train: {trained / total:.4%}")
lesson.reveal("405B: times fewer", total / trained, "times")
LoRAPanel("model", ["model"], model="minilm")

# %% claim
assert params("llama-3.1-405b", LoRA(rank=8)).trainable == trained and params("llama-3.1-405b", LoRA()).total == total
assert round(total / trained) == 8024

# %% [markdown]
# Any `config.json` works in the first line. `params` counts for every method, knows other models' names for layers, and raises an error if a name matches nothing. (For GPT-2, the code above would silently count 0: GPT-2's `c_attn` holds query, key and value in one matrix.)
#
# Now count 32 models without experts, on `q,v` and on all linear layers of each block (`all-linear`). The lesson's first two claims are gray.

# %%
dense = [name for name in zoo_names() if not architecture_of(name).experts]
qv = [params(name, LoRA(rank=8, targets="q,v")) for name in dense]
everything = [params(name, LoRA(rank=8, targets="all-linear")) for name in dense]

slope, _ = np.polyfit(np.log10([c.total for c in qv]), np.log10([c.trainable for c in qv]), 1)
lesson.reveal("growth of the adapter if the model grows tenfold", 10**slope, "times")

# %% alt="Every model of the zoo as a dot: its parameters against the percent that rank 8 trains, both logarithmic. The share falls as models grow; q and v train a fraction of what all linear layers do."
plt.figure(figsize=(8, 5))
plt.axhspan(0.1, 1, color="0.93")
plt.text(5e11, 0.75, '"100 to 1,000 times fewer"', color="0.35", ha="right")
plt.axhline(0.01, color="0.6")
plt.text(1.7e7, 0.0105, '"10,000 times fewer"', color="0.35")
for counts, mark, label in ((everything, "C1s", "all-linear"), (qv, "C0o", "q,v")):
    plt.loglog([c.total for c in counts], [100 * c.fraction for c in counts], mark, markersize=5, label=label)
for c in qv:
    if c.model in ("minilm", "gpt2-xl", "gpt3-175b", "llama-3.1-405b"):
        plt.text(c.total, 100 * c.fraction, f"  {c.model}", color="C0", va="center")
plt.legend(loc="lower left", bbox_to_anchor=(0, 0.15))
plt.title("The larger the model, the smaller the share that trains", loc="left")
plt.gca().set(xlim=(1e7, 5e12), xlabel="parameters of the model", ylabel="percent that trains, rank 8")
plt.show()

# %% claim
assert len(qv) == len(dense) == 32 and round(10**slope, 1) == 4.1
assert min(c.fraction for c in everything) < 0.001 < 0.014 < everything[1].fraction < 0.015  # minilm
assert max(c.total / c.trainable for c in qv) < 10_000  # none of them, at rank 8

# %% [markdown]
# <details><summary>What we found</summary>
#
# On Llama-3.1-405B, LoRA trains one number in 8,024<!--count.405b-->; on MiniLM, one in 308<!--count.minilm-->. A model ten times as large has an adapter about 4.1<!--count.ten--> times as large (a line fitted to 32 models, not a law). Why? A block's parameters grow with $d^2$, and its adapter's with $d$. So if only the *width* grew, the adapter would become $\sqrt{10} \approx 3.2$ times as large; if only the number of blocks, ten times. Real models do both.
#
# Even on all linear layers, LoRA trains only 0.08<!--count.405b.all-->% of Llama-3.1-405B.
# </details>
#
# ## Whose 10,000?
# The LoRA paper's abstract says "10,000 times" about GPT-3. In section 4.2, a model of 350 GB gets an adapter of 35 MB, at 2 bytes a number. **At which rank do "10,000 times" and 35 MB both nearly fit?** (For the bytes, double *Trained*. The panel's own file is larger: it holds GPT-3's joint matrix `q+k+v` in full, at 4 bytes a number.)
#
# Then choose `mixtral-8x7b`: at which rank is it nearly 10,000 times fewer?

# %%
LoRAPanel("model", ["model"], model="gpt3-175b", models=["gpt3-175b", "mixtral-8x7b"])

# %% claim
gpt3 = params("gpt3-175b", LoRA(rank=4))
assert round(gpt3.total / gpt3.trainable) == 9251 and round(2 * gpt3.trainable / 1e6, 1) == 37.7
assert gpt3.trainable == 18 * 2**20
usual = params("gpt3-175b", LoRA(rank=8))
assert int(usual.total / usual.trainable) == 4625 and round(2 * usual.trainable / 1e6, 1) == 75.5
assert f"adds {usual.trainable:,} (" in LoRAPanel("model", model="gpt3-175b", rank=8).describe()
have = [name for name in zoo_names() if {"q", "v"} <= set(architecture_of(name).roles)]
counted = {name: params(name, LoRA(1)) for name in have}
near = min((abs(c.total / c.trainable / r - 10_000), name, r) for name, c in counted.items() for r in range(1, 65))
assert near[1:] == ("mixtral-8x7b", 11) and round(10_000 - near[0]) == 9967

# %% [markdown]
# <details><summary>What we found</summary>
#
# Only rank 4 comes near both: 9,251<!--count.paper--> times fewer, and 37.7<!--count.paper.mb--> MB, or 36 MiB. (Lesson 09's claim 1 takes rank 1, the lowest in the paper.) Mixtral gets there at rank 11 (9,967 times). *Experts*, below, says why.
# </details>
#
# ## Your turn: a stranger's file
# **Exercise 1: what's the rank of this adapter for Llama-3.2-3B?** Its numbers take 4 bytes each, and some 20,000 bytes are names. (It's from PEFT's own [comparison of methods](https://github.com/huggingface/peft/tree/main/method_comparison). Your name chooses the file.)

# %% exercise
targets, size = lesson.draw("file", ("gate,up,down", 37_868_984), ("q,v", 36_715_216), ("q,v", 73_415_408))
print(f"{size:,} bytes, on {targets}")
print(config_of("llama-3.2-3b"))
my_rank = ...
checks.check_rank_of_file(my_rank, targets, size)

# %% solution
targets, size = lesson.draw("file", ("gate,up,down", 37_868_984), ("q,v", 36_715_216), ("q,v", 73_415_408))
print(f"{size:,} bytes, on {targets}")
print(config_of("llama-3.2-3b"))
my_rank = round(size / 4 / params("llama-3.2-3b", LoRA(rank=1, targets=targets)).trainable)
checks.check_rank_of_file(my_rank, targets, size)

# %% [markdown]
# ## Experts, and other methods
# In the last panel, choose `mixtral-8x7b` at rank 8 and click *gate*, *up* and *down*: **what happens to the ratio 13,704<!--count.mixtral.fewer-->×?** And how many numbers do other methods train on `qwen2.5-0.5b`? (**BitFit** trains the biases, **IA3** a factor for each output of `k` and `v` and each input of `down`. A prompt is 20 trained vectors before the text, a prefix 20 in every layer.)

# %% alt="Seven methods and how many numbers each trains, on a logarithmic axis: full fine-tuning most, then LoRA on all linear layers and on q and v, IA3 and prefix, BitFit, and prompt least."
mistral, mixtral = (params(name, LoRA(rank=8)) for name in ("mistral-7b", "mixtral-8x7b"))
lesson.reveal("Mixtral's adapter over Mistral's", mixtral.trainable / mistral.trainable, "times as large")
in_experts = params("mixtral-8x7b", LoRA(rank=8, targets="gate,up,down")).trainable

methods = {"prompt": PromptTuning(20), "BitFit": BitFit(), "prefix": PrefixTuning(20), "IA3": IA3(), "LoRA on q,v": LoRA(8)}
methods |= {"LoRA on all linear layers": LoRA(8, targets="all-linear"), "full fine-tuning": FullFineTuning()}
plt.figure(figsize=(8, 3))
for name, method in methods.items():
    trained = params("qwen2.5-0.5b", method).trainable
    plt.semilogx(trained, name, "o", color="C0" if "LoRA" in name else "0.5")
    plt.text(1.4 * trained, name, f"{trained:,}", va="center")
plt.gca().set(xlim=(1e4, 1e10), xlabel="numbers that train")
plt.title("Four methods train fewer numbers than LoRA", loc="left")
plt.show()

# %% claim
assert mixtral.trainable == mistral.trainable and round(mixtral.total / mistral.total, 1) == 6.4
assert in_experts > 30 * mixtral.trainable
assert int(mixtral.total / (mixtral.trainable + in_experts)) == 400  # in the panel
assert params("qwen2.5-0.5b", IA3()).trainable == params("qwen2.5-0.5b", PrefixTuning(20)).trainable
assert params("qwen2.5-0.5b", PromptTuning(20)).trainable < params("qwen2.5-0.5b", LoRA(8)).trainable

# %% [markdown]
# <details><summary>What we found</summary>
#
# Mixtral's adapter is as large as Mistral's: attention has no experts. Mixtral trains 13,704<!--count.mixtral.fewer--> times fewer numbers than it has, but only because its experts get no adapters. Adapters in all experts add 33<!--count.experts--> times as many numbers: the ratio falls to 400. A small count isn't a merit: lesson 05 asks what each method costs in quality.
# </details>
#
# ## Prove it: audit a model that nobody has built
# Here's a config we made up. **Exercise 2: exactly how many numbers does LoRA train on its seven matrices: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`?** (Unlike in lesson 00, the config gives a head's width: `head_dim`.)

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
# 1. **Count on `meta`:** shapes are enough, so any model with a config can be counted, in a second.
# 2. **The share falls as models grow.** At rank 8 on all linear layers, LoRA trains about 1% of a small model, 0.3<!--count.8b.all-->% of an 8B model and 0.08<!--count.405b.all-->% of a 405B model. *Ours: counted for 32 models.*
# 3. **Ask four things of every "x times fewer":** which model, which rank, which matrices, and whether it counts the head. (If so, MiniLM's 308<!--count.minilm--> becomes lesson 05's 305<!--as_good.times-->.) *The paper never counts it, as one of its authors says ([an issue](https://github.com/microsoft/LoRA/issues/16)).*
#
# At the rank $d_{in}\,d_{out} / (d_{in} + d_{out})$, $A$ and $B$ hold as many numbers as $W$. From that rank up, LoRA saves nothing. The narrow side decides: it's rank 910<!--count.break-even--> for `v` in Llama-2-70B (8,192 → 1,024).
#
# The same in PEFT:
# ```python
# with torch.device("meta"):
#     model = AutoModelForCausalLM.from_config(config)
# model = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
# model.print_trainable_parameters()  # its total includes the adapter
# ```
# </details>

# %%
lesson.receipt()
