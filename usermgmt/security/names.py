"""Canonical names: the one key of each name, by which it is compared, sorted and found on both databases.

Usernames follow PRECIS (RFC 8265, UsernameCaseMapped) and keep to one script, so that no name looks like another
(Unicode UTS 39, "highly restrictive"). Keys of usernames and of e-mail addresses share one namespace: a username that
reads as an address has that address' key.
"""

import re
import unicodedata
from dataclasses import dataclass

import email_validator
import precis_i18n

MAX_USERNAME = 64
MAX_EMAIL = 254
MAX_DISPLAY_NAME = 100
MAX_USERNAME_KEY, MAX_EMAIL_KEY, MAX_PREFIX_KEY = 255, 320, 512  # folding can make a text many times longer
MAX_ROUNDS = 4
SHORT_EMAIL = 64  # so is its local part

# Company networks have such addresses; mail is not what a key is for.
for _domain in ("local", "test", "localhost"):
    if _domain in email_validator.SPECIAL_USE_DOMAIN_NAMES:
        email_validator.SPECIAL_USE_DOMAIN_NAMES.remove(_domain)

# What most names look like is its own key, as the long way would find.
_PLAIN_USERNAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_PLAIN_EMAIL = re.compile(r"[a-z0-9]+(?:[._+-][a-z0-9]+)*@(?:[a-z0-9]{1,60}\.){1,6}[a-z]{2,20}")

_PROFILE = precis_i18n.get_profile("UsernameCaseMapped")
_EAST_ASIAN = ({"LATIN", "CJK", "HIRAGANA", "KATAKANA"}, {"LATIN", "CJK", "BOPOMOFO"}, {"LATIN", "CJK", "HANGUL"})
_NOT_A_SCRIPT = {"COMBINING", "MODIFIER", "MIDDLE", "DIGIT"}
_SCRIPT_OF = {"IDEOGRAPHIC": "CJK", "KATAKANA-HIRAGANA": "KATAKANA", "ARABIC-INDIC": "ARABIC", "EXTENDED": "ARABIC"}


class InvalidName(ValueError):
    """A text that cannot be a name here: a stable code, and a sentence for whoever typed it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class EmailName:
    """An e-mail address as it is shown (its domain normalised), and its key."""

    address: str
    key: str


def username_key(username: str) -> str:
    """The key of a username. Raises `InvalidName`. The key of a key is itself."""
    if _PLAIN_USERNAME.fullmatch(username):
        return username
    if not 1 <= len(username) <= MAX_USERNAME:
        raise InvalidName("invalid_username", f"A username has 1 to {MAX_USERNAME} characters.")
    key = _stable(username)
    if "/" in key:
        raise InvalidName("invalid_username", "A username must not contain a slash.")
    if not _is_one_script(key):
        raise InvalidName("invalid_username", "A username must not mix letters or digits of different scripts.")
    key = _key_as_address(username) or _key_as_address(key) or key  # as typed first: a domain is not case folded
    if len(key) > MAX_USERNAME_KEY:
        raise InvalidName("invalid_username", "A username must not have so many characters that stand for several.")
    return key


def canonical_email(email: str) -> EmailName:
    """The address and its key: local part folded (for the key only), domain in its ASCII form. Raises `InvalidName`.

    Accepted are addresses of RFC 5322's plain form with a domain of at least two labels; whether mail arrives there
    is not asked.
    """
    if _PLAIN_EMAIL.fullmatch(email) and len(email) <= SHORT_EMAIL and not _is_special(email):
        return EmailName(email, email)
    if not 1 <= len(email) <= MAX_EMAIL:
        raise InvalidName("invalid_email", f"An e-mail address has 3 to {MAX_EMAIL} characters.")
    found = _validated_email(email)
    key = f"{_folded(found.local_part)}@{(found.ascii_domain or found.domain).lower()}"
    if not found.local_part.isascii():
        _validated_email(key)  # folding can make an @ or a space of one character that is neither
    if len(key) > MAX_EMAIL_KEY:
        raise InvalidName("invalid_email", "This is not an e-mail address.")
    return EmailName(found.normalized, key)


def login_name_key(text: str) -> str | None:
    """The key of whatever was typed as a name at sign-in, or None when it cannot be one. Never raises."""
    try:
        return canonical_email(text).key
    except InvalidName:
        pass
    try:
        return username_key(text)
    except InvalidName:
        return None


def prefix_key(text: str) -> str:
    """The beginning of a name, folded as keys are, without asking whether it is one."""
    return _folded(text)[:MAX_PREFIX_KEY]


def display_name_problem(text: str) -> str | None:
    """Why a text cannot be a display name, or None."""
    if not 1 <= len(text) <= MAX_DISPLAY_NAME:
        return f"A display name has 1 to {MAX_DISPLAY_NAME} characters."
    if any(unicodedata.category(character) == "Cc" for character in text):
        return "A display name must not contain control characters."
    return None


def _is_special(email: str) -> bool:
    """Whether the domain is one of those that lead nowhere (RFC 6761)."""
    domain = email.partition("@")[2]
    return any(domain == name or domain.endswith(f".{name}") for name in email_validator.SPECIAL_USE_DOMAIN_NAMES)


def _validated_email(email: str) -> email_validator.ValidatedEmail:
    try:
        return email_validator.validate_email(email, check_deliverability=False)
    except email_validator.EmailNotValidError as error:
        raise InvalidName("invalid_email", "This is not an e-mail address.") from error


def _key_as_address(key: str) -> str | None:
    """The key of a username that reads as an e-mail address."""
    try:
        return canonical_email(key).key if "@" in key else None
    except InvalidName:
        return None


def _stable(username: str) -> str:
    """Apply the profile until nothing changes."""
    key = username
    for _ in range(MAX_ROUNDS):
        before = key
        try:
            key = _folded(_PROFILE.enforce(unicodedata.normalize("NFKC", key)))
        except UnicodeEncodeError as error:
            raise InvalidName(
                "invalid_username", "A username is of letters, digits and visible punctuation."
            ) from error
        if key == before:
            return key
    raise InvalidName("invalid_username", "A username is of letters, digits and visible punctuation.")


def _folded(text: str) -> str:
    """NFKC and case folding (Unicode 3.13, definition D146), which together are stable."""
    folded = unicodedata.normalize("NFKC", text)
    for _ in range(MAX_ROUNDS):
        before, folded = folded, unicodedata.normalize("NFKC", folded.casefold())
        if folded == before:
            break
    return folded


def _is_one_script(text: str) -> bool:
    scripts = {_script(character) for character in text if character.isalnum()} - _NOT_A_SCRIPT
    return len(scripts) <= 1 or any(scripts <= together for together in _EAST_ASIAN)


def _script(character: str) -> str:
    """The script of a letter or digit, which Unicode puts first in its name."""
    word = unicodedata.name(character, "UNKNOWN").split(" ", 1)[0]
    return _SCRIPT_OF.get(word, word)
