# %% [markdown]
# # 09 · Merge and swap
#
# *An older lesson; where it names lessons by number, it means the older course, `old_00` to `old_15`.*
#
# **Goal.** Put an adapter into the weights and take it out again; know what that costs in fp32 and in bf16; test the slogan "no added latency"; and see why a model is
# *merged* or *hot-swappable*, not both at once.
#
# **Time box.** 45 minutes, of which this machine trains for one or two; the first code cell says how long. Taking the times of "No added latency" needs some seconds on a fast machine and minutes on a slow one. **Before this:** lesson 02 (LoRA by hand), 04 (training).

# %%
from pathlib import Path

import torch

from lora_course import checks
from lora_course.classroom.room import room_for
from lora_course.lesson import FAST, compare, eta, milliseconds, operations, reference, steps, workplace
from lora_lab import load_adapter, load_model, load_task, load_tokenizer
from lora_lab.training.models import weight_bytes
from lora_lab.training.watching import quiet

torch.set_grad_enabled(False)  # nearly everything below only answers
store, mark, sentences = workplace("old_09"), " (illustration)" if FAST else "", 40 if FAST else 200
run = reference("minilm-rt-r8")  # an adapter of ours: film reviews, rank 8 on q and v
print("adapter:", run.environment["date"], f"{run.metrics['accuracy']:.1%} on test sentences")
print("later we train one more:", eta(steps(200, 12)))
print(room_for("old_09"))

# %% [markdown]
# ## Two places for an update
# **Beside.** In training LoRA is a detour: $y = W x + s\,B A x$, two thin products more for each adapted layer.
#
# **Merged.** Both terms are matrices times the same $x$, so their sum is *one* matrix: $W' = W + s\,B A$, of $W$'s shape. Nothing of LoRA is then left in the forward pass.
# To **unmerge** is to have $W$ back.
#
# ### Exercise 1 · 4 minutes
# Write $W'$. Shapes: `W` (out, in), `A` (rank, in), `B` (out, rank); `scaling` is a number.


# %% exercise
def merged_weight(W, A, B, scaling):
    ...


checks.check_merged_weight(merged_weight)


# %% solution
def merged_weight(W, A, B, scaling):
    return W + scaling * B @ A


checks.check_merged_weight(merged_weight)

# %% [markdown]
# Now a whole model: MiniLM, with q and v adapted in each of its six layers. We ask it 200 sentences (`sentences`) with the adapter beside the base, merge, and ask again. **Predict:** on how many sentences will the answer change? And will the logits
# (the two numbers before the answer) be equal to the last bit?

# %%
guess_changed, guess_equal = None, None  # a number; True or False

task, tokenizer = load_task("rt"), load_tokenizer("minilm")
batch = tokenizer(list(task.test.texts[:sentences]), padding=True, return_tensors="pt")


def adapted(dtype="fp32"):
    model = load_model("minilm", num_labels=2, dtype=dtype)
    load_adapter(model, run.adapter)
    return model


# %%
from lora_lab import merge, unmerge

model = adapted()
beside = model(**batch).logits
base_weights = {name: p.clone() for name, p in model.named_parameters() if "base_layer" in name}
report = merge(model)
merged = model(**batch).logits
print(report)
print(compare("answers that changed", guess_changed, int((merged.argmax(1) != beside.argmax(1)).sum()), f"of {sentences}"))
you_said = "nothing" if guess_equal is None else guess_equal
print("equal to the bit:", torch.equal(merged, beside), f"(you said {you_said}); largest difference {(merged - beside).abs().max():.1e}")

# %% claim
assert torch.equal(merged.argmax(1), beside.argmax(1)) and (merged - beside).abs().max() < 1e-4

# %% [markdown]
# Not to the bit: $(W + sBA)\,x$ and $W x + s B A x$ are the same number on paper, but each sum here is rounded to fp32's 24 bits, in another order.
#
# ## Out again, a hundred times
# `merge` writes $W'$ into a copy and keeps $W$ itself, so `unmerge` gives every bit back, at the price of the memory. One could also subtract $s\,B A$ again. **Predict:** of a weight to
# which an update was added once and subtracted once, what percentage of the numbers are the same, to the bit? And after a hundred times, how many times as far off is it as after one?

# %%
guess_same, guess_drift = None, None  # per cent; times

# %%
unmerge(model)
kept = all(torch.equal(p, base_weights[name]) for name, p in model.named_parameters() if name in base_weights)
print("unmerged, to the bit:", kept)

layer = next(module for module in model.modules() if hasattr(module, "lora_A"))
W, update = layer.frozen_weight(), layer.delta_weight()
again, off = W.clone(), []
for _ in range(100):
    again = again + update - update
    off.append(float((again - W).norm() / W.norm()))
    same = float((again == W).float().mean()) if len(off) == 1 else same
