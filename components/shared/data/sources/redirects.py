"""The way from the address that the user typed to the file: each redirect is checked before it is followed."""

from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import requests

from components.shared.core.errors import UserError
from components.shared.core.proxy import Address, literal_address, proxy_for

MAX_REDIRECTS = 10
INSECURE = "not https: anyone on the network could change the data"


class Way:
    """The addresses on the way, the first of which the user typed."""

    def __init__(self, typed: str) -> None:
        """Start at the address that the user typed."""
        self._typed, self._host = typed, urlsplit(typed).hostname or ""
        self._public: set[str] = set()  # hosts with a public address
        self._is_past_public = False

    def check(self, host: str, address: Address) -> None:
        """Raise UserError if a host must not be reached at `address`.

        This machine is reached only if the user typed it; link-local addresses, where clouds keep credentials, never
        are, nor are private ones once a public host was on the way. A host that goes by a proxy counts as public.
        """
        own = literal_address(self._host)
        is_own = self._host == "localhost" or (own is not None and own.is_loopback)
        if address.is_global:
            self._public.add(host)
        what = ""
        if address.is_link_local:
            what = "an address of a local link"
        elif (address.is_loopback or address.is_unspecified) and not is_own:
            what = "an address of this machine"
        elif not address.is_global and (self._is_past_public or host in self._public):
            what = "a private address"
        if what:
            at = "" if str(address) in host else f", at {address}"
            raise UserError(f"{self._typed} leads to {host}{at}, {what}", "give the address of a data set")

    def follow(
        self, session: requests.Session, headers: Mapping[str, str], timeout: tuple[float, float]
    ) -> requests.Response:
        """Return the answer at the end of the redirects, open. Raises UserError if one must not be followed."""
        url, self._is_past_public = self._typed, False
        for _ in range(MAX_REDIRECTS + 1):
            response = session.get(url, headers=headers, stream=True, timeout=timeout, allow_redirects=False)
            target = session.get_redirect_target(response)
            if target is None:
                return response
            response.close()
            session.close()  # else a host that is connected already would not be checked again
            self._is_past_public |= self._is_public(response.url)
            url = urljoin(url, target)
            if is_insecure(url):
                raise UserError(f"{self._typed} leads to {url}, which is {INSECURE}", "give a https:// address")
        raise UserError(f"{self._typed} leads to more than {MAX_REDIRECTS} redirects", "give the address of the file")

    def _is_public(self, url: str) -> bool:
        host = urlsplit(url).hostname or ""
        return host.rstrip(".") in self._public or (literal_address(host) is None and proxy_for(url) is not None)


def check_address(address: str) -> None:
    """Raise UserError if the address is not https://, except on the loopback interface."""
    if is_insecure(address):
        raise UserError(f"{address} is {INSECURE}", "give a https:// address")


def is_insecure(address: str) -> bool:
    """Return whether an address is neither https nor on the loopback interface."""
    parts = urlsplit(address)
    return parts.scheme != "https" and (
        parts.scheme != "http" or parts.hostname not in ("localhost", "127.0.0.1", "::1")
    )
