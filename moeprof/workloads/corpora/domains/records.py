"""Machine-written records: orders as JSON lines, readings as tables, and service logs, each with fields that agree."""

from typing import NamedTuple

from moeprof.workloads.corpora.english import words
from moeprof.workloads.corpora.randomness import RandomStream

SHOPS = ("NORTH", "SOUTH", "PIER", "HUB", "WEST-2", "DOCK-7")
STATUSES = ("new", "paid", "sent", "back", "held", "lost")
SURNAMES = ("Abel", "Brook", "Cole", "Dunn", "Ekman", "Frost", "Gray", "Hale")
BUYERS = tuple(f"{initial}. {name}" for initial in "AFKMRT" for name in SURNAMES)
SERVICES = ("auth", "billing", "search", "upload", "mail", "gateway")
METHODS = ("GET", "GET", "GET", "POST", "PUT", "DELETE")
PATHS = ("/login", "/cart", "/items/{}", "/users/{}", "/reports/daily", "/reports/weekly", "/files/{}", "/health", "/tags/{}")
NAMES = words(
    "bolt nut cable fuse lamp relay pump valve hose gasket clamp motor switch socket bracket spring washer screw gear belt "
    "chain filter nozzle sensor tube wire plug rivet"
)


class Article(NamedTuple):
    """A line of the catalogue; the price belongs to the number in every document."""

    number: str
    name: str
    cents: int


ARTICLES = tuple(
    Article(f"{chr(65 + row % 6)}{100 + 7 * row}", name, 50 * (3 + row * row % 37)) for row, name in enumerate(NAMES)
)


class Channel(NamedTuple):
    """A measured quantity with its unit, usual level and the level above which it is an alarm."""

    name: str
    unit: str
    usual: int
    alarm: int


CHANNELS = (
    Channel("pressure", "kPa", 101, 108),
    Channel("temperature", "C", 21, 27),
    Channel("humidity", "%", 48, 55),
    Channel("voltage", "mV", 3300, 3306),
    Channel("flow", "l/min", 75, 80),
    Channel("speed", "rpm", 1480, 1490),
)


def clock(seconds: int) -> str:
    """hh:mm:ss of a second of the day."""
    return f"{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def money(cents: int) -> str:
    """Whole units and two digits, made of whole numbers."""
    return f"{cents // 100}.{cents % 100:02d}"


def date(stream: RandomStream) -> str:
    """A day of some year, never past the 28th, so that every month has it."""
    return f"20{stream.between(10, 24)}-{stream.between(1, 12):02d}-{stream.between(1, 28):02d}"


def record_document(stream: RandomStream) -> str:
    """Eight to twenty lines of one kind, ASCII."""
    write = stream.pick((order_lines, reading_lines, log_lines))
    return "\n".join(write(stream, stream.between(8, 20)))


def order_lines(stream: RandomStream, num_lines: int) -> list[str]:
    """JSON objects: ids count up, the price is the catalogue's, the total is quantity times price."""
    order, shop, day = stream.between(10_000, 99_000), stream.pick(SHOPS), date(stream)
    lines = []
    for number in range(order, order + num_lines):
        article, quantity = stream.pick(ARTICLES), stream.between(1, 9)
        price, total = money(article.cents), money(quantity * article.cents)
        lines.append(
            f'{{"id": {number}, "shop": "{shop}", "date": "{day}", "buyer": "{stream.pick(BUYERS)}", '
            f'"article": "{article.number}", "name": "{article.name}", "qty": {quantity}, "price": {price}, '
            f'"total": {total}, "status": "{stream.pick(STATUSES)}"}}'
        )
    return lines


def reading_lines(stream: RandomStream, num_lines: int) -> list[str]:
    """A table under a heading: evenly spaced times, two levels that wander by at most 3, an alarm when one is too high."""
    channels, station = stream.sample(CHANNELS, 2), f"ST-{stream.between(1, 40):02d}"
    step, seconds = stream.pick((60, 300, 900)), 60 * stream.below(1200)
    levels, day = [channel.usual + stream.between(-4, 4) for channel in channels], date(stream)
    lines = [f"station;date;time;{';'.join(f'{channel.name}/{channel.unit}' for channel in channels)};state"]
    for _ in range(num_lines):
        alarms = [channel.name for channel, level in zip(channels, levels, strict=True) if level > channel.alarm]
        values = ";".join(str(level) for level in levels)
        lines.append(f"{station};{day};{clock(seconds)};{values};{'+'.join(alarms) or 'ok'}")
        seconds += step
        levels = [level + stream.between(-3, 3) for level in levels]
    return lines


def log_lines(stream: RandomStream, num_lines: int) -> list[str]:
    """Requests of one service: every request id is answered by the line that follows it, slow ones with an error."""
    service, day, seconds = stream.pick(SERVICES), date(stream), stream.below(80_000)
    request = stream.between(0x1000, 0xEFFF)
    hosts = [f"10.0.{stream.below(4)}.{stream.below(256)}" for _ in range(4)]
    lines = []
    for _ in range(-(-num_lines // 2)):
        method, path = stream.pick(METHODS), stream.pick(PATHS).format(stream.between(100, 999))
        head, identity = f"{day}T{clock(seconds)}Z", f"{service}[{request:04x}]"
        lines.append(f"{head} INFO {identity} {method} {path} from {stream.pick(hosts)}")
        took = stream.between(2, 99)
        status, level = ("200", "INFO") if took < 80 else (stream.pick(("404", "500", "503")), "ERROR")
        lines.append(f"{head} {level} {identity} {method} {path} -> {status} in {took} ms, {stream.between(40, 4000)} bytes")
        seconds, request = seconds + stream.below(20), request + 1
    return lines
