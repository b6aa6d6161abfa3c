# %% [markdown]
# # 07 · Which matrices?
#
# *An older lesson; where it names lessons by number, it means the older course, `old_00` to `old_15`.*
#
# **Goal.** Say which of a model's matrices to adapt, and how to find out: at one budget, with the learning rate tuned for each
# choice, over several seeds, and with a verdict that may be "undecided".
#
# **Time box.** 45 minutes, and a sweep that runs meanwhile. You may interrupt it; it resumes.
# **Before this:** lesson 03 (counting) and 06 (the rate comes first).

# %%
from lora_course import checks
from lora_course.classroom.room import room_for
from lora_course.lesson import FAST, catch_up, compare, small, steps, workplace
from lora_lab import Grid, LoRA, params, sweep, verdicts
from lora_lab.plots import sweeps

store = workplace("old_07")
task = small("rt", store)
print(room_for("old_07"))

# %% [markdown]
# ## What there is to choose from
# A layer of MiniLM has six matrices. Four belong to attention: each token asks with a **query** `q`, is found by its **key** `k`, hands
# over a **value** `v`, and **output** `o` carries the result on; each is 384 x 384. Two belong to the feed-forward part: `up`, 384 -> 1536,
# and `down`, 1536 -> 384.
#
# The LoRA paper adapts `q` and `v` and leaves the feed-forward part for later work. Popular advice today says: adapt everything.
# Both may be right, for they compare different things. A fair question is: **if I may train so many numbers, where do I put them?**
#
# ### Exercise 1 · 4 minutes
# Our budget is 27,648 numbers a layer. An adapter of rank $r$ on `q` and `v` costs $r \cdot 2 \cdot (384 + 384)$. Which rank fits the budget
# on `q, v`, and which on all six matrices?

# %% exercise
checks.check_equal_budget(qv=..., everything=...)

# %% solution
checks.check_equal_budget(qv=27648 / (2 * 768), everything=27648 / (4 * 768 + 2 * (384 + 1536)))

# %% [markdown]
# The same for the other choices. One of them does not divide evenly and stays 3 % below the budget.

# %%
choices = {"q": 36, "v": 36, "q,v": 18, "q,k,v,o": 9, "up,down": 7, "all-linear": 4}
for targets, rank in choices.items():
    print(f"{targets:10} rank {rank:2}: {params('minilm', LoRA(rank, targets=targets)).trainable:,} numbers in six layers")
budget = {t: params("minilm", LoRA(r, targets=t)).trainable for t, r in choices.items()}

# %% claim
assert budget["q"] == budget["v"] == budget["q,v"] == budget["q,k,v,o"] == budget["all-linear"] == 6 * 27_648
assert 0.96 < budget["up,down"] / budget["q,v"] < 1

# %% [markdown]
# ## Predict
# Spread thinly over everything, or thickly on one matrix? Which of the six choices will be best on test sentences, and by how many points
# will the best be ahead of the worst?

# %%
guess_best = None  # for example "q,v"
guess_gap = None  # in points

# %% [markdown]
# ## The sweep
# Every choice at three rates, five seeds each. `alpha = 2 r`, so that each update is scaled by 2 whatever its rank. **The rate is tuned for
# each choice**: a rate that suits a thick adapter need not suit a thin one, and if you tune for only one of them, you have decided in advance
# who wins. (With `FAST=1` three choices, two rates, one seed, on few sentences: an illustration.)

# %%
some = ["q", "q,v", "all-linear"] if FAST else list(choices)
rates, seeds = ([2e-3, 4e-3], [0]) if FAST else ([1e-3, 2e-3, 4e-3], range(5))
shared = {"steps": steps(200, 12), "batch": 8, "validations": 1}
recipes = [
    recipe
    for targets in some
    for recipe in Grid(choices[targets], "2rank", rates, seeds, targets).recipes("minilm", task, **shared)
]
print(f"{len(recipes)} runs of {shared['steps']} steps")

# %% [markdown]
# **Short of time?** Take fewer seeds: `range(3)`. You can then say less in the end, and the verdicts will tell you so. Or take ours: without
# its `#`, the first line below copies the runs that come with the lab, and says when and where they were made; the sweep then finds them done.

# %%
# print(catch_up("target_modules", store))
runs = sweep(recipes, store)
print(f"{len(runs)} runs in {runs.seconds:.0f} s, {runs.skipped} of them found in the store; packs of {runs.packs}")

# %% claim
assert runs.failed == 0
assert {len(group) for _, group in runs.frame.groupby(["targets", "lr"])} == {len(seeds)}  # every cell is whole

# %% [markdown]
# ## The rate of each, chosen on validation
# The lines are means of the seeds, the dots the seeds themselves. Where a line is highest at one of its ends, a better rate may lie beyond:
# the choice is at the **edge** of the grid, and may be better than it looks.

