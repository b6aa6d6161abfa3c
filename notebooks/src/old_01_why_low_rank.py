# %% [markdown]
# # 01 · Why low rank?
#
# *An older lesson; where it names lessons by number, it means the older course, `old_00` to `old_15`.*
#
# **Goal.** Know what the rank of a matrix is, see how much of a picture and of a real weight survives when the rank is
# cut, and say exactly which matrix LoRA takes to be of low rank.
#
# **Time box.** 50 minutes. **You need** to know how a matrix is multiplied, and the words of lesson 00 (fine-tuning, adapter, LoRA,
# MiniLM). Nothing is trained: this machine answers at once, but for one cell that reads 100 sentences.

# %%
import numpy as np

from lora_course import checks
from lora_course.classroom.room import room_for
from lora_course.lesson import compare
from lora_lab.experiments.low_rank import decompose, energy_kept, rank_for_energy, shuffled, spectrum, truncated
from lora_lab.widgets.matrices import picture, update, weight
from lora_lab import RankPanel

print(room_for("old_01"))

# %% [markdown]
# ## The words, before they are used
# - A column times a row is a whole matrix: each row of it is the *same* row, only scaled. Such a matrix is of **rank one**.
# - The **rank** of a matrix is the smallest number of such rank-one pieces that add up to it. A matrix with `m` rows and `n`
#   columns needs at most the smaller of `m` and `n`.
# - Pieces are cheap: a column and a row are `m + n` numbers, the whole matrix is `m n`. If a matrix of 384 x 384 were the sum of
#   8 pieces, we could keep 8 (384 + 384) = 6,144 numbers in the place of 147,456.
#
# That looks familiar. In LoRA's $BA$, the matrix `B` has `r` columns and `A` has `r` rows: their product is the sum of `r` pieces,
# the i-th column of `B` times the i-th row of `A`. So **its rank is at most r, whatever is learned**.

# %%
column, row = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0, 0.0, -1.0, 2.0]])
print(column @ row)  # (3, 1) times (1, 4): every row is the first one, scaled
rng = np.random.default_rng(0)
B, A = rng.normal(size=(384, 8)), rng.normal(size=(8, 384))
pieces = sum(np.outer(B[:, i], A[i]) for i in range(8))

# %% claim
assert np.linalg.matrix_rank(column @ row) == 1
assert np.allclose(B @ A, pieces) and np.linalg.matrix_rank(B @ A) == 8

# %% [markdown]
# ## Which pieces are worth keeping?
# The **singular value decomposition**, SVD, writes *any* matrix as such a sum, the largest piece first:
#
# $$W = s_1 u_1 v_1^\top + s_2 u_2 v_2^\top + \dots \qquad s_1 \ge s_2 \ge \dots \ge 0$$
#
# The columns $u_i$ have length one and stand at right angles to each other, and so do the rows $v_i^\top$; so the **singular value** $s_i$ says how large the i-th piece is.
# The **energy** of a matrix is the sum of all its entries squared, and also the sum of all $s_i^2$. (Its square root is the
# *Frobenius norm*, the matrix's length, written $|W|$.)
#
# Stop after `r` pieces, and you have the best matrix of rank `r` that there is; what is lost is the energy of the pieces left
# out (Eckart and Young, 1936). Here is a matrix of 256 x 256 that you can judge by eye: a picture.
#
# **Predict.** How many of its 256 pieces hold 90 % of its energy? And how many, if the very same numbers are shuffled, each to a
# random place?

# %%
guess_picture = None  # a number between 1 and 256
guess_shuffled = None  # the same

# %%
P = picture()  # 256 x 256, from -1 (black) to 1 (white)
U, s, Vt = decompose(P)
print(compare("pieces for 90 % of the picture", guess_picture, rank_for_energy(s, 0.9)))

