"""No password or token is shown or logged: `redacted` takes them out of texts, `redacted_setting` out of settings."""

import os
import re

MASK = "***"
SHORTEST = 4
"""Values of secret variables that are shorter are not looked for in texts, which would be full of them."""

_NAMES = r"(?:password|passwd|pwd|passphrase|secret|token|credentials?|(?:api|access|secret|private)[_-]?key|auth[_-]?string)"
_SECRET_NAME = re.compile(rf"(?:^|[._-]){_NAMES}$", re.IGNORECASE)

_PATTERNS = (
    # user:password@ and token@ in addresses; a password for a database may hold a slash, one for a web server may not
    (re.compile(r"(\bhttps?://)[^\s/@'\"]+@", re.IGNORECASE), rf"\1{MASK}@"),
    (re.compile(r"(\b(?!https?:)[a-z][a-z0-9+.-]*://[^\s/:@'\"]*:)[^\s'\"]*@", re.IGNORECASE), rf"\1{MASK}@"),
    # ?token=..., &X-Amz-Signature=... in addresses
    (re.compile(rf"([?&;](?:[\w.-]*{_NAMES}|sig|signature|auth|[\w-]*signature|awsaccesskeyid)=)[^\s&#'\"]+", re.IGNORECASE), rf"\1{MASK}"),
    # "password": "...", password='...'
    (re.compile(rf"(\b[\w.-]*{_NAMES}[\"']?\s*[=:]\s*)([\"'])(?!\2)[^\"'\n]+\2", re.IGNORECASE), rf"\1\2{MASK}\2"),
    # NAME_PASSWORD=... of an environment; host=... password=... of a database
    (re.compile(r"(\b[A-Z0-9_]*(?:PASSWORD|SECRET|TOKEN|API_KEY|ACCESS_KEY|AUTH_STRING)\s*=\s*)[^\s\"',;&]+"), rf"\1{MASK}"),
    (re.compile(r"((?:^|\s)(?:ssl)?password=)[^\s\"',;&()]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1{MASK}"),
)


def redacted(text: str) -> str:
    """The text with *** for passwords in addresses, keys in queries, `password = "..."`, and the values of secret environment variables.

    >>> redacted("postgresql://anna:hunter2@db:5432/mlflow")
    'postgresql://anna:***@db:5432/mlflow'
    >>> redacted("https://data.example.org/x.npz?version=2&token=abc123")
    'https://data.example.org/x.npz?version=2&token=***'
    """
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and is_secret(name):
            text = text.replace(value, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_secret(name: str) -> bool:
    """Whether a setting or an environment variable of this name holds a secret.

    >>> [is_secret(name) for name in ("PREFECT_API_KEY", "server.password", "num_tokens", "tokenizer")]
    [True, True, False, False]
    """
    return _SECRET_NAME.search(name) is not None


def redacted_setting(name: str, value: object) -> str:
    """The text of a setting, *** if its name says that it is a secret."""
    return MASK if is_secret(name) and value not in (None, "") else redacted(str(value))
