# %% [markdown]
# # 19 · How much can it learn?
#
# "Rank 1 is enough." "LoRA needs little data." **How many coin flips can a rank-1 adapter memorize? And how much do more labels help?**

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
flips = pd.read_csv(shipped("data/results/coins.csv"))  # our 71 runs, made on a CPU on November 28, 2026 (the last run: December 1)
few = {n: lesson.reference_comparison(f"minilm_rt_{n}") for n in (20, 80, 320, 1280)}  # made on the same day

# %% [markdown]
# ## The smallest fact is a coin flip
# We cut movie reviews after eight words, and replaced each label with a coin flip. No rule connects a text with its flip. So a model that knows a flip has *stored* it: a fact of one **bit**.
#
# The loss shows how much of a flip is stored. It's $-\ln p$, where $p$ is the model's probability of the side that the coin showed:
#
# | probability of the right side | loss (nats) | bits unknown, per flip: loss / $\ln 2$ | bits stored, of 4 flips |
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
# ## A guess
# LoRA adapts only one matrix of MiniLM, `v` of the last layer. At rank 1, it has 768 numbers. The output layer (*head*) trains, too; it has 770. After thirty passes over 2,048 flips, **how many bits do rank-1 LoRA and the head remember together?**

# %%
lesson.predict("bits that rank 1 and the head remember", low=..., high=...)

# %% [markdown]
# ## Fill it up
# Drag the number of flips. Each coin stands for 16 flips, and blue coins are remembered. Below each pile are LoRA's and the head's bits. *Per number* means (bits − the head's bits) / the adapter's numbers. (Piles of 1,024 are the best of five runs, so they look fuller.) **From 1,024 to 2,048 flips, which piles keep filling? At 2,048 flips, does rank 4 store four times as many bits as rank 1?**

# %% hide-input
remembered_bits = REMEMBERED.judge(remembered).yours_or_ours("remembered", remembered, REMEMBERED.right)
flips["bits"] = [remembered_bits(n, loss) for n, loss in zip(flips.texts, flips.loss)]
best = flips[flips.part == "tuning"].sort_values("bits").groupby("rank").tail(1)
shown = pd.concat([flips[flips.part == "final"], best])
mean = shown.groupby(["texts", "rank"]).bits.mean().unstack()
lesson.reveal("bits that rank 1 and the head remember", mean[1][2048], "bits")

