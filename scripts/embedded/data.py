"""Turn the fetched packages into one array of trimmed 64×64 emoji with names: `emoji.npz` + `emoji.json`.

Every emoji of three vendors (noto, twemoji, fluent) is cut to its visible part, padded to a square and
resized to 56×56 inside 64×64, as premultiplied RGBA (so resizing and composing leave no dark fringes).
"""

import io
import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.embedded.fetch import CLDR, FLUENT, NOTO, TWEMOJI, tarball

SIZE = 64
BORDER = 4
_KEPT_OUT = frozenset({"Component"})


@dataclass(frozen=True)
class Picture:
    """One emoji of one vendor: code point(s), CLDR name, CLDR keywords, style = vendor."""

    code: str
    name: str
    keywords: tuple[str, ...]
    style: str


def trimmed(image: Image.Image) -> np.ndarray | None:
    """Premultiplied RGBA, uint8 [64, 64, 4], of the visible part of `image`; None if nothing is visible."""
    pixels = np.asarray(image.convert("RGBA")).astype(np.float32) / 255
    pixels[..., :3] *= pixels[..., 3:]
    ys, xs = np.where(pixels[..., 3] > 0.03)
    if len(ys) == 0:
        return None
    pixels = pixels[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    height, width = pixels.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 4), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    inner = SIZE - 2 * BORDER
    how = Image.Resampling.LANCZOS if side > inner else Image.Resampling.BICUBIC
    planes = [np.asarray(Image.fromarray(square[..., c]).resize((inner, inner), how)) for c in range(4)]
    out = np.zeros((SIZE, SIZE, 4), np.float32)
    out[BORDER:-BORDER, BORDER:-BORDER] = np.clip(np.stack(planes, -1), 0, 1)
    return (out * 255 + 0.5).astype(np.uint8)


def _members(path: Path, folder: str) -> dict[str, bytes]:
    """Contents of the files below `folder` of a tarball, by name without `folder`; read in one pass."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.startswith(folder) else None
            if stream is not None:
                found[member.name.removeprefix(folder)] = stream.read()
    if not found:
        raise ValueError(f"{path}: nothing below {folder}")
    return found


def _annotations(work: Path) -> dict[str, dict]:
    """CLDR's English annotations: emoji → {"default": keywords, "tts": [name]}."""
    raw = _members(tarball(work, CLDR), "package/annotations/en/")["annotations.json"]
    return json.loads(raw)["annotations"]["annotations"]


def _name_and_keywords(entry: dict, annotations: dict[str, dict]) -> tuple[str, tuple[str, ...]]:
    """Lower-case CLDR name and keywords of an emoji-datasource entry; its own name where CLDR has none."""
    text = "".join(chr(int(code, 16)) for code in entry["unified"].split("-"))
    for key in (text, text.replace("\ufe0f", "")):
        if key in annotations:
            found = annotations[key]
            name = found["tts"][0].lower().translate({0x201C: None, 0x201D: None, 0x2019: "'"})
            return name, tuple(word.lower() for word in found["default"])
    return (entry["name"] or entry["short_name"].replace("_", " ")).lower(), ()


def build_data(work: Path) -> Path:
    """Read `work/npm/*.tgz`, write `work/emoji.npz` and `work/emoji.json`; returns the .npz path."""
    noto = _members(tarball(work, NOTO), "package/img/google/64/")
    twemoji = _members(tarball(work, TWEMOJI), "package/img/twitter/64/")
    fluent = _members(tarball(work, FLUENT), "package/assets/")
    index = _members(tarball(work, NOTO), "package/emoji.json")[""]
    annotations = _annotations(work)
    pictures: list[np.ndarray] = []
    rows: list[Picture] = []
    for entry in sorted(json.loads(index), key=lambda e: e["sort_order"]):
        if entry["category"] in _KEPT_OUT or not (entry["has_img_google"] and entry["has_img_twitter"]):
            continue
        name, keywords = _name_and_keywords(entry, annotations)
        code = entry["unified"].lower()
        codes = (code, (entry["non_qualified"] or code).lower(), code.replace("-fe0f", ""))
        sources = {
            "noto": noto.get(entry["image"]),
            "twemoji": twemoji.get(entry["image"]),
            "fluent": next((fluent[f"{c}.webp"] for c in codes if f"{c}.webp" in fluent), None),
        }
        for style, raw in sources.items():
            picture = trimmed(Image.open(io.BytesIO(raw))) if raw is not None else None
            if picture is not None:
                pictures.append(picture)
                rows.append(Picture(code, name, keywords, style))
    target = work / "emoji.npz"
    with (work / "emoji.npz.part").open("wb") as stream:
        np.savez_compressed(stream, pictures=np.stack(pictures))
    (work / "emoji.json").write_text(json.dumps([asdict(row) for row in rows]))
    (work / "emoji.npz.part").replace(target)
    return target


def load_data(work: Path) -> tuple[np.ndarray, list[Picture]]:
    """Pictures uint8 [N, 64, 64, 4] (premultiplied RGBA) and their descriptions."""
    with np.load(work / "emoji.npz") as archive:
        pictures = archive["pictures"]
    rows = json.loads((work / "emoji.json").read_text())
    return pictures, [Picture(r["code"], r["name"], tuple(r["keywords"]), r["style"]) for r in rows]
