"""The S3 API: one way to a client, and one sentence for whatever goes wrong with it.

boto3 is imported inside the functions, so that registering a plugin does not pay for it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .errors import AccessError, InputError, StorageError

# A store that cannot be reached is found out in seconds, not in boto3's minutes: 3 attempts of at
# most 4 s to connect. Reading has longer, because a busy store may think before it answers.
CONNECT_SECONDS = 4
READ_SECONDS = 20
ATTEMPTS = 3

_VERBS = {"Put": "write to", "Create": "write to", "Upload": "write to", "Complete": "write to", "Delete": "delete in"}
_VERBS |= {"Abort": "give up an upload to", "List": "list", "Get": "read", "Head": "read", "Copy": "write to"}

_FULL = {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_BUSY = {"500", "502", "503", "504", "InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "Throttling"}
_DENIED = {"401", "403", "AccessDenied", "AllAccessDisabled", "AccountProblem", "MethodNotAllowed", "405"}
_REGION = {"301", "307", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "InvalidClientTokenId"}
_UNSAID = {"400", "BadRequest"}  # to HEAD, which has no body for the code: an expired token, as a rule
_WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "AuthFailure"}


class Source(NamedTuple):
    """Where credentials come from, in a few words, and when they expire, where that is known and they do not renew."""

    said: str
    expires: datetime | None


def split_uri(uri: str) -> tuple[str, str]:
    """Splits `s3://bucket/a/b` into `("bucket", "a/b")`; the key may be empty.

    Raises:
        InputError: if it is no `s3://` URI or names no bucket.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise InputError(f"'{uri}' is not an S3 address: write it as s3://bucket/folder.")
    return bucket, key


