# %% [markdown]
# # 13 · Inside dW
#
# *An older lesson; where it names lessons by number, it means the older course, `old_00` to `old_15`.*
#
# **Goal.** Take the *update* of a fine-tuned model apart: how many directions it has, how few of them do the work, where they point, and what chance alone would look like. The paper's
# hypothesis, that an update has a low "intrinsic rank", becomes something that you can drag.
#
# **Time box.** 60 minutes. This machine trains twice, and cuts what it trained; the first code cell says how long.
# **Before this:** lesson 01 (singular values, energy) and 04 (training).

# %%
import numpy as np
import pandas as pd

from lora_course import checks
from lora_course.classroom.room import room_for
from lora_course.lesson import FAST, compare, eta, reference_comparison, reference_microscope, small, steps, workplace
from lora_lab import FullFineTuning, LoRA, Recipe, train
from lora_lab.training.runs import Store

store = Store(workplace("old_13"))
task = small("rt", store.folder, rows=120)
mark = " (illustration)" if FAST else ""
reference = reference_microscope()
made = reference["environment"]
print(f"reference: 400 steps of 16 on {reference['runs']['full']['recipe']['task']}, made on {made['hardware']}, {made['date']}")
print("two runs:", eta(2 * steps(400, 4)), "(full fine-tuning's steps take longer)")
print(room_for("old_13"))

# %% [markdown]
# ## The words
# - **dW**, written $\Delta W$ in formulas, is what training added to a weight: $\Delta W = W_{after} - W_{before}$. Of LoRA it is $\frac{\alpha}{r} B A$; full fine-tuning has one too, for every matrix, and it is free to have any rank.
# - To **cut** it at rank r: keep its r strongest pieces $s_i u_i v_i^\top$ and drop the others (lesson 01: there is no better matrix of rank r). We cut *every* matrix of the model at once.
# - The **energy kept** is the share of the sum of $s_i^2$ that stays.
# - $|M|$ is here always the **Frobenius norm** of a matrix, the root of the sum of all its numbers squared; it is also the root of the sum of $s_i^2$.
# - A sentence **flips** when the cut model gives another answer than the model with nothing cut.
#
# The paper takes it as a *hypothesis* (section 1) that "the change in weights during model adaptation also has a low intrinsic rank". A LoRA of rank 8 cannot tell: its rank is at most 8 by
# construction. Only full fine-tuning can tell. So we train both, once.

# %%
terms = {"steps": steps(400, 4), "batch": 16 if not FAST else 8, "validations": 0 if FAST else 2, "dtype": "fp32"}
recipes = {
    "full": Recipe("minilm", task, FullFineTuning(), lr=1e-4, **terms),
    "lora": Recipe("minilm", task, LoRA(rank=8), lr=2e-3, **terms),
}
runs = {name: store.find(recipe) or train(recipe, store=store) for name, recipe in recipes.items()}
print({name: f"{run.metrics['accuracy']:.1%} of the test sentences" for name, run in runs.items()}, mark)

# %% [markdown]
# ## Three specimens
# 1. **full**: the dW of full fine-tuning, of every matrix.
# 2. **LoRA**: that of rank 8 on `q` and `v`.
# 3. **random like full**: Gaussian numbers in place of full's dW, of *equal norm in every matrix*, with full's trained head. As large, and without any aim: what a claim of low rank is held against. (Its singular values
#    fall off slowly, full's fast: it is a control of the same size, not of the same spectrum.)
#
# Each keeps the head it was trained with, at every rank: so **rank 0 is the base model with the trained head**. Full fine-tuning also moves things that are no matrices of a layer. A bias or a norm is a vector, a matrix of
# one row, so its change is there from rank 1 on; an embedding table is cut like the others. You can leave all that out: *full, linear layers* cuts the layers alone and leaves the rest as the base has it.
#
# **Predict**, before you look (of the reference's 500 validation sentences; nothing cut: 84.8<!--inside.full.right--> % are right). At rank 0? At rank **2**? And what share of its energy does rank 2 keep?
# And how many directions in each matrix, of 384, hold 90 % of what full fine-tuning *gained*, and how many hold 90 % of its *energy*?

