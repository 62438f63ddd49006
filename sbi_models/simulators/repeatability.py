"""Test of repeatability: the first block of a simulator is computed twice and compared."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from sbi_models.errors import SimulationError, distrust
from sbi_models.simulators.background import Background
from sbi_models.simulators.blocks import Block, difference
from sbi_models.simulators.randomness import global_states
from sbi_models.simulators.table import Table, not_repeated


class Repeatability:
    """Results of the repeatability test of one simulator.

    Attributes:
        repeats: True if a row drawn twice is the same twice; None before the first test.
        difference: message about a row that differed.
        rng_alone: True if batched functions left global states unchanged, which then are not set for them.
    """

    def __init__(self) -> None:
        self.repeats: bool | None = None
        self.difference = ""
        self.rng_alone: bool | None = None
        self._was_tested_for_seeds = False

    def checked(
        self, table: Table, blocks: Iterable[Block], uses_globals: bool, ahead: Background | None = None
    ) -> Iterator[Block]:
        """Blocks of a table, with a `TrustWarning` if the first one ever computed does not repeat.

        The first two are also tested for global states that functions have seeded with the same number.

        Args:
            table: table of the blocks.
            blocks: its blocks.
            uses_globals: True if functions may draw from global states.
            ahead: background simulation, which ends if the block does not repeat.
        """
        states: list[dict[str, Any]] | None = (
            [] if table.isolation is None and table.sets_global_states and ahead is None else None
        )
        for block in blocks:
            if states is not None and not self._was_tested_for_seeds:
                states.append(global_states())
                if len(states) == 2:
                    self._was_tested_for_seeds = True
                    _warn_of_seeds(*states)
            if self.repeats is None and block.complete and not self.compare(table, block, uses_globals):
                distrust(f"seed= does not repeat these draws: {self.difference}")
                if ahead is not None:
                    ahead.stay("they do not repeat.")
            yield block

    def compare(self, table: Table, block: Block, uses_globals: bool) -> bool:
        """Compute a block again and compare.

        Batched functions that seem to use `rng` alone are tried without global states.
        """
        randomness, alone = table.randomness, False
        may_be_alone = table.is_batched and table.isolation is None
        if may_be_alone and not (uses_globals or randomness.held or randomness.names_global_states):
            before = global_states()
            again = replace(table, sets_global_states=False).block(block.index)
            alone = not difference([again], [block]) and before == global_states()
        if not alone:
            again = table.block(block.index)
        self.rng_alone = alone
        self.difference = not_repeated(table, block.index, difference([again], [block]))
        self.repeats = not self.difference
        return self.repeats

    def refuse_elsewhere(self, processes: int = 0) -> None:
        """Raise SimulationError if workers are requested for simulations that are known not to repeat."""
        if processes != 1 and self.repeats is False:
            raise SimulationError(
                f"Expected simulations that are the same whoever computes them. {self.difference}"
            )


def _warn_of_seeds(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Warn of functions that seed global states with the same number in every row.

    Each row starts from states of its own, so states that are equal after two rows show such a seed.
    """
    if same := [name for name, state in first.items() if state == second.get(name)]:
        distrust(
            f"A function seeds the global random numbers of {same[0]} with the same number in every "
            "simulation: what is drawn from them afterwards is the same in all simulations. Leave "
            "seeds to seed=, and draw from the argument rng."
        )
