"""The rank panel without a browser: what is sent to it, what it says, and the picture of a saved notebook."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from matplotlib.image import imread

from lora_lab.errors import BadValue, NotFound
from lora_lab.experiments.low_rank import spectrum
from lora_lab.widgets import matrices
from lora_lab.widgets.rank_panel import RankPanel
from lora_lab.widgets.rank_picture import end_words


def sent(panel: RankPanel, name: str) -> np.ndarray:
    """An array as the browser reads it."""
    width = panel.shape[0] if name == "left" else panel.shape[1]
    return np.frombuffer(getattr(panel, name), "<f4").reshape(-1, width)


@pytest.mark.parametrize("source", ["picture", "weight", "update", np.arange(12.0).reshape(3, 4)])
def test_what_is_sent_adds_up_to_the_matrix(source: str | np.ndarray):
    panel = RankPanel(source, rank=2)
    matrix = matrices.matrix_of(source) if isinstance(source, str) else source
    left, right = sent(panel, "left"), sent(panel, "right")
    assert np.allclose(sent(panel, "matrix"), matrix, atol=1e-5)
    assert np.allclose(left.T @ right, matrix, atol=1e-4)
    assert np.allclose(left[:2].T @ right[:2], panel.approximation(), atol=1e-4)
    assert len(panel.values) == len(panel.baseline) == min(matrix.shape)


def test_the_words_follow_the_rank():
    panel = RankPanel("picture", rank=8)
    assert "Rank 8 of 256 keeps 94.0% of the energy" in panel.describe()
    assert "4,096 numbers in place of 65,536 (6.2%); break-even at rank 128." in panel.describe()
    panel.rank = 128
    assert "(100.0%)" in panel.describe()  # at the break-even rank as many numbers as the matrix itself


def test_another_matrix_from_the_menu_and_a_rank_that_fits_it():
    panel = RankPanel("weight", rank=384)
    panel.source = "picture"
    assert (panel.shape, panel.rank, panel.grey) == ([256, 256], 256, True)
    assert panel.kept() == 1
    panel.source = "noise"
    assert not panel.grey
    with pytest.raises(NotFound, match="picture, weight"):
        panel.source = "photo"


def test_a_saved_notebook_shows_the_picture_and_the_words():
    data, metadata = RankPanel("update", rank=2)._repr_mimebundle_()
    assert "Rank 2 of 384 keeps 82.7% of the energy" in data["text/plain"]
    assert metadata["image/png"]["alt"] == data["text/plain"]
    pixels = imread(io.BytesIO(base64.b64decode(data["image/png"])))
    assert (pixels[:, :, 3] == 1).all()  # opaque: it reads on a dark theme too
    assert pixels.std() > 0.05
    assert "application/vnd.jupyter.widget-view+json" in data


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: RankPanel("photo"), NotFound, "did you mean"),
        (lambda: RankPanel(np.zeros(5)), BadValue, "rows and columns"),
        (lambda: RankPanel(np.zeros((2000, 10))), BadValue, "matrix\\[:512, :512\\]"),
        (lambda: RankPanel("picture", rank=0), BadValue, "take 1 to 256"),
        (lambda: RankPanel("picture", rank=257), BadValue, "take 1 to 256"),
        (lambda: matrices.weight(9), NotFound, "encoder.layer"),
        (lambda: matrices.weight(0, "up"), NotFound, "q, k, v, o"),
        (lambda: matrices.update(0, "k"), NotFound, "not in the file"),
    ],
)
def test_what_cannot_be_shown_says_what_can(call, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        call()


def test_a_matrix_of_zeros_is_drawn_like_any_other():
    panel = RankPanel(np.zeros((4, 6)), rank=1)
    assert panel.kept() == 1
    assert panel._repr_mimebundle_()[0]["image/png"]


def test_the_line_ends_where_the_values_do():
    assert end_words(RankPanel("picture").values) == "0 from 160 on"
    assert end_words(RankPanel("update").values) == "0 from 9 on"
    assert end_words(RankPanel("weight").values) == ""


def test_the_picture_is_drawn_by_us_and_its_mean_is_out():
    picture = matrices.picture()
    assert picture.shape == (256, 256)
    assert abs(picture.mean()) < 1e-12
    assert np.abs(picture).max() == 1
    with pytest.raises(ValueError, match="read-only"):
        picture[0, 0] = 1  # the next caller gets the same


def test_the_update_has_rank_eight_and_the_weight_has_not():
    s, w = spectrum(matrices.update()), spectrum(matrices.weight())
    assert (s > 1e-9 * s[0]).sum() == 8
    assert (w > 1e-5 * w[0]).sum() == 384
