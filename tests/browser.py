"""A headless Chromium for tests that look at pages, spoken to through its DevTools pipe."""

import base64
import json
import os
import shutil
import subprocess
import time

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_LIMIT_S = 60


class Browser:
    """One page; what it writes to the console and asks the network for is kept.

    Attributes:
        console: texts of console messages and uncaught errors, and what failed to load.
        requests: addresses that the page asked for.
    """

    def __init__(self, folder, width=1100, height=900, *, dark=False):
        name = next((n for n in _NAMES if shutil.which(n)), None)
        if name is None:
            pytest.skip("no Chromium: apt-get install chromium")
        self.console, self.requests = [], []
        self._folder = folder
        self._number = 0
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        command = (
            f"exec {name} --headless=new --no-sandbox --disable-gpu --hide-scrollbars "
            f"--no-first-run --user-data-dir={folder}/profile --window-size={width},{height} "
            f"--remote-debugging-pipe about:blank 3<&{theirs_in} 4>&{theirs_out} 2>/dev/null"
        )
        self._process = subprocess.Popen(["bash", "-c", command], pass_fds=(theirs_in, theirs_out))
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb")
        self._session = None
        pages = self._ask("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        answer = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")
        self.show(width, height, dark=dark)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._in.close()

    def show(self, width, height=900, *, dark=False):
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[theme])

    def press(self, key, code):
        for kind, text in (("keyDown", {"text": "\r"} if key == "Enter" else {}), ("keyUp", {})):
            self._ask(
                "Input.dispatchKeyEvent",
                **{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, **text},
            )

    def open(self, address):
        self._ask("Page.navigate", url=address)

    def evaluate(self, script):
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    def wait_for(self, script):
        """Wait until `script` gives something true, and return it."""
        end_s = time.monotonic() + _LIMIT_S
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end_s, f"never true: {script}; console: {self.console}"
            time.sleep(0.1)
        return value

    def screenshot(self, path):
        answer = self._ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))

    def _ask(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._read())
            self._note(answer.get("method"), answer.get("params"))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self):
        content = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "Chromium ended"
            content += byte
        return content

    def _note(self, method, parameters):
        if method == "Runtime.exceptionThrown":
            self.console.append(parameters["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append(str([a.get("value") for a in parameters["args"]]))
        elif method == "Log.entryAdded":
            self.console.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
