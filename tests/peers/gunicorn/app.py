"""The app of the tests behind real fronts, for gunicorn; that for Puma does the same.

A request for /ID/MS/TIMES is written to the file EXECUTED before anything else is
done, takes so many milliseconds, and is answered with TIMES lines that say what was
asked, and the body that came.
"""

import os
import time

# One write at the end of the file for each request, whoever else writes there.
EXECUTED = os.open(os.environ["EXECUTED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def app(environ, start_response):
    method = environ["REQUEST_METHOD"]
    ident, wait, times = environ["PATH_INFO"].lstrip("/").split("/")
    body = environ["wsgi.input"].read()
    os.write(EXECUTED, f"{method} {ident}\n".encode())
    time.sleep(int(wait) / 1000)
    answer = f"{method} {ident}\n".encode() * int(times) + body
    fields = [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))]
    start_response("200 OK", fields)
    return [answer]
