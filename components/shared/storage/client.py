"""The S3 client: objects below a prefix, streamed, checked by SHA-256, and sent again after transient failures.

It works with AWS S3, MinIO, SeaweedFS and other S3 servers. It creates no buckets and touches nothing outside its
prefix.
"""

import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from minio.helpers import check_bucket_name
from urllib3.connection import HTTPConnection

from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.core.files import new_file, sha256_file
from components.shared.storage.conditions import PROBE, check_once, ignored_condition
from components.shared.storage.credentials import find_credentials
from components.shared.storage.endpoint import Variables, check_name, find_ca_bundle, find_endpoint, parse_uri
from components.shared.storage.errors import Conflict, ServerFault, api_error, disk_error, unreadable
from components.shared.storage.retry import ATTEMPTS
from components.shared.storage.transfer import SHA256, Download, Part, UploadFile
from components.shared.storage.transport import Transport

PART_BYTES = 8 * 2**20  # a larger file is sent in parts of this size
PARALLEL_PARTS = 3
MAX_PARTS = 10_000  # of S3
MAX_BYTES = 2**24  # the default limit of get_bytes
WRITER = "x-amz-meta-writer"  # the header that tells our own write from another writer's


class Entry(NamedTuple):
    """An object: its name below the store's prefix, size in bytes, ETag, and when it was written."""

    name: str
    size: int
    etag: str
    modified: datetime | None
    sha256: str = ""  # if `stat` asked for it, and put_file stored one


class Upload(NamedTuple):
    """An unfinished multipart upload: its name below the store's prefix, its id, and when it was started."""

    name: str
    id: str
    started: datetime


def open_store(
    uri: str,
    environment: Mapping[str, str],
    prefix: str = "",
    attempts: int = ATTEMPTS,
    connection: type[HTTPConnection] | None = None,
) -> "Store":
    """Return the store at s3://bucket/prefix as the environment's variables describe it, without any request yet.

    The variables are those of the AWS tools, each with `prefix` before its name: AWS_ENDPOINT_URL_S3 (or S3_ENDPOINT),
    AWS_REGION, AWS_CA_BUNDLE, and for credentials AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN,
    or AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN, or AWS_CONTAINER_CREDENTIALS_FULL_URI, or AWS_PROFILE; else none.
    A request that fails by chance is sent up to `attempts` times, through a `connection` of another kind if one is
    given. Raises UserError if a variable or `uri` is invalid.
    """
    bucket, folder = parse_uri(uri)
    variables = Variables(environment, prefix)
    endpoint = find_endpoint(variables)
    region = variables.get("AWS_REGION", "AWS_DEFAULT_REGION")
    if not region and "amazonaws.com" not in endpoint.netloc:  # AWS itself reports the region of a bucket
        region = "us-east-1"
    transport = Transport(find_ca_bundle(variables), prefix, attempts, connection)
    credentials = find_credentials(variables, region, transport)
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
        message = f"{uri} at {endpoint.geturl()} is not a valid address ({error})"
        raise UserError(message, "give s3://bucket/prefix, and http://host:port as the endpoint") from None
    return Store(client, transport, endpoint.geturl(), bucket, folder, credentials is None)


