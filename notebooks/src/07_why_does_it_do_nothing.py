# %% [markdown]
# # 07 · Why does it do nothing?
#
# Training ran for four days without an error, and the loss went down. But when you load the adapter, the model answers as if you'd never fine-tuned it. **Where do you look first?**
#
# Ten adapters lie in hospital beds. Nine have a fault, and one is a doubtful case. People have reported these problems, and we made files that are broken in the same ways.

# %%
import math

import pandas as pd
import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.experiments.broken import PATIENTS, Cut, checkpointing, eleventh, header, largest, patient, silently
from lora_lab import LoRA, Store, TrainPanel, load_model
from lora_lab.methods.io import AdapterFile
from lora_lab.training.assets import shipped
from lora_lab.training.named import inspect_folder

lesson.start("07")
beds = {"healthy": shipped("data/results/minilm-rt-r8"), **{letter: patient(letter) for letter in PATIENTS}}
for letter, one in PATIENTS.items():
    print(f"{letter}: {one.complaint}")
print("\nTen diagnoses, in alphabetical order (not in the order of the beds):", ", ".join(sorted((one.fault for one in PATIENTS.values()), key=str.lower)))

# %% [markdown]
# ## Two guesses, and ten on paper
# On paper, write one of the ten diagnoses above next to each letter. Also guess **how many of your ten will be right.**
#
# Then give ranges that you're 80% sure of.
#
# 1. Many loaders take the tensors whose names they know and skip the rest. **How many of the ten adapters does such a loader load without an error?**
# 2. Below, we add a bed with a healthy adapter. **How large is its update (the scaled $BA$), as a percentage of the weights it's added to?** (Compare *norms*, the square roots of the sums of squares.)

# %%
lesson.predict("of ten, loaded without an error", low=..., high=...)
lesson.predict("size of a healthy update, percent of W", low=..., high=...)

# %% [markdown]
# ## Look 1: the file
# A safetensors file begins with a list of each tensor's name, shape and place, so it *promises* a file size. (Some files also hold notes, so ignore differences of a few hundred bytes.)

# %%
files = {}
for letter, folder in beds.items():
    names, promised, size = header(folder)
    first = next(iter(names), "none")[:17]
    files[letter] = {"tensors": len(names), "bytes promised": f"{promised:,}", "bytes": f"{size:,}", "first name": first}
pd.DataFrame(files).T

# %% [markdown]
# ## Look 2: the size of B, layer by layer
# $B$ starts at zero, and each step of Adam moves a number by about the learning rate. So the *largest* number in B shows whether a layer has learned. Marks at the very top mean NaN ("not a number"), and marks at the bottom mean zero. (Three adapters were trained for only two steps. Their small numbers and updates aren't faults.)

# %% alt="For the healthy adapter and patients A to J, one dot per layer: the largest number in its B, on a logarithmic axis. B and C have only zeros, J has NaN, and H has one zero. The dots of F, G and H (only 2 steps, rate 0.002) lie far below the healthy adapter's, and those of I lie even lower."
plt.figure(figsize=(5.2, 3.5))
for bed, folder in enumerate(beds.values()):
    for layer, size in enumerate(sizes := largest(folder).values()):
        height, mark = (1, "kx") if math.isnan(size) else (size, "C0.") if size else (1e-7, "ko")
        plt.plot(bed + (layer - 6) / 25, height, mark, markersize=6)
    if not sizes:
        plt.text(bed, 1e-4, "can't be read" if header(folder)[0] else "no tensors", rotation=90, ha="center", va="center")
plt.text(7, 2e-3, "only 2 steps,\nrate 0.002", ha="center", va="top")
plt.axhline(sorted(largest(beds["healthy"]).values())[6], color="C0", linewidth=0.5)
plt.yscale("log", subs=[])
plt.yticks([10.0**n for n in range(-7, 1)], ["0", "1e-6", "1e-5", "1e-4", "0.001", "0.01", "0.1", "NaN"])
plt.xticks(range(len(beds)), ["healthy   ", *PATIENTS])
plt.title("Largest number in each layer's B (line: healthy)", loc="left")
plt.show()

# %% [markdown]
# ## Look 3: the adapter on its base
# An adapter is a *difference*: it belongs to the weights that it was trained on. Most of our files hold a fingerprint (a hash) of those weights.
#
# Compare each adapter with the healthy one. The *head's bias* is zero at the start, like B, so it shows whether the head has learned.

# %% hide-input
from lora_lab.methods.attach import fingerprint

ours, charts = {fingerprint(load_model("minilm", num_labels=labels)) for labels in (2, None)}, {}  # with and without a head
for bed in ("healthy", *"BCFGHI"):
    seen, bias = inspect_folder(beds[bed], "minilm"), header(beds[bed], read="classifier.bias")
    ratios, zero = [part.ratio for part in seen.norms], [part.module for part in seen.norms if part.update == 0]
    mark = AdapterFile(beds[bed]).own.get("base_fingerprint")
    charts[bed] = {"trained on": "our base" if mark in ours else "another" if mark else "not written",
                   "update, % of W": None if None in ratios else round(100 * sum(ratios) / len(ratios), 4),
                   "alpha / rank": seen.scaling, "head's bias": f"{bias[0]:.1e}" if bias else "no head",
                   "B is zero in": "all layers" if len(zero) == len(seen.norms) else ", ".join(zero) or "no layer"}
