"""Trains the two small tokenizers of the tests; run once, the files it writes are kept.

    python -m tests.llamacpp.encoders.vocabularies

Trained on the very texts that the tests use, so that their words split in many ways. The normaliser of XLM-RoBERTa is
a table that SentencePiece compiles (NFKC, for the most part); `compile_map` compiles a small one in the same form.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tests.llamacpp.encoders.texts import TEXTS

HERE = Path(__file__).parent
WORD_PIECES, PIECES = 700, 900
MAPPED = {
    "\t": " ",
    "\n": " ",
    "\u00a0": " ",
    "\u3000": " ",
    "ﬁ": "fi",
    "½": "1⁄2",
    "™": "TM",
    "（": "(",
    "）": ")",
    "？": "?",
    **{chr(0xFF21 + place): chr(65 + place) for place in range(26)},
    **{chr(0xFF11 + place): chr(49 + place) for place in range(9)},
}
"""Characters and what becomes of them, as NFKC and SentencePiece have it."""


def compile_map(table: dict[str, str]) -> bytes:
    """SentencePiece's `precompiled_charsmap` for a table: a double array of 32-bit units, then the texts it points to.

    Every node of the trie has a block of 256 units of its own, which wastes room and keeps this short: the child for a
    byte is the block's unit of that number, and unit 0 holds the place of the text where a key ends.
    """
    texts, places = bytearray(), {}
    for value in table.values():
        if value not in places:
            places[value] = len(texts)
            texts += value.encode() + b"\0"
    root: dict[Any, Any] = {}
    for key, value in table.items():
        node = root
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node["end"] = places[value]
    nodes = [root]
    units: dict[int, int] = {0: (1 << 8) << 10}  # the first block holds the root's own unit alone
    for node in nodes:
        block = (nodes.index(node) + 1) << 8
        for byte, child in node.items():
            if byte == "end":
                units[block] = child | 1 << 31
                continue
            nodes.append(child)
            unit = block | byte
            units[unit] = (unit ^ len(nodes) << 8) << 10 | ("end" in child) << 8 | byte
    size = (len(nodes) + 1) << 8
    array = struct.pack(f"<{size}I", *(units.get(place, 0) for place in range(size)))
    return struct.pack("<I", len(array)) + array + bytes(texts)


def word_pieces() -> Tokenizer:
    """BERT's: lower case without accents, greedy pieces of words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=WORD_PIECES, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def pieces() -> Tokenizer:
    """XLM-RoBERTa's: the likeliest split of the text into pieces of known probability."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Precompiled(compile_map(MAPPED))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    # Characters of some texts stay unknown, as they do for the real one.
    known = [text for text in TEXTS if "อ" not in text and "🙂" not in text]
    trainer = trainers.UnigramTrainer(vocab_size=PIECES, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(known, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))],
    )
    return tokenizer


def charsmap(tokenizer: dict[str, Any]) -> bytes:
    """The compiled table out of a tokenizer.json."""
    return base64.b64decode(tokenizer["normalizer"]["precompiled_charsmap"])


def main() -> None:
    """Write both."""
    for name, tokenizer in (("wordpiece", word_pieces()), ("unigram", pieces())):
        value = json.loads(tokenizer.to_str())
        (HERE / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
