# %% [markdown]
# # 18 · Would you believe this table?
#
# Below are two rows of Table 2 in the LoRA paper ([Hu et al. 2021](https://arxiv.org/abs/2106.09685)): RoBERTa-large on RTE (does one sentence follow from another?), MRPC (do two mean the same?) and STS-B (how alike? a correlation). On RTE, full fine-tuning (FT) scores 86.6, LoRA 87.4. **LoRA wins. Or does it?**

# %%
import pandas as pd
from matplotlib import pyplot as plt

from lora_course import checks, lesson, paper
from lora_course.checks import reproducing
from lora_course.lesson import reference_reproductions
from lora_course.panels.claim_panel import ClaimPanel
from lora_course.paper.reproduce import Interval, item
from lora_course.paper.reproduce.run import reproduce
from lora_course.plots.forest import forest

lesson.start("18")
table2, tasks = paper.table("table2"), ["RTE", "MRPC", "STS-B"]
table2.frame().query("model == 'RoBERTa-large' and mark != '†'").set_index("method")[["mark", "trainable", *tasks]]

# %% [markdown]
# ## Three guesses
# 1. LoRA had a head start here: it began from a model that had already learned MNLI, a large task much like RTE. Full fine-tuning, say RoBERTa's authors, began from plain RoBERTa. Give both the same start, plain or from MNLI: with three tasks, six comparisons. **In how many is LoRA ahead?**
# 2. A *bottleneck* is an older adapter: a small network after part of a layer, which can't be merged. **By what percentage did two per layer slow the model** on a short text (our CPU)?
# 3. We retested eleven of the paper's findings on small models. **How many hold?**
#
# Be 80% sure.

# %%
lesson.predict("pairs with LoRA ahead, of 6", low=..., high=...)
lesson.predict("slower with bottlenecks on our CPU, percent", low=..., high=...)
lesson.predict("findings that hold, of 11", low=..., high=...)

# %% [markdown]
# ## Who measured it, and from which start?
# The paper *copied* its full fine-tuning scores (`*`) from RoBERTa's authors. One of them wrote in [an issue](https://github.com/facebookresearch/fairseq/issues/1166) what it scores *from MNLI*. And the paper's rows marked `†` have LoRA *without* MNLI.

# %% alt="Three tasks. In each, a black line for full fine-tuning and a blue line for LoRA go from a plain start to a start from MNLI. Blue is below or level with black. A dotted line rises from full, plain, to LoRA, from MNLI."
FULL_FROM_MNLI = {"RTE": 90.97, "MRPC": 91.42, "STS-B": 92.63}  # RoBERTa-large, by its author
marks = (("FT", "*"), ("LoRA", "†"), ("LoRA", ""))
full, plain, warm = (table2.row(model="RoBERTa-large", method=method, mark=mark) for method, mark in marks)
figure, panels = plt.subplots(1, 3, figsize=(8.4, 3.5), sharey=True, layout="constrained")
for axes, task in zip(panels, tasks):
    axes.plot([full[task], FULL_FROM_MNLI[task]], "ko-", label="full fine-tuning")
    axes.plot([plain[task], warm[task]], "C0o-", label="LoRA")
    axes.plot([full[task], warm[task]], "C1:", linewidth=3, label="what the table compares")
    axes.set(title=task, xlim=(-0.4, 1.4), xticks=[0, 1], xticklabels=["plain", "from MNLI"])
panels[0].set(ylabel="published score")
panels[2].legend(loc="lower right")
figure.suptitle("With the same start, LoRA is never ahead", x=0.01, ha="left")
ahead = sum(lora[task] > other[task] for other, lora in ((full, plain), (FULL_FROM_MNLI, warm)) for task in tasks)
lesson.reveal("pairs with LoRA ahead, of 6", ahead)
pd.DataFrame([full, plain, warm]).set_index("method")[["mark", *tasks]]  # as printed; the rest is from the issue

