# %% [markdown]
# # 13 · Where should it go?
#
# "I moved LoRA from `q,v` to all linear layers, and the model got better." But at the same rank, LoRA trains several times as many numbers. Two things changed: *where* LoRA trains, and *how much*. **With the same budget of trained numbers, which place is best?**
#
# In attention, `q` and `k` decide *where* each token looks (orange below). `v` and `o` decide *what* it takes from there (blue). The MLP (`up` and `down`) changes tokens, too (blue). At a buffet, `q` and `k` choose the dish; `v` and `o` fill the plate.
#
# Below, each row is a place in MiniLM, trained on movie reviews with five seeds. Each trains 165,888 numbers (`up,down`: 3% fewer), at ranks 36 to 4. Alpha (twice the rank) differs, so each place uses the best of three rates (lesson 03): 0.001, 0.002 or 0.004. **Which place falls behind `q,v`, and by how many points?** Give a range (80% sure).

# %% hide-input
import numpy as np
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_lab import Grid, LoRA, params, sweep, verdict, verdicts
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped

lesson.start("13")
stored = from_store(shipped("data/results/sweeps/target_modules.zip"))  # ours: 90 runs, 25 November 2026
roles = ["q", "k", "v", "o", "up", "down"]


def tuned(runs):
    accuracy = runs.frame.groupby("lr").validation_accuracy.mean()
    return runs.at(lr=accuracy.idxmax())


# %% hide-input alt="Six rows of six dots, for the matrices q, k, v, o, up and down; the matrices that train are orange (q and k) or blue (the others). The rows are q; v; q,v; q,k,v,o; up,down; and all-linear."
def draw(places, studies, height):  # {study: {place: (points behind q,v, half-width of the interval)}}
    _, (left, right) = plt.subplots(1, 2, figsize=(4.8, height), sharey=True, width_ratios=[2, 3], layout="constrained")
    trains = [[role in place.split(",") or place == "all-linear" for role in roles] for place in places]
    colors = np.where(trains, ["C1"] * 2 + ["C0"] * 4, "#DDDDDD").ravel()
    left.scatter(*np.meshgrid(range(6), range(len(places))), s=90, c=colors, zorder=2)
    left.set(xlim=(-0.6, 5.6), ylim=(-0.6, len(places) - 0.4), title="what trains")
    left.set_yticks(range(len(places)), places), left.set_xticks(range(6), [*roles[:5], "\ndown"])
    for (study, gaps), mark, up in zip(studies.items(), ("ks", "C2o", "C3d"), (0.24, 0, -0.24)):
        x, half = zip(*gaps.values())
        y = [places.index(place) + up * (len(studies) > 1) for place in gaps]
        right.errorbar(x, y, xerr=half, fmt=mark, label=study)
    right.axvline(0, color="gray"), right.set(title="points behind q,v", xticks=[0, 3, 6], visible=bool(studies))
    plt.figlegend(*right.get_legend_handles_labels(), loc="outside lower center", title="with 95% intervals" * bool(studies), ncols=2)


places = ["all-linear", "up,down", "q,k,v,o", "q,v", "v", "q"]
draw(places, {}, height=3.4)  # before your guess: only what trains


# %%
lesson.predict("points by which the worst place trails q,v", low=..., high=...)

