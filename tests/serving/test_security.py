from __future__ import annotations

import hmac
import json
import socket

import httpx
import pytest

from tests.coroutines import run_apart
from tests.serving.world import Served
from workbench.serving.security import HEADERS, MAX_BODY, Access, Guard, is_loopback
from workbench.serving.server import check_host, open_socket

PLACES = ("/", "/text", "/steer", "/features", "/features/0", "/traits/evil", "/static/explorer.css", "/api/status",
          "/api/features/0", "/api/openapi.json", "/nowhere", "/docs")  # fmt: skip
STEER = {"messages": [{"role": "user", "content": "hello"}], "trait": "evil", "dose": 0.2, "max_new_tokens": 2}


def cookies(served: Served) -> dict[str, str]:
    return {"cookie": f"{served.access.cookie}={served.access.token}"}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_told_without_the_token(served, place):
    for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": f"{served.access.cookie}=wrong"}):
        answer = httpx.get(served.base + place, headers=headers)
        assert answer.status_code == 401 and served.access.token not in answer.text
    assert httpx.get(f"{served.base}{place}?token=wrong").status_code == 401


def test_the_token_moves_from_the_address_into_a_cookie_that_no_script_and_no_other_site_gets(served):
    answer = httpx.get(served.access.url)
    assert answer.status_code == 200 and served.access.token not in answer.text and 'url=/"' in answer.text
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert httpx.get(served.base + "/api/status", headers=cookies(served)).status_code == 200


def test_tokens_are_compared_in_constant_time_and_are_not_in_what_is_printed(monkeypatch):
    access, seen = Access("secret", "127.0.0.1", 80), []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: seen.append((a, b)) or a == b)
    assert access.is_token("secret") and not access.is_token("secreT") and not access.is_token(None)
    assert len(seen) == 2 and "secret" not in repr(access)


@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "a@127.0.0.1:{port}", ""]
)
def test_a_name_that_is_not_ours_is_refused_even_with_the_token(served, host):
    headers = {**cookies(served), "host": host.format(port=served.access.port)}
    assert httpx.get(served.base + "/api/status", headers=headers).status_code in (400, 403)