# %%
chosen = sweeps.best_rate(runs.frame).groupby("targets")["lr"].first()
common = chosen.mode()[0]
title = f"{(chosen == common).sum()} of {len(chosen)} choices do best at {common:g}; the dots are seeds" + " (FAST: an illustration)" * FAST
sweeps.rate_curves(runs.frame, by="targets", title=title)

# %%
best = sweeps.best_rate(runs.frame)
for targets, rate in chosen.items():
    where = "edge" if rate in (min(rates), max(rates)) else "inside"
    print(f"{targets:10} best at {rate:g} ({where})")

# %% claim
assert set(chosen.index) == {",".join(t.split(",")) for t in some}
assert (best.groupby("targets").size() == len(seeds)).all()  # one rate each, all its seeds

# %% [markdown]
# Where the chosen rates turn out alike, only time was lost; you could not have known in advance.
#
# ## What may be said
# Now, and only now, the test sentences. `verdicts` compares every choice with `q,v`, sentence by sentence and seed by seed: **better**,
# **worse**, **equivalent** (within 1.5 points, a margin fixed before we looked), or **undecided**. As five comparisons are five chances to be
# fooled, **Holm's correction** asks more of each.

# %%
at_best = {targets: runs.at(targets=targets, lr=rate) for targets, rate in chosen.items()}
for targets, found in sorted(at_best.items(), key=lambda item: -item[1].accuracy.mean()):
    each = " ".join(f"{100 * a:.1f}" for a in found.accuracy)
    print(f"{targets:10} {100 * found.accuracy.mean():.1f} %   seeds: {each}")
means = {targets: 100 * found.accuracy.mean() for targets, found in at_best.items()}
gap = max(means.values()) - min(means.values())
print(compare("best minus worst", guess_gap, gap, "points"))
print("you said", guess_best or "nothing", "and the highest mean is", max(means, key=means.get))

# %%
said = verdicts(at_best, against="q,v")
for targets, verdict in said.items():
    print(f"{targets} against q,v: {verdict}")

# %% claim
assert set(said) == set(at_best) - {"q,v"}
assert all(v.outcome in ("better", "worse", "equivalent", "undecided") for v in said.values())
assert all(v.more_seeds is None and v.more_rows is None for v in said.values() if v.outcome != "undecided")

# %% [markdown]
# **Do this:** read the sentences aloud. A highest mean is not a winner: which of the choices has this sweep really told apart from `q,v`?
#
# **How far our sweep carries.** It is short: 200 steps of 8 are 1,600 sentences, a quarter of the 6,030 to train on. After the 400 steps of 16 of
# lesson 08, LoRA on `q,v` is at 80.9<!--compare.lora--> % (there at rank 8 and alpha 16); here it is at 77.3<!--targets.q+v--> %. The rates are a factor of two apart, and the
# highest is over a cliff for most choices: at 4e-3, 17<!--targets.dead--> of 30<!--targets.dead.of--> runs end at chance, with `v` alone 5<!--targets.dead.v--> of 5.
# One of all-linear's five seeds at 1e-3 had begun to learn and fell back to chance, which pulls its curve down there. And `alpha = 2 r` is another alpha for each choice, from 8
# (all-linear) to 72 (`q` or `v`). The best rate falls as alpha grows (lesson 06), so the same three rates need not suit all choices alike (five of the six chose the same one). The verdicts
# are about such runs, not about matrices in general.
#
# ### Exercise 2 · 4 minutes
# A colleague has one seed of each and says: "all-linear got 79.1 %, q,v got 78.2 %, so all-linear is better." The test has 2,000 sentences.
# Which reply is right?
#
# - **a** Right: 0.9 points are a whole standard error of such an accuracy.
# - **b** The two standard errors overlap, so they are equal.
# - **c** One pair of runs on 2,000 sentences resolves differences of about two points; this one is undecided.

# %% exercise
checks.check_one_pair(...)  # "a", "b" or "c"

# %% solution
checks.check_one_pair("c")

# %% [markdown]
# **Stop here** if time is short. What follows sets the paper beside this, and shows a comparison that is easily run.
#
# ## The paper's table
# Hu et al. 2021, table 5: GPT-3 175B, 18.9 million trained numbers ("18M": lesson 03) whatever the choice. It gives 0.5 points (WikiSQL) and 0.1 (MNLI) as the usual
# spread over seeds. **Predict.** How many of the other six differ from `q,v` by more than two such spreads, on WikiSQL? And on MNLI?

# %%
guess_apart, guess_mnli = None, None  # 0 to 6 each

# %%
paper = {"q": (8, 70.4, 91.0), "k": (8, 70.0, 90.8), "v": (8, 73.0, 91.0), "o": (8, 73.2, 91.3),
         "q,k": (4, 71.4, 91.3), "q,v": (4, 73.7, 91.3), "q,k,v,o": (2, 73.7, 91.7)}
