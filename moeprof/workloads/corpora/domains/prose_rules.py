"""The phrase grammar of the prose: four kinds of document, agreement written out in the symbols (`_one`, `_many`)."""

from moeprof.workloads.corpora.domains.phrase_grammar import Grammar
from moeprof.workloads.corpora.domains.prose_words import WORDS

TOWN = """
town_opening:
  [town] is a {size} town on the [river] in the [region]
  the {size} town of [town] lies on the [river], in the south of the [region]
  [town] is a {size}, {adjective} town in the [region]
town_fact:
  it was founded in [founded] and became a town in [chartered]
  about [people] people live in [town]
  its {people_word} live from [goods] and [more_goods]
  the town is known for its [landmark] and its {adjective} {building}
  the [landmark] of [town] was built in [chartered] and {later_built}
  {until} [town] sent [goods] and {thing_word}s down the [river]
  the [river] {river_does} the {town_part} of [town]
  [name], a [trade] from [town], {person_did} the {town_part}
  in {season} the {visitor} come to see the [landmark] and the {adjective} {thing_word} of [name]
  the road from [town] to [away] {road_does}
  since [chartered] the {body} of the town {body_does}
  after the {event}, the {people_word} {rebuilt} the {building}
  every {season} there is a {thing_word} fair, where {person_word}s sell {thing_word}s and [goods]
  an old {person_word} of [town] {person_did} the {town_part}
  in the {event}, {some} {people_word} {lost_many} the {building} and the {town_part}
  the {adjective} {building} beside the {town_part} belongs to the {body}
  the {body} {judged} the {building} because of its {adjective} {place_high}
later_built:
  restored in 18{digit}{digit}
  has never been finished
  burned down in 17{digit}{digit}
  is now a {building}
  fell in the {event}
  was sold to the {body}
  stands beside a {adjective} {building}
until: for centuries | until 18{digit}{digit} | until the {event} | every {season} | before the {event}
river_does: flows past | floods | divides | freezes below | turns north at | feeds | protects | is widest at
  runs beneath
road_does: follows the [river] | crosses the {place_wide} | is closed in winter | was paved in 18{digit}{digit}
  passes a {adjective} {building} | was ruined by the {event}
body_does:
  meets in the [landmark]
  owns the {town_part}
  keeps the peace
  pays for the {building}
  trains {some} {person_word}s a year
  forbids the sale of {thing_word}s
rebuilt: rebuilt | sold | left | moved | fortified | never missed | soon forgot
lost_many: lost | defended | saved | left | rebuilt
"""

PERSON = """
person_opening:
  [name] was a {quality} [trade] from [town]
  [name] ([born] to [died]) was a [trade] who {person_did} the [region]
  the {quality} [trade] [name] was born in [born] in [town], a town on the [river]
person_fact:
  [he] was born in [town] in [born], the child of a {quality} {person_word}
  [he] studied [field] in [away] from [trained]
  in [trained] [he] moved to [away], a {size} town on the [away_river]
  [surname] {person_did} {work_place}
  as a [trade], [he] {person_did} the {town_part} of [away]
  [his] {work} was {judged} by the {body} of [away]
  {later}, [surname] {returned} to [town]
  [he] wrote {some} {works} on {field_word} and {field_word}
  many {people_word} of [town] {remember_many} [him] for [his] {work}
  [surname] died in [died] and is {buried} in [town]
  [his] {kin} {became} a {quality} {person_word} in [away]
  at the age of {age}, [he] {found_idea} {field_word}
  [his] {works} on {field_word} were {judged} after the {event}
  the {adjective} {building} of [town] keeps [his] {works} and a {adjective} {thing_word}
  [he] was {mood} when the {body} {judged} [his] {work}
  [he] {adverb} taught {field_word} to the {people_word} of [away]
  with [his] {kin}, [he] {person_did} a {building} for {people_word}
person_did: worked in | described | mapped | loved | wrote about | often returned to | painted | defended | restored
  surveyed | designed | left
work_place:
  the {building}s of [away]
  the hills of the [region]
  the streets of [town]
  the villages along the [river]
  a {adjective} {building} near [town]
later: later | in old age | after the {event} | {some} years later | after a long illness | in 18{digit}{digit}
returned: returned | retired | went back | gave all the {works} | wrote {some} {works}
  sent a {adjective} {thing_word}
remember_many: remember | admire | thank | honour | envy | still quote
buried: buried | remembered | honoured | celebrated
became: was also | had been | became | wanted to be
age: twenty | thirty | forty | fifty | sixty | seventy | eighty
found_idea: discovered a law of | gave up | published a history of | first taught | began to study
  doubted the theory of
"""

