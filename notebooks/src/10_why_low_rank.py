# %% [markdown]
# # 10 · Why should the change fit into rank 8?
#
# A matrix in MiniLM's attention has $384\times384$ numbers. At rank 8, LoRA trains only 4% as many, and it works. **Is the model simple? Is its change simple? Or is the task?**
#
# ## A photograph, piece by piece
# A column times a row gives a matrix of **rank one**: all its rows are multiples of one row. *Any* matrix is a sum of such *pieces*, the strongest first (the SVD):
#
# $$M = s_1 u_1 v_1^\top + s_2 u_2 v_2^\top + \dots$$
#
# ($u_i$ is a column, $v_i^\top$ a row, both of length 1; $s_i$ is the strength.)
#
# Piece 1 alone looks like a plaid blanket. **After how many pieces do you recognize Grace Hopper?** Press *add the next piece*.

# %%
import numpy as np
import torch
from matplotlib import cbook
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_lab import RankPanel, load_model, load_task, load_tokenizer
from lora_lab.experiments.low_rank import energy_kept, rank_for_energy, shuffled, spectrum
from lora_lab.widgets.matrices import reference, weight

lesson.start("10")
photo = plt.imread(cbook.get_sample_data("grace_hopper.jpg")).mean(axis=2)  # or plt.imread("me.jpg")[::8, ::8].mean(axis=2)
photo -= photo.mean()
RankPanel({"Grace Hopper": photo}, rank=1, most=24)

# %% [markdown]
# The **energy** of $M$ is the sum of its squared entries. Piece $i$ holds $s_i^2$ of it.
#
# **Exercise 1: what share of the energy do the first r pieces hold?** `s` is a NumPy array of all $s_i$.


# %% exercise
def energy(s, r):
    return ...  # between 0 and 1


checks.check_energy(energy)


# %% solution
def energy(s, r):
    return (s[:r] ** 2).sum() / (s**2).sum()


checks.check_energy(energy)

# %% [markdown]
# In the photograph, 17 of 512 pieces hold 90% of the energy. (Did you need so many?) If you *shuffle* its pixels, it takes 282: neighbors are no longer alike.
#
# ## Two guesses
# 1. Full fine-tuning *changed* MiniLM's weight matrix `v` in block 2. **How many of the change's 384 pieces hold 90% of its energy?**
# 2. In lesson 03, full fine-tuning got 84.8<!--inside.full.right-->% of the reviews right, and 79.2<!--knobs.cut.2-->% with only the two strongest pieces of each matrix's change. **What percentage does the model get right with all pieces *except* these two?**
#
# Give ranges (80% sure).

# %%
lesson.predict("pieces of a change", low=..., high=...)
lesson.predict("percent right without the two strongest", low=..., high=...)


# %% alt="Share of the energy against the share of all pieces. The photograph reaches 90% with 17 of 512 pieces, the change with 83 of 384, the weight with 159 of 384, and shuffled numbers with 197 of 384."
W = weight(layer=2, role="v")
matrices = {"photograph": photo, "weight": W, "shuffled weight": shuffled(W)}
shares = {name: (spectrum(one) ** 2).cumsum() / (one**2).sum() for name, one in matrices.items()}
stored = reference()["value"]  # the change of W
shares["weight's change"] = np.interp(range(1, len(W) + 1), *np.transpose(stored["kept"])[:2])
lesson.reveal("pieces of a change", stored["ninety"][0], f"of {len(W)}")

plt.figure(figsize=(4.8, 3.8), layout="constrained")
for (name, share), color in zip(shares.items(), ("#555555", "C0", "#AAAAAA", "C1")):
    size, needed = len(share), stored["ninety"][0] if "change" in name else (share < 0.9).sum() + 1
    plt.plot(100 * np.arange(size + 1) / size, [0, *100 * share], color=color, linewidth=2.5)
    plt.plot(100 * needed / size, 90, "o", color=color, markersize=9)
    plt.text(36, 60 - needed / 4, f"{name}: {needed} of {size}", color=color, weight="bold")
plt.gca().set(xlabel="% of all pieces", ylabel="% of the energy (dots: 90%)", xlim=(0, 100), ylim=(0, 101))
plt.title("How many pieces hold 90% of the energy?", loc="left")
plt.show()

# %% claim
assert [*map(len, shares.values())] == [512, 384, 384, 384]
assert [rank_for_energy(spectrum(one), 0.9) for one in (photo, shuffled(photo), W, shuffled(W))] == [17, 282, 159, 197]
assert stored["ninety"] == [83, 196]
pieces = reference()["attention"]  # of each change, {role: [block 0, ...]}
assert pieces["v"][2] == 83
assert min(rank_for_energy(spectrum(weight(layer, role)), 0.9) for layer in range(6) for role in "qkvo") > 384 / 3

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The weight matrix isn't simple** (159 of 384 pieces; shuffled, 197), **and neither is its change:** it needs 83. So how can LoRA's eight be enough?
# </details>
#
# ## Take the strongest away
# The panel starts with the whole change of every matrix. Press *take the next piece away*, twice. **What happens to the accuracy?**

