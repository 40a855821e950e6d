"""BroadcastView: another name of the view that addresses all engines at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ippmpi.client.engines import Targets
from ippmpi.client.views import DirectView

if TYPE_CHECKING:
    from ippmpi.client.client import Client


class BroadcastView(DirectView):
    """A direct view by the name that users of ipyparallel know for one that sends a payload once.

    Every ``DirectView`` does. ``is_coalescing`` changes nothing: replies that are ready together travel together, and
    each engine has its own result, in the order of the targets, whether it failed or not.
    """

    def __init__(self, client: Client, targets: Targets = "all", is_coalescing: bool = False, **flags: Any) -> None:
        """Name the engines, see ``Client.broadcast_view``."""
        super().__init__(client, targets, **flags)
        self.is_coalescing = is_coalescing
