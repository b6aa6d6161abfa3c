# %% [markdown]
# # 00 · Start here
#
# *An older lesson; where it names lessons by number, it means the older course, `old_00` to `old_15`.*
#
# **Goal.** In the next 20 minutes you train your first LoRA adapter on a real pretrained model with real data, and see on
# your own machine what it costs and what you get.
#
# **Time box.** 20 minutes, of which the machine trains for one or two; the cell that trains says how long yours will take. **Stop here** marks tell you where you may leave without losing the thread.
#
# **How to use a lesson.** Run the cells from the top with Shift+Enter. Where it says **Predict**, write your guess down
# before you run the next cell: a surprise teaches only those who expected something else. Where it says **Exercise**,
# replace the `...` and run the cell; the check tells you what is wrong, and why. Where an output is marked
# *(illustration)* it comes from a run cut short (`FAST=1`, as in the lab's own tests): it shows the format, not a result. A word in bold is explained where it stands first;
# `docs/glossary.md` in the lab's repository has them all, in English and Chinese.

# %% [markdown]
# ## Is everything there?
# The cell below looks at this machine: which device will train, which number format and which way of computing
# attention (`eager` and `sdpa` give the same result up to rounding) are fastest here. A number takes 4 bytes in the format `fp32`, 2 in the
# coarser `bf16`. The lab measures for a moment rather than guess: *ms a layer's step* is milliseconds per layer per training step. And it says whether the models and data have been fetched (`tweets` are for trials of your own, no lesson needs them).

# %%
from lora_course.classroom.room import room_for
from lora_lab import workbench

print(workbench.describe(workbench.examine()))
print(room_for("old_00"))

# %% [markdown]
# ## The words, before they are used
# - A **model** here is a transformer: a stack of layers, each of which multiplies vectors by **weight matrices**. A matrix
#   $W$ with `out` rows and `in` columns turns a vector of `in` numbers into one of `out` numbers.
# - A **parameter** is one number in such a matrix. *Pretrained* means: somebody has already found good values for all of them.
#   Such a model is the **base** of what follows. A matrix that training leaves as it is, is **frozen**.
# - **Fine-tuning** changes them a little so that the model does *your* task. *Full* fine-tuning changes them all.
# - **LoRA** (low-rank adaptation; Hu et al. 2021) changes none of them. Beside a few chosen matrices it puts two thin ones,
#   `A` with `r` rows and `B` with `r` columns, and trains only these:
#
# $$y = W x + \frac{\alpha}{r}\, B A x$$
#
# - `r` is the **rank**, `alpha` ($\alpha$) a fixed factor, and the pairs `A`, `B` of all layers together are the **adapter**.
# - **Attention** is the part of a layer in which each word looks at the others. The matrices that the adapter sits beside
#   are its **targets**: here `q` and `v`, two of attention's four (query, key, value, output).

# %% [markdown]
# ## Predict
# The model is `minilm`, an **encoder** (it reads a sentence and turns it into vectors) of 22.7 million parameters. The task is `rt`: is this sentence from a film review
# positive or negative? Guessing gets 50 %.
#
# We train an adapter of rank 8 on `q` and `v`, and a fresh classifier on top (the **head**).
# 1. What percentage of the model's parameters will train?
# 2. What percentage of 2,000 sentences it has never seen will it get right?

# %%
guess_share = None  # a number between 0 and 100
guess_accuracy = None  # a number between 0 and 100

# %% [markdown]
# ## Run
# Four things make a **recipe**: a model, a task, a method, and how to train. A **run** is one execution of a recipe plus everything it produced. A **step** learns from 16 sentences; `lr`, the
# **learning rate**, says how far each step moves the numbers. The bar shows the time to go. Along the way the
# model is checked `validations` times on sentences it does not train on. `steps(200, 80)` is 200, or 80 when the lab itself is tested. *(No time to train? Write `run = reference("minilm-rt-r8")` in place of the `train` line.)*

