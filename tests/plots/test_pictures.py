import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lora_lab.plots import sweeps, training_picture
from tests.conftest import HOSTILE


def frame(ranks: tuple[int, ...] = (1, 4), rates: tuple[float, ...] = (1e-3, 2e-3), seeds: int = 2) -> pd.DataFrame:
    """Return runs whose validation accuracy is 0.7 + 0.01 rank + 10 rate + 0.001 seed."""
    rows = [
        {"method": "lora", "targets": "q,v", "rank": r, "alpha": 16, "lr": lr, "seed": s, "adapter_parameters": 100 * r}
        | {"accuracy": 0.7, "validation_accuracy": 0.7 + 0.01 * r + 10 * lr + 0.001 * s}
        for r in ranks
        for lr in rates
        for s in range(seeds)
    ]
    return pd.DataFrame(rows)


def lines(picture, panel: int = 0) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in picture.axes[panel].lines}


def dots(picture) -> list[list[float]]:
    return np.concatenate([collection.get_offsets() for collection in picture.axes[0].collections]).tolist()


def titles(picture) -> list[str]:
    return [axes.get_title() for axes in picture.axes if axes.get_visible()]


def test_each_axis_has_a_dot_per_run_and_a_line_of_means():
    runs = frame().assign(accuracy=lambda runs: runs["validation_accuracy"] - 0.1)
    pictures = sweeps.pictures(runs)
    assert set(pictures) == {"lr", "rank", "adapter_parameters"}
    means = {"rank 1": [71.05, 72.05], "rank 4": [74.05, 75.05]}
    assert lines(pictures["lr"]) == {
        name: pytest.approx([mean + 1 for mean in points]) for name, points in means.items()
    }
    assert pictures["lr"].get_suptitle() == "validation accuracy (%) against learning rate, one dot per run"
    assert dots(pictures["lr"])[:2] == [[1e-3, pytest.approx(72)], [1e-3, pytest.approx(72.1)]]
    assert pictures["rank"].get_suptitle() == "test accuracy (%) against rank r, one dot per run"
    best = [[1, 63], [1, 63.1], [4, 66], [4, 66.1]]  # at the best rate
    assert dots(pictures["rank"]) == [pytest.approx(dot) for dot in best]


@pytest.mark.filterwarnings("ignore:Glyph 27")
def test_names_are_no_formulas():
    runs = pd.concat([frame().assign(targets=name) for name in (HOSTILE, r"a$\b$")], ignore_index=True)
    picture = sweeps.pictures(runs.assign(rank=1))["lr"]
    assert picture._repr_png_()
    assert list(lines(picture)) == [f"targets {name.replace('$', chr(92) + '$')}" for name in (HOSTILE, r"a$\b$")]


def test_pictures_depend_on_what_varies():
    assert set(sweeps.pictures(frame(ranks=(4,), rates=(1e-3,)))) == {"adapter_parameters"}
    assert set(sweeps.pictures(frame(ranks=(4,)))) == {"lr", "adapter_parameters"}
    assert set(sweeps.pictures(frame(rates=(1e-3,)))) == {"rank", "adapter_parameters"}
    assert sweeps.pictures(frame().iloc[:0]) == {}
    with_rule = frame().assign(alpha=lambda runs: 2 * runs["rank"])  # alpha follows from the rank
    assert [titles(picture) for picture in sweeps.pictures(with_rule).values()] == [[""]] * 3


@pytest.mark.parametrize(("name", "a", "b"), [("alpha", 8, 32), ("dora", None, True), ("run_dtype", "bf16", "fp32")])
def test_runs_with_different_settings_are_drawn_apart(name, a, b):
    runs = frame().assign(**{name: a})
    better = runs.assign(**{name: b})
    better[["accuracy", "validation_accuracy"]] += 0.1
    pictures = sweeps.pictures(pd.concat([runs, better], ignore_index=True))
    assert titles(pictures["lr"]) == [f"{name} {a or 'none'}", f"{name} {b}"]
    for panel, points in enumerate(([75.05, 76.05], [85.05, 86.05])):
        assert lines(pictures["lr"], panel)["rank 4"] == pytest.approx(points)
    for picture in (pictures["rank"], pictures["adapter_parameters"]):
        assert list(lines(picture).values()) == [pytest.approx([70, 70]), pytest.approx([80, 80])]


