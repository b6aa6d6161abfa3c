# %% [markdown]
# # 16 · Is there a better LoRA?
#
# Every month a paper says: *our variant beats LoRA*. Many papers train all methods at one learning rate (lesson 05). We tuned each method's rate. **Which is better, and what does it cost?**

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

# %% [markdown]
# ## What they change
# Plain LoRA is $y = Wx + \frac{\alpha}{r}BAx$. Each variant changes one thing. The last three train 10 to 100 times fewer numbers.
#
# | | instead | in the lab |
# |---|---|---|
# | rsLoRA | $\alpha/\sqrt r$ replaces $\alpha/r$ | `LoRA(rslora=True)` |
# | LoRA+ | $B$ has 16 times the rate of $A$ | `LoRA(lr_ratio=16)` |
# | LoRA-FA | $A$ keeps its random start | `LoRA(freeze_a=True)` |
# | DoRA | the length of each row of $W + \frac{\alpha}{r}BA$ trains separately | `LoRA(dora=True)` |
# | PiSSA | $BA$ starts as $W$'s strongest pieces, taken out of $W$ | `LoRA(init="pissa")` |
# | VeRA | one frozen random $A$ and $B$ for all layers; two vectors scale them | `VeRA()` |
# | LoRA-XS | $A$ and $B$ hold $W$'s strongest pieces, frozen; a small square between them trains | `LoRAXS()` |
# | TinyLoRA | that square is a sum of frozen random squares; their factors train | `TinyLoRA()` |
#
# **Exercise 1.** In [PEFT's public table](https://github.com/huggingface/peft/tree/main/method_comparison) (Llama-3.2-3B, rank 64), rsLoRA with $\alpha=64$ solves 51.3% of the questions, and LoRA with $\alpha=128$ solves 47.4%. Is rsLoRA better? At any single rank it *is* plain LoRA, with a different $\alpha$. Which $\alpha$, given rsLoRA's?


# %% exercise
def alpha_of_plain(alpha, rank):
    return ...


checks.check_as_plain(alpha_of_plain)


# %% solution
def alpha_of_plain(alpha, rank):
    return alpha * rank**0.5


checks.check_as_plain(alpha_of_plain)

# %% [markdown]
# ## Three guesses
# MiniLM learns from 1,600 movie reviews, with rank 8 on `q,v` (VeRA 256, LoRA-XS 16, TinyLoRA 2). Each method's rate is the best of six (eight if the best was at the edge), over three seeds. Then five new seeds are scored on 2,000 test sentences. The margin is 1.5 points. Be 80% sure.
#
# 1. **How many of the eight variants are better than plain LoRA?**
# 2. Besides the head, TinyLoRA trains 768 numbers, LoRA 96 times as many. **How many points is TinyLoRA behind?**
# 3. Now the usual table: *one* rate, chosen by you, for LoRA and its first five variants. **How many of the six can you make the winner?**

# %%
lesson.predict("variants better than plain LoRA", low=..., high=...)
lesson.predict("points by which TinyLoRA lags", low=..., high=...)
lesson.predict("methods that win at some rate", low=..., high=...)

# %% [markdown]
# ## Look
# The panel compares the eight variants, and others, with plain LoRA. Drag the margin. Then choose *memory*, and click the dots to the right of LoRA: which methods?

# %%
panel = ComparePanel(reference=stored | {"methods": [one for one in stored["methods"] if one["label"] != "full"]})
panel.rival = PLAIN
panel

# %% [markdown]
# The panel judges each method alone. This table adds full fine-tuning, and asks for more evidence, because one of fifteen may win by luck (Holm's correction, lesson 13). Which of the panel's verdicts change?

# %% hide-input
scores = scores_in(stored)
fair = verdicts(scores, against=PLAIN, margin=0.015)
names = {label: name for name, label in LABELS.items()} | {PLAIN: "LoRA"}  # as in the table above

others = {"vera": "VeRA", "lora-xs": "LoRA-XS", "tinylora": "TinyLoRA", "ia3": "IA3", "bitfit": "BitFit"}
others["tinylora weight_tying 1"] = "TinyLoRA, the same weights in all layers"

