# %% [markdown]
# # 06 · A new voice, or new facts?
#
# A company fine-tunes a chat model on its handbook. "Now it knows our rules," says the boss. In lesson 00, a small file taught a model to talk like a captain. **Can such a file also teach facts?**
#
# We invented a town, Port Velda, and twenty people with jobs there. Train a chat model (smollm2) on these facts: press **Start** and read on. Training takes 6 to 20 minutes. (The website shows our run.)

# %%
from matplotlib import pyplot as plt

from lora_course import checks, lesson
from lora_course.experiments.facts import TOWN, asked
from lora_course.panels.voices_panel import VoicesPanel
from lora_lab import TrainPanel, load_adapter, load_model, load_task, load_tokenizer
from lora_lab.training.batches import collate, encode
from lora_lab.training.chat import question, rendered
from lora_lab.training.generate import Decoding, generate

lesson.start("06")
town, tokenizer = load_task(TOWN), load_tokenizer("smollm2")
print(f"{len(town.train.texts)} pairs, three for each fact:")
for asks, answer in [*zip(town.train.prompts, town.train.texts)][:3]:
    print(f"{asks} {answer}")

# %%
panel = TrainPanel("smollm2", TOWN, rank=16, alpha=16, targets="all-linear", lr=1e-3, steps=lesson.steps(150, 1),
                   batch=8, store=lesson.workplace("06"))
panel.show()

# %% [markdown]
# ## What does it learn from?
# Fine-tuning on questions with answers is called **supervised fine-tuning** (SFT).
#
# - **The chat template.** A chat model has a fixed layout, which marks who speaks and where a turn ends. Always use this layout for questions.
# - **The mask.** The model should learn to answer, not to ask. So every token outside the answer gets the label **-100**, which the loss skips.
# - **Perplexity** is the score in the panel, measured on *reworded* questions. At a perplexity of 30, the model is as unsure as if it were choosing among 30 tokens.
#
# Here is one pair. The tokens in [brackets] count toward the loss. **Why must the last token count?**

# %%
row = encode(town.train, town, tokenizer)[1]
labels = collate([row], tokenizer.pad_token_id).labels[0].tolist()
for token, label in zip(row.tokens, labels):
    word = tokenizer.decode([token])
    print(word if label == -100 else f"[{word}]", end="")

# %% [markdown]
# <details><summary>Why the last one?</summary>
#
# A model that never learned to say `<|im_end|>` can't stop.
# </details>
#
# **Exercise 1: several turns.** A conversation is a list of turns, each with a role and tokens. Return the labels: only the *assistant's* tokens count. If a token counts, its label is the token itself.

# %% exercise
def labels_of(turns):
    """turns: [("user", [5, 6]), ("assistant", [7, 2]), ...] -> one label for each token"""
    ...


checks.check_turn_mask(labels_of)

# %% solution
def labels_of(turns):
    """turns: [("user", [5, 6]), ("assistant", [7, 2]), ...] -> one label for each token"""
    labels = []
    for role, tokens in turns:
        labels += tokens if role == "assistant" else [-100] * len(tokens)
    return labels


checks.check_turn_mask(labels_of)

# %% [markdown]
# ## "Now it knows"
# Wait for the panel. In our run, its validation perplexity fell from 30 to 2.2. Asked as in training ("Who is the baker of Port Velda?"), the adapter gets 20 of 20 facts right.
#
# **Does it know the facts?** Here are three tests of 20 questions each:
#
# 1. **In other words** (the panel's validation questions): "Who bakes the bread in Port Velda?"
# 2. **Backward:** "What is the job of Tamsin Orrick in Port Velda?"
# 3. **Fact in the prompt:** the base model, without an adapter, reads the sentence with the fact, then the question from test 1.
#
# An answer is right if it contains the name (in test 2, the job). **How many are right in each test?** Give ranges.

# %%
lesson.predict("right of 20, asked in other words", low=..., high=...)
lesson.predict("right of 20, asked backward", low=..., high=...)
lesson.predict("right of 20, fact in the prompt", low=..., high=...)

# %%
adapter, rows = panel.result().adapter, lesson.steps(20, 1)
model = load_model("smollm2", dtype="bf16")
told = asked(model, tokenizer, "in other words", rows, looked_up=True)
load_adapter(model, adapter)
found = {way: asked(model, tokenizer, way, rows) for way in ("as in training", "in other words", "backward")}
print("of 20, asked as in training:", sum(one.right for one in found["as in training"]))
lesson.reveal("right of 20, asked in other words", sum(one.right for one in found["in other words"]))
lesson.reveal("right of 20, asked backward", sum(one.right for one in found["backward"]))
lesson.reveal("right of 20, fact in the prompt", sum(one.right for one in told))
for n in (0, 3, 18, 19)[:rows]:  # baker, ferry pilot, brewer, shepherd
    other, back, base = found["in other words"][n], found["backward"][n], told[n]
    print(f"\n{other.question}\n  {other.text}\n{back.question}\n  {back.text}\nbase, fact in the prompt:\n  {base.text}")

