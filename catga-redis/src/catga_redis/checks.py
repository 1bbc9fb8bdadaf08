"""Whether a server can keep the promises: pure decisions over what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from catga.errors import CapabilityError

__all__ = ["Risk", "check_server", "find_risks", "parse_info"]

_OLDEST = {"redis": (7, 0), "valkey": (8, 0)}
_BEHIND = (
    "unless it is `always`, the server writes its file behind an fsync that is still running, up "
    "to 2 s late, and a crash loses what it accepted meanwhile"
)
"""Source: redis.conf, `appendfsync`, and measured: with an fsync of 0.5 s, 11 of 25 SIGKILLs of a
server (Valkey 9.1, `everysec`) lost writes it had answered, with `always` none of 25."""


@attrs.frozen
class Risk:
    """One broken assumption; `name` is what `accept_risk` calls it."""

    name: str
    detail: str
    refused: bool = True
    """Whether exactly once is refused for it unless it is accepted; else it is only said."""


def parse_info(reply: bytes) -> dict[str, str]:
    """Read the reply of `INFO`."""
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def check_server(hello: Mapping[str, str], where: str, *, cluster: bool = False) -> None:
    """Raise `CapabilityError` for a server that is too old or of another kind than its URL says.

    `hello` is the reply of `HELLO` (no permission needed): there Valkey tells its own version,
    while `redis_version` of `INFO` says 7.2.4 on every Valkey (Valkey 9.1).
    """
    server = hello.get("server", "redis")
    version = hello.get("version", "0")
    oldest = _OLDEST.get(server)
    if oldest is not None and _numbers(version) < oldest:
        need = ".".join(map(str, oldest))
        raise CapabilityError(
            f"{where} is {server} {version}: Catga needs Redis >= 7.0 or Valkey >= 8.0, "
            f"so upgrade it to {server} {need} or later"
        )
    if hello.get("mode") == "sentinel":
        raise CapabilityError(
            f"{where} is a sentinel: use redis+sentinel://host:port/name-of-the-primary"
        )
    if hello.get("mode") == "cluster" and not cluster:
        raise CapabilityError(
            f"{where} runs in cluster mode: use redis+cluster://host:port,host:port"
        )


def find_risks(
    info: Mapping[str, str] | None, appendfsync: str | None, max_length: int | None = None
) -> list[Risk]:
    """Return what in the server's settings, and in ours, breaks the promises of stored messages.

    None: the user may not run `INFO` or `CONFIG GET appendfsync`, so that nothing is known.
    """
    risks: list[Risk] = []
    if max_length is not None:
        words = f"max_length={max_length} trims entries that no group has settled: take it away"
        risks.append(Risk("max_length", words))
    if info is None:
        unknown = (
            "INFO is not permitted, so persistence and eviction are unknown: "
            "allow it with `ACL SETUSER ... +info`"
        )
        return [*risks, Risk("unknown", unknown, refused=False)]
    if info.get("aof_enabled") != "1":
        risks.append(
            Risk(
                "persistence",
                "what was accepted is lost when the server stops: set `appendonly yes`",
            )
        )
    elif appendfsync != "always":
        found = f"is {appendfsync}" if appendfsync else "is unknown (CONFIG is not permitted)"
        risks.append(Risk("sync", f"`appendfsync` {found}: {_BEHIND}", refused=False))
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0" and policy != "noeviction":
        risks.append(
            Risk(
                "eviction",
                f"`maxmemory-policy {policy}` lets the server forget messages and ids: "
                "set `maxmemory-policy noeviction`",
            )
        )
    return risks


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
