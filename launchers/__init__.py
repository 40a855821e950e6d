"""One launcher a file; installed as ``ippmpi.launchers``. See ippmpi/plugins.py."""

if __name__ != "ippmpi.launchers":
    raise ImportError(f"import ippmpi.launchers, not {__name__}")
