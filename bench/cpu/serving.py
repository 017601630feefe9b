"""How fast does `janus-rt serve` answer, and what does it cost beside the command? Clients are threads of this process.

    python -m bench.cpu.serving BUNDLE --image PHOTO --out bench/results/serving.json [--clients 1 --clients 8 …] [--only latency]

`latency`: pictures and questions in equal parts, streamed, `--requests` of them for each number of clients: seconds to the first byte
and to the last, p50, p95 and p99. `saturation`: `--pictures` through 8 clients and by `janus-rt generate --batch-size 8`, and what the
server's process took of the processor. `partials`: a picture with
three partial ones and without. `ready`: from the start of the process to the first 200 of `/ready`. `idle`: processor seconds in a
minute without requests.
"""

import base64
import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.machine import where, write_report
from janus_runtime.console.errors import report_errors

_BIN = Path(sys.executable).parent / "janus-rt"
_AT_ONCE = 8


class Server:
    """`janus-rt serve` in a process of its own."""

    def __init__(self, bundle: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        start = time.perf_counter()
        command = [str(_BIN), "serve", "--bundle", str(bundle), "--port", str(self.port), "--quiet", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not self.is_ready():
            if self.process.poll() is not None:
                raise click.ClickException(f"{' '.join(command)} ended with {self.process.returncode}")
            time.sleep(0.01)
        self.ready_s = time.perf_counter() - start

    def is_ready(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def post(self, path: str, body: dict) -> tuple[float, float]:
        """Seconds to the first byte of an answer's body, and to its last. Raises on any status but 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3600)
        start = time.perf_counter()
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        first = response.read(1)
        first_s = time.perf_counter() - start
        rest = response.read()
        if response.status != 200 or b'"error"' in rest[:200]:
            raise click.ClickException(f"{path} gave {response.status}: {(first + rest)[:300]!r}")
        connection.close()
        return first_s, time.perf_counter() - start

    def processor_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def serving(bundle: Path, *options: str) -> Iterator[Server]:
    server = Server(bundle, *options)
    try:
        yield server
    finally:
        server.stop()


def at_once(count: int, clients: int, request: Callable[[int], tuple[float, float]]) -> tuple[list[tuple[float, float]], float]:
    """`request(i)` for i below `count`, `clients` at a time -> what each gave, and seconds for all."""
    numbers, found, errors = itertools.count(), [], []

    def work() -> None:
        try:
            while (number := next(numbers)) < count:
                found.append(request(number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found, time.perf_counter() - start


def picture(seed: int) -> dict:
    return {"prompt": "a red circle left of a blue square", "seed": seed, "stream": True, "partial_images": 1}


def question(seed: int, photo: str) -> dict:
    parts = [{"type": "text", "text": f"What is this? ({seed})"}, {"type": "image_url", "image_url": {"url": photo}}]
    return {"model": "janus", "messages": [{"role": "user", "content": parts}], "max_tokens": 16, "stream": True}


def latency(server: Server, clients: int, requests: int, photo: str) -> dict:
    times: dict[str, list[tuple[float, float]]] = {"picture": [], "question": []}

    def request(number: int) -> tuple[float, float]:
        if number % 2:
            taken = server.post("/v1/chat/completions", question(number, photo))
        else:
            taken = server.post("/v1/images/generations", picture(number))
        times["question" if number % 2 else "picture"].append(taken)
        return taken

    _, seconds = at_once(requests, clients, request)
    return {
        "clients": clients,
        "requests": requests,
        "requests_a_second": requests / seconds,
        **{kind: {"first_byte_s": percentiles(first), "last_byte_s": percentiles(last)} for kind, (first, last) in _columns(times)},
    }


def _columns(times: dict[str, list[tuple[float, float]]]) -> Iterator[tuple[str, tuple[list[float], list[float]]]]:
    for kind, pairs in times.items():
        yield kind, ([first for first, _ in pairs], [last for _, last in pairs])


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile(seconds, share)), 4) for share in (50, 95, 99)}


def saturation(bundle: Path, server: Server, pictures: int) -> dict:
    server.post("/v1/images/generations", picture(0))
    used = server.processor_s()
    prompt = picture(0)["prompt"]
    _, served = at_once(pictures, _AT_ONCE, lambda seed: server.post("/v1/images/generations", {"prompt": prompt, "seed": seed}))
    used = server.processor_s() - used
    with tempfile.TemporaryDirectory() as folder:
        command = [str(_BIN), "generate", prompt, "-n", str(pictures), "--batch-size", str(_AT_ONCE), "--out", folder, "--json", "--quiet"]
        done = subprocess.run([*command, "--bundle", str(bundle)], capture_output=True, text=True, check=True)
    timings = [json.loads(line)["timings"] for line in done.stdout.splitlines()]
    # Of each batch once: what the command takes without its start and the opening of graphs.
    alone = sum(t["prefill"] + t["steps"] for t in timings[::_AT_ONCE]) / 1e3 + sum(t["decode"] for t in timings) / 1e3
    return {
        "pictures": pictures,
        "served_s": served,
        "command_s": alone,
        "share_of_the_commands_throughput": alone / served,
        "server_processor_s": used,
    }


def partials(server: Server, rounds: int) -> dict:
    """A picture as the page asks for it, and one without partial pictures and progress, in turn."""
    found: dict[str, list[float]] = {"first_partial_s": [], "with_s": [], "without_s": []}
    for number in range(rounds):
        shown = {"prompt": picture(0)["prompt"], "seed": number, "stream": True}
        found["without_s"].append(server.post("/v1/images/generations", shown)[1])
        # Without progress the first byte is that of the first partial picture.
        first, last = server.post("/v1/images/generations", {**shown, "partial_images": 3})
        found["first_partial_s"].append(first)
        found["with_s"].append(last)
    medians = {name: float(np.median(seconds)) for name, seconds in found.items()}
    return {
        **found,
        "first_partial_of_the_whole": medians["first_partial_s"] / medians["with_s"],
        "with_beside_without": medians["with_s"] / medians["without_s"],
    }


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--image", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A photo.")
@click.option("--clients", multiple=True, type=click.IntRange(1), default=(1, 8, 32), show_default=True)
@click.option("--requests", type=click.IntRange(2), default=200, show_default=True, help="For each number of clients.")
@click.option("--pictures", type=click.IntRange(1), default=24, show_default=True, help="Of the saturation.")
@click.option("--only", multiple=True, type=click.Choice(["latency", "saturation", "partials", "idle"]), help="By default all.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--debug", is_flag=True)
def main(
    bundle: Path, image: Path, clients: tuple[int, ...], requests: int, pictures: int, only: tuple[str, ...], out: Path, debug: bool
) -> None:
    """Measure a server of BUNDLE."""
    photo = f"data:image/{image.suffix[1:]};base64,{base64.b64encode(image.read_bytes()).decode()}"
    wanted = only or ("latency", "saturation", "partials", "idle")
    with report_errors(debug), serving(bundle, "--max-rows", str(2 * _AT_ONCE), "--max-queue", "64") as server:
        report: dict[str, Any] = {"question": "what a server answers, and how fast", "bundle": bundle.name, **where()}
        report["ready_s"] = server.ready_s
        if "latency" in wanted:
            report["latency"] = [latency(server, count, requests, photo) for count in clients]
        if "saturation" in wanted:
            report["saturation"] = saturation(bundle, server, pictures)
        if "partials" in wanted:
            report["partials"] = partials(server, 2)
        if "idle" in wanted:
            used = server.processor_s()
            time.sleep(60)
            report["idle_processor_s_a_minute"] = round(server.processor_s() - used, 2)
        click.echo(json.dumps(report, indent=1))
        write_report(out, report)


if __name__ == "__main__":
    main()
