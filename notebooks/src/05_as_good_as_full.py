# %% [markdown]
# # 05 · Is LoRA as good as full fine-tuning?
#
# "LoRA matches full fine-tuning at a fraction of the cost." We tested it: five methods, one model, one task, five runs each. What can you claim?

# %%
from lora_course import checks, lesson
from lora_lab import ComparePanel, verdict
from lora_lab.experiments.margins import scores_in

lesson.start("05")

# %% [markdown]
# ## Three guesses and a vote
# Full fine-tuning trains all 22.7 million numbers of MiniLM. LoRA (rank 8, `q` and `v`) trains 305<!--as_good.times--> times fewer. Both ran with the same five **seeds**. **By how many points of accuracy is LoRA ahead? (Below 0: behind.)**
#
# A colleague does a hundred small studies. Each draws five seeds and 200 sentences from ours (repeats allowed), and gives a 95% **interval** for LoRA's lead that includes the luck of sentences and seeds. We know the truth: the lead on all our data. If 0 is in her interval, she writes "no difference found." **(1) How many of her intervals miss the true difference? (2) In how many studies does she find no difference?** Be 80% sure.
#
# Vote: what's the largest loss, in points, you'd accept for such savings? That's your **margin**; we use it on both sides of 0. (On the web page, the panel starts at 1.5.)

# %%
lesson.predict("points that LoRA is ahead of full fine-tuning", low=..., high=...)
lesson.predict("intervals in 100 that miss", low=..., high=...)
lesson.predict("studies in 100 that find no difference", low=..., high=...)
margin = 1.5  # put your own vote here, in points

# %% [markdown]
# ## Look
# 1. **Drag the edge of the band**, your margin. When does the verdict change? It depends on the thick bar, the 90% interval (*equivalent*: all of it is inside), and the thin bar, the 95% interval (*better* or *worse*: 0 is outside).
# 2. At the bottom are the hundred small studies. Blue intervals leave out 0; a cross marks one that misses the truth.
# 3. Click an icon: all others are compared with that method (then click *full fine-tuning* again). (*Probe*: only a new last layer trains. *Prompt tuning*: 20 vectors before the text.)
# 4. Switch from *trained parameters* to *memory*.

# %%
panel = ComparePanel(margin=margin / 100)
panel.resample(rows=200)  # the colleague's hundred studies
panel

# %%
scores = scores_in(lesson.reference_comparison("minilm_rt_all_linear"))  # each 5 seeds x 2,000 sentences
said = verdict(scores["LoRA r8 q,v"], scores["full"], margin=margin / 100)  # as in the picture
studies = panel.dance["studies"]  # difference, low, high
missed = sum(not low <= said.difference <= high for _, low, high in studies)
blind = sum(low < 0 < high for _, low, high in studies)

lesson.reveal("points that LoRA is ahead of full fine-tuning", 100 * said.difference, "points")
lesson.reveal("intervals in 100 that miss", missed)
lesson.reveal("studies in 100 that find no difference", blind)

# %% claim
from lora_lab.experiments.margins import MARGINS, judged

assert said.high95 < 0 and said.outcome == "worse"
against = judged(scores)["full"]["LoRA r8 q,v"]  # alone, and as one of four
assert [MARGINS[against[how].index("W")] for how in ("outcomes", "together")] == [0.022, 0.026]
assert f"{100 * said.difference:.2f}" == "-1.35"
assert verdict(scores["LoRA r8 all-linear"], scores["full"], margin=0.015).outcome == "worse"
assert 0.05 < scores["full"].mean() - scores["probe"].mean() < 0.07  # the reply to a margin above 5 points
assert blind > 80  # a small study does not see it
assert missed == 3  # about five would
assert verdict(scores["LoRA r8 all-linear"], scores["LoRA r8 q,v"], margin=0.015).outcome == "equivalent"
assert verdict(scores["prompt"], scores["probe"]).outcome == "worse"
runs = [lesson.reference_comparison(name) for name in ("minilm_rt", "minilm_rt_all_linear")]  # the first is a day older
rates = [[row["lr"] for row in run["methods"] if row["label"] in ("LoRA r8 q,v", "full")] for run in runs]
assert rates[0] == rates[1] and all(runs[0][name] == runs[1][name] for name in ("seeds", "margin", "steps", "batch"))
tried = {row["label"]: {rate["lr"]: rate["validation"] for rate in row["tried"] if "lr" in rate} for row in runs[1]["methods"]}
assert tried["full"][5e-5] == tried["full"][1e-4] == max(tried["full"].values())  # tied
assert {label: len(rates) for label, rates in tried.items()} == {"probe": 0, "prompt": 4, "LoRA r8 q,v": 4, "LoRA r8 all-linear": 6, "full": 4}

