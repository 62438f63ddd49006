"""Hostile data files: archives, pickles, safetensors, CSV files and stores, mutated by a seed."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from sbi_models.datasets import SimulationStore

KINDS = ("npz", "pkl", "safetensors", "csv", "store")


def arrays(rng: np.random.Generator) -> dict[str, Any]:
    """theta (20, 2), x (20, 5, 1)."""
    return {"theta": rng.normal(size=(20, 2)), "x": rng.normal(size=(20, 5, 1))}


def scrambled(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, with flipped bits, with repeated or missing parts, or with large numbers in it."""
    action, damaged = int(rng.integers(5)), bytearray(content)
    place = int(rng.integers(len(content)))
    if action == 0:
        return content[:place]
    if action == 1:
        for where in rng.integers(len(content), size=int(rng.integers(1, 12))):
            damaged[int(where)] = int(rng.integers(256))
        return bytes(damaged)
    if action == 2:
        return content[:place] + content[int(rng.integers(len(content))) :]
    if action == 3:
        large = struct.pack("<Q", [2**31, 2**33, 2**40, 2**62, 2**64 - 1][int(rng.integers(5))])
        return content[:place] + large + content[place + 8 :]
    return (
        content[:place]
        + bytes(rng.integers(256, size=int(rng.integers(1, 40)), dtype=np.uint8))
        + content[place:]
    )


def npy(shape: Any, dtype: str, content: bytes, *, version: int = 1) -> bytes:
    """An array in NumPy's format whose header says anything."""
    text = (
        repr({"descr": dtype, "fortran_order": False, "shape": shape})
        if not isinstance(shape, str)
        else shape
    )
    header = text.encode().ljust(118) + b"\n"
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", len(header))
        + header
        + content
    )


def npz(rng: np.random.Generator, *, bombs: bool = True) -> bytes:
    """Bombs, shapes that lie, objects, deep headers, names twice, or a scrambled archive."""
    file = io.BytesIO()
    action = int(rng.integers(12))
    if action >= 7:
        np.savez(file, **arrays(rng)) if action % 2 else np.savez_compressed(file, **arrays(rng))
        return scrambled(file.getvalue(), rng)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        size = int(rng.choice([10**3, 10**6, 10**9, 2**40, 2**62]))
        contents = [
            npy((size,), "<f8", b"\0" * 80),
            npy((size, size), "<f8", b"\0" * 80),
            npy((0, size), "<f8", b""),
            npy((-size,), "<f8", b"\0" * 80),
            npy((2,), "O", pickle.dumps([1, 2])),
            npy("(" * 60 + ")" * 60, "<f8", b""),
            npy((3,), f"V{min(size, 2**31 - 1)}", b"\0" * 24),
        ]
        archive.writestr("theta.npy", contents[action])
        if bombs and rng.random() < 0.06:
            for k in range(3):
                archive.writestr(f"bomb{k}.npy", npy((2**26,), "<f8", b"\0" * 2**29))
    content = file.getvalue()
    return (
        content
        if rng.random() < 0.7
        else content.replace(struct.pack("<I", 2**29 + 128), struct.pack("<I", 200))
    )


