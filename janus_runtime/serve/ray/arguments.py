"""What `serve run janus_runtime.serve.ray:app NAME=VALUE …` takes. Names are those of the options of `janus-rt serve`."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import click
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ...backends import BackendName
from ...bundle.bundle import NANO
from ...console.commands import ByteSize
from ...pictures.image import MAX_PIXELS
from ..key import check_origin, read_key
from ..settings import MIB, ServeSettings


def _read_size(value: Any) -> int:
    try:
        return ByteSize(1).convert(value, None, None)
    except click.BadParameter as error:
        raise ValueError(error.message) from None


def _split(value: Any) -> Any:
    """`a,b` of a command line; a list of a file."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


Size = Annotated[int, BeforeValidator(_read_size)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
# Of the folder that `serve run` was called in, which replicas do not run in.
File = Annotated[Path, AfterValidator(Path.absolute)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Arguments(BaseModel):
    """One application: its model replicas, its ingress replicas, and the limits of the server that these run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: File = NANO
    """A folder that is there, under this path, on every machine that may run a model replica."""
    backend: BackendName = "auto"
    replicas: Count = 2
    max_replicas: Count | None = None
    """With more than `replicas`, Ray starts and stops replicas as rows are wanted."""
    ingresses: Count = 2
    ingresses_each: Count | None = None
    """Ingress replicas that one machine may have; with 1, and as many as machines, each of Ray's proxies has one beside it."""
    cpus: Annotated[float, Field(gt=0)] = 1
    """Cores of a model replica: what Ray sets aside for it,"""
    threads: Count | None = None
    """and how many threads of ONNX Runtime use them; by default one a core. Each replica would else take all cores of the machine."""
    prepacked: File | None = None
    """Folder in which replicas of one machine share weights, on a CPU: see `backends/prepacked.py`. By default each has its own."""
    gpus: Annotated[float, Field(ge=0)] = 0
    max_rows: Count = 16
    memory: Size | None = None
    max_queue: Count = 64
    """Requests that may wait in a replica."""

    silence: Seconds = 10
    """Seconds without a sign of life after which a replica is given up; its requests begin again elsewhere."""
    attempts: Count = 3
    """Replicas that a request may be sent to before its client gets an error."""
    stuck: Seconds = 60
    """Seconds without a step, with requests in hand, after which a replica calls itself unhealthy."""
    grace: Seconds = 300
    """Seconds that a replica which is to stop has for its requests: more than a picture takes in a full batch."""

    api_key_file: File | None = None
    """On every machine that may run an ingress; else JANUS_API_KEY of the processes there."""
    host: str = "127.0.0.1"
    """As in `http_options`; goes into the check of Host headers."""
    allowed_host: Names = ()
    cors_origin: Names = ()
    edits: bool = False
    allow_remote_images: bool = False
    timeout: Seconds = 3600
    max_body: Size = 32 * MIB
    max_images: Annotated[int, Field(ge=0)] = 16
    max_pixels: Count = MAX_PIXELS
    max_prompt_chars: Count = 32_000
    max_n: Count = 10
    max_tokens: Count | None = None
    max_requests: Count = 256
    """Requests in hand of one ingress; as many again wait at Ray's proxies, and more get 429."""
    log_format: Literal["json", "text"] = "text"

    @model_validator(mode="after")
    def _check(self) -> "Arguments":
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, less than replicas, {self.replicas}; expected as many or more")
        for origin in self.cors_origin:
            check_origin(origin)
        return self

    @property
    def environment(self) -> dict[str, str]:
        """Of a model replica's process."""
        shared = {} if self.prepacked is None else {"JANUS_PREPACKED": str(self.prepacked)}
        return {"JANUS_THREADS": str(self.num_threads), **shared}

    @property
    def num_threads(self) -> int:
        return self.threads or max(math.floor(self.cpus), 1)

    @property
    def beat_s(self) -> float:
        """A replica says that it lives after each pause of this length: several times within `silence`."""
        return min(2.0, self.silence / 4)

    @property
    def frozen_s(self) -> float:
        """A process that was silent for so long is ended: its requests have left it, and the next one needs its place."""
        return 2 * self.silence

    def settings(self) -> ServeSettings:
        """Of the server in an ingress. Raises JanusError where the key cannot be read."""
        return ServeSettings(
            host=self.host,
            api_key=read_key(self.api_key_file),
            allowed_hosts=self.allowed_host,
            cors_origins=self.cors_origin,
            edits=self.edits,
            allow_remote_images=self.allow_remote_images,
            max_queue=self.max_queue,
            max_requests=self.max_requests,
            max_body_bytes=self.max_body,
            max_images=self.max_images,
            max_pixels=self.max_pixels,
            max_prompt_chars=self.max_prompt_chars,
            max_n=self.max_n,
            max_tokens=self.max_tokens,
            timeout_s=self.timeout,
            grace_s=self.grace,
            log_format=self.log_format,
        )
