"""Nouns of the source language: `word/plural=modifier+head`, the irregular plural and the definition where there is one.

Common words come first in every list; sentences use them more.
"""

PERSONS = """
man/men woman/women child/children king friend teacher=teach+person mother father baker=bread+person doctor soldier
farmer=field+person sister brother sailor=boat+person guest neighbor queen=king+woman prince=king+child
singer=sing+person dancer=dance+person writer=write+person painter=paint+person hunter=wolf+person fisher=fish+person
shepherd=goat+person gardener=garden+person miller=flour+person butcher=meat+person carpenter=wood+person
mason=stone+person smith=iron+person priest=temple+person merchant=market+person guard=gate+person
messenger=letter+person traveler=road+person student=learn+child weaver=cloth+person potter=pot+person
driver=wagon+person rider=horse+person nurse=sick+woman uncle=father+brother aunt=mother+sister
grandmother=old+mother grandfather=old+father nephew=brother+child niece=sister+child thief/thieves=hide+person beggar=poor+person
hero/heroes=brave+person enemy judge=wise+person poet=song+person giant=big+person
orphan=lonely+child widow=lonely+woman stranger=distant+person person/people
"""

ANIMALS = """
dog horse cat bird cow fish/fishes goat pig wolf/wolves bear fox snake mouse/mice bee duck lion rabbit
puppy=dog+child kitten=cat+child foal=horse+child calf/calves=cow+child kid=goat+child piglet=pig+child
chick=bird+child cub=bear+child rat=big+mouse owl=dark+bird eagle=mountain+bird swan=white+bird crow=black+bird
whale=big+fish shark=angry+fish donkey=small+horse hen=egg+bird butterfly=flower+bee spider=rope+bee parrot=speak+bird
gull=sea+bird lizard=small+snake otter=river+cat squirrel=tree+mouse
"""

THINGS = """
book letter table door knife/knives boat cup chair window bag box hat coat key=door+tool coin ring stone tree flower apple
bell lamp wheel wagon rope plate pot egg leaf/leaves shoe picture song word tool axe sword drum bone bed
ship=sea+boat saddle=horse+chair throne=king+chair crown=king+hat helmet=iron+hat boot=snow+shoe spoon=soup+tool
hammer=iron+tool needle=cloth+tool pen=write+tool oar=boat+tool hook=fish+tool map=road+picture portrait=person+picture
mirror=glass+picture lantern=dark+lamp barrel=wine+box chest=gold+box purse=coin+bag bucket=water+pot bottle=glass+pot
nest=bird+bed cradle=child+bed candle=bee+lamp diary=word+book rose=red+flower lemon=bitter+apple pear=honey+apple
oak=strong+tree pearl=sea+stone brick=house+stone anchor=boat+stone feather=bird+leaf prayer=temple+word flute=bone+drum
blanket=bed+coat
"""

PLACES = """
house garden river market village road forest sea mountain field bridge room castle temple tower kitchen=cook+room island
gate wall hill lake desert city=big+village school=learn+house bakery=bread+house library=book+house stable=horse+house
barn=cow+house prison=bad+house hospital=sick+house palace=king+house inn=guest+house harbor=boat+house
orchard=apple+garden meadow=flower+field vineyard=wine+garden mill=flour+house forge=iron+house tavern=beer+house
pond=small+lake stream=small+river path=small+road cellar=wine+room cave=stone+room capital=king+village coast=sea+wall
cabin=forest+house bathhouse=water+house theater=dance+house cemetery=bone+garden beach=sand+field swamp=wet+forest
"""

STUFF = """
water bread milk meat wine salt sugar flour gold wood honey soup rice beer oil silver iron glass cloth paper sand snow
butter=milk+oil cheese=milk+bread cake=sugar+bread juice=apple+water tea=leaf+water ice=hard+water steam=hot+water
mud=wet+sand wax=bee+oil jam=sugar+apple pork=pig+meat beef=cow+meat wool=goat+cloth leather=cow+cloth ink=write+water
steel=hard+iron porridge=rice+soup rain=cold+water
"""

NAMES = "anna peter clara martin julia oscar nora felix ida hugo maria anton laura simon emma paul rosa max lena otto eva karl vera tom"
