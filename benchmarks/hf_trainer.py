"""Train with PEFT and HF Trainer as their documentation shows, with their defaults, and print the test accuracy.

    python -m benchmarks.hf_trainer SEED STEPS [RANK RATE BATCH]

Only the task's rows, the model's folder and the recipe come from the lab.
"""

import json
import sys
import tempfile

import numpy as np
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from lora_lab.training.assets import asset_path
from lora_lab.training.tasks import load_task


def main(seed: int, steps: int, rank: int = 8, rate: float = 2e-3, batch: int = 16) -> float:
    """Train a model and return its test accuracy."""
    set_seed(seed)
    task, folder = load_task("rt"), asset_path("minilm")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    config = LoraConfig(r=rank, lora_alpha=16, target_modules=["query", "value"], task_type="SEQ_CLS")
    model = get_peft_model(model, config)

    def rows(split):
        encoded = tokenizer(list(split.texts), truncation=True, max_length=task.max_length)
        columns = {**encoded, "labels": split.labels}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=batch,
            learning_rate=rate,
            max_steps=steps,
            seed=seed,
            save_strategy="no",
            report_to="none",
        )
        collator = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model, arguments, data_collator=collator, train_dataset=rows(task.train))
        trainer.train()
        predicted = trainer.predict(rows(task.test)).predictions.argmax(-1)
    return float(np.mean(predicted == np.array(task.test.labels)))


if __name__ == "__main__":
    print(json.dumps({"accuracy": main(*map(json.loads, sys.argv[1:]))}))
