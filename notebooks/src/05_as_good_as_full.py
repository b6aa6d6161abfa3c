# %% [markdown]
# # 05 · Is LoRA as good as full fine-tuning?
#
# "LoRA matches full fine-tuning at a fraction of the cost." You've read it a hundred times. So we tested it: five methods, one model, one task, five seeds each. Let's see what you could write about it, and defend.

# %%
from lora_course import checks, lesson
from lora_lab import ComparePanel, verdict
from lora_lab.experiments.margins import scores_in

lesson.start("05")

# %% [markdown]
# ## Three guesses and a vote
# Full fine-tuning moves all 22.7 million numbers of MiniLM. LoRA (rank 8 on `q` and `v`) trains ?<!--as_good.count--> of them and saves a file ?<!--as_good.file--> times smaller. **By how many points of accuracy is LoRA ahead?** (Minus means behind.)
#
# Now a colleague repeats the study with 200 test sentences instead of our 2,000. She does it a hundred times. **How many of her 95 % intervals miss the true difference? How many find no difference?** Give ranges that you're 80 % sure of.
#
# And vote, before you look. What's the largest loss, in points, that you'd accept for the smaller file? That's your **margin**. In a class, show it with your fingers.

# %%
lesson.predict("points that LoRA is ahead of full fine-tuning", low=..., high=...)
lesson.predict("intervals in 100 that miss", low=..., high=...)
lesson.predict("studies in 100 that find no difference", low=..., high=...)
margin = 1.5  # your vote, in points

# %% [markdown]
# ## Look
# The icons show what each method adds: blue trains, grey is frozen. The dots are seeds. Further down, **drag the edge of the band**, your margin, and watch the word change. Click an icon to compare with that method instead. Click a row to read about it. Then put memory across in place of trained numbers. At the bottom are the hundred small studies.
#
# *Stored: trained on two CPU cores on 27 November 2026. The words come from tests in Python; your browser only looks them up.*

# %%
panel = ComparePanel(margin=margin / 100)
panel.resample(rows=200)  # a hundred small studies
panel

# %% [markdown]
# What the panel drew is five lines of code. Each method has a row of answers, right or wrong, for every seed.

# %%
scores = scores_in(lesson.reference_comparison("minilm_rt_all_linear"))  # each (5 seeds, 2,000 sentences)
said = verdict(scores["LoRA r8 q,v"], scores["full"], margin=margin / 100)
studies = panel.dance["studies"]  # difference, low, high
print(said)

lesson.reveal("points that LoRA is ahead of full fine-tuning", 100 * said.difference, "points")
lesson.reveal("intervals in 100 that miss", sum(not low <= said.difference <= high for _, low, high in studies))
lesson.reveal("studies in 100 that find no difference", sum(low < 0 < high for _, low, high in studies))

# %% claim
letters = [one[panel.stored["margins"].index(0.015)] for one in panel.dance["outcomes"]]
apart = sum(low < 0 < high for _, low, high in studies)
assert verdict(scores["LoRA r8 q,v"], scores["full"]).high95 < 0  # worse, beyond luck
assert apart > 50  # and most small studies do not see it
assert letters.count("e") + letters.count("W") < 10
assert verdict(scores["LoRA r8 all-linear"], scores["LoRA r8 q,v"], margin=0.015).outcome == "equivalent"
assert all(scores[one].mean() < scores["LoRA r8 q,v"].mean() for one in ("probe", "prompt"))

