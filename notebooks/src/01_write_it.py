# %% [markdown]
# # 01 · Can you write LoRA in ten lines?
#
# Yes: your ten lines will run inside a real model, and read lesson 00's movie-review file. But one line looks like a mistake: it fills one of your matrices with zeros, so the adapter adds nothing. **How can something that starts as nothing ever learn?**
#
# Never used PyTorch? On the web pages, exercise 1 is a puzzle. In other code, read only the `#` comments.
#
# ## Three guesses
#
# $$y = Wx + \frac{\alpha}{r}\,B A x$$
#
# $W$ is frozen; $A$ starts at random, and $B$ at zero. Later you'll train them in MiniLM, a small model, for 25 steps, always on the same sixteen movie reviews.
#
# Each step needs the **gradient**: for each number, how fast the error (the **loss**) rises when that number grows. The step goes the other way.
#
# 1. **At the first step, how large is the gradient of $A$, as a percentage of $B$'s?** (For one matrix $W$; 100 means equally large. A gradient's size is the root of the sum of its squared numbers.)
# 2. **After how many steps are all sixteen answers right?**
# 3. **What percentage of 200 *other* reviews does the trained model get right?**
#
# Give ranges that you're 80% sure of. Then, for one small $W$, press **take a step** twice, and compare the gradients.

# %%
from copy import deepcopy
from pathlib import Path

import torch
from ipywidgets import interact
from matplotlib import pyplot as plt
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from lora_course import checks, lesson
from lora_course.checks.writing import layer_or_ours
from lora_lab import LoRAPanel, load_model, load_task, load_tokenizer

lesson.start("01")
lesson.predict("A's first gradient, percent of B's", low=..., high=...)
lesson.predict("steps until all sixteen are right", low=..., high=...)
lesson.predict("of 200 others, percent right", low=..., high=...)

# %%
LoRAPanel("steps", ("start", "steps", "merge"))

# %% [markdown]
# <details><summary>What we found</summary>
#
# The first gradient of $A$ is exactly 0. The error has to pass through $B$ to reach $A$, and $B$ is zero. But $B$ has a gradient and moves at once; one step later, $A$ has one, too.
#
# Take single numbers: $y=wx+sbax$, with $s$ for $\alpha/r$. When $b$ grows, $y$ grows $sax$ times as fast; when $a$ grows, $sbx$ times. With $b=0$, only $sbx$ is zero. The same holds for matrices, with the loss $L$ and $g=\partial L/\partial y$:
#
# $$\frac{\partial L}{\partial B} = \frac{\alpha}{r}\, g\,(A x)^\top \qquad \frac{\partial L}{\partial A} = \frac{\alpha}{r}\, (B^\top g)\, x^\top$$
#
# Each gradient has the *other* matrix in it. If both start at zero, neither ever moves.
# </details>
#
# ## What does it save?
# A square $W$ of width $d$ has $d^2$ numbers, and $A$ and $B$ together have $2dr$. **At rank 8, at which width do the two lines cross, and why?**

# %% alt="Two lines on logarithmic axes: the numbers of W grow with the square of the width d, those of A and B with d. They cross where d is twice the rank."
@interact(d=(16, 8192, 16), r=(1, 1024))
def plot(d=1024, r=8):
    widths = [4, 8192]
    plt.loglog(widths, [w * w for w in widths], color="gray", label="W: d * d, frozen")
    plt.loglog(widths, [2 * w * r for w in widths], "--", label="A and B: 2 * d * r, trained")
    plt.axvline(d, color="black", linestyle=":", label=f"d = {d:,}")
    plt.title(f"r = {r}: {2 * d * r:,} of {d * d:,} numbers, {2 * r / d:.2%}")
    plt.xlabel("width d")
    plt.ylabel("numbers")
    plt.legend()

# %% [markdown]
# <details><summary>What we found</summary>
#
# At width 16: $2dr=d^2$ if $d=2r$. LoRA saves numbers only in wider matrices.
# </details>
#
# ## Exercise 1: write it
# In PyTorch, $Wx$ (plus a bias, $b$) is a *linear layer*, `nn.Linear`. Your layer wraps a linear layer, square or not. At first, its output must equal the wrapped layer's. Only `lora_A` and `lora_B` may train. `x` holds one vector in each row, so $Ax$ is `x @ A.T`. Fill in the code, using these:
#
# - `layer.requires_grad_(False)` freezes a layer.
# - `torch.zeros(rows, columns)` makes a zero matrix, and `nn.Parameter(tensor)` a tensor that trains.
# - `nn.init.kaiming_uniform_(tensor, a=5**0.5)` fills $A$ as PEFT does: at random, uniformly within $\pm 1/\sqrt{\text{inputs}}$, so that $Ax$ doesn't grow with the width.


