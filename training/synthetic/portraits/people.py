"""Random people of more variety than the presenters: any hair on anyone, any colours, stronger faces."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from training.synthetic.body import Phenotype
from training.synthetic.identity import Identity, sample_identity

TEST_SEED = 900_000  # people from here on are for tests only
HAIR = ("afro01", "bob01", "bob02", "braid01", "long01", "ponytail01", "short01", "short02", "short03", "short04")
LASHES = ("eyelashes01", "eyelashes02", "eyelashes03", "eyelashes04")
BROWS = tuple(f"eyebrow{k:03d}" for k in range(1, 13))
EYES = tuple(f"{name}_eye" for name in "brownlight blue green grey bluegreen deepblue ice lightblue".split())
OUTFITS = (
    *(f"female_{name}" for name in ("casualsuit01", "casualsuit02", "elegantsuit01", "sportsuit01")),
    *(f"male_casualsuit0{k}" for k in range(1, 7)),
    "male_elegantsuit01",
    "male_worksuit01",
)
_COVERED_SHARE = 0.22  # of people wear something over the head


@dataclass(frozen=True)
class Person:
    """An identity and what comes on top of it, drawn by `generator`."""

    identity: Identity
    is_covered: bool

    def generator(self, use: str) -> np.random.Generator:
        """The random numbers of this person for one use."""
        return np.random.default_rng([self.identity.seed, zlib.crc32(use.encode())])


def sample_person(seed: int) -> Person:
    """The person of a seed. The same seed always gives the same one."""
    identity = _sample_look(seed)
    is_covered = bool(np.random.default_rng([seed, 0x91]).random() < _COVERED_SHARE)
    if is_covered:
        hair = identity.hair if identity.hair in ("short01", "short02", "short04") else None
        identity = replace(identity, hair=hair)
    return Person(identity, is_covered)


def _sample_look(seed: int) -> Identity:
    """`sample_identity`, made more various."""
    rng = np.random.default_rng([seed, 0x90])
    person = sample_identity(seed)
    body = person.phenotype
    phenotype = Phenotype(
        sex=float(np.clip(body.sex + rng.normal(0, 0.12), 0, 1)),
        age=float(np.clip(rng.choice([body.age, rng.uniform(0.67, 1.0)]), 0.67, 1.0)),
        weight=float(np.clip(rng.normal(0.5, 0.2), 0.05, 1.0)),
        african=body.african,
        asian=body.asian,
        caucasian=body.caucasian,
    )
    return replace(
        person,
        phenotype=phenotype,
        drawn=float(rng.uniform(0.7, 2.4)),
        sliders=_sliders(rng),
        rest=_resting_expression(rng),
        hair=_hair(rng, person),
        scalp=float(rng.uniform(0.2, 0.9)) if rng.random() < 0.25 else None,
        hair_colour=_colour(rng, person.hair_colour, 0.35),
        brow=str(rng.choice(BROWS)),
        brow_density=float(rng.uniform(0.2, 1.0)),
        brow_tilt=float(rng.uniform(-0.03, 0.09)),
        lash=str(rng.choice(LASHES)),
        lash_density=float(rng.uniform(0.1, 1.0)),
        eye=str(rng.choice(EYES)),
        eye_brightness=float(rng.uniform(0.35, 1.0)),
        tone=_tone(rng, person.tone),
        beard=float(rng.choice([person.beard, rng.uniform(0, 1)], p=(0.7, 0.3))),
        lips=float(rng.uniform(0, 1)) if rng.random() < 0.5 else person.lips,
        freckles=float(rng.uniform(0, 1)) if rng.random() < 0.2 else 0.0,
        outfit=str(rng.choice(OUTFITS)),
        cloth=_colour(rng, person.cloth, 0.7),
        trim=_colour(rng, person.trim, 0.7),
    )


def _rgb(values: np.ndarray) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in np.clip(values, 0.02, 0.97))
    return r, g, b


def _colour(rng: np.random.Generator, usual: tuple[float, float, float], share: float) -> tuple[float, float, float]:
    """Any colour, mostly muted, in a share of the draws; else the usual one."""
    if rng.random() > share:
        return usual
    return _rgb(rng.uniform(0.03, 0.95) ** rng.uniform(1, 2) * np.exp(rng.normal(0, rng.choice([0.08, 0.35]), 3)))


def _tone(rng: np.random.Generator, usual: tuple[float, float, float]) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in np.clip(np.array(usual) * rng.normal(1, 0.08) * rng.normal(1, 0.04, 3), 40, 245))
    return r, g, b


def _hair(rng: np.random.Generator, person: Identity) -> str | None:
    draw = rng.random()
    if draw < 0.09:
        return None
    return person.hair if draw < 0.35 else str(rng.choice(HAIR))


def _sliders(rng: np.random.Generator) -> tuple[tuple[str, float], ...]:
    """Features that drawings and paintings exaggerate."""
    spread = {
        "eyebrows-trans-up": (0.3, 0.4),
        "mouth-angles-up": (0.15, 0.3),
        "eye-scale-incr": (0.25, 0.45),
        "nose-scale-horiz-incr": (-0.05, 0.35),
        "nose-scale-vert-incr": (0.0, 0.3),
        "head-fat-incr": (0.0, 0.35),
        "chin-width-incr": (0.0, 0.3),
        "mouth-scale-horiz-incr": (0.0, 0.3),
    }
    return tuple((name, float(np.clip(rng.normal(m, s), -1, 1))) for name, (m, s) in spread.items())


def _resting_expression(rng: np.random.Generator) -> tuple[tuple[str, float], ...]:
    smile = float(np.clip(rng.normal(0.15, 0.25), 0, 1))
    return (
        ("browInnerUp", float(rng.uniform(0, 0.15))),
        ("browOuterUp", float(rng.uniform(0, 0.3))),
        ("mouthSmile", smile),
        ("cheekSquint", 0.4 * smile),
        ("eyeSquint", float(rng.uniform(0, 0.25))),
    )