# %% claim
words = paper.table("issues").row(issue="facebookresearch/fairseq issue 1166")["found"]
assert all(f"{task} {score}" in words for task, score in FULL_FROM_MNLI.items())
assert ahead == 0 and (warm["RTE"], full["RTE"], plain["RTE"]) == (87.4, 86.6, 85.2)
assert round(277 * (warm["RTE"] - full["RTE"]) / 100) == 2  # rows
assert (plain["RTE_std"], warm["RTE_std"]) == (1.1, 2.5)
gap, shares = FULL_FROM_MNLI["RTE"] - warm["RTE"], [FULL_FROM_MNLI["RTE"] / 100, warm["RTE"] / 100]
assert (round(gap, 1), round(196 * (sum(p * (1 - p) for p in shares) / 277) ** 0.5, 1)) == (3.6, 5.2)
assert [row["LoRA"] if "LoRA" in row else row["FT/LoRA"] for row in paper.table("table1").records()][-1] == 19.8

# %% [markdown]
# <details><summary>What we found</summary>
#
# **In none.** The table compares along the dotted line: LoRA *with* the head start against full fine-tuning *without* it. With the same start, LoRA is behind in five pairs and, rounded, tied in one. (The LoRA paper says full fine-tuning had this start, too. Three pairs rest on one comment.)
# </details>
#
# That's unfair, but is LoRA *worse*? RTE's scores are on 277 rows ([data set card](https://huggingface.co/datasets/nyu-mll/glue)): LoRA's lead of 0.8 points was two rows. An accuracy $p$ on $n$ rows has the variance $p(1-p)/n$. For a gap, add both variances (as if independent); the sum's root is its standard error.
#
# **Exercise 1: what can your two scores show?** Give the gap's standard error in points, the gap needed (1.96 times that), and a word: *noise* if the published gap is smaller; *unlike starts* if it's larger, but only one started from MNLI (LoRA without a mark); otherwise *a gap*.

# %% exercise
mine = lesson.draw("pair", *reproducing.PAIRS)
for row, accuracy in zip(reproducing.PAIRS[mine], reproducing.published(mine)):
    print(f"{' '.join(row)}: {accuracy}")
error, points, word = ..., ..., ...
checks.check_published(error, points, word, mine)

# %% solution
mine = lesson.draw("pair", *reproducing.PAIRS)
for row, accuracy in zip(reproducing.PAIRS[mine], reproducing.published(mine)):
    print(f"{' '.join(row)}: {accuracy}")
p, q = (accuracy / 100 for accuracy in reproducing.published(mine))
error = 100 * ((p * (1 - p) + q * (1 - q)) / 277) ** 0.5
word = {"large": "noise", "base": "unlike starts", "dagger": "a gap"}[mine]
points = 1.96 * error
checks.check_published(error, points, word, mine)

# %% [markdown]
# ## Now measure one yourself
# Bottlenecks cost time and merged LoRA doesn't, says Table 1 (GPT-2 medium). Rerun it with MiniLM. The finding as a **rule**:
#
# - two bottlenecks in each layer slow one text by more than 2%, and slow the largest batch (32 texts of 512 tokens; in this cell, 4 of 128) less;
# - merged LoRA changes either time by less than 5%.
#
# A line is a result's 95% interval. All in the blue: it *holds*. All outside: it *fails*. Otherwise, it's *undecided*. (Second row: it must be left of its color's line above.)

