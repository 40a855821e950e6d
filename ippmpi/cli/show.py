"""``--show-config``: the settings that a command would use."""

from __future__ import annotations

import argparse
import json

from ippmpi import config
from ippmpi.traits.files import of_profile

from .parser import settings_of


def run(args: argparse.Namespace) -> int:
    """Print them, as TOML or (``--show-config-json``) as JSON."""
    role = args.role
    settings = config.load(role, settings_of(args, role), below=lambda folder: of_profile(folder, role))
    if args.show_config_json:
        print(json.dumps({role.ROLE: vars(settings)}, indent=2))
        return 0
    print(f"[{role.ROLE}]  # {settings.folder / config.FILE_NAME}")
    for name, value in vars(settings).items():
        print(f"{name} = {json.dumps(value)}")  # the same as TOML for texts, numbers and lists of texts
    return 0
