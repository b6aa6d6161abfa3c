# %% [markdown]
# # 02 · How sure are you?
#
# Model A gets 82.1% of a test's sentences right, and model B gets 80.9%. **Is A better?**

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lora_course import checks, lesson
from lora_course.checks.sure import half_width_or_ours
from lora_lab import TrainPanel, verdict
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped

lesson.start("02")

# %% [markdown]
# ## Press Start
# The panel trains LoRA and MiniLM's head on movie reviews, in 200 steps of 8 sentences. The curves show the loss and the **validation** accuracy, on sentences not used for training. At the end comes the **test**, on 2,000 new sentences (*rows* in the panel). The **seed** (a number) sets the random start and the sentences' order.
#
# 1. **We trained with forty seeds. How many percentage points (*points* for short) separate the worst run from the best?**
# 2. **Take two of these runs. On how many of 100 sentences do they disagree, on average?**
# 3. **Suppose two models disagree as often as these two runs, but one is truly better by one point. How many sentences does a test need so that four of five tests show this gap?** (A test *shows* a gap if luck alone gives smaller gaps in 95 of 100 tests.)
#
# Give ranges you're 80% sure of. Press **Start** (on the web page, **replay**).

# %%
lesson.predict("points from the worst to the best of forty seeds", low=..., high=...)
lesson.predict("sentences in 100 that two seeds answer differently", low=..., high=...)
lesson.predict("test sentences it takes to see a true gap of one point", low=..., high=...)

# %%
store = lesson.workplace("02")
reviews = lesson.small("rt", store)  # "rt": 8,530 sentences about films
panel = TrainPanel("minilm", reviews, rank=8, alpha=16, lr=2e-3, steps=lesson.steps(200, 10), batch=8,
                   seed=lesson.seed_of(), store=store)
panel.show()

# %% [markdown]
# ## While it trains: the first kind of luck
# The choice of test sentences is luck: on others, your model would get a different score.
#
# Count a right answer as 1, and a wrong one as 0. If a share $p$ is right, the average is $p$. Right answers lie $1-p$ above it, and wrong ones $p$ below.
#
# - The *variance* is the average squared distance from the average. For $p=0.8$, it's $0.8\cdot0.2^2+0.2\cdot0.8^2=0.16$. What's the formula for any $p$?
# - A score is the average of $n$ answers, so its variance is $n$ times smaller than one answer's. The square root of this variance is the **standard error**.
# - In 95 of 100 tests, the score lies within 1.96 standard errors of $p$.
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
# The seed is luck, too. The panel now adds our forty runs: the same recipe, other seeds. (On the web page, press **replay** again.) The band shows their validation accuracy. Each dot in the box is a test score.
#
# Below are six answers that the adapter changed. Choose one and drag **strength**: **which answer changes twice?**

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
assert spread > 82.1 - 80.9
assert len({(r.recipe.lr, r.recipe.method, r.recipe.steps, r.recipe.batch) for r in forty.runs}) == 1
assert 0.05 < np.mean(differ) < 0.25
assert abs(1.96 * (0.8 * 0.2 / 2000) ** 0.5 - 0.018) < 0.0005
apart = np.array([abs(accuracy[i] - accuracy[j]) for i in range(40) for j in range(i)])
assert (len(apart), f"{100 * (apart > 1.2 - 1e-9).mean():.0f}") == (780, "29")
turns = [np.flatnonzero(np.diff(np.argmax(one["p"], 1))).tolist() for one in panel.found.get("sentences", ())]
assert lesson.FAST or [at for at in turns if len(at) > 1] == [[1, 15]]  # at strengths 0.2 and 1.6

# %% [markdown]
# <details><summary>What we found</summary>
#
# The worst run gets 75.4<!--seeds.worst-->% right, and the best 79.7<!--seeds.best-->%. That's a gap of 4.3<!--seeds.apart--> points, although *nothing was improved*. On average, two runs disagree on about 12<!--seeds.differ--> sentences in 100.
#
# In 29% of all pairs, the runs are at least 1.2 points apart, like A and B. **So luck alone can explain such a gap.**
#
# In our run, the sixth answer (*the paradiso*) changes twice: the adapter makes it wrong at strength 0.2, and right again at 1.6.
# </details>
#
# ## Your turn: does a beat b?
# Two models, a and b, took the *same* test. In `table`, 1 means *right*.

# %% hide-input
ahead = [(i, j) for i in range(40) for j in range(40) if 1 < accuracy[i] - accuracy[j] < 1.8]
a, b = lesson.draw("two models", *ahead)
table = pd.DataFrame({"a": right[a], "b": right[b]}).astype(int)
print(f"a gets {table.a.mean():.2%} right and b gets {table.b.mean():.2%}, on {len(table):,} rows")
table.head()

# %% [markdown]
# For each sentence, a minus b is 1, 0 or -1. The average of these differences is the gap. Find:
#
# - `half`: half the width of the gap's 95% interval. Use the formula of `half_width`, but replace $p(1-p)$ with the average squared difference (nearly the variance).
# - `word`: your verdict on model a. It's "undecided" if 0 lies inside the interval.
# - `rows`: your answer to question 3, for these two models. (Four of five tests: this is 80% *power*.)
#
# The picture helps with `rows`. A test shows a gap (*seen*) if the measured gap lies beyond the line at 1.96 standard errors. If the true gap is 2.8 standard errors (blue), four of five tests show it.
#
# So one point must be 2.8 standard errors. On 2,000 sentences, your standard error is `half / 1.96`. To halve it, you need four times as many sentences.

