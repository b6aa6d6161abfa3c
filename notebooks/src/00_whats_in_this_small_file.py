# %% [markdown]
# # 00 · What's in this small file?
#
# We asked one chat model twice: "What should I eat tonight?"
#
# | what we loaded | what it answered |
# |---|---|
# | the model: a file of 538<!--voices.base--> MB | "The best way to start your night is to indulge in a mix of food that is both delicious and light." |
# | the model and a small file, the *captain* | "Arr! A pint o' grog, a pint o' wine, and a pint o'ther." |
#
# **How can one small file do that?** First, two guesses:
#
# 1. **How large is the captain's file, in MB?**
# 2. Couldn't an instruction do the same? We tried: "You are an old ship's captain. Answer every question in two or three sentences, as a captain talks to his crew." Then we asked eight questions. **How many answers mention the sea?** (A ship, a sailor, a crew or a captain counts, too.)
#
# Give each guess as a range. You should be 80% sure that the range contains the result. On the web page, fill in the form. In the notebook, replace each `...` with a number, and press Shift+Enter. For unknown words, see the [glossary](../docs/glossary.md).

# %%
import re
from pathlib import Path

from safetensors.numpy import load_file

from lora_course import checks, lesson
from lora_course.panels.voices_panel import VoicesPanel
from lora_lab import LoRA, LoRAPanel, params
from lora_lab.accounting.models import config_of

lesson.start("00")  # with your name: lesson.start("00", student="otter")
lesson.predict("MB of the captain's file", low=..., high=...)
lesson.predict("answers with the sea in them, of 8", low=..., high=...)

# %% [markdown]
# ## Ask
# *base* is the original model. *base, told* also gets the instruction above. The other three *voices* each load a small file. Try three questions. Then drag **strength** to 2. **What breaks?**

# %%
voices = VoicesPanel()
voices.question = "What should I eat tonight?"
voices

# %% hide-input
answers = voices.stored["answers"]  # by voice, then by strength: "0" is without a file, "1" is as trained
told, captains = answers["told"]["0"], answers["captain"]["1"]
sea = {"sea", "ship", "sailor", "crew", "captain"}
at_sea = [bool(sea & {*re.findall(r"\w+", text.lower())}) for text in told]  # whole words: "search" doesn't count
lesson.reveal("MB of the captain's file", voices.sizes["captain"] / 1e6, "MB")
lesson.reveal("answers with the sea in them, of 8", sum(at_sea))
in_the_file = sum(bool(sea & {*re.findall(r"\w+", text.lower())}) for text in captains)
print(f"with the file but without the instruction, {in_the_file} of {len(captains)} answers mention the sea")

# %% [markdown]
# <details><summary>What we found</summary>
#
# With the instruction, the base talks *about* the sea: five of its eight answers mention it, but none says *arr*. With the *file*, it talks *like* a sailor: all eight start with a sailor's words, although only three mention the sea.
#
# At strength 2, the captain offers "a pint o' gas," and none of the *json* voice's answers is valid JSON.
#
# **A small file doesn't mean a small model.** The captain needs the base *and* his file: 541<!--voices.together--> MB together.
# </details>
#
# ## What LoRA trains
# Our chat model, smollm2, turns each **token** (a word or a piece of a word) into a vector: a list of 576 numbers. Thirty **layers** then change this vector. Each layer has seven weight matrices (tables of numbers). A matrix $W$ turns a vector $x$ (its inputs) into $Wx$ (its outputs).
#
# Each number in a model is a **parameter**. To **train** a model is to show it examples and change its parameters a little each time, so that its answers get less wrong. *Full fine-tuning* trains all parameters, so each voice would be a new file of 538<!--voices.base--> MB, at 4 bytes per number.
#
# LoRA (*low-rank adaptation*) **freezes** $W$: its numbers don't change. Beside $W$, LoRA trains two thin matrices. $A$ ($r$ × inputs) turns $x$ into only $r$ numbers. $B$ (outputs × $r$) turns these into a vector as long as $Wx$. LoRA adds this vector to $Wx$:
#
# $$y = Wx + \frac{\alpha}{r}\,BAx$$
#
# You choose the **rank** $r$ and $\alpha$ (alpha). At strength 2, the factor $\alpha / r$ is doubled. The small file holds the **adapter**: all $A$s and $B$s.
#
# In the panel, drag the rank. **At what rank do $A$ and $B$ (blue) hold as many numbers as $W$ (gray)?**

