"""The same work as tasks of a cluster."""

from workbench.cluster.tasks import on_ray

__all__ = ["on_ray"]
