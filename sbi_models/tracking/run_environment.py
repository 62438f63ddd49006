"""Files that a run keeps for its reproduction: packages, machine, commit, uncommitted changes."""

import base64
import hashlib
import json
import os
import platform
from importlib.metadata import Distribution, distributions
from pathlib import Path

import psutil

import sbi_models
from sbi_models.tracking.provenance import (
    git_output,
    git_patch,
    git_tags,
    own_checkout,
    own_hash,
    own_packages,
)
from sbi_models.tracking.redaction import redacted, redacted_content, redacted_patch

FOLDER = "environment"
LONGEST_PATCH = 1_000_000
"""Bytes of a patch that are kept."""


def environment_files(folder: Path) -> dict[str, str]:
    """Texts by file name: requirements.txt, machine.json, code.json, library.json, and patches.

    code.json and changes.patch are of the user's code in a folder, of which nothing is said if it is in no
    git checkout; library.json and library_changes.patch are of this package.
    """
    code, patch = code_state(folder)
    library, own_patch = library_state()
    texts = {
        "requirements.txt": requirements(),
        "machine.json": json.dumps(machine(), indent=2),
        "code.json": json.dumps(code or {"commit": None}, indent=2),
        "library.json": json.dumps(library, indent=2),
    }
    patches = {"changes.patch": patch, "library_changes.patch": own_patch}
    return {
        f"{FOLDER}/{name}": text
        for name, text in (texts | {name: text for name, text in patches.items() if text}).items()
    }


def requirements() -> str:
    """Installed packages with versions; those that did not come from an index are comments."""
    lines: dict[str, str] = {}
    for package in distributions():
        name = str(package.metadata["Name"] or "")
        if name:
            elsewhere = package.read_text("direct_url.json") is not None
            lines.setdefault(
                name.lower(), f"{'# not from an index: ' if elsewhere else ''}{name}=={package.version}"
            )
    return "".join(f"{lines[name]}\n" for name in sorted(lines))


def machine() -> dict[str, object]:
    """Python, platform, processors, memory in bytes, threads of torch, and names of GPUs."""
    import torch  # noqa: PLC0415 - two seconds, for whoever only looks at runs

    gpus = (
        [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": gpus,
    }


def code_state(folder: Path) -> tuple[dict[str, object], str]:
    """Commit, dirtiness, untracked files and patch of a checkout; empty outside a checkout.

    The patch is without secrets, for which `git apply` may refuse it, and has at most a megabyte:
    `patch_redacted` and `patch_complete`.
    """
    root = git_output(folder, "rev-parse", "--show-toplevel").strip()
    return _state(Path(root)) if root else ({}, "")


def library_state() -> tuple[dict[str, object], str]:
    """Version, file hash, origin and patch of this package.

    A checkout has what `code_state` says of a folder. An installed package has the address and hash of its
    archive, as far as the installer has noted them, and the names of files that were changed after it was
    installed.
    """
    state: dict[str, object] = {
        "version": sbi_models.__version__,
        "sha256": own_hash(),
    }
    root = own_checkout()
    if root is not None:
        code, patch = _state(root, *(path.name for path in own_packages()))
        return state | code, patch
    installed = next((package for package in distributions(name="sbi-models")), None)
    if installed is None:
        return state, ""
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    return state | redacted_content({"installed_from": origin, "edited": _edited(installed)}), ""


def _edited(installed: Distribution) -> list[str]:
    """Files of an installed package that are not as the installer has written them."""
    changed = []
    for file in installed.files or ():
        path = Path(str(file.locate()))
        if file.hash is not None and file.hash.mode == "sha256":
            now = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
            if base64.urlsafe_b64encode(now).rstrip(b"=").decode() != file.hash.value:
                changed.append(file.as_posix())
    return changed


def _state(root: Path, *paths: str) -> tuple[dict[str, object], str]:
    """What `code_state` says, of files below some paths of a checkout or of all."""
    tags = git_tags(root)
    if not tags:
        return {}, ""
    untracked = git_output(root, "ls-files", "--others", "--exclude-standard", "--", *paths).splitlines()
    patch = git_patch(root, *paths)
    state: dict[str, object] = {
        "commit": tags["mlflow.source.git.commit"],
        "dirty": bool(patch) or tags["sbi_models.git_dirty"] == "true",
        "untracked": [redacted(name) for name in untracked[:100]],
    }
    if not state["dirty"]:
        return state, ""
    clean = redacted_patch(patch)
    content = clean.encode("utf-8", "surrogateescape")
    whole = len(content) <= LONGEST_PATCH
    text = clean if whole else content[:LONGEST_PATCH].decode("utf-8", "ignore")
    return state | {"patch_redacted": clean != patch, "patch_complete": whole}, text
