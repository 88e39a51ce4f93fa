"""Recognition of the classes whose values are stored field by field, under the class's name."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import attrs

__all__ = [
    "annotations_of",
    "is_named_tuple",
    "is_pydantic",
    "is_stored_by_name",
    "is_struct",
    "is_typed_dict",
    "is_value_class",
]

_BUILTINS = (str, int, float, complex, bytes, bytearray, list, tuple, dict, set, frozenset)


def is_value_class(cls: Any) -> bool:
    """Return whether values of this class can be stored field by field.

    It is an attrs class, dataclass, named tuple, pydantic model or msgspec struct. The last two are
    recognized by their attributes, so that neither library has to be imported.
    """
    if not isinstance(cls, type):
        return False
    if is_named_tuple(cls):
        return True
    fields = attrs.has(cls) or dataclasses.is_dataclass(cls) or is_pydantic(cls) or is_struct(cls)
    return fields and not issubclass(cls, _BUILTINS)


def is_named_tuple(cls: Any) -> bool:
    """Return whether this class was made by `NamedTuple` or `namedtuple`."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make")


def is_pydantic(cls: Any) -> bool:
    """Return whether this is a pydantic 2 model."""
    return hasattr(cls, "__pydantic_fields_set__") and hasattr(cls, "model_fields")


def is_struct(cls: Any) -> bool:
    """Return whether this is a msgspec struct."""
    return hasattr(cls, "__struct_fields__") and hasattr(cls, "__struct_config__")


def is_typed_dict(cls: Any) -> bool:
    """Return whether this is a `TypedDict` of `typing` or `typing_extensions`."""
    return isinstance(cls, type) and hasattr(cls, "__required_keys__")


def annotations_of(cls: Any) -> list[Any]:
    """Return the annotations of a class's fields as written: quoted parts stay quoted.

    A `TypedDict` is included: it is stored as a dict, but its values may be of value classes.
    """
    if attrs.has(cls):
        return [field.type for field in attrs.fields(cls)]
    if dataclasses.is_dataclass(cls):
        return [field.type for field in dataclasses.fields(cls)]
    if is_pydantic(cls):
        return [field.annotation for field in cls.model_fields.values()]
    if is_struct(cls) or is_named_tuple(cls) or is_typed_dict(cls):
        return [
            annotation
            for base in reversed(cls.__mro__)
            for annotation in vars(base).get("__annotations__", {}).values()
        ]
    return []


def is_stored_by_name(candidate: object) -> bool:
    """Return whether values of this class are stored under its name. Enums are, too."""
    if isinstance(candidate, type) and issubclass(candidate, enum.Enum):
        return True
    return is_value_class(candidate)
