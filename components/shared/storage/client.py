"""S3, and the one door to it: objects below a prefix, streamed, checked by SHA-256, sent again after faults.

For AWS S3, MinIO, SeaweedFS and whatever else speaks S3, by the client `minio`. It makes no bucket, and touches nothing
outside its prefix.
"""

import errno
import hashlib
import io
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from configparser import Error as ConfigError
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import uuid4
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import AWSConfigProvider, IamAwsProvider, Provider, StaticProvider, WebIdentityProvider
from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from minio.helpers import check_bucket_name
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from components.shared.core import log
from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.core.files import new_file, sha256_file
from components.shared.storage.endpoint import Variables, check_name, find_ca_bundle, find_endpoint, parse_uri
from components.shared.storage.retry import ATTEMPTS, Transport, pause, reason_of

PART_BYTES = 8 * 2**20  # a larger file is sent in parts of this size
PARALLEL_PARTS = 3
MAX_PARTS = 10_000  # of S3
BLOCK_BYTES = 2**20
MAX_BYTES = 2**24  # of a small object, where no other limit is given
SHA256, WRITER = "x-amz-meta-sha256", "x-amz-meta-writer"


class NoSuchObject(UserError):
    """An object that is not there."""


class Conflict(Exception):
    """A conditional write that found the object other than expected, and changed nothing."""


class Entry(NamedTuple):
    """An object: its name below the store's prefix, size in bytes, ETag, and when it was written."""

    name: str
    size: int
    etag: str
    modified: datetime | None


class Upload(NamedTuple):
    """A file sent in parts that is not complete: its name below the store's prefix, its id, and when it was begun."""

    name: str
    id: str
    started: datetime


class _Incoming(NamedTuple):
    """An object that is being fetched: its name, the answer to the first request, and what that says of it."""

    name: str
    response: BaseHTTPResponse
    size: int
    etag: str
    sha256: str


def open_store(uri: str, environment: Mapping[str, str], prefix: str = "", attempts: int = ATTEMPTS) -> "Store":
    """The store at s3://bucket/prefix, reached as the environment's variables say; no request is made yet.

    The variables are those of the AWS tools, each with `prefix` before its name: AWS_ENDPOINT_URL_S3 (or S3_ENDPOINT),
    AWS_REGION, AWS_CA_BUNDLE, and for credentials AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN,
    or AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN, or AWS_CONTAINER_CREDENTIALS_FULL_URI, or AWS_PROFILE; else none.
    A request that fails by chance is sent up to `attempts` times. UserError where a variable or the address is wrong.
    """
    bucket, folder = parse_uri(uri)
    variables = Variables(environment, prefix)
    endpoint = find_endpoint(variables)
    region = variables.get("AWS_REGION", "AWS_DEFAULT_REGION")
    if not region and "amazonaws.com" not in endpoint.netloc:  # AWS itself tells the region of a bucket
        region = "us-east-1"
    transport = Transport(find_ca_bundle(variables), prefix, attempts)
    credentials = _credentials(variables, region, transport)
    try:
        check_bucket_name(bucket, strict=True, s3_check=True)
        client = Minio(
            endpoint.netloc,
            secure=endpoint.scheme == "https",
            region=region or None,
            credentials=credentials,
            http_client=transport,
        )
    except ValueError as error:
        place = f"{uri} at {endpoint.geturl()}"
        raise UserError(f"{place} cannot be right ({error}); give s3://bucket/prefix, and http://host:port") from None
    return Store(client, transport, bucket, folder, credentials is None)


