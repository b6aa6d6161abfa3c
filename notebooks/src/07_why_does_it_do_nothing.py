# %% [markdown]
# # 07 · Why does it do nothing?
#
# Training ran for four days without an error, and the loss went down. But when you load the adapter, the model answers as if you'd never fine-tuned it. **Where do you look first?**
#
# Ten adapters lie in hospital beds. Nine have faults that people have reported; one is doubtful.

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
print("Ten diagnoses, in alphabetical order:", ", ".join(sorted((one.fault for one in PATIENTS.values()), key=str.lower)))

# %% [markdown]
# ## Ten diagnoses, and two guesses
# Read each owner's complaint. **Which of the ten diagnoses fits it?** Use each diagnosis once.
#
# Then give two ranges:
#
# 1. Many loaders take the tensors whose names they know and skip the rest. **How many of the ten adapters does such a loader accept without an error?**
# 2. Below, we add a bed with a healthy adapter. **How large is its update (the scaled $BA$), as a percentage of the weights it's added to?** (Compare *norms*, the square roots of the sums of squares.)

# %%
first_diagnosis = {
    "A": ...,  # after four days of training, it still answers like the base
    "B": ...,  # it loads without a warning, and every answer is the base model's
    "C": ...,  # the loss fell a little, then no further
    "D": ...,  # it worked on the cluster; copied to the laptop, it stopped working
    "E": ...,  # trained on four GPUs; on one GPU, it answers as if it had never been trained
    "F": ...,  # it worked last month; now its answers are no better than guesses
    "G": ...,  # it learns, but more slowly than our last one
    "H": ...,  # made for sentence vectors (means of token vectors), without a head; no better than the previous version
    "I": ...,  # merged into its base, it answers like the base
    "J": ...,  # it was fine until step 900, and it has been useless since then
}
lesson.predict("adapters of ten that load without an error", low=..., high=...)
lesson.predict("size of a healthy update, percent of W", low=..., high=...)

# %% [markdown]
# ## Look 1: the file
# A safetensors file begins with a list of its tensors and their places. So it *promises* a certain number of bytes. (Ignore small differences: some files lack our metadata.) **Which three beds does this table explain?**

# %%
files = {}
for letter, folder in beds.items():
    names, promised, size = header(folder)
    first = next(iter(names), "none")[:7]
    files[letter] = {"first name": first, "tensors": len(names), "promised": f"{promised:,}", "bytes": f"{size:,}"}
taken = [letter for letter in PATIENTS if silently(beds[letter])]
lesson.reveal("adapters of ten that load without an error", len(taken))
pd.DataFrame(files).T

# %% [markdown]
# ## Look 2: the size of B, layer by layer
# $B$ starts at zero, and each step of Adam moves a number by about the learning rate. So the *largest* number in B shows whether a layer has learned. (Some adapters trained for only 2 to 4 steps.)
#
# H's last mark stands for a layer that the others don't adapt: the *pooler*. **Which three beds, besides look 1's, does this picture explain? In which two beds did no layer learn?**

# %% alt="For the healthy adapter and patients A to J, one mark per layer: the largest number in its B, on a logarithmic axis. B and C have only zeros, J has NaN, and H has one zero. The dots of F, G and H (only 2 steps, rate 0.002) lie far below the healthy adapter's, and those of I lie even lower."
plt.figure(figsize=(4.8, 3.3))
for bed, folder in enumerate(beds.values()):
    for layer, size in enumerate(sizes := largest(folder).values()):
        height, mark = (1, "kx") if math.isnan(size) else (size, "C0o") if size else (1e-7, "ks")
        plt.plot(bed + (layer - 6) / 14, height, mark, markersize=1.6)
    if not sizes:
        plt.text(bed, 1e-4, "can't be read" if header(folder)[0] else "no tensors", rotation=90, ha="center", va="center")
plt.text(7, 2e-3, "few steps:\nnot a fault", ha="center", va="top")
plt.axhline(sorted(largest(beds["healthy"]).values())[6], color="C0", linewidth=0.5)
plt.yscale("log", subs=[])
plt.yticks([10.0**n for n in range(-7, 1)], ["zero", "1e-6", "1e-5", "1e-4", "0.001", "0.01", "0.1", "NaN"])
plt.xticks(range(len(beds)), ["\nhealthy", *PATIENTS])
plt.title("Largest number in each layer's B", loc="left")
plt.show()

