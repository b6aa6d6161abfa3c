# %% [markdown]
# # 02 · How sure are you?
#
# Model X gets 82.1% of a test's sentences right, and model Y gets 80.9%. **Is X better?**

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lora_course import checks, lesson
from lora_course.checks.sure import half_width_or_ours
from lora_lab import TrainPanel
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped

lesson.start("02")

# %% [markdown]
# ## Press Start
# The panel trains LoRA and MiniLM's head on sentences from movie reviews, in 200 steps of 8 sentences each. The curves show the loss and the accuracy on **validation** sentences, which aren't used for training. At the end comes the **test**, on 2,000 new sentences (*rows* in the panel).
#
# The **seed** is a number that sets the random start and the order of the sentences. We ran this training recipe forty times. Only the seed changed.
#
# 1. **How many percentage points (*points* for short) separate the worst test score from the best?**
# 2. **Two of the trained models read the same 100 sentences. On how many do they disagree, on average?**
#
# Give ranges you're 80% sure of. Then press **Start** (on the web page, **replay**).

# %%
lesson.predict("points from the worst to the best of forty seeds", low=..., high=...)
lesson.predict("sentences in 100 that two seeds answer differently", low=..., high=...)

# %%
store = lesson.workplace("02")
reviews = lesson.small("rt", store)  # "rt": 8,530 sentences about films
panel = TrainPanel("minilm", reviews, rank=8, alpha=16, lr=2e-3, steps=lesson.steps(200, 10), batch=8,
                   seed=lesson.seed_of(), store=store)
panel.show()

# %% [markdown]
# ## While it trains: the first kind of luck
# At the end, the panel shows your score with a ±: on 2,000 other sentences, the score would differ. **Where does this ± come from?**
#
# Count a right answer as 1, and a wrong one as 0. If a share $p=0.8$ is right, the average is 0.8.
#
# - The *variance* is the average squared distance from the average: $0.8\cdot0.2^2+0.2\cdot0.8^2=0.16$. What's the variance for any $p$?
# - A score averages $n$ answers, so its variance is $n$ times smaller than one answer's. The square root of this smaller variance is the **standard error**.
# - In 95 of 100 tests, the score lies within 1.96 standard errors of the true share $p$. This range is the *95% interval*.
#
# **Write a function that returns 1.96 standard errors.**

# %% exercise
def half_width(p, n):
    ...


checks.check_half_width(half_width)


# %% solution
def half_width(p, n):
    return 1.96 * (p * (1 - p) / n) ** 0.5


checks.check_half_width(half_width)

# %% [markdown]
# ## After the run: the second kind of luck
# The seed is luck, too. The panel now adds our forty runs. (On the web page, press **replay** below.) The band shows their validation accuracy. Each dot in the box is a test score. **Where does this run stand?**

# %%
FORTY = shipped("data/results/sweeps/seeds.zip")  # our forty runs, stored on 27 November 2026
forty = from_store(FORTY)
run = panel.result()  # no time to train? Use one of ours: run = forty.at(seed=7).runs[0]
share = run.metrics["accuracy"]
luck = 100 * half_width_or_ours(half_width)(share, 2000)
print(f"this run: {share:.1%} right, ± {luck:.1f} points on other test sentences")

right = forty.scores  # (40 seeds, 2000 sentences): 1 where that seed got that sentence right
accuracy = 100 * right.mean(axis=1)
differ = [(right[i] != right[j]).mean() for i in range(40) for j in range(i)]
lesson.note("accuracy", share)
lesson.reveal("points from the worst to the best of forty seeds", accuracy.max() - accuracy.min())
lesson.reveal("sentences in 100 that two seeds answer differently", 100 * np.mean(differ))
panel.seeds = FORTY
panel