class Store:
    """The objects of a bucket below a prefix; open_store makes it. Threads may share it, processes may not.

    Every call may raise UserError: no such bucket, access denied, wrong keys, region or clock, server out of reach.
    """

    def __init__(self, client: Minio, transport: Transport, bucket: str, folder: str, is_anonymous: bool) -> None:
        """`folder` is empty or ends in a slash."""
        self._client, self._transport = client, transport
        self._bucket, self._folder, self._is_anonymous = bucket, folder, is_anonymous

    def uri(self, name: str = "") -> str:
        """The address of an object, or of the store."""
        return f"s3://{self._bucket}/{self._folder}{name}".rstrip("/")

    def put_file(self, path: str | Path, name: str, sha256: str = "") -> str:
        """Send a file, a large one in parts side by side, and return its SHA-256, which is kept beside the object.

        The object appears whole or not at all. A digest that is known, as `sha256`, saves reading the file twice.
        """
        key, sha256 = self._key(name), sha256 or sha256_file(path)
        with self._explained(name), _Source(path, sha256, name) as source:
            part = max(PART_BYTES, math.ceil(source.size / MAX_PARTS))
            if not source.size:
                source.read()  # and so check it, which put_object leaves out
            try:
                self._client.put_object(
                    self._bucket,
                    key,
                    source,
                    source.size,
                    metadata={"sha256": sha256},
                    part_size=part,
                    num_parallel_uploads=PARALLEL_PARTS,
                )
            except S3Error as error:
                # The answer to the last request was lost, and at its repetition nothing was left to complete.
                if error.code != "NoSuchUpload" or not self._find(key, SHA256, sha256):
                    raise
        return sha256

    def get_file(self, name: str, path: str | Path, sha256: str = "") -> str:
        """Write an object to a file, which appears whole and checked or not at all, and return its SHA-256.

        It is checked against `sha256` where given, and against the digest kept beside the object by put_file.
        """
        try:
            with new_file(path) as file, self._explained(name):
                incoming = self._request(name, shutil.disk_usage(Path(path).parent).free, "free")
                return self._checked(incoming, self._write(incoming, file), sha256)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise UserError(f"{self.uri(name)} does not fit at {path} ({error.strerror}); make room there") from None

    def put_bytes(self, content: bytes, name: str, *, if_absent: bool = False, if_match: str = "") -> str:
        """Write a small object and return its ETag.

        Conflict where `if_absent` finds an object, or `if_match` an object of another ETag or none: of many writers at
        once, one wins. An ETag is that of the content, so give each write a content of its own where this matters.
        """
        key, writer = self._key(name), uuid4().hex
        headers = {SHA256: hashlib.sha256(content).hexdigest(), WRITER: writer}
        if if_absent:
            headers["If-None-Match"] = "*"
        if if_match:
            headers["If-Match"] = f'"{if_match}"'
        with self._explained(name):
            try:
                return self._put(key, content, headers)
            except S3Error as error:
                if error.code != "PreconditionFailed" and not (if_match and error.code == "NoSuchKey"):
                    raise
            etag = self._find(key, WRITER, writer)  # an attempt of ours, whose answer was lost
        if not etag:
            raise Conflict(f"{self.uri(name)} was written by another")
        return etag

    def get_bytes(self, name: str, limit: int = MAX_BYTES) -> tuple[bytes, str]:
        """The bytes of a small object, and its ETag; UserError where there are more than `limit`."""
        with self._explained(name):
            incoming = self._request(name, limit, "allowed")
            content = b"".join(self._blocks(incoming))
        self._checked(incoming, hashlib.sha256(content).hexdigest())
        return content, incoming.etag

    def list(self, under: str = "") -> Iterator[Entry]:
        """The objects below the folder `under`, ordered by name, a page at a time."""
        start = f"{self._key(under)}/" if under else self._folder
        with self._explained(under):
            for found in self._client.list_objects(self._bucket, prefix=start, recursive=True):
                name = found.object_name.removeprefix(self._folder)
                if not name.endswith("/"):  # the mark of a folder
                    yield Entry(name, found.size, found.etag, found.last_modified)

    def stat(self, name: str) -> Entry | None:
        """What is known of an object without reading it; None where it is not there."""
        with self._explained(name):
            found = self._head(self._key(name))
        return Entry(name, found.size or 0, found.etag or "", found.last_modified) if found else None

    def exists(self, name: str) -> bool:
        """Whether an object is there."""
        return self.stat(name) is not None

    def remove(self, *names: str) -> None:
        """Remove objects; those that are gone already are no mistake."""
        objects = [DeleteObject(self._key(name)) for name in names]
        with self._explained(names[0] if len(names) == 1 else ""):
            for error in self._client.remove_objects(self._bucket, objects):
                raise self._mistake(error.code or "", error.message or "", f"s3://{self._bucket}/{error.name}")

    def unfinished_uploads(self, before: datetime | None = None) -> Iterator[Upload]:
        """The files below the prefix that are being sent in parts, or were until their process was killed.

        `before` leaves out those begun later. MinIO lists none: it removes by itself what is older than a day.
        """
        key = upload_id = None
        with self._explained(""):
            while True:
                page = self._client._list_multipart_uploads(  # minio has no public call
                    self._bucket, prefix=self._folder, key_marker=key, upload_id_marker=upload_id
                )
                for found in page.uploads:
                    key, upload_id, started = found.object_name, found.upload_id, found.initiated_time
                    assert upload_id and started
                    if not before or started < before:
                        yield Upload(key.removeprefix(self._folder), upload_id, started)
                if not page.is_truncated:
                    return

    def abort(self, upload: Upload) -> None:
        """Remove the parts of an unfinished upload; one that is gone already is no mistake."""
        with self._explained(upload.name):
            try:
                self._client._abort_multipart_upload(self._bucket, self._key(upload.name), upload.id)
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise

    def _key(self, name: str) -> str:
        check_name(name)
        return self._folder + name

    def _put(self, key: str, content: bytes, headers: dict[str, str]) -> str:
        """PutObject with conditions, for which minio has no public call: its put_object would keep them as metadata."""
        return self._client._put_object(self._bucket, key, content, dict(headers)).etag or ""

    def _head(self, key: str) -> Object | None:
        try:
            return self._client.stat_object(self._bucket, key)
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            self._client.get_object(self._bucket, key).close()  # fails too, and with the reason
            raise

    def _find(self, key: str, header: str, value: str) -> str:
        """The ETag of an object that has the header; empty where there is none."""
        found = self._head(key)
        return found.etag or "" if found and found.metadata and found.metadata.get(header) == value else ""

    def _request(self, name: str, limit: int, limited: str) -> _Incoming:
        """Ask for an object; UserError where it has more than `limit` bytes."""
        response = self._client.get_object(self._bucket, self._key(name))
        size = int(response.headers["Content-Length"])
        if size > limit:
            response.close()
            raise UserError(f"{self.uri(name)} has {size:,} bytes, and {limit:,} are {limited}")
        etag = response.headers.get("ETag", "").strip('"')
        return _Incoming(name, response, size, etag, response.headers.get(SHA256, ""))

    def _checked(self, incoming: _Incoming, found: str, expected: str = "") -> str:
        """Return the SHA-256 `found`. Raises CorruptDataError if it is not the expected one or the stored one."""
        for digest in (expected, incoming.sha256):
            if digest and found != digest:
                uri = self.uri(incoming.name)
                raise CorruptDataError(
                    f"{uri} has the digest sha256={found}, not {digest}; it is damaged: write it anew"
                )
        return found

    def _write(self, incoming: _Incoming, file: BinaryIO) -> str:
        """Write an object's bytes and return their SHA-256; each block is hashed while it is being written."""
        advance, digest = _progress(incoming.name, incoming.size), hashlib.sha256()
        with ThreadPoolExecutor(1) as beside:
            hashed = beside.submit(digest.update, b"")
            for block in self._blocks(incoming):
                hashed.result()
                hashed = beside.submit(digest.update, block)
                file.write(block)
                advance(len(block))
        return digest.hexdigest()

    def _blocks(self, incoming: _Incoming) -> Iterator[bytes]:
        """An object's bytes in blocks; after a cut it goes on where it was, if the object is still the same."""
        have = failures = 0
        response, uri = incoming.response, self.uri(incoming.name)
        while True:
            try:
                with response:
                    for block in response.stream(BLOCK_BYTES, decode_content=False):
                        have, failures = have + len(block), 0
                        yield block
                break
            except HTTPError as error:
                failures += 1
                if failures == self._transport.attempts:
                    raise TransientError(f"{uri} was cut {failures} times; try again later") from None
                pause(f"{uri}: the server {reason_of(error)} after {have:,} bytes", failures)
            response = self._client.get_object(
                self._bucket,
                self._key(incoming.name),
                offset=have,
                request_headers={"If-Match": incoming.response.headers["ETag"]},
            )
        if have != incoming.size:
            raise TransientError(f"{uri} came with {have:,} bytes, not {incoming.size:,}; try again")

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Turn what the client raises into one line with the remedy."""
        try:
            yield
        except S3Error as error:
            raise self._mistake(error.code or "", error.message or "", self.uri(name)) from None
        except (MinioException, ParseError) as error:
            if "HTTP request to an HTTPS server" in str(error):
                raise UserError(f"{self.uri(name)}: the server speaks TLS; give https:// in its address") from None
            raise UserError(
                f"{self.uri(name)} is not served as S3 does ({str(error)[:200]}); check the address"
            ) from None

    def _mistake(self, code: str, message: str, uri: str) -> UserError:
        if code == "NoSuchKey":
            return NoSuchObject(f"{uri} does not exist; check its name")
        prefix = self._transport.prefix
        keys = f"{prefix}AWS_ACCESS_KEY_ID and {prefix}AWS_SECRET_ACCESS_KEY"
        told, remedy = _REMEDIES.get(code, (f"{code}: {message}", "see the server's log"))
        if code == "AccessDenied" and self._is_anonymous:
            told, remedy = "there are no credentials", "set {keys}"
        return UserError(f"{uri}: {told}", f"{remedy.format(keys=keys, prefix=prefix)} ({code})")


_KEYS = "check {keys}"
_REGION = ("the bucket lies in another region", "set {prefix}AWS_REGION to it")
_REMEDIES = {
    "NoSuchBucket": ("there is no such bucket", "make it, or correct the address"),
    "AccessDenied": ("access is denied", "let the credentials list the bucket, and read, write and remove its objects"),
    "InvalidAccessKeyId": ("the access key is not known", _KEYS),
    "SignatureDoesNotMatch": ("the secret key is not that of the access key", _KEYS),
    "ExpiredToken": ("the credentials have expired", "set {prefix}AWS_SESSION_TOKEN and its keys anew"),
    "InvalidToken": ("the session token is not accepted", "set {prefix}AWS_SESSION_TOKEN and its keys anew"),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set it, or let NTP do so"),
    "PreconditionFailed": ("the object was changed while it was read", "try again"),
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "XMinioStorageFull": ("the store is full", "make room there"),
}


class _Source(io.FileIO):
    """A file to send: UserError at its end if it is not what its SHA-256 says, before an object appears."""

    def __init__(self, path: str | Path, sha256: str, name: str) -> None:
        super().__init__(path)
        self.size = Path(path).stat().st_size
        self._expected, self._digest = sha256, hashlib.sha256()
        self._advance = _progress(name, self.size)

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size) or b""
        self._digest.update(block)
        self._advance(len(block))
        if (not block or self.tell() >= self.size) and self._digest.hexdigest() != self._expected:
            raise UserError(f"{self.name} is not what its digest says, or was changed while it was sent; try again")
        return block


def _credentials(variables: Variables, region: str, transport: Transport) -> Provider | None:
    """The first that the variables name, in the order of the AWS tools; None for a bucket open to all."""
    name, key = variables.find("AWS_ACCESS_KEY_ID")
    secret = variables.get("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        missing = name.replace("ACCESS_KEY_ID", "SECRET_ACCESS_KEY") if key else name
        raise UserError(f"{missing} is missing beside its other half; set both")
    if key:
        return StaticProvider(key, secret, variables.get("AWS_SESSION_TOKEN") or None)
    token_file = variables.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if token_file:
        return _Told(_web_identity(variables, token_file, region, transport), f"the web identity of {token_file}")
    if variables.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        return _Told(IamAwsProvider(http_client=transport), "the container's credentials")
    profile = variables.get("AWS_PROFILE")
    if profile:
        return _Told(AWSConfigProvider(variables.get("AWS_SHARED_CREDENTIALS_FILE"), profile), f"AWS_PROFILE={profile}")
    return None


def _web_identity(variables: Variables, token_file: str, region: str, transport: Transport) -> Provider:
    regional = f"https://sts.{region}.amazonaws.com" + ".cn" * region.startswith("cn-")
    return WebIdentityProvider(
        jwt_provider_func=lambda: {"access_token": Path(token_file).read_text().strip()},  # it is renewed in place
        sts_endpoint=variables.get("AWS_ENDPOINT_URL_STS") or (regional if region else "https://sts.amazonaws.com"),
        role_arn=variables.get("AWS_ROLE_ARN"),
        role_session_name=variables.get("AWS_ROLE_SESSION_NAME"),
        http_client=transport,
    )


class _Told(Provider):
    """Credentials that have to be fetched, and whose failures are told without the token that was shown."""

    def __init__(self, provider: Provider, source: str) -> None:
        self._provider, self._source = provider, source

    def retrieve(self) -> Credentials:
        try:
            return self._provider.retrieve()
        except UserError:
            raise
        except (ValueError, ParseError, ConfigError, OSError) as error:
            why = f": {error.strerror}" if isinstance(error, OSError) else ""
            raise UserError(f"{self._source} gave no S3 credentials{why}; check it, its role and its policy") from None


def _progress(name: str, size: int) -> Callable[[int], None]:
    """What counts the bytes of a transfer, and shows those of a large one."""
    return log.Progress(name.rpartition("/")[2], size, "bytes").advance if size > PART_BYTES else lambda _: None
