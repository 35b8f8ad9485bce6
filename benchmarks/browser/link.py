"""A bad network without a network: a UDP relay between a client and the server that loses and delays packets.

The server's answer is rewritten so that the client knows the relay's address only, and what the client offers bears no
candidates, so that the server learns the relay's address from what arrives. Needs no privileges.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

Address = tuple[str, int]

CANDIDATE = re.compile(
    r"^a=candidate:(\S+) 1 udp (\d+) (\d+\.\d+\.\d+\.\d+) (\d+) typ host.*$", re.MULTILINE | re.IGNORECASE
)
ANY_CANDIDATE = re.compile(r"^a=(?:candidate:.*|end-of-candidates)\r?\n", re.MULTILINE)


@dataclass
class Direction:
    """Packets of one direction, and their luck: its own, so that it does not depend on what comes the other way."""

    luck: random.Random
    sent: int = 0
    lost: int = 0


class _Port(asyncio.DatagramProtocol):
    """One end of a socket: hands on what comes."""

    def __init__(self, take: Callable[[bytes, Address], None]):
        self._take = take

    def datagram_received(self, packet: bytes, address: Address) -> None:
        self._take(packet, address)

    def error_received(self, error: Exception) -> None:
        """The other end is closed; so are packets lost on a real network."""


class Link:
    """Both directions of the path to one address. Made by `open`; `async with` closes it.

    Args:
        loss: share of the packets that is lost, 0 … 1, each way.
        delay_s: each way.
        seed: of the losses.
    """

    def __init__(self, server: Address, loss: float, delay_s: float, seed: int = 0):
        self.loss = loss
        self.delay_s = delay_s
        self.up, self.down = Direction(random.Random(seed)), Direction(random.Random(seed + 1))
        self.address: Address = ("", 0)
        self._server = server
        self._front: asyncio.DatagramTransport | None = None
        self._backs: dict[Address, asyncio.DatagramTransport] = {}  # by the client's address
        self._waiting: set[asyncio.TimerHandle] = set()

    @classmethod
    async def open(cls, server: Address, loss: float, delay_s: float, seed: int = 0) -> Link:
        """A link to the server, on a free port of the same address."""
        link = cls(server, loss, delay_s, seed)
        loop = asyncio.get_running_loop()
        link._front, _ = await loop.create_datagram_endpoint(lambda: _Port(link._from_client), (server[0], 0))
        link.address = link._front.get_extra_info("sockname")[:2]
        return link

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await asyncio.sleep(0)  # transports close in the next turn

    def close(self) -> None:
        for handle in self._waiting:
            handle.cancel()
        for transport in (self._front, *self._backs.values()):
            if transport is not None:
                transport.close()

    def _from_client(self, packet: bytes, client: Address) -> None:
        self._pass_on(self.up, lambda: self._to_server(packet, client))

    def _to_server(self, packet: bytes, client: Address) -> None:
        if client in self._backs:
            self._backs[client].sendto(packet)
        else:
            asyncio.get_running_loop().create_task(self._open_back(packet, client))

    async def _open_back(self, packet: bytes, client: Address) -> None:
        """The socket that stands for a client at the server."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Port(lambda answer, _: self._pass_on(self.down, lambda: self._to_client(answer, client))),
            remote_addr=self._server,
        )
        self._backs.setdefault(client, transport)
        if self._backs[client] is not transport:  # two packets at once
            transport.close()
        self._backs[client].sendto(packet)

    def _to_client(self, packet: bytes, client: Address) -> None:
        assert self._front is not None
        self._front.sendto(packet, client)

    def _pass_on(self, direction: Direction, send: Callable[[], None]) -> None:
        direction.sent += 1
        if direction.luck.random() < self.loss:
            direction.lost += 1
            return

        def arrive() -> None:
            self._waiting.discard(handle)
            send()

        handle = asyncio.get_running_loop().call_later(self.delay_s, arrive)
        self._waiting.add(handle)


def address_of(sdp: str) -> Address:
    """The first IPv4 host candidate."""
    found = CANDIDATE.search(sdp)
    if found is None:
        raise ValueError("there is no IPv4 host candidate in the SDP")
    return found[3], int(found[4])


def with_address(sdp: str, address: Address) -> str:
    """The SDP with that one candidate in the place of its own."""
    found = CANDIDATE.search(sdp)
    if found is None:
        raise ValueError("there is no IPv4 host candidate in the SDP")
    line = f"a=candidate:{found[1]} 1 udp {found[2]} {address[0]} {address[1]} typ host\r\n"
    sections = re.split(r"^(?=m=)", without_candidates(sdp), flags=re.MULTILINE)
    return sections[0] + "".join(section + line + "a=end-of-candidates\r\n" for section in sections[1:])


def without_candidates(sdp: str) -> str:
    return ANY_CANDIDATE.sub("", sdp)
