# %% [markdown]
# # 02 · LoRA from scratch
#
# *An older lesson; where it names lessons by number, it means the older course, `old_00` to `old_15`.*
#
# **Goal.** Write LoRA by hand on a weight of a real model; know why `B` starts at zero, whose gradients flow, and what it costs
# to form $W + BA$ in every step.
#
# **Time box.** 45 minutes. **You need** PyTorch a little: tensors, `@`, `backward()`.
#
# **This machine** trains for some seconds in the last third; every cell before that is instant.

# %%
import time

import torch
from torch import nn
from torch.nn import functional as F

from lora_course import checks
from lora_course.classroom.room import room_for
from lora_course.lesson import compare, eta, steps
from lora_lab import LoRA, load_model, load_task, load_tokenizer

print(room_for("old_02"))
torch.manual_seed(0)
model = load_model("minilm", num_labels=2)
layer = model.bert.encoder.layer[0].attention.self.query  # the q of the first layer
W = layer.weight.detach()  # (out, in)
W.shape

# %% [markdown]
# ## The picture: a sticky note
# Think of `W` as a page of a printed book. Full fine-tuning reprints the page. LoRA leaves it as printed and puts a
# **sticky note** beside it: small, cheap, easy to take off, and another reader may have another note on the same page.
#
# Keep the picture and watch where it breaks: this note does not hold *more text*. It is a second path that every vector
# takes as well, through a bottleneck of `r` numbers:
#
#             x  (384)
#             |       \
#             |        A   (r, 384)    down to r numbers
#           W |        |
#             |        B   (384, r)    and up again
#             |       /
#             y  =  W x  +  (alpha / r) B A x
#
# The layer also has a bias; it is frozen and simply stays. Below we often write `BA` for `(alpha / r) BA`.

# %% [markdown]
# ### Exercise 1 · 5 minutes
# Write the forward pass. A **token** is a word or a piece of one; here it is a vector. `x` holds one in each *row*, shape
# (tokens, in), so `W x` for all rows is `x @ W.T`. `A` is (r, in), `B` is (out, r); the rank `r` is the number of rows of `A`.
# (Our `W` is square, so a forgotten `.T` does not crash. The check uses one that is not.)


# %% exercise
def lora_forward(x, W, A, B, alpha):
    ...  # one line, or three


checks.check_lora_forward(lora_forward)


# %% solution
def lora_forward(x, W, A, B, alpha):
    r = A.shape[0]
    return x @ W.T + (alpha / r) * (x @ A.T @ B.T)  # down to r numbers, then up: never (out, in)


checks.check_lora_forward(lora_forward)

# %% [markdown]
# ### Exercise 2 · 3 minutes
# `W` costs `in * out` multiplications a token. How many does the detour through `A` and then `B` cost?
# (Leave out the factor `alpha / r`.)


# %% exercise
def detour_cost(d_in, d_out, r):
    ...  # a formula


checks.check_detour_cost(detour_cost)


# %% solution
def detour_cost(d_in, d_out, r):
    return r * d_in + d_out * r


checks.check_detour_cost(detour_cost)

# %% [markdown]
# ## Why `B` starts at zero
# Before the first step the model should say exactly what it said without the adapter: all that pretraining found is kept.
# With $B = 0$ the update $BA$ is zero whatever `A` is. Both at zero would do that too. So why is `A` random?
#
# **Predict.** If `A` *and* `B` start at zero, what have they learned after 1,000 steps?
#
# - **a** the same as from another start, only later,
# - **b** nothing: both are still zero,
# - **c** as much as from any other start.

# %% exercise
checks.check_dead_start(...)  # "a", "b" or "c"

# %% solution
checks.check_dead_start("b")

# %% [markdown]
# Let us look at the gradients of a first step: `A` random and `B` zero, then both zero.


# %%
def first_gradients(A, B, alpha=16):
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    x = torch.randn(32, 384)
    y = x @ W.T + (alpha / A.shape[0]) * (x @ A.T @ B.T)
    y.square().mean().backward()  # any loss will do
    return A.grad.norm().item(), B.grad.norm().item()


r = 8
A = torch.empty(r, 384).uniform_(-1, 1) / 384**0.5
B = torch.zeros(384, r)
alive, dead = first_gradients(A, B), first_gradients(0 * A, B)
print(f"A random, B zero: |dA| = {alive[0]:.4f}, |dB| = {alive[1]:.4f}")
print(f"both zero:        |dA| = {dead[0]:.4f}, |dB| = {dead[1]:.4f}")

# %% [markdown]
# Each gradient carries the *other* matrix as a factor. With $g$ the gradient arriving at `y` and $s = \alpha / r$:
#
# $$\frac{\partial L}{\partial B} = s\, g^\top (x A^\top) \qquad \frac{\partial L}{\partial A} = s\, (g B)^\top x$$
#
# So at the first step only `B` moves, and from the second on both do. With both at zero neither ever moves.

# %%
later = first_gradients(A, B + 0.01)  # as if B had made a step
print(f"after a step of B: |dA| = {later[0]:.4f}, |dB| = {later[1]:.4f}")

