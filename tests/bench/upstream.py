"""The smallest engine there can be: answers every request with the same few bytes, at once.

    python tests/bench/upstream.py serve MODEL --uds PATH ...

So that a benchmark of sparkd measures sparkd. Standard library only; knows no HTTP beyond a
`Content-Length`, and ignores every argument but `--uds`.
"""

from __future__ import annotations

import asyncio
import sys

_BODY = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"word"},"finish_reason":"length"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}'
)
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 09:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-length: %d\r\ncontent-type: application/json\r\n\r\n%s" % (len(_BODY), _BODY)
)


class Connection(asyncio.Protocol):
    """One client's connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            head = self._pending[:end].lower()
            _, _, rest = head.partition(b"content-length:")
            size = end + 4 + (int(rest.split(b"\r\n")[0]) if rest else 0)
            if len(self._pending) < size:
                return
            self._pending = self._pending[size:]
            self._transport.write(_ANSWER)


async def main(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Connection, path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[sys.argv.index("--uds") + 1]))
