# %% [markdown]
# # 02 · How sure are you?
#
# Model A gets 82.1% of a test right, model B 80.9%. You can use only one. Easy, isn't it?
#
# Train an adapter, watch its score appear, and find out how much is luck. There are two kinds. You'll measure both.

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_lab import TrainPanel, verdict
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped

lesson.start("02")

# %% [markdown]
# ## Press Start
# The panel trains LoRA in MiniLM, a small model that reads English, on film reviews. In each of 200 steps the model reads 8 sentences, says whether each is positive or negative, and LoRA's numbers move a little, so that the error (the *loss*, the lower curve) gets smaller. The **learning rate** sets how far they move: 0.002 here, with alpha 16. Along the way, the model answers other sentences, for **validation** (the upper curve). At the end comes the **test**: 2,000 new sentences. A **seed** picks the random start and the order of the sentences, nothing else.
#
# Three quick ranges first, each wide enough that you're 80% sure. A *point* is 1 % of the sentences. Don't calculate. Then press **Start**. (On the site you see a run of ours: press **replay**.)

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
# With 2,000 other sentences your model would get a different score. How different?
#
# Think of one sentence: right (1) with probability $p$, else wrong (0). Its *variance* is the average squared distance from $p$. How large is it? Now average $n$ sentences: the variance becomes $n$ times smaller. Its square root is the **standard error**, and 95 of 100 such tests land within 1.96 standard errors of $p$. **Write those 1.96 standard errors as a function.** An accuracy of 80% is $p = 0.8$.

# %% exercise
def half_width(p, n):
    ...


checks.check_half_width(half_width)


# %% solution
def half_width(p, n):
    return 1.96 * (p * (1 - p) / n) ** 0.5


checks.check_half_width(half_width)

# %% [markdown]
# ## Done? Here's the second kind
# When the panel says done, run the next two cells. (In a class, put your score on the board first.) They open forty more runs of ours, with exactly the same settings. Only the seed differs.

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
panel.seeds = FORTY  # now the panel above shows their curves, too
score = 100 * run.metrics["accuracy"]
plt.figure(figsize=(6, 2))
plt.axvspan(score - 1.8, score + 1.8, alpha=0.2, label="first kind of luck: other sentences")
plt.axvline(score, label="your run")
plt.plot(accuracy, np.linspace(0.2, 0.8, 40), "o", color="gray", label="second kind: forty seeds")
plt.plot([75.4, 76.6], [0.9, 0.9], "k|-", label="1.2 points: 82.1 against 80.9")
plt.yticks([])
plt.xlabel("percent right, of 2,000 sentences")
plt.legend(loc="upper left", bbox_to_anchor=(0, -0.3))
plt.show()

# %% claim
spread = accuracy.max() - accuracy.min()
assert right.shape == (40, 2000)
assert spread > 82.1 - 80.9
assert len({(r.recipe.lr, r.recipe.method, r.recipe.steps, r.recipe.batch) for r in forty.runs}) == 1
assert 0.05 < np.mean(differ) < 0.25
assert abs(1.96 * (0.8 * 0.2 / 2000) ** 0.5 - 0.018) < 0.0005

# %% [markdown]
# <details><summary>What we found</summary>
#
# From 75.4<!--seeds.worst-->% to 79.7<!--seeds.best-->%: 4.3<!--seeds.apart--> points, and *nothing was improved*. Two seeds typically lie 1.2<!--seeds.two--> points apart, as far as A from B (the black bar). Try forty ideas that don't work, keep the best, and you'll report a gain of 2.1<!--seeds.gain--> points over the average.
#
# Stranger still: two of these runs answer about 12<!--seeds.differ--> sentences in 100 differently, even if they score the same. Same accuracy, different model.
# </details>
#
# ## Play
# Scroll up to the panel. Below its curves are sentences whose answer your adapter changed. Pick one and drag **strength**: 0 switches the adapter off, 1 is as trained, 2 is twice as much. In the lab you can also type a review: try irony, or "not bad at all". Can you find one that changes twice?
#
# ## Your turn: does A beat B?
# Here's a table: one row per sentence, 1 where the model was right. Other names get different tables. Or bring your own: `pd.read_csv("mine.csv")`.

