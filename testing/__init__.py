"""Made checkpoints and bundles, reference models, stand-ins for devices. For tests, benchmarks and nano; ships nowhere.

Importing the runtime first turns ONNX Runtime's telemetry off, whichever of the two a script imports first.
"""

from pathlib import Path

import janus_runtime  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
CONTRACT = ROOT / "contract"
