# %% [markdown]
# # 13 · Where to put it?
#
# "I moved LoRA from `q,v` to all linear layers, and the model got better." But at the same rank, that trains four to eight times as many numbers. Two things changed: *where*, and *how much*. **If you fix the amount, which place is best?**
#
# You can train 27,648 numbers per MiniLM layer, in one matrix or spread over six.
#
# In attention, `q` and `k` decide *where* each token looks, `v` and `o` *what* it takes from there. The MLP has the other two: `up` and `down`.

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.paper import table
from lora_lab import Grid, LoRA, MemoryPanel, memory, params, sweep, verdict, verdicts
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped

lesson.start("13")
stored = from_store(shipped("data/results/sweeps/target_modules.zip"))  # ours: 90 runs, 25 November 2026
placements = stored.frame.groupby("targets")[["rank", "adapter_parameters"]].first()
placements

# %% [markdown]
# ## One budget, many ranks
# Each row of the table trains the same number of parameters, 6 x 27,648. (`up,down` is 3% below.)
#
# **Exercise 1: find ranks for a larger model, picked by your name.** The budget is what rank 32 on `q,v` trains. What's the highest rank within this budget on attention, `q,k,v,o`? And on all linear layers (with `gate`)? A matrix with $n$ inputs and $m$ outputs costs $n + m$ numbers per rank.

# %% exercise
model = lesson.draw("model", "llama-3-8b", "llama-2-7b", "gemma-2-9b", "qwen3-8b")
budget = params(model, LoRA(rank=32, targets="q,v")).trainable

checks.check_ranks(attention=..., everything=..., model=model)

# %% solution
model = lesson.draw("model", "llama-3-8b", "llama-2-7b", "gemma-2-9b", "qwen3-8b")
budget = params(model, LoRA(rank=32, targets="q,v")).trainable

one = {targets: params(model, LoRA(rank=1, targets=targets)).trainable for targets in ("q,k,v,o", "all-linear")}
checks.check_ranks(attention=budget // one["q,k,v,o"], everything=budget // one["all-linear"], model=model)

# %% [markdown]
# ## Three guesses
# We trained these six placements on movie reviews: five seeds each, at rates 0.001, 0.002 and 0.004. Be 80% sure.
#
# 1. Each placement at its best rate: **how many points from the worst to the best?**
# 2. **How many of the other five are better than `q,v`**, beyond luck?
# 3. Llama 3 8B at rank 8 trains 6.2<!--place.times--> times as many numbers on all linear layers as on `q,v`. **What percentage more memory does it need?** (bf16, one text of 1,024 tokens.)

# %%
lesson.predict("points from the worst to the best", low=..., high=...)
lesson.predict("placements better than q,v", low=..., high=...)
lesson.predict("more memory, in percent", low=..., high=...)

# %% [markdown]
# ## Train one yourself
# In the LoRA paper, the worst placement on GPT-3 was `k` alone. Train it here, roughly: two rates, three seeds, two minutes.

# %%
mine, rank = "k", 36  # or q, v, o at 36; up or down at 14
rates, seeds = ([2e-3], [0]) if lesson.FAST else ([1e-3, 2e-3], range(3))

print(f"{params('minilm', LoRA(rank, targets=mine)).trainable:,} of 165,888 numbers")
grid = Grid(rank, "2rank", rates, seeds, mine)  # alpha = 2 * rank
own = sweep(grid, lesson.workplace("13"), steps=lesson.steps(200, 12), batch=8, validations=1)

# %% [markdown]
# ## Tune each
# A single rate could decide which placement wins. Each gets its own. Here are our 90 runs, and yours: a dot is a run, and ×5 means five *collapsed* to guessing. **Which rate would you give each row?** We take the one with the best mean.
#
# (Here $\alpha=2r$: 8 for `all-linear`, 72 for `v`. That makes `v`'s best rate $\sqrt{72/8}=3$ times lower; but `all-linear` needs lower rates, too (lesson 03). So tune.)

# %% alt="Percent right on validation of every run, a row for each placement and a color for each rate. At 0.004 many runs collapse to guessing; at 0.001 and 0.002 almost none."
plt.figure(figsize=(8, 5.5))
tried = pd.concat([stored.frame, own.frame.assign(targets=f"{mine} (yours)")])
tried["right"] = 100 * tried.validation_accuracy
rows = ["all-linear", "up,down", "q,k,v,o", "q,v", "v", "q", f"{mine} (yours)"]
for color, (lr, runs), up in zip(("C1", "C0", "black"), tried.groupby("lr"), (0.26, 0, -0.26)):
    for row, place in enumerate(rows):
        right = runs.right[runs.targets == place]
        plt.plot(right[right > 50], [row + up] * sum(right > 50), "o", color=color, alpha=0.7)
        if any(right == 50):
            plt.text(49.5, row + up, f"×{sum(right == 50)}", color=color, ha="right", va="center")
        plt.plot([right.mean()] * 2, [row + up - 0.13, row + up + 0.13], color=color, label=f"rate {lr:g}" * (row == 0))
plt.yticks(range(len(rows)), rows)
plt.gca().set(xlabel="percent right on validation; a vertical line is a mean", xlim=(46.5, 81))
plt.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=3)
plt.show()