# %% alt="Four rows; all but the second have a blue area that the result must lie in. Two bottlenecks, one text: the paper and our CPU are near 30 percent slower, and where this cell ran, they cost less. Largest batch: the paper and our CPU are below 10 percent. Merged LoRA: all are near 0."
(here,) = reproduce([item("table1", grids=[[(1, 128), (4, 128)]], most=lesson.steps(60, 6))], lesson.workplace("18"), minutes=6)
ours = reference_reproductions()["table1"]
plt.figure(figsize=(8, 4))
plt.barh([0, 1, 3], [10, 10, 33], left=[-5, -5, 2], height=0.9, color="C0", alpha=0.13)  # where the rule holds
for y, (name, cell) in enumerate((("LoRA merged", -1), ("LoRA merged", 0), ("bottleneck H", -1), ("bottleneck H", 0))):
    for color, found, label in (("black", here, "where this cell ran"), ("C0", ours, "our CPU")):
        row = [row for row in found["rows"] if row["name"].endswith(name)][cell]
        middle, low, high = (100 * time - 100 for time in Interval.of(row["yours"]))
        plt.errorbar(middle, y - 0.25 * (found is here), xerr=[[middle - low], [high - middle]], fmt="o", color=color, label=None if y else label)
    plt.plot(100 * float(row["published"].split()[0]) - 100, y + 0.25, "C1d", label=None if y else "the paper, on a GPU")
plt.yticks(range(4), ["merged LoRA,\nlargest batch", "merged LoRA,\none text", "two bottlenecks,\nlargest batch", "two bottlenecks,\none text"])
plt.gca().set(title="Bottlenecks cost time, merged LoRA (almost) none", xlabel="% slower than the plain model")
plt.legend(bbox_to_anchor=(1, 0.5), loc="center left")
lesson.reveal("slower with bottlenecks on our CPU, percent", middle, "%")  # the last one drawn
print(f"The whole rule, where this cell ran: {here['standing']}")

# %% claim
assert here["error"] is None and here["standing"] in reproducing.OUTCOMES
assert (row["name"], found is ours, round(middle, 1)) == ("1 x 128 bottleneck H", True, 28.7)
assert [row["published"][:5] for row in ours["rows"] if "bottleneck H" in row["name"]] == ["1.303", "1.084", "1.030"]

# %% [markdown]
# <details><summary>What we found</summary>
#
# **It depends on the machine.** On our CPU, two bottlenecks slow one text by 28.7<!--reproduce.h.one-->%, and the largest batch less: the rule *holds*. The web page was made on another, busy processor: *undecided* (two black lines overlap, or one crosses a limit).
#
# Merged LoRA does the plain model's arithmetic, so its true gap is 0. Yet our interval, 0.2<!--reproduce.merged.low-->% to 3.8<!--reproduce.merged.high-->%, leaves out 0. Timing has other errors, so the rule allows 5%.
# </details>
#
# ## All eleven
# Here are eleven such rules, on small models. Each row is a finding's deciding result, on its own scale. **Cover the last column. Where is the whole line in the blue?**

# %%
results = reference_reproductions()
holds = sum(one["standing"] == "holds" for one in results.values())
lesson.reveal("findings that hold, of 11", holds)
early = [one["standing"] for one in results.values() if one["ruled"] == "before"]
print(f"rules written before the run that hold: {early.count('holds')} of {len(early)}")
forest(results.values(), short=True)  # all 21 results: without short=True

