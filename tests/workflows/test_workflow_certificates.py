"""Certificates of workflows: what each fit leaves, posterior predictive checks, importance weights, and power
on the page's model."""

import numpy as np
import pytest
import torch
from linear_gaussian import NOISE, SIMULATOR, ensemble, prior, workflow
from scipy import stats

import sbi_models as bf
from sbi_models.approximators import load_approximator
from sbi_models.errors import ConfigurationError, DataError, TrainingError
from sbi_models.networks import ConsistencyModel, ScoringRuleNetwork
from sbi_models.simulators.benchmarks.normal import NormalModel

pytestmark = pytest.mark.xdist_group("certificates")  # one process trains what these tests share

DATA = SIMULATOR.sample(600, seed=1)
X = {"x": np.array([[0.3, -0.2], [0.0, 1.0]])}
FAR = {"x": np.array([[9.0, 9.0]])}


def log_likelihood(theta, x):
    return stats.norm.logpdf(x, theta, NOISE).sum(axis=1)


def log_prior(theta):
    return stats.norm.logpdf(theta).sum(axis=1)


def certificates_of(approximator):
    return [c.novelty for c in approximator.certify(X, seed=0)]


@pytest.fixture(scope="module")
def trained():
    made = workflow(widths=(32, 32))
    made.fit_online(epochs=3, num_batches_per_epoch=80, batch_size=64)
    return made


@pytest.fixture(scope="module")
def normal():
    """The two-parameter model with twenty observations, trained for seconds."""
    made = bf.BasicWorkflow(
        NormalModel().simulator,
        inference_variables="theta",
        summary_variables="x",
        inference_network=bf.networks.CouplingFlow(widths=(32, 32), depth=3),
        summary_network=bf.networks.DeepSet(summary_dim=8, widths=(32,), head_widths=(32,)),
        standardize="all",
        initial_learning_rate=3e-3,
        seed=1,
        progress=False,
    )
    made.fit_online(epochs=2, num_batches_per_epoch=75, batch_size=64)
    return made


# --- what a fit leaves


@pytest.mark.parametrize("best_only", [False, True])
def test_the_file_of_a_training_has_certificates(tmp_path, best_only):
    """With checkpoints, of the last or of the best epoch, the file certifies, and a resumed training ends
    with the same tensors."""
    options = {"checkpoint_filepath": tmp_path, "save_best_only": best_only, "restore": True}
    made = workflow(**options)
    made.fit_offline(DATA, epochs=2, validation_data=SIMULATOR.sample(250, seed=2))
    loaded = load_approximator(tmp_path / "model.safetensors")
    assert all(p is not None for p in certificates_of(loaded))
    again = workflow(**options)
    again.fit_offline(DATA, epochs=2, validation_data=SIMULATOR.sample(250, seed=2))
    assert certificates_of(again.approximator) == certificates_of(made.approximator)


def test_every_strategy_and_kind_leaves_certificates(tmp_path):
    """After fit_disk, with augmentations, and with point estimates, observations are certified; a far one
    fails everywhere."""
    np.savez(tmp_path / "all.npz", **DATA)
    on_disk, augmented, points = (
        workflow(),
        workflow(),
        workflow(inference_network=ScoringRuleNetwork(["mean"])),
    )
    on_disk.fit_disk(tmp_path, "*.npz", epochs=1)
    augmented.fit_offline(DATA, epochs=1, augmentations={"x": lambda x: x + 8})
    points.fit_offline(DATA, epochs=1)
    for made in (on_disk, points):
        assert made.approximator.certify(FAR)[0].verdict == "failed"
        assert made.approximator.certify(X, level=0.001)[0].verdict == "passed"
    assert augmented.approximator.certify(X)[0].verdict == "failed"
    assert augmented.approximator.certify({"x": X["x"] + 8}, level=0.001)[0].verdict == "passed"
    assert points.certify(X)[0].predictive is None


def test_weights_of_a_training_do_not_depend_on_certificates(monkeypatch):
    """The weights after two fits are, to the bit, those of fits that learn nothing for certificates."""
    made, bare = workflow(), workflow()
    made.fit_online(epochs=1, num_batches_per_epoch=5)
    made.fit_offline(DATA, epochs=1)
    monkeypatch.setattr("sbi_models.workflows.fitting.leave_certificates", lambda *_, **__: None)
    bare.fit_online(epochs=1, num_batches_per_epoch=5)
    bare.fit_offline(DATA, epochs=1)
    for name, value in bare.approximator.state_dict().items():
        assert torch.equal(made.approximator.state_dict()[name], value)


