"""Chooses the replica for each call. Ray copies this module's class into every process that has a handle."""

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from . import calls, fleet


class RowsRouter(RequestRouter):
    """The fewest rows wanted, or the replica that holds the conversation: see `Fleet.rank`.

    What it knows lies in `fleet.here`, by its module: this class is a copy, and a name that it imported would be one too.
    """

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Ray calls it when replicas come and go, and when they said something new of themselves."""
        super().update_replicas(replicas)
        fleet.here.see({replica.replica_id.unique_id: replica.routing_stats.get("stats") for replica in replicas})

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Each replica is a rank of its own. Ray takes the first that answers at once and is not full."""
        call = pending_request.args[0] if pending_request is not None and pending_request.args else None
        if pending_request is None or not isinstance(call, calls.Call):
            return [candidate_replicas]
        # Without it Ray would ask again without a pause where no replica has room.
        pending_request.routing_context.should_backoff = True
        running = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        return [[running[name]] for name in fleet.here.rank(call, list(running))]
