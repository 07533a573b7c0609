"""A labelled corpus by which a detector of sensitive data is judged: made from a seed, with no data of real people.

`rows(seed, count, part)` makes it, `Row` and `Span` say what is where. It was written from the published rules of the
identifiers and without a look at any detector, and imports nothing of the product.
"""

from benchmarks.corpus.generator import LABELS, rows
from benchmarks.corpus.rows import PUBLIC_NAME, Row, Span, row_of, strings_of
from benchmarks.corpus.templates import PARTS, Part

__all__ = ["LABELS", "PARTS", "PUBLIC_NAME", "Part", "Row", "Span", "row_of", "rows", "strings_of"]