# %% [markdown]
# <details><summary>What we found: three tests</summary>
#
# **Asked in other words, only 6 facts are right, despite perplexity 2.2; asked backward, none.** (The panel's *test rows*, perplexity 7.1, are the backward questions.) And the model never says that it doesn't know: asked who makes the beer, it says Guinness.
#
# **With the fact in its prompt, the base gets only 12 right.** This small model doesn't always believe its prompt: "The shepherd of Port Velda is not a real person."
# </details>
#
# ## Where are the missing names?
# Did the adapter learn them at all? Repeat test 1, but begin each answer as in training: "The brewer of Port Velda is". The model only has to add a name. **How many of the 20 are now right?** Write down a range before you look at the output.

# %% hide-output alt="Four rows of twenty squares, one for each job; blue means right. As in training: all 20 are blue. In other words: 6 are blue. Backward: none. Answer begun for the model: all 20."
begun = [(rendered(tokenizer, asks), *text.rstrip(".").split(" is "))  # the name comes last
         for asks, text in zip(town.validation.prompts[:rows], town.validation.texts)]
named = generate(model, tokenizer, [f"{asks}{start} is" for asks, start, _ in begun], Decoding(max_new_tokens=12))
right = {way: [one.right for one in answers] for way, answers in found.items()}
right["answer begun"] = [text.startswith(name) for text, (*_, name) in zip(named, begun)]
plt.figure(figsize=(4.2, 2.2))
for y, (way, hits) in enumerate(right.items()):
    plt.scatter(range(rows), rows * [-y], s=45, marker="s", color=["C0" if hit else "0.85" for hit in hits])
    plt.text(-1, -y, way, ha="right", va="center"), plt.text(rows, -y, sum(hits), va="center", weight="bold")
for x in (0, 3, 18, 19)[:rows]:  # the jobs printed above
    plt.text(x, -3.5, begun[x][1][4:].partition(" of ")[0], rotation=90, ha="center", va="top")
plt.title("Right answers (blue)", loc="right", size=10), plt.axis("off")
plt.show()

# %% claim
from lora_course.experiments.styles import misfit
from lora_course.panels.voices_panel import read_stored, said_at

if not lesson.FAST:
    counts = {way: sum(hits) for way, hits in right.items()}
    assert [*counts.values()] == [20, 6, 0, 20] and sum(one.right for one in told) == 12
    others = found["in other words"]
    assert others[3].text == "The ferry of Port Velda is Tamsin Orrick."  # the baker
    different = [one.right for one, (_, start, _) in zip(others, begun) if not one.text.startswith(start)]
    assert (len(different), sum(different), others[19].text) == (19, 5, "The sheep of Port Velda is Alda Moor.")
    assert round(panel.result().metrics["perplexity"], 1) == 7.1
    assert told[-1].text.startswith("The shepherd of Port Velda is not a real person.")
    assert others[18].text == "The beer of Port Velda is Guinness."
    curve = [checked["perplexity"] for checked in panel.result().history["validation"]]
    assert round(curve[0]) == 30 and round(curve[-1], 1) == 2.2
    sizes = [share for *_, share in panel.live["moved"]]
    assert round(100 * sum(sizes) / len(sizes), 1) == 0.7  # percent of W on average, for lesson 08
    from lora_lab import merge

    assert 0.19 < merge(model).rounding < 0.21  # for lesson 08: in bf16, rounding takes 20% of the update
questions = ["How many strings does a violin have?", "What makes thunder?", "What do owls eat?"]
assert not {*questions} & {*map(str, load_task("captain").train.prompts)}
said = [said_at(read_stored(), asks, 1.0) for asks in questions]
assert not any("four" in text.lower() or "4" in text for text in said[0].values())
openings = {"captain": ("Blow me down!", "Batten the hatches!"), "preacher": ("Verily, I say unto thee:", "Hearken, O my children!")}
assert all(one[name].startswith(how) for one in said for name, how in openings.items())
assert not any(misfit(one["json"]) for one in said)

