"""What a result was measured on, and how it is put on file."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def where() -> dict[str, Any]:
    """Machine, versions and commit, for the head of a report."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": {"cpu": _cpu(), "instructions": _instructions(), "cores": os.cpu_count(), "memory_gb": round(memory / 1e9)},
        "versions": {"python": platform.python_version(), **_versions("janus-rt", "onnxruntime", "torch", "transformers", "numpy")},
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
    }


def write_report(out: Path, report: dict[str, Any]) -> None:
    """JSON in `out`, whose folder is made: what was measured for minutes is not lost to a missing one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")


def _versions(*names: str) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _instructions() -> list[str]:
    """Those that products of integers and of bf16 hang on: machines of one name may lack them."""
    words = set(Path("/proc/cpuinfo").read_text().split())
    return [name for name in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8") if name in words]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()
