"""A transform as a user writes it, in a module of the user's own."""

import math

from sbi_models.adapters import Transform, register_transform


@register_transform("log10")
class Log10(Transform):
    """z = log10(x)."""

    def __init__(self, name, unit=1.0):
        self.name, self.unit = name, unit

    def forward(self, batch):
        return {key: (x / self.unit).log10() if key == self.name else x for key, x in batch.items()}

    def inverse(self, batch):
        return {key: self.unit * 10.0**z if key == self.name else z for key, z in batch.items()}

    def carried(self, batch, slopes):
        slope = -(batch[self.name] * math.log(10)).log()
        return {key: s + slope if key == self.name else s for key, s in slopes.items()}

    def config(self):
        return {"name": self.name, "unit": self.unit}
