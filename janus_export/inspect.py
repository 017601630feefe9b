"""`janus-export inspect`: what a checkpoint is and what would become of it, from headers alone."""

from typing import Any

import numpy as np

from .bundle import graphs_for, recipes_of_all, with_head
from .checkpoint import open_checkpoint
from .config import CheckpointError
from .recipes import check_tensors
from .text_side import read_image_input, read_text_side


def inspect_checkpoint(source: str) -> dict[str, Any]:
    """Raises CheckpointError only where the folder is no checkpoint; what is wrong inside goes into the report."""
    checkpoint = with_head(open_checkpoint(source))
    config, family = checkpoint.config, "unknown"
    problems: list[str] = []
    try:
        check_tensors(recipes_of_all(config), checkpoint.tensors)
    except CheckpointError as error:
        problems.append(str(error))
    try:
        family = read_text_side(checkpoint)[3]
    except CheckpointError as error:
        problems.append(str(error))
    try:
        read_image_input(checkpoint)
    except CheckpointError as error:
        problems.append(str(error))
    text, vision, vq = config.text, config.vision, config.vq
    numbers = [int(np.prod(tensor.shape)) for tensor in checkpoint.tensors.values()]
    return {
        "source": checkpoint.name + (f" at {checkpoint.revision}" if checkpoint.revision else ""),
        "family": family,
        "layout": config.layout,
        "dtype": checkpoint.dtype,
        "tensors": f"{len(numbers)} with {sum(numbers):,} weights",
        "language_model": f"{text.num_layers} layers, {text.hidden_size} wide, {text.num_heads} heads, vocabulary {text.vocab_size}",
        "vision_encoder": f"{vision.num_layers} layers, {vision.hidden_size} wide, "
        f"{vision.image_size}x{vision.image_size} in {vision.num_tokens} tokens",
        "image_tokens": f"{vq.grid}x{vq.grid} of {vq.num_ids} codes to {vq.image_size}x{vq.image_size} pixels",
        "graphs": [spec.name for spec in graphs_for(("generation", "understanding"))],
        "problems": problems,
    }
