"""Training of approximators with Lightning: settings, trainer, callbacks, checkpoints, history, devices."""