# %%
guess_rank_0, guess_rank_2, guess_energy_2 = None, None, None  # percent each
guess_random = None  # percent right with the random update, nothing cut
guess_for_gain, guess_for_energy = None, None  # directions, of 384

# %%
from lora_course.experiments.microscope import RANKS, Microscope, views_from
from lora_course.experiments.truncation import specimen_of
from lora_lab import RankPanel

whole, thin = (specimen_of(name, runs[key].adapter, task) for name, key in (("full", "full"), ("LoRA", "lora")))
specimens = [whole, thin, whole.random()] if not FAST else [whole, thin]
scope = Microscope(specimens, task, count=300 if not FAST else 12, ranks=RANKS if not FAST else (0, 2))
print(f"full: rank {whole.rank} in {len(whole.parts)} tensors; LoRA: rank {thin.rank} in {len(thin.parts)}")

# %% claim
assert thin.rank == 8 and len(thin.parts) == 12 and whole.rank > 300  # nobody told full fine-tuning to be of low rank

# %% [markdown]
# ## The microscope
# Each look asks all sentences once, so this cell takes a minute or two. **Do this:** start at rank 64 and go *down*, with the arrow keys. Where does the accuracy begin to fall? Where are sentences
# already flipping? Then change the matrix to *random like full*. The picture is one matrix, `q` of layer 0; the answers are those of the whole model, cut everywhere.

# %%
for _ in scope.all():
    pass
q = "bert.encoder.layer.0.attention.self.query.weight"
added = {one.name: next((part.after - part.before).numpy() for part in one.parts if part.name == q) for one in specimens}
RankPanel(added, rank=2, cuts=scope.views.cuts())

# %% [markdown]
# **Fallen behind**? The next cell shows the same through *our* runs (400 steps, 500 sentences); the rest of the lesson reads those, and yours where you have them.

# %%
ours = views_from(reference["views"])
RankPanel(rank=2)

# %%
def right(name, rank):
    return 100 * ours.accuracy(ours.at(name, rank))

print(compare("full, rank 0", guess_rank_0, right("full", 0), "%"))
print(compare("full, rank 2", guess_rank_2, right("full", 2), "%"))
print(compare("its energy", guess_energy_2, 100 * ours.at("full", 2).energy, "%"))
print(compare("random, nothing cut", guess_random, right("random like full", 384), "%"))
gain, random_gain = right("full", 384) - right("full", 0), right("random like full", 384) - right("full", 0)
print(f"LoRA of rank 8: {right('LoRA', 8):.1f} %; cut to rank 1: {right('LoRA', 1):.1f} %")

# %% claim
assert right("full", 2) - right("full", 0) > 0.75 * gain  # two directions a matrix: three quarters of the gain, at least
assert ours.at("full", 2).energy < 0.5 and abs(random_gain) < 0.2 * gain
assert right("LoRA", 8) - right("LoRA", 1) < 3 and ours.at("LoRA", 1).energy > 0.8  # one direction of eight does nearly all

# %% [markdown]
# Two directions in each matrix hold most of what full fine-tuning learned, and of LoRA's eight, *one* does nearly all of it. The random update, as large as full's, hardly changes an answer, where full's
# changes many. (At rank 0 accuracy is near chance, so it could not fall.) These are cuts of one run each, on 500 sentences, where one point more or less says nothing (lesson 04): we lean only on what is far larger.
#
# ### Exercise 1 · 3 minutes
# In the panel above (ours), which is the smallest rank at which `full` loses no more than 3 points against nothing cut?

# %% exercise
checks.check_smallest_rank(..., ours)

# %% solution
checks.check_smallest_rank(next(r for r in ours.ranks["full"] if right("full", 384) - right("full", r) <= 3), ours)

# %% [markdown]
# Both ends are exact, by construction, and we test it with *your* runs: nothing cut *is* the trained model, and rank 0 is the base but for the head.

