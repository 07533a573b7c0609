"""Which maker stands behind which label in the held-out part."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from benchmarks.corpus import identifiers
from benchmarks.corpus.held_out import credentials, numbers, people


def _of(maker: Callable[[Random], str]) -> Callable[[Random, str], str]:
    """One that does not ask for the language."""
    return lambda rng, _language: maker(rng)


MAKERS: Final[dict[str, Callable[[Random, str], str]]] = {
    "ru.passport": _of(numbers.passport),
    "ru.snils": _of(numbers.snils),
    "ru.inn_person": _of(numbers.inn_person),
    "ru.inn_company": _of(numbers.inn_company),
    "ru.ogrn": _of(numbers.ogrn),
    "ru.ogrnip": _of(numbers.ogrnip),
    "ru.phone": _of(numbers.russian_phone),
    "ru.driving_licence": _of(numbers.driving_licence),
    "ru.medical_policy": _of(numbers.medical_policy),
    "de.tax_id": _of(numbers.german_tax_id),
    "de.id_card": _of(identifiers.german_card),
    "de.pension": _of(numbers.german_pension),
    "fr.nir": _of(numbers.french_nir),
    "es.dni": _of(numbers.spanish_dni),
    "es.nie": _of(numbers.spanish_nie),
    "it.codice_fiscale": _of(numbers.italian_code),
    "nl.bsn": _of(numbers.dutch_bsn),
    "pl.pesel": _of(identifiers.polish_pesel),
    "gb.nino": _of(numbers.british_nino),
    "gb.nhs": _of(numbers.nhs),
    "us.ssn": _of(numbers.ssn),
    "us.itin": _of(numbers.itin),
    "iban": _of(numbers.iban),
    "card": _of(numbers.card),
    "phone": numbers.phone,
    "secret.private_key": _of(credentials.private_key),
    "secret.cloud_key": _of(credentials.cloud_key),
    "secret.model_key": _of(credentials.model_key),
    "secret.jwt": _of(credentials.jwt),
    "secret.password": _of(credentials.password),
    "email": people.email,
    "birth_date": people.birth_date,
    "address": people.address,
    "name.person": people.name,
}
"""All but `ru.bank_account`, which needs the BIK that stands beside it, and what is drawn from vocabularies."""
