# janus-rt on a host with an NVIDIA GPU: ONNX Runtime with CUDA and TensorRT. Not built here: there is no Docker where it was written.
#   docker build -t janus-rt .
#   docker run --gpus all -v "$PWD/engines:/bundles" janus-rt janus-export engines /bundles/janus-pro-1b
#   docker run --gpus all -v "$PWD/engines:/bundles" -v "$PWD/out:/out" janus-rt \
#     janus-rt generate "a red fox in the snow" --bundle /bundles/janus-pro-1b --out /out
# Plans are built on the GPU that runs them, so none is in the image. Folders that are mounted must be writable for user 1000.
FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*

# TensorRT's libraries are in NVIDIA's package index, the rest in the public one.
ENV PIP_EXTRA_INDEX_URL=https://pypi.nvidia.com PIP_NO_CACHE_DIR=1 PATH=/opt/janus/bin:$PATH
COPY . /src
RUN python3 -m venv /opt/janus \
 && pip install '/src[trt,gpu]' \
 && rm -rf /src \
 && python3 -c 'import onnxruntime as ort; assert "CUDAExecutionProvider" in ort.get_available_providers()'

# The image's first user, without rights.
USER 1000:1000
WORKDIR /tmp
CMD ["janus-rt", "--help"]
