"""Names for the things that have identity, so that a type checker can tell them apart."""

from __future__ import annotations

from typing import NewType

EngineId = NewType("EngineId", int)
"""What users index with. ``base + rank`` of its world; with one world, the rank."""

TaskId = NewType("TaskId", str)
"""One request of one client, whatever its number of targets: ``<client>-<counter>``."""

WorldId = NewType("WorldId", str)
"""One MPI job (one ``MPI_COMM_WORLD``), named by its launcher."""

Peer = NewType("Peer", str)
"""Whoever speaks to the controller: ``client:<id>`` or ``agent:<world>@<host>``."""

RequestId = NewType("RequestId", int)
"""A question of one client that is answered once by an ``Answer``."""
