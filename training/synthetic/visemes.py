"""From phones to the face: which mouth belongs to which sound, and how neighbours blend.

The track is a deterministic function of the phones (and of the loudness of the sound, if given), so a model
that hears the sound can learn it: nothing in it is drawn at random. Blending follows the dominance functions
of Cohen and Massaro (1993): every phone pulls the mouth to its target with a strength that is highest inside
the phone and fades over some 50 ms to both sides. Lips that must touch (p, b, m; lower lip and teeth in f, v)
and the shut mouth of silence are then imposed by hard windows.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from models.portrait.face_mesh import FACE_DIM, FACE_INDEX, load_face_mesh
from models.timing import FPS
from training.synthetic.phones import BILABIALS, LABIODENTALS, SILENCE, Phone, fill_silences, parse_phones

_OPENING = ("jawOpen", "mouthLowerDown", "mouthUpperUp", "mouthStretch")  # scaled by the loudness

# Targets of the mouth, actions 0 … 1; a name without side means both sides.
_TARGETS: dict[str, dict[str, float]] = {
    SILENCE: {},
    "P B M": {"mouthPress": 0.45, "mouthRollLower": 0.30, "mouthRollUpper": 0.22},
    "F V": {"jawOpen": 0.10, "mouthRollLower": 0.72, "mouthUpperUp": 0.34, "mouthShrugUpper": 0.12},
    "TH DH": {"jawOpen": 0.22, "mouthLowerDown": 0.36, "mouthUpperUp": 0.17, "tongueOut": 0.35},
    "T D N L": {"jawOpen": 0.15, "mouthLowerDown": 0.34, "mouthUpperUp": 0.14, "mouthStretch": 0.11},
    "S Z": {"jawOpen": 0.08, "mouthLowerDown": 0.48, "mouthUpperUp": 0.25, "mouthStretch": 0.34},
    "SH ZH CH JH": {"jawOpen": 0.10, "mouthFunnel": 0.78, "mouthLowerDown": 0.22, "mouthUpperUp": 0.22},
    "K G NG HH": {"jawOpen": 0.28, "mouthLowerDown": 0.26, "mouthUpperUp": 0.08},
    "R ER": {"jawOpen": 0.19, "mouthFunnel": 0.42, "mouthPucker": 0.28},
    "W UW": {"jawOpen": 0.16, "mouthPucker": 0.95, "mouthFunnel": 0.28},
    "UH": {"jawOpen": 0.24, "mouthFunnel": 0.48, "mouthPucker": 0.42},
    "AO": {"jawOpen": 0.50, "mouthFunnel": 0.68, "mouthPucker": 0.32},
    "AA": {"jawOpen": 0.72, "mouthLowerDown": 0.28, "mouthUpperUp": 0.14},
    "AH": {"jawOpen": 0.46, "mouthLowerDown": 0.28, "mouthUpperUp": 0.11},
    "AE": {"jawOpen": 0.56, "mouthLowerDown": 0.36, "mouthUpperUp": 0.22, "mouthStretch": 0.32},
    "EH": {"jawOpen": 0.48, "mouthLowerDown": 0.34, "mouthUpperUp": 0.20, "mouthStretch": 0.28},
    "IH": {
        "jawOpen": 0.30, "mouthLowerDown": 0.35, "mouthUpperUp": 0.17, "mouthStretch": 0.34,
        "mouthSmile": 0.11,
    },
    "IY Y": {
        "jawOpen": 0.18, "mouthLowerDown": 0.38, "mouthUpperUp": 0.17, "mouthStretch": 0.46,
        "mouthSmile": 0.24,
    },
}  # fmt: skip
_DIPHTHONGS = {
    "AY": ("AA", "IY"), "AW": ("AA", "UW"), "OY": ("AO", "IY"), "EY": ("EH", "IY"), "OW": ("AO", "UW"),
}  # fmt: skip
_NUCLEUS_SHARE = 0.55  # of a diphthong's time

_STRENGTH = {
    **dict.fromkeys("AA AE AO EH".split(), 1.7),
    **dict.fromkeys("AH IH IY UH ER".split(), 1.4),
    **dict.fromkeys("W UW SH ZH CH JH".split(), 2.2),
    **dict.fromkeys("S Z TH DH".split(), 1.5),
    **dict.fromkeys("T D N L R Y".split(), 1.1),
    **dict.fromkeys("K G NG HH".split(), 0.7),
    **dict.fromkeys("F V P B M".split(), 0.9),  # the hard windows below see to these
    SILENCE: 1.0,
}
_FADE_S = 0.050
_CLOSED_SHARE = {"P": 0.70, "B": 0.75, "M": 0.95}  # of a phone: the rest is burst and release
_CLOSED_HALF_S = 0.021  # never shorter than one frame, so that every closure is seen
_CLOSURE_RAMP_S = 0.030
_CONTACT_STRENGTH = 0.9  # of the lip-teeth contact in f and v
_SHUT_FROM_S = 0.15  # shorter silences only weaken the mouth
_SHUT_AFTER_S, _SHUT_BEFORE_S = 0.12, 0.06  # the mouth closes after speech, opens before it


def face_vector(**actions: float) -> np.ndarray:
    """Face vector, float64 [52], of named actions; a name without its side (`mouthSmile`) sets both sides.

    Raises:
        ValueError: if a name is no ARKit action.
    """
    face = np.zeros(FACE_DIM)
    for name, value in actions.items():
        names = [name] if name in FACE_INDEX else [name + "Left", name + "Right"]
        for action in names:
            if action not in FACE_INDEX:
                raise ValueError(f"unknown face action {name!r}")
            face[FACE_INDEX[action]] = value
    return face


VISEMES: dict[str, np.ndarray] = {
    name: face_vector(**actions) for names, actions in _TARGETS.items() for name in names.split()
}
_OPENING_MASK = face_vector(**dict.fromkeys(_OPENING, 1.0))


def _smoothstep(x: np.ndarray) -> np.ndarray:
    """0 at x ≤ 0, 1 at x ≥ 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _window(times_s: np.ndarray, start_s: float, end_s: float, ramp_s: float) -> np.ndarray:
    """1 inside [start_s, end_s], falling to 0 within ramp_s on both sides; same shape as times_s."""
    outside_s = np.maximum(start_s - times_s, times_s - end_s)
    return _smoothstep(1 - outside_s / ramp_s)


