"""Models with known posteriors given many items: priors, likelihood, and exact moments.

Every posterior is known in closed form, or by a sum over a grid that is laid anew until it fits. Moments are
those of the raw parameters.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np
import torch
from exact_moments import Exact, of_beta, of_gamma, on_grid
from torch import distributions as td

import sbi_models as bf
from sbi_models.simulators.benchmarks.normal import NormalModel

Arrays = Mapping[str, np.ndarray]


class Bed:
    """Model; `names` are its parameters, `item` its observed variables, `are_sets` true for sets.

    `prior` and `likelihood` are functions of a batched simulator. `torch_prior` is the same prior as torch
    distributions; a variable that depends on another one comes from the function `rest`, which is called
    after them. `possible` tells parameters that the prior can give; `num_impossible` counts the others that
    simulators of this bed were called at.
    """

    names: tuple[str, ...] = ("theta",)
    item: tuple[str, ...] = ("x",)
    are_sets = False
    two_modes = False
    rest: Callable[..., Any] | None = None
    num_impossible = 0

    def prior(self, batch_size: int, rng: np.random.Generator) -> Any:
        raise NotImplementedError

    def torch_prior(self) -> dict[str, td.Distribution]:
        raise NotImplementedError

    def likelihood(self, **arguments: Any) -> Any:
        raise NotImplementedError

    def exact(self, items: Arrays) -> Exact:
        """The posterior given items, name to (n, ...)."""
        raise NotImplementedError

    def possible(self, parameters: Arrays) -> np.ndarray:
        """Mask of rows of parameters, name to (n, width), in the support of the prior."""
        return np.ones(len(parameters[self.names[0]]), dtype=bool)

    @property
    def element(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Observables of one element, and what is known beside it."""
        return self.item, ()

    def simulator(self, prior: str) -> bf.Simulator:
        """Simulator with a prior as "function" or "torch"; it counts calls at impossible parameters."""

        @wraps(self.likelihood)
        def likelihood(**arguments):
            rows = {name: arguments[name].reshape(len(arguments[name]), -1) for name in self.names}
            self.num_impossible += int((~self.possible(rows)).sum())
            return self.likelihood(**arguments)

        of_torch = [self.torch_prior()] if self.rest is None else [self.torch_prior(), self.rest]
        parts = [self.prior] if prior == "function" else of_torch
        return bf.make_simulator([*parts, likelihood], is_batched=True)

    def data_set(self, n: int, rng: np.random.Generator) -> Arrays:
        """Items, name to (n, ...), of one draw of the prior."""
        theta = {
            name: np.repeat(value, n, axis=0) for name, value in self.prior(batch_size=1, rng=rng).items()
        }
        return self.likelihood(**theta, rng=rng)


class Bernoulli(Bed):
    """theta ~ Beta(2, 2), items 0 or 1."""

    def torch_prior(self):
        return {"theta": td.Beta(2.0, 2.0)}

    def prior(self, batch_size, rng):
        return {"theta": rng.beta(2, 2, size=(batch_size, 1))}

    def likelihood(self, theta, rng):
        return {"x": rng.binomial(1, np.clip(theta, 0, 1)).astype(float)}

    def possible(self, parameters):
        return ((parameters["theta"] >= 0) & (parameters["theta"] <= 1)).all(axis=1)

    def exact(self, items):
        ones = items["x"].sum(axis=0)
        return of_beta(2 + ones, 2 + len(items["x"]) - ones)


class OfRate(Bed):
    """A positive rate ~ Gamma(3, 1)."""

    names = ("rate",)

    def torch_prior(self):
        return {"rate": td.Gamma(3.0, 1.0)}

    def prior(self, batch_size, rng):
        return {"rate": rng.gamma(3.0, size=(batch_size, 1))}

    def possible(self, parameters):
        return (parameters["rate"] > 0).all(axis=1)


class Exponential(OfRate):
    """rate ~ Gamma(3, 1), items are times."""

    def likelihood(self, rate, rng):
        return {"x": rng.exponential(size=rate.shape) / np.maximum(rate, 1e-6)}

    def exact(self, items):
        return of_gamma(3.0 + len(items["x"]), 1.0 + items["x"].sum())


class Poisson(OfRate):
    """rate ~ Gamma(3, 1), items are counts."""

    def likelihood(self, rate, rng):
        return {"x": rng.poisson(np.clip(rate, 0, 1e6)).astype(float)}

    def exact(self, items):
        return of_gamma(3.0 + items["x"].sum(), 1.0 + len(items["x"]))


