# %% [markdown]
# # 04 · Train an adapter
#
# *An older lesson; where it names lessons by number, it means the older course, `old_00` to `old_15`.*
#
# **Goal.** Train an adapter while you watch, read the two curves, and find out what it changed, in the answers and in the
# weights.
#
# **Time box.** 40 minutes. **Before this:** lesson 00; lesson 02 helps.

# %%
# On Colab, first in a cell of its own: %pip install, with the lab's wheel; see docs/install.md
from lora_course.classroom import colab
from lora_course.classroom.room import room_for
from lora_course.lesson import compare, eta, reference, seed_of, steps

colab.ready()  # elsewhere than on Colab it does nothing
print(eta(steps(400)))
print(room_for("old_04"))

# %% [markdown]
# ## The words
# - A **step** shows the model one **batch** (16 sentences), computes the **loss** (how wrong it was, in nats: the negative
#   logarithm of the probability it gave the right answer) and moves the trained numbers a little against the gradient.
# - The **learning rate** says how far. Here it rises over the first 6 % of the steps, then falls towards zero.
# - **Validation** sentences are never trained on. They tell learning from learning by heart, and whatever we *choose*
#   (a rate, a rank) is chosen on them. **Test** sentences are scored once a run, at its end: when you
#   try several settings, compare them on validation, not on the test figure that the panel shows.
# - A model that gives both answers the same probability has a loss of $\ln 2 = 0.69$, and is right half the time.
#
# ## Predict, then press Start
# Two guesses first. In the end, what percentage of the test sentences will be right? And: with the adapter switched off again,
# but the trained head kept, what percentage of answers will change?

# %%
guess_accuracy = None  # a number between 0 and 100
guess_changed = None  # a number between 0 and 100

# %% [markdown]
# Move the **rank** and watch the line below the sliders: it counts what would train. Move the guess (a slider that nobody moved counts as no guess), leave model and task as
# they are, and press **Start**. You can go on reading while it trains; **Stop** ends it early and keeps what was learned.

# %%
from lora_lab.widgets.train_panel import TrainPanel

panel = TrainPanel("minilm", "rt", rank=8, alpha=16, targets=("q", "v"), lr=2e-3, seed=seed_of(),
                   steps=steps(400), validations=steps(8, 2))
panel.show()

# %% [markdown]
# While it trains, three questions to look for in the curve of validation (the cell below has the answers):
# 1. Between which two validation points does the accuracy rise most?
# 2. Does it ever fall on the way?
# 3. Is it still rising at the end?
#
# **When the panel says done**, go on. **Fallen behind**, or no time to train? The second line of the next cell loads a run of
# ours with the same settings; the rest of the lesson works with it just as well.

# %%
from itertools import pairwise

run = panel.result()
# run = reference("minilm-rt-r8")  # fallen behind? take away the first # of this line
print(run.environment["date"], run.environment["hardware"])
seen = [(v["step"], v["accuracy"]) for v in run.history["validation"]]
for (step, before), (later, after) in pairwise(seen):
    print(f"steps {step:3} to {later:3}: validation {before:.1%} to {after:.1%}, {100 * (after - before):+5.1f} points")
print(compare("accuracy on test sentences", guess_accuracy, 100 * run.metrics["accuracy"], "%"))

# %% claim
assert run.adapter_parameters + run.head_parameters == run.trainable < run.total

# %% [markdown]
# ## How sure is that number?
# The test has 2,000 sentences. Another 2,000 would give another accuracy. If each answer is right with probability $p$, the
# accuracy on $n$ rows scatters around $p$; the size of that scatter is called the **standard error**.
#
# ### Exercise 1 · 4 minutes
# Write it as a function of $p$ and $n$. (One answer is 1 with probability $p$, else 0. What is its variance? And that of a
# mean of $n$?)


# %% exercise
from lora_course import checks


def standard_error(p, n):
    ...


checks.check_standard_error(standard_error)


# %% solution
from lora_course import checks


