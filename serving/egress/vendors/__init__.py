"""Connectors: an OpenAI-shaped request in a vendor's words, and the vendor's answer in OpenAI's.

Pure: no socket, no clock, no settings. Whoever opens the connection asks a `Vendor` for the `request`, adds what `auth`
makes of the credential, sends exactly those bytes, and hands what comes back to `answer`, or to a `stream`'s `feed` and
`close`. A request's every field is either said in the vendor's words or refused by name; nothing is dropped.
"""

from serving.egress.vendors.anthropic import Anthropic
from serving.egress.vendors.calls import Answered, OutCall, StreamTranslator, Vendor, VendorRequest
from serving.egress.vendors.gemini import Gemini
from serving.egress.vendors.openai import Azure, Compatible, OpenAI

__all__ = [
    "Answered",
    "Anthropic",
    "Azure",
    "Compatible",
    "Gemini",
    "OpenAI",
    "OutCall",
    "StreamTranslator",
    "Vendor",
    "VendorRequest",
]
