"""Scenes with exact truth: a few flat things on a plain background, 64 x 64 pixels.

Things fill whole cells of 8 x 8 pixels, 2 x 2 or 3 x 3 of them: what an id of the VQ tokenizer stands for. So a cell has
one of 459 contents, each of which can have an id of its own.

A scene is of one kind: `one` thing at a place, a `pair` in a relation, or `many` things alike. An eighth of all
combinations (what every caption of a scene must say) is held out of training, for every task.
"""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SIDE = 64
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (240, 215, 30),
    "orange": (240, 130, 20),
    "purple": (140, 50, 170),
}
BACKGROUNDS = {"white": (255, 255, 255), "grey": (128, 128, 128), "black": (0, 0, 0)}
SHAPES = ("circle", "square", "triangle", "cross")
RADII = {"small": 8, "large": 12}  # half of a thing's width and height, in pixels
PLACES = {"in the middle": (0, 0), "at the top": (0, -1), "at the bottom": (0, 1), "on the left": (-1, 0), "on the right": (1, 0)}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
MOST = 4  # things in a scene
_CELL = 8  # pixels a side
OFF_CENTRE = 16  # pixels from the middle of the picture to the middle of a place
_HELD_OUT = 8  # one combination in so many

Kind = Literal["one", "pair", "many"]


@dataclass(frozen=True)
class Thing:
    """A shape; x and y are its centre in pixels from the top left."""

    colour: str
    shape: str
    size: str
    x: int
    y: int


@dataclass(frozen=True)
class Scene:
    """`detail` is the place of `one`, the relation of the first of a `pair` to the second, the number of `many`."""

    kind: Kind
    things: tuple[Thing, ...]
    background: str
    detail: str

    @property
    def combination(self) -> str:
        """What makes this scene new to a model, if no scene of training had it."""
        kinds = [f"{thing.colour} {thing.shape}" for thing in self.things]
        if self.kind == "pair":
            return f"pair: {' and '.join(sorted(kinds))}"
        return f"{self.kind}: {kinds[0]}, {self.detail}"

    @property
    def held_out(self) -> bool:
        return zlib.crc32(self.combination.encode()) % _HELD_OUT == 0


def sample(rng: np.random.Generator, held_out: bool = False, kind: Kind | None = None) -> Scene:
    """A scene drawn at random from the ones for training or the ones held out."""
    while True:
        chosen: Kind = kind or str(rng.choice(["one", "pair", "many"], p=[0.3, 0.45, 0.25]))  # type: ignore[assignment]
        scene = _SAMPLERS[chosen](rng, str(rng.choice(list(BACKGROUNDS))))
        if scene is not None and scene.held_out == held_out:
            return scene


def _look(rng: np.random.Generator) -> tuple[str, str]:
    return str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))


def _spot(rng: np.random.Generator, radius: int) -> tuple[int, int]:
    """A centre whose thing fills whole cells."""
    x, y = rng.integers(0, (SIDE - 2 * radius) // _CELL, 2, endpoint=True) * _CELL + radius
    return int(x), int(y)


def _one(rng: np.random.Generator, background: str) -> Scene:
    place = str(rng.choice(list(PLACES)))
    size = str(rng.choice(list(RADII)))
    # Half a cell off at the most; along the edge that the place is at, a whole one.
    slack = [_CELL // 2 if way or place == "in the middle" else _CELL for way in PLACES[place]]
    while True:
        spot = _spot(rng, RADII[size])
        off = [abs(at - SIDE // 2 - OFF_CENTRE * way) for at, way in zip(spot, PLACES[place], strict=True)]
        if off[0] <= slack[0] and off[1] <= slack[1]:
            break
    return Scene("one", (Thing(*_look(rng), size, *spot),), background, place)


def _pair(rng: np.random.Generator, background: str) -> Scene | None:
    """Apart in one direction by a cell or more, at most a cell in the other. None where the two looks are the same."""
    looks = [_look(rng), _look(rng)]
    if looks[0] == looks[1]:
        return None
    sizes = rng.choice(list(RADII), 2)
    relation = str(rng.choice(list(RELATIONS)))
    along = 0 if RELATIONS[relation][0] else 1
    sign = sum(RELATIONS[relation])
    apart = sum(RADII[size] for size in sizes) + _CELL
    while True:
        spots = [_spot(rng, RADII[size]) for size in sizes]
        ahead = (spots[0][along] - spots[1][along]) * sign
        aside = abs(spots[0][1 - along] - spots[1][1 - along])
        if ahead >= apart and aside <= _CELL:
            break
    things = tuple(Thing(*look, str(size), *spot) for look, size, spot in zip(looks, sizes, spots, strict=True))
    return Scene("pair", things, background, relation)


def _many(rng: np.random.Generator, background: str) -> Scene:
    count, (colour, shape) = int(rng.integers(2, MOST, endpoint=True)), _look(rng)
    apart = 2 * RADII["small"] + _CELL
    spots: list[tuple[int, int]] = []
    while len(spots) < count:
        x, y = _spot(rng, RADII["small"])
        if all(max(abs(x - other_x), abs(y - other_y)) >= apart for other_x, other_y in spots):
            spots.append((x, y))
        elif rng.random() < 0.05:
            spots.clear()  # Three may leave no room for a fourth.
    return Scene("many", tuple(Thing(colour, shape, "small", *spot) for spot in spots), background, str(count))


_SAMPLERS = {"one": _one, "pair": _pair, "many": _many}


def coverage(shape: str, radius: float, x: float, y: float) -> NDArray[np.float32]:
    """[SIDE, SIDE], how much of each pixel the shape covers, 0 … 1: signed distance from its outline, over one pixel."""
    across = np.arange(SIDE, dtype=np.float32)[None] + np.float32(0.5 - x)
    down = np.arange(SIDE, dtype=np.float32)[:, None] + np.float32(0.5 - y)
    if shape == "circle":
        outside = np.hypot(across, down) - radius
    elif shape == "square":
        outside = np.maximum(abs(across), abs(down)) - radius
    elif shape == "triangle":
        outside = np.maximum(down - radius, (2 * abs(across) - down - radius) / np.float32(5**0.5))
    else:
        arm = 0.36 * radius
        lying = np.maximum(abs(across) - radius, abs(down) - arm)
        outside = np.minimum(lying, np.maximum(abs(across) - arm, abs(down) - radius))
    return np.clip(np.float32(0.5) - outside, 0, 1).astype(np.float32)


def render(scene: Scene) -> NDArray[np.uint8]:
    """-> [SIDE, SIDE, 3] RGB."""
    picture = np.full((SIDE, SIDE, 3), BACKGROUNDS[scene.background], np.float32)
    for thing in scene.things:
        cover = coverage(thing.shape, RADII[thing.size], thing.x, thing.y)[..., None]
        picture += cover * (np.array(COLOURS[thing.colour], np.float32) - picture)
    return picture.round().astype(np.uint8)
