"""English-like prose: encyclopaedia entries on a fixed country, and stories whose heroes keep their names and things."""

from moeprof.workloads.corpora.domains.prose_rules import PROSE
from moeprof.workloads.corpora.domains.world import MEN, WOMEN, facts
from moeprof.workloads.corpora.english import with_articles
from moeprof.workloads.corpora.randomness import RandomStream

FACTS = facts()
ANIMALS = (
    ("dog", "barked"), ("horse", "neighed"), ("goat", "bleated"), ("cat", "mewed"),
    ("donkey", "brayed"), ("goose", "hissed"), ("parrot", "shrieked"), ("wolf", "howled"),
)  # fmt: skip
THINGS = ("lantern", "letter", "key", "ring", "map", "violin", "basket", "clock", "knife", "painting", "coin", "boat")
PLACES = ("forest", "mill", "harbour", "market", "orchard", "castle", "island", "river", "quarry", "inn")


def prose_document(stream: RandomStream) -> str:
    """Two to four paragraphs on one subject, ASCII."""
    kind = stream.pick(("town", "person", "beast", "story", "story"))
    bound = story_slots(stream) if kind == "story" else entry_slots(kind, stream)
    sentences = [sentence(f"{kind}_opening", PROSE.order(f"{kind}_opening", stream)[0], stream, bound)]
    paragraphs = []
    untold: list[int] = []
    for _ in range(stream.between(2, 4)):
        for _ in range(stream.between(2, 6)):
            untold = untold or PROSE.order(f"{kind}_fact", stream)
            sentences.append(sentence(f"{kind}_fact", untold.pop(), stream, bound))
        paragraphs.append(" ".join(sentences))
        sentences = []
    return with_articles("\n".join(paragraphs))


def sentence(symbol: str, way: int, stream: RandomStream, bound: dict[str, str]) -> str:
    """One expansion with its capital and full stop."""
    words = PROSE.expand(symbol, way, stream, bound)
    first = 1 if words[0] == '"' else 0
    return f"{words[:first]}{words[first].upper()}{words[first + 1 :]}."


def entry_slots(kind: str, stream: RandomStream) -> dict[str, str]:
    """What an encyclopaedia entry may mention: its subject's facts over those of some other town and person."""
    town, person, beast = stream.pick(FACTS.towns), stream.pick(FACTS.people), stream.pick(FACTS.beasts)
    if kind == "town":
        return person | town
    return town | (person if kind == "person" else beast)


def story_slots(stream: RandomStream) -> dict[str, str]:
    """A hero, a friend, and the animal, thing and place that the story is about."""
    woman = stream.percent(50)
    hero, friend = stream.pick(WOMEN if woman else MEN), stream.pick(MEN if woman else WOMEN)
    animal, cried = stream.pick(ANIMALS)
    return {
        "hero": hero,
        "friend": friend,
        "he": "she" if woman else "he",
        "him": "her" if woman else "him",
        "his": "her" if woman else "his",
        "animal": animal,
        "cried": cried,
        "thing": stream.pick(THINGS),
        "place": stream.pick(PLACES),
    }
