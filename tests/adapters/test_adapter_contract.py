"""Every transform, and some chains of them, keep every promise of an adapter."""

import json

import pytest
import torch
from transform_cases import CASES, N, normal

from sbi_models.adapters import KINDS, Adapter, transforms
from sbi_models.errors import DataError

EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
DENSITIES = {key: case for key, case in CASES.items() if case.adapted}
WITH_DENSITY = pytest.mark.parametrize("case", DENSITIES.values(), ids=DENSITIES)
SUPPORTS = [
    *(key for key in DENSITIES if key.startswith(("constrain", "ordered", "simplex", "log,", "sqrt"))),
    "log",
]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def equal(a, b):
    return list(a) == list(b) and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k].nan_to_num(99), b[k].nan_to_num(99)) for k in a
    )


def close(a, b, rtol=1e-12):
    return a.keys() == b.keys() and all(
        torch.allclose(a[k], b[k], rtol=rtol, atol=rtol, equal_nan=True) for k in a
    )


def test_every_kind_has_a_case():
    """No transform can be added without being taken through the promises below."""
    kinds = {kind for kind, cls in KINDS.items() if hasattr(transforms, cls.__name__)}
    assert {transform.kind for case in CASES.values() for transform in case.adapter.transforms} == kinds
    assert {"concatenate", "constrain", "log"} <= kinds


@EVERY
def test_inverse_undoes_forward(case):
    """inverse(forward(x)) is x, for every variable that the adapter does not leave out; x itself is not
    changed."""
    before = {name: value.clone() for name, value in case.raw.items()}
    adapter = case.fitted
    back = adapter.inverse(adapter.forward(case.raw))
    assert close(back, {name: value for name, value in case.raw.items() if name not in case.lost})
    assert equal(case.raw, before)


@EVERY
def test_rows_do_not_know_of_each_other(case):
    """A part of the rows is adapted as it is in the whole batch, so that results do not depend on batch
    size."""
    adapter, some = case.fitted, [2, 0]
    whole = adapter.forward(case.raw)
    assert close(
        adapter.forward({name: value[some] for name, value in case.raw.items()}),
        {k: v[some] for k, v in whole.items()},
        1e-14,
    )


@EVERY
def test_an_adapter_travels_as_json(case):
    """Rebuilt from its JSON text, an adapter gives the same numbers to the bit, and the same text."""
    adapter = case.fitted
    text = json.dumps(adapter.to_json(), allow_nan=False)
    rebuilt = Adapter.from_json(json.loads(text))
    assert json.dumps(rebuilt.to_json()) == text
    adapted = adapter.forward(case.raw)
    assert equal(rebuilt.forward(case.raw), adapted)
    assert equal(rebuilt.inverse(adapted), adapter.inverse(adapted))
    if case.adapted:
        assert torch.equal(
            rebuilt.log_abs_det(case.raw, case.adapted), adapter.log_abs_det(case.raw, case.adapted)
        )


