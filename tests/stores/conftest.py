"""Databases for the tests of stores.

A test that takes `url` runs on each kind of database. To choose some kinds, it parametrizes `kind`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.databases import KINDS, fresh_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def url(kind: str, tmp_path: Path) -> Iterator[str]:
    with fresh_database(kind, tmp_path) as url:
        yield url
