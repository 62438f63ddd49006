"""Experiments of any settings: written as YAML and read, they are the same; what YAML changes is an error."""

import math
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.yaml_files import as_yaml, load_experiment

MINIMAL = "name: mine\nsimulator: mine:S\ninference_variables: [theta]\nregister_as: {name: mine}\n"

ODD_TEXT = """
yes no on off y n true False null ~ 1 1.0 -1 1e5 1E+5 .5e3 1e-4 5.e1 0x10 010 1_000 1:30 .inf .nan 2020-01-01
<< = - ? : # & * ! | > % @ ` [] {} , " ' \\ %TAG --- ... é Ω 数 \U0001f600
""".split()  # noqa: SIM905 - a list with quotes would be ten lines
ODD_TEXT += ["", " ", "a: b", "a #b", "- a", "\t", "a\nb", " a ", "\r", "\x07", *"\x85\u2028\u2029\ufeff"]
TEXT = st.sampled_from(ODD_TEXT) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
POSITIVE = st.floats(1e-300, 1e300)
FILE_NAMES = st.text(st.sampled_from("aé1_.-e"), min_size=1, max_size=6).filter(lambda name: name.strip("."))
ARGUMENTS = st.dictionaries(TEXT, ANYTHING, max_size=3)
NETWORK = st.fixed_dictionaries({"name": TEXT}, optional={"arguments": ARGUMENTS})
REPLICATES = st.just(0) | st.integers(2, 9)
SETTINGS = st.fixed_dictionaries(
    {
        "name": FILE_NAMES,
        "simulator": TEXT,
        "inference_variables": st.lists(TEXT, max_size=3),
        "register_as": st.fixed_dictionaries({"name": FILE_NAMES.map(lambda name: name.replace(".", "é"))}),
    },
    optional={
        "observations": st.none() | TEXT,
        "parameter_names": st.dictionaries(TEXT, st.lists(TEXT, max_size=3), max_size=3),
        "depends_on": st.fixed_dictionaries({}, optional={"variables": st.lists(TEXT, max_size=2)}),
        "seed": st.integers(0, 2**70),
        "train": st.fixed_dictionaries(
            {},
            optional={
                "inference_network": NETWORK,
                "summary_network": st.none() | NETWORK,
                "standardize": TEXT,
                "initial_learning_rate": POSITIVE,
                "devices": st.integers(1, 9) | st.just("auto"),
            },
        ),
        "ensemble": st.none()
        | st.fixed_dictionaries({"size": st.integers(2, 9)}, optional={"learn_weights": st.booleans()})
        | st.fixed_dictionaries(
            {
                "members": st.dictionaries(
                    FILE_NAMES, st.fixed_dictionaries({"inference_network": NETWORK}), min_size=2, max_size=3
                )
            }
        ),
        "compose": st.none() | st.fixed_dictionaries({}, optional={"noise": st.none() | st.floats(0.001, 1)}),
        "gate": st.fixed_dictionaries({}, optional={"margin": POSITIVE, "not_worse": st.booleans()}),
        "infer": st.fixed_dictionaries({}, optional={"predictive_replicates": REPLICATES}),
    },
)


def meaning(value):
    """A value with its types, so that 1, 1.0 and True, or 0.0 and -0.0, are not equal."""
    if isinstance(value, dict):
        return [(key, meaning(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return list(map(meaning, value))
    return type(value), value.hex() if isinstance(value, float) else value


@given(SETTINGS)
def test_any_experiment_comes_back(tmp_path, settings):
    """Texts that look like numbers, dates, truth values or syntax, numbers of any size and nested arguments
    of networks keep value, type and order."""
    experiment = Experiment.model_validate(settings)
    (tmp_path / "mine.yaml").write_text(as_yaml(experiment), encoding="utf-8")
    again = load_experiment(tmp_path / "mine.yaml")
    assert meaning(again.model_dump(exclude={"folder"})) == meaning(experiment.model_dump(exclude={"folder"}))


def written(tmp_path, more):
    (tmp_path / "mine.yaml").write_text(MINIMAL + more, encoding="utf-8")
    return tmp_path / "mine.yaml"


NUMERALS = st.one_of(
    st.from_regex(r"[-+]?(0|[1-9][0-9]{0,3})(\.[0-9]{0,3})?([eE][-+]?[0-9]{1,2})?", fullmatch=True),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
)


@given(NUMERALS)
@example("1e-4")
@example("1e5")
@example("1E+5")
@example("5.e1")
def test_numbers_are_read_as_python_reads_them(tmp_path, numeral):
    """With and without a dot, a sign or an exponent, in the arguments of a network, where no type is known:
    the number of that text; in quotes, the text."""
    assume(math.isfinite(float(numeral)))
    arguments = f"{{bare: {numeral}, single: '{numeral}', double: \"{numeral}\"}}"
    network = f"train: {{inference_network: {{name: n, arguments: {arguments}}}}}\n"
    read = load_experiment(written(tmp_path, network)).train.inference_network.arguments
    expected = float(numeral) if set(numeral) & set(".eE") else int(numeral)
    assert meaning(read["bare"]) == meaning(expected)
    assert read["single"] == read["double"] == numeral


@pytest.mark.parametrize("word", ["yes", "No", "on", "OFF", "true", "False"])
@pytest.mark.parametrize("setting", ["seed", "train.epochs", "gate.margin", "infer.predictive_replicates"])
def test_a_truth_value_is_no_number(tmp_path, setting, word):
    """What YAML takes for true or false does not count as 1 or 0; where it is meant, it is taken."""
    *groups, name = setting.split(".")
    text = f"{groups[0]}: {{{name}: {word}}}\n" if groups else f"{name}: {word}\n"
    with pytest.raises(ConfigurationError, match=re.escape(f"{setting}: expected no true or false here")):
        load_experiment(written(tmp_path, text))
    expected = word.lower() in ("yes", "on", "true")
    assert load_experiment(written(tmp_path, f"gate: {{not_worse: {word}}}\n")).gate.not_worse is expected


@pytest.mark.parametrize("more", ["seed: 1\nseed: 2\n", "train: {epochs: 1, epochs: 3}\n", "name: a\n"])
def test_a_key_that_is_there_twice_is_refused(tmp_path, more):
    """YAML would keep the last one without a word; the message has the line."""
    with pytest.raises(ConfigurationError, match=r"expected each key once, got '\w+' again.*line [56]"):
        load_experiment(written(tmp_path, more))


def test_a_merged_key_may_be_said_again(tmp_path):
    """Keys of `<<` are defaults, which the mapping itself may override."""
    first = "{inference_network: &first {name: a, arguments: {}}, summary_network: {<<: *first, name: b}}"
    train = load_experiment(written(tmp_path, f"train: {first}\n")).train
    assert train.summary_network is not None
    assert (train.inference_network.name, train.summary_network.name) == ("a", "b")
