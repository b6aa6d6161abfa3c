# %% [markdown]
# # 17 · What can one bit teach?
#
# A chatbot answers, and somebody presses thumbs up or thumbs down: **one bit**. Nobody writes the answer that it should have given. Learning from rewards like this is *reinforcement learning*.
#
# Our model judges movie reviews. After each of its answers, it hears only "right" or "wrong." It will hear 1,600 such bits. That's 200 bytes, fewer than this paragraph has. **Is that enough to teach a model? And what else does it learn?**

# %%
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.checks.reward import EARNED, LOSS
from lora_course.experiments.reward import Rewarded, reinforce
from lora_course.panels.mixer_panel import MixerPanel
from lora_lab import AdapterBank, LoRA, Recipe, Store, load_model, load_task, load_tokenizer, train
from lora_lab.training.progress import progress_bar
from lora_lab.training.train import train_alone

lesson.start("17")
store = Store(lesson.workplace("17"))

# %% [markdown]
# ## Learning without being told
# MiniLM reads a movie review and gives each answer ("positive" or "negative") a probability $p$. Then it *draws* one of the answers at random, and hears whether that answer was right (reward 1) or wrong (reward 0). For each answer in a batch:
#
# - If the reward is above the batch's mean, make $\log p$ of that answer larger.
# - If the reward is below the mean, make $\log p$ smaller.
# - An answer with a reward twice as far from the mean counts twice as much.
#
# This method is a **policy gradient**. The **baseline** is the batch's mean reward.
#
# **Exercise 1.** Write this as a loss (a mean over the batch) that the optimizer minimizes. `log_p` holds $\log p$ of the drawn answers, and `rewards` holds their rewards.


# %% exercise
def loss_of_rewards(log_p, rewards):
    return ...


checks.check_loss_of_rewards(loss_of_rewards)


# %% solution
def loss_of_rewards(log_p, rewards):
    return -((rewards - rewards.mean()) * log_p).mean()


checks.check_loss_of_rewards(loss_of_rewards)

# %% [markdown]
# ## Watch it learn
# If all answers in a batch are right, this loss is 0, and so is its gradient: **equal rewards teach nothing.** The model learns only from differences.
#
# Rank-1 LoRA on `q,v` gets 76.8<!--reward.labels.one-->% of the test reviews right if it's trained on the *labels* (the right answers) of 1,600 reviews. Now it sees the same reviews once, but hears only rewards.
#
# **With two possible answers, does "wrong" say less than a label? And with ten? What percentage does our model get right?**

# %%
lesson.predict("% right with rewards, at rank 1", low=..., high=...)

# %% alt="The share of thumbs up in each batch, as dots, and the mean of 25 batches, as a line. The line starts near one half and ends above it."
steps = lesson.steps(200, 12)
recipe = Recipe("minilm", lesson.small("rt", store.folder), LoRA(rank=1), lr=1e-3, steps=steps, batch=8, validations=0)
with progress_bar(steps) as bar:
    loss = LOSS.judge(loss_of_rewards).yours_or_ours("loss_of_rewards", loss_of_rewards, reinforce)
    pack = Rewarded([recipe], loss=loss, callbacks=lambda _: [bar])
    (run,) = pack.run()
rewards = pd.Series(pack.rewards[recipe])

plt.figure(figsize=(4.6, 3))
plt.plot(rewards, ".", alpha=0.3)
plt.plot(rewards.rolling(25, min_periods=5).mean(), color="C0")
plt.axhline(0.5, color="gray", linestyle=":")
plt.text(1.02 * steps, 0.5, "guessing", color="gray", va="center", bbox={"color": "white"})
plt.gca().set(xlabel="step", ylabel="share of thumbs up", title="Your loss trains rank-1 LoRA\n(dot: a batch; line: the mean of 25)")
lesson.reveal("% right with rewards, at rank 1", round(100 * run.metrics["accuracy"], 1))

# %% [markdown]
# <details><summary>What we found</summary>
#
# **200 bytes are enough to teach a model.** And 1,600 labels wouldn't say more: with two answers, "wrong" names the right one. With ten answers, it doesn't. (Still, as the table below shows, labels teach more here.)
#
# Until step 126, the line wanders around 50%. Then it climbs. (The test score is even higher, because in the test, the model always gives its likelier answer.)
# </details>
#
# ## Is rank 1 enough?
# Even a small adapter has room for so few bits, say the authors of [LoRA Without Regret](https://thinkingmachines.ai/blog/lora/). In their runs, rank-1 LoRA learns from rewards as well as full fine-tuning.
#
# We trained each method with five new seeds, each at the best of six or eight rates. **How many points is full fine-tuning ahead of rank 1?**

