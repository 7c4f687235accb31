"""The base of every config: frozen; unknown keys, and numbers that are none, are errors."""

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

LARGEST = 2**63 - 1  # of whole numbers, as in tables and random generators


class Strict(BaseModel):
    """Frozen settings that refuse unknown keys. Fields carry their default, their range and a description.

    Numbers are finite, whole ones fit into 64 bits, and `true` is none, though Python counts with it.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, defer_build=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        for one in _scalars(value):
            if isinstance(one, bool):
                if not _takes_bool(cls.model_fields[info.field_name].annotation):
                    raise ValueError(f"{str(one).lower()} is no value for it")
            elif isinstance(one, int) and abs(one) > LARGEST:
                raise ValueError(f"whole numbers go up to {LARGEST}")
        return value


def _scalars(value: Any) -> Iterator[Any]:
    """What a list holds, however deep, or the value itself."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from _scalars(one)
    else:
        yield value


@cache
def _takes_bool(annotation: Any) -> bool:
    """Whether a bool is among the types that an annotation names; `Any` takes everything."""
    if annotation in (bool, Any):
        return True
    return any(_takes_bool(one) or isinstance(one, bool) for one in get_args(annotation))
