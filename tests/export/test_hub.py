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
    """Serves the tiny checkpoint as `owner/tiny`, a VAE as `owner/vae` and both together as `owner/flow` -> address, what was asked for."""
    flow = checkpoints("tiny-flow")
    sources = {"tiny": checkpoints("tiny", "original", "bin"), "vae": flow / "vae", "flow": flow}
    repositories = {
        name: {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
        for name, source in sources.items()
    }
    for files in repositories.values():
        files["README.md"] = b"not wanted"
    repositories["tiny"]["model.safetensors"] = (checkpoints("tiny", "original") / "model.safetensors").read_bytes()
    for name in ("sdxl_vae.safetensors", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors"):
        repositories["vae"][name] = b"not wanted"
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            asked.append(self.path)
            name = self.path.split("?")[0].split(f"/{COMMIT}/")[-1]
            repository = next((name for name in repositories if f"/owner/{name}" in self.path), None)
            files = repositories.get(repository, {})
            if repository and self.path.startswith("/api/models/"):
                siblings = [{"rfilename": file} for file in files]
                tree = [{"type": "file", "path": file, "size": len(data), "oid": "0" * 40} for file, data in files.items()]
                content = json.dumps(
                    tree if "/tree/" in self.path else {"id": f"owner/{repository}", "sha": COMMIT, "siblings": siblings}
                ).encode()
            elif "/resolve/" in self.path and name in files:
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


def test_a_vae_of_the_hub(hub, checkpoints, tmp_path):
    """Of a repository that holds the same weights four times, the one file that is read."""
    address, asked = hub
    code = "import sys; from janus_export.checkpoint import open_checkpoint; print(open_checkpoint(sys.argv[1], 'owner/vae').vae.name)"
    environment = {"PATH": "", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", code, str(checkpoints("tiny-flow"))]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"owner/vae at {COMMIT}"
    assert not [path for path in asked if path.endswith(("README.md", "sdxl_vae.safetensors", ".fp16.safetensors", ".bin"))]


def test_a_vae_beside_the_weights_of_the_hub(hub, tmp_path):
    address, asked = hub
    result = inspect("owner/flow", address, tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["problems"] == []
    assert not [path for path in asked if "sdxl" in path]


def test_an_unknown_hub_id_is_one_line(hub, tmp_path):
    result = inspect("owner/other", hub[0], tmp_path)
    assert result.returncode == 1
    assert "no folder owner/other, and fetching it from the hub failed" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
