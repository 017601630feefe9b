"""Every numeric tolerance of the project, each with its reason. Chosen before the results were known.

A tolerance is relative to the largest reference value: max|Δ| <= tolerance · max|ref|.
"""

# fp32 against the torch reference. Both round every product to 2^-24; sums of some thousand terms in another
# order differ by a few 1e-6 of the largest value, and tens of layers add up. A wrong formula is off by 1e-2 or more.
FP32 = 1e-4

# fp16 decoder and vision encoder against the fp32 reference. Weights and activations are each rounded to 2^-11
# (5e-4); errors of some twenty layers add like a random walk, to about 1e-2. Twice that is a fault.
FP16 = 2e-2

# Ids may differ between two fp32 runs of other shapes only where the two best scores are this close.
LOGIT_MARGIN = 1e-4

# Share of codes that `image_encoder` may name differently: a latent halfway between two codes goes either way by
# rounding. With 16384 codes in 8 dimensions fewer than one in a thousand lies that close.
NEAR_TIES = 1e-2

# Graphs that stay in fp32 whatever the bundle's precision (see the recipe in janus_export/precision.py).
ALWAYS_FP32 = frozenset({"image_encoder", "image_decoder"})


def tolerance(graph: str, precision: str) -> float:
    """The tolerance of a graph's output in a bundle of `precision`; for ids, the share that may differ."""
    if graph == "image_encoder":
        return NEAR_TIES
    return FP32 if precision == "fp32" or graph in ALWAYS_FP32 else FP16
