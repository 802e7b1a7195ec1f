"""Throw-away files that stand in for those of the real edge: certificates, passwords, pages."""

from __future__ import annotations

import ssl
from functools import cached_property
from pathlib import Path

import bcrypt

from quicedge.config.devcerts import DevCertificate, ensure, issue_client

USER = "verify"
PASSWORD = "quicedge-verify"
"""Of the only user of each password file."""

PAGES = {
    "index.html": "<html><body>" + "<p>index</p>" * 200 + "</body></html>\n",
    "sample": "a file without an extension\n",
    "sample.html": "<html><body>a page</body></html>\n",
    "sample.css": "body { color: black }\n" * 100,
    "sample.js": "console.log('sample')\n" * 100,
    "sample.png": "not really a picture\n",
    "404.html": "<html><body>not here</body></html>\n",
    "50x.html": "<html><body>broken</body></html>\n",
}
"""What a directory has that stands in for one that this machine does not have."""


class Material:
    """The throw-away files, made in one directory as they are needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._certificate = ensure(directory / "certs")
        self.sites: dict[str, Path] = {}
        """Directories that stand in for missing ones."""

    @property
    def cert(self) -> str:
        return str(self._certificate.cert)

    @property
    def key(self) -> str:
        return str(self._certificate.key)

    @property
    def ca(self) -> str:
        return str(self._certificate.ca)

    @cached_property
    def client(self) -> DevCertificate:
        """What clients show to those who ask for a certificate, of `ca`."""
        return issue_client(self._certificate.ca.parent, USER)

    @cached_property
    def password_hash(self) -> str:
        return bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()

    @cached_property
    def htpasswd(self) -> str:
        """A file of one user whose password is known."""
        path = self._directory / "htpasswd"
        path.write_text(f"{USER}:{self.password_hash}\n")
        return str(path)

    def server_context(self) -> ssl.SSLContext:
        """For origins over TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def site(self, directory: str) -> str:
        """The directory itself, or one that stands in for it if it is missing."""
        if Path(directory).is_dir():
            return directory
        if directory not in self.sites:
            made = self._directory / "sites" / str(len(self.sites))
            made.mkdir(parents=True)
            for name, text in PAGES.items():
                (made / name).write_text(text)
            self.sites[directory] = made
        return str(self.sites[directory])

    def file(self, path: str) -> str:
        """The file itself, or one in its place if it is missing."""
        if Path(path).is_file():
            return path
        made = self._directory / "files" / path.lstrip("/")
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(PAGES.get(Path(path).name, f"in place of {Path(path).name}\n"))
        return str(made)
