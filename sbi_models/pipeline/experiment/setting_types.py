"""Base class of settings, and types and limits that several of them share."""

from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from sbi_models.errors import ConfigurationError

MIN_DATASETS, MIN_DRAWS = 20, 10
"""What a verdict needs: those of `sbi_models.diagnostics`, which takes a second to import."""

LONGEST_NAME = 120
"""Bytes of a name that becomes part of the name of a file, of which file systems admit 255, with suffixes and
all."""


def file_name(name: str) -> str:
    """The name; raises ConfigurationError if no file can have it."""
    if not name.strip("."):
        raise ConfigurationError(f"expected a name with letters, got {name!r}, which is a folder")
    if (size := len(name.encode())) > LONGEST_NAME:
        raise ConfigurationError(
            f"expected a name of at most {LONGEST_NAME} bytes, since files have it, got {size}. "
            "Choose a shorter one"
        )
    return name


FileName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+$"), AfterValidator(file_name)]
"""Letters, digits, dots, dashes and underscores."""


class Settings(BaseModel):
    """Base class of settings: unknown keys are refused, and settings do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: object, info: ValidationInfo) -> object:
        """The value, unless it is true or false where a number is meant, which would count as 1 or 0."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ConfigurationError(
                "expected no true or false here (in YAML yes, no, on and off without quotes are such)"
            )
        return value
