"""Every registered transform, for any numbers: inverse and Jacobian are exact up to rounding.

`test_*_of_every_transform` go through the cases of `transform_cases.py`, which has one for every registered
transform; the tests after them also draw the arguments of a transform.
"""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from transform_cases import CASES

from sbi_models.adapters import Adapter

EPS = torch.finfo(torch.float64).eps
DENSITIES = {key: case for key, case in CASES.items() if case.adapted and case.inferred != ["a"]}
EVERY_DENSITY = pytest.mark.parametrize("case", DENSITIES.values(), ids=DENSITIES)
FEWER = settings(max_examples=settings().max_examples // 5)
A = Adapter()

SCALES = st.integers(-12, 12).map(lambda power: 10.0**power)
SIGNS = st.sampled_from([-1.0, 1.0])


def tensors(shape, elements, dtype=torch.float64):
    """Tensors of a shape; `elements` are bounds or a strategy."""
    if isinstance(elements, float):
        elements = st.floats(-elements, elements)
    return arrays.arrays("f8", shape, elements=elements).map(lambda value: torch.from_numpy(value).to(dtype))


@EVERY_DENSITY
@FEWER
@given(data=st.data())
def test_the_inverse_of_every_transform(case, data):
    """Whatever a network draws, what it is taken back to returns to itself there and back, to within the
    rounding of the numbers on the way."""
    adapter = case.fitted
    shape = adapter.forward(case.raw)[case.adapted].shape[1:]
    raw = adapter.inverse({case.adapted: data.draw(tensors((1, *shape), data.draw(SCALES)))})
    if len(adapter.transforms) > 1:  # whose steps may round to the bound of an earlier one
        assume(adapter.inside(raw).all())
    adapted = adapter.forward(raw)[case.adapted]
    again = adapter.inverse({case.adapted: adapted})
    assert again.keys() == raw.keys() == set(case.inferred)

    def inverse(flat):
        back = adapter.inverse({case.adapted: flat.reshape(adapted.shape)})
        return torch.cat([back[name].reshape(-1) for name in case.inferred])

    slopes = torch.autograd.functional.jacobian(inverse, adapted.reshape(-1)).abs()
    moved = slopes @ (adapted.abs().reshape(-1) + 1)
    before, after = (torch.cat([of[name].reshape(-1) for name in case.inferred]) for of in (raw, again))
    size = before.abs() + 1 + max(float(value.abs().max()) for value in case.raw.values())  # and of bounds
    assert ((after - before).abs() <= 32 * EPS * (moved + size)).all()


@EVERY_DENSITY
@FEWER
@given(data=st.data())
def test_the_jacobian_of_every_transform(case, data):
    """log |det J| at any values inside of the support is that of autograd, wherever that is finite."""
    adapter = case.fitted
    shape = adapter.forward(case.raw)[case.adapted].shape[1:]
    drawn = data.draw(tensors((1, *shape), min(30.0, data.draw(SCALES))))
    raw = adapter.inverse({case.adapted: drawn})
    flat = torch.cat([raw[name].reshape(-1) for name in case.inferred])
    free = flat if case.total is None else flat[:-1]

    def forward(free):
        values = free if case.total is None else torch.cat([free, flat[-1:] - (free - flat[:-1]).sum()])
        parts = torch.split(values, [raw[name].numel() for name in case.inferred])
        moved = {name: part.reshape(raw[name].shape) for name, part in zip(case.inferred, parts, strict=True)}
        return adapter.forward(moved)[case.adapted].reshape(-1)

    jacobian = torch.autograd.functional.jacobian(forward, free)
    assume(jacobian.isfinite().all())
    expected = torch.linalg.slogdet(jacobian).logabsdet
    assume(expected.isfinite())
    assert torch.allclose(adapter.log_abs_det(raw, case.adapted)[0], expected, rtol=1e-9, atol=1e-9)


# ---- with any arguments ------------------------------------------------------


@st.composite
def intervals(draw):
    """Bounds, a scale, and values (n, d) inside, at any distance from a bound that its numbers can have."""
    dim, n = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    low, width = draw(SIGNS) * draw(SCALES), draw(SCALES)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    high = low + width
    assume(torch.tensor(high - low, dtype=dtype) > 1e4 * torch.finfo(dtype).eps * max(abs(low), abs(high)))
    sides = draw(st.sampled_from(["both", "lower", "upper"]))
    distance = draw(tensors((n, dim), st.floats(1e-6, 0.5)))
    if sides != "both":
        distance = distance * draw(SCALES)
    from_above = draw(arrays.arrays("?", (n, dim)))
    from_above = torch.from_numpy(from_above) if sides == "both" else torch.full((n, dim), sides == "upper")
    value = torch.where(from_above, high - width * distance, low + width * distance).to(dtype)
    bounds = {"lower": None if sides == "upper" else low, "upper": None if sides == "lower" else high}
    inside = (value > (-torch.inf if sides == "upper" else low)) & (
        value < (torch.inf if sides == "lower" else high)
    )
    assume(bool(inside.all()))
    return bounds, draw(st.sampled_from(["logit", "probit"])), value


@given(intervals())
def test_intervals_of_any_place_and_width(drawn):
    """Bounds of 1e-12 to 1e12 and of any width: there and back is exact to the rounding of the bounds, the
    map increases, and draws of any size stay strictly inside."""
    bounds, scale, value = drawn
    adapter = A.constrain("x", **bounds, scale=scale).fitted({"x": value})
    adapted = adapter.forward({"x": value})["x"]
    eps = torch.finfo(value.dtype).eps
    size = torch.stack(
        [value.abs(), *(torch.full_like(value, abs(b)) for b in bounds.values() if b is not None)]
    ).amax(0)
    assert adapted.isfinite().all()
    assert ((adapter.inverse({"x": adapted})["x"] - value).abs() <= 64 * eps * size).all()
    order = value.flatten().argsort()
    one_column = A.constrain("x", **bounds, scale=scale).fitted({"x": value.reshape(-1, 1)})
    assert (one_column.forward({"x": value.reshape(-1, 1)})["x"].flatten()[order].diff() >= 0).all()
    far = one_column.inverse({"x": torch.tensor([[-1e30], [-1.0], [0.0], [1.0], [1e30]], dtype=value.dtype)})[
        "x"
    ]
    assert far.isfinite().all()
    assert (far > value.new_tensor(-torch.inf if bounds["lower"] is None else bounds["lower"])).all()
    assert (far < value.new_tensor(torch.inf if bounds["upper"] is None else bounds["upper"])).all()


@given(intervals())
def test_the_jacobian_of_intervals_of_any_place_and_width(drawn):
    """It is that of autograd, in float64, at any distance from the bounds."""
    bounds, scale, value = drawn
    value = value.double()
    adapter = A.constrain("x", **bounds, scale=scale).fitted({"x": value})
    analytic = adapter.log_abs_det({"x": value}, "x")
    value = value.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(adapter.forward({"x": value})["x"].sum(), value)
    expected = slopes.abs().log().sum(dim=1)
    assume(bool(expected.isfinite().all()))
    assert torch.allclose(analytic, expected, rtol=1e-9, atol=1e-8)


@given(
    data=st.data(),
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    n=st.integers(2, 4),
    kind=st.sampled_from(["scale", "shift", "standardize", "standardize, given"]),
)
def test_affine_steps_of_any_size(data, shape, n, kind):
    """Offsets and units of 1e-12 to 1e12, one for each component or for all, and variables of any shape:
    there and back is exact to rounding, and log |det J| is the sum of the log slopes."""
    value = data.draw(SCALES) + data.draw(SCALES) * data.draw(tensors((n, *shape), 10.0))
    numbers = data.draw(
        st.lists(SCALES.flatmap(lambda s: st.sampled_from([s, -s])), min_size=shape[-1], max_size=shape[-1])
    )
    numbers = data.draw(st.sampled_from([numbers, numbers[0]]))
    listed = numbers if isinstance(numbers, list) else [numbers] * shape[-1]
    sds = [abs(number) for number in listed]
    step = {
        "scale": A.scale("x", by=numbers),
        "shift": A.shift("x", by=numbers),
        "standardize": A.standardize("x"),
        "standardize, given": A.standardize("x", mean=numbers, sd=sds),
    }[kind].fitted({"x": value})
    adapted = step.forward({"x": value})["x"]
    back = step.inverse({"x": adapted})["x"]
    size = value.abs() + torch.tensor(sds, dtype=torch.float64) * (kind != "scale")
    if kind == "standardize":
        size = value.abs().amax(dim=tuple(range(value.ndim - 1)), keepdim=True)
    assert ((back - value).abs() <= 8 * EPS * size).all()
    free = value[:1].clone().requires_grad_()
    (slopes,) = torch.autograd.grad(step.forward({"x": free})["x"].sum(), free)
    assert torch.allclose(
        step.log_abs_det({"x": value}, "x"), slopes.abs().log().sum().expand(n), rtol=1e-12, atol=1e-9
    )


@given(data=st.data(), dim=st.integers(2, 6), n=st.integers(1, 4), power=st.integers(-12, 0))
def test_proportions_next_to_corners(data, dim, n, power):
    """Shares of 1e-12 and more of 2 to 6 components come back with their last digits, in float64, and their
    sum is 1."""
    parts = data.draw(tensors((n, dim), st.floats(10.0**power, 1.0)))
    shares = parts / parts.sum(dim=-1, keepdim=True)
    adapter = A.constrain("x", to="simplex").fitted({"x": shares})
    adapted = adapter.forward({"x": shares})["x"]
    assert adapted.shape == (n, dim - 1)
    back = adapter.inverse({"x": adapted})["x"]
    assert torch.allclose(back, shares, rtol=1e-12, atol=0)
    assert torch.allclose(back.sum(dim=-1), torch.ones(n, dtype=torch.float64), rtol=0, atol=8 * EPS)


@given(data=st.data(), dim=st.integers(2, 5), n=st.integers(1, 4), offset=SCALES, unit=SCALES)
def test_ordered_vectors_of_any_unit(data, dim, n, offset, unit):
    """Increasing components of any offset and gaps come back to rounding, and always increase."""
    gaps = unit * data.draw(tensors((n, dim), st.floats(1e-3, 10.0)))
    value = offset + gaps.cumsum(dim=-1)
    assume(bool((value.diff(dim=-1) > 0).all()))
    adapter = A.constrain("x", to="ordered").fitted({"x": value})
    back = adapter.inverse(adapter.forward({"x": value}))["x"]
    assert (back.diff(dim=-1) > 0).all()
    assert ((back - value).abs() <= 32 * EPS * dim * value.abs().amax(dim=-1, keepdim=True)).all()


# ---- steps that move values --------------------------------------------------


@st.composite
def moved(draw):
    """An adapter that moves, joins, repeats or marks values, raw data for it, and what does not come back."""
    n, shape = draw(st.integers(1, 3)), draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    x = draw(tensors((n, *shape), 1e12, draw(st.sampled_from([torch.float32, torch.float64]))))
    axis = draw(st.integers(1, len(shape) + 1).flatmap(lambda k: st.sampled_from([k, k - len(shape) - 2])))
    other = x[..., : draw(st.integers(1, shape[-1]))] + 1
    kind = draw(st.sampled_from(list(MOVES)))
    adapter, raw = MOVES[kind](draw, x, axis, other)
    return adapter, raw


def _split(draw, x, axis, other):
    widths = [1] * x.shape[-1]
    return A.split("x", into=[f"part {k}" for k in range(len(widths))], widths=widths), {"x": x}


def _one_hot(draw, x, axis, other):
    classes = draw(st.integers(2, 5))
    return A.one_hot("x", num_classes=classes), {
        "x": draw(tensors(tuple(x.shape), st.integers(0, classes - 1)))
    }


def _missing(draw, x, axis, other):
    there = torch.from_numpy(draw(arrays.arrays("?", tuple(x.shape))))
    value = draw(st.floats(-1e6, 1e6))
    return A.nan_to_num("x", value=value, mask="seen"), {"x": x.where(there, torch.nan)}


def _broadcast(draw, x, axis, other):
    over = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    return A.broadcast("u", to="x"), {"u": other.reshape(len(x), -1), "x": torch.zeros(len(x), *over, 2)}


MOVES = {
    "rename": lambda draw, x, axis, other: (A.rename("x", to="y"), {"x": x, "z": other}),
    "expand_dims": lambda draw, x, axis, other: (A.expand_dims("x", axis=axis), {"x": x}),
    "squeeze": lambda draw, x, axis, other: (A.squeeze("x", axis=axis), {"x": x.unsqueeze(axis)}),
    "as_set": lambda draw, x, axis, other: (A.as_set("x"), {"x": x.reshape(len(x), -1)}),
    "as_time_series": lambda draw, x, axis, other: (A.as_time_series("x"), {"x": x.reshape(len(x), -1, 1)}),
    "concatenate": lambda draw, x, axis, other: (A.concatenate(["z", "x"], into="y"), {"x": x, "z": other}),
    "split": _split,
    "one_hot": _one_hot,
    "nan_to_num": _missing,
    "broadcast": _broadcast,
}


@given(moved())
def test_steps_that_move_values_change_none(drawn):
    """Of any shape, type and pattern of missing values, every number comes back to the bit."""
    adapter, raw = drawn
    adapter = adapter.fitted(raw)
    back = adapter.inverse(adapter.forward(raw))
    assert back.keys() == raw.keys()
    for name, value in raw.items():
        assert back[name].dtype == value.dtype
        assert torch.equal(back[name].nan_to_num(7.0), value.nan_to_num(7.0))
        assert torch.equal(back[name].isnan(), value.isnan())


@given(
    length=st.integers(1, 12), share=st.floats(0.01, 1.0), seed=st.integers(0, 2**40), other=st.integers(1, 3)
)
def test_subsamples_are_the_same_elements_of_all_variables(length, share, seed, other):
    """Different elements in their order, as many as the share says, the same in variables of one length."""
    positions = torch.arange(float(length)).repeat(2, 1)
    raw = {"x": positions, "m": positions[..., None].repeat(1, 1, other)}
    adapter = A.subsample(["x", "m"], size=share, seed=seed).fitted(raw)
    kept = adapter.forward(raw)
    assert kept["x"].shape == (2, max(1, round(share * length)))
    assert (kept["x"].diff(dim=1) > 0).all()
    assert torch.equal(kept["m"], kept["x"][..., None].repeat(1, 1, other))
