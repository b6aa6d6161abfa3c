# %% [markdown]
# # 02 · How sure are you?
#
# Model A gets 82.1% of a test right, and model B 80.9%. **Is A better?**

# %%
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
# The panel trains LoRA and MiniLM's head on movie reviews. Each of 200 steps uses 8 sentences, and changes the trained numbers to reduce the loss (the lower curve). The **learning rate**, 0.002, sets how far the numbers move. The model also classifies other sentences for **validation** (the upper curve), and finally 2,000 new ones for the **test**. A **seed** picks the random start and the sentences' order.
#
# Give ranges you're 80% sure of. A *point* is 1% of the test sentences.
#
# 1. **We trained with forty seeds. How many points separate the worst run from the best?**
# 2. **On average, on how many of 100 sentences do two of these runs disagree?**
# 3. **Suppose two runs truly differ by one point. How many sentences does a test need, so that four of five tests show the gap?**
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
# On 2,000 other sentences, your model would get a different score.
#
# A right answer counts as 1, and a wrong one as 0. If a share $p$ of the answers is right, the average is $p$, and
#
# - right answers lie $1-p$ above it;
# - wrong answers lie $p$ below it.
#
# The *variance* is the average squared distance. For $p=0.8$, it's $0.8\cdot0.2^2+0.2\cdot0.8^2=0.16$. What's the formula for any $p$? For the average of $n$ answers, the variance is $n$ times smaller. The square root of this variance is the **standard error**. In 95 of 100 tests, the score lies within 1.96 standard errors of $p$. **Write a function that returns 1.96 standard errors.**

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

# %%
FORTY = shipped("data/results/sweeps/seeds.zip")  # our forty runs, stored on 27 November 2026
forty = from_store(FORTY)
run = panel.result()  # no time to train? Use one of ours: run = forty.at(seed=7).runs[0]
right = forty.scores  # (40 seeds, 2000 sentences): 1 where that seed got that sentence right
accuracy = 100 * right.mean(axis=1)
differ = [(right[i] != right[j]).mean() for i in range(40) for j in range(i)]

lesson.note("accuracy", run.metrics["accuracy"])
lesson.reveal("points from the worst to the best of forty seeds", accuracy.max() - accuracy.min())
lesson.reveal("sentences in 100 that two seeds answer differently", 100 * np.mean(differ))

# %%
share = run.metrics["accuracy"]
print(f"this run: {share:.1%} right, ± {half_width_or_ours(half_width)(share, 2000):.1%} on other test sentences")
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
# <details><summary>What we found</summary>
#
# The runs score from 75.4<!--seeds.worst-->% to 79.7<!--seeds.best-->%, a gap of 4.3<!--seeds.apart--> points, although *nothing was improved*. All forty runs took the same test, so this gap comes only from the seeds. On average, two runs are 0.9<!--seeds.two--> points apart, and answer about 12<!--seeds.differ--> sentences in 100 differently. Of all pairs, 29% are at least as far apart as A and B (1.2 points).
# </details>
#
# ## Play
# Below the curves (on the web page, after *replay*), you see six sentences whose answers your adapter changed. Pick one and drag **strength** from 0 to 2. In our run, one answer changes twice. **Does one of yours?**
#
# ## Your turn: does A beat B?
# Models a and b took the *same* test. Each row is a sentence, and 1 means a right answer.

# %%
ahead = [(i, j) for i in range(40) for j in range(40) if 1 < accuracy[i] - accuracy[j] < 1.8]
a, b = lesson.draw("two models", *ahead)
table = pd.DataFrame({"a": right[a], "b": right[b]}).astype(int)
print(f"a gets {table.a.mean():.2%} right and b gets {table.b.mean():.2%}, on {len(table):,} rows")
table.head()

