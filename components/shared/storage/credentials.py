"""The credentials for S3, found in the same variables and in the same order as by the AWS tools."""

from configparser import Error as ConfigError
from pathlib import Path
from xml.etree.ElementTree import ParseError

from minio.credentials.credentials import Credentials
from minio.credentials.providers import AWSConfigProvider, IamAwsProvider, Provider, StaticProvider, WebIdentityProvider

from components.shared.core.errors import UserError
from components.shared.storage.endpoint import Variables
from components.shared.storage.transport import Transport


def find_credentials(variables: Variables, region: str, transport: Transport) -> Provider | None:
    """Return the first credentials that the variables name; None for anonymous access to a public bucket."""
    key_name, key = variables.find("AWS_ACCESS_KEY_ID")
    secret_name, secret = variables.find("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        present, missing = (key_name, secret_name) if key else (secret_name, key_name)
        raise UserError(f"{present} is set but {missing} is not", "set both")
    if key:
        return StaticProvider(key, secret, variables.get("AWS_SESSION_TOKEN") or None)
    if variables.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return _web_identity(variables, region, transport)
    container, uri = variables.find("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    if uri:
        return _RedactedProvider(IamAwsProvider(http_client=transport), container, "check it and the role of the pod")
    profile_name, profile = variables.find("AWS_PROFILE")
    if profile:
        file_name, file = variables.find("AWS_SHARED_CREDENTIALS_FILE")
        remedy = f"check that this profile has both keys in {file or '~/.aws/credentials'}, or set {file_name}"
        return _RedactedProvider(AWSConfigProvider(file, profile), f"{profile_name}={profile}", remedy)
    return None


def _web_identity(variables: Variables, region: str, transport: Transport) -> Provider:
    """Return credentials for the role of a Kubernetes service account (IRSA)."""
    name, token_file = variables.find("AWS_WEB_IDENTITY_TOKEN_FILE")
    role_name, role = variables.find("AWS_ROLE_ARN")
    regional = f"https://sts.{region}.amazonaws.com" + ".cn" * region.startswith("cn-")
    provider = WebIdentityProvider(
        jwt_provider_func=lambda: {"access_token": Path(token_file).read_text().strip()},  # Kubernetes renews the file
        sts_endpoint=variables.get("AWS_ENDPOINT_URL_STS") or (regional if region else "https://sts.amazonaws.com"),
        role_arn=role,
        role_session_name=variables.get("AWS_ROLE_SESSION_NAME"),
        http_client=transport,
    )
    remedy = f"check the file, {role_name} and the trust policy of the role"
    return _RedactedProvider(provider, f"{name}={token_file}", remedy)


class _RedactedProvider(Provider):
    """Credentials to fetch, whose errors do not show the token that was sent for them."""

    def __init__(self, provider: Provider, source: str, remedy: str) -> None:
        self._provider, self._source, self._remedy = provider, source, remedy

    def retrieve(self) -> Credentials:
        try:
            return self._provider.retrieve()
        except UserError:
            raise
        except (ValueError, ParseError, ConfigError, OSError) as error:
            reason = f" ({error.strerror})" if isinstance(error, OSError) else ""
            raise UserError(f"{self._source} gave no S3 credentials{reason}", self._remedy) from None
