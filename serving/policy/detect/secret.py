"""Secrets: private keys, keys of clouds and of model vendors, JWTs, passwords.

The forms of keys are their issuers' own, published so that they can be found (GitHub's secret scanning partners, the
vendors' documents). A form is looked for only where its fixed beginning stands in the text at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from serving.policy.detect.finding import Hit
from serving.policy.detect.fold import Phrases, View, stems


class Form(NamedTuple):
    """A secret's fixed beginning, and the whole."""

    label: str
    mark: str
    pattern: re.Pattern[str]
    least_kinds: int = 6
    """Distinct characters: fewer is an example such as `sk-xxxxxxxx`."""


def _form(label: str, mark: str, rest: str) -> Form:
    return Form(label, mark, re.compile(rf"(?<![A-Za-z0-9]){re.escape(mark)}{rest}"))


_CLOUD: Final = "secret.cloud_key"
_MODEL: Final = "secret.model_key"
FORMS: Final = (
    *(_form(_CLOUD, mark, r"[A-Z0-9]{16}(?![A-Za-z0-9])") for mark in ("AKIA", "ASIA", "ABIA", "ACCA")),
    _form(_CLOUD, "AIza", r"[0-9A-Za-z_-]{35}"),
    _form(_CLOUD, "GOCSPX-", r"[0-9A-Za-z_-]{20,40}"),
    _form(_CLOUD, "ya29.", r"[0-9A-Za-z_-]{20,}+"),
    *(_form(_CLOUD, mark, r"[A-Za-z0-9]{36,251}") for mark in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    _form(_CLOUD, "github_pat_", r"[A-Za-z0-9_]{22,255}"),
    _form(_CLOUD, "glpat-", r"[A-Za-z0-9_-]{20,}+"),
    *(_form(_CLOUD, mark, r"[A-Za-z0-9-]{10,}+") for mark in ("xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-")),
    *(_form(_CLOUD, mark, r"[A-Za-z0-9]{16,}+") for mark in ("sk_live_", "rk_live_", "sk_test_", "whsec_")),
    _form(_CLOUD, "dop_v1_", r"[a-f0-9]{64}"),
    _form(_CLOUD, "npm_", r"[A-Za-z0-9]{36}"),
    _form(_CLOUD, "pypi-", r"[A-Za-z0-9_-]{50,}+"),
    _form(_CLOUD, "SG.", r"[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
    _form(_CLOUD, "hvs.", r"[A-Za-z0-9_-]{24,}+"),
    _form(_CLOUD, "shpat_", r"[a-fA-F0-9]{32}"),
    _form(_CLOUD, "AQVN", r"[A-Za-z0-9_-]{30,}+"),
    *(_form(_CLOUD, mark, r"[A-Za-z0-9_-]{30,}+") for mark in ("y0_", "y1_", "t1.9eu", "AQAAAA")),
    _form(_CLOUD, "AccountKey=", r"[A-Za-z0-9+/]{40,}+={0,2}"),
    _form(_CLOUD, "SharedAccessKey=", r"[A-Za-z0-9+/]{40,}+={0,2}"),
    *(
        _form(_MODEL, mark, r"[A-Za-z0-9_-]{20,}+")
        for mark in ("sk-", "gsk_", "xai-", "pplx-", "r8_", "csk-", "fw_", "nvapi-", "tgp_v1_", "co_")
    ),
    _form(_MODEL, "hf_", r"[A-Za-z0-9]{30,}+"),
    _form(_MODEL, "pk_", r"[0-9A-Za-z]{12}_[0-9A-Za-z]{49}"),
    _form("secret.jwt", "eyJ", r"[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*+"),
    Form("secret.private_key", "PuTTY-User-Key-File", re.compile(r"PuTTY-User-Key-File-[0-9]")),
    Form("secret.private_key", "SSH2 ENCRYPTED PRIVATE", re.compile(r"SSH2 ENCRYPTED PRIVATE KEY")),
    _form("secret.private_key", "AGE-SECRET-KEY-1", r"[A-Z0-9]{58}"),
)  # fmt: skip

_TELEGRAM: Final = re.compile(r"(?<![0-9])[0-9]{8,10}:AA[A-Za-z0-9_-]{32,34}(?![A-Za-z0-9_-])")
_AWS_SECRET: Final = re.compile(
    r"(?i:(?:aws)?_?-?secret_?-?(?:access)?_?-?key(?:_id)?)[\"']?\s{0,3}(?:=|:|is)\s{0,3}[\"']?"
    r"(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
)
_URL: Final = re.compile(r"://[^\s:@/?#\"'<>{}$]{0,64}:(?P<value>[^\s:@/?#\"'<>]{3,128})@[\w.\[-]")
_PRIVATE: Final = "secret.private_key"
_HEADER: Final = re.compile(
    r"-(?:\n?-){3,4}[ ]?"
    + r"\n?".join("BEGIN")
    + r"[ \n]{1,2}(?:[A-Z0-9\n]{1,11}[ \n]{1,2}){0,3}"
    + r"\n?".join("PRIVATE")
    + r"[ \n]{1,2}K\n?E\n?Y(?:[ \n]{1,2}B\n?L\n?O\n?C\n?K)?[ ]?-(?:\n?-){3,4}"
    r"(?:[^-]{0,8192}+-{5}END[^-\n]{0,40}-{5})?"
)
"""The end of a line may be anywhere in it."""
_HEADER_WORDS: Final = ("PRIVATE", "BEGIN", "KEY---")
_CRYPT: Final = re.compile(
    r"\$(?:2[abxy]?\$[0-9]{2}\$[A-Za-z0-9./]{53}|(?:apr1|[156y]|argon2id?|scrypt|pbkdf2[\w-]{0,16})\$[^\s:\"',]{16,160})"
    r"|\{S?SHA(?:256|512)?\}[A-Za-z0-9+/]{24,}={0,2}"
)
"""Passwords as `htpasswd`, `/etc/shadow` and LDAP keep them: they can be guessed from."""
_FLAGS: Final = re.compile(
    r"(?:(?<![\w-])(?:curl|wget)(?![\w-])[^\n]{0,160}?[ ](?:-u|--user|--proxy-user|-a|--auth)[ =]{1,2}[\"']?"
    r"[^\s:\"'$<>{}]{1,64}:"
    r"|(?<![\w-])(?:mysql|mysqldump|mysqladmin|mariadb)(?![\w-])[^\n]{0,160}?[ ]-p"
    r"|(?<![\w-])(?:sshpass|redis-cli|ldapsearch|ldapmodify|smbclient|mongo|mongosh|mongodump|7z|unzip)"
    r"(?![\w-])[^\n]{0,160}?[ ](?:-p|-a|-w|-P)[ ]?"
    r"|(?<![\w-])net[ ]user[ ][^\s/]{1,40}[ ]"
    r"|(?i:identified[ ](?:with[ ]\w{1,40}[ ])?by|requirepass|masterauth|convertto-securestring(?:[ ]-string)?"
    r"|wpa_passphrase[ ]\S{1,32})[ ]{1,2}"
    r"|(?i:authorization)[\"']?[:=][ ]?[\"']?(?i:basic)[ ])"
    r"[\"']?(?P<value>[^\s\"']{4,128})"
)
"""What commands and statements take a password after."""
_FLAG_WORDS: Final = frozenset(
    "curl wget mysql mysqldump mysqladmin mariadb sshpass redis ldapsearch ldapmodify smbclient mongo mongosh "
    "mongodump unzip identified requirepass masterauth convertto wpa authorization".split()
)
_HOST_LINE: Final = re.compile(
    r"(?m:^)[ \t]{0,8}(?:[\w.-]{1,64}|\*):(?:[0-9]{2,5}|\*):[\w.*-]{1,64}:[\w.-]{1,64}:"
    r"(?P<value>[^\s\"':]{4,128})(?m:$)"
)
"""A line of `.pgpass`."""
_HOST_SIGNS: Final = (":*:", ":5432:", ":6432:")
_PAIR: Final = re.compile(
    r"[^\W\d_]{0,10}[ ]?(?:[/&+|,-]|:|{and})[ ]?(?:{what})[^\W\d_]{0,4}[)\"']?[ ]?(?:[:=–-]|[ ]is|[ ]ist)[ ]{0,2}"
    r"[\"'`]?(?P<user>[^\s\"'/:,;|]{1,64})[\"'`]?[ ]?(?:[/:,;|]|[ ])[ ]?[\"'`]?(?P<value>[^\s\"'`,;]{4,64})".replace(
        "{what}", "|".join(stems("парол пасс пасворд pass passw pwd pw psw kennwort"))
    ).replace("{and}", "|".join(stems("и and und")))
)
"""`login/pass: anna / Sommer-12`."""
_GRANTED: Final = re.compile(
    r"[^\W\d_]{0,10}(?:[ ][^\W\d_]{1,14}){0,3}?[ ]?[:=–-][ ]{0,2}[\"'`]?(?P<user>[^\s\"'/:,;|]{1,64})"
    r"[\"'`]?[ ]?[/:|][ ]?[\"'`]?(?P<value>[^\s\"'`,;/]{4,64})"
)
"""`креды: admin / hunter2`."""
_WORDS: Final = (
    *("pw psw pswd passw pword upwd".split()),
    *stems("пасс пасворд код_доступ"),
    *("losung", "parole", "schlusselwort", "codewort", "motdepasse", "senha", "parola", "clave", "psk"),
    *(
        "netzwerkschlussel",
        "sicherheitscode",
        "network key",
        "wlan-key",
        "master key",
        "masterkey",
        "unlock code",
        "secret word",
        "pass phrase",
    ),
    *stems("ключевая_фраз секретная_фраз кодовая_фраз"),
    *("password passwort passwd passphrase passcode kennwort pwd contrasena haslo wachtwoord pin credential".split()),
    *("pass", "token", "secret", "apikey", "api key", "api_key", "api-key", "access_key", "access key", "access-key"),
    *("private_key", "encryption_key", "auth_key", "mot de passe"),
    *stems("парол пин-код пинкод кодовое_слово секретный_ключ код_доступа секретное_слово пассворд"),
    *("zugangscode", "passkey", "losungswort", "zugangskennung", "geheimwort", "passe"),
)
_PASSWORD: Final = re.compile(
    r"[^\W\d]{0,16}(?:[ ][^\W\d_]{1,14}){0,3}?[\"'`*]{0,3}[)\]]?[\"'`]{0,2}[ \t]{0,4}"
    r"(?P<sign>(?:</?\w{1,12}>){1,3}|,[ \n]{0,9}[\"']?(?:to|value|val|v|text|content|data)[\"']?[ ]{0,2}[:=]"
    r"|\n[ \t-]{0,12}value[ ]{0,2}:|[:=-]{1,3}>?|[ ]is[ ](?:now[ ])?|[ ]ist[ ](?:jetzt[ ])?|[ ]lautet[ ]|[ ]was[ ]"
    r"|[ ]war[ ]"
    r"|[ ]{e}[ ]|\n"
    r"|[ ](?=\S{0,24}[0-9])(?=\S{0,24}[^\W\d_])|[ ](?=[a-z]{8,24}(?![^\W_])))"
    r"[ \t]{0,4}(?P<quote>[\"'`*]{0,3})(?P<value>[^\s\"'`]{4,128})(?P<end>[\"'`]?)".replace("{e}", stems("это")[0])
)
_PLACEHOLDER: Final = re.compile(
    r"(?i)[<{$%\[(*.•…]|x{3,}|(?:sha|md5|base|utf|oauth|argon|x509|bcrypt|http|aes|rsa)[-_]?\d|none\b|null\b|true\b|false\b|undefined|required|optional|string|str\b|your|change.?me"
    r"|example|"
    r"secret$|password$|token$|passw(?:or|o)rd|(?:os|env|process|self|this|config|settings|request|args|options"
    r"|ctx)[.\[]"
)
_COMPUTED: Final = re.compile(r"\$\{|\{\{|^[A-Za-z_][\w.]*[\[(]|\\n|^--")
"""What a program works out, a line that goes on, another flag."""
_NAMED: Final = re.compile(r"[A-Za-z_][A-Za-z_]*(?:[.:](?:[A-Za-z_]+))*[;,.)]*")
_COMMON: Final = frozenset(
    "qwerty qwertyuiop password letmein welcome dragon monkey iloveyou sunshine princess football admin passwort hallo "
    "geheim schatz".split()
) | frozenset(stems("йцукен пароль привет любовь"))
_WEAK_NAMES: Final = frozenset({"token", "secret", "credential"})
"""What programs call many things: only a long value with letters and digits counts."""


def find_secrets(view: View) -> Iterator[Hit]:
    """Keys by their forms, passwords by the word before them."""
    plain = view.plain
    for form in FORMS:
        if form.mark in plain:
            for match in form.pattern.finditer(plain):
                if len(set(match[0])) - len(set(form.mark)) // 2 >= form.least_kinds:
                    yield Hit(match.start(), match.end(), form.label)
    if ":AA" in plain:
        yield from (Hit(match.start(), match.end(), _CLOUD) for match in _TELEGRAM.finditer(plain))
    if any(word in plain for word in _HEADER_WORDS):
        yield from (Hit(match.start(), match.end(), _PRIVATE) for match in _HEADER.finditer(plain))
    yield from _given_to_programs(view)
    if "key" in view.folded:
        yield from (Hit(*match.span("value"), _CLOUD) for match in _AWS_SECRET.finditer(plain))
    yield from _cut_keys(plain)
    yield from _passwords(view)


def _given_to_programs(view: View) -> Iterator[Hit]:
    """Passwords in commands and files, and kept ones; users and passwords in pairs."""
    plain, label = view.plain, "secret.password"
    if "$" in plain or "SHA" in plain:
        yield from (Hit(match.start(), match.end(), label) for match in _CRYPT.finditer(plain))
    found = [] if _FLAG_WORDS.isdisjoint(view.words) else list(_FLAGS.finditer(plain))
    if any(sign in plain for sign in _HOST_SIGNS):
        found += _HOST_LINE.finditer(plain)
    if "://" in plain:
        yield from (Hit(*m.span("value"), label) for m in _URL.finditer(plain) if not _PLACEHOLDER.match(m["value"]))
    for match in found:
        value = match["value"]
        if not _PLACEHOLDER.match(value) and not value.isalpha() and value[0] != "/":
            yield Hit(*match.span("value"), label)
    for _, after in _HOLDERS.spans(view):
        pair = _PAIR.match(view.folded, after) or _GRANTED.match(view.folded, after)
        if pair is not None:
            start, end = pair.span("value")
            value = plain[start:end]
            if not _PLACEHOLDER.match(value) and any(map(str.isdigit, value)) and any(map(str.isalpha, value)):
                yield Hit(start, end, label)


_HOLDERS: Final = Phrases(
    "логин юзер имя$ пользовател учетк login user$ username usr$ benutzer креды доступ учетные_данные вход$ creds "
    "credentials access$ zugang"
)
_BEHIND: Final = re.compile(r"\n[ \t]{0,8}+(?P<rest>[\w.+/=-]{2,400}+)")
_LINE_END: Final = re.compile(r"\n[ \t]{0,8}+")
_BACKWARDS: Final = re.compile(r"[\w.+/=-]{2,400}+")
_KEY_CHARS: Final = 400
_LEAST_KEY: Final = 20


def _cut_keys(plain: str) -> Iterator[Hit]:
    """Keys that the end of a line cuts in two."""
    if "\n" not in plain:
        return
    joined = _LINE_END.sub("", plain)
    forms = [form for form in FORMS if form.mark in joined]
    if not forms:
        return
    for behind in _BEHIND.finditer(plain):
        at = behind.start()
        before = _BACKWARDS.match(plain[max(0, at - _KEY_CHARS) : at][::-1])
        if before is None or len(before[0]) + len(behind["rest"]) < _LEAST_KEY:
            continue
        head = before[0][::-1]
        whole, begin, skipped = head + behind["rest"], at - len(head), behind.start("rest") - at
        for form in forms:
            match = form.pattern.search(whole) if form.mark in whole else None
            if match is not None and match.start() < len(head) < match.end():
                yield Hit(begin + match.start(), begin + match.end() + skipped, form.label)


def _passwords(view: View) -> Iterator[Hit]:
    folded = view.folded
    done: set[int] = set()
    for word, part in _WORDS_BY_PART:
        at = folded.find(word) if part in view.vocabulary else -1
        while at >= 0:
            end = at + len(word)
            if _stands(folded, at, word):
                match = _PASSWORD.match(folded, end)
                value = ""
                if match is not None:
                    start = match.start("value")
                    value = view.plain[start : match.end("value")].rstrip(".,;)]}*")
                    if start not in done and _is_password(word, value, match):
                        done.add(start)
                        yield Hit(start, start + len(value), "secret.password")
                        value = ""
                if word not in _WEAK_NAMES and word != "pin" and "key" not in word:
                    yield from _beyond(view, end, done)
            at = folded.find(word, end)
    for word, part in _ACCESS_BY_PART:
        at = folded.find(word) if part in view.vocabulary else -1
        while at >= 0:
            if at == 0 or not folded[at - 1].isalpha():
                yield from _beyond(view, at + len(word), done)
            at = folded.find(word, at + len(word))


_ACCESS: Final = (
    *stems("логин учетн вход$ войти войдите доступ креды"),
    *("login", "log in", "log-in", "logon", "sign in", "signin", "credential", "zugang", "anmeld", "einlogg"),
)
_PART: Final = re.compile(r"[^\W\d_]+")
_WORDS_BY_PART: Final = tuple((word, _PART.findall(word)[0]) for word in _WORDS)
_ACCESS_BY_PART: Final = tuple((word, _PART.findall(word)[0]) for word in _ACCESS)
"""With a part that is in the text's distinct words, or the whole is nowhere."""
_CANDIDATE: Final = re.compile(r"(?<![^\s\"'`|<>,;:=/(])[^\s\"'`|<>,;:=/()\[\]{}\\]{6,64}(?![\w(\[{=])")
_FAR: Final = 90
_SPECIAL: Final = frozenset("!@#$%^&*?+~_-.")
_PATH: Final = re.compile(r"[a-z]+(?:\.[a-z0-9]+)+|[a-z0-9]+(?:[-_.][a-z0-9]+)*|v?[0-9]+(?:\.[0-9a-z]+)+|.*@.*\..*")


def _beyond(view: View, end: int, done: set[int]) -> Iterator[Hit]:
    """The first thing behind the word, on its line or the next, that looks like nothing but a password.

    Capitals, small letters and digits or signs together; a cell of a table, a value of SQL, what follows a user's name.
    """
    stop = min(len(view.plain), end + _FAR)
    blank = view.plain.find("\n\n", end, stop)
    stop = stop if blank < 0 else blank
    for match in _CANDIDATE.finditer(view.plain, end, stop):
        value = match[0].rstrip(".!?") if match.end() == len(view.plain) else match[0].rstrip(".")
        kinds = (
            any(map(str.isdigit, value))
            + any(map(str.isupper, value))
            + any(map(str.islower, value))
            + (not _SPECIAL.isdisjoint(value))
        )
        if kinds < 3 or _PATH.fullmatch(value) or _PLACEHOLDER.match(value) or _NAMED.fullmatch(value):
            continue
        if not (any(map(str.isdigit, value)) or any(sign in value for sign in "!@#$%^&*?")):
            continue
        if match.start() not in done:
            done.add(match.start())
            yield Hit(match.start(), match.start() + len(value), "secret.password")
        return


def _stands(folded: str, at: int, word: str) -> bool:
    """Whether a short word is one, and not part of `opinion` or `passport`."""
    if word in _WHOLE and at and folded[at - 1].isalpha():
        return False
    return word not in _WHOLE | {"pass"} or not folded[at + len(word) : at + len(word) + 1].isalpha()


_WHOLE: Final = frozenset({"pin", "pw", "psw", "psk", "parole", "losung", "clave", "parola", *stems("пасс")})


def _is_password(word: str, value: str, match: re.Match[str]) -> bool:
    if len(value) < 4 or _PLACEHOLDER.match(value) or _COMPUTED.search(value):
        return False
    sign = match["sign"].strip()
    is_mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    if word in _WEAK_NAMES or "key" in word:
        return len(value) >= 16 and is_mixed and sign not in {"", "-"}
    if not sign.strip("-"):
        return (is_mixed and len(value) >= 6) or (value.isalpha() and _has_no_words(value))
    is_quoted = bool(match["quote"] and match["end"]) and len(value) >= 6
    is_word = _NAMED.fullmatch(value) is not None and not (value.isalpha() and _has_no_words(value))
    return value.lower() in _COMMON or (not is_word and (is_quoted or is_mixed or _has_no_words(value)))


def _has_no_words(value: str) -> bool:
    """Digits alone, or letters with signs among them."""
    if value.isalpha():
        return len(value) >= 8 and value.isascii() and len(value) < 3 * len(_PIECE.findall(value))
    return value.isdigit() or (len(value) >= 6 and any(map(str.isalpha, value)))


_PIECE: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""Of camel case: letters that fell by chance have many short ones."""
