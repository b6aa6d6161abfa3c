# %% [markdown]
# # 19 · How much can it learn?
#
# "Rank 1 is enough." "LoRA needs little data." **How many coin flips can a rank-1 adapter memorize? And how many labels does LoRA need to learn a rule?**

# %%
from math import log

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.checks.remembering import REMEMBERED
from lora_lab import LoRA, load_task, train, verdicts
from lora_lab.experiments.margins import scores_in
from lora_lab.training.assets import shipped

lesson.start("19")
flips = pd.read_csv(shipped("data/results/coins.csv"))  # our 70 runs, made on a CPU on November 28, 2026
few = {n: lesson.reference_comparison(f"minilm_rt_{n}") for n in (20, 80, 320, 1280)}  # made on the same day

# %% [markdown]
# ## The smallest fact is a coin flip
# We cut movie reviews after eight words, and replaced each label with a coin flip. No rule connects a text with its flip. So a model that knows a flip has *stored* it: a fact of one **bit**.
#
# A flip's loss shows how much of it is stored. The loss is $-\ln p$, where $p$ is the probability that the model gives to the side that the coin showed. Take four flips:
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
# ## Two guesses
# LoRA adapts only one matrix of MiniLM, `v` of the last layer. At rank 1, it has 768 numbers. The output layer, or *head*, trains, too; it has 770. The model reads 2,048 flips thirty times. Give ranges that you're 80% sure of.
#
# 1. **How many of the 2,048 bits do rank-1 LoRA and the head remember together?**
# 2. At rank 16, the adapter has 16 times as many numbers. **By what factor does the number of remembered bits grow?**

# %%
lesson.predict("bits that rank 1 remembers", low=..., high=...)
lesson.predict("times as many at rank 16", low=..., high=...)

# %% [markdown]
# ## Fill it up
# Each coin stands for 16 flips; blue coins are remembered. Below each pile are the mean and the range of three runs. Then we subtract what the head alone remembers, and divide by the adapter's numbers: **how many bits does each number store?**

# %% alt="Five piles, each of 2,048 coin flips, one pile for each rank. The blue part, which the model remembers, grows from a tenth with the head alone to a fifth at rank 1 and three quarters at rank 16. Each number of the adapter stores 0.28 bits at rank 1, 0.26 at rank 2, 0.25 at rank 4 and 0.11 at rank 16."
remembered_bits = REMEMBERED.judge(remembered).yours_or_ours("remembered", remembered, REMEMBERED.right)
flips["bits"] = remembered_bits(flips.texts, flips.loss)
largest = flips[(flips.part == "final") & (flips.texts == 2048)]
mean = largest.groupby("rank").bits.mean()


