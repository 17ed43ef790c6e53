"""Verbs of the source language by what they take, written as in `nouns`; a blank inside a verb is an underscore."""

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