taken = [letter for letter in PATIENTS if silently(beds[letter])]
lesson.reveal("of ten, loaded without an error", len(taken))
lesson.reveal("size of a healthy update, percent of W", charts["healthy"]["update, % of W"], "%")
pd.DataFrame(charts).T.fillna("refused")

# %% claim
assert len(taken) == 9 and "D" not in taken
seen = {letter: inspect_folder(beds[letter], "minilm") for letter in ("healthy", "F", "H")}
assert not seen["healthy"].problems and seen["F"].problems and seen["H"].problems
seen = pd.DataFrame(charts)
assert round(seen["healthy"]["update, % of W"], 1) == 16.8 and seen["I"]["update, % of W"] == 0.0006
assert [*seen.loc["trained on"]] == ["our base", "not written", "our base", "another", *["our base"] * 3]
assert [*seen.loc["B is zero in"]] == ["no layer", "all layers", "all layers", "no layer", "no layer", "pooler.dense", "no layer"]
assert [seen[bed]["head's bias"] for bed in "BCI"] == ["0.0e+00", "4.2e-03", "2.2e-06"]
assert [bed for bed in "BCEFGHIJ" if not AdapterFile(beds[bed]).own] == [*"BEJ"]  # A has no tensors
for bed in "FGH":  # two steps at 0.002
    assert {f"{size:.3f}" for size in largest(beds[bed]).values()} <= {"0.004", "0.000"}
assert seen["G"]["alpha / rank"] == 8 / 128 and seen["healthy"]["alpha / rank"] == 16 / 8
from lora_lab.training.early_warnings import gradient_warning

slow = load_model("minilm", body=True).train()
LoRA(rank=8, targets=("q", "v", "pooler.dense")).attach(slow)
slow(input_ids=torch.randint(1000, 20_000, (4, 12))).last_hidden_state.mean(1).square().sum().backward()
assert "pooler" in gradient_warning(slow)  # H, at its first step
from lora_lab import load_adapter, merge

ids, outputs = torch.randint(1000, 20_000, (4, 12)), []
for folder in (None, beds["I"], beds["healthy"]):  # merged in fp32
    merged = load_model("minilm", num_labels=2).eval()
    if folder:
        load_adapter(merged, folder)
        merge(merged)
    outputs.append(merged.bert(input_ids=ids).last_hidden_state.detach())
base, *others = outputs
changes = [((one - base).norm() / base.norm()).item() for one in others]
assert changes[0] < 1e-3 < 0.3 < changes[1], changes

# %% [markdown]
# ## Look 4: the first step
# Two of the faults show up after the first `backward`, because the $B$ of at least one layer has no gradient. Here is one patient's first step, with and without its fault.
#
# Now train with this fault: press **Start** (on the web page, *replay*). The pale line is the healthy adapter, trained with the same settings but another seed. Accuracy rises, and the loss falls a little. **Which weights have moved?**

# %%
from lora_lab.training.early_warnings import gradient_warning

for reentrant in (True, False):
    model = load_model("minilm", num_labels=2).train()
    LoRA(rank=8).attach(model)
    checkpointing(model, reentrant=reentrant)
    model(input_ids=torch.randint(1000, 20_000, (4, 12))).logits.square().sum().backward()
    print(f"use_reentrant={reentrant}:", gradient_warning(model) or "every adapter has a gradient")
Store(store := lesson.workplace("07")).add(lesson.reference("minilm-rt-r8"))  # the healthy run, for comparison
panel = TrainPanel("minilm", lesson.small("rt", store), method=Cut(rank=8), steps=lesson.steps(400, 5), seed=1, store=store)
panel.show()

# %% claim
assert gradient_warning(model) is None  # fixed
cut = load_model("minilm", num_labels=2).train()
LoRA(rank=8).attach(cut)
checkpointing(cut, reentrant=True)
cut(input_ids=torch.randint(1000, 20_000, (4, 12))).logits.square().sum().backward()
assert "no gradient reached 12 adapters" in gradient_warning(cut)
assert not any(share for *_, share in panel.live["moved"]) and panel.found["changed"] == 0
assert len(panel.setup["others"]) == (not lesson.FAST) and panel.found["of"] in (500, 30, 60)
if not lesson.FAST:
    assert round(panel.found["value"]) == 64
    first, last = (sum(panel.live["losses"][part]) / 50 for part in (slice(50), slice(-50, None)))
    healthy = sum(lesson.reference("minilm-rt-r8").history["loss"][-50:]) / 50
    assert [f"{loss:.2f}" for loss in (first, last, healthy)] == ["0.69", "0.67", "0.37"]
