# %% [markdown]
# # 10 · Supervised fine-tuning in three voices
#
# *An older lesson; where it names lessons by number, it means the older course, `old_00` to `old_15`.*
#
# **Goal.** Teach a small chat model three ways of speaking from questions with answers: see what it reads and what it learns, tune one voice live, swap voices
# on one base, and measure whether they are told apart. And find out what such a tuning does to what the model knows.
#
# **Time box.** 60 minutes. **Before this:** lesson 04 (training); 09 helps. **This machine** needs more memory than in other lessons; the first code cells say how much, and measure how long a step takes.

# %%
import time

import torch

from lora_course import checks
from lora_course.classroom.room import room_for
from lora_course.lesson import FAST, compare, reference_styles, small, steps, workplace
from lora_lab import load_model, load_task, load_tokenizer

print(room_for("old_10"))
store = workplace("old_10")
mark = " (illustration)" if FAST else ""
reference = reference_styles()
voices = {name: load_task(name) for name in ("captain", "json", "preacher")}
tokenizer, base = load_tokenizer("smollm2"), load_model("smollm2", dtype="bf16")
made = reference["environment"]
print(f"reference: three voices on {reference['recipes']['captain']['model']}, made on {made['hardware']}, {made['date']}")

# %% [markdown]
# ## The words
# - **Supervised fine-tuning** (SFT) goes on training a language model on pairs: a **prompt**, and the **response** that we wish for. It is still next-token
#   prediction; the texts are chosen, and by convention only the response counts in the loss. (Training on the prompts as well is SFT, too.)
# - SmolLM2-135M-*Instruct* has been through that once, with some 460,000 conversations (its makers' *smol-smoltalk*): it answers questions politely. We use 180.
# - A **chat template** is the layout in which such a model has read all its conversations: who speaks, where a turn ends.
# - The pairs are ours, written for this lesson: the *same* 240 everyday questions answered by a ship's captain, by a strict writer of JSON and by a King James
#   preacher. 180 train, 30 validate, 30 are for the end. Open `data/styles/` and read some.

# %%
for name, task in voices.items():
    print(f"{name:9} {task.train.prompts[1]}  {task.train.texts[1]}")
asked = [str(prompt) for prompt in voices["captain"].test.prompts]

# %% claim
assert all([str(prompt) for prompt in task.test.prompts] == asked for task in voices.values())
assert not set(map(str, voices["captain"].train.prompts)) & set(asked)  # a held-out question was never trained on

# %% [markdown]
# ## What the model reads
# We ask four words, *Why does ice float?* **Predict:** of how many tokens is the model's input?

# %%
guess_tokens = None

# %%
from lora_lab.training.chat import prompt_ids, question, rendered

ids = prompt_ids(tokenizer, [question("Why does ice float?")])[0]
print(" | ".join(tokenizer.decode([i]).replace("\n", "\\n") for i in ids))
print(compare("tokens", guess_tokens, len(ids)))
plain = len(tokenizer("Why does ice float?")["input_ids"])

# %% claim
assert len(ids) > 4 * plain
assert "helpful AI assistant named SmolLM" in rendered(tokenizer, question("Why does ice float?"))

# %% [markdown]
# Most of it is the template's: `<|im_start|>` and `<|im_end|>` mark the turns, and the template slips in a **system prompt of its own** where we give none. A model tuned *with* this
# layout and asked *without* it (or the other way round) is addressed in a format it was never trained on: a common cause of "my fine-tune does nothing". The template
# comes with the tokenizer, so nobody needs to type it.
#
# ## What it learns
# The model reads the whole row, prompt and response. Here it is to learn to *answer*, not to ask, so the loss looks at the response only: everywhere else the label is
# **-100**, which cross-entropy skips. Below, `·` stands beside what is skipped. **Look** at the very last token: why must it be learnt, too?

# %%
from lora_lab.training.batches import collate, encode

row = encode(voices["captain"].test, voices["captain"], tokenizer)[9]
labels = collate([row], tokenizer.pad_token_id).labels[0].tolist()
for token, label in list(zip(row.tokens, labels))[row.prompt - 4 :]:
    print(f"{tokenizer.decode([token])!r:18} {'·' if label == -100 else 'learnt'}")
learnt = [label for label in labels if label != -100]
print(f"{len(learnt)} of {len(row.tokens)} tokens are learnt")

# %% claim
assert tokenizer.decode(learnt[-1:]) == "<|im_end|>"  # a model that is never shown an end never stops

