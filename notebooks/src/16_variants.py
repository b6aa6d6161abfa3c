# %% [markdown]
# # 16 · Is there a better LoRA?
#
# Every month, a paper says: *our variant beats LoRA*. But some comparisons train all methods at one rate. We tuned the rate of each method. **Which variants are better than LoRA?**
#
# Plain LoRA is $y=Wx+\frac{\alpha}{r}BAx$. First, we compare five variants:
#
# | variant | what changes |
# |---|---|
# | LoRA+ `lr_ratio=16` | $B$ trains at 16 times the rate of $A$ |
# | rsLoRA `rslora=True` | $\alpha/\sqrt r$ replaces $\alpha/r$ |
# | LoRA-FA `freeze_a=True` | $A$ stays random; only $B$ trains |
# | DoRA `dora=True` | each row of $W+\frac{\alpha}{r}BA$ gets one more trained number: the row's length |
# | PiSSA `init="pissa"` | $BA$ starts as the strongest pieces of $W$; the rest of $W$ is frozen |
#
# ## Three guesses
# MiniLM learns from 1,600 movie reviews, with rank 8 on `q,v`. Give ranges that you're 80% sure of.
#
# 1. LoRA and the five variants all train at the same rate, which you choose. **How many of these six methods can win at some rate?**
# 2. Now each method has its own best rate, and three smaller variants join. **How many of the eight are better than plain LoRA**, by more than luck can explain?
# 3. TinyLoRA, one of the three, trains only 768 numbers and the head; LoRA trains 73,728 and the head. **How many points is TinyLoRA behind LoRA?**

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.checks.variants import EIGHT, LABELS, PLAIN
from lora_lab import ComparePanel, LoRA, train, verdicts
from lora_lab.experiments.margins import scores_in

lesson.start("16")
stored = lesson.reference_comparison("minilm_rt_variants")
methods = pd.DataFrame(stored["methods"]).set_index("label")
lesson.predict("methods that win at some rate", low=..., high=...)
lesson.predict("variants better than plain LoRA", low=..., high=...)
lesson.predict("points by which TinyLoRA lags", low=..., high=...)

# %% [markdown]
# ## How to make a winner
# First, all methods get the same rate. **Who wins at the lowest rate, and who at the highest? Why?**
#
# The table `shared` shows how many points each variant is ahead of plain LoRA.

# %% alt="Validation accuracy of LoRA and five variants against a learning rate that all of them share. LoRA is a wide gray band, and DoRA's curve lies on it. rsLoRA's curve has the same shape, but at lower rates. The winner of each rate is named: LoRA+ at the two smallest rates, LoRA-FA at the largest, and others in between."
names = {label: name for name, label in LABELS.items()} | {PLAIN: "LoRA"}
curves = {names[label]: {one["lr"]: 100 * one["validation"] for one in methods.tried[label]} for label in names}
curves = pd.DataFrame(curves).dropna()
winners = curves.idxmax(axis=1)
plt.figure(figsize=(4.8, 4.2), layout="constrained")
for name, mark, color in zip(curves, "so^vDo", ("C1", "C5", "C2", "C4", "C0", "0.75")):
    plt.plot(curves[name], marker=mark, color=color, label=name, **({"linewidth": 7, "zorder": 1} if name == "LoRA" else {}))
for rate, name in winners.items():
    plt.text(rate, curves[name][rate] + 1, name, ha="center", weight="bold", fontsize=9)
plt.gca().set(xscale="log", xlabel="one rate for all methods; above: its winner", ylabel="validation accuracy, %", ylim=(48, 81))
plt.figlegend(loc="outside lower center", ncols=3)
plt.xticks(curves.index, curves.index), plt.minorticks_off()
plt.show()

# %%
shared = curves.sub(curves["LoRA"], axis=0).drop(columns="LoRA").round(1)
lesson.reveal("methods that win at some rate", winners.nunique())
shared

# %% [markdown]
# ## Somebody else's table
# **Exercise 1.** In [PEFT's public table](https://github.com/huggingface/peft/tree/main/method_comparison) (Llama-3.2-3B, rank 64), rsLoRA with $\alpha=64$ solves 51.3% of the questions, and LoRA with $\alpha=128$ solves 47.4%. Is rsLoRA better? At a fixed rank, rsLoRA *is* plain LoRA with a different $\alpha$. Compute plain LoRA's $\alpha$ from rsLoRA's $\alpha$ and the rank.


# %% exercise
def alpha_of_plain(alpha, rank):
    return ...


