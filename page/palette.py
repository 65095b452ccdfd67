"""Choose the colours of the genres, and write them to the file that the page and the SVG export share.

The colours are chosen one after the other from a grid in OKLCH. Each is as different as possible from all earlier ones
for the worst of normal vision, protanopia, deuteranopia and tritanopia, so the first colours are the most different.
Run with ``python page/palette.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

N_COLOURS = 26
TARGET = Path(__file__).parents[1] / "service" / "wholetrack" / "api" / "palette.json"

# Machado, Oliveira and Fernandes (2009), for complete deficiencies, on linear RGB.
SIMULATIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Tritanopia is a thousand times rarer than the others.
WEIGHTS = {"normal": 1.0, "protanopia": 1.35, "deuteranopia": 1.35, "tritanopia": 1.8}

_RGB_TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
_LMS_TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip


def to_linear(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return linear RGB for sRGB in [0, 1]."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def to_oklab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return OKLab for linear RGB."""
    return np.cbrt(np.clip(linear, 0, None) @ _RGB_TO_LMS.T) @ _LMS_TO_LAB.T


def from_oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return linear RGB for OKLab; components outside [0, 1] cannot be displayed."""
    return (lab @ np.linalg.inv(_LMS_TO_LAB).T) ** 3 @ np.linalg.inv(_RGB_TO_LMS).T


def differences(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted difference of each pair of colours for the vision that tells them apart worst."""
    worst = np.full((len(linear), len(linear)), np.inf)
    for vision, matrix in SIMULATIONS.items():
        lab = to_oklab(np.clip(linear @ matrix.T, 0, 1))
        # Differences in lightness are harder to match with a legend than those in hue.
        lab[:, 0] *= 0.8
        worst = np.minimum(worst, WEIGHTS[vision] * np.linalg.norm(lab[:, None] - lab[None], axis=-1))
    return worst


def candidates() -> NDArray[np.float64]:
    """Return the colours to choose from, in linear RGB: neither pale nor garish, and visible on black and on white."""
    lightness, chroma, hue = np.meshgrid(
        np.arange(0.5, 0.9, 0.04), np.arange(0.05, 0.15, 0.025), np.radians(np.arange(0, 360, 9)), indexing="ij"
    )
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1).reshape(-1, 3)
    linear = from_oklab(lab)
    return linear[((linear > 0) & (linear < 1)).all(axis=1)]


def choose(n: int, start: str) -> NDArray[np.float64]:
    """Return ``n`` colours in linear RGB, beginning with the one nearest to ``start``."""
    linear = candidates()
    distance = differences(linear)
    first = np.array([int(start[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    chosen = [int(np.argmin(np.linalg.norm(to_oklab(linear) - to_oklab(to_linear(first)), axis=1)))]
    while len(chosen) < n:
        chosen.append(int(distance[:, chosen].min(axis=1).argmax()))
    return linear[chosen]


def to_hex(linear: NDArray[np.float64]) -> str:
    """Return a colour in linear RGB as ``#rrggbb``."""
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(float(channel) * 255):02x}" for channel in srgb)


def main() -> None:
    """Write the palette and print how different its colours are."""
    linear = choose(N_COLOURS, "#3b6fd4")
    TARGET.write_text(json.dumps([to_hex(colour) for colour in linear], indent=1) + "\n")
    distance = differences(linear) + np.eye(N_COLOURS) * 9
    for n in (10, 16, 25):
        print(n, "colours differ by at least", round(float(distance[:n, :n].min()), 3))


if __name__ == "__main__":
    main()
