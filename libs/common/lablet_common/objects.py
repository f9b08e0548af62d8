"""The port to the object store: S3's semantics as plain calls, with a twin in memory.

Objects are content-addressed (`objects/<tenant>/<aa>/<sha256>`), so neither versions nor conditional puts are needed:
writing the same content again changes nothing, and what is read is checked against its digest.
"""

import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from lablet_common.resources.artifact import object_key
from lablet_common.settings import StorageSettings
from lablet_common.telemetry.spans import calling


class ObjectStoreError(Exception):
    """The object store refused a call; the message says which and why."""


class ObjectStoreUnavailable(ObjectStoreError):
    """No answer, or one that says: later."""


class ObjectStoreDenied(ObjectStoreUnavailable):
    """Our keys are wrong, or may not do this: work waits until an operator has put that right."""


class ObjectStoreFull(ObjectStoreUnavailable):
    """No room left: work waits until there is some."""


class ObjectMissing(ObjectStoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"no object under {key}")
        self.key = key


class ObjectMismatch(ObjectStoreError):
    """An object's bytes do not have the digest they are stored under."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    bytes: int
    modified: datetime | None = None
    """When it was last put, by the store's clock (real time)."""


class ObjectStore(Protocol):
    """Whole objects by key. Every call raises `ObjectStoreUnavailable` when the store does not answer."""

    async def ensure_bucket(self) -> None: ...
    async def put(self, key: str, data: bytes, media_type: str = "application/octet-stream") -> None: ...
    async def get(self, key: str) -> bytes:
        """Raises `ObjectMissing`."""
        ...

    async def head(self, key: str) -> ObjectInfo | None: ...
    async def delete(self, key: str) -> None:
        """A missing object is no error."""
        ...

    async def list(self, prefix: str) -> list[ObjectInfo]: ...
    async def presign(self, key: str, seconds: int) -> str:
        """A link that downloads the object for so long, without further rights."""
        ...

    async def close(self) -> None: ...