# %% [markdown]
# ### Exercise 1 · 4 minutes
# Write the mask: the labels of a row from its tokens and the number of tokens of its prompt. (Do not shift anything: the loss does that.)


# %% exercise
def labels_of(tokens, prompt):
    ...


checks.check_loss_mask(labels_of)


# %% solution
def labels_of(tokens, prompt):
    return [-100] * prompt + tokens[prompt:]


checks.check_loss_mask(labels_of)

# %% [markdown]
# ## Before
# How does the base answer a question that we held out? **Greedily**: always the likeliest token, so that the same question gets the same answer every time.

# %%
from lora_lab.training.generate import Decoding, generate

short = Decoding(max_new_tokens=steps(60, 16))
some = [question(text) for text in ("Why does ice float?", "What makes thunder?")[: 1 if FAST else 2]]
before = generate(base, tokenizer, some, short)
for prompt, text in zip(some, before):
    print(f"{prompt}\n    {text}")

# %% [markdown]
# ## Train one voice
# **Predict** two perplexities of the captain's *held-out* answers. (Perplexity: between how many tokens the model hesitates, on average; 1 is certainty.) Before training, and after it?

# %%
guess_before, guess_after = None, None

# %% [markdown]
# Validation chose the learning rate for our reference. What it tried, with the perplexity on the validation pairs, and how long your own run will take:

# %%
for name, tried in reference["tried"].items():
    print(f"{name:9}", ", ".join(f"rate {one['lr']:g}: {one['validation']:.2f}" for one in tried), " chosen:", f"{reference['recipes'][name]['lr']:g}", "(edge)" * reference["edge"][name])
