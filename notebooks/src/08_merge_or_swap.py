# %% [markdown]
# # 08 · Merge or swap?
#
# "LoRA costs nothing when the model answers." True. "One base serves a thousand adapters." Also true. **Can you have both at once?**
#
# There are two places for an adapter. **Beside** the weight, it's a detour: $y = Wx + s\,BAx$, with $s = \alpha / r$. Or it's **merged** into the weight: $W' = W + s\,BA$. In the panel, press *merge*. What happens to the detour, to $y$, and to the number of multiplications?

# %%
import pandas as pd
import torch
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.panels.mixer_panel import MixerPanel
from lora_lab import AdapterBank, LoRA, LoRAPanel, load_adapter, load_model, load_task, load_tokenizer, merge, train, unmerge
from lora_lab.training.models import weight_bytes

lesson.start("08")
critic = lesson.reference("minilm-rt-r8")  # ours: movie reviews, rank 8 on q and v
task, tokenizer = load_task("rt"), load_tokenizer("minilm")
rows = lesson.steps(200, fast=8)
sentences = tokenizer(list(task.test.texts[:rows]), padding=True, return_tensors="pt")
truth = torch.tensor(task.test.labels[:rows])
LoRAPanel("merge", ["merge"])

# %% [markdown]
# ## Three guesses
# 1. We merge our *critic* (lesson 00's movie-review adapter) in bf16. **How large is the rounding error, as a percentage of the update?** (Compare norms.)
# 2. To swap merged adapters, we unmerge one and merge the next. To swap adapters beside the weights, we set a name. **How many times slower is the first way than the second?**
# 3. We train a *contrarian* (150 steps; the critic: 400) on the same reviews with all labels swapped. Then we mix the two: we add half of each update to $W$, and average the heads. **What percentage of the reviews does the mixture get right?**
#
# Give ranges that you're 80% sure of.

# %%
lesson.predict("rounding, percent of the update", low=..., high=...)
lesson.predict("changing a merged adapter, times as long", low=..., high=...)
lesson.predict("half and half, percent right", low=..., high=...)

# %% [markdown]
# ## Merge
# Between 0.5 and 1, the numbers in bf16 are $2^{-8} = 0.0039$ apart. Any other number is rounded to the nearest of them. Here are three updates, added to 0.75. **How large must an update be to change the stored number?**

# %% alt="Three number lines with the numbers that bf16 has near 0.75. A line goes from each wanted sum to the stored number. Two sums are rounded up, and the smallest update is lost."
plt.figure(figsize=(3.4, 2.6))
for row, update in enumerate(updates := [0.0015, 0.0020, 0.0100]):
    wanted = 0.75 + update
    stored = torch.tensor(wanted).bfloat16().item()
    plt.plot([0.75 + n * 2**-8 for n in range(5)], [-row] * 5, "k|", markersize=15)
    plt.plot([wanted, stored], [-row] * 2, "C1", linewidth=3)
    plt.plot(wanted, -row, "C0v", markersize=9)
    plt.plot(stored, -row, "C1o", markersize=9)
    plt.text(0.767, -row, f"+ {stored - 0.75:.4f}", va="center", color="C1")
plt.text(0.767, 0.8, "stored", va="center", color="C1")
plt.yticks([0.8, 0, -1, -2], ["wanted", *(f"0.75 + {update:.4f}" for update in updates)], color="C0")
plt.xticks([0.75, 0.75 + 2**-7, 0.75 + 2**-6], ["0.7500", "0.7578", "0.7656"])
plt.title("bf16 has only the numbers at the bars", loc="left")
plt.show()

# %%
def adapted(dtype="fp32"):
    model = load_model("minilm", num_labels=2, dtype=dtype)
    load_adapter(model, critic.adapter)
    return model.eval()

beside, merged, coarse = adapted(), adapted(), adapted("bf16")
rounding = merge(coarse).rounding
merge(merged)
with torch.no_grad():
    logits = [model(**sentences).logits for model in (beside, merged, coarse)]
