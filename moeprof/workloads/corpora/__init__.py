"""The default text of the workloads, made by generators of our own: the same bytes on every machine and every Python."""

from moeprof.workloads.corpora.language import LM_DOMAINS, lm_documents, lm_text
from moeprof.workloads.corpora.randomness import Split
from moeprof.workloads.corpora.translation import MT_LANGUAGES, SOURCE_LANGUAGE, mt_pairs, mt_vocabulary

__all__ = ["LM_DOMAINS", "MT_LANGUAGES", "SOURCE_LANGUAGE", "Split", "lm_documents", "lm_text", "mt_pairs", "mt_vocabulary"]
