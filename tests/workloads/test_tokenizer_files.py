"""A tokenizer file encodes every text as the recipe's own tokenizer does, with EOS behind it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.workloads.corpora import MT_LANGUAGES, mt_pairs
from moeprof.workloads.tokenizer_files import CONFIG, MARK, tokenizer_file
from moeprof.workloads.tokenizers import EOS, ByteTokenizer, HashedTokenizer, WordTokenizer, make_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="needs the extra moeprof[hf]")

LITTLE = WordTokenizer(["a", ".", "ab", "été", "a.b"], ["one", "two"], 280)
FILES = [tokenizer_file(LITTLE), tokenizer_file(ByteTokenizer())]
ODD = [
    *" ab.",
    "",
    "  ",
    "a.",
    "a .",
    "ab ab",
    " ab",
    "ab ",
    "ab  ab",
    "x a",
    "a x",
    "x a . b",
    "a\na a",
    "x été",
    "a.b b.a",
    "\0",
]


@given(st.one_of(st.sampled_from(ODD), st.lists(st.sampled_from(["a", ".", "ab", "été", "x", "", "日", "a\n"])).map(" ".join)))
def test_ids_and_texts_are_those_of_the_recipes_tokenizer(text: str) -> None:
    for own, file in zip((LITTLE, ByteTokenizer()), FILES, strict=True):
        assert file is not None
        ids = file.encode(text).ids
        assert ids == [*own.encode(text), EOS]
        assert file.decode(ids) == own.decode(ids) == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=MARK)).filter(lambda text: "<" not in text))
def test_any_text_is_encoded_as_by_the_recipes_tokenizer(text: str) -> None:
    for own, file in zip((LITTLE, ByteTokenizer()), FILES, strict=True):
        assert file is not None
        assert file.encode(text).ids == [*own.encode(text), EOS]


def test_the_default_text_of_every_language_keeps_its_ids() -> None:
    own = make_tokenizer("words", 2560)
    file = tokenizer_file(own)
    assert file is not None
    for language in MT_LANGUAGES:
        for text in (side for pair in mt_pairs(language, "heldout", 20) for side in pair):
            assert file.encode(text).ids == [*own.encode(text), EOS]
        assert file.encode(f"<{language}>").ids == [own.tag(language), EOS]


def test_transformers_reads_the_files(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra moeprof[hf]")
    file = FILES[0]
    assert file is not None
    read = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(file.to_str()), **{key: CONFIG[key] for key in CONFIG if "_token" in key}
    )
    batch = read(["ab x", "a"], padding=True)
    assert batch.input_ids == [[*LITTLE.encode("ab x"), EOS], [*LITTLE.encode("a"), EOS, 0, 0]]
    assert read.decode(batch.input_ids[0], skip_special_tokens=True) == "ab x"


def test_hashed_words_have_no_file() -> None:
    assert tokenizer_file(HashedTokenizer(300)) is None
