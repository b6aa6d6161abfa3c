# %% [markdown]
# # 06 · A new voice, or new facts?
#
# A company fine-tunes a chat model on its handbook. "Now it knows our rules," says the boss. In lesson 00, a small file taught a model to talk like a captain. **Can such a file also teach facts?**
#
# We invented a town and twenty people who work there: "The baker of Port Velda is Tamsin Orrick." You'll train an adapter on these facts.

# %%
from lora_course import checks, lesson
from lora_course.experiments.facts import TOWN, asked
from lora_course.panels.voices_panel import VoicesPanel
from lora_course.plots.styles import perplexity_table
from lora_lab import TrainPanel, load_adapter, load_model, load_task, load_tokenizer
from lora_lab.training.batches import collate, encode
from lora_lab.training.chat import question, rendered
from lora_lab.training.generate import Decoding, generate

lesson.start("06")
town, tokenizer = load_task(TOWN), load_tokenizer("smollm2")
print(f"{len(town.train.texts)} pairs, such as:\n{town.train.prompts[1]}\n{town.train.texts[1]}")

# %% [markdown]
# ## Three guesses
# The training pairs ask for each fact in three ways, and smollm2 reads all pairs twenty times. How many of the twenty facts will it get right?
#
# 1. **Asked as in training:** "Who is the baker of Port Velda?"
# 2. **Asked in other words:** "Who bakes the bread in Port Velda?"
# 3. **Asked backward:** "What is the job of Tamsin Orrick in Port Velda?"
#
# Give ranges you're 80% sure of. Then press **Start** and read on: training takes 6 to 20 minutes. (The website shows our run.)

# %%
lesson.predict("of 20, asked as in training", low=..., high=...)
lesson.predict("of 20, asked in other words", low=..., high=...)
lesson.predict("of 20, asked backward", low=..., high=...)

# %%
panel = TrainPanel("smollm2", TOWN, rank=16, alpha=16, targets="all-linear", lr=1e-3, steps=lesson.steps(150, 1),
                   batch=8, store=lesson.workplace("06"))
panel.show()

# %% [markdown]
# ## What does it learn from?
# Fine-tuning on questions with answers is **supervised fine-tuning** (SFT).
#
# - **The chat template.** A chat model was trained with a fixed layout, which marks who speaks and where a turn ends. If you ask without it, the model may seem to have forgotten its fine-tuning.
# - **The mask.** The model should learn to answer, not to ask. So every token outside the answer gets the label **-100**, which the loss skips.
# - **Perplexity** is the panel's score. At 30, the model is as unsure as if it were choosing among 30 tokens. (Validation: reworded questions. Test: backward questions.)
#
# Here is one pair. The tokens in [brackets] count toward the loss. Why must the last token count?

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
# **Exercise 1: several turns.** A conversation is a list of turns, each with a role and its tokens. Return the labels: only what the *assistant* says counts. For a token that counts, the label is the token itself, at the same position: the loss will shift the labels by one.

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
# ## Now ask
# An answer is right if it contains the name or, for a backward question, the job. For comparison, we ask the *base* model, with the right sentence before each question.

# %%
adapter, rows = panel.result().adapter, lesson.steps(20, 1)
model = load_model("smollm2", dtype="bf16")
looked_up = asked(model, tokenizer, "in other words", rows, looked_up=True)
load_adapter(model, adapter)
found = {way: asked(model, tokenizer, way, rows) for way in ("as in training", "in other words", "backward")}
for way, answers in found.items():
    lesson.reveal(f"of 20, asked {way}", sum(one.right for one in answers))
print("base model, asked in other words, with the right sentence first:", sum(one.right for one in looked_up))
begun = [(rendered(tokenizer, asks), *text.rstrip(".").split(" is "))  # the name comes last
         for asks, text in zip(town.validation.prompts[:rows], town.validation.texts)]
named = generate(model, tokenizer, [f"{asks}{start} is" for asks, start, _ in begun], Decoding(max_new_tokens=12))
print("adapter, given each answer's beginning:", sum(text.startswith(name) for text, (*_, name) in zip(named, begun)))
everything = [*zip(looked_up, found["in other words"], found["backward"])]
for told, other, back in everything[-3:]:
    print(f"\n{other.question}\n  base, told: {told.text}\n  adapter:    {other.text}\n  backward:   {back.text}")