# %%
from lora_course.lesson import compare, eta, reference, steps
from lora_lab import LoRA, train

print(eta(steps(200, 80)))
run = train("minilm", "rt", LoRA(rank=8, alpha=16, targets=("q", "v")), lr=2e-3, steps=steps(200, 80), validations=steps(8, 2))
print(run.metrics)

# %% [markdown]
# ## Compare
# `accuracy` is the share of right answers. `macro_f1` weighs the two classes alike, which matters where one of them is rare; here they are
# about equally frequent, and it hardly differs. `loss` is the error that training makes smaller.

# %%
print(compare("share that trained", guess_share, 100 * run.trainable / run.total, "%"))
print(compare("accuracy on unseen sentences", guess_accuracy, 100 * run.metrics["accuracy"], "%"))

# %% [markdown]
# A third of one percent of the parameters has been trained, and the model is well above guessing. Is it *good*? That
# depends on what it is compared with: full fine-tuning, or the frozen model with only a head. A later lesson (08) will compare
# them fairly. For now we only claim what one run can show:

# %% claim
assert run.trainable / run.total < 0.005  # less than half a percent trains
assert run.metrics["accuracy"] > 0.533  # three standard errors above a coin on 2,000 sentences (lesson 04 explains)

# %%
from lora_lab import plots

title = f"Loss while training, and accuracy on validation; in the end {run.metrics['accuracy']:.0%} on test"
picture = plots.training_picture(plots.curve("this run", run.history, "accuracy"), "accuracy", title)
picture

# %% [markdown]
# *In words:* the left picture is the **training loss**, the error on the 16 sentences of each step. It is noisy, since each
# step sees other sentences; the thick line is a mean over 25 steps. The right picture is the accuracy on **validation**
# sentences, which are only used to monitor training. The **test** sentences are scored once, at the end of a run.
#
# ## What is in the file?
# An adapter is saved in the layout of the PEFT library, so it can leave this lab (the lab's tests load each in the other).
# `adapter_config.json` holds the settings, `adapter_model.safetensors` the numbers, those of the head too;
# `predictions.npy`, where there is one, is only the lab's own note of what was answered.

# %%
from pathlib import Path

sizes = {file.name: file.stat().st_size for file in Path(run.adapter).iterdir()}
base = 4 * (run.total - run.trainable)  # bytes of the frozen model; an fp32 number has 4
print({name: f"{size:,} bytes" for name, size in sizes.items()})
print(f"the base model is {base / sizes['adapter_model.safetensors']:,.0f} times as large as the adapter")

# %% claim
assert sizes["adapter_model.safetensors"] >= 4 * run.trainable  # the numbers are all there; the rest is names

# %% [markdown]
# ## Does it come back?
# We load the base model anew, put the adapter beside it, and score it. Equal accuracy does not prove that every number came
# back, but a missing part would very likely change it. (Our own run was made on another machine, which rounds differently, so one or two
# answers may flip.)

# %%
from lora_lab import evaluate_adapter

again = evaluate_adapter(run.adapter, "rt")
may_differ = 0.005 if Path(run.adapter).name == "minilm-rt-r8" else 0  # ours, made on another machine
again

# %% claim
assert abs(again["accuracy"] - run.metrics["accuracy"]) <= may_differ

# %% [markdown]
# ### Exercise 1 · 3 minutes
# `minilm` has 6 layers. In each, `q` and `v` are 384 x 384. How many parameters does a rank-8 adapter on these have?
# Work it out by hand: `A` is 8 x 384, `B` is 384 x 8.

# %% exercise
from lora_course.checks import check_trainable_parameters

adapter_parameters = ...  # a number
check_trainable_parameters(adapter_parameters)

# %% solution
from lora_course.checks import check_trainable_parameters

adapter_parameters = 6 * 2 * (8 * 384 + 384 * 8)
check_trainable_parameters(adapter_parameters)

