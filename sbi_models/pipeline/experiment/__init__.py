"""Experiments: typed settings, their YAML files, the study that they name, and real observations."""
