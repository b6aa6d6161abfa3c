# %% [markdown]
# # 14 · Can you read an adapter?
#
# Nobody can read MiniLM's 22 million numbers. So we train an adapter of **rank 1** on **one** matrix: $A$ is a single row, and $B$ is a single column. For the vector $x$ of each word, the adapter computes one number, $Ax$. Then it adds $B$ times this number:
#
# $$y = Wx + \frac{\alpha}{r}\,B\,(Ax)$$
#
# One number per word: whatever this adapter does, it does through it.
#
# ## Read it
# Our adapter judges movie reviews. (It changes the last layer's *value* matrix.) The picture shows $Ax$ below each word of six sentences. **What does the number mean? And how does the adapter read the word *not*?**
#
# Then try to fool the adapter: **find a sentence that it judges wrongly.** (In Jupyter, call `read` with your sentence.)

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

plt.figure(figsize=(4.8, 4), layout="constrained")
for row, sentence in enumerate(sentences):
    column, (tokens, numbers, sure) = 7, read(sentence)
    plt.text(0, -row, f"{sure:.0%}")
    for token, number in zip(tokens, numbers.tolist()):
        box = {"facecolor": "C0" if number < 0 else "C1", "alpha": min(abs(number) / 4, 1), "linewidth": 0}
        plt.text(column, -row, token, family="monospace", size=12, bbox=box)
        plt.text(column, -row - 0.45, f"{number:+.1f}", family="monospace")
        column += max(len(token), 4) + 1.8
plt.axis((0, 44, -len(sentences), 0.6))
plt.axis("off")
plt.title("Left: how sure the model is of “positive”\nBelow each word: its number $Ax$", loc="left")
plt.show()

# %% claim
assert [f"{read(text)[1][0].item():.1f}" for text in ("not good", "not bad")] == ["2.4", "-0.6"]
fooled = [read(text) for text in ("you will not be bored", "not a dull film", "not a boring film")]
assert f"{fooled[0][1][2].item():.1f}" == "2.0" and [f"{sure:.0%}" for *_, sure in fooled] == ["23%", "14%", "12%"]
assert [f"{number:.1f}" for number in read("a masterpiece of boredom")[1].tolist()] == ["-1.1", "-1.8", "-1.2", "1.0"]
dopey = read("amazingly dopey .")
assert [(token, f"{number:.1f}") for token, number in zip(dopey[0][:4], dopey[1].tolist())] == [
    ("amazingly", "-2.5"), ("do", "0.4"), ("##pe", "-1.3"), ("##y", "-0.2")
]

# %% [markdown]
# <details><summary>What we found</summary>
#
# **A number above zero means criticism** (orange: *dull*), and one below zero means praise (blue: *wonderful*). Even *of* and *will* are clearly below zero, because five earlier layers have mixed the words' vectors.
#
# **Mostly, the word *not* itself counts as criticism.** It gets +2.4 in *not good*, but also +2.0 in *you will not be bored*: to the model, this praise is only 23% positive. *Not a dull film* gets 14%, and *not a boring film* 12%. (*Not bad* is an exception.)
#
# ***A masterpiece of boredom* fools it, too:** *masterpiece* (-1.8) outweighs *boredom* (+1.0).
# </details>
#
# ## Does the model use this number?
# The picture isn't evidence, because we chose the sentences. So take 500 validation reviews. The model gets 74<!--inside.one.right-->% of them right. Then negate $B$ (flip all its signs). **What percentage does it get right with $-B$?**
#
# Give a range. Then read the review at the top of the panel's list *most surely wrong*: **which word misleads the model?** And drag the slider from $B$ to $-B$.

# %%
lesson.predict("percent right with B negated", low=..., high=...)

# %% hide-input
reviews, count = load_task("rt").validation, 30 if lesson.FAST else 500
texts, labels = reviews.texts[:count], torch.tensor(reviews.labels[:count]) == 1
B, right, shares = stored()["lora_B"], [], [n / 8 for n in range(9)]
for share in shares:  # of -B
    adapter.lora_B.data = (1 - 2 * share) * B
    answers = torch.tensor([read(text)[2] for text in texts])
    right.append(torch.where(labels, answers, 1 - answers))  # the probability of the right answer
disguise(adapter, 3)  # back to B
lesson.reveal("percent right with B negated", 100 * (right[-1] > 0.5).float().mean().item(), "%")
mixer = MixerPanel(("B", "−B"), shares, right, texts, share=0)
mixer

# %% claim
from lora_course.experiments.reward import sorted_right

