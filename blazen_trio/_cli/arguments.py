"""What several commands take: runs' ids, JSON, lengths of time."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from blazen_trio import SerializationError
from blazen_trio._codec.codec import PLAIN
from blazen_trio._surface.run_arguments import check_id

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # which not every click has with a type

__all__ = ["Age", "Id", "Json", "value_of"]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_OLDEST: Final = dt.timedelta(days=36500)


class Id(_ParamType):
    """What can name a run, or an event sent into one."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id; what none can be is refused."""
        try:
            check_id(self.name, value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class Json(_ParamType):
    """A JSON document.

    Args:
        kind: What it has to be, `dict` for an object; left out: anything.
    """

    name = "JSON"

    def __init__(self, kind: type = object) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """What the text says."""
        if not isinstance(value, str):
            return value  # a default
        try:
            found = json.loads(
                value, parse_constant=_no_constant, parse_int=_integer, parse_float=_number
            )
        except (ValueError, RecursionError) as error:
            self.fail(
                f"{value!r:.80} is no JSON ({error}); a text is JSON in double quotes, '\"like this\"'",
                param,
                ctx,
            )
        if not isinstance(found, self._kind):
            self.fail(f'{value!r:.80} is no JSON object, such as \'{{"by": "ann"}}\'', param, ctx)
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
        msg = f"{text:.30} is beyond what a number may be"
        raise ValueError(msg)
    return number


def value_of(document: Any) -> Any:
    """The value that a JSON document stands for, in the notation that values are stored in and shown in: what JSON lacks is tagged,
    as in `{"$datetime": "2026-01-01T12:00:00+00:00"}`.

    Raises:
        SerializationError: It has a tag that there is not, or does not fit its tag.
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
        """The length."""
        if isinstance(value, dt.timedelta):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", str(value), re.ASCII)
        if match is None:
            self.fail(
                f"{value!r:.80} is no age: a number and s, m, h, d or w, as in 30d", param, ctx
            )
        unit = dt.timedelta(**{_UNITS[match[2]]: 1})
        number = float(match[1])
        if number > _OLDEST / unit:
            self.fail(f"{value!r:.80} is more than a hundred years", param, ctx)
        return number * unit
