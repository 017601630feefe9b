"""A hub id goes through the real hub client, against a hub of our own on loopback."""

import hashlib
import json
import socketserver
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
    shards = checkpoints("tiny", "hf", "bin", shard_bytes=2_000_000)
    sources = {"tiny": checkpoints("tiny", "original", "bin"), "vae": flow / "vae", "flow": flow, "shards": shards}
    repositories = {
        name: {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
        for name, source in sources.items()
    }
    for files in repositories.values():
        files["README.md"] = b"not wanted"
    repositories["tiny"]["model.safetensors"] = (checkpoints("tiny", "original") / "model.safetensors").read_bytes()
    for name in ("sdxl_vae.safetensors", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors"):
        repositories["vae"][name] = b"not wanted"
    for name in ("pytorch_model-00099-of-00099.bin", "checkpoint-5/config.json", "model.fp16.safetensors"):
        repositories["shards"][name] = b"not wanted"
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            asked.append(self.path)
            name = self.path.split("?")[0].split("/resolve/main/")[-1]
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


@pytest.fixture
def answering():
    """`answering(bytes)` -> the address of a server that accepts, reads and answers just that; None: nothing, for as long as it lives."""
    servers = []

    def start(answer):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                accepted.append(self.client_address)
                self.request.recv(65536)
                if answer is None:
                    ended.wait()
                else:
                    self.request.sendall(answer)

        accepted, ended = [], threading.Event()
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread, ended))
        return f"http://127.0.0.1:{server.server_address[1]}", accepted

    yield start
    for server, thread, ended in servers:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def run(arguments, address, home, variables):
    environment = {"PATH": "", "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **variables}
    # The limit is no measurement: without it a client that waits for ever would hang the test.
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=600)


def inspect(source, address, home, **variables):
    return run(["-m", "janus_export.cli", "inspect", source, "--json"], address, home, variables)


FETCH = """
import json, sys
from janus_export.errors import CheckpointError
from janus_export.checkpoint.hub import fetch
from janus_export.checkpoint.weight_files import VAE_WEIGHTS, WEIGHTS
try:
    located = fetch(sys.argv[1], {"": WEIGHTS, "vae": VAE_WEIGHTS}, ("config.json", "tokenizer.json"))
except CheckpointError as error:
    sys.exit(str(error))
files = sorted(str(path.relative_to(located.folder)) for path in located.folder.rglob("*") if path.is_file())
print(json.dumps({"commit": located.revision, "notes": located.notes, "files": files}))
"""


def fetch(source, address, home, **variables):
    """The same without what comes after, torch's import above all."""
    return run(["-c", FETCH, source], address, home, variables)


def one_line(result):
    assert result.returncode == 1 and len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr


