"""Training of approximators with Lightning: module, trainer, settings, callbacks, checkpoints, history and
devices."""
