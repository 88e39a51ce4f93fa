"""Argument types that several commands share: ids, JSON and lengths of time."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from blazen_trio import SerializationError
from blazen_trio._codec.codec import PLAIN
from blazen_trio._stores.store_rules import check_id

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic only in some versions of click

__all__ = ["Age", "Id", "Json", "value_of"]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_OLDEST: Final = dt.timedelta(days=36500)


class Id(_ParamType):
    """An id of a run, or the key of an event sent into one."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id; refuse an invalid one."""
        try:
            check_id(self.name, value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class Json(_ParamType):
    """A JSON document.

    Args:
        kind: The type that it must have, `dict` for an object; by default any.
    """

    name = "JSON"

    def __init__(self, kind: type = object) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed document."""
        if not isinstance(value, str):
            return value  # a default
        try:
            found = json.loads(
                value, parse_constant=_no_constant, parse_int=_integer, parse_float=_number
            )
        except (ValueError, RecursionError) as error:
            self.fail(
                f"{value!r:.80} is not valid JSON ({error}); a JSON string needs double quotes, "
                "'\"like this\"'",
                param,
                ctx,
            )
        if not isinstance(found, self._kind):
            self.fail(
                f'{value!r:.80} is not a JSON object, such as \'{{"by": "ann"}}\'', param, ctx
            )
        return found


def _no_constant(name: str) -> NoReturn:
    msg = f"JSON has no {name}"
    raise ValueError(msg)


def _integer(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**64:
        msg = f'{text:.30} is beyond 64 bits: write it as {{"$int": "{number:#x}"}}'
        raise ValueError(msg)
    return number


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = f"{text:.30} is too large for a number"
        raise ValueError(msg)
    return number


def value_of(document: Any) -> Any:
    """Return the value that a JSON document represents, in the notation of stored values.

    Types that JSON lacks are tagged, as in `{"$datetime": "2026-01-01T12:00:00+00:00"}`.

    Raises:
        SerializationError: It has an unknown tag, or a value that does not fit its tag.
    """
    try:
        [value] = PLAIN.decode_value(json.dumps([document]).encode(), "VALUE")
    except RecursionError:
        msg = "can't decode value 'VALUE': it is nested too deeply"
        raise SerializationError(msg, subject="VALUE") from None
    return value


class Age(_ParamType):
    """A length of time: a number and its unit."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dt.timedelta:
        """Return the length of time."""
        if isinstance(value, dt.timedelta):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", str(value), re.ASCII)
        if match is None:
            self.fail(
                f"{value!r:.80} is not an age: use a number and s, m, h, d or w, as in 30d",
                param,
                ctx,
            )
        unit = dt.timedelta(**{_UNITS[match[2]]: 1})
        number = float(match[1])
        if number > _OLDEST / unit:
            self.fail(f"{value!r:.80} is more than a hundred years", param, ctx)
        return number * unit