# %% alt="Two bell curves of measured gaps, in standard errors. The gray one, without a true gap, is centered at 0, and the blue one at 2.8. A line at 1.96 is 1.96 to the right of the gray center and 0.84 to the left of the blue center. The four fifths of the blue bell to the right of the line are shaded."
x = np.linspace(-3.5, 6.3, 400)
plt.figure(figsize=(6.1, 3))
for center, color, words in ((0, "0.45", "no true gap"), (2.8, "C0", "a true gap of 2.8")):
    plt.plot(x, np.exp(-((x - center) ** 2) / 2), color=color)
    plt.plot([center] * 2, [-0.15, 1], ":", color=color, linewidth=1)
    plt.text(center, 1.05, words, color=color, ha="center")
plt.fill_between(x, np.exp(-((x - 2.8) ** 2) / 2), where=x > 1.96, color="C0", alpha=0.25)
plt.text(3.6, 0.08, "seen:\n4 of 5", color="C0", ha="center")
plt.plot([1.96] * 2, [-0.15, 0.95], "k")
for start, end in ((0, 1.96), (1.96, 2.8)):
    plt.annotate("", (start, -0.1), (end, -0.1), arrowprops={"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0})
    plt.text((start + end) / 2, -0.26, f"{end - start:.2f}", ha="center")
plt.gca().set(xlabel="measured gap, in standard errors", yticks=[], ylim=(-0.3, 1.2))
plt.gca().spines["left"].set_visible(False)
plt.show()

# %% exercise
differences = (table.a - table.b).to_numpy()

half = ...  # a share, like 0.02
word = ...  # "better", "worse" or "undecided"
rows = ...  # to see a true gap of one point in four of five tests
checks.check_report(table, half, word, rows)

# %% solution
differences = (table.a - table.b).to_numpy()
gap = differences.mean()
half = 1.96 * ((differences**2).mean() / len(table)) ** 0.5
# Without a formula: the bootstrap resamples the test, for example 2,000 times (each drawn row is put back).
# half = 1.96 * np.std([np.random.default_rng(n).choice(differences, len(table)).mean() for n in range(2000)])

word = "better" if gap > half else "worse" if gap < -half else "undecided"
rows = len(table) * (2.8 / 1.96 * half / 0.01) ** 2  # half / 1.96 is one standard error
checks.check_report(table, half, word, rows)

# %% [markdown]
# `verdict` compares your two models, then twenty of our seeds with the other twenty. `margin` is the largest gap that doesn't matter (lesson 05).

# %%
lesson.reveal("test sentences it takes to see a true gap of one point", round(2.8**2 * np.mean(differ) / 0.01**2, -2))
print("your two:", verdict(table.a, table.b, margin=0.01).word)
print("20 seeds against 20:", verdict(right[:20], right[20:], margin=0.01))

# %% claim
from statistics import NormalDist

twenty = verdict(right[:20], right[20:], margin=0.01)
assert twenty.outcome == "equivalent"
assert verdict(table.a, table.b, margin=0.01).rows == 2000
errors = 0.01 / (np.mean(differ) / 2000) ** 0.5  # in a gap of one point
assert (f"{errors:.1f}", round(4 * NormalDist().cdf(1.96 - errors), 1)) == ("1.3", 3.0)
assert round(NormalDist().cdf(0.84), 2) == 0.8

# %% [markdown]
# <details><summary>What we found</summary>
#
# You compared a *recipe* with itself: a and b are two of our forty runs. The two halves of our seeds are *equivalent<!--seeds.halves-->*: their gap's interval is inside the margin. *Undecided* means that we can't tell.
#
# On 2,000 sentences, a true gap of one point is 1.3 standard errors. **Three of four such tests miss it.** (Your `rows` differs from ours if your two models disagree more often or less often than ours.)
#
# If A and B disagree on 12<!--seeds.differ-->% of the same 2,000 sentences, as our runs do, their gap is 1.2 ± 1.5<!--seeds.half--> points: *undecided*.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Never write an accuracy without the number of test sentences.** At 80% accuracy, the 95% interval is ±1.8 points on 2,000 sentences and ±8 points on 100.
# 2. **The seed is luck, too.** *Ours: over 40 seeds, one recipe's accuracy varies by 4.3<!--seeds.apart--> points. Published: in PEFT's
#    [benchmark](https://github.com/huggingface/peft/tree/main/method_comparison/MetaMathQA), LoRA gets 47.8% of 1,319 questions right, and full
#    fine-tuning 47.2%, with one seed each (July 2026).*
# 3. **Compare on the same sentences, over several seeds.** *Ours:* if two models disagree on 12<!--seeds.differ-->% of the sentences, a test needs about 9,400<!--seeds.rows--> sentences to see a one-point gap. To see it between two *recipes* on our 2,000 sentences, train each with 12<!--seeds.needed--> seeds.
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
