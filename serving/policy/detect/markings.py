"""Labels that documents carry: secrecy, professional secrets, limits of distribution; also written with gaps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import JOINED, Phrases, View, fold, stems

_MARKINGS: Final = (
    "коммерческая_тайна коммерческой_тайн коммерческую_тайн коммерческой_тайной для_служебного_пользования "
    "служебная_тайна служебной_тайн служебную_тайн банковская_тайна банковской_тайн банковскую_тайн врачебная_тайна "
    "врачебной_тайн врачебную_тайн адвокатская_тайна адвокатской_тайн налоговая_тайна налоговой_тайн "
    "государственная_тайна "
    "государственной_тайн государственную_тайн конфиденциально$ строго_конфиденциальн совершенно_секретно секретно$ "
    "конфиденциальная_информация конфиденциальной_информации конфиденциальные_сведения не_для_распространения "
    "не_подлежит_разглашению не_подлежат_разглашению для_внутреннего_пользования для_внутреннего_использования "
    "особой_важности инсайдерская_информация инсайдерской_информации персональные_данные_ограниченного "
    "confidential$ strictly_private top_secret trade_secret trade_secrets internal_use_only for_internal_use "
    "internal_only company_confidential do_not_distribute not_for_distribution not_for_public_release attorney-client "
    "attorney_client "
    "privileged_and_confidential proprietary_information proprietary_and_confidential under_nda classified_information "
    "official_use_only secret//noforn tlp:red tlp:amber official-sensitive material_non-public "
    "vertraulich$ streng_vertraulich vertrauliche_information geschaftsgeheimnis betriebsgeheimnis "
    "geschaftsgeheimnisse "
    "nur_fur_den_dienstgebrauch vs-nfd vs-vertraulich verschlusssache nur_fur_den_internen_gebrauch "
    "nur_zur_internen_verwendung berufsgeheimnis bankgeheimnis amtsgeheimnis confidentiel$ secret_des_affaires "
    "confidencial$ "
    "secreto_comercial riservato$ poufne$ tajemnica_przedsiebiorstwa vertrouwelijk$ "
    "служебная_информация информация_ограниченного ограниченного_распространения ограниченного_доступа "
    "ограниченное_распространение не_разглашать не_для_печати не_для_публикации не_подлежит_распространению "
    "не_подлежит_публикации не_передавать_третьим разглашение_запрещено копирование_запрещено только_для_служебного "
    "только_для_внутреннего для_ограниченного_круга только_для_адресата только_для_руководства закрытая_информация "
    "тайна_следствия тайна_усыновления аудиторская_тайна тайна_связи нотариальная_тайна "
    "professional_secret совсекретно$ сов._секретно сов.секретно "
    "strictly_confidential private_and_confidential commercial_in_confidence commercially_sensitive "
    "company_secret restricted_distribution restricted_circulation restricted_access limited_distribution "
    "distribution_restricted eyes_only for_your_eyes_only need_to_know not_to_be_disclosed not_to_be_distributed "
    "not_to_be_shared do_not_share do_not_forward do_not_copy do_not_disclose not_for_circulation not_for_publication "
    "not_for_external for_internal_purposes internal_distribution_only staff_only board_only sensitive_information "
    "highly_confidential highly_restricted confidential_information company_proprietary legally_privileged "
    "legal_privilege privileged_communication subject_to_nda non-disclosure_agreement official_secret "
    "inside_information insider_information embargoed_until price_sensitive "
    "streng_geheim geheim$ geheimhaltung geheimhaltungsstufe nur_intern nur_fur_internen nur_fur_interne "
    "nur_fur_den_internen intern$ betriebsintern firmenintern firmengeheimnis unternehmensgeheimnis dienstgeheimnis "
    "dienstgebrauch nicht_zur_weitergabe nicht_weitergeben nicht_zur_veroffentlichung nicht_fur_dritte "
    "weitergabe_untersagt weitergabe_verboten weitergabe_nicht vertraulichkeitsstufe vertrauliches_dokument "
    "vertraulich_behandeln steuergeheimnis arztgeheimnis arztliche_schweigepflicht mandantengeheimnis "
    "insiderinformation "
    "sperrvermerk"
    "конфиденциально_не конфиденциальные_данные конфиденциальный_документ конфиденциальных_сведений гриф_секретности "
    "секретные_сведения совершенно_секретные особо_секретно сведения_ограниченного сведения_составляющие "
    "тайна_страхования страховая_тайна тайна_завещания тайна_исповеди тайна_переписки тайна_переговоров "
    "производственная_тайна профессиональная_тайна профессиональной_тайн военная_тайна медицинская_тайна "
    "медицинской_тайн нотариальной_тайн налоговую_тайн страховой_тайн аудиторской_тайн тайна_сделки ноу-хау$ "
    "внутренний_документ внутренняя_информация внутреннего_обращения для_внутреннего_обращения "
    "для_служебного_использов "
    "только_для_сотрудников только_для_служебных только_для_акционеров только_для_членов только_для_совета "
    "только_лично лично_в_руки вскрыть_лично не_для_посторонних не_для_передачи не_для_пересылки не_для_открытой "
    "не_подлежит_передаче не_подлежит_копированию не_подлежит_оглашению не_копировать не_распространять "
    "не_публиковать не_раскрывать не_пересылать запрещено_распространять распространение_запрещено "
    "распространение_ограничено передача_третьим_лицам публикация_запрещена запрещается_разглаш без_права_передачи "
    "без_права_разглаш под_подписку под_nda соглашение_о_неразглаш соглашения_о_неразглаш обязательство_о_неразглаш "
    "содержит_персональные_данные персональные_данные_защищ инсайд$ служебное_пользован служебного_пользован "
    "экземпляр_единственный "
    "confidentiality_notice strictly_internal strictly_personal personal_and_confidential business_confidential "
    "commercial_confidential commercial_secret commercially_confidential medical_in_confidence staff_in_confidence "
    "strict_confidence most_secret secret_clearance unclassified//fouo fouo$ noforn$ "
    "law_enforcement_sensitive controlled_unclassified export_controlled itar_restricted official_secrets "
    "restricted_data restricted_information restricted_use restricted_document "
    "internal_circulation internal_distribution internal_eyes internal_confidential internal_restricted "
    "management_only directors_only executive_only employees_only personnel_only authorised_personnel "
    "authorized_personnel authorised_recipients authorized_recipients addressee_only recipient_only "
    "intended_recipient_only named_recipient to_be_opened_by_addressee bank_secrecy banking_secrecy banking_secret "
    "bank_secret medical_secret medical_secrecy doctor-patient_priv doctor_patient_conf patient_confidential "
    "tax_secrecy "
    "legal_and_professional_privilege attorney_work_product without_prejudice privileged_material "
    "privileged_document solicitor-client client_privileged trade_secrecy industrial_secret manufacturing_secret "
    "non-public_information nonpublic_information mnpi$ market_sensitive under_embargo embargoed$ nda_required "
    "covered_by_nda nda_protected do_not_release do_not_publish do_not_circulate do_not_duplicate do_not_reproduce "
    "no_forwarding no_dissemination not_to_be_copied not_to_be_reproduced "
    "not_to_be_released not_for_release not_for_onward not_for_disclosure not_for_further not_for_third "
    "distribution_limited "
    "limited_circulation limited_dissemination limited_official tlp:amber+strict tlp_red tlp_amber "
    "tlp:green sensitive_but_unclassified company_internal company_restricted "
    "burn_after_reading "
    "firmenvertraulich unternehmensvertraulich betriebsvertraulich kundenvertraulich personalvertraulich "
    "geschaftlich_vertraulich hochvertraulich hochst_vertraulich absolut_vertraulich strengstens_vertraulich "
    "personlich_vertraulich personlich/vertraulich personlich_und_vertraulich vertrauliche_verschluss "
    "vertrauliche_unterlag vertrauliche_daten vertraulichkeit$ vertraulichkeitsvereinb vertraulichkeitserkl "
    "vertraulichkeitsklausel streng_intern rein_intern nur_fur_den_personl nur_fur_den_empf nur_fur_den_adress "
    "nur_fur_mitarbeiter nur_fur_die_geschaftsl nur_fur_den_vorstand nur_fur_vorstand nur_fur_befugte "
    "nur_fur_berechtigte nur_fur_dienstl nur_zum_dienst nur_zum_internen nur_zur_dienstl nur_zur_personl nur_im_haus "
    "fur_den_internen_gebrauch interner_gebrauch interne_verwendung internes_dokument geheime_verschlusss "
    "vs-geheim vs-streng verschlusssachen amtlich_geheim amtlich_geheimgeh staatsgeheimnis militargeheimnis "
    "dienstlich_geheim produktionsgeheimnis fabrikationsgeheimnis know-how-schutz sozialgeheimnis datengeheimnis "
    "fernmeldegeheimnis briefgeheimnis beichtgeheimnis redaktionsgeheimnis patientengeheimnis notargeheimnis "
    "anwaltsgeheimnis wirtschaftsgeheimnis schweigepflicht verschwiegenheitspfl verschwiegenheitserkl "
    "zur_verschwiegenheit unterliegt_der_verschwieg unterliegt_dem_bankgeh unterliegt_der_geheim geheimhaltungspfl "
    "geheimhaltungsvereinb geheim_halten nicht_offentlich$ nicht_fur_die_offentl nicht_zur_verbreitung "
    "nicht_zur_vervielf nicht_zur_veroff nicht_kopieren nicht_vervielf nicht_veroffentlichen nicht_an_dritte "
    "keine_weitergabe keine_kopien weitergabe_an_dritte weiterleitung_untersagt weiterleiten_verboten "
    "verbreitung_untersagt vervielfaltigung_verboten vervielfaltigung_untersagt veroffentlichung_untersagt "
    "sperrfrist_bis zugang_beschrankt eingeschrankter_verteiler begrenzter_verteiler unter_verschluss "
    "insiderwissen kursrelevant marktsensibel confidentiel_defense diffusion_restreinte secret_professionnel "
    "usage_interne uso_interno riservatissimo strettamente_riservato estrictamente_confidencial scisle_tajne "
    "strikt_vertrouwelijk"
)
_LABELS: Final = Phrases(
    _MARKINGS + " ограниченного_пользован not_for_public internal_use$ nicht_nach_auszen nicht_nach_aussen "
)
_GRADES: Final = Phrases(
    "гриф$ гриф_документа пометка$ метка$ степень_секретности уровень_доступа режим_доступа classification$ "
    "classification_level classificationlevel$ marking$ markings$ protective_marking sensitivity$ sensitivitylabel$ "
    "sensitivity_label security_class security_level securitylevel$ handling$ confidentiality$ confidentialitylevel$ "
    "document_class documentclass$ dissemination$ distribution$ einstufung$ vermerk$ vertraulichkeit$ schutzklasse$ "
    "verschlussgrad$ geheimhaltungsgrad$ kennzeichnung$ verteiler$"
)
_GRADED: Final = re.compile(
    JOINED + r"(?P<value>(?:{w})[^\n\"'<|;,.]{0,60})".replace("{w}", "|".join(stems(
        "secret restrict internal private sensitiv closed limited propriet privileg personal not_for confiden секрет "
        "огранич внутрен закрыт служеб не_для только_для тайн конфиден geheim intern vertrau nur_ nicht_ verschluss "
        "personlich")))
)  # fmt: skip
"""What the field for it says, in whatever words."""
_ALONE: Final = re.compile(
    r"(?m:^)[ \t*#>\[(=-]{0,6}(?P<value>SECRET|Secret|RESTRICTED|Restricted|INTERNAL|Internal|INTERN)"
    r"[ \t*\])=!.-]{0,6}(?m:$)"
)
_ALONE_WORDS: Final = frozenset({"secret", "restricted", "internal", "intern"})
_WORD: Final = re.compile(r"[^\W\d_]+")
_DSP: Final = fold("дсп")
_DSP_MARK: Final = re.compile(r"(?<![^\W_])[ДдD][СсC][ПпP](?![^\W_])")
_BOARD: Final = stems("плит мебел лист шкаф ламин мдф кромк столешн древес фанер полк распил")
"""`ДСП` is chipboard too."""
_CODE: Final = "_.(\\/"


_GAPPED: Final = re.compile(r"(?<![^\W_])[^\W\d_]{1,4}(?:[ /-]{1,2}[^\W\d_]{1,4}){3,}+(?![^\W_])")
"""Short words in a row: a label that was cut into pieces of one length is among them."""
_LEAST_PIECES: Final = 4
_LEAST_LETTERS: Final = 6
_SQUEEZED: Final = tuple(  # of letters alone
    {
        "".join(_WORD.findall(stem))
        for stem in stems(_MARKINGS + " restricted")
        if sum(map(str.isalpha, stem)) >= _LEAST_LETTERS
    }
)
_BEGINNINGS: Final = frozenset(label[:4] for label in _SQUEEZED)


def find_labels(view: View) -> Iterator[Hit]:
    """What is written over documents that are not for everybody. A word that is part of a program's name is none."""
    folded = view.folded
    for begin, end in _LABELS.spans(view):
        is_code = (begin > 0 and folded[begin - 1] in _CODE) or (end < len(folded) and folded[end] in "_=(")
        if not is_code or " " in folded[begin:end]:
            yield Hit(begin, end, "document_label")
    for _, end in _GRADES.spans(view):
        match = _GRADED.match(folded, end)
        if match is not None:
            yield Hit(*match.span("value"), "document_label")
    if not _ALONE_WORDS.isdisjoint(view.words):
        yield from (Hit(*match.span("value"), "document_label") for match in _ALONE.finditer(view.plain))
    if _DSP in view.words:
        for match in _DSP_MARK.finditer(view.plain):
            around = _WORD.findall(folded[max(0, match.start() - 60) : match.end() + 60])
            is_short = view.plain[match.start() : match.end()].islower()
            if not is_short and not any(word.startswith(_BOARD) for word in around):
                yield Hit(match.start(), match.end(), "document_label")
    gapped = _GAPPED.finditer(folded) if _may_have_gaps(view) else ()
    for match in gapped:
        yield from (Hit(start, end, "document_label") for start, end in _gapped(folded, *match.span()))


