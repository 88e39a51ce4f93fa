"""Place an order, durably: kill the program at any time, and start it again with the same `--run`.

    python examples/saga/place_order.py --db orders.db --run order-1
    python examples/saga/place_order.py --db orders.db --run order-2 --decline ship

The first command reserves, charges and ships. The second one is refused at the end and undoes all.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path

import trio
from order_saga import NotShipped, Order, OrderSaga, Shipped, TryAgain
from provider import EFFECTS, DeclinedError, Provider, ServiceDownError, Services

from blazen_trio import RunNotFoundError, WorkflowError, open_store

PRICE = {"teapot": 2500, "cup": 400}


def make_trouble(declined: str | None, flakiness: float) -> Callable[[str], None]:
    """Return a function that refuses one effect, and loses requests and answers at random."""

    def trouble(where: str) -> None:
        print(f"  {where}", flush=True)
        if where == declined:
            msg = f"no {where} today"
            raise DeclinedError(msg)
        if random.random() < flakiness:
            msg = f"{where!r} was lost"
            raise ServiceDownError(msg)

    return trouble


async def main(options: argparse.Namespace) -> None:
    """Start or resume the run, and print the result and the books."""
    path = Path(options.db)
    services = Services(path.with_suffix(".services"))
    provider = Provider(services, options.pace, make_trouble(options.decline, options.flaky))
    saga = OrderSaga(provider).workflow
    order = Order(
        sku=options.sku, quantity=options.quantity, cents=options.quantity * PRICE[options.sku]
    )
    async with open_store(f"sqlite:///{path}") as store:
        try:
            await store.get_run(options.run)
            handle = saga.resume_from(options.run, store=store)
        except RunNotFoundError:
            handle = saga.run(order, store=store, run_id=options.run)
        async with handle as run:
            if options.again:
                for question in run.input_requests:
                    await run.respond(TryAgain(question.request_id))
            result: Shipped | NotShipped = await run.result()
    print("shipped" if isinstance(result, Shipped) else f"not shipped: {result.reason!r}")
    print("books:", services.books())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--db", default="orders.db", help="the SQLite file to keep runs in (default: orders.db)"
    )
    parser.add_argument(
        "--run", default="order-1", metavar="RUN_ID", help="the order to place or to resume"
    )
    parser.add_argument(
        "--sku", choices=sorted(PRICE), default="teapot", help="the article (default: teapot)"
    )
    parser.add_argument("--quantity", type=int, default=1, help="the quantity (default: 1)")
    parser.add_argument("--decline", choices=EFFECTS, help="the services refuse this effect")
    parser.add_argument("--again", action="store_true", help="retry a stuck compensation")
    parser.add_argument(
        "--flaky",
        type=float,
        default=0.0,
        help="the share of requests and answers lost (default: 0)",
    )
    parser.add_argument(
        "--pace", type=float, default=1.0, help="seconds that each answer takes (default: 1)"
    )
    try:
        trio.run(main, parser.parse_args())
    except WorkflowError as error:
        sys.exit(str(error))
