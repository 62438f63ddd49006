"""Workflow of an ensemble: several approximators of the same posterior."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from torch.distributions import Distribution

from sbi_models.adapters import Adapter
from sbi_models.approximators import EnsembleApproximator
from sbi_models.arguments import known_arguments
from sbi_models.datasets import LoadFunction, PerFile, Sharing, SimulationStore
from sbi_models.errors import ConfigurationError
from sbi_models.simulators import Simulator
from sbi_models.training.fit_plan import FitPlan
from sbi_models.training.history import History
from sbi_models.training.member_parts import Part, PartLike, chosen_members
from sbi_models.training.settings import FitOptions, TrainingOptions, TrainingSettings
from sbi_models.types import VariablesLike
from sbi_models.workflows.construction import (
    InferenceNetworkLike,
    Names,
    Recipe,
    SummaryNetworkLike,
    check_same_roles,
    networks_by_member,
    roles_of,
    summary_networks_by_member,
)
from sbi_models.workflows.ensemble_inference import EnsembleInference


@known_arguments
class EnsembleWorkflow(EnsembleInference):
    """Amortized posterior estimation with several members, queried one by one or as their mixture.

    Members share the adapter and the moments, and nothing else: each has inference and summary networks,
    initial weights, noise, best epoch and early stop of its own. A member's result does not depend on which
    others there are, if all have the same data; of members that are trained as one batch, it does in the last
    bits.

    Members may also train apart, such as each in a process of its own, to the same result as together, to the
    bit in single precision:

        apart = make_workflow()
        apart.fit_offline(data, members=["0"])  # and so on, anywhere
        workflow.fit_offline(data, parts=[*apart.parts, ...])  # trains nothing: puts them together

    Args:
        simulator: source of training data.
        inference_variables: raw names of what to infer.
        summary_variables: raw names of what goes through the summary networks.
        inference_conditions: raw names of what goes straight to the inference networks.
        inference_networks: one network for every member, which needs `ensemble_size`, or a dict of members to
            networks, of any kinds that have posterior draws: instances, classes or names. Or an
            `EnsembleApproximator`, such as a loaded one, to go on training.
        summary_networks: one for every member, or a dict of members to networks; each member has a clone.
            None is a `TimeSeriesTransformer` if there are summary variables.
        ensemble_size: number of members, named "0", "1", ..., if one inference network is given; at least 2.
        batched: whether the members of one architecture train as one batched module, with the weights of all
            members stacked in each layer: True demands it, False never does it, None does it on a GPU where
            it can be done. On a CPU members train one after the other then, which is faster but for coupling
            flows. Results are the same up to rounding; only side by side are those of a member the same to
            the bit whoever else is in the ensemble. Members with dropout or recurrence, compiled ones, and
            those with a loss that draws its own random numbers cannot be batched.
        adapter, summary_mask, missing, prior, standardize, info, training: arguments as for `BasicWorkflow`;
            with `early_stopping`, each member stops by its own losses and goes back to its own best weights,
            and `save_best_only` keeps the best weights of each.

    Raises:
        ConfigurationError: for arguments that are misspelt or do not fit together.

    >>> import numpy as np, sbi_models as bf
    >>> def prior(rng):
    ...     return {"theta": rng.normal(size=2)}
    >>> def observe(theta, rng):
    ...     return {"x": theta + 0.1 * rng.normal(size=2)}
    >>> simulator = bf.make_simulator([prior, observe])
    >>> workflow = bf.EnsembleWorkflow(
    ...     simulator,
    ...     inference_variables="theta",
    ...     inference_conditions="x",
    ...     inference_networks=bf.networks.CouplingFlow(depth=1, widths=(8,)),  # the default is larger
    ...     ensemble_size=2,
    ...     seed=1,
    ... )
    >>> history = workflow.fit_offline(workflow.simulate(64, seed=1), epochs=2)
    >>> sorted(history.history)
    ['0/loss', '1/loss', 'loss']
    >>> draws = workflow.sample(num_samples=5, conditions={"x": np.zeros((3, 2))}, seed=2)
    >>> draws["theta"].shape
    (3, 5, 2)
    """

    approximator: EnsembleApproximator

    parts: list[Part]
    """Parts of the members that have trained apart in this workflow since its last whole fit."""

    def __init__(
        self,
        simulator: Simulator | None = None,
        *,
        inference_variables: Names | None = None,
        summary_variables: Names | None = None,
        inference_conditions: Names | None = None,
        inference_networks: InferenceNetworkLike
        | Mapping[str, InferenceNetworkLike]
        | EnsembleApproximator = "coupling_flow",
        summary_networks: SummaryNetworkLike | Mapping[str, SummaryNetworkLike] | None = None,
        ensemble_size: int | None = None,
        batched: bool | None = None,
        adapter: Adapter | None = None,
        summary_mask: str | Mapping[str, str] | None = None,
        missing: Mapping[str, str] | None = None,
        prior: Distribution | Mapping[str, Distribution] | None = None,
        standardize: Names | None = "inference_variables",
        info: dict[str, Any] | None = None,
        **training: Unpack[TrainingOptions],
    ) -> None:
        settings = TrainingSettings(**training)
        if not (batched is None or isinstance(batched, bool)):
            raise ConfigurationError(f"Expected batched as True, False or None, got {batched!r}.")
        self.batched = batched
        self.parts = []
        roles = roles_of(inference_variables, inference_conditions, summary_variables)
        if isinstance(inference_networks, EnsembleApproximator):
            check_same_roles(roles, inference_networks)
            super().__init__(approximator=inference_networks, simulator=simulator, settings=settings)
            return
        networks = networks_by_member(inference_networks, ensemble_size)
        summaries = summary_networks_by_member(
            summary_networks, list(networks), needed=bool(roles["summary_variables"])
        )
        recipe = Recipe(
            roles,
            simulator,
            adapter=adapter,
            summary_mask=summary_mask,
            missing=missing,
            prior=prior,
            standardize=standardize,
        )
        members = {name: recipe.approximator(network, summaries[name]) for name, network in networks.items()}
        super().__init__(
            approximator=EnsembleApproximator(members, info=info), simulator=simulator, settings=settings
        )

    # ---- training -----------------------------------------------------------

    def fit_offline(
        self,
        data: VariablesLike,
        epochs: int = 100,
        batch_size: int = 32,
        *,
        data_reuse: float = 1.0,
        members: Sequence[str] | None = None,
        parts: Sequence[PartLike] | None = None,
        **options: Unpack[FitOptions],
    ) -> History:
        """Train every member on simulations in memory; further arguments as for `BasicWorkflow.fit_offline`.

        Args:
            data_reuse: share r of common data, from 0 to 1. With E members and f = r + (1 - r) E, each has
                the same ceil(N / f) of the N simulations in every epoch, in an order of its own: neighbours
                on a ring of all, shuffled once. 1: all have all, in the same batches. 0: no simulation is
                shared, and some members have one less.
            members: names of the members to train, the others stay as they are; None trains all. They have
                the initial weights, simulations, noise, learning rates, best epochs and early stops that they
                have beside the others; losses are the means over them. The fit has a resume file of its own,
                so that several processes may have one `checkpoint_filepath`, and leaves no file of an
                approximator and no certificates, but a `Part`: the last of `workflow.parts`, and in
                `checkpoint_filepath` a file with the ending .part. It does not count as a fit of the workflow
                before the parts are put together.
            parts: parts of trained members, or paths of their files, that have each member once: put together
                instead of training. With all other arguments as they had them, weights, history, certificates
                and file are then as if all had been trained together; `on_epoch_end` is not called.

        Returns:
            The history, with `member/loss` and `member/val_loss` beside their means `loss` and `val_loss`.

        Raises:
            ConfigurationError: for parts of another training, or that lack a member.
        """
        plan = self._plan_of(data_reuse, members, parts)
        return self._with_part(self._fit_offline(plan, data, epochs, batch_size, **options))

    def fit_online(
        self,
        epochs: int = 100,
        num_batches_per_epoch: int = 100,
        batch_size: int = 32,
        *,
        workers: int | None = None,
        data_reuse: float = 1.0,
        members: Sequence[str] | None = None,
        parts: Sequence[PartLike] | None = None,
        **options: Unpack[FitOptions],
    ) -> History:
        """Train every member on simulations that are drawn while training.

        Further arguments as for `BasicWorkflow.fit_online`.

        Args:
            data_reuse: share r of common data, from 0 to 1. With E members and f = r + (1 - r) E, P = ceil(f
                B) simulations are drawn for each step of batch_size B, and member k has B neighbours from
                round(k P / E) on, on a ring of them. 1: all have the same. 0: none is shared.
            members, parts: arguments as for `fit_offline`. The simulations of every step are drawn for all
                members.
        """
        plan = self._plan_of(data_reuse, members, parts)
        return self._with_part(
            self._fit_online(plan, epochs, num_batches_per_epoch, batch_size, workers=workers, **options)
        )

    def fit_disk(
        self,
        root: str | Path | SimulationStore,
        pattern: str = "*.pkl",
        load_fn: LoadFunction | None = None,
        batch_size: int = 32,
        epochs: int = 100,
        *,
        simulations_per_file: PerFile | None = None,
        data_reuse: float = 1.0,
        members: Sequence[str] | None = None,
        parts: Sequence[PartLike] | None = None,
        **options: Unpack[FitOptions],
    ) -> History:
        """Train every member on simulations in files, each read once in an epoch.

        Further arguments as for `BasicWorkflow.fit_disk`.

        Args:
            data_reuse, members, parts: arguments as for `fit_offline`; it is simulations, not files, that
                members share.
        """
        plan = self._plan_of(data_reuse, members, parts)
        return self._with_part(
            self._fit_disk(
                plan,
                root,
                pattern=pattern,
                load_fn=load_fn,
                batch_size=batch_size,
                epochs=epochs,
                simulations_per_file=simulations_per_file,
                **options,
            )
        )

    def _plan_of(
        self, data_reuse: float, members: Sequence[str] | None, parts: Sequence[PartLike] | None
    ) -> FitPlan:
        """The checked plan of one fit; arguments as for `fit_offline`."""
        names = self.approximator.names
        if members is not None and parts is not None:
            raise ConfigurationError(
                "Expected members, to train them apart, or parts, to put them together, got both."
            )
        chosen = None if members is None else chosen_members(members, names)
        positions = None if chosen is None else frozenset(map(names.index, chosen))
        sharing = Sharing(len(names), data_reuse, positions)
        if isinstance(parts, str | Path | Part):
            raise ConfigurationError(f"Expected parts as a list, got {parts!r} alone.")
        loaded = tuple(part if isinstance(part, Part) else Part.load(part) for part in parts or ())
        if parts is not None and not loaded:
            raise ConfigurationError("Expected the parts of all members, got an empty list.")
        trained = [
            name
            for part in self.parts
            for name in part.members
            if parts is None and name in (chosen or names)
        ]
        if trained:
            raise ConfigurationError(
                f"Member {trained[0]!r} has been trained apart in this workflow already. Train the others, "
                "and put all together with parts=workflow.parts; for another training make another "
                "workflow."
            )
        return FitPlan(sharing, chosen, loaded, self.batched)

    def _with_part(self, part: Part | None) -> History:
        """The history of the last fit, after keeping the part that it has left, if members trained apart."""
        self.parts = [] if part is None else [*self.parts, part]
        return self._trained_history
