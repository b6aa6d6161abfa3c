"""Fine-tune a model with LoRA on your rows: try three rates on validation, keep the best, and test it once.

The file (.csv or .jsonl) has the columns text,label (for a classifier) or prompt,response (for a causal LM). Before
you run this script, run `pip install torch transformers peft accelerate`; for FOUR_BITS, add bitsandbytes.
"""

import csv
import json
import math
import random
import sys
from collections import Counter
from itertools import dropwhile

import torch
import transformers
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch.nn.functional import cross_entropy

# ---- settings
MODEL = "a folder or a hub id"
DATA = "rows.csv"
COLUMNS = ("text", "label")  # or ("prompt", "response")
OUT = "adapter"
RANK, ALPHA = 8, 16
RATES = [1e-4, 2e-4, 4e-4]
EPOCHS = 3
BATCH, ACCUMULATE = 16, 1  # rows per batch, and batches per optimizer step
MAX_TOKENS = 256  # longer rows are truncated
CHECKPOINTING = False
FOUR_BITS = False  # QLoRA: the frozen weights in NF4
SEED = 0
# ---- end of settings

GPU = torch.cuda.is_available()
DTYPE = torch.bfloat16 if GPU and torch.cuda.is_bf16_supported() else torch.float32


def read() -> tuple[list[dict], list[str]]:
    """Return the distinct rows of the file, shuffled, and the labels (none for a language model)."""
    csv.field_size_limit(2**31 - 1)  # allow long texts
    with open(DATA, newline="", encoding="utf-8-sig") as file:
        lines = dropwhile(str.isspace, file)
        if DATA.lower().endswith(".jsonl"):
            rows = list(map(json.loads, filter(str.strip, lines)))
        else:
            rows = list(csv.DictReader(lines, [name.strip() for name in next(csv.reader(lines))], restval=""))
    rows = [{name: str(row[name]).strip() for name in COLUMNS} for row in rows]
    rows = list({str(row): row for row in rows if any(row.values())}.values())  # duplicates could leak into the test
    random.Random(SEED).shuffle(rows)
    return rows, sorted({row["label"] for row in rows}) if "label" in COLUMNS else []


def encode(row: dict, tokenizer, labels: list[str]) -> dict:
    """Return token ids and labels: the class, or the response's tokens (-100: ignored by the loss)."""
    if labels:
        ids = tokenizer(row["text"], truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return {"input_ids": ids, "labels": labels.index(row["label"])}
    prompt, response = (row[name] for name in COLUMNS)
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prefix = tokenizer(prompt, add_special_tokens=not tokenizer.chat_template)["input_ids"]
    answer = tokenizer(response, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return {"input_ids": (prefix + answer)[:MAX_TOKENS], "labels": ([-100] * len(prefix) + answer)[:MAX_TOKENS]}


def body_of(model) -> str:
    """Return the name of the part with the most parameters, which is not always `base_model_prefix`."""
    return max(model.named_children(), key=lambda child: sum(p.numel() for p in child[1].parameters()))[0]


def base_model(tokenizer, labels: list[str]):
    """Return a fresh copy of the base, and the modules to train in full: heads, and those that the checkpoint lacks.

    New modules always start from the same seed.
    """
    torch.manual_seed(SEED)
    options: dict = {"dtype": DTYPE, **({"num_labels": len(labels), "ignore_mismatched_sizes": True} if labels else {})}
    kind = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModelForCausalLM
    if FOUR_BITS:
        with torch.device("meta"):
            empty = kind.from_config(transformers.AutoConfig.from_pretrained(MODEL))
        heads = [name for name, _ in empty.named_children() if name != body_of(empty)]
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=DTYPE,
            llm_int8_skip_modules=[*heads, ".*pooler"],  # 4-bit weights can't be trained in full
        )  # fmt: skip
    model, info = kind.from_pretrained(MODEL, output_loading_info=True, **options)
    model.config.pad_token_id = tokenizer.pad_token_id
    body = f"{body_of(model)}."
    whole = {key.removeprefix(body).split(".")[0] for key in info["missing_keys"]}
    whole |= {name.split(".")[0] for name, _ in model.named_parameters() if labels and not name.startswith(body)}
    return model if FOUR_BITS else model.to("cuda" if GPU else "cpu"), sorted(whole)


@torch.no_grad()
def evaluate(model, rows: list[dict], collate) -> tuple[float, float]:
    """Return (loss, accuracy), averaged over rows for a classifier, or over response tokens for a language model."""
    model.eval()
    loss, right, count = 0.0, 0, 0
    for start in range(0, len(rows), BATCH):
        batch = collate(rows[start : start + BATCH]).to(model.device)
        targets = batch.pop("labels")
        with torch.autocast(model.device.type, DTYPE, enabled=torch.bfloat16 == DTYPE):  # some layers are in fp32
            logits = model(**batch).logits.float()
        if logits.dim() == 3:  # (rows, tokens, vocabulary): each token predicts the next one
            logits, targets = logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten()
        mask = targets != -100
        loss += float(cross_entropy(logits[mask], targets[mask], reduction="sum"))
        right += int((logits[mask].argmax(-1) == targets[mask]).sum())
        count += int(mask.sum())
    return loss / count, right / count


def train(rate: float, rows: list[dict], tokenizer, labels: list[str], collate):
    """Train a LoRA model at this rate; see `base_model` for what is trained in full."""
    base, whole = base_model(tokenizer, labels)
    base.accepts_loss_kwargs = not labels  # classifiers ignore the number of rows, so the Trainer must divide the loss
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if labels else TaskType.CAUSAL_LM, r=RANK, lora_alpha=ALPHA,
        target_modules="all-linear", modules_to_save=whole or None,
        exclude_modules=rf"(.*\.)?({'|'.join(whole)})(\..*)?" if whole else None,
    )  # fmt: skip
    model = get_peft_model(base, config)
    for parameter in filter(lambda p: p.requires_grad, model.parameters()):
        parameter.data = parameter.data.float()  # PEFT leaves heads in bf16, which loses small updates
    arguments = transformers.TrainingArguments(
        OUT, learning_rate=rate, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATE, gradient_checkpointing=CHECKPOINTING,
        gradient_checkpointing_kwargs={"use_reentrant": False},  # True would cut the gradient of a frozen base
        bf16=torch.bfloat16 == DTYPE, use_cpu=not GPU, save_strategy="no", logging_steps=50, report_to="none",
        disable_tqdm=not sys.stderr.isatty(), seed=SEED,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, data_collator=collate)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return model


