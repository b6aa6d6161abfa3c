# %% [markdown]
# # 19 · How much can it learn?
#
# "Rank 1 is enough." "LoRA needs little data." **How many coin flips can a rank-1 adapter memorize? And how many labeled reviews does LoRA need to beat something cheaper?**

# %%
from math import log

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.checks.remembering import REMEMBERED
from lora_lab import ComparePanel, LoRA, load_task, train, verdicts
from lora_lab.experiments.margins import scores_in
from lora_lab.training.assets import shipped

lesson.start("19")
flips = pd.read_csv(shipped("data/results/coins.csv"))  # our 70 runs, made on a CPU on November 28, 2026
few = {n: lesson.reference_comparison(f"minilm_rt_{n}") for n in (20, 80, 320, 1280)}  # made on the same day

# %% [markdown]
# ## The smallest fact is a coin flip
# We cut movie reviews after eight words, and replaced each label with a coin flip. No rule connects a text with its label. So if a model knows a label, it must have *stored* it: a fact of one **bit**.
#
# The loss shows how much is stored. A flip's loss is $-\ln p$, where $p$ is the probability that the model gives to the side that the coin showed. Take four flips:
#
# | probability of the right side | loss (nats) | bits unknown, per flip: loss / $\ln 2$ | bits stored, of 4 |
# |---|---|---|---|
# | 50% (a guess) | 0.69 | 1 | 0 |
# | 90% | 0.11 | 0.15 | 3.4 |
# | 100% | 0 | 0 | 4 |
#
# **Exercise 1: if the mean loss over `n` flips is `loss`, how many bits are stored?**


# %% exercise
def remembered(n, loss):
    return ...


checks.check_remembered(remembered)


# %% solution
def remembered(n, loss):
    return n * (1 - loss / log(2))


checks.check_remembered(remembered)

# %% [markdown]
# ## Three guesses
# LoRA adapts only one matrix of MiniLM, `v` of the last layer. At rank 1, it has 768 numbers. The output layer, or *head*, trains, too; it has 770. The model reads 2,048 flips thirty times. Give ranges that you're 80% sure of.
#
# 1. **How many of the 2,048 bits do rank-1 LoRA and the head remember together?**
# 2. At rank 16, the adapter has 16 times as many numbers, and the head stays the same. **By what factor does the number of remembered bits grow?**
# 3. Now the labels are true: they say whether the review is good or bad. Rank-8 LoRA on `q,v` learns from 80 labels, and gets 64.8<!--few.lora.80-->% right. You have a free day, and could label 240 more reviews. **How many points would LoRA gain?**

# %%
lesson.predict("bits that rank 1 remembers", low=..., high=...)
lesson.predict("times as many at rank 16", low=..., high=...)
lesson.predict("points that 240 more labels bring", low=..., high=...)

# %% [markdown]
# ## Fill it up
# Each coin stands for 16 flips. Blue coins are remembered. Below each pile is the mean of three runs, with their range. Then we subtract what the head alone remembers, and divide by the adapter's numbers: **how many bits does each number store?**

# %% alt="Five piles, each of 2,048 coin flips, one pile for each rank. The blue part, which the model remembers, grows from a tenth with the head alone to a fifth at rank 1 and three quarters at rank 16. Each number of the adapter stores 0.28 bits at rank 1, 0.26 at rank 2, 0.25 at rank 4 and 0.11 at rank 16."
remembered_bits = REMEMBERED.judge(remembered).yours_or_ours("remembered", remembered, REMEMBERED.right)
flips["bits"] = remembered_bits(flips.texts, flips.loss)
largest = flips[(flips.part == "final") & (flips.texts == 2048)]
mean = largest.groupby("rank").bits.mean()


