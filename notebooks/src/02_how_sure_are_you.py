# %% [markdown]
# # 02 · How sure are you?
#
# Model A gets 82.1% of a test right, and model B 80.9%. **Is A better?**

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
# The panel trains LoRA and MiniLM's head on movie reviews, in 200 steps of 8 sentences.
#
# - The lower curve is the loss. Each step moves the trained numbers to reduce it; the **learning rate**, 0.002, sets how far.
# - The upper curve is the accuracy on other sentences, for **validation**.
# - The **test** comes last: 2,000 new sentences.
#
# A **seed** picks the random start and the sentences' order.
#
# Give ranges you're 80% sure of. A *point* is 1% of the test sentences.
#
# 1. **We trained with forty seeds. How many points separate the worst run from the best?**
# 2. **On average, on how many of 100 sentences do two of these runs disagree?**
# 3. **Suppose two runs truly differ by one point. How many sentences must a test have for four of five tests to show the gap?**
#
# Then press **Start** (on the web page, **replay**).

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
# On 2,000 other sentences, your model would get a different score. **How different?**
#
# Count a right answer as 1, and a wrong one as 0. If a share $p$ is right, the average is $p$. Right answers lie $1-p$ above it, and wrong ones lie $p$ below it.
#
# - The *variance* is the average squared distance. For $p=0.8$, it's $0.8\cdot0.2^2+0.2\cdot0.8^2=0.16$. What's the formula for any $p$?
# - For the average of $n$ answers, the variance is $n$ times smaller. Its square root is the **standard error**.
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
# The panel now adds our forty runs: the same recipe, but other seeds. The band is their *validation* accuracy. The dots in the box are their *test* scores, on their own scale.

# %%
FORTY = shipped("data/results/sweeps/seeds.zip")  # our forty runs, stored on 27 November 2026
forty = from_store(FORTY)
run = panel.result()  # no time to train? Use one of ours: run = forty.at(seed=7).runs[0]
share = run.metrics["accuracy"]
print(f"this run: {share:.1%} right, ± {half_width_or_ours(half_width)(share, 2000):.1%} on other test sentences")

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
assert (len(apart), f"{apart.mean():.1f}", f"{100 * (apart > 1.2 - 1e-9).mean():.0f}") == (780, "0.9", "29")

# %% [markdown]
# **Play** (on the page, after *replay*): below the curves, pick one of six sentences whose answers your adapter changed, and drag **strength** from 0 to 2. In ours, one changes twice.
#
# <details><summary>What we found</summary>
#
# The runs score from 75.4<!--seeds.worst-->% to 79.7<!--seeds.best-->%, a gap of 4.3<!--seeds.apart--> points, although *nothing was improved*. On average, two runs are 0.9<!--seeds.two--> points apart, and answer about 12<!--seeds.differ--> sentences in 100 differently. Of all pairs, 29% are at least as far apart as A and B (1.2 points). **So if A and B vary like our runs, luck alone can explain their gap.**
# </details>
#
# ## Your turn: does A beat B?
# Models a and b took the *same* test. Each row is a sentence; 1 means *right*.

# %%
ahead = [(i, j) for i in range(40) for j in range(40) if 1 < accuracy[i] - accuracy[j] < 1.8]
a, b = lesson.draw("two models", *ahead)
table = pd.DataFrame({"a": right[a], "b": right[b]}).astype(int)
print(f"a gets {table.a.mean():.2%} right and b gets {table.b.mean():.2%}, on {len(table):,} rows")
table.head()

