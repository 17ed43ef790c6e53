"""The vocabulary of the prose, by the symbol of the phrase grammar that draws from it."""

WORDS = """
size: small | large | busy | quiet | prosperous | remote | wealthy | little | sleepy | crowded | walled | modern
  compact | windy
quality: gifted | careful | celebrated | modest | stubborn | restless | patient | respected | generous | forgotten
  brilliant | humble | learned | popular | curious | shrewd | gentle | solitary
adjective: old | small | broken | heavy | empty | quiet | dark | narrow | wooden | green | cold | strange | bright
  dusty | yellow | rusty | golden | silent | crooked | forgotten | warm | hollow | pale | muddy | round | tall | ancient
  painted | black | silver | white | blue | thin | deep | lonely | smooth | torn | wet
mood: happy | afraid | tired | proud | sad | curious | hungry | ashamed | calm | angry | lonely | bored | grateful
  nervous | cheerful | jealous | weary | glad
person_word: baker | smith | farmer | miller | sailor | tailor | shepherd | carpenter | gardener | weaver | butcher
  fisher | merchant | potter | mason | soldier | widow | stranger | priest | doctor | beggar | judge | hunter | barber
  cook | messenger | traveller | robber | clerk | nurse
thing_word: lantern | basket | letter | coat | boat | kettle | ladder | mirror | drum | candle | blanket | bucket
  hammer | map | wheel | bottle | chair | rope | apple | needle | shovel | barrel | picture | ribbon | whistle | saddle
  feather | curtain | pillow | anchor | bell | book | chest | cup | stone | table | sack | hat | button | trumpet
  parcel | purse | window | spoon | shoe | pipe | crown | fiddle | jacket | puppet
place_any: barn | well | stable | pond | cellar | workshop | fountain | graveyard | ferry | smithy | bakery | inn
place_wide: orchard | field | garden | lane | quarry | shore | meadow | village | square | wood | valley | marsh
  courtyard | park | heath
place_high: bridge | tower | hedge | gate | church | wall | roof | hill | windmill | arch | chapel
did: took | found | saw | carried | hid | dropped | kept | watched | sold | painted | lost | wanted | remembered
  bought | stole | broke | cleaned | admired | followed | ignored | mended | touched | buried | borrowed | drew
  counted | noticed | returned | described | chose | showed {person} | gave {person} | promised {person}
  brought {person} | sold {person}
do: take | find | see | carry | hide | drop | keep | watch | sell | paint | lose | want | remember | buy | steal
  break | clean | admire | follow | ignore | mend | touch | bury | borrow | draw | count | notice | return | describe
  choose
went: walked | went | came | ran | rode | hurried | wandered | crept | limped | marched | travelled | strolled
  danced | raced | stumbled
adverb: slowly | quickly | quietly | gladly | suddenly | carefully | secretly | sadly | often | never | always
  bravely | calmly | politely | again | soon
noise: a bell | the wind | a song | footsteps | thunder | a whisper | music | a knock | laughter | the waves | horses
  an echo
said_verb: said | replied | whispered | shouted | answered | cried | asked | laughed | insisted | murmured
thought: said | thought | knew | hoped | whispered | feared | believed | dreamed | guessed | swore | heard
  understood
when: in the {hour} | the next day | after a while | at last | in the end | then | before noon | that night
  a week later | at first | on {day} | one {hour} | meanwhile | once more | after dinner | long before {day}
hour: morning | evening | afternoon | night
day: Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday | market day
season: spring | summer | autumn | winter
some: two | three | four | five | six | seven | ten | many | several | some | a few | twelve
digit: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9
weather_past: it rained | the wind blew | snow fell | the sun shone | the fog came down | the moon rose
  a storm broke | the bells rang | the stars came out | night fell | the river froze | the leaves fell
people_word: people | citizens | families | farmers | traders | children | sailors | students | craftsmen | shepherds
visitor: pilgrims | painters | students | travellers | sailors | scholars | merchants | musicians | wool buyers
building: school | chapel | bridge | hospital | granary | theatre | harbour | library | mill | prison | market | tower
  bath house | bakery | courthouse
event: great fire | long siege | flood | plague | harvest of 17{digit}{digit} | war of 18{digit}{digit}
  storm of 18{digit}{digit} | famine | earthquake | treaty of 17{digit}{digit}
town_part: market | old town | mills | lower gate | harbour | gardens | town wall | upper streets | meadows
  cattle yards | cathedral | tannery
body: council | guild | school | society | parish | academy | university | court | assembly | hospital
work: work | last book | teaching | collection | great map | early work | first essay | diary | portraits | method
  theory of {field_word} | garden
judged: praised | ignored | printed | bought | admired | rejected | burned | translated | copied | mocked | preserved
works: books | essays | letters | lectures | poems | reports | pamphlets | drawings | songs | plays
field_word: light | rain | numbers | rocks | colour | plants | sound | trade | history | winds | tides | metals
  music | law | heat | soils
kin: father | mother | brother | sister | cousin | uncle | aunt | grandfather
coat: coat | tail | winter coat | head | skin | long neck | voice | tongue
hunter: foxes | farmers | wolves | eagles | owls | weasels | snakes | hounds
weather_now: it rains | snow falls | the wind turns | the days grow short | the river floods | the fruit is ripe
  the frost comes | it is hot
"""
