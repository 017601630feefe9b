"""Looks at a picture and tells what is in it, by rule: things by colour and outline, no model asked."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nano.scenes import BACKGROUNDS, COLOURS, RADII, RELATIONS, SHAPES, SIDE, Thing, coverage

_FAR = 60.0  # of 0 … 255 in RGB: further from the background is a thing, further from every colour is none of them
_LEAST = 25  # pixels of a thing
_ALIKE = 0.7  # overlap of an outline with a shape's, as intersection over union
NOTHING = "unclear"


@dataclass(frozen=True)
class Seen:
    """A colour or shape that is none of the known ones is `unclear`."""

    background: str
    things: tuple[Thing, ...]


def look(picture: NDArray[np.uint8]) -> Seen:
    """[SIDE, SIDE, 3] RGB -> what is in it, things from left to right. Things that touch are seen as one."""
    pixels = picture.astype(np.float32)
    ground = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)
    patches = _patches(np.linalg.norm(pixels - ground, axis=-1) > _FAR)
    things = [_thing(pixels, ground, patch) for patch in patches if patch.sum() >= _LEAST]
    return Seen(_nearest(ground, BACKGROUNDS), tuple(sorted(things, key=lambda thing: (thing.x, thing.y))))


def related(first: Thing, relation: str, second: Thing) -> bool:
    """Whether `first` is `relation` (left of, …) `second`: more so than in any other direction."""
    across, down = RELATIONS[relation]
    dx, dy = first.x - second.x, first.y - second.y
    ahead, aside = (dx * across, dy) if across else (dy * down, dx)
    return ahead > abs(aside)


def _nearest(colour: NDArray[np.float32], known: dict[str, tuple[int, int, int]]) -> str:
    distances = {name: float(np.linalg.norm(colour - np.array(value))) for name, value in known.items()}
    name = min(distances, key=distances.__getitem__)
    return name if distances[name] <= _FAR else NOTHING


def _patches(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Parts of the mask that hang together: every pixel takes the largest number around it until nothing changes."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        around = np.pad(labels, 1)
        spread = np.max([around[1:-1, 1:-1], around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]], axis=0) * mask
        if (spread == labels).all():
            return [labels == label for label in np.unique(labels) if label]
        labels = spread


def _thing(pixels: NDArray[np.float32], ground: NDArray[np.float32], patch: NDArray[np.bool_]) -> Thing:
    colour = np.median(pixels[patch], axis=0)
    # How much of each pixel the thing covers, from where its colour lies between the background's and the thing's.
    way = colour - ground
    cover = np.clip((pixels - ground) @ way / max(float(way @ way), 1.0), 0, 1) * _grown(patch)
    solid = np.argwhere(cover > 0.5)
    (top, left), (bottom, right) = solid.min(0), solid.max(0) + 1
    y, x, extent = (top + bottom) / 2, (left + right) / 2, max(bottom - top, right - left) / 2
    overlaps = {shape: max(_overlap(cover, shape, extent + change, x, y) for change in (-0.5, 0.0, 0.5)) for shape in SHAPES}
    shape = max(overlaps, key=overlaps.__getitem__)
    size = min(RADII, key=lambda name: abs(RADII[name] - extent))
    return Thing(_nearest(colour, COLOURS), shape if overlaps[shape] >= _ALIKE else NOTHING, size, round(x), round(y))


def _grown(patch: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With a pixel more around it, where outlines fade."""
    around = np.pad(patch, 1)
    return np.logical_or.reduce([around[1 + dy : SIDE + 1 + dy, 1 + dx : SIDE + 1 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)])


def _overlap(cover: NDArray[np.float32], shape: str, radius: float, x: float, y: float) -> float:
    other = coverage(shape, radius, x, y)
    return float(np.minimum(cover, other).sum() / np.maximum(cover, other).sum())
