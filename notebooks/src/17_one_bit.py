# %% [markdown]
# # 17 · What can one bit teach?
#
# A chatbot answers, and somebody presses thumbs up or thumbs down: **one bit**. Learning from this is *reinforcement learning*.
#
# Our model judges movie reviews, and after each answer hears only "right" or "wrong." It will hear 1,600 bits: 200 bytes, fewer than this paragraph has. **Can they teach a model? And what else does it learn?**

# %%
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.checks.reward import EARNED, loss_or_ours
from lora_course.experiments.reward import Rewarded
from lora_course.panels.mixer_panel import MixerPanel
from lora_lab import AdapterBank, LoRA, Recipe, Store, load_model, load_task, load_tokenizer, train
from lora_lab.training.progress import progress_bar
from lora_lab.training.train import train_alone

lesson.start("17")
store = Store(lesson.workplace("17"))

# %% [markdown]
# ## Learning without being told
# MiniLM reads a movie review and gives each answer ("positive" or "negative") a probability $p$. Then it *draws* an answer at random, and hears whether that answer was right (reward 1) or wrong (reward 0). For each answer in a batch:
#
# - If its reward is above the batch's mean, make $\log p$ larger. If it's below, make $\log p$ smaller.
# - A reward twice as far from the mean counts twice as much.
#
# This method is a **policy gradient**. The **baseline** is the batch's mean reward.
#
# **Exercise 1.** Write this as a loss (a mean over the batch) that the optimizer minimizes. `log_p` and `rewards` belong to the drawn answers.


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
# Your loss is 0 if all rewards are equal: **equal rewards teach nothing.**
#
# Rank-1 LoRA on `q,v` gets 76.8<!--reward.labels.one-->% of the test reviews right if it's trained on the *labels* of 1,600 reviews. Now it sees the same reviews once, but hears only rewards.
#
# **With two possible answers, does "wrong" say less than a label? What percentage does our model get right?**

# %%
lesson.predict("% right with rewards, at rank 1", low=..., high=...)

# %% alt="The share of thumbs up in each batch, as dots, and the mean of 25 batches, as a line. The line starts near one half and ends above it. A diamond, the test, is higher than its end."
steps = lesson.steps(200, 12)
recipe = Recipe("minilm", lesson.small("rt", store.folder), LoRA(rank=1), lr=1e-3, steps=steps, batch=8, validations=0)
with progress_bar(steps) as bar:
    pack = Rewarded([recipe], loss=loss_or_ours(loss_of_rewards), callbacks=lambda _: [bar])
    (run,) = pack.run()
rewards = pd.Series(pack.rewards[recipe])

plt.figure(figsize=(4.6, 3))
plt.plot(rewards, ".", alpha=0.3)
plt.plot(rewards.rolling(25, min_periods=5).mean(), color="C0")
plt.axhline(0.5, color="gray", linestyle=":")
plt.text(1.02 * steps, 0.5, "guessing", color="gray", va="center", bbox={"color": "white"})
plt.plot(steps, run.metrics["accuracy"], "D", color="C1", clip_on=False)
plt.text(1.04 * steps, run.metrics["accuracy"], "test", color="C1", va="center")
plt.gca().set(xlabel="step", ylabel="share of thumbs up", title="Rank-1 LoRA learns from rewards\n(dot: a batch; line: the mean of 25)")
lesson.reveal("% right with rewards, at rank 1", round(100 * run.metrics["accuracy"], 1))

