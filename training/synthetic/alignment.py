"""Phone times of recorded speech whose words are known, by forced alignment with pocketsphinx.

The acoustic model is American English. Other languages are aligned with the nearest English phones, which
is good enough for the mouth: the pronunciations then come from the caller.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Mapping, Sequence

import numpy as np

from models.timing import SAMPLE_RATE
from training.synthetic.phones import SILENCE, Phone, arpabet

# Attempts in turn: beam (None: the default; very wide beams underflow and fail more often), silence added at
# both ends in seconds, standard deviation of the dither in 16-bit steps.
_ATTEMPTS = ((None, 0.1, 0.1), (None, 0.4, 0.1), (None, 0.4, 8.0), (1e-90, 0.4, 0.1))


class AlignmentError(ValueError):
    """A clip could not be aligned: words outside the dictionary, no path, or no time left."""


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers of a transcript; what stands in brackets is no speech."""
    text = re.sub(r"\[.*?\]|\(.*?\)", " ", text.lower().replace("’", "'"))
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text)


class Aligner:
    """Forced alignment of one clip after the other; construction takes about a second."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoders = {
            None: Decoder(lm=None, loglevel="FATAL"),
            1e-90: Decoder(lm=None, loglevel="FATAL", beam=1e-90, wbeam=1e-70, pbeam=1e-90),
        }

    def align(
        self,
        samples: np.ndarray,
        words: Sequence[str],
        pronunciations: Mapping[str, Sequence[str]] | None = None,
    ) -> list[Phone]:
        """Phones of one clip.

        Args:
            samples: float32 [n], 16 kHz mono, -1 … 1.
            words: of the transcript, lower case.
            pronunciations: ARPABET phones of words; words it lacks are looked up in the English dictionary.

        Raises:
            AlignmentError: if no attempt succeeds.
        """
        if not words:
            raise AlignmentError("the transcript has no words")
        reason = ""
        for beam, padding_s, dither in _ATTEMPTS:
            decoder = self._decoders[beam]
            for word, phones in (pronunciations or {}).items():
                if decoder.lookup_word(word) is None:
                    decoder.add_word(word, " ".join(phones), True)
            missing = [word for word in words if decoder.lookup_word(word) is None]
            if missing:
                raise AlignmentError(f"words outside the dictionary: {missing}")
            try:
                return _attempt(decoder, samples, words, padding_s, dither)
            except (RuntimeError, AlignmentError) as error:  # pocketsphinx raises RuntimeError without a path
                reason = str(error)
        raise AlignmentError(f"no alignment of {' '.join(words)!r}: {reason}")


def _attempt(decoder, samples: np.ndarray, words: Sequence[str], lead_s: float, dither: float) -> list[Phone]:
    padding = (round(lead_s * SAMPLE_RATE), round((lead_s + 0.1) * SAMPLE_RATE))
    padded = np.pad(samples * 32767, padding)
    padded = padded + np.random.default_rng(0).normal(0, dither, len(padded))
    pcm = np.clip(padded, -32768, 32767).astype("<i2").tobytes()
    decoder.set_align_text(" ".join(words))
    _decode(decoder, pcm)
    found = decoder.hyp()
    if found is None or re.sub(r"<[^>]*>|\(\d+\)", " ", found.hypstr).split() != list(words):
        raise AlignmentError("the words were not found in the sound")
    decoder.set_alignment()
    _decode(decoder, pcm)
    alignment = decoder.get_alignment()
    if alignment is None:
        raise AlignmentError("no alignment found")
    total_s = len(samples) / SAMPLE_RATE
    phones = []
    for word in alignment:
        for entry in word:
            start_s = min(max(entry.start * 0.01 - lead_s, 0.0), total_s)
            end_s = min(max((entry.start + entry.duration) * 0.01 - lead_s, 0.0), total_s)
            if end_s > start_s:
                phones.append(Phone(arpabet(entry.name), start_s, end_s - start_s))
    if not any(phone.name != SILENCE for phone in phones):
        raise AlignmentError("the alignment holds only silence")
    return phones


def _decode(decoder, pcm: bytes) -> None:
    """One pass over the whole clip: the mean of the features is taken over all of it."""
    decoder.start_utt()
    decoder.process_raw(pcm, False, True)
    decoder.end_utt()


def _serve(connection) -> None:
    aligner = Aligner()
    try:
        while (request := connection.recv()) is not None:
            try:
                connection.send(aligner.align(*request))
            except AlignmentError as error:
                connection.send(str(error))
    except EOFError:  # the other end is gone
        return


class AlignmentWorker:
    """An `Aligner` in a process of its own, because a search that gets lost cannot be ended otherwise.

    Args:
        timeout_s: limit for one clip; the process is replaced when it runs out.
    """

    def __init__(self, timeout_s: float = 15.0) -> None:
        self._timeout_s = timeout_s
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def align(
        self,
        samples: np.ndarray,
        words: Sequence[str],
        pronunciations: Mapping[str, Sequence[str]] | None = None,
    ) -> list[Phone]:
        """As `Aligner.align`; also raises AlignmentError when the time runs out."""
        self._connection.send((samples, words, pronunciations))
        if not self._connection.poll(self._timeout_s):
            self.close(force=True)
            self._start()
            raise AlignmentError(f"no alignment of {' '.join(words)!r} within {self._timeout_s} s")
        answer = self._connection.recv()
        if isinstance(answer, str):
            raise AlignmentError(answer)
        return answer

    def close(self, force: bool = False) -> None:
        """End the process; at once with `force`, else after the clip in hand."""
        if force:
            self._process.terminate()
        else:
            self._connection.send(None)
        self._process.join()
        self._connection.close()
