# %% [markdown]
# # 09 · What do you do on Monday?
#
# On Monday you get a model, data and a GPU, and everybody has advice. Whom do you believe?
#
# We tested sixteen claims about LoRA, each in one or more **cases**: models, tasks or studies. A claim is *true* if it holds in all its cases, and *false* if it fails in all. If it holds in some and fails in others, it *depends*. Otherwise, it's *undecided*.
#
# 1. **How many of the sixteen claims (below) are true? Which would you bet on?**
# 2. Claim 4 says: "QLoRA fine-tunes a 70B model on one 24 GB card." **How many GiB does Llama 3 70B need** at its peak, in 4 bits, with gradient checkpointing, adapters on q and v, and one text of 512 tokens?

# %%
from html import escape

import pandas as pd
from IPython.display import HTML
from matplotlib import pyplot as plt
from scipy.stats import binom

from lora_course import checks, lesson
from lora_course.checks.planning import brief
from lora_course.claims.cards import judge_all, load_cards
from lora_course.monday import BUNDLED, asset_path, plan
from lora_course.panels.claim_panel import ClaimPanel

lesson.start("09")
print(*(f"{card.number:>2}. {card.statement}" for card in load_cards().values()), sep="\n")
lesson.predict("claims that are true as stated", low=..., high=...)
lesson.predict("GiB for QLoRA on 70B", low=..., high=...)

# %%
verdicts, marks = judge_all(), {True: "●", None: "○", False: "✗"}
shown = "<b>In how many cases does each claim hold?</b> (● holds, ○ undecided, ✗ fails)"
for word in ("true", "depends", "undecided", "false"):
    group = [one for one in verdicts.values() if one.word == word]
    shown += f'<p style="margin: 0.8em 0 0"><b>{len(group)} {word}</b></p>'
    for one in group:
        cases = sorted((case.holds for case in one.cases), key=[*marks].index)
        claim = f"{one.card.number}. {escape(one.card.statement)} {''.join(marks[holds] for holds in cases)}"
        shown += f'<div style="padding-left: 2em; text-indent: -2em">{claim}</div>'
lesson.reveal("claims that are true as stated", sum(one.word == "true" for one in verdicts.values()))
HTML(shown)

# %% [markdown]
# <details><summary>What we found: sixteen claims</summary>
#
# **Two of the sixteen claims are true:** a merged LoRA adds no matrix products (5), and an adapter file for GPT-3 is about 10,000 times smaller (2). Claim 4 is false. **The other thirteen are undecided, or hold only under conditions that they don't name.** So don't ask whether a claim is true. Ask what would change its verdict. (Claim 2's 350 GB means GPT-3, its only case. Claim 1 names no model: of five models, four confirm it at rank 1, and none at rank 8.)
# </details>
#
# ## Drag until the verdict changes
# Change the **premises** of claims in the panel:
#
# 1. Claim 4: choose Llama 3 70B, and drag the dashed line (the card's memory: 22.1 GiB of its 24 GB is free). **How large a card is enough?**
# 2. Claim 11: set *tasks* to *minilm_rt* (lesson 05). The dashed line is now the margin. **Which verdicts can you get by dragging it?**
# 3. Choose an undecided claim. **What would decide it?** (See below the verdict.)

# %%
lesson.reveal("GiB for QLoRA on 70B", verdicts["one_24gb_card"].figures["llama-3-70b, GiB"], "GiB")
ClaimPanel()

# %% claim
from collections import Counter

words = Counter(one.word for one in verdicts.values())
assert words == {"true": 2, "depends": 5, "undecided": 8, "false": 1}
assert round(verdicts["one_24gb_card"].figures["llama-3-70b, GiB"], 1) == 38.4
from lora_course.claims.cards import judge

assert [judge("4", models="llama-3-70b", gpu_gb=size).word for size in (40, 48)] == ["false", "true"]
for margin, word in ((0.5, "false"), (1.5, "undecided"), (2.5, "true"), (3, "true")):
    assert judge("11", tasks="minilm_rt", margin=margin).word == word
assert all("; 22.1 GiB is free" in case.found for case in verdicts["one_24gb_card"].cases)
assert [[case.holds for case in judge("1", rank=rank).cases].count(True) for rank in (1, 8)] == [4, 0] and len(verdicts["times_fewer"].cases) == 5
assert len(verdicts["checkpoint_size"].cases) == 1
assert verdicts["checkpoint_size"].word == verdicts["merging_is_free"].word == "true"

