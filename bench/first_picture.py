"""Draws README's first picture with the built-in janus-nano: a row a prompt, a column a seed.

python -m bench.first_picture docs/first-picture.png
"""

from pathlib import Path

import click
from PIL import Image, ImageDraw, ImageFont

import janus_runtime
from janus_runtime.pictures.image import resize

PROMPTS = (
    "a large red circle",
    "a small blue square left of a large green triangle",
    "three yellow crosses on black",
    "an orange triangle above a purple circle on grey",
)
_COLUMNS, _SIDE, _GAP, _LINE = 6, 128, 8, 26


@click.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def main(out: Path) -> None:
    """Draw OUT."""
    with janus_runtime.load() as janus:
        pictures = janus.generate(PROMPTS, n=_COLUMNS)
    width = _COLUMNS * (_SIDE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(PROMPTS) * (_SIDE + _LINE + _GAP) + _GAP), (245, 245, 245))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for row, prompt in enumerate(PROMPTS):
        top = _GAP + row * (_SIDE + _LINE + _GAP)
        pen.text((_GAP, top), prompt, "black", font)
        for column, picture in enumerate(pictures[row * _COLUMNS : (row + 1) * _COLUMNS]):
            scaled = resize(picture.image, (_SIDE, _SIDE), Image.Resampling.LANCZOS)
            sheet.paste(scaled, (_GAP + column * (_SIDE + _GAP), top + _LINE))
    sheet.save(out)


if __name__ == "__main__":
    main()
