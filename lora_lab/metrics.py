"""All metrics: names, labels, units, and whether higher is better."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """A metric. Values are multiplied by `factor` for display: papers report fractions and correlations times 100."""

    name: str
    label: str
    unit: str = ""
    factor: int = 1
    higher_is_better: bool = True

    def text(self, value: float) -> str:
        """Format a value: accuracy 0.82 is "82.0%", perplexity 17.31 is "17.3"."""
        return f"{self.factor * value:.1f}{self.unit if self.unit == '%' else ''}"


METRICS = (
    Metric("matthews", "Matthews correlation x 100", factor=100),
    Metric("pearson", "Pearson correlation x 100", factor=100),
    Metric("spearman", "Spearman correlation x 100", factor=100),
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
MAIN = ("matthews", "pearson", "accuracy", "perplexity")  # a task's first metric in this list selects models


def metric(name: str) -> Metric:
    """Return a metric by name, with or without "validation_"; for an unknown metric, higher is better."""
    plain = name.removeprefix("validation_")
    return next((known for known in METRICS if known.name == plain), Metric(plain, plain.replace("_", " ")))


def main_metric(values: Mapping[str, Any]) -> str:
    """Return the name of the metric that selects models. Raises: ValueError if `values` has none of MAIN."""
    return min((name for name in MAIN if name in values), key=MAIN.index)


def goodness(values: Mapping[str, float]) -> float:
    """Return the main metric, negated if lower is better."""
    name = main_metric(values)
    return values[name] if metric(name).higher_is_better else -values[name]


def better(values: Mapping[str, float], than: Mapping[str, float]) -> bool:
    """Return whether one set of values is better than another by the main metric."""
    return goodness(values) > goodness(than)


def factor(name: str) -> int:
    """Return the factor that scales this metric for display."""
    return metric(name).factor
