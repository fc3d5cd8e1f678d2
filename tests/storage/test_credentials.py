"""Keys, session tokens, web identities, containers and profiles as credentials."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.storage.client import Store, open_store
from tests.servers.s3_server import KEY, SECRET, Proxy, S3Server, answer, hang_up, proxy, respond
from tests.storage.samples import error_line, write

pytestmark = pytest.mark.slow  # each test needs the real server


def test_variables_may_have_another_name_and_a_prefix(server: S3Server, uri: str) -> None:
    environment = {"S3_ENDPOINT": f" {server.url}/\n", "AWS_ACCESS_KEY_ID": f"{KEY}\n", "AWS_SECRET_ACCESS_KEY": SECRET}
    open_store(uri, environment).put_bytes(b"1", "a")
    foreign = {f"SOURCE_{name}": value for name, value in environment.items()} | {"AWS_ACCESS_KEY_ID": "another"}
    assert open_store(uri, foreign, "SOURCE_").get_bytes("a")[0] == b"1"
    assert "SOURCE_AWS_ACCESS_KEY_ID" in error_line(uri, foreign | {"SOURCE_AWS_ACCESS_KEY_ID": "no-key"}, "SOURCE_")


@pytest.mark.parametrize(
    "changed, reported",
    [
        ({"AWS_ACCESS_KEY_ID": "no-key"}, "the access key is not known; check AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the secret key does not belong to the access key; check"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "there are no credentials; set AWS_ACCESS_KEY_ID and"),
    ],
)
def test_wrong_keys_are_reported(server: S3Server, uri: str, changed: dict[str, str], reported: str) -> None:
    assert reported in error_line(uri, {**server.environment, **changed})


def test_expired_credentials_are_reported_by_every_call(proxied: Store, network: Proxy) -> None:
    for call in (lambda: proxied.get_bytes("a"), lambda: proxied.stat("a"), lambda: proxied.put_bytes(b"1", "a")):
        network.script = [answer(403, "ExpiredToken")] * 2
        with pytest.raises(UserError, match="have expired; set AWS_SESSION_TOKEN and both keys to new values"):
            call()
        network.script = []


def test_a_session_token_is_sent(server: S3Server, network: Proxy, uri: str) -> None:
    environment = {**server.environment, "AWS_ENDPOINT_URL_S3": network.url, "AWS_SESSION_TOKEN": "a-token"}
    with pytest.raises(UserError):  # SeaweedFS did not issue this token
        open_store(uri, environment).get_bytes("a")
    assert {name.lower(): value for name, value in network.asked[0][2].items()}["x-amz-security-token"] == "a-token"


STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken></SessionToken><Expiration>{until:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


def test_a_web_identity_replaces_keys_and_is_renewed(
    server: S3Server, uri: str, tmp_path: Path, waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    token = write(tmp_path / "token", b"token-1\n")
    soon = STS.format(key=KEY, secret=SECRET, until=datetime.now(UTC) + timedelta(seconds=5)).encode()
    with proxy("") as sts:
        sts.script = [hang_up, respond(200, soon), respond(200, soon), respond(403, b"<Error/>")]
        environment = {
            "AWS_ENDPOINT_URL_S3": server.url,
            "AWS_ENDPOINT_URL_STS": sts.url,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/a",
        }
        store = open_store(uri, environment)
        store.put_bytes(b"1", "a")
        log = capsys.readouterr().out
        assert "retrying in" in log and "token-1" not in log
        token.write_bytes(b"token-2")
        assert store.get_bytes("a")[0] == b"1"
        expected = f"AWS_WEB_IDENTITY_TOKEN_FILE={token} gave no S3 credentials; check the file, AWS_ROLE_ARN"
        with pytest.raises(UserError, match=expected) as error:
            store.get_bytes("a")
    assert "token-2" not in str(error.value)


def test_a_container_may_have_credentials(server: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    until = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    credentials = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": "", "Expiration": until}
    with proxy("") as agent:
        agent.script = [respond(200, json.dumps(credentials).encode(), "application/json")]
        variables = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.url, "AWS_ENDPOINT_URL_S3": server.url}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert open_store(uri, os.environ).stat("a") is None


def test_a_profile_may_hold_the_keys(server: S3Server, uri: str, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    variables = {"AWS_ENDPOINT_URL_S3": server.url, "AWS_PROFILE": "mine", "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    reported = error_line(uri, variables)
    assert "AWS_PROFILE=mine gave no S3 credentials" in reported and f"has both keys in {file}, or set" in reported
    file.write_text(f"[mine]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    assert open_store(uri, variables).stat("a") is None
    file.write_text(f"[mine\n{SECRET}")
    assert "AWS_PROFILE=mine gave no S3 credentials" in error_line(uri, variables)