# %% [markdown]
# Now drag. **Do this:** find the rank from which on you can read the letters, then the one from which on you see no
# difference at all. Use the arrow keys for single steps. Which parts of the picture come first, and which last?

# %%
RankPanel("picture", rank=1)

# %% [markdown]
# A smooth sky needs one piece; anything aligned with rows and columns (the strokes of the L) is cheap; rings and slanted hills
# are expensive. *Low rank* is a statement about rows that resemble each other, not about what a person finds simple.
#
# Is the error what the theorem says? We test it against the numbers. And was it a good cut? We set another one beside it: the picture
# projected onto eight random directions.

# %%
cut = truncated(U, s, Vt, 8)
lost = ((P - cut) ** 2).sum()
basis, _ = np.linalg.qr(rng.normal(size=(256, 8)))  # another cut to rank 8: onto 8 random directions
print(f"lost: best cut {lost / (P**2).sum():.1%}, a random one {((P - basis @ basis.T @ P) ** 2).sum() / (P**2).sum():.1%}")

# %% claim
assert np.isclose((P**2).sum(), (s**2).sum())  # energy, counted in both ways
assert np.isclose(lost, (s[8:] ** 2).sum())  # the loss is the energy of the pieces left out
assert ((P - basis @ basis.T @ P) ** 2).sum() > 10 * lost  # no other cut is better; this one is far worse

# %% [markdown]
# ### Exercise 1 · 4 minutes
# Write the share of the energy that the first `r` singular values hold. `s` is a numpy array, largest first.


# %% exercise
def energy(s, r):
    ...  # a number between 0 and 1


checks.check_energy(energy)


# %% solution
def energy(s, r):
    return (s[:r] ** 2).sum() / (s**2).sum()


checks.check_energy(energy)

# %% [markdown]
# ## Compared with what?
# "8 of 256 pieces keep 94 %" sounds like a lot. A number alone is no evidence; we need to know what a matrix *without*
# structure would give. So take the very same numbers and shuffle their places: equal energy, no structure. You guessed above how
# many of its pieces hold 90 %.

# %%
noise = spectrum(shuffled(P))
print(compare("pieces for 90 % of the shuffled picture", guess_shuffled, rank_for_energy(noise, 0.9)))
print(f"8 pieces keep {energy_kept(s, 8):.1%} of the picture and {energy_kept(noise, 8):.1%} of the shuffled one")

# %% claim
assert energy_kept(s, 8) > 0.9 and 8 / 256 < energy_kept(noise, 8) < 0.15

# %% [markdown]
# Even noise is not spread evenly: its best 8 pieces hold more than 8/256 = 3 %. From now on every share of
# energy stands beside that of the same numbers shuffled. It is the grey line in the panel.
#
# ## A real weight
# The `q` of MiniLM's first layer, 384 x 384: trained by others on a great many sentences. **Predict.** How many of its 384 pieces hold 90 %, and what share do the first 8 keep?

# %%
guess_weight = None  # a number between 1 and 384
guess_eight = None  # in per cent

# %%
W = weight(layer=0, role="q")
s_W, s_noise = spectrum(W), spectrum(shuffled(W))
print(compare("pieces for 90 % of W", guess_weight, rank_for_energy(s_W, 0.9)))
print(compare("kept by 8 pieces", guess_eight, 100 * energy_kept(s_W, 8), "%"))
print(f"the same numbers shuffled: {rank_for_energy(s_noise, 0.9)} pieces; 8 keep {energy_kept(s_noise, 8):.1%}")

# %% claim
assert rank_for_energy(s_W, 0.9) * (384 + 384) > 0.7 * W.size  # numbers in the two factors

# %% [markdown]
# Cut at rank 8, most of this weight would be gone. It has structure (it needs fewer pieces than noise), but **it is not of low
# rank**. To keep 90 % as two factors we would store three quarters of its numbers. One weight may be an exception, so we look at all 24
# of the attention: six layers with `q`, `k`, `v` and the output `o`.