def test_two_host_headers_are_refused(served):
    with socket.create_connection(("127.0.0.1", served.access.port), timeout=10) as line:
        hosts = f"Host: 127.0.0.1:{served.access.port}\r\n" * 2
        line.sendall(f"GET /api/status HTTP/1.1\r\n{hosts}Authorization: Bearer {served.access.token}\r\n\r\n".encode())
        assert line.recv(200).split(b" ")[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "http://127.0.0.1"]
)
def test_pages_of_other_origins_can_change_and_read_nothing(served, origin):
    headers = {**cookies(served), "origin": origin.format(port=served.access.port)}
    for answer in (httpx.post(served.base + "/api/steer", json=STEER, headers=headers),
                   httpx.get(served.base + "/api/status", headers=headers)):  # fmt: skip
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_change_has_to_say_its_origin_when_the_cookie_speaks_for_it(served):
    text = {"text": "some words here"}
    assert httpx.post(served.base + "/api/text", json=text, headers=cookies(served)).status_code == 403
    own = {**cookies(served), "origin": served.base}
    assert httpx.post(served.base + "/api/text", json=text, headers=own).status_code == 200
    cross = {**cookies(served), "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert httpx.get(served.base + "/api/status", headers=cross).status_code == 403


def test_every_answer_has_the_headers(served, client):
    answers = [client.get("/"), client.get("/api/status"), client.get("/static/shared.js"), client.get("/nowhere"),
               httpx.get(served.base + "/"), client.post("/api/text", json={})]  # fmt: skip
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS and "server" not in answer.headers
    assert "unsafe" not in HEADERS["content-security-policy"] and "http" not in HEADERS["content-security-policy"]


def test_bodies_are_bounded_whatever_they_say_of_their_length(client):
    assert client.post("/api/text", content=b"x" * (MAX_BODY + 1)).status_code == 413

    def endless():
        for _ in range(MAX_BODY // 1000 + 10):
            yield b"x" * 1000

    assert client.post("/api/text", content=endless()).status_code == 413


def test_a_body_that_does_not_come_in_time_is_given_up(served, monkeypatch):
    monkeypatch.setattr("workbench.serving.security.MAX_SECONDS", 0.2)
    head = f"Host: 127.0.0.1:{served.access.port}\r\nAuthorization: Bearer {served.access.token}\r\nContent-Length: 20\r\n"
    with socket.create_connection(("127.0.0.1", served.access.port), timeout=10) as line:
        line.sendall(f"POST /api/text HTTP/1.1\r\n{head}Content-Type: application/json\r\n\r\n{{".encode())
        assert line.recv(200).split(b" ")[1] == b"408"


@pytest.mark.parametrize(
    ("place", "body", "status", "words"),
    [
        ("text", {"text": "word " * 500}, 400, "at most 2,000"),
        ("text", {"text": "a b " * 300}, 400, "2 to 200 tokens"),
        ("text", {"text": ""}, 400, "2 to 200 tokens"),
        ("text", {"text": "a", "messages": []}, 400, "one of the two"),
        ("text", {"text": 5}, 422, "text"),
        ("text", {"messages": [{"role": "king", "content": "x"}]}, 422, "role"),
        ("text", {"text": "x", "more": 1}, 422, "more"),
        ("steer", {**STEER, "dose": 2.5}, 400, "-2 to 2"),
        ("steer", {**STEER, "trait": None, "feature": 99}, 400, "no feature 99"),
        ("steer", {**STEER, "trait": "kind"}, 400, "kind"),
        ("steer", {**STEER, "feature": 1}, 400, "one direction"),
        ("steer", {**STEER, "messages": [{"role": "system", "content": "x"}]}, 400, "nobody speaks"),
    ],
)
def test_what_is_too_much_or_wrong_is_refused_in_words(client, place, body, status, words):
    answer = client.post(f"/api/{place}", json=body)
    assert answer.status_code == status, answer.text
    assert words in " ".join(answer.json()[part] for part in ("found", "expected", "remedy"))


def test_what_is_not_text_is_refused_and_not_sent_back(client):
    answer = client.post(
        "/api/text", content=b'{"text": "half \\ud83d of a sign"}', headers={"content-type": "application/json"}
    )
    assert answer.status_code in (200, 422) and answer.text.isascii()
    for broken in (b"{", b"\xff\xfe", b'{"text": NaN}'):
        answer = client.post("/api/text", content=broken, headers={"content-type": "application/json"})
        assert answer.status_code == 422 and "NaN" not in answer.text


def test_the_api_describes_itself_and_its_pages_from_a_cdn_are_off(client):
    paths = client.get("/api/openapi.json").json()["paths"]
    assert set(paths) == {"/api/status", "/api/traits/{trait}", "/api/features", "/api/features/{feature}",
                          "/api/features/{feature}/direction", "/api/text", "/api/steer", "/api/labels/{feature}"}  # fmt: skip
    assert all(one["description"] for methods in paths.values() for one in methods.values())
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_static_files_are_a_list_and_no_folder(client):
    for name in ("app.py", "..%2Fapp.py", "%2e%2e/security.py", "frame.html.jinja"):
        assert client.get(f"/static/{name}").status_code == 404


def test_only_loopback_is_listened_on_unless_asked_for():
    from workbench.base.errors import WorkbenchError

    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost") and not is_loopback("0.0.0.0")
    with pytest.raises(WorkbenchError, match="--allow-other-machines"):
        check_host("0.0.0.0", others_may=False)
    check_host("0.0.0.0", others_may=True)
    open_to_others = Access("secret", "0.0.0.0", 99)
    assert open_to_others.knows("192.0.2.7:99") and not open_to_others.knows("rebound.example:99")
    assert not Access("secret", "127.0.0.1", 99).knows("192.0.2.7:99")


def test_a_taken_port_is_said_and_the_next_one_found():
    from workbench.base.errors import WorkbenchError

    with open_socket("127.0.0.1", 0) as first:
        with pytest.raises(WorkbenchError, match="--port"):
            open_socket("127.0.0.1", first.getsockname()[1])
        with open_socket("127.0.0.1", None) as second, open_socket("127.0.0.1", None) as third:
            assert len({one.getsockname()[1] for one in (first, second, third)}) == 3


def test_a_mistake_of_ours_is_not_shown_to_the_page(served, client, monkeypatch):
    monkeypatch.setattr(type(served.explorer), "status", lambda self: {}["a secret of the code"])
    answer = client.get("/api/status")
    assert answer.status_code == 500 and "secret" not in answer.text
    assert json.loads(answer.text)["remedy"]


def test_half_a_request_reaches_no_route():
    """The sender went away after `{"text": "a"}`, of which more was to come."""
    reached, access = [], Access("key", "127.0.0.1", 8760)

    async def app(scope, receive, send):
        reached.append(await receive())

    messages = iter([{"type": "http.request", "body": b'{"text": "a"}', "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(messages)

    async def send(message):
        reached.append(message)

    headers = [(b"host", b"127.0.0.1:8760"), (b"authorization", b"Bearer key")]
    scope = {"type": "http", "method": "POST", "path": "/api/text", "query_string": b"", "headers": headers}
    run_apart(Guard(app, access)(scope, receive, send))
    assert reached == []


@pytest.mark.parametrize("place", ["/nowhere", "/traits/nobody", "/traits/<script>alert(1)</script>", "/features/999999999",
                                   "/features/evil"])  # fmt: skip
def test_a_browser_gets_a_page_that_says_what_is_missing(client, place):
    answer = client.get(place, headers={"accept": "text/html,*/*"})
    assert answer.status_code in (400, 404, 422) and answer.headers["content-type"].startswith("text/html")
    assert "This page cannot be shown" in answer.text and "<script>alert" not in answer.text
    assert "default-src" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("place", ["/nowhere", "/api/nowhere", "/static/%2e%2e%2fsecurity.py", "/traits/nobody"])
def test_what_is_not_there_is_told_as_everything_else(client, place):
    answer = client.get(place)
    assert answer.status_code == 404 and set(answer.json()) == {"found", "expected", "remedy"}
