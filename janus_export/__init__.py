"""Turn a Janus checkpoint into a bundle of ONNX graphs. torch lives here and nowhere else."""

import os

# Before the hub's client is imported, which reads it then. Set it to 0 to have the client report what it does.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
