"""Valid files, and how the lab reads those of strangers: adapters, notebooks, texts, configs and recipes."""

import json
import shutil
from dataclasses import fields

import torch
from safetensors.torch import load_file, save_file

from lora_course import predictions, receipts
from lora_course.classroom import grading
from lora_lab import LoRA, Store, load_task, memory, params, save_adapter
from lora_lab.experiments import playground, results
from lora_lab.experiments.grid import Grid, numbers, share
from lora_lab.experiments.study import contenders
from lora_lab.methods.io import CONFIG, WEIGHTS
from lora_lab.training.assets import shipped
from lora_lab.training.recipe import Recipe, recipe_from
from lora_lab.training.tasks import chosen_rows
from tests.conftest import tiny, with_adapter
from tests.fuzz.mutations import WORDS, any_value, flip, in_json
from tests.methods import test_every_method as every

TEXTS = {
    "a.csv": "\n".join(["text,label", *(f'"film {n}",{n % 2}' for n in range(12))]),
    "a.jsonl": "\n".join(json.dumps({"text": f"film {n}", "label": n % 2}) for n in range(12)),
    "b.jsonl": "\n".join(json.dumps({"prompt": f"film {n}", "response": "A film."}) for n in range(12)),
    "dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tAnn ran.\tAnn moved.\tentailment\n",
}
OPTIONS = ("1e-3,2e-3", "0-4", "16", "lora:rank=4:targets=q+v,full", "prompt:tokens=10:init=random", "3/40", "sqrt:4")
METHODS = {name: (kind, every.METHODS[name]) for name, kind in dict(every.CASES).items()}
METHODS |= {
    "patterns": ("roberta", LoRA(rank=4, rank_pattern={"v": 2}, alpha_pattern={"*.0.*.query": 3})),
    "fused": ("gpt2", LoRA(rank=2, rslora=True)),
    "large": ("wide", LoRA(rank=64, targets=("all-linear",))),  # 2 MB: large enough to notice wasted memory
}
WITHOUT_HEADER = ("lora", "patterns", "fused", "embedding", "ia3", "vera", "tinylora", "prompt", "prefix", "large")


def write_valid(kind: str, place) -> None:
    """Write files of a kind. PEFT's methods are also written without our header (the large adapter in bf16)."""
    for name, (model, method) in METHODS.items() if kind == "adapters" else ():
        ours, theirs = save_adapter(with_adapter(model, method), place / name), place / f"peft-{name}"
        if name in WITHOUT_HEADER:
            theirs.mkdir()
            shutil.copy(ours / CONFIG, theirs)
            dtype = torch.bfloat16 if name == "large" else torch.float32
            save_file({key: t.to(dtype) for key, t in load_file(ours / WEIGHTS).items()}, theirs / WEIGHTS)
    for file in sorted(shipped("notebooks/solutions").glob("0[0-3]*.ipynb")) if kind == "notebooks" else ():
        (place / file.stem).mkdir()
        shutil.copy(file, place / file.stem)
        (place / file.stem / "chat.txt").write_text(receipts.Receipt("03", "Ada", {}, [], {"accuracy": 0.81}).line())
        (place / file.stem / predictions.FILE).write_text('{"student": "Ada", "what": "points", "low": 1, "found": 2}')
    for name, content in TEXTS.items() if kind == "texts" else ():
        (place / name).mkdir()
        (place / name / name).write_text(content)
    for family in ("gpt2", "bert", "roberta", "llama", "phi3", "gemma2") if kind == "configs" else ():
        tiny(family).config.save_pretrained(place / family)
    if kind == "recipes":
        for run in Store(shipped("data/results/sweeps/rate_rank_alpha.zip")).runs()[:6]:
            Store(place / "store").add(run)
        shutil.make_archive(str(place / "zip" / "runs"), "zip", place / "store")


def read_notebook(folder, random) -> object:
    chat = b"" if (file := folder / "chat.txt").is_symlink() or not file.is_file() else file.read_bytes()
    cells = grading.cells_of(next(folder.glob("*.ipynb"), folder))
    calls = [grading._constants(call) for cell in cells for call in grading._calls(cell)]
    known = grading.recognize("03", cells, [grading.Lesson(shipped("notebooks") / "03_which_knob_first.ipynb")])
    return calls, known, receipts.read(chat.decode(errors="replace")), predictions.summary(predictions.read(folder))


def read_text(folder, random) -> object:
    (name,) = (file.name for file in folder.iterdir())
    task = load_task(f"glue:rte:{folder}" if name == "dev.tsv" else str(folder / name))
    "".join([*task.train.texts, *task.test.texts, *map(str, task.train.prompts)]).encode()  # as a tokenizer encodes
    return task.train.texts and chosen_rows(task, 0)


def read_config(folder, random) -> object:
    method, labels = LoRA(rank=2, targets=random.choice(("q,v", "all-linear"))), random.choice((None, 3))
    traced = random.random() < 0.5 and memory(folder, method, batch=2, seq=16, trace=True).peak
    return traced or json.dumps(params(folder, method, labels).to_json(), allow_nan=False)


def read_recipe(folder, random) -> object:
    store, option = next(folder.glob("*.zip"), folder), random.choice(OPTIONS)
    option = random.choice((option * 3, flip(option.encode(), random).decode(errors="replace"), random.choice(WORDS)))
    given = {f.name: getattr(Recipe("minilm", "rt"), f.name) for f in fields(Recipe)}
    given |= {name: any_value(random, given[name]) for name in random.sample(list(given), random.choice((1, 2)))}
    return random.choice([
        *[lambda: results.Runs(tuple(Store(store).runs())).frame, lambda: results.load(store)] * 2,
        *[lambda: json.dumps(playground.shown(playground.read(store) or playground.load())[0], allow_nan=False)] * 2,
        lambda: (numbers("--lr", option, random.choice((int, float))), share(range(9), option)),
        lambda: contenders(option),
        lambda: recipe_from(given | {"method": in_json(LoRA(rank=4).settings(), random)}).hash,
        lambda: json.dumps([Recipe(**given).settings(), Recipe(**given).describe()]),
        lambda: Grid(**{random.choice(("rank", "alpha", "lr")): any_value(random, [option])}).recipes("minilm", "rt"),
    ])()  # fmt: skip


READ = {"notebooks": read_notebook, "texts": read_text, "configs": read_config, "recipes": read_recipe}
