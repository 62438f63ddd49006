"""A simulation store that is interrupted goes on: killed at any write, with a full disk, and with others
writing at the same time."""

import errno
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest
from stores import SIMULATOR, Rows, create, same

from sbi_models.datasets import SimulationStore
from sbi_models.datasets import coverage as survey_module
from sbi_models.datasets import store as store_module
from sbi_models.errors import DataError

ORIGIN = {"seed": 0, "fingerprint": "f"}
FORK = multiprocessing.get_context("fork")
REASONS = {
    errno.ENOSPC: "No space left on device",
    errno.EROFS: "Read-only file system",
    errno.EDQUOT: "Disk quota exceeded",
}


def run_child(target, *arguments):
    """The exit code of a function in a process of its own."""
    child = FORK.Process(target=target, args=arguments)
    child.start()
    child.join(60)
    return child.exitcode


class Logged:
    """The table, and in a file, that outlives a kill, which rows were computed."""

    def __init__(self, path):
        self.path = path

    def __call__(self, start, stop):
        with self.path.open("a") as file:
            file.write(f"{start} {stop}\n")
        return SIMULATOR.rows(start, stop, seed=0)

    def computed(self):
        return [tuple(map(int, line.split())) for line in self.path.read_text().splitlines()]


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.endswith(".partial")]


def _die_at(call, number):
    """Replace a function of os by one that kills the process at its n-th call, before it does anything."""
    plain, calls = getattr(os, call), []

    def deadly(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments)

    setattr(os, call, deadly)


def _create_and_die(folder, rows, n, call, number):
    _die_at(call, number)
    create(folder, n=n, rows=rows)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_killed_creation_goes_on(tmp_path, call, number):
    """Killed with SIGKILL while it wrote any of three shards or the manifest, nothing is computed twice but
    the shard in flight, old shards keep their bytes, and of the half-written file nothing stays."""
    rows, folder = Logged(tmp_path / "log"), tmp_path / "store"
    assert run_child(_create_and_die, folder, rows, 25, call, number) == -signal.SIGKILL
    assert len(leftovers(folder)) == 1
    finished = {path: path.read_bytes() for path in folder.glob("shard-*")}
    assert len(finished) == number - 1
    store = create(folder, rows=rows)
    shards = [(0, 10), (10, 20), (20, 25)]
    assert rows.computed() == shards[:number] + shards[number - 1 :]
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert leftovers(folder) == []
    assert store.manifest == create(tmp_path / "undisturbed").manifest


def test_a_killed_extension_goes_on(tmp_path):
    """Killed in the second shard of an extension, the store is as long as before, and the same command
    extends it from there."""
    rows = Logged(tmp_path / "log")
    create(tmp_path / "store", n=15)
    assert run_child(_create_and_die, tmp_path / "store", rows, 45, "replace", 2) == -signal.SIGKILL
    assert SimulationStore.open(tmp_path / "store").num_simulations == 15
    assert SimulationStore.open(tmp_path / "store").is_intact()
    same(create(tmp_path / "store", n=45, rows=rows).load(), SIMULATOR.rows(0, 45, seed=0))
    assert rows.computed() == [(15, 20), (20, 30), (20, 30), (30, 40), (40, 45)]


def test_the_bar_counts_what_is_there_as_done(tmp_path, monkeypatch):
    """After a kill, progress starts at the rows of whole shards, and ends at all of them."""
    create(tmp_path)
    (tmp_path / "shard-000000010-000000020.safetensors").unlink()
    seen, plain = [], store_module.progress_bar

    def spied(description, total, *, done):
        seen.append((description, total, done))
        return plain(description, total, done=done)

    monkeypatch.setattr(store_module, "progress_bar", spied)
    create(tmp_path)
    create(tmp_path, n=12)
    assert seen == [("simulate", 25, 15), ("simulate", 12, 12)]


def _create_at_once(barrier, folder, n, rows_per_shard, hashes):
    barrier.wait(30)
    hashes.put(create(folder, n=n, rows_per_shard=rows_per_shard).content_hash)


@pytest.mark.nightly_cases("wanted2", "wanted3")
@pytest.mark.parametrize(
    "wanted", [((60, 10), (60, 10)), ((60, 10), (35, 10)), ((60, 7), (45, 11)), ((30, 1), (29, 1))]
)
def test_two_processes_create_one_store_at_once(tmp_path, wanted):
    """Wanting as many rows or not, in shards of one size or not, both succeed, and the store has what the
    greedier one wanted."""
    for k in range(3):
        folder, barrier, hashes = tmp_path / str(k), FORK.Barrier(2), FORK.Queue()
        children = [
            FORK.Process(target=_create_at_once, args=(barrier, folder, *want, hashes)) for want in wanted
        ]
        for child in children:
            child.start()
        got = {hashes.get(timeout=60) for _ in children}
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0, 0]
        most = max(n for n, _ in wanted)
        store = SimulationStore.open(folder)
        same(store.load(), SIMULATOR.rows(0, most, seed=0))
        assert got == {store.first(n).content_hash for n, _ in wanted}
        assert leftovers(folder) == []


