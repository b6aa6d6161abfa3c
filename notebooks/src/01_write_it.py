# %% [markdown]
# # 01 · Can you write LoRA in ten lines?
#
# Yes, and your ten lines will run inside a real model. But LoRA's start looks like a mistake. In
#
# $$y = Wx + \frac{\alpha}{r}\,B A x$$
#
# $W$ is frozen, $A$ starts with random numbers, and $B$ starts with *zeros*. So at first, the adapter adds nothing. **How can an adapter that adds nothing learn?**
#
# Training takes many steps. At each step, every trained number gets a **gradient**, which says how fast the error (the **loss**) rises when that number grows. Then the step moves every number so that the loss falls.
#
# **At the first step, how large is the gradient of $A$, as a percentage of the gradient of $B$?** (At 50%, it's half as large.) Give a range that you're 80% sure of. Then press **take a step** twice in the panel, and compare the gradients.

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

# %%
LoRAPanel("steps", ("start", "steps", "merge"))

# %% [markdown]
# <details><summary>What we found</summary>
#
# The first gradient of $A$ is 0. But the gradient of $B$ isn't, so $B$ moves immediately. From the second step on, $A$ moves, too.
#
# **Each gradient has the *other* matrix as a factor.** To see why, imagine single numbers instead of matrices: $y=w\cdot x+s\cdot b\cdot a\cdot x$, where $s$ is $\alpha/r$. Add 0.01 to $b$, and $y$ changes by $0.01\cdot s\cdot a\cdot x$. Add 0.01 to $a$, and $y$ changes by $0.01\cdot s\cdot b\cdot x$, which is 0 as long as $b=0$. If $a$ and $b$ both start at zero, neither ever moves.
# </details>
#
# ## Exercise 1: write it
# (If you've never used PyTorch, solve the puzzle on the web page instead. In the other code cells, read only the `#` comments.)
#
# In PyTorch, a *linear layer* (`nn.Linear`) computes $Wx$, plus a bias vector. Write a layer that wraps a linear layer of any shape, and adds $\frac{\alpha}{r}BAx$ to its output. Only `lora_A` and `lora_B` may be trainable. `x` holds one vector in each row, so $Ax$ is `x @ A.T`. Use these calls:
#
# - `layer.requires_grad_(False)` freezes a layer.
# - `torch.zeros(rows, columns)` makes a zero matrix, and `nn.Parameter(matrix)` makes a matrix trainable.
# - `nn.init.kaiming_uniform_(tensor, a=5**0.5)` fills $A$ with random numbers, as PEFT does.


# %% exercise
class LoRALinear(nn.Module):
    def __init__(self, base_layer, rank, alpha):
        super().__init__()
        self.base_layer = base_layer  # freeze it
        self.scaling = ...
        self.lora_A = ...  # (rank, in_features)
        self.lora_B = ...  # (out_features, rank)

    def forward(self, x): ...


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
# MiniLM is a small model. Here, it decides whether a movie review is positive or negative. It has six blocks (lesson 00's *layers*), each with two linear layers named `query` and `value` (`q` and `v`). We freeze MiniLM, then wrap these twelve linear layers. MiniLM's last linear layer, the **head**, computes two scores for each review: one for positive, one for negative. The head's numbers are random, and we freeze them, too. So only your twelve pairs of $A$ and $B$ can learn.
#
# At width $d$, $W$ has $d^2$ numbers; $A$ and $B$ have $2dr$. The plot's title shows $2dr$ as a percentage of $d^2$. **If $d$ doubles, what happens to the percentage?** (In Jupyter, drag `d`.)

# %%
MyLayer = layer_or_ours(LoRALinear)  # ours, if yours doesn't pass the check yet
torch.manual_seed(0)
model = load_model("minilm", num_labels=2).requires_grad_(False)  # without dropout, so its outputs repeat exactly
for block in model.bert.encoder.layer:
    attention = block.attention.self
    attention.query = MyLayer(attention.query, rank=8, alpha=16)
    attention.value = MyLayer(attention.value, rank=8, alpha=16)
untrained, task, tokenizer = deepcopy(model.state_dict()), load_task("rt"), load_tokenizer("minilm")
trained = [p for p in model.parameters() if p.requires_grad]
some, of_all = (sum(p.numel() for p in parameters) for parameters in (trained, model.parameters()))
print(f"{some:,} of {of_all:,} numbers are trained: 12 linear layers x 2 matrices x 8 x 384")


def batch_of(split, first, rows):
    texts = list(split.texts[first : first + rows])
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    return tokens, torch.tensor(split.labels[first : first + rows])


# %% alt="Two lines on logarithmic axes. One shows how many numbers W has, which grows with the square of the width d. The other shows how many A and B have, which grows in proportion to d. At d = 384 and rank 8, A and B have 4.2% of the numbers of W. The lines cross where d is twice the rank."
@interact(d=(16, 8192, 16), r=(1, 1024))
def plot(d=384, r=8):
    widths = [4, 8192]
    plt.figure(figsize=(3.4, 3.6), layout="constrained")
    plt.loglog(widths, [w * w for w in widths], color="gray", label="W: d * d, frozen")
    plt.loglog(widths, [2 * w * r for w in widths], "--", label="A and B: 2 * d * r, trained")
    plt.axvline(d, color="black", linestyle=":", label=f"d = {d:,}, r = {r}")
    plt.title(f"A and B: {2 * r / d:.1%} of W's numbers")
    plt.xlabel("width d")
    plt.ylabel("how many numbers")
    plt.figlegend(loc="outside lower center", fontsize=8)
    plt.show()


