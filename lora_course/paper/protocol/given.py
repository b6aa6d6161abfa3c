"""The nouns of a protocol: a value with the place where it stands, and all values of one run of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_lab.errors import BadValue, nearest

VARIANTS = ("paper", "repo")


@dataclass(frozen=True)
class Given:
    """A hyperparameter and who says it: "Table 9", "roberta_base_cola.sh", or why it is taken where nobody does."""

    value: Any
    source: str

    def __str__(self) -> str:
        return f"{said(self.value)} ({self.source})"


@dataclass(frozen=True)
class PaperRecipe:
    """One cell of a table of the paper, as it is to be run.

    table      "table2" or "table3"
    row        the row's method, in the paper's own word: "LoRA", "AdapterP 3.0M"
    model      the zoo's name of the model
    task       GLUE's task in lower case, such as "sst-2", or "e2e"
    variant    "paper" for its tables of hyperparameters, "repo" for the scripts that its authors published
    settings   by name, each with its source
    warm       the task whose adapter the run starts from; "" for none
    metrics    what the paper reports
    published  the paper's figures by metric
    expected   what independent people got, in words; "" where nobody is known to have told
    notes      where paper, scripts and this lab differ
    """

    table: str
    row: str
    model: str
    task: str
    variant: str
    settings: Mapping[str, Given]
    metrics: tuple[str, ...]
    published: Mapping[str, str] = field(default_factory=dict)
    warm: str = ""
    expected: str = ""
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Any:
        """The value of a hyperparameter. Raises: BadValue for one that is not given."""
        if name not in self.settings:
            raise BadValue(f"{self.title} gives no {name}; nearest: {nearest(name, self.settings)}")
        return self.settings[name].value

    def get(self, name: str, otherwise: Any = None) -> Any:
        """The value of a hyperparameter, or `otherwise` where none is given."""
        return self.settings[name].value if name in self.settings else otherwise

    @property
    def title(self) -> str:
        """A line that tells it from all others."""
        return f"{self.table}: {self.row}, {self.model}, {self.task} ({self.variant})"

    @property
    def batch(self) -> int:
        """Rows of one update, of all GPUs together."""
        return int(self["batch"]) * int(self.get("gpus", 1))

    @property
    def chosen_by(self) -> str:
        """The figure that the best epoch is chosen by: the paper's first, or perplexity where that needs answers."""
        return "perplexity" if self.task == "e2e" else self.metrics[0]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        own = {name: value for name, value in vars(self).items() if name != "settings"}
        settings = {name: {"value": given.value, "source": given.source} for name, given in self.settings.items()}
        return {**own, "published": dict(self.published), "settings": settings}


def published_in(record: Mapping[str, Any], column: str) -> str:
    """A figure of a record of `paper/__init__.py` with its spread, as printed: "63.4±1.2"."""
    spread = record.get(f"{column}_std")
    return f"{record[column]:g}" + ("" if spread is None else f"±{spread:g}")


def said(value: Any) -> str:
    """A value as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
