# %% [markdown]
# # 14 · Can you read an adapter?
#
# Nobody reads MiniLM's 22 million numbers. But an adapter of **rank 1**, on **one** matrix, is small: $A$ is a single row, $B$ a single column. So for each word the adapter computes one number, $Ax$, and adds $B$ times that number.
#
# $$y = Wx + \frac{\alpha}{r}\,B\,(Ax)$$
#
# Whatever the adapter does, it does through that number. We print it under the words (without [CLS], [SEP]).

# %%
import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.checks.reading import STORED, disguise, stored
from lora_course.experiments.reward import halves_found
from lora_course.panels.mixer_panel import MixerPanel
from lora_lab import load_adapter, load_model, load_task
from lora_lab.training.assets import shipped
from lora_lab.training.models import load_tokenizer

lesson.start("14")
model, tokenizer = load_model("minilm", num_labels=2), load_tokenizer("minilm")
# stored: train("minilm", "rt", LoRA(rank=1, targets="*.5.*.value"), lr=2e-3, steps=400, batch=16)
load_adapter(model, shipped(f"{STORED}/seed0"))
adapter = model.bert.encoder.layer[5].attention.self.value
print("A:", *adapter.lora_A.shape, "  B:", *adapter.lora_B.shape, "  alpha / r:", adapter.scaling)

# %% [markdown]
# Our adapter sits on the *value* matrix of the last layer, which decides what each token tells the others. The *head*, a two-row output layer, reads only the first token, [CLS], put before every text.
#
# ## Three guesses
# Be 80% sure.
#
# 1. We negate $B$, nothing else. **What percentage of reviews does the model then get right?**
# 2. We throw the model's answer away, average $Ax$ over each review's words, and split the reviews at the median. We call one half good and the other bad, whichever way is right more often. **What percentage is right?**
# 3. Another seed starts from another random $A$. **How similar are the two trained $A$'s? (The squared cosine, as a percentage.)**

# %%
lesson.predict("percent right with B negated", low=..., high=...)
lesson.predict("percent right by the number alone", low=..., high=...)
lesson.predict("cosine squared of two seeds, in percent", low=..., high=...)

# %% [markdown]
# ## Read it
# A hook keeps what comes into the layer: 384 numbers for each token. In Jupyter, try your own sentences.

# %%
kept = {}
adapter.register_forward_pre_hook(lambda layer, inputs: kept.update(x=inputs[0].reshape(-1, 384)))

@torch.no_grad()
def read(text):
    """The tokens, the number of each, and how sure the model is that the review is positive."""
    inputs = tokenizer(text, return_tensors="pt")
    sure = model(**inputs).logits.softmax(-1)[0, 1].item()
    numbers = kept["x"] @ adapter.lora_A[0]
    return inputs.tokens()[1:-1], numbers[1:-1], sure  # without [CLS] and [SEP]

# %% alt="Six sentences with a number below each word: orange words push the answer to positive, blue words to negative."
sentences = ["wonderful , warm and funny", "a dull and pointless mess", "not good", "not bad"]
sentences += ["a masterpiece of boredom", "you will not be bored"]

plt.figure(figsize=(7.5, 4))
for row, sentence in enumerate(sentences):
    column, (tokens, numbers, sure) = 14, read(sentence)
    plt.text(0, -row, f"{sure:.0%} positive")
    for token, number in zip(tokens, numbers.tolist()):
        box = {"facecolor": "C0" if number > 0 else "C1", "alpha": min(abs(number) / 4, 1), "linewidth": 0}
        plt.text(column, -row, token, family="monospace", size=12, bbox=box)
        plt.text(column, -row - 0.45, f"{number:+.1f}", family="monospace")
        column += max(len(token), 4) + 1.8
plt.axis((0, 60, -len(sentences), 0.6))
plt.axis("off")
plt.title("One number per word: orange (minus) praises, blue (plus) blames, 0 leans positive", loc="left")
plt.show()

# %% [markdown]
# <details><summary>What we found</summary>
#
# *Wonderful* is clearly minus; *dull*, *pointless* and *mess* are plus. Nobody chose that sign: negate $A$ and $B$, and their product is unchanged.
#
# The adapter uses no dictionary. *Funny* is 0 in the first row, and +1.4 (blame!) alone. *Not* is plus in *not good* and slightly minus in *not bad*: five earlier layers have mixed the words. So a number tells you about a word *in its context*. The adapter fails, too: in *you will not be bored*, *not* is plus again, so it takes that sentence for criticism, and *a masterpiece of boredom* for praise.
# </details>
#
# ## Is that what it uses?
# A nice picture isn't evidence: we chose the sentences. So we take validation reviews and, as a control, 100 *random* directions, each with its better sign.
#
# And what did training cost? MiniLM was made to find texts that belong together. Cut 256 Bible passages in half: how many first halves are nearest to their second half? (Guessing finds 0.4%.)

