# %% [markdown]
# # 14 · Can you read an adapter?
#
# Nobody can read MiniLM's 22 million numbers. So we train an adapter of **rank 1** on **one** matrix: $A$ is a single row, and $B$ is a single column. For the vector $x$ of each word, the adapter computes one number, $Ax$. Then it adds $B$ times this number:
#
# $$y = Wx + \frac{\alpha}{r}\,B\,(Ax)$$
#
# Whatever this adapter does, it does through this number. **What does the number mean?**
#
# Our adapter judges movie reviews. It changes the last layer's *value* matrix, which decides what each token tells the others.
#
# ## Three guesses
# 1. We negate $B$ (flip all its signs). **What percentage of reviews does the model then get right?**
# 2. MiniLM was made to find texts that belong together. We cut 256 Bible passages in half. Without the adapter, the model finds the right second half for 22<!--inside.halves.none-->% of the first halves. **What percentage does it find with the adapter?**
# 3. A second adapter starts from another random $A$. **After training, how similar are the two $A$s?** (Give their squared cosine in percent: 100 means the same direction, and 0 means a right angle.)
#
# Give ranges that you're 80% sure of.

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
lesson.predict("percent right with B negated", low=..., high=...)
lesson.predict("percent of the halves found", low=..., high=...)
lesson.predict("cosine squared of two seeds, in percent", low=..., high=...)

# %% [markdown]
# ## Read it
# The code prints the number $Ax$ below each word. **If *not* stands in front of *a ... film*, which adjectives' numbers change most?**

# %%
model, tokenizer = load_model("minilm", num_labels=2), load_tokenizer("minilm")
# stored: train("minilm", "rt", LoRA(rank=1, targets="*.5.*.value"), lr=2e-3, steps=400, batch=16)
load_adapter(model, shipped(f"{STORED}/seed0"))
adapter, kept = model.bert.encoder.layer[5].attention.self.value, {}
print("A:", *adapter.lora_A.shape, "  B:", *adapter.lora_B.shape, "  alpha / r:", adapter.scaling)
adapter.register_forward_pre_hook(lambda layer, inputs: kept.update(x=inputs[0].reshape(-1, 384)))

@torch.no_grad()
def read(text):
    """Return the tokens, the number for each token, and how sure the model is that the review is positive."""
    inputs = tokenizer(text, return_tensors="pt")
    sure = model(**inputs).logits.softmax(-1)[0, 1].item()
    numbers = kept["x"] @ adapter.lora_A[0]
    return inputs.tokens()[1:-1], numbers[1:-1], sure  # without [CLS] and [SEP]

# %% words alt="Six sentences with a number below each word. Words with a minus are blue: wonderful has -3.0. Words with a plus are orange: dull has +1.7. Before each sentence is how sure the model is that it is positive."
sentences = ["wonderful , warm and funny", "a dull and pointless mess", "not good", "not bad"]
sentences += ["a masterpiece of boredom", "you will not be bored"]

plt.figure(figsize=(7.5, 4))
for row, sentence in enumerate(sentences):
    column, (tokens, numbers, sure) = 14, read(sentence)
    plt.text(0, -row, f"{sure:.0%} positive")
    for token, number in zip(tokens, numbers.tolist()):
        box = {"facecolor": "C0" if number < 0 else "C1", "alpha": min(abs(number) / 4, 1), "linewidth": 0}
        plt.text(column, -row, token, family="monospace", size=12, bbox=box)
        plt.text(column, -row - 0.45, f"{number:+.1f}", family="monospace")
        column += max(len(token), 4) + 1.8
