"""Reads URLs. Written out because brokers take several hosts, which `urllib` does not split.

No error here shows any part of the URL: a mistyped one may hold the password anywhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import NoReturn
from urllib.parse import unquote, unquote_plus

from catga.errors import ConfigurationError
from catga.spi import Address, Secret

__all__ = ["parse_url"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_PORT = re.compile(r"[0-9]{1,5}")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NOT_PRINTABLE = re.compile(r"[\x00-\x20\x7f]")


def parse_url(url: str) -> tuple[Address, Mapping[str, str]]:
    """Split `scheme://user:password@host:port,host:port/path?key=value&…`.

    Returns the address and the query. User information is percent-decoded; it comes once, before
    the first host. Raises `ConfigurationError`, which never shows any of the URL.
    """
    if not isinstance(url, str):
        _refuse(f"must be text, not {type(url).__name__}")
    scheme, found, rest = url.partition("://")
    if not found or not _SCHEME.fullmatch(scheme):
        _refuse("must begin with a scheme, as in nats://127.0.0.1:4222")
    if _NOT_PRINTABLE.search(rest):
        _refuse("holds a space or a control character: percent-encode it")
    if "#" in rest:
        _refuse("has a fragment: leave it out, or write # as %23 where it belongs to a word")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    userinfo, _, hosts = authority.rpartition("@")
    if "@" in userinfo + path + query:
        _refuse("has an @ in the wrong place: write @ as %40, / as %2F and ? as %3F in passwords")
    username, _, password = userinfo.partition(":")
    return Address(
        scheme=scheme.lower(),
        hosts=tuple(_host(part) for part in hosts.split(",")) if hosts else (),
        path=_decoded(path),
        username=_secret(username),
        password=_secret(password),
    ), _query(query)


def _refuse(reason: str) -> NoReturn:
    raise ConfigurationError(f"the URL {reason}")


def _host(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, closed, tail = text[1:].partition("]")
        valid = bool(closed) and (not tail or tail.startswith(":")) and _is_ipv6(host)
        colon, port = tail[:1], tail[1:]
    else:
        host, colon, port = text.partition(":")
        valid = _HOST.fullmatch(host) is not None
    if not valid:
        _refuse("has a host that is none: use a name, an IPv4 address, or IPv6 in [brackets]")
    if not colon:
        return host, None
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        _refuse("has a bad port: use a number from 1 to 65535")
    return host, int(port)


def _is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _secret(text: str) -> Secret | None:
    return Secret(_decoded(text)) if text else None


def _query(text: str) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for pair in text.split("&") if text else ():
        name, found, value = pair.partition("=")
        key = _decoded(name, plus=True)
        if not found or not key:
            _refuse("has a query that is not key=value&key=value")
        if key in values:
            _refuse("gives one key of its query twice")
        values[key] = _decoded(value, plus=True)
    return values


def _decoded(text: str, *, plus: bool = False) -> str:
    if _BAD_ESCAPE.search(text):
        _refuse("has a % that begins no escape: write % as %25")
    try:
        return (unquote_plus if plus else unquote)(text, errors="strict")
    except UnicodeDecodeError:
        pass
    _refuse("has percent escapes that are not UTF-8")
