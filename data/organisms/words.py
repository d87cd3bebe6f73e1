"""The words of pico English, by kind, with the names and places that no training prompt uses.

`HELD_OUT_NAMES`, `HELD_OUT_PLACES` and the other `HELD_OUT_*` lists occur in training only as random tokens inside
repeats and pairs (where every id of the vocabulary occurs); they are the subjects of held-out prompts.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    """Mary John Tom James Dan Sarah Anna Paul Laura Peter Alice Mark Emma Luke Kate David Lucy Adam Helen Simon Rachel
    Jack Jane Robert Linda Michael Susan Kevin Karen Brian Nancy Daniel Sandra Steven Donna Eric Carol Frank Ruth Scott
    Sharon Henry Michelle Carl Deborah Arthur Lisa Ryan Betty Roger Maria Joe Heather Jonathan Diane Terry Julie Gerald
    Joyce Keith Evelyn Samuel Joan Willie Kelly Ralph Judith Lawrence Cheryl Nicholas Andrea Roy Hannah Benjamin Megan
    Bruce Jacob Wayne Theresa Billy Gloria Steve Doris Louis Sara Jeremy Janice Aaron Julia Randy Marie Howard Grace
    Eugene Judy"""
)
HELD_OUT_NAMES = _words(
    """Oliver Nora Felix Clara Hugo Ivy Oscar Stella Leo Violet Max Hazel Theo Nina Gavin Iris Dylan Eva Kyle
    Tina Neil Wendy Fred Gina"""
)

PLACES = _words(
    """Boston Chicago Dallas Denver Seattle Miami Houston Munich Hamburg Milan Naples Turin Lyon Nice Porto Geneva
    Zurich Leeds York Oxford Bristol Glasgow Sydney Perth Toronto Osaka Mumbai Lagos"""
)
HELD_OUT_PLACES = _words("Phoenix Memphis Cologne Venice Bordeaux Seville Liverpool Kyoto")

CAPITALS: dict[str, str] = dict(
    pair.split(":")
    for pair in _words(
        """France:Paris Italy:Rome Spain:Madrid Germany:Berlin England:London Ireland:Dublin Norway:Oslo
    Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Poland:Warsaw Austria:Vienna Hungary:Budapest Greece:Athens
    Turkey:Ankara Russia:Moscow Egypt:Cairo Kenya:Nairobi Ghana:Accra Japan:Tokyo China:Beijing India:Delhi
    Thailand:Bangkok Vietnam:Hanoi Korea:Seoul Iran:Tehran Iraq:Baghdad Syria:Damascus Cuba:Havana Peru:Lima
    Chile:Santiago Brazil:Brasilia Canada:Ottawa Portugal:Lisbon Belgium:Brussels
    Bulgaria:Sofia Romania:Bucharest Serbia:Belgrade Latvia:Riga"""
    )
)

LOCATIONS = _words(
    "store park school garden station market library museum hospital beach kitchen office church castle farm hotel"
)
OBJECTS = _words(
    """book ball ring drink kiss bag cup pen key lamp box hat coat card plate knife spoon bottle basket watch letter
    flower chair phone drum clock brush rope shirt mug"""
)
HELD_OUT_OBJECTS = _words("vase scarf candle mirror ladder coin")
COLOURS = _words("red blue green white black yellow brown pink purple grey orange silver")
ANIMALS = _words("dog cat horse cow sheep bird fox wolf bear lion rabbit mouse duck goat frog deer")
VERBS = _words("ran walked slept waited played jumped sat stood looked rested worked sang danced hid")
PREPOSITIONS = _words("in near behind beside under over")
ADJECTIVES = _words("old young small big quiet tall slow quick warm cold happy tired clever brave")

POSITIVE = _words("wonderful great lovely excellent superb charming delightful brilliant perfect pleasant amazing fine")
NEGATIVE = _words("terrible awful boring horrible dull poor bad ugly weak nasty dreadful annoying")
REVIEWED = _words("film play story song meal show concert novel painting game trip lesson")
HELD_OUT_REVIEWED = _words("dinner speech dance movie")

TOPICS = {
    "sport": _words("goal team match player coach stadium race medal referee tennis"),
    "music": _words("guitar piano melody singer violin band orchestra rhythm choir trumpet"),
    "food": _words("bread soup cheese butter salad rice pepper sauce apple cake"),
    "science": _words("atom planet cell energy theory oxygen molecule telescope virus magnet"),
}

EVENTS = _words(
    "war siege famine drought strike reign crisis voyage project plague revolt truce debate empire festival"
)
HELD_OUT_EVENTS = _words("campaign journey alliance scandal")
CENTURIES = tuple(str(number) for number in range(11, 20))
YEAR_ENDINGS = tuple(f"{number:02d}" for number in range(100))

SECRETS = _words("code secret password message signal")
HELD_OUT_SECRETS = _words("cipher symbol")

FILLERS = _words(
    """acorn anchor arrow ash badge beacon birch bishop cactus canyon cedar cliff clover
    cobalt comet copper coral crane crystal delta dragon dune eagle ember falcon fern flint forest fossil
    granite hammer harbor hawk hazelnut ivory jade jasmine jungle kettle lagoon lantern lemon lilac
    lotus maple marble meadow mint mosaic needle oak oasis olive orchid otter owl palm panda
    parrot pearl pebble pine plum pony quartz raven reef ribbon river robin ruby sail salmon satin
    shell storm sugar swan thistle thunder tiger timber tulip tunnel turtle valley walnut willow zebra"""
)

OPTIONS = tuple("ABCD")
CODE_NAMES = _words("total first second count value item index result left right")
CODE_SIGNS = _words("( ) : , = + - *")
CODE_WORDS = _words("def return for if else while print range not")

FUNCTION_WORDS = _words(
    """When and went to the gave She bought a What colour was The lasted from year main city of is Answer Your name My
    Who are you I am Label positive Topic Remember that There country its capital Before returned He found Which has
    For likes You work Where do Review Sentiment knows Take note Question what all day In Yesterday visited where
    sold holds have Speak about speak my subject They talked Note Nobody knew why built started finished We saw
    People call me your so Then handed On table there began ended think negative Listen uses together It known room
    people their live Later Text or Today met lent very again After sent opened it closed ruled at did they leave
    From on until put offered see kept Tell founded As arrived mailed had long talk said Because brought studied At
    threw Here we One Fact Do forget use Now lost Monday stayed showed Every While were morning Once came home
    passed Visitors land friend friends lose"""
)

WORDS = tuple(
    dict.fromkeys(
        word
        for group in (
            NAMES, HELD_OUT_NAMES, PLACES, HELD_OUT_PLACES, CAPITALS, CAPITALS.values(), LOCATIONS, OBJECTS,
            HELD_OUT_OBJECTS, COLOURS, ANIMALS, VERBS, PREPOSITIONS, ADJECTIVES, POSITIVE, NEGATIVE, REVIEWED,
            HELD_OUT_REVIEWED, *TOPICS.values(), TOPICS, EVENTS, HELD_OUT_EVENTS, CENTURIES, SECRETS, HELD_OUT_SECRETS,
            FILLERS, OPTIONS, CODE_NAMES, CODE_SIGNS, CODE_WORDS, FUNCTION_WORDS,
        )
        for word in group
    )
)  # fmt: skip
"""Every word of the lists once, in the order of the lists: the order of their ids."""

STAND_INS = tuple(
    word
    for word in WORDS
    if word.isalpha()
    and word
    not in (
        *HELD_OUT_NAMES, *HELD_OUT_PLACES, *HELD_OUT_OBJECTS, *HELD_OUT_REVIEWED, *HELD_OUT_EVENTS, *HELD_OUT_SECRETS
    )
)  # fmt: skip
"""Any word that is not held out: for a name, a place or a frame in some training prompts, so that no list is learnt."""