def _split_diphthongs(phones: Sequence[Phone]) -> list[Phone]:
    split: list[Phone] = []
    for phone in phones:
        if phone.name in _DIPHTHONGS:
            first, second = _DIPHTHONGS[phone.name]
            nucleus_s = _NUCLEUS_SHARE * phone.duration_s
            split.append(Phone(first, phone.start_s, nucleus_s))
            split.append(Phone(second, phone.start_s + nucleus_s, phone.duration_s - nucleus_s))
        else:
            split.append(phone)
    return split


def _blend(targets: Sequence[Phone], times_s: np.ndarray) -> np.ndarray:
    """Dominance-weighted mean of the targets, float64 [n, 52]."""
    total = np.zeros((len(times_s), FACE_DIM))
    weight = np.full(len(times_s), 1e-9)
    for phone in targets:
        half_s = 0.3 * phone.duration_s
        centre_s = phone.start_s + 0.5 * phone.duration_s
        fade_s = _FADE_S + 0.2 * min(phone.duration_s, 0.2)
        strength = _STRENGTH[phone.name]
        if phone.name == SILENCE:
            if phone.duration_s < 0.12:
                strength *= 0.45
            # The edges count, not the middle: how long a silence will last cannot be heard at its start.
            half_s = max(half_s, 0.5 * phone.duration_s - 0.03)
        reach_s = half_s + 6 * fade_s
        first, last = np.searchsorted(times_s, [centre_s - reach_s, centre_s + reach_s])
        distance_s = np.maximum(np.abs(times_s[first:last] - centre_s) - half_s, 0)
        dominance = strength * np.exp(-((distance_s / fade_s) ** 1.5))
        total[first:last] += dominance[:, None] * VISEMES[phone.name]
        weight[first:last] += dominance
    return total / weight[:, None]


def _contact(phones: Sequence[Phone], times_s: np.ndarray, names: frozenset[str]) -> np.ndarray:
    """How far a hard contact of the named phones holds at each time, float64 [n] in 0 … 1."""
    contact = np.zeros_like(times_s)
    for phone in phones:
        if phone.name not in names:
            continue
        held_s = _CLOSED_SHARE.get(phone.name, 0.9) * phone.duration_s
        centre_s = phone.start_s + held_s / 2
        half_s = max(held_s / 2, _CLOSED_HALF_S)
        first, last = np.searchsorted(times_s, [centre_s - half_s - 0.1, centre_s + half_s + 0.1])
        window = _window(times_s[first:last], centre_s - half_s, centre_s + half_s, _CLOSURE_RAMP_S)
        contact[first:last] = np.maximum(contact[first:last], window)
    return contact


