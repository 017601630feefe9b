"""Which processor this is: ONNX Runtime chooses its kernels by that."""

import platform
from pathlib import Path


def processor() -> str:
    """Model and instructions, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))


def has_vnni() -> bool:
    """Whether products of 8 bits are added four at a time in 32 bits, not two in 16. False where the system does not tell."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(processor().split())
