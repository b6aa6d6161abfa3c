# %% [markdown]
# # 11 · How many numbers train?
#
# "LoRA trains 10,000 times fewer parameters." "100 to 1,000 times fewer." "About one percent." You'll read all three, and each is right for *some* model, rank and choice of matrices. **So count for yourself: for any model up to 405 billion parameters, to the last digit, in one second, without downloading weights.**
#
# As lesson 00 showed, LoRA on a matrix trains $r\,(d_{in} + d_{out})$ numbers.
#
# ## Three guesses
# All three are about LoRA at rank 8 on the query and value matrices (`q,v`). Give ranges that you're 80% sure of.
#
# 1. **How many times fewer numbers does LoRA train than Llama-3.1-405B has?**
# 2. One model has ten times as many parameters as another. **By what factor does LoRA train more numbers on the larger one?**
# 3. Mixtral is Mistral-7B with eight *experts*: each layer has eight sets of `gate`, `up` and `down` instead of one. So it's 6.4<!--count.mixtral--> times as large. **By what factor does LoRA train more numbers on Mixtral?**

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
# A **config** lists all of a model's sizes. On PyTorch's device `meta`, a tensor has a shape but no numbers, so it takes no memory. Build the model there, and add up the tensors' sizes.
#
# In the panel, areas show parameter counts, and the patch is the adapter. Press *drop the patch on the model*: 308<!--count.minilm--> patches cover MiniLM. **How many adapters for `llama-3.1-405b` cover that model?**

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
# In the code's first line, you can use any model's `config.json`. The lab's `params` knows how other models name their layers, and raises an error if a name matches nothing.
#
# Now we count trained numbers for 32 models without experts, with LoRA on `q,v` and on all linear layers of each block (`all-linear`).

# %%
dense = [name for name in zoo_names() if not architecture_of(name).experts]
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
# On Llama-3.1-405B, LoRA trains one number per 8,024<!--count.405b--> parameters; on MiniLM, one per 308<!--count.minilm-->. A model ten times as large has an adapter about 4.1<!--count.ten--> times as large (a line fitted to 32 models, not a law). Why? If the width $d$ grows, a block grows like $d^2$ and its adapter like $d$. So if a model grew tenfold only in *width*, its adapter would grow $\sqrt{10} \approx 3.2$ times. If a model only got ten times the blocks, its adapter would grow tenfold, too. Real models grow in both ways.
# </details>
#
# ## Whose 10,000?
# The LoRA paper's abstract says "10,000 times" about GPT-3. In section 4.2, a model of 350 GB gets an adapter of 35 MB, at 2 bytes per number. **At which rank are "10,000 times" and 35 MB both nearly right?** (To get the bytes, double *Trained*: the panel's file size counts more numbers, at 4 bytes each.)
#
# Then choose `mixtral-8x7b`: at which rank does LoRA train nearly 10,000 times fewer numbers than Mixtral has?

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
# Only rank 4 comes near both claims: 9,251<!--count.paper--> times fewer numbers, and 37.7<!--count.paper.mb--> MB (36 MiB). For Mixtral, the answer is rank 11 (9,967 times fewer).
# </details>
#
# ## Your turn: a stranger's file
# **Exercise 1: what's the rank of this adapter for Llama-3.2-3B?** Its numbers take 4 bytes each, and about 20,000 bytes of the file are names. (It's from PEFT's [comparison of methods](https://github.com/huggingface/peft/tree/main/method_comparison). Which file you get depends on your name.)

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
# ## Experts, and other methods
# In the previous panel, choose `mixtral-8x7b` at rank 8 and click *gate*, *up* and *down*: **what happens to the ratio 13,704<!--count.mixtral.fewer-->×?** And how many numbers do other methods train on `qwen2.5-0.5b`? (**BitFit** trains the biases. **IA3** trains a factor for each output of `k` and `v`, and for each input of `down`. A *prompt* is 20 trained vectors in front of the text, and a *prefix* is 20 in every layer.)

# %% alt="How many numbers each of seven methods trains, on a logarithmic axis. Full fine-tuning trains the most. Then come LoRA on all linear layers, LoRA on q and v, IA3 and prefix (the same number) and BitFit. Prompt trains the fewest."
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
# Mixtral's adapter is as large as Mistral's, because attention has no experts. LoRA trains 13,704<!--count.mixtral.fewer--> times fewer numbers than Mixtral has, but only because the experts get no adapters. Adapters in all experts would add 33<!--count.experts--> times as many numbers, so the ratio would fall to 400. Four methods train fewer numbers than LoRA, but a small count isn't a merit: lesson 05 asks what each method costs in quality.
# </details>
#
# ## Prove it: audit a model that nobody has built
# Here's a config we made up. **Exercise 2: exactly how many numbers does LoRA train on its seven kinds of matrices (`q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`)?** (This config also gives the width of an attention head, `head_dim`.)

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
# 3. **Ask four things about every "x times fewer":** which model, which rank, which matrices, and whether the head counts. (If it does, MiniLM's 308<!--count.minilm--> becomes the 305<!--as_good.times--> of lesson 05.) *The LoRA paper never counts the head ([says an author](https://github.com/microsoft/LoRA/issues/16)).*
#
# At the rank $d_{in}\,d_{out} / (d_{in} + d_{out})$, $A$ and $B$ hold as many numbers as $W$. From that rank up, LoRA saves nothing. For `v` in Llama-2-70B (8,192 → 1,024), that rank is only 910<!--count.break-even-->.
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
