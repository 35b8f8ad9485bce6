"""An offer as Chrome writes it, and ways to break it."""

from __future__ import annotations

import random
import re

UFRAG, PASSWORD = "Vf0q", "8Jv+yX0pQmN2sR5tW7zA1bC3"
FINGERPRINT = ":".join(["A1"] * 32)

TRANSPORT = f"""\
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:{UFRAG}
a=ice-pwd:{PASSWORD}
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
"""
AUDIO = f"""\
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
{TRANSPORT}a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:- 5e2a2b1e-0000-4000-8000-0123456789ab
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:2739124131 cname:Yl3WAn2vB6
a=ssrc:2739124131 msid:- 5e2a2b1e-0000-4000-8000-0123456789ab
"""
VIDEO = f"""\
m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104 107 108 109 114 45 46
{TRANSPORT}a=mid:1
a=extmap:14 urn:ietf:params:rtp-hdrext:toffset
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=recvonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 goog-remb
a=rtcp-fb:96 transport-cc
a=rtcp-fb:96 ccm fir
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:103 H264/90000
a=rtcp-fb:103 goog-remb
a=rtcp-fb:103 nack
a=rtcp-fb:103 nack pli
a=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
a=rtpmap:104 rtx/90000
a=fmtp:104 apt=103
a=rtpmap:107 H264/90000
a=fmtp:107 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f
a=rtpmap:108 rtx/90000
a=fmtp:108 apt=107
a=rtpmap:109 H264/90000
a=rtcp-fb:109 goog-remb
a=rtcp-fb:109 nack
a=rtcp-fb:109 nack pli
a=fmtp:109 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:114 rtx/90000
a=fmtp:114 apt=109
a=rtpmap:45 AV1/90000
a=fmtp:45 level-idx=5;profile=0;tier=0
a=rtpmap:46 rtx/90000
a=fmtp:46 apt=45
"""
DATA = f"""\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
{TRANSPORT}a=mid:2
a=sctp-port:5000
a=max-message-size:262144
"""
SESSION = """\
v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS
"""


def crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


CHROME = crlf(SESSION + AUDIO + VIDEO + DATA)
VIEWER = crlf(SESSION.replace("BUNDLE 0 1 2", "BUNDLE 0 1") + AUDIO.replace("a=sendrecv", "a=recvonly") + VIDEO)
H264_LINES = tuple(
    f"a={name}:{payload} " for name in ("rtpmap", "fmtp", "rtcp-fb") for payload in (103, 104, 107, 108, 109, 114)
)
WITHOUT_H264 = "\r\n".join(line for line in VIEWER.split("\r\n") if not line.startswith(H264_LINES))


def mutations(seed: int, count: int) -> list[str]:
    """Offers broken in one to three places, the same for the same seed."""
    chance = random.Random(seed)
    ways = [_without, _twice, _cut, _swapped, _scrambled, _numbers, _emptied, _foreign, _section_lost, _moved]
    broken = []
    for _ in range(count):
        lines = CHROME.split("\r\n")
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            lines = chance.choice(ways)(lines, chance)
        broken.append("\r\n".join(lines))
    return broken


def _somewhere(lines: list[str], chance: random.Random) -> int:
    return chance.randrange(max(1, len(lines)))


def _without(lines: list[str], chance: random.Random) -> list[str]:
    gone = _somewhere(lines, chance)
    return lines[:gone] + lines[gone + 1 :]


def _twice(lines: list[str], chance: random.Random) -> list[str]:
    here = _somewhere(lines, chance)
    return lines[:here] + lines[here : here + 1] * chance.choice((2, 40)) + lines[here + 1 :]


def _cut(lines: list[str], chance: random.Random) -> list[str]:
    text = "\r\n".join(lines)
    return text[: chance.randrange(len(text) + 1)].split("\r\n")


def _swapped(lines: list[str], chance: random.Random) -> list[str]:
    a, b = _somewhere(lines, chance), _somewhere(lines, chance)
    lines = list(lines)
    if lines:
        lines[a], lines[b] = lines[b], lines[a]
    return lines


def _scrambled(lines: list[str], chance: random.Random) -> list[str]:
    here = _somewhere(lines, chance)
    line = list(lines[here]) if lines else []
    for _ in range(3):
        if line:
            line[chance.randrange(len(line))] = chr(chance.choice((32, 48, 58, 61, 127, 0xE9, 0x2028, 0x1F600, 9)))
    return [*lines[:here], "".join(line), *lines[here + 1 :]]


def _numbers(lines: list[str], chance: random.Random) -> list[str]:
    here = _somewhere(lines, chance)
    number = chance.choice(("-1", "0", "65536", "99999999999999999999", "1e9", "٣", ""))
    words = lines[here].split(" ") if lines else [""]
    word = chance.randrange(len(words))
    head, colon, tail = words[word].rpartition(":")
    words[word] = f"{head}{colon}{number}" if colon and tail else number
    return [*lines[:here], " ".join(words), *lines[here + 1 :]]


def _emptied(lines: list[str], chance: random.Random) -> list[str]:
    here = _somewhere(lines, chance)
    name = lines[here].partition(":")[0] if lines else ""
    return [*lines[:here], name + chance.choice(("", ":", ": ", ":x")), *lines[here + 1 :]]


def _foreign(lines: list[str], chance: random.Random) -> list[str]:
    here = _somewhere(lines, chance)
    line = chance.choice(
        (
            "a=candidate:1 1 udp 2122260223 not-an-address 50000 typ host",
            "a=candidate:1 1 udp",
            "a=candidate:1 1 tcp 1518280447 192.0.2.77 9 typ host tcptype active",
            "m=text 9 UDP/TLS/RTP/SAVPF 98",
            "m=audio 0 RTP/AVP 0",
            "a=setup:holdconn",
            "a=ice-lite",
            "a=inactive",
            "a=rtcp-fb:* nack",
            "a=ssrc-group:FID 1 x",
            "a=fmtp:111 minptime=ten",
            "a=fmtp:250 apt=1",
            "a=sctpmap:5000 webrtc-datachannel 1024",
            "a=fingerprint:md5 00:11",
            "a=group:BUNDLE 0 1 2 3 4",
            "<script>alert(1)</script>",
            "{}",
        )
    )
    return [*lines[:here], line, *lines[here:]]


def _section_lost(lines: list[str], chance: random.Random) -> list[str]:
    starts = [position for position, line in enumerate(lines) if line.startswith("m=")] + [len(lines)]
    if len(starts) < 2:
        return lines
    section = chance.randrange(len(starts) - 1)
    return lines[: starts[section]] + lines[starts[section + 1] :]


def _moved(lines: list[str], chance: random.Random) -> list[str]:
    if not lines:
        return lines
    line = lines[here := _somewhere(lines, chance)]
    rest = lines[:here] + lines[here + 1 :]
    there = chance.randrange(len(rest) + 1)
    return [*rest[:there], line, *rest[there:]]


def video_codec(answer: str) -> str:
    """The first codec of the answer's video section."""
    section = answer[answer.index("m=video") :]
    payload = section.split()[3]
    found = re.search(rf"a=rtpmap:{payload} (\S+)/90000", section)
    assert found is not None
    return found.group(1)