# %% [markdown]
# ## Then compare
# Now we use the 2,000 test sentences, with a margin fixed beforehand: 1.5 points. A dot is the difference from `q,v`, its line the 95% interval (*equivalent* uses 90%), the band our margin.
#
# Six tests at 5% give a false alarm in up to 26% of studies. **Holm's correction** lets the clearest difference err in 5%/6, the next in 5%/5, ... **Which verdicts does it change?**
#
# Below is GPT-3 in the LoRA paper, also at equal budgets, on database queries (WikiSQL) and on whether one sentence follows from another (MNLI). Its lines (±1.4 and ±0.3) come from the paper's spread over seeds.


# %% hide-input
def tuned(runs):
    accuracy = runs.frame.groupby("lr").validation_accuracy.mean()
    return runs.at(lr=accuracy.idxmax())


at_best = {targets: tuned(stored.at(targets=targets)) for targets in placements.index} | {mine: tuned(own)}
said = verdicts(at_best, against="q,v", margin=0.015)
alone = {place: verdict(at_best[place], at_best["q,v"], margin=0.015) for place in said}
better = [place for place in said if said[place].outcome == "better"]
ends = {place: [100 * end for end in (one.low95, one.difference, one.high95)] for place, one in said.items()}
columns = {x: {place: one.outcome for place, one in words.items()} for x, words in ((2.6, alone), (6, said))}
columns[2.6][""], columns[6][""] = "alone", f"as one of {len(said)} (Holm)"
places = [*dict.fromkeys(["all-linear", "up,down", "q,k,v,o", "o", "v", "q,k", "q", "k", mine]), ""]
paper = table("table5").frame().set_index("weights").rename(index=lambda name: name.replace("W", ""))

# %% alt="Two forest plots of points better than q and v: our six placements, and the LoRA paper's on GPT-3 with two tasks. q alone is to the left in both; with more matrices, the gaps shrink toward zero."
figure, (ours, gpt3) = plt.subplots(2, 1, figsize=(7.5, 8), sharey=True, layout="constrained")
for row, place in enumerate(places):
    for x, words in columns.items():
        ours.text(x, row, words.get(place, "not run" * (x < 3)), va="center")
    if place in said:
        ours.plot(ends[place], [row] * 3, f"C{int(place == mine)}o-", markevery=[1])
    for task, luck, up in ("WikiSQL", 1.4, 0.18), ("MNLI", 0.3, -0.18):  # 1.96 x √2 x the usual spread of seeds
        if place in paper.index:
            gpt3.errorbar(paper[task][place] - paper[task]["q,v"], row + up, xerr=luck, fmt="ko")
        gpt3.text(2.6, row + up, task if place in paper.index else "not run" * (up > 0 and place > ""), va="center")
for axis, title in (ours, f"Yours and ours: {len(better)} of {len(said)} proven better than q,v"), (gpt3, "GPT-3 (Hu et al. 2021)"):
    axis.axvspan(-1.5, 1.5, color="C0", alpha=0.15)
    axis.axvline(0, color="gray")
    axis.set(title=title, xlabel="points better than q,v", xlim=(-8, 10), xticks=range(-8, 3, 2), yticks=range(len(places)), yticklabels=places)

# %%
accuracy = [100 * at_best[targets].accuracy.mean() for targets in placements.index]
few, many = (memory("llama-3-8b", LoRA(rank=8, targets=targets), seq=1024) for targets in ("q,v", "all-linear"))

lesson.reveal("points from the worst to the best", max(accuracy) - min(accuracy), "points")
lesson.reveal("placements better than q,v", len({*better} & {*placements.index}))
lesson.reveal("more memory, in percent", 100 * (many.peak / few.peak - 1), "%")
MemoryPanel("llama-3-8b", "LoRA all-linear", seq=1024, longest=False)

# %% claim
from lora_lab.accounting.gpus import card, usable