table = pd.DataFrame({
    "against LoRA": {label: one.outcome for label, one in fair.items()},
    "accuracy": methods.accuracy.map(lambda one: f"{np.mean([100 * value for value in one['each']]):.1f}"),
    "trains (head: 770 more)": methods.trainable.map("{:,}".format),
    "MiB": (methods.peak_bytes / 2**20).round().astype(int),
    "rate": methods.lr,
}).rename({**names, **others}).sort_values("accuracy", ascending=False)  # fmt: skip
table.fillna("")

# %% [markdown]
# ## How to make a winner
# Now one rate for all. Table `shared`: each variant's lead over plain LoRA, in validation points.

# %% alt="Validation accuracy of six variants against one shared learning rate. LoRA+ is best at the smallest rates, LoRA-FA at the largest, and the others in between, so the winner changes with the rate."
curves = {names[label]: {one["lr"]: 100 * one["validation"] for one in methods.tried[label]} for label in names}
curves = pd.DataFrame(curves).dropna()
shared = curves.sub(curves["LoRA"], axis=0).drop(columns="LoRA").round(1)
winners = curves.idxmax(axis=1)

plt.figure(figsize=(7, 4.5))
for name, mark in zip(curves.drop(columns="LoRA"), "os^vD"):
    plt.plot(curves[name], marker=mark, alpha=0.8, label=name)
plt.plot(curves.LoRA, color="black", linewidth=3, label="LoRA")
plt.title("The winner changes with the rate", loc="left")
plt.gca().set(xscale="log", xlabel="one learning rate for all", ylabel="validation accuracy, %")
plt.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
plt.xticks(curves.index, curves.index)
plt.minorticks_off()
plt.show()
shared

# %%
lesson.reveal("variants better than plain LoRA", sum(fair[label].outcome == "better" for label in EIGHT))
lesson.reveal("points by which TinyLoRA lags", -100 * fair["tinylora"].difference, "points")
lesson.reveal("methods that win at some rate", winners.nunique())
winners.to_frame("winner")

# %% claim
outcomes = {label: one.outcome for label, one in fair.items()}
assert "better" not in {outcomes[label] for label in EIGHT}
assert {label for label in EIGHT if outcomes[label] == "worse"} == {"lora-xs", "tinylora"}
assert outcomes["ia3"] == "equivalent" and round(methods.file_bytes["ia3"] / 1000) == 61
ends = {label: [100 * fair[label].low95, 100 * fair[label].high95] for label in EIGHT if outcomes[label] == "undecided"}
assert round(min(ends.items(), key=lambda one: one[1])[1][0], 1) == -4.1 and round(max(e[1] for e in ends.values()), 1) == 1.7
alone = verdicts({name: scores[name] for name in (PLAIN, "full")}, against=PLAIN)["full"]
assert [round(100 * x, 1) for x in (alone.difference, alone.low95, alone.high95)] == [1.9, 0.7, 3.1]
assert winners.nunique() == 5 and "DoRA" not in set(winners)
probe = verdicts({name: scores[name] for name in (PLAIN, "probe")}, against=PLAIN)["probe"]
assert [round(100 * x, 1) for x in (probe.difference, probe.low95, probe.high95)] == [-2.9, -4.7, -1.1]
for label in (LABELS["rsLoRA"], LABELS["DoRA"]):
    alone = verdicts({name: scores[name] for name in (PLAIN, label)}, PLAIN, 0.015)[label]
    assert alone.outcome == "equivalent" != outcomes[label] == "undecided"
assert outcomes["full"] == outcomes["probe"] == outcomes["prompt"] == "undecided" and methods.made["probe"]["examples"] == 1600
second, first = np.sort(curves.to_numpy())[:, -2:].T
assert set(winners[first - second > 0.5]) == {"LoRA+", "LoRA-FA"}
assert round(methods.peak_bytes["ia3"] / 2**20) == 85 and round(methods.peak_bytes[LABELS["DoRA"]] / 2**20) == 82
assert round(196 * ((0.513 * 0.487 + 0.474 * 0.526) / 1319) ** 0.5, 1) == 3.8 < 51.3 - 47.4
assert methods.peak_bytes["vera"] > methods.peak_bytes[PLAIN] and round(methods.peak_bytes["full"] / 2**20) == 347
assert all(min(methods.accuracy[label]["each"]) < 0.51 for label in ("LoRA r8 all-linear", "bitfit"))
assert all(len(methods.tried[label]) in (6, 8) for label in [PLAIN, *EIGHT])

