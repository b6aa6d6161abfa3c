# %% [markdown]
# # 03 · Which knob first?
#
# You have a GPU until five o'clock. That's a dozen runs, and LoRA has three knobs: the learning rate, the rank $r$, and $\alpha$ in
# $\Delta W = \frac{\alpha}{r} BA$. Most people reach for the rank. It's the famous one: more rank, more capacity, a better model. Right?

# %%
from lora_course import checks, lesson
from lora_lab import RankPanel, SweepPanel

lesson.start("03")
store = lesson.workplace("03")

# %% [markdown]
# ## Three guesses
# MiniLM sorts film reviews into good and bad, and guessing gets 50 %. Write ranges that you're 80 % sure of.
#
# 1. Give every rank its own best learning rate. **How many points of validation accuracy lie between the worst rank and the best?**
# 2. Now keep the rank and turn the rate, from far too low to far too high. **How many points from the worst rate to the best?**
# 3. Full fine-tuning, no LoRA at all, gets 84.8<!--inside.full.right--> %. Undo everything it did except the new head, and it's 53.6<!--knobs.cut.0--> %. Now keep,
#    of its change to each matrix, only the two strongest rank-one pieces (of the SVD) of up to 384. **What percentage is right?**

# %%
lesson.predict("points between ranks", low=..., high=...)
lesson.predict("points between rates", low=..., high=...)
lesson.predict("percent right at rank 2", low=..., high=...)

# %% [markdown]
# ## Turn the knobs
# We trained 100<!--knobs.runs--> adapters so that you don't have to wait. A cell is one setting, a dot is one seed, a cross is a run that collapsed to guessing.
#
# - Drag along a row: only the rate changes.
# - Jump from row to row. When the rank grows, where does the best rate go? Answer below the map.
# - Switch to *rate × α* and answer again.

# %%
panel = SweepPanel(view="rank", into=store)
panel.rank, panel.alpha, panel.lr = 8, 16, 2e-3
panel

# %%
moves = panel.data["moves"]["q,v"]
lesson.reveal("points between ranks", moves["rank"], "points")
lesson.reveal("points between rates", moves["lr"], "points")

# %% claim
lines = {view: panel.data["lines"][view][part] for view, part in (("rank", "q,v|16"), ("alpha", "q,v|8"))}
assert moves["lr"] > 5 * moves["rank"] and moves["lr"] > 3 * moves["alpha"]  # the rate first
assert lines["rank"]["alone"]["lost"] < 0.5 < lines["rank"]["whole"]["lost"]  # the rank keeps the rate ...
assert lines["alpha"]["root"]["lost"] < min(lines["alpha"][name]["lost"] for name in ("alone", "whole"))  # ... alpha does not

# %% [markdown]
# <details><summary>What we found</summary>
#
# **The rate moves accuracy by 27<!--knobs.rate--> points, down to guessing; the rank by 1.5<!--knobs.rank-->.** Seeds of one recipe differ by 1.9<!--knobs.seeds-->, so even that may be luck. With $\alpha$ it's
# 0.8<!--knobs.alpha-->, if you tune the rate each time. Two more things save you runs:
#
# - **Rank leaves the best rate alone.** Use one rate for every rank, and you lose 0.0<!--knobs.rank.alone--> points. That's the $r$ in $\alpha / r$: rank $r$ is $r$
#   little pieces, each turned down to $1/r$.
# - **$\alpha$ moves it.** More $\alpha$ makes the same weights count for more, so the best rate falls, about as $1/\sqrt{\alpha}$. Follow that, and you lose 0.1<!--knobs.alpha.root--> points;
#   keep the rate, and it's 0.3<!--knobs.alpha.alone-->; let it fall as $1/\alpha$, and it's 2.4<!--knobs.alpha.whole-->.
#
# So the rate gets your dozen runs.
# </details>
#
# ## Why does the rank hardly matter?
# Don't ask LoRA: rank 8 is all it *can* do. Ask full fine-tuning, which may use every direction there is. Below is what it added to one matrix, as a sum of rank-one pieces,
# strongest first. Take both pieces away, then add them back one at a time. Watch the right answers, with *every* matrix cut like this, and the reviews that flip.

# %%
cut = RankPanel()
full = cut.cuts["updates"]["full"]
right = {rank: 100 * n / cut.cuts["n"] for rank, n in zip(full["ranks"], full["right"])}
lesson.reveal("percent right at rank 2", right[2], "%")
cut

# %% claim
assert right[0] < 60 < right[2]  # two pieces do most of it
assert (right[2] - right[0]) / (right[384] - right[0]) > 0.75 > 2 * full["energy"][full["ranks"].index(2)]

