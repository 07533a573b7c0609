"""Identifiers are found in what people write, under the right label, and what looks like them is not."""

from __future__ import annotations

import pytest

from serving.policy.detect import Part, Scanner, Verdict

SCANNER = Scanner()


def labels(text: str) -> set[str]:
    return set(SCANNER.scan([Part("/messages/0/content", text)]).labels)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("паспорт 4510 123456 выдан ОВД", "ru.passport"),
        ("Паспорт РФ: серия 45 10 № 123456", "ru.passport"),
        ("серия 4510, номер 123456", "ru.passport"),
        ('{"passport": {"series": "4510", "number": "123456"}}', "ru.passport"),
        ("СНИЛС 112-233-445 95", "ru.snils"),
        ("112-233-445 95", "ru.snils"),
        ("СНИЛС: 11223344595", "ru.snils"),
        ("ИНН 7707083893", "ru.inn_company"),
        ("ИНН7707083893/КПП770701001", "ru.inn_company"),
        ("ИНН физлица 500100732259", "ru.inn_person"),
        ("ОГРН 1027700132195", "ru.ogrn"),
        ("ОГРНИП 304500116000157", "ru.ogrnip"),
        ("Тел.: 8 (916) 123-45-67", "ru.phone"),
        ("+7 916 123 45 67", "ru.phone"),
        ("89161234567", "ru.phone"),
        ("водительское удостоверение 77 14 123456", "ru.driving_licence"),
        ("р/с 40817810099910004312 в банке, БИК 044525225", "ru.bank_account"),
        ("полис ОМС 7755 1234 5678 9012", "ru.medical_policy"),
        ("IBAN DE89 3704 0044 0532 0130 00", "iban"),
        ("GB82WEST12345698765432", "iban"),
        ("карта 4111 1111 1111 1111, до 12/27", "card"),
        ("5555555555554444", "card"),
        ("3782-822463-10005", "card"),
        ("MIR 2200 0000 0000 0004", "card"),
        ("Steuer-ID: 86 095 742 719", "de.tax_id"),
        ("Rentenversicherungsnummer 15 070649 C 103", "de.pension"),
        ("Krankenversichertennummer A123456780", "de.health_insurance"),
        ("Personalausweis T220001293", "de.id_card"),
        ("NIR 2 55 08 14 168 025 38", "fr.nir"),
        ("DNI 12345678Z", "es.dni"),
        ("12.345.678-Z", "es.dni"),
        ("NIE X1234567L", "es.nie"),
        ("codice fiscale RSSMRA85T10A562S", "it.codice_fiscale"),
        ("RSS MRA 85T10 A562S", "it.codice_fiscale"),
        ("BSN 111222333", "nl.bsn"),
        ("PESEL 44051401359", "pl.pesel"),
        ("NIP 526-104-08-28", "pl.nip"),
        ("NI number AB123456C", "gb.nino"),
        ("AB 12 34 56 C", "gb.nino"),
        ("NHS number 943 476 5919", "gb.nhs"),
        ("rijksregisternummer 85.07.30-033.28", "be.rrn"),
        ("personnummer 811228-9874", "se.personnummer"),
        ("131052-308T", "fi.hetu"),
        ("756.9217.0769.85", "ch.ahv"),
        ("OIB 33392005961", "hr.oib"),
        ("USt-IdNr. DE136695976", "eu.vat"),
        ("SSN 123-45-6789", "us.ssn"),
        ("social security number: 123456789", "us.ssn"),
        ("ITIN 912-70-1234", "us.itin"),
        ("NPI 1234567893", "us.npi"),
        ("routing number 021000021", "us.aba_routing"),
        ("call me: 415-555-2671, phone", "phone"),
        ("+49 30 901820", "phone"),
        ("Tel. 030 901820123", "phone"),
        ("ivan.petrov+work@mail.example.ru", "email"),
        ("иван@почта.рф", "email"),
        ("ivan [at] mail [dot] ru", "email"),
        ("ivan @ mail . ru", "email"),
        ("карта 4l11 l111 1111 111l", "card"),
        ("паспорт 45IО I23456", "ru.passport"),
        ("ivan собака mail точка ru", "email"),
        ("г. Москва, ул. Ленина, д. 5, кв. 12", "address"),
        ("живёт: Невский проспект 28", "address"),
        ("125009, Тверская ул., 7", "address"),
        ("221B Baker Street", "address"),
        ("Musterstraße 12, 10115 Berlin", "address"),
        ("12 rue de la Paix", "address"),
        ("Дата рождения: 12.03.1985", "birth_date"),
        ("12.03.1985 г.р.", "birth_date"),
        ("родилась 5 марта 1990 года", "birth_date"),
        ("DOB 1985-03-12", "birth_date"),
        ("geboren am 1. Februar 1970", "birth_date"),
    ],
)
def test_an_identifier_is_found(text: str, label: str) -> None:
    """With its usual context, or without one where its form is enough."""
    assert label in labels(text)


