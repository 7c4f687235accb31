"""Language models that answer an instruction: at an OpenAI-compatible server, or run here by transformers."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from http.client import HTTPException
from pathlib import Path
from typing import Any, final

from bench.base import devices
from bench.base.errors import BenchError
from bench.base.whole import check_whole
from bench.data import sources
from bench.data.need import Need

SECONDS = 120.0  # for one answer
TRIES = 5  # where a server is busy
LONGEST_WAIT = 60.0
BUSY = (408, 409, 429, 500, 502, 503, 504, 529)
NEW_TOKENS = 400
LLM_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")


class LanguageModel(ABC):
    """Answers instructions, one at a time."""

    @abstractmethod
    def answer(self, instruction: str, *, again: bool) -> str:
        """The model's text. again: the same instruction was answered badly just before; answer differently.

        Raises BenchError if there is no answer to be had.
        """


def connect(name: str, endpoint: str | None, key_variable: str) -> LanguageModel:
    """The model of that name at an endpoint, or without one in a directory or on the hub."""
    if endpoint is not None:
        return Server(name, endpoint, key_variable)
    return Local(sources.locate(local_need(name, "dcot language model", "dcot.llm")))


def local_need(name: str, called: str, setting: str) -> Need:
    """The files of a causal LM. name: a directory, or a name on the hub."""
    path = Path(name).expanduser()
    is_path = path.is_dir() or name.startswith((".", "/", "~"))
    return Need(
        called, None if is_path else f"hub:{name}", setting, path=path if is_path else None, files=LLM_FILES
    )


@final
class Server(LanguageModel):
    """A chat-completions endpoint. The key is read from the environment for each request and kept nowhere."""

    def __init__(self, name: str, endpoint: str, key_variable: str) -> None:
        self.name, self.endpoint, self.key_variable = name, endpoint, key_variable

    def answer(self, instruction: str, *, again: bool) -> str:
        """Waits where the server is busy. Models sample by default, so a second answer is another one."""
        attempt = 0
        while True:
            try:
                return self._content(self._send(instruction))
            except urllib.error.HTTPError as error:
                wait = _wait(error, attempt)
                attempt += 1
                if error.code not in BUSY or attempt == TRIES or wait > LONGEST_WAIT:
                    raise self._refusal(error, wait) from error
                error.close()
                time.sleep(wait)
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", error)
                raise BenchError(f"dcot: {self.endpoint} is unreachable: {reason}") from error

    def _send(self, instruction: str) -> bytes:
        body = {"model": self.name, "messages": [{"role": "user", "content": instruction}]}
        request = urllib.request.Request(
            f"{self.endpoint}/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if key := self._key():
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            return response.read()

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "").strip()

    def _content(self, body: bytes) -> str:
        try:
            content: Any = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise BenchError(
                f"dcot: {self.endpoint} does not speak the chat-completions protocol; it sent"
                f" {body[:200].decode(errors='replace')!r}"
            ) from error
        return content if isinstance(content, str) else ""  # null where the model declines

    def _refusal(self, error: urllib.error.HTTPError, wait: float) -> BenchError:
        said = error.read(2000).decode(errors="replace")
        if key := self._key():
            said = said.replace(key, "…")
        if error.code in (401, 403):
            state = "was refused" if key else "is not set"
            hint = f"the key in {self.key_variable} {state}: export {self.key_variable}=…"
        elif error.code == 404:
            hint = (
                f"is '{self.name}' (dcot.llm) a model there, and {self.endpoint}/chat/completions the place?"
            )
        elif error.code in BUSY:
            hint = f"the server is busy; run again in {wait:.0f} s. The answers so far are kept"
        else:
            hint = f"model '{self.name}'"
        return BenchError(
            f"dcot: {self.endpoint} answered {error.code} {error.reason}; {hint}\n  {said[:300]}".rstrip()
        )


@final
class Local(LanguageModel):
    """A causal LM in transformers' format, on the GPU if there is one."""

    def __init__(self, directory: Path) -> None:
        """Raises BenchError if the directory holds no such model."""
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._device = torch.device(devices.kind())
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                directory,
                local_files_only=True,
                dtype="auto",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            raise BenchError(f"{directory}: not a causal LM with its tokenizer: {error}") from error
        model, found = loaded
        check_whole(found, f"dcot: {directory}", "language model")
        self._model: Any = model.to(self._device).eval()

    def answer(self, instruction: str, *, again: bool) -> str:
        """The likeliest text; again: one drawn with a fixed seed. The global generator is left alone."""
        import torch

        if self._tokenizer.chat_template:
            inputs = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": instruction}],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
        else:
            inputs = self._tokenizer(instruction, return_tensors="pt")
        inputs = {key: inputs[key].to(self._device) for key in ("input_ids", "attention_mask")}
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            output = self._model.generate(
                **inputs,
                max_new_tokens=NEW_TOKENS,
                do_sample=again,
                pad_token_id=self._tokenizer.eos_token_id,
            )
        return self._tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _wait(error: urllib.error.HTTPError, attempt: int) -> float:
    """Seconds until the next attempt: what the server asks for, else 1, 2, 4, …"""
    asked = error.headers["Retry-After"] or ""
    return float(asked) if asked.isdigit() else 2.0**attempt