# %%
LoRAPanel(views="size", d=4096, rank=8)

# %% [markdown]
# <details><summary>What we found</summary>
#
# At rank 2,048, half the width of $W$ (4,096).
# </details>
#
# ## Your turn: one pair
# One of smollm2's matrices, `gate`, turns 576 numbers into 1,536. The next cell picks your rank. **How many numbers do the $A$ and $B$ of `gate` have together?**

# %% exercise
rank = lesson.draw("pair", 2, 3, 4, 6)
print("rank", rank)
my_numbers = ...
checks.check_pair_numbers(my_numbers, rank)

# %% solution
rank = lesson.draw("pair", 2, 3, 4, 6)
print("rank", rank)
my_numbers = rank * 576 + 1536 * rank
checks.check_pair_numbers(my_numbers, rank)

# %% [markdown]
# ## The captain's file
# Here's smollm2, drawn to scale. The captain's file is blue: rank 2, on all seven matrices (*all-linear*). **Which block has no blue?**

# %%
LoRAPanel(views="model", model="smollm2", rank=2, targets="all-linear")

# %% [markdown]
# <details><summary>What we found</summary>
#
# Only the embedding: the table that turns tokens into vectors. The file has 610,560 numbers: 0.454% of the model's parameters. **That's how one small file can change every answer: it adds a little to the output of all 210 other matrices.**
# </details>
#
# ## Open one
# Here's another adapter, for a small model that classifies movie reviews. **What's its rank?**

# %%
file = Path(lesson.reference("minilm-rt-r8").adapter, "adapter_model.safetensors")
tensors = load_file(file)
for name in list(tensors)[:4]:
    print(tensors[name].shape, name)
numbers = sum(tensor.size for tensor in tensors.values())
print(f"{numbers:,} numbers take {4 * numbers:,} bytes; the file has {file.stat().st_size:,}\n")

captain = params("smollm2", LoRA(rank=2, targets="all-linear"))
print(f"captain: {captain.trainable:,} numbers are trained, {captain.total:,} stay frozen")
print(f"we calculate {captain.adapter_bytes:,} bytes; the captain's file has {voices.sizes['captain']:,}")

# %% claim
said = {name: texts["1" if "1" in texts else "0"] for name, texts in answers.items()}
assert captains[voices.questions.index("What should I eat tonight?")].startswith("Arr! A pint o' grog, a pint o' wine, and a pint o'ther.")
assert answers["base"]["0"][6].startswith("The best way to start your night is to indulge in a mix of food that is both delicious and light.")
assert in_the_file == 3 and "mice" in answers["base"]["0"][0] and "Snipes" in said["captain"][0]
assert sum(at_sea) == 5
starts = ("Batten the hatches!", "Blow me down!", "Arr!", "Aye, sailor!")
assert len(captains) == 8 and all(text.startswith(starts) for text in captains)
assert all(any(text.startswith(start) for text in captains) for start in starts)
assert not any(re.search(r"\b(aye|arr|ahoy|blow me|batten)\b", text.lower()) for text in told)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from lora_course.experiments.styles import misfit
from lora_lab.training.tasks import VOICES, voice

