# %% [markdown]
# # 13 · Where should it go?
#
# "I moved LoRA from `q,v` to all linear layers, and the model got better." But at the same rank, LoRA then trains several times as many numbers. So two things changed: *where* LoRA trains, and *how much*. **With the same budget of trained numbers, which place is best?**
#
# In attention, `q` and `k` decide *where* each token looks (orange). `v` and `o` decide *what* it takes from there (blue). The MLP (`up` and `down`) changes tokens, too (blue).
#
# Below are six places in MiniLM. Each trains 165,888 numbers (`up,down`: 3% fewer), plus 770 in the head. The ranks differ, so alpha (twice the rank) does, too. That's why each place gets its own rate (lesson 15).

# %%
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_lab import ComparePanel, Grid, LoRA, params, sweep, verdict, verdicts
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped

lesson.start("13")
stored = from_store(shipped("data/results/sweeps/target_modules.zip"))  # ours: 90 runs, 25 November 2026
roles = ["q", "k", "v", "o", "up", "down"]
trains = lambda place: [role in place.split(",") or place == "all-linear" for role in roles]  # noqa: E731
ranks = stored.frame.groupby("targets")["rank"].first().sort_values(ascending=False)
dots = pd.DataFrame({place: np.where(trains(place), "●", "") for place in ranks.index}, roles).T.join(ranks).rename_axis(columns="place")
HTML(dots.style.set_uuid("places").set_properties(roles[:2], color="#c85200").set_properties(roles[2:], color="#0072b2").to_html())

# %% [markdown]
# ## Your guesses
# We trained these six places on movie reviews, with five seeds at each of three rates. **One of them falls clearly behind. Which one?** Then give ranges that you're 80% sure of:
#
# 1. If each place has its best rate, **how many points lie between the worst and the best place?**
# 2. **How many of the other five places are better than `q,v`**, by more than luck can explain?

# %%
lesson.predict("points from the worst to the best", low=..., high=...)
lesson.predict("places better than q,v", low=..., high=...)


def tuned(runs):
    accuracy = runs.frame.groupby("lr").validation_accuracy.mean()
    return runs.at(lr=accuracy.idxmax())


at_best = {place: tuned(stored.at(targets=place)) for place in ["q,v", "q", "v", "q,k,v,o", "up,down", "all-linear"]}

# %% [markdown]
# ## Which place falls behind?
# Each place has the rate that's best on validation. The lower picture shows how far each place is ahead of `q,v`. **Is any place better?** Then drag the margin: **how wide must it be before `all-linear` is called equivalent?**

# %% hide-input
from lora_lab.experiments.margins import packed


def entry(place, runs):  # as `lora-lab compare --json` writes it
    row, method = runs.frame.iloc[0], {"method": "lora", "label": place, "settings": {"targets": place.split(",")}}
    method |= {"lr": row.lr, "trainable": int(row.adapter_parameters), "head": int(row.head_parameters)}
    return method | {"accuracy": {"each": runs.accuracy.tolist()}, "answers": packed(runs.scores)}


