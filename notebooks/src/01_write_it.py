# %% [markdown]
# # 01 · Can you write LoRA in ten lines?
#
# Yes, and in this lesson your ten lines will run inside a real model. But one of them looks like a mistake: it fills one of your two matrices with zeros, so the whole adapter adds nothing. **How can something that starts as nothing ever learn?**
#
# This lesson is for people who have seen an `nn.Module` in PyTorch. Haven't? On the site, exercise 1 is a puzzle.

# %%
import torch
from ipywidgets import interact
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional as F

from lora_course import checks, lesson
from lora_course.checks.writing import yours_or_ours
from lora_lab import LoRAPanel, load_model, load_task, load_tokenizer

lesson.start("01")

# %% [markdown]
# ## Three guesses
#
# $$y = Wx + \frac{\alpha}{r}\,B A x$$
#
# $W$ is a weight matrix of the pretrained model, and it's frozen. $A$ takes the input down to $r$ numbers, $B$ takes these up to the output. $A$ starts random, $B$ starts at zero. Later you'll train this in MiniLM, a small model that reads English, on the same sixteen movie reviews in each of 40 steps.
#
# Each step needs the **gradient**: for each number, how fast the loss rises when it grows. The step goes the other way.
#
# 1. **At the first step, how large is the gradient of $A$, as a percentage of $B$'s?** (Compare lengths.)
# 2. **After how many steps are all sixteen reviews right?**
# 3. **Of 200 *other* reviews, what percentage is right in the end?**
#
# Give ranges that you're 80 % sure of. Then see the first steps of a small layer: press **take a step** twice and watch the two big numbers. Under **Start** you can send a vector through it, row by row.

# %%
lesson.predict("A's first gradient, percent of B's", low=..., high=...)
lesson.predict("steps until all sixteen are right", low=..., high=...)
lesson.predict("of 200 others, percent right", low=..., high=...)

# %%
LoRAPanel("steps", ("start", "steps", "merge"))

# %% [markdown]
# <details><summary>What we found</summary>
#
# The first gradient of $A$ is exactly 0. The error has to pass through $B$ to reach $A$, and $B$ is zero. But $B$ has a gradient at once. It moves, and one step later $A$ has a gradient too. So zero $B$ costs $A$ one step; then its gradient grows with $B$. (Adam, the usual optimizer, makes steps of about the learning rate, even where a gradient is small.) For those who know derivatives, with $g$ the gradient that arrives at $y$:
#
# $$\frac{\partial L}{\partial B} = \frac{\alpha}{r}\, g\,(A x)^\top \qquad \frac{\partial L}{\partial A} = \frac{\alpha}{r}\, (B^\top g)\, x^\top$$
#
# Each gradient has the *other* matrix in it. If both start at zero, neither ever moves.
# </details>
#
# ## What does it save?
# A square $W$ has $d^2$ numbers, $A$ and $B$ together have $2dr$. Here are eight lines that draw both. `interact` makes a slider from each range. Drag them, then change the plot. (On the site it's a picture.)

# %%
@interact(d=(64, 8192, 64), r=(1, 512))
def plot(d=4096, r=8):
    widths = range(64, 8193, 64)
    plt.plot(widths, [w * w for w in widths], color="gray", label="W: d * d, frozen")
    plt.plot(widths, [2 * w * r for w in widths], label="A and B: 2 * d * r, trained")
    plt.axvline(d, color="black", linestyle=":")
    plt.title(f"d = {d}, r = {r}: {2 * d * r:,} of {d * d:,} numbers, {2 * r / d:.2%}")
    plt.legend()

# %% [markdown]
# <details><summary>What we found</summary>
#
# The lower line is what you train. It looks flat, but it grows like $d$, the other like $d^2$, so the share is $2r/d$. **The wider the matrix, the smaller the share** at the same rank.
# </details>
#
# ## Exercise 1: write it
# Replace each `...`. Your layer wraps an `nn.Linear`, square or not. It must start identical to the layer it wraps, and only `lora_A` and `lora_B` may train. `x` holds one vector in each row, so $Ax$ is `x @ A.T`.


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
# The paper draws $A$ from a Gaussian; its code and PEFT use `kaiming_uniform_`, as we do. Either is fine, if the entries are about $1/\sqrt{\text{in}}$: then an entry of $Ax$ is about as large as one of $x$. Could you swap them, $A$ zero and $B$ random? That starts as the old layer, too. Is it as good? We haven't measured it: a question for you.
#
# ## Into a real model
# Freeze MiniLM, and wrap the query and value layers of its six blocks. Freeze first, or you freeze $A$ and $B$ too. The **head**, the last layer, turns MiniLM's vector into two scores, positive and negative. Then train: a rate of 3e-3, with alpha 16.

