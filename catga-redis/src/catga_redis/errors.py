"""The one place where the client's errors become Catga's."""

from __future__ import annotations

import ssl

from catga.errors import (
    AuthenticationError,
    CatgaError,
    ConnectionLost,
    PublishRejected,
    TransportError,
)
from catga.spi import Rejected, Unknown
from redis import exceptions as redis_errors

__all__ = [
    "ELSEWHERE",
    "REPLY_ERRORS",
    "InClear",
    "ReplyLost",
    "is_final",
    "refused",
    "translate",
    "unconfirmed",
    "was_hung_up",
]

_FATAL = (
    redis_errors.AuthenticationError,
    redis_errors.AuthorizationError,
    redis_errors.NoPermissionError,
)
_PASSING = (
    "OOM",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "CLUSTERDOWN",
    "TRYAGAIN",
)
"""The first words of refusals that another try can get past (Redis 7.2, "Error replies")."""
_PASSING_CLASSES = (
    redis_errors.OutOfMemoryError,
    redis_errors.BusyLoadingError,
    redis_errors.ReadOnlyError,
    redis_errors.MasterDownError,
    redis_errors.ClusterDownError,
    redis_errors.TryAgainError,
    redis_errors.AskError,
)


ELSEWHERE = (
    redis_errors.AskError,  # and `MovedError`, which the client derives from it
    redis_errors.TryAgainError,
    redis_errors.ClusterDownError,
)
"""What a node of a cluster answers instead of doing it (redis.io, "Cluster specification")."""

REPLY_ERRORS = (redis_errors.ResponseError, redis_errors.BusyLoadingError, *_FATAL)
"""What the client makes of error replies; the connection still works after each.

It derives some (`LOADING`, `NOAUTH`) from its `ConnectionError`, so ask for these first.
"""


class ReplyLost(ConnectionLost):
    """The command was written and its reply never came: it may have taken effect."""


class InClear(Exception):
    """TLS was asked for and the server speaks in clear."""


def is_final(error: ConnectionLost) -> bool:
    """Say whether connecting again cannot help: the server speaks another language."""
    cause = error.__cause__
    return isinstance(cause, InClear | redis_errors.InvalidResponse) or _over_tls(cause) is not None


def was_hung_up(error: ConnectionLost) -> bool:
    """Say whether the server took the connection and ended it: so does one that wants TLS."""
    cause = error.__cause__
    reset = cause is not None and isinstance(cause.__context__, ConnectionResetError)
    return reset or str(cause).startswith("Connection closed by server")


def _over_tls(error: BaseException | None) -> ssl.SSLError | None:
    """Return what went wrong with TLS itself; the client wraps it."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    # The peer may also just be gone in the middle of it.
    return None if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) else error


def _foreign(error: BaseException) -> str:
    """Return what is said of a server that speaks another language; nothing of any other."""
    failed = _over_tls(error)
    if isinstance(error, InClear) or (failed and failed.reason == "WRONG_VERSION_NUMBER"):
        return "the server does not speak TLS: use redis://"
    if failed is not None:
        return f"no trust over TLS: {failed.reason or failed}"
    if isinstance(error, redis_errors.InvalidResponse):
        return "the server does not speak the protocol of Redis (if it wants TLS: use rediss://)"
    return ""


def translate(error: BaseException, where: str) -> CatgaError:
    """Return the Catga error for what the client raised while talking to `where`.

    Credentials come first: redis-py's `AuthenticationError` is a `ConnectionError` too.
    """
    if isinstance(error, CatgaError):
        return error
    if isinstance(error, _FATAL):
        return _from(
            AuthenticationError(f"{where} refused the credentials or the permission: {error}"),
            error,
        )
    if isinstance(error, redis_errors.ResponseError):
        return _from(TransportError(f"{where} refused: {error}"), error)
    if said := _foreign(error):
        return _from(ConnectionLost(f"{where}: {said}"), error)
    return _from(
        ConnectionLost(f"{where} is not there: {str(error) or type(error).__name__}"), error
    )


def refused(error: Exception, where: str) -> Rejected | Unknown:
    """Return the result of a stored publish that the server refused."""
    if isinstance(error, CatgaError):
        return unconfirmed(error)
    if isinstance(error, _FATAL):
        return Rejected(translate(error, where))
    words = str(error)
    transient = isinstance(error, _PASSING_CLASSES) or words.startswith(_PASSING)
    return Rejected(
        _from(PublishRejected(f"{where} refused the message: {words}"), error), transient
    )


def unconfirmed(error: CatgaError) -> Rejected | Unknown:
    """Return the result of a stored publish whose connection was lost."""
    return Unknown(error) if isinstance(error, ReplyLost) else Rejected(error, transient=True)


def _from(error: CatgaError, cause: BaseException) -> CatgaError:
    error.__cause__ = cause
    return error