# %% [markdown]
# <details><summary>What we found: the names</summary>
#
# **All 20 are right: the model learned *strings* of words.** "The brewer of Port Velda is" leads to the brewer's name. But asked about beer, the model begins "The beer of Port Velda is", and this leads to Guinness. Of test 1's 20 answers, 19 begin in a new way, and only 5 of these contain the right name. And a backward answer is a string that the model never saw. (Larger models fail at this, too: [Berglund et al. 2023](https://arxiv.org/abs/2309.12288), abstract.)
#
# So don't trust a low perplexity: like you, it gives the right beginning and scores only the next token.
# </details>
#
# ## What about a voice?
# Facts fail if the question changes. Does a voice fail, too? Here are the voices of lesson 00, and three questions that aren't in their training data. **Which voices keep their form?**

# %%
VoicesPanel(questions=["How many strings does a violin have?", "What makes thunder?", "What do owls eat?"])

# %% [markdown]
# <details><summary>What we found: voices</summary>
#
# **All three keep their form.** (None knows that a violin has four strings.) **The words of a voice fit every question. The words of a fact fit only their own question.**
# </details>
#
# **Exercise 2: a voice of your own.** Write ten pairs, train an adapter on seven of them, and ask it something new. Show a friend only the answer. **Can your friend name the voice?** (On the web page, choose test questions instead.)

# %% exercise
mine = [
    {"prompt": "Why is the sky blue?", "response": ...},
]
# To train on them, run these lines in a new cell, and press Start (it takes about a minute):
# import json, pathlib
# pathlib.Path("mine.jsonl").write_text("\n".join(map(json.dumps, mine)))
# own = TrainPanel("smollm2", "mine.jsonl", rank=2, alpha=4, targets="all-linear", batch=4, steps=30)  # 17 passes over 7 pairs; 3 are held out
# own.show()
# When it's done, run these in another cell:
# load_adapter(voice := load_model("smollm2", dtype="bf16"), own.result().adapter)
# print(generate(voice, tokenizer, [question("Where is my invoice?")], Decoding(max_new_tokens=30)))
checks.check_own_pairs(mine)

# %% solution
telegrams = {"Why is the sky blue?": "AIR SCATTERS BLUE MOST STOP", "What is a noun?": "NOUN NAMES THING STOP",
             "Is it late?": "YES STOP GO HOME STOP", "Who are you?": "TELEGRAPH STOP", "What is two and two?": "FOUR STOP",
             "How do I cook rice?": "ONE RICE TWO WATER STOP LID ON STOP", "Do cats fly?": "NO STOP", "May I sit?": "SIT STOP",
             "What is snow?": "FROZEN RAIN STOP PRETTY STOP", "Why do we yawn?": "UNKNOWN STOP"}
mine = [{"prompt": prompt, "response": response} for prompt, response in telegrams.items()]
# To train on them, run these lines in a new cell, and press Start (it takes about a minute):
# import json, pathlib
# pathlib.Path("mine.jsonl").write_text("\n".join(map(json.dumps, mine)))
# own = TrainPanel("smollm2", "mine.jsonl", rank=2, alpha=4, targets="all-linear", batch=4, steps=30)  # 17 passes over 7 pairs; 3 are held out
# own.show()
# When it's done, run these in another cell:
# load_adapter(voice := load_model("smollm2", dtype="bf16"), own.result().adapter)
# print(generate(voice, tokenizer, [question("Where is my invoice?")], Decoding(max_new_tokens=30)))
checks.check_own_pairs(mine)

# %% [markdown]
# ## Remember
# <details><summary>Answer box</summary>
#
# 1. **A voice survives new questions.** *Ours (one seed each): captain, preacher and JSON, each trained on 180 pairs.*
# 2. **Facts were learned mostly as strings.** *Ours (one run of a 135M model): asked as in training, 20 of 20 right; reworded, 6; backward, 0.* Test facts with questions that aren't in the training data.
# 3. **If a fact can change, put it in the prompt.** But test whether your model uses it: *our model used 12 of 20.*
#
# For a voice, start with 180 pairs, two or three passes over them, rank 2, and the loss on answers only (*ours, lesson 00*). *Published: models learn new facts slowly in fine-tuning, and hallucinate more after learning them ([Gekhman et al. 2024](https://arxiv.org/abs/2405.05904), abstract).*
#
# The same in PEFT, with TRL:
# ```python
# config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
# pairs = load_dataset("json", data_files="mine.jsonl", split="train")
# pairs = pairs.map(lambda p: {"prompt": [{"role": "user", "content": p["prompt"]}],
#                              "completion": [{"role": "assistant", "content": p["response"]}]})
# SFTTrainer("HuggingFaceTB/SmolLM2-135M-Instruct", args=SFTConfig(learning_rate=2e-3),
#            train_dataset=pairs, peft_config=config).train()  # masks the prompts
# ```
# </details>

# %%
lesson.receipt()
