"""The members of an ensemble as child runs of the MLflow run of a pipeline run."""

from collections.abc import Mapping
from typing import TypeVar

from sbi_models.pipeline.experiment.training_settings import Member
from sbi_models.tracking import Tracker

Values = TypeVar("Values")


def of_mixture(losses: Mapping[str, Values]) -> dict[str, Values]:
    """Losses without those of single members, `member/loss` and the like."""
    return {name: values for name, values in losses.items() if "/" not in name}


def of_member(losses: Mapping[str, Values], member: str) -> dict[str, Values]:
    """The losses of one member, under their plain names."""
    return {
        name.removeprefix(f"{member}/"): values
        for name, values in losses.items()
        if name.startswith(f"{member}/")
    }


class RunWithMembers:
    """The run of a pipeline run, with a child run for each member of its ensemble.

    However often it is made for a run, each member has one child run.

    Args:
        tracker: run of the pipeline run.
        members: networks of the members by name; none without an ensemble.
    """

    def __init__(self, tracker: Tracker, members: Mapping[str, Member]) -> None:
        self.tracker = tracker
        self.members = {name: tracker.child(name, member.model_dump()) for name, member in members.items()}

    def log_epoch(self, epoch: int, losses: Mapping[str, float]) -> None:
        """Log the losses of an epoch, from 1: means to the run, each member's to its child run."""
        self.tracker.log_epoch(epoch, of_mixture(losses))
        for name, tracker in self.members.items():
            tracker.log_epoch(epoch, of_member(losses, name))

    def log_epoch_of(self, member: str, epoch: int, losses: Mapping[str, float]) -> None:
        """The losses of an epoch of one member that trains apart from the others, to its child run alone."""
        self.members[member].log_epoch(epoch, of_member(losses, member))

    def log_history(self, history: Mapping[str, list[float]]) -> None:
        """The losses of all epochs; those that the runs have already are left out."""
        for epoch in range(len(history["loss"])):
            self.log_epoch(
                epoch + 1, {name: values[epoch] for name, values in history.items() if epoch < len(values)}
            )
        self.flush()

    def flush(self) -> None:
        """Write all losses now."""
        for tracker in (self.tracker, *self.members.values()):
            tracker.flush()