@torch.no_grad()
def check(folder: str, tokenizer, labels: list[str], rows: list[dict], collate):
    """Load the adapter into a fresh base. Exit if a matrix B is zero or not finite, or if the output is unchanged."""
    model = PeftModel.from_pretrained(base_model(tokenizer, labels)[0], folder).eval()
    largest = {name: float(p.abs().max()) for name, p in model.named_parameters() if "lora_B" in name}
    if not largest or not all(0 < size < math.inf for size in largest.values()):
        raise SystemExit(f"{folder} is useless: a matrix B is zero or not finite; largest absolute values: {largest}")
    batch = collate(rows[:4]).to(model.device)
    batch.pop("labels")
    on = model(**batch, output_hidden_states=True).hidden_states[-1]  # before the head, which is trained as well
    with model.disable_adapter():
        off = model(**batch, output_hidden_states=True).hidden_states[-1]
    if torch.equal(on, off):
        raise SystemExit(f"{folder} doesn't change the base's output")
    return model


def main() -> None:
    if not sys.stderr.isatty():  # in a notebook or a log file
        transformers.logging.disable_progress_bar()
    rows, labels = read()
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    collator = transformers.DataCollatorWithPadding if labels else transformers.DataCollatorForSeq2Seq
    collate = collator(tokenizer)
    data = [encode(row, tokenizer, labels) for row in rows]
    tenth = max(1, len(data) // 10)
    test, validation, training = data[:tenth], data[tenth : 2 * tenth], data[2 * tenth :]
    last = [row["input_ids"][-1] for row in data if len(row["input_ids"]) == MAX_TOKENS]
    if cut := len(last) if labels else sum(token != tokenizer.eos_token_id for token in last):
        effect = "longer ones are cut" if labels else "their ends are cut off, so they don't teach the model to stop"
        print(f"{cut} of {len(data)} rows reach MAX_TOKENS: {effect}")
    if not labels and any(set(row["labels"]) == {-100} for row in data):
        raise SystemExit("a prompt fills MAX_TOKENS, so its response isn't learned: set a larger MAX_TOKENS")
    print(f"{len(training)} rows to train on, {len(validation)} for validation, {len(test)} for the test")

    losses = {}
    for rate in RATES:
        model = train(rate, training, tokenizer, labels, collate)
        losses[rate] = evaluate(model, validation, collate)[0]
        model.save_pretrained(f"{OUT}/{rate:g}")
        print(f"rate {rate:g}: validation loss {losses[rate]:.4f}")
    best = min(losses, key=lambda rate: losses[rate] if math.isfinite(losses[rate]) else math.inf)
    if best in (min(RATES), max(RATES)):
        print(f"{best:g} is at the edge of RATES: try rates beyond it before you compare this model with another")

    model.print_trainable_parameters()
    model = check(f"{OUT}/{best:g}", tokenizer, labels, validation, collate)
    model.save_pretrained(OUT)
    loss, accuracy = evaluate(model, test, collate)  # only once
    if labels:
        p = accuracy if 0 < accuracy < 1 else 1 / (len(test) + 1)  # otherwise, the interval of 0% or 100% has no width
        half = 1.96 * math.sqrt(p * (1 - p) / len(test))
        baseline = Counter(row["labels"] for row in test).most_common(1)[0][1] / len(test)
        print(f"test: {accuracy:.1%} ± {half:.1%} right of {len(test)} rows; one label for all rows: {baseline:.1%}")
    else:
        with model.disable_adapter():
            base_loss = evaluate(model, test, collate)[0]
        print(f"test: perplexity {math.exp(loss):.2f}, without the adapter {math.exp(base_loss):.2f}")
    print(f"adapter saved in {OUT}: rate {best:g}; B is not zero, and the base's output changes")


if __name__ == "__main__":
    main()
