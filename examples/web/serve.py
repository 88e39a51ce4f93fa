"""Serve the expense claims over HTTP: `python examples/web/serve.py --db claims.db --port 8000`.

SIGTERM and Ctrl-C drain the server.
"""

from __future__ import annotations

import argparse
import functools
import signal
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from service import make_app


async def main(options: argparse.Namespace) -> None:
    """Serve until a signal comes. Then take no more requests, end the feeds, and drain the runs."""
    closing = trio.Event()

    async def wait_for_signal() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                closing.set()
                return

    config = Config()
    config.bind = [f"127.0.0.1:{options.port}"]
    config.graceful_timeout = 10.0  # for requests in flight; the runs have `drain_timeout`
    config.loglevel = "WARNING"
    app: Any = make_app(f"sqlite:///{options.db}", closing, pace=options.pace)
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(
            functools.partial(serve, app, config, shutdown_trigger=wait_for_signal)
        )
        print(f"serving {urls[0]}/claims", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--db", default="claims.db", help="the SQLite file to keep runs in (default: claims.db)"
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="the port (default: 8000; 0: any free port)"
    )
    parser.add_argument(
        "--pace",
        type=float,
        default=1.0,
        help="seconds that the check of a receipt takes (default: 1)",
    )
    trio.run(main, parser.parse_args())