figure, piles = plt.subplots(1, 5, figsize=(4.8, 3.2), layout="constrained")
figure.suptitle("Each rank gets 2,048 coin flips", x=0.01, ha="left")
for pile, (rank, runs) in zip(piles, largest.groupby("rank")):
    coins, stored = np.arange(2048 // 16), runs.bits.mean()  # each coin is 16 flips
    pile.scatter(coins % 8, coins // 8, s=23, c=np.where(coins < round(stored / 16), "#0072B2", "#DDDDDD"))
    pile.set(xlim=(-0.8, 7.8), ylim=(-0.8, 15.8), aspect=1, xticks=[], yticks=[], frame_on=False)
    pile.set_title(f"rank {rank}\n{768 * rank:,} + head" if rank else "head alone\n770 numbers", size=8)
    below = f"\nadapter: {(mean[rank] - mean[0]) / (768 * rank):.2f}\nper number" if rank else ""
    pile.set_xlabel(f"{stored:,.0f} bits\n({min(runs.bits):.0f} to {max(runs.bits):.0f}){below}", size=8)
lesson.reveal("bits that rank 1 remembers", mean[1], "bits"), lesson.reveal("times as many at rank 16", mean[16] / mean[1], "times")

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Rank-1 LoRA and the head remember 414<!--coins.1.2048--> of the 2,048 bits.** The head alone remembers 198<!--coins.0.2048-->, so each of the adapter's 768 numbers adds 0.28 bits.
#
# **Rank 16 has 16 times as many numbers, but it remembers only 3.7 times as many bits (1,515<!--coins.16.2048-->).** Each number adds only 0.11 bits. **Does a number at rank 16 store less, or is rank 16 not full?**
# </details>
#
# ## Which rank is full?
# A full adapter doesn't remember more if it gets more flips. **Which lines stop rising?**

# %% alt="Remembered bits against the number of flips, for each rank, and a dashed line for all flips. From 1,024 to 2,048 flips, rank 1 stays near 400 bits, rank 2 falls from 724 to 602, and rank 4 stays near 950. Rank 16 rises from 1,019 to 1,515."
curves = flips[flips.part == "final"].groupby(["texts", "rank"]).bits.mean().unstack()
curves.loc[1024] = flips[flips.part == "tuning"].groupby("rank").bits.max()  # one run each, at the best of five rates
plt.figure(figsize=(4.8, 4.2), layout="constrained")
plt.plot([0, 2048], [0, 2048], "--", color="#999999")
plt.text(1250, 1450, "all flips", color="#777777", ha="right")
for rank, color in zip(curves, ("#999999", "C0", "C2", "C4", "C1")):
    plt.plot(curves[rank].sort_index(), "o-", color=color, linewidth=2.5)
    label = f"rank {rank}" if rank else "head alone"
    plt.text(2090, curves[rank][2048], label, color=color, va="center", weight="bold")
plt.gca().set(xlim=(0, 2600), ylim=(0, 2100), xlabel="coin flips", ylabel="remembered bits")
plt.xticks([128, 512, 1024, 2048], ["128", "512", "1,024", "2,048"])
plt.title("Which adapters are full?", loc="left")
plt.show()

# %% claim
from lora_lab.experiments.statistics import mean_interval

numbers = largest.groupby("rank").numbers.first()
more = mean.diff().fillna(mean) / numbers.diff().fillna(numbers)  # compared with the next lower rank
assert (numbers[1], numbers[16]) == (768 + 770, 13_058)
assert all(numbers[rank] == 768 * rank + 770 for rank in numbers.index)
assert [round((mean[r] - mean[0]) / (768 * r), 2) for r in (1, 2, 4, 16)] == [0.28, 0.26, 0.25, 0.11]
assert [round(curves[rank][1024]) for rank in (1, 2, 4, 16)] == [425, 724, 936, 1019]
assert [round(curves[rank][2048]) for rank in (1, 2, 4, 16)] == [414, 602, 967, 1515]
assert round(mean[1] / numbers[1], 2) == 0.27  # lesson 17
assert {*flips[flips.texts == 1024].groupby("rank").size()} == {5}

assert [round(-log(0.9), 2), round(-log(0.9) / log(2), 2), round(4 + 4 * log(0.9) / log(2), 1)] == [0.11, 0.15, 3.4]
adapters = largest[largest["rank"] > 0].groupby("seed")
by_seed = [np.polyfit(np.log2(own.numbers), np.log2(own.bits), 1)[0] for _, own in adapters]
assert 0 < mean_interval(by_seed)[1] < mean_interval(by_seed)[2] < 1
added = mean.diff() / numbers.diff()
assert all(0.23 < added[r] < 0.29 for r in (1, 2, 4)) and added[16] < 0.07
assert [round(more[r], 2) for r in (0, 4)] == [0.26, 0.24] and max(more) == more[1] and round(more[1], 2) == 0.28
assert mean[1] < 0.3 * 2048 and mean[16] > 0.7 * 2048
assert round(mean[1] / 2048, 1) == 0.2
ends = largest[largest["rank"] == 1].bits
assert (round(ends.min()), round(ends.max()), round(mean[16] / mean[1], 1)) == (349, 517, 3.7)

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Rank 16 isn't full:** from 1,024 to 2,048 flips, it rises from 1,019 to 1,515 bits. Ranks 1, 2 and 4 hardly gain, or even lose. So look at their piles again: **in a full adapter, each number stores about a quarter of a bit, after thirty passes.** (At 1,024 flips, each rank has one run, at the best of five rates. So these points may be a little too high.)
# </details>
#
# ## Memory or rule?
# Train rank 1 twice on the same 128 texts: with coin flips, and with the *true* labels (good or bad). **Can you see from the stored bits which labels follow a rule?**

# %%
rank, n, passes, toss = 1, 128, 30, 1
reviews = load_task("rt").train
true = {" ".join(text.split()[:8]): label for text, label in zip(reviews.texts, reviews.labels)}
flipped = np.random.default_rng(toss).integers(2, size=len(true))
told = {"steps": lesson.steps(passes * n // 32, 4), "batch": 32, "examples": n, "max_length": 16}
told |= {"lr": 0.006, "validations": 0, "store": lesson.workplace("19")}
unseen = {}
for name, labels in {"coin flips": flipped, "true labels": [*true.values()]}.items():
    file = f"{name.split()[0]}{toss}.csv"
    pd.DataFrame({"text": [*true], "label": np.array(["bad", "good"])[labels]}).to_csv(file, index=False)
    run = train("minilm", file, LoRA(rank, targets="*.5.*.value"), **told)
    bits, unseen[name] = remembered_bits(n, np.mean(run.history["loss"][-n // 32 :])), run.metrics["accuracy"]
    print(f"{name}: {bits:.0f} of {n} bits stored; of unseen texts, {unseen[name]:.0%} are right")

# %% claim
if not lesson.FAST:
    assert 0.48 < unseen["coin flips"] < 0.54 and 0.55 < unseen["true labels"] < 0.61

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The stored bits look the same. Only *unseen* texts show the difference:** after coin flips, half of the answers are right, as if guessed. After true labels, more are right, because a rule works on new texts, too. But 128 beginnings of reviews teach only a weak rule.
# </details>
#
# ## How many labels does learning the rule take?
# Now LoRA (rank 8, `q,v`) reads whole reviews. Its rival is a **probe**: a linear classifier on the frozen model's vectors. Each method runs five times, on different reviews.
#
# With 80 labels, LoRA gets 64.8<!--few.lora.80-->% right. You have a free day, and could label 240 more reviews. **How many points would LoRA gain?**

# %%
lesson.predict("points that 240 more labels bring", low=..., high=...)

# %% alt="Percentage right against the number of labels, for LoRA and the probe, with full fine-tuning and prompt tuning in gray. A verdict is below each number of labels: undecided with 20 and 80 labels, and LoRA better with 320 and 1,280."
rows = [(row["label"], n, 100 * score) for n, found in few.items() for row in found["methods"] for score in row["accuracy"]["each"]]
scores = pd.DataFrame(rows, columns=["method", "labels", "right"])
means = scores.groupby(["method", "labels"]).right.mean()
said = {n: verdicts(scores_in(found), against="LoRA r8 q,v", margin=0.015)["probe"].outcome for n, found in few.items()}
plt.figure(figsize=(5, 4.2))
for method, own in scores.groupby("method"):
    color, width, side = {"LoRA r8 q,v": ("C0", 2.5, 0.88), "probe": ("C1", 2.5, 1.14)}.get(method, ("#777777", 1, 1))
    plt.plot(own.labels * side, own.right, ".", color=color, markersize=9, alpha=0 if width == 1 else 0.5)
    plt.plot(means[method], "o-", color=color, linewidth=width, markersize=3 * width)
    plt.text(1400, means[method, 1280], method, color=color, va="bottom" if method == "full" else "top")
plt.gca().set(xscale="log", xlabel="labels, and the verdict (margin: 1.5 points)", ylabel="right, % of 2,000 test sentences", xlim=(14, 5000))
plt.xticks(list(few), [f"{n:,}\n{word}".replace("worse", "LoRA\nbetter") for n, word in said.items()])
plt.minorticks_off()
plt.title("LoRA clearly beats the cheap probe only from 320 labels on", loc="left", size=10)
lesson.reveal("points that 240 more labels bring", means["LoRA r8 q,v", 320] - means["LoRA r8 q,v", 80], "points")

# %% claim
words = {n: {k: v.outcome for k, v in verdicts(scores_in(f), "LoRA r8 q,v", 0.015).items()} for n, f in few.items()}
lora = means["LoRA r8 q,v"]
assert (
    words[20]["probe"] == words[80]["probe"] == "undecided" and words[320]["probe"] == words[1280]["probe"] == "worse"
)
assert all(means["probe", n] > means["LoRA r8 q,v", n] for n in (20, 80)) and means[:, 20].max() < 57
beside = {n: {k: v.outcome for k, v in verdicts(scores_in(few[n]), "probe", 0.015).items()} for n in (20, 80)}
assert {outcome for own in beside.values() for outcome in own.values()} == {"undecided", "worse"}
each = {(method, n): own.right for (method, n), own in scores.groupby(["method", "labels"])}
assert each["LoRA r8 q,v", 320].min() > each["probe", 320].max()
assert each["LoRA r8 q,v", 20].max() > each["probe", 20].min()
assert round(means["probe", 20] - lora[20], 1) == round(lora[320] - means["probe", 320], 1) == 4.3
assert round(lora[320] - lora[80], 1) == 9.8
assert {found["steps"] * found["batch"] for found in few.values()} == {20 * 64} == {1280}
assert round(means[:, 80].max() - means["LoRA r8 q,v", 80], 1) == 1.5

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Spend the free day on labels: LoRA gains 9.8 points.** With 80 labels, the best other method is only 1.5 points ahead of LoRA.
#
# **With 20 labels, the probe leads by 4.3 points, and with 320, LoRA leads by 4.3. Why is only the second lead decided?** Look at the small dots, one for each run. With 20 labels, the two methods' dots overlap, so the lead may be luck. With 320, every LoRA run beats every probe run.
#
# (We tuned each method with 500 other labels, which you wouldn't have.)
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **After thirty passes, a full adapter stores about a quarter of a bit per number.** *Ours: ranks 1, 2 and 4 on one matrix of MiniLM, three seeds. Published: 2 bits per number after much longer training (Allen-Zhu and Li 2024, cited in LoRA Without Regret).*
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
