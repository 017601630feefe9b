"""From modules to ONNX graphs."""