# %% claim
assert alive[0] == 0 and alive[1] > 0  # B first ...
assert later[0] > 0 and later[1] > 0  # ... then both ...
assert dead == (0, 0)  # ... and from two zeros there is no way out

# %% [markdown]
# ## How large is `A`?
# Each row of `A` sums over the 384 inputs, so its entries should be about $1/\sqrt{384}$; then each number in `A x`
# is of the same order as those in `x`, whatever the width. PyTorch calls the number of inputs the **fan-in**, and
# `nn.init.kaiming_uniform_` looks it up: with `a=5**0.5` its bound is exactly $1/\sqrt{\text{fan-in}}$. Hand it a matrix of the
# other orientation, (in, r) as some texts write it, and it takes `r` = 8 for the fan-in. (The paper draws `A` from a Gaussian, section 4.1;
# its code, loralib, and PEFT by default draw it with `kaiming_uniform_`, as we do here.)

# %%
right, wrong = torch.empty(r, 384), torch.empty(384, r)
nn.init.kaiming_uniform_(right, a=5**0.5)  # uniform between -1/sqrt(384) and 1/sqrt(384)
nn.init.kaiming_uniform_(wrong, a=5**0.5)  # thinks that there are 8 inputs
print(f"right: largest entry {right.abs().max():.3f};  wrong: {wrong.abs().max():.3f}")

# %% [markdown]
# ### Exercise 3 · 4 minutes
# By what factor is `A` too large? Write it for any width `d` and rank `r`, then see whether it explains the two numbers.


# %% exercise
def too_large_by(d, r):
    ...


checks.check_wrong_fan_in(too_large_by)


# %% solution
def too_large_by(d, r):
    return (d / r) ** 0.5  # (1 / sqrt(r)) / (1 / sqrt(d))


checks.check_wrong_fan_in(too_large_by)

# %%
measured = (wrong.abs().max() / right.abs().max()).item()
print(f"measured {measured:.2f}, sqrt(384 / 8) = {48**0.5:.2f}")
x, step_of_B = torch.randn(32, 384), torch.randn(384, r)  # any inputs, any step of B
farther = ((x @ wrong @ step_of_B.T).norm() / (x @ right.T @ step_of_B.T).norm()).item()
print(f"the same step of B moves y {farther:.1f} times as far")

# %% claim
assert abs(measured / 48**0.5 - 1) < 0.02
assert 6 < farther < 8

# %% [markdown]
# Nothing crashes when `A` is seven times too large. But one and the same step of `B` now moves `y` about seven times as far,
# so the learning rate that was right may be too high. No error tells you; look at the numbers.
#
# **Stop here** if you must: the mathematics is complete. What follows puts it into a real model.
#
# ## A layer in ten lines
# A module that wraps a layer. Only `A` and `B` are new; the next cell freezes the rest.


