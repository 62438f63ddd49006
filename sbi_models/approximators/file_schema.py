"""What the header of a saved approximator holds, by kind: checked before anything is made of it."""

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

from sbi_models.safe_construction import misfit

_Size = Annotated[int, (1, 2**31 - 1)]
_Axis = Annotated[int, (0, 2**31 - 1)]


class _Transform(TypedDict):
    kind: str
    config: dict[str, Any]


class _Widths(TypedDict):
    theta_dim: _Size
    condition_dim: _Axis


class _WidthsAndDiscrete(TypedDict):
    theta_dim: _Size
    condition_dim: _Axis
    discrete: list[list[Any]]


class _Inputs(TypedDict):
    input_shape: list[_Axis] | dict[str, list[_Axis]]


class _InferenceNetwork(TypedDict):
    name: str
    config: dict[str, Any]
    built_with: _Widths | _WidthsAndDiscrete


class _SummaryNetwork(TypedDict):
    name: str
    config: dict[str, Any]
    built_with: _Inputs


class _Alone(TypedDict):
    roles: dict[str, list[str]]
    adapter: list[_Transform]
    standardize: list[str]
    widths: dict[str, _Axis]
    masks: dict[str, str]
    shapes: dict[str, list[_Axis]]
    any_length: NotRequired[dict[str, Annotated[int, (1, 2)]]]
    inference_network: _InferenceNetwork
    summary_network: _SummaryNetwork | None
    info: dict[str, Any]


class _Member(TypedDict):
    name: str
    kind: str
    settings: _Alone


class _Ensemble(TypedDict):
    members: list[_Member]
    weights: dict[str, float] | None
    info: dict[str, Any]


class _Header(TypedDict):
    schema_version: int
    kind: str
    settings: dict[str, Any]
    sha256: str


def misfit_of_header(header: Any) -> str | None:
    """What is wrong with the header of a file, in words."""
    return misfit(header, _Header, "the header")


def misfit_of_settings(settings: Mapping[str, Any], *, is_ensemble: bool) -> str | None:
    """What is wrong with the settings of an approximator, in words."""
    return misfit(settings, _Ensemble if is_ensemble else _Alone, "settings")
