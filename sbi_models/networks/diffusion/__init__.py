"""Diffusion models: schedules, denoisers, samplers."""

from sbi_models.networks.diffusion.denoiser import Denoise
from sbi_models.networks.diffusion.diffusion_model import DiffusionModel
from sbi_models.networks.diffusion.gaussian_denoiser import GaussianDenoiser
from sbi_models.networks.diffusion.samplers import SAMPLERS, Sampler, Task, register_sampler
from sbi_models.networks.diffusion.schedules import SCHEDULES, Schedule, make_schedule, register_schedule

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "Denoise",
    "DiffusionModel",
    "GaussianDenoiser",
    "Sampler",
    "Schedule",
    "Task",
    "make_schedule",
    "register_sampler",
    "register_schedule",
]
