"""What `LikelihoodWorkflow` chooses where its network is a word: "auto" for densities, "ratio" for ratios."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from torch.distributions import Distribution

from sbi_models.adapters import Adapter
from sbi_models.approximators import LikelihoodApproximator
from sbi_models.errors import ConfigurationError
from sbi_models.networks import AutoregressiveMixture, ContrastiveRatio, InferenceNetwork, SummaryNetwork
from sbi_models.networks.registry import resolve
from sbi_models.types import Variables
from sbi_models.workflows.construction import SummaryNetworkLike
from sbi_models.workflows.likelihood.automatic import chosen_adapter

AUTO, RATIO = "auto", "ratio"
"""Names, in place of a network, that leave networks and training to the workflow."""

_COMPONENTS = 12
"""Normals of each mixture of the automatic networks."""

_MOST_WITHOUT_TRUNK = 2
"""Largest number of columns of conditions that the heads of a network read without a trunk."""

Networks = Mapping[str, InferenceNetwork]
Priors = Mapping[str, Distribution]


class Chosen(NamedTuple):
    """Networks of the members, and the adapter, that were chosen for data."""

    networks: Networks
    adapter: Adapter | None


class Choice(ABC):
    """Networks and transforms that are chosen by the simulations."""

    is_weighted: bool
    """Whether members have weights by held-out simulations; else they are equal."""

    @abstractmethod
    def network(self) -> InferenceNetwork:
        """The network of every member, before data are known."""

    @abstractmethod
    def for_simulations(self, dropout: float) -> Networks:
        """Networks of the members for finite data, where the user did not say how many."""

    @abstractmethod
    def for_data(
        self, first: LikelihoodApproximator, chosen: Chosen, data: Variables, priors: Priors
    ) -> Chosen:
        """What is better than the networks and the adapter so far, for raw data.

        Args:
            first: the first member, not yet built.
            chosen: networks, and the adapter of the user if there is one.
            data: raw simulations.
            priors: priors of the parameters by name, as far as they are known.
        """


class AutomaticDensity(Choice):
    """Mixtures for observables and parameters on the scales that simulations suggest."""

    is_weighted = True

    def network(self) -> InferenceNetwork:
        """A mixture of any form."""
        return _mixture(_COMPONENTS)

    def for_simulations(self, dropout: float) -> Networks:
        """Networks that are normal given the components before, and of any form."""
        return {"normal": _mixture(1, dropout), "mixture": _mixture(_COMPONENTS, dropout)}

    def for_data(
        self, first: LikelihoodApproximator, chosen: Chosen, data: Variables, priors: Priors
    ) -> Chosen:
        """Transforms by the simulations; networks of one or two conditions have no trunk."""
        if chosen.adapter is not None:
            return chosen
        adapter = chosen_adapter(
            first.elements(data, "data")[0],
            parameters=first.parameter_names,
            observables=first.inference_names,
            priors=priors,
        )
        columns = sum(np.shape(data[name])[-1] for name in first.condition_names)
        networks = chosen.networks
        if columns <= _MOST_WITHOUT_TRUNK:
            networks = {
                name: type(network)(**{**network.config, "trunk_width": 0, "head_blocks": 2})
                for name, network in networks.items()
            }
        return Chosen(networks, adapter if adapter.transforms else None)


class AutomaticRatio(Choice):
    """Classifiers of vectors, or of what a summary network makes of an image or a series."""

    is_weighted = False

    def __init__(self, summary_network: SummaryNetworkLike | None) -> None:
        self.summary_network = None if summary_network is None else resolve(summary_network, SummaryNetwork)  # type: ignore[type-abstract]

    def network(self) -> InferenceNetwork:
        """A classifier."""
        return ContrastiveRatio()

    def for_simulations(self, dropout: float) -> Networks:
        """One classifier."""
        del dropout
        return {"0": self.network()}

    def for_data(
        self, first: LikelihoodApproximator, chosen: Chosen, data: Variables, priors: Priors
    ) -> Chosen:
        """The shape of one observable, for the summary network."""
        if self.summary_network is None:
            return chosen
        shapes = [np.shape(data[name])[1:] for name in first.inference_names]
        if len(shapes) > 1 or first.iid is not None:
            raise ConfigurationError(
                f"Expected one observable and iid=None with a summary_network, got {len(shapes)} and "
                f"iid={first.iid!r}. Leave the summary_network out for vectors."
            )
        more = {"summary_network": self.summary_network, "shape": shapes[0]}
        networks = {
            name: type(network)(**{**network.config, **more}) for name, network in chosen.networks.items()
        }
        return Chosen(networks, chosen.adapter)


def choice_of(network: object, summary_network: SummaryNetworkLike | None) -> Choice | None:
    """What a word in place of a network means; None for a network.

    Raises:
        ConfigurationError: for a summary network beside anything but "ratio".
    """
    is_ratio = isinstance(network, str) and network == RATIO
    if summary_network is not None and not is_ratio:
        raise ConfigurationError(
            'Expected summary_network with network="ratio" alone, since a density is one of the observables '
            f"as they are, got network={network!r}. Leave it out, or pass a ContrastiveRatio that has it."
        )
    if is_ratio:
        return AutomaticRatio(summary_network)
    return AutomaticDensity() if isinstance(network, str) and network == AUTO else None


def _mixture(components: int, dropout: float = 0.0) -> AutoregressiveMixture:
    return AutoregressiveMixture(components, trunk_blocks=1, head_blocks=1, dropout=dropout, order="given")