# %%
import torch

from lora_lab.training.train import open_adapter

opened = open_adapter(runs["full"].adapter, task, model="minilm", dtype="fp32").model.state_dict()
parts = {part.name: part for part in whole.parts}
same = sum(torch.equal(whole.weights(384)[name], opened[name]) for name in parts)
base = sum(torch.equal(whole.weights(0)[name], part.before) for name, part in parts.items())
print(f"of {len(parts)} tensors {same} are bit for bit those of the run with nothing cut, and {base} those of the base at rank 0")

# %% claim
assert all(torch.equal(whole.weights(384)[name], opened[name]) for name in parts)
assert all(torch.equal(whole.weights(0)[name], part.before) for name, part in parts.items())
assert scope.look("full", 384) is scope.look("full", 999) and not scope.views.flipped("full", 384)

# %% [markdown]
# ## Accuracy is not energy
# Two curves of the same cuts. We looked at powers of two, so each answer lies between two ranks:

# %%
from lora_course.plots.truncation import microscope_picture

ranks, accuracies, energies = ours.curve("full")
low, high = accuracies[0], accuracies[-1]
for_gain = next(r for r, a in zip(ranks, accuracies) if a - low >= 0.9 * (high - low))
for_energy = next(r for r, e in zip(ranks, energies) if e >= 0.9)
for what, guess, found in (("gain", guess_for_gain, for_gain), ("energy", guess_for_energy, for_energy)):
    print(f"90 % of the {what} takes more than {ranks[ranks.index(found) - 1]} and at most {found} directions; you said {guess or 'nothing'}")
microscope_picture(ours, ("full", "LoRA", "random like full", "full, linear layers"))

# %% claim
assert for_gain <= 16 and for_energy >= 128  # a few against more than a hundred

# %% [markdown]
# The rest of dW is not nothing, it is just not needed for these answers. (A likely reason: Adam moves every weight by about as much a step, whether its gradient says something or is noise.)
#
# Others have measured the energy on a larger model. Biderman et al. (2024) trained Llama-2-7B in full on code and on math: to hold 90 % of the variance of its dW takes a rank 10 to 100 times that of a usual LoRA
# (one model; we read their paper in part). Ours points the same way: over all matrices together it takes 16 to 32 times rank 8. They also report that in continued pretraining there LoRA learns less than full fine-tuning. Whether a few directions would do on such a task, this microscope has not looked.
#
# ### Exercise 2 · 2 minutes
# Which of these does the microscope **not** support?
# - **a** The update of full fine-tuning is of low rank. **b** A few directions in each matrix do nearly all that was learned of *this* task. **c** Size alone does not do it: a random update of the same size does not help.
# - **d** The trained head alone, on the base as it was, does not answer well.

# %% exercise
checks.check_what_is_shown(...)

# %% solution
checks.check_what_is_shown("a")

# %% [markdown]
# **Stop here** if time is short. The rest asks where the directions point.
#
# ## How large, and of what rank
# The **stable rank**, $|\Delta W|^2 / s_1^2$, is 1 where one direction has all the energy. (Zeros and rounding do not trouble it.) One line a matrix of LoRA's: `norm` is $|\Delta W|$,
# `relative` $|\Delta W| / |W|$, `rank_for_90` the number of directions that hold 90 % of the energy.

# %%
from lora_course.experiments.inside import sizes
from lora_course.experiments.updates import updates_of

lora = updates_of(runs["lora"])
mine, whose = (pd.DataFrame(reference["sizes"]["lora"]), "reference") if FAST else (sizes(lora), "yours")  # four steps show nothing
columns = ["matrix", "norm", "relative", "stable_rank", "rank_for_90"]
print(f"{whose}:")
print(mine[columns].assign(matrix=mine.matrix.str.removeprefix("bert.encoder.layer.")).round(3).to_string(index=False))
table = {name: np.mean([row["relative"] for row in rows]) for name, rows in reference["sizes"].items()}
print("\nreference, ||dW|| / ||W||, mean over q and v:", {name: f"{share:.1%}" for name, share in table.items()})
few = {name: sorted(row["rank_for_90"] for row in reference["sizes"][name]) for name in ("full", "lora")}
print("reference, directions for 90 % of the energy:", {name: f"{ranks[0]} to {ranks[-1]}" for name, ranks in few.items()})

