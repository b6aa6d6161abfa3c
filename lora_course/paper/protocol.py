"""The paper's protocol for tables 2 and 3: its models, data, hyperparameters and published results.

    recipes("table2")                   each hyperparameter with its source
    plan("table2")                      each run's steps, memory and time, and what this machine lacks
    run("table2", task="rte", ...)      the run itself, on the user's copy of the model and data

Settings come from the paper's tables 9 to 11 (variant "paper") or its authors' scripts ("repo"). The settings of full
fine-tuning come from the earlier paper whose results Hu et al. quote. All other facts are in data/paper/protocol.yaml.
A run writes its result to OUT/protocol-TABLE-TASK.json, and answers to OUT/answers; OUT is also the store.

Source: Hu et al. 2021, "LoRA", arXiv 2106.09685v2, and the scripts of its authors' repository.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

from lora_course.paper import facts, table
from lora_course.paper.e2e import PRINTED
from lora_lab import Bottleneck, FullFineTuning, LoRA, Recipe, params
from lora_lab.accounting.gpus import UTILISATION, card, seconds, usable
from lora_lab.accounting.memory import estimate
from lora_lab.accounting.models import architecture_of, config_of
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue, Failed, LabError, NotFound, nearest
from lora_lab.experiments.afterwards import afterwards, check_installed, missing_packages
from lora_lab.experiments.sweep import Sweep
from lora_lab.files import as_path, write_json
from lora_lab.methods.base import Method, one_of
from lora_lab.methods.io import read_config
from lora_lab.metrics import factor
from lora_lab.training.generate import Decoding
from lora_lab.training.models import BUNDLED, load_tokenizer
from lora_lab.training.runs import FINISHED, Run
from lora_lab.training.tasks import Task, load_task

FACTS = facts("paper/protocol")
TITLE = "{table}: {row}, {model}, {task} ({variant})"  # of a recipe
TABLES, VARIANTS = ("table2", "table3"), ("paper", "repo")
GLUE = [name for name in FACTS["tasks"] if name != "e2e"]
DEBERTA, DTYPE = "deberta-v2-xxlarge", "bf16"  # DTYPE of the base, for predictions


class Given(NamedTuple):
    """A hyperparameter and its source: "Table 9", "roberta_base_cola.sh", or why this value was chosen."""

    value: Any
    source: str

    def __str__(self) -> str:
        value = "+".join(self.value) if isinstance(self.value, list) else self.value
        value = ("no", "yes")[value] if isinstance(value, bool) else value
        return f"{value:g} ({self.source})" if isinstance(value, float) else f"{value} ({self.source})"


@dataclass(frozen=True)
class PaperRecipe:
    """A training run for one cell of a table in the paper.

    row        The row's method, as the paper calls it: "LoRA", "AdapterP 3.0M dagger".
    task       GLUE's task in lower case, such as "sst-2", or "e2e".
    published  The printed values of `metrics`; `expected`: what others measured.
    warm       The task whose adapter initializes the run; "" for none.
    notes      Differences between the paper, its scripts and this lab.
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
        """Return the value of a hyperparameter."""
        return self.settings[name].value

    def get(self, name: str, otherwise: Any = None) -> Any:
        """Return the value of a hyperparameter, or `otherwise`."""
        return self[name] if name in self.settings else otherwise

    @property
    def batch(self) -> int:
        """Rows per update, over all GPUs."""
        return int(self["batch"] * self.get("gpus", 1))

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        return {**vars(self), "settings": {name: given._asdict() for name, given in self.settings.items()}}


