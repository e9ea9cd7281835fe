"""The reader of MJPEG over HTTP, against servers that do what servers do."""

import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import threading
import time

import cv2
import numpy as np
import pytest

from edgekit.errors import DataError, SourceError, UsageError
from edgekit.runtime.camera import Timeouts, open_camera

LIMITS = Timeouts(open_s=20.0, read_s=20.0)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=cut\r\n\r\n"
WITHIN_S = 30  # generous: only that it ends is asserted


def jpeg(value, shape=(48, 64)):
    return cv2.imencode(".jpg", np.full((*shape, 3), value, np.uint8))[1].tobytes()


def part(content, kind="image/jpeg", length=True):
    head = f"--cut\r\nContent-Type: {kind}\r\n"
    head += f"Content-Length: {len(content)}\r\n" if length else ""
    return head.encode() + b"\r\n" + content + b"\r\n"


@contextlib.contextmanager
def server(*answers, hold=False, context=None):
    """Serve one list of pieces a connection: bytes, seconds to pause, events to wait for.

    Args:
        answers: one list a connection; the last one is given to all later ones too.
        hold: keep connections open afterwards.
        context: of TLS, for https.
    """
    done = threading.Event()
    requests = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve(connection, pieces):
            if context is not None:
                try:
                    connection = context.wrap_socket(connection, server_side=True)
                except OSError:
                    connection.close()
                    return
            with contextlib.suppress(OSError), connection:
                requests.append(connection.recv(65536).decode())
                for piece in pieces:
                    if isinstance(piece, bytes):
                        connection.sendall(piece)
                    elif isinstance(piece, threading.Event):
                        piece.wait(WITHIN_S)
                    elif done.wait(piece):
                        return
                if hold:
                    done.wait(WITHIN_S)

        def accept():
            with contextlib.suppress(OSError):
                for number in range(100):
                    connection, _ = listening.accept()
                    pieces = answers[min(number, len(answers) - 1)]
                    threads.append(threading.Thread(target=serve, args=(connection, pieces)))
                    threads[-1].start()

        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", requests
        finally:
            done.set()
            listening.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(WITHIN_S)


def values(camera, count):
    found = []
    for _ in range(count):
        camera.grab()
        found.append(round(float(camera.retrieve().mean())))
    return found


@pytest.mark.parametrize(
    "body",
    [
        part(jpeg(50)) + part(jpeg(90)),
        part(jpeg(50), length=False) + part(jpeg(90), length=False) + b"--cut\r\n",
        b"a preamble\r\n\r\n" + part(jpeg(50)) + b"\r\n" + part(jpeg(90)),
        part(b"still here", "text/plain") + part(jpeg(50)) + part(b"") + part(jpeg(90)),
        (part(jpeg(50)) + part(jpeg(90))).replace(b"\r\n--", b"\n--").replace(b"Len", b"lEN"),
        part(jpeg(50) + bytes(100)) + part(jpeg(90)),
    ],
    ids=["plain", "no length", "preamble", "other parts", "newlines", "padded"],
)
def test_the_parts_of_an_answer_are_its_frames(body):
    with server([HEAD, body], hold=True) as (place, _):
        camera = open_camera(f"http://{place}/", LIMITS)
        assert camera.live
        assert values(camera, 2) == [50, 90]
        camera.close()


@pytest.mark.parametrize(
    "boundary", ['"cut"', "--cut", "cut; charset=x"], ids=["quoted", "dashes", "more"]
)
def test_boundaries_are_written_in_many_ways(boundary):
    head = HEAD.replace(b"boundary=cut", b"boundary=" + boundary.encode())
    with server([head, part(jpeg(50))], hold=True) as (place, _):
        camera = open_camera(f"http://{place}/", LIMITS)
        assert values(camera, 1) == [50]
        camera.close()


