"""The country that the prose tells of: its facts are the same in every document, so a model can learn them by heart."""

from dataclasses import dataclass

from moeprof.workloads.corpora.english import words
from moeprof.workloads.corpora.randomness import RandomStream, common_first, seed_of

TOWN_HEADS = ("Bren", "Har", "Ald", "Wes", "Kell", "Thorn", "Mar", "Stan", "Lin", "Oak", "Pem", "Rad")
TOWN_TAILS = ("ford", "low", "wick", "ton", "bridge", "mouth", "stead", "ham")
RIVERS = ("Avel", "Torrin", "Sarn", "Wend", "Illa", "Morra", "Keth", "Lune", "Orrin", "Dace", "Ruel", "Taver")
REGIONS = ("Northmoor", "Eastvale", "Lower Fen", "High Marches", "Saltcoast", "Greyhills")
TRADES = (
    ("painter", "painting"), ("surveyor", "surveying"), ("botanist", "botany"), ("printer", "printing"),
    ("engineer", "mechanics"), ("physician", "medicine"), ("teacher", "grammar"), ("composer", "music"),
    ("geologist", "geology"), ("historian", "history"), ("astronomer", "astronomy"), ("weaver", "weaving"),
    ("shipwright", "shipbuilding"), ("chemist", "chemistry"), ("lawyer", "law"), ("poet", "literature"),
)  # fmt: skip
GOODS = (
    "wool", "salt", "barley", "timber", "slate", "glass", "herring", "cider", "linen", "copper", "honey", "leather",
    "cheese", "bricks", "paper", "apples",
)  # fmt: skip
LANDMARKS = (
    "stone bridge", "market hall", "lighthouse", "abbey", "clock tower", "mill", "town hall", "library", "harbour wall",
    "castle", "railway station", "museum", "grain store", "theatre",
)  # fmt: skip
WOMEN = words("Clara Edith Nora Agnes Martha Ruth Helen Ida Judith Laura Mabel Olive Rose Sylvia Winifred Flora")
MEN = words("Arthur Edmund George Hugh Jacob Martin Oscar Peter Robert Simon Thomas Walter Alfred Daniel Frank Louis")
SURNAMES = words(
    "Barrow Carter Denholm Eastman Fletcher Garrick Holloway Ingram Jessop Kirkby Lambert Mercer Norris Oakley Palmer Quill "
    "Rowland Sadler Tanner Underhill Vickers Whitlock Yardley Ashdown Bellamy Crane Dunmore Farrow Gilmore Hartley"
)
BEASTS = words("heron otter badger falcon marten hare adder owl lynx salmon plover stoat beaver raven toad swift")
KINDS = ("bird", "hunter", "swimmer", "climber", "wanderer")
HABITATS = ("river banks", "old forests", "open heaths", "salt marshes", "stony hills", "deep valleys")
FOODS = ("small fish", "beetles", "seeds and berries", "mice", "frogs", "roots and bark", "worms", "eggs")
COLOURS = ("brown", "grey", "black", "white", "red", "golden", "spotted", "striped")


@dataclass(frozen=True)
class Facts:
    """Slots for the grammar, by the name of the entity that they belong to."""

    towns: tuple[dict[str, str], ...]
    people: tuple[dict[str, str], ...]
    beasts: tuple[dict[str, str], ...]


def town(name: str, stream: RandomStream) -> dict[str, str]:
    """A town's river, region, goods and dates."""
    goods, more_goods = stream.sample(GOODS, 2)
    river = stream.below(len(RIVERS))
    founded = stream.between(1100, 1690)
    return {
        "town": name,
        "river": RIVERS[river],
        "region": REGIONS[river // 2],  # a river stays in its region
        "goods": goods,
        "more_goods": more_goods,
        "landmark": stream.pick(LANDMARKS),
        "founded": str(founded),
        "chartered": str(founded + 10 * stream.between(2, 9)),
        "people": f"{stream.between(2, 48)},000",
    }


def person(number: int, towns: tuple[dict[str, str], ...], stream: RandomStream) -> dict[str, str]:
    """A person with pronouns, trade, a town of birth and one of work."""
    woman = number % 2 == 0
    first, surname = stream.pick(WOMEN if woman else MEN), SURNAMES[number % len(SURNAMES)]
    trade, field = stream.pick(TRADES)
    born = stream.between(1740, 1930)
    pronouns = ("she", "her", "her") if woman else ("he", "him", "his")
    home, away = stream.sample(towns, 2)
    return dict(zip(("he", "him", "his"), pronouns, strict=True)) | {
        "name": f"{first} {surname}",
        "surname": surname,
        "trade": trade,
        "field": field,
        "town": home["town"],
        "river": home["river"],
        "region": home["region"],
        "away": away["town"],
        "away_river": away["river"],
        "born": str(born),
        "trained": str(born + 19),
        "died": str(born + stream.between(48, 84)),
    }


def beast(name: str, stream: RandomStream) -> dict[str, str]:
    """An animal's looks, food and habitat."""
    food, more_food = stream.sample(FOODS, 2)
    return {
        "beast": name,
        "kind": stream.pick(KINDS),
        "habitat": stream.pick(HABITATS),
        "food": food,
        "more_food": more_food,
        "colour": stream.pick(COLOURS),
        "region": stream.pick(REGIONS),
        "young": str(stream.between(2, 7)),
    }


def facts() -> Facts:
    """All that is known of the country; entities that are written about more often stand several times."""
    stream = RandomStream(seed_of("lm", "world"))
    names = [head + tail for head in TOWN_HEADS for tail in TOWN_TAILS]
    towns = tuple(town(name, stream) for name in stream.sample(names, 60))
    people = tuple(person(number, towns, stream) for number in range(150))
    beasts = tuple(beast(name, stream) for name in BEASTS)
    return Facts(common_first(towns), common_first(people), common_first(beasts))
