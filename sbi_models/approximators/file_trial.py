"""Trial of a loaded approximator: one artificial observation is sampled from and certified."""

from math import prod

import torch
from torch import Tensor

from sbi_models.approximators.base import Approximator, Member
from sbi_models.approximators.certificates.calibration import (
    EvaluationMode,
    features_of,
    sizes_of_disagreement,
    with_out_of_distribution_p_values,
)
from sbi_models.approximators.certificates.certificate import Certificate
from sbi_models.approximators.certificates.ranks import tie_breakers
from sbi_models.approximators.discrete import columns_of
from sbi_models.approximators.summary_inputs import SUMMARY
from sbi_models.errors import ModelFileError

_MOST_NUMBERS = 2**20
"""Largest observation, in numbers, that is tried; larger ones take as long as the first sampling does."""


def try_out(approximator: Approximator) -> None:
    """Pass no rows through the adapter of every member, and one zero row through all that follows.

    Raises:
        ModelFileError: shapes, adapter, moments, networks or certificate do not fit together.
        Exception: any other, of a network or a tensor that cannot be used.
    """
    with EvaluationMode(approximator):
        shapes = {name: _shapes(member) for name, member in approximator.members.items()}
        if max(prod(shape) for by_key in shapes.values() for shape in by_key.values()) > _MOST_NUMBERS:
            return
        prepared = {name: _zeros(member, shapes[name]) for name, member in approximator.members.items()}
        for name, member in approximator.members.items():
            _draw(member, prepared[name])
        if all(member.novelty.is_known for member in approximator.members.values()):
            points = {
                name: features_of(member, prepared[name]) for name, member in approximator.members.items()
            }
            with_out_of_distribution_p_values(
                [Certificate()], approximator.members, points, tie_breakers(1, 0)
            )
            usual = approximator.usual_disagreement.values
            if usual is not None:
                _expect("usual_disagreement.values", (usual.ndim, usual.dtype), (1, torch.float64))
                sizes_of_disagreement(approximator, next(iter(points.values())))


def _shapes(member: Member) -> dict[str, tuple[int, ...]]:
    """Shapes of one adapted row by role, checked against the raw ones.

    Adapter, moments and summary network must fit them.
    """
    built, summary = member.inference_network.built_with, member.summary_network
    assert built is not None
    _expect("the variables of shapes", set(member.shapes), {*member.inference_names, *member.condition_names})
    nothing = {name: torch.zeros((0, *shape), dtype=torch.float64) for name, shape in member.shapes.items()}
    there = {
        name: torch.ones(nothing[name].shape[: 1 + axes], dtype=torch.bool)
        for name, axes in member.any_length.items()
    }
    adapted, _ = member.inputs.of(member.adapter.forward(nothing), there)
    shapes = {key: tuple(value.shape[1:]) for key, value in adapted.items()}
    _expect("the axes of inference_variables", shapes["inference_variables"], (built["theta_dim"],))
    zeros = torch.zeros(1, built["theta_dim"], dtype=torch.float64)
    columns = columns_of(member.adapter, {"inference_variables": zeros})
    _expect("the discrete columns", member.inference_network.discrete, columns)
    alone, _ = member.inputs.of(
        member.adapter.forward({name: nothing[name] for name in member.condition_names}), there
    )
    expected = {key: shape for key, shape in shapes.items() if key != "inference_variables"}
    _expect(
        "the shapes of conditions alone",
        {key: tuple(value.shape[1:]) for key, value in alone.items()},
        expected,
    )
    if summary is not None:
        assert summary.built_with is not None
        inputs = {name: list(shapes[key]) for key, name in member.inputs.names.items()}
        _expect("the shape of summary inputs", inputs.get(SUMMARY, inputs), summary.built_with["input_shape"])
    for key, shape in shapes.items():
        for moment in ("mean", "sd"):
            values = getattr(member.standardizer, f"{key}_{moment}", None)
            if values is not None:
                _expect(f"the axes of {key}_{moment}", tuple(values.shape), shape[-1:])
                if not bool(values.isfinite().all()) or (moment == "sd" and not bool((values > 0).all())):
                    raise ModelFileError(
                        f"{key}_{moment}: expected {'positive' if moment == 'sd' else 'finite'} "
                        "numbers, got others"
                    )
    return shapes


def _zeros(member: Member, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """One standardized row, and masks by which all of it counts."""
    rows = {key: torch.zeros(1, *shape, dtype=torch.float32) for key, shape in shapes.items()}
    return rows | {
        mask: torch.ones(rows[key].shape[: member.inputs.axes[key] + 1], dtype=torch.bool)
        for key, mask in member.inputs.masked.items()
    }


def _draw(member: Member, prepared: dict[str, Tensor]) -> None:
    """One draw given one observation, or its estimates, to raw space."""
    built = member.inference_network.built_with
    assert built is not None
    given = member.conditions_of(prepared)
    _expect("the conditions of the inference network", tuple(given.shape), (1, built["condition_dim"]))
    for name, value in member.answer(given).items():
        _expect(f"the axes of {name}", tuple(value.shape), (1, *member.shapes[name]))


def _expect(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise ModelFileError(f"{what}: expected {expected}, got {got}")
