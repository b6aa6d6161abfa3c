# %% [markdown]
# # 13 · Where should it go?
#
# "I moved LoRA from `q,v` to all linear layers, and the model got better." But at the same rank, LoRA then trains four to eight times as many numbers. So two things changed: *where* LoRA trains, and *how much*. **With the same budget of trained numbers, which place is best?**
#
# In attention, `q` and `k` decide *where* each token looks, and `v` and `o` decide *what* it takes from there. `up` and `down` are the MLP.
#
# The table shows six places in MiniLM. Each trains 165,888 numbers (`up,down`: 3% fewer). Alpha is twice the rank.

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.paper import table
from lora_lab import ComparePanel, Grid, LoRA, memory, params, sweep, verdicts
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped

lesson.start("13")
stored = from_store(shipped("data/results/sweeps/target_modules.zip"))  # ours: 90 runs, 25 November 2026
placements = stored.frame.groupby("targets")[["rank", "adapter_parameters"]].first()
roles = ["q", "k", "v", "o", "up", "down"]
trains = lambda place: [role in place.split(",") or place == "all-linear" for role in roles]  # noqa: E731
dots = pd.DataFrame({place: np.where(trains(place), "●", "") for place in placements.index}, roles).T
dots.join(placements["rank"]).sort_values("rank", ascending=False)

# %% [markdown]
# ## Three guesses
# We trained these six places on movie reviews, with five seeds at each of three rates. Give ranges that you're 80% sure of.
#
# 1. If each place has its best rate, **how many points lie between the worst and the best place?**
# 2. **How many of the other five places are better than `q,v`**, by more than luck can explain?
# 3. If LoRA on Llama 3 8B moves from `q,v` to all linear layers, it trains 6.2<!--place.times--> times as many numbers. **How much more memory does that take, in percent?** (rank 8, bf16, one text of 1,024 tokens)

# %%
lesson.predict("points from the worst to the best", low=..., high=...)
lesson.predict("places better than q,v", low=..., high=...)
lesson.predict("more memory, in percent", low=..., high=...)

# %% [markdown]
# ## One more place
# The table has no row for `k` alone. In Jupyter, you'll train it here (two minutes). `k (new)` gets only two rates and three seeds.
#
# Then each place gets the rate that's best on the validation set. (For `v`, this is the lowest rate tried, and for `k`, the highest. Other rates may be better.)

# %%
mine, rank = "k", 36  # or q, v, o at 36; up or down at 14
rates, seeds = ([2e-3], [0]) if lesson.FAST else ([1e-3, 2e-3], range(3))

print(f"{params('minilm', LoRA(rank, targets=mine)).trainable:,} of 165,888 numbers in the adapter")
grid = Grid(rank, "2rank", rates, seeds, mine)  # alpha = 2 * rank
own = sweep(grid, lesson.workplace("13"), steps=lesson.steps(200, 12), batch=8, validations=1)


def tuned(runs):
    accuracy = runs.frame.groupby("lr").validation_accuracy.mean()
    return runs.at(lr=accuracy.idxmax())


at_best = {place: tuned(stored.at(targets=place)) for place in ["q,v", "q", "v", "q,k,v,o", "up,down", "all-linear"]}
at_best[f"{mine} (new)"] = tuned(own)
accuracy = [100 * at_best[targets].accuracy.mean() for targets in placements.index]
said = verdicts(at_best, against="q,v", margin=0.015)  # as one of six

# %% [markdown]
# ## Why not one rate for all?
# **If we had trained only at the rate 0.004, which of the six places would have won?**

# %% alt="Mean percent right on validation of six places at three shared rates. At 0.001, one dot lies at 50. At 0.002, q has the lowest mean. At 0.004, all other places fall far below q, and v falls to guessing."
shared = 100 * stored.frame.pivot_table(index="lr", columns="targets", values="validation_accuracy")
plt.figure(figsize=(4.8, 3.8), layout="constrained")
for place in shared:
    color = {"q": "C1", "v": "C0"}.get(place, "#777777")
    plt.plot(shared.index, shared[place], "o-", color=color, linewidth=1 + 2 * (place in "qv"))
    plt.text(0.0042, shared[place][0.004], place, color=color, va="center")
    runs = stored.frame[stored.frame.targets == place]
    plt.plot(runs.lr, 100 * runs.validation_accuracy, ".", color=color, alpha=0.3)
plt.gca().set(xscale="log", xlabel="one rate for all places", ylabel="percent right on validation", xlim=(0.00095, 0.0056))
plt.xticks(shared.index, [f"{rate:g}" for rate in shared.index]), plt.minorticks_off()
plt.show()
lesson.reveal("points from the worst to the best", max(accuracy) - min(accuracy), "points")