# %% claim
assert (mine.stable_rank <= 8.001).all() and table["lora"] > 3 * table["full"] and few["lora"][-1] < 8 <= few["full"][0]

# %% [markdown]
# LoRA's dW is several times *larger* than full's: two kinds of matrices do the work of all of them, at a rate twenty times as high (we did not test which of the two matters). And most of it lies in one direction or two.
#
# **Keep this in mind for the rest of the lesson: our LoRA is a hot one.** Its update has 18.6<!--inside.lora.relative--> % of W's norm in q and v, full's has 2.0<!--inside.full.relative--> %. Validation chose the rate, 2e-3 with alpha / r = 2,
# on this small model; the paper uses 2e-4 on GPT-2 and GPT-3. Spectra and intruders are those of so large an update, and we have looked at no gentler one (for rounding, lesson 09 has).
#
# The picture shows the extreme case: `query` of the last layer, where full fine-tuning needs the fewest.

# %%
from lora_course.plots.subspaces import spectra

q0 = "bert.encoder.layer.5.attention.self.query"
seen = {"full, layer 5 query": np.array(reference["spectra"]["full"][q0]), "LoRA of rank 8": np.array(reference["spectra"]["lora"][q0])}
chance = np.array(reference["spectrum_by_chance"])
top = {name: (s[:8] ** 2).sum() / (s**2).sum() for name, s in {**seen, "random": chance}.items()}
print({name: f"{share:.0%} of the energy in 8 directions" for name, share in top.items()})
spectra(seen, chance)

# %% claim
assert top["random"] < top["full, layer 5 query"] < top["LoRA of rank 8"] + 1e-9

# %% [markdown]
# ## Do two runs find the same directions?
# The paper (section 7.2) compares a LoRA of rank 8 with one of rank 64. Take the strongest i directions $U_1$ of one and the strongest j directions $U_2$ of the other, as orthonormal columns in the space of the layer's *input*, here $R^{384}$:
#
# $$\phi = \frac{|U_1^\top U_2|^2}{\min(i, j)}$$
#
# ($|\cdot|$ is again the Frobenius norm.) It is 1 where one subspace lies in the other, 0 where they are at right angles. (It is also $1 - D^2/p$, with $p = \min(i,j)$ and $D$ the distance of the subspaces. The paper's appendix prints $(1/p)(1 - D^2)$, a slip that its own $D$ contradicts; and it says *left*-singular
# where section 7.2 says *right*: of A, of shape (r, d), the vectors in $R^d$ are the right ones.)
#
# ### Exercise 3 · 4 minutes
# Write it, for two arrays whose columns are orthonormal.


# %% exercise
def phi(u1, u2):
    ...


checks.check_phi(phi)


# %% solution
def phi(u1, u2):
    return ((u1.T @ u2) ** 2).sum() / min(u1.shape[1], u2.shape[1])


checks.check_phi(phi)

# %% [markdown]
# ### Exercise 4 · 3 minutes
# What does **chance** give? Eight directions, and the span of 64 *random* ones, in a space of 384. (How much of one vector lies within 64 random directions of 384?)

# %% exercise
by_chance = ...
checks.check_chance(by_chance)

# %% solution
by_chance = 64 / 384
checks.check_chance(by_chance)

# %%
from lora_course.experiments.subspace import expected_phi, phi_grid, random_directions

drawn = [phi_grid(random_directions(384, 8, seed), random_directions(384, 64, 1000 + seed))[-1, -1] for seed in range(20)]
print(f"twenty draws: {np.mean(drawn):.3f}, from {min(drawn):.3f} to {max(drawn):.3f}; for GPT-3, d = 12,288: {64 / 12288:.4f}")

