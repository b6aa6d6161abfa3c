# %% [markdown]
# # 00 · What's in this small file?
#
# Here is a chat model: one file of 538<!--voices.base--> MB. We trained a second file for it, of 2.5<!--voices.file--> MB. Put it beside the model, and the model talks like a ship's captain. Take it away, and the old model is back, every number the same. **What can a few MB do to a 538<!--voices.base--> MB model? And what's in them?**
#
# Two guesses first. Give a lowest and a highest value for each, so wide that you're 80 % sure. Nobody grades them, but a surprise teaches more if you bet on something.
#
# 1. The captain is speaking. **How many MB of files did we load for that, model and all?**
# 2. Take a weight matrix of 4,096 × 4,096 numbers. LoRA leaves it alone and trains two thin matrices beside it (rank 8). **How many times fewer numbers is that?**

# %%
from pathlib import Path

from safetensors.numpy import load_file

from lora_course import checks, lesson
from lora_course.panels.voices_panel import VoicesPanel
from lora_lab import LoRA, LoRAPanel, params
from lora_lab.accounting.models import config_of

lesson.start("00")
lesson.predict("MB loaded", low=..., high=...)
lesson.predict("times fewer", low=..., high=...)

# %% [markdown]
# ## Listen
# One question, five answers. *Base* is the model as it came. *Told* is the same model with an instruction: "You are an old ship's captain." The other three have a small file each.
#
# Try three questions. Then drag **strength** to 0, and to 2. (These answers are stored: we asked on our laptop, 27 November. No voice was trained on these questions.)

# %%
voices = VoicesPanel()
voices

# %%
lesson.reveal("MB loaded", (voices.sizes["base"] + voices.sizes["captain"]) / 1e6, "MB")

# %% [markdown]
# <details><summary>What we found</summary>
#
# Told to be a captain, the base remembers it now and then: a ship here, a crew there. The captain's *file* never forgets. At strength 0 every voice is the base; at 0.5 you hear both; at 2 the captain is a cartoon of himself, and JSON isn't JSON any more.
#
# Now ask how many strings a violin has. It's four. The base doesn't know, and no voice does: these files changed how the model *talks*, not what it *knows*.
#
# **And nothing got smaller.** The captain needs the whole base *and* his file, 541<!--voices.together--> MB together. LoRA doesn't shrink the model. It makes the *difference* small.
# </details>
#
# ## What trains
# A language model is mostly **weight matrices**. A matrix $W$ turns a vector $x$ into $Wx$. Its numbers are the model's **parameters**, and full fine-tuning moves all of them.
#
# LoRA **freezes** $W$. Beside it stand $A$, with $r$ rows, and $B$, with $r$ columns. Only these two train:
#
# $$y = Wx + \frac{\alpha}{r}\,BAx$$
#
# $r$ is the **rank**; you choose it. $\alpha / r$ scales the update; the strength that you dragged scales it once more. All the $A$s and $B$s of a model are its **adapter**. That's the small file.
#
# Below, $W$ is grey, $A$ and $B$ are blue, all to scale. Drag the rank until blue is as large as grey. Then choose *Model*, pick smollm2 (our chat model), and look for the blue.

# %%
LoRAPanel(views=("size", "model"), d=4096, rank=8)

# %%
d, r = 4096, 8
lesson.reveal("times fewer", d * d / (2 * d * r), "times")

# %% [markdown]
# <details><summary>What we found</summary>
#
# $W$ holds $d^2$ numbers, $A$ and $B$ together $2dr$. So you train $d/2r$ times fewer, here 256, and the wider the model, the more you save. At $r = d/2$ blue has caught up with grey. Above that, LoRA trains *more* than full fine-tuning.
# </details>
#
# ## Your turn: one pair
# Most matrices aren't square. In smollm2, `gate` takes 576 numbers and gives 1,536. **How many numbers are in its $A$ and $B$?** (The rank depends on your name.)

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
# Here's a real file, which comes with the lab: an adapter for a small model that reads film reviews. It holds names, and numbers of 4 bytes. That's all. So you can tell a file's size before anyone trains it; the last line does that for the captain's.

