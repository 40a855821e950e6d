"""``python -m ippmpi.engine``: one MPI rank that runs users' code."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    gc.disable()  # what is imported stays: there is nothing to collect, and looking for it costs each rank 4 ms
    # msgspec imports it, and with it inspect, where typing alone would do: 9 ms
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    import msgspec  # noqa: F401

    del sys.modules["typing_extensions"]
    from ippmpi.engine.process import main

    gc.freeze()
    gc.enable()
    sys.exit(main(sys.argv[1:]))
