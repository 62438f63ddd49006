"""Provenance of a run: code, packages, machine, process."""

import getpass
import hashlib
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

import sbi_models

OWN_COMMIT, OWN_DIRTY, OWN_HASH = (
    "sbi_models.own_git_commit",
    "sbi_models.own_git_dirty",
    "sbi_models.own_sha256",
)

PACKAGES = ("torch", "lightning", "prefect", "mlflow", "numpy")


def provenance_tags(folder: Path) -> dict[str, str]:
    """Tags for a new run: versions, git commits, user, script and process.

    The commits are those of a folder with the user's code and of this package.

    `mlflow.source.git.commit` and `sbi_models.git_dirty` are of the folder, and missing if it is in no git
    checkout; `sbi_models.own_sha256` is of the files of this package, `sbi_models.own_git_commit` its commit,
    if it runs from a checkout of its own.
    """
    return {
        **{
            f"version.{name.replace('-', '_')}": number for name, number in package_versions(PACKAGES).items()
        },
        "version.sbi_models": sbi_models.__version__,  # a checkout may be newer than its installation
        "version.python": platform.python_version(),
        **git_tags(folder),
        **own_tags(),
        "mlflow.user": user_name(),
        "mlflow.source.name": Path(sys.argv[0] or "python").name,
        "mlflow.source.type": "LOCAL",
        **process_tags(),
    }


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """The installed version of each package that is installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_tags(folder: Path) -> dict[str, str]:
    """Commit of `folder` and whether tracked files differ from it; empty outside a git checkout."""
    commit = git_output(folder, "rev-parse", "HEAD").strip()
    if not commit:
        return {}
    dirty = git_output(folder, "status", "--porcelain", "--untracked-files=no").strip()
    return {"mlflow.source.git.commit": commit, "sbi_models.git_dirty": str(bool(dirty)).lower()}


def own_tags() -> dict[str, str]:
    """Hash of the files of this package, and its commit if it runs from a checkout."""
    root = own_checkout()
    git = {} if root is None else git_tags(root)
    commit, dirty = git.get("mlflow.source.git.commit"), git.get("sbi_models.git_dirty")
    return {OWN_HASH: own_hash()} | (
        {} if commit is None or dirty is None else {OWN_COMMIT: commit, OWN_DIRTY: dirty}
    )


def own_checkout() -> Path | None:
    """The root of the checkout that this package runs from; None for an installed one.

    A package in the site-packages of a virtual environment inside of a checkout of something else is
    installed.
    """
    package = Path(__file__).resolve().parents[1]
    root = git_output(package, "rev-parse", "--show-toplevel").strip()
    return package.parent if root and Path(root).resolve() == package.parent else None


def own_packages() -> list[Path]:
    """The folders of this package: the library alone."""
    return [Path(__file__).resolve().parents[1]]


@cache
def own_hash() -> str:
    """sha256 over names and contents of the files of this package.

    That of a checkout is that of a wheel made of it, until an edit.
    """
    digest = hashlib.sha256()
    for folder in own_packages():
        for path in sorted(
            path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ):
            digest.update(
                f"{path.relative_to(folder.parent).as_posix()}\0".encode()
                + hashlib.sha256(path.read_bytes()).digest()
            )
    return digest.hexdigest()


def process_tags() -> dict[str, str]:
    """Which process writes the run; `owner_is_alive` reads them."""
    return {
        "sbi_models.host": socket.gethostname(),
        "sbi_models.pid": str(os.getpid()),
        "sbi_models.process_start": f"{psutil.Process().create_time():.2f}",
    }


def owner_is_alive(tags: Mapping[str, str]) -> bool:
    """Whether another live process of this host writes the run with these tags.

    Other hosts cannot be asked and count as gone.
    """
    if tags.get("sbi_models.host") != socket.gethostname() or tags.get("sbi_models.pid") in {
        None,
        str(os.getpid()),
    }:
        return False
    try:
        process = psutil.Process(int(tags["sbi_models.pid"]))
        start, dead = process.create_time(), process.status() == psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False
    return not dead and f"{start:.2f}" == tags.get("sbi_models.process_start")


def git_output(folder: Path, *arguments: str) -> str:
    """Output of a git command (surrogateescape); empty if it fails or takes more than ten seconds."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=10, check=False)  # noqa: S603 - our own command
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else ""


def git_patch(root: Path, *paths: str) -> str:
    """Patch of tracked files of a checkout against the last commit, for `git apply`.

    It does not depend on the settings of git that change the form of a patch.
    """
    form = [
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--binary",
        "--unified=3",
        "--src-prefix=a/",
        "--dst-prefix=b/",
    ]
    return git_output(root, "diff", *form, "--submodule=short", "--no-relative", "HEAD", "--", *paths)


def user_name() -> str:
    """Who runs this process, as the system knows it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user name
        return "unknown"
