"""shards/addresses.py: addresses that may be opened, and their names in messages."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

from viper_e2e.shards.limits import ShardError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


STORES = ("s3", "gs", "hf")


def is_remote(where: str) -> bool:
    """Whether it is an address; a local path with a colon in its name begins with ``./``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", where) is not None


def is_store(address: str) -> bool:
    """Whether it names an object store rather than a server."""
    return address.partition("://")[0] in STORES


def refuse_scheme(url: str) -> None:
    """Let through https anywhere, stores, and plain http only to this very machine (a tunnel, a test)."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ShardError(f"{url.partition('?')[0]}: is not an address ({error})") from error
    if is_store(url):
        _check_store(url)
    elif not (parts.scheme == "https" and parts.hostname) and not is_loopback(url):
        raise ShardError(
            f"{without_query(url)}: scheme {parts.scheme!r} is refused; "
            "clips and shards are local paths (./name where a name has a colon), or https://, s3://, gs:// or "
            "hf:// addresses"
        )


def _check_store(address: str) -> None:
    scheme = address.partition("://")[0]
    form, told = r"\w+://[^/?#@]+/[^?#]+", f"{scheme}://BUCKET/PATH, without ? and #"
    if scheme == "hf":
        form, told = r"hf://datasets/[^/?#@]+/[^/?#@]+(@[^/?#]+)?/[^?#]+", "hf://datasets/OWNER/NAME/PATH"
    if not re.fullmatch(form, address):
        raise ShardError(f"{address}: write {told}")


def refuse_redirect(url: str, target: str) -> None:
    """Redirects stay on https: a server must not send us to a plain, local or other address."""
    if urlsplit(target).scheme != "https" and not (is_loopback(url) and is_loopback(target)):
        raise ShardError(f"{without_query(url)}: redirected to {without_query(target)}: refused")


def is_loopback(url: str) -> bool:
    """Whether this is plain http to this very machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in LOOPBACK


def same_origin(url: str, other: str) -> bool:
    """Whether secrets for the one may be sent to the other."""
    first, second = urlsplit(url), urlsplit(other)
    return (first.scheme, first.hostname, first.port) == (second.scheme, second.hostname, second.port)


def without_query(url: str) -> str:
    """The URL for messages: a signed query is a secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
