# %% [markdown]
# # 09 · What do you do on Monday?
#
# On Monday you get a model, data and a GPU, and everybody has advice: "LoRA needs three times less memory." "A 24 GB card can train a 70B model." **Ask what a claim is based on, and what would change the verdict.** Then write your own training script, and take it with you.

# %%
from collections import Counter
from html import escape
from runpy import run_path
from textwrap import fill
from urllib.parse import quote

import pandas as pd
from IPython.display import HTML
from matplotlib import pyplot as plt
from scipy.stats import binom

from lora_course import checks, lesson
from lora_course.checks.planning import brief
from lora_course.claims.cards import judge_all
from lora_course.monday import BUNDLED, asset_path, plan
from lora_course.panels.claim_panel import ClaimPanel

lesson.start("09")

# %% [markdown]
# ## Three last guesses
# We tested sixteen claims about LoRA. Each claim has several **cases**: models, tasks or studies. A claim is *true* if it holds in all cases, and *false* if it fails in all. If it holds in some cases and fails in others, its verdict is *depends*. Otherwise, it's *undecided*.
#
# 1. **How many of the sixteen claims are true?**
# 2. Claim 4 says: "QLoRA fine-tunes a 70B model on one 24 GB card." **How many GiB does Llama 2 70B need** at its peak, in 4 bits, with gradient checkpointing, adapters on q and v, and one text of 512 tokens?
# 3. Claim 11 says: "LoRA performs on par with or better than full fine-tuning." **What's its verdict?** Write it down.

# %%
lesson.predict("claims that are true as stated", low=..., high=...)
lesson.predict("GiB for QLoRA on 70B", low=..., high=...)

# %% [markdown]
# ## Drag until the verdict changes
# The panel shows claim 4 and its **premises** (assumptions), which you can change. **Choose Llama 2 70B, and drag the dashed line (the card). Which card is enough?**
#
# Next, choose claim 11, and set *tasks* to *minilm_rt* (our runs). The dashed line is now the margin, as in lesson 05. **Which verdicts can you get by dragging it?**

# %%
ClaimPanel()

# %% alt="Sixteen claims, sorted by verdict: 2 true, 5 depend, 8 undecided, 1 false. Above each claim is a mark for every case: a dot if it holds, a circle if it is undecided, and a cross if it fails. Only the two true claims have nothing but dots."
verdicts = judge_all()
order, marks = ["true", "depends", "undecided", "false"], {True: "C0o", None: "wo", False: "kx"}
words = Counter(one.word for one in verdicts.values())
plt.figure(figsize=(4.9, 9.6), layout="constrained")
for row, one in enumerate(sorted(verdicts.values(), key=lambda one: order.index(one.word))):
    plt.text(0, -row, one.word, weight="bold", va="center")
    plt.text(0, -row - 0.22, fill(f"{one.card.number}. {one.card.statement}", 60), fontsize=10, va="top", linespacing=1)
    for column, holds in enumerate(sorted((case.holds for case in one.cases), key=[*marks].index)):
        plt.plot(24 + 2.2 * column, -row, marks[holds], markeredgecolor="k" if holds is False else "C0", markersize=5)
plt.title(f"{words['true']} of {len(verdicts)} claims hold in every case\n(dot: holds; circle: undecided; cross: fails)", loc="left")
plt.axis((0, 100, -15.8, 0.4))
plt.axis("off")
plt.show()
lesson.reveal("claims that are true as stated", words["true"])
lesson.reveal("GiB for QLoRA on 70B", verdicts["one_24gb_card"].figures["llama-2-70b, GiB"], "GiB")

# %% claim
assert words["true"] == 2 and words["depends"] + words["undecided"] >= 11 and len(verdicts) == 16
assert round(verdicts["one_24gb_card"].figures["llama-2-70b, GiB"], 1) == 35.3
from lora_course.claims.cards import judge

assert judge("4", models="llama-2-70b", gpu_gb=32).word == "false" and judge("4", models="llama-2-70b", gpu_gb=40).word == "true"
assert round(judge("4", models="llama-3-70b").figures["llama-3-70b, GiB"], 1) == 38.4
assert judge("4", models="llama-3-70b", gpu_gb=40).word == "false" and judge("4", models="llama-3-70b", gpu_gb=48).word == "true"
for margin, word in ((0.5, "false"), (1.5, "undecided"), (2.5, "true"), (3, "true")):
    assert judge("11", tasks="minilm_rt", margin=margin).word == word
assert verdicts["checkpoint_size"].word == verdicts["merging_is_free"].word == "true"

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Two of the sixteen claims are true:** a merged LoRA adds no matrix products, and GPT-3's adapter file is about 10,000 times smaller than GPT-3 (which you still need). One claim is false. The others are undecided, or hold only under conditions that they don't name.
#
# - *Claim 4:* Llama 2 70B needs 35.3 GiB. A 32 GB card is too small, but a 40 GB card is enough.
# - *Claim 11* is *undecided*. With only our two cases, it's *false* at a margin of 0.5 points, *undecided* at 1.5, and *true* at 3. (Lesson 05's verdicts differ: it also asks whether LoRA is worse at all, and allows for four comparisons.) **So if you choose the margin after you see the numbers, you choose the verdict.**
# </details>
#
# Claim 3 says that LoRA needs 3 times less memory. **Exercise 1: make it true by changing one premise.** Choose claim 3 in the panel, and change `seq` (tokens per row) or `batch`.

