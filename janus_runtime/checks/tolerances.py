"""Every numeric tolerance of the project, each with its reason. Chosen before the results were known.

A tolerance is relative to the largest reference value: max|Δ| <= tolerance · max|ref|.
"""

from ..bundle.interface import GraphKind, Weights

# fp32 against the torch reference. Both round every product to 2^-24; sums of some thousand terms in another
# order differ by a few 1e-6 of the largest value, and tens of layers add up. A wrong formula is off by 1e-2 or more.
FP32 = 1e-4

# Two cache flavours of one decoder, both in fp32 on one machine: the same products in the same order but for those of
# attention, whose sums are of a head's few dozen terms. No formula differs, so only the last bits may.
FLAVOURS = 1e-5

# fp16 decoder and vision encoder against the fp32 reference. Weights and activations are each rounded to 2^-11
# (5e-4); errors of some twenty layers add like a random walk, to about 1e-2. Twice that is a fault.
FP16 = 2e-2

# int8 weights in blocks of 128 and int8 activations. Of a normal block the largest magnitude is about 2.7 sigma, a step of
# it / 128 rounds by 0.6 % of sigma; activations the same. Three products a layer, some twenty layers, a random walk: 5 %
# of the output at the most, and half as much again for heavy tails is a fault.
INT8 = 8e-2

# int4: sixteen times coarser weights, 10 % of sigma a product, of which a layer keeps about 14 % of its own share of the
# stream. Over all layers 15 to 30 % of the output; a wrong code order or scale is off by 100 % or more.
INT4 = 4e-1

# An int8 cache against an fp32 one under the same weights. A number is off by 1.4 % of sigma (janus_export/onnx/int8_cache.py), scores
# of attention by 0.02 or so, its weights by 2 %, and the sum over tokens evens that out: 1 % a layer, of a few layers 2 %.
INT8_CACHE = 4e-2

# bf16 rounds eight times coarser than fp16.
BF16 = 8 * FP16

# Ids may differ between two fp32 runs of other shapes only where the two best scores are this close.
LOGIT_MARGIN = 1e-4

# Share of codes that `image_encoder` may name differently: a latent halfway between two codes goes either way by
# rounding. With 16384 codes in 8 dimensions fewer than one in a thousand lies that close.
NEAR_TIES = 1e-2

# A preview is looked at for a moment, and the picture itself takes its place. 30 dB is a root mean square of 8 grey levels, where
# photos begin to show their compression; an eighth of the range in no more than one number in a thousand, at edges. On the golden,
# whose reference is the fp32 decoder, the same dB as a share of the range.
PREVIEW_PSNR_DB, PREVIEW_LEVELS = 30.0, 32.0
PREVIEW = 10 ** (-PREVIEW_PSNR_DB / 20)

_BY_WEIGHTS: dict[Weights, float] = {"float32": FP32, "float16": FP16, "int8": INT8, "int4": INT4}

_BY_KIND: dict[GraphKind, float] = {"image_encoder": NEAR_TIES, "image_preview": PREVIEW}


def tolerance(kind: GraphKind, weights: Weights) -> float:
    """The tolerance of what a graph gives that stores its matrices as `weights`; for ids, the share that may differ."""
    return _BY_KIND.get(kind, _BY_WEIGHTS[weights])
