"""Limits of certificate issuance by ACME: name, unit and rationale, as in `limits.py`."""

from typing import Final

RENEW_AT: Final = 2 / 3
"""Share of a certificate's life after which it is renewed, unless the issuer suggests another time:
what Let's Encrypt recommends, and enough for 60 attempts with a certificate of six days."""

RENEW_JITTER: Final = 0.05
"""Share of a certificate's life by which renewals are spread, earlier: certificates that were
ordered together are not renewed together."""

RENEW_AGE_MIN: Final = 3600.0
"""Seconds, or half of its life, that a certificate is served before it is renewed, whatever its
dates and its issuer say: with a clock that is wrong, orders would not end."""

RENEW_AGE_LEAST: Final = 60.0
"""Seconds that any certificate is: one that lives for seconds is a mistake of the issuer, which
would be asked without end. The shortest in use live for five minutes."""

BACKOFF_MIN: Final = 120.0
"""Seconds after a first failure; doubles with each: five attempts in the first hour, which is Let's
Encrypt's limit on failed validations per account, name and hour."""

BACKOFF_MAX: Final = 6 * 3600.0
"""Maximum seconds between attempts, as Caddy's."""

BACKOFF_SHARE: Final = 1 / 24
"""Share of a certificate's life that attempts are at most apart: eight in the last third."""

BACKOFF_JITTER: Final = 0.1
"""Share by which a delay is extended at random."""

RETRY_AFTER_MAX: Final = 7 * 86400.0
"""Maximum seconds of a Retry-After that are respected: Let's Encrypt's longest window. A longer one
is an error of the issuer."""

ISSUER_DOWN_MIN: Final = 60.0
"""Seconds that an issuer is left alone after it did not answer; doubles with each time."""

ISSUER_DOWN_MAX: Final = 3600.0

ISSUER_REFUSES: Final = 3600.0
"""Seconds that an issuer is left alone after it refused the account: an operator has to act."""

ORDERS_BURST: Final = 20
"""Orders that an issuer gets at once, and"""
ORDERS_PER_SECOND: Final = 1 / 3
"""how many per second over time: 20 per minute, as Caddy; Let's Encrypt allows 300 in three hours,
and that refills."""

ORDERS_AT_ONCE: Final = 4
"""Orders in progress, each in a process of its own (35 MB)."""

ORDER_TIMEOUT: Final = 900.0
"""Seconds for one order, DNS included."""

PROBE_SIZE: Final = 16 * 1024
"""Bytes that must fit into the storage before an order: a certificate's chain, key and record have
2 to 10 KB."""

VALIDATION_TIMEOUT: Final = 180.0
"""Seconds that an issuer has to validate a challenge, and to issue."""

ISSUER_PROCESS_MEMORY: Final = 256 << 20
"""Bytes of data of the process that speaks to an issuer: it needs 50 MB, and answers have no bound
of their own."""

REQUEST_TIMEOUT: Final = 30.0
"""Seconds for one HTTP request to an issuer."""

REQUEST_ATTEMPTS: Final = 4
"""Attempts of one request within an order when the issuer answers 5xx or not at all: giving up an
order costs more of its rate limits than a few seconds of patience."""

REQUEST_PATIENCE: Final = 30.0
"""Seconds of a Retry-After that an order in progress waits for; beyond, it fails."""

RATE_LIMIT_PAUSE: Final = 3600.0
"""Seconds to wait after a rate limit without Retry-After: most of Let's Encrypt's refill sooner."""

POLL_MIN: Final = 1.0
POLL_MAX: Final = 15.0
"""Bounds of the seconds between questions whether a validation or an order is done."""

NONCE_ATTEMPTS: Final = 12
"""Attempts of one request whose nonce is refused: with half of them refused, one in 4096 requests
fails."""

DNS_COMMAND_TIMEOUT: Final = 600.0
"""Seconds for the operator's command to change a DNS record and see it published."""

SYNC_INTERVAL: Final = 5.0
"""Seconds between looks at a storage for what other hosts or commands changed in it."""

CHALLENGE_SYNC_INTERVAL: Final = 1.0
"""Seconds between looks for challenges of other hosts of a fleet."""

CHALLENGE_SPREAD: Final = 3.0
"""Seconds that challenges have to reach all hosts of a fleet before the issuer asks for them."""

LOCK_LEASE: Final = 60.0
"""Seconds after which the lock of a host that vanished is free, where the storage cannot tell."""

LOCK_RENEWAL: Final = 15.0
"""Seconds between renewals of a held lease."""

RENEWAL_INFO_INTERVAL: Final = 6 * 3600.0
"""Seconds between questions when to renew, where the issuer does not say (RFC 9773 section 4.3)."""

RENEWAL_INFO_MIN: Final = 60.0
RENEWAL_INFO_MAX: Final = 86400.0
"""Bounds of what the issuer says (the same section)."""

QUESTIONS_AT_ONCE: Final = 200
"""Certificates asked about in one go."""

HOSTS_MAX: Final = 2000
"""Certificates managed by ACME: 4 KB each in every control message that replaces them, of 16 MB."""

ON_DEMAND_WAITING: Final = 256
"""Names that wait for an answer of `ask`; further ones are refused."""

ON_DEMAND_REPORT_DELAY: Final = 0.05
"""Seconds for which a worker gathers names without a certificate, and"""
ON_DEMAND_REPORTED: Final = 32
"""how many of them: 640 per second. Others are refused."""

ON_DEMAND_HELD: Final = 1000
"""Clients per worker that wait for a certificate; further ones are refused."""

ON_DEMAND_HELLO_MAX: Final = 32 * 1024
"""Bytes that a client may send while it waits: a ClientHello has at most 16 KB, most 2 KB."""

ON_DEMAND_REFUSALS: Final = 10_000
"""Names remembered that get no certificate; the oldest are forgotten first."""

ON_DEMAND_REFUSALS_LOGGED: Final = 1.0
"""Lines per second about names beyond the rate, which strangers can cause; all are counted."""

ON_DEMAND_REFUSED_FOR: Final = 60.0
"""Seconds for which a name is not asked about again."""

ASK_TIMEOUT: Final = 5.0
"""Seconds for one question to `ask`."""

ASKS_AT_ONCE: Final = 8
"""Questions to `ask` in progress, each in a thread."""

NOT_YET_VALID_MAX: Final = 86400.0
"""Seconds from now on at which an issued certificate may begin to be valid: clocks differ. Clients
refuse it until then."""

CERTIFICATE_MAX: Final = 64 * 1024
"""Bytes of an issued chain."""
