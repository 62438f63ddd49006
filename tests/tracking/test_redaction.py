"""Passwords and tokens are in no message, traceback, log, tag, parameter, description or file."""

import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import mlflow.store.db.utils as mlflow_databases
import pytest

from sbi_models.errors import SbiModelsError
from sbi_models.tracking import (
    Store,
    Tracker,
    annotate,
    load,
    open_store,
    redacted,
    register,
    ui_command,
    ui_environment,
    version_of,
)
from sbi_models.tracking.redaction import is_secret

PASSWORD = "hunter2-secret"
KEY = "sk-0123456789"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", KEY)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "of the server")
    monkeypatch.setenv("SBI_MODELS_TRACKING_PATIENCE", "0")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://anna:hunter2@host:5000/api", "http://***@host:5000/api"),
        ("https://ghp_abc@github.com/a/b.git", "https://***@github.com/a/b.git"),
        (
            "postgresql+psycopg2://anna:p/w:x@y@db/mlflow?sslmode=require",
            "postgresql+psycopg2://anna:***@db/mlflow?sslmode=require",
        ),
        (
            "see 'mysql://a:b@c/d' and http://127.0.0.1:5000/models/x@champion",
            "see 'mysql://a:***@c/d' and http://127.0.0.1:5000/models/x@champion",
        ),
        ("s3://b/k?X-Amz-Signature=abc&X-Amz-Date=2", "s3://b/k?X-Amz-Signature=***&X-Amz-Date=2"),
        ("https://h/x?api_key=abc#top", "https://h/x?api_key=***#top"),
        ('{"password": "abc", "user": "anna"}', '{"password": "***", "user": "anna"}'),
        ("+    token='abc'  # set", "+    token='***'  # set"),
        ("host=db password=abc dbname=x", "host=db password=*** dbname=x"),
        ("export MLFLOW_TRACKING_TOKEN=abc", "export MLFLOW_TRACKING_TOKEN=***"),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer ***"),
        ("Authorization: Basic abcdefghij", "Authorization: Basic ***"),
        ("HTTPS://Anna:hunter2@Host/a", "HTTPS://***@Host/a"),
        ("POSTGRESQL://Anna:hunter2@Host/a", "POSTGRESQL://Anna:***@Host/a"),
        ("https://h/x?auth=abc&author=anna", "https://h/x?auth=***&author=anna"),
        ("https://h/x?sig=abc&sign=plus", "https://h/x?sig=***&sign=plus"),
        ("https://h/x?Signature=abc&AWSAccessKeyId=def", "https://h/x?Signature=***&AWSAccessKeyId=***"),
        ("{'auth_string': 'a:b', 'author': 'anna'}", "{'auth_string': '***', 'author': 'anna'}"),
        ("PREFECT_SERVER_API_AUTH_STRING=a:b", "PREFECT_SERVER_API_AUTH_STRING=***"),
        (f"the key {KEY} and the words of the server", "the key *** and the words ***"),
        (
            "token = tokens[0]; num_tokens=5; models:/a@b; sqlite:////x/y.db",
            "token = tokens[0]; num_tokens=5; models:/a@b; sqlite:////x/y.db",
        ),
    ],
)
def test_secrets_are_taken_out_of_texts_and_the_rest_is_left(text: str, shown: str) -> None:
    """Addresses, queries, JSON, code, environments and headers lose their secrets and nothing else; a second
    time nothing changes."""
    assert redacted(text) == shown
    assert redacted(shown) == shown