@EVERY
def test_what_was_learned_is_frozen(case):
    """Fitting a fitted adapter to other data of the same shapes changes nothing, nor does it change the
    adapter it came from."""
    before = case.adapter.to_json()
    fitted = case.fitted
    shuffled = {name: value[: max(2, len(value) // 2)] for name, value in case.raw.items()}
    assert fitted.fitted(shuffled).to_json() == fitted.to_json()
    assert case.adapter.to_json() == before


@EVERY
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_device_and_dtype_are_kept(case, device, dtype):
    """Forward and inverse answer in the dtype and on the device of their input."""
    raw = {name: value.to(device=device, dtype=dtype) for name, value in case.raw.items()}
    adapted = case.fitted.forward(raw)
    back = case.fitted.inverse(adapted)
    assert {(v.dtype, v.device.type) for v in (*adapted.values(), *back.values())} == {(dtype, device)}
    assert close(
        {k: v.cpu().double() for k, v in back.items()},
        {k: v for k, v in case.raw.items() if k not in case.lost},
        1e-4,
    ) or (
        dtype == torch.float32
        and max((back[k].cpu().double() - case.raw[k]).abs().max() / case.raw[k].abs().max() for k in back)
        < 1e-5
    )


@EVERY
def test_partial_batches_pass(case):
    """A batch with none of the variables of an adapter goes through as it is, both ways."""
    other = {"other": normal(2)}
    adapter = case.fitted
    if case.adapter.transforms[0].kind != "keep":
        assert equal(adapter.forward(other), other)
    assert equal(adapter.inverse(other), other)


@WITH_DENSITY
def test_draws_of_the_inferred_variable_alone_go_back(case):
    """inverse() of n S draws of the adapted variable alone gives the inferred raw variables, in their shapes,
    and nothing else."""
    if case.inferred == ["a"]:
        with pytest.raises(
            DataError, match=r"Expected all or none of 'a', 'c' \(parts of 'ab'\), got \['a'\] without 'c'"
        ):
            case.fitted.inverse({"y": normal(2)})
        return
    adapter = case.fitted
    drawn = adapter.forward(case.raw)[case.adapted].repeat_interleave(3, dim=0)
    back = adapter.inverse({case.adapted: drawn})
    assert close(back, {name: case.raw[name].repeat_interleave(3, dim=0) for name in back})
    assert set(back) == set(case.inferred)


@WITH_DENSITY
def test_log_abs_det_is_that_of_autograd(case):
    """log|det J| of every row is slogdet of the Jacobian by automatic differentiation, to 1e-9."""
    adapter = case.fitted
    analytic = adapter.log_abs_det(case.raw, case.adapted)
    assert analytic.shape == (N,)
    assert analytic.dtype == torch.float64
    for row in range(N):
        one = {name: value[row : row + 1] for name, value in case.raw.items()}
        flat = torch.cat([one[name].reshape(-1) for name in case.inferred])

        def forward(free, one=one):
            values = free if case.total is None else torch.cat([free, (case.total - free.sum())[None]])
            parts = torch.split(values, [one[name].numel() for name in case.inferred])
            moved = {
                name: part.reshape(one[name].shape) for name, part in zip(case.inferred, parts, strict=True)
            }
            return adapter.forward(one | moved)[case.adapted].reshape(-1)

        jacobian = torch.autograd.functional.jacobian(forward, flat if case.total is None else flat[:-1])
        assert torch.allclose(torch.linalg.slogdet(jacobian).logabsdet, analytic[row], rtol=1e-9, atol=1e-9)


@WITH_DENSITY
def test_gradients_flow_both_ways(case):
    """Gradients of forward, inverse and log|det J| are finite; those of forward and inverse are nowhere all
    zero."""
    adapter = case.fitted
    raw = {name: value.clone().requires_grad_(name in case.inferred) for name, value in case.raw.items()}
    adapted = adapter.forward(raw)[case.adapted]
    weights = normal(*adapted.shape[1:], seed=9)
    for gradient in torch.autograd.grad((weights * adapted).sum(), [raw[name] for name in case.inferred]):
        assert gradient.isfinite().all()
        assert (gradient.reshape(N, -1) != 0).any(dim=1).all()
    density = adapter.log_abs_det(raw, case.adapted).sum()
    if density.requires_grad:
        for gradient in torch.autograd.grad(
            density, [raw[name] for name in case.inferred], allow_unused=True
        ):
            assert gradient is None or gradient.isfinite().all()
    if case.inferred == ["a"]:  # a part of a split variable cannot go back alone
        return
    drawn = torch.zeros_like(adapted).requires_grad_()
    back = adapter.inverse({case.adapted: drawn})
    gradient = torch.autograd.grad(
        sum((value * normal(*value.shape[1:], seed=8)).sum() for value in back.values()), drawn
    )[0]
    assert gradient.isfinite().all()
    assert "sqrt" in [transform.kind for transform in adapter.transforms] or (gradient != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 30.0, 1e3, 1e30, 1e150, 1e308])
@pytest.mark.parametrize("key", SUPPORTS)
def test_draws_lie_inside_the_support(key, spread, dtype):
    """Whatever a network draws, the way back is finite and accepted as data, and forward of that is finite
    again."""
    case = CASES[key]
    adapter = case.fitted
    shape = adapter.forward(case.raw)[case.adapted].shape[1:]
    draws = (spread * normal(*shape, seed=5, n=200)).clamp(-1e308, 1e308)
    draws[:4] = torch.tensor([spread, -spread, 0.0, -0.0], dtype=torch.float64).reshape(4, *[1] * len(shape))
    drawn = draws.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    back = adapter.inverse({case.adapted: drawn})
    assert set(back) == set(case.inferred)
    assert all(value.isfinite().all() for value in back.values())
    assert adapter.forward(back)[case.adapted].isfinite().all()
    if key != "sqrt":  # its support is closed: 0 is a value, of infinite density
        assert adapter.log_abs_det(back, case.adapted).isfinite().all()