def recipes(
    table: str, *, variant: str = "paper", model: str | None = None, task: str | None = None, row: str | None = None
) -> list[PaperRecipe]:
    """Return a table's recipes, filtered by model, task and row. Raises: NotFound or BadValue for unknown names."""
    if table not in TABLES:
        raise NotFound(f"{table} has no protocol here: choose {' or '.join(TABLES)}")
    one_of("variant", variant, VARIANTS)
    selected = list(_e2e(variant) if table == "table3" else _scripts() if variant == "repo" else _tables())
    for name, wanted in (("model", model), ("task", task), ("row", row)):
        values = dict.fromkeys(getattr(recipe, name) for recipe in selected)
        if wanted is not None and wanted not in values:
            raise NotFound(f"there is no {name} '{wanted}' in {table}; nearest: {nearest(wanted, values)}")
        selected = [recipe for recipe in selected if wanted in (None, getattr(recipe, name))]
    return selected


def _tables() -> Iterator[PaperRecipe]:
    """Yield the recipes of tables 9 and 10 and those of full fine-tuning. Each table has a single warm-up ratio."""
    lines = [(record, "Table 9", 0.06) for record in table("table9").records()]
    deberta = {"model": "DeBERTa-XXL", "method": "LoRA", "mark": "", "trainable": "4.7M"}
    lines += [({**record, **deberta}, "Table 10", 0.1) for record in table("table10").records()]
    for record, source, warmup in lines:
        given = _given(record, source) | {"warmup_ratio": Given(warmup, source)}
        row = method = str(record["method"])
        if method in FACTS["placements"]:
            given["placement"] = Given(FACTS["placements"][method], f"{source}: {method}")
            row = f"{method} {record['trainable']}"
        where = {name: record[name] for name in ("model", "method", "mark", "trainable")}
        task = next(name for name, entry in FACTS["tasks"].items() if entry.get("printed") == record["task"])
        row += " dagger" if record["mark"] else ""
        yield _recipe("table2", row, task, "paper", where, _completed(given, source))
    for model, task in product(("RoBERTa-base", "RoBERTa-large"), GLUE):
        where = {"model": model, "method": "FT", "mark": "*"}
        yield _recipe("table2", "FT", task, "paper", where, _settings("glue") | _settings("full"))


def _scripts() -> Iterator[PaperRecipe]:
    for model, task in product(list(FACTS["models"])[:3], GLUE):
        script = f"{model.replace('-', '_')}_{task.replace('-', '')}"
        given = _given(table("scripts").row(script=script), f"{script}.sh")
        where = {"model": FACTS["models"][model]["printed"], "method": "LoRA", "mark": ""}
        yield _recipe("table2", "LoRA", task, "repo", where, _completed(given, f"{script}.sh"))


def _e2e(variant: str) -> Iterator[PaperRecipe]:
    """Yield table 3's runs with table 11's settings; the repository's command differs only in the length penalty."""
    settings = _given(table("table11").row(task="E2E"), "Table 11") | _settings("e2e")
    settings |= _settings("e2e_repo") if variant == "repo" else {}
    for model in ("GPT-2 M", "GPT-2 L"):
        yield _recipe("table3", "LoRA", "e2e", variant, {"model": model, "method": "LoRA"}, settings)


def _settings(name: str) -> dict[str, Given]:
    return {setting: Given(*given) for setting, given in FACTS[name].items()}


def _given(record: Mapping[str, Any], source: str) -> dict[str, Given]:
    names = FACTS["columns"]
    return {names[key]: Given(value, source) for key, value in record.items() if key in names and value is not None}


def _completed(given: dict[str, Given], source: str) -> dict[str, Given]:
    decay = {"weight_decay": Given(0.0, f"not in {source}; none is used")}
    return decay | given | (_settings("glue_lora") if "rank" in given else {}) | _settings("glue")


