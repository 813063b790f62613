"""An HTTP proxy in front of a server of this machine, which spoils what it is told to."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


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
    headers: Callable[[dict[str, str]], None] = lambda _: None,
) -> Iterator[str]:
    """Serve on a free port what the server on `port` serves, and yield the address.

    `request` may change a request, or answer it itself; `headers` may change those of each answer.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            size = int(self.headers.get("Content-Length", "0"))
            asked = Request(self.command, self.path, self.headers, self.rfile.read(size))
            answer = request(asked)
            if answer is not None:
                self._answer(answer[0], {"Content-Type": "application/json"}, answer[1])
            else:
                self._forward(asked)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - named by http.server

        def _forward(self, asked: Request) -> None:
            kept = {name: value for name, value in asked.headers.items() if name.lower() != "content-length"}
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            upstream.request(asked.method, asked.path, asked.body or None, kept)
            answer = upstream.getresponse()
            told, body = dict(answer.getheaders()), answer.read()
            upstream.close()
            headers(told)
            self._answer(answer.status, told, body)

        def _answer(self, status: int, told: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            length = told.get("Content-Length") if self.command == "HEAD" else None
            for name, value in told.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
