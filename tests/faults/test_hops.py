"""Redirects between hosts with public, private and local addresses: real ones, in a network of the test's own."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.faults.record import note

UNSHARE = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--net", "--mount"]
HOPS = ROOT / "tests" / "faults" / "hop_network.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0,
        reason="there are no network namespaces for this user",
    ),
]
PUBLIC, OTHER, PRIVATE = "https://data.example.org", "https://cdn.example.net", "https://nas.corp.example"
# what: (typed, targets by host and path, what is said; empty if the archive is downloaded)
CASES: dict[str, tuple[str, dict[str, str], str]] = {
    "none": (f"{PUBLIC}/a", {}, ""),
    "public to public": (f"{PUBLIC}/a", {"data.example.org/a": f"{OTHER}/b"}, ""),
    "private to private": (f"{PRIVATE}/a", {"nas.corp.example/a": "https://mirror.corp.example/b"}, ""),
    "private to public": (f"{PRIVATE}/a", {"nas.corp.example/a": f"{OTHER}/b"}, ""),
    "relative": (f"{PUBLIC}/a", {"data.example.org/a": "b", "data.example.org/b": "//cdn.example.net/c"}, ""),
    "ten": (f"{PUBLIC}/0", {f"data.example.org/{n}": f"/{n + 1}" for n in range(10)}, ""),
    "eleven": (f"{PUBLIC}/0", {f"data.example.org/{n}": f"/{n + 1}" for n in range(11)}, "more than 10 redirects"),
    "loop": (f"{PUBLIC}/a", {"data.example.org/a": f"{OTHER}/b", "cdn.example.net/b": f"{PUBLIC}/a"}, "more than 10"),
    "loopback typed": ("http://127.0.0.1/a", {"127.0.0.1/a": "/b"}, ""),
    "loopback to public": ("http://127.0.0.1/a", {"127.0.0.1/a": f"{PUBLIC}/b"}, ""),
    "plain": ("http://data.example.org/a", {}, "is not https"),
    **{
        f"{start} to {name}": (f"{typed}/a", {f"{typed.partition('//')[2]}/a": target}, said)
        for start, typed in (("public", PUBLIC), ("private", PRIVATE), ("public address", "https://93.184.216.34"))
        for name, target, said in (
            ("loopback", "https://127.0.0.1/b", "leads to 127.0.0.1, an address of this machine"),
            ("loopback's name", "https://localhost/b", "leads to localhost, at 127.0.0.1, an address of this machine"),
            ("loopback by name", "https://loop.example.net/b", "at 127.0.0.1, an address of this machine"),
            ("all addresses", "https://0.0.0.0/b", "leads to 0.0.0.0, an address of this machine"),
            ("loopback in one number", "https://2130706433/b", "leads to 2130706433, at 127.0.0.1, an address of"),
            (
                "loopback in hexadecimal",
                "https://0x7f.1/b",
                "leads to 0x7f.1, at 127.0.0.1, an address of this machine",
            ),
            ("mapped loopback", "https://[::ffff:127.0.0.1]/b", "an address of this machine"),
            ("plain loopback", "http://127.0.0.1/b", "leads to 127.0.0.1, an address of this machine"),
            (
                "metadata",
                "https://169.254.169.254/latest/meta-data/",
                "leads to 169.254.169.254, an address of a local",
            ),
            ("metadata by name", "https://meta.example.net/b", "at 169.254.169.254, an address of a local link"),
            ("plain metadata", "http://169.254.169.254/latest/meta-data/", "which is not https"),
            ("plain http", "http://cdn.example.net/b", "leads to http://cdn.example.net/b, which is not https"),
            ("a file", "file:///etc/passwd", "leads to file:///etc/passwd, which is not https"),
            ("ftp", "ftp://cdn.example.net/b", "leads to ftp://cdn.example.net/b, which is not https"),
            ("another user of the host", "https://cdn.example.net@127.0.0.1/b", "an address of this machine"),
        )
    },
    **{
        f"{start} to {name}": (f"{typed}/a", {f"{typed.partition('//')[2]}/a": target}, "a private address")
        for start, typed in (("public", PUBLIC), ("public address", "https://93.184.216.34"))
        for name, target in (
            ("private", "https://10.0.0.5/b"),
            ("private by name", f"{PRIVATE}/b"),
            ("shared", "https://100.100.100.200/b"),
            ("IPv6's metadata", "https://[fd00:ec2::254]/b"),
            ("IPv6 by name", "https://six.example.net/b"),
            ("mapped private", "https://[::ffff:10.0.0.5]/b"),
            ("private after public", f"{OTHER}/over"),
        )
    },
}
SERVED = {"cdn.example.net/over": f"{PRIVATE}/b"}  # in each case


@pytest.fixture(scope="module")
def ended() -> dict[str, dict[str, object]]:
    """How each download ended, and which hosts it reached."""
    cases = [[url, SERVED | targets] for url, targets, _ in CASES.values()]
    done = subprocess.run(
        [*UNSHARE, sys.executable, HOPS],
        input=json.dumps(cases),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("what", CASES)
def test_a_hop_is_followed_only_where_it_may_lead(ended: dict[str, dict[str, object]], what: str) -> None:
    typed, _, said = CASES[what]
    found = ended[what]
    assert (said in str(found["error"])) if said else found["error"] == ""
    if said:
        assert str(found["error"]).startswith(typed)
    allowed = {"93.184.216.34", "151.101.1.69"}
    allowed |= {"10.0.0.5", "192.168.7.9"} if what.startswith("private") else set()
    allowed |= {"127.0.0.1"} if what.startswith("loopback") else set()
    assert isinstance(found["reached"], list)
    assert {str(place).partition("/")[0] for place in found["reached"]} <= allowed
    note("hop", hop=what, refused=bool(said))
