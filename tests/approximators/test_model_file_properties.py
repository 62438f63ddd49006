"""Model files of any settings and tensors: read as they were written, and never as something else."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sbi_models.approximators import files
from sbi_models.errors import ModelFileError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
SETTINGS = st.dictionaries(TEXT, ANYTHING, max_size=3)
NAMES = TEXT.filter(lambda name: name not in ("", "__metadata__"))
ARRAYS = st.tuples(
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    st.sampled_from(["f2", "f4", "f8", "i8", "?"]),
).flatmap(lambda kind: arrays.arrays(kind[1], kind[0]))
TENSORS = st.dictionaries(NAMES, ARRAYS.map(np.array).map(torch.from_numpy), max_size=3)


def meaning(value):
    """A value with its types, so that 1, 1.0 and True, 0.0 and -0.0 are not equal, and NaN is itself."""
    if isinstance(value, dict):
        return {key: meaning(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return list(map(meaning, value))
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    return type(value), ("nan" if math.isnan(value) else value.hex()) if isinstance(value, float) else value


@given(TEXT, SETTINGS, TENSORS, st.booleans())
def test_files_of_anything_come_back(tmp_path, kind, settings, tensors, transposed):
    """Kind, settings and tensors of any names, shapes, types and order in memory are what they were, NaN,
    infinities and the sign of zero too; the same content is the same bytes."""
    tensors = {name: value.mT if transposed and value.ndim > 1 else value for name, value in tensors.items()}
    path = files.write(tmp_path / "file", kind, settings, tensors)
    read = files.read(path)
    assert meaning(list(read)) == meaning([kind, settings, tensors])
    content = path.read_bytes()
    backwards = dict(reversed(settings.items())), dict(reversed(tensors.items()))
    assert files.write(path, kind, *backwards).read_bytes() == content


@given(
    st.recursive(
        SETTINGS, lambda inner: st.dictionaries(TEXT | st.integers(-12, 12), inner | ANYTHING, max_size=3)
    )
)
@example({"levels": {2: 0.5, 10: 0.5}})
def test_numbers_as_keys_are_text_as_in_json(tmp_path, settings):
    """JSON has no other keys than text: a transform of a user with numbers as keys, whose order is another,
    is read back with their text."""
    path = files.write(tmp_path / "file", "kind", settings, {})
    assert meaning(files.read(path)[1]) == meaning(json.loads(json.dumps(settings)))


WEIGHTS = {
    "network.weight": torch.linspace(-1, 1, 12).reshape(3, 4),
    "standardizer.sd": torch.tensor([0.5, 2.0], dtype=torch.float64),
    "novelty.count": torch.tensor(7),
}
HEADER = {"roles": {"inference_variables": ["theta"]}, "steps": 16, "rate": 1e-4, "note": "é"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of a small file."""
    return files.write(tmp_path_factory.mktemp("whole") / "file", "continuous", HEADER, WEIGHTS).read_bytes()


def flipped(content, place, number):
    return content[:place] + bytes([content[place] ^ (1 << number % 8)]) + content[place + 1 :]


def overwritten(content, place, number):
    return content[:place] + bytes([number % 256]) * min(8, len(content) - place) + content[place + 8 :]


CHANGES = {
    "a bit": flipped,
    "eight bytes": overwritten,
    "cut": lambda content, place, number: content[:place],
    "longer": lambda content, place, number: content + bytes([number % 256]) * (1 + place % 9),
    "one byte more": lambda content, place, number: content[:place] + bytes([number % 256]) + content[place:],
    "one byte less": lambda content, place, number: content[:place] + content[place + 1 :],
    "two bytes swapped": lambda content, place, number: (
        content[:place] + content[place : place + 2][::-1] + content[place + 2 :]
    ),
}


@given(st.sampled_from(list(CHANGES)), st.floats(0, 1, exclude_max=True), st.integers(0, 255))
def test_a_damaged_file_is_never_another_model(whole, tmp_path, change, share, number):
    """Whatever byte is changed, lost or added: a ModelFileError that names the file, or the very content that
    was written, where the byte says nothing."""
    path = tmp_path / "model"
    path.write_bytes(CHANGES[change](whole, int(share * len(whole)), number))
    try:
        read = files.read(path)
    except ModelFileError as error:
        assert "model" in str(error)  # noqa: PT017 - or no error
        return
    assert meaning(list(read)) == meaning(["continuous", HEADER, WEIGHTS])


@given(st.data())
def test_a_changed_header_does_not_pass_its_checksum(whole, tmp_path, data):
    """A file that is well formed in all respects, with another setting, kind or number in a tensor, is told
    from the one that was written."""
    path = tmp_path / "model"
    path.write_bytes(whole)
    header, tensors = files._read(path)
    place = data.draw(st.sampled_from(["kind", "steps", "rate", "note", *WEIGHTS]))
    if place in tensors:
        tensors[place] = tensors[place] + 1
    elif place == "kind":
        header["kind"] = data.draw(TEXT.filter(lambda kind: kind != "continuous"))
    else:
        old = header["settings"][place]
        header["settings"][place] = data.draw(ANYTHING.filter(lambda new: meaning(new) != meaning(old)))
    metadata = {"sbi_models": json.dumps(header)}
    path.write_bytes(files.serialize(tensors, metadata=metadata))
    with pytest.raises(ModelFileError, match="was changed or damaged"):
        files.read(path)
