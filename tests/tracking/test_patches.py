"""What a run keeps of code: patches that git applies, without secrets, and what this package is."""

import base64
import hashlib
import json
import os
import subprocess
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from sbi_models.tracking import Store, Tracker, provenance, redacted, run_environment
from sbi_models.tracking.redaction import redacted_content, redacted_patch

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]

KEY = "sk-0123456789abcdef"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def checkout(folder: Path, files: dict[str, bytes]) -> Path:
    """A checkout with one commit of some files."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    _write(folder, files)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


BEFORE = {
    "study/code.py": b"a = 1\n",
    "study/windows.py": b"a = 1\r\nb = 2\r\n",
    "latin.py": b"# caf\xe9\na = 1\n",
    "picture.bin": bytes(range(256)),
}
AFTER = {
    "study/code.py": b"from study import data\na = study\n",
    "study/windows.py": b"a = 1\r\nb = 3\r\n",
    "latin.py": b"# caf\xe9\na = 2  # \xe8\n",
    "picture.bin": bytes(reversed(range(256))) * 3,
}


@pytest.mark.parametrize("place", ["study", "run_7", "data-2024"])
def test_a_recorded_patch_is_applied_by_git(
    place: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In folders that are called like the values of secret variables and of PWD, `git apply` of the recorded
    changes.patch makes the changed files to the byte, with Windows line ends, other encodings and binary
    files, whatever form of patches git is told to write."""
    root = checkout(
        tmp_path / place / place, {name.replace("study", place): content for name, content in BEFORE.items()}
    )
    changed = {
        name.replace("study", place): content.replace(b"a = study", b"a = 2  # study")
        for name, content in AFTER.items()
    }
    for name, value in {
        "PWD": str(root),
        "STUDY_TOKEN": place,
        "DB_PASSWORD": "code.py",
        "MY_SECRET": str(root),
        "A_TOKEN": "diff",
    }.items():
        monkeypatch.setenv(name, value)
    for name, value in {"diff.noprefix": "true", "diff.context": "0", "color.diff": "always"}.items():
        git(root, "config", name, value)
    _write(root, changed)
    with Tracker.start(store, "npe", "first", "key", {"folder": str(root)}, folder=root) as tracker:
        tracker.log_environment()
        tracker.log_dataset("data", root / "data.npz", {}, "a" * 40, "training")
    assert tracker.artifact_path is not None
    code = json.loads((tracker.artifact_path / "environment" / "code.json").read_text())
    assert (code["dirty"], code["patch_redacted"], code["patch_complete"]) == (True, False, True)
    git(root, "checkout", "-q", ".")
    git(root, "apply", str(tracker.artifact_path / "environment" / "changes.patch"))
    assert {name: (root / name).read_bytes() for name in changed} == changed
    run = store.client.get_run(tracker.run_id)
    assert run.data.params["folder"] == str(root)
    assert json.loads(run.inputs.dataset_inputs[0].dataset.source) == {"uri": (root / "data.npz").as_uri()}


