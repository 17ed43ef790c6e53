"""Prose is what a reader of the page reads as sentences."""

import pytest

from moeprof.workloads.documentation.prose import paragraphs, plain

PAGE = """
=========
The guide
=========

.. _a-target:

.. module:: guide.words

A paragraph that is
written on two lines.

#) One point of a list, which
   goes on here.
* Another point::

      code = "is no prose at all"

  The point ends here.

.. code-block:: python

    def nothing(of_this):
        remains = True

.. note::

    A note is prose.

.. versionadded:: 5.0
    :no-index:

    So is a remark.

term
    What the term means here.

======== ===========
a column of a table
======== ===========

>>> answer = "of a session"

======  ======
x       y
======  ======

1.2.3 4.5.6 {{ much }} <<punctuation>>
"""


def test_paragraphs_items_and_titles_remain_and_code_directives_and_tables_do_not() -> None:
    assert list(paragraphs(PAGE)) == [
        "The guide",
        "A paragraph that is written on two lines.",
        "One point of a list, which goes on here.",
        "Another point:",
        "The point ends here.",
        "A note is prose.",
        "So is a remark.",
        "What the term means here.",
        "a column of a table",
    ]


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("a :class:`~django.test.TestCase` here", "a TestCase here"),
        ("use :meth:`.QuerySet.get()` now", "use get() now"),
        (":ref:`See the words <a-target>`.", "See the words."),
        ("the `page <address>`_ and `it`_", "the page and it"),
        ("``code_like`` and *stress*, **more**", "code_like and stress, more"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("as noted [#note]_", "as noted"),
        (r"a backslash\s", "a backslashs"),
        (":djadmin:`migrate` and :pep:`8#naming`", "migrate and 8#naming"),
    ],
)
def test_inline_markup_leaves_the_words_that_a_page_shows(marked: str, expected: str) -> None:
    assert plain(marked) == expected
