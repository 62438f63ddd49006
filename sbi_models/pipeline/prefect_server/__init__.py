"""Prefect servers on this machine: one for a single run, one for schedules."""
