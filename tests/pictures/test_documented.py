"""The pictures in the documentation are up to date."""

from __future__ import annotations

import pytest

from tests.pictures.drawn import FOLDER, documented


def test_every_picture_in_the_documentation_is_generated():
    assert {path.name for path in FOLDER.glob("*.svg")} == set(documented())


@pytest.mark.parametrize("name", sorted(documented()))
def test_a_picture_is_up_to_date(name):
    found = (FOLDER / name).read_text(encoding="utf-8")
    assert found == documented()[name] + "\n", "python -m tests.pictures.drawn updates it"
