"""Error classes with a common root, and exit codes that a scheduler can act on.

Each error says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

import re

EXIT_DONE = 0
EXIT_BAD_INPUT = 65  # sysexits EX_DATAERR
EXIT_INTERNAL = 70  # EX_SOFTWARE
EXIT_RETRYABLE = 75  # EX_TEMPFAIL: the same command may succeed later
EXIT_BAD_CONFIG = 78  # EX_CONFIG
EXIT_NOTHING_TO_DO = 99  # Airflow's operators take it as "skipped" by default

# key=value, as in queries and properties, or "key": "value", as in JSON, also with escaped quotes.
_SECRETS = re.compile(
    r"(?i)\b(X-Amz-[A-Za-z-]+|AWSAccessKeyId|Signature|sig|[\w.]*token|[\w.]*password|secret[\w.]*|"
    r"[\w.]*(?:access|secret)[._]?key)(=|\\*\"\s*:\s*\\*\")[^\s&\"'\\]+"
)
# key: value, as in YAML and headers. Tokens are left out, because parsers write "token: ..." in their messages.
_SPELLED = re.compile(
    r"(?i)\b([\w.]*(?:secret[._](?:access[._])?key|api[._-]?key|password)\s*[:=]\s*|Bearer\s+)[^\s&\"'\\]+"
)
_USERINFO = re.compile(r"(?<=://)[^/\s@]+@")
_S3_USERINFO = re.compile(r"(s3[an]?://)[^\s@:/]+:[^\s@]+@")  # the secret key may contain a slash


def redact(text: str) -> str:
    """Return `text` with credentials replaced by `***`.

    Covered are the parameters of presigned URLs, secrets written as key=value or key: value, bearer tokens, and
    user:password@ in URIs.
    """
    text = _SPELLED.sub(r"\1***", _SECRETS.sub(r"\1\2***", text))
    return _USERINFO.sub("***@", _S3_USERINFO.sub(r"\1***@", text))


class GeosieveError(Exception):
    """Root of all errors of this package.

    `what` is wrong, `where` (URI, row or key), and a `hint` what to do. Credentials are removed from all three.
    """

    exit_code = EXIT_INTERNAL

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = redact(what), redact(where), redact(hint)
        super().__init__(self.what, self.where, self.hint)

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"at {self.where}")
        if self.hint:
            parts.append(self.hint)
        return " | ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors are pickled between processes; without this, unpickling fails on the keyword-only arguments.
        return _rebuild, (type(self), self.what, self.where, self.hint)


def _rebuild(kind: type[GeosieveError], what: str, where: str, hint: str) -> GeosieveError:
    return kind(what, where=where, hint=hint)


class ConfigError(GeosieveError):
    """The configuration cannot be used: unknown key, wrong type, contradiction, missing jar."""

    exit_code = EXIT_BAD_CONFIG


class InputError(GeosieveError):
    """The input data cannot be used as a whole. Single bad rows go to `rejects` instead."""

    exit_code = EXIT_BAD_INPUT


class RetryableError(GeosieveError):
    """A failure that may pass: a throttled store, a lost race for a run id, a full disk."""

    exit_code = EXIT_RETRYABLE


class IntegrityError(GeosieveError):
    """A consistency check failed, such as rows in = rows out + rejects, or a jar's checksum. Nothing was committed."""
