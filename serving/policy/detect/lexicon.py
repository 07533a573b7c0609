"""Words that say what a number is: for each label those of forms, letters, programs and tables in several languages.

Stems as in `context`: `stem`, `stem$` for the word alone, `*stem` inside a word, `one_two` for words in a row. A key
such as `taxNumber` or `tax_number` is read as its words. Hyphens, dots and slashes count as an underscore.

`order` are words of things that are counted, `serial` those that documents share with them, `count` those of machines;
the nearer one of two words decides, but that a document's serial number is the document's. `ru.series` is what a
passport and a driving licence share.
"""

from __future__ import annotations

from typing import Final

from serving.policy.detect.context import Lexicon

_PASSPORT: Final = (
    "паспорт загранпаспорт загран удостоверяющ удостоверени_личност удостоверения_личност документ_личност "
    "документ_гражданин документа_гражданин личность личности удостоверение_граждан внутренний_документ "
    "passport passeport pasaporte passaporto paszport paspoort pasport identity_doc "
    "identity_paper identification_doc id_doc document_of_identity doc_num doc_no document_no document_num "
    "document_series паспрт пасп$ passp$ *passport proof_of_identity travel_doc identity_card *reisepass "
    "ausweisdokument identitatsdokument пропуск проходн посетител "
    "ausweis reisedokument passnummer pass_nr pass_no passno doc_series "
)
_SERIES: Final = (
    "серия серии серией серию сери$ выдан овд$ уфмс$ гувд$ мвд$ код_подразделен подраздел series_and series_no "
    "series_num issued_by "
    "ausgestellt_von ausstellende"
)
_TAX_RU: Final = (
    "инн$ иннфл иннюл иннкпп inn$ innkpp inn_ inns налогоплательщик налоговый_номер налогового_номер налоговым_номер "
    "налоговому_номер идентификационный_номер идентификационного_номер идентификационным_номер "
    "идентификационному_номер идент_номер налоговый_идент налоговый_код налогов taxpayer tin$ tax_id tax_no tax_num "
    "tax_code tax_ident tax_ref tax_reg taxid taxno russian_tax vat_tin фнс$ fns$ самозанят ифнс ндфл npd нпд$ "
    "steuernummer steuerkennung steuer_id russische_steuer steuerzahler steuerpflichtig fiscal_code fiscal_number "
)
_COMPANY_RU: Final = (
    "организац контрагент поставщик юрлиц юридическ_лиц реквизит ооо$ оао$ зао$ пао$ ао$ общество обществ_ограничен "
    "предприяти компани фирм покупател заказчик подрядчик исполнител учредител кпп$ kpp$ legal_entity company "
    "counterparty supplier vendor contractor entity firma unternehmen lieferant vertragspartner арендодател "
)
_REGISTER_RU: Final = (
    "огрн ogrn егрюл egrul госрегистрац государственн_регистрац регистрационн_номер основн_государств рег_номер "
    "регистрац_номер осн_гос реестр реестров записи_егр запись_егр выписк_егр состоящ_реестр state_registration "
    "primary_state main_state registration_number registration_no reg_num reg_no regnum company_reg psrn$ "
    "company_number register_number business_reg registernummer handelsregister registrierungsnummer "
    "unternehmensregister зарегистрирован свидетельств_регистрац "
)
_TELEPHONE: Final = (
    "тел$ телефон телеф моб$ мобил мобильн сотов звон$ звонит звонк позвон перезвон созвон дозвон набер факс "
    "whatsapp ватсап вотсап вацап viber вайбер телеграм telegram tg$ номер_связи связь связи связаться "
    "свяжит контакт трубк абонент горячая_линия phone telephone tele$ mobile tel$ cell$ cellphone handy mobil fax "
    "contact_no contact_num contact_tel contact msisdn sms$ смс$ reach_me reach_him reach_her reach_them reach_us "
    "call_me call_him call_her call_back call_us call_on call_at ring_me text_me text_him dial callback "
    "hotline landline ring$ rang$ ringing$ "
    "telefon *telefon rufnummer *rufnummer anruf anrufen ruckruf zuruckruf erreichbar erreichen festnetz "
    "kontakt ruf$ rufe melde_dich melden_sie nok$ next_of_kin bleep pager contactable get_me_on get_him_on get_her_on "
    "get_us_on my_number his_number her_number s_number new_number best_number meine_nummer neue_nummer nummer_ist "
    "handynr vorwahl telf$ telfx$ ext$ switchboard "
    "durchwahl telefono telefone telephone portable movil cellulare komorka telefonu telefoon gsm$ whats_app "
)
_ID_NL: Final = (
    "bsn$ burgerservice citizen_service burger_service sofinummer sofi$ sofi_nummer persoonsnummer persoonsgebonden "
    "dutch nederland netherlands holland niederland niederlande нидерланд голланд бсн$ loonheffing belastingdienst "
    "digid$ bsnr bsn_ service_number citizen_number "
)
_ID_PL: Final = (
    "pesel песель песел polish poland polska polsk polnisch polen польск польш ewidencyjn numer_ewiden "
    "nr_ewiden universal_electronic population_register "
)
_NHS: Final = (
    "nhs$ nhs_ nhsno nhsnum nhsnumber national_health health_service patient_id patient_no patient_num patient_ident "
    "patient health_number health_id medical_record hospital_number gp$ surgery$ referral referred practice_record "
    "general_practitioner british_health england clinic nhs_id нхс "
)

