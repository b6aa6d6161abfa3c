"""Matrices for the rank panel: real updates, a real weight, noise, and a generated picture. Does not import torch."""

import base64
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.experiments import low_rank
from lora_lab.files import read_json
from lora_lab.training.assets import asset_path, shipped

SIZE, LARGEST = 256, 1024  # rows of a generated matrix; most rows or columns that a user's matrix may have
PIECES = 64  # maximum number of pieces to draw
ROUNDING = 1e-6  # singular values below this fraction of the largest one are dropped
CUTS = "data/results/microscope/ranks.json"  # written by docs/ranks.py
ROLES = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
SOURCES = {  # label in the menu, and origin
    "full": ("update of full fine-tuning", "MiniLM, layer 0, query: what full fine-tuning added to it."),
    "update": ("update of LoRA, rank 8", "MiniLM, layer 0, query: what LoRA added to it."),
    "weight": ("a weight of MiniLM", "MiniLM, layer 0, query, before any fine-tuning."),
    "noise": ("random numbers", "Independent normal numbers."),
    "picture": ("a picture", "Drawn by a formula."),
}
LETTERS = (  # the letters of LoRA, in 7 rows of 5 dots each
    ("#....", "#....", "#....", "#....", "#....", "#....", "#####"),
    (".....", ".....", ".###.", "#...#", "#...#", "#...#", ".###."),
    ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#"),
    (".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
)


def pieces_of(source: str) -> dict[str, Any]:
    """Return one of the matrices in `SOURCES`, packed. Raises: NotFound if it needs MiniLM and MiniLM is missing."""
    noise = partial(np.random.default_rng(0).normal, size=(SIZE, SIZE))  # no structure at all
    makers: Any = {"update": update, "weight": weight, "noise": noise, "picture": picture}
    return dict(reference()["matrix"]) if source == "full" else packed(makers[source]())


@cache
def reference() -> dict[str, Any]:
    """Load the shipped data: `matrix`, an update of full fine-tuning, and `cuts`, the model's accuracy at each rank."""
    return dict(read_json(shipped(CUTS)))


def packed(matrix: Any, most: int = PIECES, corner: int = LARGEST) -> dict[str, Any]:
    """Decompose a matrix into at most `most` rank-one pieces, with one byte per number.

    Return `shape`, the `rows` and `columns` of the corner to draw, `pieces` (base64 of int8, (k, rows + columns)), and
    `scales` (k,). W_r is the sum over i < r of scales[i] column_i row_i^T. `kept` has [r, share, share if shuffled],
    `ninety` has the ranks that keep 90% of the matrix and of its shuffled copy, `full` is the number of singular
    values, and `limit` is the value with the strongest color.
    Raises: BadValue if `matrix` isn't a matrix or is too large.
    """
    if hasattr(matrix, "detach"):  # NumPy has no bfloat16
        matrix = (matrix.float() if matrix.is_floating_point() else matrix).detach().cpu()
    matrix = np.asarray(matrix)
    if matrix.ndim == 2 and max(matrix.shape) > LARGEST:
        raise BadValue(f"a matrix of {matrix.shape} is too large to redraw while you drag; pass matrix[:512, :512]")
    (u, s, vt), (m, n), drawn = low_rank.decompose(matrix), matrix.shape, matrix[:corner, :corner]
    noise = low_rank.spectrum(low_rank.shuffled(matrix))
    k = min(most, PIECES, max(1, int((s > ROUNDING * s[0]).sum())))
    ends = u.T[:k, :corner], vt[:k, :corner]
    tops = [np.abs(side).max(1, initial=1e-30) for side in ends]
    sides = [side / top[:, None] for side, top in zip(ends, tops, strict=True)]
    plotted = {*range(min(PIECES, len(s)) + 1), *np.geomspace(PIECES, max(PIECES, len(s)), 24).astype(int), len(s)}
    ranks = sorted(int(rank) for rank in plotted if rank <= len(s))
    kept = [[r, *(round(low_rank.energy_kept(values, r), 5) for values in (s, noise))] for r in ranks]
    return {
        "shape": [m, n], "rows": min(m, corner), "columns": min(n, corner), "full": len(s), "kept": kept,
        "ninety": [low_rank.rank_for_energy(values, 0.9) for values in (s, noise)],
        "pieces": base64.b64encode(np.rint(127 * np.hstack(sides)).astype(np.int8).tobytes()).decode(),
        "scales": [float(f"{scale:.6g}") for scale in s[:k] * tops[0] * tops[1] / 127**2],
        "limit": float(f"{min(np.abs(drawn).max(), 2 * np.sqrt(np.square(drawn, dtype=float).mean())) or 1:.4g}"),
    }  # fmt: skip


def picture() -> np.ndarray:
    """Draw a sky, a sun with rings, hills and four letters: (SIZE, SIZE), from -1 (black) to 1 (white), with mean 0."""
    y, x = np.mgrid[0 : 1 : SIZE * 1j, 0 : 1 : SIZE * 1j]
    canvas = 0.9 - 0.7 * y
    distance = np.hypot(x - 0.72, y - 0.27)
    canvas = np.where(distance < 0.2, 0.65 + 0.35 * np.cos(distance * 150), canvas)
    for height, wave, shade in ((0.62, 9, 0.42), (0.72, 14, 0.26), (0.84, 6, 0.1)):
        ridge = height + 0.05 * np.sin(wave * x + 9 * height)
        canvas = np.where(y > ridge, shade + 0.1 * np.sin(90 * (y - ridge)), canvas)
    for number, dots in enumerate(LETTERS):
        mask = np.kron([[dot == "#" for dot in row] for row in dots], np.ones((5, 5), bool))
        canvas[32:67, 16 + 30 * number : 41 + 30 * number][mask] = 0.0
    canvas -= canvas.mean()  # otherwise, the first singular value would capture only the brightness
    return np.asarray(canvas / np.abs(canvas).max())


def weight(layer: int = 0, role: str = "q") -> np.ndarray:
    """Load a 384 x 384 weight of MiniLM's attention, (out, in), from its file. `role` is q, k, v or o.

    Raises: NotFound if MiniLM has not been fetched, or has no such layer or role.
    """
    if role not in ROLES:
        raise NotFound(f"attention has no weight '{role}'; choose one of {', '.join(ROLES)}")
    name = f"encoder.layer.{layer}.attention.{ROLES[role]}.weight"
    return _tensors(asset_path("minilm") / "model.safetensors", name)[0]


def update() -> np.ndarray:
    """Return the shipped adapter's update of the first query weight: dW = (alpha / r) B A, shape (out, in)."""
    folder = shipped("data/results/minilm-rt-r8")
    config = read_json(folder / "adapter_config.json")
    name = "base_model.model.bert.encoder.layer.0.attention.self.query"
    a, b = _tensors(folder / "adapter_model.safetensors", f"{name}.lora_A.weight", f"{name}.lora_B.weight")
    return np.asarray(config["lora_alpha"] / config["r"] * b.astype(float) @ a.astype(float))


def _tensors(path: Path, *names: str) -> list[np.ndarray]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        for name in names:
            if name not in file.keys():
                raise NotFound(f"{name} is not in the file; the nearest names are {nearest(name, file.keys(), 2)}")
        return [file.get_tensor(name) for name in names]
