"""An ingress replica: the server of `janus-rt serve` without a model. It holds the connections of clients."""

from prometheus_client.core import Metric
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Receive, Scope, Send

from ..app import make_app
from ..log import set_up_log
from ..service import Service
from . import fleet
from .arguments import Arguments
from .calls import Description
from .remote import RemoteModel
from .watchdog import Watchdog

INGRESS = "Ingress"


class Ingress:
    """Ray makes it, then asks for its application, which nothing is pickled of."""

    def __init__(self, arguments: Arguments, replicas: DeploymentHandle) -> None:
        self._watchdog = Watchdog(arguments.frozen_s)
        self._arguments = arguments
        self._replicas = replicas

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Waits for a model replica, which says what model it is. Raises JanusError where the key cannot be read."""
        context = serve.get_replica_context()
        settings = self._arguments.settings()
        set_up_log(settings.log_format, quiet=False)
        fleet.here.ingress = context.replica_id.unique_id
        description: Description = await self._replicas.describe.remote()
        peers = serve.get_deployment_handle(INGRESS, context.app_name)
        self._model = RemoteModel(description, self._arguments, self._replicas, peers)
        self._service = Service.over(self._model, settings)
        return _HttpOnly(make_app(self._service))

    async def families(self) -> tuple[str, list[Metric]]:
        """The metrics of this process, for the peer that is being scraped."""
        return fleet.here.ingress, self._model.own_families(self._service.metrics.families())


class _HttpOnly:
    """ASGI middleware. Ray asks an application to start and to stop, of which ours knows nothing; it has no websockets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        else:
            await send({"type": "websocket.close"})
