"""The kinds of language-model text: each module writes one document from one random stream."""
