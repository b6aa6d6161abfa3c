import base64
import json

import numpy as np
import pytest
import torch

from lora_lab import NotFound, RankPanel
from lora_lab.experiments.low_rank import decompose, energy_kept, truncated
from lora_lab.widgets import matrices
from tests.conftest import assert_raises


def sum_of(pieces: dict, rank: int) -> np.ndarray:
    """Return the sum of the first `rank` pieces, as the browser draws it."""
    vectors = np.frombuffer(base64.b64decode(pieces["pieces"]), np.int8).reshape(-1, pieces["rows"] + pieces["columns"])
    columns, rows = np.split(vectors[:rank].astype(float), [pieces["rows"]], axis=1)
    return (columns.T * pieces["scales"][:rank]) @ rows


@pytest.mark.parametrize("matrix", [matrices.picture(), np.random.default_rng(0).normal(size=(3, 40))])
def test_pieces_add_up_to_the_truncated_svd(matrix):
    (pieces,), (u, s, vt) = RankPanel(matrix, corner=99).data.values(), decompose(matrix)
    for rank in (0, 1, 3):
        best = truncated(u, s, vt, rank)[:99, :99]
        assert np.linalg.norm(sum_of(pieces, rank) - best) <= 0.02 * np.linalg.norm(best)  # one byte per number
        assert pieces["kept"][rank][:2] == [rank, pytest.approx(energy_kept(s, rank), abs=1e-5)]


def test_default_shows_full_fine_tuning_and_answers_at_each_rank():
    panel = RankPanel()
    assert (panel.source, panel.rank) == ("full", 2)
    assert "cut to rank 2, 79.2% of the answers are right; with nothing cut, 84.8%" in panel.describe()
    cut = panel.cuts["updates"]["full"]
    for at in range(len(cut["ranks"])):
        for gained in cut["gained"][at]:
            _, label, answers = cut["sentences"][gained]
            assert set(answers[at:]) == {str(label)}
            assert at == 0 or answers[at - 1] != str(label)
        for lost in cut["lost"][at]:
            _, label, answers = cut["sentences"][lost]
            assert (answers[at] == str(label), answers[-1] == str(label)) == (False, True)


def test_rank_is_limited_by_the_matrix():
    panel = RankPanel("picture", rank=8)
    assert "8 of 256 pieces keep 94.0% of the energy" in panel.describe()
    assert "4,096 numbers instead of 65,536." in panel.describe()
    panel.rank = 64
    panel.source = "update"
    assert panel.rank == 8  # the rank of the shipped adapter
    assert "8 of 384 pieces keep 100.0% of the energy" in panel.describe()
    with pytest.raises(NotFound, match="full, update, weight"):
        panel.source = "photo"
    assert_raises("use 0 to 64", RankPanel, "picture", rank=-1)
    weight = torch.nn.Linear(6, 5).weight.bfloat16()  # a tensor that trains
    panel = RankPanel({"mine": matrices.picture(), "weight": weight}, most=4)
    assert [len(panel.data[name]["scales"]) for name in ("mine", "weight")] == [4, 4]
    assert_raises("squares are finite", RankPanel, 1e300 * np.eye(3))


def test_matrices_are_sent_when_chosen_and_all_in_a_page():
    panel = RankPanel()
    assert list(panel.data) == ["full"]
    panel._handle_custom_msg({"source": "noise"}, [])
    assert (panel.source, list(panel.data)) == ("noise", ["full", "noise"])
    state = panel.state()
    assert set(state["data"]) == set(matrices.SOURCES)
    assert len(json.dumps(state)) < 300_000


def test_without_minilm_the_other_matrices_are_offered(monkeypatch, tmp_path):
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path))
    assert set(RankPanel().state()["data"]) == set(matrices.SOURCES) - {"weight"}
    assert_raises("lora-lab fetch", RankPanel, "weight", error=NotFound)