def test_a_hub_id_is_fetched_and_its_revision_kept(hub, tmp_path):
    address, asked = hub
    result = inspect("owner/tiny", address, tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["source"] == f"owner/tiny at {COMMIT}" and report["problems"] == []
    assert report["notes"] == ["weights are read from model.safetensors; left: pytorch_model.bin"]
    assert not [path for path in asked if path.endswith(("README.md", "pytorch_model.bin"))]
    assert not [path for path in asked if "telemetry" in path or "agent" in path], "nothing but the model is asked for"


def test_of_shards_those_that_the_index_lists(hub, tmp_path):
    address, asked = hub
    result = inspect("owner/shards", address, tmp_path)
    report = json.loads(result.stdout)
    assert result.returncode == 0 and report["problems"] == []
    assert report["notes"] == [
        "weights are read from pytorch_model.bin.index.json; left: model.fp16.safetensors, pytorch_model-00099-of-00099.bin"
    ]
    assert not [path for path in asked if path.endswith(("00099.bin", "checkpoint-5/config.json", "fp16.safetensors"))]


def test_a_vae_of_the_hub(hub, checkpoints, tmp_path):
    """Of a repository that holds the same weights four times, the one file that is read."""
    address, asked = hub
    code = "import sys; from janus_export.checkpoint import open_checkpoint; print(open_checkpoint(sys.argv[1], 'owner/vae').vae.name)"
    environment = {"PATH": "", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
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
    line = one_line(fetch("owner/other", hub[0], tmp_path))
    assert (
        line.startswith("no folder owner/other, and fetching it from the hub failed: 127.0.0.1:") and "answers 404: it has no such" in line
    )


REFUSED = "http://127.0.0.1:9"
HTML = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n<html>sign in</html>"


@pytest.mark.parametrize("answer", ["refused", None, b"rubbish\r\n\r\n", HTML, HTML.replace(b"<html>sign in</html>", b'{"id": "a/b"} '),
                                    b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"],
                         ids=["refused", "silent", "rubbish", "a page", "no hub", "503"])  # fmt: skip
def test_a_hub_that_gives_no_answer(hub, answering, answer, tmp_path):
    """Without a cache one line that names the host; with one the cache, and a note that says so."""
    address = REFUSED if answer == "refused" else answering(answer)[0]
    host = address.removeprefix("http://")
    line = one_line(fetch("owner/tiny", address, tmp_path, HF_HUB_ETAG_TIMEOUT="1"))
    assert f"no answer of a hub from {host}" in line and "and it is not cached" in line and "fault of ours" not in line
    assert fetch("owner/tiny", hub[0], tmp_path).returncode == 0
    result = fetch("owner/tiny", address, tmp_path, HF_HUB_ETAG_TIMEOUT="1")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["commit"] == COMMIT
    assert report["notes"][0].startswith(f"no answer of a hub from {host}")
    assert report["notes"][0].endswith(f": owner/tiny is taken from the cache, at commit {COMMIT}")


def test_a_host_that_cannot_be_found(tmp_path):
    line = one_line(fetch("owner/tiny", "http://no.such.host.invalid", tmp_path))
    assert "no answer of a hub from no.such.host.invalid" in line


def test_offline_nothing_is_asked(hub, answering, tmp_path):
    address, accepted = answering(b"")
    assert "HF_HUB_OFFLINE forbids it, and it is not cached" in one_line(fetch("owner/flow", address, tmp_path, HF_HUB_OFFLINE="1"))
    assert fetch("owner/flow", hub[0], tmp_path).returncode == 0
    result = fetch("owner/flow", address, tmp_path, HF_HUB_OFFLINE="1")
    report = json.loads(result.stdout)
    assert result.returncode == 0 and "vae/config.json" in report["files"] and accepted == []
    assert report["notes"] == [f"HF_HUB_OFFLINE forbids it: owner/flow is taken from the cache, at commit {COMMIT}"]


@pytest.mark.parametrize("victim", ["config.json", "tokenizer.json", "pytorch_model-00002-of", "pytorch_model.bin.index.json"])
def test_a_cache_that_is_not_whole_names_what_is_missing(hub, victim, tmp_path):
    assert fetch("owner/shards", hub[0], tmp_path).returncode == 0
    (snapshot,) = tmp_path.glob("hub/models--owner--shards/snapshots/*")
    (path,) = snapshot.glob(victim + "*")
    path.unlink()
    for address, variables in ((REFUSED, {}), (hub[0], {"HF_HUB_OFFLINE": "1"})):
        line = one_line(fetch("owner/shards", address, tmp_path, **variables))
        assert "what is cached of it is not whole" in line and path.name in line
    assert fetch("owner/shards", hub[0], tmp_path).returncode == 0, "what is missing is fetched again"


def test_a_snapshot_folder_of_the_cache_is_a_checkpoint(hub, tmp_path):
    """Its files are links into a folder of blobs."""
    assert fetch("owner/tiny", hub[0], tmp_path).returncode == 0
    (snapshot,) = tmp_path.glob("hub/models--owner--tiny/snapshots/*")
    assert all(path.is_symlink() for path in snapshot.iterdir())
    result = inspect(str(snapshot), REFUSED, tmp_path)
    assert result.returncode == 0 and json.loads(result.stdout)["source"] == COMMIT


@pytest.mark.parametrize("address", ["no-scheme.example", "", "ftp://host", "http://", "http://[::1", "http://host:port", "https:host"])
def test_a_malformed_endpoint_is_named(address, tmp_path):
    line = one_line(fetch("owner/tiny", address, tmp_path))
    assert f"HF_ENDPOINT is {address!r}; expected an address such as https://huggingface.co" in line