# %%
torch.manual_seed(0)
model = load_model("minilm", num_labels=2).requires_grad_(False)
model.classifier.requires_grad_(True)  # the head: it starts random, so it trains too
MyLayer = yours_or_ours(LoRALinear)
for block in model.bert.encoder.layer:
    attention = block.attention.self
    attention.query = MyLayer(attention.query, rank=8, alpha=16)
    attention.value = MyLayer(attention.value, rank=8, alpha=16)
trained = [p for p in model.parameters() if p.requires_grad]
print(f"{sum(p.numel() for p in trained):,} numbers train: 12 layers x 2 x 8 x 384, and a head of 770")

# %%
task, tokenizer = load_task("rt"), load_tokenizer("minilm")  # Rotten Tomatoes: positive or negative?


def batch_of(split, first, rows):
    texts = list(split.texts[first : first + rows])
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    return tokens, torch.tensor(split.labels[first : first + rows])


tokens, labels = batch_of(task.train, lesson.draw("sixteen", 0, 16, 32, 48), 16)  # yours, by your name

# %%
layer = model.bert.encoder.layer[0].attention.self.query
optimizer = torch.optim.AdamW(trained, lr=3e-3)
right, shares = [], []
for step in range(40):
    logits = model(**tokens).logits
    F.cross_entropy(logits, labels).backward()
    right.append(int((logits.argmax(-1) == labels).sum()))
    shares.append(float(100 * layer.lora_A.grad.norm() / layer.lora_B.grad.norm()))
    optimizer.step()
    optimizer.zero_grad()

# %%
with torch.no_grad():
    others, truth = batch_of(task.validation, 0, 200)
    share = 100 * (model(**others).logits.argmax(-1) == truth).float().mean().item()
lesson.reveal("A's first gradient, percent of B's", shares[0], "%")
lesson.reveal("steps until all sixteen are right", right.index(16) if 16 in right else 40, "steps")
lesson.reveal("of 200 others, percent right", share, "%")
print("gradient of A, percent of B's, step by step:", [round(one) for one in shares[:6]])

# %% claim
assert shares[0] == 0 < shares[1]
assert 16 in right
assert right.index(16) < 30
assert share < 70

# %% [markdown]
# <details><summary>What we found</summary>
#
# All sixteen are right long before step 40.
#
# And the others? Guessing gets half; 61 % of 200 is only a little better (54 to 68). Your adapter and head know sixteen reviews by heart, and not much more. Next lesson: how sure can you be of a score?
# </details>
#
# ## Exercise 2: merge it
# Your layer does more work than the one it replaced, and a program that loads your model needs your class. `merge` solves both problems: it puts $A$ and $B$ into $W$ and returns a plain `nn.Linear`, as fast as before. The check merges all twelve layers. The sixteen must still be right, and the logits (the scores) equal to the old ones within 1e-5.

# %% exercise
from copy import deepcopy


def merge(layer):
    ...


checks.check_merge(merge, model, tokens, labels)

# %% solution
from copy import deepcopy


def merge(layer):
    plain = deepcopy(layer.base_layer)  # run it twice and nothing is added twice
    plain.weight.data += layer.scaling * (layer.lora_B @ layer.lora_A).data
    return plain


checks.check_merge(merge, model, tokens, labels)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **LoRA starts as the old layer:** $B = 0$ adds nothing, so the first answer is exactly the old one.
# 2. **Zero $B$ isn't slow:** $B$ has a gradient at once, $A$ one step later. Two zeros never move.
# 3. **Train $A$ and $B$ beside $W$, merge afterwards:** merged, they cost nothing extra.
#
# Start with: $A$ Kaiming-uniform, $B$ zero, rank 8 (*published: [PEFT's defaults](https://github.com/huggingface/peft)*), alpha 16 (*our choice: the scaling is 2*), and a trained head. At alpha 16 we took a rate of 3e-3 for these sixteen; for the whole task 0.002<!--compare.lora.rate--> was best (*ours, MiniLM*). $A$ does learn: in the lab's own adapter it moved by 1.0<!--inside.a-moved.least--> to 1.3<!--inside.a-moved.most--> times its own size (*ours*).
#
# The same in PEFT:
# ```python
# config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], task_type="SEQ_CLS")
# model = get_peft_model(model, config)  # B is zero: the encoder's output is the same as before
# Trainer(model, TrainingArguments("out", learning_rate=2e-3), train_dataset=data).train()
# model = model.merge_and_unload()  # plain nn.Linear again
# ```
# </details>

# %%
lesson.receipt()