# %% hide-input
reviews = load_task("rt").validation
count = 30 if lesson.FAST else 500
labels = torch.tensor(reviews.labels[:count]) == 1
B, right, sure = adapter.lora_B.detach().clone(), {}, []
for strength in (-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1):
    adapter.lora_B.data = strength * B
    answers, means = [], []
    for text in reviews.texts[:count]:
        answers.append(read(text)[2])
        means.append(kept["x"][1:-1].mean(0))
    sure.append(torch.where(labels, torch.tensor(answers), 1 - torch.tensor(answers)))  # of the right answer
    right[strength] = (sure[-1] > 0.5).float()
    found = halves_found(model, 16 if lesson.FAST else 256)
    strongest = torch.linalg.svdvals(adapter.frozen_weight() + adapter.delta_weight())[0].item()
    print(f"B times {strength:5}: {right[strength].mean():.1%} right, {found:.0%} of the halves found, W + BA's strongest piece {strongest:.1f}")

# %% hide-input
def by_the_number(direction):  # the average over a review's words, split at the median
    number = torch.stack(means) @ direction
    agree = ((number > number.median()) == labels).float().mean().item()
    return max(agree, 1 - agree)

torch.manual_seed(0)
alone = by_the_number(adapter.lora_A[0].detach())
chance = sorted(by_the_number(torch.randn(384)) for _ in range(100))
gap = right[0.25] - right[1]
print(f"A alone: {alone:.1%} right; the best random direction: {chance[-1]:.1%}")
print(f"a quarter of B: {100 * gap.mean():+.1f} points, plus or minus {196 * gap.std() / count**0.5:.1f}")
lesson.reveal("percent right with B negated", 100 * right[-1].mean().item(), "%")
lesson.reveal("percent right by the number alone", 100 * alone, "%")
mixer = MixerPanel(("trained B", "negated B"), [n / 8 for n in range(9)], sure[::-1], reviews.texts[:count])
mixer.logits = False  # lesson 08 compares with mixed logits
mixer

# %% claim
assert right[-1].mean() < 0.4 and right[1].mean() > 0.65
assert alone > chance[-1] and round(read("funny")[1].item(), 1) == 1.4
assert lesson.FAST or abs(gap.mean()) < 1.96 * gap.std() / count**0.5
before, after = (torch.linalg.svd(w.detach()) for w in (adapter.frozen_weight(), adapter.frozen_weight() + adapter.delta_weight()))
assert (round(before.S[0].item(), 1), round(after.S[0].item(), 1)) == (3.0, 22.5)
assert max((before.U.T @ after.U[:, 0]).abs().max(), (before.Vh @ after.Vh[0]).abs().max()) < 0.2
quarter = torch.linalg.svd((adapter.frozen_weight() + adapter.delta_weight() / 4).detach())
assert round(quarter.S[0].item(), 1) == 6.0 and (before.U.T @ quarter.U[:, 0]).abs().max() < 0.2
assert lesson.FAST or found < 0.16

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Negated, the adapter doesn't stop working. It works in reverse** (drag: halfway, no adapter; at 0.375, a quarter of $B$): accuracy falls from 74<!--inside.one.right-->% to 25<!--inside.one.negated-->%. Without it, 56<!--inside.one.without-->% are right. The number's sign decides; its size hardly matters. The number alone, without the head, gets 73<!--inside.one.alone-->%; the best of 100 random directions gets 62<!--inside.one.random-->%. (A linear classifier on the frozen model does as well as our adapter: 75.7<!--as_good.probe-->% of test reviews, both.)
#
# **An intruder, and what it costs.** $W$'s strongest piece (lesson 10) has strength 3.0. The adapter's, 22.5, has a direction as far from $W$'s as a random one: an **intruder**.
#
# And the model forgot something: it finds 14<!--inside.halves.one-->% of the halves, without the adapter 22<!--inside.halves.none-->% (8.6<!--inside.halves.lost--> ± 4.3<!--inside.halves.lost.half--> points more). **Shrink $B$ to a quarter, and most of it comes back**: 21<!--inside.halves.quarter-->% (up 7.4<!--inside.halves.back--> ± 3.9<!--inside.halves.back.half--> points). 500 reviews can't show whether that costs accuracy. (One adapter.) [Shuttleworth et al. 2024](https://arxiv.org/abs/2410.21228) report both, intruders and recovery, in large models (abstract only).
# </details>
#
# ## Would another seed read the same thing?
# The LoRA paper (section 7.2) measures how much two subspaces share: $\phi$ is how much of the smaller lies in the larger, from 0 to 1. For two directions it's the cosine squared.

