"""Drives Chromium by its DevTools protocol: opens a page, and writes what the console says
and what goes wrong, a line of JSON for each, until standard input ends."""

import asyncio
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

from websockets.asyncio.client import connect

# As root, without a screen, and without calls home.
OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    # Nobody that it knows has issued the certificate.
    "--ignore-certificate-errors",
    "--remote-debugging-port=0",
]

# The most seconds until it can be driven.
BOUND = 60


def say(kind, **fields):
    print(json.dumps({"kind": kind} | fields), flush=True)


async def page_of(profile):
    """The address of the DevTools of the one page."""
    port_file = profile / "DevToolsActivePort"
    async with asyncio.timeout(BOUND):
        while not port_file.exists() or len(port_file.read_text().split()) < 2:
            await asyncio.sleep(0.05)
        port = port_file.read_text().split()[0]
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                pages = [it for it in json.load(answer) if it["type"] == "page"]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
            await asyncio.sleep(0.05)


def report(method, params):
    if method == "Runtime.consoleAPICalled":
        text = " ".join(str(it.get("value", it.get("description"))) for it in params["args"])
        say("error" if params["type"] in ("error", "assert") else "console", text=text)
    elif method == "Runtime.exceptionThrown":
        details = params["exceptionDetails"]
        say("error", text=details.get("exception", {}).get("description", details["text"]))
    elif method == "Log.entryAdded":
        entry = params["entry"]
        if entry["level"] in ("error", "warning"):
            say("error", text=f"{entry['text']} {entry.get('url', '')}")


async def drive(url, profile):
    async with connect(await page_of(profile), max_size=None) as devtools:
        for number, (method, params) in enumerate(
            [("Runtime.enable", {}), ("Log.enable", {}), ("Page.navigate", {"url": url})]
        ):
            await devtools.send(json.dumps({"id": number, "method": method, "params": params}))
        async for message in devtools:
            message = json.loads(message)
            if "error" in message or message.get("result", {}).get("errorText"):
                say("error", text=str(message))
            elif "method" in message:
                report(message["method"], message["params"])


async def main(url):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        profile = pathlib.Path(directory)
        command = ["/usr/bin/chromium", *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        with open(profile / "said", "w") as said:
            chromium = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            driving = asyncio.ensure_future(drive(url, profile))
            await asyncio.wait([end, driving], return_when=asyncio.FIRST_COMPLETED)
            if driving.done():
                say("failed", text=f"{driving.exception()} {(profile / 'said').read_text()}")
        finally:
            chromium.terminate()
            chromium.wait()


asyncio.run(main(sys.argv[1]))
