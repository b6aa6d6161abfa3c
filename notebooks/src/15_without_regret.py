# %% [markdown]
# # 15 · How much higher is LoRA's learning rate?
#
# "Ten times that of full fine-tuning," says the best-known study ([LoRA Without Regret](https://thinkingmachines.ai/blog/lora/), 2025). "About 3," a reader reports from another task ([GitHub, 2026](https://github.com/thinking-machines-lab/tinker-feedback/issues/67); the reader's code says 10). **Is there such a number?**
#
# MiniLM, movie reviews, 200 steps of 8 rows. LoRA: rank 8, $\alpha=16$. Be 80% sure.
#
# 1. **How many times full fine-tuning's best rate is LoRA's**, on `q,v`?
# 2. And on **all linear layers**?
# 3. Set $\alpha = r$, and go from rank 1 to 64. **By what factor does the best rate fall?**

# %%
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.checks.regret import LOWEST
from lora_course.paper import facts
from lora_lab import SweepPanel
from lora_lab.experiments.playground import Cell, Result, load
from lora_lab.experiments.statistics import mean_interval
from lora_lab.training.assets import shipped

lesson.start("15")
lesson.predict("times full fine-tuning's rate, on q,v", low=..., high=...)
lesson.predict("times full fine-tuning's rate, on all linear layers", low=..., high=...)
lesson.predict("factor by which the best rate falls, alpha = r", low=..., high=...)

# %% [markdown]
# ## Look
# Pale curves are seeds; strong ones, averages. **Where is each curve lowest?** (Triangles: our estimate for each seed.) Losses are in *nats*: guessing costs $\ln 2 = 0.69$.
#
# Each dotted line is one rate for *both* LoRAs: 5, 10 or 25 times full fine-tuning's best. Which line would you take?

# %% hide-input
stored = lesson.reference_comparison("minilm_rt_variants")  # ours, 28 November 2026, on a CPU
tried = {one["label"]: one["tried"] for one in stored["methods"]}
names = {"full": "full fine-tuning", "LoRA r8 all-linear": "LoRA, all linear", "LoRA r8 q,v": "LoRA, q,v"}
losses = {name: pd.DataFrame({one["lr"]: [loss for _, loss in one["each"]] for one in tried[label]})
          for label, name in names.items()}  # seeds x rates
lowest = LOWEST.right  # of a parabola; exercise 1 asks you for it


def best_rate(losses):  # log2 of it; `losses` is a series over rates
    at = losses.argmin()
    if at in (0, len(losses) - 1):  # at the edge, the best rate may lie beyond
        return np.nan
    near = losses.iloc[at - 1 : at + 2]  # the tried rates are rounded: fit, then read at half and twice
    parabola = np.polyfit(np.log2(near.index / losses.index[at]), near, 2)
    return np.log2(losses.index[at]) + lowest(*np.polyval(parabola, (-1, 0, 1)))


best = {name: table.apply(best_rate, axis=1) for name, table in losses.items()}

# %% alt="Validation loss against the learning rate for full fine-tuning, LoRA on all linear layers and LoRA on q and v: three valleys, each further right than the one before. Dotted lines mark 5, 10 and 25 times full fine-tuning's best rate."
plt.figure(figsize=(8, 4.5), layout="constrained")
for color, name in zip(("black", "C1", "C0"), best):
    plt.plot(losses[name].T, color, alpha=0.2)
    plt.plot(losses[name].mean(), color, marker="o", label=name)
    plt.plot(2 ** best[name], [0.445] * 3, color, marker="v", linestyle="")
for times in (5, 10, 25):
    rate = times * 2 ** best["full fine-tuning"].mean()
    plt.axvline(rate, color="gray", linestyle=":")
    plt.text(rate, 0.722, f"×{times}", ha="center")
