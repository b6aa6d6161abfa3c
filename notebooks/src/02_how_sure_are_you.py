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
# The panel trains LoRA and the head in MiniLM on movie reviews: 200 steps of 8 sentences, positive or negative. Each step changes their numbers to make the loss (the lower curve) smaller; the **learning rate**, 0.002, sets how far they move. Along the way, the model classifies other sentences for **validation** (the upper curve), and at the end 2,000 new ones for the **test**. A **seed** picks the random start and the sentences' order.
#
# Give three ranges; be 80% sure. A *point* is 1% of the sentences.
#
# 1. **How many points separate the worst of forty seeds from the best?**
# 2. **Of 100 sentences, how many do two seeds answer differently?**
# 3. **Two runs truly differ by one point. How many test sentences do you need to see this gap four times in five? (Guess 2 helps.)**
#
# Then press **Start**. (On the web pages, press **replay**.)

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
# With 2,000 other sentences, your model would get a different score.
#
# A right answer counts 1, a wrong one 0. If a share $p$ is right, the average is $p$, and
#
# - right answers lie $1-p$ above it;
# - wrong ones, a share $1-p$, lie $p$ below it.
#
# The *variance* is the average squared distance. For $p=0.8$, it's $0.8\cdot0.2^2+0.2\cdot0.8^2=0.16$. And for any $p$? The average of $n$ sentences has a variance $n$ times smaller; its root is the **standard error**. Of 100 tests, 95 land within 1.96 standard errors of $p$. **Write those 1.96 standard errors as a function.**

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
# Forty runs of ours follow. Only the seed differs.

# %%
FORTY = shipped("data/results/sweeps/seeds.zip")  # stored: forty runs of ours, 27 November 2026
forty = from_store(FORTY)
run = panel.result()  # no time to train? take one of ours: run = forty.at(seed=7).runs[0]
right = forty.scores  # (40 seeds, 2000 sentences): 1 where that seed got that sentence right
accuracy = 100 * right.mean(axis=1)
differ = [(right[i] != right[j]).mean() for i in range(40) for j in range(i)]

lesson.note("accuracy", run.metrics["accuracy"])
lesson.reveal("points from the worst to the best of forty seeds", accuracy.max() - accuracy.min())
lesson.reveal("sentences in 100 that two seeds answer differently", 100 * np.mean(differ))

# %%
share = run.metrics["accuracy"]
print(f"this run: {share:.1%} ± {half_width_or_ours(half_width)(share, 2000):.1%}, for other sentences")
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
# The runs score from 75.4<!--seeds.worst-->% to 79.7<!--seeds.best-->%: 4.3<!--seeds.apart--> points, and *nothing was improved*. All forty took the same test, so this luck comes from the seed. Two seeds are 0.9<!--seeds.two--> points apart on average; 29 pairs in 100 are at least 1.2 points apart. If these were forty ideas that don't work, the best would look 2.1<!--seeds.gain--> points better than their average.
#
# Two seeds answer about 12<!--seeds.differ--> sentences in 100 differently.
# </details>
#
# ## Play
# Below these curves (on the page, after *replay*) are six sentences whose answers your adapter changed. Pick one and drag **strength** from 0 to 2. **Does any answer change twice?**
#
# <details><summary>What we found</summary>
#
# In our run, the last (Paradiso) turns negative at 0.2 and positive again at 1.6.
# </details>
#
# ## Your turn: does A beat B?
# Models a and b: each row is a sentence; 1 means a right answer.

# %%
ahead = [(i, j) for i in range(40) for j in range(40) if 1 < accuracy[i] - accuracy[j] < 1.8]
a, b = lesson.draw("two models", *ahead)
table = pd.DataFrame({"a": right[a], "b": right[b]}).astype(int)
print(f"a {table.a.mean():.2%} right, b {table.b.mean():.2%}, on {len(table):,} rows")
table.head()

# %% [markdown]
# Both took the *same* test. In each row, a minus b is 1, 0 or -1; the gap is the average. Find:
#
# - `half`: half of the gap's 95% interval. The squared difference is 1 where a and b disagree, else 0. In `half_width`, replace $p(1-p)$ with the average of these squares. Or, in Jupyter, use the **bootstrap**: draw 2,000 tests of 2,000 rows from these rows, putting each row back, and take 1.96 standard deviations of their gaps.
# - `word`: your verdict on a: "better" or "worse" if 0 lies outside this interval, else "undecided".
# - `rows`: you see a gap if you measure more than 1.96 standard errors. In four tests of five, you measure at least the true gap minus 0.84 of them. So the true gap must be 2.8 standard errors (a *power* of 80%). Your standard error is `half / 1.96`; four times the rows halve it. How many rows make 2.8 of them one point?

# %% exercise
differences = (table.a - table.b).to_numpy()
rng = np.random.default_rng(0)
one_new_gap = rng.choice(differences, len(table)).mean()

half = ...  # a share, like 0.02
word = ...  # "better", "worse" or "undecided"
rows = ...  # to notice a true gap of one point
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
# Ask `verdict` about your two models, and about twenty seeds against twenty. `margin` is the largest gap that wouldn't matter to you, here one point. (`verdict` may print a 90% interval: see lesson 05.)

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
# Surprise: you compared a *recipe* with itself. Your a and b are two of forty runs with the same settings. Even "better" would be true only of these two files: we picked them because a was ahead. Twenty seeds against twenty settle it: equivalent<!--seeds.halves--> within one point. *Equivalent*: we can tell that the gap is below the margin. *Undecided*: we can't.
#
# 82.1 versus 80.9? If both were tested on the same 2,000 sentences and disagree on 12<!--seeds.differ-->%, like our seeds, the gap is 1.2 ± 1.5<!--seeds.half--> points ($196\sqrt{0.12/2000}$): undecided. Use A if it costs the same, but don't call it better.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Never write an accuracy without the number of test sentences.** At 80%: ±1.8 points on 2,000 rows, ±8 on 100.
# 2. **The seed is luck, too.** *Ours: 40 seeds of one recipe spread over 4.3<!--seeds.apart--> points. Published: in PEFT's own
#    [benchmark](https://github.com/huggingface/peft/tree/main/method_comparison/MetaMathQA) LoRA (rank 32) gets 47.8% of 1,319 questions right, full
#    fine-tuning 47.2%: one seed each (August 2026).*
# 3. **Compare on the same rows, over several seeds.** Seeing a one-point gap takes about 9,400<!--seeds.rows--> rows when two models disagree on
#    12<!--seeds.differ-->%. For two *recipes*, also train more seeds: with our spread, about 12<!--seeds.needed--> each to see that gap in four tests of five,
#    *on these 2,000 sentences*.
#
# In PEFT, batch by batch (`rows`: tokenized test sentences; `labels`: their classes):
# ```python
# model = AutoPeftModelForSequenceClassification.from_pretrained("adapter_a")
# model.load_adapter("adapter_b", "b")
# a = model(**rows).logits.argmax(-1) == labels
# model.set_adapter("b"); b = model(**rows).logits.argmax(-1) == labels
# ```
# `scipy.stats.binomtest(int((a & ~b).sum()), int((a != b).sum()))` is then McNemar's exact test.
# </details>

# %%
lesson.receipt()
