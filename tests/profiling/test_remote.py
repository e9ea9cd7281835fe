"""Profiles that another machine measures: against a real OpenSSH server on loopback."""

import hashlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys

import msgspec
import pytest
import ssh_server
from profiling import made_profiles as made
from ssh_server import Device, Server, is_running
from waiting import LIMIT_S, wait_for

import edgekit
from edgekit.bundle import MANIFEST, read_bundle
from edgekit.cli import main
from edgekit.cli import profile as profile_verb
from edgekit.errors import CheckFailed, EdgeKitError, EnvironmentLacks, InputError, UsageError
from edgekit.profiling.remote import device as device_side
from edgekit.profiling.remote import kept as kept_module
from edgekit.profiling.remote import wire
from edgekit.profiling.remote.destination import Destination, check_command
from edgekit.profiling.remote.failures import explain
from edgekit.profiling.remote.kept import kept
from edgekit.profiling.remote.profile_on import option_words, profile_on
from edgekit.profiling.remote.wire import File, Hello

GREETING = wire.GREETING.decode()
SHORT = ("--runs", "20")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if ssh_server.SSHD is None or ssh_server.SSH is None:
        pytest.skip("no sshd: apt-get install openssh-server (ci/apt.txt)")
    running = Server(tmp_path_factory.mktemp("ssh"))
    yield running
    running.close()


@pytest.fixture
def use(monkeypatch):
    """Return a function that puts a folder with an `ssh` first on the PATH."""

    def use(folder):
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return use


@pytest.fixture
def device(server, tmp_path, use):
    use(server.folder / "bin")
    return Device(tmp_path)


@pytest.fixture
def large_bundle(classifier_bundle, tmp_path):
    """Return a bundle with a file of 8 MB: more than what is under way on a connection."""
    path = tmp_path / "large.edgekit"
    shutil.copytree(classifier_bundle, path)
    content = os.urandom(8_000_000)
    (path / "report.html").write_bytes(content)
    manifest = read_bundle(classifier_bundle).manifest
    files = {"report.html": hashlib.sha256(content).hexdigest(), **manifest.files}
    complete = msgspec.structs.replace(manifest, files=files)
    (path / MANIFEST).write_bytes(msgspec.json.encode(complete))
    return path


def sent(told):
    return [phase for phase, _, _ in told if phase.startswith("sending")]


# On a real connection


def test_the_device_measures_and_gets_nothing_twice(server, device, classifier_bundle, capsys):
    told = []
    command = device.edgekit("noisy", "echo Last login: never", "echo Welcome >&2")
    arguments = ["--threads", "1", *SHORT, "--remote-command", command, "--json", "-"]
    assert main(["profile", str(classifier_bundle), "--on", server.on, *arguments]) == 0
    printed = capsys.readouterr()
    (first,) = json.loads(printed.out)["profiles"]
    assert "samples_ms" not in first
    assert f"latency of {classifier_bundle}" in printed.err
    assert "Welcome" not in printed.err
    measured = profile_on(
        server.on,
        classifier_bundle,
        ["--threads", "1", *SHORT],
        remote_command=command,
        on_progress=lambda *progress: told.append(progress),
    )
    (only,) = measured.profiles
    assert only.runs == first["runs"] == len(only.samples_ms) == 20
    assert only.threads == 1
    assert measured.bundle == str(classifier_bundle)
    assert measured.environment["edgekit"] == edgekit.__version__
    assert told[0] == (f"connecting to {server.on}", 0, 0)
    assert sent(told) == []
    assert device.files() == sorted(file.name for file in classifier_bundle.iterdir())


def test_what_the_device_says_keeps_its_exit_code(server, device, classifier_bundle, tmp_path):
    hit = tmp_path / "hit"
    hostile = f"$(touch {hit}); touch '{hit}' `touch {hit}`"  # crosses as JSON: no shell sees it
    for arguments, code, words in (
        (["--backend", hostile], 2, "touch"),
        (["--threads", "0"], 2, "`threads` must"),
    ):
        with pytest.raises(EdgeKitError, match=words) as raised:
            profile_on(server.on, classifier_bundle, arguments, remote_command=device.command)
        assert raised.value.exit_code == code
        assert str(raised.value).startswith(f"{server.on}: ")
    assert not hit.exists()


