"""From ONNX graphs to TensorRT plans. No torch."""
