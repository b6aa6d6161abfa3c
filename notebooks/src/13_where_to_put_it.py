# %% [markdown]
# # 13 · Where to put it?
#
# "I moved LoRA from `q,v` to all linear layers, and the model got better." But at the same rank, all linear layers train four to eight times as many numbers as `q,v`. Two things changed: *where*, and *how much*. **With the same budget of trained numbers, which place is best?**
#
# In attention, `q` and `k` decide *where* each token looks; `v` and `o` decide *what* it takes from there. The MLP has the other two matrices: `up` and `down`.
#
# Each row of the table spends the same budget in a different place of MiniLM: 27,648 numbers in each of its six layers (3% fewer for `up,down`).

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.paper import table
from lora_lab import ComparePanel, Grid, LoRA, memory, params, sweep, verdicts
from lora_lab.experiments.margins import packed
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped

lesson.start("13")
stored = from_store(shipped("data/results/sweeps/target_modules.zip"))  # ours: 90 runs, 25 November 2026
placements = stored.frame.groupby("targets")[["rank", "adapter_parameters"]].first()
placements.rename_axis("placement").set_axis(["rank", "numbers trained"], axis=1)

# %% [markdown]
# ## Three guesses
# We trained these six placements on movie reviews: five seeds each, at rates 0.001, 0.002 and 0.004. Be 80% sure.
#
# 1. **How many points lie between the worst and the best placement**, each at its best rate?
# 2. **How many of the other five are better than `q,v`**, beyond luck?
# 3. Llama 3 8B at rank 8 trains 6.2<!--place.times--> times as many numbers on all linear layers as on `q,v`. **By what percentage does this increase its memory use?** (bf16, one text of 1,024 tokens.)

# %%
lesson.predict("points from the worst to the best", low=..., high=...)
lesson.predict("placements better than q,v", low=..., high=...)
lesson.predict("more memory, in percent", low=..., high=...)

# %% [markdown]
# ## Train one, then tune each
# In the LoRA paper, the worst place on GPT-3 was `k` alone. Train it here: two rates, three seeds, two minutes.
#
# One shared rate could favor some places, so each place gets its own. The plot shows our 90 runs and your new ones; at ×5, five runs *collapsed* to guessing. **Which rate would you give each row?** We take the rate with the best mean. (For `v`, that's the lowest rate tried; for `k`, the highest. Better rates may lie beyond.)

# %%
mine, rank = "k", 36  # or q, v, o at 36; up or down at 14
rates, seeds = ([2e-3], [0]) if lesson.FAST else ([1e-3, 2e-3], range(3))

print(f"{params('minilm', LoRA(rank, targets=mine)).trainable:,} of 165,888 numbers")
grid = Grid(rank, "2rank", rates, seeds, mine)  # alpha = 2 * rank
own = sweep(grid, lesson.workplace("13"), steps=lesson.steps(200, 12), batch=8, validations=1)

# %% alt="Percent right on validation of every run, a row for each placement and a color for each rate. At 0.004 many runs collapse to guessing; at 0.001 and 0.002 almost none."
plt.figure(figsize=(8, 5.5), layout="constrained")
tried = pd.concat([stored.frame, own.frame.assign(targets=f"{mine} (new)")]).eval("right = 100 * validation_accuracy")
rows = ["all-linear", "up,down", "q,k,v,o", "q,v", "v", "q", f"{mine} (new)"]
for color, (lr, runs), up in zip(("C1", "C0", "black"), tried.groupby("lr"), (0.26, 0, -0.26)):
    for row, place in enumerate(rows):
        right = runs.right[runs.targets == place]
        plt.plot(right[right > 50], [row + up] * sum(right > 50), "o", color=color, alpha=0.7)
        if any(right == 50):
            plt.text(49.5, row + up, f"×{sum(right == 50)}", color=color, ha="right", va="center")
        plt.plot([right.mean()] * 2, [row + up - 0.13, row + up + 0.13], color=color, label=f"rate {lr:g}" * (row == 0))
