"""The five experiments of the main job as five observations of one speed and one spread, composed into one posterior."""

from flows.michelson import EXPERIMENT as MICHELSON
from flows.parameters import Compose, Experiment, Network, Register, Train

EXPERIMENT = Experiment(
    name="michelson-composed",
    study=MICHELSON.study,
    inference_variables=MICHELSON.inference_variables,
    summary_variables=MICHELSON.summary_variables,
    simulate=MICHELSON.simulate,
    train=Train(
        inference_network=Network(
            name="diffusion_model", arguments={"widths": [64, 64, 64], "steps": 12, "noise_per_pair": 8, "drop_conditions": 0.1}
        ),
        summary_network=MICHELSON.train.summary_network,
        epochs=10,
        batch_size=256,
        initial_learning_rate=2e-3,
    ),
    diagnose=MICHELSON.diagnose,
    register_as=Register(name="michelson-composed"),
    infer=MICHELSON.infer,
    compose=Compose(num_samples=20_000),
)
