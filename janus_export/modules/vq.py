"""The VQ tokenizer's two halves, and the decoder of SDXL's VAE, which is built alike.

Letters: n pictures, C channels, H W a level's size, V codes.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint.sizes import JanusConfig, VQConfig
from ..onnx.inline import DOMAIN
from ..recipes import FromCheckpoint
from .layers import parameter

_VQ = "model.vqmodel"


class Conv(nn.Module):
    def __init__(self, f: torch.dtype, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = parameter(FromCheckpoint(((f"{name}.weight", (outputs, inputs, kernel, kernel)),)), f)
        self.bias = parameter(FromCheckpoint(((f"{name}.bias", (outputs,)),)), f)
        self.stride = stride
        self.padding = kernel // 2 if stride == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


_GROUPS = 32


class GroupNorm(nn.Module):
    """In plain operators: TensorRT 8.6 has no InstanceNormalization, which torch's own becomes, without a plugin and cuDNN.

    A tokenizer has some sixty of them, of few shapes. In an export each is a placeholder, `group_norm_<C>_<H>_<W>`, and `normalise`
    is traced once for each shape (`onnx/trace.py`).
    """

    word: ClassVar[str] = "group_norm"

    def __init__(self, f: torch.dtype, name: str, channels: int) -> None:
        super().__init__()
        self.weight = parameter(FromCheckpoint(((f"{name}.weight", (channels,)),)), f)
        self.bias = parameter(FromCheckpoint(((f"{name}.bias", (channels,)),)), f)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return self.normalise(x, self.weight, self.bias)
        word = f"{DOMAIN}::{self.word}_{'_'.join(map(str, x.shape[1:]))}"
        return torch.onnx.ops.symbolic(word, [x, self.weight, self.bias], {}, dtype=x.dtype, shape=x.shape, version=1)

    @staticmethod
    def normalise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x [n, C, H, W], weight and bias [C] -> [n, C, H, W]."""

        def grouped(values: Tensor) -> Tensor:
            return values.unflatten(1, (_GROUPS, -1)).flatten(2)

        groups = grouped(x)
        centred = (groups - groups.mean(-1, keepdim=True)).view_as(x)
        # Norms of the map's lines: one pass, nothing as large as the map in between, and sums too short to lose digits.
        squares = torch.linalg.vector_norm(centred, dim=-1).pow(2)
        variance = grouped(squares).mean(-1, keepdim=True) / x.shape[-1]
        scale = weight.view(_GROUPS, -1) / torch.sqrt(variance + 1e-6)
        return centred * scale.flatten(1)[..., None, None] + bias[:, None, None]