plt.yticks(range(len(rows)), rows)
title = "Each dot is a run; at ×, runs collapsed to guessing"
plt.gca().set(title=title, xlabel="percent right on validation; a vertical line is a mean", xlim=(46.5, 81))
plt.figlegend(loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# ## One budget, seven places
# Each card is a place at its best rate; the blue parts train. **Which cards fall behind? Guess before you look down.** We use the 2,000 test sentences, and a margin fixed beforehand: 1.5 points.
#
# Each of the six tests has a 5% chance of a false alarm, so about one in four such studies has at least one. **Holm's correction** therefore asks for stronger evidence in each test. **Click each interval: which verdicts does the correction change?**


# %% hide-input
def tuned(runs):
    accuracy = runs.frame.groupby("lr").validation_accuracy.mean()
    return runs.at(lr=accuracy.idxmax())


def entry(place, runs):  # as `lora-lab compare --json` writes it
    row, method = runs.frame.iloc[0], {"method": "lora", "label": place, "settings": {"targets": place.split()[0].split(",")}}
    method |= {"lr": row.lr, "trainable": int(row.adapter_parameters), "head": int(row.head_parameters)}
    return method | {"accuracy": {"each": runs.accuracy.tolist()}, "answers": packed(runs.scores)}


at_best = {place: tuned(stored.at(targets=place)) for place in ["q,v", "q", "v", "q,k,v,o", "up,down", "all-linear"]}
at_best[f"{mine} (new)"] = tuned(own)
about = {"model": "minilm", "task": "rt", "steps": 200, "batch": 8, "metric": "accuracy", "margin": 0.015}
untried = ["lora:rank=36:targets=o", "lora:rank=18:targets=q+k"]  # in Jupyter, you can train these
panel = ComparePanel(reference=about | {"methods": [entry(*one) for one in at_best.items()]}, methods=untried)
panel.method = "all-linear"
said = verdicts(at_best, against="q,v", margin=0.015)  # as one of six
panel

# %% [markdown]
# ## The same on GPT-3?
# The LoRA paper, too, compares equal budgets: on database queries (WikiSQL), and on whether one sentence follows from another (MNLI). GPT-3's intervals (±1.4 and ±0.3 points) come from the spread over seeds that the paper reports. **Does `q` alone fall behind on both?**

# %% alt="How many points better than q and v each placement is, in three studies. Orange, with q or k but neither v nor o: MiniLM on reviews and GPT-3 on WikiSQL are 2 to 4 points behind. Blue, every other placement: all three are near zero."
studies = {"MiniLM, reviews": {place.split()[0]: (100 * one.difference, 50 * (one.high95 - one.low95)) for place, one in said.items()}}
paper = table("table5").frame().set_index("weights").rename(index=lambda name: name.replace("W", ""))
for task, luck in ("WikiSQL", 1.4), ("MNLI", 0.3):  # 1.96 x √2 x the usual spread of seeds
    studies[f"GPT-3, {task}"] = {place: (gap, luck) for place, gap in (paper[task] - paper[task]["q,v"]).drop("q,v").items()}
places = ["all-linear", "up,down", "q,k,v,o", "o", "v", "q,k", "q", "k"]
plt.figure(figsize=(8, 5), layout="constrained")
plt.axvline(0, color="gray")
for (name, gaps), mark, up in zip(studies.items(), "sod", (0.22, 0, -0.22)):
    plt.plot([], [], f"k{mark}", label=name)
    for place, (gap, half) in gaps.items():
        plt.errorbar(gap, places.index(place) + up, xerr=half, fmt=mark, color="C1" if place in ("q", "k", "q,k") else "C0")
title = "Attention without v and o (orange): two tasks of three lose 2 to 4 points"
plt.gca().set(title=title, xlabel="points better than q,v, with 95% intervals", yticks=range(8), yticklabels=places, ylim=(-0.5, 7.5))
plt.figlegend(loc="outside lower center", ncols=3)
plt.show()

# %% hide-input
accuracy = [100 * at_best[targets].accuracy.mean() for targets in placements.index]
better = [place for place in placements.index if place != "q,v" and said[place].outcome == "better"]
few, many = (memory("llama-3-8b", LoRA(rank=8, targets=targets), seq=1024).peak for targets in ("q,v", "all-linear"))
lesson.reveal("points from the worst to the best", max(accuracy) - min(accuracy), "points")
lesson.reveal("placements better than q,v", len(better))
lesson.reveal("more memory, in percent", round(100 * (many / few - 1)), "%")

# %% claim
from lora_lab import verdict

alone = {place: verdict(at_best[place], at_best["q,v"], margin=0.015) for place in said}
assert said["q"].outcome == "worse" and better == []
assert lesson.FAST or (said["k (new)"].outcome == "undecided" and said["k (new)"].difference < said["q"].difference)
ours = tried[tried.targets.isin(placements.index)]
collapsed = ours[ours.right == 50].groupby(["lr", "targets"]).size().to_dict()
high = {"all-linear": 3, "q,k,v,o": 3, "q,v": 2, "up,down": 4, "v": 5}
assert collapsed == {(0.004, place): n for place, n in high.items()} | {(0.001, "all-linear"): 1}
assert sum(high.values()) == 17 and 0 < accuracy[0] - accuracy[-1] < 1 and [*placements.index[[0, -1]]] == ["all-linear", "v"]
words = {place: (alone[place].outcome, said[place].outcome) for place in placements.index.drop(["q,v", "q,k,v,o"])}
assert words.pop("q") == ("worse", "worse") and set(words.values()) == {("equivalent", "undecided")} and len(words) == 3
assert lesson.FAST or alone["k (new)"].outcome == "worse"
letters = {"b": "better", "w": "worse", "e": "equivalent", "u": "undecided"}  # the panel says the same
at, found = panel.stored["margins"].index(0.015), panel.stored["against"]["q,v"]
assert {place: letters[one["outcomes"][at]] for place, one in found.items()} == {place: one.outcome for place, one in alone.items()}
assert {place: letters[one["together"][at]] for place, one in found.items()} == {place: one.outcome for place, one in said.items()}
assert set(placements.adapter_parameters) == {6 * 27_648, 161_280}  # one budget; up,down stays below
assert 1.05 < many / few < 1.08
behind = {place for place in paper.index if paper.WikiSQL["q,v"] - paper.WikiSQL[place] > 1.4}
assert behind == {"q", "k", "q,k"} and paper.WikiSQL.idxmin() == "k"
assert paper.MNLI["q"] == paper.MNLI["v"]
lost = [-studies[name][place][0] for name in studies if "MNLI" not in name for place in ("q", "k", "q,k") if place in studies[name]]
assert lesson.FAST or (len(lost) == 5 and min(lost) >= 2 and round(max(lost)) == 4)
near = [abs(gap) for gaps in studies.values() for place, (gap, _) in gaps.items() if place not in ("q", "k", "q,k")]
assert max(near) < 0.75

# %% [markdown]
# <details><summary>What we found</summary>
#
# - **In attention, include `v` or `o`.** `q` alone is worse: 3.1<!--place.q--> points below `q,v`, and 3.3<!--place.apart--> below the best. No place is proven better than `q,v`. On WikiSQL, GPT-3's placements without `v` and `o` fall behind, too, perhaps because they change only where tokens look. On MNLI, `q` ties with `v`.
# - **Holm's correction changes four verdicts.** Alone, three of our five placements are *equivalent* to `q,v`, and `k` is *worse*. As one of six, all four are *undecided*.
# - **A rate that's too high costs more than a bad place.** At rate 0.004, 17 of 30 runs collapse: all five on `v`, and none on `q`. (Here $\alpha=2r$, from 8 for `all-linear` to 72 for `v` and `q`. The higher $\alpha$ lowers the best rate: lesson 15.)
# - **Adapting fewer matrices saves little memory.** On Llama 3 8B, adapting all linear layers trains 6.2<!--place.times--> times as many numbers as `q,v`, but takes only 6<!--place.memory-->% more memory. With checkpointing: 1<!--place.checkpointing-->%.
#
# Larger models may differ: in [LoRA Without Regret](https://thinkingmachines.ai/blog/lora/), the MLP alone beats attention alone at about equal budgets.
# </details>
#
# ## One budget, many ranks
# **Exercise 1: find ranks for a larger model** (chosen by your name). The budget is what rank 32 on `q,v` trains. What's the highest rank within this budget on attention, `q,k,v,o`? And on all linear layers (with `gate`)? A matrix with $n$ inputs and $m$ outputs costs $n + m$ numbers per rank.

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
# ## Plan a comparison
# You compare two placements, which depend on your name. **Exercise 2**:
#
# 1. **How many seeds** do you need to show a true gap of 1.5 points with 80% power? The cell shows $sd$, the standard deviation of the difference over three seeds. Then $n=((1.96+0.84)\,sd/1.5)^2$.
# 2. When your number is right, the cell shows the results of five seeds. Which **word** is the verdict on these results?
# 3. The cell also shows sentences, each with a letter. Which **sentence** do the results support?

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
# 1. **Compare places at the same budget**: rank = budget / cost of rank 1.
# 2. **Tune the rate for each place**, then ask for a verdict.
# 3. **In attention, include `v` or `o`.** Choose by quality, not memory.
#
# Start with all linear layers at rank 8: larger models may need them. *Ours: for all linear layers against `q,v`, the verdict is undecided here and in lesson 16, and equivalent in lesson 05 (equal ranks). Published: `q` alone falls behind (Hu et al. 2021, table 5); LLaMA-7B needed adapters everywhere to match full fine-tuning (unequal budgets; [QLoRA](https://arxiv.org/abs/2305.14314), figure 2).*
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
