"""The decoder of previews: `image_decoder` with 8-bit convolutions, calibrated on made pictures and judged on others.

Pictures go through the checkpoint's own encoder, so that the decoder sees ids that belong together. What the 8-bit decoder computes is
computed here in torch, number by number as `onnx/int8_convs.py` stores it, so that a bad one is known before it is written.
Letters: n pictures, C channels, H W a map's size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import nn

from janus_runtime.bundle.interface import NumberFormat
from janus_runtime.bundle.manifest import Graph, Precision
from janus_runtime.checks.tolerances import PREVIEW_LEVELS, PREVIEW_PSNR_DB
from janus_runtime.pictures.difference import levels, psnr_db

from .checkpoint.sizes import JanusConfig
from .checkpoint.tensor import Tensor
from .errors import CheckpointError
from .goldens import Goldens
from .made_pictures import made_pictures
from .modules import ImageDecoder, ImageEncoder
from .modules.layers import recipes_of, stream_weights
from .modules.vq import Conv
from .onnx.int8_convs import PHASES, ConvScales, Floats, input_scales, output_scales, phase_weights, quantise_convs, quantise_weights
from .onnx.trace import save_graph
from .weights import WeightPlan

# Previews are for a CPU; what is exported for a GPU decodes there in a fraction of the time.
PREVIEWED: tuple[Precision, ...] = ("fp32", "int8", "int4")

# So many pictures that their pixels are about these, of large ones at least the first number, of small ones at most the second. A
# decode of 384x384 takes seconds.
_CALIBRATED, _CALIBRATION_PIXELS = (6, 24), 1 << 20
_JUDGED, _JUDGED_PIXELS = (3, 12), 1 << 19
_CALIBRATION_SEED, _JUDGED_SEED = 1, 2
# A range is what was seen, widened: a value outside is clipped, which shows more than coarser steps do. No channel's is narrower than a
# quarter of the widest, since other pictures may move what these left still (bench/NOTES.md, 20).
_HEADROOM, _NARROWEST = 1.25, 0.25
# SiLU is never below this.
_SILU_LEAST = -0.2785

OnShare = Callable[[float], None]


@dataclass(frozen=True)
class Preview:
    """`scales` by the decoder's convolutions; `judged` as a graph's manifest entry has it; the golden of the worst picture."""

    scales: dict[str, ConvScales]
    judged: dict[str, float]
    goldens: Goldens

    @property
    def refusal(self) -> str | None:
        """Why this preview must not be shown, or None."""
        if self.judged["psnr_db"] >= PREVIEW_PSNR_DB and self.judged["levels"] <= PREVIEW_LEVELS:
            return None
        return (
            f"the 8-bit decoder is within {self.judged['psnr_db']:.1f} dB and {self.judged['levels']:.0f} grey levels of the fp32 one, "
            f"expected at least {PREVIEW_PSNR_DB:.0f} dB and at most {PREVIEW_LEVELS:.0f} levels; the bundle has no image_preview, and "
            "partial pictures are decoded in fp32"
        )


@torch.inference_mode()
def calibrate_preview(config: JanusConfig, tensors: Mapping[str, Tensor], on_share: OnShare = lambda share: None) -> Preview:
    """Runs the reference on made pictures, one at a time. Raises CheckpointError where it gives NaN or Inf."""
    size, f = config.required_vq.image_size, torch.float32
    calibrated, judged = _count(size, _CALIBRATED, _CALIBRATION_PIXELS), _count(size, _JUDGED, _JUDGED_PIXELS)
    with torch.device("meta"):
        encoder, reference, eight_bits = ImageEncoder(config, f), ImageDecoder(config, f), ImageDecoder(config, f)
    ranges = _watch(reference)
    for module in (encoder, reference):
        stream_weights(module, tensors)
    pictures = [(seed, index) for seed, count in ((_CALIBRATION_SEED, calibrated), (_JUDGED_SEED, judged)) for index in range(count)]
    drawn = []
    for done, (seed, index) in enumerate(pictures):
        pixels = made_pictures(1, size, seed, first=index)
        image_ids = encoder(torch.from_numpy(pixels))
        for each in ranges.values():
            each.learns = seed == _CALIBRATION_SEED
        decoded = reference(image_ids)
        if not torch.isfinite(decoded).all():
            raise CheckpointError("the image decoder of the reference gives NaN or Inf: the checkpoint is damaged; fetch it again")
        if seed == _JUDGED_SEED:
            drawn.append((image_ids, decoded.numpy()))
        on_share((done + 1) / (len(pictures) + judged))
    scales = {name: each.scales() for name, each in ranges.items()}
    for name, conv in _quantised(eight_bits).items():
        conv.forward = partial(_int8_conv, conv, scales[name], name.startswith("decoder.ups."))  # type: ignore[method-assign]
    stream_weights(eight_bits, tensors)
    results = []
    for done, (image_ids, decoded) in enumerate(drawn):
        got = eight_bits(image_ids).numpy()
        results.append((psnr_db(got, decoded), levels(got, decoded)))
        on_share((len(pictures) + done + 1) / (len(pictures) + judged))
    worst = int(np.argmin([each[0] for each in results]))
    measured = {
        # To one digit: what other machines measure too.
        "psnr_db": round(results[worst][0], 1),
        "levels": round(max(each[1] for each in results), 1),
        "pictures": float(judged),
    }
    golden = {"image_preview/image_ids": drawn[worst][0].numpy(), "image_preview/pixels": drawn[worst][1]}
    return Preview(scales, measured, golden)


def export_preview(decoder: Graph, config: JanusConfig, preview: Preview, plan: WeightPlan, folder: Path) -> Graph:
    """Writes `image_preview.onnx` from the decoder's graph in `folder`, reserves places for its weights in `plan`, and returns its manifest
    entry."""
    with torch.device("meta"):
        recipes = {name: (recipe, str(f)) for name, (recipe, f) in recipes_of(ImageDecoder(config, torch.float32)).items()}
    model = ir.load(folder / decoder.file)
    model.graph.name = "image_preview"
    quantise_convs(model, recipes, preview.scales)
    file = "image_preview.onnx"
    weight_bytes = save_graph(model, recipes, plan, folder / file)
    number_format = NumberFormat("int8", decoder.format.activations)
    return replace(decoder, kind="image_preview", file=file, format=number_format, weight_bytes=weight_bytes, judged=preview.judged)


def _count(size: int, bounds: tuple[int, int], pixels: int) -> int:
    return int(np.clip(pixels // size**2, *bounds))


def _quantised(decoder: ImageDecoder) -> dict[str, Conv]:
    """Convolutions that become 8-bit, by name: all 3x3 but the first and the last, which are little work and show most."""
    found = {name: part for name, part in decoder.named_modules() if isinstance(part, Conv) and part.weight.shape[-1] == 3}
    return {name: conv for name, conv in found.items() if name not in ("decoder.first", "decoder.last")}


class _Range:
    """The least and largest value of each channel that went into a convolution, and that came out."""

    def __init__(self, activated: bool) -> None:
        self.activated = activated
        self.learns = True
        self._seen: list[tuple[Floats, Floats]] = []

    def see(self, conv: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        """Inputs [n, C, H, W] and output of one call."""
        if not self.learns:
            return
        now = [(each.amin((0, 2, 3)).numpy(), each.amax((0, 2, 3)).numpy()) for each in (inputs[0], output)]
        before = self._seen or now
        self._seen = [
            (np.minimum(low, least), np.maximum(high, largest)) for (low, high), (least, largest) in zip(before, now, strict=True)
        ]

    def scales(self) -> ConvScales:
        (x_low, x_high), y = (_widened(low, high) for low, high in self._seen)
        x_low = np.maximum(x_low, np.float32(_SILU_LEAST)) if self.activated else x_low
        return ConvScales(*input_scales(x_low, x_high), *output_scales(*y))


def _widened(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Ranges [C] as seen -> ranges that hold 0, what other pictures may bring, and are not much narrower than the widest."""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    return (
        np.minimum(low, low.min() * _NARROWEST) * np.float32(_HEADROOM),
        np.maximum(high, high.max() * _NARROWEST) * np.float32(_HEADROOM),
    )