# %% claim
assert abs(np.mean(drawn) - expected_phi(384, 8, 64)[-1, -1]) < 0.01

# %% [markdown]
# One sixth, from nothing! In GPT-3 it was half a percent, and the paper could neglect it; anyone who repeats its Figure 3 on a small model and forgets this will find "shared directions" everywhere.
#
# ## Two runs of ours
# **Predict:** the first `query` of two LoRAs, rank 8 and rank 64, *the same seed*. How much of A's eight directions lies in the 64, in percent, **before** any training?

# %%
guess_start = None  # percent

# %%
first, other = "bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.5.attention.self.query"
one, two = reference["phi"]["8 in 64, one seed"], reference["phi"]["8 in 64, two seeds"]
print(compare("before training", guess_start, 100 * one["A at the start"]["corner"][first], "%"))
for of in one:
    for name, pair in (("one seed ", one), ("two seeds", two)):
        print(f"{of:15} {name}  layer 0: {pair[of]['corner'][first]:.2f}   layer 5: {pair[of]['corner'][other]:.2f}")

# %% claim
assert one["A at the start"]["corner"][first] > 0.99 and abs(two["A at the start"]["corner"][first] - 64 / 384) < 0.05

# %% [markdown]
# All of it. The seed's first numbers fill the first A: those of rank 8 *are* the first eight rows of those of rank 64. It is no finding about training at all, and a trained A still shares much with its start, though in the adapter that ships it
# has moved by 1.0<!--inside.a-moved.least--> to 1.3<!--inside.a-moved.most--> times its length. So compare **two seeds**, and look at the rows of the product $BA$: they are sorted by how strongly the update answers, and what B ignores comes last.

# %%
from lora_course.experiments.inside import above_chance
from lora_course.plots.subspaces import phi_maps

grids = {f"{of}, layer 5 query": np.array(two[of]["grids"][other]) for of in ("A", "rows of B A")}
strongest = {of: np.mean(list(two[of]["first"].values())) for of in two}
each = two["rows of B A"]["first"].values()
print({of: f"strongest with strongest {value:.2f}" for of, value in strongest.items()}, "mean over 12 matrices; chance 0.003")
print(f"rows of B A: from {min(each):.2f} to {max(each):.2f}; standard deviations above chance, all 8 in all 64: {above_chance(np.array(two['A']['grids'][other]), 384, 8, 64):.0f}")
phi_maps(grids, 384, sides=("i (rank 8)", "j (rank 64, another seed)"))

# %% claim
assert strongest["A at the start"] < 0.05 and strongest["rows of B A"] > 10 / 384

# %% [markdown]
# As in the paper's Figure 3, two runs share above all their *strongest* direction, and the others are mostly noise, each run's own. But less than there, and not in every matrix: in some, even the strongest two are strangers.
# The picture has one of the strongest cases, 0.47<!--inside.phi.query-5-->; the other five `query` have 0.10<!--inside.phi.query-others--> on average. Much of that one direction is the architecture's: in layer 5 only [CLS]'s query counts (lesson 01). Without layer 5 the mean over the matrices is 0.23<!--inside.phi.without-5--> in place of 0.29<!--inside.phi-->.
# (Lesson 14 has a rule for it, and runs that were too short for that rule.)
#
# ## Does dW repeat W?
# Section 7.3 asks how much of W lies in dW's directions: $|U^\top W V|$, with the r strongest left and right directions U, V of dW. The **amplification** is $|\Delta W| / |U^\top W V|$. From Table 7, for GPT-3's 48th `query` and r = 4:
# $|W| = 61.95$, $|\Delta W| = 6.91$; W has 0.32 in dW's directions and 21.67 in its own four strongest.
#
# ### Exercise 5 · 4 minutes
# The amplification; and what it would be for *random* directions, in which a matrix of n x n has $r |W| / n$ on average (n = 12,288).

# %% exercise
checks.check_amplification(..., ...)

