"""shards/stores.py: object stores and logins: what an address becomes when it is asked for over https.

Stores are read by our own client, not through fsspec: that hides which range a server answered with, has
threads that do not survive a fork, and other rules of patience for each store. Only logins are left to the
stores' own libraries.
"""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from viper_e2e.shards.addresses import is_loopback, is_store, without_query
from viper_e2e.shards.limits import ShardError

if TYPE_CHECKING:
    from viper_e2e.shards.http_client import Answer

SIGNED_SECONDS = 3600
"""How long a signed S3 address would be good for; it is made for one request."""
TOKENS, HEADERS = "VIPER_BEARER_TOKENS", "VIPER_HTTPS_HEADERS"
_GOOGLE_LOGIN = "https://oauth2.googleapis.com"
_GCS_READ = "https://www.googleapis.com/auth/devstorage.read_only"
_EXPIRED = re.compile(r"Expired|TokenRefreshRequired|InvalidToken|expired")


@dataclass(frozen=True)
class Request:
    """Request to a server for an address."""

    url: str
    """``https://``, or plain http to this very machine."""
    secrets: dict[str, str] = field(default_factory=dict)
    """Headers for this server alone."""


def request_for(address: str) -> Request:
    """Raises ``ShardError`` where there is no login, or what it needs is not installed."""
    scheme = urlsplit(address).scheme
    request = {"s3": _of_s3, "gs": _of_gcs, "hf": _of_hub}.get(scheme, _of_https)(address)
    if is_store(address) and not request.url.startswith("https:") and not is_loopback(request.url):
        endpoint = without_query(request.url).rpartition("/")[0]
        raise ShardError(
            f"{address}: {endpoint} is plain http to another machine: refused; use https or a tunnel"
        )
    return request


def forget_logins() -> None:
    """Look for credentials again: those in files and in the environment may have been renewed."""
    for cached in (_s3_client, _gcs_credentials):
        cached.cache_clear()


def login_fault(address: str, answer: Answer) -> str | None:
    """Message about a refused login, if it is one; stores send it in a header or in the body."""
    scheme = urlsplit(address).scheme
    if (
        scheme == "s3"
        and answer.status in (301, 307, 400)
        and (region := answer.headers.get("x-amz-bucket-region"))
    ):
        return f"HTTP {answer.status}: the bucket is in {region}: set AWS_DEFAULT_REGION"
    if answer.status not in (400, 401, 403):
        return None
    told = answer.headers.get("X-Error-Code", "") + " " + answer.headers.get("X-Error-Message", "")
    told += answer.beginning().decode("utf-8", "replace") if scheme in ("s3", "gs") else ""
    code = re.search(r"<Code>(\w+)</Code>", told)
    if (answer.status == 401 and scheme == "gs") or (scheme == "s3" and code and _EXPIRED.search(code[1])):
        return f"HTTP {answer.status}{f' ({code[1]})' if code else ''}: {_RENEW[scheme]}"
    if scheme == "hf" and (answer.status == 401 or "GatedRepo" in told):
        return f"HTTP {answer.status}: {_RENEW['hf']}"
    if scheme == "s3" and code and code[1] not in ("AccessDenied", "NoSuchKey"):
        return f"HTTP {answer.status} ({code[1]}): {_RENEW['s3']}"
    return None


_RENEW = {
    "s3": "the credentials are expired or not valid: log in again, or renew AWS_ACCESS_KEY_ID and its like",
    "gs": "the token is expired or missing: run `gcloud auth application-default login` again",
    "hf": "it is gated, private or not there, or the token is expired: accept its terms, or renew HF_TOKEN",
}


# --- S3 -----------------------------------------------------------------------------------------


def _of_s3(address: str) -> Request:
    """A signed address; credentials, region and endpoint as every program of AWS finds them."""
    parts = urlsplit(address)
    client, errors = _s3_client()
    try:
        url = client.generate_presigned_url(
            "get_object", {"Bucket": parts.netloc, "Key": _key_of(parts.path)}, ExpiresIn=SIGNED_SECONDS
        )
    except errors as error:
        raise ShardError(f"{address}: no login to S3 ({_line(error)}); log in again") from error
    return Request(url)


