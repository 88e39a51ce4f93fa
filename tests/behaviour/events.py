"""Events that the behaviour tests share."""

from __future__ import annotations

import attrs

from blazen_trio import Event


@attrs.frozen
class A(Event):
    n: int = 0


@attrs.frozen
class B(Event):
    n: int = 0


@attrs.frozen
class C(Event):
    n: int = 0


@attrs.frozen
class SubA(A):
    extra: str = ""


@attrs.frozen
class Sum(Event):
    numbers: list[int]
