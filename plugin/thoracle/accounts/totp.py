"""Codes of an authenticator app (TOTP, RFC 6238), and recovery codes for when there is none.

What every app can: SHA-1, six digits, 30 seconds. The key has 160 bits, as RFC 4226 section 4
recommends.
"""

import hashlib
import re
import secrets
from datetime import datetime

import pyotp

RECOVERY_CODES = 10
_WINDOW = 1
"""Steps by which the clock of a phone may differ (RFC 6238 section 5.2)."""
_CODE = re.compile(r"[0-9]{6}")
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike
_LONGEST = 64
"""Characters of what is looked at."""


def new_secret() -> str:
    """Return a new secret: 160 random bits in base32."""
    return pyotp.random_base32()


def uri(secret: str, name: str, issuer: str) -> str:
    """Return what the QR code of a secret says: name and issuer are shown by the app."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=issuer)


def folded(typed: str) -> str:
    """Return a code as it is compared: spaces, hyphens and capitals do not count."""
    return re.sub(r"[\s-]", "", typed[:_LONGEST]).lower()


def is_code(code: str) -> bool:
    """Return whether a folded text can be the code of an app."""
    return _CODE.fullmatch(code) is not None


def step_of(secret: str, code: str, moment: datetime) -> int | None:
    """Return the time step that a code belongs to; ``None``: to none that counts at the moment."""
    try:
        return pyotp.TOTP(secret).verify_and_get_timecode(
            code, for_time=moment, valid_window=_WINDOW
        )
    except pyotp.OTPVerificationError:
        return None


def new_recovery_codes() -> list[str]:
    """Return new recovery codes: 15 letters in groups, 74 bits."""
    groups = [
        "".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(RECOVERY_CODES * 3)
    ]
    return ["-".join(groups[start : start + 3]) for start in range(0, len(groups), 3)]


def digest(code: str) -> str:
    """Return what the database keeps of a recovery code: it is too long to be guessed from it."""
    return hashlib.sha256(folded(code).encode("utf-8", "surrogatepass")).hexdigest()