# %%
needed = {f"{role}{layer}": rank_for_energy(spectrum(weight(layer, role)), 0.9) for layer in range(6) for role in "qkvo"}
print(needed)
even = spectrum(shuffled(weight(5, "o")))

# %% claim
assert min(needed.values()) > 384 / 3  # nowhere is 90 % in fewer than a third of the pieces ...
assert energy_kept(s_W, 8) > 2 * energy_kept(s_noise, 8)  # ... and yet it is not noise: the first pieces are heavier
assert needed["o5"] > rank_for_energy(even, 0.9)  # and one is spread more evenly than noise!

# %% [markdown]
# Look at it. **Do this:** drag from 1 to 64 and watch the band of rows near the top that comes first. Change the matrix in the
# menu to *random numbers*: no bands. What might a band of rows in `q` be?

# %%
RankPanel("weight", rank=8)

# %% [markdown]
# MiniLM's `q` computes twelve **heads** at once, 32 rows each: twelve small attentions side by side. If the band is one head,
# then the energy of the rows, summed by head, must stick out in one of them.

# %%
by_head = (W**2).reshape(12, 32, 384).sum(axis=(1, 2))
print((by_head / by_head.sum()).round(3))

# %% claim
assert by_head.argmax() == 2  # rows 64 to 95
assert by_head.max() > 2 * np.median(by_head)

# %% [markdown]
# ## What LoRA says, and what it does not
# LoRA does not say that $W$ is of low rank, and it does not compress $W$: it is kept whole, and frozen. It says that the
# **change** $\Delta W$, which fine-tuning makes to a model that has already learned its language, can be of low rank.
#
# Here is such a change: the adapter of a run of 400 steps on film reviews that comes with the lab (`data/results`), of rank 8 with
# $\Delta W = \frac{\alpha}{r} BA$, on `q` of layer 0. **Predict.** How many of its 384 singular values are not zero, and what share of
# its energy is in the first two?

# %%
guess_nonzero = None  # a number between 0 and 384
guess_two = None  # in per cent

# %%
s_dW = spectrum(update(layer=0, role="q"))
print(s_dW[:10].round(3))
nonzero = int((s_dW > 1e-9 * s_dW[0]).sum())  # below that is rounding
print(compare("not zero", guess_nonzero, nonzero))
print(compare("in the first two", guess_two, 100 * energy_kept(s_dW, 2), "%"))

# %% claim
assert nonzero == 8

# %% [markdown]
# Exactly eight, and uneven. Is the first layer an exception? The table has all twelve places: energy in the first one, two
# and four of the eight. **Compared with what?** The last line is a `BA` of random numbers of the same shape.

# %%
places = [(layer, role) for layer in range(6) for role in "qv"]
spectra = {f"{role} of layer {layer}": spectrum(update(layer, role)) for layer, role in places}
spectra["random B A"] = spectrum(B @ A)
for name, values in spectra.items():
    print(f"{name:<14}", *(f"{energy_kept(values, r):6.1%}" for r in (1, 2, 4)))
random = energy_kept(spectra.pop("random B A"), 2)

# %% claim
assert all(energy_kept(values, 2) > 2 * random for values in spectra.values())

# %% [markdown]
# One row stands out: `q` of layer 5 has everything in its first piece. Before we ask what that says about the task, look at the
# architecture. The head reads the vector of a single token, `[CLS]`, which stands before every sentence. So in the *last* layer only the
# query of `[CLS]` reaches the answer, and no other token sends a gradient to `q`. In the layers below, all tokens do. What does `[CLS]`
# bring to layer 5?

# %%
import torch

from lora_course.lesson import reference
from lora_lab import load_adapter, load_model, load_task, load_tokenizer


def alike(x):
    x = torch.nn.functional.normalize(x, dim=1)
    return ((x @ x.T).sum().item() - len(x)) / (len(x) ** 2 - len(x))  # the mean cosine of two different rows


