"""The paper's own protocol for tables 2 and 3: its models, its data, its hyperparameters, and what came out.

    recipes("table2")                   each hyperparameter with its source
    plan("table2")                      what each run would be: steps, memory, time, what is missing here
    run("table2", task="rte", ...)      the run itself, on a model and data that the user has

Settings are those of the paper's tables 9 to 11 (variant "paper") or of its authors' scripts ("repo"); full fine-tuning
follows the paper that its numbers are copied from. The rest is in data/paper/protocol.yaml. A run writes:

    OUT/HASH.json, HASH/            a run and its adapter, as in any store; an interrupted one continues
    OUT/HASH/answers.json           what a language model said, and its scores
    OUT/protocol-TABLE-TASK.json    the result

Source: Hu et al. 2021, "LoRA", arXiv 2106.09685v2, and the scripts of its authors' repository.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

from lora_course.paper import facts, table
from lora_course.paper.e2e import PRINTED
from lora_lab.accounting.gpus import UTILISATION, card, seconds, usable
from lora_lab.accounting.memory import estimate
from lora_lab.accounting.models import architecture_of, config_of
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue, LabError, NotFound, nearest
from lora_lab.experiments.generation import scored
from lora_lab.experiments.sweep import Sweep
from lora_lab.experiments.text_scores import check_installed, missing_packages
from lora_lab.files import read_json, write_json
from lora_lab.methods.base import Method
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.metrics import factor
from lora_lab.training.generate import Decoding
from lora_lab.training.models import BUNDLED, load_tokenizer
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED, Run
from lora_lab.training.tasks import Task, load_task
from lora_lab.training.train import open_adapter

FACTS = facts("paper/protocol")
TABLES, VARIANTS = ("table2", "table3"), ("paper", "repo")
DEBERTA = "deberta-v2-xxlarge"
NOT_RUN = "DeBERTa's classifier has a random pooler that must train with the head, and this lab trains the head alone"
ALWAYS = (
    "rows of a batch have similar lengths and are padded to the longest; the paper's code pads all to max_length",
    "weight decay covers the head's biases too, and the warm-up begins with its first step rather than with 0",
)


class Given(NamedTuple):
    """A hyperparameter and its source: "Table 9", "roberta_base_cola.sh", or why this value was chosen."""

    value: Any
    source: str

    def __str__(self) -> str:
        value = self.value
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, list | tuple):
            value = "+".join(value)
        return f"{value:g} ({self.source})" if isinstance(value, float) else f"{value} ({self.source})"


@dataclass(frozen=True)
class PaperRecipe:
    """One cell of a table of the paper as a training run.

    row        the row's method, as the paper calls it: "LoRA", "AdapterP 3.0M dagger"
    task       GLUE's task in lower case, such as "sst-2", or "e2e"
    published  the printed values of `metrics`; `expected`: what other people got
    warm       the task whose adapter the run starts from; "" for none
    notes      where paper, scripts and this lab differ
    """

    table: str
    row: str
    model: str
    task: str
    variant: str
    settings: Mapping[str, Given]
    metrics: tuple[str, ...]
    published: Mapping[str, str]
    warm: str
    expected: str
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        """The value of a hyperparameter."""
        return self.settings[name].value

    def get(self, name: str, otherwise: Any = None) -> Any:
        """The value of a hyperparameter, or `otherwise`."""
        return self[name] if name in self.settings else otherwise

    @property
    def title(self) -> str:
        """A line that identifies it."""
        return f"{self.table}: {self.row}, {self.model}, {self.task} ({self.variant})"

    @property
    def batch(self) -> int:
        """Rows in one update, over all GPUs."""
        return int(self["batch"] * self.get("gpus", 1))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        settings = {name: given._asdict() for name, given in self.settings.items()}
        return {**vars(self), "published": dict(self.published), "settings": settings}


def recipes(
    table: str, *, variant: str = "paper", model: str | None = None, task: str | None = None, row: str | None = None
) -> list[PaperRecipe]:
    """The recipes of a table, or those with this model, task and row.

    Raises: NotFound for a table without a protocol, and if nothing is left; BadValue for an unknown variant.
    """
    if table not in TABLES:
        raise NotFound(f"{table} has no protocol to run here; {' and '.join(TABLES)} have")
    if variant not in VARIANTS:
        raise BadValue(f"variant must be one of {', '.join(VARIANTS)}, not '{variant}'")
    found = list(_e2e(variant) if table == "table3" else _scripts() if variant == "repo" else _tables())
    for name, wanted in (("model", model), ("task", task), ("row", row)):
        there = dict.fromkeys(getattr(recipe, name) for recipe in found)
        if wanted is not None and wanted not in there:
            raise NotFound(f"there is no {name} '{wanted}' in this table; nearest: {nearest(wanted, there)}")
        found = [recipe for recipe in found if wanted in (None, getattr(recipe, name))]
    return found


def _tables() -> Iterator[PaperRecipe]:
    """Tables 9 and 10, and full fine-tuning. The warm-up ratio is printed once per table."""
    lines = [(record, "Table 9", 0.06) for record in table("table9").records()]
    deberta = {"model": "DeBERTa-XXL", "method": "LoRA", "mark": "", "trainable": "4.7M"}
    lines += [({**record, **deberta}, "Table 10", 0.1) for record in table("table10").records()]
    for record, source, warmup in lines:
        method, mark = str(record["method"]), " dagger" if record["mark"] else ""
        given = _given(record, source) | {"warmup_ratio": Given(warmup, source)}
        if method in FACTS["placements"]:
            given["placement"] = Given(FACTS["placements"][method], f"{source}: {method}")
        row = f"{method} {record['trainable']}{mark}" if "placement" in given else f"{method}{mark}"
        where = {name: record[name] for name in ("model", "method", "mark", "trainable")}
        task = next(name for name, one in FACTS["tasks"].items() if one.get("printed") == record["task"])
        yield _glue(row, where, task, "paper", _completed(given, source))
    for model in ("RoBERTa-base", "RoBERTa-large"):
        for task in list(FACTS["tasks"])[:-1]:
            settings = _settings("glue") | _settings("full")
            yield _glue("FT", {"model": model, "method": "FT", "mark": "*"}, task, "paper", settings)


def _scripts() -> Iterator[PaperRecipe]:
    for model in list(FACTS["models"])[:3]:
        for task in list(FACTS["tasks"])[:-1]:
            script = f"{model.replace('-', '_')}_{task.replace('-', '')}"
            given = _given(table("scripts").row(script=script), f"{script}.sh")
            where = {"model": FACTS["models"][model]["printed"], "method": "LoRA", "mark": ""}
            yield _glue("LoRA", where, task, "repo", _completed(given, f"{script}.sh"))


def _e2e(variant: str) -> Iterator[PaperRecipe]:
    """Table 3's runs by table 11; the repository's command differs only in the length penalty."""
    settings = _given(table("table11").row(task="E2E"), "Table 11") | _settings("e2e")
    settings |= _settings("e2e_repo") if variant == "repo" else {}
    results = table("table3")
    for model in ("gpt2-medium", "gpt2-large"):
        record = results.row(model=FACTS["models"][model]["printed"], method="LoRA")
        published = {name: _printed(record, column) for name, column in PRINTED.items()}
        reruns = "; ".join(f"{name}: {results.expected[PRINTED[name]]}" for name in FACTS["tasks"]["e2e"]["metrics"])
        own = {"table": "table3", "row": "LoRA", "model": model, "task": "e2e", "variant": variant}
        yield _recipe(own, settings, published, reruns if model == "gpt2-medium" else "")


def _settings(name: str) -> dict[str, Given]:
    return {setting: Given(*given) for setting, given in FACTS[name].items()}


def _given(record: Mapping[str, Any], source: str) -> dict[str, Given]:
    """The hyperparameters of a record, under the lab's names."""
    names = FACTS["columns"]
    return {names[key]: Given(value, source) for key, value in record.items() if key in names and value is not None}


