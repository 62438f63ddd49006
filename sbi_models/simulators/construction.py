"""Construction of simulators from functions."""

from collections.abc import Sequence

from sbi_models.arguments import known_arguments
from sbi_models.errors import ConfigurationError
from sbi_models.simulators.arguments import Function, Part
from sbi_models.simulators.failures import FailurePolicy
from sbi_models.simulators.simulator import Simulator


@known_arguments
def make_simulator(
    functions: Part | Sequence[Part] | Simulator,
    meta_fn: Function | None = None,
    *,
    is_batched: bool = False,
    block_size: int | None = None,
    failures: FailurePolicy | None = None,
) -> Simulator:
    """Create a simulator from one or several functions; a simulator is returned unchanged.

    Arguments and errors are those of `Simulator`.

    >>> def prior(rng): return {"theta": rng.normal(size=2)}
    >>> def likelihood(theta, rng): return {"x": rng.normal(theta[0], 1.0, size=(20, 1))}
    >>> simulator = make_simulator([prior, likelihood])
    >>> {name: value.shape for name, value in simulator.sample(3, seed=1).items()}
    {'theta': (3, 2), 'x': (3, 20, 1)}
    """
    if isinstance(functions, Simulator):
        if failures is not None or meta_fn is not None or is_batched or block_size is not None:
            raise ConfigurationError(
                "Expected functions together with further arguments, got a simulator. Give them "
                "where it is made."
            )
        return functions
    sequence = list(functions) if isinstance(functions, Sequence) else [functions]
    return Simulator(
        sequence, meta_fn=meta_fn, is_batched=is_batched, block_size=block_size, failures=failures
    )