def test_a_device_without_edgekit_is_told_how_to_get_it(server, device, classifier_bundle):
    with pytest.raises(EnvironmentLacks, match="no edgekit there .*pip install.*--remote-command"):
        profile_on(server.on, classifier_bundle, remote_command="/nowhere/edgekit")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            [f"""echo '{wire.GREETING.decode()}{{"protocol":1,"edgekit":"0.0.9"}}'""", "cat"],
            "0.0.9",
        ),
        ([f"""echo '{wire.GREETING.decode()}{{"protocol":7,"edgekit":"7.1"}}'""", "cat"], "7.1"),
        ([f"echo '{wire.GREETING.decode()}[]'", "cat"], "does not understand"),
        (["echo \"edgekit: No such command '_device'.\" >&2", "exit 2"], "too old"),
        (["exit 0"], "no edgekit that can be worked with"),
    ],
)
def test_another_version_is_refused(server, device, classifier_bundle, lines, words):
    command = ssh_server.script(device.folder / "other", *lines)
    with pytest.raises(EnvironmentLacks, match=words):
        profile_on(server.on, classifier_bundle, remote_command=command)


def test_a_host_key_that_is_not_known_is_not_accepted(
    server, device, use, tmp_path, classifier_bundle
):
    folder = server.client(tmp_path / "bin", host_key="")
    use(folder)
    with pytest.raises(EnvironmentLacks, match="host key is not known here"):
        profile_on(server.on, classifier_bundle, remote_command=device.command)
    assert (folder / "known_hosts").read_text() == ""
    assert device.pid is None


def test_a_host_key_that_changed_is_not_accepted(server, device, use, tmp_path, classifier_bundle):
    other = ssh_server.key(tmp_path / "other")
    folder = server.client(tmp_path / "bin", host_key=other)
    use(folder)
    with pytest.raises(EnvironmentLacks, match=r"another machine answers.*ssh-keygen -f .* -R"):
        profile_on(server.on, classifier_bundle, remote_command=device.command)
    assert other in (folder / "known_hosts").read_text()
    assert device.pid is None


def test_a_key_that_the_device_refuses(server, device, use, tmp_path, classifier_bundle):
    ssh_server.key(tmp_path / "stranger")
    use(server.client(tmp_path / "bin", identity=tmp_path / "stranger"))
    with pytest.raises(EnvironmentLacks, match=r"login was refused \(.*publickey.*ssh-copy-id"):
        profile_on(server.on, classifier_bundle, remote_command=device.command)


def test_no_server_at_the_port(server, device, classifier_bundle):
    with pytest.raises(EnvironmentLacks, match="no ssh server listens there"):
        profile_on("127.0.0.1:1", classifier_bundle, remote_command=device.command)


def test_no_ssh_client(classifier_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentLacks, match="apt install openssh-client"):
        profile_on("pi@device", classifier_bundle)


def test_a_connection_that_is_cut_while_measuring(server, device, classifier_bundle):
    def cut(phase, done, total):
        if not phase.startswith(("connecting", "sending", "opening")):  # the device's own
            server.cut()

    with pytest.raises(EnvironmentLacks, match="lost in the middle") as raised:
        profile_on(
            server.on,
            classifier_bundle,
            ["--duration", "600"],
            remote_command=device.command,
            on_progress=cut,
        )
    assert raised.value.exit_code == 3
    wait_for(lambda: not is_running(device.pid), "the device's process to end by itself")
    assert device.files() == sorted(file.name for file in classifier_bundle.iterdir())


def test_ctrl_c_ends_the_run_on_the_device_too(server, device, classifier_bundle):
    arguments = ["--duration", "600", "--on", server.on, "--remote-command", device.command]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit", "profile", classifier_bundle, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: MANIFEST in device.files(), "the device to have the bundle")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert output == ""
    assert errors == "edgekit: interrupted; nothing was left half-written\n"
    wait_for(lambda: not is_running(device.pid), "the device's process to end")


def test_an_upload_that_is_cut_goes_on_where_it_was(server, device, large_bundle):
    def cut(phase, done, total):
        if "report.html" in phase and done > total / 2:
            server.cut()

    with pytest.raises(EnvironmentLacks, match="what was sent is kept"):
        profile_on(server.on, large_bundle, remote_command=device.command, on_progress=cut)
    wait_for(lambda: not is_running(device.pid), "the device's process to end by itself")
    assert device.files() == [".report.html.partial"]
    told = []
    profile_on(
        server.on,
        large_bundle,
        SHORT,
        remote_command=device.command,
        on_progress=lambda *progress: told.append(progress),
    )
    first_kb = next(done for phase, done, _ in told if "report.html" in phase)
    assert first_kb > 1000
    assert device.files() == sorted(file.name for file in large_bundle.iterdir())


