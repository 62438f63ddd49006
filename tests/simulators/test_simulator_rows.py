"""A simulator is a table: row i depends on the seed and i alone."""

from functools import partial

import numpy as np
import pytest

from sbi_models.errors import ConfigurationError, SimulationError
from sbi_models.simulators import make_simulator


def prior(rng):
    return {"theta": rng.normal(size=2)}


def likelihood(theta, rng):
    return {"x": rng.normal(theta[0], np.exp(theta[1] / 2), size=(5, 1))}


def global_prior():
    return {"theta": np.random.normal(size=2).astype("float32")}


def global_likelihood(theta):
    mu, sigma = theta[0], float(np.exp(theta[1] * 0.5))
    return {"x": np.random.normal(mu, sigma, size=(20, 1)).astype("float32")}


def batched_prior(batch_shape, rng):
    return {"theta": rng.normal(size=(*batch_shape, 2))}


def batched_likelihood(theta, batch_size, rng):
    return {"x": theta[:, None, :] + rng.normal(size=(batch_size, 5, 2))}


def batched_global(batch_size):
    return {"theta": np.random.normal(size=(batch_size, 2))}


class Prior:
    """A callable object with settings of its own."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, rng):
        return {"theta": self.scale * rng.normal(size=2)}


SIMULATORS = {
    "rng": make_simulator([prior, likelihood]),
    "global state": make_simulator([global_prior, global_likelihood]),
    "rng, then global state": make_simulator([prior, global_likelihood]),
    "callable object": make_simulator([Prior(3.0), likelihood]),
    "partial": make_simulator(
        [partial(lambda rng, scale: {"theta": scale * rng.normal(size=2)}, scale=2.0), likelihood]
    ),
    "batched": make_simulator([batched_prior, batched_likelihood], is_batched=True, block_size=16),
    "batched, global state": make_simulator(
        [batched_global, batched_likelihood], is_batched=True, block_size=7
    ),
    "blocks of one": make_simulator([batched_prior, batched_likelihood], is_batched=True, block_size=1),
}
every = pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=SIMULATORS.keys())


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
        assert a[key].dtype == b[key].dtype


@every
def test_fewer_simulations_are_the_first_of_more(simulator):
    """sample(n) is the beginning of sample(m) for n < m, to the bit, and all its rows differ."""
    many = simulator.sample(50, seed=1)
    for n in (1, 16, 17, 33):
        same(simulator.sample(n, seed=1), {key: value[:n] for key, value in many.items()})
    assert len(np.unique(many["theta"], axis=0)) == len(np.unique(many["x"].reshape(50, -1), axis=0)) == 50


@every
def test_any_slice_of_the_table_can_be_computed_alone(simulator):
    """rows(a, b) is sample(n)[a:b] to the bit, for slices inside, across and beyond blocks, in any order."""
    table = simulator.sample(60, seed=2)
    for start, stop in [(31, 33), (0, 7), (15, 16), (3, 60), (16, 32), (7, 49), (59, 60)]:
        same(simulator.rows(start, stop, seed=2), {key: value[start:stop] for key, value in table.items()})


@every
def test_the_seed_decides_and_nothing_else(simulator):
    """The same seed gives the same rows whatever NumPy's global state is, another seed gives others."""
    np.random.seed(0)
    first = simulator.sample(5, seed=3)
    np.random.seed(1)
    same(simulator.sample(5, seed=3), first)
    other = simulator.sample(5, seed=4)
    assert not np.any(other["theta"] == first["theta"])
    assert not np.any(other["x"] == first["x"])


@every
def test_the_global_state_is_put_back(simulator):
    """NumPy's global state after a seeded call is what it was before, also when a function fails half-way."""
    np.random.seed(5)
    expected = np.random.normal(size=4)
    np.random.seed(5)
    simulator.sample(3, seed=0)
    np.testing.assert_array_equal(np.random.normal(size=4), expected)

    def fails():
        np.random.normal()
        raise ZeroDivisionError

    np.random.seed(5)
    with pytest.raises(SimulationError):
        make_simulator(fails).sample(1, seed=0)
    np.testing.assert_array_equal(np.random.normal(size=4), expected)


@every
def test_np_random_seed_governs_calls_without_a_seed(simulator):
    """After np.random.seed(s), unseeded calls repeat in their order, and consecutive ones differ."""
    np.random.seed(6)
    first, second = simulator.sample(3), simulator.sample(3)
    np.random.seed(6)
    same(simulator.sample(3), first)
    same(simulator.sample(3), second)
    assert not np.any(first["theta"] == second["theta"])