def test_methods_without_a_rank_have_a_line_each():
    others = {"rank": np.nan, "targets": None, "adapter_parameters": 500}
    methods = [frame(ranks=(n,)).assign(method=name, **others) for n, name in enumerate(("bitfit", "ia3"))]
    pictures = sweeps.pictures(pd.concat(methods, ignore_index=True))
    assert set(pictures) == {"lr", "adapter_parameters"}
    curves = {"method bitfit": [71.05, 72.05], "method ia3": [72.05, 73.05]}
    assert lines(pictures["lr"]) == {name: pytest.approx(points) for name, points in curves.items()}
    head = methods[0].assign(method="head", adapter_parameters=0)  # has no place on the logarithmic axis
    assert "adapter_parameters" not in sweeps.pictures(head)
    both = pd.concat([frame(), *methods, head], ignore_index=True)
    assert set(lines(sweeps.pictures(both)["adapter_parameters"])) == {"method lora", "method bitfit", "method ia3"}
    best = sweeps.best_rate(both)
    assert set(best["lr"]) == {2e-3}
    assert len(best) == 10  # two ranks and three methods, two seeds each


def test_no_line_joins_methods_or_the_targets_of_a_method():
    other = frame(ranks=(2,)).assign(method="ia3", rank=np.nan, targets="k", alpha=np.nan)
    runs = pd.concat([frame(), frame().assign(alpha=32), other], ignore_index=True)
    picture = sweeps.pictures(runs)["adapter_parameters"]
    assert titles(picture) == ["alpha 16", "alpha 32", "alpha none"]
    assert [list(lines(picture, panel)) for panel in range(3)] == [["method lora"], ["method lora"], ["method ia3"]]
    wide = frame(ranks=(2, 8)).assign(targets="all-linear")
    runs = pd.concat([frame(), wide], ignore_index=True)
    assert set(lines(sweeps.pictures(runs)["adapter_parameters"])) == {"targets q,v", "targets all-linear"}


def test_correlations_are_shown_in_percent_and_perplexity_is_best_where_lowest():
    for name in ("matthews", "pearson"):
        runs = frame().rename(columns={"accuracy": name, "validation_accuracy": f"validation_{name}"})
        assert lines(sweeps.pictures(runs)["lr"])["rank 1"] == pytest.approx([72.05, 73.05])
        assert set(sweeps.best_rate(runs)["lr"]) == {2e-3}
    runs = frame().rename(columns={"accuracy": "perplexity", "validation_accuracy": "validation_perplexity"})
    assert set(sweeps.best_rate(runs)["lr"]) == {1e-3}


def test_rate_is_not_chosen_by_test_accuracy():
    for unscored in (frame().assign(validation_accuracy=np.nan), frame().assign(validation_accuracy=np.nan, steps=9)):
        both = pd.concat([frame(), unscored], ignore_index=True)
        assert sweeps.pictures(unscored) == {}
        assert set(sweeps.pictures(both)) == {"lr", "rank", "adapter_parameters"}
    unvalidated = frame().drop(columns="validation_accuracy")
    assert sweeps.pictures(unvalidated) == {}
    assert set(sweeps.pictures(unvalidated[unvalidated["lr"] == 1e-3])) == {"rank", "adapter_parameters"}
    partly = frame().assign(validation_accuracy=lambda runs: runs["validation_accuracy"].where(runs["rank"] == 4))
    assert set(sweeps.best_rate(partly)["rank"]) == {4}


@pytest.mark.parametrize(
    ("metric", "last", "label"),
    [("accuracy", 80, "validation accuracy (%)"), ("perplexity", 0.8, "validation perplexity")],
)
def test_curves_are_in_the_units_of_the_axes(metric: str, last: float, label: str):
    steps, losses = list(range(1, 61)), np.linspace(0.7, 0.1, 60).tolist()
    history = {"step": steps, "loss": losses, "validation": [{"step": 1, metric: 0.6}, {"step": 60, metric: 0.8}]}
    figure = training_picture(history, metric, "a finding")
    loss, axes = figure.axes
    assert (axes.get_ylabel(), loss.get_ylabel(), figure.get_suptitle()) == (label, "training loss (nats)", "a finding")
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(last)
    smoothed = loss.lines[1].get_ydata()
    assert [smoothed[0], smoothed[-1]] == pytest.approx([0.7, np.mean(losses[-25:])])


def test_picture_has_a_description():
    history = {"step": [], "loss": [], "validation": [{"step": 0, "accuracy": 0.5}]}
    figure = training_picture(history, "accuracy", "a\nb")
    text, about = figure._repr_mimebundle_()
    width, height = Image.open(io.BytesIO(figure._repr_png_())).size  # two pixels per CSS pixel
    assert text == {"text/plain": "a b"}
    assert about == {"image/png": {"alt": "a b", "width": width // 2, "height": height // 2}}
    figure.alt = "half"
    assert figure._repr_mimebundle_()[0] == {"text/plain": "half"}
