"""Who a presenter is: shape, skin, hair, clothes and room; the named gallery, and random people by seed."""

from __future__ import annotations

from dataclasses import dataclass

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
    rest: tuple[tuple[str, float], ...] = (
        ("browInnerUp", 0.04),
        ("browOuterUp", 0.16),
        ("mouthSmile", 0.30),
        ("cheekSquint", 0.12),
        ("eyeSquint", 0.04),
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
        Identity(
            name="amara",
            description="A young woman with an afro, in a coral T-shirt.",
            seed=52,
            phenotype=Phenotype(0.92, 0.70, 0.48, 0.9, 0.02, 0.08),
            sliders=(*_FEMALE_FACE, ("chin-width-incr", -0.3)),
            dark_skin=True,
            skin_mix=((0, 0.9), (1, 0.1)),
            tone=(140, 97, 74),
            lips=0.35,
            hair="afro01",
            hair_colour=(0.07, 0.055, 0.05),
            brow="eyebrow001",
            lash="eyelashes02",
            eye_brightness=0.5,
            outfit="female_casualsuit02",
            cloth=(0.70, 0.30, 0.26),
            trim=(0.6, 0.26, 0.22),
            room="plants",
            wall=3,
        ),
        Identity(
            name="sofia",
            description="A young woman with an auburn bob and freckles, in a grey-blue T-shirt.",
            seed=77,
            phenotype=Phenotype(0.9, 0.68, 0.44, 0.02, 0.05, 0.93),
            sliders=_FEMALE_FACE,
            skin_mix=((1, 0.7), (0, 0.3)),
            tone=(230, 182, 160),
            freckles=0.9,
            lips=0.25,
            hair="bob01",
            hair_colour=(0.50, 0.24, 0.12),
            brow="eyebrow001",
            lash="eyelashes02",
            eye="green_eye",
            eye_brightness=0.9,
            outfit="female_casualsuit01",
            cloth=(0.30, 0.34, 0.44),
            trim=(0.26, 0.30, 0.40),
            room="shelves",
            wall=2,
        ),
        Identity(
            name="dev",
            description="A man in his thirties with short black hair and a beard, in a pale shirt.",
            seed=88,
            phenotype=Phenotype(0.08, 0.74, 0.5, 0.15, 0.35, 0.5),
            sliders=_MALE_FACE,
            skin_mix=((3, 0.6), (0, 0.4)),
            tone=(182, 132, 102),
            beard=0.6,
            lips=0.1,
            hair="short04",
            hair_colour=(0.07, 0.055, 0.05),
            brow="eyebrow012",
            eye_brightness=0.5,
            outfit="male_casualsuit03",
            cloth=(0.78, 0.78, 0.76),
            trim=(0.72, 0.72, 0.70),
            room="office",
            wall=0,
        ),
        Identity(
            name="hiro",
            description="A man in his sixties with short grey hair, in a dark suit.",
            seed=95,
            phenotype=Phenotype(0.08, 0.90, 0.46, 0.0, 0.95, 0.05),
            sliders=_MALE_FACE,
            skin_mix=((4, 0.5), (5, 0.2), (0, 0.3)),
            tone=(216, 168, 138),
            lips=0.05,
            hair="short04",
            hair_colour=(0.45, 0.44, 0.43),
            brow="eyebrow010",
            eye_brightness=0.5,
            outfit="male_elegantsuit01",
            cloth=(0.24, 0.22, 0.21),
            trim=(0.9, 0.9, 0.9),
            room="studio",
            wall=1,
        ),
    )
}


_FEMALE_HAIR = (("long01", 0.45), ("bob02", 0.30), ("ponytail01", 0.15), ("short01", 0.10))
_MALE_HAIR = (("short02", 0.40), ("short04", 0.40), ("short01", 0.20))
_FEMALE_OUTFITS = ("female_casualsuit01", "female_casualsuit02", "female_elegantsuit01")
_MALE_OUTFITS = (
    "male_casualsuit02",
    "male_casualsuit03",
    "male_casualsuit04",
    "male_casualsuit06",
    "male_elegantsuit01",
)
_BROWS = ("eyebrow001", "eyebrow009", "eyebrow010", "eyebrow011", "eyebrow012")
_DARK_HAIR: tuple[Rgb, ...] = ((0.075, 0.06, 0.055), (0.10, 0.075, 0.065), (0.14, 0.095, 0.07))
_ANY_HAIR: tuple[Rgb, ...] = (
    *_DARK_HAIR, (0.23, 0.14, 0.09), (0.30, 0.19, 0.12), (0.42, 0.29, 0.17), (0.60, 0.46, 0.28), (0.36, 0.18, 0.10)
)  # fmt: skip
_GREY_HAIR: tuple[Rgb, ...] = ((0.34, 0.33, 0.33), (0.50, 0.49, 0.48), (0.66, 0.64, 0.62))
_CLOTHS: tuple[Rgb, ...] = (
    (0.16, 0.44, 0.45), (0.36, 0.46, 0.60), (0.48, 0.30, 0.40), (0.80, 0.60, 0.26), (0.42, 0.34, 0.52),
    (0.20, 0.30, 0.46), (0.62, 0.28, 0.26), (0.34, 0.46, 0.34), (0.78, 0.76, 0.72), (0.30, 0.32, 0.35),
    (0.72, 0.50, 0.44), (0.52, 0.62, 0.68),
)  # fmt: skip
_SUITS: tuple[Rgb, ...] = ((0.16, 0.20, 0.29), (0.22, 0.22, 0.24), (0.28, 0.24, 0.21))
_LIGHT_EYES = ("blue_eye", "green_eye", "grey_eye", "bluegreen_eye")
# cheek tones between which an identity's own is drawn, by main ancestry
_TONES = {
    "african": ((96.0, 64.0, 48.0), (158.0, 112.0, 84.0)),
    "asian": ((206.0, 156.0, 124.0), (230.0, 184.0, 158.0)),
    "caucasian": ((206.0, 154.0, 126.0), (234.0, 186.0, 166.0)),
}
_ANCESTRIES = ("african", "asian", "caucasian")