def test_a_failed_training_gives_the_certificates_back(trained):
    """If a loss is no longer finite, the approximator has the weights and the certificates that it came
    with."""
    made = bf.BasicWorkflow(
        SIMULATOR, inference_network=trained.approximator, initial_learning_rate=1e30, seed=0, progress=False
    )
    before = certificates_of(made.approximator)
    with pytest.raises(TrainingError):
        made.fit_offline(DATA, epochs=3)
    assert certificates_of(made.approximator) == before


# --- checks by simulation


def test_predictive_p_values_are_uniform_under_the_model(trained):
    """Of 300 simulations, as many have p <= 0.05, 0.2, 0.5 as binomial bounds and those of the 400 references
    let."""
    new = SIMULATOR.sample(300, seed=21)
    certificates = trained.certify(new, num_references=400, num_replicates=50, seed=np.int64(2))
    for p_values in (
        np.array([c.predictive for c in certificates]),
        np.array([c.together for c in certificates]),
    ):
        for level in (0.05, 0.2, 0.5):
            sd = np.sqrt(level * (1 - level) * (1 / 300 + 1 / 400))
            assert abs((p_values <= level).mean() - level) < 3.3 * sd


def test_another_simulator_does_not_hide_that_an_observation_is_new(trained):
    """With a simulator of data that are shifted by 8, as are the observations, these are like its references,
    but not like the training: tests are corrected for their number then, and novelty fails them."""

    def shifted(theta, rng):
        return {"x": theta + 8 + NOISE * rng.normal(size=theta.shape)}

    other = bf.BasicWorkflow(
        bf.make_simulator([prior, shifted], is_batched=True), inference_network=trained.approximator
    )
    (certificate,) = other.certify({"x": X["x"][:1] + 8}, num_replicates=20, seed=1)
    assert certificate.together is None
    assert certificate.p_value == pytest.approx(min(1, 2 * min(certificate.novelty, certificate.predictive)))
    assert certificate.verdict == "failed"


def test_an_approximator_without_certificates_has_the_check_alone(trained, monkeypatch):
    """With nothing known of the training, the p-value is that of the predictive check."""
    monkeypatch.setattr(type(trained.approximator.novelty), "is_known", False)
    (certificate,) = trained.certify(FAR, num_replicates=20, seed=1)
    assert (certificate.novelty, certificate.together) == (None, None)
    assert certificate.p_value == certificate.predictive


@pytest.mark.nightly
def test_observations_that_the_posterior_cannot_explain_fail(normal):
    """Noise that shifts by six sds half-way fails the predictive check, which names the shift."""
    x = NormalModel().simulator.sample(1, seed=5)["x"]
    x[:, 10:] += 6 * x[:, :10].std()
    (certificate,) = normal.certify({"x": x}, num_replicates=50, seed=1)
    assert certificate.predictive < 0.02
    assert any("shift between halves of x" in words for words in certificate.predictive_unusual)


def test_weights_tell_how_exact_the_draws_are(trained):
    """Where the network is good, most draws count. With no likelihood and a prior of sd 4, its posteriors are
    a ninth as wide as the exact ones, which have use for less than a tenth of the draws, and fail. A prior as
    a function and as a torch distribution give the same."""
    good = trained.certify(X, log_likelihood=log_likelihood, log_prior=log_prior, num_replicates=0, seed=1)
    assert all(c.effective_sample_size > 0.7 for c in good)
    assert all(c.pareto_k < 0.7 for c in good)
    wide = {
        "log_likelihood": lambda theta, x: np.zeros(len(theta)),
        "log_prior": lambda theta: log_prior(theta / 4),
    }
    narrow = trained.certify(X, **wide, num_replicates=0, seed=1)
    assert all(c.effective_sample_size < 0.1 for c in narrow)
    assert all("far from the exact posterior" in c.warnings[-1] for c in narrow)
    torch_prior = bf.BasicWorkflow(
        inference_network=trained.approximator,
        prior=torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1),
    )
    same = torch_prior.certify(X, log_likelihood=log_likelihood, seed=1)
    np.testing.assert_allclose(
        [c.effective_sample_size for c in same], [c.effective_sample_size for c in good], rtol=1e-5
    )


