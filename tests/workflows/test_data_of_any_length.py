"""Data sets of different lengths: simulated in a context each, or given as lists; nobody pads them."""

import functools

import numpy as np
import pytest
import torch
from scipy.stats import betabinom

import sbi_models as bf
from sbi_models.errors import DataError
from sbi_models.networks import CouplingFlow, DeepSet, DiffusionModel, FusionNetwork, NestedSet

FLOW = CouplingFlow(depth=2, widths=(16,))
SET = DeepSet(summary_dim=6, widths=(16, 16), head_widths=(16,))


def context(rng):
    return {"number": rng.integers(2, 12)}


def prior(rng):
    return {"mu": rng.normal(size=1)}


def likelihood(mu, number, rng):
    return {"x": rng.normal(mu, 1.0, size=(number, 1))}


SIMULATOR = bf.make_simulator([prior, likelihood], meta_fn=context)


def workflow(**settings):
    arguments = {"inference_variables": ["mu"], "summary_variables": ["x"], "summary_network": SET}
    return bf.BasicWorkflow(**(arguments | {"inference_network": FLOW, "seed": 1} | settings))


@functools.cache
def trained():
    """Trained on 100 batches of 64 sets of 2 to 11 normal numbers."""
    fitted = workflow(simulator=SIMULATOR)
    fitted.fit_online(epochs=2, num_batches_per_epoch=50, batch_size=64)
    return fitted


def sets(*numbers, seed=5):
    rng = np.random.default_rng(seed)
    return [rng.normal(0.3, 1.0, size=(number, 1)) for number in numbers]


@pytest.mark.nightly
def test_the_number_of_elements_reaches_the_networks():
    """The same elements five times, whose mean, spread and largest are the same, have another density."""
    (x,), mu = sets(2), np.array([[0.3], [0.3]])
    once, often = trained().log_prob({"mu": mu, "x": [x, np.concatenate([x] * 5)]})
    assert abs(once - often) > 1e-3


# Seconds: the training that tests of this file share.
def test_a_data_set_has_the_answer_that_it_has_alone():
    """Draws, densities and certificates of data sets of three lengths in one call are those one by one."""
    x, mu = sets(3, 11, 7), np.array([[0.1], [0.2], [0.3]])
    together = trained().sample(num_samples=50, conditions={"x": x}, seed=3)["mu"]
    densities = trained().log_prob({"mu": mu, "x": x})
    model = trained().approximator
    certificates = model.certify({"x": x}, seed=3)
    for row, one in enumerate(x):
        density = model.log_prob({"mu": mu[row : row + 1], "x": one[None]})
        np.testing.assert_allclose(densities[row], density[0], atol=1e-5)
    first = {"x": x[0][None]}
    alone = model.sample(num_samples=50, conditions=first, seed=3)["mu"][0]
    np.testing.assert_allclose(alone, together[0], atol=1e-5)
    assert certificates[0].novelty == pytest.approx(model.certify(first, seed=3)[0].novelty, abs=1e-2)


def test_tensors_lists_and_arrays_of_objects_are_the_same_data():
    """Nested lists of numbers and of scalars give the draws of arrays, to the bit."""
    x = sets(3, 5)
    expected = trained().sample(num_samples=9, conditions={"x": x}, seed=3)["mu"]
    for value in (
        [part.tolist() for part in x],
        [part[:, 0] for part in x],
        np.array([*x, None], object)[:2],
    ):
        np.testing.assert_array_equal(
            trained().sample(num_samples=9, conditions={"x": value}, seed=3)["mu"], expected
        )


def test_a_length_beyond_those_of_the_training_is_answered_and_flagged():
    """Of 40 elements, where there were 2 to 11, the certificate says that the number is too high."""
    (certificate,) = trained().certify({"x": sets(40)}, num_replicates=0, seed=1)
    assert certificate.verdict == "failed"
    assert "number of elements of x is above that of all simulations" in certificate.unusual
    assert trained().sample(num_samples=9, conditions={"x": sets(40)}, seed=1)["mu"].shape == (1, 9, 1)


