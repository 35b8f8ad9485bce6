"""Which addresses media uses: this machine's own, and those of clients that may be contacted."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MAX_PORT = 65_535


@dataclass(frozen=True)
class Network:
    """Where media leaves from and where it may go.

    Attributes:
        addresses: of this machine that media uses; empty for all of them but loopback and link-local ones.
        ports: UDP ports that media uses; None for any free one.
        public_address: what a router turns this machine's IPv4 address into, ports unchanged; told to clients.
        is_local: the server itself listens on a loopback address, so its clients may be there too.

    Raises:
        ValueError: for an address that is none, or ports that are none.
    """

    addresses: tuple[str, ...] = ()
    ports: range | None = None
    public_address: str | None = None
    is_local: bool = False

    def __post_init__(self) -> None:
        for address in (*self.addresses, *([self.public_address] if self.public_address else [])):
            if not is_address(address) or ipaddress.ip_address(address).is_unspecified:
                raise ValueError(f"{address!r} is not the IP address of a machine; media needs one, no name")
        if self.ports is not None and not (self.ports and 1 <= self.ports[0] and self.ports[-1] <= MAX_PORT):
            raise ValueError(f"UDP ports are a range A-B within 1 … {MAX_PORT}")

    def own_addresses(self, found: list[str]) -> list[str]:
        """Those to use of the addresses that were found on this machine, loopback not among them."""
        if self.addresses:
            return list(self.addresses)
        if not found and self.is_local:
            return ["127.0.0.1"]
        return found

    @property
    def why_nothing_is_left(self) -> str:
        """A sentence for a connection that got no socket."""
        if self.ports is not None:
            return f"all UDP ports for media, {self.ports[0]}-{self.ports[-1]}, are in use; try again in a moment"
        return (
            "this server has no network address for media: on a machine with loopback only it has to listen there, "
            "with --host 127.0.0.1"
        )

    def may_contact(self, host: str) -> bool:
        """Whether checks may be sent to an address that a client names. A name is no address.

        Private addresses may: clients are in the same network. Others that no client has do not get a packet, so
        that nobody makes this server knock at services of its own machine or of its provider (169.254.169.254).
        """
        if not is_address(host):
            return False
        address = ipaddress.ip_address(host)
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_loopback:
            return self.is_local
        return not (address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved)


def parse_ports(text: str) -> range:
    """Ports as `A-B`.

    Raises:
        ValueError: with one sentence.
    """
    first, _, last = text.partition("-")
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()) or int(first) > int(last):
        raise ValueError(f"{text!r} is no range of UDP ports; try 50000-50100")
    return range(int(first), int(last) + 1)


def is_address(host: str) -> bool:
    """Whether it is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
