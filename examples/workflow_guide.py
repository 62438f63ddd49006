"""Workflow guide: the snippets of a user guide of workflows, in one file.

Sections 7.1 (basic), 7.2 (ensemble), 7.3 (composition), 7.4 (training) and 7.5 (diagnostics).

    python examples/workflow_guide.py --output figures

Time on one core: 173 s. Its code is that of the guide, word for word but for the first import and the seed;
`add_noise` and the diagnostics therefore use NumPy's global state, which sbi_models makes repeatable. The
figures are saved beside the model, and with --output that of 7.5.3 in that folder, too.
"""

import argparse
import os
import tempfile
from pathlib import Path

import matplotlib as mpl

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument(
    "--output", type=Path, help="folder of the picture for the gallery; default: none is made"
)
output = parser.parse_args().output
output = None if output is None else output.resolve()
mpl.use("Agg")
os.chdir(tempfile.mkdtemp(prefix="workflow_guide_"))

# ruff: noqa: B905, C408, E402, I001, NPY002
# fmt: off
import numpy as np
import sbi_models as bf

np.random.seed(1)  # ours: what follows is then the same in every run

# Minimal simulator: 2 parameters, 20 i.i.d. observations
def prior():
    return dict(theta=np.random.normal(size=2).astype("float32"))

def likelihood(theta):
    mu, sigma = theta[0], float(np.exp(theta[1] * 0.5))
    return dict(x=np.random.normal(mu, sigma, size=(20, 1)).astype("float32"))

simulator = bf.make_simulator([prior, likelihood])

# 7.1
workflow = bf.BasicWorkflow(
    simulator=simulator,
    inference_variables=["theta"],
    summary_variables=["x"],
    inference_network=bf.networks.FlowMatching(),
    summary_network=bf.networks.TimeSeriesTransformer(summary_dim=16),
)
history = workflow.fit_online(epochs=5, batch_size=64, num_batches_per_epoch=50)

test_batch = simulator.sample(4)
x_obs = test_batch["x"].astype("float32")
theta = test_batch["theta"].astype("float32")
basic_workflow = workflow  # used later in CompositionalWorkflow.from_basic_workflow

# 7.1.3: the high-level interface, and the same on the approximator
samples = workflow.sample(num_samples=1000, conditions={"x": x_obs})
samples = workflow.approximator.sample(num_samples=1000, conditions={"x": x_obs})
workflow.approximator.save("my_model.keras")

# 7.2.1: size mode, then dictionary mode
workflow = bf.EnsembleWorkflow(
    simulator=simulator,
    inference_variables=["theta"],
    summary_variables=["x"],
    inference_networks=bf.networks.FlowMatching(),
    ensemble_size=2,
)
workflow = bf.EnsembleWorkflow(
    simulator=simulator,
    inference_variables=["theta"],
    summary_variables=["x"],
    inference_networks={
        "flow": bf.networks.FlowMatching(),
        "coupling": bf.networks.CouplingFlow()
    },
    summary_networks={
        "flow": bf.networks.TimeSeriesTransformer(summary_dim=16),
        "coupling": bf.networks.TimeSeriesTransformer(summary_dim=16)
    },
)

# 7.2.2
history = workflow.fit_online(
    epochs=5,
    batch_size=64,
    num_batches_per_epoch=50,
    data_reuse=0.8,
)
test_batch = simulator.sample(4)
x_obs = test_batch["x"].astype("float32")
theta = test_batch["theta"].astype("float32")

# 7.2.3
# Merged mixture samples (default)
samples = workflow.sample(num_samples=500, conditions={"x": x_obs})
# Per-member samples
samples = workflow.sample(
    num_samples=500,
    conditions={"x": x_obs},
    merge_members=False,  # returns {"flow": ..., "coupling": ...}
)
# Weighted mixture
samples = workflow.sample(
    num_samples=500,
    conditions={"x": x_obs},
    member_weights={"flow": 0.6, "coupling": 0.4},
)
# Log-probability under the mixture
log_p = workflow.log_prob(data={"x": x_obs, "theta": theta})

# 7.3.1; a training this short is not to be trusted, and the composition says so: a warning here, not an error
import warnings
warnings.filterwarnings("default", category=bf.errors.TrustWarning)
workflow = bf.CompositionalWorkflow(
    simulator=simulator,
    inference_variables=["theta"],
    summary_variables=["x"],
    inference_network=bf.networks.DiffusionModel(),
    summary_network=bf.networks.TimeSeriesTransformer(summary_dim=8),
)

history = workflow.fit_online(epochs=5, batch_size=64, num_batches_per_epoch=50)

raw = simulator.sample(6)
# compositional_sample expects (num_datasets, n_compositional, ...)
x_obs = raw["x"].reshape(2, 3, 20, 1).astype("float32")  # 2 datasets x 3 obs each

# 7.3.2
# x_obs has shape (num_datasets, n_compositional, time, features)
samples = workflow.compositional_sample(
    num_samples=100,
    conditions={"x": x_obs},
)

prior_variance = 1.0  # theta ~ N(0, 1) so prior variance is 1

def prior_score(data, t=None):
    """Score of a Gaussian prior on theta."""
    return {"theta": -data["theta"] / prior_variance}

samples = workflow.compositional_sample(
    num_samples=100,
    conditions={"x": x_obs},
    compute_prior_score=prior_score,
)

