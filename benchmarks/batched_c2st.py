"""Many C2STs at once on an accelerator: the MLP of scikit-learn's `MLPClassifier`, with its loss, optimiser and rule to stop, in PyTorch.

    python benchmarks/batched_c2st.py FOLDER OUT.json     each FOLDER/*.npz holds draws and references, (observations, n, d)

A two-sample test of 10 000 against 10 000 draws in ten dimensions takes minutes of one core; here the folds of all observations train side
by side. Not the same random numbers as scikit-learn's, so that scores differ by the noise of the score, about 0.005; `quality.py score` has
the original.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDS, BATCH, RATE, DECAY, TOLERANCE, PATIENCE, EPOCHS = 5, 200, 1e-3, 1e-4, 1e-4, 10, 1000


def scores(first: np.ndarray, second: np.ndarray, device: str) -> list[float]:
    """C2ST of each observation, of references and draws (observations, n, d)."""
    mean, sd = first.mean(axis=1, keepdims=True), first.std(axis=1, keepdims=True)
    inputs = torch.tensor((np.concatenate([first, second], axis=1) - mean) / sd, dtype=torch.float32, device=device)
    observations, n, d = inputs.shape
    labels = torch.cat([torch.zeros(n // 2), torch.ones(n // 2)]).to(device)
    generator = torch.Generator(device).manual_seed(1)
    half = n // 2
    order = torch.cat([torch.randperm(half, generator=generator, device=device) + k * half for k in (0, 1)]).reshape(2, FOLDS, -1)
    test = [order[:, k].flatten() for k in range(FOLDS)]
    train = [torch.cat([order[:, j].flatten() for j in range(FOLDS) if j != k]) for k in range(FOLDS)]
    models, widths = observations * FOLDS, [d, 10 * d, 10 * d, 1]
    parameters: list[Tensor] = []
    for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
        bound = (6 / (fan_in + fan_out)) ** 0.5
        for shape in ((models, fan_in, fan_out), (models, 1, fan_out)):
            parameters.append((torch.rand(shape, generator=generator, device=device) * 2 - 1) * bound)
    for value in parameters:
        value.requires_grad_()
    optimizer = torch.optim.Adam(parameters, lr=RATE, eps=1e-8)
    active = torch.ones(models, dtype=torch.bool, device=device)
    final = [value.detach().clone() for value in parameters]
    best, waited = torch.full((models,), torch.inf, device=device), torch.zeros(models, device=device)
    rows = torch.stack(train).repeat(observations, 1)
    whose = torch.arange(observations, device=device).repeat_interleave(FOLDS)

    def logits(x: Tensor) -> Tensor:
        for k in range(0, 4, 2):
            x = torch.relu(torch.baddbmm(parameters[k + 1], x, parameters[k]))
        return torch.baddbmm(parameters[5], x, parameters[4])[..., 0]

    size = rows.shape[1]
    for _ in range(EPOCHS):
        shuffled = rows.gather(1, torch.rand(rows.shape, generator=generator, device=device).argsort(dim=1))
        total = torch.zeros(models, device=device)
        for start in range(0, size, BATCH):
            chosen = shuffled[:, start : start + BATCH]
            each = torch.nn.functional.binary_cross_entropy_with_logits(logits(inputs[whose[:, None], chosen]), labels[chosen], reduction="none")
            penalty = sum(value.square().sum(dim=(1, 2)) for value in parameters[::2])
            losses = each.mean(dim=1) + 0.5 * DECAY * penalty / chosen.shape[1]
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            total += losses.detach() * chosen.shape[1]
        loss = total / size
        waited = torch.where(loss > best - TOLERANCE, waited + 1, torch.zeros_like(waited))
        best = torch.minimum(best, loss)
        stopping = active & (waited > PATIENCE)
        for kept, value in zip(final, parameters, strict=True):
            kept[active] = value.detach()[active]
        active &= ~stopping
        if not active.any():
            break
    with torch.no_grad():
        for kept, value in zip(final, parameters, strict=True):
            value.copy_(kept)
        held_out = torch.stack(test).repeat(observations, 1)
        right = ((logits(inputs[whose[:, None], held_out]) > 0).float() == labels[held_out]).float().mean(dim=1)
    return [round(float(value), 4) for value in right.reshape(observations, FOLDS).mean(dim=1)]


def main() -> None:
    """The command line."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, list[float]] = json.loads(Path(sys.argv[2]).read_text()) if Path(sys.argv[2]).exists() else {}
    for path in sorted(Path(sys.argv[1]).glob("*.npz")):
        clock = time.perf_counter()
        held = np.load(path)
        found[path.stem] = scores(held["references"].astype(np.float64), held["draws"].astype(np.float64), device)
        print(path.stem, f"mean {np.mean(found[path.stem]):.4f}", found[path.stem], f"{time.perf_counter() - clock:.0f} s", flush=True)
        Path(sys.argv[2]).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
