"""The question of the main job, answered by an ensemble of several kinds of networks on a quarter of its simulations."""

from flows.michelson import EXPERIMENT as MICHELSON
from flows.parameters import Ensemble, Experiment, Member, Network, Register, Simulate, Train

EXPERIMENT = Experiment(
    name="michelson-ensemble",
    study=MICHELSON.study,
    inference_variables=MICHELSON.inference_variables,
    summary_variables=MICHELSON.summary_variables,
    simulate=Simulate(training=50_000, validation=5_000, test=300),
    train=Train(
        summary_network=Network(name="deep_set", arguments={"widths": [32, 32]}),
        epochs=10,
        batch_size=256,
        initial_learning_rate=2e-3,
    ),
    ensemble=Ensemble(
        members={
            "flow": Member(inference_network=Network(name="flow_matching", arguments={"widths": [64, 64, 64], "steps": 12})),
            "spline": Member(inference_network=Network(name="coupling_flow", arguments={"widths": [64, 64]})),
            "affine": Member(inference_network=Network(name="coupling_flow", arguments={"transform": "affine", "widths": [64, 64]})),
        },
    ),
    diagnose=MICHELSON.diagnose,
    register_as=Register(name="michelson-ensemble"),
    infer=MICHELSON.infer,
)
