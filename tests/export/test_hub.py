"""A hub id goes through the real hub client, against a hub of our own on loopback."""

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(checkpoints):
    """Serves the tiny checkpoint as `owner/tiny` -> address."""
    folder = checkpoints("tiny", "original", "bin")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["README.md"] = b"not wanted"
    files["model.safetensors"] = (checkpoints("tiny", "original") / "model.safetensors").read_bytes()
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            asked.append(self.path)
            name = self.path.split("/")[-1].split("?")[0]
            if self.path.startswith("/api/models/owner/tiny"):
                siblings = [{"rfilename": file} for file in files]
                tree = [{"type": "file", "path": file, "size": len(data), "oid": "0" * 40} for file, data in files.items()]
                content = json.dumps(tree if "/tree/" in self.path else {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}).encode()
            elif self.path.startswith("/owner/tiny/resolve/") and name in files:
                content = files[name]
            else:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def inspect(source, address, home):
    environment = {
        "PATH": "",
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-m", "janus_export.cli", "inspect", source, "--json"]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_hub_id_is_fetched_and_its_revision_kept(hub, tmp_path):
    address, asked = hub
    result = inspect("owner/tiny", address, tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["source"] == f"owner/tiny at {COMMIT}" and report["problems"] == []
    assert not [path for path in asked if path.endswith(("README.md", "pytorch_model.bin"))]


def test_an_unknown_hub_id_is_one_line(hub, tmp_path):
    result = inspect("owner/other", hub[0], tmp_path)
    assert result.returncode == 1
    assert "no folder owner/other, and fetching it from the hub failed" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
