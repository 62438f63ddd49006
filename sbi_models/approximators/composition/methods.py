"""Registry of the composition methods: from items, prior and plan to draws and a report."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor

from sbi_models.approximators.composition.items import Fresh, Items
from sbi_models.approximators.composition.plan import Moments, Plan
from sbi_models.approximators.composition.prior_scores import PriorScore
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.registry import Registry


class Method(Protocol):
    """A function that draws from the posterior given all items of one data set."""

    def __call__(
        self,
        items: Items,
        prior: PriorScore,
        moments: Moments,
        num_samples: int,
        plan: Plan,
        *,
        fresh: Fresh | None,
    ) -> tuple[Tensor, CompositionReport]:
        """Draws (num_samples, d), standardized space, float64, and diagnostics of them.

        Args:
            items: posteriors of single items, one or more.
            prior: score of the prior.
            moments: mean (d,) and covariance (d, d) of the prior.
            num_samples: number of draws.
            plan: noise of the scores, number of simulations, seed.
            fresh: simulations of items at given parameters; None without a simulator, and for a method that
                is registered without `simulates`.
        """


M = TypeVar("M", bound=Method)

METHODS: Registry[Method] = Registry("method of composition")
"""Composition methods by name."""

SIMULATING: set[str] = set()
"""Names of the methods that ask for simulations."""


def register_method(name: str, *, simulates: bool = False) -> Callable[[M], M]:
    """Decorator that registers a composition method under a name, for `method="name"`.

    Args:
        name: name of the method.
        simulates: whether it asks for simulations, where the workflow has a simulator.

    Raises:
        ConfigurationError: if another function has the name.
    """

    def add(method: M) -> M:
        METHODS.register(name)(method)
        if simulates:
            SIMULATING.add(name)
        return method

    return add