# %% claim
spread = accuracy.max() - accuracy.min()
assert right.shape == (40, 2000)
assert spread > 82.1 - 80.9 and f"{accuracy.std(ddof=1):.2f}" == "0.84"
assert len({(r.recipe.lr, r.recipe.method, r.recipe.steps, r.recipe.batch) for r in forty.runs}) == 1
assert 0.05 < np.mean(differ) < 0.25
assert abs(1.96 * (0.8 * 0.2 / 2000) ** 0.5 - 0.018) < 0.0005
apart = np.array([abs(accuracy[i] - accuracy[j]) for i in range(40) for j in range(i)])
assert (len(apart), f"{100 * (apart > 1.2 - 1e-9).mean():.0f}") == (780, "29")

# %% [markdown]
# <details><summary>What we found</summary>
#
# The worst run gets 75.4<!--seeds.worst-->% right, and the best 79.7<!--seeds.best-->%. That's a gap of 4.3<!--seeds.apart--> points, although *nothing was improved*. In 29% of all pairs, the runs are at least 1.2 points apart, like X and Y. **So luck alone can explain such a gap.**
#
# On average, two runs disagree on about 12<!--seeds.differ--> sentences in 100. Their scores hide most of this, because wins and losses cancel out.
# </details>
#
# ## Your turn: does a beat b?
# Two models, a and b, took the *same* test. Model a leads. **Is it better?**

# %% hide-input
ahead = [(i, j) for i in range(40) for j in range(40) if 1 < accuracy[i] - accuracy[j] < 1.8 and accuracy[j] > accuracy.min()]
a, b = lesson.draw("two models", *ahead)
table = pd.DataFrame({"a": right[a], "b": right[b]}).astype(int)
print(f"a gets {table.a.mean():.2%} right and b gets {table.b.mean():.2%}, on {len(table):,} sentences")
said = table.replace({1: "right", 0: "wrong"})
pd.crosstab("a " + said.a, "b " + said.b).rename_axis(index=None, columns=None)

# %% [markdown]
# For each sentence, take a's score minus b's. This difference is 1 or -1 if the models *disagree*, and 0 otherwise. Its square is 1 wherever they disagree, so the average square *is* the share of disagreements. The average difference is near 0, so this share is nearly the variance. Use it in place of $p(1-p)$.
#
# Compute `half`, half the width of the gap's 95% interval. Then choose `word`, your verdict on model a: "undecided" if 0 lies inside the interval.

# %% exercise
gap = (table.a - table.b).mean()
disagree = (table.a != table.b).mean()

half = ...  # a share, like 0.02
word = ...  # "better", "worse" or "undecided"
checks.check_report(table, half, word)

# %% solution
gap = (table.a - table.b).mean()
disagree = (table.a != table.b).mean()

half = 1.96 * (disagree / len(table)) ** 0.5
# Without a formula: the bootstrap resamples the test, for example 2,000 times (each drawn row is put back).
# half = 1.96 * np.std([(table.a - table.b).sample(frac=1, replace=True).mean() for n in range(2000)])

word = "better" if gap > half else "worse" if gap < -half else "undecided"
checks.check_report(table, half, word)

# %% [markdown]
# <details><summary>What we found</summary>
#
# **You compared a *recipe* with itself.** Models a and b are two of our forty runs: only the seed differs.
#
# Some of our pairs even get the verdict "better". For such a pair of *models*, that may be true. But after retraining with new seeds, either could lead. So one run of each *recipe* can't show which one is better.
# </details>
#
# ## How large must a test be?
# Suppose that one model is *truly* better by one point, and the two disagree as often as our runs do. A test *sees* this gap if its measured gap is above 1.96 standard errors: 1.5<!--seeds.half--> points on 2,000 sentences. **How many sentences must a test have so that four of five such tests see the gap?**

# %%
lesson.predict("test sentences needed to see a true gap of one point", low=..., high=...)

