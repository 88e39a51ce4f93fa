"""Wire forms of scalars that JSON lacks: dates, times, UUID, Decimal, bytes, big integers, NaN."""

from __future__ import annotations

import binascii
import contextlib
import datetime as dt
import math
import uuid
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from blazen_trio._codec.names import Misfit, short

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["INT_MAX", "INT_MIN", "SCALARS", "decode_scalar", "float_wire", "int_wire"]

INT_MIN = -(2**63)
INT_MAX = 2**64 - 1
"""Largest integer that orjson writes; `INT_MIN` is the smallest."""


def int_wire(value: int) -> Any:
    """Encode an integer of any size; beyond 64 bits as `{"$int": hex}`.

    It is hexadecimal because Python limits the length of decimal texts.
    """
    return value if INT_MIN <= value <= INT_MAX else {"$int": hex(value)}


def float_wire(value: float) -> Any:
    """Encode a float; NaN and infinities, which JSON lacks, as `{"$float": ...}`."""
    return value if math.isfinite(value) else {"$float": repr(value)}


def _encode_bytes(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def _decode_bytes(wire: str) -> bytes:
    return binascii.a2b_base64(wire.encode("ascii"), strict_mode=True)


def _zone(value: dt.datetime | dt.time) -> str | None:
    """Return the key of a time zone, or `None` if the offset alone describes it.

    Zones of other libraries are refused, and so are those that were read from a file, because other
    processes could not find them.
    """
    if value.tzinfo is None or type(value.tzinfo) is dt.timezone:
        return None
    import zoneinfo  # not at module level: it is slow to import, and few programs need it

    zone = value.tzinfo
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        with contextlib.suppress(Exception):  # pickle's errors
            zone.__reduce__()  # raises for a zone that was read from a file
            return zone.key
    msg = f"its time zone {short(zone)} can't be stored: use datetime.timezone or zoneinfo.ZoneInfo"
    raise Misfit(msg)


def _encode_instant(value: dt.datetime | dt.time) -> Any:
    zone = _zone(value)
    if type(value.tzinfo) is dt.timezone:
        offset, *name = value.tzinfo.__getinitargs__()  # type: ignore[attr-defined]
        if name:
            seconds = [offset.days, offset.seconds, offset.microseconds]
            return [value.replace(tzinfo=None).isoformat(), seconds, value.fold, name[0]]
    if zone is None and not value.fold:
        return value.isoformat()
    text = value.isoformat() if zone is None else value.replace(tzinfo=None).isoformat()
    return [text, zone, value.fold]


def _instant_decoder(cls: Any) -> Callable[[Any], Any]:
    def decode(wire: Any) -> Any:
        if type(wire) is str:
            return cls.fromisoformat(wire)
        if len(wire) == 4:
            text, offset, fold, name = wire
            zone = dt.timezone(_decode_timedelta(offset), name)
            return cls.fromisoformat(text).replace(tzinfo=zone, fold=fold)
        text, key, fold = wire
        value = cls.fromisoformat(text)
        if key is not None:
            import zoneinfo

            value = value.replace(tzinfo=zoneinfo.ZoneInfo(key))
        return value.replace(fold=fold)

    return decode


def _encode_timedelta(value: dt.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _decode_timedelta(wire: list[int]) -> dt.timedelta:
    days, seconds, microseconds = wire
    return dt.timedelta(days, seconds, microseconds)


def _decode_int(wire: str) -> int:
    return int(wire, 16)


def _decode_float(wire: str) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[wire]


def _of_text(decode: Callable[[str], Any]) -> Callable[[Any], Any]:
    def checked(wire: Any) -> Any:
        if type(wire) is not str:
            msg = f"expected a string, not {short(wire)}"
            raise ValueError(msg)
        return decode(wire)

    return checked


SCALARS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    bytes: ("$bytes", _encode_bytes, _of_text(_decode_bytes)),
    dt.datetime: ("$datetime", _encode_instant, _instant_decoder(dt.datetime)),
    dt.date: ("$date", dt.date.isoformat, _of_text(dt.date.fromisoformat)),
    dt.time: ("$time", _encode_instant, _instant_decoder(dt.time)),
    dt.timedelta: ("$timedelta", _encode_timedelta, _decode_timedelta),
    uuid.UUID: ("$uuid", str, _of_text(uuid.UUID)),
    Decimal: ("$decimal", str, _of_text(Decimal)),
    int: ("$int", int_wire, _of_text(_decode_int)),
    float: ("$float", float_wire, _of_text(_decode_float)),
}
"""The tag, encoder and decoder of each scalar class."""


def decode_scalar(cls: type, wire: Any) -> Any:
    """Decode a scalar from its wire form.

    Raises:
        Misfit: The wire form is invalid.
    """
    try:
        return SCALARS[cls][2](wire)
    except (
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        OSError,
        InvalidOperation,
        binascii.Error,
    ) as error:
        # zoneinfo raises ZoneInfoNotFoundError, a KeyError; and ValueError for a name that is a
        # path outside its data.
        msg = f"{short(wire)} is not a stored {cls.__name__}: {error}"
        raise Misfit(msg) from error