plt.axis((0, 60, -len(sentences), 0.6))
plt.axis("off")
plt.title("One number per word: blue is minus, orange is plus\n(without [CLS] and [SEP], the first and the last token)", loc="left")
plt.show()

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The number means praise or criticism.** Praise (*wonderful*) gets a negative number, and criticism (*dull*) gets a positive one. Nobody chose these signs: if you negate both $A$ and $B$, $BA$ doesn't change.
#
# **The number depends on the context,** because five earlier layers have mixed the words. If *not* stands in front of *a ... film*, *bad* (from +2.5 to 0.0) and *good* (from -2.6 to -0.5) change most.
# </details>
#
# ## Does the model use this number?
# The picture isn't evidence, because we chose the sentences. So we run two tests on 500 validation reviews:
#
# - **Negate $B$.** In the panel, drag from *trained B* to *negated B*. (A share of $s$ multiplies $B$ by $1-2s$. So a share of 0.375 is *B times 0.25* in the printed lines.) If the model uses $Ax$, its answers are reversed.
# - **Compare with chance.** Sort the reviews by the average of $Ax$ over their words. Call one half good and the other bad, whichever way fits the labels better. Then do the same with 100 *random* directions.

# %% hide-input
reviews = load_task("rt").validation
texts = reviews.texts[: 30 if lesson.FAST else 500]
labels = torch.tensor(reviews.labels[: len(texts)]) == 1
B, right, sure = adapter.lora_B.detach().clone(), {}, []
for strength in (-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1):
    adapter.lora_B.data = strength * B
    answers = torch.tensor([read(text)[2] for text in texts])
    sure.append(torch.where(labels, answers, 1 - answers))  # the probability of the right answer
    right[strength] = (sure[-1] > 0.5).float()
mixer = MixerPanel(("trained B", "negated B"), [n / 8 for n in range(9)], sure[::-1], texts)
mixer.share, mixer.logits = 0, False  # lesson 08 compares this with mixing the logits
mixer

# %% hide-input
def mean(text):  # the mean of its words' vectors
    read(text)
    return kept["x"][1:-1].mean(0)

def by_the_number(direction):  # split the reviews at their median number; return the share that's right
    number = means @ direction
    agree = ((number > number.median()) == labels).float().mean().item()
    return max(agree, 1 - agree)

means = torch.stack([mean(text) for text in texts])
torch.manual_seed(0)
alone = by_the_number(adapter.lora_A[0].detach())
chance = sorted(by_the_number(torch.randn(384)) for _ in range(100))
print(*(f"B times {strength:5}: {right[strength].mean():.0%} of the reviews right" for strength in (-1, 0, 0.25, 1)), sep="\n")
print(f"sorted by A: {alone:.1%} right; by the best random direction: {chance[-1]:.1%}")
lesson.reveal("percent right with B negated", 100 * right[-1].mean().item(), "%")

# %% claim
assert right[-1].mean() < 0.4 and right[1].mean() > 0.65
assert alone > chance[-1] and [f"{read(text)[1][-2].item():.1f}" for text in ("a bad film", "not a bad film")] == ["2.5", "-0.0"]
moved = {word: [read(f"{start}a {word} film")[1][-2].item() for start in ("", "not ")] for word in ("bad", "boring", "dull", "funny", "good", "wonderful")}
assert [f"{number:.1f}" for number in moved["good"]] == ["-2.6", "-0.5"]
assert {*sorted(moved, key=lambda word: abs(moved[word][0] - moved[word][1]))[-2:]} == {"bad", "good"}
assert [1 - 2 * share for share in mixer.shares] == [*right][::-1] and 1 - 2 * 0.375 == 0.25
gap = right[0.25] - right[1]
assert lesson.FAST or abs(gap.mean()) < 1.96 * gap.std() / len(texts) ** 0.5

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The model uses this number.** With $B$ negated, it gets 25<!--inside.one.negated-->% right instead of 74<!--inside.one.right-->%. Sorting by $Ax$ alone gets 73<!--inside.one.alone-->% right, but the best random direction gets only 62<!--inside.one.random-->%.
# </details>
#
# ## An intruder
# What happens to the model's other skills? Lesson 10 cut $W$ into pieces. The bars show the strengths of the strongest pieces: of $W$ alone, of $W$ with a quarter of $B$, and of $W$ with all of $B$. **Can you keep the new skill without losing the old one?**

