"""Debian's chromium without a window, steered by its own driver, with what a test of a page asks of it."""

import json
import os
import shutil
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str:
    """Why there is no browser to test in; empty if there is one."""
    if not any(map(shutil.which, _BROWSERS)):
        return "there is no chromium: on Debian, apt-get install chromium chromium-driver"
    return (
        "" if shutil.which("chromedriver") else "there is no chromedriver: on Debian, apt-get install chromium-driver"
    )


class Browser:
    """One tab. What it asks of whom, and what it complains of, is kept since the last `open`."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(next(filter(None, map(shutil.which, _BROWSERS))))
        for argument in (
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
        ):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # root has none
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # Given both paths, selenium looks for nothing in the network.
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.driver.set_script_timeout(20)

    def quit(self) -> None:
        self.driver.quit()

    def open(self, url: str, *, scheme: str = "light", width: int = 1280, height: int = 900) -> None:
        """A page as a new visitor sees it."""
        self.driver.get("about:blank")
        self.command("Storage.clearDataForOrigin", origin=url.split("/#")[0], storageTypes="all")
        self.prefers(scheme)
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self.offline(False)
        self.complaints(), self.requests()
        self.driver.get(url)

    def command(self, name: str, **arguments: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def prefers(self, scheme: str, *, reduced_motion: bool = True) -> None:
        """Like a visitor who prefers this; without motion, colours are at once what they will be."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced_motion else "no-preference"},
        ]
        self.command("Emulation.setEmulatedMedia", features=features)

    def offline(self, is_: bool) -> None:
        self.command("Network.enable")
        self.command(
            "Network.emulateNetworkConditions",
            offline=is_, latency=0, downloadThroughput=-1, uploadThroughput=-1,
        )  # fmt: skip

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def run_async(self, script: str, *arguments: Any) -> Any:
        """What a script returns, which may await; it begins inside an async function."""
        wrapped = (
            "const done = arguments[arguments.length - 1];"
            f"(async (...given) => {{ {script} }})(...arguments).then(done, (error) => done({{error: String(error)}}));"
        )
        found = self.driver.execute_async_script(wrapped, *arguments)
        assert not (isinstance(found, dict) and set(found) == {"error"}), found
        return found

    def until(self, script: str, *arguments: Any, within_s: float = 20.0) -> Any:
        """What a script returns as soon as that is true."""
        wait = WebDriverWait(self.driver, within_s, poll_frequency=0.02)
        return wait.until(lambda _: self.run(script, *arguments), f"never true: {script}")

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        actions = webdriver.ActionChains(self.driver)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def complaints(self) -> list[str]:
        """What the console has said since it was last asked."""
        return [f"{entry['level']} {entry['message']}" for entry in self._log("browser")]

    def requests(self) -> list[dict[str, Any]]:
        """Requests since it was last asked: `url`, `method`, `headers`, `postData`."""
        messages = (json.loads(entry["message"])["message"] for entry in self._log("performance"))
        return [m["params"]["request"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call] # selenium's
        return entries
