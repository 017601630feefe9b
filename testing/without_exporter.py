"""A pytest plugin (`-p testing.without_exporter`): in this process the exporter and its libraries cannot be imported, as where only the
runtime is installed."""

import sys

ABSENT = frozenset(
    ("torch", "onnx", "onnx_ir", "onnxscript", "ml_dtypes", "transformers", "diffusers", "safetensors", "huggingface_hub", "janus_export")
)


class _Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


assert not ABSENT & sys.modules.keys(), f"{sorted(ABSENT & sys.modules.keys())} came before this plugin"
sys.meta_path.insert(0, _Absent())
