# %% [markdown]
# # 08 · Merge or swap?
#
# "LoRA costs nothing when the model answers." True. "One base serves a thousand adapters." Also true. **Can you have both at once?**
#
# There are two places for an adapter. **Beside** the weight, it's a detour: $y = Wx + s\,BAx$, with $s = \alpha / r$. Or it's **merged** into the weight: $W' = W + s\,BA$. In the panel, press *merge*: $y$ stays the same, and the detour is gone. **So what's the price of a merge?**

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
# ## Price 1: rounding
# Between 0.5 and 1, bf16 has only 128 numbers, 0.0039 apart. A merge in bf16 rounds each sum to the nearest of them. Here are three updates to the weight 0.75. **Which one is lost?**

# %% alt="Three number lines with the numbers that bf16 has near 0.75, drawn as bars. A triangle marks 0.75 plus an update. 0.0015 lies nearer to 0.75, 0.0020 a little nearer to the next bar, and 0.0100 between two other bars."
plt.figure(figsize=(3.2, 2.2))
for row, update in enumerate(updates := [0.0015, 0.0020, 0.0100]):
    plt.plot([0.75 + n * 2**-8 for n in range(5)], [-row] * 5, "k|", markersize=18)
    plt.axhline(-row, color="#BBBBBB", linewidth=1, zorder=0)
    plt.plot(0.75 + update, -row, "C0v", markersize=9)
plt.yticks([0, -1, -2], [f"0.75 + {update:.4f}" for update in updates], color="C0")
plt.xticks([0.75, 0.75 + 2**-7, 0.75 + 2**-6], ["0.7500", "0.7578", "0.7656"])
plt.ylim(-2.5, 0.5)
plt.title("bf16 can store only the bars", loc="left")
plt.show()

# %% [markdown]
# <details><summary>Answer</summary>
#
# Only 0.0015 is lost, because it's less than half of 0.0039. The others are rounded *up*: 0.0020 becomes 0.0039, almost twice as much.
# </details>
#
# ## Two guesses
# 1. We merge our *critic* (lesson 00's movie-review adapter) in bf16. Its update is 17% of $W$ (lesson 07). In bf16, smaller numbers lie closer together: the gap is always 0.4% to 0.8% of the number. **How large is the rounding error, as a percentage of the update?** (Compare norms.)
# 2. To swap merged adapters, we unmerge one and merge the next. To swap adapters beside the weights, we choose the next one by name. **How many times as long does a merged swap take?**
#

# %%
lesson.predict("rounding error, percent of the update", low=..., high=...)
lesson.predict("changing a merged adapter, times as long", low=..., high=...)

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
lesson.reveal("rounding error, percent of the update", round(100 * rounding, 1), "%")

# %% [markdown]
# <details><summary>What we found</summary>
#
# Each number's error is at most half a gap: 0.2% to 0.4%. Most are smaller: the error's norm is about 0.17% *of $W$'s*, whatever the update's size. **So the smaller the update, the more of it is lost:**
#
# - The critic's update is 17% of $W$, so the error is 0.17 / 17 = **1%** of it. None of 200 answers changes.
# - The update of lesson 06's adapter is only 0.7% of $W$. The rule gives 24%. We measured **20%**: below half a gap, the error can't be larger than the update.
# </details>
#
# ## Price 2: slow swaps
# A second customer wants another adapter. **How long does a merged model keep this customer waiting?**

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
assert 0 < rounding < 0.1 and round(100 * 0.17 / 0.7) == 24
stored = [torch.tensor(0.75 + update).bfloat16().item() - 0.75 for update in updates]
assert [round(change, 4) for change in stored] == [0.0, 0.0039, 0.0117] and updates[0] < 2**-9 < updates[1]
assert len(torch.arange(0.5, 1, 2**-12).bfloat16().unique()) == 128 + 1  # with 1
W = torch.randn(384, 384)
assert 0.0016 < ((W.bfloat16() - W).norm() / W.norm()).item() < 0.0018
from copy import deepcopy

with torch.no_grad():
    stored = deepcopy(merged).bfloat16()(**sentences).logits
assert all((logits[0].argmax(-1) == other.argmax(-1)).all() for other in (*logits[1:], stored))
assert swap["rewrite the weights"] > (10 if lesson.FAST else 1000) * swap["set a name"]
assert lesson.FAST or swap["rewrite the weights"] > took["merged"] / 2