def _recipe(
    name: str, row: str, task: str, variant: str, where: Mapping[str, Any], settings: Mapping[str, Given]
) -> PaperRecipe:
    """Return a recipe with the results, such as "63.4±1.2", from the row `where` of the paper's table `name`."""
    entry, results = FACTS["tasks"][task], table(name)
    model = next(name for name, known in FACTS["models"].items() if known["printed"] == where["model"])
    record = results.row(**where)
    columns = PRINTED if task == "e2e" else {entry["metrics"][0]: entry["printed"]}
    published = {metric: results.cell(column, record).replace(" ", "") for metric, column in columns.items()}
    expected = results.expected.get(entry.get("printed"), "") if row == "LoRA" else ""
    if model == "gpt2-medium":
        expected = "; ".join(f"{metric}: {results.expected[PRINTED[metric]]}" for metric in entry["metrics"])
    labels = {"table": name, "row": row, "model": model, "task": task, "variant": variant}
    notes = tuple(
        note["say"]
        for note in FACTS["notes"]
        if all(any(fnmatchcase(labels[name], one) for one in wanted) for name, wanted in note["when"].items())
    )
    warm = entry.get("warm", "") if row == "LoRA" else ""
    return PaperRecipe(**labels, settings=settings, metrics=tuple(entry["metrics"]), published=published, warm=warm,
                       expected=expected, notes=notes)  # fmt: skip


# ---- plans


def plan(
    table: str, *, model_path: str | None = None, data: str | Path | None = None, gpu: str = "A100 40 GB", **which: Any
) -> list[dict[str, Any]]:
    """Return plans for a table's runs, with a base in bf16, as plain values. Nothing is trained or downloaded.

    A plan has the recipe's values and: rows; steps; trainable (without the head, as the paper counts); memory (peak
    bytes per GPU if all rows have `max_length` tokens); together (peak bytes if one GPU holds all rows of an update, as
    in `run`); fits (whether one GPU has room for `together`); at_least (whether memory and time are lower bounds);
    seconds (for one seed); seeds_seconds (for all seeds); missing (what you must supply). For options and errors, see
    `recipes`.
    """
    gpu_card, selected = card(gpu), recipes(table, **which)
    tasks = {recipe.task: _task_at(recipe, data) for recipe in {r.task: r for r in selected}.values()}
    plans = []
    for recipe in selected:
        task, entry, method = tasks[recipe.task], FACTS["tasks"][recipe.task], _method_of(recipe)
        counted = len(task.train) if isinstance(task, Task) else 0
        rows = Given(counted, "counted in the given data") if counted else Given(entry["rows"], entry["source"])
        steps = _steps_of(recipe, rows.value)
        per_gpu, together = (_estimate(recipe, method, batch) for batch in (recipe["batch"], recipe.batch))
        one_seed = seconds(steps * (together.flops or 0), gpu_card, DTYPE)
        costs = {
            "rows": rows._asdict(), "steps": steps, "trainable": params(recipe.model, method).trainable,
            "card": gpu_card.name, "dtype": DTYPE, "utilisation": UTILISATION, "memory": per_gpu.peak,
            "together": together.peak, "usable": usable(gpu_card), "fits": together.peak <= usable(gpu_card),
            "at_least": recipe.model == DEBERTA, "seconds": one_seed, "seeds_seconds": one_seed * recipe["seeds"],
            "missing": list(_missing(recipe, model_path, task)),
        }  # fmt: skip
        plans.append({**recipe.to_json(), **costs})
    return plans


def _method_of(recipe: PaperRecipe) -> Method:
    if recipe.row == "FT":
        return FullFineTuning()
    if recipe.get("placement"):
        return Bottleneck(recipe["size"], recipe["placement"])
    return LoRA(recipe["rank"], recipe["alpha"], tuple(recipe["targets"]), recipe.get("lora_dropout", 0.0))


