"""Ray starts a replica when more rows are wanted than one has."""

import pytest

import janus_runtime
from testing.ray_cluster import Cluster
from tests.runtime.serve.ray.load import Expected, Load


@pytest.mark.slow
@pytest.mark.alone
def test_a_second_replica_is_started_for_rows_that_are_wanted():
    with janus_runtime.load(backend="cpu") as janus, Cluster(replicas=1, max_replicas=2, max_rows=4, cpus=0.5) as cluster:
        assert len(cluster.replicas()) == 1
        load = Load(cluster, Expected.of(janus), 6, 60)
        try:
            cluster.wait_for_replicas(2, within_s=150)
        finally:
            load.stop()
        assert load.faults == [] and set(load.outcomes) == {"right"}