# %% exercise
class LoRALinear(nn.Module):
    def __init__(self, base_layer, rank, alpha):
        super().__init__()
        self.base_layer = base_layer  # freeze it
        self.scaling = ...
        self.lora_A = ...  # (rank, in_features)
        self.lora_B = ...  # (out_features, rank)

    def forward(self, x):
        ...


checks.check_lora_linear(LoRALinear)


# %% solution
class LoRALinear(nn.Module):
    def __init__(self, base_layer, rank, alpha):
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)
        self.scaling = alpha / rank
        self.lora_A = nn.Parameter(torch.empty(rank, base_layer.in_features))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)
        self.lora_B = nn.Parameter(torch.zeros(base_layer.out_features, rank))

    def forward(self, x):
        return self.base_layer(x) + self.scaling * (x @ self.lora_A.T @ self.lora_B.T)


checks.check_lora_linear(LoRALinear)

# %% [markdown]
# ## Into a real model
# MiniLM has six blocks (lesson 00's *layers*). In each, `query` and `value` (`q` and `v`) are linear layers. We freeze MiniLM, then wrap these twelve layers. The **head**, the last layer, turns MiniLM's vector into two scores, positive and negative. It starts at random and is frozen, too. Everything the model learns is in your $A$ and $B$.

# %%
MyLayer = layer_or_ours(LoRALinear)
torch.manual_seed(0)
model = load_model("minilm", num_labels=2).requires_grad_(False)  # in eval mode: its outputs repeat exactly
for block in model.bert.encoder.layer:
    attention = block.attention.self
    attention.query = MyLayer(attention.query, rank=8, alpha=16)
    attention.value = MyLayer(attention.value, rank=8, alpha=16)
untrained = deepcopy(model.state_dict())
trained = [p for p in model.parameters() if p.requires_grad]
print(f"{sum(p.numel() for p in trained):,} numbers train: 12 linear layers x 2 matrices x 8 x 384")

# %%
task, tokenizer = load_task("rt"), load_tokenizer("minilm")  # Rotten Tomatoes: positive or negative?


def batch_of(split, first, rows):
    texts = list(split.texts[first : first + rows])
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    return tokens, torch.tensor(split.labels[first : first + rows])


tokens, labels = batch_of(task.train, lesson.draw("sixteen", 0, 16, 32, 48), 16)  # your name decides which

# %%
model.load_state_dict(untrained)  # so that running this cell again starts over
layer = model.bert.encoder.layer[0].attention.self.query
optimizer = torch.optim.AdamW(trained, lr=3e-3)  # high: only sixteen reviews
right, shares = [], []
for step in range(25):
    logits = model(**tokens).logits  # two scores for each review; the higher one is the answer
    right.append(int((logits.argmax(-1) == labels).sum()))
    F.cross_entropy(logits, labels).backward()  # the loss, then a gradient for each number that trains
    shares.append(float(100 * layer.lora_A.grad.norm() / layer.lora_B.grad.norm()))
    optimizer.step()  # move every A and B, against its gradient
    optimizer.zero_grad()  # otherwise the next gradients would be added to these

# %%
with torch.no_grad():  # only answers, no gradients
    others, truth = batch_of(task.validation, 0, 200)
    share = 100 * (model(**others).logits.argmax(-1) == truth).float().mean().item()
lesson.reveal("A's first gradient, percent of B's", shares[0], "%")
lesson.reveal("steps until all sixteen are right", right.index(16) if 16 in right else 25, "steps")
lesson.reveal("of 200 others, percent right", share, "%")
print("gradient of A, percent of B's, step by step:", [round(one) for one in shares[:6]])