# %% [markdown]
# <details><summary>What we found</summary>
#
# Two pieces a matrix: 79.2<!--knobs.cut.2--> % right, with 30<!--knobs.cut.energy--> % of the energy. The other 382 are most of the change, and all of them together add the
# last few points. Sorting reviews needs little rank.
# </details>
#
# ## Where the rank does matter
# Now a task that *needs* rank. A teacher adds a secret update to a weight: a few rank-one pieces, all equally strong. LoRA
# students see only inputs and answers. Each bar is the share of the secret that a student of that rank still misses. **Exercise 1: read off the
# teacher's rank.**

# %%
import torch

from lora_course.checks.knobs import teacher

secret = teacher()  # 32 x 32, yours alone; W is frozen and cancels out

for rank in range(1, 11):
    A = torch.nn.Parameter(torch.randn(rank, 32) / 32**0.5)
    B = torch.nn.Parameter(torch.zeros(32, rank))
    optimizer = torch.optim.Adam([A, B], lr=1e-2)
    for step in range(200):
        x = torch.randn(64, 32)
        loss = (x @ A.T @ B.T - x @ secret.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    missed = ((B @ A - secret).norm() / secret.norm()).item()
    print(f"rank {rank:2} {missed:.2f} {'█' * round(60 * missed)}")

# %% claim
assert missed < 0.02  # more rank than the teacher has does no harm

# %% exercise
checks.check_teacher_rank(...)

# %% solution
checks.check_teacher_rank(6)

# %% [markdown]
# That's a knee. One piece short, and no learning rate finds the rest. Past the knee, more rank buys nothing: enough is enough. Your own task has a knee too, a softer one.
# Which side of it are you on? Train ranks 8 and 64 at *one* rate. If 64 isn't better, you're past it.
#
# ## Your turn: spend three runs
# `alpha` below is a row at rank 8 that nobody has trained. **Exercise 2: write three rates, each two to five times the one before.** The check trains them on the map, three seeds
# each, in about two minutes. You pass if the middle one validates best: then the peak lies between the outer two.

# %%
alpha = lesson.draw("alpha", 128.0, 32.0, 8.0)
panel = SweepPanel(view="alpha", alpha=alpha, into=store)
panel.rank, panel.alpha = 8, alpha
panel

# %% exercise
rates = [..., ..., ...]

checks.check_bracket(rates, alpha, panel)

# %% solution
middle = 2e-3 * (16 / alpha) ** 0.5  # good at alpha 16, and more alpha wants less
rates = [middle / 4, middle, 4 * middle]

checks.check_bracket(rates, alpha, panel)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Tune the rate first.** Try one, half of it, double it, and choose on validation.
# 2. **Change the rank, keep the rate** (at a fixed $\alpha$).
# 3. **More $\alpha$ wants less rate:** four times the $\alpha$, about half the rate. So fix $\alpha$ and forget it.
#
# | | start with | ours (MiniLM, 23M) | published (not rerun here) |
# |---|---|---|---|
# | rate | 10 times full fine-tuning's | 20<!--compare.lora.times-full--> times on q and v (2e-3), 5<!--compare.lora-all-linear.times-full--> on all linear layers | 9.8 times, a fit over 14 models ([Schulman 2025](https://thinkingmachines.ai/blog/lora/)); 2e-4 for 7B ([QLoRA](https://arxiv.org/abs/2305.14314)) |
# | other rank | same rate | rate goes as $r$ to the +0.02<!--rates.rank-slope--> (95 %: -0.09<!--rates.rank-slope.low--> to +0.15<!--rates.rank-slope.high-->) | under 2 times from rank 4 to 512 (Schulman 2025) |
# | 4 times the $\alpha$ | half the rate | 16 times the $\alpha$: 3.0<!--rates.fall--> times less (95 %: 2.1<!--rates.fall.low--> to 4.1<!--rates.fall.high-->) | – |
# | rank | 8 to 16 for style or classification, 64 to 256 for much new content | on reviews, 8 against 32: *equivalent<!--rates.8-against-32-->* within 1.5 points | on code, 256 matches full fine-tuning, 16 and 64 don't ([Biderman et al. 2024](https://arxiv.org/abs/2405.09673), one run each) |
#
# The same in PEFT:
# ```python
# config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="SEQ_CLS")
# model = get_peft_model(model, config)
# args = TrainingArguments("runs", learning_rate=2e-4)  # then half of it, then double
# Trainer(model, args, train_dataset=train, eval_dataset=validation).train()
# ```
# </details>

# %%
lesson.receipt()