accuracy = [100 * runs.accuracy.mean() for runs in at_best.values()]
said = verdicts(at_best, against="q,v", margin=0.015)
lesson.reveal("points from the worst to the best", max(accuracy) - min(accuracy), "points")
lesson.reveal("places better than q,v", sum(one.outcome == "better" for one in said.values()))
about = {"model": "minilm", "task": "rt", "steps": 200, "batch": 8, "metric": "accuracy", "margin": 0.015}
untried = ["lora:rank=36:targets=o", "lora:rank=18:targets=q+k"]  # in Jupyter, you can train these
panel = ComparePanel(reference=about | {"methods": [entry(*one) for one in at_best.items()]}, methods=untried)
panel.method = "all-linear"
panel

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Only `q` falls behind, and no place is shown to be better than `q,v`.** So in the opening story, *how much* may have helped, not *where*. With a margin of 1.7 points or more, all linear layers are equivalent to `q,v`. (At 1.5 points, their bar fits inside, too. But five comparisons give luck five chances, so each one needs stronger evidence: **Holm's correction**.)
# </details>
#
# ## Why this one?
# `q` is 3.1<!--place.q--> points below `q,v`. Here are two possible reasons:
#
# - *One matrix isn't enough.*
# - *`q` has no blue dot:* it changes where tokens look, but not what they take.
#
# **Which reason do the six places already refute?** Use the other reason to predict three new places: `k`, `q,k` and `o`. The LoRA paper trained all three in GPT-3. **On WikiSQL, how many of them fall behind, and which ones?**
#
# In Jupyter, you also train `k` in MiniLM (two minutes; fewer rates and seeds than above).

# %%
lesson.predict("new places that fall behind", low=..., high=...)

# %%
from lora_course.paper import table

rates, seeds = ([2e-3], [0]) if lesson.FAST else ([1e-3, 2e-3], range(3))
grid = Grid(36, "2rank", rates, seeds, "k")  # rank 36, alpha 72
own = sweep(grid, lesson.workplace("13"), steps=lesson.steps(200, 12), batch=8, validations=1)
k = verdict(tuned(own), at_best["q,v"], margin=0.015)
paper = table("table5").frame().set_index("weights").rename(index=lambda name: name.replace("W", ""))

# %% alt="Nine rows of six dots, for the matrices q, k, v, o, up and down; the matrices that train are orange (q and k) or blue (the others). Beside each row is its lead over q and v in three studies. In the three rows without a blue dot, k, q and q,k, MiniLM on reviews and GPT-3 on WikiSQL are 2 to 4 points behind, and GPT-3 on MNLI at most half a point. In all other rows, all three studies are near zero."
studies = {"MiniLM, reviews": {place: (100 * one.difference, 50 * (one.high95 - one.low95)) for place, one in {"k": k, **said}.items()}}
for task, luck in ("WikiSQL", 1.4), ("MNLI", 0.3):  # 1.96 x √2 x the usual spread
    studies[f"GPT-3, {task}"] = {place: (gap, luck) for place, gap in (paper[task] - paper[task]["q,v"]).drop("q,v").items()}
places = ["all-linear", "up,down", "q,k,v,o", "q,v", "o", "v", "q,k", "q", "k"]
figure, (left, right) = plt.subplots(1, 2, figsize=(4.8, 5.5), sharey=True, width_ratios=[2, 3], layout="constrained")
colors = np.where([trains(place) for place in places], ["C1"] * 2 + ["C0"] * 4, "#DDDDDD").ravel()
left.scatter(*np.meshgrid(range(6), range(9)), s=90, c=colors, zorder=2)
left.set(xlim=(-0.6, 5.6), ylim=(-0.6, 8.5), title="what trains", yticks=range(9), yticklabels=places)
left.set_xticks(range(6), [*roles[:5], "\ndown"]), right.set(title="points ahead of q,v", xticks=[-6, -3, 0])
for (name, gaps), mark, up in zip(studies.items(), ("ks", "C2o", "C3d"), (0.24, 0, -0.24)):
    x, half = zip(*gaps.values())
    right.errorbar(x, [places.index(place) + up for place in gaps], xerr=half, fmt=mark, label=name)
[side.axhspan(5.5, 8.5, color="C1", alpha=0.1, linewidth=0) for side in (left, right)], right.axvline(0, color="gray")
right.text(-7.6, 5.6, "no blue dot", color="C1"), plt.figlegend(loc="outside lower center", title="with 95% intervals", ncols=2)
lesson.reveal("new places that fall behind", sum(studies["GPT-3, WikiSQL"][place][0] < -1.4 for place in ("k", "q,k", "o")))

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Only rows without a blue dot fall behind.** `v` and `o` are single matrices, but they keep up. `q,k` is two matrices, but it falls behind. `q` and `k` can only choose among what the tokens already offer.
#
# On MNLI, the paper's other task, the rule doesn't show: all places lie within half a point of `q,v`, and `q,k` isn't behind.
#
# **All linear layers are the safe choice:** they contain every blue dot. On Llama 3 8B, they take only 6<!--place.memory-->% more memory than `q,v` at the same rank.
# </details>
#
# ## How could `q` win?
# A colleague repeats our experiment honestly, with the same places, budget and seeds. But in her table, `q` is the best of all. **What did she change?**

# %% alt="Mean percent right on validation of six places at two rates that all places share. At 0.002, all lie between 74 and 77, and q is the lowest. At 0.004, q is the highest, near 70; all other places fall further, and v falls to 50, which is guessing."
shared = 100 * stored.frame.pivot_table(index="lr", columns="targets", values="validation_accuracy").loc[[0.002, 0.004]]
plt.figure(figsize=(4.8, 3.8), layout="constrained")
for place in shared:
    color = {"q": "C1", "v": "C0"}.get(place, "#777777")
    plt.plot([0, 1], shared[place], "o-", color=color, linewidth=1 + 2 * (place in "qv"))
    plt.text(1.05, shared[place][0.004], place, color=color, va="center")
plt.xticks([0, 1], ["0.002", "0.004"])
plt.gca().set(xlabel="one rate for all places", ylabel="percent right on validation", xlim=(-0.1, 1.5))
plt.show()

# %% claim
from lora_lab import memory

place_at = {place: runs.frame.lr.iloc[0] for place, runs in {**at_best, "k": tuned(own)}.items()}
assert (place_at["v"], place_at["k"]) == (0.001, 0.002)
assert {place: one.outcome for place, one in said.items()} == {place: "worse" if place == "q" else "undecided" for place in said}
alone = {place: verdict(at_best[place], at_best["q,v"], margin=0.015) for place in said}
assert alone["all-linear"].outcome == "equivalent"
assert lesson.FAST or (k.outcome == "worse" and k.high95 < 0)
letters = {"b": "better", "w": "worse", "e": "equivalent", "u": "undecided"}  # the panel says the same
margins, found = panel.stored["margins"], panel.stored["against"]["q,v"]
assert {place: letters[one["outcomes"][margins.index(0.015)]] for place, one in found.items()} == {place: one.outcome for place, one in alone.items()}
assert {place: letters[one["together"][margins.index(0.015)]] for place, one in found.items()} == {place: one.outcome for place, one in said.items()}
assert margins[found["all-linear"]["together"].index("e")] == 0.017
assert {*stored.frame.head_parameters} == {770}
assert {*stored.frame.adapter_parameters} == {6 * 27_648, 161_280} and {*stored.frame.alpha / stored.frame["rank"]} == {2}
assert round(-said["q"].difference * 100) == 3 and int(shared["v"][0.002] - shared["v"][0.004]) == 25
assert shared.loc[0.002].idxmin() == shared.loc[0.004].idxmax() == "q" and shared.loc[0.004].idxmin() == "v"
collapsed = stored.frame[(stored.frame.validation_accuracy == 0.5) & (stored.frame.lr == 0.004)].groupby("targets").size().to_dict()
early = stored.frame[(stored.frame.validation_accuracy == 0.5) & (stored.frame.lr == 0.001)]
assert [*early.targets] == ["all-linear"] and place_at["all-linear"] == 0.002
assert collapsed == {"all-linear": 3, "q,k,v,o": 3, "q,v": 2, "up,down": 4, "v": 5} and sum(collapsed.values()) == 17
few, many = (memory("llama-3-8b", LoRA(rank=8, targets=targets), seq=1024).peak for targets in ("q,v", "all-linear"))
assert 1.05 < many / few < 1.08
assert {place for place, (gap, _) in studies["GPT-3, WikiSQL"].items() if gap < -1.4} == {"q", "k", "q,k"}
assert max(abs(gap) for gap, _ in studies["GPT-3, MNLI"].values()) <= 0.5 and studies["GPT-3, MNLI"]["q,k"][0] == 0
lost = [-studies[name][place][0] for name in studies if "MNLI" not in name for place in ("q", "k", "q,k") if place in studies[name]]
assert lesson.FAST or (len(lost) == 5 and min(lost) >= 2 and round(max(lost)) == 4)
near = [abs(gap) for gaps in studies.values() for place, (gap, _) in gaps.items() if place not in ("q", "k", "q,k")]
assert max(near) < 0.75
fair = [params("llama-3-8b", LoRA(rank=rank, targets=targets)).trainable for rank, targets in ((49, "q,v"), (8, "all-linear"), (50, "q,v"))]
assert fair == sorted(fair)

# %% [markdown]
# <details><summary>What we found</summary>
#
# **She trained all places at one rate, 0.004.** At this rate, 17 of 30 runs *collapse* (lesson 03), but none on `q`. So `q` wins because it survives this rate, not because it's a good place.
#
# The bad place costs 3 points, but the bad rate costs `v` 25 points. So tune the rate before you compare places.
# </details>
#
# ## Make it fair
# A paper compares rank 32 on `q,v` with rank 32 on more matrices, and finds that more matrices are better.
#
# **Exercise 1: repair this comparison.** With the budget of rank 32 on `q,v`, what's the highest rank on `q,k,v,o`? And on all linear layers? At rank 1, a matrix with $n$ inputs and $m$ outputs costs $n + m$ numbers.

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
# **Exercise 2: compare two places.** (Your name decides which two.)
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
# 1. **In attention, include `v` or `o`.** They change *what* tokens take; `q` and `k` change only *where* they look.
# 2. **If in doubt, start with all linear layers** (rank 8, alpha 16).
# 3. **Compare places at the same budget**, each at its own best rate.
#
# *Ours: `q` is worse than `q,v`; the other four places are undecided at 1.5 points. (For `v` and `k`, the best rate is at the edge of those tried. All linear layers got a higher rate than in lesson 03: at 0.001, one of five runs collapsed, which made this rate look worse.) Published: the same rule on WikiSQL (Hu et al. 2021, table 5). With larger models and about equal budgets, the MLP alone beats attention alone ([LoRA Without Regret](https://thinkingmachines.ai/blog/lora/)).*
#
# The same in PEFT, with a rival of the same budget for Llama 3 8B:
# ```python
# config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
# rival = LoraConfig(r=49, lora_alpha=98, target_modules=["q_proj", "v_proj"])
# model = get_peft_model(model, config)
# ```
# </details>

# %%
lesson.receipt()
