"""The sizes of a model, by part: what a config.json comes down to, whatever its layout."""

from dataclasses import dataclass
from typing import Literal

Layout = Literal["multi_modality", "hf"]


@dataclass(frozen=True)
class TextConfig:
    vocab_size: int
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    max_length: int
    rope_theta: float
    norm_eps: float
    tied_head: bool

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads


@dataclass(frozen=True)
class VisionConfig:
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    image_size: int
    patch_size: int
    norm_eps: float
    aligner_depth: int

    @property
    def num_tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class VQConfig:
    """The VQ tokenizer and what joins it to the language model (embedding, aligner, head)."""

    num_ids: int
    code_size: int
    latent_channels: int
    base_channels: int
    multipliers: tuple[int, ...]
    num_res_blocks: int
    aligner_depth: int
    head_size: int
    grid: int

    @property
    def factor(self) -> int:
        return 1 << (len(self.multipliers) - 1)

    @property
    def image_size(self) -> int:
        return self.grid * self.factor


@dataclass(frozen=True)
class VaeConfig:
    """The decoder half of an SDXL `AutoencoderKL`: `widths` from pixels to latents, `num_res_blocks` as its config counts them."""

    latent_channels: int
    widths: tuple[int, ...]
    num_res_blocks: int
    scaling_factor: float

    @property
    def factor(self) -> int:
        return 1 << (len(self.widths) - 1)


@dataclass(frozen=True)
class FlowConfig:
    """What JanusFlow draws with instead of a VQ tokenizer: a shallow UViT on both sides of the decoder, and the VAE of its latents.

    `grid` tokens a side, each a patch of `stride` latents a side. `channels` of the UViT's encoder; its decoder's blocks are twice
    as wide, `channels` of the decoder's own beside the encoder's.
    """

    channels: int
    kernel: int
    stride: int
    encoder_blocks: int
    decoder_blocks: int
    norm_eps: float
    grid: int
    vae: VaeConfig

    @property
    def latent_size(self) -> int:
        return self.grid * self.stride

    @property
    def image_size(self) -> int:
        return self.latent_size * self.vae.factor


@dataclass(frozen=True)
class JanusConfig:
    """`vq` of Janus and Janus-Pro, `flow` of JanusFlow: one of the two."""

    layout: Layout
    text: TextConfig
    vision: VisionConfig
    vq: VQConfig | None = None
    flow: FlowConfig | None = None

    @property
    def drawn(self) -> VQConfig | FlowConfig:
        return self.vq or self.required_flow

    @property
    def required_vq(self) -> VQConfig:
        """For what only Janus and Janus-Pro have."""
        assert self.vq is not None
        return self.vq

    @property
    def required_flow(self) -> FlowConfig:
        """For what only JanusFlow has."""
        assert self.flow is not None
        return self.flow

    @property
    def image_tokens(self) -> int:
        """What a seen picture becomes in a prompt; JanusFlow puts a vector of its own in place of begin-of-image, too."""
        return self.vision.num_tokens + (1 if self.flow else 0)