# %% [markdown]
# <details><summary>What we found: two claims</summary>
#
# - *Claim 4:* Llama 3 70B needs 38.4 GiB: lesson 04's 0.58 bytes per weight, and a little for the text. A 40 GB card isn't all free, so it's too small; 48 GB is enough.
# - *Claim 11* is *false* at a margin of 0.5 points, *undecided* at 1.5, and *true* at 3. (Lesson 05's *worse* means that the drop isn't zero. Claim 11 asks whether it's smaller than the margin.)
#
#   **If you choose the margin after you see the numbers, you choose the verdict.**
# </details>
#
# Claim 3 says that LoRA needs 3 times less memory. **Exercise 1: make it true by changing one premise.** Choose claim 3 in the panel, and change `seq` (tokens per row) or `batch`.

# %% exercise
checks.check_flip(...)  # {"name": value}

# %% solution
checks.check_flip({"seq": 32})

# %% [markdown]
# ## Which of your own claims held?
# Your own claims were ranges (80% sure). If too few held, give wider ranges; if too many, narrower ones.

# %% alt="One mark for each of your predictions, on a scale from your low end to your high end. A dot means that the result is inside your range. A cross means that it's outside."
places = lesson.calibration()
plt.figure(figsize=(8, 0.8 + 0.28 * len(places)))
plt.axvspan(0, 1, color="C0", alpha=0.2)
for row, (question, place) in enumerate(places.items()):
    held = 0 <= place <= 1
    plt.plot(min(max(place, -1.2), 2.2), -row, "C0o" if held else "kx", markersize=8)
    plt.text(2.4, -row, question, va="center", fontsize=9)
hits = sum(0 <= place <= 1 for place in places.values())
made_up = "Made-up example: " if "question 1" in places else ""
low, high = binom.interval(0.95, len(places), 0.8)
plt.title(f"{made_up}{hits} of {len(places)} ranges held;\nat 80%, expect {low:.0f} to {high:.0f}", loc="left")
plt.xticks([0, 1], ["your low end", "your high end"])
plt.yticks([])
plt.box(False)
plt.show()

# %% claim
assert not made_up or (hits, len(places), low, high) == (5, 12, 7, 12)

# %% [markdown]
# ## Exercise 2: somebody else's Monday
# **Plan the job below.** Before you check, write a reason for each line.

# %% exercise
mine = lesson.draw("brief", 0, 1, 2, 3)
print(brief(mine))
my_plan = {"method": ..., "rate": ..., "serve": ..., "facts": ..., "rows": ...}
checks.check_brief(my_plan, mine)

# %% solution
mine = lesson.draw("brief", 0, 1, 2, 3)
print(brief(mine))
my_plan = {"method": "LoRA", "rate": 2e-4, "serve": "keep apart", "facts": "in the prompt", "rows": 1600}
checks.check_brief(my_plan, mine)

# %% [markdown]
# ## Your Monday: a script of your own
# Give `plan` **your model** (a folder or a downloaded model's Hub id), **your file** (`.csv` or `.jsonl`, with the columns `text,label` or `prompt,response`), and **your card's memory** in GB.
#
# `job.write` turns the plan into a script that runs without this course's code. It tries three learning rates, checks that the best adapter changes a *fresh* base, and uses the test set once.
#
# Below the plan is the script's output (MiniLM, 200 reviews). **Which three of its lines should warn you? What do you change?**

# %%
from lora_lab.training.tasks import load_task

rt = load_task("rt")
rows = lesson.steps(200, fast=24)
table = pd.DataFrame({"text": rt.train.texts[:rows], "label": [rt.labels[n] for n in rt.train.labels[:rows]]})
table.to_csv("reviews.csv", index=False)
job = plan("minilm", "reviews.csv", gpu_gb=8)
script = job.write("train.py")
job

# %% hide-input
from runpy import run_path
from urllib.parse import quote

finished = run_path("train.py", run_name="__main__")  # as `python train.py` does
text = script.read_text(encoding="utf-8").replace(repr(str(asset_path("minilm"))), repr(BUNDLED["minilm"]))  # its Hub id
link = f'<a download="train.py" href="data:text/x-python;charset=utf-8,{quote(text)}">Save train.py</a>'
read = f'<details><summary>Read it here</summary><pre tabindex="0" style="font-size: 0.8em">{escape(text)}</pre></details>'
HTML(f"<p>{link}</p>{read}")

