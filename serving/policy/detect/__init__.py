"""What a request holds that must not leave: personal data, secrets, labelled documents (docs/detection.md).

`Scanner(settings).scan(parts_of(body))` answers CLEAN, SENSITIVE or UNKNOWN, with the places and never the values.
UNKNOWN counts as SENSITIVE for whoever decides. What is scanned together gives itself context: a question in one
message says what the number in the next one is.

In the order of their work: `parts` (a body as texts), `fold` (one way of writing for many), `decoded` (escapes and
base64 undone), then the detectors, each a generator of `Hit`: `numbers` with the tables `russian`, `european`,
`american` and `cards`, `lettered`, `contact`, `dates`, `wording`, `money`, `markings`, `conditions` with the words of
`ailments`, `secret`, `cues`, `pairs` with the names of `given` and `people`, `site`; and `names`, behind a door of its
own, with a `memory` of what it was asked before. `context` reads what stands around a place, once for all rules, in the
words of `lexicon`.
"""

from serving.policy.detect.finding import Finding, Part, Span, together
from serving.policy.detect.parts import parts_of
from serving.policy.detect.scanner import NameFinder, Scanner
from serving.policy.detect.vocabulary import DetectSettings, SiteVocabulary
from serving.policy.verdict import Verdict

__all__ = [
    "DetectSettings",
    "Finding",
    "NameFinder",
    "Part",
    "Scanner",
    "SiteVocabulary",
    "Span",
    "Verdict",
    "parts_of",
    "together",
]
