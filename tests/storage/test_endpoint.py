"""Invalid addresses and variables are refused before any request, in one line without a secret."""

import pytest

from components.shared.core.errors import UserError
from components.shared.storage.client import open_store

SECRET = "secret-5cc1"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET}


def error_of(uri: str, environment: dict[str, str]) -> str:
    """Return the message of the error, which must not hold the secret."""
    with pytest.raises(UserError) as error:
        open_store(uri, environment)
    text = str(error.value)
    assert SECRET not in text
    return text


@pytest.mark.parametrize(
    "uri, message",
    [
        ("/folder", "/folder is not an S3 URI; give s3://bucket/prefix"),
        ("https://bucket/a", "is not an S3 URI; give s3://bucket/prefix"),
        ("s3://", "give s3://bucket/prefix"),
        ("s3://Bucket/a", "give s3://bucket/prefix"),
        ("s3://a/b", "give s3://bucket/prefix"),
        ("s3://10.0.0.1/b", "give s3://bucket/prefix"),
        ("s3://bucket/../b", "without empty parts, ., .. and control characters"),
    ],
)
def test_an_invalid_uri_is_refused(uri: str, message: str) -> None:
    assert message in error_of(uri, ENVIRONMENT)


@pytest.mark.parametrize(
    "endpoint, message",
    [
        (
            "minio:9000",
            "AWS_ENDPOINT_URL_S3=minio:9000 is not an HTTP address; give http://minio:9000 or https://minio:9000",
        ),
        ("minio", "is not an HTTP address; give http://minio or https://minio"),
        ("ftp://minio", "is not an HTTP address; give http://minio or https://minio"),
        (
            "http://minio:9000/bucket",
            "has a path or a query; give http://minio:9000 alone, and the bucket as s3://bucket/prefix",
        ),
        ("http://minio?a=b", "has a path or a query"),
        ("http://minio:port", "invalid port"),
        ("http://[minio", "is not a valid address"),
    ],
)
def test_an_invalid_endpoint_is_refused(endpoint: str, message: str) -> None:
    assert message in error_of("s3://bucket/a", {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": endpoint})


def test_a_password_in_the_endpoint_is_refused_and_not_shown() -> None:
    message = error_of("s3://bucket/a", {"AWS_ENDPOINT_URL_S3": f"http://me:{SECRET}@minio:9000"})
    assert "AWS_ENDPOINT_URL_S3 holds a user or password" in message


@pytest.mark.parametrize(
    "present, missing", [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
)
def test_a_key_without_its_other_half_is_refused(present: str, missing: str) -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != missing}
    assert error_of("s3://bucket/a", environment) == f"{present} is set but {missing} is not; set both"


def test_a_key_with_control_characters_is_not_shown() -> None:
    environment = {**ENVIRONMENT, "AWS_SECRET_ACCESS_KEY": f"{SECRET}\nX: y"}
    assert "AWS_SECRET_ACCESS_KEY holds control characters" in error_of("s3://bucket/a", environment)
