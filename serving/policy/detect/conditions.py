"""Illnesses, medicines and the state of somebody's money: the words themselves, and those that make them somebody's.

A word of `THINGS` alone is a question for an encyclopaedia; beside a word of `CUES` it is told of a person. What stands
behind a label (`Diagnose:`) is found whatever it is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import Phrases, View, stems

_THINGS: Final = stems(
    "диабет гипертон гипотони инфаркт инсульт инсультн депресс шизофрен эпилепс гепатит туберкул сифилис вич$ вич-инф "
    "спид$ онколог рак$ рака$ раком$ опухол карцином лейкоз лейкем лимфом меланом саркома метастаз цирроз астм бронхит "
    "пневмон ковид коронавирус артрит артроз остеопороз подагр псориаз экзем дерматит аллерг анеми гемофил тромбоз "
    "тромбофлеб аритми стенокард ишеми атеросклер порок_сердца кардиомиопат мигрен невроз неврастен невралги биполяр "
    "аутизм деменци альцгеймер паркинсон склероз алкоголизм наркомани зависимост анорекси булими бессонниц панкреатит "
    "гастрит язв колит холецистит аппендицит гломерулонефрит пиелонефрит нефрит почечн_недостат цистит простатит "
    "эндометриоз бесплоди беременн выкидыш аборт миом климакс гонорея хламидиоз герпес трихомониаз тиреоид гипотиреоз "
    "гипертиреоз ожирени глауком катаракт отит тугоух грыж перелом сотрясени травм сепсис волчанк целиаки муковисцидоз "
    "инвалидн суицид паническ тревожн_расстр расстройств ремисси рецидив резекци мастэктоми шунтирован диализ "
    "инсулин метформин аторвастатин эналаприл лозартан амлодипин бисопролол варфарин омепразол сертралин флуоксетин "
    "амитриптилин кветиапин галоперидол рисперидон карбамазепин вальпроат преднизолон метотрексат тамоксифен "
    "левотироксин морфин трамадол "
    "diabet hypertens hypotens infarct stroke$ depressi depression schizo epileps hepatitis tubercul syphilis hiv$ "
    "hiv-pos aids$ cancer carcinoma tumor tumour leukemi leukaemi lymphoma melanoma sarcoma metasta cirrhos asthma "
    "bronchi pneumoni covid arthritis arthros osteopor gout$ psoriasis eczema dermatitis allerg anemi anaemi hemophil "
    "haemophil thrombos embolism arrhythm fibrillation angina ischemi ischaemi atheroscl cardiomyopath migraine "
    "neuros bipolar autis dementia alzheimer parkinson sclerosis alcoholi addict anorexi bulimi insomni pancreatitis "
    "gastritis ulcer colitis crohn appendicitis nephritis renal_failure kidney cystitis prostat endometrios infertil "
    "pregnan miscarriage abortion fibroid menopaus gonorrh chlamydia herpes hypothyroid hyperthyroid thyroid obes "
    "glaucoma cataract hernia fracture concussion sepsis lupus celiac coeliac fibrosis suicid anxiety panic_disorder "
    "disorder ptsd adhd relapse remission chemotherap dialysis mastectom copd "
    "insulin metformin atorvastatin lisinopril losartan amlodipin bisoprolol warfarin omeprazol sertralin fluoxetin "
    "quetiapin haloperidol risperidon carbamazepin valpro prednisolon methotrexat tamoxifen levothyroxin morphin "
    "tramadol oxycodon methadon lithium "
    "zuckerkrankheit bluthochdruck herzinfarkt schlaganfall depressi krebs$ brustkrebs darmkrebs lungenkrebs hautkrebs "
    "prostatakrebs leukami lymphom gicht$ schuppenflecht allergi blutarmut herzinsuffizienz herzrhythmus vorhofflimm "
    "migrane angststor demenz alkoholabh sucht$ suchterkrank magersucht schlafstor magengeschw blinddarm "
    "nierenversagen niereninsuff nierenentz schwanger fehlgeburt schilddrus ubergewicht adiposit bandscheiben "
    "gehirnerschutt hirntumor lungenentzund bronchitis arthrose rheuma multiple_sklerose sklerose "
    "parkinson panikattack "
    "burnout psychose zwangsstor borderline hepatit tuberkul epilepsi asthma diabetes"
)
_CUES: Final = stems(
    "диагноз диагностир пациент больной больная больного больному госпитализ страда болеет болел болеют назначен "
    "принимает принимал получает_лечен лечится лечени наблюдается состоит_на стоит_на перенес перенесла жалоб анамнез "
    "установлен выявлен поступил выписан подтвержден обследован осмотр заболеван болезн здоровь здоровья карта "
    "инвалидност терапи операци направлен врач невролог хирург мкб icd хроническ сопутствующ противопоказ приступ "
    "diagnos patient suffer suffering hospitali admitted discharg prescri takes taking treated treatment underwent "
    "history_of medical$ health$ condition illness disease known_for presents complain chronic comorbid clinical "
    "tested_positive referred therapy medication allergies symptoms gp$ doctor physician clinic surgeon oncolog "
    "has_had sick_leave off_sick disability "
    "diagnose diagnosti befund leidet leide$ litt$ erkrank behandl patientin verschrieb verordnet nimmt$ aufgenommen "
    "entlassen krankengesch krankheit gesundheit arzt arztin klinik therapie vorerkrank verdacht krankgeschrieb "
    "chronisch anamnese"
)
_LABELS: Final = Phrases(
    "диагноз$ заболевание$ болезнь$ анамнез$ аллергии$ аллергия$ непереносимость$ жалобы$ хронические_заболевания "
    "состояние_здоровья назначения$ лекарства$ препараты$ мкб$ код_мкб показания$ противопоказания$ "
    "группа_инвалидности "
    "diagnosis$ diagnoses$ diagnosis_text condition$ conditions$ medical_condition health_condition health_status "
    "allergies$ allergy$ illness$ disease$ medical_history medications$ medication$ prescription$ symptoms$ complaint$ "
    "chief_complaint icd$ icd_code icd10$ health_note medical_note clinical_finding findings$ "
    "diagnose$ diagnosen$ befund$ erkrankung$ vorerkrankungen$ krankheit$ allergien$ medikation$ medikamente$ "
    "beschwerden$ gesundheitszustand$ krankengeschichte$ diagnosetext$"
)
_SAID: Final = re.compile(
    r"[\"'*]{0,3}(?:[ \t]{0,2}(?:[:=>]|[–-][ ]|\|)|[ ](?:is|ist|это)[ ])[ \t\"'«*>]{0,4}"
    r"(?P<value>[^\W\d_][^\n,;|<>\"'.]{3,60})"
)
_NOTHING: Final = re.compile(
    r"(?:none|null|nil|str|string|text|int|optional|list|dict|true|false|undefined|unknown|see|type|model|self|get|"
    r"not|no|n/a|keine|kein|ohne|siehe|heт|нe|oпции|cm)(?![^\W\d_])"
)
_NEAR: Final = 160
_ICD: Final = re.compile(r"(?<![\w.-])[A-TV-Z][0-9]{2}(?:\.[0-9]{1,2})?(?![\w-])")
"""A code of ICD-10: a chapter's letter, two digits, perhaps one or two more."""


