"""Train with PEFT and HF Trainer as their documentation shows, with their defaults, and print the test accuracy.

    python -m benchmarks.hf_trainer SEED STEPS [RANK RATE BATCH]

The lab provides only the task's rows, the model's folder and the recipe.
"""

import argparse
import json
import tempfile

import numpy as np
import peft
import transformers

from lora_lab.training.assets import asset_path
from lora_lab.training.tasks import load_task


def main(seed: int, steps: int, rank: int = 8, rate: float = 2e-3, batch: int = 16) -> float:
    """Train a model and return its test accuracy."""
    transformers.set_seed(seed)
    task, folder = load_task("rt"), asset_path("minilm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    config = peft.LoraConfig(r=rank, lora_alpha=16, target_modules=["query", "value"], task_type="SEQ_CLS")
    model = peft.get_peft_model(model, config)

    def rows(split):
        encoded = tokenizer(list(split.texts), truncation=True, max_length=task.max_length)
        columns = {**encoded, "labels": split.labels}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    with tempfile.TemporaryDirectory() as output:
        settings = {"per_device_train_batch_size": batch, "learning_rate": rate, "max_steps": steps, "seed": seed}
        arguments = transformers.TrainingArguments(output, **settings, save_strategy="no", report_to="none")
        collator = transformers.DataCollatorWithPadding(tokenizer)
        trainer = transformers.Trainer(model, arguments, data_collator=collator, train_dataset=rows(task.train))
        trainer.train()
        predicted = trainer.predict(rows(task.test)).predictions.argmax(-1)
    return float(np.mean(predicted == np.array(task.test.labels)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("numbers", nargs="+", type=json.loads, help="seed, steps [, rank, rate, batch]")
    print(json.dumps({"accuracy": main(*parser.parse_args().numbers)}))
