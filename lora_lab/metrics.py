"""The one table of metrics: what each is called, how it is written, and which way is up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """`factor` is what a value is multiplied by to be shown: papers print shares and correlations times 100."""

    name: str
    label: str
    unit: str = ""
    factor: int = 1
    higher_is_better: bool = True

    def text(self, value: float, digits: int = 1) -> str:
        """A value as people write it: 0.82 of accuracy is "82.0%", a perplexity of 17.31 is "17.3"."""
        return f"{self.factor * value:.{digits}f}{self.unit if self.unit == '%' else ''}"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("matthews", "Matthews' correlation x 100", factor=100),
        Metric("pearson", "Pearson's correlation x 100", factor=100),
        Metric("spearman", "Spearman's correlation x 100", factor=100),
        Metric("accuracy", "accuracy (%)", "%", 100),
        Metric("macro_f1", "macro F1 (%)", "%", 100),
        Metric("f1", "F1 (%)", "%", 100),
        Metric("slot_errors", "slot errors (%)", "%", 100, higher_is_better=False),
        Metric("perplexity", "perplexity", higher_is_better=False),
        Metric("loss", "loss (nats)", "nats", higher_is_better=False),
        Metric("forgetting", "perplexity on other text", higher_is_better=False),
        Metric("bleu", "BLEU"),
        Metric("chrf", "chrF"),
        Metric("rouge_l", "ROUGE-L"),
        Metric("nist", "NIST"),
    )
}
MAIN = ("matthews", "pearson", "accuracy", "perplexity")  # what models are chosen by: the first that a task has


def metric(name: str) -> Metric:
    """The metric of this name, after "validation_" if it has that; an unknown one is plain, and higher is better."""
    plain = name.removeprefix("validation_")
    return METRICS.get(plain, Metric(plain, plain.replace("_", " ")))


def main_metric(values: Mapping[str, Any]) -> str:
    """The name of the metric that models are chosen by, out of those measured."""
    return next(name for name in MAIN if name in values)


def goodness(values: Mapping[str, float]) -> float:
    """The main metric, turned so that higher is better."""
    name = main_metric(values)
    return values[name] if metric(name).higher_is_better else -values[name]


def better(values: Mapping[str, float], than: Mapping[str, float]) -> bool:
    """Whether one validation is better than another by the main metric."""
    return goodness(values) > goodness(than)


def factor(name: str) -> int:
    """What values of this metric are multiplied by to be shown."""
    return metric(name).factor
