"""Run one order in a series of processes, each killed at the first place that no other has reached.

    python saga_killed.py FOLDER DECLINED

The kills are SIGKILLs. The parent imports everything and only forks, so that each process costs
little. FOLDER/places lists the places in order.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# Opening a store imports Alembic and SQLAlchemy. Import them once, for all processes.
import alembic.operations  # noqa: F401
import trio

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "saga"))

import order_saga
import provider

from blazen_trio import RunNotFoundError, open_store

FOLDER, DECLINED = Path(sys.argv[1]), sys.argv[2]
PLACES = FOLDER / "places"


def trouble(where):
    if where not in PLACES.read_text().splitlines():
        with PLACES.open("a") as places:
            print(where, file=places)
        os.kill(os.getpid(), signal.SIGKILL)
    if where == DECLINED:
        raise provider.DeclinedError(where)


async def place_order():
    services = provider.Services(FOLDER / "services.db")
    saga = order_saga.OrderSaga(provider.Provider(services, trouble=trouble)).workflow
    order = order_saga.Order(sku="cup", quantity=2, cents=800)
    async with open_store(f"sqlite:///{FOLDER}/orders.db") as store:
        try:
            await saga.resume_from("order-1", store=store)
        except RunNotFoundError:
            await saga.run(order, store=store, run_id="order-1")


PLACES.touch()
status = None
while status != 0:
    child = os.fork()
    if child == 0:
        trio.run(place_order)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status not in {0, signal.SIGKILL}:
        sys.exit(f"the process has failed: wait status {status}")
