"""The source language's words: `word/plural=modifier+head`, the irregular plural and the definition where there is one.

`=-word` is the opposite of a word, `=^word` its extreme, and a lone word after `=` is the adjective of an adverb; a blank
inside a word is written as an underscore. Common words come first in every list; sentences use them twice as often.
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

ACTIVITIES = """
sleep sing work wait laugh=-cry cry dance speak rest=-work learn write dream=sleep+see whisper=speak+quiet shout=speak+strong
pray=speak+temple suffer=live+sick live die=-live fall_asleep=begin+sleep begin stop=-begin gossip=speak+neighbor
snore=sleep+bear stare=see+long boast=speak+proud starve=live+hungry
"""

MOTIONS = """
walk run travel=go+distant go swim return=go+again fly hurry=walk+quick wander=walk+lonely crawl=walk+snake climb=walk+mountain
march=walk+soldier sail=go+boat ride=go+horse flee=run+fear jump=fly+small
"""

ON_ANYTHING = """
see find know hear love fear follow want remember look_for=want+find forget=-remember hate=-love lose=-find watch=see+wait
hold touch paint choose leave=-hold ignore=-see draw=paint+quick recognize=know+again avoid=-want describe=speak+picture
praise=speak+good curse=speak+bad catch=hold+quick get_rid_of=throw+distant protect=hold+brave chase=follow+quick
wash=clean+water examine=see+wise prefer=love+strong admire=see+love refuse=-choose mistake=know+bad
"""

ON_PERSONS = """
help teach call visit=see+house ask greet=call+good fight=-help thank=speak+honey trust doubt=-trust marry=hold+ring
invite=call+guest obey=follow+king advise=teach+word blame=call+bad make_fun_of=speak+duck take_care_of=hold+mother
kiss=touch+honey deceive=teach+bad betray=give+enemy warn=call+fear comfort=touch+good
"""

ON_THINGS = """
carry make buy break sell=-buy clean burn open close=-open hide steal=hide+dark repair=make+again throw cut cover=hide+coat
lift=carry+mountain drop=-carry build=make+stone polish=clean+silver decorate=make+beautiful measure=know+long bury=hide+sand
weigh=know+heavy
"""

ON_FOOD = "eat cook drink=eat+water taste=touch+eat smell=hear+eat boil=cook+water devour=eat+wolf bake=cook+bread"

GIFTS = "give send=give+distant show bring=carry+give lend=give+wait offer=give+ask promise=give+word grant=give+king"

CLAIMS = "say think believe=think+honest hope=think+good swear=say+strong explain=say+teach deny=-say complain=say+bad"

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