@functools.cache
def _s3_client() -> tuple[Any, type[Exception]]:  # botocore makes its clients' classes as it runs
    botocore = _needed("botocore.session", "s3", "botocore")
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        session = botocore.Session()
        signature = "s3v4" if session.get_credentials() is not None else UNSIGNED  # a public bucket
        region = session.get_config_variable("region") or "us-east-1"
        config = Config(signature_version=signature)
        return session.create_client("s3", region_name=region, config=config), BotoCoreError
    except BotoCoreError as error:
        raise ShardError(f"s3: no login ({_line(error)}); log in again") from error


# --- Google Cloud Storage -----------------------------------------------------------------------


def _of_gcs(address: str) -> Request:
    """The address of the JSON API, with a token of the application's default credentials."""
    parts = urlsplit(address)
    endpoint = os.environ.get("STORAGE_EMULATOR_HOST") or "https://storage.googleapis.com"
    endpoint = endpoint if "://" in endpoint else f"http://{endpoint}"
    name = quote(_key_of(parts.path), safe="")
    url = f"{endpoint.rstrip('/')}/storage/v1/b/{quote(parts.netloc, safe='')}/o/{name}?alt=media"
    token = _gcs_token(address)
    return Request(url, {"Authorization": f"Bearer {token}"} if token else {})


def _gcs_token(address: str) -> str | None:
    """``None`` where nobody is logged in: the bucket may be public."""
    credentials = _gcs_credentials()
    if credentials is None:
        return None
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.urllib3 import Request as Transport

    try:
        if not credentials.valid:
            from viper_e2e.shards.http_client import manager_for

            credentials.refresh(Transport(manager_for(_GOOGLE_LOGIN)))
    except GoogleAuthError as error:
        raise ShardError(f"{address}: no token ({_line(error)}); {_RENEW['gs']}") from error
    return credentials.token


@functools.cache
def _gcs_credentials() -> Any:  # one of google-auth's many kinds
    auth = _needed("google.auth", "gs", "google-auth")
    from google.auth.exceptions import DefaultCredentialsError

    if os.environ.get("STORAGE_EMULATOR_HOST") and not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return None
    try:
        return auth.default(scopes=[_GCS_READ])[0]
    except DefaultCredentialsError:
        return None


# --- the Hugging Face hub, and https ------------------------------------------------------------


def _of_hub(address: str) -> Request:
    """``hf://datasets/OWNER/NAME[@REVISION]/PATH``, with the token of `hf auth login` or HF_TOKEN."""
    from huggingface_hub import constants, get_token

    found = re.fullmatch(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)", address)
    assert found is not None, "refused before"
    repository, revision, path = found.groups()
    revision = quote(unquote(revision or "main"), safe="")
    url = f"{constants.ENDPOINT}/datasets/{repository}/resolve/{revision}/{quote(path)}"
    token = get_token()
    return Request(url, {"Authorization": f"Bearer {token}"} if token else {})


def _of_https(address: str) -> Request:
    """The address unchanged, with credentials that the environment has for this host alone."""
    host = urlsplit(address).netloc
    secrets = {}
    for word in os.environ.get(TOKENS, "").split():
        whose, mark, token = word.partition("=")
        if not (whose and mark and token):
            raise ShardError(f"{TOKENS}: write HOST=TOKEN, with spaces between several")
        if whose == host:
            secrets["Authorization"] = f"Bearer {token}"
    return Request(address, secrets | _headers_for(host))


def _headers_for(host: str) -> dict[str, str]:
    fault = ShardError(f'{HEADERS}: write {{"HOST": {{"NAME": "VALUE"}}}}, in json')
    try:
        found = json.loads(os.environ.get(HEADERS) or "{}")
    except (ValueError, RecursionError) as error:
        raise fault from error
    if not isinstance(found, dict) or not all(isinstance(of, dict) for of in found.values()):
        raise fault
    headers = found.get(host, {})
    if not all(
        isinstance(text, str) and re.fullmatch(r"[ -~]*", text) for pair in headers.items() for text in pair
    ):
        raise fault
    return headers


# --- what they share ----------------------------------------------------------------------------


def _key_of(path: str) -> str:
    """The path unchanged: unlike addresses of the web, those of stores are not percent-encoded."""
    return path.removeprefix("/")


def _needed(module: str, extra: str, package: str) -> Any:  # a module
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ShardError(f"{extra}:// needs {package}: not installed; pip install {package}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