def _completed(given: dict[str, Given], source: str) -> dict[str, Given]:
    decay = {"weight_decay": Given(0.0, f"not in {source}; none is used")}
    return decay | given | (_settings("glue_lora") if "rank" in given else {}) | _settings("glue")


def _glue(row: str, where: Mapping[str, Any], task: str, variant: str, settings: Mapping[str, Given]) -> PaperRecipe:
    model = next(name for name, one in FACTS["models"].items() if one["printed"] == where["model"])
    column, results = FACTS["tasks"][task]["printed"], table("table2")
    published = {FACTS["tasks"][task]["metrics"][0]: _printed(results.row(**where), column)}
    own = {"table": "table2", "row": row, "model": model, "task": task, "variant": variant}
    return _recipe(own, settings, published, results.expected.get(column, "") if row == "LoRA" else "")


def _recipe(
    own: dict[str, str], settings: Mapping[str, Given], published: Mapping[str, str], expected: str
) -> PaperRecipe:
    about = FACTS["tasks"][own["task"]]
    notes = tuple(note["say"] for note in FACTS["notes"] if _fits(own, note["when"]))
    warm = "mnli" if about.get("warm") and own["row"] == "LoRA" else ""
    return PaperRecipe(**own, settings=settings, metrics=tuple(about["metrics"]), published=published, warm=warm,
                       expected=expected, notes=notes)  # fmt: skip


