"""Prefect flows that chain simulate, train or ensemble, diagnose, register, infer and compose, and the
command line that starts them."""

from sbi_models.pipeline.runtime import set_environment

# Prefect reads its settings when it is first imported, so they have to be there before any module of this
# package imports it.
set_environment()