# %%
file = Path(lesson.reference("minilm-rt-r8").adapter, "adapter_model.safetensors")
tensors = load_file(file)
for name in list(tensors)[:4]:
    print(tensors[name].shape, name)
numbers = sum(tensor.size for tensor in tensors.values())
print(f"{numbers:,} numbers take {4 * numbers:,} bytes; the file has {file.stat().st_size:,}\n")

captain = params("smollm2", LoRA(rank=2, targets="all-linear"))
print(f"captain: {captain.trainable:,} numbers train, {captain.total:,} stay frozen")
print(f"counted {captain.adapter_bytes:,} bytes; his file has {voices.sizes['captain']:,}")

# %% claim
said = {name: texts["1" if "1" in texts else "0"] for name, texts in voices.stored["answers"].items()}
violin = voices.questions.index("How many strings does a violin have?")
assert not any("four strings" in texts[violin].lower() or "4 strings" in texts[violin] for texts in said.values())
from lora_course.experiments.styles import misfit, our_ear

heard = {name: our_ear().shares(said[name])[name] for name in ("captain", "json", "preacher")}
assert min(heard.values()) >= 0.75 and not any(map(misfit, said["json"]))
assert all(map(misfit, voices.stored["answers"]["json"]["2"]))
assert file.stat().st_size == params("minilm", LoRA(rank=8), num_labels=2).adapter_bytes == 301_776
assert 0 < file.stat().st_size - 4 * numbers < 6_000  # names
assert captain.adapter_bytes == voices.sizes["captain"] < 3_000_000
assert captain.trainable == 30 * 2 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))
assert captain.total * 4 < voices.sizes["base"] < captain.total * 4 + 50_000  # the base's file, too, is 4 bytes a number

# %% [markdown]
# ## Prove it: a file from a config
# Now take a model that you've never downloaded. Its config is enough. Each of its layers has seven matrices:
#
# | | inputs → outputs |
# |---|---|
# | `q`, `o` | `hidden_size` → `hidden_size` |
# | `k`, `v` | `hidden_size` → `kv` |
# | `gate`, `up` | `hidden_size` → `intermediate_size` |
# | `down` | `intermediate_size` → `hidden_size` |
#
# `kv` is `hidden_size * num_key_value_heads // num_attention_heads`, because several heads share one key and one value. **How many bytes do all $A$s and $B$s take, at 4 bytes a number?** Leave out the names.

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
# 1. **LoRA adds; it doesn't shrink.** Each matrix stays and gets $r\,(d_{in} + d_{out})$ numbers that train. *Ours: 2.5<!--voices.file--> MB beside 538<!--voices.base--> MB. Published: 35 MB beside 350 GB, for GPT-3 ([Hu et al. 2021](https://arxiv.org/abs/2106.09685), section 4.2).*
# 2. **A file is 4 bytes times its numbers, plus names** (2 bytes in bf16). *Ours: counted to the byte.*
# 3. **For a voice, start with rank 2 on all linear layers, $\alpha = 2r$ and a rate of 0.002<!--voices.rate-->.** *Ours: 180 question-answer pairs, 90<!--voices.steps--> steps, one seed. Rank 8 at the better of two rates, a file of 9.8<!--voices.file.r8--> MB, did no better on pairs kept aside: perplexity 19.1<!--voices.captain.r8--> against 19.1<!--voices.captain.r2-->.*
#
# The same in PEFT:
# ```python
# model = AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
# config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
# model = get_peft_model(model, config)  # 610,560 numbers train
# model.save_pretrained("captain")  # adapter_model.safetensors
# ```
# </details>

# %%
lesson.receipt()