# %%
first, second = (stored(seed)["lora_A"][0] for seed in (0, 1))
phi = torch.cosine_similarity(first, second, dim=0).item() ** 2
both = torch.corrcoef(torch.stack([torch.stack(means) @ a for a in (first, second)]))[0, 1]
lesson.reveal("cosine squared of two seeds, in percent", 100 * phi, "%")
print(f"correlation of their averages over {count} reviews: {both:+.2f}")

# %% claim
assert phi > 200 / 384 and (lesson.FAST or round(both.item(), 2) == -0.98)
assert min(first.norm(), second.norm()) > 1.1 and round(3**-0.5, 2) == 0.58  # A starts uniform within 1 / sqrt(384)

# %% [markdown]
# Is that a lot? **Exercise 1: in 384 dimensions, how large is $\phi$ on average between two random directions? And between 8 random directions and `rank` others (your name decides)?** For $i$ directions $u$ and $j$ directions $v$, each set orthonormal, $\phi = \frac{1}{\min(i, j)} \sum (u \cdot v)^2$ over all pairs.

# %% exercise
rank = lesson.draw("rank", 48, 32, 128, 16, 96)
print("rank:", rank)
checks.check_chance(..., ..., rank)

# %% solution
rank = lesson.draw("rank", 48, 32, 128, 16, 96)
print("rank:", rank)
checks.check_chance(1 / 384, rank / 384, rank)  # a unit vector's 384 squares add up to 1

# %% [markdown]
# <details><summary>What we found</summary>
#
# **They read the same thing.** Our two seeds have a $\phi$ of 0.64<!--inside.one.phi-->, over 200 times what chance gives. Training did that, not the start: each $A$ began with a length of 0.58 and ended above 1.1. On reviews, they agree even better: the correlation is -0.98 (the sign is arbitrary).
#
# In GPT-3 ($d$ = 12,288), the [paper](https://arxiv.org/abs/2106.09685) compares adapters of ranks 8 and 64. Their strongest directions have a $\phi$ above 0.5, and the others are nearly noise. In MiniLM, 64 *random* directions would give 64/384 = 0.17.
# </details>
#
# ## A stranger
# Somebody has negated $A$, $B$, both or nothing (your name decides). **Exercise 2: what was negated? Answer "A", "B", "A and B" or "nothing".** Compare the numbers with the picture.

# %% exercise
mine = lesson.draw("stranger", 0, 1, 2, 3)
disguise(adapter, mine)
tokens, numbers, sure = read("a wonderful film")
print(*tokens, [f"{number:+.1f}" for number in numbers], f"{sure:.0%} positive")
checks.check_stranger(..., mine)
disguise(adapter, 3)  # as it was

# %% solution
mine = lesson.draw("stranger", 0, 1, 2, 3)
disguise(adapter, mine)
tokens, numbers, sure = read("a wonderful film")
print(*tokens, [f"{number:+.1f}" for number in numbers], f"{sure:.0%} positive")
checks.check_stranger(["A and B", "B", "A", "nothing"][mine], mine)
disguise(adapter, 3)  # as it was

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **A reads, B writes.** At rank 1, all that an adapter takes from a token is one number, $Ax$, and you can print it.
# 2. **A picture is a hypothesis.** Test it: turn the direction around, and compare with random ones.
# 3. **You can't read a sign from $A$ alone or $B$ alone: only the sign of $BA$ matters.** And overlaps count only above chance, $\max(i, j)/d$.
#
# To read an adapter, start with rank 1 on one matrix. *Ours: 75.7<!--inside.one.test-->% of test reviews right (one run, untuned rate). Rank 8 on `q,v` of all layers gets 81.0<!--as_good.lora-->% (lesson 05).*
#
# The same in PEFT:
# ```python
# model = PeftModel.from_pretrained(base, "adapter")
# layer = model.get_submodule("base_model.model.bert.encoder.layer.5.attention.self.value")
# layer.lora_A["default"].register_forward_hook(lambda module, inputs, output: print(output.squeeze()))
# model(**tokenizer("a wonderful film", return_tensors="pt"))
# ```
# </details>

# %%
lesson.receipt()
