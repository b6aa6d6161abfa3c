# %% [markdown]
# # 03 · Which knob first?
#
# You can afford a dozen runs, and LoRA has three knobs. **Which knob do you tune first?**
#
# - The learning **rate**: how far one step moves the trained numbers.
# - The **rank** $r$: how many rows $A$ has.
# - $\alpha$: how strongly the adapter acts, in $y=Wx+\frac{\alpha}{r}BAx$.

# %%
from lora_course import checks, lesson
from lora_course.checks.knobs import LUCK, teacher
from lora_lab import RankPanel, SweepPanel

lesson.start("03")
store = lesson.workplace("03")

# %% [markdown]
# ## Two guesses
# MiniLM, with LoRA on `q` and `v`, sorts movie reviews into positive and negative. We score it on 500 *validation* sentences.
#
# A good setting (rank 8, $\alpha=16$ and rate 0.002) gets 76.7%. **How many points do you lose at four times the rate? And how many at rank 1 instead of rank 8?**

# %%
lesson.predict("points lost at four times the rate", low=..., high=...)
lesson.predict("points lost at an eighth of the rank", low=..., high=...)

# %% [markdown]
# ## Turn the knobs
# Each cell of the map is one setting, trained with three seeds. Its color shows the average accuracy. A cross means that a run **collapsed**: the rate was so high that the loss didn't fall.
#
# 1. Drag **learning rate** from 0.00025 to 0.011. What happens?
# 2. **If the rank grows from 1 to 64, what happens to the best rate?** Choose an answer below the map. Your answer becomes a line on the map. How many points does it lose?
# 3. Switch to *rate × α*. **If $\alpha$ grows from 1 to 256, what happens to the best rate?**

# %%
panel = SweepPanel(view="rank", into=store)
panel.rank, panel.alpha, panel.lr = 8, 16, 2e-3
panel.question = "Does the best rate change with the rank? With α?"
panel

# %%
mean = {(cell["rank"], cell["alpha"], cell["lr"]): cell["mean"] for cell in panel.data["cells"]}
good = mean[8, 16, 0.002]

lesson.reveal("points lost at four times the rate", round(good - mean[8, 16, 0.008], 1), "points")
lesson.reveal("points lost at an eighth of the rank", round(good - mean[1, 16, 0.002], 1), "points")

# %% claim
from statistics import stdev

from lora_lab import LoRA, memory
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped

for model, targets, seq, batch in (("minilm", ("q", "v"), 64, 8), ("llama-3-8b", "all-linear", 512, 1)):
    peaks = [memory(model, LoRA(rank=rank, targets=targets), seq=seq, batch=batch).peak for rank in (1, 8)]
    assert f"{100 * (peaks[1] / peaks[0] - 1):.0f}" == "1"
assert f"{good - mean[1, 16, 2e-3]:.1f}" == "1.4"
assert {(cell["targets"], len(cell["runs"])) for cell in panel.data["cells"] if cell["mean"]} == {("q,v", 3)}
apart = {"rate": [(8, 16, 5e-4), (8, 16, 8e-3)], "alpha": [(8, 4, 2e-3), (8, 64, 2e-3)], "rank": [(1, 16, 2e-3), (64, 16, 2e-3)]}
said = {"rate": ["73.1", "52.4"], "alpha": ["76.6", "75.4"], "rank": ["75.3", "76.7"]}
assert {knob: [f"{mean[cell]:.1f}" for cell in cells] for knob, cells in apart.items()} == said
assert f"{good:.1f}" == "76.7"
assert {knob: min(good - mean[cell] for cell in cells) > LUCK for knob, cells in apart.items()} == {"rate": True, "alpha": False, "rank": False}
assert [f"{mean[rank, 16, 4e-3]:.0f}" for rank in (8, 64)] == ["77", "65"]  # so the answer box says 0.002 only
assert max(good - mean[cell] for knob in ("alpha", "rank") for cell in apart[knob]) < LUCK == 2.0
forty = [run.history["validation"][-1]["accuracy"] for run in from_store(shipped("data/results/sweeps/seeds.zip")).runs]
assert f"{panel.data['luck']:.1f}" == f"{196 * stdev(forty) * (2 / 3) ** 0.5:.1f}" == "2.0"  # of all cells; of lesson 02
(hot,) = (cell for cell in panel.data["cells"] if (cell["rank"], cell["alpha"], cell["lr"]) == (8, 16, 8e-3))
assert [panel.data["runs"][run]["state"] for run in hot["runs"]] == 3 * ["collapsed"]
for rank in (1, 8, 64):  # the diamonds: 0.0014 is the best rate of each row (at ranks 1 and 8, another is as good)
    assert mean[rank, 16, 0.0014] == max(mean[cell] for cell in mean if cell[:2] == (rank, 16) and mean[cell])
