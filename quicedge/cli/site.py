"""The pages of the embedded origin."""

from __future__ import annotations

GALLERY_SIZE = 30
"""Sub-resources of `/gallery`."""

_STYLE = """\
:root { color-scheme: light dark; --ink: light-dark(#16202c, #e8edf2);
        --paper: light-dark(#f6f7f9, #11161c); --accent: light-dark(#0b6bcb, #6cb6ff); }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 46rem; margin: 3rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.9rem; letter-spacing: -0.02em; }
a { color: var(--accent); }
code { background: light-dark(#e6eaef, #1d2630); padding: 0.1em 0.35em; border-radius: 4px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); gap: 0.6rem; }
.tiles img { width: 100%; border-radius: 8px; }
"""

_HOME = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>It works over HTTP/3</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
<h1>It works over HTTP/3</h1>
<p>This page came from a small HTTP/1.1 origin, through quicedge, over QUIC.</p>
<ul>
<li><a href="/gallery">/gallery</a> has thirty pictures on one connection</li>
<li><a href="/echo">/echo</a> shows what the origin was sent</li>
<li><a href="/download?size=10MB">/download?size=10MB</a> sends bytes</li>
<li><code>/upload</code> counts and hashes what it is sent</li>
<li><a href="/slow?seconds=5">/slow?seconds=5</a> takes its time</li>
<li><a href="/events">/events</a> are server-sent events</li>
<li><a href="/early-hints">/early-hints</a>, <a href="/trailers">/trailers</a>,
    <a href="/status/418">/status/418</a>, <a href="/delay?seconds=2">/delay?seconds=2</a></li>
</ul>
</body>
</html>
"""


def page(path: str) -> tuple[str, bytes] | None:
    """Content type and body of a page, or None."""
    if path == "/":
        return "text/html; charset=utf-8", _HOME.encode()
    if path == "/style.css":
        return "text/css", _STYLE.encode()
    if path == "/gallery":
        return "text/html; charset=utf-8", _gallery().encode()
    if path.startswith("/tile/") and path.endswith(".svg") and path[6:-4].isdigit():
        number = int(path[6:-4])
        if number < GALLERY_SIZE:
            return "image/svg+xml", _tile(number).encode()
    return None


def _gallery() -> str:
    tiles = "\n".join(
        f'<img src="/tile/{number}.svg" alt="tile {number}" width="96" height="96">'
        for number in range(GALLERY_SIZE)
    )
    return _HOME.replace("It works over HTTP/3", "Gallery").split("<p>")[0] + (
        f'<div class="tiles">\n{tiles}\n</div>\n'
        '<p id="loaded"></p>\n'
        "<script>addEventListener('load', () => {\n"
        "  const done = [...document.images].filter(i => i.naturalWidth > 0).length;\n"
        "  document.getElementById('loaded').textContent = `${done} pictures loaded`;\n"
        "});</script>\n</body>\n</html>\n"
    )


def _tile(number: int) -> str:
    hue = number * 360 // GALLERY_SIZE
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96" viewBox="0 0 96 96">'
        f'<rect width="96" height="96" fill="hsl({hue} 70% 45%)"/>'
        f'<circle cx="48" cy="48" r="{12 + number}" fill="hsl({(hue + 180) % 360} 70% 80%)"/>'
        "</svg>\n"
    )