# %% [markdown]
# ## Look 3: the adapter on its base
# An adapter is a *difference*: it belongs to the weights that it was trained on. Most of our files hold a fingerprint (a hash) of these weights. The *head's bias* starts at zero, so it shows whether the head has learned.
#
# **How does bed B differ from bed C? What's wrong with F, and what's odd about G?** (PEFT's default alpha is 8.)

# %% hide-input
from lora_lab.methods.attach import fingerprint

ours, charts = {fingerprint(load_model("minilm", num_labels=labels)) for labels in (2, None)}, {}  # with and without a head
for bed in ("healthy", *"BCFGHI"):
    seen, tensors = inspect_folder(beds[bed], "minilm"), AdapterFile(beds[bed])
    bias = next((tensor.tolist() for name, tensor in tensors.items() if name.endswith("classifier.bias")), [])
    ratios, mark = [part.ratio for part in seen.norms], tensors.own.get("base_fingerprint")
    charts[bed] = {"trained on": "our base" if mark in ours else "another" if mark else "no fingerprint",
                   "update, % of W": None if None in ratios else round(100 * sum(ratios) / len(ratios), 4),
                   "alpha / rank": seen.scaling, "head's bias": f"{bias[0]:.1e}" if bias else "no head"}
lesson.reveal("size of a healthy update, percent of W", charts["healthy"]["update, % of W"], "%")
pd.DataFrame(charts).T.fillna("refused")

# %% claim
assert len(taken) == 9 and "D" not in taken
seen = {letter: inspect_folder(beds[letter], "minilm") for letter in ("healthy", "F", "H")}
assert not seen["healthy"].problems and seen["F"].problems and seen["H"].problems
seen = pd.DataFrame(charts)
assert round(seen["healthy"]["update, % of W"], 1) == 16.8
assert [*seen.loc["trained on"]] == ["our base", "no fingerprint", "our base", "another", *["our base"] * 3]
zeros = {bed: [name for name, size in largest(beds[bed]).items() if size == 0] for bed in charts}
assert {bed: len(names) for bed, names in zeros.items() if names} == {"B": 12, "C": 12, "H": 1}
assert "pooler" in zeros["H"][0] and len(largest(beds["H"])) == 13 and "pooler" in [*largest(beds["H"])][-1]
assert len({one.fault for one in PATIENTS.values()}) == 10  # each once, so a random order gets one right, on average
assert 3e-6 < max(largest(beds["I"]).values()) < 5e-6  # 4 steps at 1e-6
assert [seen[bed]["head's bias"] for bed in "BCI"] == ["0.0e+00", "4.2e-03", "2.2e-06"]
assert [bed for bed in "BCEFGHIJ" if not AdapterFile(beds[bed]).own] == [*"BEJ"]  # A has no tensors
for bed in "FGH":  # two steps at 0.002
    assert {f"{size:.3f}" for size in largest(beds[bed]).values()} <= {"0.004", "0.000"}
assert seen["G"]["alpha / rank"] == 8 / 128 and seen["healthy"]["alpha / rank"] == 16 / 8

from lora_course.experiments.broken import _parity_loss

ids, push = torch.randint(1000, 20_000, (8, 12), generator=torch.Generator().manual_seed(0)), []
moved = []
for rank, alpha in ((8, 16), (128, 8), (128, 16)):  # one step: how far down the gradient of W?
    torch.manual_seed(0)  # for the head
    model, method = load_model("minilm", num_labels=2), LoRA(rank=rank, alpha=alpha)
    model.requires_grad_(True)
    _parity_loss(model, ids).backward()
    slopes = {name: module.weight.grad for name, module in model.named_modules() if name.endswith((".query", ".value"))}
    torch.manual_seed(0)
    method.attach(model)
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    adam.zero_grad()
    _parity_loss(model, ids).backward()
    adam.step()
    layers = dict(model.named_modules())
    moved.append(math.sqrt(sum(layers[name].delta_weight().square().sum().item() for name in slopes)))
    push.append(-sum((layers[name].delta_weight() * slope).sum().item() for name, slope in slopes.items()))
assert 1.8 < push[0] / push[1] < 2.3 and 0.9 < push[0] / push[2] < 1.1  # rank 128 takes back 16 of the 32
assert 7 < moved[0] / moved[1] < 8.5  # of a norm, it takes back 4
assert round(13 / 12 * seen["H"]["update, % of W"] / seen["G"]["update, % of W"]) == 8 and seen["H"]["alpha / rank"] == 2
assert {f"{size:.1f}" for size in largest(beds["healthy"]).values()} == {"0.1"}

