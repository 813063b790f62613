"""An HTTP proxy in front of a server of this machine, which spoils what it is told to."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

# They speak of one connection, and each side has its own.
_OF_ONE_HOP = {"content-length", "transfer-encoding", "connection", "expect"}


@dataclass
class Request:
    """What a client asks; `body` may be changed before the server gets it."""

    method: str
    path: str
    headers: Message
    body: bytes


Answer = tuple[int, bytes]


@contextmanager
def proxy(
    port: int,
    *,
    request: Callable[[Request], Answer | None] = lambda _: None,
    headers: Callable[[Message], None] = lambda _: None,
) -> Iterator[str]:
    """Serve on a free port what the server on `port` serves, and yield the address.

    `request` may change a request, or answer it itself; `headers` may change those of each answer.
    """
    with _Proxy(port, request, headers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, port: int, request: Callable[[Request], Answer | None], headers: Callable[[Message], None]
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port
        self.request_hook = request
        self.headers_hook = headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def _serve(self) -> None:
        asked = Request(self.command, self.path, self.headers, self._body())
        answer = self.server.request_hook(asked)
        if answer is None:
            self._forward(asked)
        else:
            told = Message()
            told["Content-Type"] = "application/json"
            self._answer(answer[0], told, answer[1])

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - named by http.server

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().partition(b";")[0], 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def _forward(self, asked: Request) -> None:
        kept = {name: value for name, value in asked.headers.items() if name.lower() not in _OF_ONE_HOP}
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        upstream.request(asked.method, asked.path, asked.body or None, kept)
        answer = upstream.getresponse()
        body = answer.read()
        upstream.close()
        self.server.headers_hook(answer.headers)
        self._answer(answer.status, answer.headers, body)

    def _answer(self, status: int, told: Message, body: bytes) -> None:
        self.send_response_only(status)
        for name, value in told.items():
            if name.lower() not in _OF_ONE_HOP:
                self.send_header(name, value)
        length = told.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