model = load_model("minilm", num_labels=2)
load_adapter(model, reference("minilm-rt-r8").adapter)  # the run whose updates these are
words = load_tokenizer("minilm")(list(load_task("rt").validation.texts[:100]), padding=True, return_tensors="pt")
with torch.no_grad():
    inputs = model(**words, output_hidden_states=True).hidden_states  # inputs[5] enters layer 5
cls, others = inputs[5][:, 0], inputs[5][:, 1:][words.attention_mask[:, 1:].bool()]
print(f"entering layer 5, mean cosine of two [CLS] {alike(cls):.3f}, of two other tokens {alike(others):.2f}")
signs = [np.sign(inputs[layer][:, 0].mean(0).numpy()) / 384**0.5 for layer in range(6)]
overlap = [float(abs(decompose(update(layer, "q"))[2][0] @ signs[layer])) for layer in range(6)]
print("first input direction of q against the signs of [CLS], by layer:", np.round(overlap, 2).tolist())

# %% claim
assert alike(cls) > 0.98 > 0.5 > alike(others)
assert overlap[5] > 0.5 > 0.2 > max(overlap[:5])

# %% [markdown]
# `[CLS]` is almost the same vector in every sentence. So each gradient of `A` here is a column times *this one* row, and each gradient of
# `B` a column times the same $(Ax)^\top$. Adam divides every number of a gradient by its size and leaves little but the sign. So the
# rows of `A` all move along the signs of `[CLS]`, which is where the first direction of `q` points in layer 5 and in no other. One
# piece in this row is built in, as the zeros after the eighth are. (It does not explain `v` of layer 5: all tokens go through that one.)
#
# ### Exercise 2 · 3 minutes
# What have we shown?
#
# - **a** that a change of rank 8 is all that this task needs,
# - **b** that LoRA's change has at most 8 pieces because it was built so, and that this run put most of it into a few of them,
# - **c** that the pretrained weights have rank 8.

# %% exercise
checks.check_update_shows(...)  # "a", "b" or "c"

# %% solution
checks.check_update_shows("b")

# %% [markdown]
# To find out whether *full* fine-tuning would have changed $W$ by something of low rank, one must fine-tune fully and take the
# SVD of that change. Lesson 13 does so. Whether a lower rank costs accuracy is a question for runs: lesson 06.
#
# ## The shapes, once and for all
# Many popular texts write: "`A` is d x r, `B` is r x d, and the update is $\Delta W = BA$". Take them at their word.
# **Predict** (say it aloud): does Python complain at r = 8, at r = 1, at both or at neither?

# %%
for r in (8, 1):
    A_popular, B_popular = rng.normal(size=(384, r)), rng.normal(size=(r, 384))
    try:
        changed = W + B_popular @ A_popular
        print(f"r = {r}: added, without a word")
    except ValueError as error:
        print(f"r = {r}: {error}")

from lora_course.lesson import claim

said = claim("1", rank=1)  # the sentence as a card; its verdict is computed here, and at rank 1 there is a note
said

# %% claim
assert np.ptp(changed - W) < 1e-5  # at r = 1 one and the same number was added everywhere
assert said.word == "false" and "says nothing" in said.because

# %% [markdown]
# With r = 8, $BA$ is 8 x 8 and cannot be added to $W$: the error is loud. **With r = 1 there is none:** then $BA$ is 1 x 1, and
# numpy and PyTorch add that one number to every entry of $W$. Errors of shape that pass in silence are the expensive ones.
#
# ### Exercise 3 · 3 minutes
# In this lab, as in the paper's text and in PEFT's files, $y = Wx + \frac{\alpha}{r} BAx$. A layer takes 384 numbers and gives 1,536, so
# `W` is 1536 x 384 (out x in). What shapes do `A` and `B` have at rank 8? Follow `x`: it meets `A` first.