# %% solution
checks.check_amplification(6.91 / 0.32, 6.91 / (4 * 61.95 / 12288))

# %%
from lora_course.experiments.inside import amplified
from lora_course.experiments.subspace import Amplification
from lora_course.plots.subspaces import amplification_bars

mine = {rank: amplified(lora, rank)[other] for rank in (1, 4, 8)}
held = {}
for name, by_rank in reference["amplification"].items():
    held[name] = np.median([one["in_update"] / one["in_random"] for one in by_rank["4"].values()])
    print(f"reference, r = 4, {name}: W has {held[name]:.1f} times as much in dW's directions as in random ones; GPT-3: {0.32 / (4 * 61.95 / 12288):.0f} times")
told = reference["amplification"]
amplification_bars({f"{name}, r = {r}": Amplification(**told[name][str(r)][other]) for name in told for r in (1, 4)})

# %% claim
assert all(1 < times < 8 for times in held.values())  # more than chance, less than in GPT-3
assert all(one.in_update <= one.in_weight + 1e-9 for one in mine.values())  # W's own directions are the best there are

# %% [markdown]
# An amplification alone says little: a *random* dW scores higher still wherever W has less in random directions than in dW's (here, at r = 4, in all 24 matrices). What the paper found lies in between: the update's directions are not W's strongest, yet W has more in them than by chance,
# in GPT-3's LoRA 16 times as much. In our small model it is 1.5<!--inside.lora.held--> times for LoRA and 2.3<!--inside.full.held--> times for full fine-tuning (medians of twelve `q` and `v`; the picture has one, the last layer's `query`): that finding we see only faintly. (W's spectrum is flatter here, and a space of 384 leaves less room for chance to be small.)
#
# ## Intruders
# Take W + dW apart. Is each of its strongest directions an old one of W, a little turned, or a newcomer? Shuttleworth et al. (2024) call a singular vector an **intruder** if no singular vector of W comes near it (largest cosine below a
# threshold: 0.6 here). They find intruders after LoRA and not after full fine-tuning, and report that it depends on the rank: LoRA of a high rank with rank-stabilized scaling ($\alpha / \sqrt r$) is much like full fine-tuning. And they tie
# intruders to **forgetting**: where they scaled them down after training, the model forgot less, and the task hardly suffered. (We read their abstracts, not the whole paper.)
#
# Three cautions for ours. Where W's singular values lie close, directions mix for next to nothing, so *chance* is drawn beside. The two runs should have learned equally much, so this full fine-tuning was ended near LoRA's validation loss.
# And this LoRA is a hot one, of one rank.

# %%
from lora_course.experiments.subspace import Intruders
from lora_course.plots.subspaces import intruder_dots

shown = ("full, LoRA's loss", "lora", "random like lora")
cosines = {name: [Intruders(np.array(c), 0.6) for c in reference["intruders"][name].values()] for name in shown}
print({name: f"loss {reference['runs'][name]['validation']['loss']:.3f}" for name in shown[:2]}, "on validation")
counts = {name: sum(one.count for one in several) for name, several in cosines.items()}
print(counts, "intruders among the 10 strongest directions of 12 matrices")
intruder_dots(cosines)

# %% claim
assert counts["lora"] > counts["random like lora"] >= counts["full, LoRA's loss"]

# %% [markdown]
# LoRA has some, full fine-tuning none, as the authors say; in one run of each. Part of it may be size: LoRA's dW is so much larger that even a *random* one of its norm makes an intruder. Whether ours make the model forget we did not test.
#
# ## Another way to be small: the intrinsic dimension
# Before LoRA, Aghajanyan et al. (2020) asked it differently: draw a *random* subspace of d dimensions in the space of **all** weights, once, and train only the d numbers that move the model within it. No matrix is of low rank
# then; the change is full of noise, but there are only d ways to choose. The smallest d that reaches 90 % of what full fine-tuning reaches is called the **intrinsic dimension** of the task (for that model).
#
# Here each of the 10 million weights of the layers is tied to one of the d numbers, with a random sign. **Predict:** which d of 0 (the head alone), 100, 1,000, 10,000, 100,000 is the first to reach 90 % of full's accuracy? (200 steps of each, one seed, one rate for all d, which was not tuned: with more of both, a smaller d might be enough.) And what could the model do *without being moved at all*? Lesson 08 has
# two answers, a probe and a head tuned alone; the picture has them as lines.