def test_partials_and_objects_are_the_functions_they_wrap():
    """A partial with scale=2 and a callable object with scale 3 return 2 and 3 times the plain prior."""
    plain, double, triple = (
        SIMULATORS[name].sample(4, seed=7)["theta"] for name in ("rng", "partial", "callable object")
    )
    np.testing.assert_array_equal(double, 2 * plain)
    np.testing.assert_array_equal(triple, 3 * plain)


def test_random_numbers_of_neighbouring_functions_are_independent():
    """Two functions of one simulation never see the same random numbers, with rng or with the global
    state."""
    with_rng = make_simulator([lambda rng: {"a": rng.normal()}, lambda rng: {"b": rng.normal()}]).sample(
        400, seed=8
    )
    with_state = make_simulator(
        [lambda: {"a": np.random.normal()}, lambda: {"b": np.random.normal()}]
    ).sample(400, seed=8)
    for draws in (with_rng, with_state):
        assert abs(np.corrcoef(draws["a"][:, 0], draws["b"][:, 0])[0, 1]) < 5 / 20
        assert abs(np.mean(draws["a"])) < 5 / 20
        assert 0.8 < np.std(draws["a"]) < 1.2


def test_batch_shapes_may_be_tuples_and_scalars_get_an_axis():
    """sample((2, 3)) is sample(6) in two rows of three; a scalar output has a trailing axis of length 1;
    dtypes are kept."""
    simulator = make_simulator([prior, lambda theta: {"s": theta.sum(), "k": 3, "f": np.float32(1)}])
    grid, line = simulator.sample((2, 3), seed=9), simulator.sample(np.int64(6), seed=9)
    assert {key: value.shape for key, value in grid.items()} == {
        "theta": (2, 3, 2),
        "s": (2, 3, 1),
        "k": (2, 3, 1),
        "f": (2, 3, 1),
    }
    assert line["s"].shape == (6, 1)
    same(grid, {key: value.reshape(2, 3, -1) for key, value in line.items()})
    assert [line[key].dtype.kind for key in ("theta", "s", "k", "f")] == ["f", "f", "i", "f"]
    np.testing.assert_allclose(line["s"], line["theta"].sum(axis=1, keepdims=True))
    batched = make_simulator(lambda batch_size, rng: {"s": rng.normal(size=batch_size)}, is_batched=True)
    assert batched.sample(5, seed=9)["s"].shape == (5, 1)


@pytest.mark.parametrize("is_batched", [False, True])
def test_fixed_values_are_seen_by_later_functions(is_batched):
    """A fixed value, shared or one a row, is returned and used by later functions; other random numbers stay
    what they were."""
    functions = (
        [batched_prior, batched_likelihood]
        if is_batched
        else [prior, lambda theta, rng: {"x": theta + rng.normal(size=(5, 2))}]
    )
    simulator = make_simulator(functions, is_batched=is_batched, block_size=4)
    free = simulator.sample(6, seed=10)
    noise = free["x"] - free["theta"][:, None, :]
    shared = simulator.sample(6, seed=10, theta=np.array([5.0, -5.0]))
    np.testing.assert_array_equal(shared["theta"], np.tile([5.0, -5.0], (6, 1)))
    np.testing.assert_allclose(shared["x"] - [5.0, -5.0], noise)
    per_row = np.arange(12.0).reshape(6, 2)
    rows = simulator.sample(6, seed=10, theta=per_row)
    np.testing.assert_array_equal(rows["theta"], per_row)
    np.testing.assert_allclose(rows["x"] - per_row[:, None, :], noise)
    np.testing.assert_array_equal(simulator.rows(3, 6, seed=10, theta=per_row[3:])["x"], rows["x"][3:])


@pytest.mark.parametrize(
    "meta_fn", [lambda rng: {"n": rng.integers(10**6)}, lambda: {"n": np.random.randint(10**6)}]
)
def test_each_row_has_a_context_of_its_own(meta_fn):
    """Each row has another draw of meta_fn, a function of seed and row alone, with or without a generator."""
    simulator = make_simulator([prior, likelihood], meta_fn=meta_fn)
    drawn = simulator.rows(0, 12, seed=3)["n"]
    assert len(np.unique(drawn)) == 12
    np.testing.assert_array_equal(simulator.rows(5, 9, seed=3)["n"], drawn[5:9])


