# %% [markdown]
# # 07 · Why does it do nothing?
#
# Training ran for four days, no error, the loss went down. You load the adapter, and the model answers as if you'd never trained. A program that crashes tells you where. An adapter that fails says nothing: LoRA begins as *no change*, and every mistake that stops it from learning or loading leaves it there. **Where do you look first?**
#
# Ten patients lie in ten beds. Each failed the way adapters have failed for somebody.

# %%
import math
from statistics import mean

import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.experiments.broken import PATIENTS, checkpointing, eleventh, header, largest_b, patient, silently
from lora_lab import LoRA, load_model
from lora_lab.training.assets import shipped
from lora_lab.training.early_warnings import gradient_warning
from lora_lab.training.named import inspect_folder

lesson.start("07")
beds = {"sound": shipped("data/results/minilm-rt-r8"), **{letter: patient(letter) for letter in PATIENTS}}
for letter, one in PATIENTS.items():
    print(f"{letter}: {one.complaint}")
print("\nThe faults, from A to Z:", ", ".join(sorted(one.fault for one in PATIENTS.values())))

# %% [markdown]
# ## Two guesses
# Many loaders take the tensors whose names they know and skip the rest.
#
# 1. **How many of the ten does such a loader take without an error?**
# 2. A healthy adapter of ours lies there too. **How large is its update, in percent of the weights it's added to?** (As lengths: the root of the sum of squares.)
#
# Give ranges that you're 80 % sure of.

# %%
lesson.predict("of ten, loaded without an error", low=..., high=...)
lesson.predict("size of a healthy update, percent of W", low=..., high=...)

# %% [markdown]
# ## Look 1: the file
# A safetensors file is a length, a list of tensors (name, shape, place), then the numbers. So you can read the list without loading anything. (An older `.bin` file is a **pickle**, a program that Python *runs*. Never open a stranger's.)

# %%
for letter, folder in beds.items():
    names, promised, size = header(folder)
    print(f"{letter:5} {len(names):3} tensors, promises {promised:9,} bytes, has {size:9,}; first: {next(iter(names), 'none')[:17]}")

# %% [markdown]
# ## Look 2: the size of B, layer by layer
# $B$ starts at zero, and each step of Adam moves a number by about the learning rate. So look at the *largest* number in B: it says whether a layer has learned at all. Each bed shows its layers from left to right; the line is the healthy adapter. At the bottom, B is zero. A cross is NaN, "not a number".

# %%
plt.figure(figsize=(8, 3.5))
for bed, folder in enumerate(beds.values()):
    for layer, size in enumerate(largest_b(folder).values()):
        broken = math.isnan(size)
        height, mark = (1, "kx") if broken else (max(size, 1e-7), "C0o")
        plt.plot(bed + (layer - 6) / 25, height, mark, markersize=4)
plt.axhline(sorted(largest_b(beds["sound"]).values())[6], color="C0", linewidth=0.5)
plt.yscale("log")
plt.xticks(range(len(beds)), beds)
plt.ylabel("largest number in B")
plt.show()
for letter in ("sound", "B", "C", "G"):
    print(letter, "alpha / rank:", inspect_folder(beds[letter]).scaling, "| head's bias:", header(beds[letter], read="classifier.bias"))

# %% [markdown]
# ## Look 3: on its base
# An adapter is a *difference*: it means something only on the weights it was trained on, and only if it's large enough. A number in **bf16** keeps 8 bits: from 0.5 to 1 its neighbors are 0.0039 apart, and a smaller change is rounded away when you merge.

# %%
seen = {letter: inspect_folder(beds[letter], "minilm") for letter in ("sound", "F", "H", "I")}
update = {letter: 100 * mean(n.update / n.weight for n in seen[letter].norms) for letter in ("sound", "I")}
print(f"update, in percent of W: sound {update['sound']:.1f}, I {update['I']:.4f}")
print("H: B is zero in", [name for name, largest in largest_b(beds["H"]).items() if largest == 0])
print("F:", seen["F"].problems[0].why)
taken = [letter for letter in PATIENTS if silently(beds[letter])]
lesson.reveal("of ten, loaded without an error", len(taken))
lesson.reveal("size of a healthy update, percent of W", update["sound"], "%")

