"""Weights as ONNX Runtime's kernels want them, written once to a folder that processes of one machine share.

At load ONNX Runtime lays many weights out anew, in memory of each process. Saved by it, they are read from the file, which every process
maps: a second process then needs its own keys and values, and little more.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..bundle.bundle import Bundle
from ..bundle.manifest import WEIGHTS, Graph
from ..errors import BackendError, first_line
from .processor import processor

VARIABLE = "JANUS_PREPACKED"
_DATA = "weights.data"


def prepacked_path(bundle: Bundle, graph: Graph, version: str, write: Callable[[Path, str], None]) -> Path | None:
    """The saved file of a graph, where `JANUS_PREPACKED` names a folder; `write(path, name of the data's file)` makes it the first time.

    What is saved holds for one bundle, one `version` of ONNX Runtime and one kind of processor. Raises BackendError where it cannot
    be saved.
    """
    stated = os.environ.get(VARIABLE)
    if not stated:
        return None
    files = bundle.manifest.files
    key = [files[graph.file].sha256, files[WEIGHTS].sha256 if WEIGHTS in files else "", version, processor()]
    home = Path(stated).absolute() / hashlib.sha256("\0".join(key).encode()).hexdigest()[:32]
    if not home.is_dir():
        try:
            _make(home, graph.file, write)
        except Exception as error:  # a full disk is an OSError to us, and whatever it likes to ONNX Runtime
            reason = getattr(error, "strerror", None) or first_line(error)
            raise BackendError(
                f"{graph.file} cannot be saved in {stated}, which {VARIABLE} names: {reason}; name a folder that can be written, with room "
                "for twice the weights, or none"
            ) from None
    return home / graph.file


def _make(home: Path, file: str, write: Callable[[Path, str], None]) -> None:
    """Whole or not at all. Who comes second while the first one writes, writes too, and takes the first one's."""
    home.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=home.parent))
    try:
        write(part / file, _DATA)
        try:
            part.rename(home)
        except OSError:
            if not home.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def saving(options: Any, path: Path, data: str) -> None:
    """Has a session that is opened with `options` save its graph to `path`, weights beside it in the file `data`."""
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", data)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
