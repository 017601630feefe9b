"""The server over Ray Serve: `serve run janus_runtime.serve.ray:app bundle=DIR`. Needs the packages of the extra `ray`.

A request's way: Serve's proxy -> an `ingress` replica, which holds the client's connection and has no model; there the same server as
that of `janus-rt serve`, over a `remote` model -> `router` chooses a model `replica` by what `fleet` knows -> its events come back, and
where that replica is lost, those of a `repeat`.
"""

from ...packages import importing

with importing("ray", "the server over Ray Serve"):
    from .app import app, application

__all__ = ["app", "application"]
