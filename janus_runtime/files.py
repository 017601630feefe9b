"""Pictures on disk: numbered names, parameters inside the PNG, nothing overwritten, nothing half written."""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from . import __version__
from .image import grid
from .janus import Janus
from .text_to_image import GeneratedImage


class PictureFolder:
    """Writes `NNN-<slug>-seed<S>.png` into a folder, which it makes. NNN goes on from the highest number there."""

    def __init__(self, folder: Path, janus: Janus, upscale: int | None = None) -> None:
        """Raises OSError if the folder cannot be written to: now, not after minutes of drawing."""
        self.folder = folder
        self.upscale = upscale
        ancestor = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
        if not (ancestor.is_dir() and os.access(ancestor, os.W_OK)):
            raise OSError(f"cannot write to {folder}: {ancestor} is no folder that we may write to; choose another --out")
        manifest = janus.manifest
        self._made_by = {
            "software": f"janus-rt {__version__}",
            "model": manifest.name,
            "precision": manifest.precision,
            "backend": janus.backend,
        }

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
        return image.resize((self.upscale, self.upscale), Image.Resampling.LANCZOS)

    def _write(self, image: Image.Image, name: str, picture: GeneratedImage) -> Path:
        info = PngInfo()
        drawn_by = dataclasses.asdict(picture.sampler) if picture.sampler else {"steps": picture.steps}
        drawn_from = {"image_sha256": picture.image_sha256, "image_weight": picture.image_weight}
        settings = {"cfg_weight": picture.cfg_weight, **drawn_by, **drawn_from}
        for key, value in {"prompt": picture.prompt, "seed": picture.seed, **settings, **self._made_by}.items():
            if value is not None:
                info.add_itxt(key, str(value))
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{name}-{os.getpid()}.part"
        try:
            image.save(part, format="PNG", pnginfo=info)
            while True:
                path = self.folder / f"{self._next_number():03}-{name}.png"
                try:
                    _move(part, path)
                    return path
                except FileExistsError:
                    continue  # Another program shares the folder and was faster.
        finally:
            part.unlink(missing_ok=True)

    def _next_number(self) -> int:
        numbers = [int(match[1]) for name in os.listdir(self.folder) if (match := re.match(r"(\d{3,9})-", name))]
        return max(numbers, default=-1) + 1


def _move(part: Path, path: Path) -> None:
    """Gives a finished file its name. Raises FileExistsError rather than overwrite."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without links: take the name first, then fill it.
        path.open("x").close()
        os.replace(part, path)


def slug(text: str, length: int = 40) -> str:
    """Lower-case letters and digits of any script, the rest as single dashes, at most `length` bytes in UTF-8."""
    words = re.sub(r"[\W_]+", "-", text.lower()).strip("-")
    return words.encode()[:length].decode(errors="ignore").strip("-") or "picture"
