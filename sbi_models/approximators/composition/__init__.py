"""Composition: the posterior given several items at once, from an approximator of the posterior given one."""