# %% alt="Six rows of six dots, for the matrices q, k, v, o, up and down; the matrices that train are orange (q and k) or blue (the others). Beside each row is how far it is behind q and v, with a 95% interval. q is 3 points behind. The intervals of the other four places contain zero."
at_best = {place: tuned(stored.at(targets=place)) for place in places}
said = verdicts(at_best, against="q,v", margin=0.015)
behind = lambda one: (-100 * one.difference, 50 * (one.high95 - one.low95))  # noqa: E731
ours = {place: behind(one) for place, one in said.items()} | {"q,v": (0, 0)}
draw(places, {"MiniLM, reviews": ours}, height=4)
lesson.reveal("points by which the worst place trails q,v", max(gap for gap, _ in ours.values()), "points")

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Only `q` is shown to fall behind `q,v` (3.1<!--place.q--> points), and no place to be better.** So in the opening story, *how much* may have helped, not *where*. (Five comparisons give luck five chances. `q` is behind even with **Holm's correction** for this.)
# </details>
#
# ## Why does the worst place fall behind?
# Two possible reasons:
#
# - *It has only one matrix.*
# - *It has no blue dot:* it changes where tokens look, but not what they take.
#
# **Which reason does the picture already rule out?** Use the other reason to predict how well two new places work: `k` and `o`. The LoRA paper trained them in GPT-3, on two tasks. **On the first task, WikiSQL, how many points is each place behind `q,v`?** (Negative means ahead.)
#
# In Jupyter, you also train `k` in MiniLM (a minute, three seeds). **Does your reason hold in all three studies?**

# %%
lesson.predict("points by which k trails q,v", low=..., high=...)
lesson.predict("points by which o trails q,v", low=..., high=...)

# %%
from lora_course.paper import table

rates, seeds = ([2e-3], [0]) if lesson.FAST else ([1e-3, 2e-3], range(3))
grid = Grid(36, "2rank", rates, seeds, "k")  # rank 36, alpha 72
own = sweep(grid, lesson.workplace("13"), steps=lesson.steps(200, 12), batch=8, validations=1)
k = verdict(tuned(own), at_best["q,v"], margin=0.015)

# %% alt="Nine rows of six dots, for the matrices q, k, v, o, up and down; the matrices that train are orange (q and k) or blue (the others). Beside each row is how far it is behind q and v in three studies. In the three rows without a blue dot (k, q and q,k), MiniLM on reviews and GPT-3 on WikiSQL are 2 to 4 points behind. In all other rows, they are near zero. GPT-3 on MNLI is within half a point of zero in all rows, and q,k is at zero."
paper = table("table5").frame().set_index("weights").rename(index=lambda name: name.replace("W", ""))
studies = {"MiniLM, reviews": {"k": behind(k), **ours}}
for task, spread in ("WikiSQL", 0.5), ("MNLI", 0.1):  # the paper's usual spread between runs
    half = 1.96 * 2**0.5 * spread
    studies[f"GPT-3, {task}"] = {place: (paper[task]["q,v"] - score, half * (place != "q,v")) for place, score in paper[task].items()}
draw(["all-linear", "up,down", "q,k,v,o", "q,v", "o", "v", "q,k", "q", "k"], studies, height=5.5)
[side.axhspan(5.5, 8.5, color="C1", alpha=0.1, linewidth=0) for side in plt.gcf().axes]
plt.text(8, 5.6, "no blue dot", color="C1", ha="right")
lesson.reveal("points by which k trails q,v", studies["GPT-3, WikiSQL"]["k"][0], "points")
lesson.reveal("points by which o trails q,v", studies["GPT-3, WikiSQL"]["o"][0], "points")

# %% [markdown]
# <details><summary>What we found</summary>
#
# **On reviews and WikiSQL, only rows without a blue dot fall behind.** `v` and `o` are single matrices, but keep up. `q,k` has two, but falls behind. `q` and `k` only choose dishes; they put nothing on the plate.
#
# **On MNLI, the paper's second task, this rule fails:** `k` is behind, but `q,k` isn't, and `v` is as far behind as `q`. (GPT-3's intervals come from the paper's usual spread between runs.)
#
# **If in doubt, choose all linear layers:** they contain every blue dot. On Llama 3 8B at the same rank, they train six times as many numbers as `q,v`, but take only 6<!--place.memory-->% more memory.
# </details>
#
# ## How could the worst place win?
# A colleague repeats our experiment with the same places, budget and seeds. To be fair, she gives all places the same rate. In her table, our worst place is the best. **Which of our three rates did she choose, and why does this place win there?** Guess, then drag the slider.

# %% hide-input
shared = 100 * stored.frame.pivot_table(index="lr", columns="targets", values="validation_accuracy")


def table_at(rate):  # of five seeds
    figure, axes = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
    for y, place in enumerate(places):
        runs, color = stored.at(targets=place, lr=rate).frame, "C1" if place == "q" else "C0"
        axes.plot(100 * runs.validation_accuracy, 5 * [y], "o", color=color, fillstyle="none", markersize=8)
        if (none := sum(runs.validation_accuracy == 0.5)) > 1:
            axes.text(52.4, y, f"{none} runs", va="center", fontsize=9)
        axes.plot(2 * [shared[place][rate]], [y - 0.35, y + 0.35], color=color, linewidth=4)
    axes.set_yticks(range(6), [f"{place}\nrank {stored.at(targets=place).frame['rank'].iloc[0]}" for place in places])
    axes.set(xlabel="% right on validation (bar: mean; 50: guessing)", xlim=(48, 81))
    means = ", ".join(f"{place} {shared[place][rate]:.0f}" for place in places)
    return figure, f"Five seeds of each place at rate {rate}, in percent right. Means: {means}."


lesson.slider("one rate for all places", {f"{rate}": table_at(rate) for rate in shared.index})

# %% claim
from lora_course.checks.comparing import defense
from lora_lab import memory

place_at = {place: runs.frame.lr.iloc[0] for place, runs in {**at_best, "k": tuned(own)}.items()}
assert (place_at["v"], place_at["k"]) == (0.001, 0.002)
assert {*stored.frame.lr} == {0.001, 0.002, 0.004} and [*map(len, at_best.values())] == [5] * 6
assert {place: one.outcome for place, one in said.items()} == {place: "worse" if place == "q" else "undecided" for place in said}
assert [place for place, (gap, half) in ours.items() if abs(gap) > half] == ["q"] and ours["q"][0] > ours["q"][1]
assert defense("q against q,k,v,o", 1.5).word == "undecided"
assert lesson.FAST or (k.outcome == "worse" and k.high95 < 0)
assert {*stored.frame.head_parameters} == {770} and {*stored.frame["rank"]} <= {*range(4, 37)} and stored.frame["rank"].max() == 36
assert {*stored.frame.adapter_parameters} == {6 * 27_648, 161_280} and {*stored.frame.alpha / stored.frame["rank"]} == {2}
assert round(-said["q"].difference * 100) == 3 and round(shared["v"].max() - shared["v"][0.004]) == 26
assert [shared.loc[rate].idxmin() for rate in (0.001, 0.002)] == ["q", "q"] == 2 * [shared.loc[0.004].idxmax()] and shared.loc[0.004].idxmin() == "v"
collapsed = stored.frame[(stored.frame.validation_accuracy == 0.5) & (stored.frame.lr == 0.004)].groupby("targets").size().to_dict()
early = stored.frame[(stored.frame.validation_accuracy == 0.5) & (stored.frame.lr == 0.001)]
assert [*early.targets] == ["all-linear"] and place_at["all-linear"] == 0.002 and {*early.alpha} == {8}
assert collapsed == {"all-linear": 3, "q,k,v,o": 3, "q,v": 2, "up,down": 4, "v": 5} and sum(collapsed.values()) == 17
few, many = (memory("llama-3-8b", LoRA(rank=8, targets=targets), seq=1024).peak for targets in ("q,v", "all-linear"))
assert 1.05 < many / few < 1.08
sql, mnli = ({place: round(gap, 1) for place, (gap, _) in studies[f"GPT-3, {task}"].items()} for task in ("WikiSQL", "MNLI"))
assert {place for place, gap in sql.items() if gap > 1.4} == {"q", "k", "q,k"} and [sql[place] for place in ("k", "q,k", "o")] == [3.7, 2.3, 0.5]
assert max(map(abs, mnli.values())) == 0.5 and (mnli["k"], mnli["q,k"], mnli["o"]) == (0.5, 0, 0) and mnli["v"] == mnli["q"] > 0
lost = [studies[name][place][0] for name in studies if "MNLI" not in name for place in ("q", "k", "q,k") if place in studies[name]]
assert lesson.FAST or (len(lost) == 5 and min(lost) >= 2 and round(max(lost)) == 4)
near = [abs(gap) for gaps in studies.values() for place, (gap, _) in gaps.items() if place not in ("q", "k", "q,k")]
assert max(near) < 0.75
fair = [params("llama-3-8b", LoRA(rank=rank, targets=targets)).trainable for rank, targets in ((49, "q,v"), (8, "all-linear"), (50, "q,v"))]
assert fair == sorted(fair)
eight = [params("llama-3-8b", LoRA(rank=8, targets=targets)).trainable for targets in ("q,v", "all-linear")]
assert round(eight[1] / eight[0]) == 6 and "95% interval -5.14 to 0.22" in defense("q against q,k,v,o", 1.5).seen
assert f"{2e-4 * (25 / 10) / (98 / 16) ** 0.5:.1g}" == "0.0002"  # the rival

# %% [markdown]
# <details><summary>What we found</summary>
#
# **She chose 0.004.** At this rate, 17 of 30 runs *collapse* (lesson 03), but none on `q`. So `q` wins because it survives this rate, not because it's good. At the other two rates, `q` is last. (At 0.001, one run of `all-linear` learns, then collapses.)
#
# **A bad place costs 3 points, but a bad rate costs 26** (on `v`). So tune the rate before you compare places.
# </details>
#
# ## Make it fair
# A paper finds: at rank 32, more matrices beat `q,v`.
#
# **Exercise 1: repair this comparison.** With the budget of rank 32 on `q,v`, what's the highest rank on `q,k,v,o` (`attention`)? And on all linear layers (`everything`)? At rank 1, a matrix with $n$ inputs and $m$ outputs costs $n + m$ numbers: count with `params`.

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
# ## Would you claim it?
# **Exercise 2: compare two places.** (Lesson 05's words compare the 95% interval with 0, and the 90% interval with the margin.)
#
# 1. **How many seeds** do you need to detect a true gap of 1.5 points with 80% power? You get the standard deviation of the difference, measured on three seeds. (As in lesson 02, the gap must be 2.8 standard errors.)
# 2. Then you'll see our five seeds' results. At a margin of 1.5 points, which **word** is the verdict, and which **sentence** may you write?

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
# 1. **In attention, include `v` or `o`.** They change *what* a token takes from others; `q` and `k` change only *where* it looks.
# 2. **If in doubt, start with all linear layers**, rank 8, alpha 16, and ten times full fine-tuning's best rate (lesson 15). If you don't know this rate, use LoRA's rate from lesson 03's table: 0.0002 for a 7B model.
# 3. **Compare places at the same budget**, each at its own best rate.
#
# *Ours: `q` is worse than `q,v`, but undecided against `q,k,v,o` (`q` minus `q,k,v,o`: −5.1 to 0.2 points). The other places are undecided against `q,v`. (For `v`, the best rate is the lowest tried, and for `k`, the highest.)*
#
# *Published: the same rule on WikiSQL, but not on MNLI (Hu et al. 2021, table 5). With larger models and about equal budgets, the MLP alone beats attention alone ([LoRA Without Regret](https://thinkingmachines.ai/blog/lora/)).*
#
# The same in PEFT, for Llama 3 8B, and a rival with about as many trained numbers:
# ```python
# config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")  # rate 2e-4
# rival = LoraConfig(r=49, lora_alpha=98, target_modules=["q_proj", "v_proj"])  # 2e-4 again: q,v raises the best rate, but alpha 98 lowers it
# ```
# </details>

# %%
lesson.receipt()