def _steps_of(recipe: PaperRecipe, rows: int) -> int:
    """Return the number of updates, including each epoch's last, smaller batch. Raises: BadValue if `rows` is 0."""
    if rows < 1:
        raise BadValue(f"{recipe.task} has no rows to train on: its train file is missing or empty")
    return int(recipe["epochs"]) * -(-rows // recipe.batch)


def _task_name(recipe: PaperRecipe, data: str | Path) -> str:
    return str(data) if recipe.task == "e2e" else f"glue:{recipe.task}:{data}"


def _task_at(recipe: PaperRecipe, data: str | Path | None) -> Task | str:
    """Load the task from a folder, or say why it can't be loaded."""
    if data is None:
        return "no folder is given"
    try:
        task = load_task(_task_name(recipe, data), max_length=recipe["max_length"])
    except LabError as error:
        return str(error)
    return task if len(task.train) else "the folder has no train file"


def _estimate(recipe: PaperRecipe, method: Method, batch: int) -> Any:
    """Estimate a step with rows of full length. The base's own dropout, if enabled, is 0.1, as in BERT.

    DeBERTa is modeled as RoBERTa, with two more positions; DeBERTa's relative positions aren't counted.
    """
    model: Any = recipe.model
    if model == DEBERTA:
        config = config_of(model)
        model = config | {"model_type": "roberta", "max_position_embeddings": config["max_position_embeddings"] + 2}
    setup = Setup(batch=batch, seq=recipe["max_length"], dtype=DTYPE, optimizer="adamw-fused", padded=True,
                  dropout=0.1 * bool(recipe["base_dropout"]),
                  num_labels=FACTS["tasks"][recipe.task]["labels"] or 2)  # fmt: skip
    return estimate(model, method, setup)


def _missing(recipe: PaperRecipe, path: str | None, task: Task | str) -> Iterator[dict[str, str]]:
    """Yield what is missing on this machine, and how to get it."""
    import torch

    def item(what: str, kind: str, **values: str) -> dict[str, str]:
        return {"what": what, "bring": FACTS["missing"][kind].format(**values)}

    try:
        if path is None:
            raise NotFound("no folder is given")
        if path not in BUNDLED:
            load_tokenizer(path)
    except LabError as error:
        hub = FACTS["models"][recipe.model]["hub"]
        yield item(f"the model {recipe.model}", "model", reason=str(error), hub=hub)
    e2e = recipe.task == "e2e"
    if isinstance(task, str):
        files = "trainset.csv, devset.csv, testset_w_refs.csv" if e2e else "train.tsv, dev.tsv"
        name = "E2E (Novikova et al. 2017)" if e2e else f"GLUE's {recipe.task} (Wang et al. 2018)"
        yield item(name, "data", reason=task, files=files)
    yield from (item(f"the package {package}", "package") for package in (missing_packages() if e2e else ()))
    if not torch.cuda.is_available():
        yield item("a GPU", "a GPU")


def plan_in_words(entry: dict[str, Any]) -> str:
    """Format a plan as a two-column table."""
    settings = {name: Given(**given) for name, given in entry["settings"].items()}
    gpus, templates = settings.get("gpus", Given(1, "")).value, dict(FACTS["words"])
    values = entry | {f"{name}_gib": entry[name] / GIB for name in ("memory", "together", "usable")}
    values |= {"bound": "at least " if entry["at_least"] else "", "update": settings["batch"].value * gpus}
    values |= {"one_seed": _hours(entry["seconds"]), "all_seeds": _hours(entry["seeds_seconds"])}
    all_rows = templates.pop("all_rows").format_map(values) * (gpus > 1)
    lines = [
        *((name, str(given)) for name, given in settings.items()),
        *((name, words.format_map(values | {"all_rows": all_rows})) for name, words in templates.items()),
        ("published", ", ".join(f"{name} {value}" for name, value in entry["published"].items()) or "nothing"),
        *([("expected", entry["expected"])] if entry["expected"] else []),
        *(("note", note) for note in entry["notes"]),
        *(("missing", f"{item['what']}: {item['bring']}") for item in entry["missing"]),
    ]
    return "\n".join([TITLE.format_map(entry), *(f"  {name:16} {words}" for name, words in lines)])


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


# ---- runs


def run(
    table: str, *, model_path: str, data: str | Path, out: str | Path, task: str | None = None,
    model: str | None = None, row: str = "LoRA", variant: str = "paper",
    seeds: int | None = None, steps_limit: int | None = None, start: str = "",
    prompts: int | None = None, download: bool = False, again: bool = False, **where: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train and score as the paper did, and return plain values. Runs already in the store `out` are reused.

    For options, see `lora-lab reproduce --help`; `where` may set `device`, `dtype` and `attention`.
    Raises: NotFound or BadValue, before training starts; Failed if no seed succeeds.
    """
    recipe = recipes(table, variant=variant, model=model, task=task, row=row)[0]
    if recipe.task == "e2e":
        check_installed()
    if start and not recipe.warm:
        raise BadValue(f"{TITLE.format_map(vars(recipe))} does not start from another adapter: omit start")
    if prompts and recipe.task != "e2e":
        raise BadValue(f"{TITLE.format_map(vars(recipe))} generates no texts: omit prompts")
    if start:
        read_config(start)  # raises NotFound now: a failed run would be kept, even if the adapter were added later
    name = _task_name(recipe, data)
    loaded = load_task(name, max_length=recipe["max_length"])
    full = _steps_of(recipe, len(loaded.train))
    steps = min(full, steps_limit or full)
    warmup = recipe["warmup_steps"] / full if "warmup_steps" in recipe.settings else recipe["warmup_ratio"]
    settings = {
        **{name: recipe[name] for name in ("lr", "weight_decay", "clip", "label_smoothing", "max_length")},
        "steps": steps, "batch": recipe.batch, "warmup": min(1.0, warmup), "dropout": recipe["base_dropout"],
        "token_mean": recipe.get("loss_over") == "tokens",
        "validations": max(1, round(steps * recipe["epochs"] / full)),  # after each epoch
    }  # fmt: skip
    first = Recipe(model_path, name, _method_of(recipe), start=start, **settings, **where)
    seed_recipes = [first.at_seed(seed) for seed in range(seeds or recipe["seeds"])]
    runs = Sweep(out, size=1, download=download, again=again).run(seed_recipes).runs
    count = min(prompts or len(loaded.test), len(loaded.test))
    results = [
        _seed_result(run, recipe, _answers(run, recipe, count, as_path(out) / "answers", download))
        for run in runs
        if run.status in FINISHED
    ]
    if not results:  # keep the file of an earlier run
        raise Failed(f"no seed succeeded: {runs[0].error or runs[0].status}")
    result = {
        "recipe": recipe.to_json(), "model_path": str(model_path), "data": str(data),
        "steps": steps, "full_steps": full,
        "over_seeds": [_over_seeds(recipe, metric, results) for metric in recipe.metrics],
        "deviations": [*_deviations(recipe, seed_recipes, loaded, full, count), *FACTS["always"]],
        "failed": {str(run.recipe.seed): run.error or run.status for run in runs if run.status not in FINISHED},
        "seeds": results,
    }  # fmt: skip
    write_json(as_path(out) / f"protocol-{table}-{recipe.task}.json", result)
    return result


def _answers(run: Run, recipe: PaperRecipe, count: int, folder: Path, download: bool) -> dict[str, float]:
    """Score a run's outputs for the first `count` meaning representations of E2E's test set."""
    if recipe.task != "e2e":
        return {}
    decoding = Decoding(*(recipe[name] for name in ("beams", "length_penalty", "no_repeat_ngram", "max_new_tokens")))
    scores = afterwards(run, None, count, folder, decoding=decoding, download=download)
    return {name: float(value) for name, value in scores.items() if name not in ("kinds", "texts", "seconds")}


def _seed_result(run: Run, recipe: PaperRecipe, answers: Mapping[str, float]) -> dict[str, Any]:
    """Report a run as the paper does, without any text from the data.

    best   The epoch with the best dev score, as the paper reports; selecting on that score biases it upward.
    last   The last epoch, which involves no selection.
    """
    epochs = [row for row in run.history["validation"] if row["step"]]
    metric, sign = ("perplexity", -1) if recipe.task == "e2e" else (recipe.metrics[0], 1)
    costs = {name: getattr(run, name) for name in ("adapter_parameters", "head_parameters", "seconds", "peak_bytes")}
    return {
        "seed": run.recipe.seed, "hash": run.recipe.hash, "settings": run.recipe.settings(), **costs,
        "best": max(epochs, key=lambda epoch: sign * epoch[metric]), "last": epochs[-1],
        "answers": answers,
        "validation": run.history["validation"], "environment": run.environment, "warnings": run.warnings,
    }  # fmt: skip


def _over_seeds(recipe: PaperRecipe, metric: str, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Pair the paper's number with our median (GLUE) or mean (E2E) over seeds and with our standard deviation."""
    row: dict[str, Any] = {"metric": metric, "published": recipe.published.get(metric), "seeds": len(seeds)}
    average, answers = fmean if recipe.task == "e2e" else median, [seed["answers"] for seed in seeds]
    for epoch in ("best", "last"):
        values = [factor(metric) * seed[epoch][metric] for seed in seeds if recipe.task != "e2e"]
        values += [scores[metric] for scores in answers if metric in scores and epoch == "last"]
        row |= {epoch: average(values) if values else None, f"{epoch}_std": stdev(values) if len(values) > 1 else None}
    return row


def _deviations(recipe: PaperRecipe, recipes: Sequence[Recipe], task: Task, full: int, prompts: int) -> Iterator[str]:
    """Yield how this run differs from the paper's."""
    first, rows, published = recipes[0], len(task.train), FACTS["tasks"][recipe.task]["rows"]
    try:
        same = architecture_of(first.model).modules == architecture_of(recipe.model).modules
    except LabError:
        same = False
    if not same:
        yield f"the model in {first.model} is not {recipe.model}: the results cannot be compared with the paper's"
    if rows != published:
        yield f"the training data has {rows:,} rows, but the published data has {published:,}"
    if first.steps < full:
        yield f"training took {first.steps:,} of {full:,} steps, with the learning rate schedule shortened to match"
    if recipe.warm and not first.start:
        yield f"training starts from scratch, not from {recipe.warm}'s adapter"
    if len(recipes) < recipe["seeds"]:
        yield f"only {len(recipes)} of {recipe['seeds']} seeds were run"
    if "cls_dropout" in recipe.settings:
        yield f"the dropout before the classifier is the model's own, not {recipe.settings['cls_dropout']}"
    if recipe.task == "e2e":
        if prompts < len(task.test):
            yield f"only the first {prompts} of the test file's {len(task.test)} meanings are answered and scored"
        yield "the answers come from the last epoch's adapter; the paper used the best epoch's"


def result_in_words(result: Mapping[str, Any]) -> str:
    """Format published scores beside those of the best and last epochs; list how this run differs from the paper's."""
    recipe = result["recipe"]
    steps = f"{result['steps']:,} of {result['full_steps']:,} steps, {len(result['seeds'])} seeds"
    lines = [
        f"{TITLE.format_map(recipe)}: {steps}",
        f"  {'':12}{'published':>12}{'best epoch':>16}{'last epoch':>16}",
    ]
    for row in result["over_seeds"]:
        best, last = (_cell(row[epoch], row[f"{epoch}_std"]) for epoch in ("best", "last"))
        lines.append(f"  {row['metric']:12}{row['published'] or '-':>12}{best:>16}{last:>16}")
    lines += ["  the paper reports the best epoch on the dev set; the last epoch is the result without that selection"]
    others = [f"{name} {value}" for name, value in recipe["published"].items() if name not in recipe["metrics"]]
    lines += [f"  published only: {', '.join(others)}"] if others else []
    lines += [f"  expected from a rerun: {recipe['expected']}"] if recipe["expected"] else []
    lines += [f"  unlike the paper: {deviation}" for deviation in result["deviations"]]
    lines += [f"  seed {seed} failed: {reason}" for seed, reason in result["failed"].items()]
    return "\n".join(lines)


def _cell(value: float | None, std: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" + ("" if std is None else f"±{std:.2f}")
