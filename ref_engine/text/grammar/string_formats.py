"""What JSON Schema's `format` means for a text, as regular expressions of whole texts.

RFC 3339 (dates and times), RFC 4122 (UUIDs) and the shape of the others. Narrower than the documents where their letter
gives texts that no library reads: months have their days and February has 28, years begin at 1000, seconds have six
digits at most.
"""

from __future__ import annotations

_DAYS = r"((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
_DATE = rf"[1-9][0-9]{{3}}-{_DAYS}"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = r"([1-9]?[0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "email": r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}@[A-Za-z0-9-]{1,60}(\.[A-Za-z0-9-]{1,60}){1,3}",
    "ipv4": rf"({_BYTE}\.){{3}}{_BYTE}",
    "uri": r"https?://[A-Za-z0-9.-]{1,100}(/[A-Za-z0-9._~%-]{0,60}){0,8}",
}
DATES = ("date", "time", "date-time")  # those that llguidance has with days that no month has