# %% claim
from lora_lab.files import read_json
from lora_lab.training.assets import shipped
from lora_lab.training.named import inspect_folder

if not lesson.FAST:
    from transformers import AutoTokenizer, DataCollatorWithPadding

    told, labels = finished["read"]()
    tokenizer = AutoTokenizer.from_pretrained(finished["MODEL"])
    data, collate = [finished["encode"](row, tokenizer, labels) for row in told], DataCollatorWithPadding(tokenizer)
    tuned = finished["check"]("adapter", tokenizer, labels, data[20:40], collate)
    assert round(finished["evaluate"](tuned, data[20:40], collate)[0], 2) == 0.62
    assert round(finished["evaluate"](tuned, data[:20], collate)[1], 2) == 0.65
    assert max(Counter(row["labels"] for row in data[:20]).values()) == 12  # 60%
    assert ("steps", "30") in [line[:2] for line in job.lines]
    assert job.settings["RATES"][-1] == 2e-3 and (inspect_folder("adapter/0.002").norms[0].update == inspect_folder("adapter").norms[0].update)
second = read_json(shipped("data/results/monday.json"))  # with 1,000 rows, and then with other rates
assert [line.split()[-1] for line in second["printed"][1:4]] == ["0.4507", "0.5230", "0.5178"] and "edge" in second["printed"][4]
losses = [f"rate {rate}: validation loss {loss}" for rate, loss in (("0.00025", "0.5201"), ("0.0005", "0.4507"), ("0.001", "0.5230"))]
assert second["then"]["printed"][1:4] == losses and not any("edge" in line for line in second["then"]["printed"])
same = second["same_steps"]["printed"]
assert [line.split()[-1] for line in same[1:5]] == ["0.5570", "1.4366", "2.5489", "2.5823"] and "test: 80.0% ± 17.5%" in same[-2]
assert second["then"]["printed"][-2] == "test: 82.0% ± 7.5% right of 100 rows; one label for all rows: 52.0%"
assert "get_peft_model" in script.read_text(encoding="utf-8") and inspect_folder("adapter").parameters > 300_000

# %% [markdown]
# <details><summary>What we found: three warnings, and a second run</summary>
#
# 1. *Validation loss 0.6230:* barely below guessing (0.69).
# 2. *At the edge of RATES:* a higher rate may be better.
# 3. *65.0% ± 20.9%:* always giving the more frequent label gets 60%, inside this interval.
#
# **More rows fix warnings 1 and 3.** With 1,000 reviews, the *lowest* rate was best (warning 2). So we halved all three rates: 0.0005 is still best, and no warning is left (a stored run):
# ```
# rate 0.00025: validation loss 0.5201
# rate 0.0005: validation loss 0.4507
# rate 0.001: validation loss 0.5230
# test: 82.0% ± 7.5% right of 100 rows; one label for all rows: 52.0%
# ```
# (Rows or steps? With 200 reviews and also 150 steps, the best loss is still 0.5570, and the test says 80.0% ± 17.5%.)
# </details>
#
# **`train.py` is yours.** On Monday, run it on your rows.
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **A claim without its premises isn't advice.** Ask about its model, text length and margin, and what is counted.
# 2. **Undecided is an answer.** Say what would decide it.
# 3. **A plan is a list of choices with their reasons.**
#
# | start with | evidence |
# |---|---|
# | LoRA on all linear layers | published ([QLoRA](https://arxiv.org/abs/2305.14314)): it matched full fine-tuning, and `q,v` didn't (with unequal budgets); ours: equivalent to `q,v` within 1.5 points (lesson 05) |
# | rank 8 to 16, $\alpha=16$ | ours (lesson 03) |
# | 16 rows per step, three passes | our habit, not tuned |
# | rates 2e-4, half of that and twice that | published for 7B (QLoRA) |
# | small models: 1e-3 (MiniLM) or 2e-3 (SmolLM2), half and twice that; if an outer rate is best, go further | ours: on MiniLM, 5e-4 was best for reviews, 2e-3 for tweets; on SmolLM2, 4e-3 |
#
# The same in PEFT (the core of your script):
# ```python
# config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules="all-linear")
# model = get_peft_model(base, config)
# Trainer(model, TrainingArguments("out", learning_rate=1e-3, per_device_train_batch_size=16), train_dataset=rows).train()
# model.save_pretrained("adapter")
# model = PeftModel.from_pretrained(fresh_base, "adapter")
# ```
# </details>

# %%
lesson.receipt()