# %%
cut, rest, n = reference()["cuts"]["updates"]["full"], reference()["rest"], 500
lesson.reveal("percent right without the two strongest", 100 * rest["right"][2] / n, "%")

ways = {"only the strongest": cut | {"sentences": None}, "all but the strongest": rest}
panel = RankPanel(dict.fromkeys(ways, W), rank=0, most=8)
panel.data = dict.fromkeys(ways, stored)  # a corner of the change of v in block 2
panel.source = "all but the strongest"
about = f"Lesson 03's run: full fine-tuning, 400 steps of 16 reviews at rate 1e-4; {n} validation sentences. The orange line's models keep the changes in all biases."
panel.cuts = reference()["cuts"] | {"updates": ways, "about": about}
panel

# %% [markdown]
# <details><summary>What we found</summary>
#
# Over all matrices, the two strongest pieces hold only 30<!--knobs.cut.energy-->% of the energy. But they get 79.2<!--knobs.cut.2-->% right, and the other 382 get 61.8<!--ranks.rest.2-->%. **Energy says how *far* the weights moved, not how *useful* the move was.**
#
# Without piece 1, the model gets 53.6%. (So does the unchanged model, with other answers.) After piece 4, the orange line falls: too little is left.
# </details>
#
# Strange: after the first press, the model is nearly guessing. But take *more* away, and it gets *better*. **Why?** Look at its answers:

# %% alt="Percentage of the reviews that the model calls good (in fact, half are good). Without a change, with the trained head: 25. With piece 1 only: 88. With pieces 1 and 2: 56. With the whole change: 52. Without piece 1: 4. Without pieces 1 and 2: 15."
kept, without = reference()["negative"].values()  # how many of the 500 reviews the model calls bad
names = ["no change\n(trained head)", "only piece 1", "only pieces 1 and 2", "the whole change", "without piece 1", "without 1 and 2"]
shown = 100 - 100 * np.array([kept[0], kept[1], kept[2], kept[-1], without[1], without[2]]) / n
plt.figure(figsize=(4.8, 2.8), layout="constrained")
plt.barh(names, shown, color=["#BBBBBB", "C0", "C0", "#BBBBBB", "C1", "C1"])
for row, share in enumerate(shown):
    plt.text(share + 1, row, f"{share:.0f}%", va="center")
plt.axvline(50, color="black", linestyle=":")
plt.gca().invert_yaxis()
plt.gca().set(xlabel="% (dotted: half really are good)", xlim=(0, 100))
plt.suptitle("How many reviews does the model call good?", fontsize=11)
plt.show()

# %% claim
gain = cut["right"][-1] - cut["right"][0]
assert cut["ranks"] == rest["ranks"] and cut["ranks"][2] == 2 and reference()["cuts"]["n"] == n
assert rest["right"][0] == cut["right"][-1] and abs(rest["right"][-1] - cut["right"][0]) < 5  # all of it, and none
assert cut["right"][2] - cut["right"][0] > 0.75 * gain > 2 * (rest["right"][2] - rest["right"][-1])
assert (cut["ranks"][4], cut["right"][4], cut["right"][-1]) == (8, 417, 424) and 0.48 < cut["energy"][4] < 0.5  # of 500
assert cut["energy"][2] < 0.31
assert (cut["right"][0], rest["right"][1]) == (268, 268)  # of 500
assert [round(share) for share in shown] == [25, 88, 56, 52, 4, 15]
assert np.mean(load_task("rt").validation.labels[:n]) == 0.5

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The pieces balance each other.** Without any change, the model calls most reviews *bad*. Piece 1 pushes nearly every review toward *good*; piece 2 and the others push back. Without piece 1, nothing balances them: it calls only 4% *good*. Without piece 2 too, the push to *bad* is weaker.
# </details>
#
# ## Who spreads the change?
# A gradient shows which change the task asks for. Each token adds one piece to the gradient: a column (its output's gradient) times a row (its input). Our batch of eight good and eight bad reviews has 431 tokens. So its gradient for `v` in block 2 could need all 384 pieces, but **8 pieces hold 90% of the energy.** So who made it 83? Two suspects:
#
# - *The batches:* training takes 400 steps, each with different reviews.
# - *Adam:* it divides each number of the gradient by its usual size. At the first step, only the *sign* is left: each weight moves equally far, up or down.
#
# **Exercise 2: how many pieces does Adam's first step need?** Make this `step` from `gradient`; `rank_for_energy(spectrum(step), 0.9)` counts its pieces.
#
# Plain SGD only adds up the gradients. If the *batches* spread the change, it now needs more than 8 pieces. **How many does it need after 50 batches?** (The weights stay fixed, so both optimizers get the same gradients.)

# %% hide-input
task, tokenizer = load_task("rt"), load_tokenizer("minilm")
texts, labels = np.array(task.train.texts), np.array(task.train.labels)
bad, good = (np.flatnonzero(labels == label) for label in (0, 1))


