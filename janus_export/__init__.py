"""Turn a Janus checkpoint into a bundle of ONNX graphs. torch lives here and nowhere else."""