def test_a_file_that_the_device_cannot_keep_whole(server, device, large_bundle):
    """A limit on the size of files, which stops the writing as a full disk does."""
    command = device.edgekit("limited", "ulimit -f 100")
    with pytest.raises(EnvironmentLacks, match=r"cannot write .*partial: File too large") as raised:
        profile_on(server.on, large_bundle, remote_command=command)
    assert raised.value.exit_code == 3
    assert device.files() == []


def test_a_full_disk_is_told_before_anything_is_sent(server, device, large_bundle):
    """On a file system of 1 MB that only the device's process sees."""
    private = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", device.folder]
    if shutil.which("unshare") is None or subprocess.run(private, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")
    inner = ssh_server.script(
        device.folder / "inner",
        f"mkdir -p {device.cache}",
        f"mount -t tmpfs -o size=1m tmpfs {device.cache}",
        f'exec {device.command} "$@"',
    )
    command = ssh_server.script(device.folder / "full", f'exec unshare -m {inner} "$@"')
    told = []
    with pytest.raises(EnvironmentLacks, match="the disk is full: .* needs 8.0 MB"):
        profile_on(
            server.on,
            large_bundle,
            remote_command=command,
            on_progress=lambda *progress: told.append(progress),
        )
    assert sent(told) == []


def test_a_cache_that_cannot_be_written(server, device, classifier_bundle):
    command = device.edgekit("locked", cache="/proc/nowhere")
    with pytest.raises(EnvironmentLacks, match="cannot write /proc/nowhere"):
        profile_on(server.on, classifier_bundle, remote_command=command)


# A device that answers what cannot be: a script in the place of ssh, which says what it is told


@pytest.fixture
def answer(tmp_path, use):
    """Return a function that gives what the device writes after its greeting and the order."""

    def answer(content):
        (tmp_path / "answer").write_bytes(content)
        hello = msgspec.json.encode(Hello(wire.PROTOCOL, edgekit.__version__)).decode()
        (tmp_path / "bin").mkdir()
        lines = f"echo '{GREETING}{hello}'", "read order", f"cat {tmp_path}/answer"
        ssh_server.script(tmp_path / "bin" / "ssh", *lines)
        use(tmp_path / "bin")

    return answer


def changed(**changes):
    return msgspec.structs.replace(made.measured([1.0, 2.0, 3.0]), **changes)


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ((), "no measured configuration"),
        ((changed(starts_s=(0.0,)),), "not of one length"),
        ((changed(stage_samples_ms={"infer": (1.0,)}),), "not of one length"),
        ((changed(samples_ms=(1.0, -2.0, 3.0)),), "less than no time"),
        ((changed(cpu_ms=-1e300),), "-1e[+]300 cannot have been measured"),
    ],
)
def test_figures_that_cannot_be_are_refused(answer, classifier_bundle, profiles, words):
    manifest = read_bundle(classifier_bundle).manifest
    sha256 = manifest.files[manifest.model]
    profile = made.of(profiles=profiles, bundle_sha256=sha256)
    answer(b'{"type":"ready"}\n' + msgspec.json.encode(profile))
    with pytest.raises(EnvironmentLacks, match=f"x: its edgekit's answer is no profile .*{words}"):
        profile_on("x", classifier_bundle)


def test_figures_of_another_model_are_refused(answer, classifier_bundle):
    answer(b'{"type":"ready"}\n' + msgspec.json.encode(made.healthy()))
    with pytest.raises(EnvironmentLacks, match="it is of another model"):
        profile_on("x", classifier_bundle)


NESTED = b'{"other":' + b'{"a":' * 100_000


@pytest.mark.parametrize("said", [NESTED + b"\n", b'{"type":"ready"}\n' + NESTED])
def test_an_answer_that_is_nested_without_end_is_refused(answer, classifier_bundle, said):
    answer(said)
    with pytest.raises(EnvironmentLacks, match="does not understand|is no profile"):
        profile_on("x", classifier_bundle)
    assert wire.progress_of(NESTED) is None


