"""Shards in object stores: the same clips, limits and errors as on disk, whatever their servers do."""

from __future__ import annotations

import itertools
import json
import re
import socket
from pathlib import Path
from urllib.parse import unquote

import pytest
from support.http_server import Handler, serving
from support.remote_shards import epochs, told

from viper_e2e.errors import ClipError, ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.loading import ClipLoader, OrderSettings, Reading, read_ahead
from viper_e2e.shards import RemoteReading, ShardError, ShardLimits, ShardSet, ShardWriter, remote, stores
from viper_e2e.shards.sources import open_source

LABELS = LabelSet(("Joy", "Fear"))
BUCKET = "corpus"


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No waits, no logins but those of the test, no store but the one here."""
    monkeypatch.setattr(remote, "RETRY_SECONDS", (0.0, 0.0))
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HF_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "HF_TOKEN_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "none"))
    stores.forget_logins()
    yield
    stores.forget_logins()


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """A folder of two shards of four clips each."""
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, "train", LABELS, shard_size=16_000) as writer:
        for i in range(8):
            members = {"mp4": f"video {i} ".encode() * 200}
            writer.add(f"clip{i}", members, file_id=f"[{i}]", intensities=(i / 8, 0.5), subject="s")
    assert len(list(folder.glob("*.tar"))) == 2
    return folder


# --- S3, by moto's server ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto(shards):
    """The address of a server of S3 that has the shards in a bucket."""
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    import botocore.session

    url = f"http://127.0.0.1:{port}"
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    client = botocore.session.Session().create_client("s3", endpoint_url=url, **keys)
    client.create_bucket(Bucket=BUCKET)
    for path in shards.iterdir():
        client.put_object(Bucket=BUCKET, Key=f"a b/{path.name}", Body=path.read_bytes())
    yield url
    server.stop()


def log_in_to_s3(monkeypatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)


def same_as_local(found: ShardSet, shards: Path) -> None:
    local = ShardSet(f"{shards}/train-*.tar")
    assert len(found) == len(local) == 8
    assert found.content_id() == local.content_id()
    for i in range(8):
        ours, theirs = found.read(i), local.read(i)
        assert (ours.key, ours.video, ours.intensities) == (theirs.key, theirs.video, theirs.intensities)


@pytest.mark.slow
def test_shards_in_s3_are_those_on_disk(moto, shards, monkeypatch):
    log_in_to_s3(monkeypatch, moto)
    same_as_local(ShardSet(f"s3://{BUCKET}/a b/train-{{000000..000001}}.tar"), shards)
    with pytest.raises(ShardError, match=r"s3://corpus/a b/other-000000\.tar: no such shard \(HTTP 404\)"):
        ShardSet(f"s3://{BUCKET}/a b/other-000000.tar")


def xml(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>No.</Message></Error>".encode()


def ranged_files(folder: Path, name_of=lambda path: path.partition("?")[0].rpartition("/")[2]):
    """What answers requests by range with the files of a folder."""

    def behave(handler: Handler) -> bool:
        file = folder / unquote(name_of(handler.path)).rpartition("/")[2]
        if not file.is_file():
            return handler.say(404)
        handler.ranged(file.read_bytes())
        return True

    return behave


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_expired_credentials_are_told_in_one_line_without_the_signature(code, monkeypatch):
    with serving(lambda handler: handler.say(400, xml(code))) as server:
        log_in_to_s3(monkeypatch, server.url)
        with pytest.raises(ShardError, match=rf"\({code}\).*log in again") as caught:
            ShardSet("s3://b/train-000000.tar")
    assert "\n" not in str(caught.value)
    assert "X-Amz" not in str(caught.value)


def test_credentials_that_were_renewed_meanwhile_are_found(shards, monkeypatch):
    files = ranged_files(shards)

    def old_expires(handler: Handler) -> bool:
        if "old" in handler.path:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")
            return handler.say(400, xml("ExpiredToken"))
        return files(handler)

    with serving(old_expires) as server:
        log_in_to_s3(monkeypatch, server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old")
        assert ShardSet("s3://b/train-000000.tar").read(0).video == b"video 0 " * 200


def test_a_bucket_elsewhere_is_told_with_its_region(monkeypatch):
    headers = {"x-amz-bucket-region": "eu-north-1"}
    with serving(lambda handler: handler.say(301, xml("PermanentRedirect"), headers)) as server:
        log_in_to_s3(monkeypatch, server.url)
        with pytest.raises(ShardError, match="the bucket is in eu-north-1: set AWS_DEFAULT_REGION"):
            ShardSet("s3://b/train-000000.tar")


def test_a_public_bucket_needs_no_login(shards, monkeypatch):
    with serving(ranged_files(shards)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        assert len(ShardSet("s3://b/train-000000.tar")) == 4


def test_a_store_over_plain_http_elsewhere_is_refused(monkeypatch):
    log_in_to_s3(monkeypatch, "http://minio.invalid:9000")
    with pytest.raises(ShardError, match=r"http://minio\.invalid:9000.* is plain http"):
        ShardSet("s3://b/train-000000.tar")


# --- Google Cloud Storage and the hub, by servers of their shape ------------------------------------


def gcs_files(folder: Path):
    """As its JSON API: the object is one part of the path, with its slashes encoded."""
    return ranged_files(
        folder, lambda path: re.fullmatch(r"/storage/v1/b/corpus/o/([^/]+)\?alt=media", path)[1]
    )


def test_shards_in_google_cloud_storage_are_those_on_disk(shards, monkeypatch):
    with serving(gcs_files(shards)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        same_as_local(ShardSet("gs://corpus/a/b/train-{000000..000001}.tar"), shards)
        assert not any("Authorization" in headers for headers in server.asked)


def service_account(path: Path, token_url: str) -> Path:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"type": "service_account", "client_email": "a@b", "private_key": pem, "token_uri": token_url}
    path.write_text(json.dumps(account))
    return path


def test_google_gets_a_token_of_the_application_and_an_expired_one_is_told(shards, tmp_path, monkeypatch):
    files, good = gcs_files(shards), "first"

    class WithTokens(Handler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"access_token": "first", "expires_in": 3600, "token_type": "Bearer"}).encode()
            self.say(200, body, {"Content-Type": "application/json"})

    def behave(handler: Handler) -> bool:
        if handler.headers.get("Authorization") != f"Bearer {good}":
            return handler.say(401)
        return files(handler)

    with serving(behave, WithTokens) as server:
        account = service_account(tmp_path / "account.json", f"{server.url}/token")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        shard_set = ShardSet("gs://corpus/train-000000.tar")
        assert shard_set.read(1).video == b"video 1 " * 200
        good = "second"
        with pytest.raises(ClipError, match="HTTP 401: the token is expired or missing: run `gcloud"):
            shard_set.read(1)


@pytest.fixture
def hub(shards, monkeypatch):
    """A server shaped like the hub: it redirects to another one, where its token is not sent."""
    from huggingface_hub import constants

    def resolve(handler: Handler) -> bool:
        found = re.fullmatch(r"/datasets/ann/faces/resolve/(main|v1%2Fx)/data/(.+)", handler.path)
        if handler.headers.get("Authorization") != "Bearer hf_good":
            return handler.say(401, headers={"X-Error-Message": "Invalid credentials"})
        if found is None:
            return handler.say(404, headers={"X-Error-Code": "EntryNotFound"})
        return handler.say(302, headers={"Location": f"{cdn.url}/{found[2]}?Signature=secret"})

    with serving(ranged_files(shards)) as cdn, serving(resolve) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        server.cdn = cdn
        yield server


@pytest.mark.parametrize("repository", ["ann/faces", "ann/faces@v1%2Fx"])
def test_shards_on_the_hub_are_those_on_disk(repository, hub, shards):
    same_as_local(ShardSet(f"hf://datasets/{repository}/data/train-{{000000..000001}}.tar"), shards)
    assert all(headers["Authorization"] == "Bearer hf_good" for headers in hub.asked)
    assert not any("Authorization" in headers for headers in hub.cdn.asked)


def test_what_the_hub_refuses_is_one_line(hub, monkeypatch):
    with pytest.raises(ShardError, match=r"other-000000\.tar: no such shard \(HTTP 404\)"):
        ShardSet("hf://datasets/ann/faces/data/other-000000.tar")
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    with pytest.raises(ShardError, match="HTTP 401: it is gated, private or not there"):
        ShardSet("hf://datasets/ann/faces/data/train-000000.tar")


# --- servers that need a header ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [stores.TOKENS, stores.HEADERS])
def test_a_token_of_the_environment_goes_to_its_host_alone(name, shards, monkeypatch):
    files = ranged_files(shards)

    def behave(handler: Handler) -> bool:
        if handler.headers.get("Authorization") != "Bearer abc":
            return handler.say(401)
        return files(handler)

    with serving(behave) as server, serving(ranged_files(shards)) as other:
        host = server.url.removeprefix("http://")
        written = {
            stores.TOKENS: f"elsewhere=x {host}=abc",
            stores.HEADERS: json.dumps({host: {"Authorization": "Bearer abc"}}),
        }
        monkeypatch.setenv(name, written[name])
        assert len(ShardSet(f"{server.url}/train-000000.tar")) == 4
        assert len(ShardSet(f"{other.url}/train-000000.tar")) == 4
        assert not any("Authorization" in headers for headers in other.asked)


@pytest.mark.parametrize(
    ("name", "value"),
    [(stores.TOKENS, "secret"), (stores.HEADERS, "secret"), (stores.HEADERS, '{"127.0.0.1:1": {"a": 1}}')],
)
def test_a_wrong_word_in_the_environment_is_told_without_it(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ShardError, match=f"{name}: write") as caught:
        open_source("http://127.0.0.1:1/a.tar").size()
    assert "secret" not in str(caught.value)


# --- whole shards -----------------------------------------------------------------------------------

TWO = "train-{000000..000001}.tar"


def whole_ways(tmp_path: Path) -> list[RemoteReading]:
    return [RemoteReading("ahead"), RemoteReading(cache=str(tmp_path / "kept"))]


@pytest.mark.slow
def test_shards_in_s3_are_read_whole_as_on_disk(moto, shards, tmp_path, monkeypatch):
    log_in_to_s3(monkeypatch, moto)
    local = epochs(f"{shards}/{TWO}", num_epochs=2)
    for reading in whole_ways(tmp_path):
        assert epochs(f"s3://{BUCKET}/a b/{TWO}", reading, num_epochs=2) == local


def test_shards_on_the_hub_are_read_whole_without_its_token_where_it_leads(hub, shards, tmp_path):
    local = epochs(f"{shards}/{TWO}", num_epochs=2)
    for reading in whole_ways(tmp_path):
        hub.cdn.asked.clear()
        assert epochs(f"hf://datasets/ann/faces/data/{TWO}", reading, num_epochs=2) == local
        sizes = {f"bytes=0-{path.stat().st_size - 1}" for path in shards.glob("*.tar")}
        assert {headers["Range"] for headers in hub.cdn.asked} >= sizes
        assert not any("Authorization" in headers for headers in hub.cdn.asked)


def test_a_token_that_expires_before_shards_are_read_whole_is_told_as_with_ranges(
    hub, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(read_ahead, "RETRY_SECONDS", 0.05)
    found = []
    for reading in (RemoteReading(), *whole_ways(tmp_path)):
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        opened = ShardSet(f"hf://datasets/ann/faces/data/{TWO}", limits=ShardLimits(remote_reading=reading))
        monkeypatch.setenv("HF_TOKEN", "hf_old")
        with ClipLoader(opened, told, Reading(4, 0)) as loader:
            clips = [clip for batch in loader.epoch(0) for clip in batch.clips]
        found.append([f"{clip.stage}: {clip}" for clip in clips])
    assert found[0] == found[1] == found[2]
    assert all(
        "HTTP 401: it is gated, private or not there, or the token is expired" in one for one in found[0]
    )
    assert not list((tmp_path / "kept").glob("*.tar"))
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("way", range(2))
def test_credentials_renewed_while_shards_are_read_whole_are_found(way, shards, tmp_path, monkeypatch):
    files, expired = ranged_files(shards), [False]

    def old_expires(handler: Handler) -> bool:
        if expired[0] and "old" in handler.path:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")
            return handler.say(400, xml("ExpiredToken"))
        return files(handler)

    with serving(old_expires) as server:
        log_in_to_s3(monkeypatch, server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old")
        limits = ShardLimits(remote_reading=whole_ways(tmp_path)[way])
        opened = ShardSet(f"s3://b/{TWO}", limits=limits)
        expired[0] = True
        with ClipLoader(opened, told, Reading(4, 0), order=OrderSettings(shuffle_window=8)) as loader:
            found = [clip.name for batch in loader.epoch(0) for clip in batch.clips]
        sizes = {f"bytes=0-{path.stat().st_size - 1}" for path in shards.glob("*.tar")}
        assert {headers["Range"] for headers in server.asked} >= sizes
    assert found == epochs(f"{shards}/{TWO}")


# --- what any of them may do ------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["s3", "gs"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("503 and then well", None),
        ("503", "HTTP 503"),
        ("cut", "early|more expected|IncompleteRead"),
        ("another range", "asked for .* bytes at"),
        ("short", "asked for .* bytes at"),
    ],
)
def test_a_store_in_trouble_is_asked_again_or_told(store, fault, said, shards, monkeypatch):
    files, in_trouble = ranged_files(shards), [0]

    def behave(handler: Handler) -> bool:
        if in_trouble[0] <= 0:
            return files(handler)
        in_trouble[0] -= 1
        if fault.startswith("503"):
            return handler.say(503)
        first, _, last = handler.headers["Range"].removeprefix("bytes=").partition("-")
        first, last = int(first) + (fault == "another range"), int(last) - (fault == "short")
        body = bytes(last - first + 1)
        if fault == "cut":
            head = {"Content-Range": f"bytes {first}-{last}/99999", "Content-Length": str(len(body))}
            return handler.say(206, body[:-5], head)
        return handler.say(206, body, {"Content-Range": f"bytes {first}-{last}/99999"})

    with serving(behave) as server:
        log_in_to_s3(monkeypatch, server.url)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        shard_set = ShardSet(f"{store}://corpus/train-000000.tar")
        in_trouble[0] = 2 if said is None else 99
        if said is None:
            assert shard_set.read(0).video == b"video 0 " * 200
        else:
            with pytest.raises(ClipError, match=said):
                shard_set.read(0)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://bucket", "write s3://BUCKET/PATH"),
        ("s3://bucket/a.tar?x=1", "write s3://BUCKET/PATH, without"),
        ("hf://ann/faces/a.tar", "write hf://datasets/OWNER/NAME/PATH"),
        ("gs://bucket/train-*.tar", r"servers and stores are not searched; write \{000000\.\.000017\} for \*"),
        ("https://[x/a.tar", "is not an address"),
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(address, said):
    with pytest.raises(ViperError, match=said):
        ShardSet(address)


def test_a_store_whose_package_is_missing_says_which(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "botocore.session", None)
    with pytest.raises(ShardError, match=r"s3:// needs botocore: not installed; pip install botocore"):
        ShardSet("s3://bucket/a.tar")


@pytest.mark.slow
@pytest.mark.parametrize(
    "store", ["s3", *(pytest.param(name, marks=pytest.mark.campaign) for name in ("gs", "hub"))]
)
def test_records_of_a_run_on_a_store_in_trouble_are_those_of_one_on_disk(store, corpus, tmp_path, monkeypatch):
    """Every third answer is a failure: a 503, a body that is cut, or a connection closed without a word."""
    from viper_e2e.commands.cli import main
    from viper_e2e.config import PRESETS
    from viper_e2e.model import ViPER

    ViPER(PRESETS["micro"]()).save_pretrained(tmp_path / "model")
    folder, count = corpus / "shards", itertools.count()
    files = ranged_files(folder)

    def behave(handler: Handler) -> bool:
        number = next(count)
        if number % 3 != 1:
            return files(handler)
        if number % 9 == 1:
            return handler.say(503)
        if number % 9 == 4:
            first, _, last = handler.headers["Range"].removeprefix("bytes=").partition("-")
            length = str(int(last) - int(first) + 1)
            return handler.say(
                206, b"", {"Content-Range": f"bytes {first}-{last}/99999", "Content-Length": length}
            )
        handler.close_connection = True
        return True

    def infer(shards: str, name: str) -> bytes:
        words = [f"--checkpoint={tmp_path / 'model'}", "--num-workers=0", f"--output={tmp_path / name}"]
        assert main(["infer", shards, *words]) == 0
        return (tmp_path / name).read_bytes()

    with serving(behave) as server:
        log_in_to_s3(monkeypatch, server.url)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        if store == "hub":
            from huggingface_hub import constants

            monkeypatch.setattr(constants, "ENDPOINT", server.url)
        base = {"s3": "s3://corpus", "gs": "gs://corpus", "hub": "hf://datasets/ann/faces"}[store]
        found = infer(f"{base}/val-000000.tar", "store.json")
        assert next(count) > 9
    assert found == infer(str(folder / "val-000000.tar"), "disk.json")