def test_secrets_in_added_lines_do_not_keep_a_patch_from_being_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of the environment, of one line or several, and passwords in addresses are *** in added lines, and
    the patch is applied."""
    root = checkout(tmp_path / "code", {"code.py": b"a = 1\n"})
    monkeypatch.setenv("MY_API_KEY", KEY)
    monkeypatch.setenv(
        "TLS_PRIVATE_KEY", "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhki\nG9w0BAQEFAASCBKcwgg\n-----END KEY-----"
    )
    added = (
        f"a = 1\nkey = '{KEY}'\n{os.environ['TLS_PRIVATE_KEY']}\npassword = \\\n    'abc def'\nurl = "
        "'postgresql://anna:hunter2@db/x'\n"
    )
    (root / "code.py").write_text(added)
    state, patch = run_environment.code_state(root)
    assert state["patch_redacted"]
    assert not [secret for secret in (KEY, "hunter2", "MIIEvQ", "G9w0BA") if secret in patch]
    git(root, "checkout", "-q", ".")
    (tmp_path / "changes.patch").write_text(patch)
    git(root, "apply", str(tmp_path / "changes.patch"))
    lines = (root / "code.py").read_text().splitlines()
    assert (lines[0], lines[1], len(lines)) == ("a = 1", "key = '***'", len(added.splitlines()))


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        (
            "study",
            "/home/anna/study/mlruns/mlflow.db: no such file",
            "/home/anna/study/mlruns/mlflow.db: no such file",
        ),
        ("study", "sqlite:////home/anna/study/mlflow.db", "sqlite:////home/anna/study/mlflow.db"),
        ("study", "a study of studying, study_2", "a *** of studying, study_2"),
        ("study", "https://hooks.example.org/services/study/x", "https://hooks.example.org/services/***/x"),
        ("study", "--token=study --folder=data/study", "--token=*** --folder=data/study"),
        ("study", "'\\nstudy'", "'\\n***'"),
        (KEY, f"no file /nowhere/{KEY}/x", "no file /nowhere/***/x"),
        (KEY, f"x{KEY}y", "x***y"),
        ("wJalr/K7MDENG/bPx", "key wJalr/K7MDENG/bPx", "key ***"),
        ("wJalr/K7MDENG/bPx", "s3://bucket/wJalr%2FK7MDENG%2FbPx", "s3://bucket/***"),
        ('p"ä\\x', json.dumps({"words": 'it is p"ä\\x.'}), '{"words": "it is ***."}'),
        ("true", '{"dirty": true}', '{"dirty": true}'),
        ("1234", "port 1234, 12345", "port ***, 12345"),
    ],
)
def test_values_of_secret_variables_are_found_and_words_and_folders_are_left(
    value: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value is masked wherever it is one, in any form; a plain word in others and in paths of this machine
    is not."""
    monkeypatch.setenv("SOME_TOKEN", value)
    assert redacted(text) == shown


def test_a_secret_that_begins_with_another_is_masked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer value goes first, so that its end is not left over."""
    monkeypatch.setenv("A_TOKEN", "sk-01234")
    monkeypatch.setenv("B_TOKEN", "sk-0123456789")
    assert redacted("sk-0123456789 sk-01234") == "*** ***"


def test_a_file_with_a_secret_is_none_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GOOGLE_APPLICATION_CREDENTIALS and the like hold the path of a file, which stays readable."""
    file = tmp_path / "key.json"
    file.write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert redacted(f"cannot read {file}") == f"cannot read {file}"


def test_json_keeps_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is called like a key leaves the key; texts below names of secrets are masked at any
    depth, numbers stay."""
    monkeypatch.setenv("A_TOKEN", "commit")
    content = {
        "commit": "a commit",
        "server": {"password": "abc", "tokens": ["x"], "port": 5, "pwd": ["u", "v"]},
    }
    assert redacted_content(content) == {
        "commit": "a ***",
        "server": {"password": "***", "tokens": ["x"], "port": 5, "pwd": ["***", "***"]},
    }


def test_a_patch_keeps_names_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers of a patch are left, and names in code; a plain word is masked in added lines in quotes,
    another secret always."""
    monkeypatch.setenv("A_TOKEN", "notes")
    monkeypatch.setenv("B_TOKEN", KEY)
    head = ["diff --git a/notes b/notes", "index 1..2 100644", "--- a/notes", "+++ b/notes"]
    lines = [
        f"@@ -1,3 +1,4 @@ notes {KEY}",
        "-notes",
        "+more notes",
        "+to = 'notes'",
        f"+x{KEY}",
        f" {KEY}",
        " notes",
    ]
    clean = redacted_patch("\n".join([*head, *lines, *head, ""])).split("\n")
    masked = ["@@ -1,3 +1,4 @@ notes ***", "-notes", "+more notes", "+to = '***'", "+x***", " ***", " notes"]
    assert clean == [*head, *masked, *head, ""]


# ---- what this package is


