"""The package's own studies, with the YAML files of their experiments."""
