# %% [markdown]
# # 03 · Which knob first?
#
# You can afford a dozen runs. LoRA has three knobs. Should you tune the rank first?
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
# 2. In each row, find the best rate: the cell with the strongest blue. Does the best rate change with the rank? Answer below the map, and see what your answer costs.
# 3. Switch to *rate × α*. Does the best rate change with $\alpha$?

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
lines = {view: panel.data["lines"][view][part] for view, part in (("rank", "q,v|16"), ("alpha", "q,v|8"))}
assert lines["rank"]["alone"]["lost"] < 0.5 < lines["rank"]["whole"]["lost"]  # the rank keeps the rate ...
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
# Luck alone can make two cells differ by up to 2.0 points (1.96 standard errors). Only the *rate* row differs from 76.7% by more than that. **So the rate matters most**, in the ranges we tried.
#
# - **If you change the rank, don't change $\alpha$ or the rate.** Tuning the rate again for each rank gains 0.0<!--knobs.rank.alone--> points on average. (A rate that grows with $r$ would lose at least 9.9<!--knobs.rank.whole--> points.) Roughly, $r$ rows of $A$ move the output $r$ times as far as one row, and $\alpha/r$ cancels this. But stay away from the crosses.
# - **If you multiply $\alpha$ by four, halve the rate.** Compared with this rule, tuning again for each $\alpha$ would gain only 0.2<!--knobs.alpha.root--> points on average. (Lesson 15 shows why.)
# </details>
#
# ## How low a rank is enough?
# A **rank-one piece** is a column times a row. To each matrix, rank-8 LoRA adds at most eight such pieces, and full fine-tuning at most 384. We took the change in each matrix from a longer run of full fine-tuning. (Don't compare its scores with the map's.) The singular value decomposition (SVD) splits each change into pieces; we can keep only the strongest.
#
# With all 384 pieces, the model gets 84.8<!--inside.full.right-->% right. With none (only the trained head), it gets 53.6<!--knobs.cut.0-->%. **What percentage does it get right with the two strongest pieces of each matrix?**

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
share = (right[2] - right[0]) / (right[384] - right[0])
assert (f"{share:.0%}", f"{full['energy'][full['ranks'].index(2)]:.0%}") == ("82%", "30%")
assert [f"{100 * cut.cuts['updates'][of]['right'][1] / cut.cuts['n']:.1f}" for of in ("full", "update")] == ["60.6", "80.2"]  # one piece
assert f"{100 * cut.cuts['updates']['update']['right'][-1] / cut.cuts['n']:.1f}" == "81.4" and cut.cuts["updates"]["update"]["ranks"][-1] == 8
assert "2 of 384 pieces keep 13.8%" in cut.describe()  # of the matrix on show

# %% [markdown]
# Press *take it away* twice, then add pieces again.
#
# <details><summary>What we found</summary>
#
# With two pieces, it gets 79.2<!--knobs.cut.2-->% right. They hold only 30% of the change's **energy** (the sum of its squared numbers), but bring 82% of the gain in accuracy. One piece gets only 60.6% right.
#
# The orange line shows rank-8 LoRA's change: one piece gets 80.2%, nearly as much as all eight (81.4%).
# </details>
#
# ## Where the rank does matter
# A **teacher** is a secret matrix of $R$ equally strong pieces. A *student*, an $A$ and a $B$ of rank $r$, learns to match it. **Exercise 1: what share of the starting loss remains for a student of rank $r$?**

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
    bars[rank] = ((B @ A - secret).square().sum() / secret.square().sum()).item()  # the loss, against the start
    print(f"rank {rank:2} {bars[rank]:.2f} {'█' * round(25 * bars[rank])}")

# %% claim
assert all(abs(bars[r] - (1 - r / 6)) < 0.02 for r in range(1, 7))  # the formula, not only its shape
assert bars[10] < 0.02  # more rank than the teacher has does no harm
assert next(r for r in bars if not round(25 * bars[r])) == 6  # the first empty bar

# %% [markdown]
# **Find your secret matrix's $R$ in the bars.**
#
# <details><summary>Answer</summary>
#
# $R$ is the first rank with an empty bar: each rank up to $R$ learns one more piece. (Without a name, $R=6$.)
# </details>
#
# ## Your turn: spend nine runs
# **Exercise 2: for the new $\alpha$, choose three rates, with the best in the middle.** The middle rate must beat the others by more than 2.0 points. (The web page judges by the map's other rows.) Each rate must be two to five times the rate before it.

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
#    |MiniLM, reviews|0.0005|0.002|
#    |SmolLM2, restaurants|0.004|0.009|
#    |a 7B model ([QLoRA](https://arxiv.org/abs/2305.14314))|0.0002 (published)|not known|
#
#    Tasks differ: at $\alpha=4$, lesson 00's voice learned best at 0.002 (one seed, three rates), but rule 3 would turn the table's 0.004 into 0.008.
#
#    For another model, multiply full fine-tuning's best rate by ten (all linear layers) or 25 (`q,v`); if in doubt, go lower. *Ours: two models, three tasks (lesson 15).*
# 2. **At a new rank, keep α and the rate.** *Ours, on `q,v`: if the rank doubles, the best rate stays the same (1.00<!--regret.fixed--> times; 95% interval 0.92<!--regret.fixed.low--> to 1.09<!--regret.fixed.high-->; lesson 15).* If your α grows with the rank ($\alpha=2r$), rule 3 applies.
# 3. **If you multiply α by four, use half the rate.** *Ours: at 16 times the α, the best rate is 3.4<!--rates.fall--> times lower (interval 2.4<!--rates.fall.low--> to 5.2<!--rates.fall.high-->).*
#
# **Which rank?** For classifying texts, 8 is a safe default: a step needs only 1% more memory than at rank 1 (calculated). *Ours: rank 1 lost 1.4 points (maybe luck); rank 32 is equivalent<!--rates.8-and-32--> to rank 8 within 1.5 points.* A voice needs 2 (*ours, one run*); if there's much to learn, as with code, try up to 256 (*published: [Biderman et al. 2024](https://arxiv.org/abs/2405.09673), one run each*).
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