# %% alt="Three bar plots of the strengths of the eight strongest pieces. W alone: all bars are at most 3.0; the halves found are 22%. With a quarter of B, the first bar is 6.0; 73% of the reviews are right, and 21% of the halves are found. With all of B, it is 22.5; 74% and 14%. The other bars hardly change."
W, shares = adapter.frozen_weight(), {"W": 0, "W and B / 4": 0.25, "W and B": 1}
figure, panels = plt.subplots(1, 3, figsize=(4.8, 3), sharey=True, layout="constrained", subplot_kw={"xticks": [], "ylim": (0, 25)})
for axes, (name, share) in zip(panels, shares.items()):
    adapter.lora_B.data = share * B
    strengths = torch.linalg.svdvals((W + adapter.delta_weight()).detach())[:8]
    found = halves_found(model, 16 if lesson.FAST else 256)
    axes.bar(range(1, 9), strengths, color=["C1" if share else "0.6", *["0.6"] * 7])
    axes.text(0.6, strengths[0] + 0.4, f"{strengths[0]:.1f}")
    axes.set_title(f"{name}\nreviews: {right[share].mean():.0%}\nhalves: {found:.0%}", size=10)
figure.suptitle("The adapter adds one strong piece", x=0.01, ha="left")
figure.supxlabel("the eight strongest pieces", size=10), figure.supylabel("strength", size=10)
lesson.reveal("percent of the halves found", 100 * found, "%")  # the last share is 1

# %% claim
before, after = (torch.linalg.svd(w.detach()) for w in (adapter.frozen_weight(), adapter.frozen_weight() + adapter.delta_weight()))
assert (round(before.S[0].item(), 1), round(after.S[0].item(), 1)) == (3.0, 22.5)
assert max((before.U.T @ after.U[:, 0]).abs().max(), (before.Vh @ after.Vh[0]).abs().max()) < 0.2
quarter = torch.linalg.svd((adapter.frozen_weight() + adapter.delta_weight() / 4).detach())
assert round(quarter.S[0].item(), 1) == 6.0 and (before.U.T @ quarter.U[:, 0]).abs().max() < 0.2
assert lesson.FAST or found < 0.16

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The adapter makes the model forget.** It finds only 14<!--inside.halves.one-->% of the second halves, instead of 22<!--inside.halves.none-->%. Perhaps this is why: in $W$ alone, the strongest piece has strength 3.0. With the adapter, the strongest piece has strength 22.5 and points in another direction. It's an **intruder**.
#
# **A quarter of $B$ is enough.** The model finds 21<!--inside.halves.quarter-->% of the second halves, and still gets 73% of reviews right. The intruder is still there, but its strength is only 6.0. (One adapter. [Shuttleworth et al. 2024](https://arxiv.org/abs/2410.21228), abstract only, also report intruders in large models, and less forgetting if the intruders are shrunk.)
# </details>
#
# ## Would another seed read the same thing?
# The code draws two $A$s as arrows of length 1. One arrow lies flat, and light from above casts the shadow of the other arrow on it. **The shadow's squared length is called $\phi$.** It's the squared cosine of guess 3.

