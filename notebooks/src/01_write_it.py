# %% [markdown]
# # 01 · Can you write LoRA in ten lines?
#
# Yes, and your ten lines will run inside a real model. But one line looks like a mistake: it fills a matrix with zeros, so at first the adapter adds nothing. **How can an adapter that adds nothing learn?**
#
# If you've never used PyTorch, do exercise 1 on the web page, where it's a puzzle. In the other code cells, read only the `#` comments.
#
# ## Three guesses
#
# $$y = Wx + \frac{\alpha}{r}\,B A x$$
#
# $W$ is frozen. $A$ starts with random numbers, and $B$ with zeros. Later, you'll train $A$ and $B$ in MiniLM, a small model. For 25 steps, it's trained to separate positive movie reviews from negative ones. Each step uses the same sixteen reviews.
#
# For each trained number, the **gradient** says how fast the error (the **loss**) rises when that number grows. A step moves each number so that the loss falls.
#
# 1. **At the first step, how large is the gradient of one $A$, as a percentage of the gradient of the matching $B$?** (The size, or *norm*, of a gradient is the square root of the sum of its squared numbers.)
# 2. **After how many steps are all sixteen answers right?**
# 3. **What percentage of 200 *other* reviews does the trained model get right?**
#
# Give ranges you're 80% sure of. Then press **take a step** twice in the panel below, and compare the gradients.

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
# The first gradient of $A$ is 0. But the gradient of $B$ isn't zero, so $B$ moves at once. From the second step on, $A$ moves, too.
#
# To see why, imagine single numbers instead of matrices: $y=w\cdot x+s\cdot b\cdot a\cdot x$, where $s$ is $\alpha/r$. When $b$ grows, $y$ grows $s\cdot a\cdot x$ times as fast. When $a$ grows, $y$ grows $s\cdot b\cdot x$ times as fast. At $b=0$, $s\cdot b\cdot x$ is zero, but $s\cdot a\cdot x$ isn't. The same holds for matrices: each gradient contains the *other* matrix. If both matrices start at zero, neither ever moves.
# </details>
#
# ## What does it save?
# A square $W$ of width $d$ has $d^2$ numbers, and $A$ and $B$ together have $2dr$. **If $d$ doubles, what happens to the percentage in the plot's title?**

# %% alt="Two lines on logarithmic axes. One shows how many numbers W has, which grows with the square of the width d. The other shows how many A and B have, which grows in proportion to d. The lines cross where d is twice the rank."
@interact(d=(16, 8192, 16), r=(1, 1024))
def plot(d=1024, r=8):
    widths = [4, 8192]
    plt.figure(figsize=(3.6, 3.6))
    plt.loglog(widths, [w * w for w in widths], color="gray", label="W: d * d, frozen")
    plt.loglog(widths, [2 * w * r for w in widths], "--", label="A and B: 2 * d * r, trained")
    plt.axvline(d, color="black", linestyle=":", label=f"d = {d:,}")
    plt.title(f"r = {r}: {2 * d * r:,} numbers\ninstead of {d * d:,} ({2 * r / d:.2%})")
    plt.xlabel("width d")
    plt.ylabel("how many numbers")
    plt.legend(fontsize=8)

# %% [markdown]
# <details><summary>What we found</summary>
#
# It halves (from 1.56% to 0.78%): $2dr$ doubles, but $d^2$ becomes four times as large. So LoRA saves more in wider models.
# </details>
#
# ## Exercise 1: write it
# In PyTorch, a *linear layer* (`nn.Linear`) computes $Wx$, plus a bias vector. Write a layer that wraps a linear layer of any shape, and adds $\frac{\alpha}{r}BAx$ to its output. Only `lora_A` and `lora_B` may train. `x` holds one vector in each row, so $Ax$ is `x @ A.T`. Use these calls:
#
# - `layer.requires_grad_(False)` freezes a layer.
# - `torch.zeros(rows, columns)` makes a zero matrix, and `nn.Parameter(tensor)` makes a trainable tensor.
# - `nn.init.kaiming_uniform_(tensor, a=5**0.5)` fills $A$ with random numbers, as PEFT does.


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
# MiniLM has six blocks. Each block has two linear layers named `query` and `value` (`q` and `v`). We freeze MiniLM, then wrap these twelve linear layers. MiniLM's last linear layer, the **head**, computes two scores for each review: one for positive, one for negative. The head's numbers are random, and they're frozen, too. So only your twelve pairs of $A$ and $B$ learn.

# %%
MyLayer = layer_or_ours(LoRALinear)
torch.manual_seed(0)
# In eval mode, the outputs of a model repeat exactly.
model = load_model("minilm", num_labels=2).requires_grad_(False)
for block in model.bert.encoder.layer:
    attention = block.attention.self
    attention.query = MyLayer(attention.query, rank=8, alpha=16)
    attention.value = MyLayer(attention.value, rank=8, alpha=16)
untrained = deepcopy(model.state_dict())
trained = [p for p in model.parameters() if p.requires_grad]
print(f"{sum(p.numel() for p in trained):,} numbers train: 12 linear layers x 2 matrices x 8 x 384")

# %%
task, tokenizer = load_task("rt"), load_tokenizer("minilm")  # from Rotten Tomatoes


def batch_of(split, first, rows):
    texts = list(split.texts[first : first + rows])
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    return tokens, torch.tensor(split.labels[first : first + rows])


