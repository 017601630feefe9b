"""Puts the application together: which deployments there are, and what Ray is told of each. Its defaults that bite are set here."""

import os

# Ray reports its use to its makers where nobody says otherwise. Read when a cluster starts, which this import comes before.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from .arguments import Arguments
from .ingress import INGRESS, Ingress
from .replica import ModelReplica
from .router import RowsRouter
from .scaling import RowsPolicy

_BUSY_S = 5.0
# Beside the requests of a model replica that have rows or wait for them: those that are being refused.
_SPARE = 8
# The share of its rows that a replica should have to do: above it, requests begin to wait.
_SHARE = 0.75


def app(arguments: Arguments) -> Application:
    """What `serve run` and a configuration file of Serve call; raises ValueError on an argument that is unknown or out of range."""
    return application(arguments)


def application(arguments: Arguments, replica: type[ModelReplica] = ModelReplica) -> Application:
    """The application with this kind of model replica."""
    ingress = serve.deployment(serve.ingress()(Ingress)).options(name=INGRESS, **_ingress_options(arguments))
    model = serve.deployment(replica).options(name="Model", **_model_options(arguments))
    return ingress.bind(arguments, model.bind(arguments))


def _ingress_options(arguments: Arguments) -> dict[str, Any]:
    return {
        "num_replicas": arguments.ingresses,
        "max_replicas_per_node": arguments.ingresses_each,
        # It waits for others nearly all of the time.
        "ray_actor_options": {"num_cpus": 0},
        # Ray's default is 5. The server counts its requests itself; probes and metrics come on top.
        "max_ongoing_requests": arguments.max_requests + _SPARE,
        # By default any number waits at the proxies, for as long as its clients do.
        "max_queued_requests": arguments.max_requests,
        # By default 503, which clients do not take for "slower".
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=_BUSY_S),
        **_lifetime(arguments),
    }


def _model_options(arguments: Arguments) -> dict[str, Any]:
    options = {
        "ray_actor_options": {
            "num_cpus": arguments.cpus,
            "num_gpus": arguments.gpus,
            "runtime_env": {"env_vars": arguments.environment},
        },
        # Ray's default is 5. Who has rows, who waits for them in the scheduler, and who is just being refused.
        "max_ongoing_requests": arguments.max_rows + arguments.max_queue + _SPARE,
        "max_queued_requests": -1,
        # Ray's own counts requests, of which one may want twenty rows, and knows of no conversations.
        "request_router_config": RequestRouterConfig(
            request_router_class=f"{RowsRouter.__module__}.{RowsRouter.__name__}",
            request_routing_stats_period_s=1.0,
            request_routing_stats_timeout_s=arguments.silence,
        ),
        **_lifetime(arguments),
    }
    if arguments.max_replicas is None or arguments.max_replicas == arguments.replicas:
        return {**options, "num_replicas": arguments.replicas}
    policy = AutoscalingPolicy(
        policy_function=f"{RowsPolicy.__module__}:{RowsPolicy.__name__}",
        policy_kwargs={"max_rows": arguments.max_rows, "share": _SHARE},
    )
    scaling = AutoscalingConfig(
        min_replicas=arguments.replicas,
        max_replicas=arguments.max_replicas,
        # A picture takes tens of seconds: a shorter look would start replicas for a burst that is over when they are ready.
        look_back_period_s=30.0,
        upscale_delay_s=15.0,
        downscale_delay_s=600.0,
        policy=policy,
    )
    return {**options, "autoscaling_config": scaling}


def _lifetime(arguments: Arguments) -> dict[str, Any]:
    return {
        # Ray's default is 20 s, less than a picture in a full batch takes.
        "graceful_shutdown_timeout_s": arguments.grace,
        "graceful_shutdown_wait_loop_s": 0.5,
        # A replica is given up after three checks without an answer; by default that takes a minute and a half.
        "health_check_period_s": 2.0,
        "health_check_timeout_s": arguments.silence / 2,
        # The server's own log has a line for each request.
        "logging_config": LoggingConfig(enable_access_log=False),
    }
