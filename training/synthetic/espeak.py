"""espeak-ng through its C library: speech with exact phone times, and pronunciations."""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from training.synthetic.phones import SILENCE, Phone, ipa_to_arpabet

_LIBRARY = "libespeak-ng.so.1"
_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS, _PHONEME_IPA = 1, 2
_EVENT_END, _EVENT_PHONEME = 0, 7
_CHARS_UTF8 = 1
_SHORTEST_PAUSE_S = 0.06  # an event without a phone is a pause or, when shorter, a mark
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


class Espeak:
    """The synthesiser. The library keeps global state: use one instance a process.

    Raises:
        RuntimeError: if libespeak-ng is not installed.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise RuntimeError("espeak-ng is not installed (Debian package espeak-ng)") from error
        self.sample_rate = self._library.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _PHONEME_IPA
        )
        self._blocks: list[np.ndarray] = []
        self._events: list[tuple[str, float]] = []
        callback_type = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
        )
        self._callback = callback_type(self._collect)  # kept alive with the instance
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples, count: int, events) -> int:
        if samples and count:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                raw = ctypes.string_at(ctypes.addressof(event) + _Event.id.offset, 8)
                name = raw.split(b"\0")[0].decode("utf-8", "ignore")
                self._events.append((name, event.sample / self.sample_rate))
            index += 1
        return 0

    def speak(
        self,
        text: str,
        voice: str = "en-us",
        words_per_minute: int = 165,
        pitch: int = 50,
        pitch_range: int = 50,
    ) -> tuple[np.ndarray, list[Phone]]:
        """Speak a text.

        Args:
            text: plain text.
            voice: espeak-ng voice, with a variant if wanted ("en-us+f3").
            words_per_minute: 80 … 450.
            pitch, pitch_range: 0 … 99.

        Returns:
            samples: float32 [n] in -1 … 1 at `sample_rate` Hz.
            phones: with their times; a phoneme of two phones shares its time between them.

        Raises:
            ValueError: if the voice is unknown.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"unknown espeak voice {voice!r}")
        for parameter, value in (
            (_PARAMETER_RATE, words_per_minute),
            (_PARAMETER_PITCH, pitch),
            (_PARAMETER_RANGE, pitch_range),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._blocks, self._events = [], []
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.int16)
        return samples.astype(np.float32) / 32768, self._phones(len(samples) / self.sample_rate)

    def _phones(self, total_s: float) -> list[Phone]:
        phones: list[Phone] = []
        ends_s = [start_s for _, start_s in self._events[1:]] + [total_s]
        for (ipa, start_s), end_s in zip(self._events, ends_s, strict=True):
            names = ipa_to_arpabet(ipa)
            if not names and end_s - start_s >= _SHORTEST_PAUSE_S:
                names = (SILENCE,)
            if not names and phones:  # a mark: its time belongs to the phone before
                last = phones.pop()
                phones.append(Phone(last.name, last.start_s, end_s - last.start_s))
            share_s = (end_s - start_s) / max(len(names), 1)
            phones += [Phone(name, start_s + i * share_s, share_s) for i, name in enumerate(names)]
        return phones

    @functools.lru_cache(maxsize=20_000)  # noqa: B019 - one instance a process
    def pronounce(self, word: str, voice: str = "en-us") -> tuple[str, ...]:
        """ARPABET phones of one word; empty if the word is silent."""
        _, phones = self.speak(word, voice)
        return tuple(phone.name for phone in phones if phone.name != SILENCE)