def test_data_sets_may_have_no_elements():
    """They are answered where simulations may have none, whatever their company; no rows are an error."""
    simulator = bf.make_simulator([prior, likelihood], meta_fn=lambda rng: {"number": rng.integers(0, 4)})
    fitted = workflow(simulator=simulator)
    fitted.fit_online(epochs=1, num_batches_per_epoch=10, batch_size=64)
    none, mu = np.empty((0, 1)), np.array([[0.3], [0.3]])
    together = fitted.log_prob({"mu": mu, "x": [none, *sets(3)]})
    np.testing.assert_allclose(fitted.log_prob({"mu": mu[:1], "x": none[None]}), together[:1], atol=1e-5)
    with pytest.raises(DataError, match="at least one row"):
        fitted.sample(num_samples=1, conditions={"x": []}, seed=1)


def test_files_keep_what_may_have_any_length(tmp_path):
    """A saved and loaded approximator gives the same draws of sets of other lengths."""
    x = sets(3, 11)
    loaded = bf.load(trained().approximator.save(tmp_path / "model"))
    np.testing.assert_array_equal(
        loaded.sample(num_samples=9, conditions={"x": x}, seed=3)["mu"],
        trained().approximator.sample(num_samples=9, conditions={"x": x}, seed=3)["mu"],
    )
    assert loaded.any_length == {"x": 1}


@pytest.mark.nightly_cases("False")
@pytest.mark.parametrize("augmented", [False, True])
def test_lists_train_offline(augmented):
    """Lists in memory, augmented or not, bring the held-out loss below that of the prior."""
    data, test = SIMULATOR.sample(3200, seed=8), SIMULATOR.sample(300, seed=9)
    fitted = workflow()
    augmentations = [lambda batch: batch] if augmented else None
    fitted.fit_offline(data, epochs=2, batch_size=64, validation_data=test, augmentations=augmentations)
    assert fitted.history.history["val_loss"][-1] < 1.3 < 0.5 * np.log(2 * np.pi * np.e)


def test_members_train_on_data_of_any_length():
    """Members with windows and rings of their own are trained as one approximator is, and answer alike."""
    data = SIMULATOR.sample(640, seed=8)
    ensemble = bf.EnsembleWorkflow(
        inference_variables=["mu"],
        summary_variables=["x"],
        summary_networks=SET,
        inference_networks=FLOW,
        ensemble_size=2,
        simulator=SIMULATOR,
        seed=1,
    )
    ensemble.fit_offline(data, epochs=1, batch_size=64, data_reuse=0.5)
    ensemble.fit_online(epochs=1, num_batches_per_epoch=4, batch_size=64, data_reuse=0.5)
    x = sets(3, 9)
    together = ensemble.sample(num_samples=20, conditions={"x": x}, seed=1)["mu"]
    alone = ensemble.sample(num_samples=20, conditions={"x": x[0][None]}, seed=1)["mu"]
    assert together.shape == (2, 20, 1)
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(alone[0], together[0], atol=1e-5)


@pytest.mark.nightly
def test_groups_of_elements_have_a_nested_network():
    """Groups that differ in number and size are padded on both axes, and company changes nothing."""

    def grouped(mu, rng):
        groups = rng.integers(1, 4)
        return {"x": [rng.normal(mu, 1.0, size=(rng.integers(1, 5), 1)) for _ in range(groups)]}

    simulator = bf.make_simulator([prior, grouped])
    fitted = workflow(simulator=simulator, summary_network=NestedSet(SET, SET))
    fitted.fit_online(epochs=2, num_batches_per_epoch=20, batch_size=32)
    data = simulator.sample(4, seed=3)
    together = fitted.log_prob(data)
    for row in range(4):
        alone = fitted.log_prob({"mu": data["mu"][row : row + 1], "x": data["x"][row : row + 1]})
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