# %% alt="Two plots of measured gaps, in points. Each has a gray bell around 0, for models without a true gap, a blue bell around 1, for a true gap of one point, and a line at 1.96 standard errors. On 2,000 sentences, the bells overlap, the line is at 1.5, and a quarter of the blue bell lies to its right. On 9,400 sentences, the bells are half as wide, the line is at 0.7, and four fifths of the blue bell lie to its right."
share, x = np.mean(differ), np.linspace(-1.6, 2.8, 600)
needed = int(round(2.8**2 * share / 0.01**2, -2))
figure, plots = plt.subplots(2, figsize=(4.7, 3.8), sharex=True, layout="constrained")
for plot, n, seen in zip(plots, (2000, needed), ("1 of 4 tests sees the gap", "4 of 5 tests see the gap")):
    error = 100 * (share / n) ** 0.5
    none, true = (np.exp(-(((x - gap) / error) ** 2) / 2) for gap in (0, 1))
    plot.plot(x, none, "0.45", x, true, "C0")
    plot.fill_between(x, true, where=x > 1.96 * error, color="C0", alpha=0.3)
    plot.plot([1.96 * error] * 2, [0, 0.95], "k")
    plot.text(1.96 * error + 0.1, 0.22, "seen", color="C0")
    plot.set(title=f"{n:,} sentences: {seen}", yticks=[], ylim=(0, 1.2))
plots[0].text(0.15, 1.04, "no gap", color="0.45", ha="right"), plots[0].text(0.75, 1.04, "true gap: 1 point", color="C0")
plots[1].set_xlabel("measured gap, in points")
lesson.reveal("test sentences needed to see a true gap of one point", needed)
plt.show()

# %% claim
from statistics import NormalDist

from lora_lab import verdict

assert verdict(table.a, table.b, margin=0.01).rows == 2000
assert needed == 9400
errors = [0.01 / (share / n) ** 0.5 for n in (2000, 9400)]  # standard errors in a gap of one point
assert [f"{NormalDist().cdf(one - 1.96):.2f}" for one in errors] == ["0.25", "0.80"]
assert round(NormalDist().cdf(0.84), 2) == 0.8
verdicts = {verdict(right[i], right[j], margin=0.01).word.split()[0] for i, j in ahead}
assert verdicts == {"better", "undecided"}  # "for some names"

# %% [markdown]
# <details><summary>What we found</summary>
#
# On 2,000 sentences, most of the blue bell lies left of the line: **three of four tests miss a true gap of one point.** A larger test has narrower bells. At about 9,400<!--seeds.rows--> sentences, the gap is 2.8 standard errors: 1.96 up to the line, and 0.84 beyond it. Now four of five tests see the gap (80% *power*).
#
# In general, a test needs $(2.8/\text{gap})^2\cdot d$ sentences: $d$ is the share of sentences on which the models disagree, and a gap of one point is 0.01.
#
# **And X and Y?** We didn't even tell you the size of their test. If they disagree on 12<!--seeds.differ-->% of 2,000 sentences, as our runs do, their gap is 1.2 ± 1.5<!--seeds.half--> points: *undecided*. That doesn't mean *equal*: this test can't tell them apart.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Never write an accuracy without the number of test sentences.** At 80% accuracy, the 95% interval is ±1.8 points on 2,000 sentences and ±8 points on 100.
# 2. **The seed is luck, too.** *Ours: over 40 seeds, one recipe's accuracy varies by 4.3<!--seeds.apart--> points. Published: in PEFT's
#    [benchmark](https://github.com/huggingface/peft/tree/main/method_comparison/MetaMathQA), LoRA gets 47.8% of 1,319 questions right, and full
#    fine-tuning 47.2%, with one seed each (July 2026).*
# 3. **Compare on the same sentences, over several seeds.** *Ours:* the forty scores' standard deviation is 0.84 points. Both recipes vary: a gap of one point needs $2\cdot(2.8\cdot0.84/1)^2=11.1$, so 12<!--seeds.needed--> seeds for each.
#
# The same in PEFT, for one tokenized `batch`:
# ```python
# model = AutoPeftModelForSequenceClassification.from_pretrained("adapter_a")
# model.load_adapter("adapter_b", "b")
# a = model(**batch).logits.argmax(-1) == labels
# model.set_adapter("b"); b = model(**batch).logits.argmax(-1) == labels
# ```
# </details>

# %%
lesson.receipt()
