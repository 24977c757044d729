"""A headless Chromium, driven over its DevTools protocol with nothing but a WebSocket client."""

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # a sandbox is not to be had as root, as in a container
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


class PageError(RuntimeError):
    """A script in the page threw."""


def find_chromium():
    """The path of a Chromium, or None."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One Chromium with one tab; a context manager that leaves no process and no profile."""

    def __init__(self, width=1280, height=960, executable=None):
        executable = executable or find_chromium()
        if executable is None:
            raise FileNotFoundError("no Chromium found: install one (Debian: apt-get install chromium) or set CHROMIUM")
        self._profile = tempfile.TemporaryDirectory(prefix="millrace-browser-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._ids = itertools.count(1)
        self.console = []
        try:
            endpoint = self._endpoint()
            self._socket = connect(endpoint, max_size=None, proxy=None)
            targets = self._call("Target.getTargets")["targetInfos"]
            page = next(t["targetId"] for t in targets if t["type"] == "page")
            self._session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            self._call("Page.enable")
            self._call("Runtime.enable")
            self._call("Log.enable")
            self._call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
        except BaseException:
            self.close()
            raise

    _session = None
    _socket = None

    def _endpoint(self, within_s=60):
        port_file = Path(self._profile.name, "DevToolsActivePort")
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"Chromium ended with status {self._process.returncode} before it listened")
            lines = port_file.read_text().splitlines() if port_file.exists() else []
            if len(lines) >= 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            time.sleep(0.05)
        raise TimeoutError(f"Chromium did not open its DevTools port within {within_s} s")

    def _call(self, method, **params):
        number = next(self._ids)
        request = {"id": number, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        self._socket.send(json.dumps(request))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._note(message)

    def _note(self, message):
        params = message.get("params", {})
        if message.get("method") == "Runtime.consoleAPICalled":
            self.console.append(f"{params['type']}: " + " ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif message.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append("exception: " + details.get("exception", {}).get("description", details["text"]))
        elif message.get("method") == "Log.entryAdded":
            self.console.append(f"{params['entry']['level']}: {params['entry']['text']} {params['entry'].get('url', '')}")

    def open(self, url):
        """Goes to a page."""
        failed = self._call("Page.navigate", url=url).get("errorText")
        if failed:
            raise ConnectionError(f"{url}: {failed}")

    def before(self, script):
        """Runs a script in every page that is opened from now on, before the page's own."""
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def run(self, script):
        """The value of a JavaScript expression in the page; promises are waited for."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait(self, script, within_s=30, what=None):
        """Waits until an expression is true, and gives its value."""
        deadline = time.monotonic() + within_s
        while True:
            value = self.run(script)
            if value:
                return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {within_s} s for {what or script}; console: {self.console[-5:]}")
            time.sleep(0.1)

    def screenshot(self, path):
        """Writes what the tab shows as PNG."""
        Path(path).write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        """Ends the browser."""
        if self._socket:
            self._socket.close()
        if self._process.poll() is None:
            # its children are in its session's process group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._profile.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