# %%
ahead = [(i, j) for i in range(40) for j in range(40) if 1 < accuracy[i] - accuracy[j] < 1.8]
a, b = lesson.draw("two models", *ahead)
table = pd.DataFrame({"a": right[a], "b": right[b]}).astype(int)
table.mean()

# %% [markdown]
# Both took the *same* test, so sentences that both get right (or wrong) say nothing about the gap. Only the **share** where exactly one is right counts: each such sentence moves the gap by $1/n$, up or down. So the gap's standard error is about $\sqrt{\text{share}/n}$.
#
# How many rows would you need to notice a true gap $\delta$ four times in five (a *power* of 80%)?
#
# $$n = (1.96 + 0.84)^2 \; \text{share} / \delta^2$$
#
# Fill in three things: half the 95% interval of the gap (as a share, like 0.02), your verdict on a, and the rows needed to show a gap of **one point**. The verdict is `"better"` or `"worse"` if 0 lies outside this interval, `"equivalent"` if the whole *90%* interval (1.645 in place of 1.96) lies within one point of 0, else `"undecided"`. If both hold, take either; lesson 05 has a word for it.

# %% exercise
share = ...
half = ...
word = ...
rows = ...
checks.check_report(table, half, word, rows)

# %% solution
share = (table.a != table.b).mean()
half = 1.96 * (share / len(table)) ** 0.5
gap = table.a.mean() - table.b.mean()
sure = 1.645 / 1.96 * half  # half the 90% interval
word = ("better" if gap > 0 else "worse") if abs(gap) > half else "equivalent" if abs(gap) + sure < 0.01 else "undecided"
rows = (1.96 + 0.84) ** 2 * share / 0.01**2
checks.check_report(table, half, word, rows)

# %% [markdown]
# Now ask the lab. First about your two models, then about twenty seeds against twenty others.

# %%
lesson.reveal("test sentences it takes to see a true gap of one point", 2.8**2 * np.mean(differ) / 0.01**2)
print("your two:", verdict(table.a, table.b, margin=0.01))
print("20 seeds against 20:", verdict(right[:20], right[20:], margin=0.01))

# %% claim
twenty = verdict(right[:20], right[20:], margin=0.01)
assert twenty.outcome == "equivalent"
assert verdict(table.a, table.b, margin=0.01).rows == 2000

# %% [markdown]
# <details><summary>What we found</summary>
#
# Unless you brought your own, A and B are two of the forty: *one recipe*. Even where the lab says "better", it means these two files, which we picked because A is ahead. With other seeds the order may reverse. Twenty against twenty settles it: equivalent<!--seeds.halves--> within one point.
#
# So *undecided* means not enough data. *Equivalent* means enough data, and no gap that matters.
#
# And 82.1 against 80.9? On 2,000 rows, with a share of 12<!--seeds.differ-->%, the gap is 1.2 ± 1.5<!--seeds.half--> points. Undecided.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Never write an accuracy without the number of test sentences.** At 80%: ±1.8 points on 2,000 rows, ±8 on 100. *Arithmetic.*
# 2. **The seed is luck, too.** *Ours: 40 seeds of one recipe spread over 4.3<!--seeds.apart--> points. Published: PEFT's own
#    [benchmark](https://github.com/huggingface/peft/tree/main/method_comparison/MetaMathQA) has LoRA at 47.8% and full fine-tuning at 47.2% of
#    1,319 questions (rank 32, one seed each, August 2026): 0.6 points apart, each ±2.7. In June 2025 the order was reversed:
#    48.2% and 50.0%.*
# 3. **Compare on the same rows, over several seeds.** One point takes about 9,400<!--seeds.rows--> rows when two models disagree on
#    12<!--seeds.differ-->%. For two *recipes*, add the luck of the seeds: with our spread about 12<!--seeds.needed--> seeds each.
#
# The same in PEFT (`rows` are tokenized test sentences, `labels` their classes):
# ```python
# model = AutoPeftModelForSequenceClassification.from_pretrained("adapter_a")
# model.load_adapter("adapter_b", "b")
# a = model(**rows).logits.argmax(-1) == labels
# model.set_adapter("b"); b = model(**rows).logits.argmax(-1) == labels
# ```
# Then `scipy.stats.binomtest(int((a & ~b).sum()), int((a != b).sum()))` is the exact test for the two (McNemar's).
# </details>

# %%
lesson.receipt()