def test_short_values_are_no_secrets_and_long_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of a secret variable is masked from four characters on; one of three, and a switch such as
    "true", would mask half of a text and stay."""
    for value, shown in (("x9!", "x9! true"), ("x9!k", "*** true"), ("x9!kq", "*** true"), ("true", "true")):
        monkeypatch.setenv("ANOTHER_TOKEN", value)
        assert redacted(value if value == "true" else f"{value} true") == shown


def test_values_are_masked_as_every_language_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """In JSON, in Python and in an address a value may look otherwise; one that is part of a longer one does
    not leave the rest of it."""
    monkeypatch.setenv("DB_PASSWORD", 'p%/"ß\\1')
    monkeypatch.setenv("LONG_SECRET", "k%9-of-a-longer-one")
    monkeypatch.setenv("SHORT_SECRET", "k%9-of")
    value = 'p%/"ß\\1'
    for text in (value, json.dumps([value]), repr([value]), quote(value, safe="")):
        assert "1" not in redacted(text)
    assert redacted("k%9-of-a-longer-one k%9-of") == "*** ***"


def test_names_of_secrets() -> None:
    """A name that ends in a word for a secret, in any case, alone or after a dot, a dash or an underscore, is
    one; such a word inside of a longer one, or in front, is none."""
    yes = "password db.PASSWD x-pwd PASSPHRASE a_secret api-token CREDENTIALS apikey ACCESS_KEY private-key "
    no = "tokenizer num_tokens secretary passwords_file keyboard api_key_id author_strings"
    assert all(is_secret(name) for name in f"{yes}auth_string server.AuthString auth-string".split())
    assert not any(is_secret(name) for name in no.split())


ADDRESSES = [
    f"http://anna:{PASSWORD}@127.0.0.1:9",
    f"postgresql+psycopg2://anna:{PASSWORD}@127.0.0.1:9/mlflow",
    f"file://anna:{PASSWORD}@host/runs",
    f"sqlite://anna:{PASSWORD}@host",
]


@pytest.mark.parametrize("address", ADDRESSES, ids=["http", "postgresql", "file", "sqlite"])
def test_a_password_in_the_address_of_the_store_is_never_shown(
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """However a store is used that cannot be reached or does not fit, messages, tracebacks, logs and reprs
    are without its password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr(mlflow_databases, "MAX_RETRY_COUNT", 1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # as runs of this package have it
    said = []

    def attempts() -> Iterator[Callable[[], object]]:
        yield lambda: said.append(repr(open_store(tmp_path)))
        yield lambda: Tracker.start(open_store(tmp_path), "npe", "first", "key")
        yield lambda: Tracker.attach(open_store(tmp_path), "run")
        yield lambda: load("models:/normal@champion")
        yield lambda: version_of(open_store(tmp_path), address)
        yield lambda: load(f"runs:/{address}")
        yield lambda: said.append(str(ui_command(open_store(tmp_path))))

    errors = 0
    for attempt in attempts():
        try:
            attempt()
        except SbiModelsError as error:
            errors += 1
            said.append("".join(traceback.format_exception(error)))
    assert errors >= 5
    texts = [*said, caplog.text, *capfd.readouterr()]
    assert not [text for text in texts if PASSWORD in text]


def test_the_ui_gets_the_password_of_a_database_by_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line, which other users can read, has no password; MLflow finds the address in
    MLFLOW_BACKEND_STORE_URI."""
    address = f"postgresql://anna:{PASSWORD}@127.0.0.1/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    store = open_store(tmp_path)
    command = ui_command(store)
    assert "--backend-store-uri" not in command
    assert not [part for part in command if PASSWORD in part]
    assert ui_environment(store)["MLFLOW_BACKEND_STORE_URI"] == address


def test_secrets_are_not_written(
    store: Store, fake_approximators: Callable[..., Path], tmp_path: Path
) -> None:
    """Parameters, tags, data sources, JSON files, tags and descriptions of versions are in the store without
    secrets."""
    address = f"postgresql://anna:{PASSWORD}@db/x"
    params = {"source": address, "server": {"password": "abc", "port": 5}, "num_tokens": 7}
    tracker = Tracker.start(store, "npe", "first", "key", params, tags={"from": address})
    tracker.set_tags({"api_key": "abc", "server": address})
    tracker.log_dataset(
        "simulations", f"https://anna:{PASSWORD}@host/x.npz?token={KEY}", {}, "a" * 40, "training"
    )
    tracker.log_json({"store": address, "key": KEY}, "settings.json")
    registered = register(
        store,
        "normal",
        fake_approximators(tmp_path / "a"),
        tracker.run_id,
        tags={"a": address},
        description=address,
    )
    annotate(store, "normal", registered.version, tags={"b": f"key {KEY}"}, description=f"from {address}")
    tracker.finish()
    run = store.client.get_run(tracker.run_id)
    assert run.data.params == {
        "source": "postgresql://anna:***@db/x",
        "server.password": "***",
        "server.port": "5",
        "num_tokens": "7",
    }
    assert (run.data.tags["api_key"], run.data.tags["from"]) == ("***", "postgresql://anna:***@db/x")
    assert json.loads(run.inputs.dataset_inputs[0].dataset.source) == {
        "url": "https://***@host/x.npz?token=***"
    }
    assert store.client.get_model_version("normal", "1").description == "from postgresql://anna:***@db/x"
    for path in (store.root / "mlruns").rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path
            assert KEY.encode() not in path.read_bytes(), path


def test_a_value_is_masked_inside_of_a_longer_text_that_is_shown_as_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a value stands among other words, JSON and Python write it without quotes around it."""
    value = 'p%"\x07ß\\1'
    monkeypatch.setenv("DB_PASSWORD", value)
    assert redacted(repr(f"at {value} in")) == repr("at *** in")
    assert redacted(json.dumps(f"at {value} in")) == json.dumps("at *** in")


def test_of_values_inside_of_each_other_the_longest_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve secrets, each the beginning of the next one, nothing is left of any."""
    values = [f"k%9{'-x%' * k}-" for k in range(1, 13)]
    for k in (5, 11, 2, 8, 0, 9, 3, 6, 1, 10, 7, 4):
        monkeypatch.setenv(f"NUMBER_{k}_SECRET", values[k])
    for value in values:
        assert redacted(f"the {value}.") == "the ***."


@pytest.mark.parametrize("secret", ["k%9-of-a", "hunter"])
def test_a_folder_that_is_called_like_a_secret_stays_readable(
    secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole folder or file of a path is left, whatever follows the path; the word elsewhere is masked, also
    before a path."""
    monkeypatch.setenv("ANOTHER_TOKEN", secret)
    (tmp_path / secret).mkdir()
    for text in (f"{tmp_path}/{secret}", f"in {tmp_path}/{secret} and so on", f"'{tmp_path}/{secret}/x.txt'"):
        assert redacted(text) == text
    assert redacted(f"the {secret} /usr/lib") == "the *** /usr/lib"
    assert redacted(f"the {secret} a/b") == "the *** a/b"


def test_a_secret_that_only_looks_like_a_path_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value with a slash of its own, a part of a folder's name, and a folder that does not exist here are
    masked."""
    secret = "k%9-of-a"
    monkeypatch.setenv("ANOTHER_TOKEN", secret)
    for name in (f"a{secret}", f"{secret}b"):
        (tmp_path / name).mkdir()
    assert redacted(f"{tmp_path}/a{secret}/x") == f"{tmp_path}/a***/x"
    assert redacted(f"{tmp_path}/a{secret}") == f"{tmp_path}/a***"
    (tmp_path / secret).mkdir()
    assert redacted(f"{tmp_path}/{secret}b") == f"{tmp_path}/***b"
    assert redacted(f"{tmp_path}/there/{secret}/x") == f"{tmp_path}/there/***/x"
    (tmp_path / "a%1").mkdir()
    (tmp_path / "a%1" / "b").mkdir()
    monkeypatch.setenv("ANOTHER_TOKEN", "a%1/b")
    assert redacted(f"{tmp_path}/a%1/b") == f"{tmp_path}/***"
