"""A plan for a fine-tuning job, with the lesson that supports each line, and a script that carries out the plan.

    job = plan("meta-llama/Llama-3.2-1B", "support.csv", gpu_gb=24)
    print(job)
    job.write("train.py")         # PEFT and transformers only; `script.py` is the template

The file (.csv or .jsonl) has the columns text,label or prompt,response (or prompt,completion).
"""

import math
import os
import re
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from lora_lab import BadValue, LoRA, params
from lora_lab.accounting.gpus import of_size, usable
from lora_lab.accounting.memory import estimate
from lora_lab.accounting.models import architecture_of, config_of, longest
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import binary
from lora_lab.files import write_atomically
from lora_lab.methods.base import is_number, plain
from lora_lab.training.assets import asset_path
from lora_lab.training.models import BUNDLED
from lora_lab.training.text_files import csv_rows, json_rows

KINDS = ("text", "label"), ("prompt", "response"), ("prompt", "completion")
LETTERS, TEMPLATE = 3.5, 64  # bytes per token, roughly; tokens for a chat template and system prompt
ALPHA, ROWS = 16, 16  # ROWS: per optimizer step
SPARE = 0.9  # fraction of the card to plan for: PEFT copies adapter inputs to fp32, and fragmentation costs memory too
# Settings to try, fastest first: (quantized, checkpointing, batch size).
WAYS = [("none", False, n) for n in (16, 8, 4)] + [(q, True, n) for q in ("none", "nf4") for n in (16, 8, 4, 2, 1)]


@dataclass(frozen=True)
class Plan:
    """The lines of a plan (what, the choice, why, the lesson that supports it), and its script's settings by name."""

    lines: tuple[tuple[str, str, str, str], ...]
    settings: dict[str, Any] = field(repr=False)  # not shown: they may contain paths on this machine

    def __str__(self) -> str:
        a, b, *_ = (max(map(len, column)) for column in zip(*self.lines, strict=True))
        return "\n".join(f"{what:{a}}  {choice:{b}}  {why} (lesson {n})" for what, choice, why, n in self.lines)

    def _repr_markdown_(self) -> str:
        told = ((what, choice, f"{why} (lesson {n})") for what, choice, why, n in self.lines)
        rows = (("line", "choice", "why"), ("---",) * 3, *told)
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def script(self) -> str:
        """Return the Python script: the template with these settings."""
        text = Path(__file__).with_name("script.py").read_text(encoding="utf-8")
        for name, value in self.settings.items():
            line = f"{name} = {value!r}".replace("\\", "\\\\")  # re.sub would read a Windows path's \ as an escape
            text = re.sub(rf"^{name} = [^#\n]*?(?=  #|$)", line, text, flags=re.MULTILINE)
        return text

    def write(self, path: str | Path) -> Path:
        """Write the script, and return its path; an earlier script there, perhaps edited, is kept under a new name."""
        path, script = Path(os.path.expanduser(path)), self.script().encode()
        if path.is_file() and path.read_bytes() != script:
            path.replace(next(new for n in count(1) if not os.path.lexists(new := f"{path}.{n}")))
        write_atomically(path, script)
        return path