class ResidualBlock(nn.Module):
    def __init__(self, f: torch.dtype, name: str, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(f, f"{name}.norm1", inputs)
        self.conv1 = Conv(f, f"{name}.conv1", inputs, outputs, 3)
        self.norm2 = GroupNorm(f, f"{name}.norm2", outputs)
        self.conv2 = Conv(f, f"{name}.conv2", outputs, outputs, 3)
        self.skip = Conv(f, f"{name}.nin_shortcut", inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class AttentionBlock(nn.Module):
    """One head over channels; every place of the grid sees every other."""

    def __init__(self, f: torch.dtype, name: str, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(f, f"{name}.norm", channels)
        self.query = Conv(f, f"{name}.q", channels, channels, 1)
        self.key = Conv(f, f"{name}.k", channels, channels, 1)
        self.value = Conv(f, f"{name}.v", channels, channels, 1)
        self.output = Conv(f, f"{name}.proj_out", channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        query, key, value = (part(h).flatten(2) for part in (self.query, self.key, self.value))  # [n, C, HW]
        # Scaled before the product: over 512 channels the bare product leaves fp16's range.
        scores = (query * query.shape[1] ** -0.5).transpose(1, 2) @ key
        context = value @ scores.float().softmax(-1).to(x.dtype).transpose(1, 2)
        return x + self.output(context.view_as(x))


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention if `attends`."""

    def __init__(self, f: torch.dtype, name: str, inputs: int, outputs: int, blocks: int, attends: bool) -> None:
        super().__init__()
        widths = [inputs, *[outputs] * blocks]
        self.blocks = nn.ModuleList(ResidualBlock(f, f"{name}.block.{i}", widths[i], outputs) for i in range(blocks))
        attention = [AttentionBlock(f, f"{name}.attn.{i}", outputs) if attends else nn.Identity() for i in range(blocks)]
        self.attention = nn.ModuleList(attention)

    def forward(self, x: Tensor) -> Tensor:
        for block, attend in zip(self.blocks, self.attention, strict=True):
            x = attend(block(x))
        return x


def middle(f: torch.dtype, name: str, channels: int) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(f, f"{name}.block_1", channels, channels),
        AttentionBlock(f, f"{name}.attn_1", channels),
        ResidualBlock(f, f"{name}.block_2", channels, channels),
    )


def codebook(vq: VQConfig, f: torch.dtype) -> nn.Parameter:
    return parameter(FromCheckpoint(((f"{_VQ}.quantize.embedding.weight", (vq.num_ids, vq.code_size)),)), f)


class ImageEncoder(nn.Module):
    """`pixels` fp32 [n, 3, size, size] -> `image_ids` int32 [n, grid²], row-major.

    Latents and codes are both L2-normalised before the nearest search, as in the original; the HF port leaves
    that out. Of unit vectors the nearest is the one of largest product.
    """

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        vq, name = config.required_vq, f"{_VQ}.encoder"
        widths = [vq.base_channels * m for m in (1, *vq.multipliers)]
        last = len(vq.multipliers) - 1
        self.first = Conv(f, f"{name}.conv_in", 3, vq.base_channels, 3)
        self.levels = nn.ModuleList(
            Level(f, f"{name}.down.{i}", widths[i], widths[i + 1], vq.num_res_blocks, attends=i == last) for i in range(last + 1)
        )
        self.downs = nn.ModuleList(
            Conv(f, f"{name}.down.{i}.downsample.conv", widths[i + 1], widths[i + 1], 3, stride=2) for i in range(last)
        )
        self.middle = middle(f, f"{name}.mid", widths[-1])
        self.norm = GroupNorm(f, f"{name}.norm_out", widths[-1])
        self.last = Conv(f, f"{name}.conv_out", widths[-1], vq.latent_channels, 3)
        self.quant = Conv(f, f"{_VQ}.quant_conv", vq.latent_channels, vq.code_size, 1)
        self.codebook = codebook(vq, f)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.first(pixels)
        for index, level in enumerate(self.levels):
            x = level(x)
            if index < len(self.downs):
                x = self.downs[index](F.pad(x, (0, 1, 0, 1)))
        x = self.quant(self.last(F.silu(self.norm(self.middle(x)))))
        latents = F.normalize(x.flatten(2).transpose(1, 2), dim=-1)  # [n, HW, code size]
        codes = F.normalize(self.codebook, dim=-1)
        return (latents @ codes.T).argmax(-1).to(torch.int32)


class PixelDecoder(nn.Module):
    """From the grid of `inputs` channels up to pixels: the half that VQ tokenizers and SDXL's VAE share.

    `widths` of the levels, from the grid on, of `blocks` residual blocks each; the first level attends if `attends`.
    """

    def __init__(self, f: torch.dtype, name: str, inputs: int, widths: list[int], blocks: int, attends: bool) -> None:
        super().__init__()
        before = [widths[0], *widths]
        self.first = Conv(f, f"{name}.conv_in", inputs, widths[0], 3)
        self.middle = middle(f, f"{name}.mid", widths[0])
        self.levels = nn.ModuleList(
            Level(f, f"{name}.up.{i}", before[i], width, blocks, attends and i == 0) for i, width in enumerate(widths)
        )
        self.ups = nn.ModuleList(Conv(f, f"{name}.up.{i}.upsample.conv", width, width, 3) for i, width in enumerate(widths[:-1]))
        self.norm = GroupNorm(f, f"{name}.norm_out", widths[-1])
        self.last = Conv(f, f"{name}.conv_out", widths[-1], 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.first(x))
        for index, level in enumerate(self.levels):
            x = level(x)
            if index < len(self.ups):
                x = self.ups[index](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.last(F.silu(self.norm(x)))


class ImageDecoder(nn.Module):
    """`image_ids` int32 [n, grid²] -> `pixels` fp32 [n, 3, size, size], about -1 to 1. Codes are L2-normalised at use."""

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        vq = config.required_vq
        widths = [vq.base_channels * m for m in reversed(vq.multipliers)]
        self.grid = vq.grid
        self.codebook = codebook(vq, f)
        self.post_quant = Conv(f, f"{_VQ}.post_quant_conv", vq.code_size, vq.latent_channels, 1)
        self.decoder = PixelDecoder(f, f"{_VQ}.decoder", vq.latent_channels, widths, vq.num_res_blocks + 1, attends=True)

    def forward(self, image_ids: Tensor) -> Tensor:
        codes = F.embedding(image_ids, F.normalize(self.codebook, dim=-1))
        return self.decoder(self.post_quant(codes.transpose(1, 2).reshape(-1, codes.shape[-1], self.grid, self.grid)))


class LatentDecoder(nn.Module):
    """`latents` fp32 [n, c, h, w] of unit scale -> `pixels` fp32 [n, 3, size, size], about -1 to 1: SDXL's VAE, of diffusers' names."""

    def __init__(self, config: JanusConfig, f: torch.dtype) -> None:
        super().__init__()
        vae = config.required_flow.vae
        self.scale = vae.scaling_factor
        self.post_quant = Conv(f, "vae.post_quant_conv", vae.latent_channels, vae.latent_channels, 1)
        self.decoder = PixelDecoder(f, "vae.decoder", vae.latent_channels, list(vae.widths[::-1]), vae.num_res_blocks + 1, attends=False)

    def forward(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant(latents / self.scale))