apart = [t for t, (_, wikisql, _) in paper.items() if abs(wikisql - paper["q,v"][1]) > 2 * 0.5]
on_mnli = [t for t, (*_, mnli) in paper.items() if abs(mnli - paper["q,v"][2]) > 2 * 0.1 + 1e-9]
for targets, (rank, wikisql, mnli) in paper.items():
    stars = ["*" if targets in told else " " for told in (apart, on_mnli)]
    print(f"{targets:8} rank {rank}: WikiSQL {wikisql}{stars[0]} MNLI {mnli}{stars[1]}")
print("*: more than two spreads from q,v")
print(compare("told apart from q,v on WikiSQL", guess_apart, len(apart)))
print(compare("told apart from q,v on MNLI", guess_mnli, len(on_mnli)))

# %% claim
assert apart == ["q", "k", "q,k"] and on_mnli == ["q", "k", "v", "q,k,v,o"]
assert paper["q,k,v,o"][2] > paper["q,v"][2] > max(paper[t][2] for t in ("q", "k", "v"))  # on MNLI all four lie above

# %%
from lora_course.lesson import claim

said = claim("9a")  # "q and v are the right default": our sweep, table 5, and two reports on larger models, a case each
said

# %% claim
assert said.word == "undecided" and claim("9a", reported=False).word == "true" and claim("9a", place="q", reported=False).word == "false"

# %% [markdown]
# By this rough rule, `q` alone and `k` alone lie below `q,v` on both tasks. Of the others, WikiSQL separates only `q,k` from `q,v`; on MNLI `v` alone lies below `q,v`,
# and *all four matrices together* lie above it. So "q and v are best" is not in the table. And the feed-forward part was not tried at all. (Two spreads are a rule of
# thumb, not a test: the table has one figure per choice.)
#
# **Two studies of larger models are often cited against that.** No repetition of either is known to us, and neither text gives a figure that could be held
# against a margin:
# - *QLoRA* (Dettmers et al. 2023, figure 2; LLaMA-7B on Alpaca): adapters on `q` and `v` did not match full fine-tuning; adapters on all linear layers were needed. The
#   budget was not held equal.
# - *LoRA Without Regret* (Schulman 2025, a blog post; Llama and Qwen, judged by the loss): at about equal size the feed-forward part alone (0.24 billion numbers) beat
#   attention alone (0.25 billion).
#
# Our sweep cannot tell `up,down` from `q,v` on MiniLM. The card counts each study as one case, however many cells its table has. In our sweep and in table 5 no other choice is better by the margin;
# the two reports point the other way, but neither sets `q,v` against the rest at one budget, so the verdict is *undecided*.
#
# ## A comparison that is easily run
# "I switched from q,v to all-linear, and it got better." At the same *rank*, that is. **Predict.** At rank 8, how many times more numbers does
# all-linear train than `q,v`?

# %%
guess_times = None

# %%
narrow, wide = (params("minilm", LoRA(8, targets=targets)).trainable for targets in ("q,v", "all-linear"))
print(compare("all-linear against q,v at rank 8", guess_times, wide / narrow, "times"))

# %% claim
assert wide / narrow == 6912 / 1536 == 4.5  # numbers a layer and rank

# %% [markdown]
# So two things changed at once, the place and the budget, and often a third: the rate was tuned for one of them. On Llama models the same step
# from `q,v` to `all-linear` multiplies by more (4.8 times on Llama-2-7B, 6.2 on Llama-3-8B): their feed-forward part has three matrices, and on some k and v are narrower.
#
# That does not make the advice wrong. The budget is seldom what hurts: lesson 03 counted 0.3 % of a 70B for all-linear at rank 16, and lesson 05
# found that what it costs is activations. When both budget and place may grow, adapting everything is a sound default: QLoRA
# reports it, and LoRA Without Regret finds the MLP better than attention. Here, at one *rank*, it gained nothing: in lesson 08's reference all linear layers are
# *equivalent<!--compare.lora-all-linear.against-lora-->* to `q,v` within 1.5 points. Only the *reason* is different.
#
# ## What you know now
# - Compare places at one budget: ranks that differ, so that what trains does not.
# - Tune the rate for each choice, on validation; a best rate at the edge of the grid is not yet a best rate.
# - Trust a difference only if the verdict does. Several comparisons need Holm's correction.
# - The paper's table 5 speaks against `q` or `k` alone; it does not say that `q,v` is best, and says nothing about the feed-forward part.
# - A default: all linear layers, which QLoRA reports. Against `q,v` it is undecided here at one budget, and *equivalent<!--compare.lora-all-linear.against-lora-->* at one rank (lesson 08).
#
# **Next:** lesson 08 compares LoRA with its rivals as carefully.
