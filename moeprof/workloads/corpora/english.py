"""The little English spelling that the generators need."""


def words(text: str) -> tuple[str, ...]:
    """A word list written as running text."""
    return tuple(text.split())


def plural(noun: str) -> str:
    """The regular plural: `-s`, `-es` after a hiss, `-ies` for a consonant and y."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def with_articles(text: str) -> str:
    """`text` with `an` for `a` before a vowel; no vocabulary here has a word in which the letter misleads."""
    for vowel in "aeio":
        text = text.replace(f" a {vowel}", f" an {vowel}")
    return text
