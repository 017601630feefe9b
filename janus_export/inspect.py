"""`janus-export inspect`: what a checkpoint is and what would become of it. Of the weights only headers are read."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .checkpoint import open_checkpoint
from .config import CheckpointError
from .graphs import GRAPHS, recipes_of_all
from .recipes import check_tensors
from .text_side import read_image_input, read_text_side


def inspect_checkpoint(source: str) -> dict[str, Any]:
    """Raises CheckpointError where config or files cannot be read at all; what does not fit goes under `problems`."""
    checkpoint = open_checkpoint(source)
    config, problems = checkpoint.config, []
    checks: dict[str, Callable[[], Any]] = {
        "tensors": lambda: check_tensors(recipes_of_all(config), checkpoint.tensors),
        "family": lambda: read_text_side(checkpoint)[3],
        "preprocessing": lambda: read_image_input(checkpoint),
    }
    found = {}
    for name, check in checks.items():
        try:
            found[name] = check()
        except CheckpointError as error:
            problems.append(str(error))
    text, vision, vq = config.text, config.vision, config.vq
    numbers = [int(np.prod(tensor.shape)) for tensor in checkpoint.tensors.values()]
    return {
        "source": checkpoint.name + (f" at {checkpoint.revision}" if checkpoint.revision else ""),
        "family": found.get("family", "unknown"),
        "layout": config.layout,
        "dtype": checkpoint.dtype,
        "tensors": f"{len(numbers)} with {sum(numbers):,} weights",
        "language_model": f"{text.num_layers} layers, {text.hidden_size} wide, {text.num_heads} heads, vocabulary {text.vocab_size}",
        "vision_encoder": f"{vision.num_layers} layers, {vision.hidden_size} wide, "
        f"{vision.image_size}x{vision.image_size} in {vision.num_tokens} tokens",
        "image_tokens": f"{vq.grid}x{vq.grid} of {vq.num_ids} codes to {vq.image_size}x{vq.image_size} pixels",
        "graphs": [spec.name for spec in GRAPHS],
        "problems": problems,
    }