# %%
run.adapter_parameters  # what the lab counted

# %% [markdown]
# **Stop here** if time is short: you have trained, saved and reloaded an adapter.
#
# ### Exercise 2 · 7 minutes · Read with a pencil
# Much of what is written about LoRA contradicts itself. Here is a text of the kind that you will meet:
#
# > **(1)** LoRA freezes the pretrained weight W, which is d x d, and learns an update of rank r.
# > **(2)** The update is written as a product of two matrices: A of size d x r, and B of size r x d.
# > **(3)** It is computed as dW = B A, and its output is added to that of W.
# > **(4)** LoRA is usually applied to all four attention matrices: q, k, v and o.
# > **(5)** By default only q and v are adapted; more would defeat the purpose.
# > **(6)** After training, the product A B is folded into W, so that inference costs nothing extra.
# > **(7)** Because W never changes, adapters can be swapped at any moment by replacing A and B.
# > **(8)** Only A and B receive gradients, so the optimizer keeps no state for W.
#
# Four pairs of sentences cannot both be true of the same model at the same time. Which? *(Inference: using the finished model.
# Optimizer state: numbers that the optimizer keeps for each one it trains.)*

# %% exercise
from lora_course.checks import check_contradictions

contradictions = ...  # for example {(1, 8), (2, 4), (5, 6)}
check_contradictions(contradictions)

# %% solution
from lora_course.checks import check_contradictions

contradictions = {(2, 3), (3, 6), (4, 5), (6, 7)}
check_contradictions(contradictions)

# %% [markdown]
# Nearly every sentence is true of *some* set-up; "more would defeat the purpose" is only an opinion. That is why we run things
# here. In this lab, as in the paper and in PEFT, `A` is (r, in), `B` is (out, r), and the update is `B A`.

# %%
import torch

A, B = torch.zeros(8, 384), torch.zeros(384, 8)
print("B A:", tuple((B @ A).shape), " A B:", tuple((A @ B).shape))

# %% claim
assert (B @ A).shape == (384, 384)  # types check
assert (A @ B).shape == (8, 8)  # A first and B second, each as in this lab, would be far too small

# %% [markdown]
# A sentence you can test is a **claim**. In this lab claims are cards: who says it, what must be found if it is right, what it rests on. Verdicts are not
# stored: they are computed when you ask, and can change when you change the assumptions. You will meet more of them; lesson 15 has all.

# %%
from lora_course.lesson import claim

said = claim("1")
said

# %% claim
assert said.word == "false" and claim("1", order="A B").word == "true"

# %% [markdown]
# ## The map
# | lesson | you will |
# |---|---|
# | 01 why_low_rank | see what rank is, and which matrix LoRA assumes to be low-rank |
# | **02 lora_from_scratch** | write LoRA by hand on a real weight, and find out why `B` starts at zero |
# | 03 parameter_savings | count what trains, on models up to 405B |
# | **04 train_an_adapter** | move the sliders, press Start, and see what the adapter changed its mind about |
# | 05 memory | predict a step's memory, measure it, choose a card |
# | 06 rate_rank_alpha | find out which of LoRA's three numbers to tune first |
# | 07 target_modules | choose matrices at one budget |
# | 08 lora_full_prompt | compare LoRA with full fine-tuning, a soft prompt and a mere probe, fairly |
# | 09 merge_and_swap | put an adapter into the weights and out again; many adapters on one base |
# | 10 sft | teach a chat model three voices |
# | 11 qlora | train beside a base of 4 bits |
# | 12 debugging | find out why ten adapters do nothing |
# | 13 inside_delta_w | cut an update to rank r and see what is left |
# | 14 reproduce_the_paper | set published, expected and your own figures side by side |
# | 15 verdicts | judge what people say about LoRA, and see the machine judge it |
#
# They build on each other in this order; each says which it needs. **Next:** 01 and 02 if you want to know what is inside, 04 if you want to see it move first.