checks.check_as_plain(alpha_of_plain)


# %% solution
def alpha_of_plain(alpha, rank):
    return alpha * rank**0.5


checks.check_as_plain(alpha_of_plain)

# %% [markdown]
# <details><summary>Is rsLoRA better?</summary>
#
# **PEFT's table** (July 2026; one rate, one seed per method) **doesn't show this.** It compares $\alpha=64\sqrt{64}=512$ with $\alpha=128$, but the best rate depends on $\alpha$. And on 1,319 questions, luck can explain up to 3.8 points, nearly the whole gap of 3.9.
# </details>
#
# ## Give each its own rate
# Three variants train far fewer numbers:
#
# - `VeRA(rank=256)`: all layers share one random $A$ and $B$, both frozen; each layer trains two vectors that scale them.
# - `LoRAXS(rank=16)`: $A$ and $B$ are the strongest pieces of $W$, both frozen; a small square matrix between them trains.
# - `TinyLoRA(rank=2)`: like LoRA-XS, but the square matrix is a sum of frozen random matrices, each times a trained number.
#
# The panel also shows LoRA on all linear layers, and IA3, which trains only factors that scale activations.
#
# Now each method has the best of the six or eight rates that we tried for it. We train it with five new seeds and test it on 2,000 reviews. **How many of the eight variants get the verdict *better*?** Click each interval. And which method trains far fewer numbers than LoRA, but is *equivalent* to it? (The margin is 1.5 points. The panel makes ten tests, so its verdicts use Holm's correction.)

# %% hide-input
scores = scores_in(stored)
fair = verdicts(scores, against=PLAIN, margin=0.015)  # also with five methods that the panel leaves out
lesson.reveal("variants better than plain LoRA", sum(fair[label].outcome == "better" for label in EIGHT))
lesson.reveal("points by which TinyLoRA lags", -100 * fair["tinylora"].difference, "points")
shown = [PLAIN, *EIGHT, "LoRA r8 all-linear", "ia3"]
panel = ComparePanel(reference=stored | {"methods": [one for one in stored["methods"] if one["label"] in shown]})
panel.method, panel.rival = "tinylora", PLAIN
panel

# %% claim
outcomes = {label: one.outcome for label, one in fair.items()}
letters = {"better": "b", "worse": "w", "equivalent": "e", "undecided": "u"}  # the panel, with 10 pairs, says the same
at, pairs = panel.stored["margins"].index(0.015), panel.stored["against"][PLAIN]
assert {label: one["together"][at] for label, one in pairs.items()} == {label: letters[outcomes[label]] for label in shown[1:]}
assert "better" not in {outcomes[label] for label in EIGHT}
assert {label for label in EIGHT if outcomes[label] == "worse"} == {"lora-xs", "tinylora"}
assert outcomes["ia3"] == "equivalent" and methods.trainable["ia3"] == 13_824
ends = {label: [100 * fair[label].low95, 100 * fair[label].high95] for label in EIGHT if outcomes[label] == "undecided"}
assert round(min(ends.items(), key=lambda one: one[1])[1][0], 1) == -4.1 and round(max(e[1] for e in ends.values()), 1) == 1.7
assert winners[0.001] == "rsLoRA"
assert winners.nunique() == 5 and "DoRA" not in set(winners)
for label in (LABELS["rsLoRA"], LABELS["DoRA"]):
    alone = verdicts({name: scores[name] for name in (PLAIN, label)}, PLAIN, 0.015)[label]
    assert alone.outcome == "equivalent" != outcomes[label] == "undecided"
assert outcomes["full"] == outcomes["probe"] == outcomes["prompt"] == "undecided" and methods.made["probe"]["examples"] == 1600
second, first = np.sort(curves.to_numpy())[:, -2:].T
assert set(winners[first - second > 0.5]) == {"LoRA+", "LoRA-FA"}
assert [*curves.index] == [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008] and round((first - second)[2:5].max(), 1) == 0.4
x, moved = np.log2(curves.index), {}  # LoRA's curve at rates that are `factor` times as high, against rsLoRA's
for factor in np.linspace(1, 2, 11):
    moved[round(factor, 1)] = np.abs(np.interp(x[:5] + np.log2(factor), x, curves["LoRA"]) - curves["rsLoRA"][:5]).max()
