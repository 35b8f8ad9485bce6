"""Phones: the ARPABET names used everywhere, and how other phone sets become them."""

from __future__ import annotations

import re
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

# IPA to the nearest English phones, for espeak-ng and hibari (whose letters A I W Y O Q ᵊ ᵻ ʤ ʧ are its own)
# and, roughly, for Spanish, French, Italian and Russian. Longest match first; what is not here is a mark.
_IPA = {
    "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "ɔɪ": "OY", "oʊ": "OW", "əʊ": "OW", "ɪə": "IH AH", "eə": "EH AH",
    "ʊə": "UH AH", "tʃ": "CH", "dʒ": "JH", "ts": "T S", "dz": "D Z", "ɜː": "ER", "əl": "AH L",
    "iə": "IY AH", "A": "EY", "I": "AY", "W": "AW", "Y": "OY", "O": "OW", "Q": "OW", "ʤ": "JH", "ʧ": "CH",
    "ʦ": "T S", "a": "AA", "ɐ": "AH", "ɑ": "AA", "ɒ": "AA", "æ": "AE", "ʌ": "AH", "ə": "AH", "ᵊ": "AH",
    "ɚ": "ER", "ɜ": "ER", "ɝ": "ER", "e": "EY", "ɛ": "EH", "i": "IY", "ɪ": "IH", "ᵻ": "IH", "ɨ": "IH",
    "y": "UW", "u": "UW", "ʊ": "UH", "ʉ": "UW", "o": "OW", "ɔ": "AO", "ø": "ER", "œ": "ER", "ɵ": "AH",
    "ɘ": "IH", "b": "B", "β": "B", "d": "D", "f": "F", "ɡ": "G", "g": "G", "ɣ": "G", "h": "HH", "j": "Y",
    "ʝ": "Y", "ɥ": "W", "k": "K", "c": "K", "x": "HH", "l": "L", "ɫ": "L", "ɭ": "L", "ʎ": "L", "m": "M",
    "n": "N", "ɲ": "N", "ŋ": "NG", "p": "P", "r": "R", "ɹ": "R", "ɾ": "D", "ʁ": "R", "s": "S", "ʃ": "SH",
    "ʂ": "SH", "ɕ": "SH", "t": "T", "θ": "TH", "ð": "DH", "v": "V", "ʋ": "V", "w": "W", "z": "Z", "ʒ": "ZH",
    "ʐ": "ZH", "ç": "HH", "T": "D",
}  # fmt: skip
_IPA_PATTERN = re.compile("|".join(sorted(map(re.escape, _IPA), key=len, reverse=True)))


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


def ipa_to_arpabet(ipa: str) -> tuple[str, ...]:
    """Nearest English ARPABET phones of an IPA string; stress, length and other marks give none."""
    return tuple(name for match in _IPA_PATTERN.finditer(ipa) for name in _IPA[match.group()].split())


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