# which sixteen depends on your name
tokens, labels = batch_of(task.train, lesson.draw("sixteen", 0, 16, 32, 48), 16)

# %%
model.load_state_dict(untrained)  # so that running this cell again starts over
layer = model.bert.encoder.layer[0].attention.self.query
# a high learning rate, because there are only sixteen reviews
optimizer = torch.optim.AdamW(trained, lr=3e-3)
right, shares = [], []
for step in range(25):
    logits = model(**tokens).logits  # two scores for each review; the higher one is the answer
    right.append(int((logits.argmax(-1) == labels).sum()))
    # the loss, then a gradient for each number that trains
    F.cross_entropy(logits, labels).backward()
    shares.append(float(100 * layer.lora_A.grad.norm() / layer.lora_B.grad.norm()))
    optimizer.step()  # move every A and B in the direction opposite to its gradient
    optimizer.zero_grad()  # otherwise the next gradients would be added to these

# %%
with torch.no_grad():  # we need only answers, not gradients
    others, truth = batch_of(task.validation, 0, 200)
    share = 100 * (model(**others).logits.argmax(-1) == truth).float().mean().item()
lesson.reveal("A's first gradient, percent of B's", shares[0], "%")
lesson.reveal("steps until all sixteen are right", right.index(16) if 16 in right else 25, "steps")
lesson.reveal("of 200 others, percent right", share, "%")
print("gradient of A as a percentage of B's, step by step:", [round(one) for one in shares[:6]])

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
# All sixteen answers are right. Of the 200 other reviews, the model gets 51 to 57% right, depending on which sixteen reviews you got. Guessing gets 43 to 57% right (95% interval; see lesson 02). So your model only memorized the sixteen reviews.
# </details>
#
# ## Exercise 2: merge it
# Your layer computes more than the layer it wraps, and nobody can load your model without your class. Write a function `merge` that solves both problems. It makes a *copy* of the wrapped layer, adds $\frac{\alpha}{r}BA$ to the copy's matrix (with `+=`), and returns the copy, a plain `nn.Linear`. The check merges all twelve linear layers. The model's scores may change by at most 1e-5.

# %% exercise
@torch.no_grad()  # a calculation, not training
def merge(layer):
    ...


checks.check_merge(merge, model, tokens, labels)


# %% solution
@torch.no_grad()  # a calculation, not training
def merge(layer):
    # a copy, so that a second call doesn't add the update twice
    plain = deepcopy(layer.base_layer)
    plain.weight += layer.scaling * (layer.lora_B @ layer.lora_A)
    return plain


checks.check_merge(merge, model, tokens, labels)

# %% [markdown]
# ## One more thing: lesson 00's adapter
# In lesson 00, you opened an adapter in PEFT's format. It was trained for 400 steps in the same twelve linear layers, together with the head. The next cell loads it into *your* model. Will it do better on the 200 other reviews?

# %% hide-output
folder = lesson.reference("minilm-rt-r8").adapter
tensors = load_file(Path(folder, "adapter_model.safetensors"))


# turns base_model.model.bert [...] query.lora_A.weight into bert [...] query.lora_A
def short(name):
    name = name.removeprefix("base_model.model.")
    return name.removesuffix(".weight") if "lora_" in name else name


filled = deepcopy(model)
keys = filled.load_state_dict({short(name): tensor for name, tensor in tensors.items()}, strict=False)
print(f"the file has {len(tensors)} tensors; {len(keys.unexpected_keys)} of them have no place in your model")
with torch.no_grad():
    answers = filled(**others).logits.argmax(-1)
print(f"the model gets {100 * (answers == truth).float().mean():.1f}% of the 200 others right")

# %% claim
recipe = lesson.reference("minilm-rt-r8").recipe
assert (recipe.steps, recipe.batch, recipe.method.rank, recipe.method.alpha) == (400, 16, 8, 16)
assert (f"{2 * 8 / 1024:.2%}", f"{2 * 8 / 2048:.2%}") == ("1.56%", "0.78%")
assert len(tensors) == 26 and not keys.unexpected_keys
assert abs(100 * (answers == truth).float().mean().item() - 82.5) < 1.1  # two reviews, on another machine

# %% [markdown]
# <details><summary>What we found</summary>
#
# The model gets 82.5% right (95% interval: 77 to 88). More steps, more reviews or the trained head: we didn't test which helps most. **Your ten lines work with PEFT's adapters.**
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **At first, LoRA changes nothing,** because $B = 0$.
# 2. **Starting $B$ at zero costs $A$ only one step.** $B$ has a nonzero gradient at once, and $A$ has one from the second step on.
# 3. **Train $A$ and $B$ beside $W$, then merge them into $W$.** A merged adapter needs no extra computation.
#
# Start with a Kaiming-uniform $A$, a zero $B$ and rank 8 (*published: [PEFT's defaults](https://github.com/huggingface/peft)*). Choose alpha 16 (*ours: $\alpha/r$ is then 2*) and a learning rate of 0.002<!--compare.lora.rate--> (*ours: the best for 400 steps*). Train the head, too, as PEFT does for `SEQ_CLS`.
#
# The same in PEFT:
# ```python
# config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], task_type="SEQ_CLS")
# model = get_peft_model(model, config)
# Trainer(model, TrainingArguments("out", learning_rate=2e-3), train_dataset=data).train()
# model = model.merge_and_unload()  # plain nn.Linear again
# ```
# </details>

# %%
lesson.receipt()