def standard_error(p, n):
    return (p * (1 - p) / n) ** 0.5


checks.check_standard_error(standard_error)

# %% [markdown]
# **Predict.** If you had simulated 1,000 other test sets of 2,000 sentences for a model that is right with probability 0.82,
# between which two accuracies would 95 % of them lie, and how far apart are these? The next cell does it.

# %%
guess_width = None  # points

# %%
import numpy as np

others = np.random.default_rng(0).binomial(2000, 0.82, size=1000) / 2000
low, high = np.percentile(others, [2.5, 97.5])
print(f"95 % of them lie between {low:.1%} and {high:.1%}")
print(compare("apart", guess_width, 100 * (high - low), "points"))

# %% claim
assert abs(others.std() - (0.82 * 0.18 / 2000) ** 0.5) < 0.001  # the formula holds

# %% [markdown]
# ### Exercise 2 · 4 minutes
# When two adapters answer the *same* sentences, only those they disagree on matter. Suppose two
# adapters disagree on 10 % of the rows. We want luck to fool us in no more than 5 % of the cases where there is no difference,
# and to notice a true difference $\delta$ in 80 % of the cases where there is one; these two wishes give the 1.96 and the 0.84:
#
# $$n = (1.96 + 0.84)^2 \; \frac{\text{share they disagree on}}{\delta^2}$$
#
# rows. How many rows does a difference of **one point** take?

# %% exercise
rows_needed = ...
checks.check_rows_needed(rows_needed)

# %% solution
rows_needed = (1.96 + 0.84) ** 2 * 0.10 / 0.01**2
checks.check_rows_needed(rows_needed)

# %% [markdown]
# If a slider moves the accuracy by half a point, one run before and one after cannot tell whether it did anything: the answer
# is *undecided*, not *equal*. Another **seed** (another random start, another order of the sentences) moves it again. Lessons 06 to 08 use many runs for this reason.
#
# **Stop here** if time is short. The rest looks inside.
#
# ## What did it change its mind about?
# Switch the adapter off but keep the trained head, and the same head reads the frozen model's **features** (the vectors that
# reach it). You made your guess at the top. Does the adapter only ever help?

# %%
from lora_lab.training.mind import mind_of

mind = mind_of(run)  # loads the adapter again, and scores 500 sentences twice
print(compare("answers that changed", guess_changed, 100 * mind.changed / mind.rows, "%"))
print(f"of {mind.changed} changes {mind.for_the_better} were for the better, {mind.changed - mind.for_the_better} were not")
print(f"accuracy: adapter off {mind.without['accuracy']:.1%}, on {mind.with_adapter['accuracy']:.1%}")

# %%
gain = mind.with_adapter["accuracy"] - mind.without["accuracy"]
for change in mind.examples[:3]:
    print(f"[{change.truth}] {change.without} -> {change.with_adapter}: {change.text[:90]}")

# %% claim
assert 0 < mind.for_the_better < mind.changed  # mostly for the better, not always
assert abs(gain * mind.rows - (2 * mind.for_the_better - mind.changed)) < 0.5  # the changes explain the gain, to the row

# %% [markdown]
# The head was trained *with* the adapter, so switching the adapter off is unkind to it: this tells what the adapter does to
# the answers, not how well a head alone could do. (That is a *probe*; lesson 08 trains one.)
#
# ## Where in the model is the change?
# Each update is a matrix, $\Delta W = \frac{\alpha}{r} B A$. We load the adapter again and compare the size of each update
# with the size of the weight that it sits beside. (Size: the **Frobenius norm**, the square root of the sum of squares.)
# **Predict:** is the largest change, relative to the weight, near the input (layer 0) or near the output (layer 5)? In a `query` or in a `value`?

# %%
from lora_lab import load_adapter, load_model
from lora_lab.methods.attach import adapted_layers

