from __future__ import annotations

import pytest

from streamer.media.network import Network, parse_ports


@pytest.mark.parametrize(
    ("host", "by_a_server_on_the_network", "by_a_local_one"),
    [
        ("192.168.1.20", True, True),
        ("10.0.0.1", True, True),
        ("203.0.113.9", True, True),
        ("2001:db8::7", True, True),
        ("fd00::1", True, True),
        ("127.0.0.1", False, True),
        ("127.8.8.8", False, True),
        ("::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("fe80::1%eth0", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("224.0.0.251", False, False),
        ("ff02::fb", False, False),
        ("255.255.255.255", False, False),
        ("240.0.0.1", False, False),
        ("localhost", False, False),
        ("3f2a8c1e.local", False, False),
        ("", False, False),
    ],
)
def test_clients_name_addresses_that_may_be_contacted(
    host: str, by_a_server_on_the_network: bool, by_a_local_one: bool
) -> None:
    assert Network().may_contact(host) == by_a_server_on_the_network
    assert Network(is_local=True).may_contact(host) == by_a_local_one


def test_own_addresses_are_those_found_or_those_chosen() -> None:
    assert Network().own_addresses(["10.0.0.5", "fd00::5"]) == ["10.0.0.5", "fd00::5"]
    assert Network(addresses=("10.0.0.5",)).own_addresses(["10.0.0.5", "fd00::5"]) == ["10.0.0.5"]


def test_loopback_is_used_where_there_is_nothing_else_and_the_server_is_there() -> None:
    assert Network(is_local=True).own_addresses([]) == ["127.0.0.1"]
    assert Network(is_local=True).own_addresses(["10.0.0.5"]) == ["10.0.0.5"]
    assert Network().own_addresses([]) == []
    assert "--host 127.0.0.1" in Network().why_nothing_is_left


def test_ports_are_read_from_their_ends() -> None:
    assert list(parse_ports("50000-50002")) == [50_000, 50_001, 50_002]
    assert list(parse_ports("9-9")) == [9]


@pytest.mark.parametrize("text", ["", "50000", "-", "5-", "50001-50000", "a-b", "1-2-3", "-1-5", "\u0663-\u0664"])
def test_other_ports_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="50000-50100"):
        parse_ports(text)


@pytest.mark.parametrize(
    "options",
    [
        {"addresses": ("example.org",)},
        {"addresses": ("0.0.0.0",)},
        {"public_address": "avatar.example.org"},
        {"ports": range(0, 5)},
        {"ports": range(65_000, 65_537)},
    ],
)
def test_what_is_no_address_and_no_port_is_refused(options: dict) -> None:
    with pytest.raises(ValueError):
        Network(**options)