# %% exercise
shape_A = ...  # (rows, columns)
shape_B = ...
checks.check_factor_shapes(shape_A, shape_B)

# %% solution
shape_A = (8, 384)
shape_B = (1536, 8)
checks.check_factor_shapes(shape_A, shape_B)

# %% [markdown]
# **Stop here** if time is short: you know what the rank is, and which matrix LoRA assumes to be low-rank. What follows asks what it saves.
#
# ## Why train few numbers at all? Bytes
# A number in **fp32** has 4 bytes, in **bf16** 2. Training needs more than the weight itself: each step computes a **gradient**, one
# number a weight (in which direction, and how strongly, the error changes with it); and **Adam**, the usual optimizer, keeps two more for each (a running mean of the gradient, and of its square).
# **Predict.** How many bytes does training one weight in fp32 take, all in all?

# %%
guess_bytes = None

# %%
def bytes_of_training(dtype):
    layer = torch.nn.Linear(384, 384, bias=False, dtype=dtype)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(4, 384, dtype=dtype)).square().mean().backward()
    optimizer.step()  # Adam makes its state at the first step
    state = [t for t in optimizer.state[layer.weight].values() if t.shape == layer.weight.shape]
    return {"weight": layer.weight.nbytes, "gradient": layer.weight.grad.nbytes, "Adam": sum(t.nbytes for t in state)}

per_weight = {name: {what: n / 384**2 for what, n in bytes_of_training(dtype).items()}
              for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
print(per_weight)
print(compare("bytes for one weight in fp32", guess_bytes, sum(per_weight["fp32"].values())))

# %% claim
assert per_weight["fp32"] == {"weight": 4, "gradient": 4, "Adam": 8}
assert per_weight["bf16"] == {"weight": 2, "gradient": 2, "Adam": 4}

# %% [markdown]
# Four times the weight, in either format. (In practice one often trains with weights in bf16 and keeps Adam's state, and a copy of the
# weights, in fp32: then it is more than four times.) A frozen weight has neither gradient nor state: it costs its own bytes and no more.
#
# ### Exercise 4 · 4 minutes
# A model has `parameters` numbers in fp32 in all; `trained` of them, counted among these, train with Adam. How many bytes do weights,
# gradients and Adam's state take together?


# %% exercise
def training_bytes(parameters, trained):
    ...  # a formula


checks.check_training_bytes(training_bytes)


# %% solution
def training_bytes(parameters, trained):
    return 4 * parameters + (4 + 8) * trained


checks.check_training_bytes(training_bytes)

# %% [markdown]
# For a model of 7 billion parameters, and an adapter of 4 million *beside* it, which is not among the 7 billion:

# %%
full = 16 * 7e9
adapter = 4 * 7e9 + 16 * 4e6
print(f"full {full / 1e9:.0f} GB, LoRA {adapter / 1e9:.1f} GB: {full / adapter:.2f} times")

# %% claim
assert 3.9 < full / adapter < 4  # at most four times, however small the adapter, as long as both are fp32

# %% [markdown]
# A surprise for those who expected thousands: the adapter is 1,750 times smaller than the model, but the memory falls by less than a factor of
# four, since the frozen weights must still be there. And we left out what the layers keep for the backward pass, the **activations**.
# Lesson 05 counts all of it; storing the frozen weights in 4 bits (lesson 11) is the next step down.
#
# ## What you know now
# - The rank counts rank-one pieces; the SVD sorts them; the energy left out is the squared error.
# - A share of energy means little without a baseline: the same numbers, shuffled.
# - The pretrained weights that we looked at (all of MiniLM's attention) are *not* of low rank. LoRA's change is, because it is built so.
# - `A` is (r, in), `B` is (out, r). With r = 1 a wrong order adds without an error.
# - Adam in fp32: 16 bytes for a weight that trains, 4 for one that does not.
#
# **Next:** lesson 02 writes this `B A` beside a real weight and trains it.
