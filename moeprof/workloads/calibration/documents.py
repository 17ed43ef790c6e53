"""The documents of a recipe's text as token ids, without joining them into a stream as the workloads do."""

from collections.abc import Callable, Iterator
from typing import Protocol

from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.tokenizer import load_tokenizer
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.workloads.corpora import Split, lm_documents, mt_pairs
from moeprof.workloads.corpora.translation import SHORTEST_SOURCE
from moeprof.workloads.language_modelling import default_domains, source_of
from moeprof.workloads.text import read_documents, read_pairs, read_token_ids
from moeprof.workloads.tokenizers import BOS, EOS, make_tokenizer
from moeprof.workloads.translation import default_languages

DocumentIds = list[int]
"""The token ids of a document, in the order of the text."""

CHARS_PER_TOKEN = 8
"""Characters to read of a file for every token that is asked for; a token has 8 at most on the whole."""


class DocumentSource(Protocol):
    """The documents of all domains of a recipe."""

    domains: list[str]
    first: list[int]
    """The ids before every sequence."""

    def made(self, domain: str, split: Split, max_tokens: int) -> Iterator[DocumentIds]:
        """The documents of the default text, at least `max_tokens` tokens."""
        ...

    def given(self, domain: str, max_tokens: int) -> Iterator[DocumentIds]:
        """The documents of the user's file, at least `max_tokens` tokens if it has as many."""
        ...


class TextDocuments:
    """Documents of a language model, each with the end of a text behind it."""

    def __init__(self, recipe: Recipe, first: list[int], end: list[int], encode: Callable[[str], list[int]]) -> None:
        self.recipe, self.first, self.end, self.encode = recipe, first, end, encode
        self.domains = list(recipe.data.files or default_domains(recipe))

    @classmethod
    def of(cls, recipe: Recipe) -> "TextDocuments":
        """With the tokenizer of a model of moeprof's own."""
        return cls(recipe, [BOS], [EOS], make_tokenizer(recipe.own_model.tokenizer, recipe.own_model.vocab_size).encode)

    def made(self, domain: str, split: Split, max_tokens: int) -> Iterator[DocumentIds]:
        return ([*self.encode(text), *self.end] for text in lm_documents(domain, split))

    def given(self, domain: str, max_tokens: int) -> Iterator[DocumentIds]:
        source = source_of(self.recipe, domain)
        assert source is not None
        texts = read_documents(domain, source, max_tokens * CHARS_PER_TOKEN).documents
        return ([*self.encode(text), *self.end] for text in texts)


class HuggingFaceDocuments(TextDocuments):
    """Documents through the tokenizer of a Hugging Face model, or token ids as they are."""

    @classmethod
    def of(cls, recipe: Recipe) -> "HuggingFaceDocuments":
        """With the tokenizer in the model's folder, if it has one; token ids need none."""
        section = recipe.model
        assert isinstance(section, HuggingFaceSection)
        folder = open_folder(section.huggingface)
        if not folder.has_tokenizer and recipe.data.files:
            return cls(recipe, [], [], lambda _: load_tokenizer(folder).encode(""))  # refuses text, with the remedy
        tokenizer = load_tokenizer(folder, chat=section.chat, trust_remote_code=section.trust_remote_code)
        return cls(recipe, tokenizer.first_ids, tokenizer.end_ids, tokenizer.encode)

    def given(self, domain: str, max_tokens: int) -> Iterator[DocumentIds]:
        source, section = source_of(self.recipe, domain), self.recipe.model
        assert source is not None
        assert isinstance(section, HuggingFaceSection)
        ids = read_token_ids(domain, source, section.vocab_size)
        return super().given(domain, max_tokens) if ids is None else iter(ids)


class SourceDocuments:
    """Sources of translations, each a document that ends with EOS."""

    first: list[int] = []  # noqa: RUF012

    def __init__(self, recipe: Recipe) -> None:
        model = recipe.own_model
        self.recipe, self.tokenizer = recipe, make_tokenizer(model.tokenizer, model.vocab_size, model.checkpoint)
        self.domains = list(recipe.data.files or default_languages(recipe))

    def made(self, domain: str, split: Split, max_tokens: int) -> Iterator[DocumentIds]:
        return self.ended(mt_pairs(domain, split, max_tokens // SHORTEST_SOURCE + 1))

    def given(self, domain: str, max_tokens: int) -> Iterator[DocumentIds]:
        return self.ended(read_pairs(domain, self.recipe.data.files[domain], max_tokens).pairs)

    def ended(self, pairs: list[tuple[str, str]]) -> Iterator[DocumentIds]:
        """The sources as the encoder reads them; what is too long is cut."""
        length = self.recipe.load.sequence_length - 1
        return ([*self.tokenizer.encode(source)[:length], EOS] for source, _ in pairs)


def documents_of(recipe: Recipe) -> DocumentSource:
    """The documents of a recipe's text; UsageError if it has no tokenizer for them."""
    if isinstance(recipe.model, HuggingFaceSection):
        return HuggingFaceDocuments.of(recipe)
    return TextDocuments.of(recipe) if recipe.workload == "lm" else SourceDocuments(recipe)