# %% [markdown]
# <details><summary>What we found</summary>
#
# Setting a name changes no number, but a merged swap rewrites every adapted weight. **A merged swap takes more than half as long as an answer,** and over 1,000 times as long as setting a name.
#
# But a detour slows every answer: each adapted matrix needs two more matrix products. In our larger test (less noise), one text takes 10<!--latency.one-->% longer.
# </details>
#
# ## Price 3: one adapter for the whole batch
# A server wants to answer many customers' sentences in *one* batch. In a merged model, all rows get the same adapter. With adapters beside the weights, the server computes $Wx$ for all rows at once, and then adds each row's own detour:
#
# $$y_n = Wx_n + s\,B_kA_kx_n, \quad k = \text{which}_n$$
#
# **Exercise 1: write this mixed batch.** `which` gives each row's adapter (its color below); `A[which]` holds each row's $A$.
#
# **Exercise 2: count bytes.** Divide the bytes of forty merged models by the bytes of one base with forty adapters.

# %% alt="Six rows of a batch, each with its customer's color. On the left, all rows go straight through one box, merged with the blue adapter: only the two blue rows end in a check mark, and four end in a cross. On the right, all rows go through one gray box, W, and each row has an arc of its own color around it: all six end in a check mark."
which, arc = [0, 2, 1, 0, 1, 2], torch.linspace(0, torch.pi, 60)
plt.figure(figsize=(4.2, 2.9))
plt.fill_betweenx([-0.6, 5.4], 2.4, 3.6, color="C0", alpha=0.4)
plt.fill_betweenx([-0.6, 5.4], 10.4, 11.6, color="#DDDDDD")
plt.text(3, -1, "merged:\n$W + sB_0A_0$", ha="center")
plt.text(11, -1, "beside:\n$W$ and detours", ha="center")
for row, adapter in enumerate(which):
    plt.plot([0, 6, None, 8, 14], [row] * 5, color="#777777", zorder=0)
    plt.plot(11 - 2 * arc.cos(), row - 0.6 * arc.sin(), color=f"C{adapter}", linewidth=3)
    plt.text(-0.3, row, f"which[{row}] = {adapter}", ha="right", va="center", color=f"C{adapter}")
    plt.text(6.3, row, "✗" if adapter else "✓", va="center", color=f"C{adapter}", fontsize=13)
    plt.text(14.3, row, "✓", va="center", color=f"C{adapter}", fontsize=13)
plt.ylim(5.5, -2.2)
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

# %% exercise
# Exercise 2: bytes of forty merged models / bytes of one base with forty adapters
base, adapter = weight_bytes("minilm"), 301_776  # bytes of the files
checks.check_forty_copies(..., base, adapter)

# %% solution
# Exercise 2: bytes of forty merged models / bytes of one base with forty adapters
base, adapter = weight_bytes("minilm"), 301_776  # bytes of the files
checks.check_forty_copies(40 * base / (base + 40 * adapter), base, adapter)

# %% claim
assert round(base / adapter) == 301 and round(40 * base / (base + 40 * adapter)) == 35

# %% [markdown]
# ## One $W'$ for two customers?
# The next cell trains a *contrarian* on the critic's training reviews, with all labels swapped. So it gets only 20% right (the critic: 86%). Then both adapters, beside the weights, answer the same review in one batch.
#
# Now we mix 60% of the critic (its update and its head) with 40% of the contrarian. **What percentage does this mixture get right?**
#
# In the panel, each dot is a review. Drag the contrarian's share from 0 to 0.6. **When do the dots move, and when do the answers change?** Above the panel, the half-and-half mixture is tested with the critic's own head, too. **Is the sentiment still there, before the head?**

# %%
lesson.predict("percent right with 40% contrarian", low=..., high=...)
(store := lesson.workplace("08")).mkdir(parents=True, exist_ok=True)
swapped = [task.labels[1 - number] for number in task.train.labels]
pd.DataFrame({"text": task.train.texts, "label": swapped})[: lesson.steps(8000, 200)].to_csv(store / "swapped.csv", index=False)
contrarian = train("minilm", str(store / "swapped.csv"), LoRA(rank=4, alpha=8), lr=2e-3, steps=lesson.steps(150, 5), validations=0, store=store)
bank.close()  # empty the bank, so that this cell can run again
bank.load("critic", critic.adapter)
bank.load("contrarian", contrarian.adapter)

