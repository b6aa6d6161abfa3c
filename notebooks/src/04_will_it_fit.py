# %% [markdown]
# # 04 · Will it fit?
#
# LoRA on Llama 3 8B trains 2,356<!--fit.times-fewer--> times fewer numbers than full fine-tuning. So it needs 2,356<!--fit.times-fewer--> times less memory, right?
#
# You have this model, a folder of long documents, and a free cloud GPU: a T4 with 16 GB. Will it fit? You can know before you start.

# %%
from lora_course import checks, lesson
from lora_lab import FullFineTuning, LoRA, MemoryPanel, memory
from lora_lab.accounting.gpus import card, usable

lesson.start("04")
full, lora = FullFineTuning(), LoRA(rank=8, targets=("q", "v"))

# %% [markdown]
# ## Two guesses
# Take one training step on one text of 512 tokens (a token is a word or a piece of one). Numbers take 2 bytes (bf16); LoRA's own take 4. LoRA has rank 8, on `q` and `v`. Full fine-tuning needs 61.8<!--fit.full--> GiB (1 GiB is 1.07 GB) at its fullest moment, the **peak**.
#
# **What percentage of that does LoRA need? And what percentage at 32,768 tokens?** Give ranges that you're 80 % sure of.

# %%
lesson.predict("% of full fine-tuning at 512 tokens", low=..., high=...)
lesson.predict("% of full fine-tuning at 32,768 tokens", low=..., high=...)

# %% [markdown]
# ## One step, as a film
# Press **play the step** and watch the *now* column. What appears, what vanishes, and when is it fullest?
#
# - *forward:* the model predicts each next token
# - *loss:* how wrong was it?
# - *backward:* how fast does the loss rise with each number? That's its **gradient**.
# - *update:* the optimizer (AdamW) moves the numbers
#
# Compare **full fine-tuning** with **LoRA q, v**, and drag the sequence length (tokens per text) to 32,768. Then, back at 512, pick your card under **device**: what fits?

# %%
panel = MemoryPanel("llama-3-8b", "LoRA q, v", seq=512, card="T4", longest=False)
panel

# %%
def share(seq):
    few, many = (memory("llama-3-8b", method, seq=seq).peak for method in (lora, full))
    return 100 * few / many


lesson.reveal("% of full fine-tuning at 512 tokens", share(512), "%")
lesson.reveal("% of full fine-tuning at 32,768 tokens", share(32768), "%")

# %% claim
assert share(512) < 30
assert share(32768) > 70
copied = memory("llama-3-8b", lora, seq=32768, adapter_dtype="fp32").peak  # as PEFT does without autocast
assert f"{100 * copied / memory('llama-3-8b', full, seq=32768).peak:.0f}" == "80"

# %% [markdown]
# <details><summary>What we found</summary>
#
# LoRA needs **29<!--fit.share--> %**, and on long texts **71<!--fit.share.long--> %**. (In PEFT without autocast, 80 %: it copies each adapted input in fp32.)
#
# Every number that trains brings three more: its gradient, and two running means that AdamW keeps. LoRA freezes the model, so these are nearly gone. But two things stay:
#
# - **Weights.** Frozen or not, they have to be there: 15.0<!--fit.weights--> GiB, already too much for our T4.
# - **Activations**, what forward saves for backward. A frozen `nn.Linear` needs only $W$ for backward, so its input isn't saved. Norms, attention and the MLP's product still save theirs: at 32,768 tokens LoRA keeps 144<!--fit.saved.lora--> GiB, full fine-tuning 197<!--fit.saved.full-->.
#
# Prompt tuning trains far fewer numbers than LoRA, and needs 17.9<!--fit.prompt--> GiB instead of 18.0<!--fit.lora-->. **Memory isn't what trains. It's what is there at the fullest moment.**
# </details>
#
# ## Is the picture right?
# Nothing ran for that picture: it's arithmetic. We check it with a real step (on your machine; on the site, on ours). The small MiniLM reads 4 texts of 64 tokens, in fp32: 4 bytes a number. Full fine-tuning needs 436<!--fit.minilm.full--> MiB. **And LoRA?**

# %%
lesson.predict("MiB for LoRA on MiniLM", low=..., high=...)

# %%
from lora_lab.training.measure import measure

step = {"batch": 4, "seq": 64, "dtype": "fp32", "device": "cpu", "padded": True}
for name, method in {"full": full, "LoRA": lora}.items():
    predicted, measured = memory("minilm", method, **step), measure("minilm", method, **step)
    print(f"{name}: predicted {predicted.peak:,} bytes, measured {measured.peak:,}")
lesson.reveal("MiB for LoRA on MiniLM", measured.peak / 2**20, "MiB")

# %% claim
assert predicted.peak == measured.peak == 121_465_528
assert memory("minilm", full, **step).peak > 3.7 * measured.peak

