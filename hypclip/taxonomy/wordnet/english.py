"""Words of English that tell where a noun phrase begins and ends, for `head_nouns`."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PRONOUNS = _words("""
    i me myself you yourself he him himself she her hers herself it itself we us ourselves they them theirs themselves
    who whom whose what which when where why how there here this that these those mine ours yours
    someone somebody something somewhere anyone anybody anything everyone everybody everything nobody none nothing
    it's that's there's here's who's what's let's i'm you're we're they're he's she's i've you've we've don't can't
    """)
"""What stands for a noun phrase, or opens a clause: a phrase that begins with one of them has no head noun.

A few, such as "her" and "this", are determiners where a noun follows.
"""

DETERMINERS = _words("""
    a an the this that these those my your his her its our their some any no each every either neither another other
    both all several many few more most much enough such half first second third last next same own
    one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand
    """)
"""What may open a noun phrase, and ends the one before it."""

PREPOSITIONS = _words("""
    in on at with from to by for near beside besides between behind under over above below beneath into onto through
    across along around against during before after about inside outside within without like as than per via among amid
    toward towards upon off atop past beyond opposite underneath alongside depicting featuring showing including
    containing next out up down
    """)
"""What ends a noun phrase, or is skipped before one."""

CLAUSES = _words("""
    that which who whom whose where when while because if so since until though although but and or nor plus vs versus
    is are was were am be been being isn't aren't wasn't has have had does do did doesn't don't didn't could would
    should may might must shall cannot can't won't not also very just only away together ready available
    """)
"""What joins a clause or another phrase: it ends a noun phrase."""

CONJUNCTIONS = frozenset({"and", "or", "&", "n"})

HUES = _words("red yellow green blue purple pink brown black white grey gray")
"""Colours that are no things."""

COLOURS = HUES | _words("""
    orange violet beige gold golden silver turquoise teal navy tan cream maroon crimson scarlet bright dark light pale
    """)
"""Nouns that stand before another noun as adjectives do, also joined by "and"."""

PARTICIPLES = _words(
    "set made seen worn held taken shown left built hung cut put lit torn shot grown laid spread kept tied"
)
"""Irregular past participles; a preposition behind one says that it is one."""

SEEN_THROUGH = _words("""
    group bunch pair couple lot number series variety assortment array selection collection set dozen hundred thousand
    million plenty handful herd flock pack school swarm crowd cluster pile stack row heap line load batch
    slice piece chunk bit sheet drop kind type sort style breed species
    photo photograph picture image shot view close-up closeup snapshot majority rest amount half
    """)
"""Nouns whose phrase is about what follows "of": quantities, collections, kinds and photographs."""

GIVEN_NAMES = _words("""
    aaron adam alan albert alex alexander alice amanda amy andrea andrew angela anna anne anthony arthur barbara barry
    ben benjamin beth betty bill billy bob bobby bonnie brad brandon brenda brian bruce bryan carl carla carlos carol
    caroline catherine charles charlie charlotte chris christina christine christopher cindy claire colin craig daniel
    danny dave david deborah debra denise dennis diana diane don donald donna dorothy doug douglas dylan ed eddie edward
    elena elizabeth ellen emily emma eric erin ethan eva evelyn frank fred gary george gina glenn gloria gordon graham
    greg gregory hannah harold harry helen henry howard ian isaac jack jacob jake james jamie jane janet jason jeff
    jeffrey jennifer jenny jeremy jerry jesse jessica jim jimmy joan joe joel john johnny jon jonathan jordan jose
    joseph josh joshua juan judith judy julia julian julie justin karen kate katherine kathleen kathy katie keith kelly
    ken kenneth kevin kim kimberly kyle larry laura lauren lawrence lee leo leon leonard lewis linda lisa liz louis
    louise lucas lucy luis luke lynn marc marcus margaret maria marie mark martha martin mary matt matthew megan melissa
    michael michelle mike miguel mohamed muhammad nancy natalie nathan neil nicholas nick nicole noah nora norman oliver
    oscar pamela patricia patrick paul paula pedro peter phil philip phillip rachel ralph ray raymond rebecca richard
    rick rob robert roger ronald ross roy russell ruth ryan sam samantha samuel sandra sara sarah scott sean sharon
    shawn simon sophia sophie stephanie stephen steve steven stuart sue susan taylor ted teresa terry theresa thomas tim
    timothy todd tom tommy tony tyler vanessa victoria vincent virginia walter wayne wendy william willie zachary
    """)
"""Frequent given names; where all words have capitals and no article stands before, one of them begins a name."""