def test_of_two_that_finish_the_later_one_adds(tmp_path, monkeypatch):
    """A store that another process extends just before this one writes its manifest stays extended; the
    shorter hash is noted too."""
    plain, others = survey_module.locked, [lambda: create(tmp_path, n=40)]

    def late(folder):
        if others:
            others.pop()()
        return plain(folder)

    monkeypatch.setattr(survey_module, "locked", late)
    store = create(tmp_path, n=25)
    assert store.num_simulations == 25
    opened = SimulationStore.open(tmp_path)
    assert opened.num_simulations == 40
    assert opened.is_intact()
    assert opened.manifest["extents"] == {"25": store.content_hash, "40": opened.content_hash}
    same(store.load(), SIMULATOR.rows(0, 25, seed=0))


def _create_with_files_of(folder, n, bytes_of_a_file, messages):
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_of_a_file, bytes_of_a_file))
    try:
        SimulationStore.create(folder, Rows(), n, **ORIGIN, rows_per_shard=200)
    except DataError as error:
        messages.put(str(error))


def test_a_full_disk_is_one_clear_error(tmp_path):
    """Where the system takes no more bytes, one line names the file and the reason, finished shards are kept,
    and no partial file stays."""
    messages, before = FORK.Queue(), create(tmp_path, n=10)
    assert run_child(_create_with_files_of, tmp_path, 300, 4096, messages) == 0
    message = messages.get(timeout=10)
    assert (
        "shard-000000010-000000200.safetensors cannot be written: File too large. Finished shards are kept"
        in message
    )
    assert "\n" not in message
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == [
        "manifest.json",
        before.pieces[0].file,
    ]
    assert SimulationStore.open(tmp_path).is_intact()
    rows = Rows()
    assert SimulationStore.create(tmp_path, rows, 300, **ORIGIN, rows_per_shard=200).num_simulations == 300
    assert rows.asked == [(10, 200), (200, 300)]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", REASONS)
def test_what_the_system_refuses_is_a_data_error(tmp_path, monkeypatch, call, number):
    """A full or read-only disk in the second shard: the first is kept, the error says why, and the same call
    goes on."""
    calls, plain = [], getattr(os, call)

    def refuses(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(number, REASONS[number])
        return plain(*arguments)

    monkeypatch.setattr(os, call, refuses)
    with pytest.raises(
        DataError, match=f"shard-000000010-000000020.safetensors cannot be written: {REASONS[number]}"
    ):
        create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000000-000000010.safetensors"]
    rows = Rows()
    assert create(tmp_path, rows=rows).is_intact()
    assert rows.asked == [(10, 20), (20, 25)]


def test_a_folder_that_cannot_be_made_is_a_data_error(tmp_path):
    """Where the folder would be, there is a file."""
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written: Not a directory"):
        create(tmp_path / "file" / "store")


def test_a_store_that_can_only_be_read_is_used(tmp_path, monkeypatch):
    """With a disk that takes nothing, create and finish give a store that is there, and its first rows,
    though their hash is not noted."""
    whole = create(tmp_path)
    (tmp_path / ".lock").unlink()

    def refuses(*arguments):
        raise OSError(errno.EROFS, REASONS[errno.EROFS])

    monkeypatch.setattr(os, "open", refuses)
    assert create(tmp_path).content_hash == whole.content_hash
    assert SimulationStore.finish(tmp_path, 12, **ORIGIN).content_hash == whole.first(12).content_hash
    with pytest.raises(DataError, match="Read-only file system"):
        create(tmp_path, n=30)


def test_files_of_dead_writers_are_removed(tmp_path):
    """Those of processes that are gone, and those an hour old, whoever wrote them; those of living processes
    and other hosts stay."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(30)
    host = socket.gethostname()
    kept = [
        f".shard.{host}.{os.getpid()}.7.partial",
        f".shard.{host}x.{dead.pid}.7.partial",
        ".strange.partial",
        "shard.partial",
    ]
    removed = [
        f".shard.{host}.{dead.pid}.7.partial",
        f".old.{host}x.1.7.partial",
        f".old.{host}.{os.getpid()}.7.partial",
    ]
    for name in [*kept, *removed]:
        (tmp_path / name).touch()
        if name.startswith(".old"):
            os.utime(tmp_path / name, (time.time() - 3700,) * 2)
    create(tmp_path)
    assert sorted(leftovers(tmp_path)) == sorted(kept)