# %%
lesson.predict("points that full fine-tuning is ahead", low=..., high=...)

# %% hide-input
stored = {signal: lesson.reference_comparison(f"minilm_rt_{signal}") for signal in ("labels", "reward")}
rows = pd.DataFrame([{"signal": s, **row} for s in stored for row in stored[s]["methods"]]).set_index(["label", "signal"])
mean = lambda one: np.mean(one["each"])  # noqa: E731
right = (100 * rows.accuracy.map(mean) + 1e-9).round(1).unstack().rename_axis(columns="right, %", index=None)  # round half up
sure = (100 * rows.sure.map(mean)).round(0).unstack()
one, eight = "LoRA r1 q,v", "LoRA r8 q,v"
lesson.reveal("points that full fine-tuning is ahead", right.reward["full"] - right.reward[one], "points")
right.loc[["full", one, eight, "LoRA r1 all-linear"]]

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Not here: with rewards, rank 1 is 3.2<!--reward.reward.one.ahead--> points behind full fine-tuning** (95% interval: 2.2<!--reward.reward.one.low--> to 4.2<!--reward.reward.one.high-->). On all linear layers, as in LoRA Without Regret, it's 7.9<!--reward.reward.all.ahead--> points behind (at the lower of two rates that tied in tuning).
#
# Is rank 1 too small? With labels, the same adapter gets 76.8<!--reward.labels.one-->% right. So a better adapter fits into rank 1. Are rewards to blame? With labels, too, rank 1 is behind full fine-tuning. So neither explains the whole gap.
# </details>
#
# ## What else did it learn?
# How *sure* is a model? Look at the probability of its own answer. With labels, rank-8 LoRA also gets 76.8<!--reward.labels.eight-->% right, and it's 79<!--reward.labels.eight.sure-->% sure on average. **How sure is it after training on rewards?**
#
# Then drag the panel's slider from labels to rewards. (It mixes two adapters, each from one run, as in lesson 08.) Each dot is one review; there are only 200. **Where do the wrong answers go?**

# %%
lesson.predict("mean probability of its answer with rewards, %", low=..., high=...)

# %% hide-input
test, count, shares, mixed = load_task("rt").test, lesson.steps(200, 8), [0, 0.25, 0.5, 0.75, 1], []
inputs = load_tokenizer("minilm")(list(test.texts[:count]), padding=True, return_tensors="pt")
bank = AdapterBank(load_model("minilm", num_labels=2))
for name, lr in (("labels", 4e-3), ("rewards", 1e-3)):  # the best rates of rank 8
    told = replace(recipe, method=LoRA(rank=8), lr=lr)
    bank.load(name, (train(told, store=store) if name == "labels" else train_alone(Rewarded([told]), store)).adapter)
for share in shares:
    bank.blend({"labels": 1 - share, "rewards": share}, name=f"{share:.0%}")
    bank.use(f"{share:.0%}")
    with torch.no_grad():
        mixed.append(bank.model(**inputs).logits.softmax(1)[range(count), test.labels[:count]].numpy())  # p of the right answer
mixer = MixerPanel(("labels", "rewards"), shares, mixed, test.texts[:count])
mixer.share = 0
lesson.reveal("mean probability of its answer with rewards, %", sure.reward[eight])
mixer

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Rewards make the model too sure:** it's right 74.9<!--reward.reward.eight-->% of the time, but 91<!--reward.reward.eight.sure-->% sure. With labels, the wrong answers are spread out, and the model is over 90% sure of only one of them. With rewards, they form a wall on the left: the model is over 90% sure of more than 30 of them.
# </details>
#
# ## Does doubt pay?
# Suppose that six in ten reviews of a certain kind are positive, and the model can't tell which. **How often should it say "positive" to earn the most thumbs up: six times in ten?**
#
# **Exercise 2.** A share `q` of the reviews is positive, and the model says "positive" with probability `p`. What mean reward does it earn? (A right answer earns 1, a wrong one 0.)