def _watch(decoder: ImageDecoder) -> dict[str, _Range]:
    """Before the decoder's weights are streamed: a hook that comes later finds none."""
    ranges = {}
    for name, conv in _quantised(decoder).items():
        ranges[name] = _Range(activated=not name.startswith("decoder.ups."))
        conv.register_forward_hook(ranges[name].see)
    return ranges


def _int8_conv(conv: Conv, scales: ConvScales, doubled: bool, x: torch.Tensor) -> torch.Tensor:
    """What ONNX Runtime computes of x [n, C, H, W], in fp32. `doubled`: x is a nearest-neighbour doubling, computed on the map before."""
    if doubled:
        x = x[..., ::2, ::2]
    stored = torch.round(x / _column(scales.x_scale)) + scales.x_zero
    centred = stored.clamp(0, 255) - scales.x_zero
    weights, bias = conv.weight.numpy(), conv.bias.numpy()
    if not doubled:
        y = _sums(centred, weights, bias, scales, (1, 1, 1, 1))
    else:
        parts = [
            _sums(centred, phase_weights(weights, (row, column)), bias, scales, (1 - column, column, 1 - row, row))
            for row, column in PHASES
        ]
        # [n, row * column * C, H, W]: `pixel_shuffle` wants the phases of a channel side by side.
        y = F.pixel_shuffle(torch.stack(parts, dim=2).flatten(1, 2), 2)
    return (y - _column(scales.y_zero.astype(np.float32))) * _column(scales.y_scale)


def _sums(centred: torch.Tensor, weights: Floats, bias: Floats, scales: ConvScales, pads: tuple[int, ...]) -> torch.Tensor:
    """What is stored of an output. `pads` left, right, top, bottom."""
    codes, factor, whole = quantise_weights(weights, bias, scales)
    sums = F.conv2d(F.pad(centred, pads), torch.from_numpy(codes.astype(np.float32)))
    return torch.round((sums + _column(whole.astype(np.float32))) * _column(factor)).clamp(0, 255)


def _column(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)[:, None, None]
