"""A real OpenSSH server on loopback that stands for a device, and an ssh client that knows it."""

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from waiting import LIMIT_S

import edgekit

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
SSH = shutil.which("ssh")


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def key(path):
    """Make a key pair and return its public half as known_hosts writes it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def script(path, *lines):
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


class Server:
    """An `sshd` in `folder`, and a folder `bin` with an `ssh` that has settings of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.host_key = key(folder / "host")
        (folder / "authorized").write_text(key(folder / "user") + "\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.on = f"{getpass.getuser()}@127.0.0.1:{self.port}"
        settings = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "authorized",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PidFile": "none",
        }
        (folder / "sshd").write_text(
            "".join(f"{name} {value}\n" for name, value in settings.items())
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        log = folder / "log"
        self._process = subprocess.Popen([SSHD, "-D", "-f", folder / "sshd", "-E", log])
        self.client(folder / "bin")
        try:
            self._wait_until_it_lets_us_in(log)
        except BaseException:
            self.close()
            raise

    def _wait_until_it_lets_us_in(self, log):
        ssh = [self.folder / "bin" / "ssh", "-o", "BatchMode=yes", "-p", str(self.port)]
        ssh += [self.on.rpartition(":")[0], "true"]
        deadline = time.monotonic() + LIMIT_S
        while (done := subprocess.run(ssh, capture_output=True, text=True)).returncode:
            refused = "refused" not in done.stderr or self._process.poll() is not None
            if refused or time.monotonic() > deadline:
                said = f"{done.stderr} {log.read_text() if log.exists() else ''}"
                pytest.skip(f"this machine's sshd lets nobody in: {' '.join(said.split())[-300:]}")
            time.sleep(0.05)

    def client(self, folder, *, host_key=None, identity=None):
        """Write an `ssh` into `folder` that knows one host key and one identity; return both."""
        folder.mkdir()
        known = "" if host_key == "" else f"[127.0.0.1]:{self.port} {host_key or self.host_key}\n"
        (folder / "known_hosts").write_text(known)
        settings = {
            "IdentityFile": identity or self.folder / "user",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
        }
        text = "".join(f"  {name} {value}\n" for name, value in settings.items())
        (folder / "config").write_text(f"Host *\n{text}")
        script(folder / "ssh", f'exec {shlex.quote(SSH)} -F {shlex.quote(f"{folder}/config")} "$@"')
        return folder

    def cut(self):
        """Kill the processes that serve connections, as if the network went."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self._process.pid:
                self._kill_tree(int(folder.name))

    def _kill_tree(self, pid):
        """Kill sshd's process of a connection and its unprivileged half, not what they started.

        One that ended by itself meanwhile is no longer there, or gone while its file is read.
        """
        children = []
        with suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for child in children:
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{child}/comm").read_text().startswith("sshd"):
                    os.kill(int(child), signal.SIGKILL)

    def close(self):
        self.cut()
        self._process.kill()
        self._process.wait()


class Device:
    """What stands for the device: its edgekit, its cache, and the process that it runs."""

    def __init__(self, folder):
        self.folder = folder
        self.cache = folder / "cache"
        self.command = self.edgekit("edgekit")

    def edgekit(self, name, *lines, cache=None):
        """Write a command that starts this edgekit; `lines` of shell come before."""
        package = shlex.quote(str(Path(edgekit.__file__).parents[1]))
        return script(
            self.folder / name,
            f"echo $$ > {shlex.quote(str(self.folder / 'pid'))}",
            f"export PYTHONPATH={package} EDGEKIT_CACHE={shlex.quote(str(cache or self.cache))}",
            *lines,
            f'exec {shlex.quote(sys.executable)} -m edgekit "$@"',
        )

    @property
    def pid(self):
        file = self.folder / "pid"
        return int(file.read_text()) if file.exists() and file.read_text().strip() else None

    def files(self):
        """Return the names of all that is kept of bundles."""
        return sorted(file.name for file in self.cache.rglob("*") if file.is_file())