once, hundred = off[0], off[-1]
print(compare("equal to the bit after one", guess_same, 100 * same, "%"))
print(f"off by {once:.1e} after one, {hundred:.1e} after a hundred")
print(compare("a hundred against one", guess_drift, hundred / once, "times"))

# %% claim
assert kept and 0 < once < 1e-6 and hundred < 3 * once and same < 1

# %% [markdown]
# A rounding, once; then the same two numbers are found again and again, so the error does not accumulate.
#
# ## In bf16
# Large models are kept in **bf16**: 16 bits, of which 8 say the number and the others its power of two. From 0.5 to 1 its numbers are $2^{-8} = 0.0039$ apart. Whatever lies between two of them is
# **rounded** to the nearer one. An adapter's update is small, and there lies the trouble.
#
# ### Exercise 2 · 3 minutes
# A weight is 0.75, in bf16. Up to which size is an update rounded back to 0.75?

# %% exercise
largest = ...
checks.check_lost_update(largest)

# %% solution
largest = 2**-8 / 2
checks.check_lost_update(largest)

# %% [markdown]
# The next cell tries it. Then comes our adapter, merged into MiniLM in bf16. **Predict:** how large is the rounding, in per cent of the update itself (both as norms, the root of the sum of squares)?

# %%
guess_rounding = None  # per cent

weight = torch.tensor(0.75, dtype=torch.bfloat16)
for update in (0.9 * 2**-9, 1.1 * 2**-9):
    print(f"0.75 + {update:.5f} = {(weight.float() + update).bfloat16().item():.5f}")

# %% claim
assert (weight.float() + 0.9 * 2**-9).bfloat16() == weight < (weight.float() + 1.1 * 2**-9).bfloat16()

# %%
narrow = adapted("bf16")
report = merge(narrow)
print(report)
print(compare("rounding", guess_rounding, 100 * report.rounding, "% of the update"))
changed = int((narrow(**batch).logits.argmax(1) != beside.argmax(1)).sum())
print(f"{changed} of {sentences} answers differ from fp32 with the adapter beside")

# %% claim
assert 0 < report.rounding < 0.1 and changed <= 10

# %% [markdown]
# That is little, because *this* adapter is large: it trained at a high rate on a small model. What of a gentler one? We take one of its matrices, make its update smaller and smaller, and merge.

# %%
from lora_course.plots.merging import rounding_picture
from lora_lab.methods.merge import rounding_of

W, update = layer.frozen_weight(), layer.delta_weight()
shrink = [2.0**-n for n in range(12)]
kept = {"bf16": W.bfloat16(), "fp16": W.half()}
lost = {name: [rounding_of("", w, w.float() + f * update).relative for f in shrink] for name, w in kept.items()}
own = float(update.norm() / W.norm())
rounding_picture([own * f for f in shrink], lost, own)

# %% claim
assert lost["bf16"][7] > 0.5 > 0.1 > lost["bf16"][0] and all(a > b for a, b in zip(lost["bf16"], lost["fp16"]))

# %% [markdown]
# Of an update of a thousandth of the weight, bf16 turns more than half into noise. Beside its base the same update is never rounded to a step of the *weight*: A and B are kept in fp32. What is rounded there are the
# activations, where they are bf16: the two thin products and their sum with $W x$, each by a share of its own size. So: **merge in fp32**, `merge(model, fp32=True)`, and round the result only if you must, knowing
# what it costs. You cannot merge into a base of *4 bits* without dequantizing it first (lesson 11).
#
# ## "No added latency"
# So says the paper of merged LoRA (abstract: "unlike adapters, no additional inference latency"; section 4.1), and it is its argument against adapters of the older kind, bottlenecks that each token must pass. **Predict:** how many per cent longer does one sentence take with the adapter *beside* its base? And *merged*?

# %%
guess_beside, guess_merged = None, None  # per cent longer than the base

# %%
merge(model)
models = {"base": load_model("minilm", num_labels=2), "merged": model, "beside": adapted()}


def asked(rows):
    """Of each model, how to ask it so many rows."""
    few = {key: value[:rows] for key, value in batch.items()}
    return {name: lambda way=way: way(**few) for name, way in models.items()}

# %%
for rows in (1, 8 if FAST else 32):
    took = milliseconds(asked(rows), rounds=3 if FAST else 40)
    print(f"{rows:2} rows:", ", ".join(f"{name} {ms:.1f} ms ({ms / took['base']:.2f})" for name, ms in took.items()), mark)
    if rows == 1:
        print(compare("beside", guess_beside, 100 * (took["beside"] / took["base"] - 1), "% longer"))
        print(compare("merged", guess_merged, 100 * (took["merged"] / took["base"] - 1), "% longer"))