def digest_of(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


async def put_content(store: ObjectStore, tenant: str, data: bytes, media_type: str) -> str:
    """Stores bytes under their digest and returns it; content that is there already is not sent again."""
    digest = digest_of(data)
    key = object_key(tenant, digest)
    present = await store.head(key)
    if present is None or present.bytes != len(data):
        await store.put(key, data, media_type)
    return digest


async def get_content(store: ObjectStore, tenant: str, digest: str) -> bytes:
    """The bytes of a stored object, checked on read. Raises `ObjectMissing`, `ObjectMismatch`."""
    data = await store.get(object_key(tenant, digest))
    if digest_of(data) != digest:
        raise ObjectMismatch(f"the object {digest} of tenant {tenant} has other content than its digest says")
    return data


class MemoryObjectStore:
    """Twin for tests. `unavailable = True` makes every call fail as a dead server would."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.modified: dict[str, datetime] = {}
        """Real time of the last put; a test may make an object old."""
        self.unavailable = False

    def _check(self) -> None:
        if self.unavailable:
            raise ObjectStoreUnavailable("the object store is switched off")

    async def ensure_bucket(self) -> None:
        self._check()

    async def put(self, key: str, data: bytes, media_type: str = "application/octet-stream") -> None:  # noqa: ARG002 - the port's signature
        self._check()
        self.objects[key] = data
        self.modified[key] = datetime.now(UTC)

    async def get(self, key: str) -> bytes:
        self._check()
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectMissing(key) from None

    async def head(self, key: str) -> ObjectInfo | None:
        self._check()
        data = self.objects.get(key)
        return None if data is None else ObjectInfo(key, len(data), self.modified.get(key))

    async def delete(self, key: str) -> None:
        self._check()
        self.objects.pop(key, None)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        self._check()
        found = [(k, v) for k, v in sorted(self.objects.items()) if k.startswith(prefix)]
        return [ObjectInfo(k, len(v), self.modified.get(k)) for k, v in found]

    async def presign(self, key: str, seconds: int) -> str:
        self._check()
        return f"memory:///{key}?expires={seconds}"

    async def close(self) -> None:
        return None


_FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"})
_LATER = frozenset({"SlowDown", "Throttling", "RequestTimeout", "RequestTimeTooSkewed"})


class S3ObjectStore:
    """AWS S3 and compatible servers, through aiobotocore. The client is made at the first call. `silence_seconds`: how long
    an answer may stop before it counts as none; `tries`: of each call, before it is given back to the caller."""

    def __init__(self, settings: StorageSettings, *, silence_seconds: float = 30, tries: int = 3) -> None:
        self._settings = settings
        self._tries = tries
        self._silence_seconds = silence_seconds
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def _connected(self) -> Any:
        if self._client is None:
            # botocore takes a third of a second to import; what never calls S3 does not pay for it
            from aiobotocore.config import AioConfig
            from aiobotocore.session import get_session
            from botocore.handlers import add_expect_header

            settings = self._settings
            self._client = await self._stack.enter_async_context(
                get_session().create_client(
                    "s3",
                    endpoint_url=settings.url,
                    region_name=settings.region,
                    aws_access_key_id=settings.access_key.get_secret_value() if settings.access_key else None,
                    aws_secret_access_key=settings.secret_key.get_secret_value() if settings.secret_key else None,
                    verify=str(settings.ca_cert) if settings.ca_cert else None,
                    config=AioConfig(
                        signature_version="s3v4",
                        s3={"addressing_style": "path"},
                        connect_timeout=3,
                        read_timeout=self._silence_seconds,
                        max_pool_connections=32,
                        retries={"mode": "standard", "max_attempts": self._tries},
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
            )
            # With `Expect: 100-continue` aiohttp waits for the word to go on without any limit, and for ever when the server
            # closes the connection instead of saying it.
            self._client.meta.events.unregister("before-call.s3", add_expect_header)
        return self._client

    @asynccontextmanager
    async def _calling(self, what: str, key: str) -> AsyncIterator[Any]:
        """The client, with its errors turned into the port's."""
        from aiohttp import ClientError as ConnectionFault
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with calling(f"{what} S3", {"aws.s3.bucket": self._settings.bucket, "aws.s3.key": key}):
                yield await self._connected()
        except ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = str(error.response.get("Error", {}).get("Code", ""))
            if status == 404 or code in ("NoSuchKey", "404", "NotFound"):
                raise ObjectMissing(key) from error
            said = f"{what} {key}: the object store at {self._settings.url} answered {status} {code}"
            if status == 507 or code in _FULL:
                raise ObjectStoreFull(f"{said}: it is full; make room there, or raise its quota") from error
            if status in (401, 403):
                raise ObjectStoreDenied(
                    f"{said}: check ARTIFACT_STORAGE_ACCESS_KEY and ARTIFACT_STORAGE_SECRET_KEY, and what they may do with "
                    f"the bucket {self._settings.bucket}"
                ) from error
            if status >= 500 or code in _LATER:
                raise ObjectStoreUnavailable(said) from error
            raise ObjectStoreError(said) from error
        except (BotoCoreError, ConnectionFault, OSError) as error:
            said = f"{what} {key}: {type(error).__name__} at {self._settings.url}"
            if untrusted := _untrusted(error):
                said += f": {untrusted}; ARTIFACT_STORAGE_CA_CERT names the authority to trust"
            raise ObjectStoreUnavailable(said) from error

    async def ensure_bucket(self) -> None:
        """Makes the bucket if it is not there."""
        bucket = self._settings.bucket
        try:
            async with self._calling("look for bucket", bucket) as client:
                await client.head_bucket(Bucket=bucket)
        except ObjectMissing:
            async with self._calling("make bucket", bucket) as client:
                await client.create_bucket(Bucket=bucket)

    async def put(self, key: str, data: bytes, media_type: str = "application/octet-stream") -> None:
        async with self._calling("put", key) as client:
            await client.put_object(Bucket=self._settings.bucket, Key=key, Body=data, ContentType=media_type)

    async def get(self, key: str) -> bytes:
        async with self._calling("get", key) as client:
            answer = await client.get_object(Bucket=self._settings.bucket, Key=key)
            async with answer["Body"] as body:
                data: bytes = await body.read()
                return data

    async def head(self, key: str) -> ObjectInfo | None:
        try:
            async with self._calling("look for", key) as client:
                answer = await client.head_object(Bucket=self._settings.bucket, Key=key)
        except ObjectMissing:
            return None
        return ObjectInfo(key, int(answer["ContentLength"]), answer.get("LastModified"))

    async def delete(self, key: str) -> None:
        try:
            async with self._calling("delete", key) as client:
                await client.delete_object(Bucket=self._settings.bucket, Key=key)
        except ObjectMissing:
            return

    async def list(self, prefix: str) -> list[ObjectInfo]:
        found = []
        async with self._calling("list", prefix) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._settings.bucket, Prefix=prefix)
            async for page in pages:
                found += [
                    ObjectInfo(entry["Key"], int(entry["Size"]), entry.get("LastModified"))
                    for entry in page.get("Contents", ())
                ]
        return found

    async def presign(self, key: str, seconds: int) -> str:
        async with self._calling("presign", key) as client:
            link: str = await client.generate_presigned_url(
                "get_object", Params={"Bucket": self._settings.bucket, "Key": key}, ExpiresIn=seconds
            )
            return link

    async def close(self) -> None:
        await self._stack.aclose()
        self._client = None


def _untrusted(error: BaseException | None) -> str:
    """What is wrong with the server's certificate; empty where it is not that."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ssl.SSLCertVerificationError) and (why := getattr(error, "verify_message", "")):
            return f"its certificate is not trusted ({why})"  # aiohttp's own, around it, does not say why
        error = error.__cause__ or error.__context__
    return ""