batch = tokenizer(["a gripping and beautiful film"] * 2, return_tensors="pt")
with torch.no_grad(), bank.mixed(["critic", "contrarian"]):
    positive = bank.model(**batch).logits.softmax(1)[:, 1]
for customer, probability in zip(("critic", "contrarian"), positive, strict=True):
    print(f"the {customer}'s row: {probability:.0%} positive")

# %%
shares, sure = [n / 20 for n in range(21)], []
with torch.no_grad():
    for share in shares:
        if (name := f"{share:.0%}") not in bank:
            bank.blend({"critic": 1 - share, "contrarian": share}, name)
        bank.use(name)
        sure.append(bank.model(**sentences).logits.softmax(1)[range(rows), truth])  # the probability of the right answer
    bank.use("50%")
    body = bank.model.bert(**sentences).pooler_output  # the mixture's output before its head
    bank.use("critic")
    own = (bank.model.classifier(body).argmax(1) == truth).float().mean()
mixer = MixerPanel(("critic", "contrarian"), shares, sure, task.test.texts[:rows], share=0)  # start with the critic alone
print(f"half and half: {mixer.right[10]:g}% right; with the critic's own head: {own:.1%}")
lesson.reveal("percent right with 40% contrarian", mixer.right[8], "%")
mixer

# %% claim
right = mixer.right
assert lesson.FAST or (abs(right[0] - 86) < 1 and abs(right[20] - 20) < 1.5 and abs(right[8] - 81.5) < 1.5)
assert lesson.FAST or (abs(right[9] - 78.5) < 1.5 and abs(right[12] - 23.5) < 1.5 and abs(right[10] - 71) < 1.5)
certain = [100 * row.clamp(min=0.5).maximum(1 - row).mean().item() for row in sure]
assert lesson.FAST or all(abs(certain[n] - mean) < 1 for n, mean in ((0, 82.5), (8, 63.6))), certain
assert lesson.FAST or positive[0] > 0.8 > 0.2 > positive[1]
under = {}
with torch.no_grad():
    for name in ("critic", "contrarian"):
        bank.use(name)
        under[name] = bank.model.classifier(body)
    assert torch.allclose(((under["critic"] + under["contrarian"]) / 2).softmax(1)[range(rows), truth], sure[10], atol=1e-5)
heads = [100 * (one.argmax(1) == truth).float().mean().item() for one in under.values()]
assert lesson.FAST or (83 <= heads[0] <= 85 and 19 <= heads[1] <= 21), heads

# %% [markdown]
# <details><summary>What we found</summary>
#
# Along a straight line from 86% to 20%, accuracy would be 60% at a share of 0.4. It's still 81.5%. **An answer changes only when its dot crosses 50%,** and most dots cross at nearly the same share: from 0.45 to 0.6, accuracy falls from 78.5% to 23.5%.
#
# But the dots move from the start: the critic is 82.5% sure on average, and the mixture only 63.6% at a share of 0.4. **Accuracy hides what a mixture loses. Look at the probabilities.**
#
# **The sentiment is still there: only the heads cancel each other out.** With the critic's own head, the half-and-half mixture gets 83.5% right instead of 71%.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **One task for many users: merge.** Answers take no extra time. Store the merged model in fp32, or in bf16 if its answers don't change.
# 2. **Many tasks or customers: keep adapters beside the weights.** You can swap by name and mix customers in a batch, and one base with forty adapters takes 35 times fewer bytes than forty merged models. But each answer takes slightly longer.
# 3. **You can't have both:** a merged model has one $W'$, so it gives every row the same adapter. A mixture doesn't solve this: it gives both customers the same, less certain answer.
#
# *Ours: MiniLM on a CPU. Published: merged adapters add no inference latency ([Hu et al. 2021](https://arxiv.org/abs/2106.09685), abstract).*
#
# The same in PEFT:
# ```python
# model = PeftModel.from_pretrained(base, "critic", adapter_name="critic")
# model.load_adapter("contrarian", "contrarian"); model.set_adapter("contrarian")  # swap
# model(**batch, adapter_names=["critic", "contrarian"])  # one batch, two customers
# model.set_adapter("critic"); model = model.merge_and_unload()  # permanent
# ```
# </details>

# %%
lesson.receipt()