BEAST = """
beast_opening:
  the [beast] is a {size} [colour] {beast_word} of the [habitat]
  the [beast] of the [region] is a {adjective} [kind]
  of all the animals of the [region], the [beast] is the {most} [kind]
beast_fact:
  it {beast_does} in the [habitat] and eats [food]
  in {season} it {beast_does} and looks for [more_food]
  the young, up to [young] of them, {young_many}
  its [colour] {coat} {coat_does}
  {hunter} and {hunter} hunt the [beast] for its {coat}
  when {weather_now}, the [beast] {beast_does}
  [beast]s are {found} from the [habitat] to the {place_end}
  a grown [beast] {beast_does} and {beast_does}
  if there are no [food], it takes [more_food]
  {people_word} {say_many} that the [beast] {beast_does} when {weather_now}
  in a {adjective} {thing_word} of [town], a [beast] {beast_does}
  unlike {hunter}, it {adverb} {beast_does}
  {some} {people_word} of [town] keep a [beast] as a {thing_word}
  the nest is made of {adjective} {nest} and {nest}
  in the {event}, the [beast] {beast_did} the [region]
  the male has a {adjective} {coat} and {beast_does}
beast_word: animal | creature | beast | hunter | dweller
most: most common | rarest | largest | shyest | fastest | loudest | oldest
beast_does: sleeps by day | hunts at night | builds its nest | moves slowly | stays near water | sings at dawn
  hides from the wind | calls its young | fights with {hunter} | digs a {adjective} tunnel | guards the {place_wide}
  follows the {visitor} | climbs a {place_high} | lives alone
beast_did: left | returned to | almost died out in | first reached | became common in
young_many:
  leave the nest after {some} weeks
  stay with the mother until {season}
  learn to hunt in {season}
  are born blind
  grow {adjective} within {some} days
  are taken by {hunter}
coat_does: turns pale in winter | keeps out the rain | is easily seen | hides it well | frightens {hunter}
  is longer than a {thing_word}
found: found | seen | heard | caught | feared | counted
place_end: sea | high passes | gardens of [town] | mouth of the [river] | {town_part} of [town]
say_many: say | believe | know | deny | write
nest: grass | leaves | mud | feathers | twigs | moss | wool | reeds
"""

STORY = """
story_opening:
  one {season} {hour}, [hero] {went} to the [place] with [his] [animal]
  it was {season}, and [hero] {went} to the [place]
  a {quality} {person_word} called [hero] lived near the [place] with [his] [animal]
story_fact:
  {actor} {did} {object}
  {actor} {did} {object} and {did} {object}
  {actor} {adverb} {went} {way}
  {actor_one} {felt_one}, because {actor} {had_done}
  {actors_many} {felt_many}, because {actor} {had_done}
  {when}, {actor} {did} {object}
  [he] {thought} that {said_that}
  the [animal] {animal_did}
  {weather_past}, and {actor} {went} {way}
  {actor} did not {do} {object}
  "{speech}," {said_verb} [friend]
  "{speech}," {said_verb} [hero], and {did} {object}
  nobody {did} {object} until {actor} {went} {way}
  {actor} {went} {way} and {did} {object}
  the [animal] {animal_did}, and [hero] {did} {object}
  {when}, {actors_many} {went} {way}
  "{speech}," {said_verb} the {person_word}, and {actors_many} {went} {way}
  there was {object_new} {where}
  if {actor} {went} {way}, {actor} would {do} {object}
  {actor} {adverb} {did} {object_new}, and then {object}
actor: {actor_one} | {actor_one} | {actors_many}
actor_one: [he] | [he] | [hero] | [friend] | the [animal] | the {adjective} {person_word}
  the {person_word} with the [thing]
actors_many: [he] and [friend] | [hero] and the [animal] | the {person_word}s | {some} {adjective} {person_word}s
person: [friend] | [him] | the {person_word}
object:
  the [thing]
  the {adjective} [thing]
  [his] [thing]
  the [animal]
  the {thing_word}
  {some} {thing_word}s
  the {thing_word} of {owner}
  the {adjective} {thing_word} {where}
  the {thing_word} that {actor} {did}
object_new:
  a {thing_word}
  a {adjective} {thing_word}
  a {adjective} {person_word}
  a {adjective}, {adjective} {thing_word}
where: near the [place] | behind the [place] | past the {place_word} | across the {place_wide}
  through the {place_wide} | under the {place_high} | below the {adjective} {place_high}
  by the {adjective} {place_word} | at the {place_word} of {owner}
way: {where} | to the [place] | to the {place_word} of {owner} | up to the {adjective} {place_word}
owner: [friend] | [hero] | the {person_word}
place_word: {place_any} | {place_wide} | {place_high}
felt_one: was {mood} | felt {mood} | grew {mood}
felt_many: were {mood} | felt {mood} | grew {mood}
had_done: had lost the [thing] | had seen the [animal] | had forgotten the {thing_word} | had slept {where}
  had heard {noise} | had nothing to eat | could not {do} {object}
said_that: {actor} had the [thing] | the [place] was {adjective} | {actor} {did} {object} | the [thing] was {where}
  it was too late
speech: where is the [thing] | the [thing] is {where} | come to the [place] | I have seen {object} | wait until {day}
  do not {do} {object} | this is my [thing] | we must {do} {object} | who {did} {object} | I am {mood}
  {actor} {did} {object} | you look {mood}
animal_did: slept {where} | [cried] at {object} | ran {way} | followed [him] | waited {where} | was {mood}
  [cried] all night
"""

PROSE = Grammar(TOWN + PERSON + BEAST + STORY + WORDS)
