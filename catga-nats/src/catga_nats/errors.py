"""The one place where what NATS says becomes an error of Catga."""

from __future__ import annotations

import ssl

import msgspec

from catga.errors import (
    AuthenticationError,
    CatgaError,
    ConfigurationError,
    ConnectionLost,
    PublishRejected,
    PublishUnknown,
    TransportError,
)
from catga.spi import PublishResult, Rejected, Unknown
from catga_nats.client import ClearTextError
from catga_nats.mux import Missing

__all__ = [
    "WRONG_SEQUENCE",
    "ApiError",
    "api_failure",
    "cannot_connect",
    "is_final",
    "missing_error",
    "publish_failure",
    "publish_missing",
]

_REFUSALS = ("authorization", "authentication", "jwt", "nkey", "credentials")


_HELP = {
    10026: ": one stream has those of all groups and types, and from 2.15 on a server allows 1000 "
    "unless its `jetstream { limits { default_max_consumers: … } }` says more"
}
"""What to do, where JetStream's own words do not tell."""


WRONG_SEQUENCE = frozenset({10071, 10164})
"""The last message of a subject is another one than was expected, or is just becoming another one,
as several servers say it. Source: nats-server 2.15, `server/errors.json`."""
_IN_PROCESS = frozenset({10158, 10164})
"""Several servers are about to store another one with this id, or on this subject: the repeat tells
what has become of it."""


class ApiError(msgspec.Struct):
    """An error as JetStream writes it. Source: docs.nats.io, JetStream API, `ApiError`."""

    code: int
    err_code: int = 0
    description: str = ""

    def __str__(self) -> str:
        help_ = _HELP.get(self.err_code, "")
        return f"{self.description} ({self.err_code or self.code}){help_}"


def is_final(error: BaseException) -> bool:
    """Say whether connecting again cannot help: wrong credentials, or TLS not as asked."""
    return isinstance(error, ssl.SSLError | ClearTextError) or any(
        word in str(error).lower() for word in _REFUSALS
    )


def cannot_connect(address: str, error: BaseException | None, seconds: float) -> CatgaError:
    """Translate why `open` failed; `address` is shown without user information."""
    if isinstance(error, ClearTextError):
        return ConnectionLost(f"{address}: {error}")
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return ConnectionLost(
            f"{address}: the server does not begin with TLS: leave out tls_first, or use nats://"
        )
    if isinstance(error, ssl.SSLError):
        return ConnectionLost(f"{address}: no trust over TLS: {error.reason or error}")
    if error is not None and is_final(error):
        return AuthenticationError(f"{address} refused the credentials: {error}")
    reason = f": {error}" if error is not None and str(error) else ""
    return ConnectionLost(f"{address} did not answer within {seconds:g} s{reason}")


def missing_error(missing: Missing, what: str) -> TransportError:
    """Translate an answer that did not come."""
    if missing is Missing.DENIED:
        return AuthenticationError(f"the server does not permit {what}")
    if missing is Missing.TIMEOUT:
        return ConnectionLost(f"no answer in time to {what}")
    return ConnectionLost(f"not connected: {what}")


def api_failure(what: str, error: ApiError) -> CatgaError:
    """Translate a refusal of the JetStream API during `prepare`."""
    if error.code == 503:
        return ConnectionLost(f"{what}: JetStream is not available now: {error}")
    return ConfigurationError(f"{what}: the server refused it: {error}")


def publish_failure(subject: str, error: ApiError) -> PublishResult:
    """Translate a negative confirmation: surely not stored, or another one has to be waited for."""
    if error.err_code in _IN_PROCESS:
        return Unknown(PublishUnknown(f"{subject}: {error}"))
    transient = error.code == 503 and error.err_code != 10077  # 10077: full, by max_bytes
    return Rejected(PublishRejected(f"{subject}: not stored: {error}"), transient=transient)


def publish_missing(subject: str, missing: Missing) -> PublishResult:
    """Translate a confirmation that did not come.

    A publish without its confirmation may have been stored, or may be stored later: JetStream was
    seen to do so in each of five tries.
    """
    if missing is Missing.DENIED:
        return Rejected(AuthenticationError(f"the server does not permit publishing to {subject}"))
    why = "no confirmation in time" if missing is Missing.TIMEOUT else "the connection was lost"
    return Unknown(PublishUnknown(f"{subject}: {why}"))
