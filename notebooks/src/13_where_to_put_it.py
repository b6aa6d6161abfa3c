# %% [markdown]
# # 13 · Where to put it?
#
# "I moved LoRA from `q,v` to all linear layers, and the model got better." Maybe. But at the same rank, that trains four to eight times more numbers. Two things changed: *where*, and *how much*.
#
# So fix the amount. You can train 27,648 numbers in each layer of MiniLM, in one matrix or spread over six. **Which place is best?**
#
# A layer has six matrices. In attention, `q` and `k` decide *where* each token looks, `v` and `o` *what* it takes from there. The MLP has the other two: `up` and `down`.

# %%
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.paper import table
from lora_lab import Grid, LoRA, MemoryPanel, memory, params, sweep, verdicts
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped

lesson.start("13")
stored = from_store(shipped("data/results/sweeps/target_modules.zip"))  # ours: 90 runs, 25 November 2026
placements = stored.frame.groupby("targets")[["rank", "adapter_parameters"]].first()
placements

# %% [markdown]
# ## One budget, many ranks
# More matrices, lower rank: each row trains the same number of parameters, over six layers. (`up,down` is 3% below.)
#
# **Exercise 1: do it for a larger model, chosen by your name.** The budget is what rank 32 on `q,v` trains. What's the highest rank within it on all of attention, `q,k,v,o`? And on all linear layers? A matrix with $n$ inputs and $m$ outputs costs $n + m$ numbers per rank.

# %% exercise
model = lesson.draw("model", "llama-3-8b", "llama-2-7b", "gemma-2-9b", "qwen3-8b")
budget = params(model, LoRA(rank=32, targets="q,v")).trainable

checks.check_ranks(attention=..., everything=..., model=model)

# %% solution
model = lesson.draw("model", "llama-3-8b", "llama-2-7b", "gemma-2-9b", "qwen3-8b")
budget = params(model, LoRA(rank=32, targets="q,v")).trainable