def test_a_picture_is_stamped_when_its_header_arrives():
    """Also where the boundary comes long before it, right behind the picture before."""
    first, second = part(jpeg(50)), part(jpeg(90))
    sent = threading.Event()
    pieces = [HEAD, first + b"--cut\r\n", sent, second.removeprefix(b"--cut\r\n")]
    with server(pieces, hold=True) as (place, _):
        camera = open_camera(f"http://{place}/", LIMITS)
        camera.grab()
        before_ns = time.monotonic_ns()
        sent.set()
        assert before_ns <= camera.grab() <= time.monotonic_ns()
        camera.close()


@pytest.mark.parametrize("cut", [20, 400])
def test_a_picture_that_was_cut_off_is_no_frame(cut):
    with server([HEAD, part(jpeg(50)[:cut]), part(jpeg(90))], hold=True) as (place, _):
        camera = open_camera(f"http://{place}/", LIMITS)
        camera.grab()
        with pytest.raises(DataError, match=f"was cut off after {cut} bytes"):
            camera.retrieve()
        assert values(camera, 1) == [90]
        camera.close()


@pytest.mark.parametrize("content", [b"\xff\xd8 nonsense \xff\xd9", b"no picture at all"])
def test_a_picture_that_is_none_is_a_data_error(content):
    with server([HEAD, part(content), part(jpeg(90))], hold=True) as (place, _):
        camera = open_camera(f"http://{place}/", LIMITS)
        camera.grab()
        with pytest.raises(DataError, match="cannot be decoded"):
            camera.retrieve()
        assert values(camera, 1) == [90]
        camera.close()


def test_a_frame_of_another_size_is_a_frame():
    with server([HEAD, part(jpeg(1)), part(jpeg(1, (96, 128)))], hold=True) as (place, _):
        camera = open_camera(f"http://{place}/", LIMITS)
        shapes = [(camera.grab(), camera.retrieve().shape)[1] for _ in range(2)]
        assert shapes == [(48, 64, 3), (96, 128, 3)]
        camera.close()


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        (b"", "gives no more frames"),
        (b"--cut--\r\n", "gives no more frames"),
        (part(jpeg(5))[:200], "gives no more frames"),
        (b"--cut\r\nContent-Length: 99999999999\r\n\r\n", "sends a frame of 99999999999 bytes"),
        (b"--cut\r\nContent-Length: -1\r\n\r\n", "sends a frame of -1 bytes"),
        (b"--cut\r\nContent-Length: many\r\n\r\n", "broke off: ValueError"),
    ],
)
def test_a_stream_that_breaks_off_is_lost(rest, says):
    with server([HEAD, part(jpeg(50)), rest]) as (place, _):
        camera = open_camera(f"http://{place}/", LIMITS)
        camera.grab()
        with pytest.raises(SourceError, match=says):
            camera.grab()
        camera.close()


@pytest.mark.parametrize("drip", [[], [b"--cut\r\n", *[0.1, b"x"] * 300]], ids=["silent", "drip"])
def test_a_stalled_stream_is_noticed_even_if_single_bytes_come(drip):
    with server([HEAD, part(jpeg(50)), *drip], hold=True) as (place, _):
        camera = open_camera(f"http://{place}/", Timeouts(open_s=20, read_s=0.5))
        camera.grab()
        with pytest.raises(SourceError, match=r"gave no frame within 0\.5 s"):
            camera.grab()
        camera.close()


