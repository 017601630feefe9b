"""Made pictures that image graphs are calibrated and judged on: no photo ships with the exporter.

Letters: n pictures, S a side in pixels. Values are -1 to 1, channels RGB.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_SHAPES = 9  # at most, in a picture
_LINES = 6  # of marks like letters


def made_pictures(count: int, size: int, seed: int, first: int = 0) -> Floats:
    """[n, 3, S, S], those from `first` on of an endless row, other ones for every seed: what photos and drawings have in common.

    Each has a background (a flat colour, a gradient, or clouds whose power falls with the frequency as in photos), edges of shapes that are
    flat, shaded or textured, rows of marks like letters in every second one, and noise of its own strength.
    """
    return np.stack([_picture(np.random.default_rng([seed, index]), size, index) for index in range(first, first + count)])


def _picture(rng: np.random.Generator, size: int, index: int) -> Floats:
    picture = (_flat, _gradient, _clouds)[index % 3](rng, size)
    for _ in range(int(rng.integers(1, _SHAPES + 1))):
        fill = (_flat, _gradient, _clouds, _stripes)[rng.integers(4)](rng, size)
        picture = np.where(_outline(rng, size), fill, picture)
    if index % 2:
        picture = np.where(_marks(rng, size), _flat(rng, size), picture)
    picture = picture + rng.uniform(0, 0.08) * rng.standard_normal(picture.shape)
    return np.clip(picture, -1, 1).astype(np.float32)


def _flat(rng: np.random.Generator, size: int) -> NDArray[Any]:
    return np.broadcast_to(_colour(rng), (3, size, size))


def _gradient(rng: np.random.Generator, size: int) -> NDArray[Any]:
    y, x = _places(size)
    angle = rng.uniform(0, 2 * np.pi)
    share = 0.5 + 0.5 * (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2)
    return _colour(rng) * share + _colour(rng) * (1 - share)


def _clouds(rng: np.random.Generator, size: int) -> NDArray[Any]:
    """Noise whose amplitude falls as one over the frequency, most of it grey."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    fall = np.divide(1, frequency, out=np.zeros_like(frequency), where=frequency > 0)
    waves = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((4, size, size))) * fall, s=(size, size))
    waves /= waves.std(axis=(1, 2), keepdims=True)
    return _colour(rng) + rng.uniform(0.1, 0.5) * (waves[:1] + 0.3 * waves[1:])


def _stripes(rng: np.random.Generator, size: int) -> NDArray[Any]:
    """Two colours in turn, in waves or with hard edges, a period of 3 pixels to a quarter of the picture."""
    y, x = _places(size)
    angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(3), np.log(size / 4))) * 2 / size
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
    share = 0.5 + 0.5 * (np.sign(wave) if rng.integers(2) else wave)
    return _colour(rng) * share + _colour(rng) * (1 - share)


def _outline(rng: np.random.Generator, size: int) -> NDArray[np.bool_]:
    """[S, S]: an ellipse, or a convex polygon of three to six sides."""
    y, x = _places(size)
    across, down = x - rng.uniform(-0.8, 0.8), y - rng.uniform(-0.8, 0.8)
    radius = rng.uniform(0.08, 0.6)
    if rng.integers(2):
        return np.hypot(across, down * rng.uniform(0.6, 1.7)) < radius
    sides, turn = int(rng.integers(3, 7)), rng.uniform(0, 2 * np.pi)
    angles = turn + np.arange(sides) * 2 * np.pi / sides
    return np.all([across * np.cos(angle) + down * np.sin(angle) < radius * 0.7 for angle in angles], axis=0)


def _marks(rng: np.random.Generator, size: int) -> NDArray[np.bool_]:
    """[S, S]: lines of strokes, a letter's height from 6 pixels to an eighth of the picture."""
    marks = np.zeros((size, size), bool)
    height = int(rng.integers(6, max(size // 8, 6) + 1))
    stroke, top = max(height // 6, 1), int(rng.integers(0, size // 2))
    for line in range(int(rng.integers(1, _LINES + 1))):
        first = top + line * height * 3 // 2
        left = int(rng.integers(0, size // 4))
        while left + height < size and first + height < size:
            # Upright and level strokes at thirds of a letter's box, as they fall.
            for part in range(3):
                if rng.integers(2):
                    marks[first : first + height, left + part * height // 4 :][:, :stroke] = True
                if rng.integers(2):
                    marks[first + part * (height - stroke) // 2 :, left : left + height // 2][:stroke] = True
            left += height * 3 // 4
    return marks


def _colour(rng: np.random.Generator) -> NDArray[Any]:
    return rng.uniform(-1, 1, (3, 1, 1))


def _places(size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows and columns, -1 to 1."""
    line = (np.arange(size) + 0.5) * 2 / size - 1
    return line[:, None], line[None, :]
