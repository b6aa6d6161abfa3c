# %% [markdown]
# # 16 · Is there a better LoRA?
#
# Every month, a paper says: *our variant beats LoRA*. Let's write such a paper. Here are five variants of plain LoRA, $y=Wx+\frac{\alpha}{r}BAx$:
#
# | variant | what changes |
# |---|---|
# | LoRA+ `lr_ratio=16` | $B$ trains at 16 times the rate of $A$ |
# | rsLoRA `rslora=True` | $\alpha$ is divided by the square root of $r$, not by $r$ |
# | LoRA-FA `freeze_a=True` | $A$ stays random; only $B$ trains |
# | DoRA `dora=True` | each row of $W+\frac{\alpha}{r}BA$ gets one more trained number: the row's length |
# | PiSSA `init="pissa"` | $BA$ starts as the strongest pieces of $W$; the rest of $W$ is frozen |
#
# ## Write a paper
# Imagine that you invented one of them. You train your variant and plain LoRA at **one learning rate for both**. That sounds fair. And you choose the rate.
#
# We trained all six methods at the same six rates (MiniLM, 1,600 movie reviews, rank 8 on `q,v`, three seeds). **How many of the five variants beat LoRA at some rate** by more than 2 points? (Smaller gaps may be luck: lesson 03.) Give a range that you're 80% sure of.

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.checks.variants import LABELS, NINE, PLAIN
from lora_lab import ComparePanel, LoRA, train, verdicts
from lora_lab.experiments.margins import scores_in

lesson.start("16")
stored = lesson.reference_comparison("minilm_rt_variants")
methods = pd.DataFrame(stored["methods"]).set_index("label")
lesson.predict("variants that beat LoRA at some rate", low=..., high=...)

# %%
names = {PLAIN: "LoRA"} | {label: name for name, label in LABELS.items()}
curves = {names[label]: {one["lr"]: 100 * one["validation"] for one in methods.tried[label]} for label in names}
curves = pd.DataFrame(curves).sort_index()  # validation accuracy in percent: rates x methods
ahead = curves.sub(curves["LoRA"], axis=0).drop(columns="LoRA").dropna().round(1)  # points
lesson.reveal("variants that beat LoRA at some rate", sum(ahead.max() > 2))
ahead

# %% [markdown]
# The table shows how many points each variant is ahead of plain LoRA. Look at a column: the same variant wins at one rate and loses at another. **Why?**

# %% alt="Validation accuracy of LoRA and five variants against a learning rate that all of them share. All curves rise to nearly the same height and then fall, but LoRA+ does so at lower rates, and LoRA-FA at higher rates. Where LoRA's curve is low, another curve is high: LoRA+ leads by 17.3 points at the lowest rate, and LoRA-FA by 15.9 at the highest shared rate; at two higher rates, LoRA-FA falls, too. In the legend, each method's best accuracy: LoRA 77.5, LoRA+ 76.0, rsLoRA 76.4, LoRA-FA 75.0, DoRA 77.1, PiSSA 76.5."
plt.figure(figsize=(4.8, 4.6), layout="constrained")
for name, mark, color in zip(curves, "os^vDp", ("0.75", "C1", "C5", "C2", "C4", "C0")):
    wide = {"linewidth": 7, "zorder": 1} if name == "LoRA" else {}
    plt.plot(curves[name], marker=mark, color=color, label=f"{name}: best {curves[name].max():.1f}", **wide)
for rate, lead in ahead.max(axis=1).items():
    winner = ahead.loc[rate].idxmax()
    if lead > 2:
        plt.text(rate, curves[winner][rate] + 1, f"{winner}\n+{lead}", ha="center", weight="bold", fontsize=9)
plt.text(0.002, 79, "leads below 0.5: luck", ha="center", color="#666666", fontsize=9)
plt.title("Nearly the same height, at different rates")
plt.gca().set(xscale="log", xlabel="one learning rate for all (two more for LoRA-FA)", ylabel="validation accuracy, %", xlim=(1.7e-4, 4e-2), ylim=(48, 82))
plt.figlegend(loc="outside lower center", ncols=2, fontsize=9)
plt.xticks(curves.index, [f"{rate:g}" for rate in curves.index], fontsize=7.5), plt.minorticks_off()
plt.show()

# %% [markdown]
# **Exercise 1: write your abstract.** The code below picks your `variant`. At which `rate` does it look best? Then be honest: how many points is it ahead if it and LoRA each have their own best rate (`tuned`, from the legend)?

# %% exercise
variant = lesson.draw("variant", "LoRA+", "LoRA-FA", "rsLoRA")
print("you invented", variant)
checks.check_flattered(rate=..., tuned=..., variant=variant)