# %% claim
count = [sum(one["standing"] == word for one in results.values()) for word in reproducing.OUTCOMES]
assert (len(early), early.count("holds")) == (8, 0)
assert sum(len(item(name).shown) for name in results) == 21
assert count == [3, 4, 4, 0] and all(one["rule"] == item(name).rule for name, one in results.items())
assert {name for name, one in results.items() if one["ruled"] == "before"} == {"table2", "table3", "table6", "table7", "table16", "table18", "fig3", "fig4"}
own = results["table18"]["verdicts"]["rank 64 against 16, own rates"]
assert own["outcome"] == "undecided"
assert results["table18"]["rows"][-1]["unit"].endswith("rate 0.008") and max(item("table18").rates) == 0.008
rows = {name: {row["name"]: row["yours"] for row in one["rows"]} for name, one in results.items()}
size = rows["table7"]["rank 64, ||dW||"]
assert [round(min(size), 1), round(max(size), 1)] == [4.2, 5.2] and min(rows["table6"]["q,k,v,o r1"]) > 78
size = rows["table7"]["rank 64, amplification"]
assert round(sum(size) / 5, 2) == 0.84 and paper.table("table7").row(rank=64)["amplification"] == 2
assert results["table3"]["verdicts"]["LoRA on all layers against full"]["outcome"] == "undecided"
assert min(rows["table7"]["rank 64, ||U'WV|| of dW"]) > 5.8 and max(rows["fig4"]["BA of q, phi(1, 1)"]) < 0.5

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Three hold.** But we wrote their rules *after* their runs. (And for Table 5, `q,v` had twice `q`'s $\alpha/r$, which may be why it won.) **Of the eight with rules written before** (though after earlier runs), **none holds.**
#
# **Four fail.** For Table 3, LoRA's loss is 0.148<!--reproduce.table3--> nats above full fine-tuning's (on `q,v`; on all linear layers: *undecided*). The others look inside the update. Table 7: in its own directions, GPT-3's rank-64 update is twice as large as $W$; MiniLM's, 0.84 times. Figure 3: ranks 8 and 64 share their first direction in GPT-3 ($\phi$, lesson 14, is above 0.5), but not in MiniLM (0.15<!--reproduce.fig3.q--> above chance).
#
# **Four are undecided.** For Table 2, LoRA is *worse* (-2.7<!--reproduce.full.low--> to -0.4<!--reproduce.full.high--> points; three seeds, lesson 05 has five), but perhaps by less than 1.5.
#
# A finding that fails on a small model may still be true of GPT-3. Don't assume it at *your* size.
# </details>
#
# ## Your limit, your verdict
# "LoRA is as good as full fine-tuning." The panel has five comparisons, ours and published. The dashed line is the largest loss that you'd accept. **Drag it. Where does the verdict change?**

# %%
ClaimPanel("no_quality_drop", claims=["no_quality_drop"])

# %% claim
from lora_course.claims.cards import judge

told = {margin: judge("no_quality_drop", margin=margin) for margin in (0.3, 0.5, 0.6, 3.1, 3.2, 5)}
assert [one.word for one in told.values()] == ["depends", "depends", "undecided", "undecided", "true", "true"]
assert [case.holds for case in told[0.5].cases] == [False, False, None, None, True]

# %% [markdown]
# <details><summary>What we found</summary>
#
# Accept a loss of 3.2 points: *true*. Accept only 0.5: it *depends* (two comparisons fail, one holds). In between: *undecided*. "As good" means nothing without a limit.
# </details>
#
# **Exercise 2: by the printed rule, judge three made-up reruns:** *holds*, *fails*, *undecided*, or *not tested*?

# %% exercise
mine = lesson.draw("item", *reproducing.ITEMS)
print(f"{reproducing.asked(mine)}\n")
for letter, run in reproducing.runs(mine).items():
    print(letter, run)
checks.check_judge({"A": ..., "B": ..., "C": ...}, mine)

# %% solution
mine = lesson.draw("item", *reproducing.ITEMS)
print(f"{reproducing.asked(mine)}\n")
for letter, run in reproducing.runs(mine).items():
    print(letter, run)
words = reproducing.outcomes(mine)
print("\n", words)
checks.check_judge(words, mine)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Look for three numbers:** published, reported by others, yours. Who measured each, and from which start?
# 2. **Write the rule before the run:** a finding, a limit, and what makes a fair test. *Undecided* and *not tested* are results.
# 3. **Small test sets can't detect small gaps.** On 277 rows, a gap below 5.6 points between two accuracies near 87 can be luck; so can RTE's 3.6 from MNLI (needed: 5.2).
#
# The same in PEFT (Table 1):
# ```python
# merged = PeftModel.from_pretrained(base, "adapter").merge_and_unload()  # as fast as `base`
# ```
# </details>

# %%
lesson.receipt()
