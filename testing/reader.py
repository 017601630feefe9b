"""contract/reader.py as a program: what another runtime makes of a bundle."""

import json
import subprocess
import sys
from typing import Any

from testing import CONTRACT

READER = CONTRACT / "reader.py"


def run_reader(*arguments: Any) -> Any:
    """Its answer, from JSON."""
    done = subprocess.run([sys.executable, READER, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
