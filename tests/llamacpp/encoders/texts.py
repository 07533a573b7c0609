"""What is embedded and ranked in the tests: many languages, lengths from one word to the whole context."""

from __future__ import annotations

from typing import Final

SENTENCES: Final = (
    "The branch on Main Street opens at nine and closes at six.",
    "How do I block my card if it was stolen abroad?",
    "A deposit of 100,000 roubles for 181 days brings 7.4% a year.",
    "Комиссия за перевод между своими счетами не взимается.",
    "Как заблокировать карту, если её украли за границей?",
    "Договор вклада вступает в силу с момента внесения денег.",
    "Die Überweisung wird am nächsten Bankarbeitstag ausgeführt.",
    "Wie hoch ist der Zinssatz für ein Darlehen über fünf Jahre?",
    "Le virement sera exécuté le prochain jour ouvré à Paris.",
    "¿Cuál es el límite diario para retirar efectivo en España?",
    "O prazo do empréstimo não pode exceder sessenta meses.",
    "Kredi kartı başvurusu için gelir belgesi gerekir mi?",
    "Lãi suất tiền gửi tiết kiệm kỳ hạn sáu tháng là bao nhiêu?",
    "转账手续费是多少？请在工作日内办理。",
    "定期預金の金利は年にどのくらいですか。",
    "계좌 이체 한도를 늘리려면 어떻게 해야 합니까?",
    "ما هي رسوم التحويل الدولي بين البنوك؟",
    "מהי הריבית על הלוואה לשנה אחת?",
    "अंतरराष्ट्रीय हस्तांतरण शुल्क कितना है?",
    "อัตราดอกเบี้ยเงินฝากประจำเท่าไร",
    "Ποιο είναι το επιτόκιο του δανείου;",
    "Коштует ли обслуживание счёта? Нет, оно бесплатно.",
)

ODD: Final = (
    "a",
    "Zürich ZÜRICH zürich",
    "naïve café résumé coöperate",
    "x1 + y2 = (z-3)/4; f(x) => [1, 2, {3: 4}]",
    "https://example.org/a/b?c=d&e=f#g",
    "   many   spaces\tand\ttabs\nand\n\nlines   ",
    "ﬁnancial ＡＢＣ１２３ （full　width）",
    "emoji 🙂 and ☃ and ™ and ½",
    "ALL CAPITALS, ALL THE TIME",
    "1234567890 0987654321 31.12.2026",
    "don't can't won't it's we've",
    "... wait?! what... (no)",
    "ёЁйЙ ъЪ Ґґ Її",
    "\u00a0no\u00a0break\u00a0spaces\u00a0",
)

TEXTS: Final = (
    *SENTENCES,
    *ODD,
    *(f"{first} {second}" for first, second in zip(SENTENCES[::2], SENTENCES[1::2], strict=True)),
    " ".join(SENTENCES[:4]),
    " ".join(SENTENCES[6:9]),
    " ".join(("word",) * 40),
    "ставка " * 20,
    " ".join(SENTENCES[3:6]) * 2,
)
"""At least fifty."""

QUERIES: Final = (SENTENCES[1], SENTENCES[4], "deposit rate", "转账", "a")
DOCUMENTS: Final = (*SENTENCES, ODD[2], ODD[4], ODD[6], " ".join(SENTENCES[:3]))