def _fits(own: Mapping[str, str], when: Mapping[str, str | list[str]]) -> bool:
    lists = {name: [one] if isinstance(one, str) else one for name, one in when.items()}
    return all(any(fnmatchcase(own[name], one) for one in patterns) for name, patterns in lists.items())


def _printed(record: Mapping[str, Any], column: str) -> str:
    """A value with its spread, as printed: "63.4±1.2"."""
    spread = record.get(f"{column}_std")
    return f"{record[column]:g}" + ("" if spread is None else f"±{spread:g}")


# ---- plans


def plan(
    table: str, *, model_path: str | None = None, data: str | Path | None = None, gpu: str = "A100 40 GB",
    dtype: str = "bf16", utilisation: float = UTILISATION, **which: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Plans for the runs of a table, as plain values. Trains and downloads nothing.

    which              variant, model, task, row, as `recipes` takes them
    model_path, data   where model and data are, for `missing` and for the number of rows
    gpu, dtype         the card that memory and time are predicted for, at `utilisation` of its published peak
    Each plan is the recipe and: rows, steps; trainable (without the head, as the paper counts); memory (peak bytes on
    each GPU, all rows `max_length` tokens long), together (one GPU holds all rows of an update, as a run here does),
    fits (that on one GPU), at_least (whether these are lower bounds); seconds of one seed and of all; missing.
    Raises: NotFound, BadValue as `recipes` and `card`.
    """
    where, asked = card(gpu), recipes(table, **which)
    there = {one.task: _task_at(one, data) for one in {r.task: r for r in asked}.values()}
    plans = []
    for recipe in asked:
        rows, method = _rows(recipe, there[recipe.task]), _method_of(recipe)
        steps = _steps_of(recipe, rows.value)
        own, together = (_estimate(recipe, method, batch, dtype) for batch in (recipe["batch"], recipe.batch))
        one_seed = seconds(steps * (together.flops or 0), where, utilisation, dtype)
        found = {
            "rows": rows._asdict(), "steps": steps, "trainable": params(recipe.model, method).trainable,
            "card": where.name, "dtype": dtype, "utilisation": utilisation, "memory": own.peak,
            "together": together.peak, "usable": usable(where), "fits": together.peak <= usable(where),
            "at_least": recipe.model == DEBERTA, "seconds": one_seed, "seeds_seconds": one_seed * recipe["seeds"],
            "missing": list(_missing(recipe, model_path, there[recipe.task])),
        }  # fmt: skip
        plans.append({**recipe.to_json(), **found})
    return plans


def _method_of(recipe: PaperRecipe) -> Method:
    if recipe.row == "FT":
        return FullFineTuning()
    if recipe.get("placement"):
        return Bottleneck(recipe["size"], recipe["placement"])
    return LoRA(recipe["rank"], recipe["alpha"], tuple(recipe["targets"]), recipe.get("lora_dropout", 0.0))


def _steps_of(recipe: PaperRecipe, rows: int) -> int:
    """The number of updates; the last, smaller batch of an epoch counts. Raises: BadValue for no rows."""
    if rows < 1:
        raise BadValue(f"{recipe.task} has no rows to train on: its train file is missing or empty")
    return int(recipe["epochs"]) * -(-rows // recipe.batch)


def _task_name(recipe: PaperRecipe, data: str | Path) -> str:
    return str(data) if recipe.task == "e2e" else f"glue:{recipe.task}:{data}"


def _task_at(recipe: PaperRecipe, data: str | Path | None) -> Task | str:
    """The task in a folder, or why it can't be read."""
    if data is None:
        return "no folder is named"
    try:
        found = load_task(_task_name(recipe, data), max_length=recipe["max_length"])
    except LabError as error:
        return str(error)
    return found if len(found.train) else "its train file is not there"


def _rows(recipe: PaperRecipe, task: Task | str) -> Given:
    if isinstance(task, Task):
        return Given(len(task.train), "counted in the data given")
    about, sources = FACTS["tasks"][recipe.task], FACTS["sources"]
    source = sources["e2e"] if recipe.task == "e2e" else sources["glue"]
    sure = recipe.task == "e2e" or about.get("counted")
    return Given(about["rows"], source if sure else source + sources["rounded"])


def _estimate(recipe: PaperRecipe, method: Method, batch: int, dtype: str) -> Any:
    """Memory of a step with the longest rows. If the base keeps its dropout, it is 0.1, as in BERT.

    DeBERTa is modeled as a RoBERTa, which keeps two positions for padding; its relative positions come on top.
    """
    model: Any = recipe.model
    if model == DEBERTA:
        config = config_of(model)
        model = config | {"model_type": "roberta", "max_position_embeddings": config["max_position_embeddings"] + 2}
    setup = Setup(batch=batch, seq=recipe["max_length"], dtype=dtype, optimizer="adamw-fused", padded=True,
                  dropout=0.1 * bool(recipe["base_dropout"]))  # fmt: skip
    return estimate(model, method, setup, num_labels=FACTS["tasks"][recipe.task]["labels"] or 2)


def _missing(recipe: PaperRecipe, path: str | None, task: Task | str) -> Iterator[dict[str, str]]:
    """What is missing on this machine, and how to get it."""
    import torch

    if recipe.model == DEBERTA:
        yield {"what": "code", "bring": f"{NOT_RUN}; use the authors' own for this model"}
    lacks = "no folder is named" if path is None else ""
    if path is not None and path not in BUNDLED:
        try:
            load_tokenizer(path)
        except LabError as error:
            lacks = str(error)
    if lacks:
        hub = FACTS["models"][recipe.model]["hub"]
        bring = (f"{lacks}; on a machine with the network fetch {hub} (config.json, model.safetensors, the "
                 "tokenizer's files) into a folder and give it with --model-path")  # fmt: skip
        yield {"what": f"the model {recipe.model}", "bring": bring}
    e2e = recipe.task == "e2e"
    if isinstance(task, str):
        files = "trainset.csv, devset.csv, testset_w_refs.csv" if e2e else "train.tsv, dev.tsv"
        name = "E2E (Novikova et al. 2017)" if e2e else f"GLUE's {recipe.task} (Wang et al. 2018)"
        bring = f"{task}; put the standard download ({files}) into a folder and give it with --data"
        yield {"what": name, "bring": bring}
    for package in missing_packages() if e2e else ():
        yield {"what": f"the package {package}", "bring": "pip install 'lora-lab[metrics]'"}
    if not torch.cuda.is_available():
        bring = "the run would take far too long on this CPU: use a machine with CUDA"
        yield {"what": "a GPU", "bring": bring}


def plan_in_words(one: dict[str, Any]) -> str:
    """A plan as a table of two columns."""
    settings = {name: Given(**given) for name, given in one["settings"].items()}
    batch, gpus, seeds = settings["batch"].value, settings.get("gpus", Given(1, "")).value, settings["seeds"].value
    least = "at least " if one["at_least"] else ""
    together = f"; {least}{one['together'] / GIB:.1f} GiB with all {batch * gpus} on one" if gpus > 1 else ""
    lines = [
        *((name, str(given)) for name, given in settings.items()),
        ("rows", f"{one['rows']['value']:,} ({one['rows']['source']})"),
        ("steps", f"{one['steps']:,} ({settings['epochs'].value} epochs of {batch * gpus} rows an update)"),
        ("trainable", f"{one['trainable']:,} without the head, as the paper counts"),
        (
            "memory per GPU",
            f"{least}{one['memory'] / GIB:.1f} GiB with {batch} rows of {settings['max_length'].value} tokens{together}"
            f" ({one['dtype']} base; {one['usable'] / GIB:.1f} GiB of one {one['card']} are usable)",
        ),
        (
            "time",
            f"{least}{_hours(one['seconds'])} a seed, {_hours(one['seeds_seconds'])} for {seeds} seeds on one "
            f"{one['card']} at {one['utilisation']:.0%} of its peak, rows padded to full length, without scoring",
        ),
        ("published", ", ".join(f"{name} {value}" for name, value in one["published"].items()) or "nothing"),
        *([("expected", one["expected"])] if one["expected"] else []),
        *(("note", note) for note in one["notes"]),
        *(("missing", f"{lack['what']}: {lack['bring']}") for lack in one["missing"]),
    ]
    title = f"{one['table']}: {one['row']}, {one['model']}, {one['task']} ({one['variant']})"
    return "\n".join([title, *(f"  {name:16} {words}" for name, words in lines)])


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


# ---- runs


def run(
    table: str, *, model_path: str, data: str | Path, out: str | Path, task: str | None = None,
    model: str | None = None, row: str = "LoRA", variant: str = "paper",
    seeds: int | Sequence[int] | None = None, steps_limit: int | None = None, start: str = "",
    max_length: int | None = None, prompts: int | None = None, decoding: Decoding | None = None,
    stop: threading.Event | None = None, download: bool = False, **where: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train and score as the paper did, and return plain values. Runs already in the store `out` are reused.

    table, model, task, row, variant   which recipe; the table's first model and task if they are not given
    model_path, data   a folder or hub id of the model, the folder of the data (see `glue.py`, `e2e.py`)
    seeds              how many, or which ones; None: as many as in the paper
    steps_limit        train only this many updates, with the schedule scaled to them: a rehearsal
    start              the folder of the MNLI run's adapter, for the tasks that begin from it
    prompts, decoding  score only the first meanings of the test set; decode with other settings
    stop               set it to stop after the current step; the same call continues
    where              device, dtype, attention
    Raises: NotFound, BadValue, both before anything is trained.
    """
    counts = {"seeds": seeds, "steps_limit": steps_limit, "max_length": max_length, "prompts": prompts}
    for name, count in counts.items():
        if count is not None and (count if isinstance(count, int) else len(count)) < 1:
            raise BadValue(f"{name} must be at least 1, not {count}; leave it out for what the paper took")
    recipe = recipes(table, variant=variant, model=model, task=task, row=row)[0]
    if recipe.model == DEBERTA:
        raise BadValue(f"{recipe.title} is planned here but not run: {NOT_RUN}")
    if recipe.task == "e2e":
        check_installed()
    if start and not recipe.warm:
        raise BadValue(f"{recipe.title} does not start from another adapter: leave out start")
    name, length = _task_name(recipe, data), max_length or recipe["max_length"]
    there = load_task(name, max_length=length, download=download)
    full = _steps_of(recipe, len(there.train))
    steps = min(full, steps_limit or full)
    warmup = recipe["warmup_steps"] / full if "warmup_steps" in recipe.settings else recipe["warmup_ratio"]
    settings = {
        "lr": recipe["lr"], "steps": steps, "batch": recipe.batch, "warmup": min(1.0, warmup),
        "weight_decay": recipe["weight_decay"], "clip": recipe["clip"], "dropout": recipe["base_dropout"],
        "label_smoothing": recipe["label_smoothing"], "token_mean": recipe.get("loss_over") == "tokens",
        "validations": max(1, round(steps * recipe["epochs"] / full)),  # after each epoch
    }  # fmt: skip
    asked = recipe["seeds"] if seeds is None else seeds
    made = [
        Recipe(model_path, name, _method_of(recipe), seed=seed, start=start, max_length=length, **settings, **where)
        for seed in (range(asked) if isinstance(asked, int) else asked)
    ]
    swept = Sweep(out, size=1, stop=stop, download=download).run(made)
    decoding = (decoding or _decoding(recipe)) if recipe.task == "e2e" else None
    found = [
        _of_seed(one, recipe, _answers(one, name, there, prompts, decoding, where, download) if decoding else {})
        for one in swept.runs
        if one.status in FINISHED
    ]
    result = {
        "recipe": recipe.to_json(), "model_path": model_path, "data": str(data), "steps": steps, "full_steps": full,
        "over_seeds": [_over_seeds(recipe, metric, found) for metric in recipe.metrics],
        "deviations": [*_deviations(recipe, model_path, there, made, full, prompts, decoding), *ALWAYS],
        "failed": {str(one.recipe.seed): one.error or one.status for one in swept.runs if one.status not in FINISHED},
        "seeds": found,
    }  # fmt: skip
    write_json(Path(out) / f"protocol-{table}-{recipe.task}.json", result)
    return result


def _decoding(recipe: PaperRecipe) -> Decoding:
    return Decoding(recipe["beams"], recipe["length_penalty"], recipe["no_repeat_ngram"], recipe["max_new_tokens"])


def _answers(
    run: Run, name: str, task: Task, prompts: int | None, decoding: Decoding, where: Mapping[str, Any], download: bool
) -> dict[str, float]:
    """Scores of a run's answers to the first meanings of the test set, cached beside its adapter."""
    assert run.adapter is not None
    count = min(prompts or len(task.test), len(task.test))
    asked = {"prompts": count, "decoding": asdict(decoding)}
    file = Path(run.adapter) / "answers.json"
    if file.is_file() and (kept := read_json(file)).get("asked") == asked:
        return dict(kept["scores"])
    opened = open_adapter(
        run.adapter, name, model=run.recipe.model, max_length=task.max_length, download=download,
        dtype=where.get("dtype", "auto"), attention=where.get("attention", "auto"),
        device_name=where.get("device", "auto"),
    )  # fmt: skip
    found = scored(opened.model, opened.tokenizer, opened.task, count, decoding)
    scores = {name: float(value) for name, value in found.items() if name not in ("kinds", "texts")}
    write_json(file, {"asked": asked, "scores": scores, "kinds": found["kinds"], "texts": found["texts"]})
    return scores


def _of_seed(run: Run, recipe: PaperRecipe, answers: Mapping[str, float]) -> dict[str, Any]:
    """A run as the paper reports it, without any text of the data.

    best   the epoch with the best dev score, which the paper reports; choosing by it makes it a little too good
    last   the last epoch, chosen without looking at the score
    """
    epochs = [row for row in run.history["validation"] if row["step"]]
    chosen_by, sign = ("perplexity", -1) if recipe.task == "e2e" else (recipe.metrics[0], 1)
    kept = {name: getattr(run, name) for name in ("adapter_parameters", "head_parameters", "seconds", "peak_bytes")}
    return {
        "seed": run.recipe.seed, "hash": run.recipe.hash, "settings": run.recipe.settings(), **kept,
        "best": max(epochs, key=lambda epoch: sign * epoch[chosen_by]), "last": epochs[-1], "answers": dict(answers),
        "validation": run.history["validation"], "environment": run.environment, "warnings": run.warnings,
    }  # fmt: skip


def _over_seeds(recipe: PaperRecipe, metric: str, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The paper's number, and ours over seeds: the median for GLUE, the mean for E2E, and the standard deviation."""
    row: dict[str, Any] = {"metric": metric, "published": recipe.published.get(metric), "seeds": len(seeds)}
    middle = fmean if recipe.task == "e2e" else median
    for which in ("best", "last"):
        if recipe.task == "e2e":
            values = [one["answers"][metric] for one in seeds if metric in one["answers"] and which == "last"]
        else:
            values = [factor(metric) * one[which][metric] for one in seeds]
        row |= {which: middle(values) if values else None, f"{which}_std": stdev(values) if len(values) > 1 else None}
    return row


def _deviations(
    recipe: PaperRecipe, model_path: str, task: Task, recipes: Sequence[Recipe], full: int, prompts: int | None,
    decoding: Decoding | None,
) -> Iterator[str]:  # fmt: skip
    """How this run differs from the paper's."""
    first, rows, published = recipes[0], len(task.train), FACTS["tasks"][recipe.task]["rows"]
    try:
        same = architecture_of(model_path).modules == architecture_of(recipe.model).modules
    except LabError:
        same = False
    if not same:
        yield f"the model in {model_path} is not {recipe.model}: its figures cannot be compared with the paper's"
    if rows != published:
        yield f"the training data has {rows:,} rows, the published one {published:,}"
    if first.steps < full:
        yield f"{first.steps:,} of {full:,} steps, with the rate's rise and fall scaled to them"
    if recipe.warm and not first.start:
        yield f"it starts from scratch, not from {recipe.warm}'s adapter"
    if first.max_length != recipe["max_length"]:
        yield f"texts are cut to {first.max_length} tokens, not {recipe['max_length']}"
    if len(recipes) < recipe["seeds"]:
        yield f"{len(recipes)} of {recipe['seeds']} seeds"
    if decoding is not None:
        paper = asdict(_decoding(recipe))
        for name, value in asdict(decoding).items():
            if value != paper[name]:
                yield f"answers are decoded with {name} {value}, not {paper[name]}"
        if prompts is not None and prompts < len(task.test):
            yield f"answers to the first {prompts} of {len(task.test)} meanings of the test file are scored"
        yield "the last epoch's adapter answers; the paper took the best epoch's"


def result_in_words(result: Mapping[str, Any]) -> str:
    """The published numbers beside the best and the last epoch, and how this run differs from the paper's."""
    recipe = result["recipe"]
    lines = [
        f"{recipe['table']}: {recipe['row']}, {recipe['model']}, {recipe['task']} ({recipe['variant']}): "
        f"{result['steps']:,} of {result['full_steps']:,} steps, {len(result['seeds'])} seeds",
        f"  {'':12}{'published':>12}{'best epoch':>16}{'last epoch':>16}",
    ]
    for row in result["over_seeds"]:
        best, last = (_cell(row[which], row[f"{which}_std"]) for which in ("best", "last"))
        lines.append(f"  {row['metric']:12}{row['published'] or '-':>12}{best:>16}{last:>16}")
    lines.append(
        "  best epoch on the dev set is what the paper reports; the last is what you get without choosing by it"
    )
    shown = [f"{name} {value}" for name, value in recipe["published"].items() if name not in recipe["metrics"]]
    lines += [f"  published only: {', '.join(shown)}"] if shown else []
    lines += [f"  expected of a rerun: {recipe['expected']}"] if recipe["expected"] else []
    lines += [f"  not the paper's: {one}" for one in result["deviations"]]
    lines += [f"  seed {seed} failed: {reason}" for seed, reason in result["failed"].items()]
    return "\n".join(lines)


def _cell(value: float | None, std: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if std is None else f"±{std:.2f}")
