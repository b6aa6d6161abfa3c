"""Every run of tables 2 and 3 as a recipe: each hyperparameter with the place where it stands.

By the paper's tables 9 to 11 (variant "paper") or its authors' scripts ("repo"); full fine-tuning by the paper that
its figures are copied from. What those do not say is in data/paper/protocol.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from lora_course.paper import facts, table
from lora_course.paper.e2e import PRINTED
from lora_lab.errors import BadValue, NotFound, nearest

FACTS = facts("paper/protocol")
TABLES = ("table2", "table3")
VARIANTS = ("paper", "repo")


class Given(NamedTuple):
    """A hyperparameter and its source: "Table 9", "roberta_base_cola.sh", or why this value is taken."""

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
    """One cell of a table of the paper, as it is to be run.

    row        the row's method, in the paper's own word: "LoRA", "AdapterP 3.0M dagger"
    model      the zoo's name of the model
    task       GLUE's task in lower case, such as "sst-2", or "e2e"
    metrics    what the paper reports; `published` are its figures, as printed
    warm       the task whose adapter the run starts from; "" for none
    expected   what independent people got, in words
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
        """The value of a hyperparameter. Raises: BadValue for one that is not given."""
        if name not in self.settings:
            raise BadValue(f"{self.title} gives no {name}; nearest: {nearest(name, self.settings)}")
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
        """Rows of one update, of all GPUs together."""
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
    """Tables 9 and 10, and full fine-tuning. The share of warm-up stands above each table, for all its lines."""
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
    """Table 3's runs by table 11; the repository's command differs in the length penalty alone."""
    settings = _given(table("table11").row(task="E2E"), "Table 11") | _settings("e2e")
    settings |= _settings("e2e_repo") if variant == "repo" else {}
    results = table("table3")
    for model in ("gpt2-medium", "gpt2-large"):
        record = results.row(model=FACTS["models"][model]["printed"], method="LoRA")
        published = {name: _printed(record, column) for name, column in PRINTED.items()}
        reruns = "; ".join(f"{name}: {results.expected[PRINTED[name]]}" for name in FACTS["tasks"]["e2e"]["metrics"])
        expected = reruns if model == "gpt2-medium" else ""
        yield _recipe("table3", "LoRA", model, "e2e", variant, settings, published, expected)


def _settings(name: str) -> dict[str, Given]:
    return {setting: Given(*given) for setting, given in FACTS[name].items()}


def _given(record: Mapping[str, Any], source: str) -> dict[str, Given]:
    """A record's hyperparameters by the lab's names."""
    names = FACTS["columns"]
    return {names[key]: Given(value, source) for key, value in record.items() if key in names and value is not None}


def _completed(given: dict[str, Given], source: str) -> dict[str, Given]:
    decay = {"weight_decay": Given(0.0, f"not in {source}; none is taken")}
    return decay | given | (_settings("glue_lora") if "rank" in given else {}) | _settings("glue")


def _glue(row: str, where: Mapping[str, Any], task: str, variant: str, settings: Mapping[str, Given]) -> PaperRecipe:
    model = next(name for name, one in FACTS["models"].items() if one["printed"] == where["model"])
    column, results = FACTS["tasks"][task]["printed"], table("table2")
    published = {FACTS["tasks"][task]["metrics"][0]: _printed(results.row(**where), column)}
    expected = results.expected.get(column, "") if row == "LoRA" else ""
    return _recipe("table2", row, model, task, variant, settings, published, expected)


def _recipe(
    table: str, row: str, model: str, task: str, variant: str, settings: Mapping[str, Given],
    published: Mapping[str, str], expected: str,
) -> PaperRecipe:  # fmt: skip
    about = FACTS["tasks"][task]
    own = {"table": table, "row": row, "model": model, "task": task, "variant": variant}
    notes = tuple(note["say"] for note in FACTS["notes"] if _fits(own, note["when"]))
    warm = "mnli" if about.get("warm") and row == "LoRA" else ""
    return PaperRecipe(**own, settings=settings, metrics=tuple(about["metrics"]), published=published, warm=warm,
                       expected=expected, notes=notes)  # fmt: skip


def _fits(own: Mapping[str, str], when: Mapping[str, str | list[str]]) -> bool:
    return all(
        any(fnmatchcase(own[name], one) for one in ([patterns] if isinstance(patterns, str) else patterns))
        for name, patterns in when.items()
    )


def _printed(record: Mapping[str, Any], column: str) -> str:
    """A figure with its spread, as printed: "63.4±1.2"."""
    spread = record.get(f"{column}_std")
    return f"{record[column]:g}" + ("" if spread is None else f"±{spread:g}")