# %% [markdown]
# In each row, a minus b is 1, 0 or -1. The average of these differences is the gap. Find:
#
# - `half`: the half-width of the gap's 95% interval. The squared difference is 1 where a and b disagree, and 0 elsewhere. In `half_width`'s formula, replace $p(1-p)$ with the average of these squares. Or, in Jupyter, use the **bootstrap**: take 1.96 standard deviations of the gaps in 2,000 resampled tests.
# - `word`: your verdict on model a. It's "undecided" if 0 lies inside the interval.
# - `rows`: a gap counts as seen if the measured gap exceeds 1.96 standard errors. In four of five tests, the measured gap is at least the true gap minus 0.84 standard errors. So the true gap must be 2.8 standard errors (80% *power*). Your standard error is `half / 1.96`, and four times as many rows halve it. With how many rows do 2.8 standard errors equal one point?

# %% exercise
differences = (table.a - table.b).to_numpy()
rng = np.random.default_rng(0)
one_new_gap = rng.choice(differences, len(table)).mean()  # in a resampled test: each drawn row is put back

half = ...  # a share, like 0.02
word = ...  # "better", "worse" or "undecided"
rows = ...  # to see a true gap of one point in four of five tests
checks.check_report(table, half, word, rows)

# %% solution
differences = (table.a - table.b).to_numpy()
rng = np.random.default_rng(0)
gaps = [rng.choice(differences, len(table)).mean() for _ in range(2000)]
half = 1.96 * np.std(gaps)  # or, without drawing, 1.96 * ((differences**2).mean() / len(table)) ** 0.5

gap = differences.mean()
word = "better" if gap > half else "worse" if gap < -half else "undecided"
rows = len(table) * (2.8 / 1.96 * half / 0.01) ** 2  # half / 1.96 is one standard error
checks.check_report(table, half, word, rows)

# %% [markdown]
# `verdict` compares your two models, then twenty of our seeds with the other twenty. `margin` is the largest gap that wouldn't matter to you, here one point. (Lesson 05 explains the printed 90% interval.)

# %%
lesson.reveal("test sentences it takes to see a true gap of one point", 2.8**2 * np.mean(differ) / 0.01**2)
print("your two:", verdict(table.a, table.b, margin=0.01))
print("20 seeds against 20:", verdict(right[:20], right[20:], margin=0.01))

# %% claim
twenty = verdict(right[:20], right[20:], margin=0.01)
assert twenty.outcome == "equivalent"
turns = {one["text"]: np.flatnonzero(np.diff(np.argmax(one["p"], 1))) for one in panel.found.get("sentences", ())}
assert lesson.FAST or [[*at] for text, at in turns.items() if "paradiso" in text] == [[1, 15]]
assert verdict(table.a, table.b, margin=0.01).rows == 2000

# %% [markdown]
# <details><summary>What we found</summary>
#
# You compared a *recipe* with itself: a and b are two of our forty runs. "Better" would be true only of these two models, because we picked them so that a leads. The verdict on the two halves of our seeds is *equivalent<!--seeds.halves-->* within one point. *Equivalent* means we can tell that the gap is below the margin. *Undecided* means we can't tell.
#
# Is A better? If A and B took the same 2,000-sentence test and disagree on 12<!--seeds.differ-->% of it, like our seeds, the gap is 1.2 ± 1.5<!--seeds.half--> points ($196\sqrt{0.12/2000}$): the verdict is *undecided*. Use A if it costs no more than B, but don't call it better.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Never write an accuracy without the number of test sentences.** At 80% accuracy, the interval is ±1.8 points on 2,000 sentences and ±8 on 100.
# 2. **The seed is luck, too.** *Ours: over 40 seeds, one recipe's accuracy varies by 4.3<!--seeds.apart--> points. Published: in PEFT's own
#    [benchmark](https://github.com/huggingface/peft/tree/main/method_comparison/MetaMathQA), LoRA (rank 32) gets 47.8% of 1,319 questions right, and full
#    fine-tuning gets 47.2%, with one seed each (August 2026).*
# 3. **Compare on the same rows, over several seeds.** To see a one-point gap, you need about 9,400<!--seeds.rows--> rows if two models disagree on
#    12<!--seeds.differ-->% of them. To compare two *recipes*, also train more seeds. With our spread, about 12<!--seeds.needed--> seeds per recipe show a one-point gap in four of five studies,
#    *on these 2,000 sentences*.
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
