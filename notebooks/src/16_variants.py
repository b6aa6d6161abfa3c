# %% [markdown]
# # 16 · Is there a better LoRA?
#
# Every month, a paper says: *our variant beats LoRA*. Some comparisons train all methods at one rate. We tuned each method's rate. **Which variants are better?**
#
# ## Three guesses
# MiniLM learns from 1,600 movie reviews, with rank 8 on `q,v`. For each method, we took the best of six to eight rates. Then we scored five new seeds on 2,000 test sentences. The margin is 1.5 points. Be 80% sure.
#
# 1. Choose *one* rate for LoRA and five variants. **How many of these six methods can you make win?**
# 2. **How many of eight variants are better than plain LoRA,** each at its best rate?
# 3. Besides the head, TinyLoRA trains 768 numbers, and LoRA trains 96 times as many. **How many points is TinyLoRA behind LoRA?**

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
# First, all methods get the same rate. LoRA+ trains $B$ at 16 times $A$'s rate; LoRA-FA freezes $A$. **Which rate would you choose to make LoRA+ look best? And LoRA-FA?**
#
# The table below, `shared`, shows each variant's lead over plain LoRA, in points.

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
# ## What the variants change
# Plain LoRA is $y=Wx+\frac{\alpha}{r}BAx$.
#
# | variant | what changes |
# |---|---|
# | LoRA+ `lr_ratio=16` | $B$ trains at 16 times $A$'s rate |
# | rsLoRA `rslora=True` | $\alpha/\sqrt r$ replaces $\alpha/r$ |
# | LoRA-FA `freeze_a=True` | $A$ stays random; only $B$ trains |
# | DoRA `dora=True` | for each row of $W+\frac{\alpha}{r}BA$, one more trained number sets its length |
# | PiSSA `init="pissa"` | $BA$ starts as $W$'s strongest pieces; the rest of $W$ is frozen |
# | VeRA `VeRA(rank=256)` | all layers share a frozen random $A$ and $B$; each layer trains two vectors that scale them |
# | LoRA-XS `LoRAXS(rank=16)` | $A$ and $B$ are $W$'s strongest pieces, frozen; a small square matrix between them trains |
# | TinyLoRA `TinyLoRA(rank=2)` | like LoRA-XS, but the square is a sum of frozen random squares, each times a trained number |
#
# **Exercise 1.** In [PEFT's public table](https://github.com/huggingface/peft/tree/main/method_comparison) (Llama-3.2-3B, rank 64), rsLoRA with $\alpha=64$ solves 51.3% of the questions, and LoRA with $\alpha=128$ solves 47.4%. Is rsLoRA better? At any one rank, it *is* plain LoRA with a different $\alpha$. Compute that $\alpha$ from rsLoRA's.


# %% exercise
def alpha_of_plain(alpha, rank):
    return ...


checks.check_as_plain(alpha_of_plain)


# %% solution
def alpha_of_plain(alpha, rank):
    return alpha * rank**0.5


checks.check_as_plain(alpha_of_plain)

# %% [markdown]
# ## Give each its own rate
# Now each method has its best rate. **How many of the eight variants are better than plain LoRA?** Click each interval. (The verdicts allow for 10 tests: Holm's correction, lesson 13.)

# %% hide-input
scores = scores_in(stored)
fair = verdicts(scores, against=PLAIN, margin=0.015)  # also with five methods that the panel leaves out
lesson.reveal("variants better than plain LoRA", sum(fair[label].outcome == "better" for label in EIGHT))
lesson.reveal("points by which TinyLoRA lags", -100 * fair["tinylora"].difference, "points")
shown = [PLAIN, *EIGHT, "LoRA r8 all-linear", "ia3"]
panel = ComparePanel(reference=stored | {"methods": [one for one in stored["methods"] if one["label"] in shown]})
panel.rival = PLAIN
panel

# %% claim
outcomes = {label: one.outcome for label, one in fair.items()}
letters = {"better": "b", "worse": "w", "equivalent": "e", "undecided": "u"}  # the panel, with 10 pairs, says the same
at, pairs = panel.stored["margins"].index(0.015), panel.stored["against"][PLAIN]
assert {label: one["together"][at] for label, one in pairs.items()} == {label: letters[outcomes[label]] for label in shown[1:]}
assert "better" not in {outcomes[label] for label in EIGHT}
assert {label for label in EIGHT if outcomes[label] == "worse"} == {"lora-xs", "tinylora"}
assert outcomes["ia3"] == "equivalent"
ends = {label: [100 * fair[label].low95, 100 * fair[label].high95] for label in EIGHT if outcomes[label] == "undecided"}
assert round(min(ends.items(), key=lambda one: one[1])[1][0], 1) == -4.1 and round(max(e[1] for e in ends.values()), 1) == 1.7
assert winners.nunique() == 5 and "DoRA" not in set(winners)
for label in (LABELS["rsLoRA"], LABELS["DoRA"]):
    alone = verdicts({name: scores[name] for name in (PLAIN, label)}, PLAIN, 0.015)[label]
    assert alone.outcome == "equivalent" != outcomes[label] == "undecided"
assert outcomes["full"] == outcomes["probe"] == outcomes["prompt"] == "undecided" and methods.made["probe"]["examples"] == 1600
second, first = np.sort(curves.to_numpy())[:, -2:].T
assert set(winners[first - second > 0.5]) == {"LoRA+", "LoRA-FA"}
x, moved = np.log2(curves.index), {}  # LoRA's curve at rates that are `factor` times as high, against rsLoRA's
for factor in np.linspace(1, 2, 11):
    moved[round(factor, 1)] = np.abs(np.interp(x[:5] + np.log2(factor), x, curves["LoRA"]) - curves["rsLoRA"][:5]).max()
