"""The FFN forms by name; a new one is a file beside this one and one `register` line here."""

from moeprof.records.ffn.form import FFNForm
from moeprof.records.ffn.gated import GATED
from moeprof.records.ffn.mlp import MLP

FFN_FORMS: dict[str, FFNForm] = {}
"""All registered forms by name, in the order of registration."""


def register(form: FFNForm) -> None:
    """Adds a form, known everywhere from then on; ValueError if its name is taken."""
    if form.name in FFN_FORMS:
        raise ValueError(f"FFN form {form.name!r} is registered already")
    FFN_FORMS[form.name] = form


register(MLP)
register(GATED)


def known_form(name: str) -> str:
    """The name itself; ValueError if no form has it."""
    if name not in FFN_FORMS:
        raise ValueError(f"unknown FFN form {name!r}, known are {', '.join(FFN_FORMS)}")
    return name


def bias_names() -> set[str]:
    """The last parts that names of biases can have, in an FFN of any form or in a linear layer."""
    return {"bias", *(matrix.bias for form in FFN_FORMS.values() for matrix in form.matrices)}
