"""One virtual environment per tool, made by pip; ippmpi comes from this checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

PACKAGES = {
    "ippmpi": [f"{CHECKOUT}[mpich]", "numpy", "psutil"],
    "ipyparallel": ["ipyparallel", "mpich", "mpi4py", "numpy", "psutil"],
    "futures": ["mpi4py", "mpich", "numpy", "psutil"],
}


def pip(python: Path, *arguments: str) -> None:
    """Run pip; ``CalledProcessError`` if it fails (its output is on our stderr)."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)


def environment(folder: Path, tool: str) -> Path:
    """Create the tool's environment unless it is there; return its Python.

    ippmpi itself is installed anew every time, so that what is measured is this checkout.
    """
    python = folder.resolve() / tool / "bin" / "python"
    wanted = "\n".join(PACKAGES[tool])
    done = folder.resolve() / tool / "packages.txt"
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        print(f"making an environment for {tool} in {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / tool)], check=True)
        pip(python, *PACKAGES[tool])
        done.write_text(wanted, encoding="utf-8")
    elif tool == "ippmpi":
        pip(python, "--force-reinstall", "--no-deps", str(CHECKOUT))
    return python
