"""Networks by name: the only classes that model files and strings may build."""

from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar

from sbi_models.errors import ConfigurationError, ModelFileError, suggest
from sbi_models.networks.base import NESTED, Network
from sbi_models.registry import Registry
from sbi_models.safe_construction import check_arguments, misfit
from sbi_models.torch_defaults import single_precision

T = TypeVar("T", bound=type[Network])
K = TypeVar("K", bound=Network)

NETWORKS: Registry[type[Network]] = Registry("network", attribute="registered_name")
"""Class of each network by its name."""


class NetworkEntry(TypedDict):
    """A network as `Network.to_json()` describes it."""

    name: str
    config: dict[str, Any]
    built_with: dict[str, Any] | None


def register(name: str) -> Callable[[T], T]:
    """Class decorator that registers a network under a name, for files and `inference_network="name"`.

    Raises:
        ConfigurationError: if another class has the name.
    """
    return NETWORKS.register(name)


def network_named(name: str, arguments: Mapping[str, Any] | None = None, kind: type[K] = Network) -> K:  # type: ignore[assignment]
    """A new network of a registered name, with the arguments that differ from its defaults.

    Raises:
        ConfigurationError: if no network of this kind has the name.
    """
    known = [other for other, cls in NETWORKS.items() if issubclass(cls, kind)]
    if name not in known:
        raise ConfigurationError(f"Unknown {kind.__name__} {name!r}. {suggest(name, known)}")
    with single_precision():
        network: K = NETWORKS[name](**(arguments or {}))  # type: ignore[assignment]
    return network


def resolve(network: K | type[K] | str, kind: type[K]) -> K:
    """A new network of a kind, inference or summary, from an instance, a class, or a registered name.

    An instance is cloned: two workflows that were given the same one do not share weights.

    Raises:
        ConfigurationError: for an unknown name, or something of another kind.
    """
    if isinstance(network, str):
        return network_named(network, kind=kind)
    with single_precision():
        if isinstance(network, type) and issubclass(network, kind):
            return network()
        if not isinstance(network, kind):
            raise ConfigurationError(f"Expected a {kind.__name__}, its class or its name, got {network!r}.")
        return network.clone()


def network_from_json(entry: dict[str, Any]) -> Network:
    """The network that `Network.to_json()` described, built, with fresh weights.

    Raises:
        ModelFileError: if no network of that name is registered, or its arguments are not of the types that
            it takes.
    """
    if message := misfit(entry, NetworkEntry, "a network"):
        raise ModelFileError(message)
    name = entry["name"]
    if name not in NETWORKS:
        raise ModelFileError(
            f"The file names an unknown network {name!r}. {suggest(name, NETWORKS)} Register your "
            "own before loading."
        )
    config = _with_networks(entry["config"])
    check_arguments(NETWORKS[name], config, name, sizes=True)
    with single_precision():
        network = NETWORKS[name](**config)
        if entry["built_with"]:
            network.build(**entry["built_with"])  # type: ignore[operator]
    return network


def _with_networks(value: Any) -> Any:
    """A configuration with the networks that `Network.to_json()` described inside it."""
    if isinstance(value, dict):
        if value.keys() == {NESTED}:
            return network_from_json(value[NESTED])
        return {name: _with_networks(item) for name, item in value.items()}
    return [_with_networks(item) for item in value] if isinstance(value, list) else value
