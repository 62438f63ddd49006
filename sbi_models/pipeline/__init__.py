"""Prefect flows that chain simulate, train or ensemble, diagnose, register, infer and compose."""