# %% alt="Three pairs of arrows. In each pair, one arrow casts its shadow on the other. At 45 degrees, phi is 0.5. One seed's A and a random direction are almost at a right angle, so phi is 0. For the A of two seeds, phi is 0.64."
first, second = (stored(seed)["lora_A"][0] for seed in (0, 1))
pairs = {"example: 45°": torch.tensor([[1.0, 0], [1, 1]]), "random": (first, torch.randn(384)), "another seed": (first, second)}
square = {"xlim": (-0.1, 1.1), "ylim": (-0.1, 1.1), "aspect": 1, "xticks": [], "yticks": [], "frame_on": False}
figure, panels = plt.subplots(1, 3, figsize=(4.8, 2.8), layout="constrained", subplot_kw=square)
for axes, (name, (one, other)) in zip(panels, pairs.items()):
    shadow = torch.cosine_similarity(one, other, dim=0).abs().item()
    tip = (1 - shadow**2) ** 0.5  # the height of the tilted arrow
    axes.plot([0, shadow], [0, 0], color="C0", alpha=0.3, linewidth=12, solid_capstyle="butt")
    axes.plot([shadow, shadow], [0, tip], "k:", linewidth=1)
    axes.quiver([0, 0], [0, 0], [1, shadow], [0, tip], color=["black", "C0"], angles="xy", scale_units="xy", scale=1, width=0.02)
    axes.set_title(f"{name}\nshadow {shadow:.2f}\n$\\phi$ = {shadow**2:.2f}", fontsize=11)
figure.suptitle("Two seeds share far more than chance", x=0.01, ha="left")
both = torch.stack([means @ direction for direction in (first, second)])
lesson.reveal("cosine squared of two seeds, in percent", 100 * shadow**2, "%")  # the last pair
print(f"correlation of the two seeds' averages over {len(texts)} reviews: {torch.corrcoef(both)[0, 1]:+.2f}")

# %% claim
assert shadow**2 > 200 / 384 and (lesson.FAST or round(torch.corrcoef(both)[0, 1].item(), 2) == -0.98)
assert min(first.norm(), second.norm()) > 1.1 and round(3**-0.5, 2) == 0.58  # A starts uniform within 1 / sqrt(384)

# %% [markdown]
# Is the $\phi$ of two seeds large? In 2 dimensions, the $\phi$ of two random arrows is 1/2 on average. **Exercise 1: what's the average in 384 dimensions?**
#
# At higher ranks, we compare two *sets* of arrows. (Arrows within a set meet at right angles.) Each arrow of the smaller set casts a shadow on the space that the larger set spans. Then $\phi$ is the average squared length of these shadows. **What is $\phi$ on average for two random sets, one of 8 arrows and one of `rank`?**

# %% exercise
rank = lesson.draw("rank", 48, 32, 128, 16, 96)
print("rank:", rank)
checks.check_chance(..., ..., rank)

# %% solution
rank = lesson.draw("rank", 48, 32, 128, 16, 96)
print("rank:", rank)
checks.check_chance(1 / 384, rank / 384, rank)  # each axis catches 1/384 of an arrow's squared length, on average

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Both adapters read the same thing.** For their $A$s, $\phi$ is 0.64<!--inside.one.phi-->, over 200 times its average for random arrows. For each review, their averages of $Ax$ agree even better: the correlation is -0.98. (Signs are arbitrary.)
# </details>
#
# ## A stranger
# Somebody changed our adapter. **Exercise 2: what was negated: "A", "B", "A and B" or "nothing"?** Compare with the first picture.

# %% exercise
mine = lesson.draw("stranger", 0, 1, 2, 3)
disguise(adapter, mine)
tokens, numbers, sure = read("a wonderful film")
disguise(adapter, 3)  # restore the adapter
print(*tokens, [f"{number:+.1f}" for number in numbers], f"{sure:.0%} positive")
checks.check_stranger(..., mine)

# %% solution
mine = lesson.draw("stranger", 0, 1, 2, 3)
disguise(adapter, mine)
tokens, numbers, sure = read("a wonderful film")
disguise(adapter, 3)  # restore the adapter
print(*tokens, [f"{number:+.1f}" for number in numbers], f"{sure:.0%} positive")
checks.check_stranger(["A and B", "B", "A", "nothing"][mine], mine)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **A reads, B writes.** At rank 1, an adapter takes only one number from each token: $Ax$.
# 2. **A picture is a hypothesis.** Test it: negate the direction, and compare it with random directions.
# 3. **Taken separately, the signs of $A$ and $B$ mean nothing.** Only $BA$ matters.
# 4. **Compare $\phi$ with its average for random arrows**, which is the larger rank divided by the width.
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