assert said["q"].outcome == "worse" and not any(said[place].outcome == "better" for place in placements.index.drop("q,v"))
assert lesson.FAST or (said["k"].outcome == "undecided" and said["k"].difference < said["q"].difference)
assert [float(at_best[place].frame.lr.iloc[0]) for place in placements.index].count(0.002) == 5
ours = tried[tried.targets.isin(placements.index)]
collapsed = ours[ours.right == 50].groupby(["lr", "targets"]).size().to_dict()
high = {"all-linear": 3, "q,k,v,o": 3, "q,v": 2, "up,down": 4, "v": 5}
assert collapsed == {(0.004, place): n for place, n in high.items()} | {(0.001, "all-linear"): 1}
assert sum(high.values()) == 17 and round(ours[ours.targets == "all-linear"].groupby("lr").right.mean()[0.001], 1) == 70.8
words = {place: (alone[place].outcome, said[place].outcome) for place in placements.index.drop(["q,v", "q,k,v,o"])}
assert words.pop("q") == ("worse", "worse") and set(words.values()) == {("equivalent", "undecided")} and len(words) == 3
assert lesson.FAST or alone["k"].outcome == "worse"
assert set(placements.adapter_parameters) == {6 * 27_648, 161_280}  # one budget; up,down stays below
assert 1.05 < many.peak / few.peak < 1.08 and few.peak < usable(card("RTX 4090 24 GB")) < many.peak
behind = {place for place in paper.index if paper.WikiSQL["q,v"] - paper.WikiSQL[place] > 1.4}
assert behind == {"q", "k", "q,k"} and paper.WikiSQL.idxmin() == "k"
assert paper.MNLI["q,k"] == paper.MNLI["q,v"] < paper.MNLI["q,k,v,o"] - 0.3

# %% [markdown]
# <details><summary>What we found</summary>
#
# - **None is proven better than `q,v`.** `q` is worse: 3.1<!--place.q--> points below `q,v`, 3.3<!--place.apart--> below the best.
# - **Holm changes four verdicts.** Alone, three of our five are *equivalent* to `q,v`, and `k` is *worse*; as one of six, none of these is certain enough. "Undecided" isn't "equal."
# - **Too high a rate costs more than a bad place.** At 0.004, 17 of 30 runs collapse: none of `q`, all five of `v`. At 0.002, none do; at 0.001, one does, and lowers the mean of `all-linear` to 70.8%. (Best: 0.001 for `v`, else 0.002, in part by luck.)
# - **On GPT-3's WikiSQL, placements with neither `v` nor `o` fall behind**, perhaps because they change where tokens look, not what they take. On MNLI, `q,k` does as well as `q,v`, and `q,k,v,o` is ahead by 0.4.
# - **Adapting fewer matrices saves little memory.** All linear layers train 6.2<!--place.times--> times as many numbers, and need 6<!--place.memory-->% more memory (at 4,096 tokens, 12<!--place.long-->%), too much for a 24 GB card. With checkpointing, they need 1<!--place.checkpointing-->% more, and fit.
#
# Larger models may differ: in [LoRA Without Regret](https://thinkingmachines.ai/blog/lora/), the MLP alone beats attention alone at about equal size.
# </details>
#
# ## Plan a comparison that you haven't seen
# Your name chooses two placements that the picture doesn't compare. **Exercise 2,** in three rounds:
#
# 1. **How many seeds** detect a true gap of 1.5 points four times in five? The cell shows $sd$, the difference's standard deviation over three seeds. Then $n=((1.96+0.84)\,sd/1.5)^2$ (lesson 02; without Holm).
# 2. The **word** of the verdict on our five seeds.
# 3. The **sentence** that you can write (a letter).

# %% exercise
pair = lesson.draw("two placements", "q against q,k,v,o", "v against all", "up,down against q")
checks.check_plan(seeds=..., word=..., sentence=..., pair=pair)

# %% solution
pair = lesson.draw("two placements", "q against q,k,v,o", "v against all", "up,down against q")
checks.check_plan(seeds=9, word="undecided", sentence="c", pair=pair)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Compare places at the same budget**: rank = budget / cost of rank 1. At the same *rank*, all linear layers train 4 to 8 times the numbers of `q,v`.
# 2. **Tune the rate for each place**, then ask for a verdict.
# 3. **Choose places by quality, not by memory.**
#
# Start with all linear layers at rank 8: larger models may need them. *Ours: undecided here and in lesson 16, equivalent in lesson 05 (equal ranks). Published: `q` alone falls behind (Hu et al. 2021, table 5; GPT-3); LLaMA-7B needed adapters everywhere to match full fine-tuning, though not at equal budgets ([QLoRA](https://arxiv.org/abs/2305.14314), figure 2).*
#
# The same in PEFT, at about equal budgets for Llama 3 8B:
# ```python
# config = LoraConfig(r=32, lora_alpha=16, target_modules=["q_proj", "v_proj"])
# # or (another rank, the same alpha: lesson 15):
# config = LoraConfig(r=5, lora_alpha=16, target_modules="all-linear")  # to start, r=8
# model = get_peft_model(model, config)
# model.print_trainable_parameters()  # tune the rate for each
# ```
# </details>

# %%
lesson.receipt()