# %% exercise
checks.check_flip(...)  # {"name": value}

# %% solution
checks.check_flip({"seq": 32})

# %% [markdown]
# ## Exercise 2: somebody else's Monday
# **Plan the job below in five lines. For each, give your choice, and the evidence that decides it.** (`rows` is the number of *test* rows to ask for.)
#
# If LoRA and QLoRA both fit (with checkpointing, one text per step), take LoRA, because QLoRA must unpack its weights at every step.

# %% exercise
mine = lesson.draw("brief", 0, 1, 2, 3)
print(brief(mine))
my_plan = {
    "method": (..., ...),  # your choice, your evidence
    "rate": (..., ...),
    "serve": (..., ...),
    "facts": (..., ...),
    "rows": (..., ...),
}
checks.check_brief(my_plan, mine)

# %% solution
mine = lesson.draw("brief", 0, 1, 2, 3)
print(brief(mine))
my_plan = {
    "method": ("LoRA", "peak"),
    "rate": ("2e-4", "rates"),
    "serve": ("keep apart", "batch"),
    "facts": ("none to learn", "strings"),
    "rows": ("1,600", "root"),
}
checks.check_brief(my_plan, mine)

# %% [markdown]
# ## How sure are you?
# Since lesson 00, you've given 80% ranges. Each mark shows where a result fell. A range *holds* if the result lies inside it. The title says how many ranges held, and how many to expect. If fewer held than expected, give wider ranges. If more held, give narrower ones.

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
plt.title(f"{made_up}{hits} of {len(places)} ranges held; at 80%, expect {low:.0f} to {high:.0f}", loc="left")
plt.xticks([0, 1], ["your low end", "your high end"])
plt.yticks([])
plt.box(False)
plt.show()

# %% claim
assert not made_up or (hits, len(places), low, high) == (5, 12, 7, 12)

# %% [markdown]
# ## Your Monday: a script of your own
# Give `plan` **your model** (a folder or a downloaded model's Hub id), **your file** (`.csv` or `.jsonl`, with the columns `text,label` or `prompt,response`), and **your card's memory** in GB.
#
# `job.write` writes a complete script, which runs without this course's code. The script tries three learning rates, keeps the best adapter, and loads it into a *fresh* base. If the adapter does nothing there, the script stops. Finally, it scores the test set once.
#
# The second cell runs the script. **Which three lines of its output should warn you?**

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
finished = run_path("train.py", run_name="__main__")  # as `python train.py` does
text = script.read_text(encoding="utf-8").replace(str(asset_path("minilm")), BUNDLED["minilm"])  # its Hub id
link = f'<a download="train.py" href="data:text/x-python;charset=utf-8,{quote(text)}">Save train.py</a>'
read = f'<details><summary>Read it here</summary><pre tabindex="0" style="font-size: 0.8em">{escape(text)}</pre></details>'
HTML(f"<p>{link}</p>{read}")

# %% claim
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
assert "get_peft_model" in script.read_text(encoding="utf-8") and inspect_folder("adapter").parameters > 300_000

# %% [markdown]
# <details><summary>Which three lines of our run's output should warn you?</summary>
#
# 1. *Validation loss 0.6230:* guessing between two labels gives 0.69, so this model is only slightly better.
# 2. *At the edge of RATES:* a higher rate may be better.
# 3. *65.0% ± 20.9%:* a model that always gives the more frequent label gets 60%.
# </details>
#
# **`train.py` is yours.** After ten lessons, you can say why each setting is there. On Monday, change the settings, and run it.
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **A claim without its premises isn't advice.** Ask about its model, text length and margin, and ask what is counted.
# 2. **Undecided is an answer.** Say what would decide it.
# 3. **A plan is a list of choices with their reasons.**
#
# Start with LoRA on all linear layers, rank 8 to 16, $\alpha=16$, 16 rows per step, and three passes over the rows. Try three learning rates in a range: 1e-4 to 4e-4 for 7B, 5e-4 to 2e-3 for MiniLM (lower if a run collapses), or 1e-3 to 4e-3 for SmolLM2. If the best rate is at one end, add another beyond it (lesson 03's best rates are at ends: 5e-4 and 4e-3). *Published ([QLoRA](https://arxiv.org/abs/2305.14314)): rate 2e-4 for 7B. LoRA on all linear layers matched full fine-tuning, but LoRA on `q,v` didn't (with unequal budgets). Ours: the rates of the two small models (lessons 00 and 03). On our task, these two kinds of LoRA were equivalent within 1.5 points (lesson 05).*
#
# The same in PEFT (the core of your script):
# ```python
# config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules="all-linear")
# model = get_peft_model(base, config)
# Trainer(model, TrainingArguments("out", learning_rate=1e-3), train_dataset=rows).train()
# model.save_pretrained("adapter")
# model = PeftModel.from_pretrained(fresh_base, "adapter")
# ```
# </details>

# %%
lesson.receipt()
