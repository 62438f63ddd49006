"""Base classes of inference networks and summary networks: what each kind of network promises.

The constructor is the configuration: every network records its arguments, so that `clone()` rebuilds it with
fresh weights and a saved file holds no code. Layers are made by `build`, once the widths of the data are
known.
"""

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from sbi_models.arguments import positive_int
from sbi_models.errors import ConfigurationError, suggest
from sbi_models.networks.noise import Generators

K = TypeVar("K")

Drawn = tuple[Tensor, ...]
"""The random numbers of a training loss, such as noises and times, each with one row for each pair."""


DiscreteColumns = tuple[tuple[int, str, int], ...]
"""The discrete columns of theta: column, "categorical" or "count", and number of categories (the values are 0
... C - 1) or largest count."""


NESTED = "network"
"""Key under which the JSON of a network describes another network among its arguments."""


def mapped(value: Any, kind: type[K], change: Callable[[K], Any]) -> Any:
    """A copy of nested dicts, lists and tuples, with `change` applied to every instance of `kind` inside."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, Mapping):
        return {name: mapped(item, kind, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped(item, kind, change) for item in value)
    return value


class Network(nn.Module):
    """A module that records its constructor's arguments."""

    registered_name: ClassVar[str] = ""
    __signature__: ClassVar[inspect.Signature]
    config: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give each class the signature of its constructor: Python would take that of `__new__`, below, for a
        class without a constructor of its own."""
        super().__init_subclass__(**kwargs)
        of_function = inspect.signature(cls.__init__)
        cls.__signature__ = of_function.replace(parameters=list(of_function.parameters.values())[1:])

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        network = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        known = [name for name in signature.parameters if name != "self"]
        for name in kwargs:
            if name not in known:
                raise ConfigurationError(f"{cls.__name__} has no argument {name!r}. {suggest(name, known)}")
        # Copying a module makes an instance without arguments and restores its attributes afterwards: hence
        # partial binding.
        arguments = signature.bind_partial(network, *args, **kwargs)
        arguments.apply_defaults()
        object.__setattr__(
            network,
            "config",
            {name: arguments.arguments[name] for name in known if name in arguments.arguments},
        )
        return network

    def __init__(self) -> None:
        super().__init__()
        self.built_with: dict[str, Any] | None = None

    def clone(self) -> Self:
        """The same architecture, not yet built, with fresh weights; networks among arguments, too."""
        return type(self)(**mapped(self.config, Network, Network.clone))

    def to_json(self) -> dict[str, Any]:
        """Registered name, configuration and the widths it was built with, as JSON.

        Networks among the arguments are described in their place.

        Raises:
            ConfigurationError: if the class has no registered name of its own: a file would hold it as the
                class that it comes from.
        """
        if "registered_name" not in vars(type(self)):
            raise ConfigurationError(
                f"{type(self).__name__} has no registered name, so that no file can hold it. Put "
                "@register('a_name_of_its_own') above the class, from sbi_models.networks."
            )
        config = mapped(self.config, Network, lambda network: {NESTED: network.to_json()})
        return {"name": self.registered_name, "config": config, "built_with": self.built_with}


class InferenceNetwork(Network, ABC):
    """A conditional density of standardized parameters given conditions.

    To write one: subclass, put `@register("name")` above it, and implement `_build`, `loss_given`, `draw` if
    the loss has random numbers, `sample` and, where there is a density, `log_prob`. A network may implement
    `loss` instead of `draw` and `loss_given`; the members of an ensemble of such networks then train one
    after the other, and not as one batch. There may be no conditions: they have shape (n, 0) then.

    >>> from sbi_models.networks import InferenceNetwork
    >>> from sbi_models.networks.noise import normal
    >>> class GaussianHead(InferenceNetwork):
    ...     def _build(self, theta_dim, condition_dim):
    ...         self.theta_dim = theta_dim
    ...         self.mean = nn.Linear(condition_dim, theta_dim)
    ...         self.log_sd = nn.Parameter(torch.zeros(theta_dim))
    ...
    ...     def loss_given(self, theta, conditions, drawn):
    ...         return -self.log_prob(theta, conditions)
    ...
    ...     def log_prob(self, theta, conditions):
    ...         law = torch.distributions.Normal(self.mean(conditions), self.log_sd.exp())
    ...         return law.log_prob(theta).sum(dim=-1)
    ...
    ...     def sample(self, num_samples, conditions, generator=None):
    ...         noise = normal((len(conditions), num_samples, self.theta_dim), generator, conditions)
    ...         return self.mean(conditions)[:, None] + self.log_sd.exp() * noise
    >>> network = GaussianHead()
    >>> network.build(2, 3)
    >>> tuple(network.sample(4, conditions=torch.zeros(5, 3)).shape)
    (5, 4, 2)
    >>> tuple(network.loss(theta=torch.zeros(5, 2), conditions=torch.zeros(5, 3)).shape)
    (5,)
    """

    has_draws: bool = True
    """False where there is nothing to sample from, as with point estimates."""

    has_density: bool = True
    """False where `log_prob` has no answer."""

    fits_graph: bool = True
    """False where a training step cannot be a CUDA graph: its loss asks the GPU for a result, or takes
    something there."""

    starts_from_data: bool = False
    """True where `start_from` looks at data."""

    takes_discrete: bool = False
    """True where columns of theta may be categories or counts, which `discrete` lists."""

    discrete: DiscreteColumns = ()
    """The discrete columns of theta, known from `build` on."""

    def build(self, theta_dim: int, condition_dim: int, discrete: Iterable[Iterable[Any]] = ()) -> None:
        """Make the layers, for the widths of parameters and conditions; a second call changes nothing.

        Args:
            theta_dim: width of the standardized parameters, at least 1.
            condition_dim: width of the conditions; 0 where there are none. PyTorch's warning of layers
                without inputs is put aside.
            discrete: discrete columns of theta, see `DiscreteColumns`.

        Raises:
            ConfigurationError: for discrete columns of a network that takes none.
        """
        if self.built_with is None:
            self.discrete = tuple((int(column), str(kind), int(size)) for column, kind, size in discrete)
            if self.discrete and not self.takes_discrete:
                raise ConfigurationError(
                    f"{type(self).__name__} has densities of continuous parameters alone, got discrete "
                    f"columns {self.discrete}. Use AutoregressiveMixture."
                )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Initializing zero-element tensors is a no-op")
                self._build(theta_dim, condition_dim)
            self.built_with = {"theta_dim": theta_dim, "condition_dim": condition_dim}
            if self.discrete:
                self.built_with["discrete"] = [list(column) for column in self.discrete]

    @abstractmethod
    def _build(self, theta_dim: int, condition_dim: int) -> None:
        """Make the layers; with condition_dim 0, conditions of shape (n, 0) follow."""

    def learn_discrete(self, theta: Tensor) -> None:
        """Look at the discrete columns of training data theta (n, theta_dim), before `start_from`."""

    def start_from(self, theta: Tensor, conditions: Tensor) -> None:
        """Look at standardized training data, (n, theta_dim) and (n, condition_dim), for a better start."""

    def loss(self, theta: Tensor, conditions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Training loss of each pair, shape (n,).

        theta (n, theta_dim) is standardized, conditions are (n, condition_dim).
        """
        return self.loss_given(theta, conditions, self.draw(theta, generator))

    def draw(self, theta: Tensor, generator: torch.Generator | None = None) -> Drawn:
        """Random numbers of the loss of standardized theta (n, theta_dim), each (n, ...); none by default."""
        del theta, generator
        return ()

    def loss_given(self, theta: Tensor, conditions: Tensor, drawn: Drawn) -> Tensor:
        """The loss as a function of its random numbers.

        It draws none itself, and looks at no value of a tensor in Python.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no training loss. Implement loss_given, and draw if it has "
            "random numbers."
        )

    @abstractmethod
    def sample(self, num_samples: int, conditions: Tensor, generator: Generators = None) -> Tensor:
        """Standardized draws (n, num_samples, theta_dim) given conditions (n, condition_dim).

        The generator is one for all rows, or one for each.
        """

    def log_prob(self, theta: Tensor, conditions: Tensor) -> Tensor:
        """Log density in nats, (n,), of standardized theta (n, theta_dim) given conditions.

        Raises:
            ConfigurationError: if this kind of network has no density.
        """
        raise ConfigurationError(
            f"{type(self).__name__} has no density, so there is no log_prob. Train a CouplingFlow, "
            "FlowMatching or DiffusionModel for one."
        )

    def log_prob_of_each(self, theta: Tensor, conditions: Tensor) -> Tensor:
        """Log densities in nats, (n, N), of standardized theta (n, N, theta_dim) given conditions (n, c).

        All N of a row have the conditions of the row.
        """
        n, number, _ = theta.shape
        return self.log_prob(theta.flatten(0, 1), conditions.repeat_interleave(number, dim=0)).reshape(
            n, number
        )


class RatioNetwork(InferenceNetwork, ABC):
    """A ratio p(theta | conditions) / p(theta) of standardized theta, in the place of a density.

    For `LikelihoodWorkflow`, where theta are observables and conditions are parameters. Implement `embed` and
    `log_ratio_of_each`.
    """

    has_draws = False
    has_density = False

    @abstractmethod
    def embed(self, theta: Tensor) -> Tensor:
        """Features (n, w) of standardized theta (n, theta_dim), which do not depend on the conditions."""

    @abstractmethod
    def log_ratio_of_each(self, features: Tensor, conditions: Tensor) -> Tensor:
        """Log ratios in nats, (n, N), of theta with features (n, N, w), all N given conditions (n, c)."""

    def log_ratio(self, theta: Tensor, conditions: Tensor) -> Tensor:
        """Log ratios in nats, (n,), of standardized theta (n, theta_dim) given conditions (n, c)."""
        return self.log_ratio_of_each(self.embed(theta)[:, None], conditions)[:, 0]

    def sample(self, num_samples: int, conditions: Tensor, generator: Generators = None) -> Tensor:
        """There are none.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"{type(self).__name__} has no draws: it estimates a ratio. LikelihoodWorkflow draws parameters "
            "with it."
        )