class Categorical(Bed):
    """p ~ Dirichlet(2, 2, 2), items one of three.

    The function gives the first two of p, the torch distribution all of them.
    """

    names = ("p",)

    def torch_prior(self):
        return {"p": td.Dirichlet(torch.full((3,), 2.0))}

    def prior(self, batch_size, rng):
        return {"p": rng.dirichlet([2.0, 2.0, 2.0], size=batch_size)[:, :2]}

    def likelihood(self, p, rng):
        first_two = np.cumsum(p[:, :2], axis=1)
        return {"x": np.eye(3)[(rng.uniform(size=(len(p), 1)) > first_two).sum(axis=1)]}

    def possible(self, parameters):
        p = parameters["p"]
        sums = p[:, :2].sum(axis=1) <= 1 + 1e-9 if p.shape[1] == 2 else abs(p.sum(axis=1) - 1) < 1e-4
        return (p >= 0).all(axis=1) & sums

    def exact(self, items):
        counts = 2.0 + items["x"].sum(axis=0)
        return of_beta(counts, counts.sum() - counts)


class Simplex(Categorical):
    """The same, and the function gives all three of p, which sum to one."""

    def prior(self, batch_size, rng):
        return {"p": rng.dirichlet([2.0, 2.0, 2.0], size=batch_size)}


class NormalInverseGamma(Bed):
    """variance ~ InverseGamma(3, 2), mean ~ N(0, variance), items 5 normals each."""

    names = ("mean", "variance")
    are_sets = True

    def torch_prior(self):
        return {"variance": td.InverseGamma(3.0, 2.0)}

    def rest(self, variance, rng):
        return {"mean": np.sqrt(np.maximum(variance, 0)) * rng.normal(size=variance.shape)}

    def prior(self, batch_size, rng):
        variance = 2.0 / rng.gamma(3.0, size=(batch_size, 1))
        return {"variance": variance} | self.rest(variance, rng)

    def likelihood(self, mean, variance, rng):
        noise = rng.normal(size=(len(mean), 5, 1))
        return {"x": mean.reshape(-1, 1, 1) + np.sqrt(np.maximum(variance.reshape(-1, 1, 1), 0)) * noise}

    def possible(self, parameters):
        return (parameters["variance"] > 0).all(axis=1)

    def exact(self, items):
        x = items["x"].ravel()
        n, mean = len(x), x.mean()
        a, b = 3.0 + n / 2, 2.0 + ((x - mean) ** 2).sum() / 2 + n * mean**2 / (n + 1) / 2
        variance = b / (a - 1)
        return Exact(
            np.array([n * mean / (n + 1), variance]),
            np.array([np.sqrt(variance / (n + 1)), variance / np.sqrt(a - 2)]),
        )


class UniformPareto(Bed):
    """theta ~ Pareto of scale 1 and shape 3, items uniform on [0, theta]."""

    def torch_prior(self):
        return {"theta": td.Pareto(1.0, 3.0)}

    def prior(self, batch_size, rng):
        return {"theta": 1.0 + rng.pareto(3.0, size=(batch_size, 1))}

    def likelihood(self, theta, rng):
        return {"x": theta * rng.uniform(size=theta.shape)}

    def possible(self, parameters):
        return (parameters["theta"] >= 1 - 1e-6).all(axis=1)

    def exact(self, items):
        scale, shape = np.maximum(items["x"].max(axis=0), 1.0), 3.0 + len(items["x"])
        return Exact(scale * shape / (shape - 1), scale / (shape - 1) * np.sqrt(shape / (shape - 2)))


class Regression(Bed):
    """theta ~ N(0, I_5), an item is a design point x ~ N(0, I_5) and y = x theta + 0.5 z."""

    item = ("x", "y")

    @property
    def element(self):
        return ("y",), ("x",)

    def torch_prior(self):
        return {"theta": td.Independent(td.Normal(torch.zeros(5), torch.ones(5)), 1)}

    def prior(self, batch_size, rng):
        return {"theta": rng.normal(size=(batch_size, 5))}

    def likelihood(self, theta, rng):
        x = rng.normal(size=theta.shape)
        return {"x": x, "y": (x * theta).sum(axis=1, keepdims=True) + 0.5 * rng.normal(size=(len(theta), 1))}

    def exact(self, items):
        covariance = np.linalg.inv(np.eye(5) + items["x"].T @ items["x"] / 0.25)
        return Exact(covariance @ items["x"].T @ items["y"][:, 0] / 0.25, np.sqrt(np.diag(covariance)))