def gradients(batch, seed=0):  # of q and v in each block, for 8 good and 8 bad reviews
    torch.manual_seed(seed)  # for the new head
    model = load_model("minilm", num_labels=2)
    rows = np.r_[good[8 * batch : 8 * batch + 8], bad[8 * batch : 8 * batch + 8]]
    inputs = tokenizer(list(texts[rows]), padding=True, return_tensors="pt")
    torch.nn.functional.cross_entropy(model(**inputs).logits, torch.tensor(labels[rows])).backward()
    blocks = [block.attention.self for block in model.bert.encoder.layer]
    return [layer.weight.grad.numpy() for block in blocks for layer in (block.query, block.value)]


many = [gradients(batch)[5] for batch in range(lesson.steps(50, 3))]  # of v in block 2; up to a minute
gradient = many[0]

# %% claim
first = [rank_for_energy(spectrum(one), 0.9) for one in gradients(0)]
assert sum(len(ids) for ids in tokenizer(list(texts[[*good[:8], *bad[:8]]]))["input_ids"]) == 431
assert first[5] == 8

# %% exercise
checks.check_first_step(..., gradient)

# %% solution
step = np.sign(gradient)
checks.check_first_step(rank_for_energy(spectrum(step), 0.9), gradient)

# %%
lesson.predict("pieces of SGD's change", low=..., high=...)

# %% alt="Share of the energy against the number of pieces, for v in block 2. SGD reaches 90% with 8 pieces after one batch and with 2 after 50 batches. Adam reaches it with 141 after one batch and with 73 after 50. The change in full fine-tuning, after 400 batches with Adam, needs 83."
moved = {"full fine-tuning,\n400 batches": shares["weight's change"]}
for name, settings in ("SGD", {}), ("Adam", {"eps": 1e-20}):
    change = torch.zeros(384, 384, requires_grad=True)
    optimizer = getattr(torch.optim, name)([change], lr=1, **settings)
    for batches, change.grad in enumerate(map(torch.tensor, many), 1):
        optimizer.step()
        if batches in (1, len(many)):
            moved[f"{name}, {batches} batch{'es' * (batches > 1)}"] = (energies := spectrum(change.detach().numpy()) ** 2).cumsum() / energies.sum()
plt.figure(figsize=(4.8, 4.2), layout="constrained")
for y, style, (name, share) in zip((15, 39, 49, 5, 29), ("C1-", "C0-", "C0:", "k-", "k:"), moved.items()):
    needed = stored["ninety"][0] if "full" in name else (share < 0.9).sum() + 1
    plt.plot([0, *100 * share], style, linewidth=2.5), plt.plot(needed, 90, style[:-1] + "o", markersize=9)
    plt.text(62, y, f"{name}{' (dotted)' * style.endswith(':')}: {needed}", color=style[:-1], weight="bold")
plt.gca().set(xlabel="pieces", ylabel="% of energy", xlim=(0, 200), title="pieces for 90% of the energy")
lesson.reveal("pieces of SGD's change", (list(moved.values())[2] < 0.9).sum() + 1, "of 384")

# %% claim
assert [rank_for_energy(spectrum(matrix), 0.9) for matrix in (step, shuffled(step))] == [141, 197]
assert ", 400 steps of 16," in reference()["cuts"]["about"]
assert lesson.FAST or [(share < 0.9).sum() + 1 for share in moved.values()][1:] == [8, 2, 141, 73]

# %% [markdown]
# <details><summary>What we found</summary>
#
# **It was Adam, not the batches.** With more batches, SGD needs *fewer* pieces, only 2: the gradients' common part adds up, and the rest mostly cancels out. Adam's first step needs 141, and after 50 batches, still 73.
#
# So most of the 83 pieces probably come from the optimizer, not the task. LoRA can leave them out: with the eight strongest pieces of each change, 83.4% are right. The others hold half of the energy, but add only 1.4 points.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Is the model simple? No.** This weight matrix needs 159 of 384 pieces for 90% of its energy.
# 2. **Is the change simple? In its energy, no; in its effect, yes.** It needs 83 pieces for 90% of its energy, here probably mostly because of Adam. But eight give nearly the whole gain. *Ours: one run. Published: on code and math, full fine-tuning's change needs 10 to 100 times LoRA's usual rank ([Biderman et al. 2024](https://arxiv.org/abs/2405.09673); we read parts).*
# 3. **Is the task simple? This one seems to be:** the gradient needs 8 pieces. *Ours: one matrix, sixteen reviews, before training. Published: on one task, training 200 numbers reached 90% of full fine-tuning's score ([Aghajanyan et al. 2020](https://arxiv.org/abs/2012.13255), abstract).*
#
# **So rank 8 can be enough: the task asks for few pieces.** For classification, start with rank 8 to 16.
#
# The same in PEFT:
# ```python
# state = get_peft_model_state_dict(model)
# A, B = (state[f"{name}.lora_{one}.weight"] for one in "AB")
# s = torch.linalg.svdvals(B @ A)[: A.shape[0]]  # are all r pieces used?
# print((s**2).cumsum(0) / (s**2).sum())
# ```
# </details>

# %%
lesson.receipt()