# %% exercise
def mean_reward(p, q):
    return ...


checks.check_mean_reward(mean_reward)


# %% solution
def mean_reward(p, q):
    return p * q + (1 - p) * (1 - q)


checks.check_mean_reward(mean_reward)

# %% alt="Two curves of what training maximizes, against the probability of saying positive, if six in ten reviews are positive. With rewards, a straight line rises to its best point at 100%. With labels, a hill has its best point at 60%."
earned = EARNED.judge(mean_reward).yours_or_ours("mean_reward", mean_reward, EARNED.right)
p = np.linspace(0.01, 0.99, 99)  # of saying "positive"; six in ten reviews are positive
goals = {
    "Rewards: be sure": ("mean reward", [earned(x, 0.6) for x in p]),
    "Labels: be honest": (r"mean $\log p$ of the label", 0.6 * np.log(p) + 0.4 * np.log(1 - p)),
}
figure, panels = plt.subplots(1, 2, figsize=(4.8, 2.8), layout="constrained")
for axes, (title, (ylabel, goal)) in zip(panels, goals.items()):
    axes.plot(100 * p, goal)
    axes.plot(100 * p[np.argmax(goal)], max(goal), "o", color="C1", clip_on=False)
    axes.axvline(60, color="gray", linestyle=":")
    axes.set(title=title, ylabel=ylabel, xlabel='says "positive", %', xticks=[0, 60, 100], yticks=[])

# %% claim
from lora_lab import verdicts
from lora_lab.experiments.margins import scores_in

for found in stored.values():
    words = {label: verdict.outcome for label, verdict in verdicts(scores_in(found), "full").items()}
    assert words[one] == words["LoRA r1 all-linear"] == "worse"
assert lesson.FAST or ((mixed[0] < 0.1).sum() == 1 and (mixed[-1] < 0.1).sum() > 30)
assert right.labels[one] == right.labels[eight] == right.reward["full"] == 76.8
for found in stored.values():  # rank 1 on all linear layers: two rates tied, and the lower one was taken
    row = next(row for row in found["methods"] if row["label"] == "LoRA r1 all-linear")
    top = max(one["validation"] for one in row["tried"])
    tied = [one["lr"] for one in row["tried"] if one["validation"] == top]
    assert len(tied) == 2 and row["lr"] == min(tied)
smooth = rewards.rolling(25, min_periods=5).mean()
assert lesson.FAST or smooth[smooth <= 0.5].index.max() == 126
assert {len(tried) for tried in rows.tried} == {6, 8}
assert all(2 <= rows.lr[label, "labels"] / rows.lr[label, "reward"] <= 4 for label in right.index)
assert (round(EARNED.right(0.6, 0.6), 2), EARNED.right(1, 0.6)) == (0.52, 0.6)
assert [round(100 * p[np.argmax(goal)]) for _, goal in goals.values()] == [99, 60]  # rewards: the largest p drawn

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Labels reward honest doubt. Rewards don't.** Saying "positive" six times in ten earns only 0.52. Always saying it earns 0.6. So rewards push the model to be sure, even where it can't know. With labels, the best probability is the honest one, 60%.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **One bit per answer can teach a model, if rewards differ:** choose questions that it sometimes gets right and sometimes wrong. *Ours (MiniLM, 1,600 answers, five seeds): rank 1 gets 73.6<!--reward.reward.one-->% right.*
# 2. **Don't trust its probabilities:** rewards don't pay for doubt. *Ours (rank 8): right 74.9<!--reward.reward.eight-->% of the time, 91<!--reward.reward.eight.sure-->% sure.*
# 3. **Tune the rate again, and compare rank 1 with full fine-tuning on your task.** *Ours: rank 1 is 3.2<!--reward.reward.one.ahead--> points behind; the best rates are a quarter to half of those with labels. Published: rank 1 is as good (LoRA Without Regret; also [open-rl](https://github.com/gke-labs/open-rl/pull/208), on one 8B model with two seeds).*
#
# The same with PEFT and TRL:
# ```python
# trainer = GRPOTrainer(model, reward_funcs=right_or_wrong, train_dataset=questions,
#                       args=GRPOConfig(learning_rate=...),
#                       peft_config=LoraConfig(r=1, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
# trainer.train()
# ```
# </details>

# %%
lesson.receipt()
