"""All metrics, with their names, labels and units, and whether higher values are better."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """A metric. For display, values are multiplied by `factor`: papers report fractions and correlations times 100."""

    name: str
    label: str
    unit: str = ""
    factor: int = 1
    higher_is_better: bool = True

    def text(self, value: float) -> str:
        """Format a value. An accuracy of 0.82 becomes "82.0%", and a perplexity of 17.31 becomes "17.3"."""
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
MAIN = ("matthews", "pearson", "accuracy", "perplexity")  # model selection uses the first of these that a task has


def metric(name: str) -> Metric:
    """Return a metric by name, with or without the prefix "validation_". For an unknown metric, higher is better."""
    plain = name.removeprefix("validation_")
    return next((known for known in METRICS if known.name == plain), Metric(plain, plain.replace("_", " ")))


def main_metric(values: Mapping[str, Any]) -> str:
    """Return the name of the metric that model selection uses. Raises: ValueError if `values` has no metric in MAIN."""
    return min((name for name in MAIN if name in values), key=MAIN.index)


def goodness(values: Mapping[str, float]) -> float:
    """Return the main metric, with its sign reversed if lower values are better."""
    name = main_metric(values)
    return values[name] if metric(name).higher_is_better else -values[name]


def factor(name: str) -> int:
    """Return the factor by which a metric is multiplied for display."""
    return metric(name).factor