def sample_identity(seed: int) -> Identity:
    """A random person. The same seed always gives the same one."""
    rng = np.random.default_rng([seed, 0x1D])
    is_female = bool(rng.random() < 0.5)
    ancestry = _ANCESTRIES[int(rng.choice(3, p=(0.32, 0.28, 0.40)))]
    mixture = 0.78 * np.array([name == ancestry for name in _ANCESTRIES]) + 0.22 * rng.dirichlet((1, 1, 1))
    age = float(np.clip(2 / 3 + 0.02 + rng.beta(1.1, 2.2) * 0.32, 0.67, 0.98))
    phenotype = Phenotype(
        float(rng.uniform(0.86, 0.95) if is_female else rng.uniform(0.05, 0.14)),
        age,
        float(rng.uniform(0.38, 0.60)),
        *(float(v) for v in mixture),
    )
    is_grey = rng.random() < np.clip((age - 0.80) * 8, 0, 0.95)
    colours = _GREY_HAIR if is_grey else (_ANY_HAIR if ancestry == "caucasian" else _DARK_HAIR)
    styles = _FEMALE_HAIR if is_female else _MALE_HAIR
    hair = styles[int(rng.choice(len(styles), p=[share for _, share in styles]))][0]
    low, high = (np.array(tone) for tone in _TONES[ancestry])
    has_light_eyes = ancestry == "caucasian" and rng.random() < 0.5
    is_dark = ancestry == "african"
    beard = 0.0 if is_female else float(rng.choice([0.0, 0.0, 0.2, 0.4, 0.55]))
    first = int(rng.integers(0, 2)) if is_dark else int(rng.integers(0, 3))
    older = (2 if is_dark else 5) if age > 0.88 else (1 if is_dark else 3)
    share = float(np.clip((age - 0.70) * 3.5, 0.0, 0.75))
    outfits = _FEMALE_OUTFITS if is_female else _MALE_OUTFITS
    outfit = str(rng.choice(outfits))
    palette = _SUITS if outfit == "male_elegantsuit01" else _CLOTHS
    cloth = np.array(palette[int(rng.integers(len(palette)))])
    return Identity(
        name=f"person-{seed}",
        seed=seed,
        phenotype=phenotype,
        sliders=_random_sliders(rng, is_female),
        dark_skin=is_dark,
        skin_mix=((first, 1 - share), (older, share)),
        tone=_rgb(low + (high - low) * rng.random() + rng.normal(0, 1, 3)),
        freckles=0.8 if ancestry == "caucasian" and rng.random() < 0.15 else 0.0,
        beard=beard,
        lips=0.3 if is_female or is_dark else 0.0,
        hair=hair,
        hair_colour=colours[int(rng.integers(len(colours)))],
        brow=str(rng.choice(_BROWS)),
        brow_density=float(rng.uniform(0.75, 0.95)),
        brow_tilt=float(rng.uniform(0.035, 0.07)),
        lash="eyelashes02" if is_female else "eyelashes01",
        eye=str(rng.choice(_LIGHT_EYES)) if has_light_eyes else "brownlight_eye",
        eye_brightness=0.92 if has_light_eyes else float(rng.uniform(0.45, 0.75)),
        outfit=outfit,
        cloth=_rgb(cloth),
        trim=_rgb(np.clip(cloth * rng.uniform(0.85, 1.12), 0, 1)),
        room=str(rng.choice(list(KINDS))),
        wall=int(rng.integers(0, 8)),
        description=f"A {'woman' if is_female else 'man'} drawn at random.",
    )


def _random_sliders(rng: np.random.Generator, is_female: bool) -> tuple[tuple[str, float], ...]:
    """The friendly sliders of the gallery, each a little different."""
    base = _FEMALE_FACE if is_female else _MALE_FACE
    return tuple((name, float(value + rng.normal(0, 0.08))) for name, value in base)


def _rgb(values: np.ndarray) -> Rgb:
    r, g, b = (float(v) for v in values)
    return r, g, b
