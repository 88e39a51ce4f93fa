"""The pictures of the documentation are what is drawn today."""

from __future__ import annotations

import pytest

from tests.pictures.drawn import FOLDER, documented


def test_each_picture_is_drawn_here():
    assert {path.name for path in FOLDER.glob("*.svg")} == set(documented())


@pytest.mark.parametrize("name", sorted(documented()))
def test_a_picture_is_what_is_drawn_today(name):
    found = (FOLDER / name).read_text(encoding="utf-8")
    assert found == documented()[name] + "\n", "python -m tests.pictures.drawn draws them anew"