model = load_model("minilm", num_labels=2)
load_adapter(model, run.adapter)
adapted = {
    name.replace("bert.encoder.", "").replace("attention.self.", ""): m
    for name, m in adapted_layers(model)
    if hasattr(m, "lora_A")  # the head has none
}
shares = {name: (m.delta_weight().norm() / m.frozen_weight().norm()).item() for name, m in adapted.items()}
for name, share in shares.items():
    print(f"{name:16} {share:6.1%} {'#' * round(200 * share)}")

# %% claim
assert run.recipe.lr > 2e-3 or max(shares.values()) < 1  # at a rate that is not too high each is smaller than the weight beside it

# %% [markdown]
# ### Exercise 3 · 2 minutes
# Which layer's weight has changed most, relative to its size? Write its name as the table has it, in quotes.

# %% exercise
checks.check_largest_change(..., shares)

# %% solution
checks.check_largest_change(max(shares, key=shares.get), shares)

# %% [markdown]
# Why there? A change is large where `A` and `B` are long, or where their `r` pieces (a column of `B` times a row of `A`) point the same
# way and so add up. The length of $BA$ over that of `A` times that of `B` tells the two apart: it is 1 where all pieces are one.

# %%
together = {}
for name, m in adapted.items():
    A, B = m.lora_A.detach(), m.lora_B.detach()
    together[name] = ((B @ A).norm() / (A.norm() * B.norm())).item()
    print(f"{name:16} |A| {A.norm():.2f}, |B| {B.norm():.2f}, |BA| / (|A| |B|) {together[name]:.2f}")

# %% claim
from lora_course.lesson import FAST

assert FAST or run.recipe.lr > 2e-3 or min(together["layer.5.query"], together["layer.5.value"]) > max(list(together.values())[:10])

# %% [markdown]
# In our run `A` and `B` of layer 5 are about as long as elsewhere, but their pieces point the same way. For `query` we know why, and it is not
# the task: the head reads only `[CLS]`, so in the last layer only the query of `[CLS]` gets a gradient, and its input is almost the same vector
# for every sentence (measured in lesson 01). All eight pieces are pushed the same way, step after step.
#
# The **singular values** of a matrix say how strongly it acts along each of its main directions; how many are not zero is its
# **rank**. Here are the first of one update.

# %%
import torch

one = next(iter(adapted.values()))
singular = torch.linalg.svdvals(one.delta_weight())
rank = run.recipe.method.rank
print([f"{s:.4f}" for s in singular[: rank + 2].tolist()])

# %% claim
assert (singular > 1e-5 * singular[0]).sum() <= rank  # no more directions than that, whatever it learned

# %% [markdown]
# At most `rank` numbers, then zeros (up to rounding). Whether the update of *full* fine-tuning is of low rank too is the question
# of lesson 13.
#
# ## Your own sentences
# Change them and run the cell again. Try irony, a double negation, a sentence that is not about films.

# %%
from lora_lab import load_tokenizer

sentences = ["a warm , funny and moving film", "two hours of my life that nobody gives back", "not bad at all"]
tokens = load_tokenizer("minilm")(sentences, padding=True, return_tensors="pt")
with torch.no_grad():
    positive = model(**tokens).logits.softmax(-1)[:, 1]  # class 1 is "positive"
for sentence, p in zip(sentences, positive.tolist()):
    print(f"{p:5.0%} positive   {sentence}")

# %% claim
assert ((positive >= 0) & (positive <= 1)).all()

# %% [markdown]
# ## Try to break it
# In the panel above, set the learning rate to its largest value. **Predict** first: will the loss fall, stay near 0.69, or rise?
# Press Start; then try the smallest rate, and compare the *validation* accuracies. Earlier runs stay in the picture.
#
# ## What you know now
# - Training loss is noisy because each step sees other sentences; validation tells what was learned.
# - An accuracy on 2,000 rows has a standard error of almost a point; a true difference below about two points is often missed (*undecided*).
# - The adapter changes a share of the answers, not all for the better, by updates that are smaller than the weights beside them
#   and have at most `r` directions.
#
# **Next:** lesson 05 asks what such a step costs in memory, lesson 06 which of the sliders to move first.
