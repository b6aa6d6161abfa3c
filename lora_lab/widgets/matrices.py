"""Matrices worth cutting: a picture drawn here, a real weight, a real adapter's update, and noise. Needs no torch."""

from __future__ import annotations

from functools import cache

import numpy as np

from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.files import read_json
from lora_lab.training.assets import asset_path, shipped

SIZE, LARGEST = 256, 1024  # rows of those made here, and of one that is given
ROLES = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
SOURCES = {
    "picture": "a picture, drawn by formula",
    "weight": "a weight: MiniLM, layer 0, query",
    "update": "an update: what LoRA of rank 8 added to that weight",
    "noise": "noise: random numbers",
}
LETTERS = {  # 7 rows of 5 dots
    "L": ("#....", "#....", "#....", "#....", "#....", "#....", "#####"),
    "o": (".....", ".....", ".###.", "#...#", "#...#", "#...#", ".###."),
    "R": ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#"),
    "A": (".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
}


def matrix_of(source: str) -> np.ndarray:
    """One of SOURCES by its name. Raises: NotFound, naming the nearest; also where MiniLM has not been fetched."""
    makers = {"picture": picture, "weight": weight, "update": update, "noise": noise}
    if source not in makers:
        raise NotFound(f"no matrix is called '{source}'; did you mean {nearest(source, makers)}?")
    return makers[source]()


@cache
def picture() -> np.ndarray:
    """A sky, a sun with rings, hills and four letters; between -1 (black) and 1 (white), mean 0. Shape (SIZE, SIZE).

    The mean is taken out, as else the first singular value would only say how bright the picture is.
    """
    y, x = np.mgrid[0 : 1 : SIZE * 1j, 0 : 1 : SIZE * 1j]
    drawn = 0.9 - 0.7 * y
    distance = np.hypot(x - 0.72, y - 0.27)
    drawn = np.where(distance < 0.2, 0.65 + 0.35 * np.cos(distance * 150), drawn)
    for height, wave, shade in ((0.62, 9, 0.42), (0.72, 14, 0.26), (0.84, 6, 0.1)):
        ridge = height + 0.05 * np.sin(wave * x + 9 * height)
        drawn = np.where(y > ridge, shade + 0.1 * np.sin(90 * (y - ridge)), drawn)
    _write("LoRA", drawn, top=32, left=16, dot=5)
    drawn -= drawn.mean()
    return _frozen(drawn / np.abs(drawn).max())


@cache
def weight(layer: int = 0, role: str = "q") -> np.ndarray:
    """A 384 x 384 weight of MiniLM's attention, (out, in), read from its file. `role` is q, k, v or o.

    Raises: NotFound when MiniLM has not been fetched, or has no such layer or role.
    """
    if role not in ROLES:
        raise NotFound(f"attention has no weight '{role}'; choose one of {', '.join(ROLES)}")
    name = f"encoder.layer.{layer}.attention.{ROLES[role]}.weight"
    return _frozen(_tensors(str(asset_path("minilm") / "model.safetensors"), name)[0])


@cache
def update(layer: int = 0, role: str = "q") -> np.ndarray:
    """What the adapter of the shipped run added to such a weight: dW = (alpha / r) B A, shape (out, in).

    Raises: NotFound for a layer and role that the run did not adapt.
    """
    folder = shipped("data/results/minilm-rt-r8")
    config = read_json(folder / "adapter_config.json")
    name = f"base_model.model.bert.encoder.layer.{layer}.attention.{ROLES.get(role, role)}"
    a, b = _tensors(str(folder / "adapter_model.safetensors"), f"{name}.lora_A.weight", f"{name}.lora_B.weight")
    return _frozen(config["lora_alpha"] / config["r"] * b.astype(float) @ a.astype(float))


@cache
def noise() -> np.ndarray:
    """Independent normal numbers, shape (SIZE, SIZE): no structure whatever."""
    return _frozen(np.random.default_rng(0).normal(size=(SIZE, SIZE)))


def checked(matrix: np.ndarray) -> np.ndarray:
    """A matrix that a browser can redraw while one drags. Raises: BadValue, with the part to take, for a larger one."""
    matrix = np.asarray(matrix)
    if matrix.ndim == 2 and max(matrix.shape) > LARGEST:
        raise BadValue(f"{matrix.shape} is too large to redraw while you drag; take a part: matrix[:512, :512]")
    return matrix


def _write(text: str, canvas: np.ndarray, top: int, left: int, dot: int) -> None:
    """Letters in black dots of so many pixels, from a corner on."""
    for number, letter in enumerate(text):
        dots = np.array([[c == "#" for c in row] for row in LETTERS[letter]])
        mask = np.kron(dots, np.ones((dot, dot), bool))
        start = left + number * 6 * dot
        canvas[top : top + mask.shape[0], start : start + mask.shape[1]][mask] = 0.0


def _tensors(path: str, *names: str) -> list[np.ndarray]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        for name in names:
            if name not in file.keys():
                raise NotFound(f"{name} is not in the file; it has {nearest(name, file.keys(), 2)}")
        return [file.get_tensor(name) for name in names]


def _frozen(matrix: np.ndarray) -> np.ndarray:
    """Not to be written to: the next caller gets the same array."""
    matrix.flags.writeable = False
    return matrix
