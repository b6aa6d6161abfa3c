# %% [markdown]
# # 04 · Train an adapter
#
# **Goal.** Train an adapter while you watch, read the two curves, and find out what it changed, in the answers and in the
# weights.
#
# **Time box.** 40 minutes. **Before this:** lesson 00; lesson 02 helps.

# %%
from lora_lab.lesson import compare, eta, steps

print(eta(steps(400)))

# %% [markdown]
# ## The words
# - A **step** shows the model one **batch** (16 sentences), computes the **loss** (how wrong it was, in nats: the negative
#   logarithm of the probability it gave the right answer) and moves the trained numbers a little against the gradient.
# - The **learning rate** says how far. Here it rises over the first 6 % of the steps, then falls to zero.
# - **Validation** sentences are never trained on. They tell learning from learning by heart, and whatever we *choose*
#   (a rate, a rank) is chosen on them. **Test** sentences are scored once, at the end, and nothing is chosen on them.
# - A model that always says "positive" has a loss of $\ln 2 = 0.69$ at best, and an accuracy of 50 %.
#
# ## Predict, then press Start
# Move the sliders, and watch the line below them: it counts what would train. Set your guess for the final accuracy, then
# press **Start**. You can go on reading while it trains; **Stop** ends it early and keeps what was learned.

# %%
from lora_lab.widgets.train_panel import TrainPanel

panel = TrainPanel("minilm", "rt", rank=8, alpha=16, targets=("q", "v"), lr=2e-3, steps=steps(400))
panel.show()

# %% [markdown]
# While it trains, three questions to look for in the curves:
# 1. The thin line jumps from step to step. Why, if the model hardly changes between two steps?
# 2. When does validation accuracy leave 50 %: at once, or after a while?
# 3. Does the training loss still fall when validation no longer rises?
#
# **When the panel says done**, go on. **Fallen behind**, or no time to train? Write `run = reference("minilm-rt-r8")` in the next
# cell: a run of ours with the same settings, from which the rest of the lesson works just as well.

# %%
from lora_lab.lesson import reference

run = panel.result()
print(run.environment["date"], run.environment["hardware"])
print(compare("accuracy on test sentences", 100 * panel.guessed, 100 * run.metrics["accuracy"], "%"))
assert run.adapter_parameters + run.head_parameters == run.trainable < 0.02 * run.total

# %% [markdown]
# ## How sure is that number?
# The test has 2,000 sentences. Another 2,000 would give another accuracy. If each answer is right with probability $p$, the
# accuracy on $n$ rows scatters around $p$; the size of that scatter is called the **standard error**.
#
# ### Exercise 1 · 4 minutes
# Write it as a function of $p$ and $n$. (One answer is 1 with probability $p$, else 0. What is its variance? And that of a
# mean of $n$?)


# %% exercise
from lora_lab import checks


def standard_error(p, n):
    ...


checks.check_standard_error(standard_error)


# %% solution
from lora_lab import checks


def standard_error(p, n):
    return (p * (1 - p) / n) ** 0.5


checks.check_standard_error(standard_error)

# %% [markdown]
# **Predict.** If you had simulated 1,000 other test sets of 2,000 sentences for a model that is right with probability 0.82,
# between which two accuracies would nearly all lie? The next cell does it.

# %%
import numpy as np

others = np.random.default_rng(0).binomial(2000, 0.82, size=1000) / 2000
low, high = np.percentile(others, [2.5, 97.5])
print(f"95 % of them lie between {low:.1%} and {high:.1%}: {100 * (high - low):.1f} points apart")
assert abs(others.std() - (0.82 * 0.18 / 2000) ** 0.5) < 0.001  # the formula holds

# %% [markdown]
# ### Exercise 2 · 4 minutes
# When two adapters answer the *same* sentences it is only those on which they differ that decide. Two adapters of equal
# accuracy typically disagree on about 10 % of the rows. To see a true difference $\delta$ at 5 % significance with a
# chance of 80 % takes about
#
# $$n = (1.96 + 0.84)^2 \; \frac{\text{share they disagree on}}{\delta^2}$$
#
# rows. How many does a difference of **one point** take?

# %% exercise
rows_needed = ...
checks.check_rows_needed(rows_needed)

# %% solution
rows_needed = (1.96 + 0.84) ** 2 * 0.10 / 0.01**2
checks.check_rows_needed(rows_needed)