work = {name: operations(way) for name, way in asked(1).items()}
print("operations:", {name: f"{count / work['base'] - 1:+.1%}" for name, count in work.items()})

from lora_course.lesson import claim

said = claim("10a")  # the abstract's sentence, over three ways to hold the base; 10b says the like of swapping
said

# %% claim
assert work["merged"] == work["base"] < work["beside"] < 1.02 * work["base"]
assert said.word == "true" and claim("10a", merged=False).word == "false" and claim("10b").word == "false"

# %% [markdown]
# Times jump when a machine does other things as well. What does not jump is the arithmetic, so the last line counts it, multiplications and additions. Merged, it is the base's own, exactly: the claim is about latency, and it holds. (That bf16 rounds the update when
# it is merged is another matter, which the card tells and does not judge by.) Beside, less than one percent more has to be *computed*. The *time* of one sentence grows by more than that (in our stored run for the paper's table 1, on a CPU, by 10.1<!--latency.one--> %
# for one row of 128 tokens and by 2.4<!--latency.many--> % for 32 of 512), since each thin product is a call of its own, and a call costs some microseconds however thin it is. On a GPU, where one sentence is over sooner, expect those calls to weigh more; we
# have not measured it.
#
# **Stop here** if time is short: you can merge and know the price. The rest is what the slogan leaves out.
#
# ## Another adapter
# We need a second one that behaves visibly differently. Let us train a **contrarian**: the same sentences with the labels swapped, rank 4. It should like what the first dislikes.

# %%
import pandas as pd

from lora_lab import LoRA, train

rows = 200 if FAST else len(task.train.texts)
labels = [task.labels[1 - number] for number in task.train.labels[:rows]]  # the other one
store.mkdir(parents=True, exist_ok=True)
pd.DataFrame({"text": task.train.texts[:rows], "label": labels}).to_csv(store / "swapped.csv", index=False)
with torch.enable_grad():
    second = train("minilm", str(store / "swapped.csv"), LoRA(rank=4, alpha=8), lr=2e-3, steps=steps(200, 12), validations=0, store=store)
print(f"{second.metrics['accuracy']:.1%} on held-out swapped labels", mark)

# %% [markdown]
# ## Swapping
# An **adapter bank** keeps one base and many adapters beside it, each by a name. `use` chooses one: no weight moves, only the name is set.
# A *merged* model must unmerge the old one and merge the new one: it writes every adapted matrix anew. **Predict** how many milliseconds each takes.

# %%
guess_use, guess_rewrite = None, None  # milliseconds

# %%
from lora_lab import AdapterBank

bank = AdapterBank(load_model("minilm", num_labels=2))
bank.load("critic", run.adapter)
bank.load("contrarian", second.adapter)
one = tokenizer(["A warm, funny and wonderful film."], return_tensors="pt")
for name in bank.names:
    bank.use(name)
    print(f"{name:11}", {label: f"{p:.0%}" for label, p in zip(task.labels, bank.model(**one).logits.softmax(1)[0].tolist())}, mark)
bank.use("critic")
torch.testing.assert_close(bank.model(**batch).logits, beside, rtol=1e-4, atol=1e-4)  # as if it were alone

# %%
swaps = {"use": lambda: (bank.use("contrarian"), bank.use("critic")), "rewrite": lambda: (unmerge(model), merge(model))}
took = milliseconds(swaps, rounds=20)
use, rewrite = took["use"] / 2, took["rewrite"]
print(compare("use", guess_use, use, "ms"))
print(compare("unmerge and merge", guess_rewrite, rewrite, "ms"))

# %% claim
assert use < 1 and rewrite > 10 * use

# %% [markdown]
# And that is a model of 23 million numbers. With 7 billion the rewriting goes through gigabytes, while `use` still sets a name.
#
# ## One batch, many adapters
# A server gets sentences of many people at once and wants to answer them in *one* batch. In a **mixed batch** each row names its adapter: $W x$ for all rows together, the thin detour for each row
# its own. Can a merged model do that? It has one $W'$, and that holds one adapter.

# %%
names = (["critic", "contrarian", None] * 8)[:24]  # None: the base alone
few = {key: value[:24] for key, value in batch.items()}
with bank.mixed(names):
    mixed = bank.model(**few).logits
for name in ("critic", "contrarian", None):
    bank.use(name)
    own_rows = [row for row, named in enumerate(names) if named == name]
    torch.testing.assert_close(mixed[own_rows], bank.model(**few).logits[own_rows], rtol=1e-4, atol=1e-4)
print("24 rows, three ways of answering, one forward pass: equal to asking one after the other")
base, adapter = weight_bytes("minilm"), (Path(run.adapter) / "adapter_model.safetensors").stat().st_size
print(f"file of the base: {base:,} bytes")