@pytest.mark.parametrize(
    "text",
    [
        "Заказ 7707083893 отгружен",
        "order no. 4510123456",
        "tracking 1027700132195",
        "550e8400-e29b-41d4-a716-446655440000",
        "12345678-1234-1234-1234-123456789012",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "d41d8cd98f00b204e9800998ecf8427e",
        "2026-01-31T12:30:45.123456Z INFO took=1234567ms",
        "1700000000 1700000000000 1700000000000000",
        "версия 3.11.7, сборка 20260131.1",
        "numpy==2.4.6 torch>=2.6,<3 package@4.17.21",
        "192.168.100.101:8080 10.0.0.1/24",
        "x = a @ b.T; y = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]",
        "git clone git@github.com:owner/repository.git",
        "@dataclass(frozen=True)\nclass A: ...",
        "for i in range(1000000000): total += 4294967296",
        "3.141592653589793238462643",
        "ISBN 978-3-16-148410-0",
        "commit 4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "id=4111111111111111",
        "заказ 89161234567",
        "Совещание 12.03.2024 в 15:00",
        "0x00007fff5fbff8c0 rsp 00000000 11111111",
        "4111 1111 1111 1112",
        "GB82 WEST 1234 5698 7654 33",
        "be patient, please",
        "шкаф из ДСП, 16 мм",
        "confidential_client = msal.ConfidentialClientApplication(authority)",
        "password = getpass.getpass()",
        "def login(user: str, password: str | None = None) -> Token: ...",
        "token = request.headers['Authorization']",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxx",
        "The patient scheduler waits",
        "2026-02-12 12:18:31,387 [666990] ERROR db.pool: connection 744299299 lost",
        "eos_token_id = vocabulary.ends[0]",
        "pass --allow-insecure-bind where the network is trusted",
        "nsswitch: passwd: files\\ngroup: files",
        "the password hash is SHA256 with a salt",
        "bank holidays and the balance of power",
        "площадь 45 м2, второй квартал 2024 года",
        "sorted by 4510123456",
    ],
)
def test_what_only_looks_like_one_is_clean(text: str) -> None:
    """Orders, hashes, log lines, versions, code."""
    finding = SCANNER.scan([Part("/messages/0/content", text)])
    assert finding.verdict is Verdict.CLEAN, finding


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("диагноз: сахарный диабет", "medical"),
        ("выписка из истории болезни", "medical"),
        ("Пациент поступил с жалобами, назначена химиотерапия", "medical"),
        ("The patient was diagnosed with asthma", "medical"),
        ("остаток на счёте 1 200 000 рублей", "financial"),
        ("его зарплата 150 000 руб. в месяц", "financial"),
        ("salary: $90,000", "financial"),
        ("Kontoauszug und Gehalt", "financial"),
        ("her annual salary is 90,000", "financial"),
        ("КОММЕРЧЕСКАЯ ТАЙНА", "document_label"),
        ("Для служебного пользования. Экз. № 1", "document_label"),
        ("ДСП экз. № 2", "document_label"),
        ("STRICTLY CONFIDENTIAL", "document_label"),
        ("VS-NfD", "document_label"),
        ("streng vertraulich", "document_label"),
        ("ФИО: Иванов Иван", "name.person"),
        ("Петрова Мария Сергеевна пришла", "name.person"),
        ("принял Иванов И. И.", "name.person"),
        ("Sehr geehrter Herr Müller", "name.person"),
        ("Mrs. Robinson called", "name.person"),
        ("меня зовут Олег", "name.person"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----", "secret.private_key"),
        ("AKIAIOSFODNN7EXAMPLE", "secret.cloud_key"),
        ("ghp_" + "a1B2" * 9, "secret.cloud_key"),
        ("sk-ant-api03-" + "aB3-" * 8, "secret.model_key"),
        ("hf_" + "aBcDeFgHiJ" * 3, "secret.model_key"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "secret.jwt"),
        ("пароль: Qwerty123!", "secret.password"),
        ("пароль от почты zxcvb123", "secret.password"),
        ("Password is hunter2x", "secret.password"),
        ("DB_PASSWORD=s3cr3t-value", "secret.password"),
        ('"password": "correct-horse"', "secret.password"),
        ("postgres://app:s3cr3t@db.example/base", "secret.password"),
    ],
)
def test_words_names_and_secrets_are_found(text: str, label: str) -> None:
    """Vocabularies, labels of documents, cues for names, keys and passwords."""
    assert label in labels(text)