# %% [markdown]
# <details><summary>What we found</summary>
#
# **200 bytes are enough to teach a model.** And 1,600 labels wouldn't say more: with two answers, "wrong" names the right one.
#
# For 120 steps, the line wanders around the dotted one. Then it climbs. (In the test, the model gives its likelier answer, so it scores above the line.)
# </details>
#
# ## Is rank 1 enough?
# In [LoRA Without Regret](https://thinkingmachines.ai/blog/lora/), rank 1 learns from rewards as well as full fine-tuning does: even a small adapter has room for so few bits. **In our runs, too?**
#
# <details><summary>What we found: rank 1</summary>
#
# Means of five new seeds, each method at its best rate:
#
# |right, %|labels|rewards|
# |---|---|---|
# |full fine-tuning|78.7<!--reward.labels.full-->|76.8<!--reward.reward.full-->|
# |rank 1 on `q,v`|76.8<!--reward.labels.one-->|73.6<!--reward.reward.one-->|
# |rank 1 on all linear layers|75.8<!--reward.labels.all-->|68.9<!--reward.reward.all-->|
#
# **Not here: with rewards, rank 1 is 3.2<!--reward.reward.one.ahead--> points behind full fine-tuning** (95% interval: 2.2<!--reward.reward.one.low--> to 4.2<!--reward.reward.one.high-->). With labels, too, it's behind. It has room: 9,216 numbers for 1,600 bits. (For 68.9<!--reward.reward.all-->, two rates tied on validation; the other gets 73.9.)
# </details>
#
# ## Why do labels still win?
# Perhaps rank 1 draws unlucky answers. Then remove the luck: reward each review with its mean over all draws. This mean is $p$, the probability of the right answer. So we train rank 1 to make $p$ large (same rate, same seeds). **How far above 73.6<!--reward.reward.one-->% does it get?** (The picture shows how fast two goals grow with the log-odds, $\ln\frac{p}{1-p}$: $\ln p$ for labels, $p$ for rewards.)

# %% alt="How strongly one review pushes the model toward the right answer, against the probability of that answer. A label's push falls in a straight line from 1 at 0% to 0 at 100%. A reward's mean push is a low hill: 0 at both ends, and a quarter at 50%."
p = np.linspace(0, 1, 101)  # probability of the right answer
plt.figure(figsize=(4.8, 3.2), layout="constrained")
plt.plot(100 * p, 1 - p, "C0"), plt.text(36, 0.68, "label: 1 - p", color="C0", weight="bold")
plt.plot(100 * p, p * (1 - p), "C1"), plt.text(50, 0.15, "reward: p (1 - p)", color="C1", weight="bold", ha="center")
plt.annotate("surely wrong:\nno push", (1, 0.02), (15, 0.36), color="C1", ha="center", arrowprops={"arrowstyle": "->", "color": "C1"})
plt.gca().set(xlabel="probability p of the right answer, %", ylabel="mean push on its log-odds", ylim=(0, 1.05), title="How strongly does a review correct the model?")
plt.show()

# %% [markdown]
# <details><summary>What we found: luck or not</summary>
#
# **Luck isn't the reason: without it, 73.8% are right.** (+0.2 points; 95% interval: -0.3 to 0.7.)
#
# A label pushes most where the model is sure, but wrong. There, a reward hardly pushes: the right answer is almost never drawn, and a sure wrong answer's $\log p$ hardly changes. **With rewards, confident mistakes stay.**
# </details>
#
# ## What else did it learn?
# Modest or boastful? A model is as *sure* as its likelier answer is probable. Take the usual rank, 8: with labels, it's right as often as rank 1 (76.8<!--reward.labels.eight-->%), and 79<!--reward.labels.eight.sure-->% sure. **How sure is it after training on rewards?**
#
# Drag the slider from labels to rewards. (It mixes two adapters; one run each.) **Where do the wrong answers go?** Read the surest mistakes.

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
mixer = MixerPanel(("labels", "rewards"), shares, mixed, test.texts[:count], share=0)
lesson.reveal("mean probability of its answer with rewards, %", round(100 * np.mean(lesson.reference_comparison("minilm_rt_reward")["methods"][1]["sure"]["each"])))
mixer

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Rewards make the model too sure:** over five seeds, it's right 74.9<!--reward.reward.eight-->% of the time, but 91<!--reward.reward.eight.sure-->% sure. (Rank 1: 85%; full fine-tuning: 92%. In the panel's runs, accuracy falls more.) It's over 90% sure of one wrong answer with labels, but of more than 30 with rewards: the pile on the left.
# </details>
#
# ## Does doubt pay?
# Suppose that six in ten reviews are positive, and the model can't tell which. **How often should it say "positive" to earn the most thumbs up: six times in ten?**
#
# **Exercise 2.** A share `q` of the reviews is positive, and the model says "positive" with probability `p`. What mean reward does it earn?

# %%
lesson.predict("% of the time, it should say positive", low=..., high=...)


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
p = np.linspace(0.01, 0.99, 99)  # probability of saying "positive"; six in ten reviews are positive
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
lesson.reveal("% of the time, it should say positive", 100)