def test_inputs_of_a_fusion_differ_in_length_each():
    """Two variables of lengths of their own go to networks of their own."""

    def two(mu, rng):
        return {name: rng.normal(mu, 1.0, size=(rng.integers(1, 6), 1)) for name in ("x", "y")}

    simulator = bf.make_simulator([prior, two])
    network = FusionNetwork({"x": SET, "y": SET}, summary_dim=4)
    fitted = workflow(simulator=simulator, summary_variables=["x", "y"], summary_network=network)
    fitted.fit_online(epochs=1, num_batches_per_epoch=4, batch_size=32)
    assert fitted.sample(num_samples=5, conditions=simulator.sample(3, seed=1), seed=1)["mu"].shape == (
        3,
        5,
        1,
    )
    with pytest.raises(DataError, match="the same length in each data set, as inputs of one network"):
        workflow(summary_variables=["x", "y"]).fit_offline(
            simulator.sample(40, seed=1), epochs=1, batch_size=8
        )


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([np.zeros((3, 2)), np.zeros((4, 2))], r"of shape \(n, N, 1\) for any N.*other elements"),
        (np.zeros((2, 3, 2)), r"of shape \(n, N, 1\) for any N.*got \(2, 3, 2\)"),
        ([np.zeros((3, 1)), np.zeros((4, 2))], "differ in their length alone"),
        ([np.zeros((3, 1)), np.full((4, 1), np.nan)], r"NaN or inf in 1 of 2 rows of variable 'x'"),
        (["ab", "c"], "real numbers"),
        ([[[1.0], ["a"]], [[2.0]]], "real numbers"),
    ],
    ids=["width", "width of an array", "unequal widths", "NaN", "text", "text in lists"],
)
def test_data_that_are_no_sets_are_refused(x, message):
    """The error names the variable, what was expected and what was got."""
    with pytest.raises(DataError, match=message):
        trained().sample(num_samples=1, conditions={"x": x}, seed=1)


def test_a_network_for_one_length_refuses_others_before_training():
    """Parameters, direct conditions, and networks that do not say that they take any length."""
    data = SIMULATOR.sample(64, seed=1)
    with pytest.raises(DataError, match=r"summary_variables=\['x'\], summary_network='deep_set'"):
        bf.BasicWorkflow(
            inference_variables=["mu"], inference_conditions=["x"], inference_network=FLOW
        ).fit_offline(data, epochs=1, batch_size=8)
    with pytest.raises(DataError, match="Expected data sets of one length for Moments"):
        workflow(summary_network=moments()).fit_offline(data, epochs=1, batch_size=8)
    fixed = workflow()
    fixed.fit_offline(SIMULATOR.sample(64, seed=1, number=5), epochs=1, batch_size=8)
    with pytest.raises(DataError, match="Train with data sets that differ in length"):
        fixed.sample(num_samples=1, conditions={"x": sets(3, 5)}, seed=1)


def moments():
    class Moments(bf.networks.SummaryNetwork):
        def __init__(self):
            super().__init__()
            self.summary_dim = 1

        def _build(self, input_shape):
            del input_shape

        def forward(self, x, mask=None):
            del mask
            return x.mean(dim=1)

    Moments.registered_name = "moments of a test"
    return Moments()


@functools.cache
def noisy():
    """Trained where meta_fn draws the noise of an observation, which is a condition, too."""

    def observed(mu, tau, rng):
        return {"y": rng.normal(mu, tau, size=1)}

    def noise(rng):
        return {"tau": rng.uniform(0.1, 5.0, size=1)}

    simulator = bf.make_simulator([prior, observed], meta_fn=noise)
    fitted = bf.BasicWorkflow(
        simulator=simulator,
        inference_variables=["mu"],
        inference_conditions=["y", "tau"],
        inference_network=FLOW,
        seed=1,
    )
    fitted.fit_online(epochs=2, num_batches_per_epoch=40, batch_size=64)
    return fitted


def certified(fitted):
    """The approximator with certificates that are calibrated on 2 000 of 6 000 simulations."""
    simulations = fitted.simulator.sample(6000, seed=2, progress=False)
    fitted.approximator.learn_certificate(simulations, None, seed=1, contexts=fitted.simulator.context_names)
    return fitted.approximator


def bounds(number, like):
    """Central 99.8 % of the failures at a level of 0.05 of good observations, ranked among so many."""
    below = int(0.05 * (like + 1))
    law = betabinom(number, below, like + 1 - below)
    return law.ppf(0.001), law.ppf(0.999)


@pytest.mark.nightly
def test_certificates_fail_as_often_as_their_level_says_in_each_context():
    """Of 400 good observations with a noise of each of three values, ranked among 200 of like noise."""
    approximator, (least, most) = certified(noisy()), bounds(400, 199)
    for tau in (0.2, 1.5, 4.8):
        data = noisy().simulator.sample(400, seed=7, tau=np.array([tau]))
        certificates = approximator.certify(data, seed=1)
        assert least <= sum(certificate.verdict == "failed" for certificate in certificates) <= most


@pytest.mark.nightly
def test_certificates_fail_as_often_as_their_level_says_at_each_length():
    """Of 400 good data sets of each of three numbers of elements, ranked among 159 of the same number."""
    approximator, (least, most) = certified(trained()), bounds(400, 159)
    for number in (2, 6, 11):
        data = SIMULATOR.sample(400, seed=7, number=number)
        certificates = approximator.certify({"x": data["x"]}, seed=1)
        assert least <= sum(certificate.verdict == "failed" for certificate in certificates) <= most


