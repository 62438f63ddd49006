"""Simulators: functions that draw parameters and data, made repeatable from one seed."""

from sbi_models.simulators.simulator import Simulator, make_simulator

__all__ = ["Simulator", "make_simulator"]
