"""Adapters go forward and back without loss, and travel as JSON."""

import json

import pytest
import torch

from sbi_models.adapters import ROLES, Adapter, Concatenate, default_adapter
from sbi_models.errors import ConfigurationError, DataError, ModelFileError

ROLE_NAMES = {
    "inference_variables": ["b", "a"],
    "inference_conditions": ["c"],
    "summary_variables": ["x", "y"],
}


def batch(seed=0, n=5):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (2,), "b": (1,), "c": (3,), "x": (7, 1), "y": (7, 2), "unused": (4,)}
    return {
        name: torch.randn(n, *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_each_role_holds_its_variables_side_by_side_in_order():
    """Forward joins the variables of a role along the last axis, in the order in which they were named."""
    raw = batch()
    adapted = default_adapter(ROLE_NAMES).fitted(raw).forward(raw)
    assert {name: tuple(value.shape) for name, value in adapted.items()} == {
        "inference_variables": (5, 3),
        "inference_conditions": (5, 3),
        "summary_variables": (5, 7, 3),
        "unused": (5, 4),
    }
    assert torch.equal(adapted["inference_variables"][:, :1], raw["b"])
    assert torch.equal(adapted["inference_variables"][:, 1:], raw["a"])
    assert torch.equal(adapted["summary_variables"][..., 1:], raw["y"])


def test_inverse_undoes_forward():
    """inverse(forward(z)) is z to the bit, for data that the adapter was not fitted to; nothing is lost or
    added."""
    adapter = default_adapter(ROLE_NAMES).fitted(batch(0))
    raw = batch(1, n=3)
    assert equal(adapter.inverse(adapter.forward(raw)), raw)


def test_parts_of_a_batch_can_be_adapted():
    """Conditions alone go forward, and inferred variables alone go back: whatever is missing is passed
    over."""
    raw = batch()
    adapter = default_adapter(ROLE_NAMES).fitted(raw)
    conditions = adapter.forward({name: raw[name] for name in ("c", "x", "y")})
    assert sorted(conditions) == ["inference_conditions", "summary_variables"]
    drawn = adapter.inverse({"inference_variables": adapter.forward(raw)["inference_variables"]})
    assert equal(drawn, {name: raw[name] for name in ("b", "a")})


def test_an_adapter_travels_as_json():
    """An adapter rebuilt from its JSON text does the same, forward and back, and has the same JSON."""
    raw = batch()
    adapter = default_adapter(ROLE_NAMES).fitted(raw)
    rebuilt = Adapter.from_json(json.loads(json.dumps(adapter.to_json())))
    assert equal(rebuilt.forward(raw), adapter.forward(raw))
    assert equal(rebuilt.inverse(adapter.forward(raw)), raw)
    assert rebuilt.to_json() == adapter.to_json()


@pytest.mark.parametrize("role", ROLES)
def test_joining_keeps_volumes(role):
    """log|det J| of a concatenation is zero for each row, and equals that of autograd's Jacobian."""
    raw = batch()
    adapter = default_adapter(ROLE_NAMES).fitted(raw)
    assert torch.equal(adapter.log_abs_det(raw, role), torch.zeros(5, dtype=torch.float64))
    row = {name: value[:1] for name, value in raw.items()}

    def forward(flat):
        a, b = flat[:2][None], flat[2:][None]
        return adapter.forward(row | {"a": a, "b": b})["inference_variables"][0]

    jacobian = torch.autograd.functional.jacobian(forward, torch.cat([row["a"][0], row["b"][0]]))
    assert torch.linalg.slogdet(jacobian)[1] == 0.0


def test_adapters_are_immutable():
    """Adding or fitting a step returns a new adapter and leaves the old one as it was."""
    empty = Adapter()
    one = empty.concatenate("a", into="inference_variables")
    before = one.to_json()
    fitted = one.fitted(batch())
    assert empty.to_json() == []
    assert one.to_json() == before
    assert fitted.to_json()[0]["config"]["widths"] == [2]


def test_a_missing_variable_is_named_with_a_suggestion():
    """Fitting to data without a variable says which, for which role, and the nearest name there is."""
    raw = batch()
    raw["theta_1"] = raw.pop("a")
    with pytest.raises(
        DataError, match=r"'theta1' \(inference_variables\) is not in the data. Did you mean 'theta_1'\?"
    ):
        default_adapter({"inference_variables": ["theta1"]}).fitted(raw)


def test_variables_of_different_leading_axes_cannot_be_joined():
    """Joining (n, 7, 1) and (n, 3) is refused with the shapes of both."""
    with pytest.raises(DataError, match=r"last axis only, got x \(5, 7, 1\), c \(5, 3\)"):
        default_adapter({"summary_variables": ["x", "c"]}).fitted(batch())


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_nothing_and_the_same_twice_cannot_be_joined(names):
    """A concatenation needs one or more different names."""
    with pytest.raises(ConfigurationError, match="one or more different variables"):
        Concatenate(names, "inference_variables")


def test_files_name_only_known_steps():
    """JSON with an unknown kind is refused with the kinds there are; nothing else is built from a file."""
    with pytest.raises(
        ModelFileError, match=r"unknown adapter transform 'concatenat'. Did you mean 'concatenate'"
    ):
        Adapter.from_json([{"kind": "concatenat", "config": {}}])
