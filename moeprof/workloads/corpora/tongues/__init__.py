"""The synchronous grammar behind the translation pairs: meanings, sentences, and the languages that say them."""