assert min(moved, key=moved.get) == 1.4 and moved[1.4] < 2.5 and moved[1.0] > 9.7 and moved[2.0] > 11
assert 96 * 768 == 73728
assert round(196 * ((0.513 * 0.487 + 0.474 * 0.526) / 1319) ** 0.5, 1) == 3.8 < 51.3 - 47.4
assert methods.peak_bytes["vera"] > methods.peak_bytes[PLAIN] and round(methods.peak_bytes["full"] / 2**20) == 347
worst, second, *_ = sorted(methods.accuracy[label := "LoRA r8 all-linear"]["each"])
assert worst < 0.51 < 0.7 < second and outcomes[label] == "undecided"
assert all(len(methods.tried[label]) in (6, 8) for label in [PLAIN, *EIGHT])

# %%
# This takes a minute: try any variant at any rate. Then add seed=1: does it agree?
rate, rivals, store = 1e-3, {"LoRA": LoRA(), "mine": LoRA(init="pissa")}, lesson.workplace("16")
for name, method in rivals.items():
    run = train("minilm", lesson.small("rt", store), method, lr=rate, steps=lesson.steps(200, 12), batch=8, validations=0,
                store=store)
    print(f"{name}: {run.metrics['accuracy']:.1%} of the test sentences")

# %% [markdown]
# **Exercise 2.** Suppose that a paper tunes only its own `variant`, and copies LoRA's `rate` from elsewhere. How many points ahead is the variant then on validation (`curves`, in percent)? And how many on the *test* reviews, if both are tuned (`fair[LABELS[variant]]`, in fractions)? Give points with one decimal.

# %% exercise
variant, rate = lesson.draw("variant", *LABELS), lesson.draw("rate", 5e-4, 2.5e-4, 8e-3)
print("variant:", variant, "  LoRA's rate:", rate)
checks.check_flattered(untuned=..., tuned=..., variant=variant, rate=rate)

# %% solution
variant, rate = lesson.draw("variant", *LABELS), lesson.draw("rate", 5e-4, 2.5e-4, 8e-3)
print("variant:", variant, "  LoRA's rate:", rate)
untuned, tuned = curves[variant].max() - curves["LoRA"][rate], 100 * fair[LABELS[variant]].difference
checks.check_flattered(round(untuned, 1), round(tuned, 1), variant, rate)

# %% [markdown]
# <details><summary>What we found</summary>
#
# - **With one rate for all, 5<!--variant.winners--> of the 6 methods can win.** At the lowest rate, plain LoRA has hardly learned anything, so LoRA+ looks 17.3<!--variant.flattered--> points better. But from 0.001 to 0.004, each winner leads by at most 0.4 points, which may be luck.
# - **If each method has its own rate, none of the eight variants is shown to be better than plain LoRA.** LoRA-XS and TinyLoRA are worse. The other six are *undecided*: their 95% intervals range from 4.1 points behind LoRA (LoRA-FA) to 1.7 points ahead (PiSSA).
# - **The best rates differ.** Judged by loss (as in lesson 15), LoRA-FA's best rate is 3.4<!--regret.fa--> times plain LoRA's (95% interval: 1.4<!--regret.fa.low--> to 8.1<!--regret.fa.high-->). LoRA+'s best rate is 0.23<!--regret.plus--> times plain LoRA's (0.078<!--regret.plus.low--> to 0.65<!--regret.plus.high-->).
# - **Few numbers can be enough.** IA3 trains only 13,824 numbers, and is *equivalent* to LoRA.
# - LoRA on all linear layers is *undecided*: one of its five seeds is near 50%.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Start with plain LoRA, and spend your time on its rate.** *Ours (MiniLM, 1,600 reviews, rank 8): six of eight variants are undecided, and two are worse. Published: on larger models, nine tuned variants are within 1 to 2% of each other ([Learning Rate Matters](https://arxiv.org/abs/2602.04998), abstract).*
# 2. **A variant's best rate can differ from LoRA's.** Tune both, with the same number of tries.
# 3. **Variants that train fewer numbers save hardly any memory**, because the frozen model and its activations stay. **They don't always save disk space.** A LoRA file takes 302<!--variant.lora.file--> kB, and a TinyLoRA file takes only 98<!--variant.tinylora.file--> kB. But a VeRA file contains the frozen matrices and takes 824<!--variant.vera.file--> kB.
#
# The same in PEFT:
# ```python
# config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
# # or add use_rslora=True, use_dora=True, or init_lora_weights="pissa"; or VeraConfig(r=256, ...)
# model = get_peft_model(model, config)
# optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=5e-4, loraplus_lr_ratio=16)  # LoRA+: a lower rate
# ```
# </details>

# %%
lesson.receipt()