def _shut(phones: Sequence[Phone], times_s: np.ndarray) -> np.ndarray:
    """How far silence shuts the mouth at each time, float64 [n] in 0 … 1."""
    shut = np.zeros_like(times_s)
    end_s = times_s[-1] + 1
    for phone in phones:
        if phone.name != SILENCE or phone.duration_s < _SHUT_FROM_S:
            continue
        # A silence at either end of the track goes on beyond it.
        first_s = phone.start_s + _SHUT_AFTER_S if phone.start_s > 0 else -1.0
        last_s = phone.end_s - _SHUT_BEFORE_S if phone.end_s < end_s - 1 else end_s
        if first_s <= last_s:
            shut = np.maximum(shut, _window(times_s, first_s, last_s, _SHUT_AFTER_S / 2))
    return shut


def silence_track(phones: Sequence[Phone] | Sequence[tuple[str, float, float]], n_frames: int) -> np.ndarray:
    """How far pauses shut the mouth of `viseme_track`, float32 [n_frames] in 0 … 1."""
    covered = fill_silences(parse_phones(phones), n_frames / FPS)
    return _shut(covered, (np.arange(n_frames) + 0.5) / FPS).astype(np.float32)


def viseme_track(
    phones: Sequence[Phone] | Sequence[tuple[str, float, float]],
    n_frames: int,
    loudness: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Face track of an utterance. Frame i covers [i/25, (i+1)/25) s and is evaluated at its centre.

    Args:
        phones: (name, start_s, duration_s) with ARPABET names, stress digits ignored; time that no phone
            covers is silence.
        n_frames: length of the track, ≥ 1.
        loudness: scale of the opening of the mouth, float [n_frames], about 0.7 … 1.2; None is 1.

    Returns:
        face: float32 [n_frames, 52], actions in `FACE_ACTIONS` order, 0 … 1; eyes and brows stay 0.
        closure: float32 [n_frames], 1 where p, b or m hold the lips shut, 0 elsewhere.

    Raises:
        ValueError: on unknown phones, n_frames < 1 or a loudness of another length.
    """
    if n_frames < 1:
        raise ValueError(f"n_frames must be at least 1, got {n_frames}")
    if loudness is not None and np.shape(loudness) != (n_frames,):
        raise ValueError(f"loudness must have shape ({n_frames},), got {np.shape(loudness)}")
    times_s = (np.arange(n_frames) + 0.5) / FPS
    covered = fill_silences(parse_phones(phones), n_frames / FPS)
    face = _blend(_split_diphthongs(covered), times_s)
    if loudness is not None:
        face = face * (1 + _OPENING_MASK * (np.asarray(loudness)[:, None] - 1))
    face *= 1 - _shut(covered, times_s)[:, None]
    teeth = _CONTACT_STRENGTH * _contact(covered, times_s, LABIODENTALS)[:, None]
    face = face * (1 - teeth) + teeth * VISEMES["F"]
    closure = _contact(covered, times_s, BILABIALS)
    face = face * (1 - closure[:, None]) + closure[:, None] * VISEMES["P"]
    return np.clip(face, 0, 1).astype(np.float32), closure.astype(np.float32)


@functools.lru_cache(maxsize=1)
def lip_gap_gains() -> np.ndarray:
    """What each action at 1 adds to the gap between the inner lips, float64 [52], eye distances.

    Means over the middle quarter of the face mesh's lips, where the pairs of the aperture lie. The renderer's own
    identities open alike, to 0.1 %, and linearly, wherever lips part.
    """
    mesh = load_face_mesh()
    upper, lower = mesh.loops["lip_inner_upper"], mesh.loops["lip_inner_lower"]
    at = np.array([-0.09, 0.0, 0.09])

    def heights(loop: np.ndarray) -> np.ndarray:
        across = mesh.canonical[loop, 0]
        return np.stack([np.interp(at, across, action[loop, 1]) for action in mesh.actions]).mean(1)

    return heights(lower) - heights(upper)


def lip_gap(face: np.ndarray) -> np.ndarray:
    """Gap between the inner lips of face actions [n, 52]: float [n], eye distances, 0 where the lips touch."""
    return np.maximum(face @ lip_gap_gains(), 0)