rows = encode(voices["captain"].train, voices["captain"], tokenizer)[:4]
batch, began = collate(rows, tokenizer.pad_token_id), time.perf_counter()
with torch.inference_mode():
    base(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
n, forward = steps(reference["recipes"]["captain"]["steps"], 6), time.perf_counter() - began
print(f"{n} steps of 4 pairs: about {4 * forward * n:.0f} s here, and as long again for validation")  # a step is about 3 forwards and what is around them

# %% [markdown]
# Press **Start** and read on while the curve falls. The panel offers the other voices, too: `json`, `preacher`, and the plain-text styles `kjv` and `shakespeare`.

# %%
from lora_lab.widgets.train_panel import TrainPanel

rate = reference["recipes"]["captain"]["lr"]
few = {name: small(name, store, 16) for name in voices}  # with FAST=1 a few pairs only, else the names
panel = TrainPanel("smollm2", few["captain"], rank=8, alpha=16, targets=("q", "v"), lr=rate, steps=n, batch=4, store="runs/10")
panel.show()

# %%
run = panel.result()
curve = [v["perplexity"] for v in run.history["validation"]]
print("validation perplexity:", *(f"{p:.1f}" for p in curve), mark)
print(compare("before", guess_before, curve[0]))
print(compare("after", guess_after, curve[-1]))

# %% claim
assert curve[-1] < curve[0]
assert run.head_parameters == 0 and run.adapter_parameters == 30 * 8 * ((576 + 576) + (576 + 192))  # q and v of 30 layers

# %% [markdown]
# ### Exercise 2 · 3 minutes
# Tune as many as you have time for in the next cell: choose the voices. How many adapter files weigh as much as the base's one file?

# %%
from lora_course.experiments.styles import file_sizes
from lora_lab import LoRA, train

OTHERS = () if FAST else ("json", "preacher")  # take one away if time is short; with FAST=1 there are none
adapters = {"captain": run.adapter}
for name in OTHERS:
    settings = {key: reference["recipes"][name][key] for key in ("lr", "steps", "batch", "seed")}
    adapters[name] = train("smollm2", few[name], LoRA(rank=8, alpha=16, targets=("q", "v")), store="runs/10", validations=2, **settings).adapter
sizes = file_sizes(adapters)
print({name: f"{size / 1e6:,.1f} MB" for name, size in sizes.items()})

# %% exercise
checks.check_adapters_per_base(..., sizes)

# %% solution
checks.check_adapters_per_base(sizes["base"] / sizes["captain"], sizes)

# %% [markdown]
# ## Swap, live
# One base in memory, every adapter beside it. Ask: all answer in *one batch*, in which each row has an adapter of its own (the base has none), a token at a time. One more row has no adapter but an instruction: the base is merely *told* to be a captain.
# The dial multiplies every adapter's update. Below the answers stand the files.
# Ask a question of yours, too.

# %%
from lora_course.panels.voices_panel import VoicesPanel

asking = VoicesPanel(adapters, questions=asked, longest=steps(60, 12))
asking.show()

# %%
said = asking.answers()
for name, text in said.items():
    print(f"{name:9} {text}{mark}")

# %% claim
assert list(said) == ["base", "told", *adapters]

# %% [markdown]
# **Fallen behind**, or only an illustration above? Six steps make no captain. These are our reference's answers to three held-out questions, after all steps:

# %%
for n in (2, 4, 8):
    print(reference["questions"][n])
    for name, texts in reference["answers"].items():
        print(f"    {name:9} {texts[n][:160]}")

# %% claim
assert reference["questions"] == asked

# %% [markdown]
# **Stop here** if time is short. You have tuned a voice and swapped it; the rest measures whether voices are told apart, and what they know.
#
# ## Are they told apart?
# Reading a few good answers convinces everybody of everything. Three measures, fixed beforehand, on all 30 held-out questions:
# 1. **Form.** Of the JSON voice's answers at least 90 % must parse and fit the schema (four keys, the right types).
# 2. **Likelihood.** Each adapter scores each voice's written answers. Each voice must be most likely under its *own* adapter.
# 3. **Words.** An *ear* counts words: from the *training* answers it has learnt how often each voice says "ye", "hath" or "certainty", and names the voice that a new answer's
#    words fit best. What share of each adapter's answers does it take for the right voice?
#
# **Predict:** is the captain's adapter better or worse than the *base* at the preacher's answers? And at the JSON writer's?

# %%
from lora_course.experiments.styles import own_is_lowest, perplexities
from lora_course.plots.styles import perplexity_table

table = reference["perplexity"]
print("the captain's adapter on the preacher:", f"{table['captain']['preacher']:.1f}", " the base on him:", f"{table['base']['preacher']:.1f}")
for adapter, row in reference["heard"].items():
    print(f"{adapter:9} fits the schema: {reference['fits'][adapter]:4.0%}   heard as", {voice: f"{share:.0%}" for voice, share in row.items()})
perplexity_table(table, " (reference)")

# %% claim
assert own_is_lowest(table) and reference["n"] == 30
assert table["captain"]["preacher"] < table["base"]["preacher"] and table["captain"]["json"] > table["base"]["json"]
assert reference["fits"]["json"] >= 0.9 and reference["fits"]["base"] == 0
assert all(reference["heard"][name][name] == max(reference["heard"][name].values()) for name in voices)

# %% [markdown]
# The captain's adapter finds the preacher *less* surprising than the base does, and JSON more surprising. A voice is not an isolated switch. (Perhaps because captain and preacher share old words; that is a guess, which nothing
# here tests.) Read *columns*: along a row the texts differ, and a strict form is easier to predict than a sermon, so a low number for JSON does not mean that this voice is learned best.
# The ear is cruder: it has to pick one of the three voices even for the base's plain answers, and it counts words, not wit. Before you use such a measure, look how often it is right where the truth is known: on
# the *written* held-out answers.

# %%
from lora_course.experiments.styles import our_ear

for name, task in voices.items():
    print(f"{name:9} written, heard as", {voice: f"{share:.0%}" for voice, share in our_ear().shares(task.test.texts).items()})
print("Aye, the moon pulls her, lad:", our_ear().hears("Aye, the moon pulls her, lad"))

# %% claim
assert all(our_ear().shares(task.test.texts)[name] > 0.9 for name, task in voices.items())  # else the measure would be useless

# %% [markdown]
# Now the same table of *your* adapters.

# %%
from lora_course.experiments.styles import off_is_base

bank = asking.bank  # the base and adapters that answered above: opened once more they would take half a gigabyte more
rows_scored = 4 if FAST else 0  # 0: all
yours = perplexities(bank, tokenizer, [voices[name] for name in adapters], rows=rows_scored)
perplexity_table(yours, mark)

# %% claim
assert own_is_lowest(yours)

# %% [markdown]
# ## Off is off
# An adapter stands *beside* the weights. With none in use, does the base answer as it did **before**? Not "about": to the bit.

# %%
from lora_course.experiments.styles import plain_of

again = plain_of(bank)  # the base once more, from its files
ahoy = tokenizer("ahoy", return_tensors="pt").to(bank.model.device)
bank.use("captain")
print("with the captain on, the logits are the base's:", torch.equal(bank.model(**ahoy).logits, again(**ahoy).logits))
bank.use(None)
print("with no adapter on, the logits are the base's:", off_is_base(bank, again, tokenizer, voices["captain"]))

# %% claim
assert off_is_base(bank, again, tokenizer, voices["captain"])
bank.use("captain")
assert not torch.equal(bank.model(**ahoy).logits, again(**ahoy).logits)  # on is not off
bank.use(None)

# %% [markdown]
# ## What do they know?
# Twelve questions with a one-word answer, on facts that none of the voices was trained on. Does a voice keep what the base knows? **Predict** how many each gets right, out of twelve. And the
# JSON voice says how certain it is: how often will it say "high"?

# %%
facts = reference["facts"]
print({name: f"{right} of {facts['n']}" for name, right in facts["right"].items()})
for name, texts in facts["answers"].items():
    print(f"{name:9} {facts['questions'][0]}  {texts[0]}")
sure = [text.count('"certainty": "high"') for text in facts["answers"]["json"]]
print(f"json says high certainty {sum(sure)} times of {facts['n']}, and is right {facts['right']['json']} times")

# %% claim
assert max(facts["right"][name] for name in voices) <= facts["right"]["base"] + 1
assert sum(sure) > facts["right"]["json"]

# %% [markdown]
# No voice answers more of them than the base, and it could not well: nothing in its pairs was about them. So this test does not show that LoRA cannot learn facts; to show that, one would train on facts and ask for them in other
# words. (LoRA Without Regret, Schulman 2025, reports that what fits depends on the number of trained parameters and the amount of data.) It shows less: with these new ways of speaking, none was gained in these twelve questions. Whether some is lost,
# they cannot tell. And "certainty: high" is a *form* that most written answers have: a tuned model that sounds sure has learned to sound sure.
#
# What to do with facts is decided on other grounds: they change, and in a prompt you can look them up, correct them and cite them.
#
# ### Exercise 3 · 2 minutes
# A shop wants its chat model to quote the right prices, in a friendly tone. Where do the prices go?
# - **a** Into a hundred training pairs. **b** Into the prompt, looked up when they are asked for; the tone may go into an adapter. **c** Into an adapter of higher rank.

# %% exercise
checks.check_style_or_knowledge(...)  # "a", "b" or "c"

# %% solution
checks.check_style_or_knowledge("b")

# %% [markdown]
# ### Exercise 4 · 10 minutes, or an evening
# A voice of your own: at least ten pairs. Saved as a file of JSON lines (one pair a line) it is a task like ours: `lora-lab train --model smollm2 --task mine.jsonl`, or
# `TrainPanel("smollm2", "mine.jsonl")`. Chats of several turns go as `{"messages": [...]}`.

# %% exercise
mine = [
    # {"prompt": "Why is the sky blue?", "response": "..."},
]
checks.check_own_pairs(mine)

# %% solution
told = {"Why is the sky blue?": "SKY BLUE STOP AIR SCATTERS BLUE MOST STOP", "What is a noun?": "NOUN NAMES THING STOP", "Is it late?": "YES STOP GO HOME STOP",
        "Who are you?": "TELEGRAPH STOP", "What is two and two?": "FOUR STOP", "How do I cook rice?": "ONE RICE TWO WATER STOP LID ON STOP", "Do cats fly?": "NO STOP",
        "What is snow?": "FROZEN RAIN STOP PRETTY STOP", "May I sit?": "SIT STOP", "Why do we yawn?": "UNKNOWN STOP YAWNING NOW STOP"}
mine = [{"prompt": prompt, "response": response} for prompt, response in told.items()]
checks.check_own_pairs(mine)

# %% [markdown]
# ## "LoRA is SFT"
# You will read that. You have done both at once in this lesson. Are they one thing? The card trains one small layer in each of the ways that would be impossible if they were.

# %%
from lora_course.lesson import claim

said = claim("17")
said

# %% claim
assert said.word == "false" and claim("17", methods="lora", objectives="sft").word == "undecided"

# %% [markdown]
# ## What you know now
# - SFT is next-token prediction on chosen pairs, through the model's own chat template, with the loss on the response and on the token that ends it.
# - 180 pairs and an adapter of two megabytes are enough for a voice; one base carries many, and swapping moves no weight.
# - "Told apart" needs a measure fixed beforehand: form, likelihood by columns, words; and held-out questions.
# - With the adapter off the base is back, bit for bit. A style can go into an adapter; facts that change belong in the prompt.
#
# **Next:** lesson 11 makes the base that carries the voices smaller: four bits a weight.