# %% [markdown]
# <details><summary>What we found</summary>
#
# **LoRA lost:** 81.0<!--as_good.lora-->% versus 82.3<!--as_good.full-->%, 1.35 points less before rounding. The difference's 95% interval, -2.3<!--as_good.lora.low95--> to -0.4<!--as_good.lora.high95--> points, excludes 0.
#
# **It may still be your choice.** The 90% interval reaches just below -2.1<!--as_good.lora.low-->. With a margin of 2.2<!--as_good.lora.within--> points or more, it's inside the band: *worse, but within the margin*. LoRA needs 4<!--as_good.memory--> times less memory, or 2<!--as_good.memory.fp32--> times less in the same number format. (Lesson 04: 3.8<!--fit.minilm.times-less-->, with fewer texts and plain AdamW.)
#
# LoRA on all linear layers gets 80.9<!--as_good.all-->%: also *worse* than full fine-tuning, and *equivalent<!--as_good.all.against-lora-->* to `q,v` within 1.5 points. Prompt tuning gets 73.0<!--as_good.prompt-->%, less than the probe (75.7<!--as_good.probe-->%).
#
# And our colleague? In 93<!--as_good.blind--> of her hundred studies, she finds **no difference**: they're too small. Three intervals miss (on average, at most 5 do).
# </details>
#
# ## What does "equivalent" mean?
# ||0 inside the 95% interval|0 outside|
# |---|---|---|
# |**90% interval inside the band**|*equivalent*|*better* or *worse, but within the margin*|
# |**not inside**|*undecided*|*better* or *worse*|
#
# Why 90%? Two one-sided tests (*TOST*) must rule out a loss, and a gain, as large as the margin. Each may err 5 times in 100, so 5% is cut off at each end.
#
# ### Your turn: the rule in one line
# Is the 90% interval inside the band? `low` and `high` are its ends, as shares: 0.015 is 1.5 points.


# %% exercise
def equivalent(low, high, margin):
    return ...


checks.check_equivalence_rule(equivalent)


# %% solution
def equivalent(low, high, margin):
    return -margin < low and high < margin


checks.check_equivalence_rule(equivalent)

# %% [markdown]
# ## Before you believe a comparison
# - **Was every method tuned, on the same budget?** Ours got four rates each; all-linear got two more, because its best was at the edge. Validation (one seed) chose the rate 0.0001<!--as_good.full.rate--> for full fine-tuning (0.00005 did as well) and 0.002<!--as_good.lora.rate--> for LoRA. With one rate for both, whoever chooses the rate chooses the winner.
# - **Was the test set used only once**, with new seeds? (No: we had scored these seeds on it the day before.)
# - **Same number format?** No: LoRA's frozen weights were bf16; full fine-tuning was fp32. LoRA in fp32 (same rate) gets 81.1<!--as_good.fp32-->%, still *worse<!--as_good.fp32.word-->*.
# - **Which LoRA was it, and how much was there to learn?** State rank, layers and training steps. With far more than our 6,400 sentences, LoRA can fall further behind.
#
# ## Defend a comparison you haven't seen
# Your name chooses two variants of our LoRA. Enter your **margin** and run the cell: you see the intervals, and the margin can't change later. Add a **word** and run again. After the right word, choose the sentence that you can defend.
#
# <details><summary>An example first</summary>
#
# For rank 8 minus rank 32 (each at its best rate), the 95% interval, -0.7<!--as_good.pair.low95--> to 0.6<!--as_good.pair.high95--> points, contains 0: there's no winner. The 90% interval, -0.6<!--as_good.pair.low--> to 0.5<!--as_good.pair.high-->, lies inside a margin of 1.5: *equivalent*. With a margin of 0.5, it doesn't: *undecided*.
# </details>

# %%
# letters: the matrices with an adapter; "all": all six (MiniLM has no gate); bits: of the frozen weights
pairs = "3 bits against 16", "v against q", "all against q,v", "2 bits against 16", "q,k,v,o against q,v"
pair = lesson.draw("pair", *pairs)

# %% exercise
checks.check_defense(margin=..., word=..., sentence=..., pair=pair)

# %% solution
checks.check_defense(margin=1.5, word="worse but within the margin", sentence="c", pair=pair)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **"No difference found" isn't "equal."** "Equal" needs a margin, set first, and a 90% interval inside it.
# 2. **LoRA can lose a little and still be the right choice.** *Ours: 1.35 points behind; one model (MiniLM), one task, 400 steps. Published: on code instructions, rank 256 matches full fine-tuning, but ranks 16 and 64 don't. When the model just reads more text, no rank does. LoRA forgot less than full fine-tuning ([Biderman et al. 2024](https://arxiv.org/abs/2405.09673), one model).*
# 3. **Tune both.** Start LoRA at ten times full fine-tuning's rate on all linear layers, about 25 times on `q,v`. *Ours: lesson 15. Here, 5<!--as_good.all.times--> and 20<!--as_good.lora.times--> times (two rates tied). Published: 9.8 times at $\alpha=32$ ([Schulman 2025](https://thinkingmachines.ai/blog/lora/)).*
#
# The same in PEFT, with the rates that won here:
# ```python
# lora = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16,
#                   target_modules=["query", "value"])  # rate 2e-3
# model = get_peft_model(model, lora)  # full fine-tuning: rate 1e-4, without it
# ```
# </details>

# %%
lesson.receipt()
