"""Currencies by their codes, and money in them."""

from __future__ import annotations

import difflib
import re
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Final

from pydantic import AfterValidator

CURRENCIES: Final = frozenset(
    re.findall(
        r"[A-Z]{3}",
        """
        AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF
        CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ
        GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP
        LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR
        PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC
        SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XCG XOF XPF
        YER ZAR ZMW ZWG
        """,
    )
)
"""Codes of ISO 4217 for money that is paid with; no metals, funds or tests."""
CENT: Final = Decimal("0.01")


def _known(code: str) -> str:
    if code not in CURRENCIES:
        near = difflib.get_close_matches(code.upper(), sorted(CURRENCIES), n=1)
        guess = f"; did you mean `{near[0]}`?" if near else ", such as `EUR`"
        raise ValueError(f"is no currency of ISO 4217{guess}")
    return code


Currency = Annotated[str, AfterValidator(_known)]


def to_cents(amount: Decimal) -> Decimal:
    """The amount in whole hundredths; half a hundredth goes to the even one, so that many do not drift."""
    return amount.quantize(CENT, rounding=ROUND_HALF_EVEN)
