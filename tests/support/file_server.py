"""A server on this machine for tests of downloads."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves one file; says what it was asked, and misbehaves on demand."""

    def __init__(self, contents: bytes) -> None:
        """contents: the file's."""
        self.contents = contents
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.ranges = True  # honours Range
        self.stop_after: int | None = None  # bytes of a body after which the connection is cut
        self.status = 200
        self.dies = False  # refuses everything after the request that it is at
        self.asked: list[str | None] = []  # the Range of each request
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Every request."""
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is printed."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The file's."""
        return f"http://127.0.0.1:{self._http.server_port}/some/net%20work.pt?download=1"

    def close(self) -> None:
        """Stop; later requests are refused."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request as the settings say."""
        wanted = request.headers["Range"]
        self.asked.append(wanted)
        if self.status != 200:
            return request.send_error(self.status)
        if self.dies:
            self.status = 503
        start = 0
        unchanged = request.headers["If-Range"] in (None, self.etag, self.modified)
        if wanted and self.ranges and unchanged:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.contents):
                return request.send_error(416)
        body = self.contents[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header(
                "Content-Range", f"bytes {start}-{len(self.contents) - 1}/{len(self.contents)}"
            )
        if self.etag:
            request.send_header("ETag", self.etag)
        if self.modified:
            request.send_header("Last-Modified", self.modified)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body if self.stop_after is None else body[: self.stop_after])