# 7.3.3, with a BasicWorkflow that has a DiffusionModel in place of the guide's comment
diffusion_workflow = bf.BasicWorkflow(
    simulator=simulator,
    inference_variables=["theta"],
    summary_variables=["x"],
    inference_network=bf.networks.DiffusionModel(),
    summary_network="deep_set",
)
diffusion_workflow.fit_online(epochs=2, batch_size=64, num_batches_per_epoch=50)
compositional_workflow = bf.CompositionalWorkflow.from_basic_workflow(
    diffusion_workflow, simulator=simulator
)
compositional_workflow.compositional_sample(
    num_samples=100, conditions={"x": x_obs}, compute_prior_score=prior_score
)

# Reuse the CompositionalWorkflow trained above:
compositional_workflow = workflow
samples = compositional_workflow.compositional_sample(
    num_samples=100,
    conditions={"x": x_obs},
)

workflow = basic_workflow  # use the trained BasicWorkflow for diagnostics
test_data = simulator.sample(100)

# 7.4.1
history = basic_workflow.fit_online(
    epochs=5,
    num_batches_per_epoch=50,
    batch_size=64,
    validation_data=100,  # generate 100 validation samples from the simulator
)

# 7.4.2
# Pre-generate data
data = simulator.sample(500)
validation_data = simulator.sample(100)

history = basic_workflow.fit_offline(
    data=data,
    epochs=5,
    batch_size=64,
    validation_data=validation_data,
)

# 7.4.3, with files in place of "/data/simulations": each .pkl file is a dict with the keys of the simulator's
# output
import pickle
Path("simulations").mkdir()
for k in range(200):
    Path(f"simulations/{k}.pkl").write_bytes(pickle.dumps({name: value[k] for name, value in data.items()}))

history = basic_workflow.fit_disk(
    root="simulations",
    pattern="*.pkl",
    batch_size=128,
    epochs=2
)

# 7.4.4
def add_noise(batch):
    batch["x"] = batch["x"] + np.random.normal(0, 0.01, batch["x"].shape).astype("float32")
    return batch

basic_workflow.fit_online(epochs=2, batch_size=64, num_batches_per_epoch=10,
                          augmentations=add_noise)

# 7.5.1
# plot_default_diagnostics takes the raw test data and handles sampling internally
figures = workflow.plot_default_diagnostics(test_data, num_samples=100)
# figures is a dict: {"losses", "recovery", "calibration_ecdf", "coverage", "z_score_contraction"}
default_figures = figures

# 7.5.2
metrics_df = workflow.compute_default_diagnostics(test_data, num_samples=100, as_data_frame=True)

# 7.5.3
import matplotlib.pyplot as plt

def posterior_predictive_check(samples, test_data, variable_keys=None, variable_names=None, **kwargs):
    """Overlay observed data, posterior predictive density, and true density for a few test cases."""
    n_show = min(4, len(test_data["x"]))
    theta_post = samples["theta"]  # (n_test, n_samples, 2)
    x_obs = test_data["x"]  # (n_test, 20, 1)
    theta_true = test_data["theta"]  # (n_test, 2)

    fig, axes = plt.subplots(1, n_show, figsize=(3.5 * n_show, 3.5))
    axes = [axes] if n_show == 1 else list(axes)

    for i, ax in enumerate(axes):
        obs = x_obs[i].reshape(-1)
        lo, hi = obs.min() - 1.0, obs.max() + 1.0
        x_grid = np.linspace(lo, hi, 300)

        # Observed data
        ax.hist(obs, bins=10, density=True, alpha=0.4, color="steelblue", label="Observed x")

        # Posterior predictive: average normal PDF over 50 posterior draws
        mu_s = theta_post[i, :50, 0]
        sg_s = np.exp(theta_post[i, :50, 1] * 0.5)
        ppd = np.mean(
            [np.exp(-0.5 * ((x_grid - m) / s) ** 2) / (s * np.sqrt(2 * np.pi))
             for m, s in zip(mu_s, sg_s)],
            axis=0,
        )
        ax.plot(x_grid, ppd, color="tomato", lw=2, label="Posterior predictive")

        # True generative density
        m_t = theta_true[i, 0]
        s_t = float(np.exp(theta_true[i, 1] * 0.5))
        true_pdf = np.exp(-0.5 * ((x_grid - m_t) / s_t) ** 2) / (s_t * np.sqrt(2 * np.pi))
        ax.plot(x_grid, true_pdf, "k--", lw=1.5, label="True density")

        ax.set_title(f"Test case {i + 1}", fontsize=10)
        ax.set_xlabel("x")

    axes[0].set_ylabel("Density")
    axes[0].legend(fontsize=8)
    fig.suptitle("Posterior Predictive Check", fontweight="bold")
    fig.tight_layout()
    return fig

figures = workflow.plot_custom_diagnostics(
    test_data,
    plot_fns={"posterior_predictive": posterior_predictive_check},
    num_samples=200,
)
# fmt: on

for name, figure in {**default_figures, **figures}.items():
    figure.savefig(f"{name}.png", dpi=80)
print(metrics_df)
print(f"Model and figures: {Path.cwd()}")
if output is not None:
    output.mkdir(parents=True, exist_ok=True)
    figures["posterior_predictive"].savefig(output / "workflow_guide.png", dpi=80)
