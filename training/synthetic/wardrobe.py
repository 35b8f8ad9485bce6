"""From an identity to fitted pieces and painted surfaces: with the MakeHuman assets, or bare without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.synthetic import textures
from training.synthetic.body import LOWER_TEETH, TONGUE, UPPER_TEETH, BodyModel
from training.synthetic.dress import Piece, base_piece, load_proxy
from training.synthetic.identity import DARK_SKINS, LIGHT_SKINS, Identity

TEES = ("female_casualsuit01", "female_casualsuit02", "male_casualsuit02", "male_casualsuit04", "male_casualsuit06")
SHIRTS = ("female_elegantsuit01", "male_casualsuit03")
SUITS = ("male_elegantsuit01",)
OUTFITS = (*TEES, *SHIRTS, *SUITS)
# hair that leaves the scalp in sight is helped by paint under the cards
SCALP_PAINT = {"short01": 0.6, "short02": 0.85, "short03": 0.5, "short04": 0.85, "ponytail01": 0.8}
FRINGE_M = {"bob01": -0.003, "bob02": -0.003, "short03": 0.004}
IRIS_COLOURS = {
    "brownlight_eye": (0.40, 0.26, 0.15),
    "blue_eye": (0.36, 0.48, 0.60),
    "green_eye": (0.38, 0.46, 0.32),
    "grey_eye": (0.46, 0.50, 0.52),
    "bluegreen_eye": (0.36, 0.50, 0.50),
}
LASH_COLOUR = (0.05, 0.035, 0.03)
FOLD_STRENGTH = 0.30

Pictures = dict[str, list[tuple[np.ndarray, np.ndarray | None]]]  # kind -> (albedo, normal map) a part


def lower_teeth(base: np.ndarray) -> np.ndarray:
    """Base vertices with the teeth and tongue where speech shows them: MakeHuman keeps them too high."""
    out = base.copy()
    out[LOWER_TEETH, 2] -= 0.0032
    out[UPPER_TEETH] += (0, -0.0005, -0.0048)
    out[TONGUE] += (0, 0.006, -0.0065)
    return out


def adjust_fitted(identity: Identity) -> Callable[[str, np.ndarray], np.ndarray]:
    """Corrects fitted rest vertices: MakeHuman's brows frown at rest, so their inner ends go up."""

    def adjust(kind: str, rest: np.ndarray) -> np.ndarray:
        if kind != "brow":
            return rest
        side = np.abs(rest[:, 0])
        rest = rest.copy()
        rest[:, 2] += identity.brow_tilt * ((side.min() + side.max()) / 2 - side) + 0.001
        rest[:, 1] -= 0.0004
        return rest

    return adjust


def dressed_pieces(body: BodyModel, identity: Identity, assets: Path) -> dict[str, list[Piece]]:
    """Pieces by kind, clothes first so that what they hide of the skin is left out."""

    def proxy(folder: str, name: str) -> Piece:
        return load_proxy(assets / folder / name, name, len(body.mean))

    cloth = proxy("clothes", identity.outfit)
    pieces = {
        "skin": [base_piece(body, ("body",), cloth.hidden)],
        "eyes": [base_piece(body, ("helper-l-eye", "helper-r-eye"))],
        "cloth": [cloth],
        "brow": [proxy("eyebrows", identity.brow)],
        "lash": [proxy("eyelashes", identity.lash)],
        "teeth": [proxy("teeth", "teeth_base")],
        "tongue": [proxy("tongue", "tongue01")],
    }
    if identity.hair:
        pieces["hair"] = [proxy("hair", identity.hair)]
    return pieces


def dressed_pictures(body: BodyModel, identity: Identity, assets: Path) -> Pictures:
    """Painted textures of `dressed_pieces`. Raises FileNotFoundError where an asset is missing."""
    sex = "female" if identity.is_female else "male"
    names = DARK_SKINS if identity.dark_skin else LIGHT_SKINS
    mix = tuple((names[i].format(sex), weight) for i, weight in identity.skin_mix)
    skins = [textures.read_picture(assets / "skins" / "textures" / f"{name}.png") for name, _ in mix]
    hair = np.array(identity.hair_colour)
    brow = textures.read_picture(assets / "eyebrows" / identity.brow / f"{identity.brow}.png")
    lash = textures.read_picture(assets / "eyelashes" / identity.lash / f"{identity.lash}.png")
    eye = textures.read_picture(assets / "eyes" / "materials" / f"{identity.eye}.png")
    pictures: Pictures = {
        "skin": [(textures.paint_skin(body, skin_paint(identity, mix), skins), None)],
        "eyes": [(textures.paint_eye(eye, 0.6, identity.eye_brightness), None)],
        "cloth": [_cloth_pictures(identity, assets)],
        "brow": [(textures.paint_cards(brow, tuple(hair * 0.75), identity.brow_density), None)],
        "lash": [(textures.paint_cards(lash, LASH_COLOUR, identity.lash_density), None)],
        "teeth": [(textures.bleed(textures.read_picture(assets / "teeth" / "materials" / "teeth.png")), None)],
        "tongue": [(textures.read_picture(assets / "tongue" / "tongue01" / "tongue01_diffuse.png"), None)],
    }
    if identity.hair:
        file = "afro_diffuse.png" if identity.hair == "afro01" else f"{identity.hair}_diffuse.png"
        cards = textures.read_picture(assets / "hair" / identity.hair / file)
        pictures["hair"] = [(textures.paint_hair(cards, identity.hair_colour), None)]
    return pictures


