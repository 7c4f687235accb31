"""A folder to a repository on the Hugging Face hub."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.base.errors import BenchError
from bench.data.hub import CONNECT_SECONDS, OFFLINE, PLAIN, REFUSED

LOGIN = "hf auth login, with a token of https://huggingface.co/settings/tokens that may write"


def check(repository: str, overwrite: bool) -> None:
    """Whether a push can succeed: a few short requests, before anything is made for it.

    Raises BenchError for a name that is none, without network or token, for a token that may not write there,
    and, without overwrite, for a repository that exists.
    """
    from huggingface_hub import constants, get_token

    if PLAIN.fullmatch(repository) is None:
        raise BenchError(f"--push {repository}: not a repository's name: ORG/NAME, such as me/my-lora")
    if constants.HF_HUB_OFFLINE:
        names = [name for name in OFFLINE if os.environ.get(name)]
        raise BenchError(
            f"--push: {names[0] if names else OFFLINE[0]} is set: unset it where there is a network"
        )
    token = get_token()
    if token is None:
        raise BenchError(f"--push: there is no token of the hub on this machine: {LOGIN}")
    who = _asked("whoami-v2", token)
    if who is None:
        raise BenchError(f"--push: {constants.ENDPOINT} does not know its own users' page: no hub?")
    own = [who["name"], *(one["name"] for one in who.get("orgs", ()))]
    owner = repository.partition("/")[0]
    if owner not in own:
        raise BenchError(
            f"--push {repository}: the token is of {who['name']}, who writes for: {', '.join(own)}"
        )
    if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise BenchError(f"--push: the token on this machine may only read: {LOGIN}")
    if not overwrite and _asked(f"models/{repository}", token) is not None:
        raise BenchError(
            f"--push {repository}: exists already. Name another one, or overwrite files of the same names "
            "by --overwrite (its history keeps the old ones)"
        )


def push(repository: str, folder: Path, files: Sequence[str], public: bool) -> str:
    """Make the repository if it is not there, private unless public, and send files of the folder in one
    commit. Returns the address of its page. Raises BenchError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    api = HfApi()
    try:
        url = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(files),
            commit_message="Trained LoRA with its model card",
        )
    except (HfHubHTTPError, HTTPError, OSError, RuntimeError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BenchError(
            f"--push {repository}: not sent, or not all of it: {said}\n"
            f"  The files are in {folder}; the same command with --overwrite sends them again"
        ) from error
    return str(url)


def _asked(path: str, token: str) -> dict[str, Any] | None:
    """What the hub says of a page of its API; None where there is none. Raises BenchError."""
    from huggingface_hub import constants

    request = urllib.request.Request(f"{constants.ENDPOINT}/api/{path}")
    request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        what = f"the hub refuses the token on this machine: {LOGIN}" if error.code in REFUSED else error
        raise BenchError(f"--push: {what}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise BenchError(
            f"--push: {constants.ENDPOINT} is unreachable: {reason}. There is no network here, or it takes a "
            "proxy (HTTPS_PROXY) or a mirror (HF_ENDPOINT). Without --push the folder is made all the same"
        ) from error
