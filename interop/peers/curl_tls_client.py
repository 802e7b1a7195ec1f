"""curl (curl_cffi, on BoringSSL) as client of `python -m interop tls`, with Chrome's hello."""

from __future__ import annotations

import os
import sys

from curl_cffi import CurlHttpVersion, CurlOpt, requests

UNSUPPORTED = 127
TIMEOUT = 30
EARLY_DATA = 1 << 6
"""CURLSSLOPT_EARLYDATA."""
REQUESTS = {"handshake": 1, "resumption": 2, "zerortt": 2}


def main() -> int:
    testcase = os.environ["TESTCASE"]
    if os.environ["ROLE"] != "client" or testcase not in REQUESTS:
        return UNSUPPORTED
    options = {CurlOpt.FORBID_REUSE: 1}  # a connection per request; sessions are kept
    if testcase == "zerortt":
        options[CurlOpt.SSL_OPTIONS] = EARLY_DATA
    url = os.environ["REQUESTS"].split()[0]
    with requests.Session(
        impersonate="chrome",
        http_version=CurlHttpVersion.V3ONLY,
        verify=f"{os.environ['CERTS']}/ca.pem",
        curl_options=options,
    ) as session:
        for _ in range(REQUESTS[testcase]):
            response = session.get(url, timeout=TIMEOUT)
            if response.status_code != 200:
                print(f"status {response.status_code}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