lines = {view: panel.data["lines"][view][part] for view, part in (("rank", "q,v|16"), ("alpha", "q,v|8"))}
assert lines["rank"]["alone"]["lost"] < 0.5 < lines["rank"]["root"]["lost"] < lines["rank"]["whole"]["lost"]  # the rank keeps the rate ...
assert lines["alpha"]["root"]["lost"] < min(lines["alpha"][name]["lost"] for name in ("alone", "whole"))  # ... alpha does not

# %% [markdown]
# <details><summary>What we found</summary>
#
# |change (from 76.7%)|smaller|larger|
# |---|---|---|
# |rate, 4 times|73.1%|52.4% (all collapsed)|
# |$\alpha$, 4 times|76.6%|75.4%|
# |rank, 8 times|75.3%|76.7%|
#
# By luck, two cells can differ by up to 2.0 points (three seeds, 500 sentences). Only the rate changes accuracy by more. **So tune the rate first.**
#
# And your line? Compared with tuning the rate in each row, the three lines lose this many points, on average:
#
# |your line|rank, 1 to 64|$\alpha$, 1 to 256|
# |---|---|---|
# |stays the same|**0.0<!--knobs.rank.alone-->**|3.7<!--knobs.alpha.alone-->|
# |grows with √r, or falls with √α|3.0<!--knobs.rank.root-->|**0.2<!--knobs.alpha.root-->**|
# |grows with $r$, or falls with $\alpha$|at least 9.9<!--knobs.rank.whole--> (rank 1: not tried)|5.0<!--knobs.alpha.whole-->|
#
# - **A new rank needs no new rate:** the map's three diamonds (best rates) are in one column. Roughly, $r$ rows of $A$ move the output $r$ times as far as one row does, and $\alpha/r$ cancels this.
# - **If you multiply $\alpha$ by four, halve the rate.** At half the rate, Adam moves both $A$ and $B$ half as far, so $BA$ falls to a quarter, and $\alpha BA$ doesn't change.
# </details>
#
# ## How low a rank is enough?
# Is full fine-tuning's change to $W$ simple enough for a low rank? Let's split it into pieces.
#
# A **rank-one piece** is a column times a row. The singular value decomposition (SVD) splits the change in each matrix into such pieces, sorted by strength. Full fine-tuning has up to 384 pieces per matrix, and rank-8 LoRA has up to eight.
#
# After a longer run of full fine-tuning, with all 384 pieces, the model gets 84.8<!--inside.full.right-->% right. With none (only the trained head), it gets 53.6<!--knobs.cut.0-->%. **What percentage does it get right with the two strongest pieces of each matrix?**

# %%
lesson.predict("percent right at rank 2", low=..., high=...)

# %%
cut = RankPanel()
full = cut.cuts["updates"]["full"]
right = {rank: 100 * n / cut.cuts["n"] for rank, n in zip(full["ranks"], full["right"])}
lesson.reveal("percent right at rank 2", right[2], "%")
cut

# %% claim
assert right[0] < 60 < right[2]  # two pieces do most of it
((_, label, guesses),) = [row for row in full["sentences"] if "canned tuna" in row[0]]
assert [rank for rank, guess in zip(full["ranks"], guesses) if guess != str(label)] == [1, 2, 4]
share = (right[2] - right[0]) / (right[384] - right[0])
assert (f"{share:.0%}", f"{full['energy'][full['ranks'].index(2)]:.0%}") == ("82%", "30%")
assert [f"{100 * cut.cuts['updates'][of]['right'][1] / cut.cuts['n']:.1f}" for of in ("full", "update")] == ["60.6", "80.2"]  # one piece
noise = cut.cuts["updates"]["noise"]["right"]
assert (max(noise) - noise[0]) / cut.cuts["n"] < LUCK / 100  # gray
assert "2 of 384 pieces keep 13.8%" in cut.describe()  # of the matrix on show

# %% [markdown]
# Add pieces of the update. **How many pieces does the canned-tuna joke need?** Then try *a picture*. (**Energy** is the sum of squared numbers.)
#
# <details><summary>What we found</summary>
#
# **Two of 384 pieces are enough for 82% of the gain in accuracy** (79.2<!--knobs.cut.2-->% right). (Canned tuna: eight.)
#
# With one piece of full fine-tuning's change, the model gets 60.6%. But LoRA *trains* its few pieces: with the strongest piece of rank-8 LoRA (orange), it gets 80.2%. (Gray is a random change.)
# </details>
#
# ## Where the rank does matter
# Now let all pieces be equally strong. A **teacher** is a secret matrix of $R$ such pieces. A *student* (one $A$ and one $B$ of rank $r$) learns to match it. Below, each rank's bar shows what share of the starting loss remains. **Read your secret matrix's $R$ from the bars.**
#
# **Exercise 1: which formula gives the bars' lengths?**