# %% [markdown]
# <details><summary>Answer</summary>
#
# It halves: $2dr$ doubles, but $d^2$ becomes four times as large.
# </details>
#
# Now train the model for 25 steps. Each step uses the same sixteen reviews. Then test it on 200 *other* reviews. **After how many steps are all sixteen answers right? What percentage of the 200 others does the trained model get right?**

# %%
lesson.predict("steps until all sixteen are right", low=..., high=...)
lesson.predict("percent right of 200 others", low=..., high=...)

# %%
model.load_state_dict(untrained)  # so that running this cell again starts over
tokens, labels = batch_of(task.train, lesson.draw("sixteen", 0, 16, 32, 48), 16)  # which sixteen depends on your name
layer = model.bert.encoder.layer[0].attention.self.query
# a high learning rate, because there are only 25 steps
optimizer = torch.optim.AdamW(trained, lr=3e-3)
right, shares = [], []
for step in range(25):
    logits = model(**tokens).logits  # two scores for each review; the higher one is the answer
    right.append(int((logits.argmax(-1) == labels).sum()))
    # the loss, then a gradient for each trained number
    F.cross_entropy(logits, labels).backward()
    shares.append(float(100 * layer.lora_A.grad.norm() / layer.lora_B.grad.norm()))
    optimizer.step()  # move every A and B in the direction opposite to its gradient
    optimizer.zero_grad()  # otherwise the next gradients would be added to these

# %% hide-input
with torch.no_grad():  # we need only answers, not gradients
    others, truth = batch_of(task.validation, 0, 200)
    share = 100 * (model(**others).logits.argmax(-1) == truth).float().mean().item()
lesson.reveal("A's first gradient, percent of B's", shares[0], "%")
lesson.reveal("steps until all sixteen are right", right.index(16) if 16 in right else 25, "steps")
lesson.reveal("percent right of 200 others", share, "%")
print("gradient of A as a percentage of B's, step by step:", [round(one) for one in shares[:6]])

# %% claim
assert shares[0] == 0 < shares[1]
assert 16 in right
assert right.index(16) < 20
assert sum(p.numel() for p in trained) == 73_728 and f"{2 * 8 / 384:.1%}" == "4.2%"
assert share < 62
assert share - 196 * (share / 100 * (1 - share / 100) / 200) ** 0.5 < 50  # it can be guessing
assert 200 * 0.45 < truth.sum() < 200 * 0.55

# %% [markdown]
# <details><summary>What we found</summary>
#
# In MiniLM, too, $A$'s gradient starts at 0, then approaches $B$'s. All sixteen are right by step 20. But of the 200 others, the model gets only 51 to 57% right, depending on your sixteen. Guessing gets 43 to 57% right (95% interval; see lesson 02). **Your model only memorized the sixteen reviews.**
# </details>
#
# ## Is your layer to blame?
# In lesson 00, you opened an adapter in PEFT's format. It sits in the same twelve linear layers, but it was trained for 400 steps, on all of our 6,030 training reviews. Its file also holds a trained head. The next cell loads this adapter into *your* model. **What percentage of the 200 others does your model now get right?**

# %% hide-output
tensors = load_file(Path(lesson.reference("minilm-rt-r8").adapter, "adapter_model.safetensors"))


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
for review in ("Not bad at all!", "I laughed twice, both times by mistake.", "The best thing about it is the end."):  # add yours
    one = tokenizer(review, return_tensors="pt")
    before, now = (net(**one).logits.softmax(-1)[0, 1] for net in (model, filled))
    print(f"{review} positive: {before:.0%} before, {now:.0%} now")

# %% claim
assert now > 0.8  # it misses the irony
recipe = lesson.reference("minilm-rt-r8").recipe
assert (recipe.steps, recipe.batch, recipe.method.rank, recipe.method.alpha) == (400, 16, 8, 16)
assert len(task.train.texts) == 6030 < 400 * 16
assert len(tensors) == 26 and not keys.unexpected_keys
assert abs(100 * (answers == truth).float().mean().item() - 82.5) < 1.1  # two reviews, on another machine

# %% [markdown]
# <details><summary>What we found</summary>
#
# The model gets 82.5% right (95% interval: 77 to 88), so your layer isn't to blame. **Your ten lines work with PEFT's adapters.** (The model misses the irony of the last review.)
# </details>
#
# ## Exercise 2: merge it
# Your layer needs more computation than the layer it wraps, and nobody can load your model without your class. Write a function `merge` that solves both problems. It makes a *copy* of the wrapped layer, adds $\frac{\alpha}{r}BA$ to the copy's matrix (with `+=`), and returns the copy, a plain `nn.Linear`. (The first panel's **Merge** tab shows the idea.) The check merges all twelve linear layers. The model's scores may change by at most 1e-5.


# %% exercise
@torch.no_grad()  # a calculation, not training
def merge(layer): ...


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
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **At first, LoRA changes nothing,** because $B = 0$.
# 2. **Starting $B$ at zero costs $A$ only one step.** $B$ has a nonzero gradient immediately, and $A$ has one from the second step on.
# 3. **Train $A$ and $B$ beside $W$, then merge them into $W$.** A merged adapter needs no extra computation.
#
# Start with a Kaiming-uniform $A$, a zero $B$ and rank 8 (*published: [PEFT's defaults](https://github.com/huggingface/peft)*). Choose alpha 16 (*ours: $\alpha/r$ is then 2*) and a learning rate of 0.002<!--compare.lora.rate--> (*ours: the best for 400 steps*). For classification (`SEQ_CLS`), PEFT also trains the head.
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
