"""Checkpoints as they are published: files, layouts, configs, fine-tunes, one tensor in memory at a time."""

from .checkpoint import Checkpoint, open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]