plt.axhline(0.693, color="gray", linewidth=0.8)
plt.text(1.3e-5, 0.697, "guessing", color="gray")
plt.gca().set(xscale="log", xlabel="learning rate; triangles: best of each seed", ylabel="validation loss", ylim=(0.44, 0.72))
plt.figlegend(loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# ## The best of six
# Each method was tried at six rates, each twice the one before. The best rate probably lies between two, so the triangles are the lowest points of parabolas.
#
# **Exercise 1.** The lowest *tried* loss is $b$; at half its rate, the loss is $a$; at twice its rate, $c$. Let $x$ count doublings of the rate: the parabola $b + px + qx^2$ is $a$ at $x=-1$, $c$ at $x=1$. At which $x$ is the parabola lowest? And if the lowest *loss* is at the last rate tried, the best rate is: `"the last"`, `"twice the last"`, or unknown, `"nan"`?


# %% exercise
def lowest(a, b, c):
    return ...


checks.check_lowest(lowest, at_the_last=...)


# %% solution
def lowest(a, b, c):
    p, q = (c - a) / 2, (a + c) / 2 - b
    return -p / (2 * q)


checks.check_lowest(lowest, at_the_last="nan")

# %% [markdown]
# ## Alpha or rank?
# The map shows LoRA on `q,v`, rank 8 with all alphas, the others with some. **When $\alpha$ grows, what does the best rate do?** In *rate × rank*: when the rank grows?
#
# Accuracy is too coarse to find a lowest point, so the plots below use the loss, with alphas up to 4,096. **Which decides the best rate, rank or alpha? Where does your rule stop?**

# %% hide-input
runs = pd.read_csv(shipped("data/results/rates.csv"))  # ours
shown = runs[(runs.part == "rank") & runs.alpha.isin((1, 4, 16, 64, 256))]
cells = map(Cell, shown.targets, shown["rank"].astype(int), shown.alpha, shown.lr)
learned = shown.loss < 0.683  # guessing: 0.693
results = map(Result, cells, shown.seed, ["done"] * len(shown), learned, [[]] * len(shown), shown.accuracy)
panel = SweepPanel(replace(load(), results=tuple(results), made={}), into=lesson.workplace("15"))
panel.view, panel.rank, panel.alpha, panel.lr = "alpha", 8, 16, 0.0022
panel

# %% alt="Two plots over alpha with a line for each rank. Left: the best learning rate falls along one line that all ranks share. Right: the lowest validation loss rises with alpha."
lowest = LOWEST.judge(lowest).yours_or_ours("lowest", lowest, LOWEST.right)
ranks = runs[runs.part == "rank"].set_index("lr").groupby(["rank", "alpha"])
peak = ranks.apply(lambda own: own.groupby("seed").loss.apply(best_rate))  # pairs x seeds
lowest_loss = ranks.apply(lambda own: own.groupby("seed").loss.min())

figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for axis, values, name in zip(panels, (2**peak, lowest_loss), ("best learning rate", "lowest validation loss")):
    for n, (rank, own) in enumerate(values.groupby("rank")):
        own = own.droplevel("rank")
        axis.plot(own, f"C{n}.", alpha=0.3)
        axis.plot(own.mean(axis=1), f"C{n}", marker="osv^"[n], label=f"rank {rank:g}")
    axis.set(xscale="log", yscale="log" if axis is panels[0] else "linear", xlabel="alpha", ylabel=name)
panels[1].legend()
plt.show()

# %% hide-input
rules = {"16": lambda r: 16, "r": lambda r: r, "2r": lambda r: 2 * r}
changes = {}
for rule, alpha in rules.items():  # doublings of the best rate for each doubling of the rank, of each seed
    rates = np.array([peak.loc[(rank, alpha(rank))] for rank in (1, 8, 64, 128)])
    measured = [2**end for end in mean_interval(np.polyfit([0, 3, 6, 7], rates, 1)[0])]
    changes[f"rank doubled, alpha = {rule}"] = [(alpha(1) / alpha(2)) ** 0.5, *measured]
pd.DataFrame(changes, ["best rate ×, by √α", "measured ×", "95% interval from", "to"]).T.round(2)


# %% hide-input
def cost_of(name, times):  # straight lines between the tried rates; nan beyond
    mean, rate = losses[name].mean(), times * 2 ** best["full fine-tuning"].mean()
    return np.interp(np.log2(rate), np.log2(mean.index), mean, np.nan, np.nan) - mean.min()


ratios, fall = {}, [2**end for end in mean_interval(peak.loc[(1, 1)] - peak.loc[(64, 64)])]
for name in ("LoRA, q,v", "LoRA, all linear"):  # of each seed, then the mean and its 95% interval
    ratios[name] = [2**end for end in mean_interval(best[name] - best["full fine-tuning"])]
lesson.reveal("times full fine-tuning's rate, on q,v", ratios["LoRA, q,v"][0])
lesson.reveal("times full fine-tuning's rate, on all linear layers", ratios["LoRA, all linear"][0])
lesson.reveal("factor by which the best rate falls, alpha = r", fall[0])
lost = {f"nats lost, {name}": {f"x{n}": cost_of(name, n) for n in (5, 10, 25)} for name in ratios}
pd.DataFrame(lost).round(2)

# %% claim
from lora_course.claims.evidence import rate_ratios

assert all(3 < low < 10 < high for _, low, high in ratios.values())
assert [low > 3 for (*_, targets), (_, low, _) in rate_ratios().items() if targets == "all-linear"] == [True] * 3
costs = {n: [f"{cost_of(name, n):.2f}" for name in ratios] for n in (5, 10, 12, 25)}
assert costs == {5: ["0.13", "0.02"], 10: ["0.04", "0.00"], 12: ["0.02", "0.00"], 25: ["0.00", "0.13"]}
families = panel.data["lines"]["alpha"]["q,v|8"]
assert min(families, key=lambda one: families[one]["lost"]) == "root"
assert panel.data["lines"]["rank"]["q,v|16"]["alone"]["lost"] < 0.05
assert round(9.8 * (32 / 16) ** 0.5) == 14  # lesson 03: at four times the alpha, halve the rate
slope = {rule: np.polyfit([0, 3, 6, 7], [peak.loc[(r, a(r))] for r in (1, 8, 64, 128)], 1)[0] for rule, a in rules.items()}
assert all(-0.2 < end < 0.2 for end in mean_interval(slope["16"])) and 4 < fall[0] < 9
assert all(mean_interval(slope[rule])[2] < 0 for rule in ("r", "2r"))
assert np.isnan(peak.loc[(8, 4096)]).sum() == 1
falls = [2 ** (peak.loc[(8, a)] - peak.loc[(8, b)]).dropna() for a, b in ((1, 256), (256, 4096))]
assert 9 < falls[0].min() < 16 < falls[0].max() < 18 and falls[1].round().tolist() == [16, 10]
more = {rank: (lowest_loss.loc[(rank, 16)] - lowest_loss.loc[(rank, 1)]).round(3).tolist() for rank in (1, 8)}
assert more == {1: [0.022, 0.029, 0.025], 8: [0.003, 0.038, -0.007]} and mean_interval(more[1])[1] > 0
other = runs[(runs.part == "smollm2") & (runs.targets == "q,v")].groupby("lr").loss.mean()
assert round(other.iloc[other.argmin() + 2] - other.min(), 1) == 2.1 and other.iloc[other.argmin() + 1] - other.min() < 0.02
assert round(2 ** best["full fine-tuning"].mean(), 6) == 0.000085
both = {times: cost_of("LoRA, q,v", times) + cost_of("LoRA, all linear", times) for times in range(1, 65)}
assert pd.Series(both).idxmin() == 12 and round(both[12], 2) == 0.02 and round(both[20], 2) == 0.10
assert mean_interval(lowest_loss.loc[(1, 16)] - lowest_loss.loc[(128, 16)])[1] > 0  # more rank, lower loss

# %% [markdown]
# <details><summary>What we found</summary>
#
# **No one number: it depends on where LoRA sits, and on $\alpha$.** At $\alpha=16$, LoRA's best rate divided by full fine-tuning's (three seeds, 95% intervals):
#
# | | `q,v` | all linear layers |
# |---|---|---|
# | MiniLM, movie reviews | **25<!--regret.qv-->** (9.1<!--regret.qv.low--> to 66<!--regret.qv.high-->) | **8.8<!--regret.all-->** (4.8<!--regret.all.low--> to 16<!--regret.all.high-->) |
# | MiniLM, tweets | **24<!--regret.tweets.qv-->** (13<!--regret.tweets.qv.low--> to 45<!--regret.tweets.qv.high-->) | **12<!--regret.tweets.all-->** (6<!--regret.tweets.all.low--> to 22<!--regret.tweets.all.high-->) |
# | SmolLM2, restaurants | **32<!--regret.smollm2.qv-->** (20<!--regret.smollm2.qv.low--> to 53<!--regret.smollm2.qv.high-->) | **14<!--regret.smollm2.all-->** (13<!--regret.smollm2.all.low--> to 15<!--regret.smollm2.all.high-->) |
#
# **On all linear layers, ten is a good guess**, and three isn't: no interval contains it. (At nine times our $\alpha$, nine becomes three.) SmolLM2's interval excludes ten, but the loss there is only 0.01<!--regret.smollm2.ten--> nats above the lowest.
#
# **On `q,v`, ten looks low** (two intervals exclude it), but it's the best line for *both* placements.
#
# **Too high a rate ends in a cliff.** On MiniLM's linear layers, halving the best tried rate loses at most 0.02<!--regret.half.most--> nats; doubling it, up to 0.31<!--regret.twice.most--> (tweets). Of two equally good rates, take the lower.
#
# **Alpha decides, not rank:** the four curves nearly coincide. Up to 256, the best rate falls with $\sqrt\alpha$ (lesson 03). Beyond, it falls faster.
#
# **So with $\alpha=r$, the best rate falls** from rank 1 to 64. $\sqrt\alpha$ predicts a factor of 8; we measure 5.9<!--regret.fall--> (1.5<!--regret.fall.low--> to 24<!--regret.fall.high-->).
#
# **The rank does change the loss** (right): at $\alpha=16$, rank 128 ends 0.033<!--regret.rank--> nats below rank 1 (0.013<!--regret.rank.low--> to 0.052<!--regret.rank.high-->).
#
# **Is 16 the best $\alpha$?** Not at rank 1: $\alpha=1$ has a lower loss with each seed. At rank 8, we can't tell alphas up to 16 apart.
# </details>
#
# ## Find the fault
# A published notebook trains 18 LoRAs on an image classifier's last layer (512 inputs, 10 outputs): one rate, two epochs, one seed.

# %%
found = facts("claims/evidence/eighteen_runs")
print(found["source"], found["link"], sep="\n")
print(f"full fine-tuning of the layer: {found['full']['accuracy']}%, {found['full']['trained']:,} numbers")
pd.DataFrame(found["rows"], index=[f"alpha / r = {ratio}" for ratio in found["ratios"]]).T.rename_axis("rank")

# %% [markdown]
# **Exercise 2.** In this table, what's the first rank that no update of this layer can have (`impossible`)? Which sentence do the numbers support?
#
# - **a**: At this rate and length, $\alpha=r$ gave the highest accuracy beyond rank 8.
# - **b**: Beyond rank 4, more rank gains little.
# - **c**: At this rate and length, a larger $\alpha/r$ gave a higher accuracy at every rank.
# - **d**: $\alpha=2r$ is the best choice at any rate.
# - **e**: Rank-32 LoRA beats full fine-tuning, at any rate.
#
# What would you try next: "more ranks", "more seeds" or "more rates"?

# %% exercise
checks.check_carried(impossible=..., sentence=..., then=...)

# %% solution
checks.check_carried(impossible=16, sentence="c", then="more rates")

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **At $\alpha=16$, start at ten times full fine-tuning's rate on all linear layers, and at about 25 times on `q,v`.** Don't know that rate? Take lesson 03's table. If a run collapses, try another seed, then half the rate: even at a good rate, one of five may collapse (lessons 13 and 16). *Ours: 9 to 14 and 24 to 32 times, wide intervals. Published: 9.8 times at $\alpha=32$, so about 14 at 16 (LoRA Without Regret).*
# 2. **Fix $\alpha$, and one rate serves ranks 1 to 128** on `q,v`, away from the cliff (lesson 03). With $\alpha=r$ or $2r$, it doesn't. *MiniLM, reviews.*
# 3. **A best value at the edge of what was tried isn't a finding.** Nor is a win at a single rate: it may suit LoRA, but not full fine-tuning.
#
# The same in PEFT:
# ```python
# config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")  # another rank: leave alpha
# model = get_peft_model(model, config)
# for times in (2.5, 5, 10, 20):  # rate = times * full fine-tuning's best; choose on validation
#     ...
# ```
# </details>

# %%
lesson.receipt()
