"""Pictures of sweeps: what is in their cells, their dots and their titles."""

import re
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from lora_lab.errors import BadValue, LabWarning
from lora_lab.plots import sweeps
from tests.conftest import HOSTILE


def frame(ranks: tuple[int, ...] = (1, 4), rates: tuple[float, ...] = (1e-3, 2e-3), seeds: int = 2) -> pd.DataFrame:
    """Runs whose validation accuracy is 0.7 + 0.01 rank + 10 rate, a little more for later seeds."""
    lines = [
        {"method": "lora", "targets": "q,v", "rank": r, "alpha": 16, "lr": lr, "seed": s, "adapter_parameters": 100 * r}
        | {"accuracy": 0.7, "validation_accuracy": 0.7 + 0.01 * r + 10 * lr + 0.001 * s}
        for r in ranks
        for lr in rates
        for s in range(seeds)
    ]
    return pd.DataFrame(lines)


def texts(picture: Any) -> list[str]:
    return [text.get_text() for text in picture.axes[0].texts]


def test_a_cell_holds_the_mean_over_its_seeds():
    picture = sweeps.heat_map(frame(), "rank", "lr")
    assert texts(picture) == ["72.0", "73.0", "75.0", "76.0"]  # rank 1, then 4, each at both rates
    assert picture.axes[0].get_title() == "validation accuracy (%):\nhighest mean at rank 4, lr 0.002, n = 2 each"
    unlike = sweeps.heat_map(frame().iloc[1:], "rank", "lr")
    assert texts(unlike) == ["72.1\nn = 1", "73.0\nn = 2", "75.0\nn = 2", "76.0\nn = 2"]


@pytest.mark.filterwarnings("ignore:Glyph 27")
@pytest.mark.parametrize("draw", [sweeps.rate_curves, lambda runs: sweeps.heat_map(runs, "targets", "lr")])
def test_only_powers_of_ten_are_formulas(draw):
    picture = draw(frame((1,), seeds=1).assign(targets=[HOSTILE, "a$,$"]))
    assert picture._repr_png_()
    drawn = [text for text in picture.findobj(Text) if text.get_visible() and "$" in text.get_text()]
    assert all(text.get_parse_math() == ("mathdefault" in text.get_text()) for text in drawn)


def test_every_seed_is_a_dot_at_the_rate_that_validates_best():
    picture = sweeps.against_rank(frame().assign(accuracy=lambda runs: runs["validation_accuracy"]))
    dots = np.concatenate([dots.get_offsets() for dots in picture.axes[0].collections])
    assert dots.tolist() == [[1, 73.0], [1, 73.1], [4, 76.0], [4, pytest.approx(76.1)]]


def lines(picture: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in picture.axes[0].lines}


def test_only_pictures_that_the_runs_vary_enough_for_are_made():
    assert set(sweeps.pictures(frame())) == {"rank_lr", "lr_curves", "rank", "pareto"}
    assert set(sweeps.pictures(frame(ranks=(4,)))) == {"lr_curves"}
    assert set(sweeps.pictures(frame(ranks=(4,), rates=(1e-3,)))) == {"rank"}
    ruled = frame().assign(alpha=lambda runs: 2 * runs["rank"])  # alpha is shown with the rank that it follows from
    assert set(sweeps.pictures(ruled)) >= {"rank_lr", "lr_curves", "rank", "pareto"}
    assert sweeps.pictures(frame().iloc[:0]) == {}


def test_a_sweep_over_rates_alone_has_a_curve_over_the_rate():
    picture = sweeps.pictures(frame(ranks=(4,), rates=(1e-3, 2e-3, 4e-3)))["lr_curves"]
    assert list(lines(picture).values()) == [pytest.approx([75.05, 76.05, 78.05])]
    assert len(np.concatenate([dots.get_offsets() for dots in picture.axes[0].collections])) == 6


def two(name: str, a: Any, b: Any, **how: Any) -> pd.DataFrame:
    """The runs twice, 10 points better the second time, with two values of a setting."""
    better = frame(**how).assign(**{name: b})
    better[["accuracy", "validation_accuracy"]] += 0.1
    return pd.concat([frame(**how).assign(**{name: a}), better], ignore_index=True)


@pytest.mark.parametrize(("name", "a", "b"), [("alpha", 8, 32), ("dora", None, True)])
def test_runs_that_differ_in_a_setting_that_is_not_shown_are_not_drawn_as_seeds(name: str, a: Any, b: Any):
    both = two(name, a, b)
    made = sweeps.pictures(both)
    for kind in ("rank_lr", "lr_curves", "rank", "pareto"):
        apart = [made[key] for key in made if re.fullmatch(rf"{kind}(_(alpha|dora)_.*)?", key)]
        titles = [picture.axes[0].get_title() for picture in apart]
        assert (len(apart), sum(str(b) in title for title in titles)) == (2, 1)
    first = sorted(float(texts(picture)[0]) for key, picture in made.items() if key.startswith("rank_lr"))
    assert first == [72.0, 82.0]
    heat = partial(sweeps.heat_map, down="rank", across="lr")
    for draw in (heat, sweeps.rate_curves, sweeps.against_rank, sweeps.pareto):
        with pytest.raises(BadValue, match=f"differ in {name}"):
            draw(both)


def test_runs_of_one_seed_that_differ_in_nothing_that_the_frame_tells_are_not_seeds_and_two_dtypes_are_a_warning():
    with pytest.raises(BadValue, match="option that has no column"):
        sweeps.heat_map(two("seed", 0, 0, seeds=1), "rank", "lr")
    with pytest.warns(LabWarning, match="bf16"):
        sweeps.heat_map(two("run_dtype", "bf16", "fp32"), "rank", "lr")


def test_methods_without_a_rank_have_a_curve_over_the_rate_each_and_their_own_rate():
    plain = [
        frame(ranks=(ten,)).assign(method=name, rank=np.nan, targets=None) for ten, name in enumerate(("bitfit", "ia3"))
    ]
    made = sweeps.pictures(pd.concat(plain, ignore_index=True))
    assert set(made) == {"lr_methods", "pareto"}
    drawn = {"method bitfit": [71.05, 72.05], "method ia3": [72.05, 73.05]}
    assert lines(made["lr_methods"]) == {name: pytest.approx(points) for name, points in drawn.items()}
    best = sweeps.best_rate(pd.concat([frame(), *plain], ignore_index=True))
    assert set(best["lr"]) == {2e-3}
    assert len(best) == 8  # two ranks and two methods, two seeds each


def test_correlations_are_drawn_and_told_times_100_and_rates_are_chosen_by_them():
    cola = frame().rename(columns={"accuracy": "matthews", "validation_accuracy": "validation_matthews"})
    assert texts(sweeps.heat_map(cola.assign(accuracy=0.6), "rank", "lr")) == ["72.0", "73.0", "75.0", "76.0"]
    stsb = frame().rename(columns={"accuracy": "pearson", "validation_accuracy": "validation_pearson"})
    assert set(sweeps.pictures(stsb)) == {"rank_lr", "lr_curves", "rank", "pareto"}
    assert set(sweeps.best_rate(stsb)["lr"]) == {2e-3}


def test_runs_that_were_never_validated_are_not_chosen_by_their_test_rows():
    never = frame().drop(columns="validation_accuracy")
    assert sweeps.pictures(never) == {}
    assert set(sweeps.pictures(never[never["lr"] == 1e-3])) == {"rank", "pareto"}
    some = frame().assign(validation_accuracy=lambda runs: runs["validation_accuracy"].where(runs["rank"] == 4))
    assert set(sweeps.best_rate(some)["rank"]) == {4}
