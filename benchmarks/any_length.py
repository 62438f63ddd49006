"""Posteriors of data sets of any length against exact ones: regression, normal mean and variance.

    python benchmarks/any_length.py regression
    python benchmarks/any_length.py normal [online | offline | disk]
    python benchmarks/any_length.py speed

Regression: a line through N points, N from 5 to 50, drawn for each 16 simulations. Normal: mean and
variance of N normal numbers, N from 3 to 200, drawn for each row. Printed for each N: the error of the
posterior mean in exact sds (root mean square over data sets), and the ratio of posterior to exact sds. Speed:
seconds of training on sets of mixed lengths, over those on as many elements in sets of one length.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

import sbi_models as bf

_TESTS, _DRAWS, _EPOCHS, _BATCHES, _ROWS = 100, 2000, 60, 100, 256


def regression() -> None:
    """Intercept and slope with standard normal priors, noise of sd 0.5, x standard normal."""
    noise = 0.5

    def prior(rng, batch_shape):
        return {"beta": rng.normal(size=(*batch_shape, 2))}

    def likelihood(beta, number, rng):
        x = rng.normal(size=(len(beta), number))
        y = beta[:, :1] + beta[:, 1:] * x + noise * rng.normal(size=x.shape)
        return {"xy": np.stack([x, y], axis=-1)}

    simulator = bf.make_simulator(
        [prior, likelihood],
        meta_fn=lambda rng: {"number": rng.integers(5, 51)},
        is_batched=True,
    )
    workflow = bf.BasicWorkflow(
        simulator=simulator,
        inference_variables=["beta"],
        summary_variables=["xy"],
        summary_network="deep_set",
        inference_network="coupling_flow",
        seed=1,
    )
    workflow.fit_online(epochs=_EPOCHS, num_batches_per_epoch=_BATCHES, batch_size=_ROWS)
    for number in (5, 20, 50, 80):
        data = simulator.sample(_TESTS, seed=number, number=number)
        draws = workflow.sample(num_samples=_DRAWS, conditions={"xy": data["xy"]}, seed=2)["beta"]
        errors, ratios = [], []
        for xy, of_one in zip(data["xy"], draws, strict=True):
            design = np.stack([np.ones(number), xy[:, 0]], axis=1)
            covariance = np.linalg.inv(np.eye(2) + design.T @ design / noise**2)
            mean, sd = covariance @ design.T @ xy[:, 1] / noise**2, np.sqrt(np.diag(covariance))
            errors.append((of_one.mean(axis=0) - mean) / sd)
            ratios.append(of_one.std(axis=0) / sd)
        _report(number, errors, ratios)
        failed = sum(c.verdict == "failed" for c in workflow.approximator.certify({"xy": data["xy"]}, seed=3))
        print(f"       certificates failed: {failed} of {_TESTS}")


def normal(way: str = "online") -> None:
    """Mean and log variance; normal-inverse-gamma prior with mean 0, kappa 1, alpha 3, beta 2."""

    def prior(rng):
        variance = 2.0 / rng.gamma(3.0)
        return {"theta": np.array([rng.normal(0.0, variance**0.5), np.log(variance)])}

    def likelihood(theta, rng):
        number = rng.integers(3, 201)
        return {"x": rng.normal(theta[0], np.exp(theta[1] / 2), size=(number, 1))}

    simulator = bf.make_simulator([prior, likelihood])
    workflow = bf.BasicWorkflow(
        simulator=simulator,
        inference_variables=["theta"],
        summary_variables=["x"],
        summary_network="deep_set",
        inference_network="coupling_flow",
        seed=1,
    )
    rows = _ROWS * _BATCHES * 5
    if way == "online":
        workflow.fit_online(epochs=_EPOCHS, num_batches_per_epoch=_BATCHES, batch_size=_ROWS)
    elif way == "offline":
        workflow.fit_offline(simulator.sample(rows, seed=5), epochs=_EPOCHS // 5, batch_size=_ROWS)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for part in range(10):
                data = simulator.rows(part * rows // 10, (part + 1) * rows // 10, seed=5, progress=False)
                np.savez(Path(folder, f"{part}.npz"), **bf.datasets.to_arrays(data))
            workflow.fit_disk(folder, pattern="*.npz", epochs=_EPOCHS // 5, batch_size=_ROWS)
    held_out = simulator.sample(2000, seed=6)
    print(f"{way}: held-out loss {-np.mean(workflow.log_prob(held_out)):.3f}")
    for number in (3, 10, 50, 200):
        rng = np.random.default_rng(number)
        thetas = simulator.sample(_TESTS, seed=number)["theta"]
        x = np.stack([likelihood_of(theta, number, rng) for theta in thetas])
        draws = workflow.sample(num_samples=_DRAWS, conditions={"x": x}, seed=2)["theta"]
        errors, ratios = [], []
        for values, of_one in zip(x[..., 0], draws, strict=True):
            kappa, alpha = 1 + number, 3 + number / 2
            centre = values.sum() / kappa
            beta = 2 + 0.5 * ((values - values.mean()) ** 2).sum() + number * values.mean() ** 2 / (2 * kappa)
            variances = beta / rng.gamma(alpha, size=100_000)
            exact = np.stack([rng.normal(centre, np.sqrt(variances / kappa)), np.log(variances)], axis=1)
            errors.append((of_one.mean(axis=0) - exact.mean(axis=0)) / exact.std(axis=0))
            ratios.append(of_one.std(axis=0) / exact.std(axis=0))
        _report(number, errors, ratios)


def likelihood_of(theta, number, rng):
    """A set of so many numbers, (number, 1)."""
    return rng.normal(theta[0], np.exp(theta[1] / 2), size=(number, 1))


def speed() -> None:
    """Training on sets of 1 to 199 elements in random order, and of 100 elements each."""

    def sets(lengths):
        rng = np.random.default_rng(1)
        mu = rng.normal(size=(len(lengths), 1))
        x = [rng.normal(m, 1.0, size=(n, 1)) for m, n in zip(mu, lengths, strict=True)]
        return {"mu": mu, "x": x}

    mixed = sets(np.random.default_rng(2).integers(1, 200, size=12_800))
    equal = sets(np.full(12_800, sum(map(len, mixed["x"])) // 12_800))
    seconds = {}
    for _ in range(3):
        for name, data in {"mixed": mixed, "equal": equal}.items():
            workflow = bf.BasicWorkflow(
                inference_variables=["mu"],
                summary_variables=["x"],
                summary_network="deep_set",
                inference_network="coupling_flow",
                seed=1,
                progress=False,
            )
            began = time.process_time()
            workflow.fit_offline(data, epochs=2, batch_size=64)
            seconds[name] = min(seconds.get(name, np.inf), time.process_time() - began)
    print(f"CPU seconds {seconds}, ratio {seconds['mixed'] / seconds['equal']:.2f}")


def _report(number: int, errors: list, ratios: list) -> None:
    rms, ratio = np.sqrt(np.mean(np.square(errors), axis=0)), np.mean(ratios, axis=0)
    print(
        f"N={number:4d}  mean within {np.round(rms, 3)} exact sds, sd {np.round(ratio, 3)} of the exact one"
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"regression": regression, "normal": normal, "speed": speed}[sys.argv[1]](*sys.argv[2:])