# %% claim
assert len(taken) == 9 and "D" not in taken
assert not seen["sound"].problems and seen["F"].problems and seen["H"].problems and update["I"] < 0.1
assert round(update["sound"], 1) == 16.8

# %% [markdown]
# ## Look 4: the first step
# Three of the ten could have been found before the second step. After the first `backward`, does every B have a gradient? Here is C's training, as its owner wrote it, and mended.

# %%
said = {}
for reentrant in (True, False):
    model = load_model("minilm", num_labels=2).train()
    LoRA(rank=8).attach(model)
    checkpointing(model, reentrant=reentrant)
    model(input_ids=torch.randint(1000, 20_000, (4, 12))).logits.square().sum().backward()
    said[reentrant] = gradient_warning(model)
    print(f"use_reentrant={reentrant}:", said[reentrant] or "every adapter has its gradient")

# %% claim
assert "no gradient reached 12 adapters" in said[True] and said[False] is None

# %% [markdown]
# **Exercise 1: name the ten faults.** Take the names from the list at the top.

# %% exercise
faults = {
    "A": ..., "B": ..., "C": ..., "D": ..., "E": ...,
    "F": ..., "G": ..., "H": ..., "I": ..., "J": ...,
}
checks.check_diagnosis(faults)

# %% solution
faults = {
    "A": "empty file", "B": "B is all zero", "C": "gradient was cut",
    "D": "truncated file", "E": "keys renamed", "F": "wrong base",
    "G": "default alpha at high rank", "H": "layer never used", "I": "dtype loss", "J": "NaN values",
}
checks.check_diagnosis(faults)

# %% [markdown]
# <details><summary>What we found</summary>
#
# Nine of ten load without a word. Only D, cut short by a full disk, is refused. And the healthy update is large: 16.8 % of W.
#
# - **A** had its tensors filtered out twice when it was saved. **E** was saved from a wrapped model, so every name begins with `module.`: nothing fits, and nothing is loaded.
# - **B** was saved untrained. **C** looks the same, but its head has learned: that's why the loss fell. Old ("reentrant") gradient checkpointing cuts the gradient where a layer's input needs none.
# - **F** was trained on another base. Shapes and names fit, so only a fingerprint of the weights can tell. **H** adapts a layer whose output nobody reads.
# - **G** has 1/32 of the healthy scaling: alpha stayed at 8. It may be fine, at a higher rate. **I** trained at a rate of 1e-6; merged in bf16, it's rounded away. **J** was saved after the loss became NaN.
# </details>
#
# ## The eleventh patient
# One more came in tonight, and it's yours alone. **Exercise 2: find its fault with the four looks.** Then ask the machine: `lora-lab inspect` goes through all of them at once.

# %% exercise
mine = lesson.draw("patient", 0, 1, 2, 3)
folder = eleventh(mine)
names, promised, size = header(folder)
print(f"{len(names)} tensors, promises {promised:,} bytes, has {size:,}; first: {next(iter(names))[:17]}")
print([f"{size:.1e}" for size in largest_b(folder).values()])
checks.check_eleventh(..., mine)

# %% solution
mine = lesson.draw("patient", 0, 1, 2, 3)
folder = eleventh(mine)
names, promised, size = header(folder)
print(f"{len(names)} tensors, promises {promised:,} bytes, has {size:,}; first: {next(iter(names))[:17]}")
print([f"{size:.1e}" for size in largest_b(folder).values()])
checks.check_eleventh(inspect_folder(folder, "minilm").problems[0].name, mine)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Four looks:** the file's size and names, the largest number of B in each layer, the effect on the base, the gradient of B after the first step. Each takes seconds.
# 2. **A falling loss proves little.** A head can do that alone.
# 3. **Load strictly.** A loader that skips what it doesn't know loads nothing and says nothing.
#
# Start with: save after ten steps, load that file into a fresh base, and check that an answer changes. *Ours: all ten faults are found this way, by `lora-lab inspect` too. Each was reported by somebody; how often they happen, nobody has counted.*
#
# The same in PEFT:
# ```python
# model = PeftModel.from_pretrained(base, "adapter")  # "missing keys" in a warning: not loaded
# print([p.abs().max().item() for name, p in model.named_parameters() if "lora_B" in name])
# with model.disable_adapter():
#     print(model(**inputs).logits)  # must differ from the logits outside
# ```
# </details>

# %%
lesson.receipt()
