"""Who a presenter is: shape, skin, hair, clothes and room; the named gallery, and random people by seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from training.synthetic.body import Phenotype
from training.synthetic.room import KINDS

Rgb = tuple[float, float, float]

# slider families that are drawn at random for every identity, and how far
FACE_FAMILIES = ("head-", "forehead-", "nose-", "chin-", "mouth-", "cheek", "ear", "eye-height", "eye-push")
NOT_DRAWN = ("laugh", "age", "head-scale-depth", "neck")
SLIDER_STD, MOUTH_STD = 0.16, 0.10

LIGHT_SKINS = (
    "young_lightskinned_{}_diffuse",
    "young_lightskinned_{}_diffuse2",
    "young_lightskinned_{}_diffuse3",
    "middleage_lightskinned_{}_diffuse",
    "middleage_lightskinned_{}_diffuse2",
    "old_lightskinned_{}_diffuse",
    "old_lightskinned_{}_diffuse2",
)
DARK_SKINS = ("young_darkskinned_{}_diffuse", "middleage_darkskinned_{}_diffuse", "old_darkskinned_{}_diffuse")


@dataclass(frozen=True)
class Identity:
    """Everything that is the same in all frames of a presenter. Colours are sRGB: tones 0..255, others 0..1.

    sliders: (name, value) pairs on top of the random face of `seed`, values in [-1, 1]; drawn: how strongly the
    random face is drawn (0 the plain one); skin_mix: (index into LIGHT_SKINS or DARK_SKINS, weight);
    rest: facial actions (name, value) added to every frame, the presenter's resting expression.
    """

    name: str
    seed: int
    phenotype: Phenotype
    sliders: tuple[tuple[str, float], ...] = ()
    drawn: float = 1.0
    dark_skin: bool = False
    skin_mix: tuple[tuple[int, float], ...] = ((0, 1.0),)
    tone: Rgb = (224.0, 172.0, 146.0)
    freckles: float = 0.0
    beard: float = 0.0
    lips: float = 0.3
    hair: str | None = "short02"
    hair_colour: Rgb = (0.24, 0.16, 0.10)
    scalp: float | None = None
    brow: str = "eyebrow009"
    brow_density: float = 0.9
    brow_tilt: float = 0.055
    lash: str = "eyelashes01"
    lash_density: float = 0.55
    eye: str = "brownlight_eye"
    eye_brightness: float = 0.7
    outfit: str = "male_casualsuit04"
    cloth: Rgb = (0.3, 0.4, 0.5)
    trim: Rgb = (0.26, 0.35, 0.44)
    room: str = "shelves"
    wall: int = 0
    rest: tuple[tuple[str, float], ...] = field(default=(
            ("browInnerUp", 0.04),
            ("browOuterUp", 0.16),
            ("mouthSmile", 0.30),
            ("cheekSquint", 0.12),
            ("eyeSquint", 0.04),
        )
    )
    description: str = ""

    def __post_init__(self) -> None:
        if self.room not in KINDS:
            raise ValueError(f"no room {self.room!r}, choose from {', '.join(KINDS)}")

    @property
    def is_female(self) -> bool:
        return self.phenotype.sex > 0.5

    def slider_values(self, available: tuple[str, ...]) -> dict[str, float]:
        """Values of all sliders of this identity: the random face of its seed, then its own."""
        rng = np.random.default_rng(self.seed + 11)
        values: dict[str, float] = {}
        for name in available:
            std = MOUTH_STD if name.startswith("mouth") else SLIDER_STD
            draw = float(np.clip(rng.normal() * std, -0.35, 0.35))
            if name.startswith(FACE_FAMILIES) and not any(word in name for word in NOT_DRAWN):
                values[name] = draw * self.drawn
        return values | dict(self.sliders)


_FRIENDLY = (("eyebrows-trans-up", 0.42), ("mouth-angles-up", 0.28))
_FEMALE_FACE = (*_FRIENDLY, ("eye-scale-incr", 0.28), ("nose-scale-horiz-incr", -0.25))
_MALE_FACE = (*_FRIENDLY, ("eye-scale-incr", 0.15), ("nose-scale-horiz-incr", -0.1))

GALLERY: dict[str, Identity] = {
    identity.name: identity
    for identity in (
        Identity(
            name="maya",
            description="A woman around thirty with long brown hair, in a teal T-shirt.",
            seed=21,
            phenotype=Phenotype(0.92, 0.70, 0.45, 0.1, 0.2, 0.7),
            sliders=_FEMALE_FACE,
            skin_mix=((0, 0.6), (2, 0.4)),
            tone=(226, 172, 146),
            hair="long01",
            hair_colour=(0.23, 0.14, 0.09),
            brow="eyebrow001",
            lash="eyelashes02",
            outfit="female_casualsuit01",
            cloth=(0.16, 0.44, 0.45),
            trim=(0.14, 0.38, 0.39),
            room="window",
            wall=2,
        ),
        Identity(
            name="tom",
            description="A man in his thirties with short brown hair and stubble, in a blue shirt.",
            seed=12,
            phenotype=Phenotype(0.08, 0.72, 0.5, 0.0, 0.1, 0.9),
            sliders=_MALE_FACE,
            skin_mix=((3, 0.7), (0, 0.3)),
            tone=(226, 174, 150),
            beard=0.45,
            lips=0.0,
            hair="short02",
            hair_colour=(0.27, 0.18, 0.11),
            brow="eyebrow012",
            brow_density=0.85,
            eye="blue_eye",
            eye_brightness=0.9,
            outfit="male_casualsuit03",
            cloth=(0.36, 0.46, 0.60),
            trim=(0.42, 0.52, 0.65),
            room="shelves",
            wall=1,
        ),
        Identity(
            name="lin",
            description="A young woman with a black bob, in a plum blouse.",
            seed=14,
            phenotype=Phenotype(0.9, 0.69, 0.42, 0.0, 0.92, 0.08),
            sliders=(*_FEMALE_FACE, ("chin-width-incr", -0.5), ("head-fat-incr", -0.45), ("chin-jaw-drop-incr", -0.2)),
            skin_mix=((0, 0.7), (2, 0.3)),
            tone=(226, 176, 148),
            hair="bob02",
            hair_colour=(0.10, 0.075, 0.065),
            brow="eyebrow001",
            brow_density=0.8,
            lash="eyelashes02",
            eye_brightness=0.5,
            outfit="female_elegantsuit01",
            cloth=(0.48, 0.30, 0.40),
            trim=(0.52, 0.34, 0.44),
            room="studio",
        ),
        Identity(
            name="kofi",
            description="A young man with short black hair, in a mustard T-shirt.",
            seed=33,
            phenotype=Phenotype(0.1, 0.70, 0.5, 0.92, 0.0, 0.08),
            sliders=_MALE_FACE,
            dark_skin=True,
            skin_mix=((0, 1.0),),
            tone=(128, 88, 66),
            beard=0.2,
            lips=0.3,
            hair="short04",
            hair_colour=(0.075, 0.06, 0.055),
            brow="eyebrow012",
            eye_brightness=0.5,
            outfit="male_casualsuit04",
            cloth=(0.80, 0.60, 0.26),
            trim=(0.70, 0.52, 0.22),
            room="plants",
            wall=4,
        ),
        Identity(
            name="ingrid",
            description="A woman in her sixties with a white bob, in a violet blouse.",
            seed=41,
            phenotype=Phenotype(0.9, 0.93, 0.52, 0.05, 0.1, 0.85),
            sliders=_FEMALE_FACE,
            skin_mix=((5, 0.6), (3, 0.4)),
            tone=(224, 180, 160),
            hair="bob02",
            hair_colour=(0.66, 0.64, 0.62),
            brow="eyebrow011",
            brow_density=0.7,
            eye="grey_eye",
            eye_brightness=0.95,
            outfit="female_elegantsuit01",
            cloth=(0.42, 0.34, 0.52),
            trim=(0.46, 0.38, 0.56),
            room="sofa",
            wall=0,
        ),
        Identity(
            name="omar",
            description="A man around fifty with short greying hair, in a dark suit.",
            seed=63,
            phenotype=Phenotype(0.08, 0.86, 0.52, 0.2, 0.15, 0.65),
            sliders=_MALE_FACE,
            skin_mix=((3, 0.6), (4, 0.4)),
            tone=(196, 142, 112),
            beard=0.4,
            lips=0.0,
            hair="short04",
            hair_colour=(0.26, 0.25, 0.25),
            brow="eyebrow012",
            brow_tilt=0.02,
            eye_brightness=0.55,
            outfit="male_elegantsuit01",
            cloth=(0.16, 0.20, 0.29),
            trim=(0.9, 0.9, 0.9),
            room="office",
            wall=1,
        ),
    )
}


def renamed(identity: Identity, **changes) -> Identity:
    """A variation of an identity."""
    return replace(identity, **changes)
