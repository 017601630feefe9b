"""How far two decoders' pixels are apart. Pixels are -1 to 1, as decoders give them; what lies outside is shown as the end of that."""

import math

import numpy as np

from ..sampling.sampler import Floats

_RANGE = 2.0
_SHARE = 0.999


def rms(got: Floats, reference: Floats) -> float:
    """Root of the mean squared difference, as a share of the range; inf where `got` is not finite or of another shape."""
    if got.shape != reference.shape or not np.isfinite(got).all():
        return math.inf
    return float(np.sqrt(np.mean(np.square(_difference(got, reference), dtype=np.float64)))) / _RANGE


def psnr_db(got: Floats, reference: Floats) -> float:
    """Peak signal-to-noise ratio; of equal pixels 200."""
    return -20 * math.log10(max(rms(got, reference), 1e-10))


def levels(got: Floats, reference: Floats) -> float:
    """Grey levels, of 255, that all but one number in a thousand stay within."""
    if not np.isfinite(got).all():
        return math.inf
    return float(np.quantile(np.abs(_difference(got, reference)), _SHARE)) * 255 / _RANGE


def _difference(got: Floats, reference: Floats) -> Floats:
    difference: Floats = np.clip(got, -1, 1) - np.clip(reference, -1, 1)
    return difference
