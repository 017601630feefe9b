"""Metrics of the whole application, which any ingress replica gives: each series has the `replica` that it is of."""

import asyncio
import copy
from collections.abc import Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from ..metrics import status_families
from . import fleet

# A frozen ingress must not hold up what is known of the others.
_PEERS_S = 2.0


async def collect(own: Sequence[Metric], peers: DeploymentHandle, model_name: str) -> list[Metric]:
    """`own` families of this process, those of its peers, and what the model replicas said last."""
    here = fleet.here
    served = {here.ingress: list(own)}
    try:
        for name, families in await peers.broadcast("families").results_async(timeout_s=_PEERS_S):
            served[name] = families
    except (TimeoutError, asyncio.TimeoutError, RayError, RayServeException):
        # The gauge says that they are missing.
        pass
    models = {name: list(status_families(stats.status, model_name)) for name, stats in dict(here.stats).items()}
    return [*_count("ingress_replicas", "Ingress replicas that answered this scrape.", model_name, len(served)),
            *_count("model_replicas", "Model replicas that run.", model_name, len(models)),
            *merge({**models, **served})]  # fmt: skip


def _count(name: str, text: str, model_name: str, value: int) -> list[Metric]:
    family = GaugeMetricFamily(f"janus_{name}", text, labels=["model_name"])
    family.add_metric([model_name], value)
    return [family]


def merge(by_replica: dict[str, list[Metric]]) -> list[Metric]:
    """One family of each name, its samples with the label `replica`."""
    merged: dict[str, Metric] = {}
    for replica, families in by_replica.items():
        for family in families:
            into = merged.get(family.name)
            if into is None:
                into = merged[family.name] = copy.copy(family)
                into.samples = []
            into.samples.extend(sample._replace(labels={**sample.labels, "replica": replica}) for sample in family.samples)
    return list(merged.values())
