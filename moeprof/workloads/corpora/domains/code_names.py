"""Names for the generated programs: what a program is about decides the words that its identifiers are made of."""

from typing import NamedTuple

from moeprof.workloads.corpora.english import plural, words


class Theme(NamedTuple):
    """One subject: things with number-valued fields and true-or-false labels, kept in a container."""

    thing: str
    container: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def things(self) -> str:
        """The plural, also the name of every list of them."""
        return plural(self.thing)


def theme(line: str) -> Theme:
    """Reads `thing container: fields: labels`."""
    heading, fields, labels = line.split(":")
    thing, container = heading.split()
    return Theme(thing, container, tuple(fields.split()), tuple(labels.split()))


THEMES = tuple(
    theme(line)
    for line in (
        "order queue: price quantity weight discount: open paid shipped",
        "node graph: degree depth cost color: visited leaf root",
        "packet buffer: size offset port window: sent lost acked",
        "pixel bitmap: red green blue alpha: opaque masked",
        "token lexer: start length line column: keyword symbol",
        "account ledger: balance overdraft fee interest: frozen closed active",
        "task scheduler: priority delay budget attempts: ready waiting done",
        "sensor station: voltage level drift period: online faulty",
        "row table: width height span padding: header hidden",
        "player game: score lives speed stamina: alive winner",
        "page cache: hits age bytes_used latency: dirty pinned",
        "vertex mesh: x y z angle: sharp fixed",
        "user registry: visits rank credit karma: admin banned",
        "record catalog: key_size position version entries: deleted locked",
        "signal mixer: gain phase rate amplitude: clipped muted",
        "block chain: nonce height reward difficulty: valid orphaned",
        "ticket desk: severity wait urgency votes: solved assigned",
        "item store: stock margin shelf price: sold reserved",
        "job pool: cores memory runtime retries: failed queued",
        "car garage: mileage doors power torque: rented broken",
        "layer network: units inputs dropout momentum: frozen trained",
        "particle solver: mass charge velocity radius: bound escaped",
        "song playlist: duration tempo plays loudness: liked skipped",
        "house market: rooms area rent taxes: furnished vacant",
        "plant garden: height water leaves age: blooming rare",
        "word lexicon: letters syllables frequency rank: archaic plural",
        "flight airport: gate distance altitude seats: delayed boarding",
        "tile board: row_number column_number value elevation: blocked wet",
        "message inbox: recipients characters replies attachments: flagged spam",
        "frame decoder: bitrate timestamp samples quality: key corrupt",
    )
)
ACTIONS = words("update adjust scale limit shift estimate convert weigh round check normalize decay double reset split merge")
RESULTS = words("total result value count best step delta ratio bound gap mean rest extra share")
PURPOSES = ("Keeps track of", "Collects", "Sorts", "Holds", "Validates", "Merges", "Loads", "Writes", "Compares", "Simulates")
EXCEPTIONS = ("ValueError", "KeyError", "RuntimeError", "IndexError")
REMARKS = (
    "the {field} of a {thing} is never negative", "callers sort by {field} first", "a {label} {thing} comes last",
    "keep in step with the {container}", "{things} without {field} are skipped", "the {container} holds only {label} {things}",
    "see the notes on {field}", "slow for many {things}", "rounded down, like {field}", "a {thing} may be {label} twice",
)  # fmt: skip