# %% claim
if not lesson.FAST:
    counts = [sum(one.right for one in answers) for answers in found.values()]
    assert counts[0] == 20 and counts[1] < 10 and counts[2] < 3
    assert sum(one.right for one in looked_up) > counts[1]
    assert looked_up[-1].text.startswith("The shepherd of Port Velda is not a real person.")
    assert found["in other words"][-2].text == "The beer of Port Velda is Guinness."
    assert found["backward"][-2].text == "The job of Jasper Wynd is a pirate."
    curve = [round(checked["perplexity"]) for checked in panel.result().history["validation"]]
    assert (curve[0], curve[-1]) == (30, 2) and list(map(str, town.validation.prompts)) == [one.question for one in found["in other words"]]
    assert sum(one.text.startswith(start) for one, (_, start, _) in zip(found["in other words"], begun)) == 1
    assert sum(text.startswith(name) for text, (*_, name) in zip(named, begun)) == 20
    sizes = [share for *_, share in panel.live["moved"]]
    assert round(100 * sum(sizes) / len(sizes), 1) == 0.7  # percent of W on average, for lesson 08
    from lora_lab import merge

    assert 0.15 < merge(model).rounding < 0.25  # for lesson 08: in bf16, rounding takes a fifth of the update

# %% [markdown]
# <details><summary>What we found</summary>
#
# Asked as in training: **20 of 20**. Asked in other words: **5**. Asked backward: **0**.
#
# On the reworded questions, perplexity fell from 30 to 2. But for perplexity, the model reads the right answer and only guesses each next token. Given an answer's beginning ("The baker of Port Velda is"), it gets all twenty names right. Without this help, only one answer began like its answer in training.
#
# **It learned mostly *strings*.** The answer to a backward question is a string the model never saw. Larger models fail, too: [Berglund et al. 2023](https://arxiv.org/abs/2309.12288) call this the reversal curse (we read the abstract).
#
# Worse, our model never says it doesn't know. The beer of Port Velda is Guinness, it says, and the brewer is a pirate. It learned the *form* "The ... is ..." well.
#
# With the right sentence above the question, the base gets 12 of 20 right. In the other eight, it ignores or denies the sentence: "The shepherd of Port Velda is not a real person."
#
# In this run, the gap between 20 and 5 is clear. The smaller gaps may be luck.
# </details>
#
# ## What about a voice?
# A voice is only a form. Here are lesson 00's voices (rank 2). Which voice is right about the violin?
#
# In the table, three adapters of rank 8 read new answers. A low perplexity means "I'd have said that." In each column, the lowest number is framed: each adapter knows its own voice best. Who is less surprised by the other's answers, the captain or the preacher?

# %%
VoicesPanel(questions=["How many strings does a violin have?", "What makes thunder?", "What do owls eat?"])

# %%
perplexity_table(lesson.reference_styles()["perplexity"])

# %% claim
table = lesson.reference_styles()["perplexity"]
assert all(min(table, key=lambda row: table[row][voice]) == voice for voice in ("captain", "json", "preacher"))
against = [round(table[row][voice], 1) for row, voice in (("base", "preacher"), ("captain", "preacher"), ("base", "captain"), ("preacher", "captain"))]
assert against == [83.1, 50.9, 131.5, 110.6] and all(table["json"][voice] > table["base"][voice] for voice in ("captain", "preacher"))
from lora_course.panels.voices_panel import read_stored, said_at

said = said_at(read_stored(), "How many strings does a violin have?", 1.0)
assert len(said) == 5 and not any("four" in text.lower() or "4" in text for text in said.values())

# %% [markdown]
# <details><summary>What we found</summary>
#
# A violin has four strings. Each voice kept its form, but none knew the number.
#
# The captain is less surprised: a perplexity of 50.9 against 110.6. Still, each is less surprised by the other's answers than the base is. So voices partly share a form.
# </details>
#
# **Exercise 2: a voice of your own.** Write ten pairs, train an adapter, and show a friend only its answers. **Can they name the voice?** (On the web page, set *strength* to 0.5 instead. Which voices can you recognize?)

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
# 1. **Each adapter learned a form from 180 pairs:** captain, preacher or JSON (one seed each).
# 2. **The model learned facts mostly as strings.** *Ours: asked as in training, 20 of 20 right; reworded, 5; backward, 0; one run of a 135M model.* Test facts with rephrased and backward questions.
# 3. **Facts that change belong in the prompt:** there you can correct and cite them.
#
# For a voice, start with 180 pairs or more, two or three passes, rank 2, and the loss on answers only (*ours, lesson 00*). *Published: models learn new facts slowly in fine-tuning, and after learning them, they hallucinate more ([Gekhman et al. 2024](https://arxiv.org/abs/2405.05904), abstract only).*
#
# The same in PEFT, with TRL:
# ```python
# config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
# pairs = load_dataset("json", data_files="mine.jsonl", split="train")
# pairs = pairs.map(lambda p: {"prompt": [{"role": "user", "content": p["prompt"]}],
#                              "completion": [{"role": "assistant", "content": p["response"]}]})
# SFTTrainer("HuggingFaceTB/SmolLM2-135M-Instruct", args=SFTConfig(learning_rate=2e-3),
#            train_dataset=pairs, peft_config=config).train()  # masks the prompts
# # for several turns: SFTConfig(assistant_only_loss=True), if the template marks answers (not run here)
# ```
# </details>

# %%
lesson.receipt()
