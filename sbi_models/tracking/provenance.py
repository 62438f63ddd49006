"""What a run should remember about where it comes from: code, packages, machine, process."""

import getpass
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

OWN_COMMIT = "sbi_models.own_git_commit"

PACKAGES = ("sbi-models", "torch", "lightning", "prefect", "mlflow", "numpy")


def provenance_tags(folder: Path) -> dict[str, str]:
    """Tags for a new run: package versions, git commits of a folder with the user's code and of this package, user, script, and process.

    `mlflow.source.git.commit` and `sbi_models.git_dirty` are of the folder, and missing if it is in no git checkout;
    `sbi_models.own_git_commit` is of this package, if that runs from a checkout of its own.
    """
    return {
        **{f"version.{name.replace('-', '_')}": number for name, number in package_versions(PACKAGES).items()},
        "version.python": platform.python_version(),
        **git_tags(folder),
        **own_git_tags(),
        "mlflow.user": _user(),
        "mlflow.source.name": Path(sys.argv[0] or "python").name,
        "mlflow.source.type": "LOCAL",
        **process_tags(),
    }


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """The installed version of each package that is installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_tags(folder: Path) -> dict[str, str]:
    """The commit that `folder` is at and whether tracked files differ from it; empty outside a git checkout."""
    commit = git_output(folder, "rev-parse", "HEAD").strip()
    if not commit:
        return {}
    dirty = git_output(folder, "status", "--porcelain", "--untracked-files=no").strip()
    return {"mlflow.source.git.commit": commit, "sbi_models.git_dirty": str(bool(dirty)).lower()}


def own_git_tags() -> dict[str, str]:
    """The commit of the checkout that this package runs from, and whether it was changed; empty for an installed one.

    A package in the site-packages of a virtual environment inside of a checkout of something else is installed.
    """
    package = Path(__file__).resolve().parents[1]
    root = git_output(package, "rev-parse", "--show-toplevel").strip()
    if not root or Path(root).resolve() != package.parent:
        return {}
    commit, dirty = git_tags(package).values()
    return {OWN_COMMIT: commit, "sbi_models.own_git_dirty": dirty}


def process_tags() -> dict[str, str]:
    """Which process writes the run; `owner_is_alive` reads them."""
    return {
        "sbi_models.host": socket.gethostname(),
        "sbi_models.pid": str(os.getpid()),
        "sbi_models.process_start": f"{psutil.Process().create_time():.2f}",
    }


def owner_is_alive(tags: Mapping[str, str]) -> bool:
    """Whether another live process of this host writes the run with these tags; other hosts cannot be asked and count as gone."""
    if tags.get("sbi_models.host") != socket.gethostname() or tags.get("sbi_models.pid") in {None, str(os.getpid())}:
        return False
    try:
        process = psutil.Process(int(tags["sbi_models.pid"]))
        start, dead = process.create_time(), process.status() == psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False
    return not dead and f"{start:.2f}" == tags.get("sbi_models.process_start")


def git_output(folder: Path, *arguments: str) -> str:
    """What git prints; nothing if it fails, is not there, or takes more than ten seconds."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user name
        return "unknown"
