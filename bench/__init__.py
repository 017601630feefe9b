"""Benchmarks. Importing the runtime first turns ONNX Runtime's telemetry off, whichever of the two a script imports first."""

import janus_runtime  # noqa: F401
