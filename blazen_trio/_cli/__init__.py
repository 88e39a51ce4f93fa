"""The console script `blazen-trio`: runs, workers, and the database's schema."""

from __future__ import annotations

import sys

from blazen_trio._cli.imports import prefer_installed
from blazen_trio._cli.streams import settle

__all__ = ["main"]

_CONFIG = 78  # the same as in `exits`, which needs click
_INTERRUPTED = 130


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    prefer_installed()
    settle()  # first: a file opened earlier would get the descriptor of a closed stream
    try:
        from blazen_trio._cli.app import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.stderr.write('blazen-trio needs its extra [cli]: pip install "blazen-trio[cli]"\n')
        sys.exit(_CONFIG)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    app(prog_name="blazen-trio")  # the name that shell completion uses
