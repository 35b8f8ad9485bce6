"""Broken offers and candidates: lines of SDP with the right words in the wrong places."""

from __future__ import annotations

import random
import re

from tests.streamer.media.offers import CHROME, FINGERPRINT, PASSWORD, UFRAG, VIEWER, crlf, mutations

PUBLISHER = crlf(f"""\
v=0
o=FFmpeg 4489045141692799359 2 IN IP4 127.0.0.1
s=FFmpegPublishSession
t=0 0
a=group:BUNDLE 0
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=ice-ufrag:{UFRAG}
a=ice-pwd:{PASSWORD}
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:passive
a=mid:0
a=sendonly
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=ssrc:3542192528 cname:FFmpeg
""")
BASES = (CHROME, VIEWER, PUBLISHER)
NUMBERS = ("", "0", "-1", "1", "255", "256", "65535", "65536", "4294967296", "99999999999999999999", "1e9", "0x10", "٣")
ADDRESSES = (
    "127.0.0.1",
    "::1",
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "999.1.1.1",
    "x.local",
    "fe80::1%0",
    "10.0.0.9",
)
WORDS = (
    "opus",
    "VP8",
    "H264",
    "rtx",
    "red",
    "nack",
    "sendonly",
    "inactive",
    "udp",
    "tcp",
    "host",
    "relay",
    "BUNDLE",
    "*",
)
JUNK = ("\x00", "\u2028", "\x0b", "é" * 40, "a" * 5000, " ", "\t", "%s%n", "=", ":", "🤖")
CANDIDATE = "a=candidate:842163049 1 udp 1677729535 192.0.2.50 46154 typ host generation 0 ufrag Vf0q"


def offer(chance: random.Random) -> str:
    """An offer broken in one to six tokens, or in its lines."""
    if chance.random() < 0.3:
        return mutations(chance.randrange(2**31), 1)[0]
    lines = chance.choice(BASES).split("\r\n")
    for _ in range(chance.randint(1, 6)):
        way = chance.choice((_token, _token, _token, _crowd, _candidates, _swap_sections, _cut))
        lines = way(lines, chance) or ["v=0"]
    return "\r\n".join(lines)


def fragment(chance: random.Random) -> str:
    """A body of candidates, broken in some tokens."""
    lines = [f"a=ice-ufrag:{UFRAG}", "a=mid:0", *[CANDIDATE] * chance.choice((1, 3, 60)), "a=end-of-candidates"]
    for _ in range(chance.randint(1, 8)):
        lines = chance.choice((_token, _token, _crowd))(lines, chance)
    return "\r\n".join(lines)


def _token(lines: list[str], chance: random.Random) -> list[str]:
    """Another token of the same kind, or of none, in a line."""
    place = chance.randrange(len(lines))
    tokens = re.split(r"([ :=/;,])", lines[place])
    token = chance.randrange(len(tokens))
    if re.fullmatch(r"[0-9]+", tokens[token]):
        tokens[token] = chance.choice(NUMBERS)
    elif re.fullmatch(r"[0-9a-fA-F.:]{7,}", tokens[token]):
        tokens[token] = chance.choice(ADDRESSES)
    else:
        tokens[token] = chance.choice((*WORDS, *JUNK))
    return [*lines[:place], "".join(tokens), *lines[place + 1 :]]


def _crowd(lines: list[str], chance: random.Random) -> list[str]:
    """A line many times, with numbers that count."""
    place = chance.randrange(len(lines))
    many = [re.sub(r"[0-9]+", str(number), lines[place], count=1) for number in range(chance.choice((5, 80, 900)))]
    return [*lines[:place], *many, *lines[place:]]


def _candidates(lines: list[str], chance: random.Random) -> list[str]:
    place = chance.randrange(len(lines) + 1)
    line = CANDIDATE.replace("192.0.2.50", chance.choice(ADDRESSES)).replace("46154", chance.choice(NUMBERS))
    return [*lines[:place], *[line] * chance.choice((1, 50)), *lines[place:]]


def _swap_sections(lines: list[str], chance: random.Random) -> list[str]:
    head, *sections = "\r\n".join(lines).split("\r\nm=")
    chance.shuffle(sections)
    sections += sections[: chance.randint(0, 2)]
    return "\r\nm=".join([head, *sections]).split("\r\n")


def _cut(lines: list[str], chance: random.Random) -> list[str]:
    first = chance.randrange(len(lines))
    return lines[:first] + lines[first + chance.choice((1, 1, 5, 40)) :]
