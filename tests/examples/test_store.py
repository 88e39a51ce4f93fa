"""The store of one file per run: it keeps every promise of a store, and a killed run resumes."""

from __future__ import annotations

import importlib
import itertools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from blazen_trio import RunStatus, StoreError
from blazen_trio.testing import check_store

EXAMPLE = Path(__file__).parents[2] / "examples" / "store"


@pytest.fixture
def new_folder(tmp_path):
    numbers = itertools.count()
    return lambda: tmp_path / f"store-{next(numbers)}"


async def test_the_store_keeps_every_promise(example, new_folder):
    open_folder = example("store", "folder_store").open_folder
    await check_store(lambda: open_folder(new_folder()))


@pytest.mark.parametrize(
    ("promise", "file", "kept", "broken"),
    [
        ("a key is accepted once", "folder_store.py", "key in record.keys", "False"),
        (
            "an earlier driver does not commit",
            "folder_store.py",
            "self._drivers[record.run_id] is driver",
            "self._drivers",
        ),
        ("replaces the entries", "run_record.py", "if entry[0] > folded", "if entry[0] >= folded"),
    ],
)
async def test_check_store_names_the_promise_that_is_broken(
    promise, file, kept, broken, tmp_path, new_folder, monkeypatch
):
    copy = tmp_path / "example"
    shutil.copytree(EXAMPLE, copy)
    code = (copy / file).read_text("utf-8")
    assert kept in code
    (copy / file).write_text(code.replace(kept, broken), "utf-8")
    for module in ("folder_store", "run_files", "run_record"):
        # Only an item that was there before is restored; without it, the copy would stay imported.
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(copy)
    folder_store = importlib.import_module("folder_store")
    assert folder_store.__file__ == str(copy / "folder_store.py")

    with pytest.raises(AssertionError, match=promise):
        await check_store(lambda: folder_store.open_folder(new_folder()))


async def test_a_folder_is_for_one_opening_at_a_time(example, new_folder):
    open_folder = example("store", "folder_store").open_folder
    folder = new_folder()
    async with open_folder(folder):
        with pytest.raises(StoreError, match="another program has opened"):
            async with open_folder(folder):
                pass
    async with open_folder(folder):
        pass


def test_a_killed_run_resumes_and_repeats_no_committed_step(example, new_folder):
    open_folder = example("store", "folder_store").open_folder
    folder = new_folder()
    command = [sys.executable, "-W", "error", EXAMPLE / "count.py", "--folder", folder]
    with subprocess.Popen(
        [*command, "--pace", "0.05", "--last", "6"], stdout=subprocess.PIPE, text=True
    ) as killed:
        for line in killed.stdout:
            if line == "4\n":
                killed.kill()
                break
    assert killed.returncode == -signal.SIGKILL

    async def look():
        async with open_folder(folder) as store:
            stored = await store.load("count-1")
            kinds = [record.kind for record in await store.history("count-1")]
            return stored.info.status, stored.crashes, kinds.count("step_completed")

    assert trio.run(look) == (RunStatus.RUNNING, 1, 4)

    resumed, again = (
        subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        for _ in range(2)
    )
    assert resumed.stdout.splitlines() == ["4", "5", "6", "counted to 6"]
    assert again.stdout.splitlines() == ["counted to 6"]
    assert trio.run(look) == (RunStatus.COMPLETED, 0, 7)
