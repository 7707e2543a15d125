"""Build a person: one mesh in the rest pose with body, skin, hair and clothes, which depends only on the identity."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from training.synthetic.body import face, makehuman
from training.synthetic.body import shape as body
from training.synthetic.clothes import garments, outfit
from training.synthetic.clothes.garments import Layer
from training.synthetic.render import materials, shading

IDENTITY_SEED = 0x5EED
"""Seed of all identities: identity k is the same person in every picture, whatever the seed of the data set."""


@dataclass(frozen=True, slots=True)
class Person:
    """A dressed body in the rest pose.

    B is the number of bones, V of body vertices, N of mesh vertices, T of triangles and M of materials.

    Attributes:
        identity: Number of the identity.
        heads: float64 (B, 3), heads of the bones, m.
        body: float32 (V, 3), all vertices of the undressed body, m; they define the joints and the seat height.
        base: int64 (N,), index of the body vertex whose skinning weights each mesh vertex uses.
        rest: float32 (N, 3), vertices of the mesh, m.
        places: float32 (N, 3), the same vertices on the neutral body, m; patterns are anchored to them.
        keep: float32 (N,), negative where a piece of clothing or hair is cut away.
        triangles: int32 (T, 3), vertex indices.
        closed: uint8 (T,), 1 if the back of a triangle is never visible.
        material: int32 (T,), row of ``materials`` for each triangle.
        materials: float32 (M, 13), see `materials.row`.
        face: float32 (256, 256, 3), texture of the face, see `face.paint`.
    """

    identity: int
    heads: np.ndarray
    body: np.ndarray
    base: np.ndarray
    rest: np.ndarray
    places: np.ndarray
    keep: np.ndarray
    triangles: np.ndarray
    closed: np.ndarray
    material: np.ndarray
    materials: np.ndarray
    face: np.ndarray


@functools.lru_cache(maxsize=96)
def person(identity: int) -> Person:
    """Build the person with an identity; the result is the same in every process."""
    rng = np.random.default_rng([IDENTITY_SEED, identity])
    model = makehuman.load()
    build = body.sample_build(rng)
    rest = body.rest_vertices(model, build)
    skin = materials.sample_skin(rng, build.ancestry)
    hair = _hair_colour(rng, build)
    clothes, covered = outfit.sample(rng, rest, female=build.female > 0.5)
    hairdo = _hairdo(rng, build, rest, hair)
    looks = face.sample_looks(rng, build.female > 0.5, build.age > 0.35, hair / skin)
    layers = [_skin(rest, covered, skin), *_eyes(rng, rest), *clothes, *hairdo]
    return _join(identity, build, rest, layers, face.paint(looks, rng))


def _join(identity: int, build: body.Build, rest: np.ndarray, layers: list[Layer], picture: np.ndarray) -> Person:
    """Join layers into one mesh; ``picture`` is the texture of the face."""
    model = makehuman.load()
    del build
    starts = np.cumsum([0] + [len(layer.base) for layer in layers])
    base = np.concatenate([layer.base for layer in layers])
    counts = [len(layer.triangles) for layer in layers]
    return Person(
        identity=identity,
        heads=body.bone_heads(model, rest),
        body=rest,
        base=base,
        rest=np.concatenate([layer.rest for layer in layers]),
        places=model.template[base],
        keep=np.concatenate([layer.keep for layer in layers]),
        triangles=np.concatenate(
            [layer.triangles + start for layer, start in zip(layers, starts[:-1], strict=True)]
        ).astype(np.int32),
        closed=np.repeat([layer.closed for layer in layers], counts).astype(np.uint8),
        material=np.repeat(np.arange(len(layers)), counts).astype(np.int32),
        materials=np.stack([layer.material for layer in layers]),
        face=picture,
    )


def _skin(rest: np.ndarray, covered: np.ndarray, colour: np.ndarray) -> Layer:
    """Build the visible skin.

    The skin continues a little under the hems of the clothes, where it is moved inwards to stay below the cloth.

    Args:
        rest: float32 (V, 3), vertices of the body, m.
        covered: float32 (V,), distance along the skin to the nearest hem, m; negative where the skin is bare.
        colour: (3,), linear RGB.

    Returns:
        The layer.
    """
    model = makehuman.load()
    row = materials.row(shading.SKIN, colour, gloss=0.05)
    drawn_in = garments.piece(
        "body", rest, np.ones(len(rest), np.float32), -0.006 * (covered > 0.004), row, closed=True
    )
    hidden = (covered > 0.025)[drawn_in.base]
    triangles = drawn_in.triangles[~hidden[drawn_in.triangles].all(1)]
    whole = np.zeros_like(model.template)
    whole[drawn_in.base] = drawn_in.rest
    return garments.gather(whole, np.ones(len(rest), np.float32), drawn_in.base[triangles], row, closed=True)


def _eyes(rng: np.random.Generator, rest: np.ndarray) -> list[Layer]:
    """Build eyes with an iris of a random colour, and eyelashes."""
    model = makehuman.load()
    left = model.template[np.unique(model.triangles["helper-l-eye"])].mean(0)
    iris = materials.linear(materials.IRISES[rng.integers(len(materials.IRISES))])
    white = materials.row(shading.EYE, iris, np.array([left[0], left[1], 0.0]), gloss=0.5)
    dark = materials.row(shading.SOLID, np.full(3, 0.01))
    keep = np.ones(len(rest), np.float32)
    parts = [garments.piece(f"helper-{side}-eye", rest, keep, 0.0, white, closed=True) for side in "lr"]
    return parts + [garments.piece(f"helper-{side}-eyelashes-1", rest, keep, 0.0, dark) for side in "lr"]


def _hair_colour(rng: np.random.Generator, build: body.Build) -> np.ndarray:
    """Sample a hair colour that fits age and ancestry, (3,) linear RGB."""
    african, asian, _ = build.ancestry
    if build.age > 0.72 and rng.random() < 0.8:
        colour = materials.HAIR_COLOURS[-1]
    elif rng.random() < african + asian:
        colour = materials.HAIR_COLOURS[rng.integers(2)]
    else:
        colour = materials.HAIR_COLOURS[rng.integers(len(materials.HAIR_COLOURS) - 1)]
    return materials.linear(np.array(colour) * rng.uniform(0.8, 1.25))


def _hairdo(rng: np.random.Generator, build: body.Build, rest: np.ndarray, colour: np.ndarray) -> list[Layer]:
    """Sample a hairstyle (cropped, short, full, long, tied or bald) in a colour, and sometimes a cap over it."""
    female = build.female > 0.5
    styles = ("long", "full", "tied", "short") if female else ("short", "cropped", "full", "bald")
    style = str(rng.choice(styles, p=[0.42, 0.25, 0.22, 0.11] if female else [0.5, 0.25, 0.15, 0.1]))
    hair = materials.row(shading.HAIR, colour, gloss=0.12)
    p = makehuman.load().template
    thick = {"bald": 0.0, "cropped": 0.003, "short": 0.012, "tied": 0.006, "full": 0.022, "long": 0.012}[style]
    cut = garments.hair_cut(
        rng.uniform(-0.004, 0.016), 0.02 if style in ("full", "long") else 0.0, ears=style == "full"
    )
    rough = 1 + 0.3 * np.sin(p @ rng.normal(0, 60, (3, 4)) + rng.uniform(0, 6, 4)).mean(1)
    on_top = 0.5 + np.clip((p[:, 1] - 0.74) / 0.1, 0, 1)
    layers = []
    if style != "bald":
        layers.append(garments.piece("body", rest, cut, thick * rough * on_top * np.clip(cut / 0.02, 0.15, 1), hair))
    if style == "long":
        end = rng.uniform(0.36, 0.62)
        brow = np.maximum(np.abs(p[:, 0]) - 0.068, 0.03 - p[:, 2]) + 0.5 * np.maximum(p[:, 1] - 0.8, 0)
        keep = np.minimum(p[:, 1] - end, brow).astype(np.float32)
        layers.append(garments.piece("helper-hair", rest, keep, 0.0, hair))
    if rng.random() < 0.1:
        cap = materials.sample_cloth(rng, 0.02, 0.2)
        layers.append(garments.piece("body", rest, garments.hair_cut(0.012, -0.045) - 0.012, thick + 0.016, cap))
    return layers