def client(secrets: Mapping[str, str]) -> Any:
    """A boto3 S3 client (safe to share between threads) with timeouts and retries of our own.

    Args:
        secrets: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`,
            `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL`; what is missing or empty is left to boto3's
            own chain (environment, profile, role of the machine). Keys and token are taken
            together from one place, never mixed. Those of a role or of a profile's `credential_process`
            are renewed by botocore before they expire; those of the secrets stay as they are.

    Raises:
        StorageError: if the settings themselves cannot be used.
    """
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    key, secret = secrets.get("AWS_ACCESS_KEY_ID"), secrets.get("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        missing = "AWS_SECRET_ACCESS_KEY" if key else "AWS_ACCESS_KEY_ID"
        raise StorageError(f"The S3 credentials are incomplete: {missing} is not set.")
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=32,
        tcp_keepalive=True,
        # boto3's newer default checksums are refused by several S3 servers that are not AWS.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        # A session of our own: boto3's default session is not safe to use from several threads.
        core = botocore.session.get_session()
        session = boto3.session.Session(
            botocore_session=core,
            aws_access_key_id=key or None,
            aws_secret_access_key=secret or None,
            aws_session_token=(secrets.get("AWS_SESSION_TOKEN") or None) if key else None,
            region_name=secrets.get("AWS_DEFAULT_REGION") or None,
        )
        core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
        return session.client("s3", endpoint_url=secrets.get("AWS_ENDPOINT_URL") or None, config=config)
    except BotoCoreError as error:
        raise StorageError(f"The AWS settings cannot be used ({type(error).__name__}): check AWS's secrets.") from error
    except ValueError as error:
        raise StorageError("AWS_ENDPOINT_URL is not an address: write it as https://host:port.") from error


@cache
def _loader(data_path: str | None) -> Any:
    """Botocore's descriptions of the API; each session would read its own, which takes a fifth of a second."""
    from botocore.loaders import create_loader

    return create_loader(data_path)


def source(secrets: Mapping[str, str]) -> Source:
    """Says where `client` takes the credentials from; asks the source, not the store.

    Raises:
        StorageError: if there are none, or their source gives none
    """
    from botocore.credentials import RefreshableCredentials

    asking = client(secrets)
    with explaining("s3://"):
        found = asking._request_signer._credentials
        if found is None:
            raise AccessError(
                "There are no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role."
            )
        frozen = found.get_frozen_credentials()
    if isinstance(found, RefreshableCredentials):
        return Source(f"from {found.method}; they renew themselves while a run goes on", None)
    kind = "temporary (AWS_SESSION_TOKEN), and nothing renews them" if frozen.token else "without an end"
    given = "the secrets" if found.method == "explicit" else found.method
    return Source(f"from {given}, {kind}", _expiry(frozen.token) if frozen.token else None)


def _expiry(token: str) -> datetime | None:
    """What `aws configure export-credentials` says of the credentials that it exports to the environment."""
    if os.environ.get("AWS_SESSION_TOKEN") != token:
        return None
    try:
        return datetime.fromisoformat(os.environ["AWS_CREDENTIAL_EXPIRATION"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None


@contextmanager
def explaining(uri: str) -> Iterator[None]:
    """Turns every boto3 error raised inside into the StorageError of `explain`."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        raise explain(error, uri) from error


def is_missing(error: BaseException) -> bool:
    """Whether a boto3 error says that the object (not the bucket) does not exist."""
    return _code(error) in {"404", "NoSuchKey", "NotFound"}


def explain(error: BaseException, uri: str) -> StorageError:
    """One sentence for a boto3 error met at `uri`; an AccessError where no patience helps; never quotes credentials.

    Args:
        error: any exception of botocore, boto3 or s3transfer.
        uri: the `s3://` address that was being read or written.
    """
    # boto3's transfer wraps the store's answer; the wrapper itself says nothing more.
    while not _code(error) and type(error).__module__.startswith(("boto3", "s3transfer")) and error.__context__:
        error = error.__context__
    said = _store_said(error, uri) if _code(error) else _never_asked(error, uri)
    return AccessError(said) if _refused(error) else StorageError(said)


def _code(error: BaseException) -> str:
    # Only ClientError carries the store's answer; on other errors `response` may be there and None.
    return str((getattr(error, "response", None) or {}).get("Error", {}).get("Code", ""))


def _refused(error: BaseException) -> bool:
    """Whether the store refuses who asks, rather than what is asked."""
    from botocore.exceptions import CredentialRetrievalError, NoCredentialsError, PartialCredentialsError

    nobody = NoCredentialsError | PartialCredentialsError | CredentialRetrievalError
    return isinstance(error, nobody) or _code(error) in _EXPIRED | _WRONG_KEY | _DENIED | _UNSAID


def _store_said(error: Any, uri: str) -> str:
    """The sentence for an answer of the store that is an error."""
    code, operation = _code(error), getattr(error, "operation_name", "")
    verb = next((verb for start, verb in _VERBS.items() if operation.startswith(start)), "use")
    if code == "NoSuchBucket":
        return f"There is no bucket '{uri.removeprefix('s3://').split('/')[0]}' ({uri}): check the name."
    if is_missing(error):
        return f"There is nothing at {uri}: check the name."
    if code in _WRONG_KEY:
        return f"The store does not accept the credentials for {uri}: check AWS_ACCESS_KEY_ID and its secret."
    if code in _EXPIRED | _UNSAID:
        return (
            f"The credentials for {uri} have expired or are not valid ({code}): set new AWS secrets, then start this "
            "again."
        )
    if code in _DENIED:
        return f"Not allowed to {verb} {uri}: ask whoever owns the bucket for access, or set other AWS secrets."
    if code in _REGION:
        return f"The bucket of {uri} is in another region: set AWS_DEFAULT_REGION to its region."
    if code in _FULL:
        return f"The store has no space left for {uri}: free some or raise its quota."
    if code in _BUSY:
        return f"The store of {uri} is busy or failing (it answered {code} {ATTEMPTS} times): try again later."
    if code == "RequestTimeTooSkewed":
        return f"The store of {uri} refuses this machine's clock: set its time right."
    said = error.response["Error"].get("Message", "")
    return f"The store refused to {verb} {uri}: {code} {said}".rstrip(" .") + "."


def _never_asked(error: Any, uri: str) -> str:
    """The sentence for a request that brought no answer, or was never sent."""
    from botocore import exceptions as botocore

    address = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url") or ""))
    # The host alone: an address may carry a user and a password.
    port = f":{address.port}" if address.port else ""
    where = f"{address.scheme}://{address.hostname}{port}" if address.hostname else "the store"
    if isinstance(error, botocore.NoCredentialsError | botocore.PartialCredentialsError):
        return f"There are no credentials for {uri}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    if isinstance(error, botocore.CredentialRetrievalError):
        return f"The source of the credentials for {uri} gives none: mend the role or the credential_process."
    if isinstance(error, botocore.ParamValidationError):
        return f"{uri} is not a possible S3 address: check the name of the bucket and the folder."
    if isinstance(error, botocore.ProxyConnectionError):
        return f"Cannot reach the proxy on the way to {uri}: check the proxy settings."
    if isinstance(error, botocore.SSLError):
        return (
            f"No secure connection to {where} for {uri}: check AWS_ENDPOINT_URL and the certificates (AWS_CA_BUNDLE)."
        )
    if isinstance(error, botocore.ConnectionError | botocore.HTTPClientError | botocore.IncompleteReadError):
        return f"Cannot reach {where} for {uri}: check the network and AWS_ENDPOINT_URL, then try again."
    if isinstance(error, botocore.BotoCoreError):
        return f"The AWS settings for {uri} cannot be used ({type(error).__name__}): check AWS's secrets."
    return f"The transfer of {uri} failed ({type(error).__name__}): try again."
