"""What it takes to run a run again, as files of it: packages, machine, commit, and changes that were not committed."""

import json
import os
import platform
from importlib.metadata import distributions
from pathlib import Path

import psutil

from sbi_models.tracking.provenance import git_output, git_tags
from sbi_models.tracking.redaction import redacted

FOLDER = "environment"
LONGEST_PATCH = 1_000_000
"""Bytes of changes.patch that are kept."""


def environment_files(folder: Path) -> dict[str, str]:
    """Texts by file name: requirements.txt, machine.json, code.json and, where tracked files were changed, changes.patch.

    Code is that of a folder; nothing is said of code that is in no git checkout.
    """
    code, patch = code_state(folder)
    texts = {
        "requirements.txt": requirements(),
        "machine.json": json.dumps(machine(), indent=2),
        "code.json": json.dumps(code or {"commit": None}, indent=2),
    }
    return {f"{FOLDER}/{name}": text for name, text in (texts | ({"changes.patch": patch} if patch else {})).items()}


def requirements() -> str:
    """All installed packages at their versions; those that did not come from an index are comments, for nobody else can install them."""
    lines: dict[str, str] = {}
    for package in distributions():
        name = str(package.metadata["Name"] or "")
        if name:
            elsewhere = package.read_text("direct_url.json") is not None
            lines.setdefault(name.lower(), f"{'# not from an index: ' if elsewhere else ''}{name}=={package.version}")
    return "".join(f"{lines[name]}\n" for name in sorted(lines))


def machine() -> dict[str, object]:
    """Python, platform, processors, memory in bytes, threads of torch, and names of GPUs."""
    import torch  # noqa: PLC0415 - two seconds, for whoever only looks at runs

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
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
    """Commit, whether tracked files differ from it, and untracked files; and the difference as a patch. Nothing outside a checkout.

    The patch is without secrets, for which `git apply` may refuse it, and has at most a megabyte: `patch_redacted` and `patch_complete`.
    """
    tags = git_tags(folder)
    if not tags:
        return {}, ""
    root = git_output(folder, "rev-parse", "--show-toplevel").strip()
    untracked = git_output(Path(root), "ls-files", "--others", "--exclude-standard").splitlines()
    state: dict[str, object] = {
        "commit": tags["mlflow.source.git.commit"],
        "dirty": tags["sbi_models.git_dirty"] == "true",
        "untracked": untracked[:100],
    }
    if not state["dirty"]:
        return state, ""
    patch = git_output(Path(root), "diff", "--no-ext-diff", "--no-color", "--binary", "HEAD")
    clean = redacted(patch)
    kept = clean.encode()[:LONGEST_PATCH].decode(errors="ignore")
    return state | {"patch_redacted": clean != patch, "patch_complete": kept == clean}, kept
