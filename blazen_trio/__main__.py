"""`python -m blazen_trio` is the command `blazen-trio`."""

from __future__ import annotations

from blazen_trio._cli import main

if __name__ == "__main__":
    main()