# %% solution
variant = lesson.draw("variant", "LoRA+", "LoRA-FA", "rsLoRA")
print("you invented", variant)
tuned = curves[variant].max() - curves["LoRA"].max()
checks.check_flattered(rate=ahead[variant].idxmax(), tuned=round(tuned, 1), variant=variant)

# %%
# LoRA+'s paper, live (a minute): two runs at one rate. The third run is missing from the paper: LoRA at its own best rate
store = lesson.workplace("16")
for name, method, rate in ("LoRA", LoRA(), 2.5e-4), ("LoRA+", LoRA(lr_ratio=16), 2.5e-4), ("LoRA", LoRA(), 4e-3):
    run = train("minilm", lesson.small("rt", store), method, lr=rate, steps=lesson.steps(200, 12), batch=8, validations=0, store=store)
    print(f"{name} at {rate}: {run.metrics['accuracy']:.1%} of the test sentences")

# %% [markdown]
# <details><summary>What we found: one rate for all</summary>
#
# **Whoever chooses the rate chooses the winner: 3<!--variant.winners--> of the 5 variants can beat LoRA.** At the lowest rate, plain LoRA is too slow (58.2%), so LoRA+ looks 17.3<!--variant.flattered--> points better. At 0.008, LoRA breaks down (59.1%), so LoRA-FA looks 15.9 points better. **These variants move the best rate. They don't raise the best accuracy.**
# </details>
#
# ## A real table
# **Exercise 2.** In [PEFT's public table](https://github.com/huggingface/peft/tree/main/method_comparison) (Llama-3.2-3B, rank 64), rsLoRA with $\alpha=64$ solves 51.3% of the questions. LoRA with $\alpha=128$ solves 47.4%. (The LoRA of lesson 02 has rank 32 and solves 47.8%.) Is rsLoRA better? At a fixed rank, rsLoRA *is* plain LoRA with a different $\alpha$. Compute plain LoRA's $\alpha$ from rsLoRA's $\alpha$ and the rank. **Then look back at the picture: why does rsLoRA's curve fall at a lower rate than LoRA's?**


# %% exercise
def alpha_of_plain(alpha, rank):
    return ...


checks.check_as_plain(alpha_of_plain)


# %% solution
def alpha_of_plain(alpha, rank):
    return alpha * rank**0.5


checks.check_as_plain(alpha_of_plain)

# %% [markdown]
# <details><summary>What we found: a real table</summary>
#
# **The table can't tell** (July 2026; one rate, one seed per method). It compares LoRA with $\alpha=512$ to LoRA with $\alpha=128$. But four times the $\alpha$ needs about half the rate (lesson 15). And on 1,319 questions, luck can explain up to 3.8 points, nearly the whole gap of 3.9.
#
# **And the picture?** At rank 8, rsLoRA with $\alpha=16$ is plain LoRA with $\alpha=45$. By lesson 15's rule, its best rate is LoRA's divided by 1.7. Indeed, its curve peaks one rate lower, at 0.002.
# </details>
#
# ## Give each its own rate
# Now each method uses its own best rate, out of six or eight. We train it with five new seeds and test it on 2,000 reviews. Four smaller methods join in:
#
# - `VeRA(rank=256)`: all layers share one random $A$ and $B$, both frozen; each layer trains two vectors that scale them.
# - `LoRAXS(rank=16)`: $A$ and $B$ are the strongest pieces of $W$, both frozen; a small square matrix between them trains.
# - `TinyLoRA(rank=2)`: like LoRA-XS, but only 768 numbers train (LoRA: 73,728).
# - `IA3()`: trains only factors that scale the activations (13,824 numbers).
#
# (All methods also train the head. The panel adds the head's 770 numbers.)
#
# **How many of the nine get the verdict *better* than LoRA? How many points is TinyLoRA behind?** And which of the nine is *equivalent* to LoRA (within 1.5 points)?

# %%
lesson.predict("variants better than plain LoRA", low=..., high=...)
lesson.predict("points by which TinyLoRA lags", low=..., high=...)

# %% hide-input
scores = scores_in(stored)
fair = verdicts({label: scores[label] for label in (PLAIN, *NINE)}, against=PLAIN, margin=0.015)  # with Holm's correction
lesson.reveal("variants better than plain LoRA", sum(fair[label].outcome == "better" for label in NINE))
lesson.reveal("points by which TinyLoRA lags", -100 * fair["tinylora"].difference, "points")
panel = ComparePanel(reference=stored | {"methods": [one for one in stored["methods"] if one["label"] in (PLAIN, *NINE)]})
panel.method, panel.rival = "tinylora", PLAIN
panel