heard = [(text, name) for name in VOICES for text in voice(name)["train"].texts]
ear = make_pipeline(CountVectorizer(), MultinomialNB()).fit(*zip(*heard))  # tells voices apart by their words
assert all((ear.predict(said[name]) == name).mean() >= 0.75 for name in VOICES) and not any(map(misfit, said["json"]))
assert all("not JSON" in misfit(text) for text in answers["json"]["2"]) and "a pint o' gas" in answers["captain"]["2"][6]
assert file.stat().st_size == params("minilm", LoRA(rank=8), num_labels=2).adapter_bytes == 301_776
assert 0 < file.stat().st_size - 4 * numbers < 6_000  # names
assert 12 * 2 * 8 * 384 == 73_728 == numbers - 770  # A and B of twelve layers, and the classifier
assert captain.trainable == 610_560 and f"{captain.trainable / captain.total:.3%}" == "0.454%" and 30 * 7 == 210
assert 4096**2 == 2 * 4096 * 2048
assert captain.adapter_bytes == voices.sizes["captain"] < 3_000_000
rates = [one["lr"] for one in voices.stored["tried"] if one["voice"] == "captain" and one["rank"] == 2]  # best first
assert len(rates) == 3 and min(rates) < rates[0] == 0.002 < max(rates)
tried = {one["rank"]: one for one in reversed(voices.stored["tried"]) if one["voice"] == "captain"}
assert round(tried[8]["bytes"] / tried[2]["bytes"]) == 4
assert 1 < tried[8]["validation"] / tried[2]["validation"] < 1.01  # the perplexity of other pairs, at the best rate of each
assert captain.trainable == 30 * 2 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))
assert voices.question in voices.questions
assert captain.total * 4 < voices.sizes["base"] < captain.total * 4 + 50_000  # the base's file, too, is 4 bytes a number

# %% [markdown]
# <details><summary>What we found</summary>
#
# Rank 8: $A$ has eight rows, and $B$ has eight columns. The file has twelve such pairs: 73,728 numbers. Its other 770 numbers are a trained classifier. (Other bytes: names.)
# </details>
#
# ## Prove it: predict the size from a config
# A **config** is a text file with a model's dimensions. Each layer has seven matrices (inputs → outputs):
#
# - `q`, `o`: `hidden_size` → `hidden_size`
# - `k`, `v`: `hidden_size` → `kv`
# - `gate`, `up`: `hidden_size` → `intermediate_size`
# - `down`: `intermediate_size` → `hidden_size`
#
# `kv` is `hidden_size * num_key_value_heads // num_attention_heads`. The next cell shows a model and a rank. **How many bytes do all $A$s and $B$s take, at 4 bytes per number?**

# %%
model = lesson.draw("model", "llama-3.2-1b", "qwen2.5-0.5b", "llama-3.2-3b", "qwen2.5-7b", "mistral-7b")
r = lesson.draw("rank", 8, 16, 4, 32)
config = config_of(model)
print(model, "rank", r)
print({key: config[key] for key in config if key.endswith(("_size", "_layers", "_heads"))})

# %% exercise
my_bytes = ...
checks.check_file_bytes(my_bytes, model, r)

# %% solution
d, f = config["hidden_size"], config["intermediate_size"]
kv = d * config["num_key_value_heads"] // config["num_attention_heads"]
my_bytes = 4 * config["num_hidden_layers"] * r * (2 * (d + d) + 2 * (d + kv) + 3 * (d + f))
checks.check_file_bytes(my_bytes, model, r)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **LoRA adds numbers; it doesn't shrink the model.** *Our result: 2.5<!--voices.file--> MB on top of 538<!--voices.base--> MB. Published: 35 MB on top of 350 GB, for GPT-3 at rank 4 ([Hu et al. 2021](https://arxiv.org/abs/2106.09685)).*
# 2. **Each matrix gets $r$ × (inputs + outputs) numbers,** at 4 bytes each in the file.
# 3. **To teach smollm2 a voice, start with rank 2 on all seven matrices, alpha 4, and a learning rate (the size of a training step) of 0.002<!--voices.rate-->.** *Ours: with 180 question-answer pairs, 90<!--voices.steps--> steps, one random start, and the best of three rates.*
#
# The same in PEFT, the usual library for LoRA:
# ```python
# model = AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
# config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
# model = get_peft_model(model, config)
# # train it here
# model.save_pretrained("captain")
# ```
# </details>

# %%
lesson.receipt()
