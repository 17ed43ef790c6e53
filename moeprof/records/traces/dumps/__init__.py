"""Trace formats of other tools that count, or dump what a server recorded: SGLang, KTransformers, EPLB, llama.cpp, tables."""