# %% claim
outcomes = {label: one.outcome for label, one in fair.items()}
letters = {"better": "b", "worse": "w", "equivalent": "e", "undecided": "u"}  # the panel says the same
at, pairs = panel.stored["margins"].index(0.015), panel.stored["against"][PLAIN]
assert {label: one["together"][at] for label, one in pairs.items()} == {label: letters[outcomes[label]] for label in NINE}
assert len(NINE) == 9 and all(one.difference < 0 for one in fair.values())
assert {label: word for label, word in outcomes.items() if word != "undecided"} == {"lora-xs": "worse", "tinylora": "worse", "ia3": "equivalent"}
sizes = methods.trainable[[PLAIN, LABELS["LoRA-FA"], "ia3", "vera", "lora-xs", "tinylora"]].tolist()
assert sizes == [73_728, 36_864, 13_824, 7_680, 3_072, 768] and 5 * 13_824 < 73_728 and set(methods["head"][:3]) == {770}
ends = {label: [100 * fair[label].low95, 100 * fair[label].high95] for label in NINE if outcomes[label] == "undecided"}
assert round(min(ends.items(), key=lambda one: one[1])[1][0], 1) == -4.1 and round(max(e[1] for e in ends.values()), 1) == 1.7
assert {name: f"{lead:.1f}" for name, lead in ahead.max().items()} == {"LoRA+": "17.3", "rsLoRA": "9.8", "LoRA-FA": "15.9", "DoRA": "0.3", "PiSSA": "1.6"}
assert ahead["LoRA-FA"].idxmax() == 0.008 == ahead.index.max() and ahead["LoRA+"].idxmax() == 0.00025 == curves.index.min()
assert ahead.loc[[0.001, 0.002, 0.004]].max(axis=None) < 0.5 and curves["LoRA"].idxmax() == 0.004
assert curves.max().round(1).tolist() == [77.5, 76.0, 76.4, 75.0, 77.1, 76.5] and curves["LoRA"].round(1)[[0.00025, 0.008]].tolist() == [58.2, 59.1]
assert round(196 * ((0.513 * 0.487 + 0.474 * 0.526) / 1319) ** 0.5, 1) == 3.8 < 51.3 - 47.4
assert round(16 * 8**0.5) == 45 and f"{8**0.25:.1f}" == "1.7" and curves["rsLoRA"].idxmax() == 0.002 and curves["LoRA-FA"].idxmax() == 0.008
inside = [label for label, one in fair.items() if max(-one.low, one.high) < 0.015]  # 90% intervals
assert {*inside} == {LABELS["rsLoRA"], LABELS["DoRA"], "ia3"}, inside
assert all(len(methods.tried[label]) in (6, 8) for label in (PLAIN, *NINE)) and methods.made["probe"]["examples"] == 1600

# %% [markdown]
# <details><summary>What we found: each method at its own rate</summary>
#
# **None of the nine is better than plain LoRA.** None is even ahead on average. LoRA-XS and TinyLoRA are worse. IA3 is *equivalent*, although it trains less than a fifth of LoRA's numbers. The other six are *undecided*. (rsLoRA's and DoRA's 90% intervals lie within 1.5 points, too. But nine comparisons give luck nine chances, so each verdict needs more evidence.) The 95% intervals of these six range from 4.1 points behind LoRA (LoRA-FA) to 1.7 points ahead (PiSSA).
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Start with plain LoRA, and spend your time on its rate.** *Ours (MiniLM, 1,600 reviews, rank 8): none of nine tuned methods is better. Published: on larger models, nine tuned variants are within 1 to 2% of each other ([Learning Rate Matters](https://arxiv.org/abs/2602.04998), abstract).*
# 2. **Before you believe that a variant wins, ask how LoRA's rate was chosen.** A variant's best rate can differ from LoRA's. *Ours, by loss: LoRA+'s is 0.23<!--regret.plus--> times LoRA's (95% interval: 0.078<!--regret.plus.low--> to 0.65<!--regret.plus.high-->), LoRA-FA's is 3.4<!--regret.fa--> times LoRA's (1.4<!--regret.fa.low--> to 8.1<!--regret.fa.high-->).*
# 3. **A variant that trains fewer numbers can still need a larger file or more memory.** A file can contain frozen matrices, and activations stay in memory. *Ours:*
#
#    |method|trained numbers|file, kB|memory, MiB|
#    |---|---|---|---|
#    |LoRA|73,728|302<!--variant.lora.file-->|73<!--variant.lora.peak-->|
#    |LoRA-FA|36,864|302<!--variant.lora-fa.file-->|71<!--variant.lora-fa.peak-->|
#    |IA3|13,824|61<!--variant.ia3.file-->|85<!--variant.ia3.peak-->|
#    |VeRA|7,680|824<!--variant.vera.file-->|82<!--variant.vera.peak-->|
#    |LoRA-XS|3,072|907<!--variant.lora-xs.file-->|71<!--variant.lora-xs.peak-->|
#    |TinyLoRA|768|98<!--variant.tinylora.file-->|70<!--variant.tinylora.peak-->|
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
