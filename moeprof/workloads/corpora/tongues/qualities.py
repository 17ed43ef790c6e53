"""Adjectives and adverbs of the source language, written as in `nouns`; a lone word after `=` is the adverb's adjective."""

GENERAL = """
big old good beautiful small strong strange new=-old bad ugly=-beautiful quiet famous quick slow=-quick weak=-strong noisy=-quiet
huge=^big tiny=^small ancient=^old excellent=^good terrible=^bad gorgeous=^beautiful mighty=^strong
"""

PERSONAL = """
happy tired hungry angry sad=-happy brave clever poor sick rich=-poor wise honest lazy proud lonely kind thirsty
foolish=-wise stupid=-clever timid=-brave calm=-angry cruel=-kind modest=-proud healthy=-sick diligent=-lazy
furious=^angry exhausted=^tired starving=^hungry delighted=^happy brilliant=^clever fearless=^brave destitute=^poor
"""

PHYSICAL = """
red white black green cold hot long heavy dark wet hard bitter sweet=-bitter dry=-wet soft=-hard short=-long bright=-dark
blue yellow round full empty=-full broken expensive cheap=-expensive smooth rough=-smooth deep shallow=-deep wide
narrow=-wide distant nearby=-distant freezing=^cold scorching=^hot scarlet=^red endless=^long soaked=^wet massive=^heavy
"""

MANNERS = """
quickly=quick slowly=-quick quietly=quiet loudly=-quiet happily=happy sadly=-happy well=good badly=bad bravely=brave
angrily=angry calmly=-angry kindly=kind honestly=honest proudly=proud lazily=lazy wisely=wise cleverly=clever
beautifully=beautiful strangely=strange gently=-strong cruelly=-kind softly=-hard
"""

FREQUENCIES = "often always never sometimes again still rarely=-often"
PAST = "yesterday long_ago last_year"
PRESENT = "today now this_year"
FUTURE = "tomorrow soon tonight"
