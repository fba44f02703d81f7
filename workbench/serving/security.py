"""Who may ask: the right token, the right host, our own pages. Everything else is refused before any route sees it.

A page on the internet can make a browser send requests to this machine. It cannot read the token (it is in no page, and the
cookie is HttpOnly and SameSite=Strict), it cannot pretend to be our origin, and with a name of its own that it points at
127.0.0.1 (DNS rebinding) it fails at the Host header.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BODY = 262_144
MAX_SECONDS = 20
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
_ENTER = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>workbench</title><link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0;url={place}"></head><body><p><a href="{place}">Open the explorer</a></p></body></html>"""


def new_token() -> str:
    """A token of 256 random bits."""
    return secrets.token_urlsafe(32)


def is_loopback(host: str) -> bool:
    """Whether that address is this machine's own, which no other machine can reach."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """The token, and the addresses under which the server may be spoken to."""

    token: str = field(repr=False)
    host: str
    port: int

    @property
    def cookie(self) -> str:
        """The cookie's name; browsers share cookies between ports, so the port is part of it."""
        return f"workbench-{self.port}"

    @property
    def address(self) -> str:
        """The origin that pages are opened under."""
        shown = "127.0.0.1" if self.host in ("0.0.0.0", "") else "::1" if self.host == "::" else self.host
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"

    @property
    def url(self) -> str:
        """The address with the token: for the person who started the server."""
        return f"{self.address}/?token={self.token}"

    def is_token(self, given: str | None) -> bool:
        """Whether it is the token, in constant time."""
        return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def knows(self, host: str | None) -> bool:
        """Whether a Host header (or the host of an Origin) names this server.

        Bound to loopback: a loopback name with our port. Bound elsewhere, also the machine's own name or any address in
        numbers: an attacker's name that resolves to this machine is neither.
        """
        parts = _split_host(host)
        if parts is None or parts[1] != self.port:
            return False
        if parts[0] in (*LOOPBACK, self.host):
            return True
        return not is_loopback(self.host) and (parts[0] == socket.gethostname().lower() or _is_number(parts[0]))

    def is_own(self, origin: str) -> bool:
        """Whether an Origin header is one of our own pages."""
        scheme, _, host = origin.partition("://")
        return scheme == "http" and self.knows(host)


def _split_host(host: str | None) -> tuple[str, int] | None:
    try:
        found = urlsplit(f"//{host}")
        if not host or found.netloc != host or "@" in host:
            return None
        return found.hostname or "", 80 if found.port is None else found.port
    except ValueError:
        return None


def _is_number(host: str) -> bool:
    try:
        return ipaddress.ip_address(host) is not None
    except ValueError:
        return False


class _Refused(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Gone(Exception):
    """The sender went away before the whole request was here: half a request is none."""


class Guard:
    """The outermost layer of the app: checks host, origin, token and size of every request, and sets the headers of every
    answer.
    """

    def __init__(self, app: App, access: Access, *, max_body: int = MAX_BODY) -> None:
        self.app, self.access, self.max_body = app, access, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, _with_headers(send))
        else:  # no page of ours opens a socket
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check_place(scope, headers)
            if (entered := self._entering(scope)) is not None:
                await _answer(send, 200, _ENTER.format(place=entered), "text/html", cookie=self._set_cookie())
                return
            self._check_token(headers)
            self._check_size(headers)
        except _Refused as refused:
            await _answer(send, refused.status, str(refused), "text/plain")
            return
        try:
            body = await self._body(receive)
        except _Gone:
            return
        except _Refused as refused:
            await _answer(send, refused.status, str(refused), "text/plain")
            return
        await self.app(scope, _given(body, receive), send)

    async def _body(self, receive: Receive) -> bytes:
        """The whole body, which cannot grow beyond the limit whatever its length was said to be, and has to come in time."""
        body, more = b"", True
        try:
            async with asyncio.timeout(MAX_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.max_body:
                        raise _Refused(413, f"the request is longer than {self.max_body} bytes")
        except TimeoutError:
            raise _Refused(408, f"the request took longer than {MAX_SECONDS} seconds to arrive") from None
        return body

    def _check_place(self, scope: Scope, headers: dict[str, str]) -> None:
        if sum(name == b"host" for name, _ in scope["headers"]) != 1 or not self.access.knows(headers.get("host")):
            raise _Refused(403, "this server is not known under that name")
        origin, changes = headers.get("origin"), scope["method"] not in SAFE_METHODS
        if origin is not None and not self.access.is_own(origin):
            raise _Refused(403, "pages of other origins may not ask")
        if changes and origin is None and "authorization" not in headers:
            raise _Refused(403, "a request that changes something has to say its origin")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            raise _Refused(403, "pages of other origins may not ask")

    def _entering(self, scope: Scope) -> str | None:
        """The path to go on to, without the token, when a page is opened with the right token in its address."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [None])[0]
        if scope["method"] != "GET" or given is None:
            return None
        if not self.access.is_token(given):
            raise _Refused(401, "that token is not this server's: use the address that `workbench serve` printed")
        return quote("/" + scope["path"].lstrip("/"), safe="/")

    def _check_token(self, headers: dict[str, str]) -> None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else _cookie(headers.get("cookie", ""), self.access.cookie)
        if not self.access.is_token(given):
            raise _Refused(401, "the key is missing or not this server's: `workbench serve` prints an address that holds it")

    def _check_size(self, headers: dict[str, str]) -> None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.max_body:
            raise _Refused(413, f"the request is longer than {self.max_body} bytes")

    def _set_cookie(self) -> str:
        return f"{self.access.cookie}={self.access.token}; Path=/; HttpOnly; SameSite=Strict"


def _given(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, then what comes after it (the end of the connection)."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return receiving


def _cookie(header: str, name: str) -> str | None:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            own = {name for name, _ in given}
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in own]
            message = {**message, "headers": [*given, *added]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str, kind: str, *, cookie: str | None = None) -> None:
    body = text.encode()
    headers = [(b"content-type", f"{kind}; charset=utf-8".encode()), (b"content-length", str(len(body)).encode())]
    headers += [(b"set-cookie", cookie.encode())] if cookie else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