print("largest difference between the logits:", (logits[0] - logits[1]).abs().max().item())
print(f"answers that bf16 changes: {(logits[0].argmax(1) != logits[2].argmax(1)).sum()} of {rows}")
lesson.reveal("rounding, percent of the update", round(100 * rounding, 1), "%")

# %%
one = {name: values[:1] for name, values in sentences.items()}
with torch.no_grad():
    took = lesson.milliseconds({"beside": lambda: beside(**one), "merged": lambda: merged(**one)}, rounds=lesson.steps(60, 5))
    bank = AdapterBank(load_model("minilm", num_labels=2).eval())
    bank.load("critic", critic.adapter)
    swap = lesson.milliseconds({"set a name": lambda: (bank.use(None), bank.use("critic")), "rewrite the weights": lambda: (unmerge(merged), merge(merged))}, rounds=9)
print(f"per sentence: beside {took['beside']:.3g} ms, merged {took['merged']:.3g} ms")
print(f"per swap: set a name {swap['set a name']:.3g} ms, rewrite the weights {swap['rewrite the weights']:.3g} ms")
lesson.reveal("changing a merged adapter, times as long", round(swap["rewrite the weights"] / swap["set a name"]), "times")

# %% claim
assert 0 < rounding < 0.1
errors = [abs(torch.tensor(0.75 + one).bfloat16().item() - 0.75 - one) for one in updates]
assert [round(error, 4) for error in errors] == [0.0015, 0.0019, 0.0017] and 1.9 < 2**-8 / updates[1] < 2
W = torch.randn(384, 384)
assert 0.0016 < ((W.bfloat16() - W).norm() / W.norm()).item() < 0.0018
W = W.bfloat16().float()
update = torch.randn(384, 384) / 1000
assert ((W + update).bfloat16() - W - update).norm() > 0.5 * update.norm()
from copy import deepcopy

with torch.no_grad():
    stored = deepcopy(merged).bfloat16()(**sentences).logits
assert all((logits[0].argmax(-1) == other.argmax(-1)).all() for other in (*logits[1:], stored))
assert swap["rewrite the weights"] > 10 * swap["set a name"]

# %% [markdown]
# <details><summary>The error</summary>
#
# Only the first update is lost, because it's less than 0.00195, half the gap between neighboring numbers.
#
# In bf16, rounding adds noise of up to 0.17% *of $W$*. How much this matters depends on the update:
#
# - Our critic's update is 17% of $W$ (lesson 07). The noise is 0.17 / 17 = **1%** of this update, and **none of 200 answers changes**.
# - Lesson 06's update is only 0.7% of $W$. The measured noise is **a fifth** of the update.
#
# So before you store a merged model in bf16, check its answers. Or store it in fp32, which takes twice the bytes.
# </details>
#
# <details><summary>The time and the swap</summary>
#
# With the adapter beside the weights, each adapted matrix needs two more matrix products. In our runs, this took 1% to 10.1<!--latency.one-->% more time. A merged adapter adds no time.
#
# Rewriting all adapted weights takes 1,000 to 2,000 times as long as setting a name.
# </details>
#
# ## Many adapters at once
# A server gets sentences from many customers and wants to answer them in *one* batch. A merged model can't do that, because it has only one $W'$. With adapters beside the weights, the server computes $Wx$ for all rows, and then adds each row's own detour.
#
# **Exercise 1: write the mixed batch.** `x` has a row for each sentence, and `which` gives the index of each row's adapter (its color in the picture).

