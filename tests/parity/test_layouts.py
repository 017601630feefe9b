"""One model in every published layout gives one bundle: the same graphs, weights and tokenizer, byte for byte."""

import pytest


def payload(folder) -> dict[str, bytes]:
    """What the runtime computes with. The manifest names its source and so differs, and goldens are compared elsewhere."""
    paths = [*folder.glob("*.onnx"), folder / "weights.data", folder / "tokenizer.json"]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_original_layout_gives_the_same_bytes(bundles, format):
    expected = payload(bundles("tiny", "fp32", "hf", "safetensors"))
    got = payload(bundles("tiny", "fp32", "original", format))
    assert len(expected) > 8, "graphs are missing from the bundle"
    assert got.keys() == expected.keys()
    different = [name for name in expected if got[name] != expected[name]]
    assert not different, f"original/{format} differs from hf/safetensors in {', '.join(different)}"
