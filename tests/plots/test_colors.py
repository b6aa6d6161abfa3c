"""Colors differ for color-blind readers, by CIE 1976 L*a*b*, and on white they have the contrast that WCAG 2.2 needs.

VISION has the matrices of Machado et al. 2009 (IEEE Trans. on Visualization and Computer Graphics 15(6)), severity 1.
"""

import itertools

import numpy as np
from matplotlib.colors import to_rgb

from lora_lab import plots

PALETTE = {name: getattr(plots, name) for name in ("BLUE", "ORANGE", "GREEN", "RED", "PURPLE", "GRAY", "SKY", "BLACK")}
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
WHITE = np.array([0.95047, 1, 1.08883])


def linear(color: str) -> np.ndarray:
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(color: str, vision: str) -> np.ndarray:
    rgb = np.clip(np.array(VISION[vision]) @ linear(color), 0, 1)
    x, y, z = np.cbrt(np.maximum(np.array(TO_XYZ) @ rgb / WHITE, 1e-4))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_any_two_colors_differ():
    for vision, (a, b) in itertools.product(VISION, itertools.combinations(PALETTE, 2)):
        difference = np.linalg.norm(lab(PALETTE[a], vision) - lab(PALETTE[b], vision))
        assert difference > 10, (vision, a, b)  # in L*a*b*; side by side, about 2 is visible


def test_colors_have_contrast_on_white():
    for name, color in PALETTE.items():
        luminance = linear(color) @ [0.2126, 0.7152, 0.0722]
        assert 1.05 / (luminance + 0.05) >= (4.5 if name in ("BLUE", "RED", "GRAY", "BLACK") else 3), name