# %% alt="Six rows, drawn as gray lines, go through one gray box, W. A colored arc in each row, the detour, leads around W: blue for adapter 0, orange for adapter 1, and green for adapter 2. Each row ends in W x + s B A x with its own A and B."
which, arc = [0, 2, 1, 0, 1, 2], torch.linspace(0, torch.pi, 60)
plt.figure(figsize=(3, 2.8))
plt.axvspan(3.3, 4.7, color="#DDDDDD")
plt.text(4, -1, "$W$, once for all rows", ha="center", va="center")
for row, adapter in enumerate(which):
    plt.plot([0, 8], [row, row], color="#777777", zorder=0)
    plt.plot(4 - 2 * arc.cos(), row - 0.6 * arc.sin(), color=f"C{adapter}", linewidth=3)
    plt.text(-0.2, row, f"which[{row}] = {adapter}", ha="right", va="center", color=f"C{adapter}")
    plt.text(8.2, row, f"$Wx_{row} + s\\,B_{adapter}A_{adapter}x_{row}$", va="center")
plt.ylim(5.5, -1.5)
plt.axis("off")
plt.show()

# %% exercise
def mixed(x, W, A, B, scaling, which):
    """x (rows, in), W (out, in), A (adapters, rank, in), B (adapters, out, rank), which (rows,) -> y (rows, out)"""
    ...


checks.check_mixed_batch(mixed)

# %% solution
def mixed(x, W, A, B, scaling, which):
    """x (rows, in), W (out, in), A (adapters, rank, in), B (adapters, out, rank), which (rows,) -> y (rows, out)"""
    h = torch.einsum("nri,ni->nr", A[which], x)  # each row through its own A
    return x @ W.T + scaling * torch.einsum("nor,nr->no", B[which], h)


checks.check_mixed_batch(mixed)

# %% [markdown]
# ## Half of each
# Train the contrarian (a minute or less) and put it beside the critic. Then drag the contrarian's share, slowly from 0.45 to 0.6. Each dot is a review.

# %%
(store := lesson.workplace("08")).mkdir(parents=True, exist_ok=True)
swapped = [task.labels[1 - number] for number in task.train.labels]
pd.DataFrame({"text": task.train.texts, "label": swapped})[: lesson.steps(8000, 200)].to_csv(store / "swapped.csv", index=False)
contrarian = train("minilm", str(store / "swapped.csv"), LoRA(rank=4, alpha=8), lr=2e-3, steps=lesson.steps(150, 5), validations=0, store=store)
bank.close()  # empty the bank, so that this cell can run again
bank.load("critic", critic.adapter)
bank.load("contrarian", contrarian.adapter)
shares, sure = [n / 20 for n in range(21)], []
for share in shares:
    bank.blend({"critic": 1 - share, "contrarian": share}, name=f"{share:.0%}")
    bank.use(f"{share:.0%}")
    with torch.no_grad():
        sure.append(bank.model(**sentences).logits.softmax(1)[range(rows), truth])  # the probability of the right answer
mixer = MixerPanel(("critic", "contrarian"), shares, sure, task.test.texts[:rows])
lesson.reveal("half and half, percent right", mixer.right[10], "%")

# %%
bank.use("50%")  # the half-and-half body, under each adapter's own head
with torch.no_grad():
    body = bank.model.bert(**sentences).pooler_output
    for name in ("critic", "contrarian"):
        bank.use(name)
        found = bank.model.classifier(body).softmax(1)
        print(f"under the {name}'s own head: {100 * (found.argmax(1) == truth).float().mean():.1f}% right, up to {found.max():.0%} sure")
mixer

# %% claim
right = mixer.right
assert lesson.FAST or (right[0] > right[8] > 75 > 40 > right[12] > right[20] - 5 and right[9] - right[12] > 50)
assert lesson.FAST or (abs(right[9] - 78.5) < 1.5 and abs(right[12] - 23.5) < 1.5)
assert lesson.FAST or round(max(sure[10].max(), 1 - sure[10].min()).item(), 2) == 0.65
with torch.no_grad():
    under = {}
    for name in ("critic", "contrarian"):
        bank.use(name)
        under[name] = bank.model.classifier(body)
    assert torch.allclose(((under["critic"] + under["contrarian"]) / 2).softmax(1)[range(rows), truth], sure[10], atol=1e-5)
