"""Decompositions by language models at a server that speaks the protocol."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.base.errors import BenchError
from bench.data.prompts import answers, llm
from bench.data.prompts.answers import Stages
from bench.data.prompts.dcot import DcotConfig, stages, template

GOOD = "**Coarse-level:** an animal\n**Mid-level:** ears\n**Fine-level:** fur"
PARTS = Stages("an animal", "ears", "fur")
KEY = "sk-very-secret"


class ChatServer:
    """Answers what it was told to: texts, or (status, headers) for a refusal, the last one for ever."""

    def __init__(self) -> None:
        self.script: list[Any] = [GOOD]
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        self.asked.append({"path": request.path, **body})
        self.keys.append(request.headers["Authorization"])
        now = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        status, headers = now if isinstance(now, tuple) else (200, {})
        said: Any = {"choices": [{"message": {"role": "assistant", "content": now}}]}
        if status != 200:
            said = {"error": {"message": f"you sent {request.headers['Authorization']}"}}
        if isinstance(now, bytes):
            said = None
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(now if isinstance(now, bytes) else json.dumps(said).encode())


@pytest.fixture
def server() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(llm.time, "sleep", waits.append)
    return waits


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def at(server: ChatServer, **settings: Any) -> DcotConfig:
    return DcotConfig(endpoint=server.url, llm="writer", **settings)


def test_a_server_is_asked_with_the_instruction_and_the_key(server: ChatServer):
    assert stages(["a cat"], at(server)) == {"a cat": PARTS}
    (question,) = server.asked
    assert question["path"] == "/v1/chat/completions" and question["model"] == "writer"
    assert question["messages"] == [{"role": "user", "content": template().replace("<PROMPT>", "a cat")}]
    assert server.keys == [f"Bearer {KEY}"]


def test_a_server_without_a_key_is_asked_without_one(server: ChatServer):
    stages(["a cat"], at(server, key_variable="NO_SUCH_KEY"))
    assert server.keys == [None]


def test_only_what_is_known_nowhere_is_asked_and_only_once(server: ChatServer):
    wanted = ["a cat", "A hand", "a dog", "a cat"]
    found = stages(wanted, at(server))
    assert list(found) == ["a cat", "A hand", "a dog"] and len(server.asked) == 2
    server.close()
    assert stages(wanted, at(server)) == found  # from the kept answers, without the server


def test_another_model_is_another_question(server: ChatServer):
    stages(["a cat"], at(server))
    stages(["a cat"], DcotConfig(endpoint=server.url, llm="poet"))
    assert [question["model"] for question in server.asked] == ["writer", "poet"]


def test_the_key_is_kept_nowhere(server: ChatServer, tmp_path: Path):
    config = at(server)
    stages(["a cat"], config)
    assert KEY not in config.model_dump_json()
    assert all(KEY not in file.read_text() for file in tmp_path.rglob("*") if file.is_file())


def test_a_kept_answer_that_was_cut_short_is_asked_again_and_swallows_no_other(server: ChatServer):
    stages(["a cat"], at(server))
    whole = answers.path().read_text()
    answers.path().write_text(whole.strip()[:-20])
    assert stages(["a dog"], at(server)) == {"a dog": PARTS}
    assert stages(["a cat", "a dog"], at(server)) == {"a cat": PARTS, "a dog": PARTS}
    assert len(server.asked) == 3


def test_of_two_kept_answers_the_first_counts(server: ChatServer):
    key = answers.key("writer", template(), "a cat")
    first = Stages("first", "b", "c")
    answers.append(key, "writer", "a cat", first)
    answers.append(key, "writer", "a cat", PARTS)
    assert stages(["a cat"], at(server)) == {"a cat": first}
    assert server.asked == []


def test_a_malformed_answer_is_asked_for_once_more(server: ChatServer):
    server.script = ["Sorry, what?", GOOD]
    assert stages(["a cat"], at(server)) == {"a cat": PARTS}
    assert len(server.asked) == 2


@pytest.mark.parametrize("answer", ["Here are your prompts: none", None])
def test_two_malformed_answers_are_an_error_with_their_beginning(server: ChatServer, answer: str | None):
    server.script = [answer]
    with pytest.raises(BenchError, match="twice 'writer' did not answer") as error:
        stages(["a cat"], at(server))
    assert repr(answer or "") in str(error.value) and "--set dcot.file=" in str(error.value)
    assert len(server.asked) == 2 and answers.load() == {}


def test_answers_before_an_error_are_kept(server: ChatServer):
    server.script = [GOOD, "no"]
    with pytest.raises(BenchError, match="'a dog'"):
        stages(["a cat", "a dog"], at(server))
    server.script = [GOOD]
    stages(["a cat", "a dog"], at(server))
    assert len(server.asked) == 4


def test_a_refused_key_names_its_variable_and_not_the_key(server: ChatServer, slept: list[float]):
    server.script = [(401, {})]
    with pytest.raises(BenchError, match="401 Unauthorized; the key in OPENAI_API_KEY was refused") as error:
        stages(["a cat"], at(server))
    assert KEY not in str(error.value) and "you sent Bearer …" in str(error.value)
    assert len(server.asked) == 1 and slept == []


def test_a_key_that_is_needed_and_not_set_is_said(server: ChatServer):
    server.script = [(401, {})]
    with pytest.raises(BenchError, match="MY_KEY is not set: export MY_KEY="):
        stages(["a cat"], at(server, key_variable="MY_KEY"))


def test_a_busy_server_is_waited_for_as_long_as_it_asks(server: ChatServer, slept: list[float]):
    server.script = [(429, {"Retry-After": "7"}), (503, {}), (429, {"Retry-After": "soon"}), GOOD]
    assert stages(["a cat"], at(server)) == {"a cat": PARTS}
    assert slept == [7, 2, 4]


def test_a_server_that_stays_busy_is_given_up(server: ChatServer, slept: list[float]):
    server.script = [(429, {})]
    with pytest.raises(BenchError, match="429 Too Many Requests; the server is busy; run again in 16 s"):
        stages(["a cat"], at(server))
    assert slept == [1, 2, 4, 8]


def test_a_server_that_asks_for_an_hour_is_given_up_at_once(server: ChatServer, slept: list[float]):
    server.script = [(429, {"Retry-After": "3600"})]
    with pytest.raises(BenchError, match="run again in 3600 s"):
        stages(["a cat"], at(server))
    assert slept == []


def test_an_unknown_model_is_said(server: ChatServer):
    server.script = [(404, {})]
    with pytest.raises(BenchError, match=r"is 'writer' \(dcot\.llm\) a model there"):
        stages(["a cat"], at(server))


@pytest.mark.parametrize("body", [b"<html>", b'{"choices": []}', b"[]"])
def test_a_server_of_another_kind_is_said(server: ChatServer, body: bytes):
    server.script = [body]
    with pytest.raises(BenchError, match="does not speak the chat-completions protocol"):
        stages(["a cat"], at(server))


def test_a_server_that_is_not_there_is_one_message(server: ChatServer):
    server.close()
    with pytest.raises(BenchError, match=r"127\.0\.0\.1:\d+/v1 is unreachable"):
        stages(["a cat"], at(server))
