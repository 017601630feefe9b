"""Pictures on disk: numbered names, parameters inside the PNG, nothing overwritten, nothing half written."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..drawing.request import GeneratedImage
from ..janus import Janus
from ..pictures.image import grid, resize
from ..pictures.png_text import describe_maker, png_text
from ..whole_file import open_part, rename_new


class PictureFolder:
    """Writes `NNN-<slug>-seed<S>.png` into a folder, which it makes. NNN goes on from the highest number there."""

    def __init__(self, folder: Path, janus: Janus, upscale: int | None = None) -> None:
        """Raises OSError if the folder cannot be written to: now, not after minutes of drawing."""
        self.folder = folder
        self.upscale = upscale
        ancestor = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
        if not (ancestor.is_dir() and os.access(ancestor, os.W_OK)):
            raise OSError(f"cannot write to {folder}: {ancestor} is no folder that we may write to; choose another --out")
        self._maker = describe_maker(janus.manifest, janus.backend)

    def save(self, picture: GeneratedImage) -> Path:
        """Writes one picture with its parameters and returns its path. Raises OSError."""
        image = self._scaled(picture.image)
        return self._write(image, f"{slug(picture.prompt)}-seed{picture.seed}", picture)

    def save_grid(self, pictures: Sequence[GeneratedImage]) -> Path:
        """All pictures of one prompt as one file."""
        sheet = grid([self._scaled(picture.image) for picture in pictures])
        return self._write(sheet, f"{slug(pictures[0].prompt)}-seed{pictures[0].seed}-grid", pictures[0])

    def _scaled(self, image: Image.Image) -> Image.Image:
        if self.upscale is None:
            return image
        return resize(image, (self.upscale, self.upscale), Image.Resampling.LANCZOS)

    def _write(self, image: Image.Image, name: str, picture: GeneratedImage) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open_part(self.folder / name) as part:
            image.save(part, format="PNG", pnginfo=png_text(picture, self._maker))
            number = self._next_number()
            while True:
                path = self.folder / f"{number:03}-{name}.png"
                try:
                    rename_new(part, path)
                    return path
                except FileExistsError:
                    number += 1  # Another program shares the folder and was faster.

    def _next_number(self) -> int:
        numbers = [int(match[1]) for name in os.listdir(self.folder) if (match := re.match(r"(\d{3,9})-", name))]
        return max(numbers, default=-1) + 1


def slug(text: str, length: int = 40) -> str:
    """Lower-case letters and digits of any script, the rest as single dashes, at most `length` bytes in UTF-8.

    Without what this system's file names cannot express, for a name must not cost the picture.
    """
    encoding = sys.getfilesystemencoding()
    words = re.sub(r"[\W_]+", "-", text.lower().encode(encoding, "ignore").decode(encoding)).strip("-")
    return words.encode()[:length].decode(errors="ignore").strip("-") or "picture"