# %% [markdown]
# <details><summary>What we found</summary>
#
# Predicted and measured agree **to the byte**. LoRA needs 3.8<!--fit.minilm.times-less--> times less memory. Most of what is left, 87<!--fit.minilm.weights--> MiB, is weights.
#
# Both count tensors. A GPU keeps some memory for itself, and tensors leave gaps, so of the T4's 16 GB the lab counts 13.4<!--fit.t4--> GiB as usable. Its 16 GB are from [its manual](https://manualmachine.com/pny/tcst4mpb/8129101-user-manual), the other cards' sizes are what we remember. Never compared with a GPU.
# </details>
#
# ## A formula to remember
# Scroll up to the panel. Choose **QLoRA**: adapters on all linear layers, frozen weights in 4 bits instead of 16. Switch on **gradient checkpointing**: a layer saves only its input, and backward computes the rest again. The price is time: 1.4<!--fit.arithmetic--> times the arithmetic.
#
# Now the fullest moment is the loss. Drag the sequence length: only two blocks grow.
#
# - **Activations:** each layer saves its input.
# - **Logits:** the model's scores for the next token, one for each of the $V$ tokens that it knows. The loss holds three fp32 tables of that size: scores, their log-probabilities, the gradient.
#
# The rest, *fixed*, is in the *now* column. Write the peak as a formula.

# %% exercise
V, L, h = 128_256, 32, 4096  # vocabulary, layers, numbers per token between two layers
fixed = ...  # bytes of weights and optimizer; 1 GiB is 2**30 bytes, 1 MiB is 2**20


def peak(tokens):
    """Bytes at the peak: QLoRA with checkpointing, one text of so many tokens."""
    return ...


checks.check_peak(peak)

# %% solution
V, L, h = 128_256, 32, 4096  # vocabulary, layers, numbers per token between two layers
fixed = 5.39 * 2**30 + 160 * 2**20  # bytes of weights and optimizer


def peak(tokens):
    """Bytes at the peak: QLoRA with checkpointing, one text of so many tokens."""
    return fixed + tokens * (2 * L * h + 3 * 4 * V)


checks.check_peak(peak)

# %% [markdown]
# ## The longest text
# Your documents are long. Fit the longest text you can: Llama 3 8B, rank 8, on the card that the next cell names. Which method? How many tokens?
#
# Compute the length: solve *peak(tokens) = usable bytes*. The formula leaves out some small things, so subtract 1 %. You pass if it fits and comes within 5 % of the longest.
#
# `method` is a name from the panel; `optimizer` is `adamw`, `adamw-8bit` or `sgd`.

# %%
mine = lesson.draw("card", "T4 16 GB", "RTX 3060 12 GB", "L4 24 GB", "RTX 4090 24 GB")
room = usable(card(mine))
print(f"your card: {mine}, {room / 2**30:.2f} GiB usable")

# %% exercise
choice = {"method": ..., "checkpointing": ..., "optimizer": ..., "batch": ..., "seq": ...}
checks.check_longest_row(**choice, card=mine)

# %% solution
seq = int(0.99 * (room - fixed) / (peak(1) - fixed))  # 1 % for what the formula leaves out
choice = {"method": "QLoRA", "checkpointing": True, "optimizer": "adamw", "batch": 1, "seq": seq}
checks.check_longest_row(**choice, card=mine)

# %%
panel.longest = True  # from now on the panel shows the longest text, too

# %% claim
cheap = {"quantised": "nf4", "checkpointing": True}
fits = [memory("llama-3-8b", LoRA(rank=8, targets="all-linear"), seq=n, **cheap) for n in (4616, 4617)]
assert fits[0].peak <= usable(card("T4")) < fits[1].peak
assert fits[0].categories["logits"] > 5 * fits[0].categories["activations"]

# %% [markdown]
# <details><summary>What we found</summary>
#
# On a T4, texts of up to 4,616<!--fit.t4.adamw--> tokens fit. Without checkpointing it's 1,121<!--fit.t4.saved-->. The optimizer hardly matters: SGD, which keeps nothing, gets to 4,708<!--fit.t4.sgd-->.
#
# What fills the card? Look at the pink block: 85<!--fit.logits--> % of what each token costs is logits. No adapter can shrink them. Computing the loss in chunks can, but our calculation doesn't include it.
# </details>
#
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **Ask what is there at the fullest moment**, not what trains.
# 2. **Start with bytes per number of the model.** LoRA in bf16: 2<!--fit.bytes.lora-->. QLoRA: 0.75<!--fit.bytes.qlora--> at 8B, 0.55<!--fit.bytes.qlora-70b--> at 70B. Full fine-tuning: 8<!--fit.bytes.full--> in pure bf16, 16<!--fit.bytes.masters--> with a second copy of the weights, and the running means, in fp32. *Ours: computed for Llama. Published: QLoRA trains 65B on one 48 GB card ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314)).*
# 3. **Then bytes per token.** With checkpointing: 2 L h (layers, numbers per token), plus 12 V (vocabulary) for the logits. *Ours: computed, and equal to a measured step on small models.*
#
# The same in PEFT:
# ```python
# bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
#                           bnb_4bit_compute_dtype=torch.float16)  # T4: no bf16
# base = AutoModelForCausalLM.from_pretrained("meta-llama/Meta-Llama-3-8B", dtype=torch.float16,
#                                             quantization_config=bits)
# model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
# args = TrainingArguments("out", per_device_train_batch_size=1, fp16=True,
#                          gradient_checkpointing=True)  # newer: activation_checkpointing
# ```
# Many recipes also call `prepare_model_for_kbit_training`: it turns embeddings and head into fp32, 2.0<!--fit.embedded--> GiB more here.
# </details>

# %%
lesson.receipt()