class Store:
    """The objects of a bucket below a prefix, made by open_store. Threads may share it, processes may not.

    Every call may raise UserError, for example if the bucket does not exist or access is denied, and TransientError if
    the server keeps failing.
    """

    def __init__(
        self, client: Minio, transport: Transport, server: str, bucket: str, folder: str, is_anonymous: bool
    ) -> None:
        """Take the server's address, and the prefix as `folder`, which is empty or ends in a slash."""
        self._client, self._transport, self._server = client, transport, server
        self._bucket, self._folder, self._is_anonymous = bucket, folder, is_anonymous

    def uri(self, name: str = "") -> str:
        """Return the URI of an object, or of the store."""
        return f"s3://{self._bucket}/{self._folder}{name}".rstrip("/")

    def contains(self, other: "Store") -> bool:
        """Return whether all objects of another store are in this one, too."""
        is_same = (self._server, self._bucket) == (other._server, other._bucket)
        return is_same and other._folder.startswith(self._folder)

    def put_file(self, path: str | Path, name: str, sha256: str = "") -> str:
        """Upload a file, a large one in parallel parts, and return its SHA-256, which is stored with the object.

        The object appears whole or not at all. If the digest is known, `sha256` saves reading the file twice.
        """
        key, sha256 = self._key(name), sha256 or sha256_file(path)
        with self._translate_errors(name, is_write=True), UploadFile(path, sha256, name) as source:
            part = max(PART_BYTES, math.ceil(source.size / MAX_PARTS))
            if not source.size:
                source.read()  # verifies the digest; put_object does not read an empty file
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
                # The response to the last request was lost, and its repetition found the upload completed.
                if error.code != "NoSuchUpload" or not self._etag_if(key, SHA256, sha256):
                    raise
        return sha256

    def get_file(self, name: str, path: str | Path, sha256: str = "", *, is_synced: bool = True) -> str:
        """Download an object to a file, which appears complete and verified or not at all, and return its SHA-256.

        After a loss of power, only a file that `is_synced` to the disk is still whole or not there.
        Raises CorruptDataError if the digest is neither `sha256`, if given, nor the one that put_file stored.
        """
        try:
            with (
                new_file(path, is_synced=is_synced) as file,
                self._translate_errors(name),
                closing(self._download(name)) as download,
            ):
                free = shutil.disk_usage(Path(path).parent).free
                if download.size > free:
                    message = f"{self.uri(name)} has {download.size:,} bytes, and {free:,} are free at {path}"
                    raise UserError(message, "free some space there")
                return download.write(file, sha256)
        except OSError as error:
            raise disk_error(error, self.uri(name), str(path)) or error from None

    def put_bytes(self, content: bytes, name: str, *, if_absent: bool = False, if_match: str = "") -> str:
        """Write a small object and return its ETag.

        Raises Conflict if the object exists (`if_absent`), or does not exist with the ETag `if_match`: one of many
        concurrent writers succeeds. An ETag depends on the content alone, so make the content of each write unique.
        Raises UserError if the server ignores such conditions.
        """
        if if_absent or if_match:
            check_once(self.uri(), self._server, self.ignored_condition)
        key, writer = self._key(name), uuid4().hex
        headers = {SHA256: hashlib.sha256(content).hexdigest(), WRITER: writer}
        if if_absent:
            headers["If-None-Match"] = "*"
        if if_match:
            headers["If-Match"] = f'"{if_match}"'
        with self._translate_errors(name, is_write=True):
            try:
                # minio's public put_object would store the conditions as metadata.
                return self._client._put_object(self._bucket, key, content, dict(headers)).etag or ""
            except S3Error as error:
                if error.code != "PreconditionFailed" and not (if_match and error.code == "NoSuchKey"):
                    raise
            etag = self._etag_if(key, WRITER, writer)  # our own first attempt, if its response was lost
        if not etag:
            raise Conflict(f"{self.uri(name)} was written by another")
        return etag

    def ignored_condition(self, probe: str = PROBE) -> str:
        """Return the header of conditional writes that the server ignores, empty if none; writes the object `probe`."""

        def is_refused(condition: Mapping[str, str]) -> bool:
            try:
                self._client._put_object(self._bucket, self._key(probe), b"1", dict(condition))
            except S3Error as error:
                if error.code in ("PreconditionFailed", "NoSuchKey"):
                    return True
                if error.code != "NotImplemented":
                    raise
            return False

        with self._translate_errors(probe, is_write=True):
            return ignored_condition(is_refused)

    def get_bytes(self, name: str, limit: int = MAX_BYTES) -> tuple[bytes, str]:
        """Return the bytes of a small object, and its ETag. Raises CorruptDataError if there are more than `limit`."""
        with self._translate_errors(name), closing(self._download(name)) as download:
            if download.size > limit:
                message = f"{self.uri(name)} has {download.size:,} bytes, and {limit:,} are allowed"
                raise CorruptDataError(message, "check that it is the right object")
            return download.read(), download.etag

    def get_range(self, name: str, etag: str, start: int, length: int) -> bytes:
        """Return the bytes of an object from `start` on, `length` of them or as many as there are.

        Raises TransientError if it no longer has the ETag, or is gone.
        """
        part = Part(start, length, etag)
        with self._translate_errors(name):
            try:
                with closing(self._download(name, part)) as download:
                    return download.read_part()
            except S3Error as error:
                if error.code not in ("PreconditionFailed", "NoSuchKey"):
                    raise
                raise TransientError(f"{self.uri(name)} changed while it was read", "run it again") from None

    def get_start(self, name: str, length: int) -> bytes:
        """Return the first bytes of an object that is not empty, at most `length`."""
        with self._translate_errors(name):
            response = self._client.get_object(self._bucket, self._key(name), length=length)
            with closing(response):
                return bytes(response.read(length))

    def check_access(self) -> None:
        """Raise UserError if the store cannot be used; a HEAD request would not report a missing bucket."""
        next(self.list("runs"), None)

    def list(self, under: str = "") -> Iterator[Entry]:
        """Yield the objects below the folder `under` in the order of their names, requesting a page at a time."""
        start = f"{self._key(under)}/" if under else self._folder
        with self._translate_errors(under):
            for found in self._client.list_objects(self._bucket, prefix=start, recursive=True):
                name = found.object_name.removeprefix(self._folder)
                if not name.endswith("/"):  # an empty object that consoles create to show a folder
                    yield Entry(name, found.size, found.etag, found.last_modified)

    def stat(self, name: str) -> Entry | None:
        """Return an object's description without reading it; None if it does not exist."""
        with self._translate_errors(name):
            found = self._head(self._key(name))
        if not found:
            return None
        sha256 = (found.metadata or {}).get(SHA256, "")
        return Entry(name, found.size or 0, found.etag or "", found.last_modified, sha256)

    def exists(self, name: str) -> bool:
        """Return whether an object exists."""
        return self.stat(name) is not None

    def remove(self, *names: str) -> None:
        """Delete objects; those that do not exist are ignored."""
        objects = [DeleteObject(self._key(name)) for name in names]
        with self._translate_errors(names[0] if len(names) == 1 else "", is_write=True):
            for error in self._client.remove_objects(self._bucket, objects):
                uri = f"s3://{self._bucket}/{error.name}"
                raise self._api_error(error.code, error.message, uri, is_write=True)

    def unfinished_uploads(self, before: datetime | None = None) -> Iterator[Upload]:
        """Yield the multipart uploads below the prefix that are in progress, or whose process was killed.

        Those that were started after `before` are left out. MinIO lists none: it deletes those older than a day itself.
        """
        key = upload_id = None
        with self._translate_errors("", is_write=True):
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
        """Delete the parts of an unfinished upload; one that does not exist is ignored."""
        with self._translate_errors(upload.name, is_write=True):
            try:
                self._client._abort_multipart_upload(self._bucket, self._key(upload.name), upload.id)
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise

    def _key(self, name: str) -> str:
        check_name(name)
        return self._folder + name

    def _download(self, name: str, part: Part | None = None) -> Download:
        return Download(self._client, self._bucket, self._key(name), self.uri(name), self._transport.attempts, part)

    def _head(self, key: str) -> Object | None:
        try:
            return self._client.stat_object(self._bucket, key)
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            self._client.get_object(self._bucket, key).close()  # fails too, but its response has a body with the reason
            raise

    def _etag_if(self, key: str, header: str, value: str) -> str:
        """Return the ETag of the object if its header has this value; empty otherwise."""
        found = self._head(key)
        return found.etag or "" if found and found.metadata and found.metadata.get(header) == value else ""

    @contextmanager
    def _translate_errors(self, name: str, *, is_write: bool = False) -> Iterator[None]:
        """Turn minio's exceptions about the object `name` into UserError."""
        try:
            yield
        except ServerFault as error:
            if is_write or not name:
                raise
            raise unreadable(self.uri(name), error) from None
        except S3Error as error:
            raise self._api_error(error.code, error.message, self.uri(name), is_write) from None
        except (MinioException, ParseError) as error:
            endpoint = f"{self._transport.prefix}AWS_ENDPOINT_URL_S3"
            if "HTTP request to an HTTPS server" in str(error):
                raise UserError(f"{self.uri(name)}: the server expects TLS", f"use https:// in {endpoint}") from None
            message = f"{self.uri(name)}: the server does not speak S3 ({str(error)[:200]})"
            raise UserError(message, f"check the address in {endpoint}") from None

    def _api_error(self, code: str | None, message: str | None, uri: str, is_write: bool) -> UserError:
        prefix, is_anonymous = self._transport.prefix, self._is_anonymous
        return api_error(code or "", message or "", uri, prefix, is_anonymous=is_anonymous, is_write=is_write)