# What reaches ssh and the device's shell


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("pi@10.0.0.5", ["--", "pi@10.0.0.5"]),
        ("pi@board.local:2222", ["-p", "2222", "--", "pi@board.local"]),
        ("jetson", ["--", "jetson"]),
        ("fe80::1%eth0", ["--", "fe80::1%eth0"]),
        ("me@[::1]:2222", ["-p", "2222", "--", "me@::1"]),
        (r"corp\me@host", ["--", r"corp\me@host"]),
    ],
)
def test_a_destination_reaches_ssh_as_it_is(text, arguments):
    destination = Destination.parse(text)
    assert destination.arguments() == arguments
    assert str(destination) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=touch x",
        "-l@host",
        "a@-oProxyCommand=x",
        "host;reboot",
        "$(reboot)",
        "a b",
        "host\n",
        "host:0",
        "host:65536",
        "host:ssh",
        "host:",
        "a@b@c",
        "ssh://host",
        "[::1",
        "hôte",
    ],
)
def test_what_ssh_could_take_for_something_else_is_refused(text):
    with pytest.raises(UsageError, match="`on` must look like"):
        Destination.parse(text)


@pytest.mark.parametrize(
    "command", ["edgekit", "~/.venv/bin/edgekit", "env A=1 python3 -m edgekit"]
)
def test_a_command_is_words(command):
    assert check_command(command) == command


@pytest.mark.parametrize(
    "command", ["", "-x", "a;b", "a&b", "a|b", "`a`", "$(a)", "$A", "a>b", "'a'", "a\nb", "a\\b"]
)
def test_a_command_that_a_shell_acts_on_is_refused(command):
    with pytest.raises(UsageError, match="`remote-command` must be"):
        check_command(command)


HERE = {"on", "remote_command", "strict", "resume", "json"}
PAGES = {"samples", "trace", "markdown", "report"}


def test_every_option_for_the_device_reaches_it(monkeypatch, classifier_bundle, tmp_path):
    asked = []

    def stop(on, bundle, words, **options):
        asked.extend(words)
        raise CheckFailed("seen")

    monkeypatch.setattr("edgekit.profiling.remote.profile_on.profile_on", stop)
    values = {"scenario": "paced", "threads": "1,2", "backend": "litert", "source": "csi://0"}
    values |= {"sink": "a.jsonl", "rate": 5.0, "streams": 3, "duration": 2.0, "runs": 9}
    values |= {"within": 0.5, "processes": 4}
    given = [f"--{name}={value}" for name, value in values.items()]
    page = f"--report={tmp_path / 'page.html'}"
    assert main(["profile", str(classifier_bundle), "--on=x", "--strict", page, *given]) == 1
    assert sorted(asked) == sorted([*given, "--details"])
    options = set(inspect.signature(profile_verb.command).parameters) - {"bundles"}
    assert options - HERE - PAGES == {*values, "details"}