def smooth_chest(body: BodyModel, base: np.ndarray, radius_m: float = 0.022) -> np.ndarray:
    """Base vertices with the chest's depth blurred to what a shirt would show of it."""
    x, y, z = body.neutral.T
    height = np.clip((0.52 - z) / 0.03, 0, 1) * np.clip((z - 0.20) / 0.05, 0, 1)
    chest = height * np.clip((0.17 - np.abs(x)) / 0.03, 0, 1) * np.clip((0.01 - y) / 0.03, 0, 1)
    quads = body.faces["body"][:, :4]
    diagonals = base[quads[:, 2]] - base[quads[:, 0]], base[quads[:, 3]] - base[quads[:, 1]]
    area = np.zeros(len(base))
    np.add.at(area, quads, np.linalg.norm(np.cross(*diagonals), axis=1)[:, None])
    rows = np.nonzero((chest > 0) & (area > 0))[0]
    across = base[rows][:, [0, 2]]
    near = np.exp(-((across[:, None] - across[None]) ** 2).sum(2) / (2 * radius_m**2)) * area[rows]
    blurred = near @ base[rows, 1] / near.sum(1)
    out = base.copy()
    out[rows, 1] += chest[rows] * (blurred - base[rows, 1])
    return out


def bare_pieces(body: BodyModel) -> dict[str, list[Piece]]:
    """Pieces of the base mesh alone: what is shown without assets."""
    return {
        "skin": [base_piece(body, ("body",))],
        "eyes": [base_piece(body, ("helper-l-eye", "helper-r-eye"))],
        "teeth": [base_piece(body, ("helper-upper-teeth", "helper-lower-teeth"))],
        "tongue": [base_piece(body, ("helper-tongue",))],
    }


def bare_pictures(body: BodyModel, identity: Identity) -> Pictures:
    """Painted textures of `bare_pieces`: hair, brows and a shirt are paint on the skin."""
    paint = replace(skin_paint(identity, ()), scalp=0.93, brows=identity.brow_density, shirt=identity.cloth)
    iris = np.array(IRIS_COLOURS.get(identity.eye, IRIS_COLOURS["brownlight_eye"]))
    return {
        "skin": [(textures.paint_skin(body, paint, ()), None)],
        "eyes": [(textures.draw_eye(tuple(iris * (0.5 + 0.5 * identity.eye_brightness))), None)],
        "teeth": [(textures.plain_picture((0.90, 0.87, 0.81)), None)],
        "tongue": [(textures.plain_picture((0.80, 0.52, 0.50)), None)],
    }


def skin_paint(identity: Identity, mix: tuple[tuple[str, float], ...]) -> textures.SkinPaint:
    """What is painted on the skin of an identity; `mix` is empty for the bare look."""
    scalp = SCALP_PAINT.get(identity.hair or "", 0.0) if identity.scalp is None else identity.scalp
    lip = np.array(identity.tone) * ([0.98, 0.66, 0.66] if identity.dark_skin else [0.88, 0.54, 0.54])
    return textures.SkinPaint(
        seed=identity.seed,
        tone=identity.tone,
        mix=mix,
        hair=identity.hair_colour,
        beard=identity.beard,
        scalp=scalp,
        lips=identity.lips,
        lip_colour=tuple(lip),
        freckles=identity.freckles,
    )


def _cloth_pictures(identity: Identity, assets: Path) -> tuple[np.ndarray, np.ndarray]:
    name = identity.outfit
    folder = assets / "clothes" / name
    picture = textures.read_picture(folder / f"{name}_diffuse.png")
    if name in SHIRTS:
        rgb = textures.paint_shirt(picture, identity.cloth, identity.trim)
    elif name in SUITS:
        rgb = textures.paint_suit(picture, identity.cloth)
    else:
        rgb = textures.paint_tee(picture, identity.cloth, identity.trim)

    def optional(kind: str) -> np.ndarray | None:
        path = folder / f"{name}_{kind}.png"
        return textures.read_picture(path) if path.is_file() else None

    albedo = textures.finish_cloth(rgb, picture, optional("ao"))
    normal = textures.fold_normals(optional("normal"), FOLD_STRENGTH, smoothed=name in TEES)
    return albedo, normal
