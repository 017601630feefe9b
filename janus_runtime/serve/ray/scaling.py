"""How many model replicas there should be: by rows wanted, not by requests, of which one may want twenty rows."""

from typing import Any

from ray.serve.config import AutoscalingContext


class RowsPolicy:
    """Ray makes it in its controller, and adds the bounds and the delays of `AutoscalingConfig`."""

    def __init__(self, max_rows: int, share: float) -> None:
        """`share` of a replica's `max_rows` is what it should have to do."""
        self._rows_each = max_rows * share

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Replicas wanted, rounded by Ray; what is queued before any replica has it counts one row a request."""
        reported = (context.aggregated_metrics or {}).get("rows_wanted", {})
        return (sum(reported.values()) + context.total_queued_requests) / self._rows_each, {}
