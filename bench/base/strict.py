"""The base of every config: frozen, and a key that it does not know is an error."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Frozen settings that refuse unknown keys. Fields carry their default, their range and a description."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