def find_conditions(view: View) -> Iterator[Hit]:
    """Illnesses and medicines near a word that makes them somebody's; codes of ICD-10 near one; what a label names."""
    if view.has(_LABEL_GATE):
        for _, end in _LABELS.spans(view):
            match = _SAID.match(view.folded, end)
            if match is not None and _NOTHING.match(match["value"]) is None and "(" not in match["value"]:
                yield Hit(*match.span("value"), "medical")
    if view.has(_CUE_GATE):
        yield from (Hit(start, end, "medical") for start, end in _somebodys(view))


def _somebodys(view: View) -> Iterator[tuple[int, int]]:
    """Words of illness that have a cue near them: the last one before, or one of the next two."""
    cues = frozenset(word for word in view.words if _is_one(word, _CUE_BEGINNINGS, _WHOLE_CUES))
    things = frozenset(word for word in view.words if _is_one(word, _THING_BEGINNINGS, _WHOLE_THINGS))
    codes = [match.span() for match in _ICD.finditer(view.plain)] if cues else []
    if not cues or not (things or codes):
        return
    wanted = cues | things
    met = [(match[0], match.span()) for match in _SIMPLE.finditer(view.folded) if match[0] in wanted]
    said = [span for word, span in met if word in cues]
    for start, end in sorted([*codes, *(span for word, span in met if word in things)]):
        last = bisect_right(said, (start,)) - 1
        around = said[max(0, last) : last + 3]
        if any(
            (begin, stop) != (start, end) and begin - end < _NEAR and start - stop < _NEAR for begin, stop in around
        ):
            yield start, end


_SIMPLE: Final = re.compile(r"[^\W\d_]+")


def _is_one(word: str, beginnings: frozenset[str], wholes: frozenset[str]) -> bool:
    return word in wholes or any(word[:size] in beginnings for size in range(3, min(len(word), 14) + 1))


def _split(found: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    heads = [stem.split(" ")[0].split("-")[0] for stem in found]
    return (
        frozenset(head for head in heads if not head.endswith("$")),
        frozenset(head.removesuffix("$") for head in heads if head.endswith("$")),
    )


_THING_BEGINNINGS, _WHOLE_THINGS = _split(_THINGS)
_CUE_BEGINNINGS, _WHOLE_CUES = _split(tuple(stem for stem in _CUES if " " not in stem))
_CUE_GATE: Final = tuple(_CUE_BEGINNINGS | _WHOLE_CUES)
_LABEL_GATE: Final = stems(
    "диагноз заболеван болезнь анамнез аллерги непереносим жалоб хронич состояни назначен лекарств препарат мкб код "
    "показан противопок группа diagnos condition medical health allerg illness disease medicat prescri symptom "
    "complaint chief icd clinical finding befund erkrank vorerkrank krankheit beschwerden gesundheit krankengesch"
)