means = torch.stack([kept["x"][1:-1].mean(0) for text in texts if read(text)])  # the mean of a review's vectors
torch.manual_seed(0)
alone, *chance = (sorted_right(means @ row, labels) for row in (stored()["lora_A"][0], *(torch.randn(384) for _ in range(100))))
accuracy = [(one > 0.5).float().mean().item() for one in right]
assert accuracy[-1] < 0.4 and accuracy[0] > 0.65 and alone > max(chance)
assert lesson.FAST or [f"{share:.0%}" for share in (accuracy[0], accuracy[3], accuracy[4], accuracy[-1])] == ["74%", "73%", "56%", "25%"]
assert lesson.FAST or (right[0].argmin() == texts.index("amazingly dopey .") and [f"{one:.0%}" for one in (alone, max(chance))] == ["73%", "62%"])
assert lesson.FAST or ((right[0] > 0.5) != (right[-1] > 0.5)).float().mean() > 0.95  # reversed
gap = (right[3] > 0.5).float() - (right[0] > 0.5).float()
assert lesson.FAST or abs(gap.mean()) < 1.96 * gap.std() / len(texts) ** 0.5

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The model uses this number.** With $-B$, nearly all its answers are reversed: it gets 25<!--inside.one.negated-->% right.
#
# **The number alone is almost enough.** Sort the reviews by the average of $Ax$ over their words, and call one half good and the other bad: 73<!--inside.one.alone-->% of these answers are right. (We tried 100 random directions instead of $A$: at most 62<!--inside.one.random-->% were right.)
#
# **You can even explain the model's most confident mistake,** *amazingly dopey*. *Amazingly* gets -2.5, so it counts as praise. And MiniLM reads *dopey* in three pieces: *do* (+0.4), *pe* (-1.3) and *y* (-0.2).
# </details>
#
# ## A stranger
# Somebody sabotaged our adapter (perhaps). **Exercise 1: what was negated: "A", "B", "A and B" or "nothing"?** Compare the output with the first picture.

# %% exercise
mine = lesson.draw("stranger", 0, 1, 2, 3)
disguise(adapter, mine)
tokens, numbers, positive = read("a wonderful film")
disguise(adapter, 3)  # restore the adapter
print(*tokens, [f"{number:+.1f}" for number in numbers], f"{positive:.0%} positive")
checks.check_stranger(..., mine)

# %% solution
mine = lesson.draw("stranger", 0, 1, 2, 3)
disguise(adapter, mine)
tokens, numbers, positive = read("a wonderful film")
disguise(adapter, 3)  # restore the adapter
print(*tokens, [f"{number:+.1f}" for number in numbers], f"{positive:.0%} positive")
A_negated = numbers[1].item() > 0  # in the first picture, wonderful has a minus
reversed_answer = positive < 0.5  # A or B was negated; two negations cancel
B_negated = A_negated != reversed_answer
negated = " and ".join(name for name, one in {"A": A_negated, "B": B_negated}.items() if one)
checks.check_stranger(negated or "nothing", mine)

# %% [markdown]
# ## Would an adapter from another seed read the same thing?
# A second adapter starts from another random $A$. After training, do the two $A$s point in the same direction?
#
# Picture them as arrows of length 1. One arrow lies flat, and light from above casts the shadow of the other arrow on it. **The shadow's squared length is called $\phi$.** (It's the squared cosine of the angle.) It's 1 for the same direction, and 0 for a right angle.
#
# In a room (3 dimensions), take the shadow of a random arrow. On a flat arrow, the shadow's squared length is 1/3 on average. On the floor (2 dimensions), it's 2/3. **Exercise 2: what are these averages in 384 dimensions, on a flat arrow and on a floor of `rank` dimensions?** (Why a floor? At rank 8, the rows of $A$ span one of 8 dimensions.)
#
# Then guess: **what's the $\phi$ of our two trained $A$s, in percent?**

# %% exercise
rank = lesson.draw("rank", 48, 32, 128, 16, 96)
print("rank:", rank)
checks.check_chance(..., ..., rank)

# %% solution
rank = lesson.draw("rank", 48, 32, 128, 16, 96)
print("rank:", rank)
checks.check_chance(1 / 384, rank / 384, rank)  # each dimension catches 1/384 of an arrow's squared length, on average

# %%
lesson.predict("cosine squared of two seeds, in percent", low=..., high=...)

# %% alt="Three pairs of arrows. In each pair, one arrow casts its shadow on the other. At 45 degrees, phi is 0.5. One seed's A and a random direction are almost at a right angle, so phi is 0. For the A of two seeds, phi is 0.64."
first, second = (stored(seed)["lora_A"][0] for seed in (0, 1))
torch.manual_seed(4)  # 0 would repeat the numbers that seed 0's A started from
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
lesson.reveal("cosine squared of two seeds, in percent", 100 * shadow**2, "%")  # the last pair

