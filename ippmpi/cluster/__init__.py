"""Starting, finding and ending clusters: a controller and its engines."""

from __future__ import annotations

from .cluster import Cluster
from .manager import ClusterManager, clean, clean_cluster_files

__all__ = ["Cluster", "ClusterManager", "clean", "clean_cluster_files"]
