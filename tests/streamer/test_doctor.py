from __future__ import annotations

import io
import json
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from streamer import doctor
from streamer.doctor import Finding, print_findings
from streamer.media.ice_servers import IceServer
from streamer.server.options import ServerOptions


@pytest.fixture
def stun_port() -> Iterator[int]:
    """A STUN server that answers one binding request, with an attribute before the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)

        def answer() -> None:
            request, (host, port) = server.recvfrom(100)
            cookie = 0x2112A442
            packed = struct.unpack("!I", socket.inet_aton(host))[0] ^ cookie
            address = struct.pack("!HHBBHI", 0x0020, 8, 0, 1, port ^ (cookie >> 16), packed)
            software = struct.pack("!HH5s3x", 0x8022, 5, b"hello")
            body = software + address
            server.sendto(struct.pack("!HH", 0x0101, len(body)) + request[4:20] + body, (host, port))

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_stun_server_that_answers_is_believed(stun_port: int) -> None:
    finding = doctor._ice(IceServer(f"stun:127.0.0.1:{stun_port}"))
    assert finding.state == "ok" and "127.0.0.1:" in finding.found


def test_stun_answers_that_are_none_are_refused() -> None:
    for answer in (b"", b"\x01\x01" + bytes(18), b"x" * 100):
        with pytest.raises(ValueError):
            doctor._mapped_address(answer, b"t" * 12)


def test_server_that_does_not_answer_is_a_warning_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "STUN_TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        finding = doctor._ice(IceServer(f"stun:127.0.0.1:{silent.getsockname()[1]}"))
    assert finding.state == "warning" and finding.advice
    finding = doctor._ice(IceServer("turn:127.0.0.1:1?transport=tcp", "a", "b"))
    assert finding.state == "warning"


def test_port_in_use_is_missing_and_a_free_one_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        finding = doctor._port("127.0.0.1", taken.getsockname()[1])
    assert finding.state == "missing" and "in use" in finding.found and "--port" in finding.advice
    assert doctor._port("127.0.0.1", 0).state == "ok"


def test_encoders_are_opened_and_not_only_looked_up() -> None:
    assert doctor._opens("libx264") and doctor._opens("libvpx") and doctor._opens("libopus")
    assert not doctor._opens("no_such_encoder")


def test_microphone_needs_a_secure_context() -> None:
    assert doctor._microphone("127.0.0.1").state == "ok"
    finding = doctor._microphone("0.0.0.0")
    assert finding.state == "warning" and "HTTPS" in finding.found and finding.advice


def test_presets_that_cannot_be_started_are_missing_only_if_they_were_asked_for() -> None:
    asked = doctor._speed(ServerOptions(preset="nonsense"), "nonsense")
    other = doctor._speed(ServerOptions(), "nonsense")
    assert (asked.state, other.state) == ("missing", "warning") and asked.advice


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warning", 0), ("missing", 1)])
def test_exit_code_is_1_only_if_something_essential_is_missing(state, code: int) -> None:
    findings = [Finding("one", "ok", "fine"), Finding("two", state, "found", "do this")]
    text = io.StringIO()
    assert print_findings(iter(findings), False, text) == code
    assert "two: found" in text.getvalue() and "-> do this" in text.getvalue()
    text = io.StringIO()
    assert print_findings(iter(findings), True, text) == code
    assert json.loads(text.getvalue())[1] == {"name": "two", "state": state, "found": "found", "advice": "do this"}