@pytest.mark.parametrize(
    "pieces",
    [[], [b"HTTP/1.1 200 OK\r\n", *[0.1, b"X: y\r\n"] * 300], [HEAD], [HEAD, *[0.1, b"x"] * 300]],
    ids=["silent", "drips headers", "no picture", "drips"],
)
def test_an_answer_that_does_not_come_is_given_up(pieces):
    given_up = pytest.raises(SourceError, match=r"within 0\.4 s")
    with server(pieces, hold=True) as (place, _), given_up:
        open_camera(f"http://{place}/", Timeouts(open_s=0.4, read_s=5))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "the server says 404"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "says 401; give user and password"),
        (
            b'HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM x="Zq7"\r\nContent-Length: 0\r\n\r\n',
            "401|Basic",
        ),
        (b"SSH-2.0-OpenSSH\r\n", "it is no HTTP server"),
        (b"", "it is no HTTP server, or it broke off|Connection reset"),
    ],
)
def test_a_server_that_says_no(answer, says):
    with server([answer]) as (place, _):
        with pytest.raises(SourceError, match=says) as caught:
            open_camera(f"http://me:Zq7Zq7@{place}/x?key=Zq7", LIMITS)
        assert "Zq7" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["http://me:Zq7/x@127.0.0.1/", "http://me:Zq7@127.0.0.1/a b", "http://", "http://me:Zq7@[/"],
)
def test_an_address_that_cannot_be_is_told_without_its_password(uri):
    with pytest.raises(UsageError, match="no address of a server") as caught:
        open_camera(uri, LIMITS)
    assert "Zq7" not in str(caught.value)


def test_user_and_password_are_sent_once_they_are_asked_for():
    ask = b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="cam"\r\nContent-Length: 0\r\n\r\n'
    with server([ask], [HEAD, part(jpeg(50))], hold=True) as (place, requests):
        camera = open_camera(f"http://me:p%40ss@{place}/x", LIMITS)
        assert values(camera, 1) == [50]
        camera.close()
    assert "Authorization" not in requests[0]
    assert "Authorization: Basic bWU6cEBzcw==" in requests[1]  # me:p@ss
    assert "p%40ss" not in requests[0].splitlines()[0]


def test_digest_authentication():
    ask = (
        b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="cam", nonce="n1", qop="auth"\r\n'
        b"Content-Length: 0\r\n\r\n"
    )
    with server([ask], [HEAD, part(jpeg(50))], hold=True) as (place, requests):
        camera = open_camera(f"http://me:secret@{place}/x", LIMITS)
        assert values(camera, 1) == [50]
        camera.close()
    assert "secret" not in requests[1]
    fields = dict(
        pair.split("=", 1)
        for pair in requests[1].split("Authorization: Digest ")[1].split("\r\n")[0].split(", ")
    )
    sent = {key: value.strip('"') for key, value in fields.items()}

    def md5(text):
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    middle = f"n1:{sent['nc']}:{sent['cnonce']}:auth"
    assert sent["response"] == md5(f"{md5('me:cam:secret')}:{middle}:{md5('GET:/x')}")


def test_a_redirection_is_followed_without_the_password():
    with server([HEAD, part(jpeg(50))], hold=True) as (other, requests):
        move = f"HTTP/1.1 302 Go\r\nLocation: http://{other}/y\r\nContent-Length: 0\r\n\r\n"
        with server([move.encode()]) as (place, _):
            camera = open_camera(f"http://me:secret@{place}/x", LIMITS)
            assert values(camera, 1) == [50]
            camera.close()
    assert "GET /y" in requests[0]
    assert "Authorization" not in requests[0]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl: apt-get install openssl")
def test_a_certificate_must_be_right_unless_it_is_said_otherwise(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=camera"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with server([HEAD, part(jpeg(50))], hold=True, context=context) as (place, _):
        with pytest.raises(SourceError, match="certificate; .* add #verify=off"):
            open_camera(f"https://{place}/", LIMITS)
        camera = open_camera(f"https://{place}/#verify=off", LIMITS)
        assert values(camera, 1) == [50]
        camera.close()


def test_what_is_not_multipart_goes_to_the_other_decoder(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(40):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: video/x-msvideo\r\n\r\n"
    with server([head, path.read_bytes()]) as (place, requests):
        camera = open_camera(f"http://{place}/clip.avi", LIMITS)
        assert values(camera, 2) == pytest.approx([90, 90], abs=3)
        camera.close()
        assert len(requests) >= 2