class Student(Bed):
    """location ~ N(0, 1), log_scale ~ N(0, 0.5), items Student-t with 4 degrees of freedom, on a grid."""

    names = ("location", "log_scale")

    def torch_prior(self):
        return {"location": td.Normal(0.0, 1.0), "log_scale": td.Normal(0.0, 0.5)}

    def prior(self, batch_size, rng):
        return {
            "location": rng.normal(size=(batch_size, 1)),
            "log_scale": 0.5 * rng.normal(size=(batch_size, 1)),
        }

    def likelihood(self, location, log_scale, rng):
        return {"x": location + np.exp(log_scale) * rng.standard_t(4, size=location.shape)}

    def exact(self, items):
        def log_density(grid):
            location, log_scale = grid[..., 0], grid[..., 1]
            logs = -(location**2) / 2 - (log_scale / 0.5) ** 2 / 2 - len(items["x"]) * log_scale
            for part in np.array_split(items["x"][:, 0], 1 + len(items["x"]) // 64):
                squares = ((part - location[..., None]) * np.exp(-log_scale[..., None])) ** 2
                logs = logs - 2.5 * np.log1p(squares / 4).sum(axis=-1)
            return logs

        return on_grid(log_density, [-6.0, -3.5], [6.0, 3.5], 161)


class Bimodal(Bed):
    """theta ~ N(0.5, 1), items theta^2 + 0.5 z; exact by a grid."""

    two_modes = True

    def torch_prior(self):
        return {"theta": td.Normal(0.5, 1.0)}

    def prior(self, batch_size, rng):
        return {"theta": rng.normal(0.5, 1.0, size=(batch_size, 1))}

    def likelihood(self, theta, rng):
        return {"x": theta**2 + 0.5 * rng.normal(size=theta.shape)}

    def exact(self, items):
        n, mean = len(items["x"]), items["x"].mean()

        def log_density(grid):
            theta = grid[..., 0]
            return -((theta - 0.5) ** 2) / 2 - n * (theta**2 - mean) ** 2 / 0.5

        return on_grid(log_density, [-6.0], [7.0], 20_001)


class NormalItems(Bed):
    """Mean and log variance of 20 normals, theta ~ N(0, I_2); exact by a quadrature."""

    are_sets = True

    def torch_prior(self):
        return {"theta": td.MultivariateNormal(torch.zeros(2), torch.eye(2))}

    model = NormalModel()

    def prior(self, batch_size, rng):
        return self.model.prior(batch_size, rng)

    def likelihood(self, theta, rng):
        return self.model.likelihood(theta, len(theta), rng)

    def exact(self, items):
        found = self.model.posterior(items["x"].reshape(-1, 1))
        return Exact(found.mean, found.sd)


class UniformItems(NormalItems):
    """The same with a uniform prior on [-2, 2]^2; exact by a grid."""

    def torch_prior(self):
        return {"theta": td.Independent(td.Uniform(torch.full((2,), -2.0), torch.full((2,), 2.0)), 1)}

    def prior(self, batch_size, rng):
        return {"theta": rng.uniform(-2.0, 2.0, size=(batch_size, 2))}

    def possible(self, parameters):
        return (abs(parameters["theta"]) <= 2 + 1e-6).all(axis=1)

    def exact(self, items):
        x = items["x"]
        count, mean, square = x.size, x.mean(), ((x - x.mean()) ** 2).sum()

        def log_density(theta):
            return -count / 2 * theta[..., 1] - (square + count * (theta[..., 0] - mean) ** 2) / (
                2 * np.exp(theta[..., 1])
            )

        return on_grid(log_density, [-2.0, -2.0], [2.0, 2.0], 401)


class Linear(Bed):
    """theta ~ N(0, I_5), items N(M theta, 0.5 I_5)."""

    def torch_prior(self):
        return Regression().torch_prior()

    matrix = np.eye(5) + 0.3 * np.random.default_rng(0).normal(size=(5, 5))

    def prior(self, batch_size, rng):
        return {"theta": rng.normal(size=(batch_size, 5))}

    def likelihood(self, theta, rng):
        return {"x": theta @ self.matrix.T + np.sqrt(0.5) * rng.normal(size=theta.shape)}

    def exact(self, items):
        covariance = np.linalg.inv(np.eye(5) + len(items["x"]) * self.matrix.T @ self.matrix / 0.5)
        return Exact(covariance @ self.matrix.T @ items["x"].sum(axis=0) / 0.5, np.sqrt(np.diag(covariance)))


BEDS: dict[str, Bed] = {
    "bernoulli": Bernoulli(),
    "exponential": Exponential(),
    "poisson": Poisson(),
    "categorical": Categorical(),
    "simplex": Simplex(),
    "nig": NormalInverseGamma(),
    "pareto": UniformPareto(),
    "regression": Regression(),
    "student": Student(),
    "bimodal": Bimodal(),
    "normal": NormalItems(),
    "uniform": UniformItems(),
    "linear": Linear(),
}
