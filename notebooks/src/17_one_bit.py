# %% [markdown]
# # 17 · What can one bit teach?
#
# A chatbot answered. Somebody pressed 👍 or 👎. That's **one bit**. There's no text to imitate, and still models learn from it: that's *reinforcement learning*. The smallest LoRA is enough, people say: [LoRA Without Regret](https://thinkingmachines.ai/blog/lora/) (2025) finds that rank 1 learns as well as full fine-tuning, and gives a reason: one bit per answer is so little to store. **Is rank 1 enough, and is that the reason?**

# %%
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.experiments.reward import Rewarded
from lora_lab import LoRA, Recipe, verdict, verdicts
from lora_lab.experiments.margins import scores_in
from lora_lab.experiments.statistics import verdicts_of
from lora_lab.training.progress import progress_bar

lesson.start("17")

# %% [markdown]
# ## Learning without being told
# MiniLM reads a film review and *draws* an answer, "positive" or "negative", with its own probabilities. Then it hears one thing: right ($r=1$) or wrong ($r=0$). For each answer $a$ of a batch, do this:
#
# - Reward above the batch's average? Make it more likely.
# - Below? Make it less likely.
#
# $$\text{loss} = -\frac1n\sum_{i=1}^{n}\,(r_i-\bar r)\,\log p(a_i)$$
#
# This is a **policy gradient**, and $\bar r$, the batch's mean reward, is its **baseline**.
#
# **Exercise 1.** Write it. `log_p` has $\log p(a_i)$ of a batch's answers, and `rewards` has $r_i$; both are tensors.


# %% exercise
def loss_of_rewards(log_p, rewards):
    return ...


checks.check_loss_of_rewards(loss_of_rewards)


# %% solution
def loss_of_rewards(log_p, rewards):
    return -((rewards - rewards.mean()) * log_p).mean()


checks.check_loss_of_rewards(loss_of_rewards)

# %% [markdown]
# ## Three guesses
# 1,600 reviews, each seen once: 1,600 bits. Trained on *labels*, LoRA of rank 8 gets 76.8<!--reward.labels.eight--> % of the test reviews right, and gives its answers a mean probability of 79<!--reward.labels.eight.sure--> %: it's about as sure as it's right. Give ranges that you're 80 % sure of.
#
# 1. **What percentage is right with rewards**, at rank 1 on `q,v`?
# 2. **How many points is full fine-tuning ahead** of it, with rewards?
# 3. **How sure is it with rewards**, at rank 8?

# %%
lesson.predict("% right with rewards, at rank 1", low=..., high=...)
lesson.predict("points that full fine-tuning is ahead", low=..., high=...)
lesson.predict("mean probability of its answer with rewards, %", low=..., high=...)

# %% [markdown]
# ## Watch it learn
# Your loss, rank 1, half a minute. Dots are batches of eight *drawn* answers; dotted: guessing. (The test takes the likelier answer.)

# %%
steps = lesson.steps(200, 12)
recipe = Recipe("minilm", lesson.small("rt", lesson.workplace("17")), LoRA(rank=1), lr=1e-3, steps=steps, batch=8, validations=0)
# without the noise of drawing, as your loss: p = log_p.exp(); return -torch.where(rewards > 0, p, 1 - p).mean()
with progress_bar(steps) as bar:
    pack = Rewarded([recipe], loss=loss_of_rewards, callbacks=lambda _: [bar])
    (run,) = pack.run()
rewards = pd.Series(pack.rewards[recipe])

plt.figure(figsize=(8, 3))
plt.plot(rewards, ".", alpha=0.3)
plt.plot(rewards.rolling(25, min_periods=5).mean(), color="C0")
plt.axhline(0.5, color="gray", linestyle=":")
plt.xlabel("step")
plt.ylabel("share of thumbs up")
plt.show()
print(f"{run.metrics['accuracy']:.1%} of the test sentences, and it has trained on no label")