# Seconds: the training that tests of this file share.
def test_benchmarks_know_their_likelihood(normal):
    """The joint density that the simulator of the normal model knows gives weights without a word, and
    differs from its exact posterior by a constant."""
    model = NormalModel()
    x = model.simulator.sample(1, seed=3)["x"]
    theta = np.random.default_rng(0).normal(size=(50, 2))
    difference = model.log_joint(theta, x) - model.posterior(x[0]).log_prob(theta)
    assert np.ptp(difference) < 1e-8
    assert normal.simulator.log_joint(theta=theta, x=x).shape == (50,)
    assert 0 < normal.certify({"x": x}, num_replicates=0, seed=1)[0].effective_sample_size <= 1


def test_ensembles_are_certified_by_all_tests():
    """An ensemble has novelty, agreement, predictive check and weights of its mixture; a far observation
    fails."""
    made = ensemble()
    made.fit_offline(DATA, epochs=2)
    (certificate,) = made.certify(
        FAR, log_likelihood=log_likelihood, log_prior=log_prior, num_replicates=20, seed=1
    )
    assert None not in (
        certificate.novelty,
        certificate.agreement,
        certificate.predictive,
        certificate.pareto_k,
    )
    assert certificate.p_value == certificate.together <= 0.05
    assert certificate.verdict == "failed"


def test_a_simulator_of_one_function_makes_no_check():
    """Parameters inside a single function cannot be set, so there is no predictive p-value rather than a
    wrong one."""

    def both(batch_size, rng):
        theta = rng.normal(size=(batch_size, 2))
        return {"theta": theta, "x": theta + NOISE * rng.normal(size=theta.shape)}

    made = workflow(simulator=bf.make_simulator(both, is_batched=True))
    made.fit_online(epochs=1, num_batches_per_epoch=2)
    assert made.certify(X)[0].predictive is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_prior": log_prior}, "Expected log_likelihood with log_prior"),
        ({"log_likelihood": log_likelihood}, "the prior of 'theta' is not known"),
        (
            {"log_likelihood": lambda theta, y: 0, "log_prior": log_prior},
            "takes 'y', which is no variable here",
        ),
        ({"num_replicates": 1}, "num_replicates of at least 2"),
        ({"num_replicates": 2.5}, "num_replicates"),
        ({"num_references": 50}, "num_references of at least 100"),
        ({"level": 0.004}, "Expected num_references of at least 249, so that p-values"),
        ({"num_sample": 5}, "Did you mean 'num_samples'"),
    ],
)
def test_wrong_arguments_are_errors(trained, options, message):
    """What does not fit is refused with what was expected."""
    with pytest.raises(ConfigurationError, match=message):
        trained.certify(X, seed=1, **options)


def test_wrong_densities_and_observations_are_errors(trained):
    """A likelihood of another shape, observations with NaN, and a likelihood for a network without density
    say what was expected."""
    with pytest.raises(DataError, match=r"Expected log densities of shape \(1000,\)"):
        trained.certify(X, log_likelihood=lambda x: np.zeros((3, 1)), log_prior=log_prior, num_replicates=0)
    with pytest.raises(DataError, match="NaN"):
        trained.certify({"x": np.full((1, 2), np.nan)})
    made = workflow(inference_network=ConsistencyModel(widths=(16, 16)))
    made.fit_offline(DATA, epochs=1)
    with pytest.raises(ConfigurationError, match="with draws and a density"):
        made.certify(X, log_likelihood=log_likelihood, log_prior=log_prior)


# --- power


def test_misspecified_simulators_are_flagged(normal):
    """Of 100 observations each, more than 90 % fail with shifted noise, outliers, or another variance in half
    of them; of 300 of the model at most 5 %, up to sampling error. Power of more cases is in
    `benchmarks/certificate.py`."""
    rng = np.random.default_rng(3)
    theta, noise = rng.normal(size=(300, 2)), rng.normal(size=(300, 20))
    late = np.arange(20) >= 10
    first_two = rng.permuted(np.broadcast_to(np.arange(20) < 2, noise.shape), axis=1)
    cases = {
        "model": noise,
        "shifted": noise + 3 * late,
        "outliers": noise + first_two * rng.uniform(5, 10, noise.shape) * rng.choice([-1, 1], noise.shape),
        "variance": np.where(late, 6 * noise, noise),
        "small variance": noise / 15,
    }
    failed = {}
    for name, changed in cases.items():
        x = (theta[:, :1] + np.exp(theta[:, 1:] / 2) * changed)[: 300 if name == "model" else 100, :, None]
        failed[name] = np.mean([not c.trusted for c in normal.approximator.certify({"x": x}, seed=0)])
    assert failed.pop("model") <= stats.binom.ppf(0.999, 300, 0.05) / 300
    assert all(share > 0.9 for share in failed.values()), failed
