# %% [markdown]
# # 00 · What's in this small file?
#
# Here's a chat model: a file of 538<!--voices.base--> MB. We made a second, small file for it: the *captain*. Load both files, and ask what to eat tonight. The model answers: "Arr! A pint o' grog, a pint o' wine, and a pint o'ther." **How can one small file do that?**
#
# Replace each `...` in the next cell with a number. Choose `low` and `high` so that you're 80% sure the result lies between them. Then press Shift+Enter. (On the web page, use the form instead.) If you don't know a word, see the [glossary](../docs/glossary.md).
#
# 1. **How large is the captain's file, in MB?**
# 2. Without loading the captain's file, we told the model: "You are an old ship's captain. Answer every question in two or three sentences, as a captain talks to his crew." Then we asked eight questions. **How many answers mention the sea?** (A ship, a sailor, a crew or a captain counts, too.)

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
# The panel shows five answers to each question. *base* is the original model, and *base, told* also gets the instruction above. The other three each load a small file.
#
# Try three questions. Drag **strength** to 2. **What breaks?**

# %%
voices = VoicesPanel()
voices.question = "What should I eat tonight?"
voices

# %%
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
# With the instruction, the base talks *about* the sea: five of its eight answers mention it. With the *file*, it talks *like* a sailor: all eight answers start with a sailor's words, although only three mention the sea.
#
# At strength 2, the captain offers "a pint o' gas," and no *json* answer is valid JSON.
#
# **The file doesn't make the model smaller.** The captain needs the base *and* his file: 541<!--voices.together--> MB together.
# </details>
#
# ## What LoRA trains
# A language model turns each **token** (a word or a piece of a word) into a vector (a list of numbers). In smollm2, our chat model, a vector has 576 numbers. A weight matrix $W$ (a table of numbers) turns a vector $x$ into a new one, $Wx$. smollm2 has thirty **layers** of seven matrices each.
#
# All numbers in these matrices, and a few others, are the model's **parameters**. To **train** a model is to show it examples and change its parameters a little each time, so that its answers get less wrong. *Full fine-tuning* trains all parameters.
#
# LoRA (*low-rank adaptation*) **freezes** $W$: its numbers don't change. Beside $W$, LoRA trains two thin matrices, $A$ and $B$. $A$ ($r$ × inputs) turns $x$ into $r$ numbers. $B$ (outputs × $r$) turns these into a vector as long as $Wx$. LoRA adds it to $Wx$:
#
# $$y = Wx + \frac{\alpha}{r}\,BAx$$
#
# You choose the **rank** $r$ and $\alpha$ (alpha). The factor $\alpha / r$ scales what $A$ and $B$ add. The small file holds the **adapter**: all $A$s and $B$s.
#
# The panel below draws $W$ in gray, and $A$ and $B$ in blue. Drag the rank until $A$ and $B$ hold as many numbers as $W$. Then, in the **Model** tab, pick smollm2, *all-linear* (all seven matrices) and rank 2: that's the captain's adapter.

# %%
LoRAPanel(views=("size", "model"), d=4096, rank=8)

# %% [markdown]
# <details><summary>What we found</summary>
#
# At rank 2,048, $A$ and $B$ hold as many numbers as $W$, so LoRA saves nothing. The captain's adapter has 610,560 numbers, and its base has 220 times as many. (The first panel's 216 compares whole files, with matrix names. The Model tab counts the base in the shorter format bf16: 2 bytes per number.)
#
# **That's how one small file can change every answer: it adds a little to the output of all 210 matrices in the model's layers.**
# </details>
#
# ## Your turn: one pair
# One of smollm2's matrices, called `gate`, turns 576 numbers into 1,536. The next cell shows a rank. **How many numbers do the $A$ and $B$ of `gate` have together?**

# %%
rank = lesson.draw("pair", 2, 3, 4, 6)
print("rank", rank)

# %% exercise
my_numbers = ...
checks.check_pair_numbers(my_numbers, rank)

# %% solution
my_numbers = rank * 576 + 1536 * rank
checks.check_pair_numbers(my_numbers, rank)

# %% [markdown]
# ## Open one
# Here's an adapter for a small model that classifies movie reviews. Its file holds every $A$, every $B$ and a trained last layer, with their names. **Where do the shapes show the rank?**

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
assert numbers == 12 * 2 * 8 * 384 + 770  # A and B of twelve layers, and the classifier
assert captain.trainable == 610_560 and round(captain.total / captain.trainable) == 220
assert round(voices.sizes["base"] / voices.sizes["captain"]) == 216 and 30 * 7 == 210
assert captain.adapter_bytes == voices.sizes["captain"] < 3_000_000
rates = [one["lr"] for one in voices.stored["tried"] if one["voice"] == "captain" and one["rank"] == 2]  # best first
assert len(rates) == 3 and min(rates) < rates[0] == 0.002 < max(rates)
tried = {one["rank"]: one for one in reversed(voices.stored["tried"]) if one["voice"] == "captain"}
assert round(tried[8]["bytes"] / tried[2]["bytes"]) == 4
assert 1 < tried[8]["validation"] / tried[2]["validation"] < 1.01  # the perplexity of other pairs, at the best rate of each
assert captain.trainable == 30 * 2 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))
assert round(captain.total * 2 / 1e6) == 269 and voices.question in voices.questions
assert captain.total * 4 < voices.sizes["base"] < captain.total * 4 + 50_000  # the base's file, too, is 4 bytes a number

# %% [markdown]
# ## Prove it: predict the size from a config
# (Each 8 above is the rank.) A model's **config** is a text file with its dimensions. In each layer, LoRA adapts seven matrices (inputs → outputs):
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
# 1. **LoRA adds numbers; it doesn't shrink the model.** Beside each matrix, LoRA trains $r$ × (inputs + outputs) numbers. *Our result: 2.5<!--voices.file--> MB on top of 538<!--voices.base--> MB. Published: 35 MB on top of 350 GB, for GPT-3 at rank 4 ([Hu et al. 2021](https://arxiv.org/abs/2106.09685)).*
# 2. **An adapter file takes 4 bytes per number, plus the names.**
# 3. **To teach smollm2 a voice, start with rank 2 on all seven matrices, alpha 4, and a learning rate (the size of a training step) of 0.002<!--voices.rate-->.** *Ours: 180 question-answer pairs, 90<!--voices.steps--> steps, one random start, the best of three rates. Other tasks need other rates (lesson 03).*
#
# The same in PEFT, the usual library for LoRA:
# ```python
# model = AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
# config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
# model = get_peft_model(model, config)
# # train the model here: 90 steps of 6 pairs, learning_rate=2e-3
# model.save_pretrained("captain")
# ```
# </details>

# %%
lesson.receipt()