def plan(model: str, data: str | Path, gpu_gb: float, precision: float = 2.0, out: str = "adapter") -> Plan:
    """Return a plan for this model, file and card.

    model      A bundled name, a folder, a cached hub id, or a name such as llama-3-8b (then set MODEL in the script).
    gpu_gb     The card's memory in GB.
    precision  The half-width of the 95% interval that the test accuracy should have, in points.
    Raises: BadValue for a file without the columns, the wrong kind of model, or a card that is too small.
    """
    model, data, out = (os.path.expanduser(path) for path in (model, data, out))  # transformers doesn't expand ~
    if not (is_number(precision := plain(precision)) and 0.01 <= precision < math.inf):
        raise BadValue(f"precision must be at least 0.01 points, not {precision!r}")
    rows, columns = read(data)
    shape, chat = architecture_of(model), "label" not in columns
    if chat and shape.task == "encoder":
        raise BadValue(f"{shape.name} cannot write responses: choose a causal model, or pass a file with text,label")
    if shape.task == "seq2seq" or shape.experts:
        kind = "a mixture of experts" if shape.experts else "an encoder-decoder"
        raise BadValue(f"{shape.name} is {kind}, for which there is no script: choose another model")
    lengths = sorted(sum(len(row[name].encode()) for name in (columns if chat else columns[:1])) for row in rows)
    most = lengths[-1] / LETTERS + TEMPLATE if chat else lengths[int(0.99 * (len(lengths) - 1))] / LETTERS
    tokens = min(filter(None, (math.ceil(most / 64) * 64, longest(config_of(model)))))
    method = LoRA(16 if chat else 8, alpha=ALPHA, targets=("all-linear",))
    room = usable(of_size(gpu_gb))
    for quantized, checkpointing, batch in WAYS:
        peak = estimate(model, method, Setup(batch, tokens, quantized=quantized, checkpointing=checkpointing)).peak
        if peak <= SPARE * room:
            break
    else:
        need = f"even QLoRA with one row of {tokens:,} tokens needs {binary(peak)}; {binary(room)} is free"
        raise BadValue(f"{need}: choose a larger card or a smaller model, or shorten the rows")
    rate = (2e-3 if chat else 1e-3) if shape.total < 5e8 else 2e-4 if shape.total < 3e10 else 1e-4
    needed, tenth = math.ceil(1.96**2 * 0.16 / (precision / 100) ** 2), max(1, len(rows) // 10)
    rates, steps = [rate / 2, rate, 2 * rate], math.ceil((len(rows) - 2 * tenth) / ROWS) * 3
    half, name = 196 * math.sqrt(0.16 / tenth), "QLoRA" if quantized == "nf4" else "LoRA"
    size = f"{params(model, method).trainable:,} trainable parameters"
    ours = {1e-3: "ours: 5e-4 to 2e-3 on MiniLM", 2e-3: "ours: 2e-3 (lesson 00) to 4e-3 on SmolLM2"}
    source = ours.get(rate, "published: QLoRA 2e-4 at 7B, 1e-4 at 65B")
    sure = f"a tenth of your rows gives ±{half:.1f} points if 80% are right; ±{precision:g} needs {needed:,} test rows"
    fits = "LoRA fits" if name == "LoRA" else "LoRA in bf16 doesn't fit, but QLoRA does"
    more = "and rank 2 is enough for a voice" if chat else "not counting the head (nor BERT's layer before it)"
    ask = "a tenth of your rows, for the perplexity; also ask the model rephrased questions (the script doesn't)"
    lines = (
        ("method", name, f"{fits}: predicted {binary(peak)} at {tokens} tokens per row; {binary(room)} is free", "04"),
        ("targets", "all-linear", "published: QLoRA needed it to match full fine-tuning", "13"),
        ("rank, alpha", f"{method.rank}, {ALPHA}", f"{size}, {more}; keep this alpha at other ranks", "00, 03"),
        ("rates", ", ".join(f"{r:g}" for r in rates), f"{source}; choose on validation", "03"),
        ("batch", f"{ROWS} rows", f"per step, {batch} at a time; more may hurt LoRA (undecided)", "09, claim 16"),
        ("steps", f"{steps:,}", "three passes; stop earlier if validation gets worse", "06"),
        ("test", f"{tenth:,} rows", *((ask, "06") if chat else (sure, "02"))),
        ("last checks", "two", "B isn't zero; the adapter changes a fresh base's output", "07"),
    )
    settings = {
        "MODEL": str(asset_path(model) if model in BUNDLED else model), "DATA": data, "COLUMNS": columns,
        "OUT": out, "RATES": rates, "EPOCHS": 3, "RANK, ALPHA": (method.rank, ALPHA), "MAX_TOKENS": tokens,
        "BATCH, ACCUMULATE": (batch, ROWS // batch), "CHECKPOINTING": checkpointing, "FOUR_BITS": quantized == "nf4",
    }  # fmt: skip
    return Plan(lines, settings)


def read(data: str | Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return a file's distinct rows, and the names of their columns.

    Raises: BadValue for unknown columns, fewer than ten different rows, or fewer than two labels.
    """
    table = json_rows(Path(data), *KINDS[1]) if str(data).lower().endswith(".jsonl") else csv_rows(Path(data))[1]
    rows = [{k: v.strip() if isinstance(v, str) else v for k, v in row.items()} for _, row in table]
    types = {"label": (str, int)}  # all other columns must be strings
    filled = {k for k in (rows or [{}])[0] if all(isinstance(r.get(k), types.get(k, str)) and r[k] != "" for r in rows)}
    columns = next((names for names in KINDS if {*names} <= filled), None)
    if columns is None:
        found = ", ".join(sorted(filled)) or "nothing"
        raise BadValue(f"each row needs text,label or prompt,response; in {data}, every row has {found}")
    rows = [{name: str(row[name]) for name in columns} for row in rows]
    rows = list({str(row): row for row in rows}.values())
    if len(rows) < 10:
        raise BadValue(f"{data} has {len(rows)} different rows: training, validation and test need at least 10")
    if "label" in columns and len({row["label"] for row in rows}) < 2:
        raise BadValue(f"{data} has only the label {rows[0]['label']!r}: a classifier needs at least two")
    return rows, columns