# %% claim
from lora_lab import verdicts
from lora_lab.training.assets import shipped
from lora_lab.experiments.margins import scores_in
from lora_lab.experiments.statistics import mean_interval

extra = pd.read_csv(shipped("data/results/reward_extra.csv")).groupby(["reward", "lr"]).accuracy  # ours, 1 December 2026; five seeds
stored = {signal: lesson.reference_comparison(f"minilm_rt_{signal}") for signal in ("labels", "reward")}
rows = pd.DataFrame([{"signal": s, **row} for s in stored for row in stored[s]["methods"]]).set_index(["label", "signal"])
one, eight = "LoRA r1 q,v", "LoRA r8 q,v"
assert [f"{100 * rows.sure[label, 'reward']['mean']:.0f}" for label in (one, "full")] == ["85", "92"]
drawn, without = rows.accuracy[one, "reward"]["each"], extra.get_group(("mean", rows.lr[one, "reward"]))
assert [f"{100 * end:.1f}" for end in (without.mean(), *mean_interval(without - np.array(drawn)))] == ["73.8", "0.2", "-0.3", "0.7"]
assert extra.mean()["mean", 2e-3] < without.mean() and f"{100 * extra.mean()['drawn', 5e-4]:.1f}" == "73.9" and stored["reward"]["methods"][1]["label"] == eight
for found in stored.values():
    words = {label: verdict.outcome for label, verdict in verdicts(scores_in(found), "full").items()}
    assert words[one] == words["LoRA r1 all-linear"] == "worse"
assert lesson.FAST or ((mixed[0] < 0.1).sum() == 1 and (mixed[-1] < 0.1).sum() > 30)
for found in stored.values():  # rank 1 on all linear layers: two rates tied, and the lower one was taken
    row = next(row for row in found["methods"] if row["label"] == "LoRA r1 all-linear")
    top = max(one["validation"] for one in row["tried"])
    tied = [one["lr"] for one in row["tried"] if one["validation"] == top]
    assert len(tied) == 2 and row["lr"] == min(tied)
assert max(tied) == 5e-4  # with rewards
line = rewards.rolling(25, min_periods=5).mean()
assert lesson.FAST or (line.max() < run.metrics["accuracy"] and line[:120].max() < 0.6 and line[135:].min() > 0.5 and line[190:].min() > 0.62)
assert rows.trainable[one, "reward"] == 9216
assert rows.lr["LoRA r1 all-linear", "reward"] == 2.5e-4 and f"{100 * rows.accuracy['LoRA r8 q,v', 'labels']['mean']:.1f}" == "76.8"
assert {len(tried) for tried in rows.tried} == {6, 8}
assert all(2 <= rows.lr[label, "labels"] / rows.lr[label, "reward"] <= 4 for label in rows.index.levels[0])
assert (round(EARNED.right(0.6, 0.6), 2), EARNED.right(1, 0.6)) == (0.52, 0.6)
assert [round(100 * p[np.argmax(goal)]) for _, goal in goals.values()] == [99, 60]  # rewards: the largest p drawn

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Labels reward honest doubt. Rewards don't.** With rewards, it's best to always say "positive." With labels, the best probability is the honest one, 60%.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **One bit per answer can teach a model, if rewards differ.** GRPO (below) compares answers to one question, so choose questions that the model sometimes gets right. *Ours (MiniLM, 1,600 answers, five seeds): rank 1 gets 73.6<!--reward.reward.one-->% right.*
# 2. **Don't trust such a model's probabilities, and use labels if you have them.** Rewards don't pay for doubt, and hardly correct confident mistakes. *Ours (rank 8): 74.9<!--reward.reward.eight-->% right, 91<!--reward.reward.eight.sure-->% sure.*
# 3. **For rewards, try 1/4 and 1/2 of your rate for labels. Compare rank 1 with full fine-tuning.** *Ours: the best rate is 2 to 4 times lower; rank 1 is 3.2<!--reward.reward.one.ahead--> points behind. Published: rank 1 is as good (LoRA Without Regret; also [open-rl](https://github.com/gke-labs/open-rl/pull/208), on one 8B model with two seeds).*
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