# %% claim
assert shares[0] == 0 < shares[1]
assert 16 in right
assert right.index(16) < 20
assert sum(p.numel() for p in trained) == 73_728
assert share < 62
assert share - 196 * (share / 100 * (1 - share / 100) / 200) ** 0.5 < 50  # it can be guessing
assert 200 * 0.45 < truth.sum() < 200 * 0.55

# %% [markdown]
# <details><summary>What we found</summary>
#
# All sixteen are right; of 200 others, 51 to 57%, depending on your sixteen. Guessing would get 43 to 57%. Your $A$ and $B$ only memorized sixteen reviews.
# </details>
#
# ## Exercise 2: merge it
# Your layer does more work than the one it replaced, and whoever loads your model needs your class. (Press **Merge** in the first panel, then *merge*: $y$ stays the same.) `merge` solves both problems. It takes a *copy* of the wrapped layer, adds the update $\frac{\alpha}{r}BA$ to its matrix (in place, `+=`), and returns this plain `nn.Linear`. (`@` multiplies matrices.) The check merges all twelve layers: all answers must stay right, and the logits (the scores) must agree within 1e-5.

# %% exercise
@torch.no_grad()  # a calculation, not training
def merge(layer):
    ...


checks.check_merge(merge, model, tokens, labels)


# %% solution
@torch.no_grad()  # a calculation, not training
def merge(layer):
    plain = deepcopy(layer.base_layer)  # a copy: run this twice, and nothing is added twice
    plain.weight += layer.scaling * (layer.lora_B @ layer.lora_A)
    return plain


checks.check_merge(merge, model, tokens, labels)

# %% [markdown]
# ## One more thing: lesson 00's movie-review file
# The adapter you opened there is in PEFT's format. It was trained for 400 steps in the same twelve layers, with the same rank and alpha. The next cell shortens its tensors' names, and loads it into *your* layers, with its head. **What percentage of the 200 others will now be right?**

# %% hide-output
folder = lesson.reference("minilm-rt-r8").adapter
tensors = load_file(Path(folder, "adapter_model.safetensors"))


def short(name):  # from base_model.model.bert [...] query.lora_A.weight to bert [...] query.lora_A
    name = name.removeprefix("base_model.model.")
    return name.removesuffix(".weight") if "lora_" in name else name


filled = deepcopy(model)
keys = filled.load_state_dict({short(name): tensor for name, tensor in tensors.items()}, strict=False)
print(f"{len(tensors)} tensors in the file, {len(keys.unexpected_keys)} of them without a place in your model")
with torch.no_grad():
    answers = filled(**others).logits.argmax(-1)
print(f"{100 * (answers == truth).float().mean():.1f}% of the 200 others are right")

# %% claim
recipe = lesson.reference("minilm-rt-r8").recipe
assert (recipe.steps, recipe.batch, recipe.method.rank, recipe.method.alpha) == (400, 16, 8, 16)
assert len(tensors) == 26 and not keys.unexpected_keys
assert abs(100 * (answers == truth).float().mean().item() - 82.5) < 1.1  # two reviews, on another machine

# %% [markdown]
# <details><summary>What we found</summary>
#
# 82.5% (95% interval, lesson 02: 77 to 88). Your class is the same; $A$, $B$ and the head changed. **Your ten lines can read PEFT's files.**
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **LoRA starts as the old layer:** $B = 0$ adds nothing.
# 2. **Starting $B$ at zero doesn't slow learning down:** $B$ has a gradient at once, $A$ one step later.
# 3. **Train $A$ and $B$ beside $W$, then merge:** merged, they cost nothing extra.
#
# Start with: $A$ Kaiming-uniform, $B$ zero, rank 8 (*published: [PEFT's defaults](https://github.com/huggingface/peft)*), alpha 16 (*ours: the scaling is 2*), a rate of 0.002<!--compare.lora.rate--> (*ours: the best for the whole task*), and a head that trains. $A$ learns, too: in lesson 00's movie-review file, each $A$ moved by 1.0<!--inside.a-moved.least--> to 1.3<!--inside.a-moved.most--> times its starting size.
#
# The same in PEFT:
# ```python
# config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], task_type="SEQ_CLS")
# model = get_peft_model(model, config)  # B is zero: same encoder output
# Trainer(model, TrainingArguments("out", learning_rate=2e-3), train_dataset=data).train()
# model = model.merge_and_unload()  # plain nn.Linear again
# ```
# </details>

# %%
lesson.receipt()