def test_each_block_of_batched_functions_has_a_context_of_its_own():
    """Batched functions see one context in a call; a thousand rows have 63, whatever row a call begins at."""

    def batched(n, batch_shape, rng):
        return {"x": rng.normal(n, 1e-9, size=(*batch_shape, 1))}

    simulator = make_simulator(batched, meta_fn=lambda rng: {"n": rng.integers(10**6)}, is_batched=True)
    drawn = simulator.sample(1000, seed=1)
    np.testing.assert_array_equal(drawn["n"], drawn["x"].round())
    assert len(np.unique(drawn["n"])) == 63
    np.testing.assert_array_equal(simulator.rows(30, 40, seed=1)["n"], drawn["n"][30:40])
    assert (simulator.sample(20, seed=1, n=5)["n"] == 5).all()
    with pytest.raises(ConfigurationError, match="one value of 'n' for all rows of a call"):
        simulator.sample(20, seed=1, n=np.arange(20.0))


def test_fixed_values_are_matched_with_the_output_they_replace():
    """One scalar for each of three simulations, rows in two batch axes, and a value of the wrong shape, which
    is refused."""
    scalar = make_simulator(lambda rng: {"mu": rng.normal()})
    np.testing.assert_array_equal(
        scalar.sample(3, seed=0, mu=np.array([1.0, 2.0, 3.0]))["mu"], [[1.0], [2.0], [3.0]]
    )
    np.testing.assert_array_equal(scalar.sample(2, seed=0, mu=7.0)["mu"], [[7.0], [7.0]])
    pair = make_simulator([prior, likelihood])
    theta = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(pair.sample((2, 3), seed=0, theta=theta)["theta"], theta)
    with pytest.raises(
        ConfigurationError, match=r"fixed 'theta' of shape \(2,\) \(one for all\) or \(3, 2\).*got \(4, 2\)"
    ):
        pair.sample(3, seed=0, theta=np.zeros((4, 2)))


def test_a_context_reaches_every_function_and_comes_back():
    """meta_fn is called before the others, once a row; data sets have the lengths that it says."""
    simulator = make_simulator(
        [prior, lambda theta, n, rng: {"x": rng.normal(theta[0], size=(n, 1))}],
        meta_fn=lambda rng, batch_shape: {"n": rng.integers(1, 50) + 0 * batch_shape[0]},
    )
    drawn = simulator.sample((2, 4), seed=11)
    assert drawn["n"].shape == (2, 4, 1)
    assert drawn["x"].shape == (2, 4)
    assert [len(x) for x in drawn["x"].ravel()] == drawn["n"].ravel().tolist()
    assert len(np.unique(drawn["n"])) > 3
    assert simulator.sample(3, seed=11, n=7)["x"].shape == (3, 7, 1)
    assert [len(x) for x in simulator.sample(3, seed=11, n=np.array([2, 4, 6]))["x"]] == [2, 4, 6]


def test_a_function_with_keywords_gets_all_variables_and_nothing_else():
    """A function with **kwargs receives the outputs of all earlier ones, but no rng."""
    seen = {}

    def last(**kwargs):
        seen.update(kwargs)
        return {"x": 1.0}

    make_simulator([prior, lambda rng: {"tau": rng.normal()}, last]).sample(1, seed=12)
    assert sorted(seen) == ["tau", "theta"]


def test_a_default_is_used_where_no_function_returns_the_argument():
    """Arguments with a default need no earlier function, and take its output if there is one."""
    assert make_simulator(lambda scale=2.0: {"x": scale}).sample(1, seed=0)["x"] == 2.0
    assert (
        make_simulator([lambda: {"scale": 5.0}, lambda scale=2.0: {"x": scale}]).sample(1, seed=0)["x"] == 5.0
    )


def test_a_simulator_is_its_own_simulator():
    """make_simulator of a simulator returns it as it is."""
    assert make_simulator(SIMULATORS["rng"]) is SIMULATORS["rng"]


def test_a_context_of_batched_functions_is_that_of_every_row_of_its_block():
    """An output of meta_fn, a number, a vector or a matrix, is in all rows of a block, along a first axis."""
    shapes = {"number": (), "vector": (3,), "matrix": (2, 4)}
    simulator = make_simulator(
        batched_prior,
        is_batched=True,
        block_size=5,
        meta_fn=lambda rng: {name: rng.normal(size=shape) for name, shape in shapes.items()},
    )
    drawn = simulator.sample(10, seed=1)
    for name, shape in shapes.items():
        assert drawn[name].shape == (10, *(shape or (1,)))
        np.testing.assert_array_equal(
            drawn[name][1:5], np.broadcast_to(drawn[name][:1], drawn[name][1:5].shape)
        )
        assert not np.array_equal(drawn[name][0], drawn[name][5])