# %%
def piles(n):
    figure, axes = plt.subplots(1, 5, figsize=(3.7, 3), layout="constrained")
    for pile, (rank, bits) in zip(axes, mean.loc[n].items()):
        coins = np.arange(n // 16)
        pile.spines[:].set_visible(False)
        pile.scatter(coins % 8, coins // 8, s=11, c=np.where(coins < round(bits / 16), "#0072B2", "#CCCCCC"))
        pile.set(xlim=(-0.8, 7.8), ylim=(-0.8, 15.8), aspect=1, xticks=[], yticks=[], facecolor="0.95")
        pile.set_title(f"rank {rank}\n{768 * rank:,}\nnumbers" if rank else "head\nalone", size=9, loc="center")
        each = f"\n{(bits - mean[0][n]) / (768 * rank):.2f} per\nnumber" if rank else "\n\n"
        pile.set_xlabel(f"{bits:,.0f}\nbits{each}", size=9)
    names = [f"rank {rank}: {bits:,.0f}" if rank else f"head alone: {bits:,.0f}" for rank, bits in mean.loc[n].items()]
    return figure, f"remembered bits of {n:,} flips. {', '.join(names)}"


runs = {512: "mean of 3 runs", 1024: "best of 5 runs, one per rate", 2048: "mean of 3 runs"}
lesson.slider("coin flips", {f"{n:,} coin flips ({which})": piles(n) for n, which in runs.items()})

# %% claim
from lora_lab.experiments.statistics import mean_interval

largest = flips[(flips.part == "final") & (flips.texts == 2048)]
numbers, last = largest.groupby("rank").numbers.first(), mean.loc[2048]
more = last.diff().fillna(last) / numbers.diff().fillna(numbers)  # compared with the next lower rank
assert (numbers[1], numbers[16]) == (768 + 770, 13_058)
assert all(numbers[rank] == 768 * rank + 770 for rank in numbers.index)
assert [round((last[r] - last[0]) / (768 * r), 2) for r in (1, 2, 4, 16)] == [0.28, 0.26, 0.25, 0.11]
assert [round(bits) for bits in mean.loc[1024]] == [237, 425, 724, 936, 1019]
assert [round(bits) for bits in last] == [198, 414, 602, 967, 1515]
assert round(mean[16][1024] / 1024, 2) > 0.99 and round(mean[1][512]) == 339
assert round(last[1] / numbers[1], 2) == 0.27  # lesson 17
assert {*flips[flips.part == "tuning"].groupby("rank").size()} == {5}
(longer,) = flips[flips.part == "60 passes"].to_dict("records")
assert (longer["rank"], longer["texts"], round(longer["bits"])) == (1, 1024, 581)
own = largest.pivot(index="seed", columns="rank", values="bits")
added = (own[1] - own[0]) / 768
assert (round(added.min(), 2), round(added.max(), 2)) == (0.20, 0.39)
assert (round(last[4] / last[1], 1), round((last[4] - last[0]) / (last[1] - last[0]), 1)) == (2.3, 3.6)

assert [round(-log(0.9), 2), round(-log(0.9) / log(2), 2), round(4 + 4 * log(0.9) / log(2), 1)] == [0.11, 0.15, 3.4]
adapters = largest[largest["rank"] > 0].groupby("seed")
by_seed = [np.polyfit(np.log2(own.numbers), np.log2(own.bits), 1)[0] for _, own in adapters]
assert 0 < mean_interval(by_seed)[1] < mean_interval(by_seed)[2] < 1
assert [round(more[r], 2) for r in (0, 4)] == [0.26, 0.24] and max(more) == more[1] and round(more[1], 2) == 0.28
ends = largest[largest["rank"] == 1].bits
assert (round(ends.min()), round(ends.max())) == (349, 517)

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Within thirty passes, the head and ranks 1, 2 and (almost) 4 stop filling:** rank 1 remembers 425 of 1,024 flips, and 414<!--coins.1.2048--> of 2,048 (52 bytes: this sentence has more). Only rank 16 keeps filling: 1,019 to 1,515<!--coins.16.2048--> bits.
#
# **That isn't a hard limit:** with *sixty* passes over 1,024 flips, rank 1 remembers 581 (one run).
#
# **Rank 4 has four times as many numbers, but only 2.3 times as many bits,** because both counts include the head's 198 bits. Without these, the factor is 3.6 (if the head stores 198 bits beside an adapter, too). In a pile that stopped filling, each number holds about a quarter of a bit: 0.28 at rank 1 (0.20 to 0.39 in three runs), 0.25 at rank 4.
# </details>
#
# ## Memory or rule?
# Two rank-1 students read the same 128 texts: one gets coin flips, one *true* labels. **Will the stored bits differ? And what percentage of *unseen* texts does the second get right?**

# %%
lesson.predict("percent of unseen texts right, after true labels", low=..., high=...)

# %% hide-input
rank, n, passes, toss = 1, 128, 30, 1
reviews = load_task("rt").train
true = {" ".join(text.split()[:8]): label for text, label in zip(reviews.texts, reviews.labels)}
flipped = np.random.default_rng(toss).integers(2, size=len(true))
told = {"steps": lesson.steps(passes * n // 32, 4), "batch": 32, "examples": n, "max_length": 16}
told |= {"lr": 0.006, "validations": 0, "store": lesson.workplace("19")}
unseen = {}
print(*(f'"{text}": coin flip {("bad", "good")[coin]}, true label {("bad", "good")[label]}' for (text, label), coin in zip([*true.items()][:3], flipped)), sep="\n")
for name, labels in {"coin flips": flipped, "true labels": [*true.values()]}.items():
    file = f"{name.split()[0]}{toss}.csv"
    pd.DataFrame({"text": [*true], "label": np.array(["bad", "good"])[labels]}).to_csv(file, index=False)
    run = train("minilm", file, LoRA(rank, targets="*.5.*.value"), **told)
    bits, unseen[name] = remembered_bits(n, np.mean(run.history["loss"][-n // 32 :])), run.metrics["accuracy"]
    print(f"{name}: {bits:.0f} of {n} bits stored; of unseen texts, {unseen[name]:.0%} are right")
lesson.reveal("percent of unseen texts right, after true labels", round(100 * unseen["true labels"]), "%")

# %% claim
if not lesson.FAST:
    assert 0.48 < unseen["coin flips"] < 0.54 and 0.55 < unseen["true labels"] < 0.61

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Both runs store nearly all 128 bits. Only *unseen* texts show which labels follow a rule:** after coin flips, half of the answers are right, as if guessed. After true labels, more are: a rule works on new texts. But 128 short texts teach a weak one.
# </details>
#
# ## Do more labels help?
# Now LoRA (rank 8, `q,v`) reads whole reviews. Its rival is a **probe**: a linear classifier on the frozen model's output vectors. Each method runs five times, on different reviews. (Gray rivals: full fine-tuning and lesson 05's prompt tuning.)
#
# With 80 labels, LoRA gets 64.8<!--few.lora.80-->% right. With a free day, you can try other methods or label 240 more reviews. **How many points would LoRA gain from these labels?**

# %%
lesson.predict("points that 240 more labels add", low=..., high=...)

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
    plt.text(1700, means[method, 1280], method, color=color, va="bottom" if method == "full" else "top")
plt.gca().set(xscale="log", xlabel="labels, and the verdict (margin: 1.5 points)", ylabel="right, % of 2,000 test reviews", xlim=(14, 6500))
plt.xticks(list(few), [f"{n:,}\n{word}".replace("worse", "LoRA\nbetter") for n, word in said.items()], size=9)
plt.minorticks_off()
plt.title("Is LoRA better than the cheap probe?", loc="left")
lesson.reveal("points that 240 more labels add", means["LoRA r8 q,v", 320] - means["LoRA r8 q,v", 80], "points")

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
# **Spend the day on labels: LoRA gains 9.8 points.** With 80 labels, the best other method, the probe, is only 1.5 points ahead.
#
# **With 20 labels, the probe leads by 4.3 points, and with 320, LoRA leads by 4.3. Only the second lead is decided:** with 20 labels, some dots (one per run) overlap, and one of three rivals may lead by luck. With 320, every LoRA run beats every probe run.
#
# (We tuned each method with 500 other labels, which you wouldn't have.)
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# *"Rank 1 is enough"* is false here for 512 coin flips and thirty passes: with the head, it remembers only 339. *"LoRA needs little data"* is false here: with 80 labels, no method does well (LoRA: 64.8<!--few.lora.80-->%).
#
# 1. **After thirty passes, a small adapter stores about a quarter of a bit per number. More passes store more.** *Ours: ranks 1, 2 and 4 on one matrix of MiniLM, three seeds (sixty passes: rank 1, one run). Published: 2 bits per number after much longer training (Allen-Zhu and Li 2024, cited in LoRA Without Regret).*
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