def pour(pile, texts, bits, title, below="", each=16):  # each coin is 16 flips
    coins = np.arange(texts // each)
    pile.scatter(coins % 8, coins // 8, s=23, c=np.where(coins < round(np.mean(bits) / each), "#0072B2", "#DDDDDD"))
    pile.set(xlim=(-0.8, 7.8), ylim=(-0.8, 15.8), aspect=1, xticks=[], yticks=[], frame_on=False)
    ends = f"{min(bits):.0f} to {max(bits):.0f}" if len(bits) > 1 else "one run"
    pile.set_title(title, size=8), pile.set_xlabel(f"{np.mean(bits):,.0f} bits\n({ends}){below}", size=8)


figure, piles = plt.subplots(1, 5, figsize=(4.8, 3.2), layout="constrained")
figure.suptitle("A higher rank remembers more of 2,048 coin flips", x=0.01, ha="left")
for pile, (rank, runs) in zip(piles, largest.groupby("rank")):
    below = f"\nadapter: {(mean[rank] - mean[0]) / (768 * rank):.2f}\nper number" if rank else ""
    pour(pile, 2048, runs.bits, f"rank {rank}\n{768 * rank:,} + head" if rank else "head alone\n770 numbers", below)

# %% alt="Four piles of 128, 512, 1,024 and 2,048 coin flips. Rank 1 remembers nearly all of 128, two thirds of 512, two fifths of 1,024 and a fifth of 2,048. From 1,024 on, the blue part stops growing. A fifth pile, of 1,024 flips: rank 16 remembers nearly all."
lesson.reveal("bits that rank 1 remembers", mean[1], "bits")
lesson.reveal("times as many at rank 16", mean[16] / mean[1], "times")
one = flips[(flips["rank"] == 1) & (flips.lr == 0.006)]
sixteen = flips[(flips["rank"] == 16) & (flips.texts == 1024)]
figure, piles = plt.subplots(1, 5, figsize=(4.8, 3.2), layout="constrained")
figure.suptitle("With fewer flips: where is rank 1 full? And rank 16?", x=0.01, ha="left")
for pile, (texts, runs) in zip(piles, one.groupby("texts")):
    pour(pile, texts, runs.bits, f"rank 1\n{texts:,} flips")
pour(piles[4], 1024, [sixteen.bits.max()], "rank 16\n1,024 flips")  # its best of five rates, as at rank 1
plt.show()

# %% claim
from lora_lab.experiments.statistics import mean_interval

numbers, final = largest.groupby("rank").numbers.first(), flips[flips.part == "final"]
more = mean.diff().fillna(mean) / numbers.diff().fillna(numbers)  # compared with the next lower rank
(tuned,) = one[one.texts == 1024].bits
assert (numbers[1], numbers[16]) == (768 + 770, 13_058)
assert all(numbers[rank] == 768 * rank + 770 for rank in numbers.index)
assert [round((mean[r] - mean[0]) / (768 * r), 2) for r in (1, 2, 4, 16)] == [0.28, 0.26, 0.25, 0.11]
assert round(sixteen.bits.max()) == 1019
assert tuned == flips[(flips["rank"] == 1) & (flips.texts == 1024)].bits.max()
assert {*flips[flips.texts == 1024].groupby("rank").size()} == {5}
assert round(tuned) == 425 and mean[1] < tuned and [len(runs) for _, runs in one.groupby("texts")] == [3, 3, 1, 3]

bits = final.groupby(["rank", "texts"]).bits.mean().unstack("rank")
assert [round(-log(0.9), 2), round(-log(0.9) / log(2), 2), round(4 + 4 * log(0.9) / log(2), 1)] == [0.11, 0.15, 3.4]
assert round(log(10, 2), 1) == 3.3
adapters = largest[largest["rank"] > 0].groupby("seed")
by_seed = [np.polyfit(np.log2(own.numbers), np.log2(own.bits), 1)[0] for _, own in adapters]
assert 0 < mean_interval(by_seed)[1] < mean_interval(by_seed)[2] < 1
added = mean.diff() / numbers.diff()
assert all(0.23 < added[r] < 0.29 for r in (1, 2, 4)) and added[16] < 0.07
assert [round(more[r], 2) for r in (0, 4)] == [0.26, 0.24] and max(more) == more[1] and round(more[1], 2) == 0.28
assert 256 * log(256, 2) / (8 * 2 * 128) == 1  # lesson 10's claim: rank 8 holds all of 256 facts
assert mean[1] < 0.3 * 2048 and mean[16] > 0.7 * 2048
assert bits.loc[128].drop(0).min() > 126 and 0.6 < bits.loc[512][1] / 512 < 0.7
assert [round(bits.loc[n][0]) for n in (128, 512, 2048)] == [120, 234, 198] and round(mean[1] / 2048, 1) == 0.2
ends = largest[largest["rank"] == 1].bits
assert (round(ends.min()), round(ends.max()), round(mean[16] / mean[1], 1)) == (349, 517, 3.7)

# %% [markdown]
# <details><summary>What we found</summary>
#
# - **Rank-1 LoRA and the head remember 414<!--coins.1.2048--> of the 2,048 bits.** The head alone remembers 198<!--coins.0.2048-->. So each of the adapter's 768 numbers adds 0.28 bits.
# - **In thirty passes, rank 1 is full at roughly 400 bits:** of 1,024 flips, the model remembers hardly more, 425 (one run).
# - **At rank 16, they remember 1,515<!--coins.16.2048--> bits, 3.7 times as many as at rank 1.** Up to rank 4, each of the adapter's numbers adds about a quarter of a bit; at rank 16, only 0.11. Perhaps 2,048 flips don't fill rank 16: of 1,024 flips, it remembers 1,019 (one run).
# </details>
#
# ## Try it
# Train on 128 coin flips of your own. Now each coin is one flip. **Why does it get only half of the *unseen* flips right?**

# %%
rank, n, passes, toss = 1, 128, 30, 1
texts = list(dict.fromkeys(" ".join(text.split()[:8]) for text in load_task("rt").train.texts))
coins = pd.DataFrame({"text": texts, "label": np.random.default_rng(toss).choice(["heads", "tails"], len(texts))})
coins.to_csv(f"coins{toss}.csv", index=False)

steps = lesson.steps(passes * n // 32, 4)
told = {"steps": steps, "batch": 32, "examples": n, "validations": 0, "max_length": 16, "store": lesson.workplace("19")}
run = train("minilm", f"coins{toss}.csv", LoRA(rank, targets="*.5.*.value"), lr=0.006, **told)
loss = np.mean(run.history["loss"][-n // 32 :])
print(f"rank {rank} remembers {remembered_bits(n, loss):.0f} of {n} flips; of others, {run.metrics['accuracy']:.0%} are right")

# %% alt="Five piles of 128 coin flips, after 1, 5, 10, 20 and 30 passes. The blue part grows from nothing to the whole pile."
figure, piles = plt.subplots(1, 5, figsize=(4.8, 3), layout="constrained")
for pile, passed in zip(piles, (1, 5, 10, 20, 30)):
    losses = run.history["loss"][: passed * n // 32][-n // 32 :]  # of the last of these passes
    pour(pile, n, [max(0, remembered_bits(n, np.mean(losses)))], f"pass {passed}", each=n // 128)
plt.show()

# %% [markdown]
# ## And how much must it see?
# Coins follow no rule, so LoRA can only store the flips it has seen and guess the others. *True* labels follow a rule. **A rule replaces many stored bits, and it works on new reviews, too.**
#
# How many labels must LoRA see to find the rule? Its rival is a **probe**: a linear classifier on the frozen model's vectors. Each method runs five times, on different reviews.

# %% alt="Percentage right against the number of labels, for LoRA and the probe, with full fine-tuning and prompt tuning in gray. A verdict is below each number of labels: undecided with 20 and 80 labels, and LoRA better with 320 and 1,280."
rows = [(row["label"], n, 100 * score) for n, found in few.items() for row in found["methods"] for score in row["accuracy"]["each"]]
scores = pd.DataFrame(rows, columns=["method", "labels", "right"])
means = scores.groupby(["method", "labels"]).right.mean()
said = {n: verdicts(scores_in(found), against="LoRA r8 q,v", margin=0.015)["probe"].outcome for n, found in few.items()}
plt.figure(figsize=(5, 4.2))
for method, own in scores.groupby("method"):
    color, width, side = {"LoRA r8 q,v": ("C0", 2.5, 0.97), "probe": ("C1", 2.5, 1.03)}.get(method, ("#777777", 1, 1))
    plt.plot(own.labels * side, own.right, ".", color=color, alpha=0 if width == 1 else 0.4)
    plt.plot(means[method], "o-", color=color, linewidth=width, markersize=3 * width)
    plt.text(1400, means[method, 1280], method, color=color, va="bottom" if method == "full" else "top")
plt.gca().set(xscale="log", xlabel="labels, and the verdict (margin: 1.5 points)", ylabel="right, % of 2,000 test sentences", xlim=(14, 5000))
plt.xticks(list(few), [f"{n:,}\n{word}".replace("worse", "LoRA\nbetter") for n, word in said.items()])
plt.minorticks_off()
plt.title("LoRA clearly beats the cheap probe only from 320 labels on", loc="left", size=10)
lesson.reveal("points that 240 more labels bring", means["LoRA r8 q,v", 320] - means["LoRA r8 q,v", 80], "points")

# %% [markdown]
# ## Equal at 80 labels?
# *Undecided* doesn't mean *equal*. Drag the edges of the gray band: **what difference must you accept to call LoRA and the probe *equivalent*?**

# %%
panel = ComparePanel(reference=few[80] | {"methods": [one for one in few[80]["methods"] if one["label"] in ("LoRA r8 q,v", "probe")]})
panel.method, panel.rival = "LoRA r8 q,v", "probe"
panel

# %% claim
words = {n: {k: v.outcome for k, v in verdicts(scores_in(f), "LoRA r8 q,v", 0.015).items()} for n, f in few.items()}
lora = means["LoRA r8 q,v"]
assert words[20]["probe"] == words[80]["probe"] == "undecided" and words[320]["probe"] == words[1280]["probe"] == "worse"
assert all(means["probe", n] > means["LoRA r8 q,v", n] for n in (20, 80)) and means[:, 20].max() < 57
beside = {n: {k: v.outcome for k, v in verdicts(scores_in(few[n]), "probe", 0.015).items()} for n in (20, 80)}
assert {outcome for own in beside.values() for outcome in own.values()} == {"undecided", "worse"}
draws = scores[(scores.method == "LoRA r8 q,v") & (scores.labels == 80)].right
assert 8.5 < draws.max() - draws.min() < 9.5
assert round(lora[320] - lora[80], 1) == 9.8
assert {found["steps"] * found["batch"] for found in few.values()} == {20 * 64} == {1280}
from lora_lab.experiments.margins import MARGINS, judged

assert panel.pair == ("LoRA r8 q,v", "probe")
assert MARGINS[judged(scores_in(few[80]))["probe"]["LoRA r8 q,v"]["outcomes"].index("e")] == 0.052
assert round(means["LoRA r8 q,v", 1280] - means["LoRA r8 q,v", 320], 1) == 2.3
assert round(means[:, 80].max() - means["LoRA r8 q,v", 80], 1) == 1.5
fair = verdicts(scores_in(few[320]), "LoRA r8 q,v", 0.015)["probe"]
assert round(-100 * fair.difference, 1) == 4.3

# %% [markdown]
# <details><summary>What we found</summary>
#
# - **With 20 labels, nothing works well:** the probe gets 56.0<!--few.probe.20-->% right, and LoRA gets 51.7<!--few.lora.20-->%.
# - **With 80 labels, the winner is unclear:** the probe gets 66.3<!--few.probe.80-->%, and LoRA gets 64.8<!--few.lora.80-->%. They're *equivalent* only if you tolerate a difference of 5.2 points, because LoRA's five runs differ by up to nine points.
# - **With 320 labels, LoRA is better:** it gets 74.5<!--few.lora.320-->%, and the probe gets 70.2<!--few.probe.320-->%.
#
# **So spend the free day on labels:** LoRA gains 9.8 points. Trying other methods gains less: with 80 labels, the best one is 1.5 points ahead of LoRA.
#
# We tuned each method with 500 other labels, which you wouldn't have.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **In thirty passes, an adapter can store only a limited number of bits.** *Ours: rank 1 on one matrix, with the head, stores about 400 of 2,048 coin flips (MiniLM, three seeds). Published: 2 bits per number after much longer training (Allen-Zhu and Li 2024, cited in LoRA Without Regret).*
# 2. **With few labels, try a linear probe first: it's faster.** *Ours: with 20 or 80 labels, we couldn't show that any method beats the probe. With 320, LoRA is 4.3 points better.*
# 3. **Few labels? Label more.** *Ours: from 80 to 320 labels, LoRA gains 9.8 points.*
#
# **Which rank?** Raise it if there's much to learn, such as facts that follow no rule, or code (lesson 03). *Published: with more text than an adapter can hold, LoRA falls behind full fine-tuning ([LoRA Without Regret](https://thinkingmachines.ai/blog/lora/), 2025).*
#
# The same in PEFT:
# ```python
# config = LoraConfig(r=1, lora_alpha=16, target_modules=r".*layer\.5\.attention\.self\.value", task_type="SEQ_CLS")
# model = get_peft_model(model, config)
# model.print_trainable_parameters()
# bits = n * (1 - loss / math.log(2))  # loss: mean of the last pass
# ```
# </details>

# %%
lesson.receipt()
