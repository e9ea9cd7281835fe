"""The live page: who may look, what it shows, and that nobody who looks can stop the pipeline."""

import asyncio
import http.client
import json
import re
import socket
import threading
import time

import msgspec
import numpy as np
import pytest

from edgekit.errors import OutputError, UsageError
from edgekit.runtime.events import FrameDropped, SinkLost, SourceBack, SourceFailed, SourceLost
from edgekit.runtime.overlay import History
from edgekit.runtime.stream import Result
from edgekit.runtime.web.access import Gate, Place
from edgekit.runtime.web.board import BOUNDS_MS, Board, Histogram
from edgekit.runtime.web.metrics import exposition
from edgekit.runtime.web.pictures import Pictures

TOKEN = "a token of some length"  # noqa: S105
FRAME = np.full((48, 64, 3), 90, np.uint8)


def result(number=0, age_ms=12.0, frame=FRAME, value="seen"):
    stages = {"capture": 0, "preprocess": 1_000_000, "infer": 2_000_000, "postprocess": 0}
    return Result(number, number, age_ms, value, frame, stages)


@pytest.fixture
def sink(monkeypatch):
    """Open the page on a free port, with a token if asked for."""
    for package in ("starlette", "uvicorn"):
        pytest.importorskip(package, reason="the page needs: pip install -e '.[serve]'")
    from edgekit.runtime.sinks import open_sink

    opened = []

    def open_page(token=None):
        monkeypatch.delenv("EDGEKIT_WEB_TOKEN", raising=False)
        if token:
            monkeypatch.setenv("EDGEKIT_WEB_TOKEN", token)
        opened.append(open_sink("http://127.0.0.1:0"))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()


def ask(page, path, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content.decode("utf-8", "replace")


def status(page, **headers):
    return json.loads(ask(page, "/status.json", **headers)[1])


def test_strangers_write_nothing_into_the_log(sink, caplog):
    page = sink(TOKEN)
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    form = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\ntoken="
    for sent, is_answered in ((b"\x00nonsense\r\n\r\n", True), (upgrade, True), (form, False)):
        with socket.create_connection(("127.0.0.1", page.port), timeout=30) as connection:
            connection.sendall(sent)
            if is_answered:
                assert connection.recv(100).startswith(b"HTTP/1.1 4")
    assert ask(page, "/healthz")[0].status == 401
    page.close()
    assert not caplog.records


# Where it may be served.


@pytest.mark.parametrize("uri", ["http://127.0.0.1", "http://localhost:80", "http://[::1]:8080"])
def test_this_machine_may_look_without_a_token(uri):
    assert Gate(Place.parse(uri), None).is_open


@pytest.mark.parametrize(
    "uri", ["http://0.0.0.0:8080", "http://192.168.1.7", "http://edge.local:80", "http://[::]:80"]
)
def test_other_machines_need_a_token(uri):
    place = Place.parse(uri)
    with pytest.raises(UsageError, match="EDGEKIT_WEB_TOKEN"):
        Gate(place, None)
    with pytest.raises(UsageError, match="can be guessed"):
        Gate(place, "short")
    assert not Gate(place, TOKEN).is_open


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:pass@127.0.0.1:8080",
        "http://127.0.0.1:8080?token=abc",
        "http://127.0.0.1:8080/page",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:port",
    ],
)
def test_an_address_that_cannot_be_or_holds_a_secret_is_refused(uri):
    with pytest.raises(UsageError) as error:
        Place.parse(uri)
    assert "abc" not in str(error.value)
    assert "pass@" not in str(error.value)


def test_a_port_that_is_taken_is_told(sink):
    page = sink()
    from edgekit.runtime.sinks import open_sink

    with pytest.raises(OutputError, match=f"127.0.0.1:{page.port}: .*in use"):
        open_sink(f"http://127.0.0.1:{page.port}")


# Who may look.


def test_without_a_token_only_local_names_are_answered(sink):
    page = sink()
    for host in ("evil.example", "127.0.0.1.evil.example", "192.168.0.3", ""):
        assert ask(page, "/status.json", Host=host)[0].status in (400, 403)
    assert ask(page, "/status.json", Host=f"localhost:{page.port}")[0].status == 200


@pytest.mark.parametrize("path", ["/", "/status.json", "/events", "/healthz", "/metrics", "/x"])
def test_with_a_token_nothing_is_shown_without_it(sink, path):
    page = sink(TOKEN)
    page.write(result())
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "edgekit_session=wrong"}):
        answer, text = ask(page, path, **given)
        assert answer.status == 401
        assert "seen" not in text
    assert ask(page, "/status.json", Authorization=f"Bearer {TOKEN}")[0].status == 200


