"""Missing values by name, `missing={"x": "x_there"}`: exact posteriors, masks, refusals, and what is unheard
of."""

from typing import Any

import numpy as np
import pytest
import torch

import sbi_models as bf
from sbi_models.approximators import ContinuousApproximator, load_approximator
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.networks import CouplingFlow, DeepSet, FusionNetwork, TimeSeriesTransformer
from sbi_models.workflows.auto import schedules

LOADINGS = np.array([0.5, 1.0, 1.5])
"""Of x_t = 100 + 20 (loading_t theta + noise), with standard normal theta and noise."""


def prior(batch_size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"theta": rng.normal(size=(batch_size, 1))}


def with_gaps(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Three numbers, each missing with probability 0.4."""
    x = 100 + 20 * (theta * LOADINGS + rng.normal(size=(len(theta), 3)))
    return {"x": np.where(rng.random(x.shape) < 0.4, np.nan, x)}


def as_series(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": with_gaps(theta, rng)["x"][:, :, None]}


def exact(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of theta given the numbers (n, 3) that are there."""
    there, y = ~np.isnan(x), np.nan_to_num((x - 100) / 20)
    precision = 1 + (there * LOADINGS**2).sum(axis=1)
    return (there * y * LOADINGS).sum(axis=1) / precision, precision**-0.5


def workflow(simulate: Any = with_gaps, **options: Any) -> bf.BasicWorkflow:
    given: dict[str, Any] = {
        "inference_variables": "theta",
        "inference_network": CouplingFlow(transform="affine", depth=2, widths=(32,)),
        "missing": {"x": "x_there"},
        "standardize": "all",
        "initial_learning_rate": 5e-3,
        "seed": 1,
        "progress": False,
    }
    simulator = bf.make_simulator([prior, simulate], is_batched=True)
    return bf.BasicWorkflow(simulator, **(given | options))


def errors(made: bf.BasicWorkflow, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the posterior means in exact sds, and ratios of the sds, given x (n, 3)."""
    shape = made.approximator.shapes["x"]
    draws = made.sample(num_samples=1000, conditions={"x": x.reshape(-1, *shape)}, seed=2)["theta"][..., 0]
    mean, sd = exact(x)
    return (draws.mean(axis=1) - mean) / sd, draws.std(axis=1) / sd


def typical(theta: float = 0.5) -> np.ndarray:
    """All eight patterns of missing numbers (8, 3), around a value of theta."""
    patterns = (np.arange(8)[:, None] >> np.arange(3)) % 2 == 1
    return np.where(patterns, np.nan, 100 + 20 * (theta * LOADINGS + np.array([0.3, -0.5, 0.2])))


@pytest.fixture(scope="module")
def trained() -> bf.BasicWorkflow:
    """Takes some seconds, of which the posteriors need most."""
    made = workflow(inference_conditions="x")
    made.fit_offline(made.simulate(4096, seed=1), epochs=12, batch_size=128)
    return made


def test_posteriors_given_any_pattern_of_gaps_are_exact(trained: bf.BasicWorkflow) -> None:
    """Given each of the eight patterns of missing numbers, all missing among them, means are within 0.15
    exact sds and sds within 15 %; where all is missing the posterior is the prior."""
    error, ratio = errors(trained, typical())
    assert np.abs(error).max() < 0.15, error
    assert np.abs(ratio - 1).max() < 0.15, ratio


@pytest.mark.nightly
@pytest.mark.parametrize("network", ["time_series_transformer", "fusion"])
def test_posteriors_of_series_with_gaps_are_exact(network: str) -> None:
    """The same through summary networks that get the mask; minutes."""
    part = TimeSeriesTransformer(summary_dim=4, width=16, heads=2, blocks=1)
    summary = FusionNetwork({"x": part}) if network == "fusion" else part
    made = workflow(as_series, summary_variables="x", summary_network=summary, initial_learning_rate=2e-3)
    made.fit_offline(made.simulate(16_384, seed=1), epochs=15, batch_size=128)
    error, ratio = errors(made, typical())
    assert np.abs(error).max() < 0.15, error
    assert np.abs(ratio - 1).max() < 0.15, ratio


def test_gaps_are_learned_by_certificates(trained: bf.BasicWorkflow) -> None:
    """Of data with gaps like those of the simulations, about one in twenty fails its certificate, by binomial
    bounds."""
    new = trained.simulate(200, seed=3)
    failed = sum(one.verdict == "failed" for one in trained.approximator.certify(new, seed=1))
    assert 1 <= failed <= 21  # 99.8 % of Bin(200, 0.05)


def test_the_file_and_its_draws_are_those_of_the_workflow(trained: bf.BasicWorkflow, tmp_path: Any) -> None:
    """A saved model fills and masks as the trained one, and says what may be missing."""
    loaded = load_approximator(trained.approximator.save(tmp_path / "model"))
    assert loaded.may_miss == {"x"}
    assert loaded.condition_names == ("x",)
    x = {"x": typical()}
    np.testing.assert_array_equal(
        loaded.sample(num_samples=3, conditions=x, seed=1)["theta"],
        trained.sample(num_samples=3, conditions=x, seed=1)["theta"],
    )


def built(made: bf.BasicWorkflow, **data: np.ndarray) -> ContinuousApproximator:
    """The approximator of a workflow with random weights."""
    approximator = made.approximator
    assert isinstance(approximator, ContinuousApproximator)
    approximator.build(data, seed=1)
    generator = torch.Generator().manual_seed(0)
    for parameter in approximator.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return approximator.eval()


NETWORKS = ["deep_set", "set_transformer", "time_series_network", "time_series_transformer"]


@pytest.mark.parametrize("network", NETWORKS)
def test_what_stands_in_a_missing_place_does_not_matter(network: str) -> None:
    """Summary networks give the same summaries of gaps that are filled with the mean and with a million, and
    other ones of other gaps."""
    data = bf.make_simulator([prior, as_series], is_batched=True).sample(64, seed=1)
    made = built(workflow(as_series, summary_variables="x", summary_network=network), **data)
    expected = made.given(data).numpy()
    filling = made.adapter.transforms[0]
    assert filling.config()["value"] == pytest.approx([np.nanmean(data["x"])])
    filling.value = 1e6  # type: ignore[attr-defined]
    np.testing.assert_array_equal(made.given(data).numpy(), expected)
    other = np.where(np.isnan(data["x"]), 100.0, np.nan)
    assert not np.isclose(made.given({"x": other}).numpy(), expected).all(axis=1).any()


@pytest.mark.parametrize("network", [None, *NETWORKS])
def test_a_data_set_of_which_all_is_missing_has_an_answer(network: str | None) -> None:
    """Where everything is missing, and nothing but that, draws are finite, whatever the network."""
    roles: dict[str, Any] = {"inference_conditions": "x"}
    if network is not None:
        roles = {"summary_variables": "x", "summary_network": network}
    simulate = with_gaps if network is None else as_series
    data = bf.make_simulator([prior, simulate], is_batched=True).sample(64, seed=1)
    made = built(workflow(simulate, **roles), **data)
    nothing = {"x": np.full_like(data["x"][:2], np.nan)}
    assert np.isfinite(made.sample(num_samples=5, conditions=nothing, seed=1)["theta"]).all()


def image(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    x = theta[:, :, None, None] + rng.normal(size=(len(theta), 8, 8, 1))
    return {"x": np.where(rng.random(x.shape) < 0.2, np.nan, x)}


def test_pixels_may_be_missing() -> None:
    """An image with missing pixels is filled and masked pixel by pixel, and has a certificate."""
    made = workflow(image, summary_variables="x", summary_network="convolutional_network")
    data = made.simulate(256, seed=1)
    made.fit_offline(data, epochs=1, batch_size=64)
    mask = made.approximator.prepare(data)["mask of summary_variables"].numpy()
    np.testing.assert_array_equal(mask, ~np.isnan(data["x"][..., 0]))
    (one,) = made.approximator.certify({"x": np.full((1, 8, 8, 1), np.nan)}, seed=1)
    assert one.unusual[0] == "number of elements of x is below that of all simulations"


def complete(theta: np.ndarray, rng: np.random.Generator, length: int = 20) -> dict[str, np.ndarray]:
    return {"x": theta * np.linspace(0.2, 1, length) + 0.5 * rng.normal(size=(len(theta), length))}


def long_and_complete(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return complete(theta, rng, 40)


def complete_series(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": complete(theta, rng)["x"][:, :, None]}


def test_gaps_of_augmentations_are_seen() -> None:
    """Where augmentations make the gaps that the simulator lacks, certificates of data with gaps pass."""

    def with_holes(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return batch | {"x": np.where(np.random.random(batch["x"].shape) < 0.2, np.nan, batch["x"])}

    made = workflow(complete, inference_conditions="x")
    made.fit_offline(made.simulate(512, seed=1), epochs=1, batch_size=64, augmentations=with_holes)
    x = made.simulate(20, seed=2)["x"]
    x[:, 7] = np.nan
    assert sum(one.verdict == "failed" for one in made.approximator.certify({"x": x}, seed=1)) <= 5


@pytest.mark.parametrize(
    ("simulate", "roles"),
    [
        (complete, {"inference_conditions": "x"}),
        (long_and_complete, {"inference_conditions": "x"}),
        (complete_series, {"summary_variables": "x", "summary_network": DeepSet(widths=(8,))}),
    ],
    ids=["vector", "long vector", "series"],
)
def test_a_network_that_has_seen_no_gap_says_so(simulate: Any, roles: dict[str, Any]) -> None:
    """Where no simulation has a gap, the certificate of each of twenty data sets fails for a single missing
    value, though it is one of twenty or forty, and few of them fail without it."""
    made = workflow(simulate, **roles)
    made.fit_offline(made.simulate(512, seed=1), epochs=1, batch_size=64)
    x = made.simulate(20, seed=2)["x"]
    assert sum(one.verdict == "failed" for one in made.approximator.certify({"x": x}, seed=1)) <= 5
    x[:, 7] = np.nan
    certificates = made.approximator.certify({"x": x}, seed=1)
    assert all(one.verdict == "failed" for one in certificates)
    if "summary_network" in roles:
        assert {one.unusual[0] for one in certificates} == {
            "number of elements of x is below that of all simulations"
        }


def test_ensembles_take_missing_values() -> None:
    """Members fill and mask alike, and a draw of each pattern is finite."""
    simulator = bf.make_simulator([prior, with_gaps], is_batched=True)
    made = bf.EnsembleWorkflow(
        simulator,
        inference_variables="theta",
        inference_conditions="x",
        inference_networks=CouplingFlow(depth=1, widths=(8,)),
        ensemble_size=2,
        missing={"x": "x_there"},
        seed=1,
        progress=False,
    )
    made.fit_offline(simulator.sample(256, seed=1), epochs=1, batch_size=64)
    assert np.isfinite(made.sample(num_samples=4, conditions={"x": typical()}, seed=1)["theta"]).all()


def two(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": as_series(theta, rng)["x"], "y": as_series(theta, rng)["x"]}


def test_several_inputs_have_their_own_masks() -> None:
    """Two series joined into one input have one mask, of what is there in both; two inputs of a fusion
    network one each."""
    data = bf.make_simulator([prior, two], is_batched=True).sample(64, seed=1)
    both = {"summary_variables": ["x", "y"], "missing": {"x": "x_there", "y": "y_there"}}
    there = ~np.isnan(data["x"][..., 0]), ~np.isnan(data["y"][..., 0])
    joined = built(workflow(two, summary_network="deep_set", **both), **data).prepare(data)
    np.testing.assert_array_equal(joined["mask of summary_variables"], there[0] & there[1])
    parts = FusionNetwork({"x": DeepSet(widths=(8,)), "y": DeepSet(widths=(8,))})
    apart = built(workflow(two, summary_network=parts, **both), **data).prepare(data)
    for name, mask in zip("xy", there, strict=True):
        np.testing.assert_array_equal(apart[f"mask of summary_variables/{name}"], mask)


def test_auto_takes_missing_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The automatic choice leaves out the likelihood and the scales that gaps would spoil, and says so."""
    monkeypatch.setattr(
        schedules, "for_simulations", lambda number: schedules.TrainingSchedule(128, 10, 2e-3, 0.0, 0.99)
    )
    simulator = bf.make_simulator([prior, with_gaps], is_batched=True)
    made = bf.BasicWorkflow(
        simulator,
        inference_variables="theta",
        inference_conditions="x",
        inference_network="auto",
        missing={"x": "x_there"},
        seed=1,
        progress=False,
    )
    made.fit_offline(made.simulate(512, seed=1))
    assert made.automatic is not None
    assert made.automatic.choices["no learned likelihood"] == "values may be missing"
    assert np.isfinite(made.sample(num_samples=4, conditions={"x": typical()}, seed=1)["theta"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": {"theta": "there"}}, "a condition that may be missing, got 'theta'. It is inferred"),
        ({"missing": {"xx": "there"}}, "got 'xx'. Did you mean 'x'"),
        ({"missing": {"x": "theta"}}, "a new name for each mask of missing values, got 'theta'"),
        ({"missing": "x"}, r"such as \{'x': 'x_there'\}, got 'x'"),
        (
            {"adapter": bf.Adapter().nan_to_num("x", mask="m")},
            "either missing or nan_to_num of the adapter for 'x', got both",
        ),
        (
            {"adapter": bf.Adapter().concatenate("x", into="inference_conditions")},
            "the mask 'x_there' of 'x' among the inference_conditions, which the adapter joins, got none",
        ),
        (
            {"inference_conditions": None, "summary_variables": "x", "summary_mask": "m"},
            "either missing or summary_mask for 'x', got both",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    """Names that are no conditions, masks whose names are taken, and two ways of saying it."""
    given: dict[str, Any] = {"inference_conditions": "x"} | options
    if given.get("summary_variables"):
        given["summary_network"] = "deep_set"
    with pytest.raises(ConfigurationError, match=message):
        workflow(**given)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[100.0, np.inf, np.nan]]), "got inf in 1 of 1 rows .* put NaN in their place"),
        (np.full((1, 4), np.nan), r"'x' in the conditions of shape \(n, 3\), as in training, got \(1, 4\)"),
    ],
)
def test_observations_that_cannot_be_are_refused(
    trained: bf.BasicWorkflow, x: np.ndarray, message: str
) -> None:
    """inf is no missing value, and gaps have the shape of the training data."""
    with pytest.raises(DataError, match=message):
        trained.sample(num_samples=1, conditions={"x": x}, seed=1)