# %% [markdown]
# ### Exercise 3 · 3 minutes
# Forty customers, an adapter each. Forty merged models, or one base and forty adapters? How many times the bytes do the forty merged ones take? `base` and `adapter` are the sizes of the files in bytes.

# %% exercise
times = ...
checks.check_forty_copies(times, base, adapter)

# %% solution
times = 40 * base / (base + 40 * adapter)
checks.check_forty_copies(times, base, adapter)

# %% [markdown]
# ### Exercise 4 · 2 minutes
# Three of them write at the same moment. How do you answer within one batch?
# - **a** Three merged models in memory. **b** One model: merge, answer, unmerge, one customer after the other. **c** One base, its rows mixed.

# %% exercise
checks.check_serving(...)  # "a", "b" or "c"

# %% solution
checks.check_serving("c")

# %% [markdown]
# | | merged | beside |
# |---|---|---|
# | time of a forward pass | the base's own | somewhat more |
# | change the adapter | rewrite the weights | set a name |
# | several in one batch | no | yes |
# | rounding | in bf16, to a step of each weight | A and B stay in fp32; activations in bf16 are rounded |
# | file | as large as the base | thin |
#
# "No latency" is of the left column, "swap in a moment" of the right one. *You cannot have both.*
#
# ## Half of each
# Updates are matrices, so they can be weighed and added: $W + \tfrac12 \Delta_1 + \tfrac12 \Delta_2$. **Predict** what half critic, half contrarian says of the 200 sentences: accuracy in per cent?

# %%
guess_half = None  # per cent

# %%
bank.blend({"critic": 0.5, "contrarian": 0.5}, name="half")
truth = torch.tensor(task.test.labels[:sentences])
for name in bank.names:
    bank.use(name)
    right = 100 * (bank.model(**batch).logits.argmax(1) == truth).float().mean().item()
    print(f"{name:11} {right:.1f} % right", mark)
print(compare("half of each", guess_half, right, "%"), "A coin has 50.")

# %% [markdown]
# The sum of the *matrices* is exact. That the *abilities* add up too is only a hope: what lies between the matrices and the answer is not linear. Look at your number before you trust a blend.
#
# ## What is in the file
# `adapter_model.safetensors` is 8 bytes, then a header that lists names and shapes, then the numbers, nothing else; no program can hide in it. **Predict** how many bytes: 73,728 numbers in A and B, 770 in the head, 4 bytes each.

# %%
guess_bytes = None

# %%
from safetensors import safe_open

with safe_open(Path(run.adapter) / "adapter_model.safetensors", "pt") as file:
    shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
for key in list(shapes)[:2] + list(shapes)[-1:]:
    print(f"{key}  {shapes[key]}")
print(compare("the file", guess_bytes, adapter, "bytes"))
header = 8 + int.from_bytes((Path(run.adapter) / "adapter_model.safetensors").read_bytes()[:8], "little")

# %% claim
assert adapter == header + 4 * (73_728 + 770)

# %% [markdown]
# ## A checkpoint that loads without us
# To hand a merged model on, write it as a plain transformers checkpoint: in the shell `lora-lab merge ADAPTER --base minilm --out DIR`, or as here. Before the folder gets its name, plain transformers has loaded it
# and answered.

# %%
from transformers import AutoModelForSequenceClassification

from lora_lab.training.merged import write_merged

written = write_merged(run.adapter, store / "merged", base="minilm")
print(written)
with quiet():
    plain = AutoModelForSequenceClassification.from_pretrained(store / "merged")
torch.testing.assert_close(plain(**batch).logits, beside, rtol=1e-4, atol=1e-4)

# %% claim
assert written.bytes > 100 * adapter  # the price of the left column

# %% [markdown]
# One trap is left. Many language models use *one* matrix twice: to read tokens (embedding) and to choose the next (the last layer), **tied**. Merge an adapter of the embedding into it, and
# the last layer moves too, which nobody trained. So it is **untied** first, and the file grows by that matrix.

# %%
smol = load_model("smollm2")
LoRA(rank=2, targets=("embed",)).attach(smol)
before = smol.lm_head.weight.clone()
smol.model.embed_tokens.lora_embedding_A.normal_(std=0.01)
report = merge(smol)
print(report)
unmerge(smol)

# %% claim
assert report.untied and torch.equal(smol.lm_head.weight, before) and report.added_bytes == 49152 * 576 * 4
assert smol.lm_head.weight is smol.model.embed_tokens.base_layer.weight  # tied again

# %% [markdown]
# ## What you know now
# - Merging is one addition; in fp32 it comes out again, in bf16 a small update drowns. Merge in fp32.
# - Merged costs no time. It has also given up being swapped, mixed and thin.
# - Serve one task to many: merge. Serve many tasks: a bank.
#
# **Before this:** lesson 06 trains adapters that speak in voices, which are worth swapping.
