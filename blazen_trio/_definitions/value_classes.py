"""The kinds of classes whose values are stored field by field, under the class's name."""

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
    """Tell whether it is a class that can be stored field by field: attrs, dataclass, named tuple,
    a pydantic model or a msgspec struct. The last two are known by their marks: neither library
    is imported here.
    """
    if not isinstance(cls, type):
        return False
    if is_named_tuple(cls):
        return True
    fields = attrs.has(cls) or dataclasses.is_dataclass(cls) or is_pydantic(cls) or is_struct(cls)
    return fields and not issubclass(cls, _BUILTINS)


def is_named_tuple(cls: Any) -> bool:
    """Tell whether it is a class made by `NamedTuple` or `namedtuple`."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make")


def is_pydantic(cls: Any) -> bool:
    """Tell whether it is a model of pydantic 2."""
    return hasattr(cls, "__pydantic_fields_set__") and hasattr(cls, "model_fields")


def is_struct(cls: Any) -> bool:
    """Tell whether it is a struct of msgspec."""
    return hasattr(cls, "__struct_fields__") and hasattr(cls, "__struct_config__")


def is_typed_dict(cls: Any) -> bool:
    """Tell whether it is a `TypedDict`, of `typing` or `typing_extensions`."""
    return isinstance(cls, type) and hasattr(cls, "__required_keys__")


def annotations_of(cls: Any) -> list[Any]:
    """Return what a class's fields are annotated with, as it stands there: quoted parts stay so.

    A `TypedDict` is a dict when it is stored, but what is in it has classes, too.
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
    """Tell whether values of this class are stored under its name: enums, too."""
    if isinstance(candidate, type) and issubclass(candidate, enum.Enum):
        return True
    return is_value_class(candidate)