# %% [markdown]
# ## Look 4: the first step
# One of the adapters was trained with gradient checkpointing (lesson 04). Here is its first `backward`, with the old ("reentrant") kind of checkpointing and with the new one. (Transformers 5 prevents the old kind's fault; we switched this off.)
#
# Now train with the old kind: press **Start** (on the web page, *replay*). The pale line shows a healthy adapter with another seed. **What happens to accuracy? So which part has learned? And which bed is this?**

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
# **Exercise 1: correct your ten diagnoses.** (Guessing gets one right, on average.)

# %% exercise
faults = {
    "A": ..., "B": ..., "C": ..., "D": ..., "E": ...,
    "F": ..., "G": ..., "H": ..., "I": ..., "J": ...,
}
checks.check_diagnosis(faults, first_diagnosis)

# %% solution
faults = {
    "A": "empty file", "B": "zero update", "C": "gradient was cut",
    "D": "truncated file", "E": "keys renamed", "F": "wrong base",
    "G": "default alpha at high rank", "H": "layer never used", "I": "update too small", "J": "NaN or infinity",
}
checks.check_diagnosis(faults, first_diagnosis)

# %% [markdown]
# <details><summary>What we found</summary>
#
# **Files A, B, E and I have nearly the same complaint, but four faults.**
#
# - **Look 1.** *A* lost all its tensors when it was saved ([a report](https://github.com/tloen/alpaca-lora/issues/446)). *D* is shorter than it promises: the disk was full. (The loader refuses only this.) *E* was saved from a wrapped model: its names begin with `module.`, so loaders know none.
# - **Look 2.** *H* also adapts the pooler, whose output is never used, so the pooler's adapter changes nothing. *I* was trained at a rate of 1e-6: even 1,000 steps would move a number by only about 0.001 (healthy: 0.1). A merge in bf16 rounds its update away (lesson 08). *J* was saved after the loss became NaN.
# - **Look 3.** The healthy update is a sixth of $W$ (16.8%). In *B* and *C*, no layer learned, but *B* was saved before training: even its head's bias is zero. *F* was trained on another base, so its fingerprint differs, and `lora_lab` refuses to compute an update.
# - **Look 4.** *C*: accuracy rises to 64%, but only the head has learned ([a report](https://github.com/locuslab/open-unlearning/issues/178)). Reentrant checkpointing computes gradients in a block only if the block's *input* needs a gradient. The frozen token vectors need none, so the later blocks' inputs need none.
#
# The doubtful case is *G*: rank 128, alpha 8. Its $\frac{\alpha}{r}$ is 32 times smaller than H's (also two steps), but it has 16 times as many rows of $A$. In random directions, these give only a factor of $\sqrt{16}=4$: its update is 8 times smaller. (In look 3, H's mean includes the pooler's 0.) Along the gradient, they add up to 16: at first, G lowers the loss half as much as rank 8 with $\alpha=16$. **G is slower, not broken.**
# </details>
#
# ## The eleventh patient
# This time, there's no complaint. **Exercise 2: name the fault** (one of the ten, or "tensors missing").

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
found = inspect_folder(folder, "minilm").problems[0].name
cut = found == "B is zero in some layers"  # in block 0, which all later blocks use
checks.check_eleventh("gradient was cut" if cut else found, mine)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Look at four things:** the file's size and names, the largest number in each layer's B, the adapter on its base, and B's gradient at the first step.
# 2. **A falling loss proves nothing:** the head alone can lower it. *Ours: from 0.69 to 0.67; the healthy adapter's loss fell to 0.37.*
# 3. **Load strictly.** A loader that skips unknown names may load nothing, without an error.
#
# Before a long run, save the adapter after ten steps and load it into a fresh base. Check that no B is zero, and that the adapter changes the base's output.
#
# The same in PEFT:
# ```python
# model = PeftModel.from_pretrained(base, "adapter")  # missing lora keys cause only a warning
# print([p.abs().max().item() for name, p in model.named_parameters() if "lora_B" in name])
# body = lambda: model(**inputs, output_hidden_states=True).hidden_states[-1]
# on = body()
# with model.disable_adapter():
#     print((on - body()).abs().max())  # 0: the adapter does nothing
# ```
# </details>

# %%
lesson.receipt()