# %% [markdown]
# <details><summary>What we found</summary>
#
# **At 0.004, `q` wins, and `v` comes last.** At this rate, 17 of 30 runs *collapse* (lesson 03). None of them is on `q`, but five are on `v`.
#
# Even at 0.001, one run on all linear layers collapsed (the dot at 50). It lowers the mean from 76.0 to 70.8.
#
# With the best rate for each place, the worst is only 3.3<!--place.apart--> points below the best. **So a rate that's too high costs more than a bad place.**
# </details>
#
# ## Find the rule
# Each row is a place. Its trained matrices are colored, and the orange ones decide *where* tokens look. Each mark shows how many points the place is ahead of `q,v`, in our runs or in the LoRA paper (GPT-3, two tasks, also at equal budgets). Only the paper trained `o` and `q,k`.
#
# **In attention, some places do worse than `q,v`. Which matrices do they leave out?**

# %% alt="Nine rows of six dots, for the matrices q, k, v, o, up and down; the matrices that train are colored. Beside each row is its lead over q and v in three studies. In the three rows with only q or k, MiniLM on reviews and GPT-3 on WikiSQL are 2 to 4 points behind, and GPT-3 on MNLI at most half a point. In all other rows, all three studies are near zero."
studies = {"MiniLM, reviews": {place.split()[0]: (100 * one.difference, 50 * (one.high95 - one.low95)) for place, one in said.items()}}
paper = table("table5").frame().set_index("weights").rename(index=lambda name: name.replace("W", ""))
for task, luck in ("WikiSQL", 1.4), ("MNLI", 0.3):  # 1.96 x √2 x the usual spread
    studies[f"GPT-3, {task}"] = {place: (gap, luck) for place, gap in (paper[task] - paper[task]["q,v"]).drop("q,v").items()}
places = ["all-linear", "up,down", "q,k,v,o", "q,v", "o", "v", "q,k", "q", "k"]
figure, (left, right) = plt.subplots(1, 2, figsize=(4.8, 5.5), sharey=True, width_ratios=[2, 3], layout="constrained")
colors = np.where([trains(place) for place in places], ["C1"] * 2 + ["C0"] * 4, "#DDDDDD")
left.scatter(*np.meshgrid(range(6), range(9)), s=70, c=colors.ravel())
left.set(yticks=range(9), yticklabels=places, xlim=(-0.6, 5.6), title="what trains")
for (name, gaps), mark, up in zip(studies.items(), ("ks", "C2o", "C3d"), (0.22, 0, -0.22)):
    x, half = np.array([*gaps.values()]).T
    right.errorbar(x, [places.index(place) + up for place in gaps], xerr=half, fmt=mark, label=name)
left.set_xticks(range(6), roles, rotation=90), right.tick_params(left=False), right.axvline(0, color="gray")
plt.title("points ahead of q,v"), plt.figlegend(loc="outside lower center", title="with 95% intervals", ncols=2)
plt.show()

# %% [markdown]
# <details><summary>What we found</summary>
#
# **In attention, include `v` or `o`.** In our runs, `q` alone is 3.1<!--place.q--> points below `q,v`. For GPT-3 on WikiSQL, `q`, `k` and `q,k` are behind, too. On MNLI, no place differs by more than half a point.
# </details>
#
# ## Is it luck?
# In the panel's lower picture, `k (new)` is even further behind than `q`, and the thin intervals of both lie below 0. Each interval is for a single test, but the words at the right are for all six together. **Why is only `q` called worse?**


# %% hide-input
from lora_lab.experiments.margins import packed


def entry(place, runs):  # as `lora-lab compare --json` writes it
    row, method = runs.frame.iloc[0], {"method": "lora", "label": place, "settings": {"targets": place.split()[0].split(",")}}
    method |= {"lr": row.lr, "trainable": int(row.adapter_parameters), "head": int(row.head_parameters)}
    return method | {"accuracy": {"each": runs.accuracy.tolist()}, "answers": packed(runs.scores)}


better = [place for place in placements.index if place != "q,v" and said[place].outcome == "better"]
few, many = (memory("llama-3-8b", LoRA(rank=8, targets=targets), seq=1024).peak for targets in ("q,v", "all-linear"))
lesson.reveal("places better than q,v", len(better))
lesson.reveal("more memory, in percent", round(100 * (many / few - 1)), "%")
about = {"model": "minilm", "task": "rt", "steps": 200, "batch": 8, "metric": "accuracy", "margin": 0.015}
untried = ["lora:rank=36:targets=o", "lora:rank=18:targets=q+k"]  # in Jupyter, you can train these
panel = ComparePanel(reference=about | {"methods": [entry(*one) for one in at_best.items()]}, methods=untried)
panel.method = "q"
panel

