"""curl (by curl_cffi) as the client of http3: every file over HTTP/3 alone, one after another."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

UNSUPPORTED = 127
TIMEOUT = 30


def main() -> int:
    if (os.environ["ROLE"], os.environ["TESTCASE"]) != ("client", "http3"):
        return UNSUPPORTED
    from curl_cffi import CurlHttpVersion, requests

    downloads = Path(os.environ.get("DOWNLOADS") or "/downloads")
    with requests.Session(http_version=CurlHttpVersion.V3ONLY, verify=False) as session:
        for url in os.environ["REQUESTS"].split():
            response = session.get(url, timeout=TIMEOUT)
            if response.status_code != 200:
                print(f"{url}: status {response.status_code}", file=sys.stderr)
                return 1
            (downloads / Path(urlsplit(url).path).name).write_bytes(response.content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