def test_a_browser_gives_the_token_once(sink):
    page = sink(TOKEN)
    form, text = ask(page, "/", Accept="text/html")
    assert form.status == 401
    assert 'name="token"' in text
    assert ask(page, "/login", "POST", "token=wrong")[0].status == 401
    assert ask(page, "/login", "POST", "x" * 10_000)[0].status == 413
    answer, _ = ask(page, "/login", "POST", f"token={TOKEN.replace(' ', '+')}")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert ask(page, "/status.json", Cookie=cookie.split(";")[0])[0].status == 200


def test_tokens_are_compared_by_hashes_of_one_length(monkeypatch):
    compared = []
    monkeypatch.setattr(
        "edgekit.runtime.web.access.hmac.compare_digest",
        lambda one, other: compared.append((len(one), len(other))) or one == other,
    )
    gate = Gate(Place("0.0.0.0", 80), TOKEN)  # noqa: S104
    assert not gate.knows_token("a")
    assert not gate.knows_token("a" * 1000)
    assert gate.knows_token(TOKEN)
    assert compared == [(32, 32)] * 3


def test_other_sites_cannot_embed_it(sink):
    answer, _ = ask(sink(), "/")
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


# What it shows.


def test_it_counts_what_came_and_what_was_dropped(sink):
    page = sink()
    assert ask(page, "/healthz")[0].status == 503
    for number in range(3):
        page.write(result(number))
    page.event(FrameDropped(3, "superseded"))
    source = status(page)["sources"][0]
    assert (source["frames"], source["dropped"], source["health"]) == (3, {"superseded": 1}, "live")
    assert ask(page, "/healthz")[0].status == 200
    page.event(SourceLost(0, "unplugged"))
    answer, text = ask(page, "/healthz")
    assert (answer.status, text) == (503, "source: lost\n")
    page.event(SourceBack(0, 10.0))
    assert ask(page, "/healthz")[0].status == 200


def test_all_sources_count_in_their_order_and_a_sink_is_none():
    board = Board()
    board.begin(["door", "yard"])
    board.result(msgspec.structs.replace(result(), source="yard"))
    board.event(SinkLost(0, "a.mp4", "disk full"))
    assert [(s["source"], s["health"]) for s in board.status()["sources"]] == [
        ("door", "starting"),
        ("yard", "live"),
    ]
    assert not board.status()["healthy"]
    assert board.newest(0) is None
    board.result(msgspec.structs.replace(result(), source="door"))
    assert board.status()["healthy"]
    board.event(SourceFailed(0, "damaged", "yard"))
    assert board.status()["sources"][1]["health"] == "lost"


def test_a_viewer_who_comes_when_the_last_one_is_forgotten_gets_pictures(monkeypatch):
    board = Board()
    board.result(result())
    monkeypatch.setattr("edgekit.runtime.web.pictures.RATE_HZ", 100.0)

    async def look():
        pictures = Pictures(board, 0)
        first = await pictures.after(None)
        # This one waits for the next picture while the maker, who has seen no viewer, ends.
        second = asyncio.create_task(pictures.after(first.frame_id))
        await asyncio.wait([pictures._maker])
        board.result(result(1))
        return (await asyncio.wait_for(second, 10)).frame_id

    assert asyncio.run(look()) in (0, 1)


def test_health_and_rate_follow_the_clock():
    now = [0]
    board = Board(lambda: now[0])
    for number in range(100):
        board.result(result(number))
        now[0] += 20_000_000
    source = board.status()["sources"][0]
    assert source["fps"] == pytest.approx(50, rel=0.02)
    assert board.status()["healthy"]
    now[0] += 6_000_000_000
    assert board.status()["sources"][0]["health"] == "stalled"
    assert not board.status()["healthy"]


def test_a_histogram_has_every_value_in_one_bucket():
    histogram, random = Histogram(), np.random.default_rng(0)
    values = random.lognormal(3, 1.5, 5000)
    for value in values:
        histogram.add(value)
    edges = [0, *BOUNDS_MS, np.inf]
    expected = [
        ((values > a) & (values <= b)).sum() for a, b in zip(edges, edges[1:], strict=False)
    ]
    assert histogram.counts == expected
    assert histogram.quantile(0.5) >= np.quantile(values, 0.5)
    assert histogram.quantile(1.0) == values.max()


def test_prometheus_can_read_it():
    board = Board()
    for number in range(5):
        board.result(result(number, age_ms=10.0 * number))
    board.event(FrameDropped(9, 'odd "reason"\n\\'))
    telemetry = {"temperature_c": {"cpu": 51.5}, "power_mw": {"VDD_IN": 4800.0}}
    text = exposition(board.status(), telemetry)
    sample = re.compile(
        r'[a-z_]+(\{([a-z_]+="([^"\\\n]|\\[\\"n])*",?)*\})? -?[0-9.e+-]+|# (HELP|TYPE) .+'
    )
    assert all(sample.fullmatch(line) for line in text.splitlines()), text
    assert 'edgekit_age_seconds_bucket{source="",le="+Inf"} 5' in text
    assert 'edgekit_age_seconds_sum{source=""} 0.1' in text
    assert 'edgekit_age_seconds_count{source=""} 5' in text
    assert 'edgekit_power_watts{sensor="VDD_IN"} 4.8' in text
    assert len(re.findall(r"^# TYPE edgekit_age_seconds ", text, re.M)) == 1