# %%
guess_d = None

# %%
from lora_course.experiments.intrinsic import Point, intrinsic_dimension
from lora_course.plots.intrinsic import intrinsic_picture

points = [Point(**point) for point in reference["intrinsic"]["points"]]
full_test = reference["runs"]["full, LoRA's loss"]["metrics"]["accuracy"]  # full fine-tuning for as many steps, 200
print(compare("d", guess_d, intrinsic_dimension(points, full_test)))
accuracies = [point.metrics["accuracy"] for point in points]
unmoved = {row["method"]: row["accuracy"]["mean"] for row in reference_comparison("minilm_rt")["methods"]}
floors = {"probe, nothing moved (lesson 08)": unmoved["probe"], "head alone at its best rate (lesson 08)": unmoved["head"]}
print(f"90 % of full's {full_test:.1%} is {0.9 * full_test:.1%};", "; ".join(f"{name}: {floor:.1%}" for name, floor in floors.items()))
lora_point = {"LoRA of rank 8, 400 steps": (73_728, reference["runs"]["lora"]["metrics"]["accuracy"])}
intrinsic_picture(points, full_test, lora_point, length="200 steps", floors=floors)

# %% claim
assert accuracies == sorted(accuracies) and accuracies[1] < 0.9 * full_test  # every tenfold helps; a hundred are too few
assert 0.9 * full_test < accuracies[3] < unmoved["probe"] < accuracies[4] and accuracies[2] < unmoved["head"]

# %% [markdown]
# Ten thousand numbers, of ten million, are the first to pass the mark (by less than a point, in one run). But look where the mark is: *below the probe* (75.8<!--compare.probe--> %), which moves nothing in the model, and so is d = 10,000 (73.4<!--inside.d-10000--> %). With d = 100 and d = 1,000
# (61.2<!--inside.d-100--> and 65.9<!--inside.d-1000--> %) we are even below a head that trains alone at its own best rate (67.6<!--compare.head--> %, after 400 steps where these runs had 200). Only at d = 100,000 is a run above both floors. Where half are right by tossing a coin and three quarters by
# a probe, "90 % of full" asks for little, and a rate that nobody tuned says little about d. So the number we found depends on the mark at least as much as on the task.
#
# The authors report that 200 numbers reach the mark for RoBERTa on MRPC, and that larger models need *fewer* (Aghajanyan et al. 2020; we read the abstract). The mark has the same weakness there: 68 % of MRPC's pairs are paraphrases (Wang et al. 2018, their note on MRPC),
# so a model that always says yes is right in 68 %.
#
# Still, there are two kinds of small: few directions in each matrix (LoRA), or few directions in all. Low rank is the one that also saves memory: a random subspace has to be expanded to all weights in every step.
#
# ## What you know now
# - Full fine-tuning's dW is of full rank, and its energy is spread; yet a few directions in each matrix do nearly all that was learned of this task. That is room enough for LoRA, and it is *not* the same as "dW is of low rank".
# - A random update of equal size gains about 3 points at most (its 95 % interval), where full fine-tuning gains 31: size alone is not what counts.
# - "90 % of full fine-tuning" is a low mark where a probe is above it. Draw the floor into every such picture.
# - Shared directions mean something only above chance, and chance is $\max(i, j)/d$: large in a small model. Two runs of one seed share the start of their first A (of all, if their rank is the same). Compare seeds, and the rows of $BA$.
# - One run of each on one task: whether few directions are enough elsewhere (a language the model has not read, say) is another question; lesson 06 has a task where rank shows.
#
# **Next:** lesson 14 does whole tables of the paper again, by rules.
