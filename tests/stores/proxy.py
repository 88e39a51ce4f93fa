"""A proxy to a server that can go silent: it then answers nothing and closes nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Proxy:
    """Forwards data until `silent` is set. Then it accepts connections, and ignores them.

    Attributes:
        url: The URL of the server, through the proxy.
        silent: Whether the proxy forwards nothing.
        part: The number of bytes to forward at a time.
        pause: The number of seconds to wait after each part.
    """

    def __init__(self, url: str, port: int) -> None:
        behind = sa.make_url(url)
        self._server = (behind.host or "", behind.port or 0)
        given = behind.set(host="127.0.0.1", port=port)
        self.url = given.render_as_string(hide_password=False)
        self.silent = False
        self.part, self.pause = 65536, 0.0
        self._round = 0

    def forget(self) -> None:
        """Forward nothing more for existing connections. New connections are served."""
        self._round += 1

    async def serve(self, client: trio.SocketStream) -> None:
        if self.silent:
            await trio.sleep_forever()
        async with (
            client,
            await trio.open_tcp_stream(*self._server) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._pump, client, server)
            nursery.start_soon(self._pump, server, client)

    async def _pump(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        begun = self._round
        try:
            async for data in source:
                for start in range(0, len(data), self.part):
                    if self.silent or self._round != begun:
                        await trio.sleep_forever()
                    await target.send_all(data[start : start + self.part])
                    await trio.sleep(self.pause)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@asynccontextmanager
async def a_proxy(url: str) -> AsyncIterator[Proxy]:
    """Run a proxy to the server of this URL for as long as the block lasts."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy = Proxy(url, listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, proxy.serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