# %% claim
both = torch.stack([means @ direction for direction in (first, second)])
assert shadow**2 > 200 / 384 and (lesson.FAST or round(torch.corrcoef(both)[0, 1].item(), 2) == -0.98)
assert min(first.norm(), second.norm()) > 1.1 and round(3**-0.5, 2) == 0.58  # A starts uniform within 1 / sqrt(384)

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Both adapters read the same thing.** For their $A$s, $\phi$ is 0.64<!--inside.one.phi-->, more than 200 times its average for random arrows. Across all reviews, the two adapters' averages of $Ax$ agree even better: their correlation is -0.98. (The signs are arbitrary: if you negate both $A$ and $B$, $BA$ doesn't change.)
# </details>
#
# ## An intruder
# MiniLM was made to find texts that belong together. We cut 256 Bible passages in half. Without the adapter, the model finds the right second half among all 256 for 22<!--inside.halves.none-->% of the first halves. (Guessing would find 0.4%.) **What percentage does it find with the adapter?**
#
# With the slider at 0.375 (that's $0.625B-0.375B=B/4$), accuracy on reviews hardly fell. **Does the old skill come back?** The picture also shows the strongest pieces (lesson 03) of the matrix.

# %%
lesson.predict("percent of the halves found", low=..., high=...)

# %% alt="Three bar plots of the strengths of the eight strongest pieces. W alone: all bars are at most 3.0; the halves found are 22%. With a quarter of B, the first bar is 6.0; 73% of the reviews are right, and 21% of the halves are found. With all of B, it is 22.5; 74% and 14%. The other bars hardly change."
W, cases = adapter.frozen_weight(), {"W": 4, "W and B / 4": 3, "W and B": 0}  # places in the list of shares
figure, panels = plt.subplots(1, 3, figsize=(4.8, 3), sharey=True, layout="constrained", subplot_kw={"xticks": [], "ylim": (0, 25)})
for axes, (name, at) in zip(panels, cases.items()):
    adapter.lora_B.data = (1 - 2 * shares[at]) * B
    strengths = torch.linalg.svdvals((W + adapter.delta_weight()).detach())[:8]
    found, correct = halves_found(model, 16 if lesson.FAST else 256), (right[at] > 0.5).float().mean()
    axes.bar(range(1, 9), strengths, color=["0.6" if name == "W" else "C1", *["0.6"] * 7])
    axes.text(0.6, strengths[0] + 0.4, f"{strengths[0]:.1f}")
    axes.set_title(f"{name}\nreviews: {correct:.0%}\nhalves: {found:.0%}", size=10)
figure.suptitle("The adapter adds one strong piece", x=0.01, ha="left")
figure.supxlabel("the eight strongest pieces", size=10), figure.supylabel("strength", size=10)
lesson.reveal("percent of the halves found", 100 * found, "%")  # the last case is all of B

# %% claim
before, after = (torch.linalg.svd(w.detach()) for w in (adapter.frozen_weight(), adapter.frozen_weight() + adapter.delta_weight()))
assert (round(before.S[0].item(), 1), round(after.S[0].item(), 1)) == (3.0, 22.5)
assert max((before.U.T @ after.U[:, 0]).abs().max(), (before.Vh @ after.Vh[0]).abs().max()) < 0.2
quarter = torch.linalg.svd((adapter.frozen_weight() + adapter.delta_weight() / 4).detach())
assert round(quarter.S[0].item(), 1) == 6.0 and (before.U.T @ quarter.U[:, 0]).abs().max() < 0.2
assert lesson.FAST or found < 0.16
assert round(100 / 256, 1) == 0.4 and 0.625 - 0.375 == 0.25

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The adapter makes the model forget:** it finds only 14<!--inside.halves.one-->% of the second halves. Perhaps this is why: in $W$, the strongest piece has strength 3.0. With the adapter, it has strength 22.5 and points in a new direction (not shown). It's an **intruder**.
#
# **A quarter of $B$ is enough.** The intruder shrinks to 6.0. The model finds 21<!--inside.halves.quarter-->% of the second halves, and still gets 73% of the reviews right (without the adapter: 56%).
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **A reads, B writes.** At rank 1, an adapter takes only one number from each token: $Ax$.
# 2. **A picture is a hypothesis. Test it:** negate $B$, and compare $A$ with random directions.
# 3. **If a model forgets, try less of the adapter.** *Ours: one adapter, with $B / 4$. Published: large models have intruders, too, and forget less if the intruders shrink ([Shuttleworth et al. 2024](https://arxiv.org/abs/2410.21228), abstract).*
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