# %%
class MyLoRA(nn.Module):
    def __init__(self, frozen, rank=8, alpha=16):
        super().__init__()
        self.frozen, self.scaling = frozen, alpha / rank
        self.A = nn.Parameter(torch.empty(rank, frozen.in_features))
        self.B = nn.Parameter(torch.zeros(frozen.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def forward(self, x):
        return self.frozen(x) + self.scaling * (x @ self.A.T @ self.B.T)


# %% [markdown]
# Freeze everything, wrap `q` and `v` of each layer, and let the **head** (the classifier on top) train: it starts random, so it
# must. The order matters: after wrapping, `requires_grad_(False)` would freeze `A` and `B` too.

# %%
model.requires_grad_(False)
for block in model.bert.encoder.layer:
    attention = block.attention.self
    attention.query, attention.value = MyLoRA(attention.query), MyLoRA(attention.value)
model.classifier.requires_grad_(True)
trained = [p for p in model.parameters() if p.requires_grad]
sum(p.numel() for p in trained)

# %% [markdown]
# Twelve wrapped layers of $2 \cdot 8 \cdot 384$, and a head of 2 x 384 weights and 2 biases: does the count add up? And does the lab's own
# LoRA train as many?

# %%
report = LoRA(rank=8, alpha=16, targets=("q", "v")).attach(load_model("minilm", num_labels=2))
print(f"by hand {12 * 2 * 8 * 384 + 770:,}, the lab {report.trainable:,}")

# %% claim
assert sum(p.numel() for p in trained) == 12 * 2 * 8 * 384 + 770 == report.trainable

# %% [markdown]
# ## Train it: the loop, by hand
# Sixteen real sentences, again and again. **Predict:** what percentage of the sixteen will be right in the end, and what percentage of
# 200 *other* sentences? (A **tokenizer** cuts sentences into tokens and numbers them.)

# %%
print(eta(steps(40)))
guess_sixteen = None  # percent, between 0 and 100
guess_others = None  # percent

# %%
task, tokenizer = load_task("rt"), load_tokenizer("minilm")


def batch_of(split, n):
    tokens = tokenizer(list(split.texts[:n]), padding=True, truncation=True, max_length=64, return_tensors="pt")
    return tokens, torch.tensor(split.labels[:n])


tokens, labels = batch_of(task.train, 16)
frozen_before = model.bert.encoder.layer[0].attention.self.query.frozen.weight.clone()
optimizer = torch.optim.AdamW(trained, lr=3e-3)
losses = []
for step in range(steps(40)):
    loss = F.cross_entropy(model(**tokens).logits, labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")

# %% [markdown]
# The eight lines from `optimizer =` on are all of training. The lab's loop adds fresh sentences in each step, a rate that rises
# and then falls (*warm-up* and *decay*), a limit on the gradient's size (*clipping*), and validation.

# %%
def accuracy(tokens, labels):
    with torch.no_grad():
        return (model(**tokens).logits.argmax(-1) == labels).float().mean().item()

seen, others = accuracy(tokens, labels), accuracy(*batch_of(task.validation, 200))
print(compare("the sixteen", guess_sixteen, 100 * seen, "%"))
print(compare("200 others", guess_others, 100 * others, "%"))
now = model.bert.encoder.layer[0].attention.self.query.frozen.weight
print("W is what it was, to the bit:", torch.equal(now, frozen_before))

# %% claim
assert seen == 1 and losses[-1] < 0.1  # learned by heart
assert others < seen  # which is not the same as having learned the task
assert torch.equal(now, frozen_before)  # and W has not moved by a bit

# %% [markdown]
# Learning sixteen sentences by heart is easy; it says little about others. Lesson 04 trains on thousands and
# watches sentences that it does not train on.
#
# ## Or rebuild $W + BA$ in every step?
# It would be less code: form the full matrix, multiply once. PyTorch even has a tool for it (`parametrize`), and some
# libraries are built on it. **Predict:** which is faster in a training step, and by what factor?

# %%
guess_factor = None  # rebuilt / detour, for example 1

# %%
d, scale = 1536, 16 / 8  # a wider layer; alpha / r
weight, inputs = torch.randn(d, d) / d**0.5, torch.randn(512, d, requires_grad=True)
down, up = (torch.randn(8, d) / d**0.5).requires_grad_(), (0.02 * torch.randn(d, 8)).requires_grad_()


def detour():
    return inputs @ weight.T + scale * (inputs @ down.T @ up.T)


def rebuilt():
    return inputs @ (weight + scale * up @ down).T


# %%
def seconds(*ways, rounds=9):
    times = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:  # in turn: whatever else the machine does meets all alike
            start = time.perf_counter()
            way().sum().backward()
            times[way].append(time.perf_counter() - start)
    return [min(times[way]) for way in ways]  # the least disturbed of each


slow, fast = seconds(rebuilt, detour)
print(f"rebuilt {1e3 * slow:.1f} ms, detour {1e3 * fast:.1f} ms")
print(compare("rebuilt / detour", guess_factor, slow / fast))

# %% [markdown]
# Count the large products, each `tokens * d * d`. The detour needs **two**: `x W` forward, and the gradient to `x`
# backward. Rebuilding makes `W + BA` a tensor that wants a gradient of its own, `d x d`, so there is a **third**: exactly
# the one that LoRA was to save, and its result takes memory, too. For reading a formula rebuilding is fine; for training it gives the saving away.

# %% claim
assert torch.allclose(detour(), rebuilt(), atol=1e-3)  # the same result ...
assert slow > fast  # ... at a higher price

# %% [markdown]
# ## Merging: the note becomes print
# After training there is no gradient to pay for. Then $W + BA$ *is* the cheap way: one matrix of the same shape, so
# the same work as the base.

# %%
from lora_lab import merge, unmerge

fresh = load_model("minilm", num_labels=2)
LoRA(rank=8).attach(fresh)
with torch.no_grad():
    for name, p in fresh.named_parameters():
        if "lora_B" in name:
            p.normal_(std=0.02)  # as if it had been trained
    tokens, _ = batch_of(task.validation, 8)
    beside = fresh(**tokens).logits
    merge(fresh)
    merged = fresh(**tokens).logits
print(f"merged or beside: the logits differ by at most {(beside - merged).abs().max():.0e}")

# %% claim
assert torch.allclose(beside, merged, atol=1e-5)

# %% [markdown]
# Here the sticky-note picture breaks: a merged note is no longer a note. `W` is now another matrix, and to put another
# adapter beside it you must first take this one out again. You cannot have both at once, merged and swappable.

# %%
unmerge(fresh)
with torch.no_grad():
    print("unmerged, the answers are the same:", torch.allclose(fresh(**tokens).logits, beside, atol=1e-5))

# %% claim
with torch.no_grad():
    assert torch.allclose(fresh(**tokens).logits, beside, atol=1e-5)

# %% [markdown]
# ## What you know now
# - $y = Wx + \frac{\alpha}{r} B A x$, with `A` (r, in) and `B` (out, r). In the other order, `A B` is not defined unless
#   in = out, and then it is r x r: no update of `W`.
# - `B` = 0 keeps the model as it was; `A` random lets `B` move; from two zeros neither moves.
# - `A`'s scale is set by its number of inputs, not by the rank.
# - Training goes through the detour; merging is for afterwards.
#
# **Next:** lesson 03 counts what this saves, on models up to 405B; lesson 04 trains an adapter on thousands of sentences.
