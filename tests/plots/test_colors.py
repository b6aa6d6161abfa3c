"""The palette for those who see colors otherwise, and for weak projectors: told apart, seen on white, never alone.

A color-blind eye is simulated by the matrices of Machado, Oliveira and Fernandes, "A Physiologically-based Model for
Simulation of Color Vision Deficiency", IEEE Trans. on Visualization and Computer Graphics 15(6), 2009, severity 1;
differences are those of CIE 1976 L*a*b*; contrast is WCAG 2.2's ratio, with its least of 3 for lines and 4.5 for text.
"""

import itertools

import numpy as np
from matplotlib.colors import to_rgb

from lora_lab import plots

PALETTE = {name: getattr(plots, name) for name in ("BLUE", "ORANGE", "GREEN", "RED", "PURPLE", "GRAY", "SKY", "BLACK")}
EYES = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
APART = 10  # units of L*a*b*; about 2 is the least that is seen side by side
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
WHITE = np.array([0.95047, 1, 1.08883])


def linear(color: str) -> np.ndarray:
    """Light of red, green and blue, without the screen's gamma."""
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(color: str, eye: str) -> np.ndarray:
    seen = np.clip(np.array(EYES[eye]) @ linear(color), 0, 1)
    x, y, z = np.cbrt(np.maximum(np.array(TO_XYZ) @ seen / WHITE, 1e-4))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    light, dark = sorted((linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_two_colors_are_told_apart():
    for eye, (one, other) in itertools.product(EYES, itertools.combinations(PALETTE, 2)):
        away = np.linalg.norm(lab(PALETTE[one], eye) - lab(PALETTE[other], eye))
        assert away > APART, (eye, one, other, away)


def test_a_line_in_each_is_seen_and_letters_are_read_on_the_white_face():
    for name, color in PALETTE.items():
        assert contrast(color, "white") >= (4.5 if name in ("BLUE", "RED", "GRAY", "BLACK") else 3), name