# %% [markdown]
# <details><summary>What we found</summary>
#
# **LoRA lost.** ?<!--as_good.lora--> % against ?<!--as_good.full-->%: behind by ?<!--as_good.lora.behind--> points, and the 95 % interval (?<!--as_good.lora.low95--> to ?<!--as_good.lora.high95-->) leaves out 0. That isn't luck.
#
# **And LoRA is good enough**, if you can spare ?<!--as_good.lora.within--> points: from there on the word is *worse but within the margin*. Both halves are true. You pay with a point or two and get ?<!--as_good.times--> times fewer trained numbers, and ?<!--as_good.memory--> times less memory.
#
# LoRA on all linear layers isn't better than on `q` and `v` here: within 1.5 points they're *?<!--as_good.all.against-lora-->*. Prompt tuning (?<!--as_good.prompt--> %) ... the probe (?<!--as_good.probe--> %), a logistic regression on a model nobody touched.
#
# Now the shock. ?<!--as_good.blind--> of the hundred small studies find **no difference**, though there is one. Anyone can "match" full fine-tuning: test on few sentences.
# </details>
#
# ## What does "equivalent" mean?
# Saying "no difference found" is easy. To say *equivalent*, you have to show something. Fix a margin first. Then run two tests: is the true difference above minus the margin? Is it below the margin? Each may err in 5 of 100 cases. Both pass when the whole **90 %** interval lies inside the band. A small study has a wide interval, so it can't pass.
#
# ### Your turn: the rule in one line
# `low` and `high` are the ends of the 90 % interval, as shares: 0.015 is 1.5 points.


# %% exercise
def equivalent(low, high, margin):
    return ...


checks.check_equivalence_rule(equivalent)


# %% solution
def equivalent(low, high, margin):
    return -margin < low and high < margin


checks.check_equivalence_rule(equivalent)

# %% [markdown]
# ## Before you trust a comparison
# - **Was every method tuned, with the same budget?** Ours got four learning rates each, two more when the best was the last one, all scored on validation. Full fine-tuning chose ?<!--as_good.full.rate-->, LoRA ?<!--as_good.lora.rate-->. Use one rate for both and you've picked the winner yourself.
# - **Were the test sentences used once**, with seeds that chose nothing?
# - **Which LoRA?** Say rank, layers, steps.
# - **How much is there to learn?** Here, 6,400 sentences. On much new text (code, mathematics) LoRA stays behind at every rank. Large batches hurt it, too.
#
# Want your own? Press Start in the panel, or: `lora-lab compare --methods probe,prompt,lora,lora:targets=all-linear,full`
#
# ## Defend one you haven't seen
# Your name draws two of our stored methods. Run the cell three times. First give your **margin**: nothing is shown before, and it counts. Then the **word** for the interval you see. Then the one **sentence** that survives a critical reader: "a", "b", "c" or "d".

# %%
pair = lesson.draw("pair", "3 bits against 16", "v against q", "all against q,v", "2 bits against 16", "q,k,v,o against q,v")

# %% exercise
checks.check_defense(margin=..., word=..., sentence=..., pair=pair)

# %% solution
checks.check_defense(margin=1.5, word="worse but within the margin", sentence="c", pair=pair)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **"No difference found" isn't "equal".** Equal needs a margin, set first, and a 90 % interval inside it.
# 2. **LoRA can lose a little and still be the right choice.** *Ours: ?<!--as_good.lora.behind--> points behind, one 22M encoder, one task, 400 steps. Published: on code instructions rank 256 matches full, 16 and 64 don't; in continued pretraining no rank does ([Biderman et al. 2024](https://arxiv.org/abs/2405.09673), one model).*
# 3. **Tune both, and start LoRA at ten times full's rate.** *Ours: ?<!--as_good.lora.times--> times on `q,v`, ?<!--as_good.all.times--> times on all linear layers. Published: 9.8, a fit over 14 models; large batches hurt LoRA ([LoRA Without Regret](https://thinkingmachines.ai/blog/lora/), 2025).*
#
# The same in PEFT, at the rates that won here:
# ```python
# config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])  # rate 2e-3
# config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules="all-linear")  # rate 5e-4
# config = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=20)  # rate 1e-2
# model = get_peft_model(model, config)  # leave this line out for full fine-tuning: rate 1e-4
# ```
# </details>

# %%
lesson.receipt()
