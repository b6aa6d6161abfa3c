import re
import warnings
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

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


def texts(picture: Any) -> list[str]:
    return [text.get_text() for text in picture.axes[0].texts]


def lines(picture: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in picture.axes[0].lines}


def dots(picture: Any) -> list[list[float]]:
    return np.concatenate([collection.get_offsets() for collection in picture.axes[0].collections]).tolist()


def test_cells_hold_the_mean_over_seeds_and_rank_plots_a_dot_per_seed_at_the_best_rate():
    picture = sweeps.heat_map(frame(), "rank", "lr")
    assert texts(picture) == ["72.0", "73.0", "75.0", "76.0"]  # rank 1 at both rates, then rank 4
    assert picture.axes[0].get_title() == "validation accuracy (%):\nhighest mean at rank 4, lr 0.002, n = 2 each"
    incomplete = sweeps.heat_map(frame().iloc[1:], "rank", "lr")
    assert texts(incomplete) == ["72.1\nn = 1", "73.0\nn = 2", "75.0\nn = 2", "76.0\nn = 2"]
    picture = sweeps.against_rank(frame().assign(accuracy=lambda runs: runs["validation_accuracy"]))
    assert dots(picture) == [[1, 73.0], [1, 73.1], [4, 76.0], [4, pytest.approx(76.1)]]


@pytest.mark.filterwarnings("ignore:Glyph 27")
@pytest.mark.parametrize("draw", [sweeps.rate_curves, partial(sweeps.heat_map, across="lr")])
def test_only_powers_of_ten_are_formulas(draw):
    rates = tuple(10 ** (-n / 4) for n in range(8, 17))  # enough for ticks at powers of ten
    picture = draw(frame((1,), rates, seeds=1).assign(targets=[HOSTILE, *["a$,$"] * 8]), "targets")
    assert picture._repr_png_()
    labels = [text for text in picture.findobj(Text) if text.get_visible() and "$" in text.get_text()]
    assert any(HOSTILE in text.get_text() for text in labels)
    assert all(text.get_parse_math() == ("mathdefault" in text.get_text()) for text in labels)


def test_pictures_depend_on_what_varies():
    assert set(sweeps.pictures(frame())) == {"rank_lr", "lr_curves", "rank", "pareto"}
    assert set(sweeps.pictures(frame(ranks=(4,), rates=(1e-3,)))) == {"rank"}
    with_rule = frame().assign(alpha=lambda runs: 2 * runs["rank"])  # alpha follows from the rank
    assert set(sweeps.pictures(with_rule)) >= {"rank_lr", "lr_curves", "rank", "pareto"}
    assert sweeps.pictures(frame().iloc[:0]) == {}
    pictures = sweeps.pictures(frame(ranks=(4,), rates=(1e-3, 2e-3, 4e-3)))
    assert set(pictures) == {"lr_curves"}
    assert list(lines(pictures["lr_curves"]).values()) == [pytest.approx([75.05, 76.05, 78.05])]
    assert len(dots(pictures["lr_curves"])) == 6


@pytest.mark.parametrize(("name", "a", "b"), [("alpha", 8, 32), ("dora", None, True), ("run_dtype", "bf16", "fp32")])
def test_runs_with_different_hidden_settings_are_drawn_apart(name: str, a: Any, b: Any):
    better = frame().assign(**{name: b})
    better[["accuracy", "validation_accuracy"]] += 0.1
    pictures = sweeps.pictures(pd.concat([frame().assign(**{name: a}), better], ignore_index=True))
    for kind in ("rank_lr", "lr_curves", "rank", "pareto"):
        titles = [
            picture.axes[0].get_title()
            for key, picture in pictures.items()
            if re.fullmatch(rf"{kind}(_(alpha|dora|run_dtype)_.*)?", key)
        ]
        assert (len(titles), sum(str(b) in title for title in titles)) == (2, 1)
    first_cells = sorted(float(texts(picture)[0]) for key, picture in pictures.items() if key.startswith("rank_lr"))
    assert first_cells == [72.0, 82.0]


def test_methods_without_a_rank_have_a_curve_each():
    methods = [
        frame(ranks=(n,)).assign(method=name, rank=np.nan, targets=None) for n, name in enumerate(("bitfit", "ia3"))
    ]
    pictures = sweeps.pictures(pd.concat(methods, ignore_index=True))
    assert set(pictures) == {"lr_methods", "pareto"}
    curves = {"method bitfit": [71.05, 72.05], "method ia3": [72.05, 73.05]}
    assert lines(pictures["lr_methods"]) == {name: pytest.approx(points) for name, points in curves.items()}
    best = sweeps.best_rate(pd.concat([frame(), *methods], ignore_index=True))
    assert set(best["lr"]) == {2e-3}
    assert len(best) == 8  # two ranks and two methods, two seeds each


def test_correlations_are_shown_in_percent_and_choose_the_rate():
    cola = frame().rename(columns={"accuracy": "matthews", "validation_accuracy": "validation_matthews"})
    assert texts(sweeps.heat_map(cola.assign(accuracy=0.6), "rank", "lr")) == ["72.0", "73.0", "75.0", "76.0"]
    stsb = frame().rename(columns={"accuracy": "pearson", "validation_accuracy": "validation_pearson"})
    assert set(sweeps.pictures(stsb)) == {"rank_lr", "lr_curves", "rank", "pareto"}
    assert set(sweeps.best_rate(stsb)["lr"]) == {2e-3}


def test_rate_is_not_chosen_by_test_accuracy():
    for unscored in (frame().assign(validation_accuracy=np.nan), frame().assign(validation_accuracy=np.nan, steps=9)):
        both = pd.concat([frame(), unscored], ignore_index=True)
        assert sweeps.pictures(unscored) == {}
        with warnings.catch_warnings(action="ignore"):
            assert set(sweeps.pictures(both)) >= {"rank_lr", "lr_curves"}
    unvalidated = frame().drop(columns="validation_accuracy")
    assert sweeps.pictures(unvalidated) == {}
    assert set(sweeps.pictures(unvalidated[unvalidated["lr"] == 1e-3])) == {"rank", "pareto"}
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
    assert figure._repr_mimebundle_() == ({"text/plain": "a b"}, {"image/png": {"alt": "a b"}})
    figure.alt = "half"
    assert figure._repr_mimebundle_()[0] == {"text/plain": "half"}
    assert figure._repr_png_().startswith(b"\x89PNG")
