"""Posterior means of noisy parameters that are known exactly: oracles for samplers and densities."""


def gaussian(schedule, mean, sd):
    """E[theta_0 | theta_t] of theta_0 ~ N(mean, sd^2), each dimension alone."""

    def denoise(theta_t, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return (mean * sigma**2 + sd**2 * alpha * theta_t) / (sigma**2 + sd**2 * alpha**2)

    return denoise


def mixture(schedule, weights, means, sds):
    """The same of a mixture of normals with isotropic components: weights (k,), means (k, d), sds (k,)."""

    def denoise(theta_t, t):
        alpha, sigma = schedule.alpha(t)[..., None], schedule.sigma(t)[..., None]
        variance = sigma**2 + sds[:, None] ** 2 * alpha**2
        away = theta_t[..., None, :] - alpha * means
        logits = (weights.log()[:, None] - (away**2 / variance + variance.log()) / 2).sum(
            dim=-1, keepdim=True
        )
        logits = logits + (1 - theta_t.shape[-1]) * weights.log()[:, None]
        each = means + sds[:, None] ** 2 * alpha / variance * away
        return (logits.softmax(dim=-2) * each).sum(dim=-2)

    return denoise