@pytest.mark.parametrize(
    ("frame", "width"),
    [
        (FRAME, 64),
        (np.zeros((20, 4000), np.uint8), 960),
        (np.zeros((49, 10), np.float32), 640),  # no picture: the value alone
    ],
)
def test_a_picture_is_a_jpeg_of_bounded_width(frame, width):
    import cv2

    from edgekit.runtime.web.pictures import encoded

    jpeg = np.frombuffer(encoded(result(frame=frame), History()), np.uint8)
    assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape[1] == width


def test_a_source_that_is_not_there_has_no_picture(sink):
    page = sink()
    assert ask(page, "/picture/0.jpg")[0].status == 404
    page.write(result())
    assert ask(page, "/picture/0.jpg")[1].startswith("\ufffd")
    assert ask(page, "/picture/1.jpg")[0].status == 404


def read_parts(page, count):
    """Read pictures of the endless answer; return the addresses of their bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    connection.request("GET", "/picture/0.mjpg")
    answer, parts = connection.getresponse(), []
    while len(parts) < count:
        line = answer.readline()
        if line.lower().startswith(b"content-length:"):
            answer.readline()
            parts.append(answer.read(int(line.split(b":")[1])))
    connection.close()
    return parts


def test_a_picture_is_encoded_once_for_all_viewers(sink, monkeypatch):
    from edgekit.runtime.web import pictures

    page, made, original = sink(), [], pictures.encoded
    monkeypatch.setattr(pictures, "encoded", lambda r, h: made.append(r.frame_id) or original(r, h))
    page.write(result(0))
    viewers = [threading.Thread(target=read_parts, args=(page, 3)) for _ in range(6)]
    for viewer in viewers:
        viewer.start()
    number = 0
    while any(viewer.is_alive() for viewer in viewers):
        number += 1
        page.write(result(number))
        time.sleep(0.01)
    assert len(made) == len(set(made))


def test_viewers_that_never_read_stop_nobody(sink):
    """The socket's buffers fill, and only that viewer's part of the server waits."""
    page = sink()
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    page.write(result(0, frame=noise))
    deaf = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(2)]
    for connection in deaf:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /picture/0.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    stop = threading.Event()

    def feed():
        number = 1
        while not stop.wait(0.01):
            page.write(result(number, frame=noise))
            number += 1

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        assert len(read_parts(page, 8)) == 8
        assert status(page)["sources"][0]["health"] == "live"
    finally:
        stop.set()
        feeder.join()
        for connection in deaf:
            connection.close()


def test_too_many_viewers_are_sent_away_and_places_become_free(sink, monkeypatch):
    from edgekit.runtime.web import app

    monkeypatch.setattr(app, "MOST_VIEWERS", 2)
    page = sink()
    page.write(result())
    streams = [http.client.HTTPConnection("127.0.0.1", page.port, timeout=30) for _ in range(2)]
    for stream in streams:
        stream.request("GET", "/events")
        assert stream.getresponse().status == 200
    assert ask(page, "/events")[0].status == 503
    assert ask(page, "/status.json")[0].status == 200
    for stream in streams:
        stream.close()
    for _ in range(600):  # the server sees an end when it next writes
        stream = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
        stream.request("GET", "/events")
        code = stream.getresponse().status
        stream.close()
        if code == 200:
            return
        time.sleep(0.05)
    pytest.fail("no place became free")


def test_closing_ends_streams_and_frees_the_port(sink, capfd):
    page = sink()
    page.write(result())
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    connection.request("GET", "/events")
    connection.getresponse().readline()
    page.close()
    connection.close()
    assert not any(thread.name == "edgekit-web" for thread in threading.enumerate())
    with socket.create_server(("127.0.0.1", page.port)):
        pass
    assert capfd.readouterr().err == ""


def test_a_browser_shows_it_without_a_complaint(sink, tmp_path):
    from browser import Browser

    page = sink()
    page.write(result(value="<b>seen</b>"))
    page.event(FrameDropped(1, "superseded"))
    with Browser(tmp_path, 390, 900, dark=True) as browser:
        browser.open(f"http://127.0.0.1:{page.port}/")
        browser.wait_for("document.querySelectorAll('svg.age rect').length")
        page.write(result(2))
        browser.wait_for("document.querySelector('img').naturalWidth == 64")
        assert browser.evaluate("document.querySelector('.reasons').textContent") == (
            "dropped: superseded 1"
        )
        wide = browser.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390
        assert browser.console == []
        assert {re.match("http://[^/]*", address)[0] for address in browser.requests} == {
            f"http://127.0.0.1:{page.port}"
        }