# %% [markdown]
# ## One run isn't an answer
# We trained ten ways: LoRA of ranks 1, 8 and 64 on `q,v`, of rank 1 on all linear layers, and full fine-tuning, each from labels and from rewards. Each has its own rate, chosen out of six with three seeds, then five new seeds. (Rank 1 on all linear layers came last, after we had seen the others. LoRA of rank 8 and full from labels are lesson 16's.) *Stored: trained on a CPU, 28 November 2026.*

# %%
stored = {signal: lesson.reference_comparison(f"minilm_rt_{signal}") for signal in ("labels", "reward")}
rows = pd.DataFrame([{"signal": s, **row} for s in stored for row in stored[s]["methods"]]).set_index(["label", "signal"])
mean = lambda one: np.mean(one["each"])  # noqa: E731
table = pd.DataFrame({
    "rate": rows.lr,
    "right, %": 100 * rows.accuracy.map(mean),
    "sure, %": 100 * rows.sure.map(mean),
    "KL": rows.kl.map(mean),
    "halves found, %": 100 * rows.found.map(mean),
}).round({"right, %": 1, "sure, %": 0, "KL": 2, "halves found, %": 1})  # fmt: skip
table

# %% [markdown]
# *KL*: how far the trained model's answers are from the untrained one's. *Halves found*: what's left of an older skill. Of 256 Bible passages cut in half, how many first halves are nearest to their own second half? The untrained MiniLM finds 22<!--reward.before--> %.
#
# ## As sure as it is right?
# On the dotted line, a model that says "80 %" is right in 80 % of the cases.

# %%
plt.figure(figsize=(5.5, 4.5))
plt.plot([65, 100], [65, 100], ":", color="gray")
for signal, color, marker in (("labels", "C0", "o"), ("reward", "C1", "^")):
    own = table.xs(signal, level="signal")
    plt.scatter(own["right, %"], own["sure, %"], color=color, marker=marker, label=f"from {signal}")
    for label, x, y in zip(own.index, own["right, %"], own["sure, %"]):
        plt.text(x + 0.4, y - 1 + ("8" in label), label.removeprefix("LoRA ").removesuffix(" q,v"))
plt.xlabel("right, %")
plt.ylabel("sure: the mean probability of its answer, %")
plt.legend()
plt.show()

# %%
one, eight = "LoRA r1 q,v", "LoRA r8 q,v"
right = table["right, %"]
lesson.reveal("% right with rewards, at rank 1", right[one, "reward"])
lesson.reveal("points that full fine-tuning is ahead", right["full", "reward"] - right[one, "reward"], "points")
lesson.reveal("mean probability of its answer with rewards, %", table["sure, %"][eight, "reward"])

scores = {signal: scores_in(found) for signal, found in stored.items()}
for signal in stored:
    print(f"from {signal}, against full:", {k: v.outcome for k, v in verdicts(scores[signal], against="full").items()})
cost = verdicts_of({label: (scores["reward"][label], scores["labels"][label]) for label in scores["reward"]})
print("rewards against labels:", {label: f"{100 * v.difference:+.1f} points, {v.outcome}" for label, v in cost.items()})

# %% claim
assert [cost[label].outcome for label in scores["reward"]] == ["worse", "undecided", "undecided", "worse", "worse"]
assert verdict(scores["reward"][one], scores["reward"]["LoRA r64 q,v"]).outcome == "undecided"
assert all(verdicts(found, against="full")[one].outcome == "worse" for found in scores.values())
surer = (table["sure, %"] - right).unstack()
assert (surer.reward > 10).sum() == 4 and surer.labels.max() < 5 and surer.reward["LoRA r1 all-linear"] < 0
assert table["halves found, %"].max() < 15
assert all(2 <= rows.lr[label, "labels"] / rows.lr[label, "reward"] <= 4 for label in scores["reward"])

# %% [markdown]
# **Exercise 2.** Why should rank 1 be enough? Count bits. A model is right with probability $p$. Then somebody says "right" or "wrong". How many bits does that carry on average? (An outcome of probability $q$ carries $\log_2\frac1q$ bits.)


# %% exercise
from math import log2


def bits(p):
    return ...


checks.check_bits(bits)


# %% solution
from math import log2