assert min(moved, key=moved.get) == 1.4 and moved[1.4] < 2.5 and moved[1.0] > 9.7 and moved[2.0] > 11
assert f"{8**0.5:.1f} {8**0.25:.1f}" == "2.8 1.7"
assert round(methods.peak_bytes["ia3"] / 2**20) == 85 and round(methods.peak_bytes[LABELS["DoRA"]] / 2**20) == 82
assert round(196 * ((0.513 * 0.487 + 0.474 * 0.526) / 1319) ** 0.5, 1) == 3.8 < 51.3 - 47.4
assert methods.peak_bytes["vera"] > methods.peak_bytes[PLAIN] and round(methods.peak_bytes["full"] / 2**20) == 347
worst, second, *_ = sorted(methods.accuracy[label := "LoRA r8 all-linear"]["each"])
assert worst < 0.51 < 0.7 < second and outcomes[label] == "undecided" and round(-100 * fair[label].difference, 1) == 5.8
assert (methods.lr[PLAIN], methods.lr[LABELS["rsLoRA"]]) == (0.004, 0.002)
assert all(len(methods.tried[label]) in (6, 8) for label in [PLAIN, *EIGHT])

# %%
# This takes a minute: try any variant at any rate. Then add seed=1: does it agree?
rate, rivals, store = 1e-3, {"LoRA": LoRA(), "mine": LoRA(init="pissa")}, lesson.workplace("16")
for name, method in rivals.items():
    run = train("minilm", lesson.small("rt", store), method, lr=rate, steps=lesson.steps(200, 12), batch=8, validations=0,
                store=store)
    print(f"{name}: {run.metrics['accuracy']:.1%} of the test sentences")

# %% [markdown]
# **Exercise 2.** Your paper is about `variant`, drawn for you. Which rate in `shared` makes it look best? And how many points is it ahead of plain LoRA on *test* if each has its own rate? (`fair[LABELS[variant]]` holds fractions; give points, with one decimal.)

# %% exercise
variant = lesson.draw("variant", *LABELS)
checks.check_flattered(rate=..., points=..., variant=variant)

# %% solution
variant = lesson.draw("variant", *LABELS)
checks.check_flattered(rate=shared[variant].idxmax(), points=round(100 * fair[LABELS[variant]].difference, 1), variant=variant)

# %% [markdown]
# <details><summary>What we found</summary>
#
# - **None of the eight is shown to be better than plain LoRA** if each has its own rate. LoRA-XS and TinyLoRA are worse. Six verdicts are *undecided*: the 95% intervals reach from 4.1 points behind LoRA (LoRA-FA) to 1.7 ahead (PiSSA).
# - **With one rate for all, 5<!--variant.winners--> of the six can win,** but three win by less than half a point. At the lowest rate, plain LoRA has hardly learned anything, so LoRA+ looks 17.3<!--variant.flattered--> points better.
# - **rsLoRA's curve is close to LoRA's, moved to lower rates.** Its scaling is $\sqrt8=2.8$ times LoRA's, so lesson 15's formula divides the rates by $\sqrt{2.8}=1.7$. The whole curve fits best with 1.4 (within 2.5 points). The panel's chosen rates say 2, but each tried rate is twice the one before.
# - **Best rates differ.** By loss (lesson 15), LoRA-FA's is 3.4<!--regret.fa--> times plain LoRA's (95% interval: 1.4<!--regret.fa.low--> to 8.1<!--regret.fa.high-->), and LoRA+'s is 0.23<!--regret.plus--> times (0.078<!--regret.plus.low--> to 0.65<!--regret.plus.high-->).
# - **IA3 trains only vectors that scale activations.** It isn't one of the eight. It's equivalent to LoRA with a fifth of the trained numbers, but it needs 85<!--variant.ia3.peak--> MiB of memory, and LoRA 73<!--variant.lora.peak-->.
# - **One bad seed spoils a mean.** One of five runs of LoRA on all linear layers is near 50%. So the verdict is *undecided*, although the mean is 5.8 points behind.
#
# **And PEFT's table** (July 2026; one rate, one seed)? **It doesn't show that rsLoRA is better.** It compares $\alpha=64\sqrt{64}=512$ with $\alpha=128$, and the best rate depends on $\alpha$. With 1,319 questions, luck explains up to 3.8 points, and the gap is hardly more: 3.9. And two runs can't judge two methods: another seed may differ.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Start with plain LoRA, and spend your time on its rate.** *Ours (MiniLM, 1,600 sentences, rank 8): for six of eight variants, the verdict is undecided; two are worse. Published: on larger models, nine tuned variants are within 1 to 2% of each other ([Learning Rate Matters](https://arxiv.org/abs/2602.04998), abstract).*
# 2. **A variant's best rate can differ from LoRA's.** Tune both, with the same number of tries.
# 3. **Variants that train even fewer numbers save hardly any memory**, since the frozen model and its activations stay. **They don't always save disk space:** a LoRA file takes 302<!--variant.lora.file--> kB, TinyLoRA's 98<!--variant.tinylora.file-->, and VeRA's 824<!--variant.vera.file-->, with its frozen matrices.
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
