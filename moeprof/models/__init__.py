"""Transformer models with MoE layers, their dense twins, and their weights."""
