import click
import pytest

from janus_runtime.console.commands import FiniteFloat


@pytest.mark.parametrize("kind", [FiniteFloat(), FiniteFloat(0), FiniteFloat(0, 1, min_open=True)])
def test_only_finite_numbers_are_numbers(kind):
    assert kind.convert("0.5", None, None) == 0.5
    for text in ("nan", "-nan", "inf", "-inf", "1e999", "x"):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)
