"""The grammar of HTTP fields: regular expressions with their ABNF (RFC 9110, 9114, 3986)."""

from __future__ import annotations

import re

# token = 1*tchar
# tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~"
#       / DIGIT / ALPHA                                               (RFC 9110 section 5.6.2)
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# RFC 9114 section 4.2: field names MUST be converted to lowercase prior to their encoding.
FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")

# field-value   = *field-content
# field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]
# field-vchar   = VCHAR / obs-text                                      (RFC 9110 section 5.5)
FIELD_VALUE = re.compile(
    rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)

# Content-Length = 1*DIGIT                                              (RFC 9110 section 8.6)
# Limited to nineteen digits, which exceed the length of any body.
CONTENT_LENGTH = re.compile(rb"[0-9]{1,19}")

# uri-host [ ":" port ] without userinfo (RFC 9110 section 4.2.4 deprecates it; RFC 9114 section
# 4.3.1 forbids it): reg-name, IPv4 address, or an IP-literal in brackets (RFC 3986 section 3.2.2).
AUTHORITY = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"
)

# :path = path-absolute [ "?" query ], any visible ASCII but "#" (RFC 9114 section 4.3.1).
# Browsers send unescaped characters such as "|" or "{", so this is wider than RFC 3986, but it
# admits no space, control character or fragment: nothing that could end a request line. Non-ASCII
# octets are rejected: a URI cannot contain them, and servers interpret them differently.
PATH = re.compile(rb"/[\x21\x22\x24-\x7e]*")

# scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )                 (RFC 3986 section 3.1)
SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*")
