"""Find plug-ins: a plug-in is a file in a package, with exactly one public class.

Files whose name starts with ``_`` are shared parts of plug-ins, not plug-ins.
"""

from __future__ import annotations

import importlib
import pkgutil


def names(package: str) -> list[str]:
    """Return the names of the plug-ins in *package* (a dotted name), sorted."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def load(package: str, name: str) -> type:
    """Return the class of plug-in *name* (any case) of *package*; raise LookupError naming what there is."""
    have = names(package)
    found = [n for n in have if n.lower() == name.lower()]
    if not found:
        raise LookupError(f"no {name!r} in {package}; have {', '.join(have) or 'nothing'}")
    module = importlib.import_module(f"{package}.{found[0]}")
    classes = [
        value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    if len(classes) != 1:
        have_text = ", ".join(c.__name__ for c in classes) or "none"
        raise LookupError(f"{module.__name__} must have exactly one public class, has {have_text}")
    return classes[0]