_PIECES: Final[dict[str, set[tuple[str, str]]]] = {}
for _label in _SQUEEZED:
    for _size in range(1, 5):
        _PIECES.setdefault(_label[:_size], set()).add((_label[_size : 2 * _size], _label[2 * _size : 3 * _size]))
"""By the first piece of a label: its second and third."""


def _may_have_gaps(view: View) -> bool:
    """Whether the first three pieces of any label are words of the text."""
    words = view.words
    return any(
        two in words and (three in words or not three) for one in _PIECES.keys() & words for two, three in _PIECES[one]
    )


def _gapped(folded: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Pieces of one length, the last may be shorter, that are a label without their gaps."""
    pieces = [match.span() for match in _WORD.finditer(folded, begin, end)]
    first = 0
    for size, same in groupby(stop - start for start, stop in pieces):
        count = len(list(same))
        past = first + count
        if count >= _LEAST_PIECES - 1:
            if past < len(pieces) and pieces[past][1] - pieces[past][0] < size:
                past += 1
            joined = "".join(folded[start:stop] for start, stop in pieces[first:past])
            at = _label_in(joined, size) if len(joined) >= _LEAST_LETTERS else None
            if at is not None:
                yield pieces[first + at // size][0], pieces[past - 1][1]
        first += count


def _label_in(joined: str, size: int) -> int | None:
    """Where a label begins in the joined pieces, at the edge of one."""
    for at in range(0, len(joined) - _LEAST_LETTERS + 1, size):
        if joined[at : at + 4] in _BEGINNINGS and joined.startswith(_SQUEEZED, at):
            return at
    return None
