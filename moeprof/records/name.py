"""Names of recipes, domains, layers and variants: text that becomes a part of paths, tables and reports."""

from typing import Annotated

from pydantic import AfterValidator

MAX_LENGTH = 64
RULE = f"Names have 1 to {MAX_LENGTH} printable characters, no '/' or '\\', and begin with a letter, a digit or '_'."


def valid_name(text: str) -> bool:
    """Whether a text can be a name.

    The first character excludes `..`, options such as `-x`, and formulas such as `=1+1` in a table that a spreadsheet opens.
    """
    return (
        0 < len(text) <= MAX_LENGTH and text.isprintable() and not {*"/\\"} & {*text} and (text[0].isalnum() or text[0] == "_")
    )


def checked_name(text: str) -> str:
    """The text itself; ValueError if it cannot be a name."""
    if not valid_name(text):
        raise ValueError(f"{text[: MAX_LENGTH + 1]!r} is not a valid name. {RULE}")
    return text


Name = Annotated[str, AfterValidator(checked_name)]


def name_from(text: str, default: str) -> str:
    """The name nearest to a text such as the stem of a file: other characters become `_`, the end is cut."""
    plain = "".join(character if character.isprintable() and character not in "/\\" else "_" for character in text)[:MAX_LENGTH]
    return plain if valid_name(plain) else f"_{plain[1:]}" if plain else default
