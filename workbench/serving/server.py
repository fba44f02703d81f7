"""uvicorn around the application: a socket that is ours before anything is loaded, a word when it is ready, a clean end."""

from __future__ import annotations

import errno
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.serving.security import Access, is_loopback, new_token

if TYPE_CHECKING:
    import uvicorn

    from workbench.serving.explorer import Explorer

DEFAULT_PORT = 8760
_TRIED = 20


def open_socket(host: str, port: int | None) -> socket.socket:
    """A socket bound to `host`; port 0 takes any free one, None the first free one from 8760 on.

    Raises WorkbenchError for a port that is taken or not allowed, and for a host that is not this machine's.
    """
    tries = [port] if port is not None else [*range(DEFAULT_PORT, DEFAULT_PORT + _TRIED), 0]
    for number in tries:
        try:
            return _bound(host, number)
        except OSError as error:
            if port is None and error.errno == errno.EADDRINUSE and number != tries[-1]:
                continue
            reason = error.strerror or str(error)
            raise WorkbenchError(f"{host}:{number} cannot be listened on ({reason})", "a free port of this machine",
                                 "choose another one with --port, or --port 0 for any") from error  # fmt: skip
    raise AssertionError("the last try returns or raises")


def _bound(host: str, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, proto)
    try:
        if os.name == "posix":  # elsewhere this would let two servers share a port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(64)
    except OSError:
        made.close()
        raise
    return made


def check_host(host: str, *, others_may: bool) -> None:
    """Refuse an address that other machines can reach, unless that was asked for."""
    if not is_loopback(host) and not others_may:
        raise WorkbenchError(
            f"{host} can be reached by other machines: whoever has the address with the token can read what you type "
            "and write labels, and nothing is encrypted on the way",
            "127.0.0.1, this machine alone",
            "leave out --host (an SSH tunnel reaches 127.0.0.1), or say --allow-other-machines",
        )


def access_for(made: socket.socket, host: str) -> Access:
    """The access to a server on that socket, with a new token."""
    return Access(new_token(), host, int(made.getsockname()[1]))


def make_server(explorer: Explorer, access: Access, *, ready: Callable[[], Any] = lambda: None) -> uvicorn.Server:
    """The explorer's server, not yet running. `ready` is called once requests are answered."""
    from workbench.serving.app import make_app

    return server_of(make_app(explorer, access), ready=ready)


def server_of(app: Any, *, ready: Callable[[], Any] = lambda: None) -> uvicorn.Server:
    """A server for an application, not yet running. `ready` is called once requests are answered."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

    return Server(uvicorn.Config(
        app, access_log=False, log_config=None, server_header=False, lifespan="off", ws="none",
        proxy_headers=False, timeout_graceful_shutdown=2, h11_max_incomplete_event_size=16_384, limit_concurrency=64,
    ))  # fmt: skip


def serve(explorer: Explorer, made: socket.socket, access: Access, *, ready: Callable[[], Any] = lambda: None) -> None:
    """Load in the background and serve until Ctrl-C, which is raised as KeyboardInterrupt when all is closed."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    server = make_server(explorer, access, ready=ready)
    explorer.start()
    server.run(sockets=[made])


def entrance(url: str) -> Path:
    """A page in a file that only this user can read and that leads to `url`.

    Browsers are started with an address on their command line, which everyone on the machine can see; this is the address to
    use.
    """
    handle, name = tempfile.mkstemp(prefix="workbench-", suffix=".html")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f'<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
                   f'<meta http-equiv="refresh" content="0;url={url}"><title>workbench</title>')  # fmt: skip
    return Path(name)
