"""`janus-export inspect`: what a checkpoint is and what would become of it. Of the weights only headers are read."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .checkpoint.checkpoint import open_checkpoint
from .checkpoint.sizes import JanusConfig
from .checkpoint.text_side import read_image_input, read_text_side
from .errors import CheckpointError, VaeError
from .graphs import graphs_of, recipes_of_all
from .recipes import check_tensors


def inspect_checkpoint(source: str, vae: str | None = None) -> dict[str, Any]:
    """Raises CheckpointError where config or files cannot be read at all; what does not fit goes under `problems`."""
    problems = []
    try:
        checkpoint = open_checkpoint(source, vae)
    except VaeError as error:
        problems.append(str(error))
        checkpoint = open_checkpoint(source, draws=False)
    config = checkpoint.config
    checks: dict[str, Callable[[], Any]] = {
        "tensors": lambda: check_tensors(recipes_of_all(config, checkpoint.vae is not None), checkpoint.tensors),
        "family": lambda: read_text_side(checkpoint)[3],
        "preprocessing": lambda: read_image_input(checkpoint),
    }
    found = {}
    for name, check in checks.items():
        try:
            found[name] = check()
        except CheckpointError as error:
            problems.append(str(error))
    text, vision = config.text, config.vision
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
        "image_tokens": _image_tokens(config),
        "graphs": [spec.name for spec in graphs_of(config)],
        "notes": list(checkpoint.notes),
        "problems": problems,
    }


def _image_tokens(config: JanusConfig) -> str:
    grid, size, flow = config.drawn.grid, config.drawn.image_size, config.flow
    of = f"{flow.stride}x{flow.stride} latents of {flow.vae.latent_channels} channels" if flow else f"{config.required_vq.num_ids} codes"
    return f"{grid}x{grid} of {of} to {size}x{size} pixels"