class Called:
    """Pickles as a call of anything."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def pkl(rng: np.random.Generator) -> bytes:
    """Hostile pickle: list bombs, strides of zero, false shapes, memos of any index, or mutations."""
    size, action = int(rng.choice([10**6, 10**9, 2**40, 2**62])), int(rng.integers(20))
    if action >= 12:
        return scrambled(pickle.dumps(arrays(rng), protocol=int(rng.integers(6))), rng)
    bomb: Any = [0.0] * 10
    for _ in range(int(rng.integers(6, 12))):
        bomb = [bomb] * 10
    circle: list[Any] = []
    circle.append(circle)
    rebuilt = np.zeros(0).__reduce__()[0]
    if action == 9:
        return b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    if action == 10:
        return b"\x80\x02}r" + struct.pack("<I", int(rng.choice([2**27, 2**30, 2**32 - 1]))) + b"."
    if action == 11:
        return b"\x80\x05" + bytes([int(rng.choice([0x96, 0x8E, 0x8D]))]) + struct.pack("<Q", size) + b"abc."
    values = [
        bomb,
        circle,
        Called(np.ndarray, (size,), np.dtype("f8")),
        Called(np.ndarray, (size,), np.dtype("f8"), b"\0" * 8, 0, (0,)),
        Called(rebuilt, np.ndarray, (size,), b"b"),
        Called(rebuilt, np.ndarray, (0,), b"b", state=(1, (size,), np.dtype("f8"), False, b"\0" * 80)),
        Called(rebuilt, np.ndarray, (0,), b"b", state=(1, (size, 0), np.dtype("f8"), False, b"")),
        Called(np.dtype, [("a", "f8", (min(size, 10**6),))]),
        {"a" * 10: [1, "x", None, 2**100_000]},
    ]
    return pickle.dumps({"theta": values[action], "x": np.zeros(3)}, protocol=int(rng.integers(2, 6)))


def safetensor(rng: np.random.Generator) -> bytes:
    """Shapes that lie, and scrambled files."""
    content = safetensors.numpy.save(arrays(rng))
    if rng.random() < 0.5:
        return scrambled(content, rng)
    length = int.from_bytes(content[:8], "little")
    header, size = json.loads(content[8 : 8 + length]), int(rng.choice([0, 10**9, 2**40, 2**62]))
    header["theta"][str(rng.choice(["shape", "data_offsets", "dtype"]))] = [
        [size, 0],
        [0, size],
        [size],
        "BF16",
        "F8_E4M3",
        [2**63, 2**63],
    ][int(rng.integers(6))]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def csv(rng: np.random.Generator) -> bytes:
    """Long lines, long cells, odd numbers, odd bytes, or a scrambled file."""
    action = int(rng.integers(14))
    good = "\n".join(",".join(f"{v:.4f}" for v in row) for row in rng.normal(size=(6, 5))).encode()
    odd = [
        b"1," * 20_000_000,
        b"1\n" * 3_000_000,
        b'"' + b"1" * 200_000,
        b"1" * 5_000_000 + b",1,1,1,1\n",
        b"1_000,2,3,4,5\n",
        b"nan,inf,-inf,1e999,0\n",
        "١,٢,٣,٤,٥\n".encode(),
        b"\0,\0,\0,\0,\0\n" * 100,
        b"\xff\xfe1\x00,\x002\x00",
        b",,,,\n" * 1_000_000,
    ]
    return odd[action] if action < len(odd) else scrambled(good, rng)


def write(kind: str, seed: int, folder: Path, *, bombs: bool = True) -> Path:
    """Write a hostile file or store; archives of half a gigabyte on request."""
    rng = np.random.default_rng(seed)
    if kind != "store":
        path = folder / f"file.{kind}"
        path.write_bytes(
            {"npz": partial(npz, bombs=bombs), "pkl": pkl, "safetensors": safetensor, "csv": csv}[kind](rng)
        )
        return path
    path = folder / "store"
    for old in path.glob("*"):
        old.unlink()
    SimulationStore.create(
        path,
        lambda a, b: {"theta": np.arange(a, b, dtype=float)},
        20,
        seed=1,
        fingerprint="f",
        rows_per_shard=8,
    )
    file = sorted(path.glob("[!.]*"))[int(rng.integers(4))]
    if file.suffix != ".json" or rng.random() < 0.3:
        file.write_bytes(scrambled(file.read_bytes(), rng))
        return path
    manifest, size = json.loads(file.read_text()), int(rng.choice([0, -1, 21, 10**9, 10**12, 2**63]))
    places: list[Callable[[], Any]] = [
        lambda: manifest.update(num_simulations=size),
        lambda: manifest["schema"].update(theta={"dtype": "float64", "shape": [size]}),
        lambda: manifest["schema"].update(
            theta={"dtype": ["object", "V100", 3][int(rng.integers(3))], "shape": []}
        ),
        lambda: manifest["schema"].update(y={"dtype": "float64", "shape": [size, size]}),
        lambda: (
            manifest["shards"].append(
                {"file": f"shard-000000020-{size:09d}.safetensors", "rows": [20, size], "sha256": "0"}
            )
            or manifest.update(num_simulations=size, extents={str(size): "0"})
        ),
        lambda: (
            manifest.update(
                shards=[{"file": f"shard-000000000-{size:09d}.safetensors", "rows": [0, size], "sha256": "0"}]
            )
            or manifest.update(num_simulations=size, extents={str(size): "0"})
        ),
        lambda: manifest.update(extents=[None, {}, {"x": 1}, {"1e999": 1}][int(rng.integers(4))]),
        lambda: manifest.update(shards=None),
        lambda: manifest.pop(str(rng.choice(sorted(manifest)))),
    ]
    places[int(rng.integers(len(places)))]()
    file.write_text(json.dumps(manifest) if rng.random() < 0.9 else "[" * 100_000)
    return path
