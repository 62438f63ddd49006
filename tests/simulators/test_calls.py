"""What functions of a simulator are given, and what becomes of what they give: copies, scalars, names."""

from typing import Any

import numpy as np
import pytest

from sbi_models.errors import ConfigurationError
from sbi_models.simulators import make_simulator


@pytest.mark.parametrize("is_batched", [False, True])
def test_memory_that_a_function_uses_again_gives_distinct_rows(is_batched):
    """A buffer that is returned each time, as compiled code does, holds the values of its own row; so does
    what is changed afterwards."""
    buffer = np.zeros((4, 2) if is_batched else 2)

    def fill(rng):
        buffer[:] = rng.normal(size=buffer.shape)
        return {"x": buffer, "same": buffer}

    def later(x, rng):
        buffer[:] = -1.0
        return {"y": x + rng.normal(size=x.shape)}

    drawn = make_simulator([fill, later], is_batched=is_batched, block_size=4).sample(40, seed=1)
    assert len(np.unique(drawn["x"], axis=0)) == len(np.unique(drawn["y"], axis=0)) == 40
    np.testing.assert_array_equal(drawn["x"], drawn["same"])


@pytest.mark.parametrize("is_batched", [False, True])
def test_arguments_that_are_changed_in_place_are_refused(is_batched):
    """Whether the table should hold the value before or after is unknown: an error with the cure, in any row,
    and nothing of the caller's is changed. A function that works on a copy of its own is fine."""
    shape = (lambda n: (n, 2)) if is_batched else (lambda n: (2,))

    def prior(rng):
        return {"theta": rng.normal(size=shape(8))}

    def spoils(theta, rng):
        if np.abs(theta).max() > 2.5:  # in some rows
            theta *= 100
        return {"x": theta + rng.normal(size=theta.shape)}

    def copies(theta):
        theta = theta.copy()
        theta *= 100
        return {"x": theta}

    def later(theta):
        return {"later": theta}

    spoilt = make_simulator([prior, spoils], is_batched=is_batched, block_size=8)
    with pytest.raises(
        ConfigurationError,
        match=r"'spoils' to leave its arguments as they are, got 'theta' changed in place.*theta\.copy\(\)",
    ):
        spoilt.sample(400, seed=1)
    fixed = np.full((400, 2), 3.0)
    with pytest.raises(ConfigurationError, match="changed in place"):
        spoilt.sample(400, seed=1, theta=fixed)
    np.testing.assert_array_equal(fixed, 3.0)
    drawn = make_simulator([prior, copies, later], is_batched=is_batched, block_size=8).sample(400, seed=1)
    assert 0.9 < drawn["theta"].std() < 1.1
    np.testing.assert_array_equal(drawn["later"], drawn["theta"])
    np.testing.assert_allclose(drawn["x"], 100 * drawn["theta"])


def test_single_numbers_are_handed_over_as_what_they_were():
    """A float, int, bool and NumPy scalars that one function returns are such numbers in the next one, also
    when fixed."""
    seen = {}

    def prior(rng):
        return {
            "a": 1.5,
            "k": 3,
            "flag": True,
            "b": rng.normal(),
            "n": rng.integers(9),
            "f": np.float32(2.0),
            "v": np.zeros(1),
        }

    def likelihood(a, k, flag, b, n, f, v, m):  # noqa: PLR0917
        seen.update(locals())
        return {"x": round(a) + k}

    simulator = make_simulator([prior, likelihood], meta_fn=lambda: {"m": 7})
    simulator.sample(2, seed=1)
    kinds = {
        "a": float,
        "k": int,
        "flag": bool,
        "b": float,
        "n": np.int64,
        "f": np.float32,
        "v": np.ndarray,
        "m": int,
    }
    assert all(isinstance(seen[name], kind) for name, kind in kinds.items())
    simulator.sample(2, seed=1, k=np.array([4, 5]), a=2.5)
    assert (seen["k"], seen["a"]) == (5, 2.5)
    assert isinstance(seen["k"], int)


@pytest.mark.parametrize("name", ["µ", "ϕ", "ℓ", "Ω_m", "ﬁt"])
def test_names_are_those_that_python_means(name):
    """A key that Python spells otherwise as an identifier is found by the function that names it; the table
    keeps its spelling."""
    scope: dict[str, Any] = {}
    exec(f"def likelihood({name}): return {{'x': {name} + 1}}", scope)
    simulator = make_simulator([lambda rng: {name: rng.normal(size=1)}, scope["likelihood"]])
    drawn = simulator.sample(3, seed=1)
    np.testing.assert_array_equal(drawn["x"], drawn[name] + 1)
    np.testing.assert_array_equal(
        eval(f"simulator.sample(3, seed=1, {name}=2.0)", {"simulator": simulator})["x"], np.full((3, 1), 3.0)
    )