# %% [markdown]
# In each row, a minus b is 1, 0 or -1. Its average is the gap. Find:
#
# - `half`: the half-width of the gap's 95% interval. In `half_width`'s formula, replace $p(1-p)$ with the average squared difference: the share of rows where a and b disagree.
# - `word`: your verdict on model a. It's "undecided" if 0 lies inside the interval.
# - `rows`: how many rows show a true gap of one point in four of five tests (80% *power*)?
#
# For `rows`, see the picture. Without a true gap, a measured gap rarely passes the line at 1.96 standard errors. A gap beyond it is *seen*. Four fifths of the blue bell lie there if its center, the true gap, is 1.96 + 0.84 = 2.8 standard errors. For example, if the standard error is one point on 500 rows, seeing one point takes an error 2.8 times smaller, and so $2.8^2$ times the rows: $2.8^2\cdot500=3920$. Your standard error is `half / 1.96`.

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
# `verdict` compares your two models, then twenty seeds with the other twenty. `margin` is the largest gap that doesn't matter.

# %%
lesson.reveal("test sentences it takes to see a true gap of one point", 2.8**2 * np.mean(differ) / 0.01**2)
print("your two:", verdict(table.a, table.b, margin=0.01))
print("20 seeds against 20:", verdict(right[:20], right[20:], margin=0.01))

# %% claim
from statistics import NormalDist

twenty = verdict(right[:20], right[20:], margin=0.01)
assert twenty.outcome == "equivalent"
turns = {one["text"]: np.flatnonzero(np.diff(np.argmax(one["p"], 1))) for one in panel.found.get("sentences", ())}
assert lesson.FAST or [[*at] for text, at in turns.items() if "paradiso" in text] == [[1, 15]]
assert verdict(table.a, table.b, margin=0.01).rows == 2000
errors = 0.01 / (np.mean(differ) / 2000) ** 0.5  # in a gap of one point
assert (f"{errors:.1f}", round(4 * NormalDist().cdf(1.96 - errors), 1)) == ("1.3", 3.0)
assert round(NormalDist().cdf(0.84), 2) == 0.8
assert round(500 * 2.8**2) == 3920 and f"{accuracy.std(ddof=1):.2f}" == "0.84" and f"{2 * (2.8 * 0.84) ** 2:.1f}" == "11.1"

# %% [markdown]
# <details><summary>What we found</summary>
#
# You compared a *recipe* with itself: a and b are two of our forty runs, picked so that a leads. The two halves of our seeds are *equivalent<!--seeds.halves-->* within one point: we can tell that the gap is below the margin. *Undecided* means we can't tell.
#
# On 2,000 sentences, a true gap of one point is 1.3 standard errors: **three out of four tests miss it**.
#
# Back to A and B: if they took the same 2,000-sentence test and disagree on 12<!--seeds.differ-->% of it, like our seeds, the gap is 1.2 ± 1.5<!--seeds.half--> points ($196\sqrt{0.12/2000}$): the verdict is *undecided*.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Never write an accuracy without the number of test sentences.** At 80% accuracy, the interval is ±1.8 points on 2,000 sentences and ±8 on 100.
# 2. **The seed is luck, too.** *Ours: over 40 seeds, one recipe's accuracy varies by 4.3<!--seeds.apart--> points. Published: in PEFT's own
#    [benchmark](https://github.com/huggingface/peft/tree/main/method_comparison/MetaMathQA), LoRA (rank 32) gets 47.8% of 1,319 questions right, and full
#    fine-tuning gets 47.2%, with one seed each (July 2026).*
# 3. **Compare on the same rows, over several seeds.** To see a one-point gap, you need about 9,400<!--seeds.rows--> rows if two models disagree on
#    12<!--seeds.differ-->% of them. To compare two *recipes*, also train more seeds: our scores' standard deviation is 0.84 points, so each recipe needs $2(2.8\cdot0.84)^2\approx11.1$, or 12<!--seeds.needed--> seeds, *on these 2,000 sentences*.
#
# The same in PEFT, batch by batch (`rows` are tokenized test sentences, `labels` their classes):
# ```python
# model = AutoPeftModelForSequenceClassification.from_pretrained("adapter_a")
# model.load_adapter("adapter_b", "b")
# a = model(**rows).logits.argmax(-1) == labels
# model.set_adapter("b"); b = model(**rows).logits.argmax(-1) == labels
# ```
# </details>

# %%
lesson.receipt()