# %% claim
from lora_lab import verdict

alone = {place: verdict(at_best[place], at_best["q,v"], margin=0.015) for place in said}
assert said["q"].outcome == "worse" and better == []
assert lesson.FAST or (said["k (new)"].outcome == "undecided" and said["k (new)"].difference < said["q"].difference)
assert (shared.loc[0.002].idxmin(), shared.loc[0.004].idxmax(), shared.loc[0.004].idxmin()) == ("q", "q", "v")
collapsed = stored.frame[stored.frame.validation_accuracy == 0.5].groupby(["lr", "targets"]).size().to_dict()
(lost,) = (run for run in stored.at(targets="all-linear", lr=0.001).runs if run.recipe.seed == 4)
curve = lost.history["loss"]
assert min(curve) == curve[71] and round(curve[71], 2) == 0.16 and max(curve[72:76]) > 1 and 0.66 < min(curve[90:]) < max(curve[90:]) < 0.74
means = 100 * stored.at(targets="all-linear", lr=0.001).frame.set_index("seed").validation_accuracy
assert (round(means.mean(), 1), round(means.drop(4).mean(), 1)) == (70.8, 76.0)
assert {place: runs.frame.lr.iloc[0] for place, runs in at_best.items() if place in ("v", "k (new)")} == {"v": 0.001, "k (new)": 0.002}
high = {"all-linear": 3, "q,k,v,o": 3, "q,v": 2, "up,down": 4, "v": 5}
assert collapsed == {(0.004, place): n for place, n in high.items()} | {(0.001, "all-linear"): 1}
assert sum(high.values()) == 17 and 0 < accuracy[0] - accuracy[-1] < 1 and [*placements.index[[0, -1]]] == ["all-linear", "v"]
assert set(stored.frame.alpha / stored.frame["rank"]) == {2}
words = {place: (alone[place].outcome, said[place].outcome) for place in placements.index.drop(["q,v", "q,k,v,o"])}
assert words.pop("q") == ("worse", "worse") and set(words.values()) == {("equivalent", "undecided")} and len(words) == 3
assert lesson.FAST or (alone["k (new)"].outcome == "worse" and alone["k (new)"].high95 < 0)
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
# **Our runs show that `q` is worse than `q,v`, but not that any place is better.** If studies make six tests each, about one study in four finds a difference by luck alone. So each of the six needs stronger evidence (**Holm's correction**). `q` has it. `k`'s interval ends just below 0: that's enough for a single test, but not for one of six.
#
# **More matrices take only a little more memory.** For Llama 3 8B, all linear layers take 6<!--place.memory-->% more memory than `q,v`.
# </details>
#
# ## One budget, many ranks
# **Exercise 1: find ranks for a larger model.** With the budget of rank 32 on `q,v`, what's the highest rank on `q,k,v,o`? And on all linear layers? At rank 1, a matrix with $n$ inputs and $m$ outputs costs $n + m$ numbers.

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
# **Exercise 2.** You compare two places, which depend on your name.
#
# 1. **How many seeds** do you need to detect a true gap of 1.5 points with 80% power? You get the standard deviation of the difference over three seeds. (As in lesson 02, the gap must be 2.8 standard errors.)
# 2. Then you'll see our five seeds' results. At a margin of 1.5 points, which **word** is the verdict, and which **sentence** can you write?

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
# 1. **In attention, include `v` or `o`.** We can't say which of the other places is best, so start with all linear layers (rank 8, alpha 16).
# 2. **Compare places at the same budget**: rank = budget / cost of rank 1.
# 3. **Tune the rate for each place**, then look at the verdict.
#
# *Ours: in single tests, `v`, `up,down` and all linear layers are equivalent to `q,v` within 1.5 points; if we count all six tests, they're undecided. Published: `q` alone falls behind (Hu et al. 2021, table 5). With larger models and about equal budgets, the MLP alone beats attention alone ([LoRA Without Regret](https://thinkingmachines.ai/blog/lora/)).*
#
# The same in PEFT, at about equal budgets for Llama 3 8B:
# ```python
# config = LoraConfig(r=32, lora_alpha=64, target_modules=["q_proj", "v_proj"])
# config = LoraConfig(r=5, lora_alpha=10, target_modules="all-linear")
# model = get_peft_model(model, config)
# ```
# </details>

# %%
lesson.receipt()