def test_a_checkout_of_the_package_has_commit_hash_and_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """library.json and tags have the commit, whether files differ, and a hash that any edit changes;
    library_changes.patch is applied by git, whatever folder the user's code is in, and has nothing of other
    files of the checkout."""
    root = checkout(
        tmp_path / "checkout",
        {"sbi_models/a.py": b"a = 1\n", "sbi_models/b.py": b"b = 1\n", "docs/c.md": b"c\n"},
    )
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    hashes = []
    for text in (b"a = 1\n", b"a = 2\n"):
        _write(root, {"sbi_models/a.py": text, "docs/c.md": text, "sbi_models/new.py": text})
        _run_from(root / "sbi_models", monkeypatch)
        with Tracker.start(store, "npe", "first", text.decode().strip(), folder=nowhere) as tracker:
            tracker.log_environment()
        assert tracker.artifact_path is not None
        folder = tracker.artifact_path / "environment"
        library, tags = (
            json.loads((folder / "library.json").read_text()),
            store.client.get_run(tracker.run_id).data.tags,
        )
        assert library["commit"] == tags[provenance.OWN_COMMIT] == git(root, "rev-parse", "HEAD").strip()
        assert library["sha256"] == tags[provenance.OWN_HASH]
        assert library["untracked"] == ["sbi_models/new.py"]
        hashes.append(library["sha256"])
    assert len(set(hashes)) == 2
    assert json.loads((folder / "code.json").read_text()) == {"commit": None}
    assert not (folder / "changes.patch").exists()
    git(root, "checkout", "-q", ".")
    git(root, "apply", str(folder / "library_changes.patch"))
    assert ((root / "sbi_models/a.py").read_bytes(), (root / "docs/c.md").read_bytes()) == (
        b"a = 2\n",
        b"c\n",
    )


def test_an_installed_package_has_its_hash_its_origin_and_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel has the same hash as the checkout that it was made of; an edit in site-packages is told by
    name, and by another hash."""
    files = {"sbi_models/a.py": b"a = 1\n", "sbi_models/b.py": b"b = 1\n"}
    root, site = checkout(tmp_path / "checkout", files), tmp_path / "lib" / "site-packages"
    _write(site, files | {"sbi_models/__pycache__/a.pyc": b"1"})
    _run_from(root / "sbi_models", monkeypatch)
    of_checkout = provenance.own_hash()
    record = [f"{name},sha256={_base64(content)},{len(content)}" for name, content in files.items()] + [
        "sbi_models-1.dist-info/RECORD,,"
    ]
    origin = {
        "url": "https://anna:hunter2@example.org/sbi_models-1.whl",
        "archive_info": {"hashes": {"sha256": "0" * 64}},
    }
    about = {
        "METADATA": b"Name: sbi-models\nVersion: 1\n",
        "RECORD": "\n".join(record).encode(),
        "direct_url.json": json.dumps(origin).encode(),
    }
    _write(site / "sbi_models-1.dist-info", about)
    _run_from(site / "sbi_models", monkeypatch)
    monkeypatch.setattr(
        run_environment, "distributions", lambda name: [Distribution.at(site / "sbi_models-1.dist-info")]
    )
    state, patch = run_environment.library_state()
    assert (state["sha256"], state["edited"], patch) == (of_checkout, [], "")
    assert state["installed_from"]["archive_info"]["hashes"]["sha256"] == "0" * 64  # type: ignore[index]
    assert "hunter2" not in json.dumps(state)
    _write(site, {"sbi_models/b.py": b"b = 2\n"})
    provenance.own_hash.cache_clear()
    state, _ = run_environment.library_state()
    assert (state["edited"], state["sha256"] == of_checkout) == (["sbi_models/b.py"], False)


def test_a_checkout_without_a_commit_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package in a repository that has no commit yet has its hash alone."""
    git(tmp_path, "init", "-q")
    _write(tmp_path, {"sbi_models/a.py": b"a = 1\n"})
    _run_from(tmp_path / "sbi_models", monkeypatch)
    assert set(provenance.own_tags()) == {provenance.OWN_HASH}
    assert run_environment.library_state()[0]["sha256"] == provenance.own_hash()


def _run_from(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(package / "tracking" / "provenance.py"))
    provenance.own_hash.cache_clear()


@pytest.fixture(autouse=True)
def _own_hash_is_that_of_this_package() -> object:
    yield
    provenance.own_hash.cache_clear()


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
