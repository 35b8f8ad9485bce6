"""Festival's diphone voices: recorded people, cut into pairs of phones and put together again, with exact times.

Debian packages `festival` and `festvox-*`; a voice whose package is missing is an error of `FestivalVoice`.
Voices of other languages read English by their own rules.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from training.synthetic.alignment import AlignmentError
from training.synthetic.phones import CONSONANTS, SILENCE, VOWELS, Phone
from training.synthetic.voices import read_wav, resample

FESTIVAL_VOICES = {  # name: Festival's own name
    "kdl": "ked_diphone",
    "lp": "lp_diphone",
    "pc": "pc_diphone",
    "lj": "suo_fi_lj_diphone",
    "mv": "hy_fi_mv_diphone",
    "dita": "czech_dita",
    "machac": "czech_machac",
    "ph": "czech_ph",
    "krb": "czech_krb",
}
# Phones of the Italian, Finnish and Czech sets, without length and stress; what is not here and no ARPABET is an error.
_PHONES = {
    "#": SILENCE, "##": SILENCE, "_": SILENCE, "pau": SILENCE, "a": "AA", "e": "EH", "E": "EH", "i": "IY", "o": "AO",
    "O": "AO", "u": "UW", "y": "UW", "@": "AE", "7": "ER", "ae": "AE", "oe": "ER", "au": "AW", "ou": "OW", "eu": "EH",
    "A": "AE", "S": "SH", "s~": "SH", "Z": "ZH", "z~": "ZH", "T": "TH", "D": "DH", "tS": "CH", "c~": "CH", "dZ": "JH",
    "dz~": "JH", "ts": "T", "c": "T", "dz": "D", "J": "N", "n~": "N", "nf": "N", "N": "NG", "n*": "NG", "L": "L",
    "r~": "ZH", "r~*": "SH", "j": "Y", "t~": "T", "d~": "D", "ch": "HH", "x": "HH", "h": "HH", "q": SILENCE,
    "?": SILENCE, "m*": "M", "l*": "L", "ax": "AH", "el": "L", "em": "M", "en": "N", "dx": "D", "nx": "N", "hv": "HH",
}  # fmt: skip


class FestivalVoice:
    """One voice in a process of its own that lives as long as this object.

    Raises:
        FileNotFoundError: if Festival is not installed.
        RuntimeError: if the voice is not.
    """

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            ["stdbuf", "-oL", "festival", "--pipe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if "yes" not in self._ask(f"(format t \"%l\\n\" (if (member '{FESTIVAL_VOICES[name]} (voice.list)) 'yes 'no))"):
            raise RuntimeError(f"Festival has no voice {FESTIVAL_VOICES[name]}")
        self._ask(f"(voice_{FESTIVAL_VOICES[name]})")

    def _ask(self, command: str) -> str:
        """Run Scheme; returns what it prints."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(command + '\n(format t "\\nready\\n")\n')
        self._process.stdin.flush()
        printed: list[str] = []
        for line in self._process.stdout:
            if line.strip() == "ready":
                return "".join(printed)
            printed.append(line)
        raise RuntimeError(f"Festival ended at {command!r}")

    def __call__(self, text: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]]:
        """Speak a text at a random tempo: samples float32 [n] at 16 kHz, phones with their times.

        Raises:
            AlignmentError: if the voice's rules do not know what to make of the text.
        """
        stretch = rng.uniform(0.85, 1.25)
        with tempfile.TemporaryDirectory() as folder:
            sound, segments = Path(folder) / "speech.wav", Path(folder) / "speech.lab"
            said = text.replace("\\", " ").replace('"', " ")
            self._ask(
                f"(begin (Parameter.set 'Duration_Stretch {stretch:.3f})"
                f' (set! said (utt.synth (Utterance Text "{said}")))'
                f' (utt.save.segs said "{segments}") (utt.save.wave said "{sound}"))'
            )
            if not sound.exists():
                raise AlignmentError(f"Festival cannot say {text!r}")
            samples, rate = read_wav(sound)
            rows = [line.split() for line in segments.read_text().splitlines()[1:]]
        phones, start_s = [], 0.0
        for row in rows:
            phones.append(Phone(_name_of(row[2]), start_s, max(float(row[0]) - start_s, 0.0)))
            start_s = float(row[0])
        return resample(samples, rate), phones

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def _name_of(phone: str) -> str:
    plain = phone.rstrip("0123456789:")
    if plain in _PHONES:
        return _PHONES[plain]
    if plain.upper() in VOWELS | CONSONANTS:
        return plain.upper()
    raise ValueError(f"unknown phone {phone!r} of Festival")
