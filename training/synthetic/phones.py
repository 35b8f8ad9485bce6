"""Phones: the ARPABET names used everywhere, and how other phone sets become them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

VOWELS = frozenset("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())
CONSONANTS = frozenset("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split())
SILENCE = "SIL"
ARPABET = VOWELS | CONSONANTS | {SILENCE}
BILABIALS = frozenset("P B M".split())
LABIODENTALS = frozenset("F V".split())

_SILENCES = frozenset("SIL PAU SP SPN NSN H# BRTH".split())
_VARIANTS = {
    "AX": "AH", "AXR": "ER", "IX": "IH", "UX": "UW", "EL": "L", "EM": "M", "EN": "N", "NX": "N", "DX": "D",
    "HV": "HH", "WH": "W", "Q": SILENCE, "GS": SILENCE,
}  # fmt: skip

# espeak-ng phoneme mnemonics (English voices), without stress and length marks that carry no shape.
# A value of several phones shares the time of the one.
_ESPEAK = {
    "a": "AE", "aa": "AE", "a#": "AH", "@": "AH", "@2": "AH", "@5": "UH", "@L": "AH L", "3": "ER",
    "3:": "ER", "A:": "AA", "A": "AA", "A@": "AA R", "0": "AA", "02": "AA", "O": "AO", "O:": "AO",
    "O2": "AO", "O@": "AO R", "o@": "AO R", "oU": "OW", "OI": "OY", "aI": "AY", "aU": "AW",
    "aI@": "AY AH", "aI3": "AY ER", "aU@": "AW AH", "eI": "EY", "e@": "EH R", "E": "EH", "I": "IH",
    "I2": "IH", "I#": "IH", "i": "IY", "i:": "IY", "i@": "IH AH", "i@3": "IH R", "U": "UH", "U@": "UH R",
    "u:": "UW", "u": "UW", "V": "AH", "VR": "AH R", "b": "B", "d": "D", "f": "F", "g": "G", "h": "HH",
    "j": "Y", "k": "K", "l": "L", "m": "M", "n": "N", "N": "NG", "p": "P", "r": "R", "r-": "R", "s": "S",
    "t": "T", "t#": "D", "t2": "T", "v": "V", "w": "W", "z": "Z", "S": "SH", "Z": "ZH", "tS": "CH",
    "dZ": "JH", "T": "TH", "D": "DH", "?": SILENCE, "n-": "N", "l-": "L", "@-": "AH", "m-": "M",
    "r/": "R", "L": "L", "x": "K", "e": "EH", "o": "AO", "y": "UW", "W": "W",
}  # fmt: skip


class Phone(NamedTuple):
    """One phone of an utterance: ARPABET name without stress, start and length in seconds."""

    name: str
    start_s: float
    duration_s: float

    @property
    def end_s(self) -> float:
        """Time at which the phone ends, seconds."""
        return self.start_s + self.duration_s


def arpabet(name: str) -> str:
    """ARPABET name (upper case, no stress digit) of an ARPABET, CMU or radio phone name.

    Raises:
        ValueError: if the name is of no known phone.
    """
    plain = name.strip().upper().strip("+<>").rstrip("012")
    if plain in _SILENCES:
        return SILENCE
    plain = _VARIANTS.get(plain, plain)
    if plain not in ARPABET:
        raise ValueError(f"unknown phone {name!r}")
    return plain


def espeak_to_arpabet(mnemonic: str) -> tuple[str, ...]:
    """ARPABET phones of one espeak-ng phoneme mnemonic; empty for marks of stress, length and word ends.

    Raises:
        ValueError: if the mnemonic is of no known phoneme.
    """
    plain = mnemonic.strip("'`,|%=_;~\"!")
    if not plain:
        return (SILENCE,) if "_" in mnemonic else ()
    if plain == ":":
        return ()
    if plain not in _ESPEAK:
        raise ValueError(f"unknown espeak phoneme {mnemonic!r}")
    return tuple(_ESPEAK[plain].split())


def parse_phones(rows: Iterable[Sequence]) -> list[Phone]:
    """Phones of rows (name, start_s, duration_s) in any order, sorted, names made plain ARPABET.

    Raises:
        ValueError: on an unknown name, a negative start or a negative duration.
    """
    phones = []
    for name, start_s, duration_s in rows:
        if start_s < -1e-6 or duration_s < 0:
            raise ValueError(f"phone {name!r} starts at {start_s} s and lasts {duration_s} s")
        phones.append(Phone(arpabet(str(name)), float(start_s), float(duration_s)))
    return sorted(phones, key=lambda phone: phone.start_s)


def fill_silences(phones: Sequence[Phone], total_s: float, shortest_s: float = 0.02) -> list[Phone]:
    """The phones with every uncovered stretch of [0, total_s] named as silence, neighbours merged."""
    filled: list[Phone] = []

    def add(phone: Phone) -> None:
        if filled and phone.name == filled[-1].name == SILENCE:
            first = filled.pop()
            phone = Phone(SILENCE, first.start_s, phone.end_s - first.start_s)
        filled.append(phone)

    time_s = 0.0
    for phone in phones:
        if phone.start_s - time_s > shortest_s:
            add(Phone(SILENCE, time_s, phone.start_s - time_s))
        add(phone)
        time_s = max(time_s, phone.end_s)
    if total_s - time_s > shortest_s:
        add(Phone(SILENCE, time_s, total_s - time_s))
    return filled