one = {targets: params(model, LoRA(rank=1, targets=targets)).trainable for targets in ("q,k,v,o", "all-linear")}
checks.check_ranks(attention=budget // one["q,k,v,o"], everything=budget // one["all-linear"], model=model)

# %% [markdown]
# ## Three guesses
# We trained these six placements on movie reviews: five seeds each, at the rates 0.001, 0.002 and 0.004. Ranges, 80% sure.
#
# 1. Each placement at its best rate: **how many points from the worst to the best?**
# 2. **How many of the other five are better than `q,v`**, beyond luck?
# 3. Llama 3 8B at rank 8, from `q,v` to all linear layers: 6.2<!--place.times--> times more trained numbers. **What percentage more memory does it need?** (bf16, one text of 1,024 tokens.)

# %%
lesson.predict("points from the worst to the best", low=..., high=...)
lesson.predict("placements better than q,v", low=..., high=...)
lesson.predict("more memory, in percent", low=..., high=...)

# %% [markdown]
# ## Train one yourself
# In the LoRA paper, the worst placement on GPT-3 was `k` alone. Here, too? Train it: two rates, three seeds (too few to settle it), two minutes. Or train another.

# %%
mine, rank = "k", 36  # or q, v, o at 36; up or down at 14
rates, seeds = ([2e-3], [0]) if lesson.FAST else ([1e-3, 2e-3], range(3))

print(f"{params('minilm', LoRA(rank, targets=mine)).trainable:,} of 165,888 numbers")
grid = Grid(rank, "2rank", rates, seeds, mine)  # alpha = 2 * rank
own = sweep(grid, lesson.workplace("13"), steps=lesson.steps(200, 12), batch=8, validations=1)

# %% [markdown]
# ## Tune each, then compare
# A single rate for all could decide who wins. So each placement gets its own, chosen on *validation* sentences with the same five seeds. The 2,000 test sentences come last, with a margin fixed beforehand: 1.5 points.
#
# Here $\alpha=2r$, as many guides say, so $\alpha$ changes along with the place, from 8 to 72. (Better: keep it fixed, lesson 15.)
#
# Which validation accuracies differ more: along a row, or down a column?
#
# In the picture, a dot is the difference from `q,v`, its line the 95% interval, the band our margin; your run is orange. Of six comparisons, one may look real by luck, so each verdict passes a stricter test (**Holm's correction**). Below is GPT-3 in the LoRA paper, also at equal budgets, on database queries (WikiSQL) and on whether one sentence follows from another (MNLI). There, a line shows how far luck alone could move the dot.

# %%
def tuned(runs):
    accuracy = runs.frame.groupby("lr").validation_accuracy.mean()
    return runs.at(lr=accuracy.idxmax())


at_best = {targets: tuned(stored.at(targets=targets)) for targets in placements.index}
at_best[mine] = tuned(own)
said = verdicts(at_best, against="q,v", margin=0.015)
better = [place for place in said if said[place].outcome == "better"]
places = dict.fromkeys(["all-linear", "up,down", "q,k,v,o", "o", "v", "q,k", "k", "q", mine])
paper = table("table5").frame().set_index("weights").rename(index=lambda name: name.replace("W", ""))
(100 * stored.frame.groupby(["targets", "lr"]).validation_accuracy.mean().unstack()).round(1)

# %%
figure, (ours, gpt3) = plt.subplots(2, 1, figsize=(6.5, 8), sharex=True, sharey=True, layout="constrained")
for row, place in enumerate(places):
    ours.text(2.4, row, said[place].outcome if place in said else "not run", va="center")
    if place in said:
        ends = [100 * getattr(said[place], name) for name in ("low95", "difference", "high95")]
        ours.plot(ends, [row] * 3, f"C{int(place == mine)}o-", markevery=[1])
    for task, luck, up in ("WikiSQL", 1.4, 0.18), ("MNLI", 0.3, -0.18):  # 1.96 x √2 x the usual spread of seeds
        if place in paper.index:
            gpt3.errorbar(paper[task][place] - paper[task]["q,v"], row + up, xerr=luck, fmt="ko")
        gpt3.text(2.4, row + up, task if place in paper.index else "not run" * (up > 0), va="center")
for axis, title in (ours, f"Ours: {len(better)} of {len(said)} proved better than q,v"), (gpt3, "GPT-3 (Hu et al. 2021)"):
    axis.axvspan(-1.5, 1.5, color="C0", alpha=0.15)
    axis.axvline(0, color="gray")
    axis.set(title=title, xlabel="points better than q,v", xlim=(-8, 5), yticks=range(len(places)), yticklabels=places)
plt.show()

# %%
accuracy = [100 * at_best[targets].accuracy.mean() for targets in placements.index]
few, many = (memory("llama-3-8b", LoRA(rank=8, targets=targets), seq=1024) for targets in ("q,v", "all-linear"))

lesson.reveal("points from the worst to the best", max(accuracy) - min(accuracy), "points")
lesson.reveal("placements better than q,v", len({*better} & {*placements.index}))
lesson.reveal("more memory, in percent", 100 * (many.peak / few.peak - 1), "%")
MemoryPanel("llama-3-8b", "LoRA all-linear", seq=1024, longest=False)

# %% claim
assert said["q"].outcome == "worse" and not any(said[place].outcome == "better" for place in placements.index.drop("q,v"))
assert lesson.FAST or (said["k"].outcome == "undecided" and said["k"].difference < said["q"].difference)
assert [float(at_best[place].frame.lr.iloc[0]) for place in placements.index].count(0.002) == 5
tried = 100 * stored.frame.groupby(["targets", "lr"]).validation_accuracy.mean().unstack()
assert (tried[0.002] - tried[0.001]).between(0, 1).sum() == 3
assert said["all-linear"].outcome == "undecided"  # with Holm's correction; alone it is equivalent
assert set(placements.adapter_parameters) == {6 * 27_648, 161_280}  # one budget; up,down stays below
assert 1.05 < many.peak / few.peak < 1.08
behind = {place for place in paper.index if paper.WikiSQL["q,v"] - paper.WikiSQL[place] > 1.4}
assert behind == {"q", "k", "q,k"} and paper.WikiSQL.idxmin() == "k"
assert paper.MNLI["q,k"] == paper.MNLI["q,v"] < paper.MNLI["q,k,v,o"] - 0.3

# %% [markdown]
# <details><summary>What we found</summary>
#
# - **None proved better than `q,v`.** Four are undecided, and only `q` alone is worse, by 3.1<!--place.q--> points. From worst to best: 3.3<!--place.apart--> points. (`k`: three seeds don't decide. With five, `q,v` beats it, in lesson 18.)
# - **A rate that's too high matters more.** Twice its best rate costs a placement 5<!--place.twice.least--> to 25<!--place.twice.most--> points of validation accuracy. (`v`: 0.8, but its best was the lowest tried.) Half its best rate costs three of them less than one point.
# - **On GPT-3's WikiSQL, anything with neither `v` nor `o` falls behind.** Perhaps because it changes where tokens look, but not what they take. On MNLI, `q,k` does as well as `q,v`.
# - **"Undecided" isn't "equal."** Compared alone, all six matrices and `q,v` are *equivalent* within 1.5 points (90% interval: -1.0 to 0.6). As one of six comparisons, they're *undecided*.
# - **Adapting fewer matrices saves little memory.** All linear layers train 6.2<!--place.times--> times more numbers, and need 6<!--place.memory-->% more memory (12<!--place.long-->% at 4,096 tokens; 1<!--place.checkpointing-->% with checkpointing).
#
# Why does everybody say "all linear layers"? Some compare at the same *rank*. Larger models may differ: in [LoRA Without Regret](https://thinkingmachines.ai/blog/lora/) (Llama, Qwen), the MLP alone beats attention alone at about equal size.
# </details>
#
# ## Plan a comparison that you haven't seen
# Your name chooses two placements that the picture doesn't compare. **Exercise 2,** in three rounds:
#
# 1. **How many seeds** detect a true gap of 1.5 points four times in five? Run the cell for $sd$, the difference's standard deviation over three seeds. Then $n=((1.96+0.84)\,sd/1.5)^2$ (lesson 02; without Holm).
# 2. The **word** for the five seeds that we ran.
# 3. The **sentence**, "a" to "d", that you can write.

# %% exercise
pair = lesson.draw("two placements", "q against q,k,v,o", "v against all", "up,down against q")
checks.check_plan(seeds=..., word=..., sentence=..., pair=pair)

# %% solution
pair = lesson.draw("two placements", "q against q,k,v,o", "v against all", "up,down against q")
checks.check_plan(seeds=9, word="undecided", sentence="c", pair=pair)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Compare places at the same budget**: rank = budget / cost of rank 1. At the same *rank*, all linear layers train 4 to 8 times the numbers of `q,v`.
# 2. **Tune the rate for each place**, then ask for a verdict. "Which is highest?" always has an answer.
# 3. **Choose places by quality, not by memory.**
#
# Start with all linear layers at rank 8: larger models may need them. *Our runs don't decide: at equal budgets, undecided against `q,v`; at equal ranks, equivalent<!--as_good.all.against-lora--> (lesson 05) or undecided, with one collapsed run (lesson 16). Published: `q` alone falls behind (Hu et al. 2021, table 5; GPT-3); LLaMA-7B needed adapters everywhere to match full fine-tuning, though not at equal budgets ([QLoRA](https://arxiv.org/abs/2305.14314), figure 2).*
#
# The same in PEFT, at about equal budgets for Llama 3 8B:
# ```python
# config = LoraConfig(r=32, lora_alpha=16, target_modules=["q_proj", "v_proj"])
# # or (another rank, the same alpha: lesson 15):
# config = LoraConfig(r=5, lora_alpha=16, target_modules="all-linear")
# model = get_peft_model(model, config)
# model.print_trainable_parameters()  # tune the rate for each
# ```
# </details>

# %%
lesson.receipt()
