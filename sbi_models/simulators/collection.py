"""Computation of the rows of a table: blocks here or in workers, and the failure limit."""

import logging
from collections.abc import Generator, Iterable
from contextlib import closing

from sbi_models.errors import SimulationError
from sbi_models.progress import Advance
from sbi_models.simulators.blocks import Block
from sbi_models.simulators.failures import FailureReport
from sbi_models.simulators.table import Table, refusal
from sbi_models.types import Variables

_logger = logging.getLogger(__name__)


class Collection:
    """Rows of a table, collected from its blocks.

    Attributes:
        report: failures of the blocks so far, complete after `rows`.
    """

    def __init__(self, table: Table) -> None:
        self.table, self.report = table, FailureReport()

    def rows(self, computed: Iterable[Block], advance: Advance) -> Variables:
        """Rows of the table from its blocks in any order, raw space.

        Raises:
            SimulationError: if more rows fail than the policy of the table allows, or blocks do not fit.
        """
        table = self.table
        blocks: list[Block] = []
        whole: Block | None = None
        num_rows, failed = table.stop - table.start, 0
        try:
            for block in computed:
                blocks.append(block)
                advance(table.asked_for(block.index))
                failed += block.num_failed
                if failed > table.policy.limit(num_rows):
                    raise SimulationError(refusal(table, block, failed)) from block.exception
                whole = whole or (block if block.complete else None)
                if whole is not None:
                    table.refuse_other(block, whole)
                block.exception = None  # its traceback holds on to the memory of the functions
        finally:
            blocks.sort(key=lambda block: block.index)
            self.report = FailureReport(
                num_rows, tuple(failure for block in blocks for failure in block.failures)
            )
        if self.report.failures:
            _logger.warning("%s", self.report)
        return table.joined(blocks)


def computed_blocks(table: Table, processes: int, *, twice: bool) -> Generator[Block, None, None]:
    """Blocks of a table, computed here or in worker processes, in the order of completion.

    In worker processes the first block is computed twice.
    """
    if processes == 1:
        yield from map(table.block, table.indices)
        return
    from sbi_models.simulators.pool import in_processes  # noqa: PLC0415 - imports joblib

    with closing(in_processes(table, processes, twice=twice)) as blocks:
        yield from blocks
