"""The same work as tasks of a cluster."""

from workbench.cluster.exchange import exchanged, store_address
from workbench.cluster.tasks import on_ray

__all__ = ["exchanged", "on_ray", "store_address"]
