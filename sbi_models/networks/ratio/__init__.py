"""Networks of ratio estimation."""

from sbi_models.networks.ratio.contrastive_ratio import ContrastiveRatio

__all__ = ["ContrastiveRatio"]