heads = [(100 * (one.argmax(1) == truth).float().mean().item(), one.softmax(1).max().item()) for one in under.values()]
assert lesson.FAST or (83 <= heads[0][0] <= 85 and 19 <= heads[1][0] <= 21 and abs(heads[0][1] - 0.94) < 0.015 and abs(heads[1][1] - 0.85) < 0.015), heads
assert critic.recipe.steps == 400 and (lesson.FAST or contrarian.recipe.steps == 150)
logits = [sure[end].logit() for end in (0, -1)]
averaged = (logits[0] + logits[1]) / 2
alike = 100 * (averaged > 0).float().mean().item()
assert lesson.FAST or 69 <= round(alike, 1) <= 71, alike  # about 70: a few reviews lie at the border
assert lesson.FAST or round(averaged.abs().max().sigmoid().item(), 2) == 0.83
assert lesson.FAST or logits[0].abs().mean() > logits[1].abs().mean()

# %% [markdown]
# <details><summary>What we found</summary>
#
# Half a critic plus half its opposite should be no better than tossing a coin, but the mixture gets 71% right. The critic was trained longer and is more confident: its head alone is up to 94% sure, and the contrarian's head up to 85%. So the critic outweighs the contrarian. From a share of 0.45 to 0.6, accuracy falls from 78.5% to 23.5%.
#
# **Accuracy can't show you what a mixture does. Look at the probabilities.** At a share of 0.5, the mixture is never more than 65% sure. If we mix the two models' *logits* instead of their weights (dashed), accuracy is nearly the same, but the mixture is up to 83% sure.
#
# With mixed weights, both heads read the output of the *same* half-and-half body (all layers below the head), so their opposite logits largely cancel each other. **This body still knows the sentiment; only the heads disagree.** It gets 83.5% right with the critic's head, and 19.5% with the contrarian's. (One run, 200 reviews.)
# </details>
#
# **Exercise 2: forty customers.** Each customer has an adapter. You can store forty merged models, or one base and forty adapters. What's the size of the merged models divided by the size of the base plus adapters? How large is this ratio with a million customers?

# %% exercise
base, adapter = weight_bytes("minilm"), 301_776  # bytes of the files
checks.check_forty_copies(..., base, adapter)

# %% solution
base, adapter = weight_bytes("minilm"), 301_776  # bytes of the files
checks.check_forty_copies(40 * base / (base + 40 * adapter), base, adapter)

# %% claim
assert round(base / adapter) == 301 and round(40 * base / (base + 40 * adapter)) == 35

# %% [markdown]
# <details><summary>A million customers</summary>
#
# The ratio is nearly the base's size divided by an adapter's size: 90.9 MB / 0.302 MB = 301.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **One task for many users: merge.** A merged model needs no extra time. Check that bf16 doesn't change its answers, or store it in fp32.
# 2. **Many tasks, or customers with their own adapters: keep adapters beside the weights.** You can swap by name, mix customers in a batch, and store small files. But each answer takes longer.
# 3. **You can't have both.** A merged model can't swap adapters by name. If you merge a mixture of adapters, check its probabilities first.
#
# *Ours: MiniLM on a CPU. Published: merged adapters add no inference latency ([Hu et al. 2021](https://arxiv.org/abs/2106.09685), abstract).*
#
# The same in PEFT:
# ```python
# model = PeftModel.from_pretrained(base, "critic", adapter_name="critic")
# model.load_adapter("contrarian", "contrarian"); model.set_adapter("contrarian")  # swap
# model(**batch, adapter_names=["critic", "contrarian", "__base__"])  # one batch
# model.set_adapter("critic")
# model = model.merge_and_unload()  # permanent; load base with dtype=torch.float32
# before = model(**batch).logits.argmax(-1)
# print((before != model.bfloat16()(**batch).logits.argmax(-1)).sum())  # how many answers changed
# ```
# </details>

# %%
lesson.receipt()