def bits(p):
    return -p * log2(p) - (1 - p) * log2(1 - p)


checks.check_bits(bits)

# %%
heard = sum(8 * bits(min(max(p, 0.01), 0.99)) for p in rewards.rolling(25, min_periods=1).mean())
print(f"your run heard at most {heard:,.0f} bits, and trained {run.adapter_parameters:,} numbers")

# %% [markdown]
# <details><summary>What we found</summary>
#
# - **It learns from thumbs alone.** At rank 1 on `q,v`, 73.6<!--reward.reward.one--> % of the test reviews are right, and 76.8<!--reward.labels.one--> % with labels; full fine-tuning gets 76.8<!--reward.reward.full--> and 78.6<!--reward.labels.full--> %.
# - **Rank 1 doesn't match full fine-tuning here:** with rewards, full is 3.2<!--reward.reward.one.ahead--> points ahead (95 % interval 2.2<!--reward.reward.one.low--> to 4.2<!--reward.reward.one.high-->); on all linear layers 7.9<!--reward.reward.all.ahead--> (3.8<!--reward.reward.all.low--> to 12.1<!--reward.reward.all.high-->; two rates tied, we took the lower). The *rank*? Undecided: 64 is behind full too, by 2.3<!--reward.reward.many.ahead--> (0.9<!--reward.reward.many.low--> to 3.6<!--reward.reward.many.high-->), and 0.9<!--reward.rank--> points ahead of rank 1 (-0.2<!--reward.rank.low--> to 2.0<!--reward.rank.high-->). *Rewards*? With labels, full is 1.8<!--reward.labels.one.ahead--> points ahead, so rewards widen the gap by 1.3<!--reward.wider--> (-0.3<!--reward.wider.low--> to 2.9<!--reward.wider.high-->): undecided. (1,600 answers show how fast they learn, not how good they get.)
# - **Are bits the reason?** Rank 1 trains 9,216 numbers for 1,600 bits at most, 0.17 bits each, below lesson 19's 0.25. With two classes "wrong" *names* the right one, so a reward tells as much as a label! Two causes, not tested: drawing adds noise, and on average our loss is $-p$ of the right answer; with labels it's $-\log p$. So its gradient is $p$ times that of labels: the surer it is of a wrong answer, the less it learns. (Try the code's comment.)
# - **Rewards make it too sure,** in four cases of five: rank 8 is right in 74.9<!--reward.reward.eight--> % and 91<!--reward.reward.eight.sure--> % sure. Only the answer is rewarded, never doubt. With labels, by 5 points at most. By KL, those four also moved further.
# - **All of them forget.** The untrained model finds 22<!--reward.before--> % of the halves, rank 1 finds 10<!--reward.labels.one.found--> % after labels and 9<!--reward.reward.one.found--> % after rewards, full fine-tuning 9<!--reward.labels.full.found--> and 7<!--reward.reward.full.found--> %.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **For rewards, rank 1 is a first try, not a law.** *Ours: 3.2<!--reward.reward.one.ahead--> points behind full fine-tuning; a 23M encoder, 1,600 answers, five seeds. Published: as good as full fine-tuning (LoRA Without Regret). At 8B, within 0.002 of full's reward, with 0.016 between two seeds, and rank 32 better ([open-rl](https://github.com/gke-labs/open-rl/pull/208), 2026); at 1.7B as good, also with denser rewards ([a student project](https://github.com/gernim/lora-reward-density), three seeds).*
# 2. **Compare with the batch's mean.** If all answers of a batch get the same reward, there's nothing to learn. So take problems that the model solves sometimes.
# 3. **Tune the rate again** (ours came out lower), **and don't trust its probabilities.**
#
# The same with PEFT and TRL (it compares several answers to the same question):
# ```python
# trainer = GRPOTrainer(model, reward_funcs=right_or_wrong, args=GRPOConfig(learning_rate=...),
#                       train_dataset=questions, peft_config=LoraConfig(r=1, target_modules="all-linear"))
# trainer.train()
# ```
# </details>

# %%
lesson.receipt()
