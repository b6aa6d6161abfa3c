# %% [markdown]
# # 06 · A new voice, or new facts?
#
# A company fine-tunes a chat model on its handbook. "Now it knows our rules," says the boss. In lesson 00, a small file taught a model to talk like a captain. **Can such a file also teach facts?**
#
# We invented a town and twenty people with jobs there. You'll train an adapter on these facts.

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
# The training pairs ask for each fact in three different wordings. The model (smollm2) reads all pairs twenty times. How many of the twenty facts will it get right?
#
# 1. **Asked as in training:** "Who is the baker of Port Velda?"
# 2. **Asked in other words:** "Who bakes the bread in Port Velda?"
# 3. **Asked backward:** "What is the job of Tamsin Orrick in Port Velda?"
#
# Give ranges that you're 80% sure of. Then press **Start** and read on: training takes 6 to 20 minutes. (The website shows our run.)

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
# Fine-tuning on questions with answers is called **supervised fine-tuning** (SFT).
#
# - **The chat template.** A chat model has a fixed layout, which marks who speaks and where a turn ends. Always ask in this layout.
# - **The mask.** The model should learn to answer, not to ask. So every token outside the answer gets the label **-100**, which the loss skips.
# - **Perplexity** is the score in the panel. At a perplexity of 30, the model is as unsure as if it were choosing among 30 tokens. Validation uses the reworded questions, and the test uses the backward ones.
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
# **Exercise 1: several turns.** A conversation is a list of turns, each with a role and tokens. Return the labels: only what the *assistant* says counts. If a token counts, its label is the token itself.

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
# An answer is right if it contains the name (or, for a backward question, the job). We also ask the *base* model, but there, we put the sentence with the fact before each question.

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
    assert sum(one.right for one in looked_up) == 12 and looked_up[-1].text.startswith("The shepherd of Port Velda is not a real person.")
    assert found["in other words"][-2].text == "The beer of Port Velda is Guinness."
    curve = [checked["perplexity"] for checked in panel.result().history["validation"]]
    assert round(curve[0]) == 30 and 1.9 < curve[-1] < 2.5 and 6.6 < panel.result().metrics["perplexity"] < 7.6
    assert found["in other words"][-3].text == "The organ of Port Velda is Ysolde Penn." and town.train.texts[-9].startswith("The organist ")
    assert list(map(str, town.validation.prompts)) == [one.question for one in found["in other words"]]
    assert sum(text.startswith(name) for text, (*_, name) in zip(named, begun)) == 20
    sizes = [share for *_, share in panel.live["moved"]]
    assert round(100 * sum(sizes) / len(sizes), 1) == 0.7  # percent of W on average, for lesson 08
    from lora_lab import merge

    assert 0.15 < merge(model).rounding < 0.25  # for lesson 08: in bf16, rounding takes a fifth of the update

# %% [markdown]
# <details><summary>What we found</summary>
#
# The adapter gets **20 of 20** facts right if asked as in training.
#
# On the reworded questions (validation), perplexity fell from 30 to 2.2, but only **6** answers are right. On the backward questions (test), perplexity is 7.1, but **0** answers are right. To measure perplexity, we let the model read the right answer, so it only has to guess each next token.
#
# **It knows the names, but it often can't begin the answer.** If we begin the answer ("The baker of Port Velda is"), the adapter gets all twenty names right.
#
# **It learned mostly *strings*.** A related word sometimes leads to the right name: "The organ of Port Velda is Ysolde Penn." (In the training data, she is the *organist*.) But the answer to a backward question is a string that the model never saw. Larger models fail, too: [Berglund et al. 2023](https://arxiv.org/abs/2309.12288) call this the reversal curse (we read only the abstract).
#
# Worse, our model never says that it doesn't know: "The beer of Port Velda is Guinness."
#
# With the right sentence before the question, the base gets only 12 of 20 right. One wrong answer: "The shepherd of Port Velda is not a real person."
# </details>
#
# ## What about a voice?
# A voice is only a form. Here are the voices of lesson 00. **Which voice is right about the violin?**
#
# The table shows the perplexity of earlier adapters (rank 8) on new answers in all three voices. **Does learning one voice help with another?**

# %%
VoicesPanel(questions=["How many strings does a violin have?", "What makes thunder?", "What do owls eat?"])

# %%
perplexity_table(lesson.reference_styles()["perplexity"])

# %% claim
table = lesson.reference_styles()["perplexity"]
assert [round(table[row]["json"], 1) for row in ("base", "captain", "preacher")] == [48.9, 65.1, 73.8]
assert [round(table[a][b], 1) for a, b in (("captain", "preacher"), ("preacher", "captain"), ("base", "preacher"), ("base", "captain"))] == [50.9, 110.6, 83.1, 131.5]
assert all(table["json"][voice] > table["base"][voice] for voice in ("captain", "preacher"))
assert table["captain"]["preacher"] < table["base"]["preacher"] and table["preacher"]["captain"] < table["base"]["captain"]
from lora_course.panels.voices_panel import read_stored, said_at

said = said_at(read_stored(), "How many strings does a violin have?", 1.0)
assert len(said) == 5 and not any("four" in text.lower() or "4" in text for text in said.values())
twice = [said_at(read_stored(), asks, 2.0) for asks in ("How many strings does a violin have?", "What makes thunder?", "What do owls eat?")]
from lora_course.experiments.styles import misfit

assert '["certainty": "medium"} [' in twice[0]["json"]
assert all("} [" in one["json"] and misfit(one["json"]) for one in twice) and not any(misfit(said_at(read_stored(), asks, 1.0)["json"]) for asks in read_stored()["questions"])
openings = {"captain": ("Shiver me!", "Arr!", "Avast, "), "preacher": ("Lo, it is written: ",)}
assert all(one[name].startswith(how) for one in twice for name, how in openings.items())

# %% [markdown]
# <details><summary>What we found</summary>
#
# None is right: a violin has four strings. Each voice kept its form.
#
# Sometimes, learning another voice helps: on the preacher's answers, the captain's perplexity is 50.9 (base: 83.1). On the captain's answers, the preacher's is 110.6 (base: 131.5). But JSON and the other two make each other worse.
# </details>
#
# **Exercise 2: a voice of your own.** Write ten pairs, train an adapter on 7 of them, and show a friend only the adapter's answers. **Can your friend name the voice?** (On the web page: at *strength* 2, which voice loses its form?)
#
# <details><summary>At strength 2</summary>
#
# JSON: extra brackets follow each answer (`["certainty": "medium"} [...`), so no program can read it.
# </details>

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
# 1. **Each adapter learned a form from 180 pairs:** captain, preacher or JSON (*ours, one seed each*).
# 2. **The model learned facts mostly as strings.** *Ours (one run of a 135M model): asked as in training, 20 of 20 right; reworded, 6; backward, 0.* Test facts with reworded and backward questions.
# 3. **If a fact can change, put it in the prompt.** There you can correct it. (Test whether your model uses it.)
#
# For a voice, start with 180 pairs, two or three passes, rank 2, and the loss on answers only (*ours, lesson 00*). *Published: models learn new facts slowly in fine-tuning, and after learning them, they hallucinate more ([Gekhman et al. 2024](https://arxiv.org/abs/2405.05904), abstract only).*
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
