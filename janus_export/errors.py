"""What goes wrong with a checkpoint."""

from janus_runtime.errors import JanusError


class CheckpointError(JanusError):
    """A checkpoint that is missing, incomplete or of an architecture that this export does not know."""


class VaeError(CheckpointError):
    """JanusFlow's VAE, a checkpoint of its own, cannot be had."""
