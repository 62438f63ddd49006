"""Certificates: whether an observation's posterior can be trusted, by tests against simulations."""
