"""What is said of scenes: captions to draw from, questions with their answers, one-line descriptions."""

import numpy as np

from nano.scenes import COLOURS, SHAPES, Scene, Thing, sample

NUMBERS = ("none", "one", "two", "three", "four")
DESCRIBE = (
    "Describe the picture.",
    "Describe the image.",
    "Describe this image.",
    "Describe the image in detail.",
    "What is in this picture?",
    "What is in the picture?",
    "What is this?",
)
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_WORDINGS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "in the middle": ("in the middle", "in the centre", "in the center"),
}
_OPENINGS = ("", "", "", "a picture of ", "an image of ", "draw ")


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _look(thing: Thing, size: bool) -> str:
    return f"{thing.size} {thing.colour} {thing.shape}" if size else f"{thing.colour} {thing.shape}"


def _plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def _several(scene: Scene, size: bool) -> str:
    thing = scene.things[0]
    return f"{NUMBERS[int(scene.detail)]} {'small ' if size else ''}{thing.colour} {_plural(thing.shape)}"


def describe(scene: Scene) -> str:
    """The description in full, always in these words."""
    if scene.kind == "many":
        text = _several(scene, size=False)
    else:
        text = f" {scene.detail} ".join(_a(_look(thing, size=True)) for thing in scene.things)
        text += f" {scene.detail}" if scene.kind == "one" else ""
    return f"{text} on a {scene.background} background"


def caption(scene: Scene, rng: np.random.Generator, new: bool = False) -> str:
    """A prompt that the scene answers, in wording that varies and with some of its facts left out.

    `new` keeps all that makes the scene's combination, so that a scene held out gives a prompt held out, and relations.
    """

    def often(share: float) -> bool:
        return bool(rng.random() < share)

    things, detail = scene.things, scene.detail
    if scene.kind == "many":
        text = _several(scene, size=often(0.3))
    elif scene.kind == "one":
        text = _a(_look(things[0], size=often(0.5)))
        if new or often(0.7):
            text += " " + str(rng.choice(_WORDINGS.get(detail, (detail,))))
    else:
        if often(0.5):
            things, detail = things[::-1], _OPPOSITE[detail]
        between = str(rng.choice(_WORDINGS[detail])) if new or often(0.9) else "and"
        text = f" {between} ".join(_a(_look(thing, size=often(0.4))) for thing in things)
    if often(0.5):
        background = "gray" if scene.background == "grey" and often(0.3) else scene.background
        text += str(rng.choice((f" on a {background} background", f" on {background}")))
    text = str(rng.choice(_OPENINGS)) + text
    if often(0.2):
        text = text[0].upper() + text[1:]
    return text + "." if often(0.2) else text


def questions(scene: Scene, rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """`count` different questions about the scene, each with the one right answer, in British spelling."""
    askers = [_ask_background, _ask_number, _ask_presence, _ask_colour, _ask_shape, _ask_size, _ask_description]
    if scene.kind == "one":
        askers.append(_ask_place)
    if scene.kind == "pair":
        askers += [_ask_neighbour, _ask_neighbour]
    found: dict[str, str] = {}
    while len(found) < count:
        answered = askers[int(rng.integers(len(askers)))](scene, rng)
        if answered is not None:
            question, answer = answered
            if rng.random() < 0.3:
                question = question.replace("colour", "color")
            found.setdefault(question, answer)
    return list(found.items())


def _pick(rng: np.random.Generator, *wordings: str) -> str:
    return wordings[int(rng.integers(len(wordings)))]


def _thing(scene: Scene, rng: np.random.Generator) -> Thing:
    return scene.things[int(rng.integers(len(scene.things)))]


def _ask_background(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    return _pick(rng, "What colour is the background?", "Which colour is the background?"), scene.background


def _ask_number(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    there = [thing.shape for thing in scene.things]
    shape = _pick(rng, there[0], there[-1], _pick(rng, *SHAPES))
    plural = _plural(shape)
    if rng.random() < 0.2:
        return _pick(rng, "How many things are there?", "How many shapes are there?"), NUMBERS[len(there)]
    return _pick(rng, f"How many {plural}?", f"How many {plural} are there?"), NUMBERS[there.count(shape)]


def _ask_presence(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    thing = _thing(scene, rng)
    colour, shape = thing.colour, thing.shape
    change = rng.random()
    if change < 0.3:
        colour = _pick(rng, *COLOURS)
    elif change < 0.6:
        shape = _pick(rng, *SHAPES)
    there = any((thing.colour, thing.shape) == (colour, shape) for thing in scene.things)
    return f"Is there {_a(f'{colour} {shape}')}?", "yes" if there else "no"


def _alone(scene: Scene, rng: np.random.Generator, attribute: str) -> Thing | None:
    """A thing that its `attribute` names without doubt, or nothing."""
    thing = _thing(scene, rng)
    value = getattr(thing, attribute)
    return thing if sum(getattr(other, attribute) == value for other in scene.things) == 1 else None


def _ask_colour(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    if scene.kind == "many":
        return f"What colour are the {_plural(scene.things[0].shape)}?", scene.things[0].colour
    thing = _alone(scene, rng, "shape")
    return thing and (_pick(rng, f"What colour is the {thing.shape}?", f"Which colour is the {thing.shape}?"), thing.colour)


def _ask_shape(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    thing = _alone(scene, rng, "colour")
    return thing and (_pick(rng, f"What shape is the {thing.colour} thing?", f"What is the {thing.colour} thing?"), thing.shape)


def _ask_size(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    thing = _alone(scene, rng, "shape")
    return thing and (f"Is the {thing.shape} small or large?", thing.size)


def _ask_place(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    return f"Where is the {scene.things[0].shape}?", scene.detail


def _ask_description(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    return _pick(rng, *DESCRIBE), describe(scene)


def _ask_neighbour(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    first, second = scene.things
    relation = scene.detail
    if rng.random() < 0.5:
        first, second, relation = second, first, _OPPOSITE[relation]
    other = second.shape if first.shape != second.shape else _look(second, size=False)
    return f"What is {_pick(rng, *_WORDINGS[relation])} the {other}?", _a(_look(first, size=False))


def every_text() -> list[str]:
    """Words of the whole language, for the tokenizer to learn from."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(3000):
        scene = sample(rng)
        texts += [caption(scene, rng), describe(scene)]
        for asked in questions(scene, rng, 2):
            texts += asked
    return texts