CONTEXTS: Final[dict[str, str]] = {
    "ru.passport": _PASSPORT,
    "ru.series": _SERIES,
    "ru.driving_licence": (
        "стс$ птс$ транспортн_средств транспортного_средств водительское вод_уд вод_удост права_категори категори_прав "
        "удостоверение_на_право управления_тс права_на_управлен driving_papers driver_document driver_card "
        "driver_id driving_entitlement driving_paper road_licence dlno dlnum dlnumber *licenceno *licenseno "
        "*licensenumber *licencenumber lenkberechtigung fuhrerausweis fahrausweis permiso_de_conduc kierowc "
        "водительск водит_удостов водит_прав водител_удостов водител_прав права$ правам$ прав$ правах$ в/у "
        "удостоверение_водител удостоверения_водител удост_водител prava$ управлени_транспорт гибдд гаи$ "
        "driving_lic driving_permit "
        "driver_lic drivers_lic driver_s_lic driving_no driver_s_permit license_number licence_number licence_no "
        "license_no dl_number dl_no dl$ *driverlic *drivinglic *driverslic fuhrerschein *fuhrerschein fahrerlaubnis "
        "fahrerlaub permis_de_conduire patente_di carnet_de_conducir prawo_jazdy rijbewijs driver_permit vu_number "
        "driving_document driving_certificate "
    ),
    "ru.inn": _TAX_RU,
    "ru.inn_company": _TAX_RU + _COMPANY_RU,
    "ru.snils": (
        "снилс snils страхов_номер страхового_номер страховой_номер страховым_номер страховому_номер страховой_лицев "
        "индивидуальн_лицев лицев_счет_застрах лицевой_счет лицевого_счет пенсионн страхов_свидетельств "
        "страховое_свидетельств страхового_свидетельств пфр$ сфр$ соцфонд социальн_фонд застрахован персонифицирован "
        "insurance_account individual_account pension_insurance pension_number pension_no pension_fund pension_account "
        "social_insurance russian_pension personal_account insured rentenversicherung rentenkonto sozialfonds "
        "versicherungskonto обязательное_пенсион "
    ),
    "ru.ogrn": _REGISTER_RU,
    "ru.ogrnip": _REGISTER_RU + (
        "огрнип ogrnip егрип egrip предпринимат ип$ ип_номер individual_entrep sole_prop sole_trader entrepreneur "
        "самозанят einzelunternehm psrnip psrnsp "
    ),
    "ru.medical_policy": (
        "полис омс$ oms$ енп$ enp$ дмс$ polis policy policy_no policy_number *policy медицинск_страхов медстрах "
        "обязательн_медицинск обязательного_медицинск медполис медицинский_полис страховая_компания фомс "
        "поликлиник health_insurance medical_insurance insurance_policy compulsory_health compulsory_medical insured "
        "insurance_number insurance_no *versicherungspolice krankenversicherung versicherungsschein единый_номер "
    ),
    "ru.phone": _TELEPHONE,
    "phone": _TELEPHONE,
    "de.tax_id": (
        "*steuerid steuer *steueridentifik steuerident idnr$ id_nr identnr identifikationsnummer steuerlich tin$ tax "
        "taxid taxpayer finanzamt elster lohnabrechnung bundeszentralamt налог налогов steuernr fiscal inn$ инн$ "
        "lohnsteuer german_tax personliche_id "
    ),
    "de.tax_number": "steuernummer steuernr st_nr steuer_nr finanzamt",
    "fr.nir": (
        "nir$ securite_sociale secu$ secu numero_securite insee vitale carte_vitale social_security social_insurance "
        "assure_social french_social sozialversicherung num_ss nss$ numero_ss secusociale french"
    ),
    "fr.siren": "siren siret rcs$",
    "nl.bsn": _ID_NL,
    "pl.pesel": _ID_PL,
    "pl.nip": "nip$ podatk nip_",
    "gb.nhs": _NHS,
    "gb.utr": "utr$ unique_taxpayer self_assessment",
    "be.rrn": (
        "rijksregister *rijksregister insz$ registre_national niss$ rrn$ nationaal_nummer numero_national belg "
        "national_register"
    ),
    "se.personnummer": "personnummer personnr samordningsnummer person_no person_number swedish schwed svensk",
    "ch.ahv": "ahv *ahvnummer avs$ *sozialversicherung swiss schweiz",
    "at.svnr": "svnr *sozialversicherung sv_nr sv_nummer versicherungsnummer osterreich austrian",
    "pt.nif": "nif$ contribuinte nipc$ portug",
    "cz.rodne_cislo": "rodne_cislo rodne rc$ r.c. rodn czech slovak tschech",
    "dk.cpr": "cpr$ cpr_nr cprnr personnummer danish",
    "ro.cnp": "cnp$ cod_numeric romanian",
    "bg.egn": "егн$ egn$ bulgar",
    "no.fodselsnummer": "fodselsnummer fnr$ personnummer fodselsnr norweg norsk",
    "ee.isikukood": "isikukood isiku estonian",
    "lt.asmens_kodas": "asmens_kodas asmens lithuan",
    "hr.oib": "oib$ croat",
    "it.partita_iva": "partita_iva p_iva piva$ iva$ vat$ partita",
    "gb.vat": "vat$ vatin vat_no vat_reg",
    "us.ssn": (
        "ssn ssn_ *ssn$ social_security *socialsecurity social_sec$ социальн_страхован соцстрах soc_sec socsec s.s.n "
        "ss_no ss_num ss_number ss_card ss$ my_social his_social her_social your_social their_social the_social "
        "s_social social_number social_no social_num social_is social_card social_on last_four tax_payer_id "
        "us_sozialversicherung amerikanische_sozialversicherung sozialversicherungsnummer social$"
    ),
    "us.itin": (
        "itin *itin$ taxpayer individual_taxpayer tax_id taxid tax_identification w_7 w7$ nonresident_alien irs$ tin$ "
        "tax$ taxes$ i.t.i.n"
    ),
    "us.ein": "ein$ employer_id fein$ employer_identification",
    "us.npi": "npi$ national_provider provider_id",
    "us.aba_routing": "routing aba$ rtn$",
    "card": (
        "карт кредитк дебетов card creditcard debitcard cardno cardnum pan$ visa mastercard maestro мир$ mir$ "
        "kreditkart *kreditkart karte kartennummer debitkart *kartennr carte carta tarjeta karta karty cc$ cvv cvc "
        "amex оплат payment charged plastic пластик plastik "
    ),
    "es.dni": (
        "dni$ d.n.i dni_ nif$ nif_ documento documento_nacional identidad identity identificac identification "
        "national_id spanish spain espan spanien spanisch испан dninif carnet padron ausweis id_number id_card"
    ),
    "es.nie": (
        "nie$ nie_ extranjer nif$ dni$ foreigner foreign residence resident spanish spain espan "
    "identity id_number"
    ),
    "gb.nino": (
        "nino$ nino_ ni$ ni_number ni_no ninumber nin$ national_insurance insurance nat_ins natins hmrc paye$ payroll "
        "uk_insurance british_insurance national_ins social_security p45$ p60$ sozialversicherung"
    ),
    "de.health_insurance": (
        "*krankenversicher versichertennummer *versichertennummer kvnr$ kv_nr krankenkasse gkv$ versicherten egk$ "
        "health_insurance versichertenkarte gesundheitskarte"
    ),
    "de.id_card": (
        "*ausweis ausweis ausgewiesen ausgew epass npa$ eid$ ident_karte identkarte identitatsnachweis "
        "identitatspapier legitimiert legitimier identitatsdok personaldok "
        "lichtbildausweis dokumentennummer dokumentnr dokumentennr personalpapier papiere id_document id_doc "
        "national_identity identity_doc photo_id proof_of_identity government_id german_identity german_document "
        "удостоверени_личност удостоверением_личност немецк_удостовер документ_личност айди "
        "pass$ *reisepass perso$ personaldokument identity id_card "
        "idcard id_no id_number "
        "national_id identitatskarte identification passport document dokument legitimation *ausweisnr "
        "seriennummer_aus "
        "паспорт удостоверен german_id bundesdruckerei perso_nr identitat"
    ),
    "ie.pps": "pps$ ppsn$ ppsno$ personal_public irish",
    "us.mbi": "medicare mbi$ beneficiary",
    "eu.vat": (
        "vat$ vatin ust$ ust_id ustid umsatzsteuer *umsatzsteuer btw$ iva$ tva$ tax mwst uid$ moms$ alv$ nip$ steuer "
        "vat_no vat_id vatid"
    ),
    "passport": "passport *reisepass passeport pasaporte passaporto paszport загран загранпаспорт passnummer",
    "us.driving_licence": "driver_lic drivers_lic driver_s_lic driving dl$ licence_no license_no dl_no",
    "identity": (
        "идентификац идентификатор_лиц персональн_номер персональный_номер персонального_номер личный_номер "
        "личного_номер личный_код госномер_лиц национальн_номер национальный_номер национальный_идент "
        "учетный_номер_нал "
        "сотрудник работник пациент заявител гражданин гражданк гражданина клиент клиента абонент застрахован анкета "
        "заемщик кадр кадров бухгалтер зарплат досье иностранн личное_дело карточка_клиент карточку_клиент "
        "identification national_id national_number national_ident personal_id personal_no personal_num person_id "
        "person_no person_num personid personnel personal_code identity identifier_of citizen citizenship resident "
        "employee applicant tenant patient client_id customer_id taxpayer payroll hr$ colleague beneficiary "
        "policyholder insured_person claimant borrower onboarding kyc$ personal_data "
        "personenkennzahl personenkennung personenkennziffer kennnummer identitat identifikation personalnummer "
        "mitarbeiter angestellt arbeitnehmer antragsteller burger burgerin versicherte patientin mieter kunde kundin "
        "personalakte lohnabrechnung gehaltsabrechnung ausweis"
    ),
    "birth_date": (
        "дата_рожд рожден рождения д.р др$ birth *birth dob$ born birthday bday *geburtsdat geburtstag geburtsdatum "
        "geb$ "
        "geboren naissance nacimiento nascita urodz"
    ),
    "order": (
        "заказ наряд накладн артикул арт$ трек трекинг трекномер отправлен отгрузк посылк счет_фактур счета_фактур "
        "инвойс тикет обращени заявк заявок партия партии лот$ модел каталожн детал запчаст "
        "товар изделие подшипник прокладк болт винт насос клапан датчик паллет поддон контейнер груз фрахт рекламац "
        "наименован номенклатур комплектующ ттн$ упд$ спецификац заказ_наряд акт_прием талон_номер промокод "
        "позици квитанц чек$ чека$ талон билет бронь брони бронирован позицию фильтр "
        "order orders ordered purchase po$ invoice receipt ticket tracking track parcel shipment shipped consignment "
        "waybill delivery booking reservation part$ parts partno part_no part_num partnumber article art_no art_nr "
        "item items sku$ skus ean$ upc$ gtin asin isbn issn batch lot$ model catalog catalogue product incident "
        "case_no case$ request_id job$ transaction quantity qty$ warranty spare component filter replacement bearing "
        "screw bolt gasket "
        "valve pump sensor_no voucher coupon pallet pallets container freight cargo dispatch dispatched remittance "
        "requisition po_number po_no rma$ awb$ manifest docket claim_no helpdesk case_number reference_no "
        "order_no order_num order_id orderno ordernumber "
        "bestell *bestellung *bestellnummer auftrag *auftragsnummer rechnung rechnungsnr sendung *sendungsnummer paket "
        "lager$ dichtung schraube ventil pumpe palette paletten frachtbrief gutschein storno kommission beleg belegnr "
        "lieferschein artikel *artikelnummer vorgang *vorgangsnummer ticketnr teil$ teile teilenummer ersatzteil "
        "charge chargen modell produkt warennummer materialnummer buchung katalog"
    ),
    "serial": (
        "serial serials serien *seriennummer seriennr serien_nr серийн sn$ s/n serialno serialnumber snr$ fabriknummer "
        "заводской_номер"
    ),
    "count": (
        "id$ uid$ pid$ tid$ ts$ time$ timestamp offset bytes size commit build версия версии сборк version rev$ "
        "revision seq$ sequence nonce hash checksum trace span$ session thread worker process port$ address$ addr$ "
        "row$ rows line$ lines counter count epoch millis ms$ usec duration latency uptime volume population "
        "population_of distance total sum$ amount price revenue seed random error code_ errno valueerror keyerror "
        "typeerror indexerror статус код_ошибк ошибк жител населени километр рублей рубл"
    ),
}  # fmt: skip

LEXICON: Final = Lexicon(CONTEXTS)
