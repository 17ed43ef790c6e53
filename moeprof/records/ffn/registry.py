"""The FFN forms by name."""

from moeprof.records.ffn.form import FFNForm
from moeprof.records.ffn.gated import GATED
from moeprof.records.ffn.mlp import MLP

FFN_FORMS: dict[str, FFNForm] = {form.name: form for form in (MLP, GATED)}


def known_form(name: str) -> str:
    """The name itself; ValueError if no form has it."""
    if name not in FFN_FORMS:
        raise ValueError(f"unknown FFN form {name!r}, known are {', '.join(FFN_FORMS)}")
    return name


def bias_names() -> set[str]:
    """Names that a bias can have as the last part of a parameter's name, in any form or in a linear layer."""
    return {"bias", *(matrix.bias for form in FFN_FORMS.values() for matrix in form.matrices)}