def test_what_one_bundle_took_is_kept_when_the_next_one_fails(
    monkeypatch, classifier_bundle, segmenter_bundle, tmp_path
):
    measured = {str(classifier_bundle): edgekit.profile(classifier_bundle, runs=10)}

    def profile_on(on, bundle, words, **options):
        if str(bundle.path) not in measured:
            raise EnvironmentLacks("the connection was lost")
        return measured[str(bundle.path)]

    monkeypatch.setattr("edgekit.profiling.remote.profile_on.profile_on", profile_on)
    file = tmp_path / "out.json"
    bundles = [str(classifier_bundle), str(segmenter_bundle)]
    assert main(["profile", *bundles, "--on=x", "--json", str(file)]) == 3
    assert [one["bundle"] for one in json.loads(file.read_text())["bundles"]] == bundles[:1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--remote-command", "edgekit"],
        ["--on", "x", "--resume", "--json", "x.json"],
        ["--on", "x", "--source", "-"],
        ["--on", "-x"],
        ["--on", "x", "--remote-command", "a;b"],
    ],
)
def test_wrong_use_is_2(arguments, classifier_bundle, capsys):
    assert main(["profile", str(classifier_bundle), *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_options_are_passed_on_as_words():
    given = {"threads": "-1", "rate": 30.0, "strict": False, "remote_command": None}
    words = option_words(**given, details=True, sink=["a b", "c"])
    assert words == ["--threads=-1", "--rate=30.0", "--details", "--sink=a b", "--sink=c"]


# What failures mean


@pytest.mark.parametrize(
    ("code", "said", "kind", "words"),
    [
        (255, ["ssh: Could not resolve hostname x: Name or service not known"], 3, "not known"),
        (255, ["ssh: connect to host x port 22: No route to host"], 3, "cannot be reached"),
        (255, ["ssh: connect to host x port 22: Connection timed out"], 3, "cannot be reached"),
        (255, ["x@y: Permission denied (publickey,password)."], 3, "login was refused"),
        (255, ["@ WARNING: REVOKED HOST KEY DETECTED! @"], 3, "not the one that is known"),
        (255, ["/home/x/.ssh/config: line 3: Bad configuration option"], 3, "line 3"),
        (255, [], 3, "without a word; try by hand: ssh x"),
        (126, ["sh: edgekit: Permission denied"], 3, "no edgekit there"),
        (1, ["noise", "edgekit: the gate is missed"], 1, "x: the gate is missed"),
        (2, ["edgekit: no such backend"], 2, "x: no such backend"),
        (3, ["edgekit: no GPU"], 3, "x: no GPU"),
        (70, ["edgekit: a bug of EdgeKit"], 3, "a bug"),
        (130, ["edgekit: interrupted"], 3, "interrupted"),
    ],
)
def test_failures_are_one_sentence_and_the_devices_exit_code(code, said, kind, words):
    error = explain("x", "x", "edgekit", code, said, greeted=False)
    assert words in str(error)
    assert error.exit_code == kind
    assert isinstance(error, CheckFailed) == (kind == 1)


@pytest.mark.parametrize(
    ("protocol", "version", "accepted"),
    [
        (wire.PROTOCOL, edgekit.__version__, True),
        (wire.PROTOCOL, ".".join([*edgekit.__version__.split(".")[:2], "99"]), True),
        (wire.PROTOCOL, "99.1.0", False),
        (wire.PROTOCOL + 1, edgekit.__version__, False),
    ],
)
def test_versions_that_differ_in_the_last_number_work_together(protocol, version, accepted):
    hello = Hello(protocol, version)
    if accepted:
        wire.check_version(hello, "x")
    else:
        with pytest.raises(EnvironmentLacks, match="first two numbers must be the same"):
            wire.check_version(hello, "x")


def test_progress_is_told_at_most_once_a_second(capsys, monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    tell = wire.teller(sys.stderr)
    for number in range(20):
        tell("measuring", number, 20)
        now_s[0] += 0.125
    lines = capsys.readouterr().err.encode().splitlines()
    assert [wire.progress_of(line)[1] for line in lines] == [0, 8, 16]
    assert wire.progress_of(b"note: nothing") is None


# What the device keeps


def kept_file(name, content):
    return File(name, len(content), hashlib.sha256(content).hexdigest())


CONTENTS = {"model.tflite": b"m" * 1000, MANIFEST: b"{}"}
FILES = [kept_file(name, content) for name, content in CONTENTS.items()]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    return tmp_path / "remote" / FILES[-1].sha256


def fetching(log, contents=CONTENTS):
    def fetch(name, offset, size):
        log.append((name, offset))
        yield contents[name][offset:size]

    return fetch


def test_a_part_that_is_damaged_is_fetched_anew(cache):
    cache.mkdir(parents=True)
    (cache / ".model.tflite.partial").write_bytes(b"x" * 10)
    log = []
    with kept(FILES, fetching(log)) as folder:
        assert (folder / "model.tflite").read_bytes() == CONTENTS["model.tflite"]
    assert log == [("model.tflite", 10), ("model.tflite", 0), (MANIFEST, 0)]
    with kept(FILES, fetching(log)):
        assert len(log) == 3
    (cache / "model.tflite").write_bytes(b"y" * 1000)
    with kept(FILES, fetching(log)) as folder:
        assert (folder / "model.tflite").read_bytes() == CONTENTS["model.tflite"]


def test_what_arrives_damaged_is_refused_and_not_kept(cache):
    with (
        pytest.raises(InputError, match=r"model.tflite arrived damaged"),
        kept(FILES, fetching([], {**CONTENTS, "model.tflite": b"y" * 1000})),
    ):
        pass
    assert list(cache.iterdir()) == []


def test_no_space_in_the_middle_is_told_and_leaves_room(cache):
    cache.mkdir(parents=True)
    (cache / ".model.tflite.partial").symlink_to("/dev/full")
    with pytest.raises(EnvironmentLacks, match="the disk is full"), kept(FILES, fetching([])):
        pass
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [
        [],
        FILES[:1],
        [*FILES, FILES[-1]],
        [*FILES, File("../x", 1, "0" * 64)],
        [*FILES, File(".x", 1, "0" * 64)],
        [*FILES, File("x", 1, "../..")],
        [*FILES, File("x", -1, "0" * 64)],
    ],
)
def test_files_of_no_bundle_are_refused(cache, files):
    with pytest.raises(InputError, match="refused file"), kept(files, fetching([])):
        pass
    assert not cache.exists()


def test_two_runs_share_a_bundle_but_not_its_sending(cache):
    def fetch(name, offset, size):
        with pytest.raises(EnvironmentLacks, match="another run is sending"), kept(FILES, fetch):
            pass
        yield CONTENTS[name]

    with kept(FILES, fetch) as one, kept(FILES, fetching([])) as other:
        assert one == other


def test_the_bundles_longest_unused_go(cache, monkeypatch):
    monkeypatch.setattr(kept_module, "_KEPT", 2)
    bundles = [[FILES[0], kept_file(MANIFEST, b"%d" % number)] for number in range(4)]
    for number, files in enumerate(bundles):
        with kept(files, fetching([], {**CONTENTS, MANIFEST: b"%d" % number})) as folder:
            pass
        os.utime(folder, (number, number))
    left = {folder.name for folder in cache.parent.iterdir()}
    assert left == {files[-1].sha256 for files in bundles[-2:]}


def test_what_cannot_be_removed_or_is_no_bundle_stays(cache, monkeypatch):
    monkeypatch.setattr(kept_module, "_KEPT", 0)
    cache.parent.mkdir(parents=True)
    aside = cache.parent / ("a" * 64)
    aside.symlink_to("/nowhere")
    (cache.parent / ("b" * 64)).write_text("a file")
    gone = cache.parent / ("c" * 64)
    gone.mkdir()
    opened = os.open

    def race(path, *options, **more):
        if path == gone and gone.exists():
            gone.rmdir()  # as another run does that forgets it
        return opened(path, *options, **more)

    monkeypatch.setattr(os, "open", race)
    with kept(FILES, fetching([])) as folder:
        left = {one.name for one in cache.parent.iterdir()}
    assert left == {folder.name, "a" * 64, "b" * 64}


# The device's side by itself


def test_the_devices_side_is_not_for_a_terminal(monkeypatch, capsys):
    main_end, terminal = os.openpty()
    with os.fdopen(terminal) as stdin, os.fdopen(main_end, "rb"):
        monkeypatch.setattr("sys.stdin", stdin)
        assert main(["_device"]) == 2
    assert "is started by edgekit profile --on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (b"", "the other machine is gone"),
        (b"nonsense\n", "cannot be read"),
        (b'{"files":[],"arguments":[]}\n', "refused files"),
        (b'{"files":[],"arguments":[1]}\n', "cannot be read"),
        (b'{"x":' * 10_000 + b"\n", "cannot be read"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(written, words, cache):
    (reader, far_writer), (far_reader, writer) = os.pipe(), os.pipe()
    os.write(far_writer, written)
    os.close(far_writer)
    with pytest.raises(EdgeKitError, match=words), device_side.order(reader, writer):
        pass
    os.close(writer)
    with os.fdopen(far_reader, "rb") as said:
        assert said.read().startswith(wire.GREETING)
    os.close(reader)


def ended(preparation, *, silence_s, grace_s, close):
    """Return the exit code of work without end that `end_with` watches over."""
    code = (
        "import signal, sys, time\n"
        "from edgekit.profiling.remote import device\n"
        f"{preparation}\n"
        "device.own_group()\n"
        f"device.end_with(0, silence_s={silence_s}, grace_s={grace_s})\n"
        "while True: time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    if close:
        process.stdin.close()
    code = process.wait(LIMIT_S)
    process.stdin.close()
    return code


def test_work_is_asked_to_end_when_nothing_comes():
    """The connection is there and silent, as after a pulled cable."""
    listens = "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))"
    assert ended(listens, silence_s=0.2, grace_s=600, close=False) == 7


def test_work_that_does_not_listen_is_killed_when_the_connection_is_closed():
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    assert ended(deaf, silence_s=600, grace_s=0.1, close=True) == -signal.SIGKILL