@pytest.mark.nightly
def test_a_number_of_elements_that_is_a_condition_is_whole_where_data_are_simulated():
    """Certificates and predictive draws simulate with the numbers of elements of the observations."""
    fitted = workflow(simulator=SIMULATOR, inference_conditions=["number"])
    fitted.fit_online(epochs=1, num_batches_per_epoch=10, batch_size=64)
    observed = {"x": sets(3, 7), "number": [[3], [7]]}
    assert all(certificate.predictive is not None for certificate in fitted.certify(observed, seed=1))
    predicted = fitted.to_arviz(observed, num_samples=20, certificate=False, seed=1).posterior_predictive["x"]
    lengths = np.isfinite(predicted.to_numpy()).all(axis=-1).sum(axis=-1)
    assert (lengths[0] == [3, 7]).all()


def test_many_data_sets_keep_their_order():
    """Data sets of several lengths are summarized in the order of their lengths: answers are in that of the
    user."""
    fitted = workflow(simulator=SIMULATOR)
    fitted.fit_online(epochs=1, num_batches_per_epoch=4, batch_size=32)
    lengths = np.random.default_rng(1).integers(2, 12, 600)
    observed = {"x": [np.full((n, 1), 0.1 * k % 3) for k, n in enumerate(lengths)]}
    given = fitted.approximator.given(observed)
    for k in (0, 1, 299, 599):
        (alone,) = fitted.approximator.given({"x": [observed["x"][k]]})
        np.testing.assert_allclose(given[k], alone, atol=1e-5)
    np.testing.assert_allclose(fitted.approximator.given(observed, batch_size=7), given, atol=1e-5)


@pytest.mark.parametrize("names", [["tau", "y"], ["y", "tau"]])
def test_contexts_are_found_in_the_order_of_the_adapter(names):
    """Observations are compared by the column of the context, wherever the adapter puts it."""
    adapter = bf.Adapter().concatenate(names, into="inference_conditions")
    fitted = bf.BasicWorkflow(
        inference_variables=["mu"],
        inference_conditions=["y", "tau"],
        adapter=adapter,
        inference_network=FLOW,
        seed=1,
    )
    simulations = noisy().simulator.sample(600, seed=1)
    fitted.approximator.build(simulations, seed=1)
    fitted.approximator.learn_certificate(simulations, None, seed=1, contexts=["tau"])
    assert fitted.approximator.novelty.kept.context_columns.tolist() == [names.index("tau")]


@pytest.mark.nightly
def test_replicates_of_the_predictive_check_are_of_the_context_of_the_observation():
    """With a noise of 4.8 an observation of 6 is usual, and with one of 0.2 it is not."""
    usual, odd = noisy().certify({"y": np.array([[6.0], [6.0]]), "tau": np.array([[4.8], [0.2]])}, seed=1)
    assert usual.verdict == "passed"
    assert odd.verdict == "failed"
    assert usual.predictive > 0.05


@pytest.mark.filterwarnings("ignore::sbi_models.errors.TrustWarning")  # hardly trained
def test_data_sets_of_other_numbers_of_items_are_composed_in_one_call():
    """Three items of one data set and two of another, of several lengths, give what each has alone."""
    simulator = bf.make_simulator([{"mu": torch.distributions.Normal(torch.zeros(1), 1.0)}, variable_size])
    composing = bf.CompositionalWorkflow(
        simulator=simulator,
        inference_variables=["mu"],
        summary_variables=["x"],
        summary_network=SET,
        inference_network=DiffusionModel(widths=(8,), steps=4),
        seed=1,
    )
    composing.fit_online(epochs=1, num_batches_per_epoch=4, batch_size=32)
    arguments = {"num_samples": 5, "seed": 1, "calibration_simulations": 0}
    first, second = sets(3, 4, 6), sets(2, 5)
    together = composing.compositional_sample(conditions={"x": [first, second]}, **arguments)["mu"]
    alone = composing.compositional_sample(conditions={"x": [first]}, **arguments)["mu"]
    assert together.shape == (2, 5, 1)
    np.testing.assert_allclose(together[0], alone[0], atol=1e-4)


def variable_size(mu, rng):
    return {"x": rng.normal(mu, 1.0, size=(rng.integers(2, 12), 1))}
