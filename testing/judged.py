"""What two machines measure of one preview."""

from collections.abc import Mapping

import pytest


def assert_judged_alike(one: Mapping[str, float], other: Mapping[str, float]) -> None:
    """Rounding differs between processors, and with it now and then an id of a made picture. Levels are those of the worst number in a
    thousand of the worst picture, so they move most: 16.3 with AVX2, 15.2 with AVX-512."""
    assert one.keys() == other.keys() and one["pictures"] == other["pictures"]
    assert one["psnr_db"] == pytest.approx(other["psnr_db"], abs=0.3)
    assert one["levels"] == pytest.approx(other["levels"], abs=2)