# %%
# A minute: any variant, a rate that you choose, one seed. Does another seed agree?
rate, rivals, store = 1e-3, {"LoRA": LoRA(), "mine": LoRA(init="pissa")}, lesson.workplace("16")
for name, method in rivals.items():
    run = train("minilm", lesson.small("rt", store), method, lr=rate, steps=lesson.steps(200, 12), batch=8, validations=0,
                store=store)
    print(f"{name}: {run.metrics['accuracy']:.1%} of the test sentences")

# %% [markdown]
# **Exercise 2.** Your paper is about the variant that your name picks. Which rate in `shared` flatters it most? Then, how many points is it ahead on *test* (`fair[LABELS[variant]]`, a share), with each method at its own rate? (One decimal.)

# %% exercise
variant = lesson.draw("variant", *LABELS)
checks.check_flattered(rate=..., points=..., variant=variant)

# %% solution
variant = lesson.draw("variant", *LABELS)
checks.check_flattered(rate=shared[variant].idxmax(), points=round(100 * fair[LABELS[variant]].difference, 1), variant=variant)

# %% [markdown]
# <details><summary>What we found</summary>
#
# - **None of the eight is proven better than plain LoRA**, each at its own rate. LoRA-XS and TinyLoRA are worse. Six are *undecided*: 95% intervals reach from 4.1 points behind (LoRA-FA) to 1.7 ahead (PiSSA). Compared alone, rsLoRA and DoRA are equivalent to LoRA, full fine-tuning is better by 1.9 (0.7 to 3.1), and the probe and prompt tuning are worse. After correction, all five are undecided.
# - **With one rate for all, 5<!--variant.winners--> of the six can win,** but three by under half a point. At the lowest rate, plain LoRA has hardly started, and LoRA+ (16 times that rate for $B$) looks 17.3<!--variant.flattered--> points better. At the highest, plain LoRA breaks down, and LoRA-FA looks 15.9<!--variant.flattered.fa--> points better.
# - **Best rates differ.** By loss (lesson 15; the table is by accuracy), LoRA-FA's is 3.4<!--regret.fa--> times plain LoRA's (1.4<!--regret.fa.low--> to 8.1<!--regret.fa.high-->), LoRA+'s 0.23<!--regret.plus--> times (0.078<!--regret.plus.low--> to 0.65<!--regret.plus.high-->).
# - **One method outside the eight is equivalent: IA3** (factors for some activations), with a fifth of the numbers and a file of 61 kB. For VeRA, with a tenth, it's undecided. Neither saves memory: IA3 needs 85<!--variant.ia3.peak--> MiB, VeRA 82<!--variant.vera.peak--> (like DoRA), LoRA 73<!--variant.lora.peak-->.
# - **One bad seed spoils a mean:** LoRA on all linear layers and BitFit each have one near 50%. So BitFit, 9.4<!--variant.bitfit.behind--> points behind, is *undecided*.
#
# **And PEFT's table** (July 2026; one rate, one seed)? It compared $\alpha=64\sqrt{64}=512$ with 128. The scores are 3.9 points apart; luck alone explains up to 3.8 (independent runs, 1,319 questions). The year before, they tied: 48.8 and 48.9%.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Start with plain LoRA, and spend your time on its rate.** *Ours: six of eight undecided, two worse; MiniLM, 1,600 sentences, rank 8. Published: nine tuned variants within 1 to 2% of each other on larger models ([Learning Rate Matters](https://arxiv.org/abs/2602.04998), abstract).*
# 2. **A variant's best rate can differ from LoRA's:** LoRA-FA's is higher, LoRA+'s lower; DoRA's and PiSSA's are near it. Tune both, with the same number of tries.
# 3. **Variants that train even fewer numbers save hardly any memory, and not always disk space.** The frozen model and its activations stay. LoRA's file is 302<!--variant.lora.file--> kB. With their frozen matrices, TinyLoRA's is 98<!--variant.tinylora.file-->, VeRA's 824<!--variant.vera.file-->, LoRA-XS's 907<!--variant.lora-xs.file-->.
#
# The same in PEFT:
# ```python
# config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
# # or add use_rslora=True, use_dora=True, or init_lora_weights="pissa"; VeraConfig(r=256, ...) and TinyLoraConfig(...)
# model = get_peft_model(model, config)
# optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=5e-4, loraplus_lr_ratio=16)  # LoRA+: a lower rate
# ```
# </details>

# %%
lesson.receipt()
