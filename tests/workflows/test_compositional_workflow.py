"""CompositionalWorkflow: the page's snippets, exact posteriors, repeatability, and what trainings leave
behind."""

import warnings

import numpy as np
import pytest
import torch
from compositional_models import SMALL, compositional, exact, items, prior_score
from linear_gaussian import SIMULATOR

import sbi_models as bf
from sbi_models.approximators import CompositionalApproximator
from sbi_models.errors import TrustWarning
from sbi_models.networks import DiffusionModel

pytestmark = pytest.mark.xdist_group("compositions")  # one process trains what these tests share

DATA = SIMULATOR.sample(300, seed=1)
CONDITIONS = items(2, 4, seed=2)
ONE = {"x": CONDITIONS["x"][:1]}


def weights(made):
    return {name: value.clone() for name, value in made.approximator.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def untrusted():
    """Warnings of networks that were hardly trained, left aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        yield


@pytest.fixture(scope="module")
def trained():
    made = compositional()
    made.fit_online(epochs=6, num_batches_per_epoch=100, batch_size=128)
    return made


@pytest.fixture(scope="module")
def hasty():
    """Trained for two steps."""
    made = compositional()
    made.fit_online(epochs=1, num_batches_per_epoch=2, batch_size=16)
    return made


# --- the page


def test_the_snippets_of_the_page(untrusted):
    """Sets of 20 numbers, three a data set: trained online, composed with the learned prior and with a score
    of the user's."""

    def prior(batch_size, rng):
        return {"theta": rng.normal(size=(batch_size, 2))}

    def likelihood(theta, rng):
        return {"x": (theta[:, :1] + np.exp(theta[:, 1:] / 2) * rng.normal(size=(len(theta), 20)))[..., None]}

    simulator = bf.make_simulator([prior, likelihood], is_batched=True)
    workflow = bf.CompositionalWorkflow(
        simulator=simulator,
        inference_variables=["theta"],
        summary_variables=["x"],
        inference_network=bf.networks.DiffusionModel(widths=(16, 16)),
        summary_network=bf.networks.TimeSeriesTransformer(summary_dim=8, width=8, heads=2),
        seed=0,
    )
    history = workflow.fit_online(epochs=1, batch_size=16, num_batches_per_epoch=2)
    assert len(history.history["loss"]) == 1
    x_obs = simulator.sample(6, seed=3)["x"].reshape(2, 3, 20, 1).astype("float32")
    for more in ({}, {"compute_prior_score": prior_score}):
        samples = workflow.compositional_sample(
            num_samples=10, conditions={"x": x_obs}, calibration_simulations=0, seed=1, **more
        )
        assert samples.keys() == {"theta"}
        assert samples["theta"].shape == (2, 10, 2)
        assert np.isfinite(samples["theta"]).all()
    test = simulator.sample(20, seed=4)
    assert workflow.sample(num_samples=5, conditions=test)["theta"].shape == (20, 5, 2)
    assert workflow.compute_default_diagnostics(test, num_samples=20, seed=1).shape == (4, 2)


def test_what_a_network_leaves_open_is_set_for_composition():
    """None becomes dropped conditions and Gaussian preconditioning; what was given stays, and so does the
    network itself."""
    for network in ("diffusion_model", DiffusionModel(), DiffusionModel):
        made = compositional(inference_network=network).approximator.inference_network
        assert (made.drop_conditions, made.is_gaussian) == (0.15, True)
    given = DiffusionModel(drop_conditions=0.0, preconditioning="unit", widths=(8,))
    made = compositional(inference_network=given).approximator.inference_network
    assert (made.drop_conditions, made.is_gaussian) == (0.0, False)
    noise = compositional(inference_network=DiffusionModel(prediction="noise")).approximator.inference_network
    assert (noise.drop_conditions, noise.is_gaussian) == (0.15, False)
    assert SMALL.config["drop_conditions"] is None
    assert isinstance(compositional().approximator, CompositionalApproximator)


# --- posteriors


@pytest.mark.nightly_cases("2-score")
@pytest.mark.parametrize(
    ("n", "prior"),
    [
        pytest.param(2, prior_score, id="2-score"),
        pytest.param(100, None, id="100-learned"),
        pytest.param(2, None, id="2-learned", marks=pytest.mark.nightly),
        pytest.param(100, prior_score, id="100-score", marks=pytest.mark.nightly),
    ],
)
# Seconds: 100 items are calibrated with simulations of each of them.
def test_posteriors_of_many_items_are_exact(trained, n, prior):
    """A network of few steps, calibrated by the simulator: means within 0.25 sds on average, sds within 10 %,
    and no warning."""
    conditions = items(1 if n == 100 else 2, n, seed=12)
    draws, reports = trained.compositional_sample(
        num_samples=1000, conditions=conditions, compute_prior_score=prior, seed=1, return_diagnostics=True
    )
    mean, sd = exact(conditions["x"])
    assert np.sqrt((((draws["theta"].mean(axis=1) - mean) / sd) ** 2).mean()) < 0.25
    assert np.exp(np.log(draws["theta"].std(axis=1) / sd).mean()) == pytest.approx(1, abs=0.1)
    assert all(
        report.num_items == n and report.method == "calibrated" and report.sbc_p_value > 0.001
        for report in reports
    )
    assert n == 2 or all(report.calibrated for report in reports)
    assert all(report.warnings == () for report in reports)


@pytest.mark.nightly_cases("100-1000")
@pytest.mark.parametrize(
    ("n", "simulations"),
    [
        (3, 0),
        (100, 1000),
        pytest.param(3, 1000, marks=pytest.mark.nightly),
        pytest.param(100, 0, marks=pytest.mark.nightly),
    ],
)
def test_items_of_unlikely_parameters(trained, n, simulations):
    """Items of parameters in the tail of the prior end in draws near them or in a TrustWarning, never in an
    error of linear algebra."""
    theta = np.array([[-3.2, 1.7]])
    x = SIMULATOR.sample(n, seed=1, theta=np.repeat(theta, n, axis=0))["x"][None]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", TrustWarning)
        draws = trained.compositional_sample(
            num_samples=50,
            conditions={"x": x},
            compute_prior_score=prior_score,
            calibration_simulations=simulations,
            seed=1,
        )["theta"][0]
    mean, sd = exact(x)
    assert np.isfinite(draws).all()
    assert np.abs(draws).max() < 20
    assert seen or (np.abs(draws.mean(axis=0) - mean[0]) < sd).all()


@pytest.mark.parametrize("prior", [prior_score, None], ids=["score", "learned"])
def test_a_weak_network_is_doubted_for_one_item(trained, prior):
    """Where a third of the scores could be predicted, the posterior of a single item has a note, whether the
    prior is given or not."""
    unused = trained.approximator.shared_bias.unused
    before = unused.clone()
    unused.fill_(0.34)
    try:
        with pytest.warns(TrustWarning, match="is underfitted: conditions predict 34%"):
            trained.compositional_sample(
                num_samples=50, conditions=items(1, 1, seed=12), compute_prior_score=prior, seed=1
            )
    finally:
        unused.copy_(before)


def test_without_a_simulator_it_uses_what_the_training_left(trained):
    """calibration_simulations=0, or the approximator alone, composes without simulations, to the same draws;
    means are near."""
    conditions = items(2, 10, seed=12)
    arguments = {"num_samples": 500, "conditions": conditions, "compute_prior_score": prior_score, "seed": 1}
    draws, reports = trained.compositional_sample(
        **arguments, calibration_simulations=0, return_diagnostics=True
    )
    assert [report.simulations for report in reports] == [0] * 2
    assert all(np.isfinite(report.bias_shift) for report in reports)
    np.testing.assert_array_equal(
        draws["theta"], trained.approximator.compositional_sample(**arguments)["theta"]
    )
    mean, sd = exact(conditions["x"])
    assert np.sqrt((((draws["theta"].mean(axis=1) - mean) / sd) ** 2).mean()) < 0.6


@pytest.mark.nightly_cases("langevin")
@pytest.mark.parametrize("method", ["gauss", "langevin"])
def test_the_other_methods_are_near(trained, method):
    """Means within an sd, sds within a quarter, at three items."""
    conditions = items(1, 3, seed=12)
    draws = trained.compositional_sample(
        num_samples=200, conditions=conditions, compute_prior_score=prior_score, method=method, seed=1
    )
    mean, sd = exact(conditions["x"])
    assert (np.abs(draws["theta"].mean(axis=1) - mean) < sd).all()
    assert draws["theta"].std(axis=1).mean() / sd == pytest.approx(1, abs=0.25)


def test_one_item_is_the_ordinary_posterior(trained):
    """With one item a data set the draws are those of the network's sampler: within noise those of `sample`,
    and the report says so."""
    x = SIMULATOR.sample(3, seed=5)["x"]
    draws, reports = trained.compositional_sample(
        num_samples=2000, conditions={"x": x[:, None]}, seed=1, return_diagnostics=True
    )
    alone = trained.sample(num_samples=2000, conditions={"x": x}, seed=2)
    assert [(report.method, report.num_items, report.warnings) for report in reports] == [
        ("sample", 1, ())
    ] * 3
    noise = 5 * alone["theta"].std(axis=1) / np.sqrt(1000)
    assert (np.abs(draws["theta"].mean(axis=1) - alone["theta"].mean(axis=1)) < noise).all()
    np.testing.assert_allclose(draws["theta"].std(axis=1), alone["theta"].std(axis=1), rtol=0.1)


# --- repeatability and shapes


@pytest.mark.nightly
def test_the_seed_decides(trained, untrusted):
    """The same seed gives the same draws to the bit whatever the global state, another one others, and none
    NumPy's global state."""
    arguments = {"num_samples": 20, "conditions": ONE, "calibration_simulations": 300}
    first = trained.compositional_sample(**arguments, seed=1)["theta"]
    torch.manual_seed(1)
    np.random.seed(1)
    np.testing.assert_array_equal(first, trained.compositional_sample(**arguments, seed=1)["theta"])
    assert not np.any(first == trained.compositional_sample(**arguments, seed=2)["theta"])
    drawn = []
    arguments["calibration_simulations"] = 0
    for _ in range(2):
        np.random.seed(3)
        drawn.append(trained.compositional_sample(**arguments)["theta"])
    np.testing.assert_array_equal(*drawn)


@pytest.mark.nightly
def test_data_sets_do_not_depend_on_each_other(trained, untrusted):
    """The draws of a data set are the same whatever the others are, and differ between equal data sets in two
    rows."""
    arguments = {"num_samples": 20, "seed": 1, "calibration_simulations": 300}
    x = CONDITIONS["x"]
    first = trained.compositional_sample(conditions={"x": x}, **arguments)["theta"]
    same = trained.compositional_sample(conditions={"x": x[[1, 1]]}, **arguments)["theta"]
    np.testing.assert_array_equal(first[1], same[1])
    np.testing.assert_allclose(
        trained.compositional_sample(conditions={"x": x[:1]}, **arguments)["theta"][0],
        first[0],
        rtol=1e-3,
        atol=1e-4,
    )
    assert not np.any(same[0] == same[1])


def test_split_and_diagnostics(trained):
    """split=True gives each component as a variable; return_diagnostics adds a report for each data set; both
    at once, too."""
    arguments = {"num_samples": 7, "calibration_simulations": 0, "conditions": CONDITIONS, "seed": 1}
    whole = trained.compositional_sample(**arguments)["theta"]
    parts, reports = trained.compositional_sample(**arguments, split=True, return_diagnostics=True)
    assert parts.keys() == {"theta_0", "theta_1"}
    np.testing.assert_array_equal(np.concatenate([parts["theta_0"], parts["theta_1"]], axis=-1), whole)
    assert len(reports) == 2
    assert all(report.num_items == 4 and report.evaluations > 0 for report in reports)


@pytest.mark.nightly
def test_noise_and_simulations_are_taken(trained):
    """A noise that is given is used; calibration_simulations is how many the last calibration of many items
    has; few items have a test."""
    arguments = {"num_samples": 7, "return_diagnostics": True, "seed": 1}
    _, reports = trained.compositional_sample(
        **arguments, conditions=items(1, 40, seed=3), noise=0.07, calibration_simulations=5000
    )
    assert [(report.noise, report.simulations) for report in reports] == [(0.07, 5000)]
    arguments |= {"conditions": ONE}
    _, reports = trained.compositional_sample(**arguments, calibration_simulations=5000)
    assert all(report.simulations in (200 * 4, 5000) for report in reports)
    _, reports = trained.compositional_sample(**arguments, calibration_simulations=0, noise=0.1)
    assert all(report.noise == 0.1 and report.simulations == 0 for report in reports)


@pytest.mark.nightly
def test_a_saved_approximator_composes_alike(trained, tmp_path):
    """Loaded, alone or in a new workflow, it gives the same draws to the bit."""
    arguments = {"num_samples": 20, "conditions": ONE, "seed": 1}
    loaded = bf.load(str(trained.approximator.save(tmp_path / "model")))
    expected = trained.approximator.compositional_sample(**arguments)["theta"]
    np.testing.assert_array_equal(loaded.compositional_sample(**arguments)["theta"], expected)
    again = compositional(inference_network=loaded)
    np.testing.assert_array_equal(
        again.compositional_sample(**arguments, calibration_simulations=0)["theta"], expected
    )
    np.testing.assert_array_equal(
        again.compositional_sample(**arguments)["theta"], trained.compositional_sample(**arguments)["theta"]
    )


# --- trainings


def test_short_trainings_are_doubted(hasty):
    """After two steps of training, 100 items without a simulator end in a warning that names the data sets
    and a cure."""
    with pytest.warns(
        TrustWarning, match=r"posterior of data sets 0 and 1 of 2 \(counted from 0\) should not be trusted\."
    ):
        _, reports = hasty.compositional_sample(
            num_samples=10,
            conditions=items(2, 100, seed=3),
            calibration_simulations=0,
            seed=1,
            return_diagnostics=True,
        )
    assert all(report.warnings for report in reports)


@pytest.mark.nightly_cases("fit_offline", "fit_disk")
@pytest.mark.parametrize("method", ["fit_online", "fit_offline", "fit_disk"])
def test_every_training_leaves_the_shared_bias(method, tmp_path, untrusted):
    """Online it is learned from new simulations, offline and from files from the data; every fit learns it
    anew."""
    np.savez(tmp_path / "a.npz", **DATA)
    own = {
        "fit_offline": {"data": DATA},
        "fit_online": {"num_batches_per_epoch": 3},
        "fit_disk": {"root": tmp_path, "pattern": "*.npz"},
    }[method]
    made = compositional()
    assert not hasattr(made.approximator, "shared_bias") or not made.approximator.shared_bias.is_known
    getattr(made, method)(epochs=1, **own)
    bias = made.approximator.shared_bias
    assert bias.is_known
    assert int(bias.count) == (2000 if method == "fit_online" else 300)
    before = bias.coefficients.clone()
    getattr(made, method)(epochs=1, **own)
    assert not torch.equal(before, made.approximator.shared_bias.coefficients)
    draws = made.compositional_sample(num_samples=5, conditions=ONE, calibration_simulations=0, seed=1)
    assert draws["theta"].shape == (1, 5, 2)


def test_data_alone_are_enough(untrusted):
    """Without a simulator a workflow trains offline and composes, with the same answer as
    calibration_simulations=0."""
    arguments = {"num_samples": 5, "conditions": ONE, "seed": 1}
    drawn = []
    for more in ({"simulator": None}, {}):
        made = compositional(**more)
        made.fit_offline(DATA, epochs=1)
        drawn.append(made.compositional_sample(**arguments, calibration_simulations=0)["theta"])
    np.testing.assert_array_equal(*drawn)


@pytest.mark.nightly_cases("fit_offline")
@pytest.mark.parametrize("method", ["fit_online", "fit_offline"])
def test_a_resumed_training_leaves_the_same_file(method, tmp_path):
    """Stopped and restored, the approximator, shared bias included, is that of one training, to the byte."""

    class Stop(Exception):
        pass

    def stop(epoch, losses):
        if epoch == 1:
            raise Stop

    own = {"fit_offline": {"data": DATA}, "fit_online": {"num_batches_per_epoch": 3}}[method]

    def run(on_epoch_end=None, **arguments):
        made = compositional(**arguments)
        getattr(made, method)(epochs=3, batch_size=32, on_epoch_end=on_epoch_end, **own)
        return made

    whole = run(checkpoint_filepath=tmp_path / "whole")
    with pytest.raises(Stop):
        run(stop, checkpoint_filepath=tmp_path / "stopped")
    resumed = run(checkpoint_filepath=tmp_path / "stopped", restore=True)
    assert equal(weights(resumed), weights(whole))
    assert resumed.approximator.shared_bias.is_known
    files = [
        made.approximator.save(tmp_path / name).read_bytes() for made, name in ((whole, "a"), (resumed, "b"))
    ]
    assert files[0] == files[1]
    kept = [bf.load(str(tmp_path / name / "model.safetensors")) for name in ("whole", "stopped")]
    assert equal(*(loaded.state_dict() for loaded in kept))
    assert equal(kept[0].state_dict(), weights(whole))