alone = load_model("minilm", num_labels=2).train()
LoRA(rank=8).attach(alone)
block, run = alone.bert.encoder.layer[0], alone.bert.encoder.layer[0].forward
block.forward = lambda *inputs, **named: torch.utils.checkpoint.checkpoint(lambda *x: run(*x, **named), *inputs, use_reentrant=True)
alone(input_ids=torch.randint(1000, 20_000, (4, 12))).logits.square().sum().backward()
assert "no gradient reached 2 adapters (bert.encoder.layer.0.attention" in gradient_warning(alone)  # as the eleventh patient

# %% [markdown]
# **Exercise 1: name the nine faults and the doubtful case.** How many did you get right on paper?

# %% exercise
faults = {
    "A": ..., "B": ..., "C": ..., "D": ..., "E": ...,
    "F": ..., "G": ..., "H": ..., "I": ..., "J": ...,
}
checks.check_diagnosis(faults)

# %% solution
faults = {
    "A": "empty file", "B": "zero update", "C": "gradient was cut",
    "D": "truncated file", "E": "keys renamed", "F": "wrong base",
    "G": "default alpha at high rank", "H": "layer never used", "I": "update too small", "J": "NaN or infinity",
}
checks.check_diagnosis(faults)

# %% [markdown]
# <details><summary>What we found</summary>
#
# The loader that skips unknown names loads nine of the ten without an error. Only **D** fails: the disk was full, so the file is incomplete.
#
# **A, B and E have nearly the same complaint, but three different faults. Only the files can tell you which.**
#
# - **A** lost all its tensors when it was saved. **E** was saved from a wrapped model: every name begins with `module.`, so nothing is loaded.
# - **B** was saved before training. In **C**, the matrix B is still zero, but the head has learned. The old ("reentrant") kind of gradient checkpointing blocked the gradient: it computes gradients only for layers whose *input* needs a gradient. The first layer's input (frozen token vectors) needs none, so later inputs need none either.
# - **F** was trained on another base. The names and shapes match, so the loader that skips unknown names takes it. Our lab refuses it, because the fingerprint differs. Without a fingerprint, only test sentences can reveal the fault.
# - **G** is the doubtful case: it has alpha 8, PEFT's default, at rank 128. If alpha stays the same, rank 128 alone shouldn't slow its learning (lesson 03). But the healthy adapter's alpha is 16, and alpha 8 needs a higher rate. Was 8 intended?
# - **H** adapts a layer whose output is never used.
# - **I** was trained for a few steps at a rate of 1e-6, so its update is only 0.0006% of W. A merge in bf16 rounds this update away.
# - **J** was saved after the loss became NaN.
# </details>
#
# ## The eleventh patient
# **Exercise 2: find its fault.**

# %% exercise
mine = lesson.draw("patient", 0, 1, 2, 3)
folder = eleventh(mine)
names, promised, size = header(folder)
print(f"{len(names)} tensors, promises {promised:,} bytes, has {size:,}; first: {next(iter(names))[:17]}")
for matrix in ("A", "B"):
    print(matrix, [f"{size:.1e}" for size in largest(folder, matrix).values()])
checks.check_eleventh(..., mine)

# %% solution
mine = lesson.draw("patient", 0, 1, 2, 3)
folder = eleventh(mine)
names, promised, size = header(folder)
print(f"{len(names)} tensors, promises {promised:,} bytes, has {size:,}; first: {next(iter(names))[:17]}")
for matrix in ("A", "B"):
    print(matrix, [f"{size:.1e}" for size in largest(folder, matrix).values()])
checks.check_eleventh(inspect_folder(folder, "minilm").problems[0].name, mine)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Look at four things:** the file's size and names, the largest number in each layer's B, the adapter on its base, and the gradient of B at the first step. *Ours: these four checks were enough for all ten.*
# 2. **A loss that falls a little proves nothing.** The head alone can make it fall. *Ours: it fell from 0.69 to 0.67; the healthy adapter's loss fell to 0.37.*
# 3. **Load strictly.** A loader that skips what it doesn't know may load nothing and raise no error.
#
# Before a long run, save the adapter after ten steps and load it into a fresh base. Check that no B is zero, and that the base's output changes. (`lora-lab inspect FOLDER --base minilm` covers the first three looks.)
#
# The same in PEFT:
# ```python
# model = PeftModel.from_pretrained(base, "adapter")  # if it warns of "missing adapter keys", they weren't loaded
# print([p.abs().max().item() for name, p in model.named_parameters() if "lora_B" in name])
# on = model(**inputs, output_hidden_states=True).hidden_states[-1]
# with model.disable_adapter():
#     off = model(**inputs, output_hidden_states=True).hidden_states[-1]
# print((on - off).abs().max())  # 0: the adapter does nothing
# ```
# </details>

# %%
lesson.receipt()
