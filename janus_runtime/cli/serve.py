"""janus-rt serve, and janus-rt ui, which is serve with the page in a browser."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..console.commands import ByteSize, Command, FiniteFloat, option
from ..serve.key import KEY_VARIABLE, check_origin, read_key
from .options import open_model

if TYPE_CHECKING:
    from ..janus import Janus

_Seconds = FiniteFloat(0, min_open=True)
# What `load` takes.
_open_limited = functools.partial(open_model, limits=("max_rows", "memory_bytes", "max_queue"), announce=False)


def _check_origins(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            check_origin(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return values


def _server_options(port: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Every option of the server; `port` is the default."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for add_option in reversed(
            (
                option("Server", "--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 is every one of this machine."),
                option("Server", "--port", type=click.IntRange(0, 65535), default=port, help="Port to listen on; 0 is any free one."),
                option("Server", "--grace", "grace_s", type=FiniteFloat(0), default=30.0, metavar="SECONDS",
                       help="After SIGTERM or Ctrl-C, time for requests that run. A second signal ends at once."),
                option("Server", "--log-format", type=click.Choice(["text", "json"]), default="text",
                       help="Form of the lines on stderr: one for each request, without prompts."),
                option("Model", "--max-rows", type=click.IntRange(1), default=16,
                       help="Rows computed at once: two for each picture under guidance, one for each answer."),
                option("Model", "--memory", "memory_bytes", type=ByteSize(1), metavar="BYTES", show_default="no limit but --max-rows",
                       help="Memory for keys and values, such as 4G."),
                option("Model", "--max-queue", type=click.IntRange(1), default=64, help="Requests that may wait; more get 429."),
                option("Model", "--edits", is_flag=True, help="Offer /v1/images/edits; for models trained to draw from a picture."),
                option("Access", "--api-key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                       show_default=f"the environment's {KEY_VARIABLE}, else no key", help="File with the key that requests must bring."),
                option("Access", "--allowed-host", "allowed_hosts", multiple=True, metavar="NAME", show_default="localhost and --host",
                       help="Name under which clients reach this server; may be repeated; * allows all."),
                option("Access", "--cors-origin", "cors_origins", multiple=True, metavar="ORIGIN", callback=_check_origins,
                       show_default="none", help="Origin whose pages may ask, such as https://chat.example.com; may be repeated."),
                option("Access", "--allow-remote-images", is_flag=True, help="Fetch pictures that questions name by http(s) address."),
                option("Limits", "--timeout", "timeout_s", type=_Seconds, default=3600.0, metavar="SECONDS",
                       help="Longest time of a request, waiting included."),
                option("Limits", "--max-body", "max_body_bytes", type=ByteSize(1024), default="32M", metavar="BYTES",
                       help="Largest body of a request."),
                option("Limits", "--max-images", type=click.IntRange(0), default=16, help="Most pictures in a request."),
                option("Limits", "--max-pixels", type=click.IntRange(1), default=80_000_000,
                       help="Most pixels of a request's pictures together."),
                option("Limits", "--max-prompt-chars", type=click.IntRange(1), default=32_000, help="Longest text of a request."),
                option("Limits", "--max-n", type=click.IntRange(1), default=10, help="Most pictures or answers of a request."),
                option("Limits", "--max-tokens", type=click.IntRange(1), show_default="the model's limit",
                       help="Longest answer that a request may ask for."),
                option("Limits", "--max-requests", type=click.IntRange(1), default=256,
                       help="Requests in hand at once, bodies in memory; more get 429."),
                option("Limits", "--max-connections", type=click.IntRange(1), default=1024, help="Connections open at once."),
                option("Limits", "--header-timeout", "header_timeout_s", type=_Seconds, default=10.0, metavar="SECONDS",
                       help="Longest time for the head of a request to arrive."),
                option("Limits", "--body-timeout", "body_timeout_s", type=_Seconds, default=60.0, metavar="SECONDS",
                       help="Longest time for a body to arrive."),
                option("Limits", "--send-timeout", "send_timeout_s", type=_Seconds, default=60.0, metavar="SECONDS",
                       help="Longest time in which a client may read nothing of its answer."),
            )
        ):  # fmt: skip
            command = add_option(command)
        return command

    return add


@click.command(cls=Command, example="janus-rt serve --bundle engines/janus-pro-1b --port 8000 --max-rows 16")
@_server_options(port=8000)
@_open_limited
def serve(janus: "Janus", **options: Any) -> None:
    """Serve the model over HTTP, in the form of OpenAI's interface.

    Pictures, and answers to questions about pictures; a page at / and every field at /openapi.json. Requests share steps: what one
    gets does not depend on the others. The key is read from --api-key-file or JANUS_API_KEY.
    """
    _serve(janus, with_browser=False, **options)


@click.command(cls=Command, example="janus-rt ui --bundle engines/janus-pro-1b")
@_server_options(port=0)
@_open_limited
def ui(janus: "Janus", **options: Any) -> None:
    """Serve the model on a free port and open its page in the browser.

    Takes what serve takes.
    """
    _serve(janus, with_browser=True, **options)


def _serve(
    janus: "Janus",
    as_json: bool,
    quiet: bool,
    with_browser: bool,
    log_format: Literal["json", "text"],
    api_key_file: Path | None,
    max_rows: int,
    memory_bytes: int | None,
    **options: Any,
) -> None:
    from ..packages import importing

    with importing("serve", "the server"):
        from ..serve.log import set_up_log
        from ..serve.run import address_of, listen, serve_on
        from ..serve.settings import ServeSettings

    settings = ServeSettings(api_key=read_key(api_key_file), **options)
    set_up_log(log_format, quiet)
    listener = listen(settings)
    # Whoever connects meanwhile waits; the first answer is as fast as the next.
    janus.preload()
    address = address_of(listener)
    if as_json:
        from ..console.output import print_json

        print_json({"url": address, "model": janus.manifest.name, "backend": janus.backend})
    if with_browser:
        import threading
        import webbrowser

        # A browser in a terminal returns when it is closed.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    serve_on(listener, janus, settings)
