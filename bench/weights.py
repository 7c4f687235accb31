"""Where weights are, and which they are: source → local directory → digest of its contents."""

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError

# What a Stable Diffusion directory needs, whichever of the two weight formats it carries.
HUB_PATTERNS = ("*.json", "*.txt", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors")
CHECKPOINT_PATTERNS = ("*.json", "*.txt", "*.safetensors")  # a reward: one model in the top directory
HUB_IGNORED = ("*.fp16.*", "*.non_ema.*", "safety_checker/*", "*flax*", "*onnx*", "*openvino*")
DIGESTED = (".safetensors", ".bin", ".pt", ".pth", ".json", ".txt")
CONNECT_SECONDS = 5.0


def locate(
    source: str | None,
    path: Path | None,
    revision: str | None,
    setting: str,
    patterns: Sequence[str] = HUB_PATTERNS,
) -> Path:
    """The directory with the weights; a hub model is looked up in the cache, then downloaded.

    setting: the config key that a message tells the user to set, such as `model.path`. patterns: the files of
    a hub model that are wanted. Raises BenchError.
    """
    if path is not None:
        return _existing(path, setting)
    if source is None:
        raise BenchError(f"no weights named: give a directory with --set {setting}=DIRECTORY")
    kind, _, rest = source.partition(":")
    if kind == "path":
        return _existing(Path(rest), setting)
    if kind == "embedded":
        return _existing(Path(__file__).parent / "models" / "embedded" / "weights" / (rest or "sd"), setting)
    return _hub(rest, revision, setting, patterns)


def _existing(path: Path, setting: str) -> Path:
    directory = path.expanduser().resolve()
    if not directory.is_dir():
        raise BenchError(f"no weights at {directory}: not a directory. Set {setting} to one that holds them.")
    return directory


def _hub(repo: str, revision: str | None, setting: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot(cached: bool) -> Path:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(HUB_IGNORED),
                local_files_only=cached,
            )
        )

    # The cache knows a snapshot, not whether it is complete: other tools may have fetched its configs alone.
    sign = "*.safetensors" if any(p.endswith(".safetensors") for p in patterns) else "*.json"
    try:
        cached = snapshot(cached=True)
        if any(cached.rglob(sign)):
            return cached
    except LocalEntryNotFoundError:
        pass  # not in the cache: ask the hub
    _check_reachable(repo, revision, setting)
    return snapshot(cached=False)


def _check_reachable(repo: str, revision: str | None, setting: str) -> None:
    """One short request, so that a machine without network fails in seconds and not after long retries."""
    from huggingface_hub import constants, get_token

    def missing(why: str) -> BenchError:
        at = f" --revision {revision}" if revision else ""
        return BenchError(
            f"weights of {repo} are not on this machine ({why}).\n"
            f"  Get them where there is a network:  hf download {repo}{at}\n"
            f"  or point to a local directory:      --set {setting}=DIRECTORY"
        )

    if constants.HF_HUB_OFFLINE:
        raise missing("HF_HUB_OFFLINE is set")
    request = urllib.request.Request(f"{constants.ENDPOINT}/api/models/{repo}")
    if token := get_token():
        request.add_header("Authorization", f"Bearer {token}")
    try:
        urllib.request.urlopen(request, timeout=CONNECT_SECONDS).close()
    except urllib.error.HTTPError as error:
        raise missing(f"the hub answered {error.code} {error.reason}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise missing(f"not in the hub cache, and {constants.ENDPOINT} is unreachable: {reason}") from error


def digest(directory: Path) -> str:
    """Sixteen hex digits over names and contents of the weight and config files under `directory`.

    A hub cache names its blobs by their hash, so big files there are not read; elsewhere a file is read once
    and remembered by path, size and time of change.
    """
    total = hashlib.sha256()
    files = sorted(p for p in directory.rglob("*") if p.suffix in DIGESTED and p.is_file())
    if not files:
        raise BenchError(f"no weights in {directory}: no {', '.join(DIGESTED[:2])} file below it")
    remembered = _Remembered.load()
    for file in files:
        total.update(f"{file.relative_to(directory)}\0{remembered.file(file)}\n".encode())
    remembered.save()
    return total.hexdigest()[:16]


def text_digest(lines: tuple[str, ...]) -> str:
    """Sixteen hex digits over a list of texts."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class _Remembered:
    """File digests of earlier runs, in the user's cache directory."""

    SMALL = 64 * 2**20

    def __init__(self, path: Path, known: dict[str, str]) -> None:
        self.path, self.known, self.changed = path, known, False

    @classmethod
    def load(cls) -> "_Remembered":
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        path = cache / "reward-finetuning-bench" / "digests.json"
        try:
            return cls(path, json.loads(path.read_text()))
        except (OSError, ValueError):  # absent or damaged: it is only a cache
            return cls(path, {})

    def file(self, file: Path) -> str:
        blob = file.resolve()
        if blob.parent.name == "blobs" and len(blob.name) == 64:
            return blob.name
        stat = blob.stat()
        key = f"{blob}\0{stat.st_size}\0{stat.st_mtime_ns}"
        if key not in self.known:
            with blob.open("rb") as stream:
                value = hashlib.file_digest(stream, "sha256").hexdigest()
            if stat.st_size < self.SMALL:
                return value
            self.known[key], self.changed = value, True
        return self.known[key]

    def save(self) -> None:
        if not self.changed:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self.known))
        temporary.replace(self.path)