class SummaryNetwork(Network, ABC):
    """A learned summary statistic.

    To write one: subclass, put `@register("name")` above it, take `summary_dim`, the width of the summary
    whatever that of the data, and implement `_build`, which refuses inputs of other axes (`check_axes`), and
    `forward`, which leaves out what the mask leaves out (`without_padding`, `mean_over`). The summary of a
    set should also tell its spread (`log_spread_over`) and its size (`log_count`), which a mean does not;
    those of this package are tested for it.

    >>> from sbi_models.networks import SummaryNetwork
    >>> from sbi_models.networks.layers.masks import (
    ...     SETS_ONLY,
    ...     check_axes,
    ...     log_count,
    ...     log_spread_over,
    ...     mean_over,
    ...     without_padding,
    ... )
    >>> class Moments(SummaryNetwork):
    ...     def __init__(self, summary_dim: int = 8) -> None:
    ...         super().__init__()
    ...         self.summary_dim = summary_dim
    ...
    ...     def _build(self, input_shape):
    ...         check_axes("Moments summarizes sets", input_shape, ("set_size", "features"), SETS_ONLY)
    ...         self.head = nn.Linear(2 * input_shape[1] + 1, self.summary_dim)
    ...
    ...     def forward(self, x, mask=None):
    ...         x, mask = without_padding(x, mask)
    ...         mean = mean_over(x, mask)
    ...         spread = log_spread_over(x, mask, mean)
    ...         return self.head(torch.cat([mean, spread, log_count(x, mask)], dim=-1))
    >>> network = Moments()
    >>> network.build((6, 2))
    >>> tuple(network(torch.zeros(3, 6, 2), torch.ones(3, 6)).shape)
    (3, 8)
    """

    summary_dim: int

    input_names: tuple[str, ...] = ()
    """Names of the inputs of a network that takes several, as dicts of tensors and of masks; none for a
    network that takes one tensor."""

    def build(self, input_shape: Any) -> None:
        """Make the layers for standardized inputs (n, *input_shape); a second call changes nothing.

        A network of several inputs takes a dict of shapes.
        """
        if self.built_with is None:
            positive_int(self.summary_dim, "summary_dim")
            several = isinstance(input_shape, Mapping)
            self._build(
                {name: tuple(shape) for name, shape in input_shape.items()} if several else tuple(input_shape)
            )
            shape = (
                {name: list(shape) for name, shape in input_shape.items()} if several else list(input_shape)
            )
            self.built_with = {"input_shape": shape}

    def takes_any_length(self, name: str | None = None) -> bool:
        """Whether data sets may differ in length, the first axis of the input shape, with a mask for padding.

        A network of your own that leaves out what the mask leaves out, whatever the length, returns True.
        `name` is one of the inputs of a network that takes several.
        """
        del name
        return False

    @abstractmethod
    def _build(self, input_shape: Any) -> None: ...

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Summaries (n, summary_dim) of standardized x (n, *input_shape).

        The mask, (n, length) or (n, height, width), is True where an element counts. The others may hold
        anything: the summary is the one without them, and it is finite if there is none left.
        """