# %%
import torch

secret, bars = teacher(), {}  # 32 x 32; R depends on your name
for rank in range(1, 11):
    A = torch.nn.Parameter(torch.randn(rank, 32) / 32**0.5)
    B = torch.nn.Parameter(torch.zeros(32, rank))
    optimizer = torch.optim.Adam([A, B], lr=1e-2)
    for step in range(200):
        x = torch.randn(64, 32)  # 64 inputs
        loss = (x @ A.T @ B.T - x @ secret.T).square().mean()  # student minus teacher (W cancels out)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    bars[rank] = ((B @ A - secret).square().sum() / secret.square().sum()).item()  # share of the starting loss
    print(f"rank {rank:2} {bars[rank]:.2f} {'█' * round(25 * bars[rank])}")

# %% claim
assert all(abs(bars[r] - (1 - r / 6)) < 0.02 for r in range(1, 7))  # the formula, not only its shape
assert bars[10] < 0.02  # more rank than the teacher has does no harm
assert next(r for r in bars if not round(25 * bars[r])) == 6  # the first empty bar

# %% exercise
def missed(r, R):
    """Return the share of the starting loss that a student of rank r can't remove; r <= R."""
    return ...


checks.check_missed(missed)

# %% solution
def missed(r, R):
    """Return the share of the starting loss that a student of rank r can't remove; r <= R."""
    return 1 - r / R


checks.check_missed(missed)

# %% [markdown]
# <details><summary>Answer</summary>
#
# $R$ is the first rank with an empty bar. (If you never entered a name, $R=6$.)
# </details>
#
# ## Your turn: three rates, nine runs
# **Exercise 2: for a new $\alpha$ (see below), choose three rates, with a good one in the middle.** Each rate must be two to five times the rate before it. The middle rate must beat the others by more than 2.0 points. (Without training, the web page judges your rates by the map's rows for other alphas.)

# %%
alpha = lesson.draw("alpha", 128.0, 32.0, 8.0)
panel = SweepPanel(view="alpha", alpha=alpha, into=store)
panel.rank, panel.alpha = 8, alpha
panel.question = "Which rate is best at your α?"
panel

# %% exercise
rates = [..., ..., ...]

checks.check_bracket(rates, alpha, panel)

# %% solution
middle = 2e-3 * (16 / alpha) ** 0.5  # good at alpha 16; a higher alpha needs a lower rate
rates = [middle / 5, middle, 5 * middle]

checks.check_bracket(rates, alpha, panel)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Tune the rate first.** At $\alpha=16$, start here:
#
#    |model, task|all linear layers|`q,v`|
#    |---|---|---|
#    |MiniLM, reviews (*ours*)|0.0005|0.002|
#    |SmolLM2, texts about restaurants (*ours*)|0.004|0.009|
#    |a 7B model (*published*: [QLoRA](https://arxiv.org/abs/2305.14314))|0.0002|not known|
#    |others (*ours*, lesson 15)|10 times full fine-tuning's best rate|25 times full fine-tuning's best rate|
#
# 2. **If you multiply α by four, use half the rate.** *Ours: at 16 times the α, the best rate is 3.4<!--rates.fall--> times lower (95% interval: 2.4<!--rates.fall.low--> to 5.2<!--rates.fall.high-->).* This also holds if your α grows with the rank ($\alpha=2r$).
# 3. **At a new rank, keep α and the rate.** *Ours, on `q,v`: if the rank doubles, the best rate is multiplied by 1.00<!--regret.fixed--> (95% interval: 0.92<!--regret.fixed.low--> to 1.09<!--regret.fixed.high-->).* Rank 8 is a safe start: it needs only 1% more memory than rank 1 (calculated). If there's a lot to learn, as with code, try ranks up to 256 (*published: [Biderman et al. 2024](https://arxiv.org/abs/2405.09673), one run each*).
#
# The same in PEFT:
# ```python
# config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="SEQ_CLS")
# model = get_peft_model(model, config)
# args = TrainingArguments("runs", learning_rate=2e-4, eval_strategy="epoch")  # for a 7B model
# Trainer(model, args, train_dataset=train, eval_dataset=validation).train()
# ```
# </details>

# %%
lesson.receipt()