# %% [markdown]
# So a slider that moves the accuracy by half a point has, as far as one run can tell, done nothing. Lesson 06 does this with
# many runs, and lesson 08 compares whole methods.
#
# **Stop here** if time is short. The rest looks inside.
#
# ## What did it change its mind about?
# Switch the adapter off but keep the trained head, and the same head reads the frozen model's features.
# **Predict:** how often do the two disagree, and does the adapter only ever help?

# %%
guess_changed = None  # per cent of the validation sentences

# %%
from lora_lab.training.mind import mind_of

mind = mind_of(run)  # loads the adapter again, and scores 500 sentences twice
print(compare("answers that changed", guess_changed, 100 * mind.changed / mind.rows, "%"))
print(f"of {mind.changed} changes {mind.for_the_better} were for the better, {mind.changed - mind.for_the_better} were not")
print(f"accuracy: adapter off {mind.without['accuracy']:.1%}, on {mind.with_adapter['accuracy']:.1%}")

# %%
gain = mind.with_adapter["accuracy"] - mind.without["accuracy"]
assert abs(gain * mind.rows - (2 * mind.for_the_better - mind.changed)) < 0.5  # the changes explain the gain, to the row
for change in mind.examples[:3]:
    print(f"[{change.truth}] {change.without} -> {change.with_adapter}: {change.text[:90]}")

# %% [markdown]
# The head was trained *with* the adapter, so switching the adapter off is unkind to it: this tells what the adapter does to
# the answers, not how well a head alone could do. (That is the *probe* of lesson 08.)
#
# ## Where in the model is the change?
# Each update is a matrix, $\Delta W = \frac{\alpha}{r} B A$. We load the adapter again and compare the size of each update
# with the size of the weight that it sits beside. (Size: the **Frobenius norm**, the square root of the sum of squares.)

# %%
from lora_lab import load_adapter, load_model
from lora_lab.methods.attach import adapted_layers

model = load_model("minilm", num_labels=2)
load_adapter(model, run.adapter)
shares = {
    name.replace("bert.encoder.", "").replace("attention.self.", ""): (m.delta_weight().norm() / m.frozen_weight().norm()).item()
    for name, m in adapted_layers(model)
    if hasattr(m, "lora_A")
}
for name, share in shares.items():
    print(f"{name:16} {share:6.1%} {'#' * round(200 * share)}")

# %% [markdown]
# ### Exercise 3 · 2 minutes
# Which layer's weight has changed most, for its size? (Is it near the input or near the output? Is it a `query` or a `value`?)

# %% exercise
checks.check_largest_change(..., shares)

# %% solution
checks.check_largest_change(max(shares, key=shares.get), shares)

# %%
import torch

one = next(m for _, m in adapted_layers(model) if hasattr(m, "lora_A"))
singular = torch.linalg.svdvals(one.delta_weight())
print([f"{s:.4f}" for s in singular[:10].tolist()])
assert max(shares.values()) < 0.5  # every update is small beside its weight ...
assert (singular > 1e-5 * singular[0]).sum() <= 8  # ... and has no more than 8 directions, whatever it learned

# %% [markdown]
# Eight numbers, then zeros: this is what *rank 8* means. Lesson 13 asks whether full fine-tuning's update is low-rank too.
#
# ## Your own sentences
# Change them and run the cell again. Try irony, a double negation, a sentence about something else than films.

# %%
from lora_lab import load_tokenizer

sentences = ["a warm , funny and moving film", "two hours of my life that nobody gives back", "not bad at all"]
tokens = load_tokenizer("minilm")(sentences, padding=True, return_tensors="pt")
with torch.no_grad():
    positive = model(**tokens).logits.softmax(-1)[:, 1]
for sentence, p in zip(sentences, positive.tolist()):
    print(f"{p:5.0%} positive   {sentence}")
assert ((positive >= 0) & (positive <= 1)).all()

# %% [markdown]
# ## Try to break it
# In the panel above, set the learning rate to its largest value and press Start; then the smallest. The earlier
# runs stay in the picture, in other colours. What does the loss do when the rate is too high: does it stay at 0.69, or above?
#
# ## What you know now
# - Training loss is noisy because each step sees other sentences; validation tells what was learned.
# - An accuracy on 2,000 rows has a standard error of almost a point; differences below two points need more than one run.
# - The adapter changes a share of the answers, not all for the better, by an update that is small beside the weights and has at
#   most `r` directions.
